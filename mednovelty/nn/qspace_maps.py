"""Five maps of a diffusion volume's signals, whatever its number of gradients, as a layer of a network.

== ================= ============================================================
0  b0                S_0, the mean of the signals at b = 0
1  weighted          S_w, the mean of the diffusion-weighted signals
2  log-attenuation   ln(S_0 / S_w)
3  spread            standard deviation of the diffusion-weighted signals over S_w
4  ratio             the mean over directions of S_g / S_0, which is S_w / S_0
== ================= ============================================================

A network on these has a few channels, not one for each gradient, and sees no direction: of directions that
are evenly spread, a turned head has nearly the same maps. Signals are taken as measured up to one factor a
scan, whose mean is 1: a mean signal below ``FAINTEST`` is none. Attenuation and ratio stay in what a noisy
voxel may show; beyond, their gradient is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from mednovelty.errors import SettingsError
from mednovelty.nn.planted_diffusion import B0_S_PER_MM2

if TYPE_CHECKING:
    from mednovelty.voxel_cache import Acquisition

FAINTEST = 1e-3
"""Of a mean signal, in means of the scan."""
RATIOS = 1e-3, 10.0
"""Between which a ratio of signals lies; above 1 is noise."""


class QspaceMaps(nn.Module):
    """From ``(B, C, *space)`` signals to ``(B, 5, *space)`` maps.

    Args:
        channels: C, volumes of a scan.

    Attributes:
        bvalues: ``(C,)`` in s/mm2; zeros before ``learn``.
        divisors: ``(C,)``, what signals were divided by; ones before ``learn``.
    """

    n_maps: ClassVar[int] = 5
    bvalues: Tensor
    divisors: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("bvalues", torch.zeros(channels))
        self.register_buffer("divisors", torch.ones(channels))

    @torch.no_grad()
    def learn(self, acquisition: Acquisition) -> None:
        """Take over how channels were measured.

        Raises:
            SettingsError: Another number of channels, or none at b = 0, or none with diffusion weighting.
        """
        bvalues = torch.tensor(acquisition.bvalues_s_per_mm2)
        if len(bvalues) != len(self.bvalues):
            raise SettingsError(
                f"an acquisition of {len(bvalues)} volumes, and samples have {len(self.bvalues)} channels"
            )
        at_b0 = int((bvalues <= B0_S_PER_MM2).sum())
        if at_b0 in (0, len(bvalues)):
            missing = "volume with diffusion weighting" if at_b0 else "b=0 volume"
            raise SettingsError(
                f"maps of the signal need a {missing}, and of {len(bvalues)} volumes, b-values from "
                f"{bvalues.min():g} to {bvalues.max():g} s/mm2, none is one",
                code="gradients.b0",
            )
        self.bvalues.copy_(bvalues)
        self.divisors.copy_(torch.tensor(acquisition.divisors))

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(B, 5, *space)`` maps, 0 in voxels whose channels are all 0.

        Args:
            images: ``(B, C, *space)``, each channel divided by its divisor; below 0 counts as 0.
        """
        weighted = (self.bvalues > B0_S_PER_MM2).to(images.dtype)
        signals = (images * _columns(self.divisors.to(images.dtype), images)).clamp_min(0)
        b0 = _mean(signals, 1 - weighted)
        mean = _mean(signals, weighted)
        visible = mean.clamp_min(FAINTEST)
        ratio = (visible / b0.clamp_min(FAINTEST)).clamp(*RATIOS)
        variance = _mean(((signals - mean[:, None]) / visible[:, None]).square(), weighted)
        # The root has no derivative at 0.
        varies = variance > 0
        spread = torch.where(varies, torch.where(varies, variance, 1.0).sqrt(), 0.0)
        maps = torch.stack([b0, mean, -ratio.log(), spread, ratio], 1)
        return torch.where((images != 0).any(1, keepdim=True), maps, 0.0)


def _columns(values: Tensor, images: Tensor) -> Tensor:
    """Return ``(C,)`` values as ``(C, 1, ...)``, to be multiplied with images."""
    return values.view(-1, *[1] * (images.dim() - 2))


def _mean(signals: Tensor, weights: Tensor) -> Tensor:
    """Return ``(B, *space)`` means over the channels that ``(C,)`` weights of 0 and 1 choose."""
    return (signals * _columns(weights, signals)).sum(1) / weights.sum().clamp_min(1)


__all__ = ["QspaceMaps"]
