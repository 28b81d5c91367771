"""Multilayer perceptrons whose output is the mean and log standard deviation of a Gaussian."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn


class GaussianMLP(nn.Module):
    """ReLU layers, then two linear heads: mean and log standard deviation.

    The two heads lie side by side in one matrix, means first, so that one matrix product gives
    both. All weights are zero until ``initialise`` or ``load_state_dict`` sets them: building a
    network draws no random number.

    Args:
        n_in: Number of inputs.
        hidden: Width of each hidden layer, in order.
        n_out: Number of dimensions of the Gaussian.
    """

    def __init__(self, n_in: int, hidden: Sequence[int], n_out: int) -> None:
        super().__init__()
        self.n_in, self.n_out = n_in, n_out
        widths = [n_in, *hidden]
        self.layers = nn.ModuleList(_zero_linear(a, b) for a, b in pairwise(widths))
        self.heads = _zero_linear(widths[-1], 2 * n_out)

    @property
    def hidden(self) -> list[nn.Linear]:
        """Return the hidden layers, first to last."""
        return [cast(nn.Linear, layer) for layer in self.layers]

    @torch.no_grad()
    def initialise(self, generator: Generator) -> None:
        """Draw all weights, uniform with variance ``1 / (3 fan in)`` as torch does; biases 0.

        Args:
            generator: Its device need not be the network's: both devices get the same weights.
        """
        for layer in [*self.hidden, self.heads]:
            drawn = torch.empty(layer.weight.shape, dtype=layer.weight.dtype, device=generator.device)
            limit = 1 / math.sqrt(layer.in_features)
            layer.weight.copy_(drawn.uniform_(-limit, limit, generator=generator))
            layer.bias.zero_()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation, each ``(B, n_out)``, for ``(B, n_in)`` inputs."""
        for layer in self.layers:
            x = torch.relu(layer(x))
        mean, log_sigma = self.heads(x).chunk(2, dim=-1)
        return mean, log_sigma


class GaussianHeads(nn.Module):
    """Any network whose last layer gives means and then log standard deviations, side by side.

    Args:
        body: From ``(B, n_in)`` to ``(B, 2 * n_out)``; it has ``initialise``.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def initialise(self, generator: Generator) -> None:
        """Draw all weights; the generator is on the CPU."""
        cast(Any, self.body).initialise(generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation, each ``(B, n_out)``."""
        mean, log_sigma = self.body(x).chunk(2, dim=-1)
        return mean, log_sigma


def _zero_linear(n_in: int, n_out: int) -> nn.Linear:
    # On whatever device is the default: under torch.device("meta") nothing is allocated.
    layer = nn.Linear(n_in, n_out, device="meta").to_empty(device=torch.get_default_device())
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


__all__ = ["GaussianHeads", "GaussianMLP"]
