"""Autoencoders with an opponent (Mesarcik et al. 2021): adversarial, discriminative, feature-consistent.

    aae      the opponent tells latents f(x) from draws of N(0, I)             Makhzani et al. 2015
    ae_res   the opponent d_x tells samples x from reconstructions xhat        Eq. (5), (6)
    ae_con   the same, and a second encoder f_con finds f(x) again in xhat     Akcay et al. 2018, GANomaly

The opponent minimises ``-log d(real) - log(1 - d(made))``, Eq. (6) with its sign; the autoencoder its
reconstruction loss and ``-log d(made)``, in ``ae_con`` the squared difference between the opponent's features
of x and of xhat.

Both sides step at once, on the same batch. Their losses are added up, and what one side must not move is
held fixed in the other's: each weight's derivative is that of its own side's loss. Adam looks at every weight
by itself, so one Adam steps for both as two would, and the training loop needs to know nothing of it but
that the opponent may have a rate of its own.

The image discriminator is the encoder's network with one more layer, its decision; ``features`` are what
that layer looks at, Z numbers, as in the released code. Dropout draws from the generator of the training
noise, so that runs are repeatable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, cast

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits, leaky_relu

from mednovelty.methods.autoencoder import AE, AEMethod, encoder_of
from mednovelty.methods.autoencoder_settings import (
    AAESettings,
    AdversarialSettings,
    AEConSettings,
    AEResSettings,
)
from mednovelty.nn.layers import draw_layers, draw_uniform, zeroed
from mednovelty.papers import equation
from mednovelty.types import Samples

SLOPE = 0.2


class Critic(nn.Module):
    """Tells latents from draws of the prior: dense layers with leaky ReLUs and dropout, one logit.

    Args:
        n_in: Z.
        widths: Of the layers.
        dropout: Share of their units left out in training.
    """

    def __init__(self, n_in: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(zeroed(nn.Linear, a, b) for a, b in pairwise([n_in, *widths, 1]))

    def initialise(self, generator: Generator) -> None:
        """Draw all weights."""
        draw_layers(self, generator, SLOPE)

    def forward(self, z: Tensor, generator: Generator) -> Tensor:
        """Return ``(B,)`` logits of being a draw; the generator decides what is left out."""
        *hidden, last = self.layers
        for layer in hidden:
            z = leaky_relu(layer(z), SLOPE)
            if self.training and self.dropout:
                kept = torch.rand(z.shape, generator=generator, device=z.device) >= self.dropout
                z = z * kept / (1 - self.dropout)
        return last(z)[:, 0]


@equation("mesarcik2021_nln", "Eq. (5)")
class Discriminator(nn.Module):
    """Tells samples from reconstructions: an encoder's network, then its decision, one logit.

    Args:
        shape: Of a sample.
        settings: Of the autoencoder.
    """

    def __init__(self, shape: Sequence[int], settings: AdversarialSettings) -> None:
        super().__init__()
        self.body = encoder_of(shape, settings)
        self.decision = zeroed(nn.Linear, settings.latent_for(shape), 1)

    def initialise(self, generator: Generator) -> None:
        """Draw all weights."""
        self.body.initialise(generator)
        draw_uniform(self.decision.weight, 1 / math.sqrt(self.decision.in_features), generator)
        with torch.no_grad():
            self.decision.bias.zero_()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(B,)`` logits of being no reconstruction, and ``(B, Z)`` features."""
        features = self.body(x)
        return self.decision(features)[:, 0], features


class AAE(AE):
    """An autoencoder whose latents are made to look like draws of N(0, I); arguments as of ``AE``."""

    def __init__(self, shape: Sequence[int], settings: AAESettings) -> None:
        super().__init__(shape, settings)
        self.discriminator = Critic(self.latents, settings.critic, settings.dropout)


class AERes(AE):
    """An autoencoder whose reconstructions are made to look like samples; arguments as of ``AE``."""

    def __init__(self, shape: Sequence[int], settings: AdversarialSettings) -> None:
        super().__init__(shape, settings)
        self.discriminator = Discriminator(shape, settings)

    def features(self, x: Samples) -> Tensor:
        """Return q(x), ``(B, Z)``: what the discriminator's decision looks at, for ``(B, D)`` samples."""
        return self.discriminator.body(self.standardised(x))


class AECon(AERes):
    """The same with a second encoder, of reconstructions; arguments as of ``AE``."""

    def __init__(self, shape: Sequence[int], settings: AEConSettings) -> None:
        super().__init__(shape, settings)
        self.second_encoder = encoder_of(shape, settings)

    def consistent(self, x: Samples) -> Tensor:
        """Return f_con(x), ``(B, Z)``, for ``(B, D)`` reconstructions in the units of x."""
        return self.second_encoder(self.standardised(x))


class _AdversarialMethod(AEMethod):
    """Trains an autoencoder and its opponent."""

    def parameter_groups(self, model: Any) -> list[dict[str, Any]]:
        """Return the weights of both sides, and the opponent's ``rate``, a multiple of the learning rate."""
        opponent = list(model.discriminator.parameters())
        own = {id(weight) for weight in opponent}
        return [
            {"params": [weight for weight in model.parameters() if id(weight) not in own]},
            {"params": opponent, "rate": self.settings.discriminator_rate},
        ]


