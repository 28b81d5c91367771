"""Layer-wise relevance propagation (Bach et al. 2015) through networks without branches.

Of a layer z_j = sum_i a_i w_ij + b_j, each input's share of R_j is its share of z_j, where contributions of
z_j's own sign count 1 + gamma times (the gamma rule of Montavon et al. 2019, for outputs of both signs, as
leaky ReLUs pass them on)::

    p_ij = a_i w_ij (1 + gamma if it has the sign of z_j, else 1)      p_bj of b_j alike
    R_i  = sum_j R_j p_ij / (sum_i p_ij + p_bj)

What the bias would get, R_j p_bj / (...), is either spread over the inputs in proportion to |p_ij|, and then
nothing is lost, or kept by the bias, and then the relevance of inputs does not add up to the score. A neuron
all of whose inputs are 0 gives its relevance to none of them in either case.

A batch norm belongs to the layer before it: its weights are multiplied, and its running mean becomes a bias.
(Leaky) ReLUs pass relevance on, max pooling gives it to the largest input. Of the first layer shares may be
w_ij^2 / sum_i w_ij^2 instead: the gamma rule gives nothing to inputs that are 0, as what is black.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from mednovelty.errors import SettingsError
from mednovelty.nn.one_class import ConvolutionalEncoder, DenseNetwork

_CONVOLVE: dict[type, Callable[..., Tensor]] = {nn.Conv2d: functional.conv2d, nn.Conv3d: functional.conv3d}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Identity)
_ROUTES = (nn.MaxPool2d, nn.MaxPool3d, nn.Flatten, nn.Unflatten)


@dataclass(frozen=True, slots=True)
class Rules:
    """How relevance goes through layers.

    Args:
        gamma: How much more contributions of an output's own sign count; 0: as much as others.
        first: Of the first layer with weights: ``gamma``, or ``squared_weights``.
        biases: ``spread``: what they would get goes to the inputs; ``keep``: it is lost.

    Raises:
        SettingsError: Not one of those, or gamma below 0.
    """

    gamma: float = 0.25
    first: Literal["gamma", "squared_weights"] = "gamma"
    biases: Literal["spread", "keep"] = "spread"

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < math.inf:
            raise SettingsError(f"gamma must be at least 0 and finite, got {self.gamma}")
        for name, known in (("first", ("gamma", "squared_weights")), ("biases", ("spread", "keep"))):
            if getattr(self, name) not in known:
                words = " or ".join(map(repr, known))
                raise SettingsError(f"{name} must be {words}, got {getattr(self, name)!r}")

    def words(self) -> str:
        """Return them in words."""
        first = "" if self.first == "gamma" else ", squared weights in the first layer"
        return f"gamma rule {self.gamma:g}{first}, biases {self.biases} what they get"


class Step(Protocol):
    """One layer."""

    def forward(self, a: Tensor) -> Tensor:
        """Return what comes out of a layer."""

    def back(self, a: Tensor, relevance: Tensor, rules: Rules, *, first: bool) -> Tensor:
        """Return the relevance of the layer's inputs ``a``, from that of its outputs."""


@dataclass(frozen=True)
class Weighted:
    """A layer with weights: dense or convolutional.

    Attributes:
        apply: Takes inputs and weights; no bias.
        weight: As torch has it.
        bias: ``(outputs, 1, ...)``, one for each channel that comes out.
    """

    apply: Callable[[Tensor, Tensor], Tensor]
    weight: Tensor
    bias: Tensor

    def forward(self, a: Tensor) -> Tensor:
        """Return outputs."""
        return self.apply(a, self.weight) + self.bias

    def shifted(self, by: Tensor) -> Weighted:
        """Return the layer whose ``(outputs,)`` outputs are larger by so much."""
        return replace(self, bias=self.bias + by.reshape(self.bias.shape))

    def back(self, a: Tensor, relevance: Tensor, rules: Rules, *, first: bool) -> Tensor:
        """Return the inputs' relevance; see the module's docstring."""
        if first and rules.first == "squared_weights":
            squares, ones = self.weight.square(), torch.ones_like(a)
            return self._back(a, _ratio(relevance, self.apply(ones, squares)), squares)
        over, under = a.clamp_min(0), a.clamp_max(0)
        heavy, light = self.weight.clamp_min(0), self.weight.clamp_max(0)
        plus = self.apply(over, heavy) + self.apply(under, light)
        minus = self.apply(over, light) + self.apply(under, heavy)
        positive = plus + minus + self.bias >= 0
        of_plus, of_minus = (torch.where(side, 1 + rules.gamma, 1.0).to(a) for side in (positive, ~positive))
        bias = of_plus * self.bias.clamp_min(0) + of_minus * self.bias.clamp_max(0)
        share = _ratio(relevance, of_plus * plus + of_minus * minus + bias)
        extra = torch.zeros_like(share)
        if rules.biases == "spread":
            extra = _ratio(share * bias, of_plus * plus - of_minus * minus)
        to_plus, to_minus = of_plus * (share + extra), of_minus * (share - extra)
        return over * (self._back(a, to_plus, heavy) + self._back(a, to_minus, light)) + under * (
            self._back(a, to_plus, light) + self._back(a, to_minus, heavy)
        )

    def _back(self, a: Tensor, outputs: Tensor, weight: Tensor) -> Tensor:
        """Return, for each input, the sum of outputs times weights: the transposed layer."""
        return _pulled(lambda inputs: self.apply(inputs, weight), torch.zeros_like(a), outputs)


