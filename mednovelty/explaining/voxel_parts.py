"""What is found of one voxel: its sample, its scores, its nearest normals, and what is told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mednovelty.explaining.nearest import NearestNormals
from mednovelty.explaining.null_curve import NullCurve
from mednovelty.explaining.places import Index, Place, Standing

BAND = (0.05, 0.95)
"""Between which shares of all normals what is usual lies."""
FLAT = 0.3
"""A reconstruction that varies by less than this share of what its image does shows nothing of it."""


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
        null: What it is on held-out normals, of the voxel's region; None where that is not known.
        members: Of a combination, the scores that it is of.
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
    null: NullCurve | None = None
    members: tuple[str, ...] = ()


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
        nulls: By score, what its p-values stand on; of several regions that of all voxels first.
        others: Scores that the detector does not make of a sample, such as combinations: why not, in words.
        abouts: What scores are, in words, where the detector does not know.
        members: Of combinations, the scores that each is of.
        mask: ``(I, J, K)`` bool, the voxels that all maps tell of; None: the scan's own.
    """

    maps: Mapping[str, np.ndarray]
    p_values: Mapping[str, np.ndarray] = field(default_factory=dict)
    nulls: Mapping[str, Sequence[NullCurve]] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    abouts: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mask: np.ndarray | None = None

    def with_first(self, score: str) -> Scored:
        """Return the same with a score in front."""
        return replace(self, maps={score: self.maps[score], **self.maps})


def drawn_flat(why: VoxelWhy, group: Group) -> float | None:
    """Return by which share of its image a reconstruction varies, where that is next to nothing; else None.

    Args:
        why: A voxel in a sample.
        group: Of channels.
    """
    if why.reconstruction is None or not why.pixel:
        return None
    channels = list(group.channels)
    spread = float(why.signal[channels].std())
    share = float(why.reconstruction[channels].std()) / spread if spread > 0 else 1.0
    return share if share < FLAT else None


def at_pixel(values: np.ndarray, pixel: Sequence[int]) -> np.ndarray:
    """Return ``(n,)`` of ``(n, *space)``."""
    where: tuple[Any, ...] = (slice(None), *pixel)
    found: np.ndarray = values[where]
    return found


__all__ = [
    "BAND",
    "DiffusionWhy",
    "Driver",
    "Group",
    "Quantity",
    "ScoreWhy",
    "Scored",
    "VoxelWhy",
    "at_pixel",
    "drawn_flat",
]
