"""The divergence in hyperspherical coordinates: how far a batch of posteriors is from its priors.

Ascarate et al., "VAE with Hyperspherical Coordinates", 2026, sections 2.1 to 2.3; gains, weights and priors
as in the authors' released code. With d latents, m and s mean and standard deviation over the batch, and
``g(s, p) = (1 + s - p)^2 - ln (1 + s - p)^2 - 1``, which is 0 at s = p:

    w_k         = 50 sqrt(d) / sqrt(k + 1)                                              k = 0 .. d-2
    mu_angles   = sum_c sum_k w_k [g(s_k, p_k) + 0.05 (t_k - m_k)^2]     of cos phi_k(mu)       Eq. (2)
    mu_radius   = 50 g(s, 0) + 50 (m - sqrt(d - 0.5))^2                  of ||mu||              Eq. (3)
    sigma_angles  = sum_k w_k [g(s_k, 0) + 0.05 (1 / sqrt(d - k) - m_k)^2]   of cos phi_k(sigma)
    sigma_radius  = 50 (q - ln q - 1) + 50 (m - 0.001 sqrt(d - 0.5))^2   of ||sigma||, q = s^2 / 0.5
    divergence  = 1000 mu_angles + 300 mu_radius + 500000 sigma_angles + 500 sigma_radius       Eq. (4)

p_k is the cosine of the all-ones vector; t_k = 1 for compressed angles, the pole (Eq. 5), and 0 for free
ones, the equator. c runs over labelled classes, whose latents are first rolled by 10 c so that each has a
pole of its own; without labels there is one. Standard deviations are ``sqrt(unbiased variance + 1e-4)``,
whose derivative is finite where all samples agree.

These are statistics of a batch, not numbers of a sample: they train, and no score looks at them. Of a
class that has no sample in the batch nothing is added, of one with a single sample its mean without a spread;
the released code fails on both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mednovelty.methods.hyperspherical_settings import HypersphericalSettings
from mednovelty.nn.hyperspherical import cosines, diagonal_cosines, rolled
from mednovelty.papers import equation
from mednovelty.types import Latents

GAIN = 50.0
VARIANCE_FLOOR = 1e-4
SIGMA_RADIUS_VARIANCE = 0.5
LAST_EARLY_EPOCH = 100
"""Of the released weights of mean cosines, counted from 0."""


class Divergence(NamedTuple):
    """The four parts of the divergence, 0-dimensional, before their gains."""

    mu_angles: Tensor
    mu_radius: Tensor
    sigma_angles: Tensor
    sigma_radius: Tensor

    def total(self, settings: HypersphericalSettings) -> Tensor:
        """Return their sum with the settings' gains."""
        return (
            settings.mu_angle_gain * self.mu_angles
            + settings.mu_radius_gain * self.mu_radius
            + settings.sigma_angle_gain * self.sigma_angles
            + settings.sigma_radius_gain * self.sigma_radius
        )


class Moments(NamedTuple):
    """Mean and standard deviation of each column, class by class."""

    mean: Tensor
    """``(G, K)``"""
    std: Tensor
    """``(G, K)``"""
    size: Tensor
    """``(G, 1)``: how many samples the class has."""


@equation("hyperspherical2026", "Eq. (4)")
def divergence(
    mean: Latents,
    sigma: Tensor,
    settings: HypersphericalSettings,
    *,
    epoch: int = 1,
    labels: Tensor | None = None,
) -> Divergence:
    """Return the parts of the divergence of a batch of posteriors.

    Args:
        mean: ``(B, d)`` means.
        sigma: ``(B, d)`` standard deviations.
        settings: Priors and weights.
        epoch: Counted from 1; the released weights change with it.
        labels: ``(B,)`` int64 classes, from 0; None: the samples have none.
    """
    d = mean.shape[1]
    return Divergence(
        mu_angles(mean, settings, epoch=epoch, labels=labels),
        radial(mean.norm(dim=1), shell(d)),
        sigma_angles(sigma, settings),
        sigma_radial(sigma.norm(dim=1), settings.sigma_scale * shell(d)),
    )


@equation("hyperspherical2026", "Eq. (2)")
def mu_angles(
    mean: Latents, settings: HypersphericalSettings, *, epoch: int = 1, labels: Tensor | None = None
) -> Tensor:
    """Return how far the angles of ``(B, d)`` means are from their prior; arguments as of ``divergence``."""
    d, device = mean.shape[1], mean.device
    labels = labels if settings.classes else None
    if labels is not None:
        mean = rolled(mean, settings.class_spacing * labels)
    found = moments(cosines(mean, settings.epsilon), labels, max(settings.classes, 1))
    weights = angle_weights(d, device)
    # The released code keeps the uncompressed sphere's spread as the prior of compressed angles too.
    spread = weights * spread_misfit(found.std, diagonal_cosines(d, settings.epsilon, device=device))
    place = (prior_cosines(d, settings, device) - found.mean).square()
    place = weights * mean_weights(d, settings, epoch, device) * place
    # A class that is not in the batch has nothing to say, and one sample has no spread.
    parts = torch.where(found.size > 1, spread, 0.0) + settings.mean_gain * torch.where(
        found.size > 0, place, 0.0
    )
    return parts.sum()


@equation("hyperspherical2026", "Eq. (3)")
def radial(radius: Tensor, target: float) -> Tensor:
    """Return how far ``(B,)`` lengths are from one and the same ``target``."""
    found = moments(radius[:, None])
    spread = torch.where(found.size > 1, spread_misfit(found.std, torch.zeros_like(found.std)), 0.0)
    return GAIN * (spread + (found.mean - target).square()).sum()


