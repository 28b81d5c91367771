"""A network of ReLUs with its kinks rounded off, and its derivatives by the inputs."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from mednovelty.nn.mlp import GaussianMLP

CHUNK = 256
"""Samples whose derivatives are carried at a time, so that they stay in the processor's cache."""


class SmoothedMLP:
    """A ``GaussianMLP`` at some inputs, each ReLU replaced by a hyperbola.

    ``h(a) = (a + root) / 2`` with ``root = sqrt(a^2 + smoothing^2)`` is at most half the smoothing above the
    ReLU, and its slope is ``h / root``: a square root is far cheaper than a softplus's exponential and
    logarithm. All derivatives are exact for the smoothed network.

    Args:
        net: The network.
        x: ``(B, n_in)``.
        smoothing: Width of the rounding, above 0, in the units of the hidden layers.
    """

    def __init__(self, net: GaussianMLP, x: Tensor, smoothing: float) -> None:
        self._net = net
        self._slopes = []
        squared = x.new_tensor(smoothing**2)
        for layer in net.hidden:
            before = layer(x)
            root = torch.addcmul(squared, before, before).sqrt_()
            x = torch.lerp(before, root, 0.5)
            self._slopes.append(x / root)
        self._features = x

    @cached_property
    def mean(self) -> Tensor:
        """Return ``(B, n_out)`` means."""
        return nn.functional.linear(self._features, *self._head(0))

    @cached_property
    def log_sigma(self) -> Tensor:
        """Return ``(B, n_out)`` log standard deviations."""
        return nn.functional.linear(self._features, *self._head(1))

    def pull(self, by_mean: Tensor, by_log_sigma: Tensor | None = None) -> Tensor:
        """Return the gradient by the inputs, ``(B, n_in)``, of what has these derivatives by the outputs."""
        gradient = by_mean @ self._head(0)[0]
        if by_log_sigma is not None:
            gradient = gradient + by_log_sigma @ self._head(1)[0]
        for layer, slope in zip(reversed(self._net.hidden), reversed(self._slopes), strict=True):
            gradient = (gradient * slope) @ layer.weight
        return gradient

    def slopes(self, *, mean_only: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return the derivatives of means and log standard deviations, ``(B, n_in, n_out)`` each.

        Args:
            mean_only: Give None for the standard deviations.
        """
        n_in, n_out, count = self._net.n_in, self._net.n_out, len(self._features)
        weight = self._head(0)[0] if mean_only else self._net.heads.weight
        both = weight.new_empty(count, n_in, len(weight))
        for start in range(0, count, CHUNK):
            chunk = slice(start, start + CHUNK)
            torch.mm(self._carried(chunk), weight.T, out=both[chunk].view(-1, len(weight)))
        return both[..., :n_out], None if mean_only else both[..., n_out:]

    def _carried(self, chunk: slice) -> Tensor:
        """Return the derivatives of the last hidden layer: the inputs of all samples are rows.

        They are carried forward from all inputs: fewer products than backward from all outputs, as long as
        inputs are fewer.
        """
        n_in = self._net.n_in
        # The first layer's product with each input's unit vector is its weights, for every sample.
        first, *later = self._net.hidden
        carried = (first.weight.T * self._slopes[0][chunk, None]).flatten(0, 1)
        for layer, slope in zip(later, self._slopes[1:], strict=True):
            wide = (carried @ layer.weight.T).view(-1, n_in, layer.out_features)
            carried = wide.mul_(slope[chunk, None]).flatten(0, 1)
        return carried

    def _head(self, which: int) -> tuple[Tensor, Tensor]:
        rows = slice(which * self._net.n_out, (which + 1) * self._net.n_out)
        return self._net.heads.weight[rows], self._net.heads.bias[rows]


__all__ = ["SmoothedMLP"]
