"""Thresholds that labelled scans give: of each score that of the best Dice on a fifth of them.

As in an evaluation (Zimmerer et al. 2019, Sec. 3.3): the fifth is of the patients where there are five or
more, else of each scan's voxels.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mednovelty.errors import ScanError
from mednovelty.evaluation import EvaluateSettings, evaluate
from mednovelty.evaluation.scored import ScoredScan
from mednovelty.segment.rules import ScoreThreshold
from mednovelty.segment_files import read_map

log = logging.getLogger("mednovelty")


def labelled_thresholds(
    out: Path, scans: Mapping[str, ScoredScan], scores: Sequence[str], masks: Path, seed: int
) -> dict[str, ScoreThreshold]:
    """Return the threshold of each score; one of NaN, which flags nothing, where the fifth gives none.

    Args:
        out: The folder of the maps.
        scans: What was found there.
        scores: Which.
        masks: Folder of lesion masks, or a manifest.
        seed: Of the fifth.

    Raises:
        ScanError, SettingsError: As ``evaluation.evaluate``.
    """
    found = evaluate(out, masks, settings=EvaluateSettings(seed=seed, resamples=1))
    fifth = found.fifth["patients"]
    of = f"the patients {', '.join(fifth)}" if fifth else "a fifth of the voxels of the labelled scans"
    rules = {}
    for score in scores:
        at = found.rated[score].thresholds["dice"] if score in found.rated else math.nan
        if math.isnan(at):
            log.warning(
                "%s: the labelled scans give no threshold; nothing is segmented, try another seed", score
            )
        rules[score] = ScoreThreshold(at, _largest_p(scans, score, at), f"best Dice on {of}")
    return rules


def _largest_p(scans: Mapping[str, ScoredScan], score: str, threshold: float) -> float:
    """Return the largest p of any voxel with at least a score, in whichever scan; NaN without p-values."""
    lowest = math.inf
    for scan in scans.values():
        with contextlib.suppress(ScanError):  # What cannot be read is told when it is segmented.
            image = read_map(scan, score).image if score in scan.maps else None
            if image is None or image.surprise is None:
                continue
            flagged = image.mask & (image.score >= image.score.dtype.type(threshold))
            lowest = min(lowest, float(image.surprise[flagged].min(initial=math.inf)))
    return 10.0**-lowest if math.isfinite(lowest) else math.nan


__all__ = ["labelled_thresholds"]
