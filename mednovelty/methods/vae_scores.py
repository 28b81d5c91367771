"""Novelty scores of a VAE (Vasilev et al. 2018): latent space, deterministic reconstruction, ELBO.

baseline   NearestNormal            distance to the nearest normal sample
Eq. (2)    VAERegularizer           distance of the posterior from the prior
Eq. (3)    LatentEuclidean          distance to the nearest normal's latent mean
Eq. (4)    LatentBhattacharyya      distance to the nearest normal's posterior
Eq. (5)    LatentDensity            how thin the normals' posteriors are at the latent mean
Eq. (6)    ReconstructionError      squared error of the deterministic reconstruction
Eq. (7)    ReconstructionLikelihood negative log-likelihood of the same
Eq. (20)   NegativeELBO             negative evidence lower bound
Eq. (21)   NegativeELBOMin          the same at the best of its draws

Eq. (8) to (11) are in ``vae_stochastic_scores``, (12) to (17) in ``vae_reference_scores``.

The paper's released code returns roots of squared distances, leaves the sign of log-likelihoods as it
is and takes standard deviations for variances; here every score is what its equation prints, and higher
is more novel.
"""

from __future__ import annotations

import torch

from mednovelty.batch import Batch
from mednovelty.methods.sample_scorers import ReferenceScorer, SampleScorer
from mednovelty.papers import equation
from mednovelty.types import SampleScores


@equation("vasilev2018", "N_x-y")
class NearestNormal(ReferenceScorer):
    """Distance to the nearest normal sample, the paper's baseline.

    ``s(x) = min_y ||x - y||^2``: squared like the paper's other distances, which changes no ranking.
    """

    reference_parts = ("input",)
    asks = ()
    unit = "normalised signal squared"
    group = "baseline"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; 0 for a copy of a normal."""
        return batch.nearest(self.model, self.reference, points="input", part="input")


@equation("vasilev2018", "Eq. (2)")
class VAERegularizer(SampleScorer):
    """How far the posterior is from the prior.

    ``s(x) = KL(q(z|x) || p(z)) = 1/2 sum_j (sigma_j^2 + mu_j^2 - 1 - ln sigma_j^2)``, in nats. The released
    code multiplies it by the weight that KL had in training.
    """

    unit = "nats"
    group = "latent"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; 0 where the posterior is the prior."""
        return batch.divergence(self.model)


@equation("vasilev2018", "Eq. (3)")
class LatentEuclidean(ReferenceScorer):
    """Distance between a sample's latent mean and the nearest normal's.

    ``s(x) = min_y ||E q(z|x) - E q(z|y)||^2``; the released code returns the root of it.
    """

    reference_parts = ("latent_mean",)
    asks = ("encode",)
    unit = "latent units squared"
    group = "latent"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; 0 for a copy of a normal."""
        return batch.nearest(self.model, self.reference, points="latent_mean", part="latent_mean")


@equation("vasilev2018", "Eq. (4)")
class LatentBhattacharyya(ReferenceScorer):
    """Bhattacharyya distance between a sample's posterior and the nearest normal's.

    ``s(x) = min_y D_B(q(z|x), q(z|y))``, in nats; with v the variances and vbar their mean over the two,
    ``D_B = 1/8 sum_j (mu_j - mu'_j)^2 / vbar_j + 1/2 sum_j [ln vbar_j - (ln v_j + ln v'_j) / 2]``. The
    released code takes standard deviations for v, multiplies the Z terms before it takes their log, and
    returns the root.
    """

    reference_parts = ("latent_mean", "latent_sigma")
    unit = "nats"
    group = "latent"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; 0 for a copy of a normal."""
        return batch.nearest_gaussian(self.model, self.reference, "latent")


@equation("vasilev2018", "Eq. (5)")
class LatentDensity(ReferenceScorer):
    """How thinly the normals' posteriors cover a sample's latent mean.

    ``s(x) = -ln 1/N sum_y N(E q(z|x); mu_y, diag sigma_y^2)``, in nats, sigma_y that of the normal's q(z|y).
    The paper's ``-q_Y`` is ``-exp(-s)``: the same ranking, but 0 in float32 for whatever is novel. The
    released code takes the sample's sigma for the normal's and leaves the sign as it is.
    """

    reference_parts = ("latent_mean", "latent_sigma")
    unit = "nats"
    group = "latent"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return -batch.log_density(self.model, self.reference, points="latent_mean", space="latent")


@equation("vasilev2018", "Eq. (6)")
class ReconstructionError(SampleScorer):
    """Squared error of the deterministic reconstruction.

    ``s(x) = ||x - E p(x | E q(z|x))||^2``; the released code returns the root of it.
    """

    asks = ("encode", "decode")
    unit = "normalised signal squared"
    group = "reconstruction"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return (batch.x - batch.likelihood(self.model).mean).square().sum(1)


@equation("vasilev2018", "Eq. (7)")
class ReconstructionLikelihood(SampleScorer):
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
class NegativeELBO(SampleScorer):
    """Negative evidence lower bound: on average over draws, an upper bound of -log p(x).

    ``s(x) = mean_i -log p(x|z_i) + KL(q(z|x) || p(z))``, z_i ~ q(z|x), in nats. The draws are those of
    the batch, the same for every sample. The released code has the two terms apart, the first without
    its sign.
    """

    unit = "nats"
    group = "elbo"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return batch.encoder_draws(self.model).misfit.mean + batch.divergence(self.model)


@equation("vasilev2018", "Eq. (21)")
class NegativeELBOMin(SampleScorer):
    """Negative evidence lower bound at the best of its draws; no bound of anything any more.

    ``s(x) = min_i -log p(x|z_i) + KL(q(z|x) || p(z))``, in nats, over the draws of ``negative_elbo``. The
    paper prints ``+log p``, by which the worst draw would count as the best; the released code lacks it.
    """

    unit = "nats"
    group = "elbo"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; at most those of ``negative_elbo``."""
        return batch.encoder_draws(self.model).misfit.least + batch.divergence(self.model)
