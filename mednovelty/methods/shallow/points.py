"""Models that keep normals and compare each sample with all of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mednovelty.methods.shallow.base import ShallowModel
from mednovelty.methods.shallow.preparing import put, register_count


class WithPoints(ShallowModel):
    """A model that keeps normals.

    Attributes:
        points: ``(n, W)`` of them; beyond ``kept``, zeros.
        kept: How many.
    """

    points: Tensor
    kept: Tensor

    def reserve(self, width: int) -> None:
        """Register the points."""
        self.register_buffer("points", torch.zeros(self.settings.samples, width))
        register_count(self, "kept", self.settings.samples)

    def keep(self, rows: np.ndarray) -> None:
        """Take ``(n, W)`` points."""
        put(self.points, rows)
        self.kept.fill_(len(rows))

    def normals(self) -> Tensor:
        """Return ``(n, W)`` points that are kept."""
        return self.points[: int(self.kept), : self.preparation.width]

    def numbers_a_sample(self) -> int:
        """Return how many distances there are."""
        return max(int(self.kept), self.preparation.width, 1)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return ``(B, n)`` squared distances of ``(B, W)`` and ``(n, W)`` points."""
    # Centred: distances stay, and the expanded square loses fewer digits far from the origin.
    centre = y.mean(0)
    x, y = x - centre, y - centre
    squared = torch.addmm(y.square().sum(1), x, y.T, alpha=-2) + x.square().sum(1, keepdim=True)
    return squared.clamp_min(0)


__all__ = ["WithPoints", "squared_distances"]
