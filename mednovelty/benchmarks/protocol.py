"""A protocol as its TOML file has it (``plan``), and what of it was asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from mednovelty.benchmarks.published import Metric, Published
from mednovelty.errors import SettingsError
from mednovelty.settings import overlaid

FREE = "method_settings"
"""The setting that has settings of methods in it, of any name."""
OUTLIERS = "outliers"
"""The setting that names the set beside, where a protocol has it."""
SHORT_NAMES = {"fashion": "fashion_mnist", "cifar": "cifar10"}
"""What data sets are called before a protocol's name: ``fashion-miso``."""


@dataclass(frozen=True)
class Plan:
    """What the TOML file says; names as there.

    Attributes:
        name: Of the benchmark.
        methods: Own settings by method.
    """

    name: str
    title: str
    paper: str
    tables: str
    datasets: tuple[str, ...]
    classes: tuple[str, ...]
    settings: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    seeds: int = 1
    any_method: bool = False
    train_once: bool = False
    peeking: tuple[str, ...] = ()
    learn_from_anomalies: tuple[str, ...] = ()
    learn_from_classes: tuple[str, ...] = ()
    note: str = ""
    dataset_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    oracle: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    beside: Mapping[str, Sequence[str]] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    outside: bool = False
    in_the_paper: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    def opened(self, datasets: Iterable[str], classes: Iterable[str]) -> Plan:
        """Return the plan with data sets and classes of other names, where any name is one."""
        if not self.outside:
            return self
        sets, labels = ([SHORT_NAMES.get(_spelled(name), _spelled(name)) for name in some]
                        for some in (datasets, classes))  # fmt: skip
        return replace(
            self,
            datasets=tuple(dict.fromkeys((*self.datasets, *sets))),
            classes=tuple(dict.fromkeys((*self.classes, *labels))),
        )

    def beside_for(self, method: str, label: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the other data sets of which a cell needs one, the best first; none: it needs none.

        Args:
            method: Which.
            label: Its class.
            settings: Of the cell; ``outliers`` among them names the set, where it is not empty.
        """
        if self.outside:
            return () if label.isdigit() else (label,)
        if method not in self.beside:
            return ()
        return (settings[OUTLIERS],) if settings.get(OUTLIERS) else tuple(self.beside[method])

    def settings_for(
        self, dataset: str, method: str, over: Mapping[str, Any], variant: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the settings of a method on a data set.

        Args:
            dataset: Which.
            method: Which.
            over: A tree of those to replace.
            variant: Of those that ``--oracle`` tries.

        Raises:
            SettingsError: There is no such setting.
        """
        tree, free = dict(self.settings), dict(self.settings.get(FREE, {}))
        parts = (
            (self.dataset_settings.get(dataset, {}), f"[datasets.{dataset}]"),
            (self.methods.get(method, {}), f"[methods.{method}]"),
            (variant or {}, "[oracle]"),
            (over, "--set"),
        )
        for part, where in parts:
            # Its names are those of whatever method it is for.
            free |= part.get(FREE, {})
            rest = {key: value for key, value in part.items() if key != FREE or FREE not in tree}
            tree = overlaid(tree, rest, where if where == "--set" else f"{self.name}.toml: {where}")
        return tree | ({FREE: free} if FREE in tree else {})

    def methods_for(self, asked: Iterable[str], installed: Sequence[str], *, oracle: bool) -> list[str]:
        """Return the methods that were asked for, groups spelled out, each once.

        Args:
            asked: Names, groups, or ``all``: those of the protocol.
            installed: Methods that are installed.
            oracle: Whether such may run that look at labels of the test.

        Raises:
            SettingsError: There is no such method, or it looks at labels.
        """
        known = [*self.methods, *(installed if self.any_method else ())]
        whole = [name for name in self.methods if oracle or name not in self.peeking]
        found: list[str] = []
        for entry in asked:
            name = entry.replace("-", "_")
            if name not in known and name not in self.groups and name != "all":
                near = get_close_matches(name, [*self.methods, *self.groups, *known], n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(['all', *known])}"
                raise SettingsError(f"--methods: {self.name} has no method {entry!r}; {hint}")
            found += whole if name == "all" else self.groups.get(name, [name])
        peeking = [name for name in found if name in self.peeking]
        if peeking and not oracle:
            raise SettingsError(
                f"--methods: {peeking[0]} is chosen by labels of the test; ask with --oracle, which says so "
                "in the table"
            )
        return list(dict.fromkeys(found))

    def classes_for(self, asked: Iterable[str] | None) -> list[str]:
        """Return the classes that were asked for, in the order of the protocol; None: all, or all other sets.

        Raises:
            SettingsError: There is no such class.
        """
        if asked is None:
            return [name for name in self.classes if not (self.outside and name.isdigit())]
        wanted = [_spelled(name) for name in asked]
        wanted = [SHORT_NAMES.get(name, name) for name in wanted] if self.outside else wanted
        by_name = {_spelled(name): name for name in self.classes}
        for name in wanted:
            if name not in by_name:
                near = get_close_matches(name, by_name, n=1)
                hint = f"did you mean {by_name[near[0]]!r}?" if near else f"known: {', '.join(self.classes)}"
                raise SettingsError(f"--classes: {self.name} has no class {name!r}; {hint}")
        return [name for name in self.classes if _spelled(name) in wanted]

    def datasets_for(self, asked: Iterable[str] | None) -> list[str]:
        """Return the data sets that were asked for; None: the first.

        Raises:
            SettingsError: The protocol is not for such.
        """
        if asked is None:
            return list(self.datasets[:1])
        found = [SHORT_NAMES.get(_spelled(name), _spelled(name)) for name in asked]
        for name in found:
            if name not in self.datasets:
                near = get_close_matches(name, self.datasets, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.datasets)}"
                raise SettingsError(f"--datasets: {self.name} is not for {name!r}; {hint}")
        return list(dict.fromkeys(found))

    def variants(self, method: str, *, oracle: bool, fixed: Iterable[str] = ()) -> list[dict[str, Any]]:
        """Return the settings that are tried: one that replaces nothing, or all that the oracle may take.

        Args:
            method: Which.
            oracle: Whether labels choose.
            fixed: Settings that ``--set`` has: they are no longer chosen, and no label tells them.
        """
        grid = {} if not oracle else {
            name: values for name, values in self.oracle.get(method, {}).items() if name not in fixed
        }  # fmt: skip
        return [dict(zip(grid, each, strict=True)) for each in itertools.product(*grid.values())]

    def check_oracle(self, methods: Iterable[str], fixed: Iterable[str] = ()) -> None:
        """Refuse to choose by labels where there is nothing to choose from.

        Raises:
            SettingsError: None of the methods has anything, or ``--set`` fixes all of it.
        """
        known = list(dict.fromkeys((*self.oracle, *self.peeking)))
        if not set(known) & set(methods):
            hint = f"only for {', '.join(known)}" if known else "for no method of this protocol"
            raise SettingsError(f"--oracle: there is something to choose {hint}")
        grids = [self.oracle.get(method, {}) for method in methods]
        if not set(self.peeking) & set(methods) and not any(set(grid) - set(fixed) for grid in grids):
            told = ", ".join(dict.fromkeys(name for grid in grids for name in grid))
            raise SettingsError(
                f"--oracle: --set fixes {told}, and there is nothing else to choose; leave one of the two out"
            )


def _spelled(name: str) -> str:
    return name.strip().replace("-", "_").replace(" ", "_")


__all__ = ["SHORT_NAMES", "Plan"]
