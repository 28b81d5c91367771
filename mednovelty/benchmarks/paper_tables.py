"""Which tables of papers are to be made, by a TOML file, and why some of their numbers fall short.

.. code-block:: toml

    [[table]]
    name = "novel-digit"               # of its folder
    benchmark = "mnist-novel-digit"    # as bench takes it
    metric = "auroc"                   # of the summary
    trivial = ["pixel_mean"]           # methods, or method:score of a protocol that has trivial scores
    not_label_free = ["fcdd"]          # methods that are shown labels, where no cell and no protocol says so

    [[table.run]]                      # a run of bench; all of a table's runs make one table
    name = "z64"
    methods = ["vae_z64"]
    scores = ["latent_euclidean"]
    settings = { epochs = 6 }          # also: datasets, classes, seeds, against, oracle

    [table.why]                        # why a row probably falls short of its paper
    "vae_z64:latent_euclidean" = "A sentence."

A key of ``why`` is a method, or ``method:score``, with ``dataset:`` before it or ``:metric`` after it where
it is not for all; the most particular one speaks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from mednovelty.benchmarks.comparison import Key
from mednovelty.errors import SettingsError
from mednovelty.settings import checked

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class RunSettings:
    """One run of ``bench``; attributes as its options, empty ones are left to the protocol."""

    name: str
    methods: tuple[str, ...] = ("all",)
    scores: tuple[str, ...] = ("all",)
    datasets: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    seeds: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    against: tuple[str, ...] = ()
    oracle: bool = False

    @property
    def assignments(self) -> tuple[str, ...]:
        """Settings as ``--set`` takes them."""
        return tuple(_assigned(self.settings, ""))


@dataclass(frozen=True)
class TableSettings:
    """One table, and its row of the summary; attributes as above.

    Attributes:
        lower_is_better: By the metric of the summary.
    """

    name: str
    benchmark: str
    run: tuple[RunSettings, ...]
    metric: str = "auroc"
    trivial: tuple[str, ...] = ()
    not_label_free: tuple[str, ...] = ()
    why: dict[str, str] = field(default_factory=dict)
    lower_is_better: bool = False

    def is_trivial(self, key: Key) -> bool:
        """Whether a row is of a trivial method or score."""
        return bool({key[2], f"{key[2]}:{key[3]}"} & set(self.trivial))

    def reason(self, key: Key) -> tuple[str, str] | None:
        """Return the sentence for a row, and its key; None where there is none."""
        dataset, metric, method, score = key
        row = f"{method}:{score}"
        for name in (f"{dataset}:{row}:{metric}", f"{dataset}:{row}", f"{row}:{metric}", row,
                     f"{dataset}:{method}", method):  # fmt: skip
            if name in self.why:
                return name, self.why[name]
        return None


def tables_from(tree: Mapping[str, Any], where: str) -> list[TableSettings]:
    """Return the tables of a TOML file.

    Raises:
        SettingsError: Something in it is unknown, missing, or there twice.
    """
    if unknown := [key for key in tree if key != "table"]:
        raise SettingsError(f"{where}: no setting is called {unknown[0]!r}; known: [[table]]")
    found = []
    for number, table in enumerate(tree.get("table", []), 1):
        place = f"{where}: [[table]] {table.get('name', number)}"
        _known(table, TableSettings, place)
        for run in table.get("run", []):
            _known(run, RunSettings, f"{place}: [[table.run]]")
        made = checked(TableSettings, table, place)
        if not made.run:
            raise SettingsError(f"{place}: has no [[table.run]]")
        _unlike([run.name for run in made.run], f"{place}: [[table.run]]")
        found.append(made)
    if not found:
        raise SettingsError(f"{where}: has no [[table]]")
    _unlike([table.name for table in found], where)
    return found


def chosen_tables(tables: Sequence[TableSettings], asked: str | None) -> list[TableSettings]:
    """Return the tables called ``"a,b"``; None: all.

    Raises:
        SettingsError: There is no such table.
    """
    if asked is None:
        return list(tables)
    wanted = [name.strip() for name in asked.split(",") if name.strip()]
    known = [table.name for table in tables]
    if not wanted or set(wanted) - set(known):
        raise SettingsError(f"--only {asked}: known tables: {', '.join(known)}")
    return [table for table in tables if table.name in wanted]


def _known(tree: Mapping[str, Any], kind: type[TableSettings] | type[RunSettings], where: str) -> None:
    names = [each.name for each in fields(kind)]
    if unknown := [key for key in tree if key not in names]:
        raise SettingsError(f"{where}: no setting is called {unknown[0]!r}; known: {', '.join(names)}")


def _unlike(names: Sequence[str], where: str) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            raise SettingsError(f"{where}: {name!r} cannot be a folder; use letters, digits and - _ .")
        if names.count(name) > 1:
            raise SettingsError(f"{where}: two are called {name!r}")


def _assigned(tree: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _assigned(value, f"{path}{key}.")
        else:
            yield f"{path}{key}={json.dumps(value)}"


__all__ = ["RunSettings", "TableSettings", "chosen_tables", "tables_from"]
