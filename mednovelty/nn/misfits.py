"""How far samples are from what a decoder generates at given latents, with derivatives by the latents.

With mean M(z) and standard deviation S(z) of p(x|z), r = M - x and u = r / S:

    SquaredError           f = ||r||^2           grad f = 2 J_M' r
                                                 curvature 2 J_M' J_M                  (Gauss-Newton)
    NegativeLogLikelihood  f = -log p(x|z)       grad f = J_M' (u / S) + J_L' (1 - u^2)
                                                 curvature J_M' S^-2 J_M + 2 J_L' J_L  (Fisher)

J_M and J_L are the derivatives of M and of log S. The Fisher matrix is the mean, over x ~ p(x|z), of the
outer product of the gradient: 1 / S^2 for a mean, 2 for a log S, nothing between them.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from mednovelty.errors import SettingsError
from mednovelty.protocols import Linearised, ProbabilisticAutoencoder, SmoothedDecoder
from mednovelty.types import Latents, Samples

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Local(Protocol):
    """A misfit near some latents, its kinks rounded off."""

    value: Tensor
    """``(B,)``."""
    gradient: Tensor
    """``(B, Z)``, the derivative of the value."""

    def curvature(self) -> Tensor:
        """Return ``(B, Z, Z)``, positive semidefinite: the second derivative or something near it."""


class Misfit(Protocol):
    """A function of samples and latents, to be minimised over the latents."""

    def value(self, z: Latents, x: Samples) -> Tensor:
        """Return ``(B,)``: each sample's misfit at its own latents, exactly."""

    def near(self, z: Latents, x: Samples, smoothing: float) -> Local:
        """Return value and derivatives of the misfit with kinks rounded off over ``smoothing``."""


class SquaredError:
    """``||x - E p(x|z)||^2``, in squared units of x.

    Args:
        model: Any autoencoder.
    """

    def __init__(self, model: ProbabilisticAutoencoder) -> None:
        self.model = model

    def value(self, z: Latents, x: Samples) -> Tensor:
        """Return ``(B,)``."""
        return (x - self.model.decode(z).mean).square().sum(1)

    def near(self, z: Latents, x: Samples, smoothing: float) -> Local:
        """Return value and derivatives; the curvature is that of Gauss and Newton."""
        return _LocalSquaredError(linearise(self.model, z, smoothing), x)


class NegativeLogLikelihood:
    """``-log p(x|z)`` of a Gaussian with independent channels, in nats.

    Args:
        model: An autoencoder whose p(x|z) is such a Gaussian.
    """

    def __init__(self, model: ProbabilisticAutoencoder) -> None:
        self.model = model

    def value(self, z: Latents, x: Samples) -> Tensor:
        """Return ``(B,)``."""
        return -self.model.decode(z).log_prob(x)

    def near(self, z: Latents, x: Samples, smoothing: float) -> Local:
        """Return value and derivatives; the curvature is Fisher's.

        Raises:
            SettingsError: p(x|z) is no Gaussian.
        """
        return _LocalLikelihood(linearise(self.model, z, smoothing), x)


class _LocalSquaredError:
    def __init__(self, at: Linearised, x: Samples) -> None:
        self._at = at
        residual = at.mean - x
        self.value = residual.square().sum(1)
        self.gradient = at.pull(2 * residual)

    def curvature(self) -> Tensor:
        slope, _ = self._at.slopes(mean_only=True)
        return 2 * slope @ slope.transpose(1, 2)


class _LocalLikelihood:
    def __init__(self, at: Linearised, x: Samples) -> None:
        self._at = at
        log_sigma = at.log_sigma
        self._precision = (-log_sigma).exp()
        u = (at.mean - x) * self._precision
        self.value = (0.5 * u.square() + log_sigma).sum(1) + x.shape[1] * _HALF_LOG_2PI
        self.gradient = at.pull(u * self._precision, 1 - u.square())

    def curvature(self) -> Tensor:
        mean, log_sigma = self._at.slopes()
        assert log_sigma is not None
        slope = torch.cat([mean * self._precision[:, None], 2**0.5 * log_sigma], dim=2)
        return slope @ slope.transpose(1, 2)


def linearise(model: ProbabilisticAutoencoder, z: Latents, smoothing: float) -> Linearised:
    """Return p(x|z) of any autoencoder with its derivatives by z.

    A ``SmoothedDecoder`` gives them itself; the ``decode`` of any other is differentiated automatically and
    exactly, so that ``smoothing`` has no effect.
    """
    if isinstance(model, SmoothedDecoder):
        return model.decode_smoothed(z, smoothing)
    return _Automatic(model, z)


class _Automatic:
    """p(x|z) with derivatives by automatic differentiation, one backward pass for each channel's slopes."""

    def __init__(self, model: ProbabilisticAutoencoder, z: Latents) -> None:
        self._z = z.detach().requires_grad_()
        with torch.enable_grad():
            self._likelihood = model.decode(self._z)

    @property
    def mean(self) -> Tensor:
        return self._likelihood.mean.detach()

    @property
    def log_sigma(self) -> Tensor:
        return _log_sigma(self._likelihood).detach()

    @torch.enable_grad()
    def pull(self, by_mean: Tensor, by_log_sigma: Tensor | None = None) -> Tensor:
        total = (self._likelihood.mean * by_mean).sum()
        if by_log_sigma is not None:
            total = total + (_log_sigma(self._likelihood) * by_log_sigma).sum()
        return self._by_latents(total)

    @torch.enable_grad()
    def slopes(self, *, mean_only: bool = False) -> tuple[Tensor, Tensor | None]:
        mean = self._slopes_of(self._likelihood.mean)
        return mean, None if mean_only else self._slopes_of(_log_sigma(self._likelihood))

    def _slopes_of(self, values: Tensor) -> Tensor:
        return torch.stack([self._by_latents(total) for total in values.sum(0)], dim=2)

    def _by_latents(self, total: Tensor) -> Tensor:
        if not total.requires_grad:
            return torch.zeros_like(self._z)
        (gradient,) = torch.autograd.grad(total, self._z, retain_graph=True, allow_unused=True)
        return torch.zeros_like(self._z) if gradient is None else gradient


def _log_sigma(likelihood: Distribution) -> Tensor:
    base = getattr(likelihood, "base_dist", likelihood)
    if not isinstance(base, Normal):
        raise SettingsError(
            "the likelihood of what is generated is maximised for a Gaussian p(x|z), not for "
            f"{type(base).__name__}; give the decoder a Normal, or leave this score out"
        )
    return likelihood.stddev.log()


__all__ = ["Local", "Misfit", "NegativeLogLikelihood", "SquaredError", "linearise"]
