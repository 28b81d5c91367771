"""Has the VAE for images learned anything? Its held-out ELBO beside the mean image's likelihood.

A VAE whose posterior has collapsed decodes one image, at best the mean of the training images, and its
ELBO is then log N(x; mean image, c^2 I). So that is what it has to beat, with the same c. (Probabilistic
PCA, which the voxel-wise VAE is compared with, needs a covariance of D x D values here.)

Beside it stands the mean image with the one sigma that fits the training images best: what a user of a
likelihood would choose. A VAE with a fixed c that is too large for its residuals loses to that one even
where it has learned a lot; its residual says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from mednovelty.methods.image_vae import ACTIVE_NATS, ImageVAE, closed_forms, misfits
from mednovelty.voxel_cache import VoxelCache

_VALUES = 1 << 22
"""Values looked at at a time."""
_HELD_OUT_VALUES = 1 << 26
"""Values of held-out images that are taken at most."""
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Held-out log likelihoods in nats an image (higher is better), ``-D/2 log(2 pi)`` included.

    Args:
        elbo: Of the VAE, a lower bound of its log likelihood.
        elbo_error: Standard error of ``elbo`` over images; None for a single one.
        reconstruction: -E log p(x|z).
        kl: KL(q(z|x) || p(z)).
        gain: ``elbo`` less ``mean_image``.
        gain_error: Its standard error over images: both see the same images.
        mean_image: Of the mean training image with the VAE's c.
        mean_image_best_sigma: The same with the sigma that fits the training images best.
        c: Standard deviation of p(x|z), in units of x.
        residual_rms: Root mean square of x - g(mean of q(z|x)), in units of x.
        mean_image_rms: The same of x less the mean image.
        latents: Of the VAE, over all positions.
        active_latents: Mean KL over images above ``ACTIVE_NATS``.
        images: Number of held-out images.
        samples: Draws of z for each.
    """

    elbo: float
    elbo_error: float | None
    reconstruction: float
    kl: float
    gain: float
    gain_error: float | None
    mean_image: float
    mean_image_best_sigma: float
    c: float
    residual_rms: float
    mean_image_rms: float
    latents: int
    active_latents: int
    images: int
    samples: int

    @property
    def collapsed(self) -> bool:
        """Whether the VAE does no better than one image, or no latent carries anything."""
        return not self.gain > 0 or self.active_latents == 0

    @property
    def verdict(self) -> str:
        """Say in one sentence how the VAE compares."""
        active = f"{self.active_latents} of {self.latents} latents active"
        residual = f"residual {self.residual_rms:.3g}, the mean image's {self.mean_image_rms:.3g}"
        if self.collapsed:
            return (
                f"WARNING: the VAE does no better than the mean training image on held-out scans (ELBO "
                f"{self.elbo:.2f}, mean image {self.mean_image:.2f} nats per image, c={self.c:.3g}, "
                f"{active}; {residual}): its posterior has collapsed or it was trained too little, so do not "
                "rely on its scores. Train longer, lower c (or learn_c=true), or lower kl_weight."
            )
        return (
            f"the VAE beats the mean training image by {self.gain:.2f} nats per image on held-out scans, "
            f"c={self.c:.3g} in both (ELBO {self.elbo:.2f}, {active}; {residual})"
        )

    def as_json(self) -> dict[str, Any]:
        """Return all numbers and the verdict as JSON types."""
        return {**asdict(self), "collapsed": self.collapsed, "verdict": self.verdict}


