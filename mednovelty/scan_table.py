"""``OUT/cohort.tsv``: what is found of each scan as a whole, a line a scan and score.

Two kinds of numbers may stand there: those of scores of whole scans, such as ``cvdd``, and those of
segmentations. What is of one kind only is ``n/a`` in lines without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mednovelty.evaluation.scored import ScoredScan
from mednovelty.io.atomic import write_text_atomic
from mednovelty.outputs import OutputNames, told
from mednovelty.segment.table import number
from mednovelty.segment_files import SegmentNames
from mednovelty.text import cell

TABLE = "cohort.tsv"
SEGMENTED = ("brain_mm3", "novel_mm3", "novel_share", "clusters", "largest_mm3", "maximum", "p_maximum",
             "flagged_p", "flagged_mm3", "p_volume", "flagged_share", "p_share", "controls")  # fmt: skip
"""Columns of a segmentation, after ``threshold``, in words."""


def write_scan_scores(out: Path, scans: Iterable[Any], scores: Sequence[str]) -> None:
    """Write the table from the sidecars of those scans whose maps stand; none without scores of scans.

    Args:
        out: The folder of the maps.
        scans: Their files.
        scores: Of whole scans.

    Raises:
        OutputError: It cannot be written.
    """
    if not scores:
        return
    places = [(files.id, OutputNames.of(files, out)) for files in scans]
    found = [(name, score, _told(place.sidecar(score))) for name, place in places for score in scores]
    write_text_atomic(out / TABLE, table([(name, score, told) for name, score, told in found if told]))


def write_cohort_table(out: Path, scans: Mapping[str, ScoredScan]) -> None:
    """Write the table from all sidecars that stand, of scores of whole scans and of segmentations.

    Args:
        out: The folder of the maps.
        scans: What was found there.

    Raises:
        OutputError: It cannot be written.
    """
    lines = []
    for id, scan in scans.items():
        for score, path in sorted(scan.maps.items()):
            names = SegmentNames.beside(path)
            whole, segmented = _told(names.novelty_sidecar), told(names.sidecar)
            line = {} if whole is None else _of_scan(whole)
            line |= _of_segmentation(segmented) if segmented else {}
            if line:
                lines.append({"id": cell(id), "score": score} | line)
    write_text_atomic(out / TABLE, _joined(lines))


def table(rows: Sequence[tuple[str, str, Mapping[str, Any]]]) -> str:
    """Return tab-separated rows of id, score and what is told of it; a column a context and p-value.

    Where ``share_known`` is told, as of reports, it has a column too.

    Examples:
        >>> told = {"overall": 0.25, "p_value": 0.5, "normals": 3, "nearest_context": 0.1,
        ...         "contexts": [{"score": 0.1, "p_value": 1.0}, {"score": 0.4, "p_value": 0.25}]}
        >>> print(table([("sub-01", "cvdd", told)]).replace(chr(9), " "), end="")
        id score overall p_value normals nearest_context context_1 p_value_1 context_2 p_value_2
        sub-01 cvdd 0.25 0.5 3 0.1 0.1 1 0.4 0.25
    """
    lines = [{"id": cell(id), "score": score} | _of_scan(found) for id, score, found in rows]
    return _joined(lines, ("id", "score", "overall", "p_value", "normals", "nearest_context"))


def _of_scan(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a score of whole scans."""
    own = [
        "overall",
        "p_value",
        "normals",
        "nearest_context",
        *(["share_known"] if "share_known" in found else []),
    ]
    cells = {name: f"{found[name]:.8g}" for name in own}
    for n, context in enumerate(found["contexts"], 1):
        cells |= {f"context_{n}": f"{context['score']:.8g}", f"p_value_{n}": f"{context['p_value']:.8g}"}
    return cells


def _of_segmentation(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a segmentation."""
    numbers = found.get("Numbers", {})
    words = cell(str(found.get("Threshold", {}).get("Words", "")))
    return {"threshold": words} | {name: number(numbers.get(name)) for name in SEGMENTED}


def _joined(lines: Sequence[Mapping[str, str]], first: Sequence[str] = ("id", "score")) -> str:
    """Return a table of lines whose columns are not all the same, in the order in which columns come up."""
    columns = list(dict.fromkeys([*first, *(name for line in lines for name in line)]))
    rows = [columns, *([line.get(name, "n/a") for name in columns] for line in lines)]
    return "".join("\t".join(row) + "\n" for row in rows)


def _told(sidecar: Path) -> Mapping[str, Any] | None:
    """Return what a sidecar tells of its scan as a whole; None where there is none."""
    try:
        found = json.loads(sidecar.read_text(encoding="utf-8"))["Score"]["scan"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None


__all__ = ["TABLE", "table", "write_cohort_table", "write_scan_scores"]
