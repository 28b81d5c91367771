"""Samples on their way through a model: what several scorers need is computed once and shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor
from torch.distributions import Independent, kl_divergence

from mednovelty.protocols import ProbabilisticAutoencoder
from mednovelty.reference import Reference
from mednovelty.types import Samples

T = TypeVar("T")


class Batch:
    """Samples, and what scorers have worked out about them so far.

    Args:
        x: ``(B, C)`` preprocessed samples.
        noise: ``(L, Z)`` standard normal draws for stochastic scores. All samples share them, so that a
            score depends neither on the batch nor on its place in it.
        signal: ``(B, C)`` the same samples as measured, before any normalisation; None where unknown.
    """

    def __init__(self, x: Samples, *, noise: Tensor | None = None, signal: Samples | None = None) -> None:
        self.x = x
        self.noise = noise
        self.signal = signal
        self._shared: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.x)

    def once(self, key: Any, compute: Callable[[], T]) -> T:
        """Return ``compute()``, called at most once a batch for each key; for plug-ins that share work."""
        if key not in self._shared:
            self._shared[key] = compute()
        return self._shared[key]

    def posterior(self, model: ProbabilisticAutoencoder) -> Independent:
        """Return q(z|x), batch ``(B,)``, event ``(Z,)``."""
        return self.once(("posterior", model), lambda: model.encode(self.x))

    def divergence(self, model: ProbabilisticAutoencoder) -> Tensor:
        """Return ``(B,)`` KL(q(z|x) || p(z)) in nats."""
        return self.once(("divergence", model), lambda: kl_divergence(self.posterior(model), model.prior))

    def likelihood(self, model: ProbabilisticAutoencoder) -> Independent:
        """Return p(x | E q(z|x)): the decoder at the latent mean, batch ``(B,)``, event ``(C,)``."""
        return self.once(("likelihood", model), lambda: model.decode(self.posterior(model).mean))

    def misfits(self, model: ProbabilisticAutoencoder) -> Tensor:
        """Return ``(L, B)`` -log p(x | z_i) for z_i ~ q(z|x), one row for each of the L draws."""
        return self.once(("misfits", model), lambda: self._misfits(model))

    def _misfits(self, model: ProbabilisticAutoencoder) -> Tensor:
        if self.noise is None:
            raise ValueError("a stochastic score needs draws; give the batch its noise")
        posterior = self.posterior(model)
        mean, sigma = posterior.mean, posterior.stddev
        return torch.stack([-model.decode(mean + sigma * draw).log_prob(self.x) for draw in self.noise])

    def nearest_input(self, reference: Reference) -> Tensor:
        """Return ``(B,)`` squared distance to the nearest normal sample."""
        return self.once(("input", reference), lambda: reference.nearest("input", self.x)[0][:, 0])

    def nearest_latent_mean(self, model: ProbabilisticAutoencoder, reference: Reference) -> Tensor:
        """Return ``(B,)`` squared distance between the latent mean and the nearest normal's."""
        return self.once(
            ("latent_mean", model, reference),
            lambda: reference.nearest("latent_mean", self.posterior(model).mean)[0][:, 0],
        )


def antithetic_noise(draws: int, latent: int, generator: Generator) -> Tensor:
    """Return ``(draws, Z)`` draws with mean 0 and mean square 1 in every latent, in pairs of opposite sign.

    All samples of a run share them, so their error does not average out over voxels; with these two moments
    exact, what a score does linearly or quadratically along a latent has no error at all.

    Examples:
        >>> noise = antithetic_noise(4, 3, torch.Generator().manual_seed(0))
        >>> noise.sum(0).tolist(), noise.square().mean(0).round(decimals=5).tolist()
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    """
    half = torch.randn((draws + 1) // 2, latent, generator=generator)
    half = half / half.square().mean(0).sqrt()
    return torch.stack([half, -half], dim=1).flatten(0, 1)[:draws]
