"""Where an image is abnormal, and how much of it is (Zimmerer et al. 2019, section 2.2).

Rec-Error   RecError              squared error of each voxel
KL-grad     KLGradient            derivative of the KL term
Rec-Grad    RecGradient           derivative of the reconstruction term
Eq. (3)     ELBOGradient          derivative of both
Combi       Combi                 KL-grad times squared error
Rec         RecTerm               the reconstruction term of the whole sample
ELBO        NegativeELBOAtMean    both terms of the whole sample

Voxel by voxel, of samples of one or more contrasts and two or three axes; moduli and errors are summed over
contrasts. The KL term of the whole sample is ``vae_regularizer``; its ELBO over draws, the paper's Eq. (1),
is ``negative_elbo``. All scores here are at z = E q(z|x) and draw nothing, as in the released code.

Where the paper and its released code differ, this is the paper: the code averages derivatives over the batch
(here each sample's is its own), scales KL-grad to between 0 and 1 over the batch, and has ``-log p`` with its
constant where the paper has the error (``combi_likelihood``). The smoothing of the moduli is the code's, not
in the paper, but with borders that it does not darken; ``Smoothing(sigma=0)`` leaves it out.
"""

from __future__ import annotations

import torch

from mednovelty.batch import Batch
from mednovelty.methods.input_gradients import GradientScorer, InputGradients, MapScorer
from mednovelty.methods.sample_scorers import SampleScorer
from mednovelty.papers import equation
from mednovelty.types import SampleScores, VoxelScores


@equation("zimmerer2019", "Rec-Error")
class RecError(MapScorer):
    """Squared error of each voxel's reconstruction.

    ``s(x)_v = sum_c (x - E p(x | E q(z|x)))_cv^2``. The released code has ``-log p(x_v | z)``, which for a
    fixed sigma ranks voxels alike: ``rec_likelihood``.
    """

    asks = ("encode", "decode")
    unit = "normalised signal squared"

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores; 0 where the reconstruction is right."""
        return self.summed(self.residual(batch).square())


@equation("zimmerer2019", "KL-grad")
class KLGradient(GradientScorer):
    """How strongly each voxel moves the posterior away from the prior, or towards it.

    ``s(x)_v = sum_c |d KL(q(z|x) || p(z)) / dx_cv|``, smoothed.
    """

    unit = "nats per normalised signal"

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores."""
        return self.kl_map(batch)


@equation("zimmerer2019", "Rec-Grad")
class RecGradient(GradientScorer):
    """How strongly each voxel changes how well the sample is reconstructed.

    ``s(x)_v = sum_c |d -log p(x | E q(z|x)) / dx_cv|``, smoothed; x counts both as what is encoded and as
    what is reconstructed.
    """

    unit = "nats per normalised signal"
    differentiates = 2

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores."""
        return self.modulus(InputGradients(self.model, batch).rec)


@equation("zimmerer2019", "Eq. (3)")
class ELBOGradient(GradientScorer):
    """How strongly each voxel changes the evidence lower bound.

    ``s(x)_v = sum_c |d (KL(q(z|x) || p(z)) - log p(x | E q(z|x))) / dx_cv|``, smoothed.
    """

    unit = "nats per normalised signal"
    differentiates = 2

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores."""
        gradients = InputGradients(self.model, batch)
        # The reconstruction term first: the batch then has its likelihood from the same pass.
        return self.modulus(gradients.rec + gradients.kl)


@equation("zimmerer2019", "Combi")
class Combi(GradientScorer):
    """KL-grad times squared error.

    ``s(x)_v = KLGradient(x)_v * RecError(x)_v``, the first smoothed, the second not.
    """

    unit = "nats times normalised signal"

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores; 0 where the reconstruction is right."""
        return self.kl_map(batch) * self.summed(self.residual(batch).square())


@equation("zimmerer2019", "reconstruction-term")
class RecTerm(SampleScorer):
    """Negative log-likelihood of the whole sample under its reconstruction.

    ``s(x) = -log p(x | E q(z|x))``, in nats: Vasilev et al.'s ``reconstruction_likelihood`` by the name that
    it has beside the maps.
    """

    unit = "nats"
    group = "localisation"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return -batch.likelihood(self.model).log_prob(batch.x)


@equation("zimmerer2019", "ELBO at the mean")
class NegativeELBOAtMean(SampleScorer):
    """Negative ELBO of the whole sample, its expectation replaced by the value at the posterior's mean.

    ``s(x) = KL(q(z|x) || p(z)) - log p(x | E q(z|x))``, in nats: the ELBO of the released code. It is no
    bound; ``negative_elbo`` averages over draws and is one.
    """

    unit = "nats"
    group = "localisation"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return batch.divergence(self.model) - batch.likelihood(self.model).log_prob(batch.x)