@dataclass(frozen=True)
class Routed:
    """A layer that gives each output to one input: max pooling, or another shape."""

    apply: Callable[[Tensor], Tensor]

    def forward(self, a: Tensor) -> Tensor:
        """Return outputs."""
        return self.apply(a)

    def back(self, a: Tensor, relevance: Tensor, rules: Rules, *, first: bool) -> Tensor:
        """Return the inputs' relevance: that of the outputs which they are."""
        return _pulled(self.apply, a, relevance)


@dataclass(frozen=True)
class Passed:
    """A function of each number: its relevance stays where it is."""

    apply: Callable[[Tensor], Tensor]

    def forward(self, a: Tensor) -> Tensor:
        """Return outputs."""
        return self.apply(a)

    def back(self, a: Tensor, relevance: Tensor, rules: Rules, *, first: bool) -> Tensor:
        """Return the same relevance."""
        return relevance


def propagated(steps: Sequence[Step], x: Tensor, relevance: Tensor, rules: Rules) -> Tensor:
    """Return the relevance of a network's inputs, shaped as x, from that of its outputs.

    Args:
        steps: The network, in order.
        x: What goes in.
        relevance: Of what comes out, of its shape.
        rules: Of all layers.
    """
    inputs = [x]
    for step in steps[:-1]:
        inputs.append(step.forward(inputs[-1]))
    first = next((number for number, step in enumerate(steps) if isinstance(step, Weighted)), -1)
    for number in range(len(steps) - 1, -1, -1):
        relevance = steps[number].back(inputs[number], relevance, rules, first=number == first)
    return relevance


def steps_of(network: nn.Module) -> list[Step]:
    """Return a network as steps, batch norms folded into the layers before them.

    Args:
        network: Of ``nn.one_class``, or a layer, or an ``nn.Sequential`` of them.

    Raises:
        SettingsError: There is a layer that no rule is known for.
    """
    steps: list[Step] = []
    for module in _modules(network):
        if isinstance(module, _NORMS):
            steps.append(_folded(steps.pop() if steps else None, module))
        else:
            steps.append(_step(module))
    return steps


def _modules(network: nn.Module) -> Iterable[nn.Module]:
    if isinstance(network, nn.Sequential):
        return [inner for module in network for inner in _modules(module)]
    if not isinstance(network, DenseNetwork | ConvolutionalEncoder):
        return [network]
    rectify = nn.LeakyReLU(network.units.slope)
    blocks = zip(network.layers, network.norms, strict=False)
    if isinstance(network, DenseNetwork):
        hidden = [module for layer, norm in blocks for module in (layer, norm, rectify)]
        return [*hidden, network.layers[-1]]
    pool = nn.MaxPool2d(2) if len(network.shape) == 3 else nn.MaxPool3d(2)
    hidden = [module for layer, norm in blocks for module in (layer, norm, rectify, pool)]
    return [nn.Unflatten(1, network.shape), *hidden, nn.Flatten(), network.dense]


def _step(module: Any) -> Step:
    if isinstance(module, _ROUTES):
        return Routed(module)
    if isinstance(module, _ACTIVATIONS):
        return Passed(module)
    if isinstance(module, nn.Linear):
        return _weighted(functional.linear, module)
    kind = _CONVOLVE.get(type(module))
    if kind is None or module.padding_mode != "zeros":
        raise SettingsError(
            f"no rule is known for relevance through {type(module).__name__}; use "
            "method='gradient_x_input' or 'smoothgrad'"
        )
    around = module.stride, module.padding, module.dilation, module.groups
    return _weighted(lambda a, weight: kind(a, weight, None, *around), module)


def _weighted(apply: Callable[[Tensor, Tensor], Tensor], module: Any) -> Weighted:
    weight = module.weight.detach()
    bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias.detach()
    return Weighted(apply, weight, bias.reshape(-1, *(1 for _ in weight.shape[2:])))


def _folded(before: Step | None, norm: Any) -> Weighted:
    """Return a layer and the batch norm after it as one layer; what the norm has seen counts, no batch."""
    if not isinstance(before, Weighted) or norm.running_var is None:
        raise SettingsError(
            "no rule is known for relevance through a batch norm that follows no layer with weights, or has "
            "no running mean; use method='gradient_x_input' or 'smoothgrad'"
        )
    mean, variance = norm.running_mean.to(before.weight), norm.running_var.to(before.weight)
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach()
    shift = 0.0 if norm.bias is None else norm.bias.detach()
    weight = before.weight * scale.reshape(-1, *(1 for _ in before.weight.shape[1:]))
    bias = (before.bias.flatten() - mean) * scale + shift
    return Weighted(before.apply, weight, bias.reshape(before.bias.shape))


def _pulled(function: Callable[[Tensor], Tensor], a: Tensor, outputs: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = a.detach().requires_grad_()
        return torch.autograd.grad(function(leaf), leaf, outputs)[0]


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, and 0 where the whole is 0."""
    zero = whole == 0
    return torch.where(zero, 0.0, part / torch.where(zero, 1.0, whole))


__all__ = ["Passed", "Routed", "Rules", "Step", "Weighted", "propagated", "steps_of"]
