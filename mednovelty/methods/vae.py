"""The voxel-wise variational autoencoder, trained on healthy voxels only.

Vasilev et al., "q-Space Novelty Detection with Variational Autoencoders", 2018, section 3.1.

    q(z|x) = N(mean(x), diag sigma(x)^2)      p(z) = N(0, I)
    p(x|z) = N(mean(z), diag sigma(z)^2)      sigma is learned for every channel
    ELBO(x) = E_q log p(x|z) - KL(q(z|x) || p(z))                                  Eq. (1)

Two things are added to the paper, both because the plain recipe collapses on smooth data (a few
active latents, and a likelihood below that of probabilistic PCA):

* Each channel is standardised inside the model (``shift`` and ``spread``, from the training voxels).
  Distributions come out in the units of x: log p(x|z) contains ``-sum log spread``.
* Training starts at the exact optimum of the linear model, ``mednovelty.methods.vae_start``.

The released code sums its loss over the batch; here it is the mean, so that the learning rate does
not depend on the batch size. As there, log likelihoods include ``-0.5 log(2 pi)``, and log sigma of
p(x|z) is at least -10 (here: of the standardised channels; here also of q(z|x), and at most 10).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from mednovelty.methods.vae_settings import NETS, VAESettings
from mednovelty.methods.vae_start import start_at_pca
from mednovelty.nn.mlp import GaussianMLP
from mednovelty.nn.smoothed import SmoothedMLP
from mednovelty.papers import equation
from mednovelty.protocols import ProbabilisticAutoencoder
from mednovelty.types import Latents, Samples

ACTIVE_NATS = 0.01
"""A latent is active when its KL, averaged over voxels, exceeds this many nats."""

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class VAE(nn.Module):
    """Encoder and decoder, standardising inside.

    Args:
        channels: C.
        settings: Widths, latent size and the limits of sigma are used.
    """

    shift: Tensor
    spread: Tensor

    def __init__(self, channels: int, settings: VAESettings) -> None:
        super().__init__()
        self.channels = channels
        self.latent = settings.latent
        self.limits = (settings.log_sigma_floor, settings.log_sigma_ceiling)
        self.encoder = GaussianMLP(channels, settings.hidden, settings.latent)
        self.decoder = GaussianMLP(settings.latent, settings.hidden[::-1], channels)
        self.register_buffer("shift", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))

    @property
    def prior(self) -> Independent:
        """Return p(z) = N(0, I), event shape ``(Z,)``."""
        zero = self.shift.new_zeros(self.latent)
        return _normal(zero, torch.ones_like(zero))

    def encode(self, x: Samples) -> Independent:
        """Return q(z|x), batch ``(B,)``, event ``(Z,)``, for ``(B, C)`` samples."""
        mean, log_sigma = self.encode_standardised(self.standardised(x))
        return _normal(mean, log_sigma.exp())

    def decode(self, z: Latents) -> Independent:
        """Return p(x|z), batch ``(B,)``, event ``(C,)``, in the units of x, for ``(B, Z)`` latents."""
        mean, log_sigma = self.decode_standardised(z)
        return _normal(mean * self.spread + self.shift, log_sigma.exp() * self.spread)

    def decode_smoothed(self, z: Latents, smoothing: float) -> _SmoothedLikelihood:
        """Return p(x|z) with rounded kinks and its derivatives, a ``protocols.Linearised``."""
        return _SmoothedLikelihood(self, SmoothedMLP(self.decoder, z, smoothing))

    def standardised(self, x: Samples) -> Tensor:
        """Return x with each channel's mean and spread over the training voxels removed."""
        return (x - self.shift) / self.spread

    def encode_standardised(self, x: Samples) -> tuple[Tensor, Tensor]:
        """Return mean and log sigma, ``(B, Z)`` each, of q(z|x) for standardised channels."""
        mean, log_sigma = self.encoder(x)
        return mean, log_sigma.clamp(*self.limits)

    def decode_standardised(self, z: Latents) -> tuple[Tensor, Tensor]:
        """Return mean and log sigma, ``(B, C)`` each, of p(x|z) for standardised channels."""
        mean, log_sigma = self.decoder(z)
        return mean, log_sigma.clamp(*self.limits)


