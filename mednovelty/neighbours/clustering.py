"""k-means whose result does not depend on the number of threads."""

from __future__ import annotations

import torch
from torch import Tensor

from mednovelty.neighbours.exact import ExactNeighbours
from mednovelty.seeds import generator

VECTORS_A_LIST = 64
"""More change the centroids little."""
ROUNDS = 8


def kmeans(vectors: Tensor, lists: int, seed: int) -> Tensor:
    """Return ``(lists, D)`` centroids of ``(N, D)`` vectors, or of a sample of them.

    A centroid that no vector is nearest to moves beside that of the largest list and takes a share of it.
    """
    random = generator(seed, "neighbours", "k-means")
    drawn = torch.randperm(len(vectors), generator=random)[: VECTORS_A_LIST * lists]
    sample = vectors[drawn]
    centroids = sample[:lists].clone()
    for _ in range(ROUNDS):
        nearest = ExactNeighbours(centroids).nearest(sample)
        sizes = nearest.bincount(minlength=lists)
        # In float64 and in the order of the sample: one thread or many, the same sums.
        sums = torch.zeros(centroids.shape, dtype=torch.float64).index_add_(0, nearest, sample.double())
        filled = sizes > 0
        centroids[filled] = (sums[filled] / sizes[filled, None]).float()
        _fill_empty(centroids, sizes, random)
    return centroids


def _fill_empty(centroids: Tensor, sizes: Tensor, random: torch.Generator) -> None:
    for empty in (sizes == 0).nonzero().flatten().tolist():
        largest = int(sizes.argmax())
        spread = centroids.std(0, correction=0) * 1e-3
        centroids[empty] = centroids[largest] + spread * torch.randn(len(spread), generator=random)
        sizes[empty] = sizes[largest] // 2
        sizes[largest] -= sizes[empty]
