"""``OUT/cohort.tsv``: what is found of each scan as a whole, a line a scan and score."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mednovelty.io.atomic import write_text_atomic
from mednovelty.outputs import OutputNames
from mednovelty.text import cell

TABLE = "cohort.tsv"


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
    known = [name for name in ("share_known",) if any(name in told for _, _, told in rows)]
    own = ("overall", "p_value", "normals", "nearest_context", *known)
    most = max((len(told["contexts"]) for _, _, told in rows), default=0)
    each = [f"{name}_{k + 1}" for k in range(most) for name in ("context", "p_value")]
    lines = [["id", "score", *own, *each]]
    for name, score, told in rows:
        of_contexts = [context[key] for context in told["contexts"] for key in ("score", "p_value")]
        numbers = [f"{value:.8g}" for value in [*(told[key] for key in own), *of_contexts]]
        lines.append([cell(name), score, *numbers])
    return "".join("\t".join(line) + "\n" for line in lines)


def _told(sidecar: Path) -> Mapping[str, Any] | None:
    """Return what a sidecar tells of its scan as a whole; None where there is none."""
    try:
        return json.loads(sidecar.read_text(encoding="utf-8"))["Score"]["scan"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


__all__ = ["TABLE", "table", "write_scan_scores"]
