"""Anomalies planted in q-space voxels while training: freer or more restricted diffusion.

A random fraction f of a voxel's water is exchanged for an isotropic compartment of a random diffusivity D:

    S(b) = S(0) ((1 - f) S(b) / S(0) + f exp(-b D)) = (1 - f) S(b) + f S(0) exp(-b D)

f is between 0.1 and 0.9, D between 0.2e-3 and 3.0e-3 mm^2/s (free water at 37 degrees), both uniform; S(0) is
the mean of the voxel's signals at b = 0. Directions play no part: the compartment is isotropic.

It is computed on signals as measured, up to one factor a voxel: rows are multiplied by what their channels
were divided by, and divided by it again afterwards. A factor of the voxel's own, as its scan's mean intensity
or its signal at b = 0, drops out: the formula is linear in the voxel's signals.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from mednovelty.types import Samples

FRACTIONS = 0.1, 0.9
DIFFUSIVITIES_MM2_PER_S = 0.2e-3, 3.0e-3
B0_S_PER_MM2 = 50.0
"""Up to this b-value a signal counts as one without diffusion weighting, as in ``preprocess.qspace``."""


def with_exchange(x: Samples, bvalues: Tensor, divisors: Tensor, generator: Generator) -> Samples:
    """Return voxels, each with a random fraction of another compartment.

    Args:
        x: ``(B, C)`` signals, each channel divided by its divisor.
        bvalues: ``(C,)`` in s/mm^2; at least one up to 50.
        divisors: ``(C,)``.
        generator: On the device of the voxels.
    """
    fraction = _uniform(len(x), *FRACTIONS, generator).to(x.device)
    diffusivity = _uniform(len(x), *DIFFUSIVITIES_MM2_PER_S, generator).to(x.device)
    return exchanged(x * divisors, bvalues, fraction, diffusivity) / divisors


def exchanged(signals: Tensor, bvalues: Tensor, fraction: Tensor, diffusivity: Tensor) -> Tensor:
    """Return ``(B, C)`` signals after an exchange.

    Args:
        signals: ``(B, C)``, as measured, up to a factor a voxel.
        bvalues: ``(C,)`` in s/mm^2.
        fraction: ``(B,)`` f.
        diffusivity: ``(B,)`` D, in mm^2/s.

    Examples:
        >>> s, b = torch.tensor([[200.0, 100.0]]), torch.tensor([0.0, 1000.0])
        >>> exchanged(s, b, torch.tensor([0.25]), torch.tensor([1e-3])).round(decimals=3)
        tensor([[200.0000,  93.3940]])
    """
    s0 = signals[:, bvalues <= B0_S_PER_MM2].mean(1, keepdim=True)
    f = fraction[:, None]
    return (1 - f) * signals + f * s0 * torch.exp(-diffusivity[:, None] * bvalues)


def _uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator, device=generator.device)


__all__ = ["DIFFUSIVITIES_MM2_PER_S", "FRACTIONS", "exchanged", "with_exchange"]
