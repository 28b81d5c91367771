"""Why one voxel scores as it does: its sample beside its nearest normals, and what drives each score.

A score is driven by what it falls by when a group of channels, a shell or a contrast, is as in the nearest
normals (their mean) and all else as it is. That can be asked of every score, searches and trees among them,
and is said in the score's own unit; where ``explain`` knows a rule of relevance, that is told beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mednovelty.errors import DetectorError, MedNoveltyError, ScanError, SettingsError
from mednovelty.explaining.derivatives import differentiable, gradient
from mednovelty.explaining.explain import explain, scoring_of
from mednovelty.explaining.nearest import NearestNormals, nearest_normals, reconstruction
from mednovelty.explaining.places import Index, Place, Standing, mm_of, standing
from mednovelty.explaining.samples import sample_showing
from mednovelty.explaining.tables import shell_of
from mednovelty.explaining.tensor import Tensors, tensors
from mednovelty.image_gathering import check_contrasts
from mednovelty.mapping import describe
from mednovelty.scan import Scan
from mednovelty.score_names import needs_signal
from mednovelty.scoring import Scoring

if TYPE_CHECKING:
    from mednovelty.detector import Detector

NEAREST = 5
BAND = (0.05, 0.95)
MOST_NORMALS = 20_000
"""Normals that the band and the spread of tensors are taken over, evenly of all."""
TENSOR = ("md", "fa", "misfit")
OWN_MASK = "voxels of this scan's own brain mask"


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that belong together: a shell, a contrast.

    Attributes:
        name: ``b=1000``, ``FLAIR``.
        channels: Indices, in the detector's order.
    """

    name: str
    channels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Driver:
    """What a group of channels has to do with a score.

    Attributes:
        group: Its name.
        without: The score were the group as in the nearest normals.
        relevance: The group's, by the rule of ``ScoreWhy.rule``; None where there is none.
    """

    group: str
    without: float
    relevance: float | None = None


@dataclass(frozen=True, eq=False)
class ScoreWhy:
    """One score of the voxel.

    Attributes:
        score: Its name.
        value: In the map.
        standing: How high that is.
        p_value: Of the map of p-values, where there is one.
        own: What the score is of the sample alone, in its pixel; of a map that was not smoothed nor blended
            from several windows the same as ``value``. None of scores that see more than the sample.
        as_normal: The same were all channels as in the nearest normals; None without any.
        drivers: A group each.
        by_channel: ``(C,)``: what ``own`` falls by when that channel is as in the nearest normals.
        relevance: ``(C,)``, summed over the sample; None where ``rule`` says why not.
        rule: How relevance was found, or why there is none.
        about: What the score is, in words.
    """

    score: str
    value: float
    standing: Standing
    p_value: float | None = None
    own: float | None = None
    as_normal: float | None = None
    drivers: tuple[Driver, ...] = ()
    by_channel: np.ndarray | None = None
    relevance: np.ndarray | None = None
    rule: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of the voxel beside the same of normals.

    Attributes:
        voxel: Here.
        nearest: Mean of the nearest normals.
        low: 5 % of all normals are below.
        high: 5 % are above.
    """

    voxel: float
    nearest: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class DiffusionWhy:
    """What is told of a diffusion voxel besides.

    Attributes:
        bvalues: ``(C,)``, in s/mm2.
        directions: ``(C, 3)``, world axes.
        band: ``(2, C)`` signals below which 5 % and 95 % of all normals are; None without their signals.
        outside: How many channels lie beyond it.
        md: Mean diffusivity in mm2/s; None where the acquisition or the reference does not give it.
        fa: Fractional anisotropy.
        misfit: How far signals scatter around what the tensor says, relative to it.
    """

    bvalues: np.ndarray
    directions: np.ndarray
    band: np.ndarray | None
    outside: int
    md: Quantity | None
    fa: Quantity | None
    misfit: Quantity | None


@dataclass(frozen=True, eq=False)
class VoxelWhy:
    """Why one voxel scores as it does.

    Attributes:
        scan_id: Whose.
        voxel: Index in the scan as it was given.
        mm: Its centre, RAS+.
        scores: Those that were asked for.
        groups: Of channels.
        signal: ``(C, *space)``: the sample. Of diffusion, relative to the mean of the scan's brain; of other
            scans as preprocessed.
        reconstruction: The same as the model makes it; None of models that do not decode.
        nearest: The nearest normals; None where the detector keeps none.
        normals: ``(k, C, *space)`` of these, in the unit of ``signal``; k may be 0.
        pixel: Where in the sample the voxel is; empty of a voxel.
        diffusion: Of a diffusion scan cut into voxels.
        gradient: ``(*space)`` modulus of the derivative of ``gradient_of`` by the sample.
        gradient_of: Which score; empty where there is none.
    """

    scan_id: str
    voxel: Index
    mm: Place
    scores: tuple[ScoreWhy, ...]
    groups: tuple[Group, ...]
    signal: np.ndarray
    reconstruction: np.ndarray | None
    nearest: NearestNormals | None
    normals: np.ndarray
    pixel: tuple[int, ...] = ()
    diffusion: DiffusionWhy | None = None
    gradient: np.ndarray | None = None
    gradient_of: str = ""


@dataclass(frozen=True, eq=False)
class Scored:
    """The maps of a scan in which a voxel is explained.

    Attributes:
        maps: By score, ``(I, J, K)``.
        p_values: By score, in (0, 1]; of those that are calibrated.
    """

    maps: Mapping[str, np.ndarray]
    p_values: Mapping[str, np.ndarray] = field(default_factory=dict)


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
    scores = tuple(asking.why(name, scored, voxel, scan.mask) for name in scored.maps)
    scale = _scale(detector, sample.ndim)
    again = reconstruction(detector, x)
    normals = np.empty((0, *sample.shape), np.float32) if near is None else near.samples
    normals = normals.reshape(-1, *sample.shape) * scale
    gradient_of, slope = asking.slope(list(scored.maps))
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


def at_pixel(values: np.ndarray, pixel: Sequence[int]) -> np.ndarray:
    """Return ``(n,)`` of ``(n, *space)``."""
    where: tuple[Any, ...] = (slice(None), *pixel)
    found: np.ndarray = values[where]
    return found


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
        about = _about(name, self.detector)
        if name in (*self.detector.contrast_baselines, *self.detector.scan_scores) or needs_signal([name]):
            return ScoreWhy(*told, rule="is no score of one sample by a model", about=about)
        own, falls, without, as_normal = self._substituted(name)
        values, rule = self._relevance(name)
        relevance = [None if values is None else float(values[list(g.channels)].sum()) for g in self.groups]
        drivers = tuple(
            Driver(group.name, float(value), share)
            for group, value, share in zip(self.groups, without, relevance, strict=False)
        )
        return ScoreWhy(*told, own, as_normal, drivers, falls, values, rule, about)

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


__all__ = [
    "BAND",
    "NEAREST",
    "DiffusionWhy",
    "Driver",
    "Group",
    "Quantity",
    "ScoreWhy",
    "Scored",
    "VoxelWhy",
    "at_pixel",
    "explain_voxel",
    "groups_of",
]
