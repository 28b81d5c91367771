"""Nearest neighbours among Gaussians: Bhattacharyya distances to every one, in chunks of bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor

TERMS_A_CHUNK = 1 << 22


class ExactBhattacharyya:
    """Searches N Gaussians with diagonal covariance by brute force.

    With v the variances and vbar their mean over the two,
    ``D_B = 1/8 sum_d (mu1 - mu2)^2 / vbar + 1/2 sum_d [ln vbar - (ln v1 + ln v2) / 2]``.

    Args:
        mean: ``(N, D)``.
        sigma: ``(N, D)`` standard deviations, above 0.

    Examples:
        >>> normals = ExactBhattacharyya(torch.tensor([[0.0], [4.0]]), torch.tensor([[2.0], [2.0]]))
        >>> distances, indices = normals.search(torch.tensor([[1.0]]), torch.tensor([[2.0]]), k=2)
        >>> distances.tolist(), indices.tolist()  # of equal v = 4: 1 / (8 * 4) and 9 / (8 * 4)
        ([[0.03125, 0.28125]], [[0, 1]])
    """

    def __init__(self, mean: Tensor, sigma: Tensor) -> None:
        self.mean = mean.float().contiguous()
        self.variance = sigma.float().square()
        self._half_log_sigma = sigma.float().log().sum(1) / 2

    def search(self, mean: Tensor, sigma: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the k nearest Gaussians of each query.

        Args:
            mean: ``(B, D)``.
            sigma: ``(B, D)`` standard deviations.
            k: How many, at most N.

        Returns:
            ``(B, k)`` Bhattacharyya distances in nats, ascending, and ``(B, k)`` int64 indices.
        """
        rows = max(1, TERMS_A_CHUNK // max(self.mean.numel(), 1))
        chunks = zip(mean.float().split(rows), sigma.float().split(rows), strict=True)
        found = [self._distances(*chunk).topk(k, largest=False) for chunk in chunks]
        return torch.cat([top.values for top in found]), torch.cat([top.indices for top in found])

    def _distances(self, mean: Tensor, sigma: Tensor) -> Tensor:
        average = (sigma.square()[:, None] + self.variance) / 2
        apart = ((mean[:, None] - self.mean).square() / average).sum(-1) / 8
        # ln of a product of D terms would leave the range of float32: logs are summed.
        unlike = average.log().sum(-1) / 2 - sigma.log().sum(1, keepdim=True) / 2 - self._half_log_sigma
        # Rounding must not make a copy's distance negative.
        return (apart + unlike).clamp_min(0)
