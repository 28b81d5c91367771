"""The networks of Mesarcik et al. 2021 for patches of 128 pixels, after Bergmann et al. 2018.

    encoder   4/2 32, 4/2 32, 4/2 32, 3/1 32, 4/2 64, 3/1 64, 3/1 64, 3/1 32, then 8/1 without padding
    decoder   the same in reverse, transposed, LeakyReLU(0.2) everywhere but at both ends

``kernel/stride channels``. The last kernel is as long as what is left of the image, 8 of 128 pixels, so that
every side that is a multiple of 16 fits. Slices and windows go by one code path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Generator, Tensor, nn
from torch.nn.functional import leaky_relu

from mednovelty.nn.layers import CONVOLUTIONS, TRANSPOSED, divided, draw_layers, draw_uniform, zeroed

LAYERS = ((4, 2, 32), (4, 2, 32), (4, 2, 32), (3, 1, 32), (4, 2, 64), (3, 1, 64), (3, 1, 64), (3, 1, 32))
"""Kernel, stride, channels; padding 1."""
SLOPE = 0.2
STEP = math.prod(stride for _, stride, _ in LAYERS)


class PatchEncoder(nn.Module):
    """From flat images to some numbers each. All weights are zero until they are drawn or read.

    Args:
        shape: ``(C, *space)`` of an image.
        n_out: How many numbers.

    Raises:
        SettingsError: A side is no multiple of 16, or there are not two or three.
    """

    def __init__(self, shape: Sequence[int], n_out: int) -> None:
        super().__init__()
        kind, self.shape = CONVOLUTIONS[len(left_space(shape))], tuple(shape)
        self.layers = nn.ModuleList()
        channels = shape[0]
        for kernel, stride, width in LAYERS:
            self.layers.append(zeroed(kind, channels, width, kernel, stride=stride, padding=1))
            channels = width
        self.last = zeroed(kind, channels, n_out, left_space(shape))

    def initialise(self, generator: Generator) -> None:
        """Draw all weights; the generator is on the CPU."""
        draw_layers(self, generator, SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, n_out)`` for ``(B, C * voxels)``."""
        x = x.unflatten(1, self.shape)
        for layer in self.layers:
            x = leaky_relu(layer(x), SLOPE)
        return self.last(x).flatten(1)


class PatchDecoder(nn.Module):
    """From some numbers to a flat image: the encoder's mirror image.

    All weights are zero until they are drawn or read.

    Args:
        shape: ``(C, *space)`` of an image.
        n_in: How many numbers.

    Raises:
        SettingsError: See ``PatchEncoder``.
    """

    def __init__(self, shape: Sequence[int], n_in: int) -> None:
        super().__init__()
        kind: Any = TRANSPOSED[len(left_space(shape))]
        self.latent_shape = (n_in, *(1 for _ in shape[1:]))
        self.first = zeroed(kind, n_in, LAYERS[-1][2], left_space(shape))
        self.layers = nn.ModuleList()
        widths = [shape[0], *(width for _, _, width in LAYERS)]
        for number, (kernel, stride, width) in reversed(list(enumerate(LAYERS))):
            self.layers.append(zeroed(kind, width, widths[number], kernel, stride=stride, padding=1))

    def initialise(self, generator: Generator) -> None:
        """Draw all weights; the generator is on the CPU."""
        draw_layers(self, generator, SLOPE)
        # Every output of the first layer sees one weight of each latent, not a kernel of them.
        draw_uniform(self.first.weight, math.sqrt(6 / len(self.first.weight)), generator)

    def forward(self, z: Tensor) -> Tensor:
        """Return ``(B, C * voxels)`` for ``(B, n_in)``."""
        x = self.first(z.unflatten(1, self.latent_shape))
        for layer in self.layers:
            x = layer(leaky_relu(x, SLOPE))
        return x.flatten(1)


def left_space(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the sides of an image after all strides.

    Raises:
        SettingsError: The networks are not for such images.
    """
    return divided(shape, STEP, "patch", "lenet")


__all__ = ["PatchDecoder", "PatchEncoder", "left_space"]
