"""The score of Deep SVDD, Deep SAD and hypersphere classification (Ruff 2021, Eq. (2.12))."""

from __future__ import annotations

import torch

from mednovelty.batch import Batch
from mednovelty.methods.sample_scorers import SampleScorer
from mednovelty.papers import equation
from mednovelty.types import SampleScores


@equation("ruff2021_thesis", "Eq. (2.12)")
class HypersphereScore(SampleScorer):
    """How far a sample's latents are from where normal ones were brought.

    ``s(x) = ||phi(x) - c||^2``, squared as in the released code, which changes no ranking; with a soft
    boundary ``||phi(x) - c||^2 - R^2``, above 0 outside; of ``hsc`` h(phi(x)), where the released code has
    1 - exp(-h): the same ranking, but 1 in float32 for whatever is beyond 17.
    """

    asks = ("hypersphere",)
    unit = "latent units squared"
    group = "latent"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return self.model.hypersphere(batch.posterior(self.model).mean)


__all__ = ["HypersphereScore"]
