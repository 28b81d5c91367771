"""Samples on their way through a model: what several scorers need is computed once and shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Generator, Tensor
from torch.distributions import kl_divergence

from mednovelty.protocols import Autoencoder, ProbabilisticAutoencoder
from mednovelty.reference import Reference, Space, sigma_of
from mednovelty.types import Samples

T = TypeVar("T")

CPU_ROWS = 1 << 12
"""Samples that a CPU decodes at a time. Of 16,384, the hidden layers are memory that the system hands out
page by page and takes back at each draw: 1.3 times the time, and 2.5 times on a busy machine."""


class OverDraws(NamedTuple):
    """A quantity of each sample over its draws."""

    mean: Tensor
    """``(B,)``"""
    least: Tensor
    """``(B,)``: the smallest; never above the mean, for both see the same draws."""


class EncoderDraws(NamedTuple):
    """What the decoder makes of z_i ~ q(z|x), one pass a draw."""

    error: OverDraws
    """``||x - E p(x|z_i)||^2``"""
    misfit: OverDraws
    """``-log p(x|z_i)``, in nats"""
    sampled_error: OverDraws | None
    """``||x - x_i||^2``, x_i ~ p(x|z_i); None where no score has asked for decoder noise."""


class Batch:
    """Samples, and what scorers have worked out about them so far.

    Args:
        x: ``(B, C)`` preprocessed samples.
        noise: ``(L, Z)`` standard normal draws for stochastic scores. All samples share them, so that a
            score depends neither on the batch nor on its place in it.
        decoder_noise: ``(L, C)`` the same for scores that draw from p(x|z), or what makes it: called when a
            score asks, and not before.
        signal: ``(B, C)`` the same samples as measured, before any normalisation; None where unknown.
    """

    def __init__(
        self,
        x: Samples,
        *,
        noise: Tensor | None = None,
        decoder_noise: Tensor | Callable[[], Tensor] | None = None,
        signal: Samples | None = None,
    ) -> None:
        self.x = x
        self.noise = noise
        self._decoder_noise = decoder_noise
        self.signal = signal
        self._shared: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.x)

    def once(self, key: Any, compute: Callable[[], T]) -> T:
        """Return ``compute()``, called at most once a batch for each key; for plug-ins that share work."""
        if key not in self._shared:
            self._shared[key] = compute()
        return self._shared[key]

    @property
    def decoder_noise(self) -> Tensor | None:
        """``(L, C)`` draws, made now if they were not; from now on ``encoder_draws`` use them too."""
        if callable(self._decoder_noise):
            self._decoder_noise = self._decoder_noise()
        return self._decoder_noise

    def posterior(self, model: Autoencoder) -> Any:
        """Return q(z|x), batch ``(B,)``, event ``(Z,)``; of a deterministic model its point."""
        return self.once(("posterior", model), lambda: model.encode(self.x))

    def divergence(self, model: ProbabilisticAutoencoder) -> Tensor:
        """Return ``(B,)`` KL(q(z|x) || p(z)) in nats."""
        return self.once(("divergence", model), lambda: kl_divergence(self.posterior(model), model.prior))

    def likelihood(self, model: Autoencoder) -> Any:
        """Return p(x | E q(z|x)): the decoder at the latent mean, batch ``(B,)``, event ``(C,)``."""
        return self.once(("likelihood", model), lambda: model.decode(self.posterior(model).mean))

    def encoder_draws(self, model: ProbabilisticAutoencoder) -> EncoderDraws:
        """Return what the decoder makes of z_i ~ q(z|x): one pass a draw gives all that is asked of it.

        It draws from p(x|z_i) only if ``decoder_noise`` is there, or has been asked for; a score that needs
        such draws asks for it first.

        Raises:
            ValueError: The batch has no noise.
        """
        noise = None if callable(self._decoder_noise) else self._decoder_noise
        return self.once(
            ("encoder draws", model, noise is not None), lambda: self._encoder_draws(model, noise)
        )

    def decoder_draws(self, model: ProbabilisticAutoencoder) -> OverDraws:
        """Return ||x - x_i||^2 over x_i ~ p(x | E q(z|x)).

        Raises:
            ValueError: The batch has no decoder noise.
        """
        return self.once(("decoder draws", model), lambda: self._decoder_draws(model))

    def part(self, model: Autoencoder, name: str) -> Tensor:
        """Return what a model makes of the samples, under the name that a ``Reference`` has for it."""
        if name == "input":
            return self.x
        space, _, moment = name.rpartition("_")
        gaussian = self.posterior(model) if space == "latent" else self.likelihood(model)
        return gaussian.mean if moment == "mean" else sigma_of(gaussian)

    def nearest(self, model: Autoencoder, reference: Reference, points: str, part: str) -> Tensor:
        """Return ``(B,)`` squared distances from these samples' ``points`` to the nearest normal's ``part``.

        Both are named as a ``Reference`` names its parts.
        """
        return self.once(
            ("nearest", model, reference, points, part),
            lambda: reference.nearest(part, self.part(model, points))[0][:, 0],
        )

    def nearest_gaussian(self, model: ProbabilisticAutoencoder, reference: Reference, space: Space) -> Tensor:
        """Return ``(B,)`` Bhattacharyya distances to the nearest normal's Gaussian, in nats."""
        mean, sigma = self.part(model, f"{space}_mean"), self.part(model, f"{space}_sigma")
        return self.once(
            ("nearest gaussian", model, reference, space),
            lambda: reference.nearest_gaussian(space, mean, sigma),
        )

    def log_density(
        self, model: ProbabilisticAutoencoder, reference: Reference, points: str, space: Space
    ) -> Tensor:
        """Return ``(B,)`` log densities of the normals' Gaussians, at these samples' ``points``."""
        return self.once(
            ("log density", model, reference, points, space),
            lambda: reference.log_density(space, self.part(model, points)),
        )

    def _encoder_draws(self, model: ProbabilisticAutoencoder, decoder_noise: Tensor | None) -> EncoderDraws:
        noise = _given(self.noise, "noise")
        posterior = self.posterior(model)
        columns = (self.x, posterior.mean, sigma_of(posterior))
        rows = CPU_ROWS if self.x.device.type == "cpu" else max(len(self), 1)
        blocks = zip(*(column.split(rows) for column in columns), strict=True)
        found = [_tallied(model, block, noise, decoder_noise) for block in blocks]
        return EncoderDraws(
            _joined([draws.error for draws in found]),
            _joined([draws.misfit for draws in found]),
            None if decoder_noise is None else _joined([draws.sampled_error for draws in found]),
        )

    def _decoder_draws(self, model: ProbabilisticAutoencoder) -> OverDraws:
        noise = _given(self.decoder_noise, "decoder_noise")
        likelihood = self.likelihood(model)
        residual, sigma = self.x - likelihood.mean, sigma_of(likelihood)
        errors = _Tally()
        for draw in noise:
            errors.add(_sampled_error(residual, sigma, draw))
        return errors.result()


