"""Ours and those of other libraries in one table: AUROC and seconds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from mednovelty.benchmarks.cell_files import Record
from mednovelty.benchmarks.comparison import MEAN, rows_of
from mednovelty.benchmarks.plan import Plan

METRIC = "auroc"
HOW = (
    "The same images, classes and seeds for all; no detector sees a label but those of which it is said. "
    "Seconds are of a whole cell by the clock, of other libraries with another Python started and images "
    "written for it; `fit` and `score` are those of the other library alone. A process' first cell reads "
    "the images for those after it, and where one training is for all classes, the first cell has it. "
    "Ours are of all scores of a method. PyOD has its own default settings and sees pixels as numbers. "
    "anomalib has a ResNet-18 with random weights, since none are downloaded; in its papers the weights "
    "are those of ImageNet."
)


def beside(plan: Plan, records: Sequence[Record]) -> str:
    """Return the tables as Markdown, one a data set; empty where no other library was run."""
    theirs = {record.cell.method: record for record in records if "library" in record.told}
    if not theirs:
        return ""
    lines = ["## Beside other libraries", "", HOW, ""]
    rows = [row for row in rows_of(plan, records) if row.key[1] == METRIC]
    for dataset in dict.fromkeys(row.key[0] for row in rows):
        lines += [f"### {dataset}, {METRIC} and seconds", "",
                  "| by | method | score | AUROC | seconds a cell | fit | score |",
                  "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
        own = [row for row in rows if row.key[0] == dataset]
        for row in sorted(own, key=lambda row: -row.entries[MEAN].ours):
            cells, entry = row.records, row.entries[MEAN]
            spread = "" if entry.spread is None else f" ± {entry.spread:.3f}"
            seconds = f"{statistics.fmean(record.seconds for record in cells):.1f}"
            words = (_by(cells[0]), row.method_words, f"`{row.key[3]}`", f"{entry.ours:.3f}{spread}")
            parts = (*words, seconds, *(_part(cells, key) for key in ("fit_seconds", "score_seconds")))
            lines.append(f"| {' | '.join(parts)} |")
        lines.append("")
    return "\n".join([*lines, *_with(theirs), ""])


def _by(record: Record) -> str:
    name = record.told.get("library", "mednovelty")
    return f"{name} {record.versions.get(name, 'of unknown version')}"


def _part(cells: Sequence[Record], key: str) -> str:
    found = [record.told[key] for record in cells if key in record.told]
    return f"{statistics.fmean(found):.1f}" if found else ""


def _with(theirs: dict[str, Record]) -> list[str]:
    """Return what each library ran with, and how many images a detector saw."""
    lines = []
    for name, record in theirs.items():
        versions = ", ".join(f"{key} {value}" for key, value in record.told.get("versions", {}).items())
        backbone = f"; {record.told['backbone']}" if "backbone" in record.told else ""
        lines.append(
            f"- `{name}`: fitted on {record.told.get('fitted_on', '?')} images, on {record.told.get('where')}"
            f"{backbone}; {versions}; {record.device}"
        )
    return lines


__all__ = ["beside"]
