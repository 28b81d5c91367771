"""MONAI's U-Net, with weights that are drawn from a generator that is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from mednovelty.errors import SettingsError
from mednovelty.nn.layers import draw_layers

SLOPE = 0.1
"""Of the leaky ReLUs."""
SMALLEST_SIDE = 16
"""Halved four times, a side has a voxel left."""


class UNet(nn.Module):
    """From ``(B, n_in, *space)`` to ``(B, n_out, *space)``; all weights are zero until drawn or read.

    MONAI's ``BasicUNet`` (Falk et al. 2019, "U-Net: deep learning for cell counting, detection, and
    morphometry") with batch norms: four times halved, two convolutions a level.

    Args:
        axes: Of space, 2 or 3.
        n_in: Channels.
        n_out: Channels.
        width: Of the first level; doubled at each but the first halving.
    """

    def __init__(self, axes: int, n_in: int, n_out: int, width: int) -> None:
        super().__init__()
        # Imported here: MONAI takes seconds, and most networks are others.
        try:
            from monai.networks.nets.basic_unet import BasicUNet
        except ImportError as error:
            raise SettingsError(
                "network=unet needs MONAI: pip install monai, or set network=fcdd (mlp for voxels)"
            ) from error

        features = (width, width, 2 * width, 4 * width, 8 * width, width)
        with torch.device("meta"):  # MONAI draws weights, from a generator that is everybody's.
            network: Any = BasicUNet(axes, n_in, n_out, features, ("LeakyReLU", {"negative_slope": SLOPE}),
                                     norm="batch")  # fmt: skip
        self.network = network.to_empty(device=torch.get_default_device())
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        # Channels side by side, see ``pixelwise``: images of one channel do not ask for it, weights do.
        self.order = torch.channels_last if axes == 2 else torch.channels_last_3d
        self.network.to(memory_format=self.order)
        self._forget()

    def initialise(self, generator: Generator) -> None:
        """Draw all weights; batch norms forget what they have seen. The generator is on the CPU."""
        draw_layers(self, generator, SLOPE)
        self._forget()

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(B, n_out, *space)``."""
        return self.network(images.contiguous(memory_format=self.order))

    def _forget(self) -> None:
        for layer in self.modules():
            if hasattr(layer, "reset_running_stats"):
                layer.reset_parameters()  # type: ignore[operator]


def check_sides(space: Sequence[int]) -> None:
    """Raise where a U-Net cannot take images with these sides.

    Raises:
        SettingsError: A side is shorter than 16.
    """
    if min(space) < SMALLEST_SIDE:
        raise SettingsError(
            f"images of {' x '.join(map(str, space))} are too small for network=unet, which halves sides "
            f"four times: they need at least {SMALLEST_SIDE}; cut larger ones, or set network=fcdd"
        )


__all__ = ["SMALLEST_SIDE", "UNet", "check_sides"]
