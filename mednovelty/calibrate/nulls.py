"""The nulls of a score: one for all voxels, and one for each region that has enough of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mednovelty.calibrate.healthy_scans import HealthyScans, left_out_p
from mednovelty.calibrate.null import Null
from mednovelty.calibrate.regions import Regions
from mednovelty.calibrate.scan_maps import ScanMaps

ALL = "all"
"""The null of all voxels, whatever their region."""
FEWEST_VOXELS = 2_000
"""A region with fewer calibration voxels has no null of its own: its smallest p would be too coarse. Those of
the scan with most of them do not count, unless it is the only one: its own p-values are among the others."""


def regions_of(maps: ScanMaps, regions: Regions) -> np.ndarray | None:
    """Return ``(n,)`` int32 regions of a calibration scan's voxels; None where all are one."""
    if regions.kind == "one":
        return None
    return maps.labels if regions.kind == "labels" else regions.classes_of(maps.features)


def nulls_of(score: str, maps: Sequence[ScanMaps], regions: Regions) -> tuple[dict[str, Null], HealthyScans]:
    """Return a score's nulls by region, and what each scan shows among the others.

    Args:
        score: Its name.
        maps: Of the S scans.
        regions: How their voxels are told apart; a score with one value a sample has one null for all.

    Raises:
        ScanError: A score is not finite.
    """
    values = [one.values(score) for one in maps]
    if score in maps[0].of_samples:
        counted = [one.counted(score) for one in maps]
        p = left_out_p(values, [None] * len(maps), counted=counted)
        whole = {ALL: Null.of(np.concatenate(counted))}
        return whole, HealthyScans.measured(zip(maps, values, p, strict=True))
    of_voxels = [regions_of(one, regions) for one in maps]
    pooled = np.concatenate(values)
    nulls, own = {ALL: Null.of(pooled)}, []
    if regions.kind != "one":
        labels = np.concatenate([one for one in of_voxels if one is not None])
        found, counts = np.unique(labels, return_counts=True)
        if len(maps) > 1:  # Each scan is held against the others.
            most = [[np.count_nonzero(one == region) for one in of_voxels] for region in found]
            counts = counts - np.max(most, axis=1)
        own = [int(region) for region in found[counts >= FEWEST_VOXELS]]
        nulls |= {str(region): Null.of(pooled[labels == region]) for region in own}
    p = left_out_p(values, of_voxels, own)
    return nulls, HealthyScans.measured(zip(maps, values, p, strict=True))


__all__ = ["ALL", "FEWEST_VOXELS", "nulls_of", "regions_of"]
