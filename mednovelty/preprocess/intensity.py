"""Intensities made comparable between scans (Vasilev et al. 2018, Sec. 3.1).

``MeanIntensity``  each scan divided by its own mean           needs no fitting
``ChannelMean``    each channel divided by the normals' mean   fitted on normals, then frozen

Both only change a scan's ``scale``: no voxel is copied.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mednovelty.errors import ScanError, SettingsError
from mednovelty.papers import equation
from mednovelty.scan import Scan


@equation("vasilev2018", "Sec. 3.1, scan mean")
@dataclass(frozen=True, slots=True)
class MeanIntensity:
    """Divides each scan by its mean intensity, so that the scanner's gain drops out.

    Args:
        within: ``"mask"``: the mean over the voxels of the brain mask and all channels;
            ``"whole-scan"``: over every voxel of the file, as the paper words it. The latter moves with
            the size of the field of view.

    Examples:
        >>> from mednovelty.testing.models import tiny_scan
        >>> float(MeanIntensity()(tiny_scan()).voxels().mean().round(6))
        1.0
    """

    within: Literal["mask", "whole-scan"] = "mask"

    def __post_init__(self) -> None:
        if self.within not in ("mask", "whole-scan"):
            raise SettingsError(f"mean_intensity: within must be 'mask' or 'whole-scan', got {self.within!r}")

    def __call__(self, scan: Scan) -> Scan:
        """Return the scan with mean 1.

        Raises:
            ScanError: The mean is not positive, so that nothing can be divided by it.
        """
        mean = float(channel_means(scan).mean()) if self.within == "mask" else scan.whole_mean
        if not mean > 0 or not np.isfinite(mean):
            raise ScanError(
                f"{scan.id}: its mean intensity ({self.within}) is {mean:.6g}; a scan needs a positive mean",
                code="voxels.mean",
            )
        return scan.scaled(1 / mean)

    def state(self) -> dict[str, Any]:
        """Return the settings."""
        return {"within": self.within}


@equation("vasilev2018", "Sec. 3.1, channel mean")
@dataclass(frozen=True, slots=True)
class ChannelMean:
    """Divides each channel by its mean over all voxels of all training scans.

    Args:
        means: ``(C,)`` means found by ``fit``.
    """

    means: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "means", tuple(float(mean) for mean in self.means))
        empty = [channel for channel, mean in enumerate(self.means) if not mean > 0]
        if empty:
            raise ScanError(
                f"channel {empty[0]} has mean {self.means[empty[0]]:.6g} over the training scans; "
                "every channel needs a positive mean",
                code="voxels.mean",
            )

    @classmethod
    def fit(cls, scans: Iterable[Scan]) -> ChannelMean:
        """Return the step fitted on normals: every voxel counts once, whichever scan it is from."""
        return cls.of_moments((scan.n_voxels, channel_means(scan)) for scan in scans)

    @classmethod
    def of_moments(cls, moments: Iterable[tuple[int, np.ndarray]]) -> ChannelMean:
        """Return the step from ``(n voxels, (C,) channel means)`` of each training scan."""
        counts, means = zip(*moments, strict=True)
        return cls(tuple(np.average(means, axis=0, weights=counts)))

    def __call__(self, scan: Scan) -> Scan:
        """Return the scan with each channel divided by the normals' mean.

        Raises:
            ScanError: The scan has another number of channels.
        """
        if scan.n_channels != len(self.means):
            raise ScanError(
                f"{scan.id}: {scan.n_channels} channels; the training scans had {len(self.means)}",
                code="scheme.channels",
            )
        return scan.scaled(1 / np.array(self.means))

    def state(self) -> dict[str, Any]:
        """Return the fitted means."""
        return {"means": list(self.means)}


def channel_means(scan: Scan) -> np.ndarray:
    """Return ``(C,)`` float64 mean signal of each channel over the mask."""
    return scan.stored.mean(axis=1, dtype=np.float64) * scan.scale + scan.offset
