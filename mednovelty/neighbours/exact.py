"""Exact nearest neighbours in torch, on any device, in chunks of bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor

DISTANCES_A_CHUNK = 1 << 24


class ExactNeighbours:
    """Searches by brute force: every query against every vector.

    Args:
        vectors: ``(N, D)`` float32.

    Examples:
        >>> neighbours = ExactNeighbours(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        >>> distances, indices = neighbours.search(torch.tensor([[3.0, 3.0]]), k=2)
        >>> distances.tolist(), indices.tolist()
        ([[1.0, 18.0]], [[1, 0]])
    """

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors.float().contiguous()
        # Centred: distances stay, and the expansion below loses fewer digits far from the origin.
        self.centre = self.vectors.mean(0)
        self._centred = self.vectors - self.centre
        self._half_norms = self._centred.square().sum(1) / 2

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the k nearest vectors of each query.

        Args:
            queries: ``(B, D)``.
            k: How many, at most N.

        Returns:
            ``(B, k)`` squared Euclidean distances, ascending, and ``(B, k)`` int64 indices.
        """
        rows = max(1, DISTANCES_A_CHUNK // len(self.vectors))
        found = [self._nearest(chunk, k) for chunk in queries.float().split(rows)]
        indices = torch.cat(found) if found else torch.empty(0, k, dtype=torch.int64)
        return squared_distances(queries, self.vectors, indices)

    def _nearest(self, queries: Tensor, k: int) -> Tensor:
        # |q - v|^2 / 2 = |q|^2 / 2 + |v|^2 / 2 - q.v; the first term is the same for all v.
        ranking = torch.addmm(self._half_norms, queries - self.centre, self._centred.T, alpha=-1)
        return ranking.argmin(1, keepdim=True) if k == 1 else ranking.topk(k, largest=False).indices


def squared_distances(queries: Tensor, vectors: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(B, k)`` squared distances to the vectors found, ascending, and their indices.

    Searches rank by an expanded square, whose rounding depends on the batch; the differences computed
    here do not, and are exactly 0 for a vector's own copy.
    """
    distances = torch.stack(
        [(queries.float() - vectors[indices[:, j]]).square().sum(1) for j in range(indices.shape[1])], dim=1
    )
    order = distances.argsort(dim=1, stable=True)
    return distances.gather(1, order), indices.gather(1, order)
