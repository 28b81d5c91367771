"""The score of methods that give one number a sample and nothing else."""

from __future__ import annotations

import torch

from mednovelty.batch import Batch
from mednovelty.methods.sample_scorers import SampleScorer
from mednovelty.types import SampleScores


class OutlierScore(SampleScorer):
    """How far outside of the normals the method itself puts a sample.

    Each method says in its own docstring what it measures, and in which unit.
    """

    asks = ("novelty",)
    unit = "the method's own"
    group = "outlier"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return batch.once(("novelty", self.model), lambda: self.model.novelty(batch.x))


__all__ = ["OutlierScore"]
