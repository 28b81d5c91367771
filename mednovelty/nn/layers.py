"""Layers without a start: zero until somebody draws them, from a generator that is given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn

from mednovelty.errors import SettingsError

Layer = TypeVar("Layer", bound=nn.Module)

CONVOLUTIONS: Mapping[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: Mapping[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS: Mapping[int, Any] = {0: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
"""By the number of axes of space; vectors have none."""

_WEIGHTED: tuple[type, ...] = (nn.Linear, *CONVOLUTIONS.values(), *TRANSPOSED.values())


def divided(shape: Sequence[int], step: int, network: str, otherwise: str) -> tuple[int, ...]:
    """Return the sides of an image after a network has divided them by ``step``.

    Args:
        shape: ``(C, *space)``.
        step: Every side must be a multiple of it.
        network: Its name in the settings.
        otherwise: That of the network for images of other sizes.

    Raises:
        SettingsError: Not two or three axes of space, or a side that is no multiple.
    """
    space = tuple(shape[1:])
    if len(space) not in CONVOLUTIONS:
        raise SettingsError(
            f"network={network!r} takes slices (C, I, J) or windows (C, I, J, K), not {len(space)} axes of "
            f"space, {space}; set network='mlp'"
        )
    if any(side < step or side % step for side in space):
        raise SettingsError(
            f"an image of {' x '.join(map(str, space))} does not fit network={network!r}: its sides must be "
            f"multiples of {step}; cut it to another size, or set network={otherwise!r}"
        )
    return tuple(side // step for side in space)


def pixelwise(x: Tensor) -> Tensor:
    """Return the same numbers, of ``(B, C, I, J)`` images with the channels of each pixel side by side.

    On a processor, convolutions of many channels then take two thirds of the time, and those that follow keep
    the order; windows and other devices are left as they are.
    """
    if x.dim() != 4 or x.device.type != "cpu":
        return x
    return x.contiguous(memory_format=torch.channels_last)


def zeroed(kind: type[Layer], *args: Any, **options: Any) -> Layer:
    """Return a layer whose weights are all 0; building it draws no random number.

    Args:
        kind: Class of the layer.
        *args: Its arguments.
        **options: The same, by name.
    """
    # On whatever device is the default: under torch.device("meta") nothing is allocated.
    layer = kind(*args, device="meta", **options).to_empty(device=torch.get_default_device())
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def neutral_norm(axes: int, channels: int, **options: Any) -> nn.Module:
    """Return a batch normalisation that changes nothing until it is trained, of images with some axes."""
    norm = NORMS[axes](channels, device="meta", **options).to_empty(device=torch.get_default_device())
    norm.reset_parameters()
    return norm


@torch.no_grad()
def draw_uniform(weight: Tensor, limit: float, generator: Generator) -> None:
    """Set a weight to uniform numbers between ``-limit`` and ``limit``.

    Args:
        weight: Of any shape, on any device.
        limit: Largest magnitude.
        generator: Its device need not be the weight's: both devices get the same numbers.
    """
    drawn = torch.empty(weight.shape, dtype=weight.dtype, device=generator.device)
    weight.copy_(drawn.uniform_(-limit, limit, generator=generator))


@torch.no_grad()
def draw_layers(network: nn.Module, generator: Generator, slope: float = 0.0) -> None:
    """Draw the weights of all layers of a network, in order; biases 0.

    What a (leaky) ReLU passes keeps its mean square (He et al. 2015); the last layer, which none follows,
    starts with a third of its input's.

    Args:
        network: Of linear and convolutional layers, transposed or not, and whatever has no weights to draw.
        generator: On the CPU.
        slope: Of the leaky ReLU.
    """
    layers: list[Any] = [layer for layer in network.modules() if isinstance(layer, _WEIGHTED)]
    for number, layer in enumerate(layers, start=1):
        gain = 1.0 if number == len(layers) else 6 / (1 + slope**2)
        draw_uniform(layer.weight, math.sqrt(gain / _fan_in(layer)), generator)
        if layer.bias is not None:
            layer.bias.zero_()


def _fan_in(layer: Any) -> float:
    """Return how many inputs one output sums over, on average over outputs."""
    if getattr(layer, "transposed", False):
        return len(layer.weight) * math.prod(layer.kernel_size) / math.prod(layer.stride)
    return layer.weight[0].numel()


__all__ = ["CONVOLUTIONS", "TRANSPOSED", "divided", "draw_layers", "draw_uniform", "neutral_norm", "zeroed"]
