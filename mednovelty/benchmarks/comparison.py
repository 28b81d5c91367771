"""Ours beside the paper's: a table a data set and metric, means over seeds, differences, what falls short."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mednovelty.benchmarks.cell_files import Record
from mednovelty.benchmarks.plan import Plan
from mednovelty.benchmarks.published import Metric, Published

ORACLE = "**Chosen by labels of the test (`--oracle`), as papers do: not to be had without them.**"
MEAN = "mean"
Key = tuple[str, str, str, str]
"""Data set, metric, method, score."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One number of a table.

    Attributes:
        ours: Mean over seeds; of the column of means, over classes of those means.
        spread: Standard deviation over seeds; None of a single one.
        paper: The paper's number; None where it has none.
        paper_spread: Its standard deviation, where the paper has one.
        lower_is_better: Whether less is better.
    """

    ours: float
    spread: float | None = None
    paper: float | None = None
    paper_spread: float | None = None
    lower_is_better: bool = False

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.paper is None else self.ours - self.paper

    @property
    def short(self) -> bool:
        """Whether ours is worse than the paper's by more than both spreads, of which .005 is the least."""
        if self.difference is None:
            return False
        gain = -self.difference if self.lower_is_better else self.difference
        return gain < -max(self.spread or 0, self.paper_spread or 0, 0.005)

    def words(self) -> str:
        """Return it as a cell of a table: ``.974 ± .003 (.922, +.052)``."""
        told = number_words(self.ours) + (
            f" ± {number_words(self.spread)}" if self.spread is not None else ""
        )
        if self.paper is None or self.difference is None:
            return told
        return f"{told} ({number_words(self.paper)}, {number_words(self.difference, sign=True)})"


@dataclass(frozen=True)
class Row:
    """A method's score over all classes.

    Attributes:
        key: Data set, metric, method, score.
        entries: By class, and ``mean``.
        name: What the paper calls it; empty where it does not have it.
        variant: What the oracle has chosen, or which settings of a sweep these are.
    """

    key: Key
    entries: dict[str, Entry] = field(default_factory=dict)
    name: str = ""
    variant: str = ""


def rows_of(plan: Plan, records: Sequence[Record], *, swept: bool = False) -> list[Row]:
    """Return the rows of all tables, in the order of the paper's, what it does not have after that.

    Args:
        plan: Of the protocol.
        records: Of the cells that are done.
        swept: Whether each variant is a row; else, of several, of which an oracle knows the test, the one
            whose mean is best.
    """
    found: dict[Key, dict[str, dict[str, list[float]]]] = {}
    for record in records:
        cell = record.cell
        for score, value, metric in record.measured:
            key = (cell.dataset, metric, cell.method, score)
            of_variant = found.setdefault(key, {}).setdefault(cell.variant, {})
            of_variant.setdefault(cell.label, []).append(value)
    printed = {(row.dataset, row.metric, row.method, row.score): row for row in plan.published}
    order = {key: number for number, key in enumerate(printed)}
    usual = _usual(plan, records) if swept else set()
    rows = []
    for key, variants in found.items():
        if not swept:
            rows.append(_row(plan, key, variants, printed.get(key)))
            continue
        for name, one in variants.items():
            # The paper has but one of the settings.
            papers = printed.get(key) if (key[0], key[2], name) in usual else None
            rows.append(_row(plan, key, {name: one}, papers))
    # Sorting keeps what is alike in its order: variants stay in that of the sweep.
    return sorted(rows, key=lambda row: (row.key[:2], order.get(row.key, len(order))))


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


def _row(plan: Plan, key: Key, variants: dict[str, dict[str, list[float]]], printed: Published | None) -> Row:
    means = {name: _mean_of_means(by_label) for name, by_label in variants.items()}
    lower = plan.metrics.get(key[1], Metric()).lower_is_better
    variant = max(means, key=lambda name: (-means[name] if lower else means[name], name))
    by_label = variants[variant]
    values, spreads = (printed.values, printed.spreads) if printed else ({}, {})
    entries = {
        label: Entry(statistics.fmean(by_label[label]), _spread(by_label[label]), values.get(label),
                     spreads.get(label), lower)
        for label in plan.classes
        if label in by_label
    }  # fmt: skip
    paper = printed_mean(plan, printed, by_label)
    entries[MEAN] = Entry(means[variant], _spread_of_means(by_label), paper, None, lower)
    return Row(key, entries, printed.name if printed else "", variant)


