"""Densities of mixtures of many diagonal Gaussians, from the lists of Gaussians nearest to each point.

What is left out makes a density too small, never too large. The lists divide the means in units of each
dimension's usual sigma; in a list the exponents are one matrix product about the list's own place, where
float32 has digits enough. How far the logarithms are off is measured on points that are not among the means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from mednovelty.neighbours.density import ExactDensity, gaussian_weights, log_sum_exp
from mednovelty.neighbours.lists import ENTRIES_A_CHUNK, Lists, list_count
from mednovelty.neighbours.quality import doubled, needed_recall, whole_number

LISTS_FACTOR = 1.3
DEFAULT_PROBES = 32
FEWEST_PROBES = 8
TOLERANCE_NATS = 0.01
TERMS_A_CHUNK = 1 << 18
"""1 MiB stays in the cache."""


@dataclass(frozen=True)
class DensityQuality:
    """What was measured of an approximate density.

    Attributes:
        recall: Share of the sample whose log density is off by at most ``TOLERANCE_NATS``.
        sample: Size of the sample.
        share_compared: Gaussians that a point is compared with, over all N; the mean over the sample.
        cost: The same in Gaussians of an exact sum that take as long.
        mean_error_nats: Mean absolute error of the log density.
        max_error_nats: Largest absolute error.
    """

    recall: float
    sample: int
    share_compared: float
    cost: float
    mean_error_nats: float
    max_error_nats: float


class FastDensity:
    """Sums over the Gaussians in a few lists.

    Args:
        mean: ``(N, D)``.
        sigma: ``(N, D)`` standard deviations.
        probes: Lists a point visits.
        seed: Of the clustering; same seed, same Gaussians: same bits.
        lists: Made before; nothing is clustered then.
    """

    def __init__(
        self,
        mean: Tensor,
        sigma: Tensor,
        probes: int = DEFAULT_PROBES,
        seed: int = 0,
        lists: Lists | None = None,
    ) -> None:
        self.mean, self.sigma = (part.detach().float().cpu().contiguous() for part in (mean, sigma))
        self._usual = self.sigma.log().mean(0).exp()
        if lists is None:
            lists = Lists.of(self.mean / self._usual, list_count(len(mean), LISTS_FACTOR), seed)
        self.lists, self.probes = lists, min(probes, len(lists))

    @classmethod
    def tuned(
        cls, parts: tuple[Tensor, Tensor], sample: Tensor, target: float, seed: int
    ) -> tuple[Self, DensityQuality]:
        """Return the sum over the fewest lists that reaches the target, doubling, and what was measured.

        Args:
            parts: Mean and sigma of the Gaussians.
            sample: ``(n, D)`` points that are not among the means.
            target: Share of points whose log density must be right within ``TOLERANCE_NATS``.
            seed: Of the clustering.
        """
        index = cls(*parts, seed=seed)
        exact = ExactDensity(*parts).log_density(sample)
        every = len(index.lists)
        for index.probes in doubled(min(FEWEST_PROBES, every), every):
            quality = index.measured(sample, exact)
            if quality.recall >= needed_recall(target, len(sample)):
                break
        return index, quality

    def measured(self, sample: Tensor, exact: Tensor) -> DensityQuality:
        """Return what a sample with its ``(n,)`` exact log densities says of the sum as it is set."""
        error = (self.log_density(sample) - exact).double().abs()
        scanned = self.lists.scanned(sample.float().cpu() / self._usual, self.probes)
        return DensityQuality(
            recall=(error <= TOLERANCE_NATS).double().mean().item(),
            sample=len(error),
            share_compared=(scanned + len(self.lists)) / len(self.mean),
            cost=scanned + 5 * len(self.lists),
            mean_error_nats=error.mean().item(),
            max_error_nats=error.max().item(),
        )

    def settings(self) -> dict[str, int]:
        """Return what ``restored`` needs beside the state, as JSON types."""
        return {"lists": len(self.lists), "probes": self.probes}

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that ``restored`` makes the same sum of, to the bit."""
        return self.lists.state()

    @classmethod
    def restored(
        cls, parts: tuple[Tensor, Tensor], settings: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Self:
        """Return the sum of some settings and state.

        Raises:
            ValueError: They are damaged, or of other Gaussians.
        """
        count = whole_number(settings, "lists", 1, len(parts[0]))
        probes = whole_number(settings, "probes", 1, count)
        return cls(*parts, probes, lists=Lists.restored(state, parts[0].shape, count))

    def log_density(self, points: Tensor) -> Tensor:
        """Return ``(B,)`` log densities in nats, float32, of ``(B, D)`` points."""
        asked = points.detach().float().cpu()
        found = torch.cat(
            [self._summed(rows) for rows in asked.split(max(1, ENTRIES_A_CHUNK // self.probes))]
        )
        alone = found.isneginf()
        if alone.any():  # All lists visited were empty, or every density there is 0 even as a logarithm.
            found[alone] = ExactDensity(self.mean, self.sigma).log_density(asked[alone])
        return found.to(points.device)

    def _summed(self, points: Tensor) -> Tensor:
        visited = self.lists.nearest(points / self._usual, self.probes)
        sums, room = torch.full((visited.numel(),), -torch.inf), torch.empty(TERMS_A_CHUNK)
        for number, places in self.lists.visits(visited):
            members = self.lists.ids[self.lists.members(number)]
            place = (self.lists.centroids[number] + self.lists.centre) * self._usual
            weights = gaussian_weights(self.mean[members] - place, self.sigma[members])
            sums[places] = _log_sums(points[places // self.probes] - place, weights, room)
        return sums.view(visited.shape).logsumexp(1) - math.log(len(self.mean))


def _log_sums(points: Tensor, weights: Tensor, room: Tensor) -> Tensor:
    """Return ``(b,)`` log-sum-exp over Gaussians of ``[a^2, a, 1] . weights``, some points at a time."""
    factors = torch.cat([points.square(), points, torch.ones_like(points[:, :1])], dim=1)
    found = []
    for part in factors.split(max(1, len(room) // len(weights))):
        size = len(part) * len(weights)
        out = room[:size].view(len(part), -1) if size <= len(room) else None
        found.append(log_sum_exp(torch.mm(part, weights.T, out=out)))
    return torch.cat(found)