def _tallied(
    model: ProbabilisticAutoencoder,
    block: tuple[Tensor, Tensor, Tensor],
    noise: Tensor,
    decoder_noise: Tensor | None,
) -> EncoderDraws:
    """Return what the draws give for samples whose posteriors have the mean and sigma given beside them."""
    x, mean, sigma = block
    error, misfit, sampled = _Tally(), _Tally(), _Tally()
    for i, draw in enumerate(noise):
        likelihood = model.decode(mean + sigma * draw)
        residual = x - likelihood.mean
        error.add(residual.square().sum(1))
        misfit.add(-likelihood.log_prob(x))
        if decoder_noise is not None:
            sampled.add(_sampled_error(residual, sigma_of(likelihood), decoder_noise[i]))
    return EncoderDraws(error.result(), misfit.result(), sampled.result() if sampled.count else None)


def _joined(blocks: list[OverDraws] | list[OverDraws | None]) -> OverDraws:
    there = [block for block in blocks if block is not None]
    return OverDraws(torch.cat([draws.mean for draws in there]), torch.cat([draws.least for draws in there]))


class _Tally:
    """Mean and least over draws, without keeping them."""

    total: Tensor
    least: Tensor

    def __init__(self) -> None:
        self.count = 0

    def add(self, value: Tensor) -> None:
        # A copy: of float64, double() would be the value itself, and the sum would write into it.
        self.total = self.total.add_(value) if self.count else value.to(torch.float64, copy=True)
        self.least = torch.minimum(self.least, value) if self.count else value
        self.count += 1

    def result(self) -> OverDraws:
        # A mean of equal values may round to below them.
        mean = (self.total / self.count).to(self.least.dtype)
        return OverDraws(torch.maximum(mean, self.least), self.least)


def _sampled_error(residual: Tensor, sigma: Tensor, draw: Tensor) -> Tensor:
    """Return ``(B,)`` ||x - (mean + sigma draw)||^2, where residual is x - mean."""
    return torch.addcmul(residual, sigma, draw, value=-1).square_().sum(1)


def _given(noise: Tensor | None, name: str) -> Tensor:
    if noise is None:
        raise ValueError(f"a stochastic score needs draws; give the batch its {name}")
    return noise


def sample_shape(model: Autoencoder) -> tuple[int, ...]:
    """Return ``(C, *space)``: what a row of D values is a flattening of; ``(C,)`` for a model of voxels."""
    return tuple(getattr(model, "shape", (model.channels,)))


def antithetic_noise(draws: int, width: int, generator: Generator) -> Tensor:
    """Return ``(draws, width)`` draws, in pairs of opposite sign, with mean square 1 in every column.

    All samples of a run share them, so their error does not average out over voxels. Means are exact, and so
    is what a score does linearly or quadratically along a latent or channel; from ``2 * width`` draws on,
    columns are uncorrelated too, and every quadratic has the mean that it has over the normal distribution.

    Examples:
        >>> noise = antithetic_noise(8, 3, torch.Generator().manual_seed(0))
        >>> noise.sum(0).tolist(), (noise.T @ noise / 8).round(decimals=5).abs().tolist()
        ([0.0, 0.0, 0.0], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    """
    half = torch.randn((draws + 1) // 2, width, generator=generator)
    if len(half) < width:
        half = half / half.square().mean(0).sqrt()
    else:
        exact = half.double()
        factor = torch.linalg.cholesky(exact.T @ exact / len(half))
        half = torch.linalg.solve_triangular(factor, exact.T, upper=False).T.float()
    return torch.stack([half, -half], dim=1).flatten(0, 1)[:draws]
