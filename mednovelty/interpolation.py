"""Interpolation along one axis as a matrix, so that images are resampled by a product for each axis.

A sample is the mean of the linear interpolant over what its width exceeds a voxel's by. That is linear
interpolation towards finer grids, the mean of two voxels where two make one sample, the trapezoidal mean of
many; and on any grid a constant stays the constant and a ramp the ramp, which the usual means over covered
voxels do only where the grids' edges coincide.
"""

from __future__ import annotations

import numpy as np

_NO_WIDTH = 1e-6
_NOTHING = 1e-9


def centred_positions(n: int, samples: int, step: float) -> np.ndarray:
    """Return ``(samples,)`` positions ``step`` voxels apart around the middle of n voxels.

    Examples:
        >>> centred_positions(6, 3, 2.0).tolist()
        [0.5, 2.5, 4.5]
    """
    return (n - 1) / 2 + (np.arange(samples) - (samples - 1) / 2) * step


def interpolation(n: int, samples: int, step: float, *, clamp: bool = False) -> np.ndarray:
    """Return the matrix from n voxels to samples around their middle.

    Args:
        n: Voxels.
        samples: Samples.
        step: Distance of two samples, in voxels.
        clamp: Repeat the outermost voxel for samples whose centre lies on it, and give 0 to samples beyond.
            Else whatever lies outside the voxels counts as 0.

    Returns:
        ``(samples, n)`` float32; ``matrix @ signal`` resamples.

    Examples:
        >>> interpolation(4, 2, 2.0).tolist()
        [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    at = centred_positions(n, samples, step)
    offset = at[:, None] - np.arange(n)
    half = max(step - 1, 0) / 2
    if half < _NO_WIDTH:
        weights = np.maximum(1 - np.abs(offset), 0)
    else:
        weights = (_area(offset + half) - _area(offset - half)) / (2 * half)
    weights[weights < _NOTHING] = 0
    if clamp:
        weights[(at < -0.5 - _NOTHING) | (at > n - 0.5 + _NOTHING)] = 0
        total = weights.sum(1, keepdims=True)
        np.divide(weights, total, out=weights, where=total > 0)
    return weights.astype(np.float32)


def nearest(n: int, samples: int, step: float) -> np.ndarray:
    """Return ``(samples,)`` indices of the voxel nearest to each sample, the outermost for those beyond."""
    return np.clip(np.rint(centred_positions(n, samples, step)), 0, n - 1).astype(int)


def _area(t: np.ndarray) -> np.ndarray:
    """Return the area under the triangle of base -1 to 1 and height 1, left of t."""
    t = np.clip(t, -1, 1)
    return np.where(t < 0, (1 + t) ** 2, 2 - (1 - t) ** 2) / 2
