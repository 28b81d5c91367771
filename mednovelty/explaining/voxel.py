"""Why one voxel scores as it does: its sample beside its nearest normals, and what drives each score.

A score is driven by what it falls by when a group of channels, a shell or a contrast, is as in the nearest
normals (their mean) and all else as it is. That can be asked of every score, searches and trees among them,
and is said in the score's own unit; where ``explain`` knows a rule of relevance, that is told beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mednovelty.errors import DetectorError, MedNoveltyError, ScanError, SettingsError
from mednovelty.explaining.derivatives import differentiable, gradient
from mednovelty.explaining.explain import explain, scoring_of
from mednovelty.explaining.nearest import NearestNormals, nearest_normals, reconstruction
from mednovelty.explaining.null_curve import that_gave
from mednovelty.explaining.places import Index, mm_of, standing
from mednovelty.explaining.samples import sample_showing
from mednovelty.explaining.tables import shell_of
from mednovelty.explaining.tensor import Tensors, tensors
from mednovelty.explaining.voxel_parts import (
    BAND,
    DiffusionWhy,
    Driver,
    Group,
    Quantity,
    Scored,
    ScoreWhy,
    VoxelWhy,
    at_pixel,
)
from mednovelty.image_gathering import check_contrasts
from mednovelty.mapping import describe
from mednovelty.scan import Scan
from mednovelty.score_names import needs_signal
from mednovelty.scoring import Scoring

if TYPE_CHECKING:
    from mednovelty.detector import Detector

NEAREST = 5
MOST_NORMALS = 20_000
"""Normals that the band and the spread of tensors are taken over, evenly of all."""
TENSOR = ("md", "fa", "misfit")
OWN_MASK = "voxels of this scan's own brain mask"


def explain_voxel(detector: Detector, scan: Scan, voxel: Index, scored: Scored, k: int = NEAREST) -> VoxelWhy:
    """Return why a voxel scores as it does.

    Args:
        detector: That scored the scan.
        scan: As it was scored.
        voxel: Index of a voxel in its mask.
        scored: Its maps.
        k: How many of the nearest normals are looked at.

    Raises:
        DetectorError: The detector was fitted on arrays.
        ScanError: The scan does not fit the detector, or no sample shows the voxel.
        SettingsError: k is less than 1.
    """
    if not detector.preprocessing:
        raise DetectorError("this detector was fitted on arrays and knows no scans; use explain")
    if k < 1:
        raise SettingsError(f"nearest must be at least 1, got {k}")
    if detector.contrasts:
        check_contrasts(scan, detector.contrasts)
    prepared, _ = detector.prepare(scan)
    mm = mm_of(scan.grid, voxel)
    sample, pixel = _sample(detector, prepared, np.array(mm))
    x = torch.from_numpy(np.ascontiguousarray(sample, np.float32)).flatten()[None]
    scoring = scoring_of(detector.scoring(prepared))
    x = x.to(scoring.device)
    near = nearest_normals(detector, x, k)
    groups = groups_of(detector)
    asking = _Asking(detector, scoring, x, near, groups, pixel)
    mask = scan.mask if scored.mask is None else scored.mask
    scores = tuple(asking.why(name, scored, voxel, mask) for name in scored.maps)
    scale = _scale(detector, sample.ndim)
    again = reconstruction(detector, x)
    normals = np.empty((0, *sample.shape), np.float32) if near is None else near.samples
    normals = normals.reshape(-1, *sample.shape) * scale
    gradient_of, slope = asking.slope([name for name in scored.maps if name not in scored.others])
    return VoxelWhy(
        scan.id, voxel, mm, scores, groups, sample * scale,
        None if again is None else again.reshape(sample.shape) * scale, near, normals, pixel,
        _diffusion(detector, sample * scale, normals, scale) if not pixel else None,
        slope, gradient_of,
    )  # fmt: skip


def _about(name: str, detector: Detector) -> str:
    if name in detector.scan_scores:
        return ""
    return str(describe(name, detector.contrast_baselines).get("description", ""))


def groups_of(detector: Detector) -> tuple[Group, ...]:
    """Return a detector's channels by contrast, or by shell and rising b-value."""
    if detector.scheme is None:
        return tuple(Group(name, (channel,)) for channel, name in enumerate(detector.contrasts))
    shells = [shell_of(b) for b in detector.scheme.bvalues_s_per_mm2]
    return tuple(
        Group(f"b={shell}", tuple(c for c, own in enumerate(shells) if own == shell))
        for shell in sorted(set(shells))
    )


