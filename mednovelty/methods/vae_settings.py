"""Settings of the voxel-wise VAE, and the paper's three nets (Vasilev et al. 2018, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mednovelty.errors import SettingsError

NETS: Mapping[int, tuple[int, ...]] = {8: (64, 32, 16), 16: (128, 64, 32), 24: (128, 64, 48)}
"""The paper's three nets: latent size to the encoder's hidden widths; the decoder mirrors them."""

MOST_LAYERS, MOST_UNITS = 64, 1 << 16
"""No voxel needs more; a settings file that asks for more must not get the memory."""

WIDEST_LOG_SIGMA = 40.0
"""Beyond this sigma squared leaves the range of float32."""


@dataclass(frozen=True, slots=True)
class VAESettings:
    """Architecture, loss and start of the VAE.

    Args:
        hidden: Widths of the encoder's hidden layers; the decoder mirrors them.
        latent: Number of latent dimensions, Z.
        kl_weight: Weight of the KL term in the training loss; 1 is the ELBO.
        kl_warmup_epochs: The weight rises linearly from 0 over this many epochs; 0: none.
        log_sigma_floor: Smallest log sigma of p(x|z) and q(z|x), in standardised units; at least -40.
        log_sigma_ceiling: Largest, at most 40. It is out of reach of what is trained on; it keeps the scores
            of voxels that are far from anything seen finite.
        start: ``pca``, the exact linear optimum; ``random``, the usual small weights.
    """

    hidden: tuple[int, ...] = NETS[16]
    latent: int = 16
    kl_weight: float = 1.0
    kl_warmup_epochs: int = 0
    log_sigma_floor: float = -10.0
    log_sigma_ceiling: float = 10.0
    start: Literal["pca", "random"] = "pca"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if not self.hidden or min(*self.hidden, self.latent) < 1:
            raise SettingsError(
                f"a VAE needs layers of at least 1 unit, not hidden={self.hidden}, latent={self.latent}"
            )
        layers, widest = len(self.hidden), max(*self.hidden, self.latent)
        if layers > MOST_LAYERS or widest > MOST_UNITS:
            raise SettingsError(
                f"a VAE has at most {MOST_LAYERS} hidden layers of at most {MOST_UNITS} units, not {layers} "
                f"layers and {widest} units"
            )
        if not 0 <= self.kl_weight < math.inf or self.kl_warmup_epochs < 0:
            raise SettingsError(
                f"kl_weight={self.kl_weight}, kl_warmup_epochs={self.kl_warmup_epochs}: must be finite "
                "and not negative"
            )
        if not -WIDEST_LOG_SIGMA <= self.log_sigma_floor < self.log_sigma_ceiling <= WIDEST_LOG_SIGMA:
            raise SettingsError(
                f"log_sigma_floor={self.log_sigma_floor}, log_sigma_ceiling={self.log_sigma_ceiling}: the "
                f"first must be the smaller, both within {-WIDEST_LOG_SIGMA:g} and {WIDEST_LOG_SIGMA:g}"
            )
        if self.start not in ("pca", "random"):
            raise SettingsError(f"start={self.start!r} is neither 'pca' nor 'random'")

    def kl_weight_in(self, epoch: int) -> float:
        """Return the weight of the KL term in an epoch, counted from 1."""
        if not self.kl_warmup_epochs:
            return self.kl_weight
        return self.kl_weight * min(1.0, epoch / self.kl_warmup_epochs)


__all__ = ["NETS", "VAESettings"]
