"""Densities of mixtures with one diagonal Gaussian per normal: ``log 1/N sum_y N(a; mu_y, diag sigma_y^2)``.

vasilev2018, Eq. (5), (14) and (16), as the log of the mean: monotone in the paper's, and finite where the
densities themselves are 0 in any floating-point type.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mednovelty.neighbours.exact import centre_of

TERMS_A_CHUNK = {"cpu": 1 << 18}
TERMS_A_CHUNK_ELSEWHERE = 1 << 25
GAUSSIANS_A_CHUNK = 1 << 11
LEAST_EXPONENT = -80.0
"""Shares below exp(-80) change no sum of float32; left to underflow, each takes ten times as long."""


class ExactDensity:
    """Sums over every Gaussian, in float64 and in chunks of bounded memory.

    The exponents of all pairs are one matrix product, ``[a^2, a, 1] . [-1 / 2s^2, mu / s^2, c]``. Its terms
    are many orders of magnitude larger than their sum where a sigma is small, so float64 it is, on the CPU
    where a device has none.

    Args:
        mean: ``(N, D)``.
        sigma: ``(N, D)`` standard deviations.

    Examples:
        >>> density = ExactDensity(torch.tensor([[0.0], [4.0]]), torch.tensor([[2.0], [2.0]]))
        >>> round(density.log_density(torch.tensor([[2.0]])).exp().item(), 6)  # exp(-1/2) / (2 sqrt(2 pi))
        0.120985
    """

    def __init__(self, mean: Tensor, sigma: Tensor) -> None:
        if mean.device.type == "mps":
            mean, sigma = mean.cpu(), sigma.cpu()
        self.mean, self.sigma = mean.float().contiguous(), sigma.float().contiguous()
        self.centre = centre_of(self.mean).double()

    def log_density(self, points: Tensor) -> Tensor:
        """Return ``(B,)`` log densities in nats, float32, of ``(B, D)`` points."""
        asked = points.detach().to(self.mean.device).double() - self.centre
        factors = torch.cat([asked.square(), asked, torch.ones_like(asked[:, :1])], dim=1)
        total = torch.full((len(asked),), -torch.inf, dtype=torch.float64, device=asked.device)
        for mean, sigma in zip(
            self.mean.split(GAUSSIANS_A_CHUNK), self.sigma.split(GAUSSIANS_A_CHUNK), strict=True
        ):
            weights = gaussian_weights(mean.double() - self.centre, sigma.double())
            rows = max(1, TERMS_A_CHUNK.get(asked.device.type, TERMS_A_CHUNK_ELSEWHERE) // len(mean))
            chunk = torch.cat([log_sum_exp(part @ weights.T) for part in factors.split(rows)])
            total = torch.logaddexp(total, chunk)
        return (total - math.log(len(self.mean))).float().to(points.device)


def gaussian_weights(mean: Tensor, sigma: Tensor) -> Tensor:
    """Return ``(N, 2D + 1)`` factors of ``[a^2, a, 1]`` whose product is the log density of each Gaussian."""
    precision = sigma.square().reciprocal()
    constant = -(mean.square() * precision).sum(1) / 2 - sigma.log().sum(1)
    constant -= mean.shape[1] / 2 * math.log(2 * math.pi)
    return torch.cat([precision / -2, mean * precision, constant[:, None]], dim=1)


def log_sum_exp(terms: Tensor) -> Tensor:
    """Return ``(B,)`` log-sum-exp over rows of ``(B, N)`` in the terms' type; the terms are overwritten.

    Below the greatest term all are at most 1, and their digits beyond float32's do not show in the sum's log.
    """
    greatest = terms.amax(1)
    shares = terms.sub_(greatest[:, None]).float().clamp_(min=LEAST_EXPONENT).exp_().sum(1)
    return greatest + shares.to(greatest.dtype).log()
