"""Derivatives of a VAE's two terms with respect to its input, shared by the scores of a batch.

The encoder and the decoder run forward once, at z = E q(z|x) as in the released code of Zimmerer et al.
(2019), and backward once for each term. Derivatives are of sums over the batch, so that each sample's is its
own: of a mean, as in the released code, every one is divided by the size of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from mednovelty.batch import Batch, antithetic_noise, sample_shape
from mednovelty.capabilities import PROBABILISTIC, check_model
from mednovelty.errors import SettingsError
from mednovelty.nn.smoothing import RELEASED, Blur
from mednovelty.protocols import ProbabilisticAutoencoder
from mednovelty.reference import sigma_of
from mednovelty.seeds import generator
from mednovelty.types import Samples, VoxelScores


class InputGradients:
    """What the terms of the negative ELBO at z = E q(z|x) gain as each value of x grows.

    A batch keeps what was computed, not this: with a way back from the graph to the batch, both would stay in
    memory until Python looks for circles.

    Args:
        model: Trained, in evaluation mode.
        batch: Its posterior and likelihood are set to what is computed here, where it has none yet.
    """

    def __init__(self, model: ProbabilisticAutoencoder, batch: Batch) -> None:
        self._model, self._batch = model, batch

    @property
    def kl(self) -> Samples:
        """``(B, D)``: d KL(q(z|x) || p(z)) / dx, in nats per unit of x."""
        return self._batch.once(("kl gradient", self._model), self._kl)

    @property
    def rec(self) -> Samples:
        """``(B, D)``: d -log p(x | E q(z|x)) / dx, x both what is encoded and what is reconstructed."""
        return self._batch.once(("rec gradient", self._model), self._rec)

    def _kl(self) -> Tensor:
        x, posterior = self._encoded()
        with torch.enable_grad():
            divergence = kl_divergence(posterior, self._model.prior).sum()
        return _derivative(divergence, x)

    def _rec(self) -> Tensor:
        x, posterior = self._encoded()
        with torch.enable_grad():
            likelihood = self._model.decode(posterior.mean)
            misfit = -likelihood.log_prob(x).sum()
        self._batch.once(("likelihood", self._model), lambda: _detached(likelihood))
        return _derivative(misfit, x)

    def _encoded(self) -> tuple[Tensor, Independent]:
        """Return the batch's x and its posterior with the graph that leads from the one to the other."""
        x, posterior = self._batch.once(
            ("encoded", self._model), lambda: _with_graph(self._model, self._batch.x)
        )
        self._batch.once(("posterior", self._model), lambda: _detached(posterior))
        return x, posterior


@dataclass(frozen=True, slots=True)
class NoisyCopies:
    """Over which copies of a sample SmoothGrad averages gradients.

    Attributes:
        count: How many copies. They come in pairs of opposite noise, so an even number is best.
        sigma: Of the noise, in units of the preprocessed x.
        seed: Of the noise. All samples get the same, so that a map depends neither on the batch nor on how
            the samples were divided into batches.
    """

    count: int = 8
    sigma: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 < self.sigma < float("inf"):
            raise SettingsError(
                f"noisy copies need count >= 1 and sigma > 0, got {self.count} and {self.sigma}"
            )

    def noise(self, width: int) -> Tensor:
        """Return ``(count, width)`` noise."""
        return self.sigma * antithetic_noise(self.count, width, generator(self.seed, "noisy copies"))


COPIES = NoisyCopies()
"""Where nothing else is asked for."""


def noisy_kl_gradient(model: ProbabilisticAutoencoder, x: Samples, noise: Tensor) -> Samples:
    """Return ``(B, D)`` d KL / dx averaged over noisy copies of the samples, ``(count, D)`` of noise."""
    total = torch.zeros_like(x)
    for draw in noise:
        with torch.enable_grad():
            copy = (x + draw).detach().requires_grad_()
            divergence = kl_divergence(model.encode(copy), model.prior).sum()
        total += torch.autograd.grad(divergence, copy)[0]
    return total / len(noise)


class MapScorer:
    """Scores each voxel of each sample by what a model makes of the sample.

    Args:
        model: Trained, in evaluation mode. Its ``shape``, ``(C, *space)``, is that of a sample; without one,
            a sample is a voxel of C channels.
    """

    level: ClassVar[Literal["voxel"]] = "voxel"
    needs: ClassVar[tuple[str, ...]] = ("model",)
    asks: ClassVar[tuple[str, ...]] = PROBABILISTIC
    options: ClassVar[tuple[str, ...]] = ()
    reference_parts: ClassVar[tuple[str, ...]] = ()
    group: ClassVar[str] = "localisation"
    differentiates: ClassVar[int] = 0
    """Through how many of encoder and decoder a graph goes that other scores of the batch can take over."""

    def __init__(self, model: Any) -> None:
        check_model(type(self).__name__, self.asks, model)
        self.model = model

    def summed(self, values: Samples) -> VoxelScores:
        """Return ``(B, *space)`` sums over the contrasts of ``(B, D)`` values."""
        return values.reshape(len(values), *sample_shape(self.model)).sum(1)

    def residual(self, batch: Batch) -> Samples:
        """Return ``(B, D)`` x - E p(x | E q(z|x)): above 0 where x is brighter than expected."""
        return batch.x - batch.likelihood(self.model).mean


class GradientScorer(MapScorer):
    """Scores each voxel by a derivative of what a model makes of the sample.

    Args:
        model: See ``MapScorer``.
        blur: Smooths the modulus of the derivative.
    """

    options: ClassVar[tuple[str, ...]] = ("blur",)
    differentiates = 1

    def __init__(self, model: ProbabilisticAutoencoder, blur: Blur = RELEASED) -> None:
        super().__init__(model)
        self.blur = blur

    def modulus(self, gradient: Samples) -> VoxelScores:
        """Return ``(B, *space)``: |gradient| summed over contrasts, smoothed."""
        return self.blur(self.summed(gradient.abs()))

    def kl_map(self, batch: Batch) -> VoxelScores:
        """Return KL-grad, ``(B, *space)``, once for all scores of a batch."""
        key = ("kl map", self.model, self.blur)
        return batch.once(key, lambda: self.modulus(InputGradients(self.model, batch).kl))


def _with_graph(model: ProbabilisticAutoencoder, x: Samples) -> tuple[Tensor, Independent]:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return leaf, model.encode(leaf)


def _derivative(term: Tensor, x: Tensor) -> Tensor:
    # The encoder's graph is kept for the other term; it goes with the batch.
    return torch.autograd.grad(term, x, retain_graph=True)[0]


def _detached(distribution: Independent) -> Independent:
    mean, sigma = distribution.mean.detach(), sigma_of(distribution).detach()
    return Independent(Normal(mean, sigma, validate_args=False), 1, validate_args=False)
