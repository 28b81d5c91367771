"""The page of one scan: where it is novel, how that stands to normals, and what the scan is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.evaluation.scored import named
from mednovelty.report.charts import chart_svg
from mednovelty.report.methods_words import methods, references, settings_rows, versions
from mednovelty.report.null_chart import null_of, score_chart
from mednovelty.report.page import Cell, Picture, Table, link, number, render
from mednovelty.report.planes import Canvas, Overlay, Sheet, Upright, css_gradient, ends_of
from mednovelty.report.scan_facts import MapFacts, ScanFacts, as_dict
from mednovelty.report.scan_images import ReadScan, ReadScore, read_scan_images
from mednovelty.report.scan_parts import explained, quality_part
from mednovelty.report.viewer import ViewedScore, build_viewer

SHOWN_FROM, SHOWN_TO = 0.97, 0.9995
"""Quantiles of the mask: scores that a mosaic shows over the background, and the last colour."""
THROUGH = 3
"""As many of the strongest clusters have slices of their own in each plane."""
MANY_SCORES, SMALL_TILE = 8, 96
"""From so many scores on mosaics are smaller, so that the page is not larger than it may be."""
MOST_VIEWED = 12
MOST_ROWS = 100
"""Of a table of clusters: thousands, as without a least size, would make the page too large and too slow."""
MEANINGS = {
    "cluster": "number in the image of clusters, _dseg.nii.gz",
    "peak_x_mm": "of the highest voxel, RAS+: to the right",
    "peak_y_mm": "of the highest voxel, RAS+: to the front",
    "peak_z_mm": "of the highest voxel, RAS+: upwards",
    "p_peak": "p-value of its highest voxel",
    "p_cluster": "share of calibration scans, and this one, whose largest cluster is as large",
}


def scan_page(facts: ScanFacts, out: Path, kinds: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return the page of a scan.

    Args:
        facts: What is on disk of it.
        out: The folder that its cohort's page lies in.
        kinds: By score, what must stand beside its name.

    Raises:
        ScanError: An image cannot be read.
        GeometryError: Images do not lie on the same voxels.
    """
    read = read_scan_images(facts)
    folder = facts.page.parent
    labels = {one.name: named(one.name, (kinds or {}).get(one.name, facts.scored.kinds(one.name)))
              for one in facts.maps}  # fmt: skip
    viewer = _viewer(read, labels)
    return render(
        "scan.html",
        title=facts.id,
        cohort=link(out / "index.html", folder),
        made_of=facts.made_of(),
        warnings=facts.warnings,
        numbers=_numbers(facts),
        viewer=viewer,
        viewed=len(viewer.facts["scores"]),
        left_out=[one.name for one in facts.maps[MOST_VIEWED:]],
        clusters=[_cluster_table(one, labels[one.name]) for one in facts.maps if one.clusters],
        segmented=[(labels[one.name], one.threshold_words) for one in facts.maps if one.segmentation],
        scores=_score_parts(read, labels),
        gradient=css_gradient(),
        explained=explained(facts),
        explain_with=f"mednovelty explain {out.name or 'OUT'}/{_relative(folder, out)}",
        quality=quality_part(read),
        methods=methods(facts),
        references=references(facts),
        settings=settings_rows(facts),
        versions=versions(facts.sidecar),
        files=_files(facts, folder),
    )


def _viewer(read: ReadScan, labels: Mapping[str, str]) -> Any:
    viewed = []
    for one in read.scores[:MOST_VIEWED]:
        low = one.threshold
        threshold = float(np.quantile(one.inside, SHOWN_FROM)) if low is None else low
        viewed.append(
            ViewedScore(one.facts.name, labels[one.facts.name], one.facts.unit, one.values, threshold)
        )
    return build_viewer(read.background, read.mask, read.affine, viewed, _start_mm(read))


def _start_mm(read: ReadScan) -> tuple[float, float, float]:
    """Return where to look first: the largest cluster of the first score, else its highest voxel."""
    first = read.scores[0]
    if first.facts.placed:
        return first.facts.placed[0].peak_mm
    voxel = np.unravel_index(np.argmax(np.where(read.mask, first.values, -np.inf)), read.mask.shape)
    x, y, z = (float(value) for value in (read.affine @ [*voxel, 1.0])[:3])
    return x, y, z