class _SmoothedLikelihood:
    """p(x|z) in the units of x, from a smoothed decoder of standardised channels."""

    def __init__(self, model: VAE, decoder: SmoothedMLP) -> None:
        self._model, self._decoder = model, decoder
        self._limits = model.limits

    @property
    def mean(self) -> Tensor:
        return self._decoder.mean * self._model.spread + self._model.shift

    @property
    def log_sigma(self) -> Tensor:
        return self._decoder.log_sigma.clamp(*self._limits) + self._model.spread.log()

    def pull(self, by_mean: Tensor, by_log_sigma: Tensor | None = None) -> Tensor:
        if by_log_sigma is not None:
            by_log_sigma = by_log_sigma * self._moves()
        return self._decoder.pull(by_mean * self._model.spread, by_log_sigma)

    def slopes(self, *, mean_only: bool = False) -> tuple[Tensor, Tensor | None]:
        mean, log_sigma = self._decoder.slopes(mean_only=mean_only)
        return mean * self._model.spread, None if log_sigma is None else log_sigma * self._moves()[:, None]

    def _moves(self) -> Tensor:
        # Where sigma is at a limit it has no derivative.
        low, high = self._limits
        log_sigma = self._decoder.log_sigma
        return (log_sigma >= low) & (log_sigma <= high)


class ELBOTerms(NamedTuple):
    """The two parts of the ELBO of each sample, in nats."""

    log_likelihood: Tensor
    """``(B,)``: E_q log p(x|z), averaged over the samples of z."""
    kl: Tensor
    """``(B,)``: KL(q(z|x) || p(z)), exact."""

    @property
    def elbo(self) -> Tensor:
        """Return ``log_likelihood - kl``, ``(B,)``."""
        return self.log_likelihood - self.kl


@equation("vasilev2018", "Eq. (1)")
def elbo_terms(
    model: ProbabilisticAutoencoder, x: Samples, generator: Generator, samples: int = 1
) -> ELBOTerms:
    """Return the parts of the evidence lower bound of ``(B, C)`` samples.

    Args:
        model: Any autoencoder whose two maps return distributions.
        x: ``(B, C)``.
        generator: Where the noise of z comes from, on the device of x.
        samples: How many z are drawn for each x.
    """
    posterior = model.encode(x)
    total = torch.zeros_like(x[:, 0])
    for _ in range(samples):
        noise = torch.randn(posterior.mean.shape, generator=generator, dtype=x.dtype, device=x.device)
        total = total + model.decode(posterior.mean + posterior.stddev * noise).log_prob(x)
    return ELBOTerms(total / samples, kl_divergence(posterior, model.prior))


