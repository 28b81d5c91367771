"""Fully convolutional encoder and decoder of a VAE, for slices and for windows by one code path.

Zimmerer et al., "Unsupervised Anomaly Localization using Variational Auto-Encoders", 2019, section 2.3
(after DCGAN); kernels and paddings as in the authors' released code:

    encoder   C -> 16 -> 32 -> 64 -> 256     convolutions 4, stride 2, padding 1, LeakyReLU(0.01)
              256 -> 2 Z                     convolution 4, stride 1, no padding: means, then log sigmas
    decoder   Z -> 256                       transposed, 4, stride 1, LeakyReLU(0.01)
              256 -> 64 -> 32 -> 16 -> C     transposed, 4, stride 2, padding 1, LeakyReLU but at the end

No bias, no normalisation: black in, black out. Which sizes work: every side a multiple of
``2 ** len(widths)``, so of 16 with the paper's four widths; 64 x 64 gives one latent position, 128 x 128
gives 5 x 5. Where fewer than four positions are left along an axis, the last kernel is as long as these
are, so that a side of 16, 32 or 48 gives one position too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Generator, Tensor, nn
from torch.nn.functional import leaky_relu

from mednovelty.errors import SettingsError
from mednovelty.nn.layers import CONVOLUTIONS, TRANSPOSED, draw_uniform, zeroed

KERNEL = 4
SLOPE = 0.01


def last_kernel(space: Sequence[int], n_strides: int) -> tuple[int, ...]:
    """Return the size of the encoder's last kernel along each axis.

    Args:
        space: Sides of the image.
        n_strides: How many times they are halved.

    Raises:
        SettingsError: Not two or three axes, or a side that cannot be halved as often.
    """
    step = 2**n_strides
    if len(space) not in CONVOLUTIONS:
        raise SettingsError(
            f"a convolutional VAE takes slices (C, I, J) or windows (C, I, J, K), not {len(space)} axes of "
            f"space, {tuple(space)}; cut with the view 'slice' or 'patch', or set network='dense'"
        )
    if any(side < step or side % step for side in space):
        near = ", ".join(str(max(step, step * round(side / step))) for side in space)
        raise SettingsError(
            f"an image of {' x '.join(map(str, space))} does not fit {n_strides} strides of 2: its sides "
            f"must be multiples of {step}; cut it to ({near}), or give fewer widths"
        )
    return tuple(min(KERNEL, side // step) for side in space)


def latent_space(space: Sequence[int], n_strides: int) -> tuple[int, ...]:
    """Return the number of latent positions along each axis; arguments as of ``last_kernel``."""
    kernel = last_kernel(space, n_strides)
    return tuple(side // 2**n_strides - size + 1 for side, size in zip(space, kernel, strict=True))


class ConvEncoder(nn.Module):
    """From flat images to mean and log standard deviation of each latent.

    All weights are zero until they are drawn or read.

    Args:
        shape: ``(C, *space)`` of an image.
        widths: Channels after each convolution of stride 2.
        latent: Z, latent channels.

    Raises:
        SettingsError: See ``last_kernel``.
    """

    def __init__(self, shape: Sequence[int], widths: Sequence[int], latent: int) -> None:
        super().__init__()
        channels, *space = shape
        kernel = last_kernel(space, len(widths))
        convolution = CONVOLUTIONS[len(space)]
        self.shape = tuple(shape)
        self.halvings = nn.ModuleList(
            zeroed(convolution, a, b, KERNEL, stride=2, padding=1, bias=False)
            for a, b in pairwise([channels, *widths])
        )
        self.heads = zeroed(convolution, widths[-1], 2 * latent, kernel, bias=False)

    def initialise(self, generator: Generator) -> None:
        """Draw all weights: what a LeakyReLU passes keeps its variance, the heads start with 1/3 of it."""
        for weight in _weights(self.halvings):
            draw_uniform(weight, _he_limit(weight[0].numel()), generator)
        draw_uniform(self.heads.weight, 1 / math.sqrt(self.heads.weight[0].numel()), generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log sigma, ``(B, Z * positions)`` each, for ``(B, C * voxels)``."""
        x = x.unflatten(1, self.shape)
        for layer in self.halvings:
            x = leaky_relu(layer(x), SLOPE)
        mean, log_sigma = self.heads(x).chunk(2, dim=1)
        return mean.flatten(1), log_sigma.flatten(1)


class ConvDecoder(nn.Module):
    """From latents back to flat images: the encoder's mirror image.

    All weights are zero until they are drawn or read.

    Args:
        shape: ``(C, *space)`` of an image.
        widths: As the encoder has them, in its order.
        latent: Z, latent channels.

    Raises:
        SettingsError: See ``last_kernel``.
    """

    def __init__(self, shape: Sequence[int], widths: Sequence[int], latent: int) -> None:
        super().__init__()
        channels, *space = shape
        kernel = last_kernel(space, len(widths))
        transposed = TRANSPOSED[len(space)]
        self.latent_shape = (latent, *latent_space(space, len(widths)))
        self.first = zeroed(transposed, latent, widths[-1], kernel, bias=False)
        self.doublings = nn.ModuleList(
            zeroed(transposed, a, b, KERNEL, stride=2, padding=1, bias=False)
            for a, b in pairwise([*widths[::-1], channels])
        )

    def initialise(self, generator: Generator) -> None:
        """Draw all weights: what a LeakyReLU passes keeps its variance, the image starts with 1/3 of it."""
        axes = self.first.weight.ndim - 2
        # Of a single latent position every output sees one weight; a stride of 2 halves the kernel's reach.
        draw_uniform(self.first.weight, _he_limit(self.first.weight.shape[0]), generator)
        *inner, last = _weights(self.doublings)
        for weight in inner:
            draw_uniform(weight, _he_limit(len(weight) * (KERNEL // 2) ** axes), generator)
        draw_uniform(last, 1 / math.sqrt(len(last) * (KERNEL // 2) ** axes), generator)

    def forward(self, z: Tensor) -> Tensor:
        """Return ``(B, C * voxels)`` for ``(B, Z * positions)``."""
        x = leaky_relu(self.first(z.unflatten(1, self.latent_shape)), SLOPE)
        *inner, last = self.doublings
        for layer in inner:
            x = leaky_relu(layer(x), SLOPE)
        return last(x).flatten(1)


def _weights(layers: nn.ModuleList) -> list[Tensor]:
    return [cast(Tensor, layer.weight) for layer in layers]


def _he_limit(fan_in: int) -> float:
    """Return the largest weight with which a LeakyReLU's output has its input's mean square."""
    return math.sqrt(6 / ((1 + SLOPE**2) * fan_in))


__all__ = ["ConvDecoder", "ConvEncoder", "last_kernel", "latent_space"]
