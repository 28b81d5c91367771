"""How large the largest cluster of a scan is at each of many thresholds of p."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from mednovelty.segment.clusters import CONNECTIVITIES, structure_of


def largest_clusters(
    p: np.ndarray, mask: np.ndarray, thresholds: np.ndarray, connectivity: int
) -> np.ndarray:
    """Return ``(T,)`` int64: the voxels of the largest cluster of ``p <= threshold``, 0 where there is none.

    Args:
        p: ``(n,)`` p-values of the mask's voxels, in the order of ``volume[mask]``.
        mask: ``(I, J, K)`` bool, n of them true.
        thresholds: ``(T,)``, in any order.
        connectivity: 6, 18 or 26.

    Raises:
        ValueError: Another connectivity, or shapes that do not fit.

    Examples:
        >>> row = np.ones((1, 1, 5), bool)
        >>> p = np.array([0.01, 0.2, 0.01, 0.01, 0.5])
        >>> largest_clusters(p, row, np.array([0.5, 0.2, 0.01, 0.001]), 6).tolist()
        [5, 4, 2, 0]
    """
    if connectivity not in CONNECTIVITIES:
        raise ValueError(f"connectivity must be one of {CONNECTIVITIES}, got {connectivity}")
    if p.shape != (np.count_nonzero(mask),):
        raise ValueError(f"{p.shape} p-values for {np.count_nonzero(mask)} voxels")
    volume = np.full(mask.shape, np.inf)
    volume[mask] = p
    neighbours = structure_of(connectivity)
    sizes = np.zeros(len(thresholds), np.int64)
    # From the highest on, in an ever smaller box.
    for place in np.argsort(thresholds)[::-1]:
        novel = volume <= thresholds[place]
        if not novel.any():
            break
        (box,) = ndimage.find_objects(novel.astype(np.uint8))
        volume, novel = volume[box], novel[box]
        labels, _ = ndimage.label(novel, neighbours)
        sizes[place] = np.bincount(labels[novel]).max()
    return sizes


__all__ = ["largest_clusters"]
