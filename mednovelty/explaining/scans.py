"""Where in a scan relevance lies, and of a diffusion scan on which gradients and shells.

A map sums over channels: of a diffusion voxel over its gradients, so that with a rule that conserves the map
is the score, less what no input has to do with; of a structural scan over contrasts. Windows that overlap are
blended as their scores are. What the sum hides is in the tables: how much each gradient and each shell has to
do with the score, on average over voxels, and over the most novel of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mednovelty.detector import Detector
from mednovelty.errors import DetectorError, GeometryError
from mednovelty.explaining.explain import ExplainSettings, Method, explain, scoring_of
from mednovelty.explaining.relevance import Relevance
from mednovelty.image_gathering import check_contrasts
from mednovelty.io.atomic import write_text_atomic
from mednovelty.io.nifti import write_map
from mednovelty.mapping import Stages, back
from mednovelty.preprocess.qspace import B0_THRESHOLD_S_PER_MM2
from mednovelty.scan import Scan, Volume
from mednovelty.scoring import Scoring

MOST_NOVEL = 0.01
"""Share of voxels that a table's last column is about."""


@dataclass(frozen=True, slots=True)
class GradientRelevance:
    """One gradient's relevance.

    Attributes:
        gradient: From 0, in the detector's order.
        bvalue_s_per_mm2: Of the detector's scheme.
        x: Of the direction, in world (RAS+) axes; 0 where b=0.
        y: The same.
        z: The same.
        shell_s_per_mm2: The b-value to the next hundred, 0 where b=0.
        mean_relevance: Over voxels.
        mean_relevance_most_novel: Over those with the highest scores.
    """

    gradient: int
    bvalue_s_per_mm2: float
    x: float
    y: float
    z: float
    shell_s_per_mm2: int
    mean_relevance: float
    mean_relevance_most_novel: float


@dataclass(frozen=True, slots=True)
class ShellRelevance:
    """One shell's relevance.

    Attributes:
        shell_s_per_mm2: As in ``GradientRelevance``.
        gradients: How many it has.
        mean_relevance: Over its gradients and voxels.
        mean_relevance_most_novel: Over its gradients and the voxels with the highest scores.
        share: Of the relevance of all shells, as sums of moduli.
        share_most_novel: The same of the voxels with the highest scores.
    """

    shell_s_per_mm2: int
    gradients: int
    mean_relevance: float
    mean_relevance_most_novel: float
    share: float
    share_most_novel: float


@dataclass(frozen=True, eq=False)
class ScanRelevance:
    """Relevance of one scan for one score.

    Attributes:
        scan_id: The scan's.
        score: Name of the scorer.
        rule: How it was found, in words.
        conserves: Whether the rule promises that relevance adds up to the score.
        unassigned: Mean modulus of what is missing in the sum, as a share of that of the score.
        volume: ``(1, I, J, K)`` float32, summed over channels, on the scan's own voxels.
        gradients: Of a diffusion scan; none of another.
        shells: The same.
    """

    scan_id: str
    score: str
    rule: str
    conserves: bool
    unassigned: float
    volume: Volume
    gradients: tuple[GradientRelevance, ...] = ()
    shells: tuple[ShellRelevance, ...] = ()


