"""The plain autoencoder, and what its adversarial relatives share with it.

Mesarcik et al., "Improving Novelty Detection using the Reconstructions of Nearest Neighbours", 2021.

    z = f(x)        Eq. (1)
    xhat = g(z)     Eq. (2)
    loss            mean over values and over the batch of a misfit of xhat, see the settings

Samples are rows, ``(B, D)``. They have no q(z|x), p(x|z) and p(z): ``encode`` and ``decode`` return
``nn.point.Point``s, and scores that need distributions refuse them. The paper's variational autoencoder is
``image_vae`` with ``network="lenet"`` or ``"patch"``, and ``vae`` for voxels.

A fully connected network with a linear output standardises each value inside, as the VAE of voxels does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy

from mednovelty.errors import SettingsError
from mednovelty.methods.autoencoder_settings import (
    OWN_SCORES,
    AutoencoderSettings,
    defaults,
    presets,
)
from mednovelty.nn.dense import MLP
from mednovelty.nn.lenet import LeNetDecoder, LeNetEncoder
from mednovelty.nn.patchnet import PatchDecoder, PatchEncoder
from mednovelty.nn.point import Point
from mednovelty.papers import equation
from mednovelty.types import Latents, Samples

MISFITS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": lambda image, x: (x - image).square(),
    "absolute": lambda image, x: (x - image).abs(),
    "cross_entropy": lambda image, x: binary_cross_entropy(image, x, reduction="none"),
}
"""Of a reconstruction and a sample, ``(B, D)`` each."""

COLLAPSED = 0.01
"""A network that explains no more of the held-out variance has learned the mean sample."""


class AE(nn.Module):
    """An encoder and a decoder.

    Args:
        shape: ``(C,)`` of a voxel, ``(C, *space)`` of an image.
        settings: Architecture and output are used.

    Attributes:
        shape: As given.
        channels: D, values a sample has.
        latents: Z.

    Raises:
        SettingsError: The network cannot take samples of that shape.
    """

    shift: Tensor
    spread: Tensor

    def __init__(self, shape: Sequence[int], settings: AutoencoderSettings) -> None:
        super().__init__()
        self.shape, self.channels = tuple(shape), math.prod(shape)
        self.latents = settings.latent_for(shape)
        self.output = settings.output
        self.encoder = encoder_of(shape, settings)
        self.decoder = decoder_of(shape, settings)
        self.standardises = settings.network_for(shape) == "mlp" and settings.output == "linear"
        if self.standardises:
            self.register_buffer("shift", torch.zeros(self.channels))
            self.register_buffer("spread", torch.ones(self.channels))

    def initialise(self, generator: Generator) -> None:
        """Draw all weights."""
        for part in cast(Any, self.children()):
            part.initialise(generator)

    @equation("mesarcik2021_nln", "Eq. (1)")
    def encode(self, x: Samples) -> Point:
        """Return z, ``(B, Z)``, of ``(B, D)`` samples."""
        return Point(self.encoder(self.standardised(x)))

    @equation("mesarcik2021_nln", "Eq. (2)")
    def decode(self, z: Latents) -> Point:
        """Return the samples, ``(B, D)``, that ``(B, Z)`` latents stand for, in the units of x."""
        image = self.image(z)
        return Point(image * self.spread + self.shift if self.standardises else image)

    def standardised(self, x: Samples) -> Tensor:
        """Return x as the networks see it."""
        return (x - self.shift) / self.spread if self.standardises else x

    def image(self, z: Latents) -> Tensor:
        """Return g(z), ``(B, D)``, as the networks see it."""
        image = self.decoder(z)
        return torch.sigmoid(image) if self.output == "sigmoid" else image


class AEMethod:
    """Plain autoencoder, for scores by nearest latent neighbours.

    Args:
        settings: Architecture and misfit; ``None``: the defaults.
    """

    Settings: ClassVar[type] = AutoencoderSettings
    Model: ClassVar[type[AE]] = AE
    offers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Any = None) -> None:
        self.settings = settings or self.Settings()

    @classmethod
    def defaults(cls, *, images: bool) -> dict[str, Any]:
        """Return settings of fitting, as a tree, where they are not everybody's."""
        tree = defaults(images=images)
        own = [name for what, name in OWN_SCORES.items() if what in cls.offers]
        return tree | {"scores": [*tree["scores"], *own]}

    @classmethod
    def presets(cls, *, images: bool) -> dict[str, dict[str, Any]]:
        """Return trees of settings by name: ``released``, which is for images."""
        return presets(cls.Settings) if images else {}

    def build(self, shape: Sequence[int]) -> AE:
        """Return the network for samples of a shape; ``start`` or a file sets its weights."""
        return self.Model(shape, self.settings)

    def start(self, model: AE, normals: Any, generator: Generator) -> None:
        """Draw the weights, and fit the standardisation to the training samples where there is one.

        Args:
            model: From ``build``.
            normals: The training samples, a ``VoxelCache``.
            generator: On the CPU.

        Raises:
            SettingsError: The misfit is for values between 0 and 1, and they are not.
        """
        model.initialise(generator)
        if self.settings.misfit == "cross_entropy":
            check_shares(normals)
        if model.standardises:
            mean, spread = normals.mean_and_spread()
            model.shift.copy_(torch.from_numpy(mean))
            model.spread.copy_(torch.from_numpy(spread))

    def loss(self, model: AE, x: Samples, epoch: int, generator: Generator) -> dict[str, Tensor]:
        """Return ``loss`` and the terms it is made of, means over the batch.

        Args:
            model: In training mode.
            x: ``(B, D)``.
            epoch: From 1.
            generator: Of the noise, on the device of x.
        """
        return self.reconstruction(model, model.standardised(x))

    @torch.no_grad()
    def validate(self, model: AE, batches: Iterable[Samples], generator: Generator) -> dict[str, float]:
        """Return means over all samples of the batches, of the loss without any adversary."""
        totals: dict[str, float] = {}
        count = 0
        for x in batches:
            count += len(x)
            for name, value in self.reconstruction(model, model.standardised(x)).items():
                totals[name] = totals.get(name, 0.0) + value.item() * len(x)
        return {name: total / count for name, total in totals.items()}

    def reconstruction(self, model: AE, x: Tensor) -> dict[str, Tensor]:
        """Return ``loss`` and its terms for samples as the networks see them, without any adversary."""
        misfit = self.misfit(model.image(model.encoder(x)), x)
        return {"loss": misfit, "reconstruction": misfit}

    def misfit(self, image: Tensor, x: Tensor) -> Tensor:
        """Return the misfit of reconstructions, averaged over values and over the batch."""
        return MISFITS[self.settings.misfit](image, x).mean()

    @torch.no_grad()
    def assess(self, model: AE, training: Any, validation: Any, generator: Generator) -> dict[str, Any]:
        """Return how much of the variance of held-out samples the network explains, as JSON types.

        ``explained`` is 1 less squared errors over squared distances to the mean training sample, each value
        divided by its spread where the network does so.

        Args:
            model: Trained.
            training: The ``VoxelCache`` it was trained on.
            validation: One of other scans.
            generator: Not used.
        """
        mean, device = (
            torch.from_numpy(training.mean_and_spread()[0]).float(),
            next(model.parameters()).device,
        )
        errors = variation = 0.0
        for block in validation.blocks():
            x = torch.tensor(block, device=device)
            of_x, of_mean = model.standardised(x), model.standardised(mean.to(device))
            errors += (of_x - model.image(model.encoder(of_x))).double().square().sum().item()
            variation += (of_x - of_mean).double().square().sum().item()
        explained = 1 - errors / variation if variation else 0.0
        collapsed = explained < COLLAPSED
        verdict = f"{model.latents} latents explain {explained:.1%} of the variance of held-out samples"
        if collapsed:
            verdict += ": no more than the mean sample does; train for longer, or lower the learning rate"
        return {"verdict": verdict, "collapsed": collapsed, "explained": explained}


