"""Layers without a start: zero until somebody draws them, from a generator that is given."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)


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


__all__ = ["draw_uniform", "zeroed"]
