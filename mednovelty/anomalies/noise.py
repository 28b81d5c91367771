"""What of a diffusion voxel's signals is noise, so that anomalies are planted without taking it away.

Signals at b = 0 are fitted by their mean. Over the directions of a shell, they are fitted by the even
polynomials of degree 2, or 4 where there are 45 directions or more, which span the even spherical harmonics
up to that order. What is left is noise, and what the model does not describe; it belongs to the measurement,
not to the tissue. A network that is shown anomalies with less noise than tissue learns to find quiet places.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch
from torch import Tensor

from mednovelty.anomalies.bundles import Rows, shells

FEWEST, MANY = 12, 45
"""Directions of a shell from which on degree 2, and degree 4, are fitted; with fewer, noise stays unknown."""


def fit_matrix(bvalues: Tensor, directions: Tensor) -> Tensor:
    """Return ``(C, C)``: signals times this are their fits; those of small shells stay.

    Args:
        bvalues: ``(C,)`` in s/mm^2.
        directions: ``(C, 3)`` unit vectors.
    """
    numbers, fit = shells(bvalues), torch.eye(len(bvalues), dtype=torch.float64)
    unweighted = (numbers == 0).nonzero()[:, 0].cpu()
    fit[unweighted[:, None], unweighted] = 1 / max(len(unweighted), 1)
    for number in range(1, int(numbers.max()) + 1):
        own = (numbers == number).nonzero()[:, 0].cpu()
        if len(own) < FEWEST:
            continue
        terms = list(combinations_with_replacement(range(3), 4 if len(own) >= MANY else 2))
        basis = directions.double().cpu()[own][:, terms].prod(-1)
        fit[own[:, None], own] = basis @ torch.linalg.pinv(basis)
    return fit.to(directions)


def silenced(bvalues: Tensor) -> tuple[int, ...]:
    """Return how many directions those shells have of which noise stays unknown, in ascending order of b.

    Examples:
        >>> silenced(torch.tensor([0.0] + 6 * [700.0] + 32 * [1500.0]))
        (6,)
    """
    counts = shells(bvalues).bincount()[1:].tolist()
    return tuple(count for count in counts if count < FEWEST)


def split_noise(rows: Rows) -> tuple[Rows, Tensor, Tensor]:
    """Return voxels without their noise; the noise, ``(n, C)``; and which share the fit keeps, ``(C,)``."""
    fit = fit_matrix(rows.bvalues, rows.directions)
    smooth = rows.signals @ fit.T
    return rows._replace(signals=smooth), rows.signals - smooth, fit.diagonal()


def given_back(noise: Tensor, kept: Tensor, scale: Tensor) -> Tensor:
    """Return ``(n, C)`` noise for changed signals, so that they are as noisy as before.

    A fit keeps a share h of the variance; where the signal was multiplied by a, that share is now a^2 h, and
    the residual, 1 - h of the variance, is scaled to make up for the rest.

    Args:
        noise: ``(n, C)`` residuals.
        kept: ``(C,)`` h.
        scale: ``(n, C)`` a, or ``(n, 1)``.
    """
    missing = (1 - scale.square() * kept).clamp_min(0)
    return noise * (missing / (1 - kept).clamp_min(1e-6)).sqrt()


__all__ = ["fit_matrix", "given_back", "silenced", "split_noise"]
