"""How a scan's scores spread, against those of held-out normals where the score is calibrated."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.calibrate.calibration import Calibration
from mednovelty.calibrate.files import load_calibration
from mednovelty.calibrate.nulls import ALL
from mednovelty.errors import DetectorError
from mednovelty.explaining.null_curve import NullCurve
from mednovelty.report.charts import Chart, Series
from mednovelty.report.scan_facts import MapFacts, as_dict

BINS = 80
RANGE = (0.001, 0.9999)
"""Quantiles of the scan's scores that the axis spans, and of the normals'; the highest score in any case."""


@lru_cache(maxsize=4)
def _calibration(folder: Path, sha256: str) -> Calibration | None:
    try:
        found = load_calibration(folder)
    except DetectorError:
        return None
    return found if found is not None and found.sha256 == sha256 else None


def null_of(facts: MapFacts, values: np.ndarray, minus_log10_p: np.ndarray | None) -> NullCurve | None:
    """Return what a score is on held-out normals; None where it is not calibrated.

    From the detector's calibration where it still lies where the sidecar says, else read off the map and its
    p-values, which tells as much up to the map's own highest score.

    Args:
        facts: Of the map.
        values: ``(n,)`` scores in the mask.
        minus_log10_p: ``(n,)`` of their p-values.
    """
    told = as_dict(facts.sidecar.get("Calibration"))
    folder = as_dict(facts.sidecar.get("Detector")).get("Folder")
    if isinstance(folder, str):
        model = Path(os.path.normpath(facts.novelty.parent / folder))
        known = _calibration(model, str(told.get("Sha256")))
        if known is not None and facts.name in known.nulls:
            return NullCurve.of(known.nulls[facts.name][ALL])
    count: Any = told.get("Voxels")
    if minus_log10_p is None or told.get("Regions") != "one" or not isinstance(count, int) or count < 1:
        return None
    return NullCurve.read_off(values, 10.0 ** -minus_log10_p.astype(np.float64), count)


def score_chart(
    facts: MapFacts, values: np.ndarray, null: NullCurve | None, threshold: float | None
) -> Chart:
    """Return a histogram of a scan's scores, beside that of held-out normals.

    Args:
        facts: Of the map.
        values: ``(n,)`` scores in the mask.
        null: See ``null_of``.
        threshold: The lowest score that is segmented; None: nothing is.
    """
    values = values[np.isfinite(values)].astype(np.float64)
    edges = np.linspace(*_ends(values, null), BINS + 1)
    centres = 0.5 * (edges[1:] + edges[:-1])
    share = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / max(1, values.size)
    series = [Series(f"this scan, {values.size:,} voxels", centres, _gaps(share), 1, "bars")]
    alt = f"Histogram of {facts.name}: half of the scan's voxels score above {np.median(values):.4g}, "
    alt += f"one in a hundred above {np.quantile(values, 0.99):.4g}, the highest {values.max():.4g}"
    if null is not None:
        above = null.share(edges)
        expected = above[:-1] - above[1:]
        known = edges[1:] <= null.values[-1] if null.ends_early else np.ones(BINS, bool)
        normals = np.where(known & (expected > 0), expected, np.nan)
        series.append(Series(f"held-out normals, {null.n:,} voxels", centres, normals, 0))
        beyond = float((values > null.quantile(0.99)).mean())
        alt += (
            f". Of held-out normals half score above {null.quantile(0.5):.4g}, one in a hundred above "
            f"{null.quantile(0.99):.4g}, which {100 * beyond:.3g} % of this scan's voxels exceed"
        )
    marks = [] if threshold is None else [(threshold, f"segmented from {threshold:.4g}")]
    unit = f" in {facts.unit}" if facts.unit else ""
    return Chart(
        f"{alt}.", f"{facts.name}{unit}", "share of voxels in each bin", series, log_y=True, marks=marks
    )


def _gaps(share: np.ndarray) -> np.ndarray:
    """Return shares for a logarithmic axis: what is empty is a gap."""
    return np.where(share > 0, share, np.nan)


def _ends(values: np.ndarray, null: NullCurve | None) -> tuple[float, float]:
    low, high = (float(q) for q in np.quantile(values, RANGE))
    high = max(high, float(values.max()))
    if null is not None and not null.ends_early:
        low, high = min(low, null.quantile(RANGE[0])), max(high, null.quantile(RANGE[1]))
    return low, high if high > low else low + max(1e-6, 1e-6 * abs(low))


__all__ = ["null_of", "score_chart"]
