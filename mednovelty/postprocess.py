"""What is done to a finished map on the voxels of its scan."""

from __future__ import annotations

import itertools

import numpy as np

_NUMBERS_A_BLOCK = 1 << 22


def masked_median(values: np.ndarray, mask: np.ndarray, side: int) -> np.ndarray:
    """Return a map of medians over cubes, taken over the voxels of a mask only.

    The value of a voxel of the mask becomes the median of the values of all voxels of the mask that lie in
    the cube of ``side`` voxels around it, itself among them. What is outside the mask, or outside the volume,
    does not count: at a border the median is over fewer voxels. Of an even number it is the mean of the two
    in the middle. The cube is of voxels, not of millimetres.

    Args:
        values: ``(I, J, K)`` float32, finite inside the mask.
        mask: ``(I, J, K)`` bool.
        side: An odd number; 1 leaves the map as it is.

    Returns:
        ``(I, J, K)`` float32, 0 outside the mask.

    Raises:
        ValueError: ``side`` is even or below 1, or the shapes differ.

    Examples:
        >>> row = np.array([[[7, 1, 2, 9, 90]]], np.float32)
        >>> masked_median(row, row < 50, 3)
        array([[[4. , 2. , 2. , 5.5, 0. ]]], dtype=float32)
    """
    if side < 1 or side % 2 == 0 or values.shape != mask.shape or values.ndim != 3:
        raise ValueError(
            f"a median needs an odd side and a mask of the map's shape, got {side}, {mask.shape} and "
            f"{values.shape}"
        )
    out = np.zeros_like(values, np.float32)
    # Beyond the mask lies infinity: sorted it comes last, and is never reached.
    padded = np.pad(np.where(mask, values, np.float32(np.inf)), side // 2, constant_values=np.inf)
    flat, inside = padded.ravel(), np.pad(mask, side // 2).ravel()
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    steps = np.arange(side) - side // 2
    cube = np.array(list(itertools.product(steps, repeat=3))) @ strides
    places, rows = np.flatnonzero(inside), max(_NUMBERS_A_BLOCK // side**3, 1)
    medians = np.empty(len(places), np.float32)
    for start in range(0, len(places), rows):
        around = places[start : start + rows, None] + cube
        medians[start : start + rows] = _medians(flat[around], inside[around].sum(1))
    out[mask] = medians
    return out


def _medians(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return ``(n,)`` medians of the smallest ``counts[i]`` numbers of each row."""
    whole = counts == rows.shape[1]
    middle = rows.shape[1] // 2
    found = np.empty(len(rows), np.float32)
    found[whole] = np.partition(rows[whole], middle, axis=1)[:, middle]
    cut, left = np.sort(rows[~whole], axis=1), counts[~whole]
    each = np.arange(len(cut))
    # Halved before they are added: their sum may be beyond float32.
    found[~whole] = 0.5 * cut[each, (left - 1) // 2] + 0.5 * cut[each, left // 2]
    return found


__all__ = ["masked_median"]
