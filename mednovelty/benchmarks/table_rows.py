"""The rows of a protocol's tables: means over cells that differ in class and seed alone, the paper's beside.

Cells with different settings are different rows, whatever run they are of, and a cell that was run twice with
the same settings is one. Of several variants an oracle takes one, for all metrics of a score: that with the
best mean AUROC, of those that have all classes and seeds that any of them has.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from mednovelty.benchmarks.cell_files import Record
from mednovelty.benchmarks.changed_settings import Change, changes
from mednovelty.benchmarks.number_words import number_words
from mednovelty.benchmarks.plan import Plan
from mednovelty.benchmarks.published import Metric, Published
from mednovelty.benchmarks.shown_labels import shown

MEAN = "mean"
CHOOSES = "auroc"
"""The metric by which an oracle chooses, where a score has it."""
INCOMPLETE = "no variant has all classes and seeds"
MARK = " †"
"""Stands behind a row whose settings are not the protocol's own."""
Key = tuple[str, str, str, str]
"""Data set, metric, method, score."""
Values = dict[str, dict[int, float]]
"""By class and seed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One number of a table.

    Attributes:
        ours: Mean over seeds; of the column of means, over classes of those means.
        spread: Standard deviation over seeds; None of a single one.
        paper: The paper's number; None where it has none.
        paper_spread: Its standard deviation, where the paper has one.
        lower_is_better: Whether less is better.
        least: A difference that is none.
        unsure: Whether the paper's may be of another metric: then nothing falls short of it.
    """

    ours: float
    spread: float | None = None
    paper: float | None = None
    paper_spread: float | None = None
    lower_is_better: bool = False
    least: float = 0.005
    unsure: bool = False

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.paper is None else self.ours - self.paper

    @property
    def short(self) -> bool:
        """Whether ours is worse by more than the larger of the two spreads, and at least by ``least``."""
        if self.difference is None or self.unsure:
            return False
        gain = -self.difference if self.lower_is_better else self.difference
        return gain < -max(self.spread or 0, self.paper_spread or 0, self.least)

    def words(self) -> str:
        """Return it as a cell of a table: ``.974 ± .003 (.922, +.052)``."""
        told = number_words(self.ours) + (
            f" ± {number_words(self.spread)}" if self.spread is not None else ""
        )
        if self.paper is None or self.difference is None:
            return told
        doubt = "?" if self.unsure else ""
        return f"{told} ({number_words(self.paper)}{doubt}, {number_words(self.difference, sign=True)})"


@dataclass(frozen=True)
class Row:
    """A method's score over all classes.

    Attributes:
        key: Data set, metric, method, score.
        entries: By class, and ``mean``.
        name: What the paper calls it; empty where it does not have it.
        variant: What the oracle has chosen, or which settings of a sweep these are.
        records: Of its cells.
        changed: Settings that are not the protocol's own.
        twin: Whether the method is there with other settings too.
        seeds: How many, of the class that has most.
        shown: What the method was shown, as outliers; empty of a label-free one.
        incomplete: Whether an oracle had no variant that has all cells to choose from.
    """

    key: Key
    entries: dict[str, Entry] = field(default_factory=dict)
    name: str = ""
    variant: str = ""
    records: tuple[Record, ...] = ()
    changed: tuple[Change, ...] = ()
    twin: bool = False
    seeds: int = 1
    shown: str = ""
    incomplete: bool = False

    @property
    def method_words(self) -> str:
        """The method with its variant, as tables have it, marked where settings were changed."""
        apart = ", ".join(change.words for change in self.changed) or "as the protocol has it"
        partly = INCOMPLETE if self.incomplete else ""
        parts = [part for part in (self.variant, partly, apart if self.twin else "", self.shown) if part]
        told = f" ({'; '.join(parts)})" if parts else ""
        return f"`{self.key[2]}`{told}{MARK if self.changed else ''}"


@dataclass
class _Group:
    """Cells of a method with the same settings, but for those that a variant has."""

    changed: tuple[Change, ...]
    shown: str
    records: dict[str, list[Record]] = field(default_factory=dict)
    values: dict[tuple[str, str], dict[str, Values]] = field(default_factory=dict)
    """By score and metric, then variant."""


class _Choice(NamedTuple):
    """What an oracle took, and whether any variant has the cells of all."""

    variant: str
    whole: bool = True