def _usual(plan: Plan, records: Sequence[Record]) -> set[tuple[str, str, str]]:
    """Return data sets, methods and variants whose swept settings are those of the protocol."""
    found = set()
    for record in records:
        cell = record.cell
        own = plan.settings_for(cell.dataset, cell.method, {})
        swept = [part.partition("=")[0] for part in cell.variant.split(",")]
        if all(record.settings.get(name) == own.get(name) for name in swept):
            found.add((cell.dataset, cell.method, cell.variant))
    return found


def printed_mean(plan: Plan, printed: Published | None, seen: Iterable[str]) -> float | None:
    """Return the paper's mean over the classes that were run; None where it prints only that of all."""
    if printed is None:
        return None
    labels = list(seen)
    if all(label in printed.values for label in labels):
        return statistics.fmean(printed.values[label] for label in labels)
    return printed.mean if set(labels) == set(plan.classes) else None


def _mean_of_means(by_label: dict[str, list[float]]) -> float:
    return statistics.fmean(statistics.fmean(values) for values in by_label.values())


def _spread_of_means(by_label: dict[str, list[float]]) -> float | None:
    """Return how the mean over classes differs from seed to seed, where all classes have as many."""
    counts = {len(values) for values in by_label.values()}
    if len(counts) != 1 or counts == {1}:
        return None
    return _spread([statistics.fmean(of_seed) for of_seed in zip(*by_label.values(), strict=True)])


def _spread(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _table(plan: Plan, rows: Sequence[Row]) -> list[str]:
    dataset, metric = rows[0].key[:2]
    labels = [label for label in plan.classes if any(label in row.entries for row in rows)]
    words = plan.metrics.get(metric, Metric()).words
    lines = [
        f"### {dataset}, {metric}",
        "",
        *((words, "") if words else ()),
        "| method | score | " + " | ".join([*labels, MEAN]) + " |",
        "| --- " * (len(labels) + 3) + "|",
    ]
    for row in rows:
        cells = [row.entries[label].words() if label in row.entries else "" for label in (*labels, MEAN)]
        method = f"`{row.key[2]}`" + (f" ({row.variant})" if row.variant else "")
        score = f"`{row.key[3]}`" + (f", {row.name}" if row.name else "")
        lines.append(f"| {method} | {score} | " + " | ".join(cells) + " |")
    there = {row.key[2:] for row in rows}
    absent = [
        f"{row.name} (`{row.method}`)"
        for row in plan.published
        if (row.dataset, row.metric) == (dataset, metric) and (row.method, row.score) not in there
    ]
    return lines + (["", f"In the paper and not run: {', '.join(absent)}."] if absent else [])


def _shortfalls(plan: Plan, rows: Sequence[Row]) -> list[str]:
    found: dict[bool, list[str]] = {}
    for row in rows:
        # AUROC is known to all; another metric is named.
        metric = f", {row.key[1]}" if row.key[1] in plan.metrics else ""
        method = f"`{row.key[2]}`" + (f" ({row.variant})" if row.variant else "")
        for label, entry in row.entries.items():
            if entry.short:
                told = f"- {row.key[0]}, {method} by `{row.key[3]}`{metric}, {label}: {entry.words()}"
                found.setdefault(entry.lower_is_better, []).append(told)
    below, above = found.get(False, []), found.get(True, [])
    lines = ["Below the paper by more than the spread:", "", *below, ""] if below else []
    return lines + (["Above the paper, where lower is better:", "", *above, ""] if above else [])


def number_words(value: float, *, sign: bool = False) -> str:
    """Return a share with three digits, without the 0 before the point, as the tables have it.

    Examples:
        >>> number_words(0.974), number_words(1.0), number_words(-0.0201), number_words(14.18)
        ('.974', '1.000', '-.020', '14.18')
        >>> number_words(0.05, sign=True)
        '+.050'
    """
    if math.isnan(value):
        return "nan"
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    if abs(value) >= 10:
        return f"{value:+.2f}" if sign else f"{value:.2f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


__all__ = ["MEAN", "ORACLE", "Entry", "Key", "Row", "markdown", "number_words", "printed_mean", "rows_of"]
