"""The page of one scan: where it is novel, how that stands to normals, and what the scan is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.evaluation.scored import named
from mednovelty.report.methods_words import methods, references, settings_rows, versions
from mednovelty.report.page import Cell, Table, link, number, render
from mednovelty.report.planes import css_gradient
from mednovelty.report.scan_facts import MapFacts, ScanFacts, as_dict
from mednovelty.report.scan_images import ReadScan
from mednovelty.report.scan_parts import explained, quality_part
from mednovelty.report.score_parts import SHOWN_FROM, score_parts, shown_instead
from mednovelty.report.viewer import ViewedScore, build_viewer

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


def scan_page(
    read: ReadScan, out: Path, made_of: str, kinds: Mapping[str, Sequence[str]] | None = None
) -> str:
    """Return the page of a scan.

    Args:
        read: Its images, and what is told of it.
        out: The folder that its cohort's page lies in.
        made_of: See ``ScanFacts.made_of``.
        kinds: By score, what must stand beside its name.
    """
    facts = read.facts
    folder = facts.page.parent
    labels = {one.name: named(one.name, (kinds or {}).get(one.name, facts.scored.kinds(one.name)))
              for one in facts.maps}  # fmt: skip
    viewer = _viewer(read, labels)
    return render(
        "scan.html",
        title=facts.id,
        cohort=link(out / "index.html", folder),
        made_of=made_of,
        warnings=[*read.left_out, *facts.warnings],
        numbers=_numbers(facts),
        viewer=viewer,
        viewed=len(viewer.facts["scores"]),
        left_out=[one.name for one in facts.maps[MOST_VIEWED:]],
        clusters=[_cluster_table(one, labels[one.name]) for one in facts.maps if one.clusters],
        segmented=[(labels[one.name], one.threshold_words) for one in facts.maps if one.segmentation],
        scores=score_parts(read, labels),
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
        viewed.append(ViewedScore(one.facts.name, labels[one.facts.name], one.facts.unit, one.values,
                                  threshold, shown_instead(one)))  # fmt: skip
    return build_viewer(read.background, read.mask, read.affine, viewed, _start_mm(read))


def _start_mm(read: ReadScan) -> tuple[float, float, float]:
    """Return where to look first: the largest cluster of the first score, else its highest voxel."""
    first = read.scores[0]
    if first.facts.placed:
        return first.facts.placed[0].peak_mm
    voxel = np.unravel_index(np.argmax(np.where(read.mask, first.values, -np.inf)), read.mask.shape)
    x, y, z = (float(value) for value in (read.affine @ [*voxel, 1.0])[:3])
    return x, y, z


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
    caption = f"{label}: {n} cluster{'s' * (n != 1)}."
    if n > len(shown):
        rest = f"the other {n - len(shown)} stand in {one.names.clusters.name}"
        caption += f" The first {len(shown)} are shown; {rest}."
    centroids = [n for n, column in enumerate(columns) if column.startswith("centroid_")]
    hint = "A row moves the viewer to the cluster's peak."
    return Table(names, rows, caption, marks, hint=hint, on_screen=centroids)


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
