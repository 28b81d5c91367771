"""The density of normals as a mixture of one Gaussian for each: exact, in chunks of bounded memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TERMS_A_CHUNK = 1 << 22


class ExactDensity:
    """The mean of N Gaussians with diagonal covariance.

    ``log p(a) = logsumexp_y [sum_d -(a_d - mu_yd)^2 / (2 sigma_yd^2) - ln sigma_yd - ln(2 pi) / 2] - ln N``

    Args:
        mean: ``(N, D)``.
        sigma: ``(N, D)`` standard deviations, above 0.

    Examples:
        >>> normals = ExactDensity(torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [3.0]]))
        >>> round(normals.log_density(torch.tensor([[0.0]])).exp().item(), 4)  # (0.3989 + 0.3989 / 3) / 2
        0.266
    """

    def __init__(self, mean: Tensor, sigma: Tensor) -> None:
        self.mean = mean.float().contiguous()
        self.sigma = sigma.float().contiguous()
        count, width = mean.shape
        self._constant = -self.sigma.log().sum(1) - width * math.log(2 * math.pi) / 2 - math.log(count)

    def log_density(self, points: Tensor) -> Tensor:
        """Return ``(B,)`` log densities in nats for ``(B, D)`` points."""
        rows = max(1, TERMS_A_CHUNK // max(self.mean.numel(), 1))
        return torch.cat([self._log_density(chunk) for chunk in points.float().split(rows)])

    def _log_density(self, points: Tensor) -> Tensor:
        exponents = ((points[:, None] - self.mean) / self.sigma).square().sum(-1) / -2
        return torch.logsumexp(exponents + self._constant, dim=1)
