"""The scores of a detector trained on synthetic lesions."""

from __future__ import annotations

import math

import torch

from mednovelty.batch import Batch
from mednovelty.methods.input_gradients import MapScorer
from mednovelty.methods.sample_scorers import SampleScorer
from mednovelty.types import SampleScores, VoxelScores


class SyntheticLesionsMap(MapScorer):
    """Log-odds of each voxel that an anomaly like those planted in training is there."""

    asks = ("lesion_map",)
    unit = "log-odds"

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores."""
        return _lesion_map(self.model, batch)


class SyntheticLesionsScore(SampleScorer):
    """Log of the mean odds, over a sample's voxels, of an anomaly like those planted in training.

    Of a voxel its own log-odds; of a slice or window what its most conspicuous places say.
    """

    asks = ("lesion_map",)
    unit = "log-odds"
    group = "localisation"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        odds = _lesion_map(self.model, batch).reshape(len(batch), -1)
        return odds.logsumexp(1) - math.log(odds.shape[1])


def _lesion_map(model: object, batch: Batch) -> VoxelScores:
    return batch.once(("lesion map", model), lambda: model.lesion_map(batch.x))  # type: ignore[attr-defined]


__all__ = ["SyntheticLesionsMap", "SyntheticLesionsScore"]
