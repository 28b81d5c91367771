"""Cells of detectors that a protocol does not know and hands its images to: trivial or other libraries'."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mednovelty.benchmarks.benchmark import Cell, Task
from mednovelty.benchmarks.libraries import detectors_of, installed_there, pythons
from mednovelty.benchmarks.pixels import SCORE
from mednovelty.benchmarks.plan import Plan
from mednovelty.errors import SettingsError
from mednovelty.settings import checked

if TYPE_CHECKING:
    from mednovelty.benchmarks.set_folders import SetFolders


@dataclass(frozen=True)
class Handed:
    """What detectors are handed, and where they run.

    Attributes:
        datasets: By name.
        classes: By name.
        seeds: Of the images, and of detectors.
        over: Settings that replace the protocol's.
        device: As torch names it.
        threads: Of the processor.
        asked: Whether classes were asked for by name; then sets out of distribution must be there.
    """

    datasets: Sequence[str]
    classes: Sequence[str]
    seeds: Iterable[int]
    over: Mapping[str, Any]
    device: str
    threads: int
    asked: bool = True

    def tasks(
        self, plan: Plan, benchmark: Any, folders: SetFolders, methods: Mapping[str, Mapping[str, Any]]
    ) -> list[Task]:
        """Return a task for each data set, class, seed and method.

        Args:
            plan: Of the protocol.
            benchmark: Likewise.
            folders: Of data sets.
            methods: What ``Task.outside`` is, by name; empty of trivial methods.

        Raises:
            SettingsError: The protocol does not hand out its images.
            ScanError: A data set is not there.
        """
        refuse_to_hand(plan, benchmark, methods)
        found = []
        for each, label, seed, name in itertools.product(self.datasets, self.classes, self.seeds, methods):
            tree = plan.settings_for(each, name, self.over)
            checked(benchmark.Settings, tree, plan.name)
            cell = Cell(each, label, seed, name)
            if (plan.outside and each == label) or not folders.possible(plan, cell, tree, asked=self.asked):
                continue
            other = folders.beside_of(plan, cell, tree)
            found.append(Task(plan.name, cell, tree, (SCORE,), folders.of(each), self.device, self.threads,
                              folders.hashes_of(each, other), folders.beside(other),
                              outside=methods[name]))  # fmt: skip
        return found


def refuse_to_hand(plan: Plan, benchmark: Any, methods: Iterable[str]) -> None:
    """Raise where a protocol has no images for detectors that it does not know.

    Args:
        plan: Of the protocol.
        benchmark: Itself; ``trivial`` says in words what its own trivial baselines are.
        methods: Detectors, or libraries of some.

    Raises:
        SettingsError: It has none, and there are detectors.
    """
    # Asked of the benchmark itself: what isinstance says of a Protocol is remembered for the whole class.
    if not (wanted := ", ".join(methods)) or hasattr(benchmark, "split"):
        return
    own = getattr(benchmark, "trivial", "")
    raise SettingsError(
        f"{plan.name}: hands out no images, so that {wanted} cannot be run beside it"
        + (f"; its trivial baselines are {own}" if own else "")
    )


def outsiders(against: Sequence[str], assignments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what ``Task.outside`` is of each detector of other libraries, by its name here.

    Args:
        against: Libraries and detectors.
        assignments: Their Pythons, as ``pyod=/envs/pyod/bin/python``.

    Raises:
        SettingsError: One is unknown, or its library is not installed there: what to install.
    """
    found: dict[str, dict[str, Any]] = {}
    detectors = detectors_of(against)
    places = pythons(assignments, [library for library, _ in detectors])
    for library, name in detectors:
        versions = dict(installed_there(library.name, places[library.name]))
        found[f"{library.name}_{name}"] = {
            "library": library.name,
            "detector": name,
            "python": places[library.name],
            "version": versions[library.name],
            "versions": versions,
        }
    return found


__all__ = ["Handed", "outsiders", "refuse_to_hand"]
