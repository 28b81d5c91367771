"""All protocols in one table: our best label-free score, the paper's, the difference, a trivial one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mednovelty.benchmarks.beside_table import beside
from mednovelty.benchmarks.cell_files import Record
from mednovelty.benchmarks.comparison import (
    MEAN,
    SPREAD,
    Entry,
    Row,
    markdown,
    number_words,
    printed_mean,
    rows_of,
)
from mednovelty.benchmarks.libraries import LIBRARIES
from mednovelty.benchmarks.paper_tables import TableSettings
from mednovelty.benchmarks.plan import Plan
from mednovelty.benchmarks.shown_labels import paper_was_shown

NONE = "none"
HEAD = (
    "Our best is the row of ours with the best mean over classes, of those that were run without labels: "
    "that it is the best is known from the test. The paper's number is that of the same row; where the paper "
    "lacks it, its best one. †: with settings that are not the protocol's own; the table itself says which."
)


@dataclass(frozen=True)
class MadeRun:
    """What came of one run of ``bench``.

    Attributes:
        command: As it can be typed.
        records: Of its cells that are done.
        cells: How many there are.
        notes: What its table tells first.
        oracle: Whether labels chose.
    """

    command: str
    records: tuple[Record, ...]
    cells: int
    notes: tuple[str, ...] = ()
    oracle: bool = False


@dataclass(frozen=True)
class MadeTable:
    """What came of one table.

    Attributes:
        settings: Which was asked for.
        plan: Of its protocol; None where nothing of it was run.
        runs: In order.
        failures: Messages.
    """

    settings: TableSettings
    plan: Plan | None = None
    runs: tuple[MadeRun, ...] = ()
    failures: tuple[str, ...] = ()


def summary(tables: Sequence[MadeTable], machine: str) -> str:
    """Return everything as Markdown, the table of all protocols first."""
    lines = [
        "# Papers' tables",
        "",
        f"{HEAD} Machine: {machine}.",
        "",
        "| protocol | data | our best label-free score | ours | the paper's | difference | trivial |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for table in tables:
        lines += summary_rows(table)
    for table in tables:
        lines += ["", *_own(table)]
    return "\n".join(lines).rstrip() + "\n"


def summary_rows(table: MadeTable) -> list[str]:
    """Return a table's rows of the summary, one a data set."""
    own, plan = table.settings, table.plan
    rows = [row for row in _rows(table, oracle=False) if row.key[1] == own.metric]
    if plan is None or not rows:
        return [f"| {own.name} | | not run | | | | |"]
    lines = []
    for dataset in dict.fromkeys(row.key[0] for row in rows):
        here = [row for row in rows if row.key[0] == dataset]
        candidates = [row for row in here if label_free(table, row)]
        # Of a grid that is not done yet, rows with fewer classes are none to compare with.
        most = max((len(row.entries) for row in candidates), default=0)
        best = _best([row for row in candidates if len(row.entries) == most], own.lower_is_better)
        labels = [label for label in plan.classes if best is None or label in best.entries]
        trivial = [_over(row, labels) for row in here if own.is_trivial(row.key)]
        beaten = _best([row for row in trivial if row is not None], own.lower_is_better)
        some = "" if len(labels) == len(plan.classes) else f", {len(labels)} of {len(plan.classes)} classes"
        metric = "" if own.metric == "auroc" else f", {own.metric}"
        told = (f"{own.name} ({plan.paper}, {plan.tables})", f"{dataset}{some}{metric}",
                *_against_paper(table, best, dataset, labels), _named(beaten))  # fmt: skip
        lines.append(f"| {' | '.join(told)} |")
    return lines


def label_free(table: MadeTable, row: Row) -> bool:
    """Whether a row is ours, not trivial, and of a method that no label has reached."""
    method = row.key[2]
    foreign = method.split("_")[0] in LIBRARIES
    told = method in table.settings.not_label_free
    return not (foreign or told or row.shown or table.settings.is_trivial(row.key))


def _against_paper(
    table: MadeTable, best: Row | None, dataset: str, labels: Sequence[str]
) -> tuple[str, ...]:
    """Return our best score, its number, the paper's, and the difference, in words."""
    if best is None:
        return NONE, "", "", ""
    entry = best.entries[MEAN]
    spread = "" if entry.spread is None else f" ± {number_words(entry.spread)}"
    ours = (f"{best.method_words} `{best.key[3]}`", f"{number_words(entry.ours)}{spread}")
    top = _papers_best(table, dataset, labels)
    if entry.paper is not None:
        higher = (
            "" if top is None or top[0] == entry.paper else f"; its best {number_words(top[0])} ({top[1]})"
        )
        return (
            *ours,
            f"{number_words(entry.paper)}{higher}",
            number_words(entry.ours - entry.paper, sign=True),
        )
    if top is None:
        return *ours, "has none", ""
    difference = number_words(entry.ours - top[0], sign=True)
    return *ours, f"{number_words(top[0])} ({top[1]})", difference


