"""What ``bench`` was asked for, and the cells that come of it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mednovelty.benchmarks.benchmark import Cell, Task
from mednovelty.benchmarks.handed_tasks import Handed, outsiders, refuse_to_hand
from mednovelty.benchmarks.pixels import pixels_among
from mednovelty.benchmarks.plan import Plan
from mednovelty.benchmarks.variants import settings_of_all
from mednovelty.errors import SettingsError
from mednovelty.plugins import names, plugin
from mednovelty.settings import parse_assignments

if TYPE_CHECKING:
    from mednovelty.benchmarks.set_folders import SetFolders

log = logging.getLogger("mednovelty")


@dataclass(frozen=True)
class BenchRequest:
    """What ``bench`` was asked for."""

    name: str
    data: Path | None = None
    output: Path | None = None
    methods: str = "all"
    scores: str = "all"
    classes: str | None = None
    datasets: str | None = None
    seeds: int | None = None
    first_seed: int = 0
    assignments: Sequence[str] = ()
    resume: bool = False
    overwrite: bool = False
    workers: int = 1
    threads: int | None = None
    device: str = "cpu"
    oracle: bool = False
    sweep: Sequence[str] = ()
    against: str | None = None
    against_python: Sequence[str] = ()
    as_json: bool = False


def tasks_of(plan: Plan, request: BenchRequest, dataset: str | None) -> tuple[list[Task], list[str]]:
    """Return the tasks of a request, in order, and what is to be told beside their results.

    Args:
        plan: Of the benchmark.
        request: As given.
        dataset: The one that the name said; None: those that were asked for.

    Raises:
        SettingsError: Something unknown is asked for.
        ScanError: A data set is not there, or damaged.
    """
    from mednovelty.benchmarks.set_folders import SetFolders

    benchmark: Any = plugin("benchmarks", plan.name)()
    trivial, own = pixels_among(words_in(request.methods, "--methods"), (*plan.methods, *plan.groups))
    against = [] if request.against is None else words_in(request.against, "--against")
    refuse_to_hand(plan, benchmark, [*trivial, *against])
    methods = plan.methods_for(own, names("methods"), oracle=request.oracle)
    classes = plan.classes_for(None if request.classes is None else words_in(request.classes, "--classes"))
    wanted = None if request.datasets is None else words_in(request.datasets, "--datasets")
    datasets = plan.datasets_for([dataset] if dataset else wanted)
    scores = _scores_of(benchmark, methods, request)
    over = parse_assignments(request.assignments)
    if request.oracle:
        plan.check_oracle(scores, over)
    settings = settings_of_all(plan, benchmark, request, datasets, scores)
    seeds = range(request.first_seed, request.first_seed + (request.seeds or plan.seeds))
    folders = SetFolders(request.data)
    cells = list(itertools.product(datasets, classes, seeds, scores))
    tasks = list(_own_tasks(plan, request, cells, settings, scores, folders))
    guests = {**{name: {} for name in trivial}, **outsiders(against, request.against_python)}
    handed = Handed(datasets, classes, seeds, over, request.device, request.threads or 1,
                    asked=request.classes is not None)  # fmt: skip
    others = handed.tasks(plan, benchmark, folders, guests)
    if not (tasks or others):
        raise SettingsError(f"{plan.name}: nothing is left to run of {', '.join(scores)} on "
                            f"{', '.join(datasets)}; see the warnings, and give --data")  # fmt: skip
    if plan.train_once:  # What is trained is kept for the next cell.
        tasks.sort(key=lambda task: (task.cell.dataset, task.cell.seed, task.cell.method, task.cell.variant))
    return [*tasks, *others], folders.notes


def _scores_of(benchmark: Any, methods: Sequence[str], request: BenchRequest) -> dict[str, tuple[str, ...]]:
    """Return the scores that were asked for by method, of those that have any.

    Raises:
        SettingsError: There is no such score, or no method has any.
    """
    asked = words_in(request.scores, "--scores")
    scores = {name: found for name in methods if (found := tuple(benchmark.scores(name, asked)))}
    for name in [name for name in methods if name not in scores]:
        log.info("%s: has none of the scores %s; left out", name, request.scores)
    if methods and not scores:
        raise SettingsError(f"--scores {request.scores}: none of {', '.join(methods)} has any of them")
    return scores


def _own_tasks(
    plan: Plan,
    request: BenchRequest,
    cells: Sequence[tuple[str, str, int, str]],
    settings: Mapping[tuple[str, str], Mapping[str, dict[str, Any]]],
    scores: Mapping[str, tuple[str, ...]],
    folders: SetFolders,
) -> Iterator[Task]:
    """Yield the tasks of the protocol's own methods, as far as what they need is at hand."""
    labels = list(dict.fromkeys(label for _, label, _, _ in cells))
    there = {each: folders.classes_of(each, labels, asked=request.classes is not None)
             for each in dict.fromkeys(each for each, _, _, _ in cells)}  # fmt: skip
    asked = request.classes is not None if plan.outside else request.methods != "all"
    for each, label, seed, name in cells:
        for variant, tree in settings[each, name].items():
            cell = Cell(each, label, seed, name, variant)
            if label not in there[each] or (plan.outside and each == label):
                continue
            if folders.possible(plan, cell, tree, asked=asked):
                yield _task(plan, request, cell, tree, scores[name], folders)


def _task(
    plan: Plan,
    request: BenchRequest,
    cell: Cell,
    tree: Mapping[str, Any],
    scores: tuple[str, ...],
    folders: SetFolders,
) -> Task:
    other = folders.beside_of(plan, cell, tree)
    return Task(
        plan.name,
        cell,
        tree,
        scores,
        folders.of(cell.dataset),
        request.device,
        request.threads or 1,
        folders.hashes_of(cell.dataset, other),
        folders.beside(other),
    )


def words_in(text: str, option: str) -> list[str]:
    """Return the names in ``"a,b"``.

    Raises:
        SettingsError: There is none.
    """
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise SettingsError(f"{option} {text!r} names nothing; leave it out, or give names such as a,b")
    return found


__all__ = ["BenchRequest", "tasks_of", "words_in"]
