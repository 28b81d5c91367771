"""Has a VAE on a sphere learned anything? Held-out samples against their mean, and where they lie.

Its divergence is of batches and bounds no likelihood, so the reconstruction is what can be compared: a
decoder that ignores its latents gives one sample, at best the mean of the training samples, and its error is
that one's. The place of the latent means tells whether compression succeeded.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator

from mednovelty.methods.hyperspherical_loss import shell
from mednovelty.methods.hyperspherical_vae import HypersphericalVAE
from mednovelty.nn.hyperspherical import cosines
from mednovelty.voxel_cache import VoxelCache

_VALUES = 1 << 22
_HELD_OUT_VALUES = 1 << 26
SMALLEST_SPREAD = 1e-4
"""Of latent means, over their length: below this, neighbours are rounding errors."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """Held-out samples as the model sees them.

    Attributes:
        residual_rms: Root mean square of x less its reconstruction from mu(x), in units of x, or of its
            values' spreads where the network standardises.
        mean_sample_rms: The same of x less the mean training sample.
        radius: Mean length of the latent means.
        target_radius: To which it is drawn, ``sqrt(d - 0.5)``.
        first_cosine: Mean cosine between latent means and the first axis: 1 is the pole.
        latent_spread: Root mean square distance of latent means from their mean, over ``radius``.
        latents: Z.
        samples: Number of held-out samples.
    """

    residual_rms: float
    mean_sample_rms: float
    radius: float
    target_radius: float
    first_cosine: float
    latent_spread: float
    latents: int
    samples: int

    @property
    def collapsed(self) -> bool:
        """Whether the model does no better than one sample, or all latent means are one."""
        return not self.residual_rms < self.mean_sample_rms or not self.latent_spread > SMALLEST_SPREAD

    @property
    def verdict(self) -> str:
        """Say in one sentence what the model has learned."""
        place = (
            f"latent means at radius {self.radius:.3g} (prior {self.target_radius:.3g}), mean cosine to the "
            f"first axis {self.first_cosine:.3g}, relative spread {self.latent_spread:.3g}"
        )
        residual = f"residual {self.residual_rms:.3g}, the mean sample's {self.mean_sample_rms:.3g}"
        if self.collapsed:
            return (
                f"WARNING: the hyperspherical VAE does no better than the mean training sample on held-out "
                f"scans ({residual}; {place}): it has collapsed or was trained too little, so do not rely on "
                "its scores. Train longer, or lower beta."
            )
        share = 100 * self.residual_rms / self.mean_sample_rms
        return (
            f"the hyperspherical VAE leaves {share:.0f} % of the mean training sample's error on held-out "
            f"scans ({residual}; {place})"
        )

    def as_json(self) -> dict[str, Any]:
        """Return all numbers and the verdict as JSON types."""
        return {**asdict(self), "collapsed": self.collapsed, "verdict": self.verdict}


@torch.no_grad()
def assess(
    model: HypersphericalVAE,
    train: VoxelCache,
    validation: VoxelCache,
    *,
    generator: Generator,
    samples: int = 2000,
) -> Assessment:
    """Compare a trained model with the mean of its training samples, on held-out ones.

    Args:
        model: Trained.
        train: The samples it was trained on.
        validation: Samples of other scans.
        generator: Chooses the samples; on the CPU.
        samples: At most as many, evenly over scans.
    """
    choice = int(torch.randint(2**62, (1,), generator=generator))
    count = max(1, min(samples, _HELD_OUT_VALUES // model.channels))
    rows = validation.take(validation.sample_rows(count, np.random.default_rng(choice)))
    middle = torch.from_numpy(_mean_row(train)).to(model.shift)[: model.channels]
    error = from_mean = 0.0
    found = []
    for block in np.array_split(rows, max(1, math.ceil(rows.size / _VALUES))):
        x, _ = model.split(torch.from_numpy(block).to(model.shift))
        mean = model.encode(x).mean
        found.append(mean.double().cpu())
        error += model.errors(x, model.decode(mean).mean).sum(dtype=torch.float64).item()
        from_mean += model.errors(x, middle).sum(dtype=torch.float64).item()
    latent = torch.cat(found)
    radius = latent.norm(dim=1).mean().item()
    spread = (latent - latent.mean(0)).square().sum(1).mean().sqrt().item()
    values = len(rows) * model.channels
    return Assessment(
        residual_rms=math.sqrt(error / values),
        mean_sample_rms=math.sqrt(from_mean / values),
        radius=radius,
        target_radius=shell(model.latent),
        first_cosine=cosines(latent)[:, 0].mean().item(),
        latent_spread=spread / max(radius, 1e-30),
        latents=model.latent,
        samples=len(rows),
    )


def _mean_row(train: VoxelCache) -> np.ndarray:
    total = np.zeros(train.channels)
    for block in train.blocks():
        total += block.sum(0, dtype=np.float64)
    return total / len(train)


__all__ = ["Assessment", "assess"]
