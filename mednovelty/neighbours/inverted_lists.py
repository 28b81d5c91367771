"""Approximate nearest neighbours: each query visits the lists whose centroids are nearest to it.

The usual library scans a query's lists one query at a time. Novelty maps ask for many thousand queries at
once, so here each list is met once and compared with all the queries that visit it, by one matrix product:
several times faster a distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from mednovelty.neighbours.exact import ExactNeighbours, check_k, ranked, squared_distances
from mednovelty.neighbours.lists import ENTRIES_A_CHUNK, Lists, list_count
from mednovelty.neighbours.quality import HeldOut, Quality, needed_recall, whole_number

DEFAULT_PROBES = 16


class InvertedLists:
    """Searches a few lists of vectors by matrix products.

    ``InvertedLists(vectors)`` takes settings that usually suffice; ``tuned`` finds those that reach a recall.
    Where fewer than k vectors lie in the lists visited, that query is searched exactly.

    Args:
        vectors: ``(N, D)`` float32; they are searched on the CPU.
        probes: Lists a query visits.
        seed: Of the clustering; same seed, same vectors: same bits.
        lists: Made before; nothing is clustered then.
    """

    lists_factor: ClassVar[float] = 1.3
    """Lists, over the root of N: comparing with centroids then costs about as much as with members."""
    scan_cost: ClassVar[float] = 1
    """What comparing with a vector of a list costs, beside comparing with one of all by brute force."""
    visit_cost: ClassVar[float] = 4
    """What a list costs a query for being met at all; measured in batches of 16,384 queries."""

    def __init__(
        self, vectors: Tensor, probes: int = DEFAULT_PROBES, seed: int = 0, lists: Lists | None = None
    ) -> None:
        self.vectors = vectors.detach().float().cpu().contiguous()
        self.lists = lists or Lists.of(self.vectors, list_count(len(vectors), self.lists_factor), seed)
        self.probes = min(probes, len(self.lists))
        self._fill()

    def _fill(self) -> None:
        self._listed = (self.vectors - self.lists.centre)[self.lists.ids]
        self._half_norms = self._listed.square().sum(1) / 2

    @classmethod
    def tuned(cls, vectors: Tensor, sample: HeldOut, target: float, seed: int) -> tuple[Self, Quality]:
        """Return an index that visits as few lists as reach the target, and what was measured of it.

        Where the sample is too small to show the target, all lists are visited.
        """
        index = cls(vectors, seed=seed)
        needed = needed_recall(target, len(sample.queries))
        queries, indices = sample.queries.float().cpu(), sample.indices.cpu()
        index.probes = (
            len(index.lists) if needed > 1 else index.lists.probes_to_meet(queries, indices, needed)
        )
        return index, index.measured(sample)

    def measured(self, sample: HeldOut) -> Quality:
        """Return what a sample says of the index as it is set."""
        found, _ = self.search(sample.queries, sample.k)
        scanned = self.lists.scanned(sample.queries.float().cpu(), self.probes)
        cost = self.scan_cost * scanned + (1 + self.visit_cost) * len(self.lists)
        share = (scanned + len(self.lists)) / len(self.vectors)
        return Quality(sample.recall(found), len(found), share, cost, sample.k)

    def settings(self) -> dict[str, int]:
        """Return what ``restored`` needs beside the state, as JSON types."""
        return {"lists": len(self.lists), "probes": self.probes}

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that ``restored`` makes the same index of, to the bit."""
        return self.lists.state()

    @classmethod
    def restored(cls, vectors: Tensor, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> Self:
        """Return the index of some settings and state.

        Raises:
            ValueError: They are damaged, or of other vectors.
        """
        count = whole_number(settings, "lists", 1, len(vectors))
        probes = whole_number(settings, "probes", 1, count)
        return cls(vectors, probes, lists=Lists.restored(state, vectors.shape, count))

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return ``(B, k)`` squared Euclidean distances, ascending, and ``(B, k)`` int64 indices.

        Args:
            queries: ``(B, D)``.
            k: How many, at most N.
        """
        check_k(k, len(self.vectors))
        asked = queries.detach().float().cpu()
        rows = max(1, ENTRIES_A_CHUNK // (self.probes * k))
        indices = torch.cat([self._scan(chunk, k) for chunk in asked.split(rows)])
        short = (indices < 0).any(1)
        if short.any():
            indices[short] = self._exact.search(asked[short], k)[1]
        distances, indices = squared_distances(asked, self.vectors, indices)
        return distances.to(queries.device), indices.to(queries.device)

    @cached_property
    def _exact(self) -> ExactNeighbours:
        return ExactNeighbours(self.vectors)

    def _scan(self, queries: Tensor, k: int) -> Tensor:
        """Return ``(B, k)`` indices of the nearest in the lists visited; -1 where there are not as many."""
        visited = self.lists.nearest(queries, self.probes)
        centred = queries - self.lists.centre
        return self._nearest(centred, visited)[:, None] if k == 1 else self._nearest_k(centred, visited, k)

    def _nearest(self, centred: Tensor, visited: Tensor) -> Tensor:
        """Find first the list that holds the nearest, then its place in there.

        A minimum without its place is ten times faster than one with it.
        """
        lowest, room = torch.full((visited.numel(),), torch.inf), torch.empty(ENTRIES_A_CHUNK)
        for number, places in self.lists.visits(visited):
            lowest[places] = self._ranking(centred[places // visited.shape[1]], number, room).amin(1)
        found = torch.full((len(centred),), -1)
        best = lowest.view(visited.shape).argmin(1, keepdim=True)
        for number, rows in self.lists.visits(visited.gather(1, best)):
            place = self._ranking(centred[rows], number, room).argmin(1)
            found[rows] = self.lists.ids[self.lists.members(number)][place]
        return found

    def _nearest_k(self, centred: Tensor, visited: Tensor, k: int) -> Tensor:
        ranks, room = torch.full((visited.numel(), k), torch.inf), torch.empty(ENTRIES_A_CHUNK)
        found = torch.full((visited.numel(), k), -1)
        for number, places in self.lists.visits(visited):
            ranking = self._ranking(centred[places // visited.shape[1]], number, room)
            most = min(k, ranking.shape[1])
            ranks[places, :most], at = ranking.topk(most, largest=False)
            found[places, :most] = self.lists.ids[self.lists.members(number)][at]
        best = ranks.view(len(centred), k * visited.shape[1]).topk(k, largest=False).indices
        return found.view(len(centred), k * visited.shape[1]).gather(1, best)

    def _ranking(self, centred: Tensor, number: int, room: Tensor) -> Tensor:
        at = self.lists.members(number)
        return ranked(centred, self._listed[at], self._half_norms[at], room)
