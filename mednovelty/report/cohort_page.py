"""The page of a folder of maps: every scan in one table, and how they stand to calibration scans."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.errors import MedNoveltyError
from mednovelty.io.mask import read_mask
from mednovelty.io.nifti import read_volume
from mednovelty.outputs import told
from mednovelty.report.cohort_charts import charts_of
from mednovelty.report.evaluation_part import evaluation_part
from mednovelty.report.page import Cell, Table, link, number, render
from mednovelty.report.scan_facts import MapFacts, ScanFacts, as_dict, as_list

INDEX = "index.html"
COLUMNS = (
    ("scan", "leads to its page"),
    ("score", "of which score the numbers are"),
    ("novel ml", "volume of its clusters"),
    ("% of mask", "share of the mask that is in clusters"),
    ("clusters", ""),
    ("largest ml", "volume of the largest cluster"),
    ("p, volume", "share of calibration scans, and this one, of which as much is flagged"),
    ("p, highest", "share of calibration scans, and this one, whose highest score is as high"),
    ("highest", "highest score in the mask"),
    ("warnings", "of this scan, on its page"),
)
WHOLE = (("scan score", "of the scan as a whole"), ("p, scan", "of the scan as a whole"))
"""Further columns where a score judges scans as a whole."""


def cohort_page(
    out: Path,
    scans: Sequence[ScanFacts],
    failures: Mapping[str, str] | None = None,
    left_out: Sequence[str] = (),
) -> str:
    """Return the page of a folder of maps.

    Args:
        out: The folder.
        scans: Its scans.
        failures: By scan id, why its page could not be made.
        left_out: What is missing on pages that could be made.

    What is damaged of the run's own files, its evaluation or calibration, is named in its place.
    """
    run = told(out / "run.json") or {}
    rows = [row for scan in scans for row in _rows(scan, out, scan.id in (failures or {}))]
    with_whole = any(len(cells) > len(COLUMNS) for _, cells in rows)
    columns = [*COLUMNS, *(WHOLE if with_whole else ())]
    filled = [[*cells, *[number("n/a")] * (len(columns) - len(cells))] for _, cells in rows]
    charts, without_charts = charts_of(out, scans)
    table = Table(columns, filled, marks=[score for score, _ in rows])
    return render(
        "cohort.html",
        title=f"Novelty maps: {out.resolve().name}",
        numbers=_numbers(scans, run),
        table=table,
        scores=list(dict.fromkeys(score for score, _ in rows)),
        charts=charts,
        without_charts=without_charts,
        evaluation=evaluation_part(out / "evaluation", scans),
        failed=_failed(run),
        pages_failed=list((failures or {}).items()),
        not_reached=[str(id) for id in as_list(run.get("NotReached"))],
        ended_by=_ended_by(run),
        skipped=_skipped(run),
        warnings=[*left_out, *_warnings(scans)],
        run=_run_rows(run),
    )


def _rows(scan: ScanFacts, out: Path, without_page: bool) -> list[tuple[str, list[Cell]]]:
    """Return a row for each score that was segmented or judges scans, else one for the first score."""
    told_of = [one for one in scan.maps if one.numbers or _whole(one)] or list(scan.maps[:1])
    href = "" if without_page else link(scan.page, out)
    return [(one.name, _cells(scan, one, href)) for one in told_of]


def _cells(scan: ScanFacts, one: MapFacts, href: str) -> list[Cell]:
    numbers, count = one.numbers, len(scan.warnings)
    cells = [
        Cell(scan.id, href=href),
        Cell(one.name),
        number(_times(numbers.get("novel_mm3"), 1e-3), 3),
        number(_times(numbers.get("novel_share"), 100), 3),
        number(numbers.get("clusters"), 6),
        number(_times(numbers.get("largest_mm3"), 1e-3), 3),
        number(numbers.get("p_volume"), 2),
        number(numbers.get("p_maximum"), 2),
        number(numbers["maximum"] if "maximum" in numbers else _highest(scan, one), 4),
        Cell(str(count) if count else "none", float(count)),
    ]
    whole = _whole(one)
    if whole:
        cells += [number(whole.get("overall"), 4), number(whole.get("p_value"), 2)]
    return cells


def _highest(scan: ScanFacts, one: MapFacts) -> float:
    """Read the highest score in the mask, which no file tells of a map that was not segmented."""
    try:
        volume = read_volume(one.novelty)
        mask, _ = read_mask(scan.scored.brain, volume.grid, volume.name)
    except MedNoveltyError:
        return math.nan  # Its own page says what is wrong.
    values = volume.data[0][mask]
    return float(values.max()) if np.isfinite(values).all() else math.nan


def _whole(one: MapFacts) -> Mapping[str, Any]:
    return as_dict(one.score.get("scan"))


def _times(value: Any, factor: float) -> float:
    return float(value) * factor if isinstance(value, int | float) else math.nan


def _numbers(scans: Sequence[ScanFacts], run: Mapping[str, Any]) -> list[tuple[str, str]]:
    failed = [one for one in as_list(run.get("Scans")) if as_dict(one).get("status") == "failed"]
    segmented = [scan for scan in scans if any(one.numbers for one in scan.maps)]
    found = [scan for scan in scans if any(one.clusters for one in scan.maps)]
    shown = [(str(len(scans)), "scans with maps"), (str(len(failed)), "failed in the last run")]
    if segmented:
        shown.append((f"{len(found)} of {len(segmented)}", "scans with a cluster, by any score"))
    warned = sum(bool(scan.warnings) for scan in scans)
    return [*shown, (str(warned), "scans with warnings")]


def _failed(run: Mapping[str, Any]) -> Table | None:
    rows = []
    for one in as_list(run.get("Scans")):
        facts = as_dict(one)
        if facts.get("status") == "failed":
            rows.append([Cell(str(facts.get(key) or "")) for key in ("id", "code", "message")])
    return Table([("scan", ""), ("code", ""), ("why", "")], rows) if rows else None


def _ended_by(run: Mapping[str, Any]) -> str:
    told_of = as_dict(run.get("EndedBy"))
    return ": ".join(str(told_of[key]) for key in ("Kind", "Message") if told_of.get(key))


def _skipped(run: Mapping[str, Any]) -> Table | None:
    rows = [[Cell(Path(str(as_dict(one).get("path"))).name), Cell(str(as_dict(one).get("why")))]
            for one in as_list(run.get("Skipped"))]  # fmt: skip
    return Table([("file", ""), ("why", "")], rows) if rows else None


def _warnings(scans: Sequence[ScanFacts]) -> list[str]:
    """Return warnings that many scans share once, with how many they are of."""
    found: dict[str, list[str]] = {}
    for scan in scans:
        for text in scan.warnings:
            found.setdefault(text, []).append(scan.id)
    return [f"{ids[0]}: {text}" if len(ids) == 1 else f"{len(ids)} scans, {ids[0]} among them: {text}"
            for text, ids in found.items()]  # fmt: skip


def _run_rows(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = (("Command", "command"), ("Finished", "finished"), ("ExitCode", "exit code"),
             ("DetectorSha256", "detector sha256"), ("SettingsSha256", "settings sha256"))  # fmt: skip
    return [(words, str(run[key])) for key, words in names if run.get(key) not in (None, "")]


__all__ = ["INDEX", "cohort_page"]
