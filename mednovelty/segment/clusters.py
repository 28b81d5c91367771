"""Connected components of flagged voxels: how large, where in mm, how novel.

Two voxels are connected where they share a face (connectivity 6), a face or an edge (18), or a face, an edge
or a corner (26). Volumes are in mm3, places in RAS+ mm, whatever way the voxels lie.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mednovelty.errors import SettingsError

CONNECTIVITIES = (6, 18, 26)
"""Neighbours share a face; or an edge; or a corner."""
HAIR = 1e-6
"""Relative: files keep affines as float32, so that voxels of one size differ by as much in mm3."""


@dataclass(frozen=True)
class Cluster:
    """One connected component.

    Attributes:
        label: Its number in the label image, from 1; the largest has the lowest.
        voxels: How many.
        volume_mm3: Their volume.
        peak_mm: ``(x, y, z)`` of the voxel with the smallest p, or the highest score among those; RAS+.
        centroid_mm: ``(x, y, z)``, mean over its voxels; it may lie outside of it.
        mean: Score, on average over its voxels.
        maximum: Highest score.
        p_peak: p of the peak; None where there are no p-values.
        p_cluster: How many of the calibration scans show a cluster as large: ``(1 + count) / (1 + n)``; None
            where that is not known.
        regions: Atlas regions and the share of its voxels in each, largest first.
    """

    label: int
    voxels: int
    volume_mm3: float
    peak_mm: tuple[float, float, float]
    centroid_mm: tuple[float, float, float]
    mean: float
    maximum: float
    p_peak: float | None = None
    p_cluster: float | None = None
    regions: tuple[tuple[str, float], ...] = ()


def structure_of(connectivity: int) -> np.ndarray:
    """Return ``(3, 3, 3)`` bool: which neighbours count.

    Raises:
        SettingsError: Not 6, 18 or 26.
    """
    if connectivity not in CONNECTIVITIES:
        raise SettingsError(f"connectivity must be 6, 18 or 26 neighbours, got {connectivity}")
    return ndimage.generate_binary_structure(3, CONNECTIVITIES.index(connectivity) + 1)


def voxel_mm3_of(affine: np.ndarray) -> float:
    """Return the volume of a voxel of ``(4, 4)``, in mm3."""
    # Not the determinant, which comes out a hair beside 15 for 2 x 2.5 x 3 mm.
    one, two, three = affine[:3, :3].T
    return abs(float(np.dot(one, np.cross(two, three))))


def labelled(flagged: np.ndarray, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the components of ``(I, J, K)`` bool.

    Returns:
        ``(I, J, K)`` int32 numbers, 0 where not flagged, from 1 by falling size (of equals, the first in
        row-major order first); and ``(n,)`` voxels of each.
    """
    labels, n = ndimage.label(flagged, structure_of(connectivity))
    sizes = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    numbers = np.zeros(n + 1, dtype=np.int32)
    numbers[order + 1] = np.arange(1, n + 1)
    return numbers[labels], sizes[order]


def largest_mm3(flagged: np.ndarray, affine: np.ndarray, connectivity: int) -> float:
    """Return the volume of the largest component of ``(I, J, K)`` bool; 0 where nothing is flagged."""
    sizes = labelled(flagged, connectivity)[1]
    return float(sizes[0]) * voxel_mm3_of(affine) if sizes.size else 0.0


def only_large(
    flagged: np.ndarray, voxels: float, connectivity: int, *, strictly: bool = False
) -> np.ndarray:
    """Return ``(I, J, K)`` bool: components of at least so many voxels; ``strictly``: of more."""
    labels, sizes = labelled(flagged, connectivity)
    hair = HAIR * voxels
    large = sizes > voxels + hair if strictly else sizes >= voxels - hair
    return np.append(False, large)[labels]


def describe(
    labels: np.ndarray, score: np.ndarray, surprise: np.ndarray | None, affine: np.ndarray
) -> list[Cluster]:
    """Return what is told of each component, in the order of their numbers.

    Args:
        labels: ``(I, J, K)`` of ``labelled``.
        score: ``(I, J, K)``.
        surprise: ``(I, J, K)`` -log10 p; None where there are no p-values: then the peak is of the score.
        affine: ``(4, 4)``, voxel indices to RAS+ mm.
    """
    places = np.flatnonzero(labels)
    if not places.size:
        return []
    of_voxel = labels.ravel()[places]
    scores = score.ravel()[places].astype(np.float64)
    rank = scores if surprise is None else surprise.ravel()[places].astype(np.float64)
    # By number; in it the peak first, whose ties the first voxel in row-major order wins.
    order = np.lexsort((places, -scores, -rank, of_voxel))
    starts = np.flatnonzero(np.diff(of_voxel[order], prepend=0))
    indices = np.stack(np.unravel_index(places, labels.shape), axis=1)
    counts = np.bincount(of_voxel)[1:]
    sums = [np.bincount(of_voxel, weights=along)[1:] for along in (*indices.T, scores)]
    centroids = in_mm(np.stack(sums[:3], axis=1) / counts[:, None], affine)
    peaks = order[starts]
    peaks_mm = in_mm(indices[peaks], affine)
    highest = np.maximum.reduceat(scores[order], starts)
    return [
        Cluster(
            label=n + 1,
            voxels=int(counts[n]),
            volume_mm3=float(counts[n]) * voxel_mm3_of(affine),
            peak_mm=_xyz(peaks_mm[n]),
            centroid_mm=_xyz(centroids[n]),
            mean=float(sums[3][n] / counts[n]),
            maximum=float(highest[n]),
            p_peak=None if surprise is None else float(10.0 ** -rank[peaks[n]]),
        )
        for n in range(counts.size)
    ]


def in_mm(indices: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return ``(m, 3)`` RAS+ mm of ``(m, 3)`` voxel indices, which need not be whole."""
    return np.asarray(indices, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]


def _xyz(point: Iterable[float]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in point)
    return x, y, z


__all__ = [
    "CONNECTIVITIES",
    "Cluster",
    "describe",
    "in_mm",
    "labelled",
    "largest_mm3",
    "only_large",
    "structure_of",
    "voxel_mm3_of",
]
