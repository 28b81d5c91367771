"""Stochastic reconstruction scores of a VAE (Vasilev et al. 2018, section 2.2.1).

Eq. (8)    EncoderStochasticError       z_i ~ q(z|x), squared error of the decoder's mean
Eq. (9)    EncoderStochasticLikelihood  z_i ~ q(z|x), negative log-likelihood
Eq. (10)   DecoderStochasticError       x_i ~ p(x | E q(z|x)), squared error
Eq. (11)   FullyStochasticError         z_i ~ q(z|x), x_i ~ p(x|z_i), squared error

Each is a mean over draws i; with ``Min`` at the end it is the smallest over the same draws. All samples
share the draws, which come in pairs of opposite sign with mean square 1: with an even number of them,
Eq. (10) is its expectation ``||x - M||^2 + sum_c S_c^2`` exactly, M and S the decoder's mean and sigma at
E q(z|x).

The released code averages norms, not their squares, which ranks samples otherwise, over 45 draws that differ
from sample to sample; it leaves the sign of log-likelihoods as it is.
"""

from __future__ import annotations

import torch

from mednovelty.batch import Batch, OverDraws
from mednovelty.methods.sample_scorers import SampleScorer
from mednovelty.papers import equation
from mednovelty.types import SampleScores


@equation("vasilev2018", "Eq. (8)")
class EncoderStochasticError(SampleScorer):
    """Squared error of the reconstruction, averaged over draws from the posterior.

    ``s(x) = mean_i ||x - E p(x|z_i)||^2``, z_i ~ q(z|x); the released code averages the norms.
    """

    unit = "normalised signal squared"
    group = "stochastic"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return batch.encoder_draws(self.model).error.mean


@equation("vasilev2018", "Eq. (8), min")
class EncoderStochasticErrorMin(SampleScorer):
    """Squared error of the reconstruction at the best of the draws from the posterior.

    ``s(x) = min_i ||x - E p(x|z_i)||^2``, over the draws of ``encoder_stochastic_error``.
    """

    unit = "normalised signal squared"
    group = "stochastic"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; at most those of the mean."""
        return batch.encoder_draws(self.model).error.least


@equation("vasilev2018", "Eq. (9)")
class EncoderStochasticLikelihood(SampleScorer):
    """Negative log-likelihood, averaged over draws from the posterior.

    ``s(x) = mean_i -log p(x|z_i)``, z_i ~ q(z|x), in nats: An and Cho's "reconstruction probability". The
    released code leaves the sign as it is.
    """

    unit = "nats"
    group = "stochastic"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return batch.encoder_draws(self.model).misfit.mean


@equation("vasilev2018", "Eq. (9), min")
class EncoderStochasticLikelihoodMin(SampleScorer):
    """Negative log-likelihood at the best of the draws from the posterior.

    ``s(x) = min_i -log p(x|z_i)``, in nats, over the draws of ``encoder_stochastic_likelihood``.
    """

    unit = "nats"
    group = "stochastic"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; at most those of the mean."""
        return batch.encoder_draws(self.model).misfit.least


@equation("vasilev2018", "Eq. (10)")
class DecoderStochasticError(SampleScorer):
    """Squared distance to draws from the decoder at the latent mean, averaged.

    ``s(x) = mean_i ||x - x_i||^2``, x_i ~ p(x | E q(z|x)); the released code averages the norms.
    """

    unit = "normalised signal squared"
    group = "stochastic"
    draws_from_decoder = True

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return batch.decoder_draws(self.model).mean


@equation("vasilev2018", "Eq. (10), min")
class DecoderStochasticErrorMin(SampleScorer):
    """Squared distance to the nearest of the draws from the decoder at the latent mean.

    ``s(x) = min_i ||x - x_i||^2``, over the draws of ``decoder_stochastic_error``.
    """

    unit = "normalised signal squared"
    group = "stochastic"
    draws_from_decoder = True

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; at most those of the mean."""
        return batch.decoder_draws(self.model).least


@equation("vasilev2018", "Eq. (11)")
class FullyStochasticError(SampleScorer):
    """Squared distance to draws from the decoder at draws from the posterior, averaged.

    ``s(x) = mean_i ||x - x_i||^2``, x_i ~ p(x|z_i), z_i ~ q(z|x). Where the released code should compute
    this, it returns the smallest of the log-likelihoods instead.
    """

    unit = "normalised signal squared"
    group = "stochastic"
    draws_from_decoder = True

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return _sampled_error(batch, self).mean


@equation("vasilev2018", "Eq. (11), min")
class FullyStochasticErrorMin(SampleScorer):
    """Squared distance to the nearest of the draws from the decoder at draws from the posterior.

    ``s(x) = min_i ||x - x_i||^2``, over the draws of ``fully_stochastic_error``.
    """

    unit = "normalised signal squared"
    group = "stochastic"
    draws_from_decoder = True

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; at most those of the mean."""
        return _sampled_error(batch, self).least


def _sampled_error(batch: Batch, scorer: SampleScorer) -> OverDraws:
    if batch.decoder_noise is None:
        raise ValueError("a stochastic score needs draws; give the batch its decoder_noise")
    found = batch.encoder_draws(scorer.model).sampled_error
    assert found is not None
    return found