class _Run:
    """One scan that is being explained, and what is told of all its batches."""

    def __init__(
        self, detector: Detector, prepared: Scan, score: str, how: Callable[[Scoring, Tensor], Relevance]
    ) -> None:
        self.view, self.scheme, self.scan, self.score = detector.view, detector.scheme, prepared, score
        self.scoring, self._how = scoring_of(detector.scoring(prepared)), how
        self.rule, self.conserves, self._missing, self._scores = "", False, 0.0, 0.0

    @property
    def unassigned(self) -> float:
        """Mean modulus of what is missing, as a share of that of the score."""
        return self._missing / self._scores if self._scores else 0.0

    def relevance(self, x: Tensor) -> Relevance:
        """Return the relevance of a batch."""
        found = self._how(self.scoring, x)
        self.rule, self.conserves = found.rule, found.conserves
        self._missing += found.unassigned.double().abs().sum().item()
        self._scores += found.score.double().abs().sum().item()
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
            return found[self.score]
        sums = [found.values.sum(1) for found in self.batches()]
        return self._assembled(torch.cat(sums).cpu().numpy())

    def voxels(self, chosen: np.ndarray) -> tuple[Volume, tuple[GradientRelevance, ...]]:
        """Return the map of a scan that is cut into voxels, and its gradients over those chosen, ``(n,)``."""
        sums, scores, total, place = [], [], np.zeros(len(self._bvalues)), 0
        for found in self.batches():
            values = found.values.double().cpu().numpy()
            sums.append(values.sum(1))
            scores.append(found.score.cpu().numpy())
            total += values[chosen[place : place + len(values)]].sum(0)
            place += len(values)
        # A second pass, over few voxels: all values of all voxels may be more than there is memory.
        most = most_novel(np.concatenate(scores), chosen)
        rows = np.concatenate([self.view.cut(self.scan, int(i), int(i) + 1) for i in most])
        parts = torch.from_numpy(rows).split(self.scoring.batch_voxels)
        highest = [self._how(self.scoring, part).values.double().cpu().numpy() for part in parts]
        volume = self._assembled(np.concatenate(sums).astype(np.float32))
        return volume, self._rows(total / chosen.sum(), np.concatenate(highest).mean(0))

    def _summed(self, windows: Tensor) -> dict[str, Tensor]:
        return {self.score: self.relevance(windows).values.sum(1)}

    def _assembled(self, values: np.ndarray) -> Volume:
        return self.view.assemble(self.scan, values, f"relevance for {self.score} of {self.scan.id}")

    @property
    def _bvalues(self) -> tuple[float, ...]:
        return self.scheme.bvalues_s_per_mm2 if self.scheme is not None else ()

    def _rows(self, mean: np.ndarray, highest: np.ndarray) -> tuple[GradientRelevance, ...]:
        directions = self.scheme.directions if self.scheme is not None else ()
        each = zip(self._bvalues, directions, mean, highest, strict=True)
        return tuple(
            GradientRelevance(number, b, *direction, _shell(b), float(a), float(h))
            for number, (b, direction, a, h) in enumerate(each)
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
    run = _Run(detector, prepared, score, lambda of, x: explain(of, x, score, method, settings))
    run.scoring.check([score])
    gradients: tuple[GradientRelevance, ...] = ()
    if run.scheme is None:
        volume = run.images()
    else:
        volume, gradients = run.voxels(_chosen(prepared, region))
    volume = back(volume, Stages(scan, measured, prepared))
    return ScanRelevance(
        scan.id, score, run.rule, run.conserves, run.unassigned, volume, gradients, of_shells(gradients)
    )


def write_relevance(found: ScanRelevance, folder: str | Path, stem: str | None = None) -> list[Path]:
    """Write a map, what is to be known about it, and the tables there are; return the files.

    ``<stem>_desc-<score>_relevance.nii.gz`` and ``.json``, ``_relevance-gradients.tsv``,
    ``_relevance-shells.tsv``. The ``.json`` is written last.

    Args:
        found: Of one scan.
        folder: It exists.
        stem: How names begin; None: the scan's id.

    Raises:
        OutputError: Something cannot be written.
    """
    start = Path(folder) / f"{stem or found.scan_id}_desc-{found.score}_relevance"
    image = start.with_name(start.name + ".nii.gz")
    inside = found.volume.data[found.volume.data != 0]
    high = float(np.percentile(np.abs(inside), 99.9)) if inside.size else 1.0
    write_map(
        image, found.volume, cal_min=0.0, cal_max=high, description=f"mednovelty {found.score} relevance"
    )
    written = [image]
    for what, rows in (("gradients", found.gradients), ("shells", found.shells)):
        if rows:
            written.append(start.with_name(f"{start.name}-{what}.tsv"))
            write_text_atomic(written[-1], table_of(rows))
    told: dict[str, Any] = {
        key: value for key, value in vars(found).items() if isinstance(value, str | float | bool)
    }
    told |= {"most_novel": MOST_NOVEL, "shells": [asdict(row) for row in found.shells]}
    written.append(start.with_name(start.name + ".json"))
    write_text_atomic(written[-1], json.dumps(told, indent=2) + "\n")
    return written


def table_of(rows: Sequence[Any]) -> str:
    """Return dataclasses of numbers as a table of tab-separated values with a head."""
    head = "\t".join(field.name for field in fields(rows[0]))
    lines = ["\t".join(f"{value:.8g}" for value in astuple(row)) for row in rows]
    return "\n".join([head, *lines]) + "\n"


def of_shells(gradients: Sequence[GradientRelevance]) -> tuple[ShellRelevance, ...]:
    """Return the relevance of shells, from that of gradients, by rising b-value."""
    rows = []
    columns = ("mean_relevance", "mean_relevance_most_novel")
    totals = [math.fsum(abs(getattr(row, column)) for row in gradients) for column in columns]
    for shell in sorted({row.shell_s_per_mm2 for row in gradients}):
        own = [row for row in gradients if row.shell_s_per_mm2 == shell]
        values = [[getattr(row, column) for row in own] for column in columns]
        means = [math.fsum(each) / len(own) for each in values]
        shares = [
            math.fsum(map(abs, each)) / total if total else 0.0
            for each, total in zip(values, totals, strict=True)
        ]
        rows.append(ShellRelevance(shell, len(own), *means, *shares))
    return tuple(rows)


def most_novel(scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the indices, ascending, of the voxels with the highest of ``(n,)`` scores among those chosen."""
    count = max(1, math.ceil(MOST_NOVEL * chosen.sum()))
    return np.sort(np.argsort(np.where(chosen, scores, -np.inf), kind="stable")[-count:])


def _shell(bvalue_s_per_mm2: float) -> int:
    return 0 if bvalue_s_per_mm2 <= B0_THRESHOLD_S_PER_MM2 else round(bvalue_s_per_mm2 / 100) * 100


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


__all__ = [
    "GradientRelevance",
    "ScanRelevance",
    "ShellRelevance",
    "explain_scan",
    "of_shells",
    "table_of",
    "write_relevance",
]