def _sample(detector: Detector, prepared: Scan, mm: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the sample that shows a place, and the pixel in it; of a sample that is a voxel, no pixel."""
    view = detector.view
    if len(detector.shape) > 1:
        number, pixel = sample_showing(view, prepared, mm)
        return view.cut(prepared, number, number + 1)[0], pixel
    i, j, k = np.rint(np.linalg.solve(prepared.grid.affine, np.array([*mm, 1.0]))[:3]).astype(int)
    # Voxels of the mask in the file's order, I fastest.
    flat = int(np.ravel_multi_index((i, j, k), prepared.mask.shape, order="F"))
    row = int(np.count_nonzero(prepared.mask.ravel(order="F")[:flat]))
    return prepared.voxels(row, row + 1)[0], ()


class _Asking:
    """What each score makes of one sample, and of the same with some channels as in the nearest normals."""

    def __init__(
        self,
        detector: Detector,
        scoring: Scoring,
        x: torch.Tensor,
        near: NearestNormals | None,
        groups: Sequence[Group],
        pixel: tuple[int, ...],
    ) -> None:
        self.detector, self.scoring, self.x, self.groups, self.pixel = detector, scoring, x, groups, pixel
        self.normal = None
        if near is not None and len(near.samples):
            self.normal = near.samples.mean(0, dtype=np.float64).astype(np.float32)

    def why(self, name: str, scored: Scored, voxel: Index, mask: np.ndarray) -> ScoreWhy:
        """Return what is told of one score."""
        volume, p_values = scored.maps[name], scored.p_values.get(name)
        stands = standing(volume, mask, voxel, OWN_MASK)
        p_value = None if p_values is None else float(p_values[voxel])
        told = (name, float(volume[voxel]), stands, p_value)
        null = that_gave(scored.nulls.get(name, ()), told[1], p_value)
        if name in scored.others:
            about, members = scored.abouts.get(name, ""), scored.members.get(name, ())
            return ScoreWhy(*told, rule=scored.others[name], about=about, null=null, members=members)
        about = _about(name, self.detector)
        if name in (*self.detector.contrast_baselines, *self.detector.scan_scores) or needs_signal([name]):
            return ScoreWhy(*told, rule="is no score of one sample by a model", about=about, null=null)
        own, falls, without, as_normal = self._substituted(name)
        values, rule = self._relevance(name)
        relevance = [None if values is None else float(values[list(g.channels)].sum()) for g in self.groups]
        drivers = tuple(
            Driver(group.name, float(value), share)
            for group, value, share in zip(self.groups, without, relevance, strict=False)
        )
        return ScoreWhy(*told, own, as_normal, drivers, falls, values, rule, about, null)

    def slope(self, names: Sequence[str]) -> tuple[str, np.ndarray | None]:
        """Return the first score that has a derivative by an image, and its modulus, ``(*space)``."""
        for name in names if self.pixel else ():
            try:
                found = gradient(differentiable(self.scoring, name), self.x, name)[0]
            except MedNoveltyError:
                continue
            return name, found.reshape(self.detector.shape).abs().sum(0).cpu().numpy()
        return "", None

    def _substituted(self, name: str) -> tuple[float, np.ndarray | None, np.ndarray, float | None]:
        """Return the score, its falls by channel, its values without each group, and with all as normal."""
        shape, x = self.detector.shape, self.x[0].cpu().numpy()
        rows = [x]
        if self.normal is not None:
            own, normal = x.reshape(shape), self.normal.reshape(shape)
            channels = [(c,) for c in range(shape[0])] if len(self.groups) < shape[0] else []
            for group in (*(g.channels for g in self.groups), tuple(range(shape[0])), *channels):
                changed = own.copy()
                changed[list(group)] = normal[list(group)]
                rows.append(changed.reshape(-1))
        values = self._scores(name, np.stack(rows))
        if len(rows) == 1:
            return float(values[0]), None, np.empty(0), None
        n = len(self.groups)
        each = values[n + 2 :] if len(values) > n + 2 else values[1 : n + 1]
        return float(values[0]), values[0] - each, values[1 : n + 1], float(values[n + 1])

    def _scores(self, name: str, rows: np.ndarray) -> np.ndarray:
        def cut(start: int, stop: int) -> tuple[np.ndarray, None]:
            return rows[start:stop], None

        found = self.scoring.run([name], cut, len(rows))[name].astype(np.float64)
        return found if found.ndim == 1 else at_pixel(found, self.pixel)

    def _relevance(self, name: str) -> tuple[np.ndarray | None, str]:
        try:
            found = explain(self.scoring, self.x, name)
        except (SettingsError, ScanError) as error:
            return None, str(error)
        values = found.values[0].reshape(self.detector.shape[0], -1).sum(1)
        return values.cpu().double().numpy(), found.rule


def _scale(detector: Detector, dimensions: int) -> Any:
    """Return what turns a preprocessed sample into what is shown: the channels' means are taken back."""
    step = dict(detector.preprocessing).get("channel_mean")
    if step is None:
        return np.float32(1)
    return np.array(step.means, np.float32).reshape(-1, *[1] * (dimensions - 1))  # type: ignore[attr-defined]


def _diffusion(
    detector: Detector, signal: np.ndarray, normals: np.ndarray, scale: np.ndarray
) -> DiffusionWhy | None:
    scheme = detector.scheme
    if scheme is None:
        return None
    bvalues, directions = np.array(scheme.bvalues_s_per_mm2), np.array(scheme.directions)
    own = detector.reference.parts.get("input", detector.reference.parts.get("reconstruction_mean"))
    if own is None or not len(own):
        return DiffusionWhy(bvalues, directions, None, 0, None, None, None)
    rows = np.unique(np.linspace(0, len(own) - 1, min(len(own), MOST_NORMALS)).astype(np.int64))
    every = own[torch.from_numpy(rows).to(own.device)].cpu().numpy() * scale
    band = np.quantile(every, BAND, axis=0)
    outside = int(np.count_nonzero((signal < band[0]) | (signal > band[1])))
    fits = [tensors(part, bvalues, directions) for part in (signal[None], normals, every) if len(part)]
    if len(fits) < 3 or any(fit is None for fit in fits):
        return DiffusionWhy(bvalues, directions, band, outside, None, None, None)
    return DiffusionWhy(bvalues, directions, band, outside, *(_quantity(fits, name) for name in TENSOR))


def _quantity(fits: Sequence[Tensors | None], name: str) -> Quantity:
    voxel, nearest, every = (getattr(fit, name) for fit in fits)
    low, high = np.quantile(every, BAND)
    return Quantity(float(voxel[0]), float(nearest.mean()), float(low), float(high))


__all__ = ["NEAREST", "explain_voxel", "groups_of"]