class AAEMethod(_AdversarialMethod):
    """Adversarial autoencoder: its latents cannot be told from a normal distribution's.

    Args:
        settings: ``None``: the paper's.
    """

    Settings: ClassVar[type] = AAESettings
    Model: ClassVar[type[AE]] = AAE

    def loss(self, model: AE, x: Samples, epoch: int, generator: Generator) -> dict[str, Tensor]:
        """Return ``loss``, ``reconstruction``, ``adversarial``, ``discriminator``: means over the batch."""
        critic = cast(Critic, model.discriminator)
        x = model.standardised(x)
        z = model.encoder(x)
        draws = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device)
        terms = {
            "reconstruction": self.misfit(model.image(z), x),
            "adversarial": taken_for(fixed(critic, z, generator), real=True),
            "discriminator": told_apart(critic(draws, generator), critic(z.detach(), generator)),
        }
        weight = self.settings.adversarial_weight
        loss = terms["reconstruction"] + weight * terms["adversarial"] + terms["discriminator"]
        return {"loss": loss, **terms}


class AEResMethod(_AdversarialMethod):
    """Discriminative autoencoder: its reconstructions cannot be told from samples.

    Args:
        settings: ``None``: the paper's.
    """

    Settings: ClassVar[type] = AEResSettings
    Model: ClassVar[type[AE]] = AERes
    offers: ClassVar[tuple[str, ...]] = ("features",)

    def loss(self, model: AE, x: Samples, epoch: int, generator: Generator) -> dict[str, Tensor]:
        """Return ``loss``, ``reconstruction``, ``adversarial``, ``discriminator``: means over the batch."""
        discriminator = cast(Discriminator, model.discriminator)
        x = model.standardised(x)
        image = model.image(model.encoder(x))
        terms = {
            "reconstruction": self.misfit(image, x),
            "adversarial": taken_for(fixed(discriminator, image)[0], real=True),
            "discriminator": told_apart(discriminator(x)[0], discriminator(image.detach())[0]),
        }
        weight = self.settings.adversarial_weight
        loss = terms["reconstruction"] + weight * terms["adversarial"] + terms["discriminator"]
        return {"loss": loss, **terms}


class AEConMethod(_AdversarialMethod):
    """Feature-consistent autoencoder: a second encoder looks at its reconstructions.

    Args:
        settings: ``None``: GANomaly's weights.
    """

    Settings: ClassVar[type] = AEConSettings
    Model: ClassVar[type[AE]] = AECon
    offers: ClassVar[tuple[str, ...]] = ("features", "consistent")

    def loss(self, model: AE, x: Samples, epoch: int, generator: Generator) -> dict[str, Tensor]:
        """Return ``loss`` and its terms, ``latent`` among them, means over the batch."""
        discriminator = cast(Discriminator, model.discriminator)
        x = model.standardised(x)
        terms, image = self._own(model, x)
        # Features of the samples have no part in the autoencoder: only those of reconstructions move it.
        apart = fixed(discriminator, x)[1] - fixed(discriminator, image)[1]
        terms["adversarial"] = apart.square().mean()
        terms["discriminator"] = told_apart(discriminator(x)[0], discriminator(image.detach())[0])
        terms["loss"] = terms["loss"] + self.settings.adversarial_weight * terms["adversarial"]
        terms["loss"] = terms["loss"] + terms["discriminator"]
        return terms

    def reconstruction(self, model: AE, x: Tensor) -> dict[str, Tensor]:
        """Return ``loss`` and its terms for samples as the networks see them, without the adversary."""
        return self._own(model, x)[0]

    def _own(self, model: AE, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the autoencoder's own terms, and the reconstructions."""
        z = model.encoder(x)
        image = model.image(z)
        misfit = self.misfit(image, x)
        latent = (z - cast(nn.Module, model.second_encoder)(image)).square().mean()
        settings = self.settings
        loss = settings.reconstruction_weight * misfit + settings.latent_weight * latent
        return {"loss": loss, "reconstruction": misfit, "latent": latent}, image


def fixed(network: nn.Module, *inputs: Any) -> Any:
    """Return what a network makes of its inputs; derivatives reach them, but not its weights."""
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    return functional_call(network, weights, inputs)


@equation("mesarcik2021_nln", "Eq. (6)")
def told_apart(real: Tensor, made: Tensor) -> Tensor:
    """Return ``-E log d(real) - E log(1 - d(made))`` of ``(B,)`` logits each: Eq. (6), to be minimised."""
    return taken_for(real, real=True) + taken_for(made, real=False)


def taken_for(logits: Tensor, *, real: bool) -> Tensor:
    """Return the mean of ``-log d``, or of ``-log(1 - d)``, of ``(B,)`` logits."""
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


__all__ = ["AAE", "AECon", "AERes", "AAEMethod", "AEConMethod", "AEResMethod", "Critic", "Discriminator"]
