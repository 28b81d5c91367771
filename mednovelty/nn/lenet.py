"""The networks of Mesarcik et al. 2021 for small images, after LeNet; 28 and 32 pixels in the paper.

    encoder   3 x [convolution 2, ReLU, pooling 2 (not after the third), batch norm], dense
    decoder   dense, ReLU, 2 x [transposed 2, ReLU, upsampling 2, batch norm], transposed 2

The paper doubles the encoder's 32 filters from layer to layer and halves them again in the decoder; the
released code has 32 everywhere. Kernels of 2 reach one pixel to the right and below, so that images keep
their size. Slices and windows go by one code path; every side is a multiple of 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, max_pool3d, pad

from mednovelty.errors import SettingsError
from mednovelty.nn.layers import (
    CONVOLUTIONS,
    TRANSPOSED,
    divided,
    draw_layers,
    neutral_norm,
    pixelwise,
    zeroed,
)

KERNEL = 2
HALVINGS = 2
_POOL = {2: max_pool2d, 3: max_pool3d}


class LeNetEncoder(nn.Module):
    """From flat images to some numbers each. All weights are zero until they are drawn or read.

    Args:
        shape: ``(C, *space)`` of an image.
        filters: Channels after each of the three convolutions.
        n_out: How many numbers.

    Raises:
        SettingsError: Not three filters, or an image of another size or number of axes.
    """

    def __init__(self, shape: Sequence[int], filters: Sequence[int], n_out: int) -> None:
        super().__init__()
        small = small_space(shape, filters)
        self.shape, axes = tuple(shape), len(small)
        widths = [shape[0], *filters]
        self.convolutions = nn.ModuleList(
            zeroed(CONVOLUTIONS[axes], a, b, KERNEL) for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(neutral_norm(axes, width) for width in filters)
        self.dense = zeroed(nn.Linear, filters[-1] * math.prod(small), n_out)

    def initialise(self, generator: Generator) -> None:
        """Draw all weights; the generator is on the CPU."""
        draw_layers(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, n_out)`` for ``(B, C * voxels)``."""
        x = x.unflatten(1, self.shape)
        axes = x.dim() - 2
        pool = _POOL[axes]
        for number, (layer, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = pixelwise(torch.relu(layer(pad(x, (0, 1) * axes))))
            x = norm(pool(x, 2) if number < HALVINGS else x)
        return self.dense(x.flatten(1))


class LeNetDecoder(nn.Module):
    """From some numbers to a flat image: the encoder's mirror image.

    All weights are zero until they are drawn or read.

    Args:
        shape: ``(C, *space)`` of an image.
        filters: As the encoder has them, in its order.
        n_in: How many numbers.

    Raises:
        SettingsError: See ``LeNetEncoder``.
    """

    def __init__(self, shape: Sequence[int], filters: Sequence[int], n_in: int) -> None:
        super().__init__()
        small = small_space(shape, filters)
        axes, widths = len(small), [*filters[::-1], shape[0]]
        self.small = (widths[0], *small)
        self.latent_shape = (n_in,)
        self.dense = zeroed(nn.Linear, n_in, math.prod(self.small))
        self.transposed = nn.ModuleList(zeroed(TRANSPOSED[axes], a, b, KERNEL) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(neutral_norm(axes, width) for width in widths[1:-1])

    def initialise(self, generator: Generator) -> None:
        """Draw all weights; the generator is on the CPU."""
        draw_layers(self, generator)

    def forward(self, z: Tensor) -> Tensor:
        """Return ``(B, C * voxels)`` for ``(B, n_in)``."""
        x = pixelwise(torch.relu(self.dense(z)).unflatten(1, self.small))
        *inner, last = self.transposed
        for layer, norm in zip(inner, self.norms, strict=True):
            x = norm(interpolate(torch.relu(_cropped(layer(x))), scale_factor=2.0))
        return _cropped(last(x)).flatten(1)


def small_space(shape: Sequence[int], filters: Sequence[int]) -> tuple[int, ...]:
    """Return the sides of an image after the encoder's poolings.

    Raises:
        SettingsError: The networks are not for such images.
    """
    small = divided(shape, 2**HALVINGS, "lenet", "mlp")
    if len(filters) != HALVINGS + 1:
        raise SettingsError(f"network='lenet' has three convolutions, so three filters, not {tuple(filters)}")
    return small


def _cropped(x: Tensor) -> Tensor:
    # A transposed convolution of 2 reaches one pixel further; that one comes from the border alone.
    for axis in range(2, x.dim()):
        x = x.narrow(axis, 0, x.shape[axis] - 1)
    return x


__all__ = ["LeNetDecoder", "LeNetEncoder", "small_space"]
