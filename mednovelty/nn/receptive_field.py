"""Which inputs an output of a convolutional network sees, and maps drawn back onto the inputs from there.

Along each axis, from the first layer to the last, for a kernel k, stride s, padding p and dilation d:

    first  <- first + (d (k - 1) / 2 - p) stride
    size   <- size + d (k - 1) stride
    stride <- s stride

Output i sees ``size`` inputs around ``first + i stride``, in pixels; this centre may lie between two of them.

Upsampling is Ruff, "Deep One-Class Learning", 2021, Algorithm 1: each output spreads as a Gaussian around the
centre of its field, over the field, which is a transposed convolution whose kernel is as large as the field
and whose stride is the network's. What arrives at a pixel is divided by the Gaussians that reach it: of a
constant map comes the same constant. Neither the algorithm, whose Gaussians have an integral of 1, nor the
released code, whose kernel has a peak of 1, do so: a constant comes out larger or smaller by a factor that
depends on sigma, and darker at the borders.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mednovelty.papers import equation
from mednovelty.types import VoxelScores

_WINDOWS: tuple[type, ...] = (nn.Conv2d, nn.Conv3d, nn.MaxPool2d, nn.MaxPool3d)
_POINTWISE: tuple[type, ...] = (_BatchNorm, nn.ReLU, nn.LeakyReLU, nn.Identity)


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """What outputs see along one axis.

    Attributes:
        size: How many inputs one output sees, where none is beyond the border.
        stride: How many inputs lie between the centres of two outputs' fields.
        first: Centre of the first output's field, in pixels from the centre of the first input.
    """

    size: int = 1
    stride: int = 1
    first: float = 0.0

    def after(self, kernel: int, stride: int, padding: int, dilation: int) -> ReceptiveField:
        """Return the field with one more layer."""
        reach = dilation * (kernel - 1)
        first = self.first + (reach / 2 - padding) * self.stride
        return ReceptiveField(self.size + reach * self.stride, self.stride * stride, first)

    def weights(self, outputs: int, side: int, sigma: float, like: Tensor | None = None) -> Tensor:
        """Return ``(side, outputs)``: what of each output arrives at each input; rows sum to 1.

        An input that no output sees takes the value of the nearest.

        Args:
            outputs: How many there are.
            side: How many inputs.
            sigma: Of the Gaussian, in pixels.
            like: Gives device and type.
        """
        like = torch.empty(()) if like is None else like
        centres = self.first + self.stride * torch.arange(outputs, device=like.device, dtype=like.dtype)
        away = (torch.arange(side, device=like.device, dtype=like.dtype)[:, None] - centres).abs()
        reach = away.amin(1, keepdim=True).clamp_min((self.size - 1) / 2)
        # The exponents, not the Gaussians, are normalised: none of a narrow one may round to 0 / 0.
        return (-0.5 * (away / sigma).square()).masked_fill(away > reach, -torch.inf).softmax(1)


def receptive_fields(layers: Iterable[nn.Module], axes: int) -> tuple[ReceptiveField, ...]:
    """Return the field of the last layer's outputs, one an axis.

    Args:
        layers: Convolutions, max pooling, batch norms and activations, one after the other.
        axes: Of space.

    Raises:
        TypeError: A layer is none of these.
    """
    fields = [ReceptiveField() for _ in range(axes)]
    for windows in _windows(layers, axes):
        fields = [field.after(*window) for field, window in zip(fields, windows, strict=True)]
    return tuple(fields)


def output_sides(layers: Iterable[nn.Module], space: Sequence[int]) -> tuple[int, ...]:
    """Return the sides of what comes out of layers for images with sides ``space``; below 1: nothing does.

    Raises:
        TypeError: See ``receptive_fields``.
    """
    sides = list(space)
    for windows in _windows(layers, len(sides)):
        sides = [
            (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for side, (kernel, stride, padding, dilation) in zip(sides, windows, strict=True)
        ]
    return tuple(sides)


@equation("ruff2021_thesis", "Algorithm 1")
def upsampled(
    maps: VoxelScores, fields: Sequence[ReceptiveField], space: Sequence[int], sigma: float
) -> VoxelScores:
    """Return ``(B, *space)`` maps of a network's inputs for ``(B, *outputs)`` maps of its outputs.

    Args:
        maps: One number an output.
        fields: See ``receptive_fields``.
        space: Sides of the inputs.
        sigma: Of the Gaussian, in pixels.
    """
    # A Gaussian is a product over axes, and so is the sum of those that reach a pixel.
    for axis, (field, side) in enumerate(zip(fields, space, strict=True), start=1):
        weights = field.weights(maps.shape[axis], side, sigma, maps)
        maps = (maps.movedim(axis, -1) @ weights.T).movedim(-1, axis)
    return maps


def _windows(layers: Iterable[nn.Module], axes: int) -> Iterable[list[tuple[int, int, int, int]]]:
    """Yield kernel, stride, padding and dilation of each layer that has them, one an axis."""
    for layer in layers:
        if isinstance(layer, _WINDOWS):
            told = (_of_axes(getattr(layer, name), axes) for name in _NAMES)
            yield list(zip(*told, strict=True))
        elif not isinstance(layer, _POINTWISE):
            raise TypeError(f"what a {type(layer).__name__} sees of its input is not known")


_NAMES = ("kernel_size", "stride", "padding", "dilation")


def _of_axes(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (int(value),) * axes


__all__ = ["ReceptiveField", "output_sides", "receptive_fields", "upsampled"]
