"""Of each score of a scan its mosaic and its histogram."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mednovelty.report.charts import chart_svg
from mednovelty.report.null_chart import null_of, score_chart
from mednovelty.report.page import Picture
from mednovelty.report.planes import Canvas, Overlay, Sheet, Upright, ends_of
from mednovelty.report.scan_images import ReadScan, ReadScore

SHOWN_FROM, SHOWN_TO = 0.97, 0.9995
"""Quantiles of the mask: scores that a mosaic shows over the background, and the last colour."""
THROUGH = 3
"""As many of the strongest clusters have slices of their own in each plane."""
MANY_SCORES, SMALL_TILE = 8, 96
"""From so many scores on mosaics are smaller."""
MOST_MOSAIC_BYTES = 2_400_000
"""Of all mosaics together, and a third more as text: a page stays below 5 MB with any number of scores."""


def score_parts(read: ReadScan, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return of each score its mosaic and its histogram; beyond some bytes no mosaic, but the map's name."""
    tile = {"tile": SMALL_TILE} if len(read.scores) >= MANY_SCORES else {}
    grey = ends_of(read.background[read.mask], 0.01, 0.995)
    parts, left = [], MOST_MOSAIC_BYTES
    for one in read.scores:
        picture = _mosaic(read, one, grey, tile) if left > 0 else None
        left -= 0 if picture is None else len(picture.png)
        parts.append(_score_part(one, labels[one.facts.name]) | {"picture": picture})
    return parts


def shown_instead(one: ReadScore) -> str:
    """Return what pictures show of a score of which nothing is flagged; empty where something is."""
    if one.threshold is not None:
        return ""
    why = "Nothing was segmented" if one.segmented is None else "Nothing is flagged"
    highest = f"the highest {100 * (1 - SHOWN_FROM):.0f} % of the mask's scores"
    return f"{why}; shown: {highest}, which every scan has."


def _score_part(one: ReadScore, label: str) -> dict[str, Any]:
    low, high = _ends(one)
    null = null_of(one.facts, one.inside, one.minus_log10_p)
    return {
        "label": label,
        "trivial": one.facts.is_trivial,
        "file": one.facts.novelty.name,
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "unit": one.facts.unit,
        "chart": chart_svg(score_chart(one.facts, one.inside, null, one.threshold)),
        "calibrated": one.facts.is_calibrated,
        "against": null is not None,
        "instead": shown_instead(one),
    }


def _ends(one: ReadScore) -> tuple[float, float]:
    return ends_of(one.inside, SHOWN_FROM, SHOWN_TO)


def _mosaic(read: ReadScan, one: ReadScore, grey: tuple[float, float], tile: Mapping[str, int]) -> Picture:
    outlined = np.zeros(read.mask.shape, bool) if one.segmented is None else one.segmented
    turned = Upright.of(read.affine, read.background, read.mask, one.values, outlined)
    background, mask, values, found = turned.volumes
    through = [turned.index_of(cluster.peak_mm) for cluster in one.facts.placed[:THROUGH]]
    sheet = Sheet.of(mask, [np.clip(at, 0, np.array(mask.shape) - 1) for at in through])
    ends = _ends(one)
    overlay = Overlay(values, mask & (values >= ends[0]), ends)
    canvas = Canvas(background, turned.affine, sheet, grey, **tile)
    png = canvas.png(overlay, found if found.any() else None)
    return Picture(png, _mosaic_alt(one, sheet, turned, ends), _mosaic_caption(one))


def _mosaic_alt(one: ReadScore, sheet: Sheet, turned: Upright, ends: tuple[float, float]) -> str:
    found = "nothing was segmented" if one.segmented is None else "no cluster is there"
    if one.facts.clusters:
        found = f"{len(one.facts.clusters)} clusters are outlined"
    return (
        f"{one.facts.name} over the background, {sum(map(len, sheet.chosen))} slices: "
        f"{'; '.join(sheet.places_mm(turned.affine))}. Scores from {ends[0]:.4g} to {ends[1]:.4g} are "
        f"coloured from dark purple to pale yellow; {found}."
    )


def _mosaic_caption(one: ReadScore) -> str:
    through = min(THROUGH, len(one.facts.placed))
    cut = f" Slices go through the peaks of the {through} largest clusters." if through > 1 else (
        " One slice of each plane goes through the peak of the cluster." if through else "")  # fmt: skip
    outlined = " Clusters are outlined in light blue." if one.facts.clusters else ""
    return (
        f"Rows: axial, coronal, sagittal. Right is on the left (R), in sagittal slices the front (A). "
        f"The highest {100 * (1 - SHOWN_FROM):.0f} % of the mask's scores are coloured.{outlined}{cut}"
    )


__all__ = ["MOST_MOSAIC_BYTES", "SHOWN_FROM", "score_parts", "shown_instead"]
