"""Parts of a scan's page that are not of a single score: explained voxels, and the scan's quality."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.explaining.places import Place
from mednovelty.io.guard import read_text
from mednovelty.outputs import told
from mednovelty.report.charts import chart_svg
from mednovelty.report.evaluation_part import shrunk
from mednovelty.report.page import Picture
from mednovelty.report.planes import Canvas, Sheet, Upright, ends_of
from mednovelty.report.quality_figures import contrast_rows, gradients_svg, scheme_rows, signal_chart
from mednovelty.report.scan_facts import EXPLAINED, ScanFacts, as_dict, as_list
from mednovelty.report.scan_images import ReadScan

MOST_EXPLAINED, EXPLAINED_WIDTH = 6, 1000
"""So many pictures of explained voxels, at most so wide: a page must not be larger than it may."""


def explained(facts: ScanFacts) -> list[dict[str, Any]]:
    """Return what ``explain`` has left of voxels of the scan; beyond some, only what they are called."""
    parts = [_explained(facts, path) for path in facts.explained[:MOST_EXPLAINED]]
    others = facts.explained[MOST_EXPLAINED:]
    return parts + [_named(facts, path) for path in others]


def _explained(facts: ScanFacts, path: Path) -> dict[str, Any]:
    """Return one explained voxel; of a damaged file, what is wrong with it, as the page has more to tell."""
    part, text = _named(facts, path), path.with_suffix(".txt")
    try:
        words = read_text(text) if text.is_file() else ""
        alt = f"Why one voxel scores as it does: {' '.join(words.split())[:400]}"
        return part | {"picture": Picture(shrunk(path, EXPLAINED_WIDTH), alt), "words": words}
    except ScanError as error:
        return part | {"damaged": str(error)}


def _named(facts: ScanFacts, path: Path) -> dict[str, Any]:
    """Return what an explained voxel is called, by its place and cluster, and where the viewer shows it."""
    part = {"name": path.name, "title": path.name, "mark": "", "picture": None, "words": "", "damaged": ""}
    place = placed(path.name)
    if place is None:
        return part
    (x, y, z), detector = place
    scores = as_list((told(path.with_suffix(".json")) or {}).get("Scores"))
    score = str(as_dict(scores[0] if scores else None).get("Score") or "")
    ours = [one for one in facts.maps if not score or one.name == score]
    peaks = [f"peak of cluster {cluster.cells.get('cluster', n)} of {one.name}" for one in ours
             for n, cluster in enumerate(one.clusters, 1)
             # Names of files have tenths of a millimetre.
             if np.abs(np.subtract(cluster.peak_mm, (x, y, z))).max() < 0.1]  # fmt: skip
    said = [*(peaks or [score] * bool(score)), *([f"detector {detector}"] if detector else [])]
    return part | {
        "title": ": ".join([f"x {x:g}, y {y:g}, z {z:g} mm", *([", ".join(said)] if said else [])]),
        "mark": f"{score or facts.maps[0].name};{x:g};{y:g};{z:g}",
    }


_PLACE = re.compile(
    r"_desc-([RL])([\dd]+)([AP])([\dd]+)([SI])([\dd]+?)(?:Detector(\d+))?" + re.escape(EXPLAINED) + "$"
)


def placed(name: str) -> tuple[Place, str] | None:
    """Return from a name where an explained voxel lies, in RAS+ millimetres, and its detector's number.

    Examples:
        >>> placed("sub-01_desc-R10d2P32S24Detector2_explained.png"), placed("sub-01_explained.png")
        (((10.2, -32.0, 24.0), '2'), None)
    """
    found = _PLACE.search(name)
    if found is None:
        return None
    try:
        x, y, z = (
            (1 if letter in "RAS" else -1) * float(digits.replace("d", ".")) + 0.0
            for letter, digits in zip(found.groups()[:6:2], found.groups()[1:6:2], strict=True)
        )
    except ValueError:
        return None
    return (x, y, z), found[7] or ""


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
