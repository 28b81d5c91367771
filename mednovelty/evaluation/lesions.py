"""Lesion by lesion: which ones a threshold finds, and what it flags where there is none.

A lesion is a connected component of the lesion mask inside the brain, voxels that share a face, an edge or a
corner being connected (26 neighbours). It counts as found when enough of its voxels are flagged, one by
default. A false positive is a connected component of the flagged voxels that holds no lesion voxel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse

from mednovelty.metrics import Ranking, fifth_threshold, healthy_threshold

NEIGHBOURS_26 = np.ones((3, 3, 3), dtype=bool)
SPARSE_SHARE = 0.015
"""Of a volume: up to here it is quicker to join its voxels one by one than to walk through the volume."""
_AHEAD = [(i, j, k) for i, j, k in np.ndindex(2, 3, 3) if (i, j - 1, k - 1) > (0, 0, 0)]
"""Half of the 26 neighbours, those that come later in row-major order, J and K counted from -1."""
POINTS = {
    "dice": "the threshold of the best Dice on the fifth",
    "fpr_1_in_100": "the lowest threshold that flags at most 1 % of the fifth's healthy voxels",
    "fpr_1_in_1000": "the lowest threshold that flags at most 0.1 % of the fifth's healthy voxels",
}
SHARES = {"fpr_1_in_100": 0.01, "fpr_1_in_1000": 0.001}


@dataclass(frozen=True, slots=True, eq=False)
class Lesions:
    """The lesions of one scan.

    Attributes:
        of_voxel: ``(P,)`` int32, the lesion, from 0, of each lesion voxel, in row-major order.
        voxels: ``(L,)`` how many each lesion has.
        centres: ``(L, 3)`` float64, mean voxel indices of each.
    """

    of_voxel: np.ndarray
    voxels: np.ndarray
    centres: np.ndarray

    @classmethod
    def of(cls, lesion: np.ndarray) -> Lesions:
        """Find the connected components of ``(I, J, K)`` bool."""
        labels, n = ndimage.label(lesion, NEIGHBOURS_26)
        where = np.nonzero(lesion)
        of_voxel = (labels[where] - 1).astype(np.int32)
        voxels = np.bincount(of_voxel, minlength=n)
        sums = [np.bincount(of_voxel, weights=along, minlength=n) for along in where]
        return cls(of_voxel, voxels, np.stack(sums, axis=1) / np.maximum(voxels, 1)[:, None])

    def __len__(self) -> int:
        return len(self.voxels)


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """What one threshold does to one scan.

    Attributes:
        threshold: In the score's unit.
        shares: ``(L,)`` share of each lesion's voxels that are flagged.
        found: ``(L,)`` bool.
        false_positives: Flagged components without a lesion voxel.
    """

    threshold: float
    shares: np.ndarray
    found: np.ndarray
    false_positives: int

    @property
    def recall(self) -> float:
        """Share of the lesions found; NaN where there is none to find."""
        return float(self.found.mean()) if self.found.size else math.nan


def detect(
    flagged: np.ndarray, lesion: np.ndarray, lesions: Lesions, threshold: float, found_share: float = 0.0
) -> Detection:
    """Compare flagged voxels with lesions.

    Args:
        flagged: ``(I, J, K)`` bool, false outside the brain.
        lesion: ``(I, J, K)`` bool, whose components ``lesions`` are.
        lesions: See ``Lesions``.
        threshold: At which the voxels are flagged, to be remembered.
        found_share: Of a lesion's voxels that must be flagged for it to count as found; one at least.
    """
    inside, n = component_of(flagged, np.flatnonzero(lesion))
    hits = np.bincount(lesions.of_voxel[inside > 0], minlength=len(lesions))
    # A hair less, as 0.3 * 10 may come out above 3.
    enough = np.maximum(1, np.ceil(found_share * lesions.voxels - 1e-9))
    touching = np.count_nonzero(np.bincount(inside, minlength=n + 1)[1:])
    return Detection(threshold, hits / np.maximum(lesions.voxels, 1), hits >= enough, n - int(touching))


def component_of(flagged: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, int]:
    """Find which connected component of ``(I, J, K)`` bool each of some voxels is in.

    Args:
        flagged: Whose components, by 26 neighbours.
        at: ``(m,)`` row-major indices of voxels.

    Returns:
        ``(m,)`` number of the component from 1, 0 where not flagged; and how many components there are.
    """
    places = np.flatnonzero(flagged)
    if places.size > SPARSE_SHARE * flagged.size:
        labels, n = ndimage.label(flagged, NEIGHBOURS_26)
        return labels.ravel()[at], n
    found = np.zeros(at.size, dtype=np.int64)
    if not places.size:
        return found, 0
    n, numbers = _joined(places, flagged.shape)
    hit = np.flatnonzero(flagged.ravel()[at])
    found[hit] = numbers[np.searchsorted(places, at[hit])] + 1
    return found, n


def _joined(places: np.ndarray, shape: tuple[int, ...]) -> tuple[int, np.ndarray]:
    """Return how many components voxels at ascending row-major indices have, and each one's, from 0."""
    rows, k = np.divmod(places, shape[2])
    i, j = np.divmod(rows, shape[1])
    # An empty voxel at the end of each row and of each plane, so that no neighbour lies across a border.
    strides = (shape[1] + 1) * (shape[2] + 1), shape[2] + 1
    padded = i * strides[0] + j * strides[1] + k
    one, other = [], []
    for di, dj, dk in _AHEAD:
        wanted = padded + (di * strides[0] + (dj - 1) * strides[1] + dk - 1)
        place = np.minimum(np.searchsorted(padded, wanted), padded.size - 1)
        joined = np.flatnonzero(padded[place] == wanted)
        one.append(joined)
        other.append(place[joined])
    ends = np.concatenate(one), np.concatenate(other)
    graph = sparse.coo_matrix((np.ones(ends[0].size, dtype=bool), ends), shape=(padded.size,) * 2)
    return sparse.csgraph.connected_components(graph, directed=False)


def thresholds_of(fifth: list[Ranking]) -> dict[str, float]:
    """Return the threshold of each of ``POINTS``, found on a fifth alone; NaN where it is undefined."""
    if not fifth:
        return dict.fromkeys(POINTS, math.nan)
    pooled = Ranking.pooled(fifth)
    found = {"dice": fifth_threshold([pooled])}
    return found | {name: healthy_threshold(pooled, share) for name, share in SHARES.items()}
