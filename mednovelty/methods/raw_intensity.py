"""The trivial baselines: what the measured signal says without any model.

``raw_b0``          mean of the b=0 volumes
``raw_dwi``         mean of the diffusion-weighted volumes
``raw_attenuation`` mean log-attenuation

Every table of results shows them: a method that does not beat "bright is abnormal" has learnt nothing.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from mednovelty.batch import Batch
from mednovelty.types import Samples, SampleScores

SMALLEST_RATIO = 1e-3


class _RawScorer:
    level: ClassVar[Literal["sample"]] = "sample"
    needs: ClassVar[tuple[str, ...]] = ("is_b0",)
    reference_parts: ClassVar[tuple[str, ...]] = ()
    group: ClassVar[str] = "raw"

    def __init__(self, is_b0: Tensor) -> None:
        """Take ``(C,)`` bool: which channels are b=0."""
        self.is_b0 = is_b0

    def _signal(self, batch: Batch) -> Samples:
        if batch.signal is None:
            raise ValueError("a raw score needs the signal as measured; give the batch its signal")
        return batch.signal


class RawB0(_RawScorer):
    """Mean signal of the b=0 volumes, in the scan's own units."""

    unit = "signal"

    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` means."""
        return self._signal(batch)[:, self.is_b0].mean(1)


class RawDWI(_RawScorer):
    """Mean signal of the diffusion-weighted volumes, in the scan's own units."""

    unit = "signal"

    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` means."""
        return self._signal(batch)[:, ~self.is_b0].mean(1)


class RawAttenuation(_RawScorer):
    """Mean log-attenuation ``mean_c ln(S_0 / S_c)`` over the diffusion-weighted volumes.

    High where water moves freely. ``S_c / S_0`` is floored at 0.001, so that a voxel of noise stays finite;
    voxels without b=0 signal get 0.
    """

    unit = "nats"

    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` means."""
        signal = self._signal(batch)
        b0 = signal[:, self.is_b0].mean(1, keepdim=True)
        ratio = torch.where(b0 > 0, signal[:, ~self.is_b0] / b0, 1.0)
        return -ratio.clamp_min(SMALLEST_RATIO).log().mean(1)
