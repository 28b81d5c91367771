"""Scores with one value for each sample: as many calibration values as slices or windows, not as voxels.

The voxels of a slice with one score say the same thing a thousand times. With 18 slices of normals no p-value
below 1 / 19 is honest, however many voxels they have, so such a null is made of one value a sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mednovelty.batch import sample_shape
from mednovelty.plugins import plugin
from mednovelty.scoring import needs_signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mednovelty.detector import Detector
    from mednovelty.scan import Scan


def scores_of_samples(detector: Detector, names: Sequence[str]) -> list[str]:
    """Return which scores have one value for each slice or window; none, where samples are voxels.

    Args:
        detector: That scores.
        names: Of scores of voxels, not of whole scans.
    """
    if len(sample_shape(detector.model)) == 1:
        return []
    modelled = [name for name in names if name not in detector.contrast_baselines]
    # Scores of the signal as measured have a value for each voxel, whatever a sample is.
    return [
        name for name in modelled if plugin("scorers", name).level == "sample" and not needs_signal([name])
    ]


def count_of(detector: Detector, scan: Scan) -> int:
    """Return how many samples of a scan, as it was read, are scored; at least 1."""
    prepared, _ = detector.prepare(scan)
    view = detector.view
    count = view.stitch_count(prepared) if hasattr(view, "stitch_count") else view.count(prepared)
    return max(1, int(count))


def of_samples(values: np.ndarray, count: int) -> np.ndarray:
    """Return what stands for the samples of a scan, ``(m,)`` ascending, ``1 <= m <= count``.

    Each value once where there are so few. Windows that overlap, or maps from another grid, have as many
    values as voxels: then voxels are ranked and cut into ``count`` parts, and the highest of each part
    counts, so that no share of samples is below that of voxels.

    Args:
        values: ``(n,)`` scores of a scan's voxels.
        count: How many samples there were, at least 1.

    Examples:
        >>> of_samples(np.array([2.0, 7.0, 7.0, 2.0, 2.0]), 3).tolist()
        [2.0, 7.0]
        >>> of_samples(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 3).tolist()
        [2.0, 4.0, 6.0]
    """
    own = np.unique(values)
    if len(own) <= count:
        return own
    return np.sort(values)[len(values) - 1 - (np.arange(count)[::-1] * len(values)) // count]


__all__ = ["count_of", "of_samples", "scores_of_samples"]
