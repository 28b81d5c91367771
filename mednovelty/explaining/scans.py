"""Where in a scan relevance lies, and of a diffusion scan on which gradients and shells.

A map sums over channels: of a diffusion voxel over its gradients, so that with a rule that conserves the map
is the score, less what no input has to do with; of a structural scan over contrasts. Windows that overlap are
blended as their scores are. What the sum hides of single voxels is in a volume for each gradient, and in
tables: how much each gradient and each shell has to do with the score, on average over voxels, and over the
most novel of them. Windows of diffusion scans have the sum alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import torch
from torch import Tensor

from mednovelty.detector import Detector
from mednovelty.errors import DetectorError, GeometryError
from mednovelty.explaining.explain import ExplainSettings, Method, explain, scoring_of
from mednovelty.explaining.relevance import Relevance
from mednovelty.explaining.tables import (
    MOST_NOVEL,
    GradientRelevance,
    ShellRelevance,
    of_shells,
    shell_of,
)
from mednovelty.image_gathering import check_contrasts
from mednovelty.mapping import Stages, back
from mednovelty.scan import Scan, Volume
from mednovelty.scoring import Scoring


@dataclass(frozen=True, eq=False)
class GradientVolumes(Sequence[Volume]):
    """A volume of relevance for each volume of a diffusion scan, in its file's order, made when asked for.

    Attributes:
        values: ``(n, C)`` float32 of the voxels that were explained, in the detector's order of gradients.
        volumes: ``(C,)``: which volume of the file each gradient is.
        placed: From ``(n,)`` to ``(1, I, J, K)`` on the scan's own voxels.
    """

    values: np.ndarray
    volumes: np.ndarray
    placed: Callable[[np.ndarray], Volume]

    def __len__(self) -> int:
        return len(self.volumes)

    @overload
    def __getitem__(self, index: int) -> Volume: ...
    @overload
    def __getitem__(self, index: slice) -> list[Volume]: ...
    def __getitem__(self, index: int | slice) -> Volume | list[Volume]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        gradient = int(np.flatnonzero(self.volumes == range(len(self))[index])[0])
        return self.placed(np.ascontiguousarray(self.values[:, gradient]))


@dataclass(frozen=True, slots=True)
class Sums:
    """What a score is made of, as means over samples, in its unit.

    Attributes:
        score: That was explained; of a score that is a map, a sample's sum.
        relevance: Of all inputs.
        constant: What no input has to do with, as the height of a kernel.
        lost: The rest, as of a rule that does not conserve, or what biases have kept.
    """

    score: float = 0.0
    relevance: float = 0.0
    constant: float = 0.0
    lost: float = 0.0


@dataclass(frozen=True, eq=False)
class ScanRelevance:
    """Relevance of one scan for one score.

    Attributes:
        scan_id: The scan's.
        score: Name of the scorer.
        rule: How it was found, in words.
        conserves: Whether the rule promises that relevance adds up to the score.
        sums: Means over samples, which add up: the score is relevance, constant and what is lost.
        unassigned: Mean modulus of what is lost, as a share of that of the score.
        volume: ``(1, I, J, K)`` float32, summed over channels, on the scan's own voxels.
        gradients: Of a diffusion scan cut into voxels; none of another.
        shells: The same.
        by_gradient: The same: where each gradient's relevance lies.
    """

    scan_id: str
    score: str
    rule: str
    conserves: bool
    sums: Sums
    unassigned: float
    volume: Volume
    gradients: tuple[GradientRelevance, ...] = ()
    shells: tuple[ShellRelevance, ...] = ()
    by_gradient: Sequence[Volume] = field(default=())


class _Run:
    """One scan that is being explained, and what is told of all its batches."""

    def __init__(
        self, detector: Detector, scan: Stages, score: str, how: Callable[[Scoring, Tensor], Relevance]
    ) -> None:
        self.view, self.scheme, self.stages, self.score = detector.view, detector.scheme, scan, score
        self.scan = scan.prepared
        self.scoring, self._how = scoring_of(detector.scoring(self.scan)), how
        self.rule, self.conserves = "", False
        self._totals, self._missing, self._moduli, self._samples = np.zeros(4), 0.0, 0.0, 0

    @property
    def unassigned(self) -> float:
        """Mean modulus of what is missing, as a share of that of the score."""
        return self._missing / self._moduli if self._moduli else 0.0

    @property
    def sums(self) -> Sums:
        """Means over the samples seen."""
        return Sums(*(self._totals / max(self._samples, 1)).tolist())

    def relevance(self, x: Tensor) -> Relevance:
        """Return the relevance of a batch."""
        found = self._how(self.scoring, x)
        self.rule, self.conserves = found.rule, found.conserves
        parts = (found.score, found.values.flatten(1).sum(1), found.constant, found.unassigned)
        self._totals += [part.double().sum().item() for part in parts]
        self._missing += found.unassigned.double().abs().sum().item()
        self._moduli += found.score.double().abs().sum().item()
        self._samples += len(x)
        return found

    def batches(self) -> Iterator[Relevance]:
        """Yield the relevance of all samples that the view cuts."""
        count, step = self.view.count(self.scan), self.scoring.batch_voxels
        for start in range(0, count, step):
            samples = self.view.cut(self.scan, start, min(start + step, count))
            yield self.relevance(torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)))

    def images(self) -> Volume:
        """Return the map of a scan that is cut into slices or windows."""
        if hasattr(self.view, "stitch"):
            with torch.no_grad():
                found = self.view.stitch(self.scan, self._summed, device=self.scoring.device)
            return back(found[self.score], self.stages)
        sums = [found.values.sum(1).cpu() for found in self.batches()]
        return self.placed(torch.cat(sums).numpy())

    def voxels(self, chosen: np.ndarray) -> tuple[Volume, GradientVolumes, tuple[GradientRelevance, ...]]:
        """Return the maps of a scan cut into voxels, and its gradients over those chosen, ``(n,)`` bool."""
        values = np.empty((len(chosen), len(self._bvalues)), np.float32)
        scores, place = np.empty(len(chosen), np.float32), 0
        for found in self.batches():
            part = slice(place, place + len(found.values))
            values[part], scores[part] = found.values.cpu().numpy(), found.score.cpu().numpy()
            place = part.stop
        mean = values[chosen].mean(0, dtype=np.float64)
        highest = values[most_novel(scores, chosen)].mean(0, dtype=np.float64)
        summed = self.placed(values.sum(1, dtype=np.float64).astype(np.float32))
        return summed, GradientVolumes(values, self._volumes, self.placed), self._rows(mean, highest)

    def placed(self, values: np.ndarray) -> Volume:
        """Return relevance of samples on the voxels of the scan as it was given."""
        name = f"relevance for {self.score} of {self.scan.id}"
        return back(self.view.assemble(self.scan, values, name), self.stages)

    def _summed(self, windows: Tensor) -> dict[str, Tensor]:
        return {self.score: self.relevance(windows).values.sum(1)}

    @property
    def _bvalues(self) -> tuple[float, ...]:
        return self.scheme.bvalues_s_per_mm2 if self.scheme is not None else ()

    @property
    def _volumes(self) -> np.ndarray:
        """Which volume of the scan's file each of the detector's gradients is."""
        given = self.stages.given
        if self.scheme is None or given.gradients is None:
            return np.empty(0, np.int64)
        return self.scheme.order_of(given.gradients, given.id)

    def _rows(self, mean: np.ndarray, highest: np.ndarray) -> tuple[GradientRelevance, ...]:
        directions = self.scheme.directions if self.scheme is not None else ()
        each = zip(self._volumes.tolist(), self._bvalues, directions, mean, highest, strict=True)
        return tuple(
            GradientRelevance(number, volume, b, *direction, shell_of(b), float(a), float(h))
            for number, (volume, b, direction, a, h) in enumerate(each)
        )


def explain_scan(
    detector: Detector,
    scan: Scan,
    score: str,
    method: Method = "auto",
    settings: ExplainSettings | None = None,
    region: np.ndarray | None = None,
) -> ScanRelevance:
    """Return the relevance of a scan's voxels, and of a diffusion scan's gradients, for a score.

    Args:
        detector: Fitted on such scans.
        scan: From ``read_scan``.
        score: Name of the scorer.
        method: See ``explain``.
        settings: See ``explain``.
        region: ``(I, J, K)`` bool: of which voxels tables tell, as of a lesion; None: of all in the mask.

    Raises:
        DetectorError: It was fitted on arrays and knows no scans.
        GeometryError: The region is not of the scan's shape, or has no voxel in its mask.
        ScanError: The scan does not fit the detector.
        SettingsError: The score cannot be explained, see ``explain``.
    """
    if not detector.preprocessing:
        raise DetectorError("this detector was fitted on arrays and knows no scans; use explain")
    if detector.contrasts:
        check_contrasts(scan, detector.contrasts)
    prepared, measured = detector.prepare(scan)
    stages = Stages(scan, measured, prepared)
    run = _Run(detector, stages, score, lambda of, x: explain(of, x, score, method, settings))
    run.scoring.check([score])
    gradients: tuple[GradientRelevance, ...] = ()
    by_gradient: Sequence[Volume] = ()
    if len(detector.shape) > 1 or run.scheme is None:
        volume = run.images()
    else:
        volume, by_gradient, gradients = run.voxels(_chosen(prepared, region))
    return ScanRelevance(
        scan.id, score, run.rule, run.conserves, run.sums, run.unassigned, volume, gradients,
        of_shells(gradients), by_gradient,
    )  # fmt: skip


def most_novel(scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the indices, ascending, of the voxels with the highest of ``(n,)`` scores among those chosen."""
    count = max(1, math.ceil(MOST_NOVEL * chosen.sum()))
    return np.sort(np.argsort(np.where(chosen, scores, -np.inf), kind="stable")[-count:])


def _chosen(scan: Scan, region: np.ndarray | None) -> np.ndarray:
    """Return ``(n,)`` bool: which voxels of the mask, in its order, a region has."""
    places = np.flatnonzero(scan.mask.ravel(order="F"))
    if region is None:
        return np.ones(len(places), bool)
    if region.shape != scan.mask.shape:
        raise GeometryError(
            f"region of {scan.id}: shape {region.shape} does not fit the scan's {scan.mask.shape}",
            code="geometry.shape",
        )
    chosen = region.ravel(order="F")[places].astype(bool)
    if not chosen.any():
        raise GeometryError(
            f"region of {scan.id}: none of its {np.count_nonzero(region)} voxels lies in the brain mask",
            code="geometry.outside",
        )
    return chosen


__all__ = ["GradientVolumes", "ScanRelevance", "Sums", "explain_scan", "most_novel"]