class VAEMethod:
    """VAE of a voxel's signals, which starts at probabilistic PCA.

    Args:
        settings: Architecture, loss and start; ``None``: the paper's net with 16 latents.
    """

    Settings: ClassVar[type] = VAESettings

    def __init__(self, settings: VAESettings | None = None) -> None:
        self.settings = settings or VAESettings()

    def build(self, shape: tuple[int, ...]) -> VAE:
        """Return the network for samples of a shape, laid flat; ``start`` or a file sets its weights."""
        return VAE(math.prod(shape), self.settings)

    def start(self, model: VAE, normals: Any, generator: Generator) -> None:
        """Fit the standardisation to the training voxels and set the weights.

        Args:
            model: From ``build``.
            normals: The training voxels, a ``VoxelCache`` (its ``moments()`` are used).
            generator: On the CPU.
        """
        moments = normals.moments()
        spread = moments.spread
        model.shift.copy_(torch.from_numpy(moments.mean))
        model.spread.copy_(torch.from_numpy(spread))
        for part in (model.encoder, model.decoder):
            part.initialise(generator)
        if self.settings.start == "pca":
            start_at_pca(model.encoder, model.decoder, moments.covariance / spread / spread[:, None])

    def loss(self, model: VAE, x: Samples, epoch: int, generator: Generator) -> dict[str, Tensor]:
        """Return ``loss``, ``reconstruction`` and ``kl``: nats a voxel, means over the batch.

        The same numbers as ``elbo_terms`` gives, without distribution objects: one pass over each
        array less for the optimiser's inner loop.
        """
        reconstruction, kl = closed_forms(model, x, generator)
        terms = {"reconstruction": reconstruction.sum() / len(x), "kl": kl.sum() / len(x)}
        return {"loss": terms["reconstruction"] + self.settings.kl_weight_in(epoch) * terms["kl"], **terms}

    @torch.no_grad()
    def validate(self, model: VAE, batches: Iterable[Samples], generator: Generator) -> dict[str, float]:
        """Return means over all voxels of the batches, in nats a voxel.

        ``loss`` (lower is better) is the negative ELBO whatever the KL weight; beside it ``elbo``,
        ``reconstruction`` (-E log p(x|z)), ``kl`` and ``active_latents``.
        """
        count, reconstruction, kl = 0, 0.0, torch.zeros(model.latent, dtype=torch.float64)
        for x in batches:
            nll, divergence = closed_forms(model, x, generator)
            count += len(x)
            reconstruction += nll.sum(dtype=torch.float64).item()
            kl += divergence.sum(0, dtype=torch.float64).cpu()
        loss = (reconstruction + kl.sum().item()) / count
        return {
            "loss": loss,
            "elbo": -loss,
            "reconstruction": reconstruction / count,
            "kl": kl.sum().item() / count,
            "active_latents": float((kl / count > ACTIVE_NATS).sum()),
        }

    def assess(self, model: VAE, training: Any, validation: Any, generator: Generator) -> dict[str, Any]:
        """Return the held-out ELBO beside the exact likelihood of probabilistic PCA, as JSON types.

        The numbers are those of ``vae_comparison.Comparison``, nats a voxel.

        Args:
            model: Trained.
            training: The ``VoxelCache`` it was trained on.
            validation: One of other scans.
            generator: On the CPU.
        """
        # Imported here: the comparison is about this module's model.
        from mednovelty.methods.vae_comparison import compare_with_ppca

        return compare_with_ppca(model, training, validation, generator=generator).as_json()


def closed_forms(model: VAE, x: Samples, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return -log p(x|z) for one z of each sample, ``(B,)``, and KL of each latent, ``(B, Z)``."""
    standardised = model.standardised(x)
    mean, log_sigma = model.encode_standardised(standardised)
    sigma = log_sigma.exp()
    noise = torch.randn(mean.shape, generator=generator, dtype=x.dtype, device=x.device)
    kl = 0.5 * (sigma.square() + mean.square() - 1.0) - log_sigma
    decoded, log_noise = model.decode_standardised(mean + sigma * noise)
    residual = (standardised - decoded) * (-log_noise).exp()
    constant = model.spread.log().sum() + model.channels * _HALF_LOG_2PI
    return (0.5 * residual.square() + log_noise).sum(1) + constant, kl


def _normal(mean: Tensor, sigma: Tensor) -> Independent:
    # Arguments are not validated: it costs a pass over each array, and sigma is an exponential.
    return Independent(Normal(mean, sigma, validate_args=False), 1, validate_args=False)


__all__ = [
    "ACTIVE_NATS",
    "ELBOTerms",
    "NETS",
    "VAE",
    "VAEMethod",
    "VAESettings",
    "closed_forms",
    "elbo_terms",
]
