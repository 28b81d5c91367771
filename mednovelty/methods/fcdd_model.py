"""A fully convolutional network whose output is a map of how abnormal each part of an image is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mednovelty.errors import SettingsError
from mednovelty.methods.fcdd_settings import FCDDSettings
from mednovelty.methods.hypersphere_model import pseudo_huber
from mednovelty.nn.fully_convolutional import FullyConvolutional
from mednovelty.nn.pretrained import CHANNELS, FROZEN, as_imagenet
from mednovelty.nn.receptive_field import upsampled
from mednovelty.types import Samples, VoxelScores


class Labelled(NamedTuple):
    """Samples, and what is known of them."""

    x: Samples
    """``(B, D)``"""
    labels: Tensor
    """``(B,)``: 0 for none, 1 for a normal, -1 for an anomaly."""
    truth: Tensor | None
    """``(B, *space)``, 1 where an anomaly is and 0 elsewhere; None where the rows do not say."""


class FCDDModel(nn.Module):
    """An image's map of one-class distances.

    Args:
        shape: ``(C, *space)`` of an image.
        settings: Architecture.

    Attributes:
        shape: As given.
        channels: D, values a sample has.
        latents: 0: it has none.
        sigma: With which maps are drawn back onto images, in pixels.
        pretrained: Whether the network's first layers are those of ImageNet; then ``low`` and ``high``, one a
            contrast, are what is black and white.

    Raises:
        SettingsError: The network cannot take samples of that shape.
    """

    latents = 0
    low: Tensor
    high: Tensor

    def __init__(self, shape: Sequence[int], settings: FCDDSettings) -> None:
        super().__init__()
        self.shape, self.channels = tuple(shape), math.prod(shape)
        self.sigma = settings.sigma_for(shape)
        self.pretrained, name = bool(settings.weights), settings.network_for(shape)
        if not self.pretrained:
            self.network = FullyConvolutional(self.shape, name, settings.filters)
            return
        if len(shape) != 3 or shape[0] not in (1, CHANNELS):
            raise SettingsError(
                f"weights={settings.weights!r} are of a network for images (3, H, W), grey or in colours: "
                f"samples of shape {self.shape} are not slices of 1 or 3 contrasts; choose contrasts, or "
                "leave weights out"
            )
        self.network = FullyConvolutional((CHANNELS, *shape[1:]), name, frozen=FROZEN)
        self.register_buffer("low", torch.zeros(shape[0]))
        self.register_buffer("high", torch.ones(shape[0]))

    def heatmap(self, x: Samples) -> VoxelScores:
        """Return A, ``(B, *sides)``, of ``(B, D)`` samples: one number an output of the network.

        ``A = sqrt(phi(x)^2 + 1) - 1``, 0 where phi is.
        """
        # Under autocast the output is in half precision, in which squares overflow.
        images = x.unflatten(1, self.shape)
        if self.pretrained:
            images = as_imagenet(images, self.low, self.high)
        output = self.network(images).to(x.dtype)
        return pseudo_huber(output[:, None])

    def upsampled(self, maps: VoxelScores) -> VoxelScores:
        """Return ``(B, *space)`` maps of the samples' voxels for ``(B, *sides)`` of the outputs."""
        return upsampled(maps, self.network.fields, self.shape[1:], self.sigma)

    def split(self, rows: Tensor) -> Labelled:
        """Return samples with their labels, and where their anomalies are, as far as rows tell.

        Args:
            rows: ``(B, D)``; ``(B, D + 1)`` with labels last; ``(B, D + V + 1)`` with 0 or 1 for each of a
                sample's V voxels before the label.

        Raises:
            SettingsError: Rows are not as wide as that.
        """
        d, v, width = self.channels, math.prod(self.shape[1:]), rows.shape[1]
        if width not in (d, d + 1, d + v + 1):
            raise SettingsError(
                f"rows of {width} values: a sample of shape {self.shape} has {d}, with a label {d + 1}, with "
                f"a map of its anomaly and a label {d + v + 1}"
            )
        labels = rows.new_zeros(len(rows)) if width == d else rows[:, -1]
        truth = rows[:, d:-1].unflatten(1, self.shape[1:]) if width > d + 1 else None
        return Labelled(rows[:, :d], labels, truth)


__all__ = ["FCDDModel", "Labelled"]
