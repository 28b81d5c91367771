"""Networks for one-class classification: without biases, if they are to be kept from learning a constant.

    convolutional   [convolution 5, batch norm, leaky ReLU, max pooling 2] for each of some filters, dense
    dense           [dense, batch norm, leaky ReLU] for each of some widths, dense
    decoders        the same backwards, with upsampling 2 before each transposed convolution 5

After Ruff, "Deep One-Class Learning", 2021, appendix B.1.1. The batch norm is the released code's: without
weights of its own where layers have no biases, epsilon 1e-4. Slices and windows go by one code path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, max_pool2d, max_pool3d

from mednovelty.nn.layers import CONVOLUTIONS, TRANSPOSED, divided, draw_layers, neutral_norm, zeroed

KERNEL, PADDING = 5, 2
EPSILON = 1e-4
_POOL = {2: max_pool2d, 3: max_pool3d}


@dataclass(frozen=True, slots=True)
class Units:
    """What all layers of a network have in common.

    Args:
        slope: Of the leaky ReLU; 0: a ReLU.
        biases: Whether layers add something, and batch norms scale and shift.
    """

    slope: float = 0.1
    biases: bool = False

    def norm(self, axes: int, channels: int) -> nn.Module:
        """Return a batch norm of vectors (no axes) or images."""
        return neutral_norm(axes, channels, eps=EPSILON, affine=self.biases)


class OneClassNetwork(nn.Module):
    """Layers, each but the last followed by a batch norm. All weights are zero until they are drawn or read.

    Args:
        units: Of all layers.
    """

    layers: nn.ModuleList
    norms: nn.ModuleList

    def __init__(self, units: Units) -> None:
        super().__init__()
        self.units = units

    def initialise(self, generator: Generator) -> None:
        """Draw all weights; batch norms forget what they have seen. The generator is on the CPU."""
        draw_layers(self, generator, self.units.slope)
        for norm in self.norms:
            norm.reset_parameters()  # type: ignore[operator]

    def rectified(self, x: Tensor) -> Tensor:
        """Return x after the leaky ReLU."""
        return leaky_relu(x, self.units.slope)


class DenseNetwork(OneClassNetwork):
    """From ``(B, n_in)`` to ``(B, n_out)``; encoder and decoder alike.

    Args:
        n_in: How many numbers come in.
        hidden: Widths of the hidden layers, in order.
        n_out: How many go out.
        units: Of all layers.
    """

    def __init__(self, n_in: int, hidden: Sequence[int], n_out: int, units: Units) -> None:
        super().__init__(units)
        widths = [n_in, *hidden, n_out]
        self.layers = nn.ModuleList(zeroed(nn.Linear, a, b, bias=units.biases) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(units.norm(0, width) for width in hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, n_out)`` for ``(B, n_in)``."""
        *hidden, last = self.layers
        for layer, norm in zip(hidden, self.norms, strict=True):
            x = self.rectified(norm(layer(x)))
        return last(x)


class ConvolutionalEncoder(OneClassNetwork):
    """From flat images to some numbers each.

    Args:
        shape: ``(C, *space)`` of an image, each side a multiple of 2 to the number of filters.
        filters: Channels after each convolution.
        n_out: How many numbers.
        units: Of all layers.

    Raises:
        SettingsError: An image of another size or number of axes.
    """

    def __init__(self, shape: Sequence[int], filters: Sequence[int], n_out: int, units: Units) -> None:
        super().__init__(units)
        small = divided(shape, 2 ** len(filters), "lenet", "mlp")
        self.shape, axes = tuple(shape), len(small)
        self.layers = nn.ModuleList(
            zeroed(CONVOLUTIONS[axes], a, b, KERNEL, padding=PADDING, bias=units.biases)
            for a, b in pairwise([shape[0], *filters])
        )
        self.norms = nn.ModuleList(units.norm(axes, width) for width in filters)
        self.dense = zeroed(nn.Linear, filters[-1] * math.prod(small), n_out, bias=units.biases)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, n_out)`` for ``(B, C * voxels)``."""
        x = x.unflatten(1, self.shape)
        pool = _POOL[x.dim() - 2]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = pool(self.rectified(norm(layer(x))), 2)
        return self.dense(x.flatten(1))


class ConvolutionalDecoder(OneClassNetwork):
    """From some numbers to a flat image: the encoder's mirror image.

    A dense layer makes the smallest image, where the released code lays out the numbers themselves.

    Args:
        shape: ``(C, *space)`` of an image.
        filters: As the encoder has them, in its order.
        n_in: How many numbers.
        units: Of all layers.

    Raises:
        SettingsError: See ``ConvolutionalEncoder``.
    """

    def __init__(self, shape: Sequence[int], filters: Sequence[int], n_in: int, units: Units) -> None:
        super().__init__(units)
        small = divided(shape, 2 ** len(filters), "lenet", "mlp")
        self.small, axes = (filters[-1], *small), len(small)
        widths = [*filters[::-1], shape[0]]
        self.dense = zeroed(nn.Linear, n_in, math.prod(self.small), bias=units.biases)
        self.layers = nn.ModuleList(
            zeroed(TRANSPOSED[axes], a, b, KERNEL, padding=PADDING, bias=units.biases)
            for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(units.norm(axes, width) for width in widths[:-1])

    def forward(self, z: Tensor) -> Tensor:
        """Return ``(B, C * voxels)`` for ``(B, n_in)``."""
        x = self.dense(z).unflatten(1, self.small)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = layer(interpolate(self.rectified(norm(x)), scale_factor=2.0))
        return x.flatten(1)


__all__ = ["ConvolutionalDecoder", "ConvolutionalEncoder", "DenseNetwork", "Units"]
