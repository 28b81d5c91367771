"""The settings of cells: as they are, each of a sweep, or all that ``--oracle`` may choose from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from mednovelty.benchmarks.plan import Plan, variant_words
from mednovelty.errors import SettingsError
from mednovelty.settings import checked, parse_assignments


class Ask(Protocol):
    """What was asked for, as ``BenchRequest`` has it."""

    @property
    def assignments(self) -> Sequence[str]:
        """As ``epochs=5``."""

    @property
    def sweep(self) -> Sequence[str]:
        """As ``pollution=0,0.1``."""

    @property
    def oracle(self) -> bool:
        """Whether labels choose."""


def settings_of_all(
    plan: Plan, benchmark: Any, how: Ask, datasets: Sequence[str], methods: Iterable[str]
) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Return, by data set and method, the settings of each variant, before anything runs.

    Args:
        plan: Of the protocol.
        benchmark: It checks them, with a method ``check`` also those of methods; one with a method ``lacks``
            says which settings a method has nothing to do with: of a sweep these are left out.
        how: What was asked for.
        datasets: All of them.
        methods: Likewise.

    Raises:
        SettingsError: There is no such setting, it cannot have that value, or a method lacks something.
    """
    over = parse_assignments(how.assignments)
    swept = sweep_of(how.sweep)
    if both := sorted({*over} & {name for variant in swept for name in variant}):
        raise SettingsError(f"--set {both[0]}: --sweep gives it values already; give one of the two")
    check = getattr(benchmark, "check", lambda method, settings: None)
    lacks = getattr(benchmark, "lacks", lambda method, settings: "")
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for each, name in itertools.product(datasets, methods):
        variants = swept or plan.variants(name, oracle=how.oracle, fixed=over)
        found[each, name] = {}
        for variant in variants:
            tree = plan.settings_for(each, name, over | variant if swept else over, {} if swept else variant)
            settings = checked(benchmark.Settings, tree, plan.name)
            with named(f"{plan.name}, {name}"):
                check(name, settings)
            why = lacks(name, settings)
            if why and not swept:
                raise SettingsError(f"{name}: {why}")
            if not why:
                found[each, name][variant_words(variant)] = tree
    return found


@contextmanager
def named(where: str) -> Iterator[None]:
    """Tell where a setting is wrong that does not say so itself."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}", code=error.code) from error


def sweep_of(sweeps: Sequence[str]) -> list[dict[str, Any]]:
    """Return the settings of ``["labelled=0,0.05", "pollution=0,0.1"]``: all four pairs, in their order.

    Raises:
        SettingsError: One is no setting with values.
    """
    if not sweeps:
        return []
    grid: dict[str, list[Any]] = {}
    for text in sweeps:
        name, equals, values = text.partition("=")
        name = name.strip()
        if not equals or not name or "." in name or name in grid:
            raise SettingsError(
                f"--sweep {text!r}: write name=a,b with the name of a setting, each once: labelled=0,0.05"
            )
        grid[name] = [parse_assignments([f"{name}={value}"])[name] for value in _values(values)]
    return [dict(zip(grid, each, strict=True)) for each in itertools.product(*grid.values())]


def _values(text: str) -> list[str]:
    found = [value.strip() for value in text.split(",") if value.strip()]
    if not found:
        raise SettingsError(f"--sweep {text!r} names nothing; give values such as 0,0.05")
    return found


__all__ = ["Ask", "settings_of_all", "sweep_of"]
