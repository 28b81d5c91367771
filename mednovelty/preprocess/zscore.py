"""Structural intensities, which have no unit, brought to one scale by each scan's own brain.

``ZScore``  each contrast to mean 0 and standard deviation 1 over the mask   needs no fitting
``RobustZScore`` the same by median and quartiles, which a lesion hardly moves  needs no fitting
``UnitRange``  each contrast to 0 to 1 by its own extremes over the mask  needs no fitting
``Clip``    each contrast to its own percentiles, or all to one range        needs no fitting

Zimmerer et al. 2019 (Sec. 4.2) standardise each scan over its brain; their released code then clips to
-1.5 to 1.5, which also takes the top off bright lesions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mednovelty.errors import ScanError, SettingsError
from mednovelty.scan import Scan

NORMAL_QUARTILES = 1.3489795003921634
"""How far apart the quartiles of a normal distribution of standard deviation 1 are."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Limits each contrast's signal.

    Args:
        percentiles: Lowest and highest that are kept, of each contrast over the mask; None: no such limits.
        limit: Signals are brought into ``-limit`` to ``limit`` after that; None: no such limit.

    Examples:
        >>> from mednovelty.testing.models import tiny_scan
        >>> float(Clip(None, limit=90)(tiny_scan()).voxels().max())
        90.0
    """

    percentiles: tuple[float, float] | None = (0.5, 99.5)
    limit: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "percentiles", _checked("clip", self.percentiles, self.limit))

    def __call__(self, scan: Scan) -> Scan:
        """Return the scan with its signal, float32, within the limits."""
        if self.percentiles is None and self.limit is None:
            return scan
        stored = np.empty(scan.stored.shape, np.float32)
        for channel, row in enumerate(stored):
            signal = _signal(scan, channel)
            if self.percentiles is not None:
                signal = np.clip(signal, *np.percentile(signal, self.percentiles))
            if self.limit is not None:
                signal = np.clip(signal, -self.limit, self.limit)
            row[:] = signal
        n = scan.n_channels
        return replace(scan, stored=stored, scale=np.ones(n), offset=np.zeros(n))

    def state(self) -> dict[str, Any]:
        """Return the settings."""
        return {"percentiles": _listed(self.percentiles), "limit": self.limit}


@dataclass(frozen=True, slots=True)
class ZScore:
    """Brings each contrast to mean 0 and standard deviation 1 over the mask.

    Without limits, only ``scale`` and ``offset`` of the scan change: no voxel is copied.

    Args:
        percentiles: Signals are clipped to these percentiles of the contrast before; None: they are not.
        limit: Standard scores are clipped to ``-limit`` to ``limit`` afterwards; None: they are not.
    """

    percentiles: tuple[float, float] | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "percentiles", _checked("zscore", self.percentiles, self.limit))

    def __call__(self, scan: Scan) -> Scan:
        """Return the scan in standard scores.

        Raises:
            ScanError: A contrast is constant, or not finite, over the mask.
        """
        scan = Clip(self.percentiles)(scan)
        moments = [_moments(scan, channel) for channel in range(scan.n_channels)]
        mean, std = np.array(moments).reshape(-1, 2).T
        scan = replace(scan, scale=scan.scale / std, offset=(scan.offset - mean) / std)
        return Clip(None, self.limit)(scan)

    def state(self) -> dict[str, Any]:
        """Return the settings."""
        return {"percentiles": _listed(self.percentiles), "limit": self.limit}


@dataclass(frozen=True, slots=True)
class RobustZScore:
    """Brings each contrast to median 0, and to the quartiles of a standard normal's width, over the mask.

    A tumour widens the standard deviation of its scan, and fluid around the brain lowers its mean, while the
    half of the brain between the quartiles stays: scans of other scanners and diseases come out more alike
    than as standard scores. Only ``scale`` and ``offset`` of the scan change: no voxel is copied.
    """

    def __call__(self, scan: Scan) -> Scan:
        """Return the scan in robust standard scores.

        Raises:
            ScanError: A contrast, or the half of it between its quartiles, is constant, or it is not finite.
        """
        ends = [_quartiles(scan, channel) for channel in range(scan.n_channels)]
        low, middle, high = np.array(ends).reshape(-1, 3).T
        spread = (high - low) / NORMAL_QUARTILES
        return replace(scan, scale=scan.scale / spread, offset=(scan.offset - middle) / spread)

    def state(self) -> dict[str, Any]:
        """Return that it has no settings."""
        return {}


@dataclass(frozen=True, slots=True)
class UnitRange:
    """Brings each contrast to 0 to 1 over the mask, for networks whose output is a share.

    Only ``scale`` and ``offset`` of the scan change where there are no percentiles.

    Args:
        percentiles: Signals are clipped to these percentiles of the contrast before; None: they are not.
    """

    percentiles: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "percentiles", _checked("unit_range", self.percentiles, None))

    def __call__(self, scan: Scan) -> Scan:
        """Return the scan with its signal between 0 and 1.

        Raises:
            ScanError: A contrast is constant, or not finite, over the mask.
        """
        scan = Clip(self.percentiles)(scan)
        ends = [_ends(scan, channel) for channel in range(scan.n_channels)]
        low, high = np.array(ends).reshape(-1, 2).T
        return replace(scan, scale=scan.scale / (high - low), offset=(scan.offset - low) / (high - low))

    def state(self) -> dict[str, Any]:
        """Return the settings."""
        return {"percentiles": _listed(self.percentiles)}


def _signal(scan: Scan, channel: int) -> np.ndarray:
    """Return ``(n,)`` float64 signal of one channel."""
    return scan.stored[channel].astype(np.float64) * scan.scale[channel] + scan.offset[channel]


def _moments(scan: Scan, channel: int) -> tuple[float, float]:
    signal = _signal(scan, channel)
    mean, std = float(signal.mean()), float(signal.std())
    if not (np.isfinite(mean) and std > 1e-6 * abs(mean) and std > 0):
        name = scan.contrasts[channel] if scan.contrasts else f"channel {channel}"
        raise ScanError(
            f"{scan.id}: {name} has mean {mean:.6g} and standard deviation {std:.6g} over the mask; "
            "a contrast that does not vary cannot be brought to a scale",
            code="voxels.constant",
        )
    return mean, std


def _quartiles(scan: Scan, channel: int) -> np.ndarray:
    mean, std = _moments(scan, channel)
    found = np.percentile(_signal(scan, channel), (25, 50, 75))
    if found[2] - found[0] <= 1e-6 * max(std, abs(mean)):
        name = scan.contrasts[channel] if scan.contrasts else f"channel {channel}"
        raise ScanError(
            f"{scan.id}: half of {name} has the same value over the mask, {found[1]:.6g}; take zscore "
            "instead of robust_zscore, or a mask of the brain",
            code="voxels.constant",
        )
    return found


def _ends(scan: Scan, channel: int) -> tuple[float, float]:
    _moments(scan, channel)  # It refuses what does not vary.
    signal = _signal(scan, channel)
    return float(signal.min()), float(signal.max())


def _checked(name: str, percentiles: Any, limit: float | None) -> tuple[float, ...] | None:
    """Return percentiles as numbers; refuse what are none, and limits that are none."""
    if percentiles is not None and not (
        len(percentiles) == 2 and 0 <= percentiles[0] < percentiles[1] <= 100
    ):
        raise SettingsError(
            f"{name}: percentiles must be a low and a high one within 0 to 100, got {percentiles}"
        )
    if limit is not None and not limit > 0:
        raise SettingsError(f"{name}: limit must be above 0, got {limit}")
    return None if percentiles is None else tuple(float(p) for p in percentiles)


def _listed(percentiles: tuple[float, float] | None) -> list[float] | None:
    return None if percentiles is None else list(percentiles)
