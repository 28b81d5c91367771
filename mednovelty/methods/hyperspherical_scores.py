"""The score of the VAE in hyperspherical coordinates (Ascarate et al. 2026, section 2.4).

    s(x) = 1/k sum_(i <= k) ||mu(x) - mu(y_(i))||, y_(1), y_(2), ... the normals by distance, k = 3

The means keep their lengths: nothing is brought to the sphere for scoring. Any probabilistic autoencoder can
be scored so; ``latent_euclidean`` is the squared distance to the first of the neighbours.
"""

from __future__ import annotations

import torch

from mednovelty.batch import Batch
from mednovelty.errors import SettingsError
from mednovelty.methods.sample_scorers import ReferenceScorer
from mednovelty.papers import equation
from mednovelty.protocols import ProbabilisticAutoencoder
from mednovelty.reference import Reference
from mednovelty.types import SampleScores

KNN = 3


@equation("hyperspherical2026", "kNN")
class HypersphericalKNN(ReferenceScorer):
    """Mean distance from a sample's latent mean to those of its nearest normals.

    Args:
        model: Trained.
        reference: What it makes of the normals.
        knn: k, how many; all normals where there are fewer. The setting of that name.

    Raises:
        SettingsError: k is less than 1.
    """

    reference_parts = ("latent_mean",)
    unit = "latent units"
    group = "hyperspherical"
    options = ("knn",)
    asks = ("encode",)

    def __init__(self, model: ProbabilisticAutoencoder, reference: Reference, knn: int = KNN) -> None:
        super().__init__(model, reference)
        if knn < 1:
            raise SettingsError(f"knn={knn}: a distance to no neighbour is none; at least 1")
        self.knn = knn

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        count = min(self.knn, len(self.reference))
        squared, _ = self.reference.nearest("latent_mean", batch.part(self.model, "latent_mean"), count)
        # Distances first: the root of a mean of squares would be another number.
        return squared.clamp(min=0).sqrt().mean(1)