def rows_of(plan: Plan, records: Sequence[Record], *, swept: bool = False) -> list[Row]:
    """Return the rows of all tables, in the order of the paper's, what it does not have after that.

    Args:
        plan: Of the protocol.
        records: Of the cells that are done.
        swept: Whether each variant is a row; else, of several, of which an oracle knows the test, the one
            whose mean is best.
    """
    printed = {(row.dataset, row.metric, row.method, row.score): row for row in plan.published}
    order = {key: number for number, key in enumerate(printed)}
    usual = _usual(plan, records) if swept else set()
    rows = []
    for (dataset, method), groups in _groups(plan, records).items():
        for group in groups:
            for (score, metric), variants in group.values.items():
                key = (dataset, metric, method, score)
                every = [_Choice(name) for name in variants] if swept else [_chosen(plan, group, key)]
                for choice in every:
                    # Of a sweep, the paper has but one of the settings.
                    has = not swept or (dataset, method, choice.variant) in usual
                    papers = printed.get(key) if has else None
                    row = _row(plan, key, group, choice, papers)
                    rows.append(replace(row, twin=len(groups) > 1))
    # Sorting keeps what is alike in its order: variants stay in that of the sweep.
    return sorted(rows, key=lambda row: (row.key[:2], order.get(row.key, len(order))))


def _groups(plan: Plan, records: Sequence[Record]) -> dict[tuple[str, str], list[_Group]]:
    """Return cells of the same settings together, by data set and method; each cell counts once."""
    found: dict[tuple[str, str], dict[str, _Group]] = {}
    for record in records:
        cell = record.cell
        changed, seen = changes(plan, record), shown(plan, record)
        groups = found.setdefault((cell.dataset, cell.method), {})
        group = groups.setdefault(repr((changed, seen)), _Group(changed, seen))
        group.records.setdefault(cell.variant, []).append(record)
        for score, value, metric in record.measured:
            of_variant = group.values.setdefault((score, metric), {}).setdefault(cell.variant, {})
            of_variant.setdefault(cell.label, {}).setdefault(cell.seed, value)
    return {key: list(groups.values()) for key, groups in found.items()}


def _chosen(plan: Plan, group: _Group, key: Key) -> _Choice:
    """Return the variant that an oracle takes, by AUROC if the score has it, for all its metrics the same."""
    _, metric, _, score = key
    own = group.values[score, metric]
    shared = {name: of for name, of in group.values.get((score, CHOOSES), {}).items() if name in own}
    by, variants = (CHOOSES, shared) if shared else (metric, own)
    cells = {
        name: {(label, seed) for label, values in by_label.items() for seed in values}
        for name, by_label in variants.items()
    }
    every, most = set().union(*cells.values()), max(map(len, cells.values()))
    # What was done for an easy class alone has the best mean of all.
    means = {name: _mean_of_means(variants[name]) for name, has in cells.items() if len(has) == most}
    lower = plan.metrics.get(by, Metric()).lower_is_better
    best = max(means, key=lambda name: (-means[name] if lower else means[name], name))
    return _Choice(best, most == len(every))


def _row(plan: Plan, key: Key, group: _Group, choice: _Choice, printed: Published | None) -> Row:
    by_label = group.values[key[3], key[1]][choice.variant]
    metric = plan.metrics.get(key[1], Metric())
    values, spreads = (printed.values, printed.spreads) if printed else ({}, {})
    unsure = printed is not None and printed.unsure
    entries = {
        label: Entry(statistics.fmean(by_label[label].values()), _spread(list(by_label[label].values())),
                     values.get(label), spreads.get(label), metric.lower_is_better, metric.least, unsure)
        for label in plan.classes
        if label in by_label
    }  # fmt: skip
    paper = printed_mean(plan, printed, by_label)
    entries[MEAN] = Entry(_mean_of_means(by_label), _spread_of_means(by_label), paper,
                          printed_mean_spread(plan, printed, by_label), metric.lower_is_better,
                          metric.least, unsure)  # fmt: skip
    seeds = max(len(of_label) for of_label in by_label.values())
    return Row(
        key,
        entries,
        printed.name if printed else "",
        choice.variant,
        tuple(group.records[choice.variant]),
        group.changed,
        seeds=seeds,
        shown=group.shown,
        incomplete=not choice.whole,
    )


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


def printed_mean_spread(plan: Plan, printed: Published | None, seen: Iterable[str]) -> float | None:
    """Return the paper's spread of that mean: as printed, or of a class alone that class's; else None."""
    labels = list(seen)
    if printed is None:
        return None
    if len(labels) == 1:
        return printed.spreads.get(labels[0])
    return printed.mean_spread if set(labels) == set(plan.classes) else None


def _mean_of_means(by_label: Mapping[str, Mapping[int, float]]) -> float:
    return statistics.fmean(statistics.fmean(values.values()) for values in by_label.values())


def _spread_of_means(by_label: Mapping[str, Mapping[int, float]]) -> float | None:
    """Return how the mean over classes differs from seed to seed, where all classes have the same."""
    seeds = next(iter(by_label.values())).keys()
    if any(values.keys() != seeds for values in by_label.values()):
        return None
    return _spread([statistics.fmean(values[seed] for values in by_label.values()) for seed in seeds])


def _spread(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


__all__ = ["MARK", "MEAN", "Entry", "Key", "Row", "printed_mean", "rows_of"]