def encoder_of(shape: Sequence[int], settings: AutoencoderSettings) -> Any:
    """Return a network from samples to Z numbers; a discriminator and a second encoder have it too."""
    network, latent = settings.network_for(shape), settings.latent_for(shape)
    if network == "lenet":
        return LeNetEncoder(shape, settings.filters, latent)
    if network == "patch":
        return PatchEncoder(shape, latent)
    return MLP(math.prod(shape), settings.hidden, latent)


def decoder_of(shape: Sequence[int], settings: AutoencoderSettings) -> Any:
    """Return a network from Z numbers to samples of a shape."""
    network, latent = settings.network_for(shape), settings.latent_for(shape)
    if network == "lenet":
        return LeNetDecoder(shape, settings.filters, latent)
    if network == "patch":
        return PatchDecoder(shape, latent)
    return MLP(latent, settings.hidden[::-1], math.prod(shape))


def check_shares(normals: Any) -> None:
    """Refuse samples with values outside of 0 to 1."""
    low = min(float(block.min()) for block in normals.blocks())
    high = max(float(block.max()) for block in normals.blocks())
    if low < 0 or high > 1:
        raise SettingsError(
            f"misfit='cross_entropy' is for values between 0 and 1, and the training samples have {low:.4g} "
            f"to {high:.4g}; scale them, or set misfit='squared' and output='linear'"
        )


__all__ = ["AE", "AEMethod", "AutoencoderSettings", "encoder_of"]
