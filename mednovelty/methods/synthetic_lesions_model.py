"""A network that gives each voxel the log-odds that an anomaly like those planted is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from mednovelty.anomalies.host import Gradients
from mednovelty.errors import SettingsError
from mednovelty.methods.hypersphere_model import pseudo_huber
from mednovelty.methods.synthetic_lesions_settings import SyntheticLesionsSettings
from mednovelty.nn.dense import MLP
from mednovelty.nn.fully_convolutional import LAYOUTS, FullyConvolutional, layout_for
from mednovelty.nn.receptive_field import upsampled
from mednovelty.nn.unet import UNet, check_sides
from mednovelty.types import Samples, VoxelScores

WEIGHTS = {0: 4.0, 2: 4.0, 3: 100.0}
"""Of voxels with an anomaly, by axes of space: with 4, one of windows called all healthy for 300 steps."""
MEASURED = 16
"""Slices or windows that are measured at a time."""
NEAR_ZERO = 1e-6
"""Added to distances, lest their logarithm be that of 0; as in ``hypersphere.outside``."""


class Rows(NamedTuple):
    """Training rows, taken apart."""

    images: Tensor
    """``(B, C, *space)``"""
    mask: Tensor
    """``(B, *space)`` bool: where samples do not show the background."""
    spacing_mm: Tensor
    """``(B, axes)``; 1 where rows do not tell."""
    truth: Tensor
    """``(B, *space)`` bool: where labelled anomalies are."""
    labels: Tensor
    """``(B,)``: 0 for none, 1 for a normal, -1 for an anomaly."""

    def take(self, chosen: Tensor) -> Rows:
        """Return some of the samples, by index or bool."""
        return Rows(*(part[chosen] for part in self))


class SyntheticLesionsModel(nn.Module):
    """Log-odds of each voxel of a sample.

    Args:
        shape: ``(C, *space)`` of a sample.
        settings: Architecture; resolved here, without gradients, where they are not yet.

    Attributes:
        shape: As given.
        channels: D, values a sample has.
        latents: 0: it has none.
        weight: Of voxels with an anomaly in the cross entropy.
        mixtures: The families to train on and to validate on.

    Raises:
        SettingsError: The network cannot take samples of that shape.
    """

    latents = 0
    low: Tensor
    high: Tensor
    centre: Tensor
    spread: Tensor
    bvalues: Tensor
    directions: Tensor
    divisors: Tensor

    def __init__(self, shape: Sequence[int], settings: SyntheticLesionsSettings) -> None:
        super().__init__()
        self.shape, self.channels, self.settings = tuple(shape), math.prod(shape), settings
        channels, *space = shape
        self.weight = WEIGHTS.get(len(space), 4.0) if settings.weight is None else settings.weight
        self.mixtures = settings.split()
        self.diffusion = self.mixtures.training.needs == "diffusion"
        self.maps: nn.Module | None = None
        if settings.inputs == "maps":
            from mednovelty.nn.qspace_maps import QspaceMaps

            self.maps = QspaceMaps(channels)
        n_in = channels if self.maps is None else QspaceMaps.n_maps
        self.fcdd, self.sphere = settings.network == "fcdd", settings.loss == "hypersphere"
        self.network = _network(settings, n_in, space)
        # Of what the network sees, in the tissue of the training samples; and of samples, all there is.
        for name, size, value in (("centre", n_in, 0.0), ("spread", n_in, 1.0),
                                  ("low", channels, -math.inf), ("high", channels, math.inf)):  # fmt: skip
            self.register_buffer(name, torch.full((size,), value))
        if self.diffusion:
            self.register_buffer("bvalues", torch.zeros(channels))
            self.register_buffer("directions", torch.zeros(channels, 3))
            self.register_buffer("divisors", torch.ones(channels))

    def initialise(self, generator: Generator) -> None:
        """Draw all weights; the generator is on the CPU."""
        self.network.initialise(generator)  # type: ignore[operator]

    @torch.no_grad()
    def measure(self, rows: Rows) -> None:
        """Take from training samples what they show at most, and mean and spread of what the network sees.

        Raises:
            SettingsError: They show nothing but background.
        """
        if not rows.mask.any():
            raise SettingsError("the training samples show nothing but background")
        values = rows.images.transpose(0, 1)[:, rows.mask]
        self.low.copy_(values.min(1).values)
        self.high.copy_(values.max(1).values)
        parts, size = [], MEASURED if self.shape[1:] else len(rows.images)
        for images, mask in zip(rows.images.split(size), rows.mask.split(size), strict=True):
            seen = images if self.maps is None else self.maps(images.to(self.low.device)).cpu()
            parts.append(seen.transpose(0, 1)[:, mask])
        spread, centre = torch.std_mean(torch.cat(parts, 1).double(), 1, correction=0)
        self.centre.copy_(centre)
        self.spread.copy_(torch.where(spread > 1e-6 * centre.abs().clamp_min(1e-30), spread, 1.0))

    def lesion_map(self, x: Samples) -> VoxelScores:
        """Return ``(B, *space)`` log-odds of ``(B, D)`` samples; of voxels ``(B,)``."""
        images = x.unflatten(1, self.shape)
        logits = self.logits(images)
        for axis in self.mirrors:
            logits = logits + self.logits(images.flip(2 + axis)).flip(1 + axis)
        logits = logits / (1 + len(self.mirrors))
        return logits if self.fcdd or self.sphere else logits - math.log(self.weight)

    @property
    def mirrors(self) -> tuple[int, ...]:
        """Axes of space along which samples are mirrored when they are scored."""
        axes = self.settings.augmentation.mirror_axes if self.settings.mirrored else ()
        return tuple(axis for axis in axes if axis < len(self.shape) - 1)

    def logits(self, images: Tensor) -> Tensor:
        """Return ``(B, *space)`` log-odds of ``(B, C, *space)`` among voxels weighted as in training."""
        if self.fcdd:
            return _log_odds(self.distances(images))
        output = self._output(images)
        return _log_odds(pseudo_huber(output)) if self.sphere else output[:, 0]

    def distances(self, images: Tensor) -> Tensor:
        """Return ``(B, *space)``: FCDD's map, drawn back onto the samples."""
        network: Any = self.network
        output = self._output(images)
        sigma = LAYOUTS[layout_for(self.shape[1:])].sigma
        return upsampled(pseudo_huber(output[:, None]), network.fields, self.shape[1:], sigma)

    def _output(self, images: Tensor) -> Tensor:
        seen, half = self.seen(images), self.training and self.settings.training_precision == "bfloat16"
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=half):
            return self.network(seen).to(images.dtype)

    def seen(self, images: Tensor) -> Tensor:
        """Return ``(B, n, *space)``: what the network sees of ``(B, C, *space)`` samples."""
        seen = images if self.maps is None else self.maps(images)
        ones = [1] * (images.dim() - 2)
        return (seen - self.centre.view(-1, *ones)) / self.spread.view(-1, *ones)

    def clamped(self, images: Tensor) -> Tensor:
        """Return ``(B, C, *space)`` samples between the least and the most that training samples show."""
        ones = [1] * (images.dim() - 2)
        low, high = self.low.to(images), self.high.to(images)
        return torch.clamp(images, low.view(-1, *ones), high.view(-1, *ones))

    def gradients(self, device: torch.device) -> Gradients | None:
        """Return how the channels were measured; None where nothing of diffusion is planted."""
        if not self.diffusion:
            return None
        return Gradients(self.bvalues.to(device), self.directions.to(device), self.divisors.to(device))

    def tissue(self, images: Tensor) -> Tensor:
        """Return ``(B, *space)`` bool: where ``(B, C, *space)`` samples do not show the background."""
        if len(self.shape) == 1:
            return torch.ones(len(images), dtype=torch.bool, device=images.device)
        return (images != (self.settings.background or 0.0)).any(1)

    def split(self, rows: Tensor) -> Rows:
        """Return samples and what is known of them, as far as rows tell.

        Args:
            rows: A sample, ``(B, D)``; then, as far as they are wide enough, the distances of its voxels, 0
                or 1 for each of its V voxels, and a label.

        Raises:
            SettingsError: Rows are not as wide as any of these.
        """
        d, axes, v = self.channels, len(self.shape) - 1, math.prod(self.shape[1:])
        more, device = rows.shape[1] - d, rows.device
        if more not in (0, 1, axes + 1, v + 1, axes + v + 1):
            raise SettingsError(
                f"rows of {rows.shape[1]} values: a sample of shape {self.shape} has {d}, distances of its "
                f"voxels {axes} more, a map of its anomaly {v} more, a label one more"
            )
        images, n = rows[:, :d].unflatten(1, self.shape), len(rows)
        spaced = axes > 0 and more in (axes + 1, axes + v + 1)
        spacing = rows[:, d : d + axes] if spaced else torch.ones(n, axes, device=device)
        labels = rows[:, -1] if more else torch.zeros(n, device=device)
        mask = self.tissue(images)
        truth = mask & (labels < 0).view(-1, *[1] * axes)
        if more >= v + 1 and v > 1:
            truth = rows[:, -1 - v : -1].unflatten(1, self.shape[1:]) > 0.5
        return Rows(images, mask, spacing, truth, labels)


def _network(settings: SyntheticLesionsSettings, n_in: int, space: Sequence[int]) -> nn.Module:
    n_out = settings.outputs if settings.loss == "hypersphere" else 1
    if settings.network == "mlp":
        return MLP(n_in, settings.hidden, n_out)
    if settings.training_precision != "float32" and len(space) != 2:
        # On processors torch 2.13 gives gradients that differ from run to run, and are infinite at times.
        raise SettingsError(
            f"training_precision={settings.training_precision} is for slices; leave it at float32"
        )
    if len(space) not in (2, 3):
        raise SettingsError(
            f"network={settings.network} takes slices and windows, not samples of {len(space)} axes of "
            "space; voxels have mlp"
        )
    if settings.network == "fcdd":
        return FullyConvolutional((n_in, *space), layout_for(space))
    check_sides(space)
    return UNet(len(space), n_in, n_out, settings.width)


def _log_odds(h: Tensor) -> Tensor:
    """Return log(exp(h) - 1), of which the cross entropy is h of normals, -log(1 - exp(-h)) of others."""
    h = h + NEAR_ZERO
    return h + torch.log(-torch.expm1(-h))


__all__ = ["Rows", "SyntheticLesionsModel"]
