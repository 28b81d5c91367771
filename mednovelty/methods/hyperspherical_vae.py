"""Encoder and decoder around a latent sphere, as training and as scores see them.

Ascarate et al., "VAE with Hyperspherical Coordinates", 2026, sections 2.1 and 2.2.

Scores see distributions: p(x|z) = N(x~(z), I / 2), whose -log p is the squared error and a constant. A
score must not depend on the batch it came in, so ``encode`` and ``decode`` normalise with the statistics of
training whatever mode the networks are in; only the loss, by ``posterior`` and ``sample``, uses those of its
batch. (The released code scores in training mode by default, and its scores depend on their batches.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from mednovelty.errors import SettingsError
from mednovelty.methods.hyperspherical_loss import shell
from mednovelty.methods.hyperspherical_settings import HypersphericalSettings
from mednovelty.nn.dense import MLP
from mednovelty.nn.hyperspherical import on_sphere
from mednovelty.nn.mlp import GaussianMLP
from mednovelty.nn.residual import ResidualDecoder, ResidualEncoder
from mednovelty.types import Latents, Samples


class HypersphericalVAE(nn.Module):
    """Encoder and decoder around a latent sphere.

    Args:
        shape: ``(C, *space)`` of a sample.
        settings: Architecture, limits of sigma, and whether z is brought to the sphere.

    Attributes:
        shape: As given.
        channels: D, values a sample has: what scorers call the number of channels.
        latent: Z.
        shift: Of the samples, ``(D,)``; 0 where the network does not standardise them.
        spread: The same; 1 where it does not.
        first_epoch: ``(3,)``: samples seen in it, and their summed reconstruction error and divergence.
        at_start: ``(2,)``: mean reconstruction error and divergence of held-out samples before any step.

    Raises:
        SettingsError: The network cannot take samples of that shape.
    """

    shift: Tensor
    spread: Tensor
    first_epoch: Tensor
    at_start: Tensor

    def __init__(self, shape: Sequence[int], settings: HypersphericalSettings) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.channels = math.prod(self.shape)
        self.settings = settings
        self.latent = latent = settings.latent_for(self.shape)
        self.encoder: GaussianMLP | ResidualEncoder
        self.decoder: MLP | ResidualDecoder
        dense = settings.network_for(self.shape) == "dense"
        self.standardises = dense and settings.output == "linear"
        if dense:
            self.encoder = GaussianMLP(self.channels, settings.hidden, latent)
            self.decoder = MLP(latent, settings.hidden[::-1], self.channels)
        else:
            self.encoder = ResidualEncoder(self.shape, settings.widths, latent)
            self.decoder = ResidualDecoder(self.shape, settings.widths, latent)
        width = self.channels if self.standardises else 1
        self.register_buffer("shift", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.register_buffer("first_epoch", torch.zeros(3))
        self.register_buffer("at_start", torch.zeros(2))

    @property
    def prior(self) -> Independent:
        """Return N(pole, I), event shape ``(Z,)``.

        The pole is that to which unlabelled samples are compressed; 0 where nothing is, or there are several
        poles. It is what comes nearest to the priors of Eq. (2) and (3), which are of batches.
        """
        centre = self.shift.detach().new_zeros(self.latent)
        settings = self.settings
        if settings.coordinates == "hyperspherical" and settings.compressed != 0 and not settings.classes:
            centre[0] = shell(self.latent)
        return _normal(centre, torch.ones_like(centre))

    def encode(self, x: Samples) -> Independent:
        """Return q(z|x), batch ``(B,)``, event ``(Z,)``, for ``(B, D)`` samples; means keep their lengths."""
        with _evaluating(self):
            mean, log_sigma = self.posterior(x)
        return _normal(mean, log_sigma.exp())

    def decode(self, z: Latents) -> Independent:
        """Return p(x|z), batch ``(B,)``, event ``(D,)``, in the units of x, for ``(B, Z)`` latents."""
        with _evaluating(self):
            mean = self.sample(z)
        return _normal(mean, (self.spread * math.sqrt(0.5)).expand_as(mean))

    def posterior(self, x: Samples) -> tuple[Tensor, Tensor]:
        """Return mean and log sigma, ``(B, Z)`` each, of q(z|x)."""
        mean, log_variance = self.encoder((x - self.shift) / self.spread)
        return mean, (0.5 * log_variance).clamp(
            self.settings.log_sigma_floor, self.settings.log_sigma_ceiling
        )

    def sample(self, z: Latents) -> Tensor:
        """Return x~(z), ``(B, D)``, in the units of x."""
        if self.settings.normalise and self.settings.coordinates == "hyperspherical":
            z = on_sphere(z, math.sqrt(self.latent))
        mean = self.decoder(z)
        if self.settings.output == "sigmoid":
            return torch.sigmoid(mean)
        return mean * self.spread + self.shift

    def errors(self, x: Samples, found: Samples) -> Tensor:
        """Return squared errors, ``(B,)``: of standardised values where the network standardises."""
        return ((x - found) / self.spread).square().sum(1)

    def split(self, rows: Tensor) -> tuple[Samples, Tensor | None]:
        """Return samples ``(B, D)`` and, where the settings have classes, labels ``(B,)`` int64.

        Raises:
            SettingsError: Rows are not as wide as that.
        """
        wanted = self.channels + (self.settings.classes > 0)
        if rows.shape[1] != wanted:
            raise SettingsError(
                f"rows of {rows.shape[1]} values: with classes={self.settings.classes} a sample of shape "
                f"{self.shape} has {wanted}" + (", the last its class" if self.settings.classes else "")
            )
        if not self.settings.classes:
            return rows, None
        return rows[:, :-1], rows[:, -1].long()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Normalise with the statistics of training, whatever mode the networks are in."""
    training = [part for part in model.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _normal(mean: Tensor, sigma: Tensor) -> Independent:
    # Arguments are not validated: it costs a pass over each array, and sigma is an exponential.
    return Independent(Normal(mean, sigma, validate_args=False), 1, validate_args=False)


__all__ = ["HypersphericalVAE"]
