"""Bhattacharyya neighbours among many Gaussians, by candidates that a matrix product ranks.

For variances that are not far apart, to second order in the difference of their logarithms,

    D_B = 1/8 sum (mu_1 - mu_2)^2 / v_1 + 1/16 sum (ln v_1 - ln v_2)^2

which for one query is a weighted Euclidean distance. Which Gaussians are near at all is found in the
embedding ``[mu / sqrt(8 v), ln v / 4]`` with each dimension's usual v: they lie in lists there, of which a
query visits a few. In a list the approximation with the query's own v ranks, and the best candidates are
compared by the true distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from mednovelty.neighbours.bhattacharyya import ExactBhattacharyya, bhattacharyya_distances
from mednovelty.neighbours.exact import check_k
from mednovelty.neighbours.lists import ENTRIES_A_CHUNK, Lists, list_count
from mednovelty.neighbours.quality import Quality, doubled, needed_recall, whole_number

LISTS_FACTOR = 1.3
DEFAULT_PROBES, DEFAULT_CANDIDATES = 24, 16
MOST_CANDIDATES = 512
BRUTE_COST = 40.0
"""An exact Bhattacharyya distance, beside one by a matrix product in a list."""


class FastBhattacharyya:
    """Searches a few lists of Gaussians.

    Args:
        mean: ``(N, D)``.
        sigma: ``(N, D)`` standard deviations.
        probes: Lists a query visits.
        candidates: Gaussians compared by the true distance.
        seed: Of the clustering; same seed, same Gaussians: same bits.
        lists: Made before; nothing is clustered then.
    """

    def __init__(
        self,
        mean: Tensor,
        sigma: Tensor,
        probes: int = DEFAULT_PROBES,
        candidates: int = DEFAULT_CANDIDATES,
        seed: int = 0,
        lists: Lists | None = None,
    ) -> None:
        self.mean, self.sigma = (part.detach().float().cpu().contiguous() for part in (mean, sigma))
        self._usual = self.sigma.log().mean(0).exp()
        if lists is None:
            embedded = self._embedded(self.mean, self.sigma)
            lists = Lists.of(embedded, list_count(len(mean), LISTS_FACTOR), seed)
        self.lists, self.probes, self.candidates = lists, min(probes, len(lists)), candidates

    def _embedded(self, mean: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([mean / self._usual / 8**0.5, sigma.log() / 2], dim=1)

    @classmethod
    def tuned(
        cls, parts: tuple[Tensor, Tensor], sample: tuple[Tensor, Tensor], target: float, seed: int
    ) -> tuple[Self, Quality]:
        """Return the cheapest search found that reaches the target, and what was measured of it.

        Half of the misses allowed may be of lists not visited, the others of candidates not ranked high
        enough. Where that does not come together, more lists are visited, at last all.

        Args:
            parts: Mean and sigma of the Gaussians.
            sample: The same of queries that are not among them.
            target: Recall to reach.
            seed: Of the clustering.
        """
        index = cls(*parts, seed=seed)
        nearest, at = ExactBhattacharyya(*parts).search(*sample)
        needed = needed_recall(target, len(at))
        embedded = index._embedded(*(part.float().cpu() for part in sample))
        first = index.lists.probes_to_meet(embedded, at[:, :1].cpu(), (1 + min(needed, 1)) / 2)
        for probes in doubled(first, len(index.lists)):
            for candidates in doubled(4, min(MOST_CANDIDATES, len(index.mean))):
                index.probes, index.candidates = probes, candidates
                quality = index.measured(sample, nearest[:, 0])
                if quality.recall >= needed:
                    return index, quality
        return index, quality

    def measured(self, sample: tuple[Tensor, Tensor], nearest: Tensor) -> Quality:
        """Return what a sample with its ``(n,)`` exact distances says of the search as it is set."""
        found = self.search(*sample)[0][:, 0]
        embedded = self._embedded(*(part.float().cpu() for part in sample))
        scanned = self.lists.scanned(embedded, self.probes)
        cost = scanned + 5 * len(self.lists) + BRUTE_COST * self.candidates
        share = (scanned + len(self.lists)) / len(self.mean)
        recall = (found <= nearest).double().mean().item()
        return Quality(recall, len(found), share, cost)

    def settings(self) -> dict[str, int]:
        """Return what ``restored`` needs beside the state, as JSON types."""
        return {"lists": len(self.lists), "probes": self.probes, "candidates": self.candidates}

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that ``restored`` makes the same search of, to the bit."""
        return self.lists.state()

    @classmethod
    def restored(
        cls, parts: tuple[Tensor, Tensor], settings: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Self:
        """Return the search of some settings and state.

        Raises:
            ValueError: They are damaged, or of other Gaussians.
        """
        rows, width = parts[0].shape
        count = whole_number(settings, "lists", 1, rows)
        probes = whole_number(settings, "probes", 1, count)
        candidates = whole_number(settings, "candidates", 1, MOST_CANDIDATES)
        return cls(*parts, probes, candidates, lists=Lists.restored(state, (rows, 2 * width), count))

    def search(self, mean: Tensor, sigma: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Return ``(B, k)`` distances in nats, ascending, and ``(B, k)`` int64 indices.

        Args:
            mean: ``(B, D)``.
            sigma: ``(B, D)`` standard deviations.
            k: How many, at most N; as many candidates are compared at least.
        """
        check_k(k, len(self.mean))
        a, b = (part.detach().float().cpu() for part in (mean, sigma))
        most = max(self.candidates, k)
        rows = max(1, ENTRIES_A_CHUNK // (self.probes * most))
        chunks = zip(a.split(rows), b.split(rows), strict=True)
        found = torch.cat([self._candidates(*parts, most) for parts in chunks])
        # A candidate that is not there is the first again, and looks no better than it is.
        short = (found[:, :k] < 0).any(1)
        indices = torch.where(found < 0, found[:, :1], found)
        distances, indices = bhattacharyya_distances(a, b, self.mean, self.sigma, indices)
        distances, indices = distances[:, :k], indices[:, :k]
        if short.any():
            exact = ExactBhattacharyya(self.mean, self.sigma)
            distances[short], indices[short] = exact.search(a[short], b[short], k)
        return distances.to(mean.device), indices.to(mean.device)

    def _candidates(self, mean: Tensor, sigma: Tensor, most: int) -> Tensor:
        """Return ``(B, most)`` indices in the order of the approximation; -1 where there are not as many."""
        visited = self.lists.nearest(self._embedded(mean, sigma), self.probes)
        ranks = torch.full((visited.numel(), most), torch.inf)
        found = torch.full((visited.numel(), most), -1)
        width, weights, logs = mean.shape[1], sigma.square().reciprocal() / 8, sigma.log()
        for number, places in self.lists.visits(visited):
            rows, members = places // self.probes, self.lists.ids[self.lists.members(number)]
            # About a place among the members, so that the squares are small where it matters.
            place = (self.lists.centroids[number] + self.lists.centre)[:width] * self._usual * 8**0.5
            ranking = _approximated(
                (mean[rows] - place, weights[rows], logs[rows]),
                (self.mean[members] - place, self.sigma[members].log()),
            )
            here = min(most, len(members))
            ranks[places, :here], at = ranking.topk(here, largest=False)
            found[places, :here] = members[at]
        shape = len(mean), self.probes * most
        return found.view(shape).gather(1, ranks.view(shape).topk(most, largest=False).indices)


def _approximated(query: tuple[Tensor, Tensor, Tensor], members: tuple[Tensor, Tensor]) -> Tensor:
    """Return ``(b, n)`` sums of ``w (mu_1 - mu_2)^2 + 1/4 (ln sigma_1 - ln sigma_2)^2``: a matrix product."""
    (mean, weight, log), (means, logs) = query, members
    own = (weight * mean.square()).sum(1) + log.square().sum(1) / 4
    theirs = logs.square().sum(1) / 4
    left = torch.cat([weight, -2 * weight * mean, -log / 2], dim=1)
    return torch.addmm(theirs, left, torch.cat([means.square(), means, logs], dim=1).T).add_(own[:, None])
