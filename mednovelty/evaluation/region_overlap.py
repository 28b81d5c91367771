"""Per-region overlap (PRO): how much of each region is found, whatever its size; the area under its curve.

Bergmann et al. 2021, "The MVTec Anomaly Detection Dataset", section 5.1.1. Regions R_1 ... R_J are the
connected components of what is marked, in all images or scans together; a voxel is flagged where ``score >=
t``:

    PRO(t)    1/J sum_j |flagged at t, in R_j| / |R_j|
    FPR(t)    share of unmarked voxels that are flagged
    AUPRO     1/L integral of PRO over FPR from 0 to L, L = 0.3

A voxel of R_j thus counts 1 / (J |R_j|), and the area is that of a ROC curve whose positives have these
weights. It is exact: each weight w adds w times the FPR that is left up to L where its voxel is found; where
unmarked voxels have the same score, the curve is a straight line between the points before and behind them,
as for the AUROC. With one region and L = 1 it is the AUROC.

    IoU       TP / (TP + FP + FN) = Dice / (2 - Dice), so both are best at the same threshold
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mednovelty.errors import SettingsError

LIMIT = 0.3
"""The paper's L."""


@dataclass(frozen=True, slots=True, eq=False)
class RegionScores:
    """The scores of one image or scan, and which region its marked voxels are in.

    Attributes:
        healthy: ``(N,)`` scores of unmarked voxels, in any order.
        marked: ``(P,)`` scores of the others.
        region: ``(P,)`` the region of each, from 0.
    """

    healthy: np.ndarray
    marked: np.ndarray
    region: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, truth: np.ndarray) -> RegionScores:
        """Find the regions of an image or volume: voxels that share a face, an edge or a corner are in one.

        Args:
            scores: ``(*space)``, higher is more novel.
            truth: ``(*space)`` bool.

        Raises:
            SettingsError: Shapes differ, or a score is NaN.
        """
        if scores.shape != truth.shape or truth.dtype != np.bool_:
            raise SettingsError(
                f"scores and bool truth must have one shape, got {scores.shape} and {truth.shape} of "
                f"{truth.dtype}"
            )
        if missing := int(np.count_nonzero(np.isnan(scores))):
            raise SettingsError(f"{missing} of {scores.size} scores are NaN; leave those voxels out")
        labels, _ = ndimage.label(truth, np.ones((3,) * truth.ndim))
        return cls(scores[~truth], scores[truth], labels[truth] - 1)

    @property
    def weights(self) -> np.ndarray:
        """``(P,)``: 1 / voxels of the region; they add up to how many regions there are."""
        return 1.0 / np.bincount(self.region)[self.region] if self.region.size else np.empty(0)


def area_under_pro(parts: Iterable[RegionScores], limit: float = LIMIT) -> float:
    """Return AUPRO, between 0 and 1; NaN where nothing is marked, or everything.

    Args:
        parts: All images or scans.
        limit: L.

    Raises:
        SettingsError: The limit is no share above 0.
    """
    if not 0 < limit <= 1:
        raise SettingsError(f"the FPR limit of AUPRO must lie above 0 and be at most 1, got {limit}")
    listed = list(parts)
    healthy = _joined([part.healthy for part in listed])
    marked = _joined([part.marked for part in listed])
    if not healthy.size or not marked.size:
        return math.nan
    healthy.sort()
    weights = np.concatenate([part.weights for part in listed])
    n = healthy.size
    before = (n - np.searchsorted(healthy, marked, "right")) / n
    behind = (n - np.searchsorted(healthy, marked, "left")) / n
    return float((weights * _left(before, behind, limit)).sum() / weights.sum() / limit)


def iou_of(dice: float) -> float:
    """Return the IoU of a Dice.

    Examples:
        >>> iou_of(0.8), iou_of(0.0), iou_of(1.0)
        (0.6666666666666667, 0.0, 1.0)
    """
    return dice / (2 - dice)


def _left(before: np.ndarray, behind: np.ndarray, limit: float) -> np.ndarray:
    """Return the mean of (L - x)+ over x from ``before`` to ``behind``, ``(P,)`` each: what is left to L."""
    whole = limit - (before + behind) / 2
    wide = np.maximum(behind - before, np.finfo(float).tiny)
    part = np.square(np.maximum(limit - before, 0)) / (2 * wide)
    return np.where(behind <= limit, whole, part)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty(0)


__all__ = ["LIMIT", "RegionScores", "area_under_pro", "iou_of"]
