"""Ours beside the paper's: a table a data set and metric, which settings were changed, what falls short."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mednovelty.benchmarks.cell_files import Record
from mednovelty.benchmarks.number_words import number_words
from mednovelty.benchmarks.plan import Plan
from mednovelty.benchmarks.published import Metric
from mednovelty.benchmarks.table_rows import MARK, MEAN, Entry, Key, Row, printed_mean, rows_of

ORACLE = "**Chosen by labels of the test (`--oracle`), as papers do: not to be had without them.**"

SPREAD = "the larger of the two spreads (at least .005; of percentages .5)"

UNSURE = (
    "?: it is not known that the paper's number is of this very metric; it is told, and nothing is counted "
    "as falling short of it."
)


def markdown(
    plan: Plan,
    records: Sequence[Record],
    *,
    oracle: bool,
    notes: Iterable[str] = (),
    swept: bool = False,
    shortfalls: bool = True,
) -> str:
    """Return all tables as Markdown, what falls short of the paper below them.

    Args:
        plan: Of the protocol.
        records: Of the cells that are done.
        oracle: Whether variants were chosen by the test.
        notes: Sentences that come first.
        swept: Whether each variant is a row.
        shortfalls: Tell what falls short.
    """
    rows = rows_of(plan, records, swept=swept)
    lines = [f"## {plan.name}: {plan.title}", "", f"{plan.paper}, {plan.tables}. Ours, mean ± standard "
             "deviation over seeds; in brackets the paper's and the difference."]  # fmt: skip
    lines += [ORACLE] if oracle else []
    lines += [*([plan.note] if plan.note else []), *notes, ""]
    for group in dict.fromkeys(row.key[:2] for row in rows):
        lines += [*_table(plan, [row for row in rows if row.key[:2] == group]), ""]
    lines += _shortfalls(plan, rows) if shortfalls else []
    return "\n".join(lines).rstrip() + "\n"


def _table(plan: Plan, rows: Sequence[Row]) -> list[str]:
    dataset, metric = rows[0].key[:2]
    labels = [label for label in plan.classes if any(label in row.entries for row in rows)]
    words = plan.metrics.get(metric, Metric()).words
    own = not_own(plan, rows)
    here = [row for row in plan.published if (row.dataset, row.metric) == (dataset, metric)]
    lines = [
        f"### {dataset}, {metric}",
        "",
        *((words, "") if words else ()),
        *((UNSURE, "") if any(row.unsure for row in here) else ()),
        *((own, "") if own else ()),
        "| method | score | " + " | ".join([*labels, MEAN]) + " |",
        "| --- " * (len(labels) + 3) + "|",
    ]
    for row in rows:
        cells = [row.entries[label].words() if label in row.entries else "" for label in (*labels, MEAN)]
        score = f"`{row.key[3]}`" + (f", {row.name}" if row.name else "")
        lines.append(f"| {row.method_words} | {score} | " + " | ".join(cells) + " |")
    there = {row.key[2:] for row in rows}
    absent = [
        f"{row.name} (`{row.method}`{_mean_words(mean, row.unsure)})"
        for row in here
        if (row.method, row.score) not in there
        for mean in (printed_mean(plan, row, labels),)
    ]
    return lines + (["", f"In the paper and not run: {', '.join(absent)}."] if absent else [])


def _mean_words(mean: float | None, unsure: bool) -> str:
    return "" if mean is None else f", mean {number_words(mean)}{'?' if unsure else ''}"


def not_own(plan: Plan, rows: Sequence[Row]) -> str:
    """Return which settings, classes and seeds of a table are not the protocol's own; empty: none.

    Args:
        plan: Of the protocol.
        rows: Of one table.
    """
    by_words: dict[str, list[str]] = {}
    for row in rows:
        by_words.setdefault(", ".join(change.words for change in row.changed), []).append(f"`{row.key[2]}`")
    one = len(by_words) == 1
    parts = [words if one else f"{words} of {', '.join(dict.fromkeys(methods))}"
             for words, methods in by_words.items() if words]  # fmt: skip
    mark = f"{MARK.strip()}: " if parts else ""
    labels = [label for label in plan.classes if any(label in row.entries for row in rows)]
    # Of sets that anybody brings, nobody has all.
    if len(labels) < len(plan.classes) and not plan.outside:
        parts.append(f"classes {', '.join(labels)} of {len(plan.classes)}")
    counts = sorted({row.seeds for row in rows})
    if counts != [plan.seeds]:
        parts.append(f"seeds {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} ({plan.seeds})")
    return f"{mark}Not the protocol's own: {'; '.join(parts)}." if parts else ""


def _shortfalls(plan: Plan, rows: Sequence[Row]) -> list[str]:
    found: dict[bool, list[str]] = {}
    for row in rows:
        # AUROC is known to all; another metric is named.
        metric = f", {row.key[1]}" if row.key[1] in plan.metrics else ""
        for label, entry in row.entries.items():
            if entry.short:
                where = f"{row.key[0]}, {row.method_words} by `{row.key[3]}`{metric}, {label}"
                found.setdefault(entry.lower_is_better, []).append(f"- {where}: {entry.words()}")
    below, above = found.get(False, []), found.get(True, [])
    lines = [f"Below the paper by more than {SPREAD}:", "", *below, ""] if below else []
    worse = f"Above the paper by more than {SPREAD}, where lower is better:"
    return lines + ([worse, "", *above, ""] if above else [])


__all__ = [
    "MARK",
    "MEAN",
    "ORACLE",
    "SPREAD",
    "UNSURE",
    "Entry",
    "Key",
    "Row",
    "markdown",
    "not_own",
    "number_words",
    "printed_mean",
    "rows_of",
]