def sigma_angles(sigma: Tensor, settings: HypersphericalSettings) -> Tensor:
    """Return how far ``(B, d)`` vectors of sigmas are from the diagonal, all of one direction."""
    d = sigma.shape[1]
    found = moments(cosines(sigma, settings.sigma_epsilon))
    spread = torch.where(found.size > 1, spread_misfit(found.std, torch.zeros_like(found.std)), 0.0)
    place = (diagonal_cosines(d, device=sigma.device) - found.mean).square()
    return (angle_weights(d, sigma.device) * (spread + settings.mean_gain * place)).sum()


def sigma_radial(radius: Tensor, target: float) -> Tensor:
    """Return how far ``(B,)`` lengths of vectors of sigmas are from a target, with a misfit of their own."""
    found = moments(radius[:, None])
    ratio = found.std.square() / SIGMA_RADIUS_VARIANCE
    spread = torch.where(found.size > 1, ratio - ratio.log() - 1, 0.0)
    return GAIN * (spread + (found.mean - target).square()).sum()


@equation("hyperspherical2026", "Eq. (1)")
def cartesian(mean: Latents, sigma: Tensor) -> Tensor:
    """Return KL(q(z|x) || N(0, I)), averaged over ``(B, d)`` posteriors, in nats."""
    return (0.5 * (sigma.square() + mean.square() - 1.0) - sigma.log()).sum(1).mean()


def spread_misfit(std: Tensor, prior: Tensor) -> Tensor:
    """Return ``g(s, p) = (1 + s - p)^2 - ln (1 + s - p)^2 - 1``: 0 at s = p, else positive.

    Examples:
        >>> [round(g, 4) for g in spread_misfit(torch.tensor([0.25, 1.25]), torch.tensor(0.25)).tolist()]
        [0.0, 1.6137]
    """
    more = std - prior
    # Not as it is printed: near s = p that is the difference of two numbers near 1.
    return more * (2 + more) - 2 * more.log1p()


def moments(values: Tensor, labels: Tensor | None = None, groups: int = 1) -> Moments:
    """Return mean and standard deviation of each column of ``(B, K)`` values, class by class.

    Args:
        values: Of samples.
        labels: ``(B,)`` int64 classes; None: all are of one.
        groups: How many classes there are.
    """
    if labels is None:
        member = values.new_ones(1, len(values))
    else:
        member = (labels == torch.arange(groups, device=labels.device)[:, None]).to(values.dtype)
    count = member.sum(1, keepdim=True)
    mean = member @ values / count.clamp(min=1)
    # From the class's own mean: a difference of squares would lose the spread of what is compressed.
    squares = (values - (member.T @ mean)).square()
    variance = member @ squares / (count - 1).clamp(min=1)
    return Moments(mean, (variance + VARIANCE_FLOOR).sqrt(), count)


@equation("hyperspherical2026", "Eq. (5)")
def prior_cosines(
    dimensions: int, settings: HypersphericalSettings, device: torch.device | str | None = None
) -> Tensor:
    """Return the cosines to which those of the means are drawn, ``(d - 1,)``: 1 is the pole."""
    drawn = diagonal_cosines(dimensions, device=device)
    if settings.free_angles == "equator":
        drawn = torch.zeros_like(drawn)
    drawn[: settings.compressed] = 1.0  # None: all of them.
    return drawn


def shell(dimensions: int) -> float:
    """Return ``sqrt(d - 0.5)``, near which the lengths of standard normal vectors are."""
    return math.sqrt(dimensions - 0.5)


def angle_weights(dimensions: int, device: torch.device | str | None = None) -> Tensor:
    """Return ``w_k = 50 sqrt(d) / sqrt(k + 1)``, ``(d - 1,)``."""
    return GAIN * math.sqrt(dimensions) * torch.arange(1, dimensions, device=device).rsqrt()


def mean_weights(
    dimensions: int,
    settings: HypersphericalSettings,
    epoch: int,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return how much the mean of each cosine counts besides ``w_k``, ``(d - 1,)``; epochs from 1."""
    weights = torch.ones(dimensions - 1, device=device)
    if settings.first_angle_emphasis:
        late = epoch - 1 > LAST_EARLY_EPOCH
        weights[1:] = math.sqrt(epoch - 2 - LAST_EARLY_EPOCH) + 1 if late else 1.0
        weights[-1] = 0.0
        weights[0] = 150.0 if late else 100.0
    return weights


def annealed(settings: HypersphericalSettings, epoch: int) -> float:
    """Return what the weight of the divergence is multiplied by in an epoch, counted from 1."""
    passed, rise = epoch - 1, settings.anneal_epochs
    if settings.annealing == "restarts":
        # The released code: the root up to 100, 1 from 101 to 300, the root since 301 up to 500, ...
        if passed > rise:
            stretch, since = divmod(passed - rise - 1, 2 * rise)
            passed = since if stretch % 2 else 0
        return math.sqrt(passed) + 1
    return math.sqrt(min(passed, rise)) + 1


__all__ = [
    "Divergence",
    "Moments",
    "angle_weights",
    "annealed",
    "cartesian",
    "divergence",
    "mean_weights",
    "moments",
    "mu_angles",
    "prior_cosines",
    "radial",
    "shell",
    "sigma_angles",
    "sigma_radial",
    "spread_misfit",
]
