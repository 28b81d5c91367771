"""Small residual encoder and decoder, in the manner of ResNet-18, for images of any size.

Ascarate et al., "VAE with Hyperspherical Coordinates", 2026, section 4.1; layers as in the authors' released
code, which has them from Soft-IntroVAE:

    encoder   conv 5, 16   BN  LReLU  pool 2   Res(16 -> 32)  pool 2   Res(32 -> 64)  pool 2   Res(64 -> 64)
              Linear -> 2 Z
    decoder   Linear -> 64 x positions  BN  LReLU   Res(64 -> 64)  up 2   Res(64 -> 32)  up 2
              Res(32 -> 16)  up 2   Res(16 -> 16)   conv 5 -> C
    Res       conv 3  BN  LReLU  conv 3  BN  + x (a convolution of 1 where widths differ), then LReLU

LReLU has slope 0.2, pools take means, up is by the nearest value, and only the last convolution has a bias.
Of 3 x 32 x 32 images and 128 latents, 660,995 weights. Sides need not be multiples of 8: images are continued
by their border values to the next one, and what comes out is cropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, pad

from mednovelty.errors import SettingsError
from mednovelty.nn.layers import draw_uniform, pixelwise, zeroed

SLOPE = 0.2


class _Kinds(NamedTuple):
    convolution: Any
    norm: Any
    pool: Any


_KINDS = {
    2: _Kinds(nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d),
    3: _Kinds(nn.Conv3d, nn.BatchNorm3d, nn.AvgPool3d),
}


def padded_space(space: Sequence[int], halvings: int) -> tuple[int, ...]:
    """Return the sides of an image after padding: the next multiples of ``2 ** halvings``.

    Raises:
        SettingsError: Not two or three axes.
    """
    if len(space) not in _KINDS:
        raise SettingsError(
            f"a residual network takes slices (C, I, J) or windows (C, I, J, K), not {len(space)} axes of "
            f"space, {tuple(space)}; set network='dense'"
        )
    step = 2**halvings
    return tuple(step * math.ceil(side / step) for side in space)


class _Residual(nn.Module):
    """Two convolutions around which the input goes by."""

    def __init__(self, kinds: _Kinds, n_in: int, n_out: int) -> None:
        super().__init__()
        same = {"padding": 1, "bias": False}
        self.skip = zeroed(kinds.convolution, n_in, n_out, 1, bias=False) if n_in != n_out else nn.Identity()
        self.first = zeroed(kinds.convolution, n_in, n_out, 3, **same)
        self.first_norm = kinds.norm(n_out)
        self.second = zeroed(kinds.convolution, n_out, n_out, 3, **same)
        self.second_norm = kinds.norm(n_out)

    def forward(self, x: Tensor) -> Tensor:
        inner = leaky_relu(self.first_norm(self.first(x)), SLOPE)
        return leaky_relu(self.second_norm(self.second(inner)) + self.skip(x), SLOPE)


class ResidualEncoder(nn.Module):
    """From flat images to two numbers for each latent, such as mean and log variance.

    Weights are zero until they are drawn or read.

    Args:
        shape: ``(C, *space)`` of an image.
        widths: Channels of the first convolution and of each residual block that widens; the sides are
            halved once for each.
        latent: Z.

    Raises:
        SettingsError: See ``padded_space``.
    """

    def __init__(self, shape: Sequence[int], widths: Sequence[int], latent: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.padded = padded_space(shape[1:], len(widths))
        kinds = _KINDS[len(self.padded)]
        self.first = zeroed(kinds.convolution, shape[0], widths[0], 5, padding=2, bias=False)
        self.first_norm = kinds.norm(widths[0])
        wide = [*widths, widths[-1]]
        self.blocks = nn.ModuleList(_Residual(kinds, a, b) for a, b in pairwise(wide))
        self.pool = kinds.pool(2)
        self.heads = zeroed(nn.Linear, widths[-1] * _positions(self.padded, len(widths)), 2 * latent)

    def initialise(self, generator: Generator) -> None:
        """Draw all weights, uniform with variance ``1 / (3 fan in)`` as torch does; biases 0, norms fresh."""
        _draw(self, generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return two ``(B, Z)`` for ``(B, C * voxels)``; in training mode normalised over the batch."""
        x = pixelwise(self.first(_padded(x.unflatten(1, self.shape), self.padded)))
        x = leaky_relu(self.first_norm(x), SLOPE)
        for block in self.blocks:
            x = block(self.pool(x))
        first, second = self.heads(x.flatten(1)).chunk(2, dim=1)
        return first, second


class ResidualDecoder(nn.Module):
    """From latents back to flat images.

    Weights are zero until they are drawn or read.

    Args:
        shape: ``(C, *space)`` of an image.
        widths: As the encoder has them, in its order.
        latent: Z.

    Raises:
        SettingsError: See ``padded_space``.
    """

    def __init__(self, shape: Sequence[int], widths: Sequence[int], latent: int) -> None:
        super().__init__()
        self.space = tuple(shape[1:])
        padded = padded_space(self.space, len(widths))
        kinds = _KINDS[len(padded)]
        self.start = (widths[-1], *(side // 2 ** len(widths) for side in padded))
        self.first = zeroed(nn.Linear, latent, math.prod(self.start))
        self.first_norm = nn.BatchNorm1d(math.prod(self.start))
        narrow = [widths[-1], *widths[::-1], widths[0]]
        self.blocks = nn.ModuleList(_Residual(kinds, a, b) for a, b in pairwise(narrow))
        self.last = zeroed(kinds.convolution, widths[0], shape[0], 5, padding=2)

    def initialise(self, generator: Generator) -> None:
        """Draw all weights, uniform with variance ``1 / (3 fan in)`` as torch does; biases 0, norms fresh."""
        _draw(self, generator)

    def forward(self, z: Tensor) -> Tensor:
        """Return ``(B, C * voxels)`` for ``(B, Z)``; in training mode normalised over the batch."""
        x = pixelwise(leaky_relu(self.first_norm(self.first(z)), SLOPE).unflatten(1, self.start))
        *doubled, last = self.blocks
        for block in doubled:
            x = interpolate(block(x), scale_factor=2.0, mode="nearest")
        x = self.last(last(x))
        for axis, side in enumerate(self.space, start=2):
            x = x.narrow(axis, (x.shape[axis] - side) // 2, side)
        return x.flatten(1)


def _positions(padded: Sequence[int], halvings: int) -> int:
    return math.prod(side // 2**halvings for side in padded)


def _padded(x: Tensor, space: Sequence[int]) -> Tensor:
    """Return images continued on both sides of each axis by their border values."""
    missing = [whole - side for whole, side in zip(space, x.shape[2:], strict=True)]
    if not any(missing):
        return x
    # torch wants the last axis first.
    return pad(x, [n for m in reversed(missing) for n in (m // 2, m - m // 2)], mode="replicate")


def _draw(network: nn.Module, generator: Generator) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv3d):
            draw_uniform(layer.weight, 1 / math.sqrt(layer.weight[0].numel()), generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif hasattr(layer, "reset_running_stats"):
            cast(Any, layer).reset_parameters()


__all__ = ["ResidualDecoder", "ResidualEncoder", "padded_space"]