def _papers_best(table: MadeTable, dataset: str, labels: Sequence[str]) -> tuple[float, str] | None:
    """Return the best mean that the paper has over these classes without labels, and what it calls it."""
    own, plan = table.settings, table.plan
    assert plan is not None
    found = [
        (mean, row.name)
        for row in plan.published
        if (row.dataset, row.metric) == (dataset, own.metric) and row.method not in own.not_label_free
        and not paper_was_shown(plan, row)
        and (mean := printed_mean(plan, row, labels)) is not None
    ]  # fmt: skip
    return (min if own.lower_is_better else max)(found, default=None)


def _named(row: Row | None) -> str:
    return (
        NONE if row is None else f"{number_words(row.entries[MEAN].ours)} ({row.method_words} `{row.key[3]}`)"
    )


def _over(row: Row, labels: Sequence[str]) -> Row | None:
    """Return a row whose mean is over these classes; None where it lacks one."""
    if not all(label in row.entries for label in labels):
        return None
    mean = Entry(statistics.fmean(row.entries[label].ours for label in labels))
    return replace(row, entries={**row.entries, MEAN: mean})


def _best(rows: Sequence[Row], lower: bool) -> Row | None:
    sign = -1 if lower else 1
    return max(rows, key=lambda row: sign * row.entries[MEAN].ours, default=None)


def _rows(table: MadeTable, *, oracle: bool) -> list[Row]:
    if table.plan is None:
        return []
    records = [record for run in table.runs if run.oracle == oracle for record in run.records]
    return rows_of(table.plan, records)


def _own(table: MadeTable) -> list[str]:
    """Return a protocol's own tables, with commands and seconds, and what falls short."""
    lines = [f"# {table.settings.name}", ""]
    for run in table.runs:
        seconds = sum(record.seconds for record in run.records)
        where = ", ".join(dict.fromkeys(record.device for record in run.records)) or "nowhere yet"
        done = f"{len(run.records)} of {run.cells} cells, {seconds:.0f} s by the clock, on {where}."
        lines += [f"    {run.command}", "", done, ""]
    lines += [f"- not run: {message}" for message in table.failures]
    if table.plan is None:
        return lines
    for oracle in (False, True):
        runs = [run for run in table.runs if run.oracle == oracle and run.records]
        if runs:
            records = [record for run in runs for record in run.records]
            notes = dict.fromkeys(note for run in runs for note in run.notes)
            text = markdown(table.plan, records, oracle=oracle, notes=notes, shortfalls=False)
            lines += ["", text.rstrip(), "", beside(table.plan, records).rstrip()]
    return [*lines, *shortfalls(table)]


def shortfalls(table: MadeTable) -> list[str]:
    """Return a line for each row that falls short of its paper, with the sentence for it."""
    lines, used = [], set()
    for row in (*_rows(table, oracle=False), *_rows(table, oracle=True)):
        short = {label: entry for label, entry in row.entries.items() if entry.short}
        if not short:
            continue
        said = table.settings.reason(row.key)
        used |= {said[0]} if said else set()
        where = "; ".join(f"{label}: {entry.words()}" for label, entry in short.items())
        why = said[1] if said else "**No sentence says why.**"
        lines.append(f"- {row.key[0]}, {row.key[1]}, {row.method_words} by `{row.key[3]}`. {where}. {why}")
    unused = [name for name in table.settings.why if name not in used]
    found = ["", f"Worse than the paper by more than {SPREAD}:", "", *lines] if lines else []
    if unused:
        told = ", ".join(f"`{name}`" for name in unused)
        found += ["", f"There are sentences for what does not fall short, or was not run: {told}."]
    return found


def with_run(table: MadeTable, plan: Plan, run: MadeRun, failures: Sequence[str]) -> MadeTable:
    """Return a table with one more run."""
    return replace(table, plan=plan, runs=(*table.runs, run), failures=(*table.failures, *failures))


__all__ = ["MadeRun", "MadeTable", "label_free", "shortfalls", "summary", "summary_rows", "with_run"]
