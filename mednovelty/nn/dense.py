"""A multilayer perceptron with one linear output, such as the decoder of a fully connected VAE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Generator, Tensor, nn

from mednovelty.nn.layers import draw_uniform, zeroed


class MLP(nn.Module):
    """ReLU layers, then a linear one. All weights are zero until they are drawn or read.

    Args:
        n_in: Number of inputs.
        hidden: Width of each hidden layer, in order.
        n_out: Number of outputs.
    """

    def __init__(self, n_in: int, hidden: Sequence[int], n_out: int) -> None:
        super().__init__()
        widths = [n_in, *hidden, n_out]
        self.layers = nn.ModuleList(zeroed(nn.Linear, a, b) for a, b in pairwise(widths))

    @torch.no_grad()
    def initialise(self, generator: Generator) -> None:
        """Draw all weights, uniform with variance ``1 / (3 fan in)`` as torch does; biases 0."""
        for layer in (cast(nn.Linear, layer) for layer in self.layers):
            draw_uniform(layer.weight, 1 / math.sqrt(layer.in_features), generator)
            layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, n_out)`` for ``(B, n_in)``."""
        *hidden, last = self.layers
        for layer in hidden:
            x = torch.relu(layer(x))
        return last(x)


__all__ = ["MLP"]
