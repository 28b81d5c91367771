"""A VAE whose divergence is in hyperspherical coordinates, compressed towards a pole of the sphere.

Ascarate et al., "VAE with Hyperspherical Coordinates: Improving Anomaly Detection from Hypervolume-Compressed
Latent Space", 2026.

    q(z|x) = N(mu(x), diag sigma(x)^2)     z = mu + sigma noise, drawn in Cartesian coordinates
    x~(z)  = decoder(sqrt(d) z / ||z||)    all z lie on one sphere when they are decoded       section 2.2
    loss   = ||x - x~||^2 + beta f(epoch) divergence                                           Eq. (4)

The divergence, in ``hyperspherical_loss``, is one of batch statistics. beta is 2,500 times the quotient of
reconstruction error and divergence in the first epoch, during which it is 1: that is the released code's, the
paper prints none. f rises like ``sqrt(epoch)``, as both have it.

Samples are rows ``(B, D)``. Rows of labelled training samples end with the number of their class,
``(B, D + 1)``; ``labelled`` makes tables of them. Only the loss looks at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor

from mednovelty.errors import SettingsError
from mednovelty.methods.hyperspherical_loss import annealed, cartesian, divergence
from mednovelty.methods.hyperspherical_settings import (
    PAPER_TRAINING,
    RELEASED,
    HypersphericalSettings,
    defaults,
    presets,
)
from mednovelty.methods.hyperspherical_vae import HypersphericalVAE
from mednovelty.nn.augmentation import augmented
from mednovelty.reference import sigma_of
from mednovelty.types import Latents
from mednovelty.voxel_cache import VoxelCache

SMALLEST_DIVERGENCE = 1e-3
"""Added to the divergence of the first epoch before beta is divided by it, as in the released code."""


class HypersphericalMethod:
    """VAE in hyperspherical coordinates, its latents drawn towards a pole.

    Args:
        settings: ``None``: all angles compressed, no labels, a residual network for images and a dense one
            for voxels.
    """

    Settings: ClassVar[type] = HypersphericalSettings
    training: ClassVar[Any] = PAPER_TRAINING
    """The ``TrainSettings`` to train images with, as the released code has them."""
    defaults = staticmethod(defaults)
    presets = staticmethod(presets)

    def __init__(self, settings: HypersphericalSettings | None = None) -> None:
        self.settings = settings or HypersphericalSettings()

    def build(self, shape: Sequence[int]) -> HypersphericalVAE:
        """Return the network for samples of a shape; ``start`` or a file sets its weights."""
        return HypersphericalVAE(shape, self.settings)

    @torch.no_grad()
    def start(self, model: HypersphericalVAE, normals: Any, generator: Generator) -> None:
        """Draw the weights; measure the samples where the network standardises them.

        Args:
            model: From ``build``.
            normals: The training samples, a ``VoxelCache``.
            generator: On the CPU.

        Raises:
            SettingsError: A class is not one of the settings' classes.
        """
        model.encoder.initialise(generator)
        model.decoder.initialise(generator)
        model.first_epoch.zero_()
        model.at_start.zero_()
        if self.settings.classes:
            _check_classes(normals, self.settings.classes)
        if model.standardises:
            shift, spread = normals.mean_and_spread(model.channels)
            model.shift.copy_(torch.from_numpy(shift))
            model.spread.copy_(torch.from_numpy(spread))

    def loss(
        self, model: HypersphericalVAE, x: Tensor, epoch: int, generator: Generator
    ) -> dict[str, Tensor]:
        """Return ``loss`` and its terms for ``(B, D)`` samples, or ``(B, D + 1)`` with their classes.

        ``reconstruction`` is a mean over the batch; ``kl``, the divergence before its weight, and its parts
        ``mu_angles``, ``mu_radius``, ``sigma_angles`` and ``sigma_radius`` are of the batch as a whole.

        Raises:
            SettingsError: Rows are not as wide as that, or a batch is of a single sample.
        """
        samples, labels = model.split(x)
        if len(samples) < 2:
            raise SettingsError(
                "a batch of 1 sample has no statistics, of which this loss is made; give more samples"
            )
        if self.settings.augmentation is not None:
            images = samples.unflatten(1, model.shape)
            samples = augmented(images, self.settings.augmentation, generator).flatten(1)
        mean, log_sigma = model.posterior(samples)
        sigma = log_sigma.exp()
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        reconstruction = model.errors(samples, model.sample(mean + sigma * noise)).mean()
        terms = self._terms(mean, sigma, epoch, labels)
        if epoch == 1:
            seen = torch.stack(
                [torch.ones_like(reconstruction), reconstruction.detach(), terms["kl"].detach()]
            )
            model.first_epoch += len(samples) * seen
        loss = reconstruction + self.weight(model, epoch) * terms["kl"]
        return {"loss": loss, "reconstruction": reconstruction, **terms}

    def weight(self, model: HypersphericalVAE, epoch: int) -> float | Tensor:
        """Return what the divergence is multiplied by in an epoch, counted from 1."""
        settings = self.settings
        if settings.coordinates == "cartesian":
            return settings.cartesian_weight
        if not settings.calibrate:
            return settings.beta * annealed(settings, epoch)
        if epoch == 1:
            return 1.0
        return calibrated(settings.beta, *model.first_epoch) * annealed(settings, epoch)

    @torch.no_grad()
    def validate(
        self, model: HypersphericalVAE, batches: Iterable[Tensor], generator: Generator
    ) -> dict[str, float]:
        """Return what is trained, of all samples of the batches as one batch.

        ``loss`` weighs the divergence alike in all epochs, so that they can be compared: without the
        annealing, and with beta calibrated by the samples of the first call, before any step. What weighs it
        in training is measured in the first epoch, under statistics of batches.
        """
        errors, means, sigmas, labels = [], [], [], []
        for rows in batches:
            x, label = model.split(rows)
            posterior = model.encode(x)
            mean, sigma = posterior.mean, sigma_of(posterior)
            noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
            errors.append(model.errors(x, model.decode(mean + sigma * noise).mean))
            means.append(mean)
            sigmas.append(sigma)
            labels += [] if label is None else [label]
        reconstruction = torch.cat(errors).double().mean()
        classes = torch.cat(labels) if labels else None
        terms = self._terms(torch.cat(means), torch.cat(sigmas), 1, classes)
        weight = self._weight_in_validation(model, reconstruction, terms["kl"])
        return {
            "loss": (reconstruction + weight * terms["kl"]).item(),
            "reconstruction": reconstruction.item(),
            **{name: value.item() for name, value in terms.items()},
        }

    def assess(
        self, model: HypersphericalVAE, training: Any, validation: Any, generator: Generator
    ) -> dict[str, Any]:
        """Return how well held-out samples are reconstructed, and where they lie, as JSON types.

        Args:
            model: Trained.
            training: The ``VoxelCache`` it was trained on.
            validation: One of samples of other scans.
            generator: On the CPU.
        """
        # Imported here: the assessment is of this module's model.
        from mednovelty.methods.hyperspherical_assessment import assess

        return assess(model, training, validation, generator=generator).as_json()

    def _terms(self, mean: Latents, sigma: Tensor, epoch: int, labels: Tensor | None) -> dict[str, Tensor]:
        if self.settings.coordinates == "cartesian":
            return {"kl": cartesian(mean, sigma)}
        parts = divergence(mean, sigma, self.settings, epoch=epoch, labels=labels)
        return {"kl": parts.total(self.settings), **parts._asdict()}

    def _weight_in_validation(
        self, model: HypersphericalVAE, reconstruction: Tensor, kl: Tensor
    ) -> float | Tensor:
        settings = self.settings
        if settings.coordinates == "cartesian":
            return settings.cartesian_weight
        if not settings.calibrate:
            return settings.beta
        if not model.at_start.any():
            model.at_start.copy_(torch.stack([reconstruction, kl]))
        return calibrated(settings.beta, torch.ones_like(kl), *model.at_start)


def calibrated(beta: float, count: Tensor, reconstruction: Tensor, kl: Tensor) -> Tensor:
    """Return beta times the mean reconstruction error over the mean divergence.

    Args:
        beta: In these units.
        count: Number of samples.
        reconstruction: Summed over them.
        kl: The same.
    """
    return beta * reconstruction / (kl + count * SMALLEST_DIVERGENCE)


def labelled(samples: np.ndarray, labels: np.ndarray, shape: Sequence[int] | None = None) -> VoxelCache:
    """Return a training table whose rows end with the class of their sample.

    Args:
        samples: ``(n, D)``.
        labels: ``(n,)`` whole numbers from 0.
        shape: ``(C, *space)`` of a sample; None: ``(D,)``.

    Raises:
        SettingsError: The two do not fit, or a label is no class.
    """
    if samples.ndim != 2 or labels.shape != samples.shape[:1]:
        raise SettingsError(f"samples (n, D) and labels (n,), not {samples.shape} and {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer) or (len(labels) and labels.min() < 0):
        raise SettingsError(f"labels are whole numbers from 0, not {labels.dtype} from {labels.min()}")
    wide = samples.shape[1]
    cache = VoxelCache(wide + 1, shape=tuple(shape or (wide,)))
    cache.append("labelled", np.column_stack([samples, labels]))
    return cache


def _check_classes(normals: VoxelCache, classes: int) -> None:
    for block in normals.blocks():
        found = block[:, -1]
        if not ((found >= 0) & (found < classes) & (found == np.round(found))).all():
            raise SettingsError(
                f"training rows must end with a class of 0 to {classes - 1}, but some end with numbers from "
                f"{found.min():g} to {found.max():g}; see methods.hyperspherical.labelled"
            )


__all__ = [
    "PAPER_TRAINING",
    "RELEASED",
    "HypersphericalMethod",
    "HypersphericalSettings",
    "HypersphericalVAE",
    "calibrated",
    "labelled",
]
