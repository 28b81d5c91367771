"""Is the VAE worth its training? Its held-out ELBO beside the exact likelihood of probabilistic PCA.

The ELBO is a lower bound of log p(x), so a VAE that beats the exact likelihood of a linear model
with as many components describes healthy voxels better. One that loses has collapsed, or was
trained too little, and says so in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from mednovelty.methods.ppca import ProbabilisticPCA
from mednovelty.methods.vae import ACTIVE_NATS, VAE, elbo_terms
from mednovelty.voxel_cache import Moments, VoxelCache

ACTIVE_VARIANCE = 0.01
"""Burda et al. (2016): a latent is active when its posterior mean varies by more than this over voxels."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Held-out log likelihoods in nats a voxel (higher is better), ``-C/2 log(2 pi)`` included.

    Args:
        elbo: Of the VAE, a lower bound of its log likelihood.
        elbo_error: Standard error of ``elbo`` over voxels.
        gain: ``elbo`` less the better PCA.
        gain_error: Its standard error over voxels: both see the same voxels, so it is the smaller.
        pca: Exact log likelihood of probabilistic PCA, of the better of the two below.
        pca_space: ``as given`` or ``standardised``: which of the two it was.
        pca_as_given: Fitted to the voxels as they are.
        pca_standardised: Fitted to channels divided by their spread.
        components: Of the PCA: as many as latents, at most C - 1. A single channel has none: what is left
            of the PCA is a Gaussian.
        latents: Of the VAE.
        active_latents: Mean KL over voxels above ``ACTIVE_NATS``.
        active_by_variance: Variance of the posterior mean above ``ACTIVE_VARIANCE``.
        log_two_pi: ``C/2 log(2 pi)``; added to a log likelihood it gives the figure without that constant.
        voxels: Number of held-out voxels.
        samples: Draws of z for each.
    """

    elbo: float
    elbo_error: float
    gain: float
    gain_error: float
    pca: float
    pca_space: str
    pca_as_given: float
    pca_standardised: float
    components: int
    latents: int
    active_latents: int
    active_by_variance: int
    log_two_pi: float
    voxels: int
    samples: int

    @property
    def collapsed(self) -> bool:
        """Whether the VAE loses to probabilistic PCA."""
        return not self.gain > 0

    @property
    def rival(self) -> str:
        """Name what the VAE is compared with."""
        if not self.components:
            return f"a Gaussian ({self.pca:.2f}; one channel has no principal components)"
        return f"probabilistic PCA with {self.components} components ({self.pca:.2f}, {self.pca_space})"

    @property
    def verdict(self) -> str:
        """Say in one sentence how the VAE compares."""
        active = f"{self.active_latents} of {self.latents} latents active"
        if self.collapsed:
            return (
                f"WARNING: the VAE loses to {self.rival} by {-self.gain:.2f} nats per voxel on held-out "
                f"scans (ELBO {self.elbo:.2f}, {active}): it has collapsed or was trained too little; its "
                "scores are no better than a linear model's. Train longer, or with start='pca'."
            )
        return (
            f"the VAE beats {self.rival} by {self.gain:.2f} nats per voxel on held-out scans "
            f"(ELBO {self.elbo:.2f}, {active})"
        )

    def as_json(self) -> dict[str, Any]:
        """Return all numbers and the verdict as JSON types."""
        return {**asdict(self), "collapsed": self.collapsed, "verdict": self.verdict}


@torch.no_grad()
def compare_with_ppca(
    model: VAE,
    train: VoxelCache,
    validation: VoxelCache,
    *,
    generator: Generator,
    samples: int = 4,
    voxels: int = 100_000,
) -> Comparison:
    """Compare a trained VAE with probabilistic PCA of as many components on held-out voxels.

    PCA is not indifferent to the channels' units, so it is fitted twice, to the voxels as given and
    to standardised ones; the better on the held-out voxels is the one to beat. That choice favours
    PCA. A single channel has no principal components: there the exact likelihood is a Gaussian's.

    Args:
        model: Trained.
        train: The voxels it was trained on; PCA is fitted to all of them.
        validation: Voxels of other scans.
        generator: Chooses the voxels and draws z; on the CPU.
        samples: Draws of z a voxel.
        voxels: At most as many held-out voxels, evenly over scans.
    """
    moments = train.moments()
    choice, draws = torch.randint(2**62, (2,), generator=generator).tolist()
    x = validation.take(validation.sample_rows(voxels, np.random.default_rng(choice)))
    components = min(model.latent, len(moments.mean) - 1)
    elbo, kl, spread = _held_out(model, x, samples, draws)
    return Comparison(
        **_likelihoods(elbo, moments, components, x),
        components=components,
        latents=model.latent,
        active_latents=int((kl > ACTIVE_NATS).sum()),
        active_by_variance=int((spread > ACTIVE_VARIANCE).sum()),
        log_two_pi=float(0.5 * len(moments.mean) * np.log(2 * np.pi)),
        voxels=len(x),
        samples=samples,
    )


def _likelihoods(elbo: np.ndarray, moments: Moments, components: int, x: np.ndarray) -> dict[str, Any]:
    """Return the fields of a ``Comparison`` that are means over the voxels, and their errors."""
    pcas = {
        name: np.concatenate([_log_likelihood(moments, components, block, units) for block in _blocks(x)])
        for name, units in (("as given", np.ones_like(moments.mean)), ("standardised", moments.spread))
    }
    space = max(pcas, key=lambda name: pcas[name].mean())
    gain = elbo - pcas[space]
    return {
        "elbo": float(elbo.mean()),
        "elbo_error": _error(elbo),
        "gain": float(gain.mean()),
        "gain_error": _error(gain),
        "pca": float(pcas[space].mean()),
        "pca_space": space,
        "pca_as_given": float(pcas["as given"].mean()),
        "pca_standardised": float(pcas["standardised"].mean()),
    }


def _log_likelihood(moments: Moments, components: int, x: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return the log density of x of a PCA fitted to channels divided by ``units``."""
    if not components:  # One channel.
        deviation = (x - moments.mean) / moments.spread
        return (-0.5 * (deviation**2 + np.log(2 * np.pi)) - np.log(moments.spread)).sum(1)
    pca = ProbabilisticPCA.fit(moments.mean / units, moments.covariance / units / units[:, None], components)
    return pca.log_likelihood(x / units) - np.log(units).sum()


def _held_out(model: VAE, x: np.ndarray, samples: int, seed: int) -> tuple[np.ndarray, Tensor, Tensor]:
    """Return the ELBO of each voxel, and KL and variance of the posterior mean of each latent."""
    device = model.shift.device
    generator = Generator(device=device).manual_seed(seed)
    elbos, kls, means = [], [], []
    for block in _blocks(x):
        batch = torch.from_numpy(block).to(device)
        elbos.append(elbo_terms(model, batch, generator, samples).elbo.double().cpu())
        posterior = model.encode(batch)
        mean, variance = posterior.mean.double(), posterior.variance.double()
        kls.append((0.5 * (variance + mean**2 - 1 - variance.log())).cpu())
        means.append(mean.cpu())
    return torch.cat(elbos).numpy(), torch.cat(kls).mean(0), torch.cat(means).var(0, correction=0)


def _blocks(x: np.ndarray, rows: int = 16384) -> Iterator[np.ndarray]:
    for start in range(0, len(x), rows):
        yield x[start : start + rows]


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")


__all__ = ["ACTIVE_VARIANCE", "Comparison", "compare_with_ppca"]
