"""Vectors in lists around centroids: what approximate searches visit a few of.

Everything is of fixed order and shape, so that the same seed gives the same lists, and a query visits the
same ones in any company.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from mednovelty.neighbours.clustering import kmeans
from mednovelty.neighbours.exact import ExactNeighbours, centre_of, ranked
from mednovelty.neighbours.quality import whole_tensor

ENTRIES_A_CHUNK = 1 << 22


class Lists:
    """N vectors, each in the list of its nearest centroid.

    Args:
        centre: ``(D,)`` what is subtracted from vectors and queries.
        centroids: ``(L, D)``, centred.
        assignments: ``(N,)`` int32, the list of each vector.
    """

    def __init__(self, centre: Tensor, centroids: Tensor, assignments: Tensor) -> None:
        self.centre, self.centroids, self.assignments = centre, centroids, assignments
        self.sizes = assignments.bincount(minlength=len(centroids))
        self.ids = assignments.argsort(stable=True)
        self._stops = self.sizes.cumsum(0)
        self._half_norms = centroids.square().sum(1) / 2

    @classmethod
    def of(cls, vectors: Tensor, count: int, seed: int) -> Self:
        """Return ``(N, D)`` vectors in at most ``count`` lists."""
        centre = centre_of(vectors)
        centred = vectors - centre
        centroids = kmeans(centred, count, seed)
        return cls(centre, centroids, ExactNeighbours(centroids).nearest(centred).int())

    @classmethod
    def restored(cls, state: Mapping[str, Tensor], shape: Sequence[int], lists: int) -> Self:
        """Return the lists of a state for vectors of shape ``(N, D)``.

        Raises:
            ValueError: The state is damaged, or of other vectors.
        """
        count, width = shape
        centre = whole_tensor(state, "centre", (width,), torch.float32)
        centroids = whole_tensor(state, "centroids", (lists, width), torch.float32)
        assignments = whole_tensor(state, "assignments", (count,), torch.int32)
        if not 0 <= int(assignments.min()) <= int(assignments.max()) < lists:
            raise ValueError(f"assignments point outside the {lists} centroids")
        return cls(centre, centroids, assignments)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that ``restored`` makes the same lists of, to the bit."""
        return {"centre": self.centre, "centroids": self.centroids, "assignments": self.assignments}

    def __len__(self) -> int:
        return len(self.centroids)

    def nearest(self, queries: Tensor, probes: int) -> Tensor:
        """Return ``(B, probes)`` the lists whose centroids are nearest to ``(B, D)`` queries."""
        return torch.cat(
            [
                ranked(rows - self.centre, self.centroids, self._half_norms)
                .topk(probes, largest=False)
                .indices
                for rows in queries.split(max(1, ENTRIES_A_CHUNK // len(self)))
            ]
        )

    def visits(self, lists: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield each list that is visited and not empty, with the flat places in ``lists`` that name it."""
        named = lists.flatten()
        order = named.argsort(stable=True)
        for number, places in enumerate(order.split(named.bincount(minlength=len(self)).tolist())):
            if len(places) and self.sizes[number]:
                yield number, places

    def members(self, number: int) -> slice:
        """Return where the members of a list lie among ``ids``."""
        stop = int(self._stops[number])
        return slice(stop - int(self.sizes[number]), stop)

    def probes_to_meet(self, queries: Tensor, indices: Tensor, share: float) -> int:
        """Return how many lists queries must visit to meet that share of ``(n, k)`` vectors, by index."""
        order = self.nearest(queries, len(self))
        lists = self.assignments[indices]
        met = [(order == column[:, None]).int().argmax(1) for column in lists.unbind(1)]
        rank = torch.cat(met).sort().values
        return int(rank[min(len(rank), max(1, math.ceil(share * len(rank)))) - 1]) + 1

    def scanned(self, queries: Tensor, probes: int) -> float:
        """Return how many vectors a query meets in its lists, the mean over queries."""
        return self.sizes[self.nearest(queries, probes)].sum(1).double().mean().item()


def list_count(vectors: int, factor: float) -> int:
    """Return into how many lists N vectors are divided: a power of 2 near ``factor`` times the root of N.

    Examples:
        >>> [list_count(n, 1.3) for n in (1, 100, 10_000, 620_000)]
        [1, 16, 128, 1024]
    """
    return min(-(-vectors // 2), 1 << max(0, round(math.log2(factor * vectors**0.5))))
