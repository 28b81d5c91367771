"""One calibrated map becomes a mask, clusters and numbers.

In this order: a rule flags voxels; connected ones that are no larger than what a calibration scan shows at
the same p are dropped; the rest is cleaned; what is then smaller than the smallest volume wanted is dropped.
The calibration scans are asked before cleaning, since their largest clusters are those of uncleaned maps, and
no cleaning brings a cluster where none was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mednovelty.errors import SettingsError
from mednovelty.segment.cleaning import Cleaning, cleaned
from mednovelty.segment.clusters import (
    Cluster,
    describe,
    labelled,
    only_large,
    structure_of,
    voxel_mm3_of,
)
from mednovelty.segment.controls import Controls, Curve
from mednovelty.segment.rules import FalseDiscoveries, Flagged, Rule, flag, rule_of


@dataclass(frozen=True)
class SegmentSettings:
    """How maps are segmented.

    Attributes:
        rule: Which voxels are flagged.
        cluster_size: Whether clusters no larger than the largest of a calibration scan at that p are dropped.
        connectivity: 6, 18 or 26 neighbours.
        min_mm3: Smaller clusters are dropped, too.
        cleaning: What is done to flagged voxels.
    """

    rule: Rule = field(default_factory=FalseDiscoveries)
    cluster_size: bool = True
    connectivity: int = 26
    min_mm3: float = 0.0
    cleaning: Cleaning = field(default_factory=Cleaning)

    def __post_init__(self) -> None:
        structure_of(self.connectivity)
        if not (self.min_mm3 >= 0 and math.isfinite(self.min_mm3)):
            raise SettingsError(f"--min-mm3 must be 0 or more, got {self.min_mm3}")


@dataclass(frozen=True, eq=False)
class MapToSegment:
    """One score of one scan.

    Attributes:
        score: ``(I, J, K)``, higher is more novel.
        mask: ``(I, J, K)`` bool.
        affine: ``(4, 4)``, voxel indices to RAS+ mm.
        surprise: ``(I, J, K)`` -log10 p; None where there are no p-values.
    """

    score: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    surprise: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What is segmented of one map.

    Attributes:
        labels: ``(I, J, K)`` int32: the cluster of each voxel from 1, 0 for none.
        clusters: What is told of each, in that order.
        p: The largest p that was flagged; 0 where none was, NaN without p-values.
        limit_mm3: Clusters up to this volume were dropped; None where the calibration scans were not asked,
            or nothing was flagged.
        numbers: Of the scan as a whole, see ``numbers_of``.
    """

    labels: np.ndarray
    clusters: tuple[Cluster, ...]
    p: float
    limit_mm3: float | None
    numbers: dict[str, float]

    @property
    def mask(self) -> np.ndarray:
        """``(I, J, K)`` bool."""
        return self.labels > 0


def segment(image: MapToSegment, settings: SegmentSettings, controls: Controls | None) -> Segmentation:
    """Segment one map.

    Args:
        image: The map.
        settings: How.
        controls: What calibration scans show of this score; None: clusters of any size stay.

    Raises:
        SettingsError: The rule needs p-values and there are none.
    """
    inside = None if image.surprise is None else image.surprise[image.mask]
    found = flag(settings.rule, image.score[image.mask], inside)
    where = np.zeros(image.mask.shape, dtype=bool)
    where[image.mask] = found.where
    limit = _limit_mm3(found, settings, controls)
    voxel_mm3 = voxel_mm3_of(image.affine)
    kept = where
    if limit is not None:
        kept = only_large(where, limit / voxel_mm3, settings.connectivity, strictly=True)
    kept = cleaned(kept, image.mask, settings.cleaning)
    if settings.min_mm3:
        kept = only_large(kept, settings.min_mm3 / voxel_mm3, settings.connectivity)
    labels, _ = labelled(kept, settings.connectivity)
    clusters = describe(labels, image.score, image.surprise, image.affine)
    if controls is not None and found.p > 0:
        clusters = [
            replace(one, p_cluster=controls.p_cluster(one.volume_mm3, found.p, settings.connectivity))
            for one in clusters
        ]
    numbers = numbers_of(image, found, clusters) | _p_values(image, settings, controls)
    return Segmentation(labels, tuple(clusters), found.p, limit, numbers)


def numbers_of(image: MapToSegment, found: Flagged, clusters: list[Cluster]) -> dict[str, float]:
    """Return what is told of a scan as a whole: volumes in mm3, shares of its mask, counts, the maximum."""
    voxel_mm3, inside = voxel_mm3_of(image.affine), int(np.count_nonzero(image.mask))
    n = max(inside, 1)  # Of an empty mask all shares are 0.
    flagged, novel = int(np.count_nonzero(found.where)), sum(one.voxels for one in clusters)
    return {
        "brain_mm3": inside * voxel_mm3,
        "novel_mm3": novel * voxel_mm3,
        "novel_share": novel / n,
        "clusters": len(clusters),
        "largest_mm3": max((one.volume_mm3 for one in clusters), default=0.0),
        "maximum": float(image.score[image.mask].max(initial=-math.inf)),
        "flagged_mm3": flagged * voxel_mm3,
        "flagged_share": flagged / n,
        "flagged_p": found.p,
    }


def _limit_mm3(found: Flagged, settings: SegmentSettings, controls: Controls | None) -> float | None:
    if not settings.cluster_size or controls is None or not found.p > 0:
        return None
    return controls.limit_mm3(found.p, settings.connectivity)


def _p_values(image: MapToSegment, settings: SegmentSettings, controls: Controls | None) -> dict[str, float]:
    if controls is None or image.surprise is None:
        return {}
    maximum = float(image.score[image.mask].max(initial=-math.inf))
    curve = Curve.of(image.surprise[image.mask], voxel_mm3_of(image.affine), maximum, controls.grid)
    return {**controls.p_of(curve, settings.rule), "controls": len(controls)}


def told_of(settings: SegmentSettings) -> dict[str, Any]:
    """Return settings as JSON types, with the rule of all scores."""
    return {
        **settings.rule.told(),
        "ClusterSizeRule": settings.cluster_size,
        "Connectivity": settings.connectivity,
        "MinMm3": settings.min_mm3,
        "Cleaning": settings.cleaning.kind,
        "CleaningSize": settings.cleaning.size,
    }


def settings_of_told(told: Mapping[str, Any]) -> SegmentSettings:
    """Return the settings that ``told_of`` has told.

    Raises:
        SettingsError: They are not whole, or out of range.
    """
    try:
        return SegmentSettings(
            rule=rule_of(dict(told)),
            cluster_size=bool(told["ClusterSizeRule"]),
            connectivity=int(told["Connectivity"]),
            min_mm3=float(told["MinMm3"]),
            cleaning=Cleaning(told["Cleaning"], int(told["CleaningSize"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"no settings of a segmentation: {dict(told)!r}") from error


__all__ = [
    "MapToSegment",
    "SegmentSettings",
    "Segmentation",
    "numbers_of",
    "segment",
    "settings_of_told",
    "told_of",
]
