"""What a diffusion signal says in two numbers that readers of scans know: mean diffusivity and anisotropy.

Basser et al. 1994, fitted to the log of the signal by least squares, on the shells on which a tensor holds.
    log S(b, g) = log S(0) - b g^T D g
    MD = trace(D) / 3
    FA = sqrt(3/2) ||D - MD I|| / ||D||
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HIGHEST_B_S_PER_MM2 = 1600.0
"""Above, signals leave the straight line of log S against b."""
LEAST_DIRECTIONS = 6
LEAST_SIGNAL = 1e-3
"""Of a voxel's largest; a signal of 0 has no logarithm."""
_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


@dataclass(frozen=True, slots=True, eq=False)
class Tensors:
    """Of n voxels.

    Attributes:
        md: ``(n,)`` mean diffusivity, in mm2/s.
        fa: ``(n,)`` fractional anisotropy, 0 to 1.
        along: ``(n, 3)`` unit vectors, the direction of fastest diffusion in world axes; of either sign.
        misfit: ``(n,)``: how far signals scatter around what the tensor says, relative to it; the root of the
            mean square of differences of logarithms.
    """

    md: np.ndarray
    fa: np.ndarray
    along: np.ndarray
    misfit: np.ndarray


def tensors(signals: np.ndarray, bvalues: np.ndarray, directions: np.ndarray) -> Tensors | None:
    """Return the tensors of ``(n, C)`` signals; None where the acquisition does not determine them.

    Args:
        signals: Of any scale.
        bvalues: ``(C,)``, in s/mm2.
        directions: ``(C, 3)`` unit vectors in world axes; anything where b=0.
    """
    used = bvalues <= HIGHEST_B_S_PER_MM2
    if np.count_nonzero(used & (bvalues > 0)) < LEAST_DIRECTIONS:
        used = np.ones(len(bvalues), bool)
    b, g = bvalues[used], directions[used]
    columns = [-b * g[:, i] * g[:, j] * (1 if i == j else 2) for i, j in _PAIRS]
    # b in ms/um2 and D in um2/ms: columns of one size.
    design = np.stack([np.ones(len(b)), *(column / 1000 for column in columns)], axis=1)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    given = np.asarray(signals[:, used], np.float64)
    floor = np.maximum(given.max(1, keepdims=True) * LEAST_SIGNAL, np.finfo(float).tiny)
    logs = np.log(np.maximum(given, floor)).T
    fitted = np.linalg.lstsq(design, logs, rcond=None)[0]
    misfit, found = np.sqrt(np.square(logs - design @ fitted).mean(0)), fitted[1:]
    matrices = np.empty((len(given), 3, 3))
    for (i, j), value in zip(_PAIRS, found, strict=True):
        matrices[:, i, j] = matrices[:, j, i] = value
    values, vectors = np.linalg.eigh(matrices)
    # Noise makes eigenvalues below 0, which nothing diffuses with.
    values = np.maximum(values, 0)
    md = values.mean(1)
    length = np.maximum(np.linalg.norm(values, axis=1), 1e-12)
    fa = np.sqrt(1.5) * np.linalg.norm(values - md[:, None], axis=1) / length
    return Tensors(md / 1000, np.minimum(fa, 1.0), vectors[:, :, 2], misfit)


__all__ = ["Tensors", "tensors"]
