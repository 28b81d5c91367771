"""Control of the false discovery rate over the voxels of a mask.

Benjamini and Hochberg 1995: with p-values in order, p_(1) <= ... <= p_(m), those up to the largest j with

    p_(j) <= q j / m

are discoveries; at most a share q of them is expected to be false, also where p-values are positively
dependent (Benjamini and Yekutieli 2001), as those of neighbouring voxels are.

p-values come as maps hold them, as -log10 p in float32 ("surprise" in names). A threshold is rounded to the
type of the values it is compared with: rounding keeps order, so that what reaches a threshold in p reaches it
in the map.
"""

from __future__ import annotations

import math

import numpy as np

from mednovelty.errors import SettingsError


def surprise_of(p: np.ndarray) -> np.ndarray:
    """Return -log10 of p-values in (0, 1], of the same shape and type, never -0."""
    return np.abs(np.log10(p))


def critical_surprise(surprise: np.ndarray, q: float) -> float:
    """Return the smallest -log10 p among the discoveries; infinity where there is none.

    Args:
        surprise: ``(m,)`` -log10 p of every voxel that was tested.
        q: Wanted false discovery rate, 0 < q < 1.

    Raises:
        SettingsError: ``q`` is out of range.
    """
    if not 0 < q < 1:
        raise SettingsError(f"a false discovery rate must lie between 0 and 1, got {q}")
    ordered = np.sort(surprise)[::-1]
    m = ordered.size
    bounds = (math.log10(m) - math.log10(q) - np.log10(np.arange(1, m + 1))) if m else np.empty(0)
    below = np.flatnonzero(ordered >= bounds.astype(ordered.dtype))
    return float(ordered[below[-1]]) if below.size else math.inf


def benjamini_hochberg(p: np.ndarray, q: float) -> np.ndarray:
    """Return ``(m,)`` bool: the discoveries among ``(m,)`` p-values.

    Examples:
        >>> benjamini_hochberg(np.array([0.041, 0.001, 0.6, 0.039, 0.008]), 0.05)
        array([False,  True, False, False,  True])
    """
    surprise = surprise_of(np.asarray(p, dtype=np.float32))
    return surprise >= critical_surprise(surprise, q)


__all__ = ["benjamini_hochberg", "critical_surprise", "surprise_of"]