def _score_parts(read: ReadScan, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return of each score its mosaic and its histogram."""
    tile = {"tile": SMALL_TILE} if len(read.scores) >= MANY_SCORES else {}
    grey = ends_of(read.background[read.mask], 0.01, 0.995)
    parts = []
    for one in read.scores:
        empty = np.zeros(read.mask.shape, bool)
        outlined = empty if one.segmented is None else one.segmented
        turned = Upright.of(read.affine, read.background, read.mask, one.values, outlined)
        background, mask, values, found = turned.volumes
        through = [turned.index_of(cluster.peak_mm) for cluster in one.facts.placed[:THROUGH]]
        sheet = Sheet.of(mask, [np.clip(at, 0, np.array(mask.shape) - 1) for at in through])
        ends = ends_of(one.inside, SHOWN_FROM, SHOWN_TO)
        overlay = Overlay(values, mask & (values >= ends[0]), ends)
        canvas = Canvas(background, turned.affine, sheet, grey, **tile)
        png = canvas.png(overlay, found if found.any() else None)
        null = null_of(one.facts, one.inside, one.minus_log10_p)
        parts.append(
            {
                "label": labels[one.facts.name],
                "trivial": one.facts.is_trivial,
                "picture": Picture(
                    png, _mosaic_alt(one, sheet, turned, ends), _mosaic_caption(one, sheet, turned)
                ),
                "low": f"{ends[0]:.4g}",
                "high": f"{ends[1]:.4g}",
                "unit": one.facts.unit,
                "chart": chart_svg(score_chart(one.facts, one.inside, null, one.threshold)),
                "calibrated": one.facts.is_calibrated,
                "against": null is not None,
            }
        )
    return parts


def _mosaic_alt(one: ReadScore, sheet: Sheet, turned: Upright, ends: tuple[float, float]) -> str:
    found = "nothing was segmented" if one.segmented is None else "no cluster is there"
    if one.facts.clusters:
        found = f"{len(one.facts.clusters)} clusters are outlined"
    return (
        f"{one.facts.name} over the background, {sum(map(len, sheet.chosen))} slices: "
        f"{'; '.join(sheet.places_mm(turned.affine))}. Scores from {ends[0]:.4g} to {ends[1]:.4g} are "
        f"coloured from dark purple to pale yellow; {found}."
    )


def _mosaic_caption(one: ReadScore, sheet: Sheet, turned: Upright) -> str:
    through = min(THROUGH, len(one.facts.placed))
    cut = f" Slices go through the peaks of the {through} largest clusters." if through > 1 else (
        " One slice of each plane goes through the peak of the cluster." if through else "")  # fmt: skip
    outlined = " Clusters are outlined in green." if one.facts.clusters else ""
    return (
        f"Rows: axial, coronal, sagittal. Right is on the left (R), in sagittal slices the front (A). "
        f"The highest {100 * (1 - SHOWN_FROM):.0f} % of the mask's scores are coloured.{outlined}{cut}"
    )


def _numbers(facts: ScanFacts) -> list[tuple[str, str]]:
    """Return the few numbers that stand on top, of the first score that was segmented."""
    found = [one for one in facts.maps if one.numbers]
    voxels = as_dict(facts.sidecar.get("Mask")).get("Voxels")
    shown = [(f"{voxels:,}", "voxels in the mask")] if isinstance(voxels, int) else []
    if not found:
        return [*shown, (str(len(facts.maps)), "scores, none segmented")]
    first = found[0]
    numbers = first.numbers
    shown += [
        (f"{_float(numbers.get('novel_mm3')) / 1000:.3g} ml", f"novel volume, {first.name}"),
        (str(numbers.get("clusters", 0)), f"clusters, {first.name}"),
    ]
    for key, words in (("p_volume", "as much flagged in a control"), ("p_maximum", "as high in a control")):
        if not math.isnan(_float(numbers.get(key))):
            shown.append((f"p = {_float(numbers.get(key)):.2g}", f"{words}, {first.name}"))
    return shown


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _cluster_table(one: MapFacts, label: str) -> Table:
    columns, shown, n = list(one.clusters[0].cells), one.clusters[:MOST_ROWS], len(one.clusters)
    rows = [[number(cell, 5) if _is_number(cell) else Cell(cell) for cell in cluster.cells.values()]
            for cluster in shown]  # fmt: skip
    # Without a place in its mark a row moves nothing.
    marks = [";".join([one.name, *(f"{value:.4f}" for value in cluster.peak_mm if cluster.is_placed)])
             for cluster in shown]  # fmt: skip
    names = [(column.replace("_", " "), MEANINGS.get(column, "")) for column in columns]
    caption = f"{label}: {n} cluster{'s' * (n != 1)}. A row moves the viewer to the cluster's peak."
    if n > len(shown):
        rest = f"the other {n - len(shown)} stand in {one.names.clusters.name}"
        caption += f" The first {len(shown)} are shown; {rest}."
    return Table(names, rows, caption, marks)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == "n/a"
    return True


def _files(facts: ScanFacts, folder: Path) -> Table:
    rows = []
    for one in facts.maps:
        names = one.names
        standing = [path for path in (one.novelty, names.pvalue, names.mask, names.labels, names.clusters,
                                      names.novelty_sidecar) if path.is_file()]  # fmt: skip
        rows += [[Cell(one.name), Cell(path.name, href=link(path, folder))] for path in standing]
    return Table([("score", ""), ("file", "")], rows)


def _relative(folder: Path, out: Path) -> str:
    """Return the scan's folder below the cohort's, without its last part, dwi or anat."""
    try:
        return folder.relative_to(out).parent.as_posix()
    except ValueError:
        return folder.name


__all__ = ["scan_page"]
