"""From which value on a map is shown: where its segmentation begins, or, where there is none, a quantile.

What flags voxels is told in sidecars (``segment_files``), as a p-value or as a score; here it becomes a
value of the map that is shown, and words for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mednovelty.segment.rules import ScoreThreshold

FALLBACK_P = 0.001
"""Shown from here on where nothing is flagged and no p was asked for."""
FALLBACK_QUANTILE = 0.99
"""Of the scan's own voxels, where the score is not calibrated."""


@dataclass(frozen=True)
class Level:
    """Where a map begins to be shown.

    Attributes:
        map: Which of a score's maps is shown: ``pvalue``, -log10 p, or ``novelty``, the score.
        lower: Its lowest value that is shown.
        words: What that is.
        short: The same for a legend, in a few words.
    """

    map: Literal["pvalue", "novelty"]
    lower: float
    words: str
    short: str


def level_of(
    threshold: Mapping[str, Any] | None, smallest_p: float | None, scores: Callable[[], np.ndarray]
) -> Level:
    """Return where a map begins to be shown.

    Args:
        threshold: What the sidecar tells under ``Threshold``; None where nothing was segmented.
        smallest_p: That the calibration can give; None where there are no p-values.
        scores: Gives those of the mask, ``(n,)``; asked for where neither of both says where to begin.
    """
    told = threshold or {}
    at = told.get("Threshold")
    if told.get("Rule") == ScoreThreshold.name and isinstance(at, int | float):
        short = f"from {at:.4g}"
        return Level("novelty", _stored(at), str(told.get("Words") or short), short)
    if smallest_p is not None:
        return _of_p(told, smallest_p)
    values = scores()
    if not values.size:
        return Level("novelty", 0.0, "no voxel was scored", "not scored")
    lower = _stored(float(np.quantile(values, FALLBACK_QUANTILE)))
    short = f"highest {100 * (1 - FALLBACK_QUANTILE):g} %"
    return Level("novelty", lower, f"not calibrated: the {short} of this scan, whatever they are", short)


def _of_p(told: Mapping[str, Any], smallest_p: float) -> Level:
    words = str(told.get("Words") or "")
    # Of what was flagged, else of what was asked for: then nothing is shown, as nothing was found.
    for p in (told.get("FlaggedP"), told.get("P")):
        if isinstance(p, int | float) and 0 < p <= 1:
            return Level("pvalue", surprise(p), words, f"p <= {p:.2g}")
    p = max(FALLBACK_P, smallest_p)
    short = f"p <= {p:.2g}, no decision"
    return Level("pvalue", surprise(p), f"{words or 'not segmented'}; shown: {short}", short)


def surprise(p: float) -> float:
    """Return -log10 p as maps hold it, so that the voxel that p is of is shown."""
    return _stored(-math.log10(p))


def _stored(value: float) -> float:
    """Return a value as a map holds it, float32."""
    return float(np.float32(value))


__all__ = ["FALLBACK_P", "FALLBACK_QUANTILE", "Level", "level_of", "surprise"]
