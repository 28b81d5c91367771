"""Novelty scores of a VAE (Vasilev et al. 2018), in the order of the paper's equations.

baseline   NearestNormal            distance to the nearest normal sample
Eq. (2)    VAERegularizer           distance of the posterior from the prior
Eq. (3)    LatentEuclidean          distance to the nearest normal's latent mean
Eq. (6)    ReconstructionError      squared error of the deterministic reconstruction
Eq. (7)    ReconstructionLikelihood negative log-likelihood of the same
Eq. (20)   NegativeELBO             negative evidence lower bound

The paper's released code returns roots of squared distances, leaves the sign of log-likelihoods as it
is and takes standard deviations for variances; here every score is what its equation prints, and higher
is more novel.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from mednovelty.batch import Batch
from mednovelty.papers import equation
from mednovelty.protocols import ProbabilisticAutoencoder
from mednovelty.reference import Reference
from mednovelty.types import SampleScores


class _SampleScorer:
    level: ClassVar[Literal["sample"]] = "sample"
    needs: ClassVar[tuple[str, ...]] = ("model",)
    reference_parts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: ProbabilisticAutoencoder) -> None:
        self.model = model


class _ReferenceScorer(_SampleScorer):
    needs: ClassVar[tuple[str, ...]] = ("model", "reference")

    def __init__(self, model: ProbabilisticAutoencoder, reference: Reference) -> None:
        super().__init__(model)
        self.reference = reference


@equation("vasilev2018", "N_x-y")
class NearestNormal(_ReferenceScorer):
    """Distance to the nearest normal sample, the paper's baseline.

    ``s(x) = min_y ||x - y||^2``, in squared units of the normalised signal.
    """

    reference_parts = ("input",)
    unit = "normalised signal squared"
    group = "baseline"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; 0 for a copy of a normal."""
        return batch.nearest_input(self.reference)


@equation("vasilev2018", "Eq. (2)")
class VAERegularizer(_SampleScorer):
    """How far the posterior is from the prior.

    ``s(x) = KL(q(z|x) || p(z)) = 1/2 sum_j (sigma_j^2 + mu_j^2 - 1 - ln sigma_j^2)``, in nats.
    """

    unit = "nats"
    group = "latent"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; 0 where the posterior is the prior."""
        return batch.divergence(self.model)


@equation("vasilev2018", "Eq. (3)")
class LatentEuclidean(_ReferenceScorer):
    """Distance between a sample's latent mean and the nearest normal's.

    ``s(x) = min_y ||E q(z|x) - E q(z|y)||^2``; the released code returns the root of it.
    """

    reference_parts = ("latent_mean",)
    unit = "latent units squared"
    group = "latent"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; 0 for a copy of a normal."""
        return batch.nearest_latent_mean(self.model, self.reference)


@equation("vasilev2018", "Eq. (6)")
class ReconstructionError(_SampleScorer):
    """Squared error of the deterministic reconstruction.

    ``s(x) = ||x - E p(x | E q(z|x))||^2``; the released code returns the root of it.
    """

    unit = "normalised signal squared"
    group = "reconstruction"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return (batch.x - batch.likelihood(self.model).mean).square().sum(1)


@equation("vasilev2018", "Eq. (7)")
class ReconstructionLikelihood(_SampleScorer):
    """Negative log-likelihood of a sample under its deterministic reconstruction.

    ``s(x) = -log p(x | E q(z|x))``, in nats; the released code leaves the sign as it is.
    """

    unit = "nats"
    group = "reconstruction"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return -batch.likelihood(self.model).log_prob(batch.x)


@equation("vasilev2018", "Eq. (20)")
class NegativeELBO(_SampleScorer):
    """Negative evidence lower bound: on average over draws, an upper bound of -log p(x).

    ``s(x) = mean_i -log p(x|z_i) + KL(q(z|x) || p(z))``, z_i ~ q(z|x), in nats. The draws are those of
    the batch, the same for every sample.
    """

    unit = "nats"
    group = "elbo"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return batch.misfits(self.model).mean(0) + batch.divergence(self.model)
