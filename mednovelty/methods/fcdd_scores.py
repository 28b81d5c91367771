"""The scores of fully convolutional data description (Ruff 2021, section 3.1)."""

from __future__ import annotations

import torch

from mednovelty.batch import Batch
from mednovelty.methods.input_gradients import MapScorer
from mednovelty.methods.sample_scorers import SampleScorer
from mednovelty.papers import equation
from mednovelty.types import SampleScores, VoxelScores


@equation("ruff2021_thesis", "Section 3.1.1, heatmap")
class FCDDMap(MapScorer):
    """How abnormal the surroundings of each voxel are to a fully convolutional network.

    ``A'(x)``: the network's small map ``A = sqrt(phi(x)^2 + 1) - 1``, drawn back onto the sample by Gaussians
    over receptive fields, scaled so that a constant map stays constant (``nn.receptive_field``).
    """

    asks = ("heatmap",)
    unit = "pseudo-Huber distance"

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores, at least 0."""
        return self.model.upsampled(_heatmap(self.model, batch))


@equation("ruff2021_thesis", "Section 3.1.1, anomaly score")
class FCDDScore(SampleScorer):
    """Mean of the small map that a fully convolutional network makes of the sample.

    ``s(x) = ||A(x)||_1 / (u v)``.
    """

    asks = ("heatmap",)
    unit = "pseudo-Huber distance"
    group = "localisation"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores, at least 0."""
        return _heatmap(self.model, batch).reshape(len(batch), -1).mean(1)


def _heatmap(model: object, batch: Batch) -> VoxelScores:
    return batch.once(("heatmap", model), lambda: model.heatmap(batch.x))  # type: ignore[attr-defined]


__all__ = ["FCDDMap", "FCDDScore"]
