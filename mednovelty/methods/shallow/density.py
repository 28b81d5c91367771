"""How many normals are near: a density with a kernel, and densities beside those of the neighbours.

``kde``                    s(x) = -log mean_i N(x; x_i, h^2 I), in nats
``local_outlier_factor``   s(x) = mean_{y in N(x)} lrd(y) / lrd(x) (Breunig et al. 2000), with
                           1 / lrd(x) = mean_{y in N(x)} max(||x - y||, distance of y to its k-th nearest)
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mednovelty.methods.shallow.base import ShallowMethod, ShallowModel
from mednovelty.methods.shallow.points import WithPoints, squared_distances
from mednovelty.methods.shallow.preparing import put, register_count
from mednovelty.methods.shallow.settings import KDESettings, LOFSettings
from mednovelty.types import SampleScores


class KDE(WithPoints):
    """Negative log of a density estimated with a Gaussian kernel.

    Attributes:
        bandwidth: h, the kernel's standard deviation.
    """

    bandwidth: Tensor

    def reserve(self, width: int) -> None:
        """Register points and bandwidth."""
        super().reserve(width)
        self.register_buffer("bandwidth", torch.ones(()))

    def estimator(self, rows: np.ndarray, seed: int) -> Any:
        """Return the fitted density."""
        from sklearn.neighbors import KernelDensity

        width = self.settings.bandwidth or self.likeliest(rows, seed)
        return KernelDensity(bandwidth=width).fit(rows)

    def take(self, fitted: Any, rows: np.ndarray) -> None:
        """Take points and bandwidth."""
        self.keep(rows)
        self.bandwidth.fill_(fitted.bandwidth)

    def likeliest(self, rows: np.ndarray, seed: int) -> float:
        """Return the bandwidth under which rows left out are likeliest, parts of them in turn.

        As comparing scikit-learn's densities would, but distances are computed once for all bandwidths.
        """
        order = np.random.default_rng(seed).permutation(len(rows))
        parts = [part for part in np.array_split(order, self.settings.folds) if len(part)]
        grid, total = self.settings.grid, torch.zeros(self.settings.bandwidths, dtype=torch.float64)
        every = torch.from_numpy(rows)
        for part in parts:
            others = every[np.setdiff1d(order, part)]
            for x in every[part].split(max(1, (1 << 22) // len(others))):
                squared = squared_distances(x, others)
                each = [log_density(squared, h, x.shape[1]).sum() for h in grid]
                total += torch.stack(each)
        return grid[int(total.argmax())]

    def of(self, z: Tensor) -> SampleScores:
        """Return ``(B,)`` negative log densities, in nats."""
        return -log_density(squared_distances(z, self.normals()), self.bandwidth, z.shape[1])

    def facts(self) -> dict[str, Any]:
        """Return the bandwidth, and whether a better one may lie outside of those compared."""
        grid = self.settings.grid
        at_edge = self.settings.bandwidth is None and any(
            math.isclose(float(self.bandwidth), end, rel_tol=1e-5) for end in (grid[0], grid[-1])
        )
        return {"bandwidth": float(self.bandwidth), "bandwidth_at_edge": at_edge}

    def words(self) -> str:
        """Return the same in words."""
        edge = " (the end of those compared: lower lowest_log2 or raise highest_log2)"
        told = f"a density of bandwidth {float(self.bandwidth):.4g}"
        return told + (edge if self.facts()["bandwidth_at_edge"] else "")


class KDEMethod(ShallowMethod):
    """Kernel density estimate; novel is what has little density."""

    Settings: ClassVar[type] = KDESettings
    Model: ClassVar[type[ShallowModel]] = KDE
    name: ClassVar[str] = "kde"


class LOF(WithPoints):
    """How much thinner the surroundings of a sample are than those of its neighbours.

    Attributes:
        k: Neighbours looked at; fewer than asked for where there are fewer samples.
        reach: ``(n,)`` distance of each sample to its k-th nearest.
        density: ``(n,)`` local reachability density of each.
    """

    k: Tensor
    reach: Tensor
    density: Tensor

    def reserve(self, width: int) -> None:
        """Register points and their densities."""
        super().reserve(width)
        register_count(self, "k", self.settings.neighbours)
        self.register_buffer("reach", torch.zeros(self.settings.samples))
        self.register_buffer("density", torch.zeros(self.settings.samples))

    def estimator(self, rows: np.ndarray, seed: int) -> Any:
        """Return the fitted neighbourhoods."""
        from sklearn.neighbors import LocalOutlierFactor

        count = min(self.settings.neighbours, len(rows) - 1)
        return LocalOutlierFactor(count, novelty=True).fit(rows)

    def take(self, fitted: Any, rows: np.ndarray) -> None:
        """Take points and the densities around them."""
        distances, indices = fitted.kneighbors()
        self.keep(rows)
        self.k.fill_(distances.shape[1])
        put(self.reach, distances[:, -1])
        put(self.density, reachability(torch.from_numpy(distances), torch.from_numpy(distances[indices, -1])))

    def of(self, z: Tensor) -> SampleScores:
        """Return ``(B,)`` local outlier factors; about 1 inside of a cloud of even density."""
        points = self.normals()
        found = squared_distances(z.detach(), points).topk(int(self.k), largest=False).indices
        # Differences, not the expanded square: beside a copy of a normal that one is all rounding.
        steps = [(z - points[found[:, j]]).square().sum(1) for j in range(found.shape[1])]
        # A root has no slope at 0, at a copy of a normal, where reach is what counts.
        distances = torch.stack(steps, dim=1).clamp_min(torch.finfo(z.dtype).tiny).sqrt()
        return self.density[found].mean(1) / reachability(distances, self.reach[found])

    def facts(self) -> dict[str, Any]:
        """Return how many neighbours are looked at."""
        return {"neighbours": int(self.k)}

    def words(self) -> str:
        """Return the same in words."""
        return f"densities around {int(self.kept):,} samples, by {int(self.k)} neighbours"


class LOFMethod(ShallowMethod):
    """Local outlier factor; novel is what has thinner surroundings than its neighbours."""

    Settings: ClassVar[type] = LOFSettings
    Model: ClassVar[type[ShallowModel]] = LOF
    name: ClassVar[str] = "local_outlier_factor"


def log_density(squared: Tensor, bandwidth: float | Tensor, width: int) -> Tensor:
    """Return ``(B,)`` log densities, in nats, of ``(B, n)`` squared distances to the points."""
    scale = torch.as_tensor(bandwidth, dtype=squared.dtype, device=squared.device)
    height = width * (scale.log() + 0.5 * math.log(2 * math.pi)) + math.log(squared.shape[1])
    return (squared / (-2 * scale.square())).logsumexp(1) - height


def reachability(distances: Tensor, reach: Tensor) -> Tensor:
    """Return ``(B,)`` local reachability densities of ``(B, k)`` distances and of how far those reach."""
    # What scikit-learn adds, for samples that occur more often than there are neighbours.
    return 1 / (torch.maximum(distances, reach).mean(1) + 1e-10)


__all__ = ["KDE", "KDEMethod", "LOF", "LOFMethod"]
