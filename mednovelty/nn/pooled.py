"""The network of Vasilev et al. 2018, Table 2, for small images; 28 pixels in the paper.

    encoder   convolution 3, 16 -> pooling 2 -> convolution 3, 32 -> dense
    decoder   dense to one image of half the sides -> convolution 3, 32 -> transposed 2, stride 2, 16 ->
              convolution 3

Which activations there are the paper does not tell: here ReLU after every layer but the last of each part.
Zeros around images keep their size. Slices and windows go by one code path; every side is even.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import max_pool2d, max_pool3d

from mednovelty.nn.layers import CONVOLUTIONS, TRANSPOSED, divided, draw_layers, pixelwise, zeroed

FIRST, SECOND = 16, 32
"""Channels after the first and the second convolution."""
_POOL = {2: max_pool2d, 3: max_pool3d}


class PooledEncoder(nn.Module):
    """From flat images to some numbers each. All weights are zero until they are drawn or read.

    Args:
        shape: ``(C, *space)`` of an image.
        n_out: How many numbers.

    Raises:
        SettingsError: Not two or three axes of space, or an odd side.
    """

    def __init__(self, shape: Sequence[int], n_out: int) -> None:
        super().__init__()
        small = divided(shape, 2, "pooled", "dense")
        self.shape, convolution = tuple(shape), CONVOLUTIONS[len(small)]
        self.first = zeroed(convolution, shape[0], FIRST, 3, padding=1)
        self.second = zeroed(convolution, FIRST, SECOND, 3, padding=1)
        self.dense = zeroed(nn.Linear, SECOND * math.prod(small), n_out)

    def initialise(self, generator: Generator) -> None:
        """Draw all weights; the generator is on the CPU."""
        draw_layers(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, n_out)`` for ``(B, C * voxels)``."""
        x = x.unflatten(1, self.shape)
        x = pixelwise(_POOL[x.dim() - 2](torch.relu(self.first(x)), 2))
        return self.dense(torch.relu(self.second(x)).flatten(1))


class PooledDecoder(nn.Module):
    """From some numbers to a flat image. All weights are zero until they are drawn or read.

    Args:
        shape: ``(C, *space)`` of an image.
        n_in: How many numbers.

    Raises:
        SettingsError: See ``PooledEncoder``.
    """

    def __init__(self, shape: Sequence[int], n_in: int) -> None:
        super().__init__()
        small = divided(shape, 2, "pooled", "dense")
        self.small, axes = (1, *small), len(small)
        self.dense = zeroed(nn.Linear, n_in, math.prod(small))
        self.first = zeroed(CONVOLUTIONS[axes], 1, SECOND, 3, padding=1)
        self.doubling = zeroed(TRANSPOSED[axes], SECOND, FIRST, 2, stride=2)
        self.last = zeroed(CONVOLUTIONS[axes], FIRST, shape[0], 3, padding=1)

    def initialise(self, generator: Generator) -> None:
        """Draw all weights; the generator is on the CPU."""
        draw_layers(self, generator)

    def forward(self, z: Tensor) -> Tensor:
        """Return ``(B, C * voxels)`` for ``(B, n_in)``."""
        x = torch.relu(self.dense(z)).unflatten(1, self.small)
        x = pixelwise(torch.relu(self.first(x)))
        return self.last(torch.relu(self.doubling(x))).flatten(1)


__all__ = ["PooledDecoder", "PooledEncoder"]
