"""Parts of a scan's page that are not of a single score: explained voxels, and the scan's quality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.io.guard import read_text
from mednovelty.report.charts import chart_svg
from mednovelty.report.evaluation_part import shrunk
from mednovelty.report.page import Picture
from mednovelty.report.planes import Canvas, Sheet, Upright, ends_of
from mednovelty.report.quality_figures import contrast_rows, gradients_svg, scheme_rows, signal_chart
from mednovelty.report.scan_facts import ScanFacts
from mednovelty.report.scan_images import ReadScan

MOST_EXPLAINED, EXPLAINED_WIDTH = 6, 1000
"""So many pictures of explained voxels, at most so wide: a page must not be larger than it may."""


def explained(facts: ScanFacts) -> list[dict[str, Any]]:
    """Return what ``explain`` has left of voxels of the scan; beyond some, only what they are called."""
    parts = [_explained(path) for path in facts.explained[:MOST_EXPLAINED]]
    others = facts.explained[MOST_EXPLAINED:]
    return parts + [{"name": path.name, "picture": None, "words": "", "damaged": ""} for path in others]


def _explained(path: Path) -> dict[str, Any]:
    """Return one explained voxel; of a damaged file, what is wrong with it, as the page has more to tell."""
    part: dict[str, Any] = {"name": path.name, "picture": None, "words": "", "damaged": ""}
    text = path.with_suffix(".txt")
    try:
        words = read_text(text) if text.is_file() else ""
        alt = f"Why one voxel scores as it does: {' '.join(words.split())[:400]}"
        return part | {"picture": Picture(shrunk(path, EXPLAINED_WIDTH), alt), "words": words}
    except ScanError as error:
        return part | {"damaged": str(error)}


def quality_part(read: ReadScan) -> dict[str, Any]:
    """Return figures and facts of the scan's quality."""
    turned = Upright.of(read.affine, read.background, read.mask)
    background, mask = turned.volumes
    sheet = Sheet.of(mask)
    canvas = Canvas(background, turned.affine, sheet, ends_of(read.background[read.mask], 0.01, 0.995))
    n, mm3 = int(read.mask.sum()), abs(float(np.linalg.det(read.affine[:3, :3])))
    alt = (
        f"Background with the outline of the mask, {n:,} voxels, {n * mm3 / 1000:,.0f} ml: "
        f"{'; '.join(sheet.places_mm(turned.affine))}."
    )
    outline = Picture(
        canvas.png(outlined=mask), alt, "The mask, in which the scan was scored, outlined in light blue."
    )
    found: dict[str, Any] = {
        "outline": outline,
        "known": False,
        "signal": None,
        "gradients": None,
        "rows": [],
    }
    quality = read.facts.quality
    if quality is None:
        return found | {"missing": _why_unknown(read.facts)}
    found |= {"known": True, "rows": [*contrast_rows(quality), *scheme_rows(quality)]}
    if len(quality.bvalues_s_per_mm2):
        chart, words = signal_chart(quality)
        found |= {"signal": chart_svg(chart), "signal_words": words, "gradients": gradients_svg(quality)}
    return found


def _why_unknown(facts: ScanFacts) -> str:
    sources = facts.sources
    gone = [path.name for path in sources if not path.exists()]
    where = (
        f"{', '.join(gone)}, which it was read from, is not where it was" if gone else "its scan was not read"
    )
    return (
        "Signal of each volume and gradients are not known: the maps were made by a version that did not "
        f"keep them, and {where}. Make the report with: mednovelty report OUT --scans FOLDER"
    )


__all__ = ["explained", "quality_part"]
