"""Nearest neighbours among diagonal Gaussians, by the Bhattacharyya distance.

With variances v and vbar the mean of the two variances,

    D_B = 1/8 sum (mu_1 - mu_2)^2 / vbar + 1/2 sum [ln vbar - 1/2 ln v_1 - 1/2 ln v_2]

vasilev2018, Eq. (4) and (13). The released code puts standard deviations where the variances belong, and
takes the logarithm of a product over dimensions, which under- or overflows where there are many.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mednovelty.neighbours.exact import check_k

PAIRS_A_CHUNK = {"cpu": 1 << 17}
PAIRS_A_CHUNK_ELSEWHERE = 1 << 24
GAUSSIANS_A_CHUNK = 1 << 11


class ExactBhattacharyya:
    """Compares every query with every Gaussian, one dimension at a time and in chunks of bounded memory.

    Args:
        mean: ``(N, D)``.
        sigma: ``(N, D)`` standard deviations.

    Examples:
        >>> normals = ExactBhattacharyya(torch.tensor([[0.0], [4.0]]), torch.tensor([[2.0], [2.0]]))
        >>> distances, indices = normals.search(torch.tensor([[1.0]]), torch.tensor([[2.0]]), k=2)
        >>> distances.tolist(), indices.tolist()  # 1/8 of 1/4 and of 9/4
        ([[0.03125, 0.28125]], [[0, 1]])
    """

    def __init__(self, mean: Tensor, sigma: Tensor) -> None:
        self.mean, self.sigma = mean.float().contiguous(), sigma.float().contiguous()
        # Lying (D, N), in units of each dimension's usual sigma, which changes no distance and keeps the
        # products of variances away from the ends of float32.
        self._unit = self.sigma.log().mean(0).exp()
        self._means = (self.mean / self._unit).T.contiguous()
        self._variances = (self.sigma / self._unit).square().T.contiguous()
        self._logs = self._variances.log().sum(0) / 2

    def search(self, mean: Tensor, sigma: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Return the k nearest Gaussians of each query.

        Args:
            mean: ``(B, D)``.
            sigma: ``(B, D)`` standard deviations.
            k: How many, at most N.

        Returns:
            ``(B, k)`` Bhattacharyya distances in nats, ascending, and ``(B, k)`` int64 indices.
        """
        check_k(k, len(self.mean))
        a, b = (part.detach().to(self.mean.device, torch.float32) for part in (mean, sigma))
        most = PAIRS_A_CHUNK.get(self.mean.device.type, PAIRS_A_CHUNK_ELSEWHERE)
        rows = max(1, most // min(GAUSSIANS_A_CHUNK, len(self.mean)))
        found = [self._nearest(*parts, k) for parts in zip(a.split(rows), b.split(rows), strict=True)]
        distances, indices = bhattacharyya_distances(a, b, self.mean, self.sigma, torch.cat(found))
        return distances.to(mean.device), indices.to(mean.device)

    def _nearest(self, mean: Tensor, sigma: Tensor, k: int) -> Tensor:
        means, variances = mean / self._unit, (sigma / self._unit).square()
        ranks = mean.new_empty(len(mean), 0)
        found = torch.empty(len(mean), 0, dtype=torch.int64, device=mean.device)
        for start in range(0, self._means.shape[1], GAUSSIANS_A_CHUNK):
            ranking = self._ranking(means, variances, slice(start, start + GAUSSIANS_A_CHUNK))
            most = min(k, ranking.shape[1])
            lowest = ranking.min(1, keepdim=True) if most == 1 else ranking.topk(most, largest=False)
            ranks, found = torch.cat([ranks, lowest[0]], 1), torch.cat([found, lowest[1] + start], 1)
            # Stable: among equals the lowest index stays.
            ranks, order = ranks.sort(dim=1, stable=True)
            ranks, found = ranks[:, :k], found.gather(1, order[:, :k])
        return found

    def _ranking(self, means: Tensor, variances: Tensor, at: slice) -> Tensor:
        """Return twice the distances, less what is the same for all Gaussians of a query."""
        ranking = -self._logs[at].expand(len(means), -1).contiguous()
        product = None
        for d in range(means.shape[1]):
            summed = variances[:, d, None] + self._variances[d, at]
            apart = means[:, d, None] - self._means[d, at]
            ranking.add_(apart.square_().div_(summed), alpha=0.5)
            # One logarithm for two dimensions: it costs as much as all the rest.
            product = summed if product is None else product.mul_(summed)
            if d % 2 or d + 1 == means.shape[1]:
                ranking.add_(product.log_())
                product = None
        return ranking


def bhattacharyya_distances(
    mean: Tensor, sigma: Tensor, means: Tensor, sigmas: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ``(B, k)`` distances in nats to the Gaussians found, ascending, and their indices, equals too.

    Each is computed by itself, in a form that is exactly 0 for a Gaussian's own copy:
    ``vbar / (sigma_1 sigma_2) = 1 + (sigma_1 - sigma_2)^2 / (2 sigma_1 sigma_2)``.
    """
    distances, indices = [], indices.sort(dim=1).values
    for found in indices.T:
        other = sigmas[found]
        apart = (mean - means[found]).square() / (sigma.square() + other.square())
        unlike = (sigma - other).square() / (2 * sigma * other)
        distances.append(apart.sum(1) / 4 + unlike.log1p().sum(1) / 2)
    every = torch.stack(distances, 1)
    order = every.argsort(dim=1, stable=True)
    return every.gather(1, order), indices.gather(1, order)