@torch.no_grad()
def compare_with_mean_image(
    model: ImageVAE,
    train: VoxelCache,
    validation: VoxelCache,
    *,
    generator: Generator,
    samples: int = 2,
    images: int = 2000,
) -> Comparison:
    """Compare a trained VAE with the mean of its training images, on held-out ones.

    Args:
        model: Trained.
        train: The images it was trained on.
        validation: Images of other scans.
        generator: Chooses the images and draws z; on the CPU.
        samples: Draws of z an image.
        images: At most as many held-out images, evenly over scans.
    """
    choice, draws = torch.randint(2**62, (2,), generator=generator).tolist()
    mean, best_sigma = mean_image(train)
    count = max(1, min(images, _HELD_OUT_VALUES // model.channels))
    rows = validation.sample_rows(count, np.random.default_rng(choice))
    found = _HeldOut(model, torch.from_numpy(mean), samples, draws)
    for block in _blocks(validation.take(rows)):
        found.add(torch.from_numpy(block))
    return found.result(best_sigma)


def mean_image(train: VoxelCache) -> tuple[np.ndarray, float]:
    """Return the mean of all rows, ``(D,)`` float64, and the one sigma with which it fits them best."""
    total, squares = 0.0, 0.0
    for block in train.blocks(_rows(train.channels)):
        values = block.astype(np.float64)
        total, squares = total + values.sum(0), squares + (values**2).sum()
    mean = np.asarray(total / len(train))
    variance = float(squares / len(train) - (mean**2).sum()) / train.channels
    return mean, math.sqrt(max(variance, 1e-12 * max(float((mean**2).mean()), 1e-12)))


class _HeldOut:
    """Sums over held-out images, block by block."""

    def __init__(self, model: ImageVAE, mean: Tensor, samples: int, seed: int) -> None:
        device = model.log_c.device
        self.model, self.samples, self.mean = model, samples, mean.float().to(device)
        self.generator = Generator(device=device).manual_seed(seed)
        self.misfit: list[Tensor] = []
        self.kl: list[Tensor] = []
        self.mean_misfit: list[Tensor] = []
        self.residual = self.distance = 0.0
        self.latent_kl = torch.zeros(model.latents, dtype=torch.float64)

    def add(self, block: Tensor) -> None:
        """Look at ``(b, D)`` images."""
        model, x = self.model, block.to(self.mean)
        drawn = [closed_forms(model, x, self.generator) for _ in range(self.samples)]
        kl = drawn[0][1].double().cpu()
        self.misfit.append(torch.stack([misfit for misfit, _ in drawn]).double().mean(0).cpu())
        self.kl.append(kl.sum(1))
        self.latent_kl += kl.sum(0)
        self.mean_misfit.append(misfits(model, x, self.mean).double().cpu())
        residual = x - model.image(model.posterior(x)[0])
        self.residual += residual.square().sum(dtype=torch.float64).item()
        self.distance += (x - self.mean).square().sum(dtype=torch.float64).item()

    def result(self, best_sigma: float) -> Comparison:
        """Return what the images so far say; ``best_sigma`` of the mean image, from the training images."""
        misfit, kl, alone = (torch.cat(parts) for parts in (self.misfit, self.kl, self.mean_misfit))
        elbo, count, values = -misfit - kl, len(kl), self.model.channels
        per_image = self.distance / count
        best = -0.5 * per_image / best_sigma**2 - values * (math.log(best_sigma) + _HALF_LOG_2PI)
        return Comparison(
            elbo=elbo.mean().item(),
            elbo_error=_error(elbo),
            reconstruction=misfit.mean().item(),
            kl=kl.mean().item(),
            gain=(elbo + alone).mean().item(),
            gain_error=_error(elbo + alone),
            mean_image=-alone.mean().item(),
            mean_image_best_sigma=best,
            c=math.exp(self.model.log_sigma.item()),
            residual_rms=math.sqrt(self.residual / count / values),
            mean_image_rms=math.sqrt(per_image / values),
            latents=self.model.latents,
            active_latents=int((self.latent_kl / count > ACTIVE_NATS).sum()),
            images=count,
            samples=self.samples,
        )


def _rows(values: int) -> int:
    return max(1, _VALUES // values)


def _blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    step = _rows(x.shape[1])
    for start in range(0, len(x), step):
        yield x[start : start + step]


def _error(values: Tensor) -> float | None:
    return values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None


__all__ = ["Comparison", "compare_with_mean_image", "mean_image"]
