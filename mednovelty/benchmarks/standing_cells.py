"""Cells that stand in a folder before a run: what is done with other settings is not lost unasked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mednovelty.benchmarks.benchmark import Task
from mednovelty.benchmarks.cell_files import Record, read_cell, record_path, task_sha256, versions

MOST = 4
"""More differences than these are counted."""
ABSENT = "not there"


def done_otherwise(out: Path, tasks: Sequence[Task]) -> str:
    """Return in words which cell was done otherwise, what differs, and what to do; or nothing.

    One that cannot be read was not done.
    """
    found = [(task, record) for task in tasks if (record := _other_record(out, task)) is not None]
    if not found:
        return ""
    task, record = found[0]
    words = list(differences(record, task))
    more = [f"{len(words) - MOST} more"] if len(words) > MOST else []
    others = f" (and {len(found) - 1} more cells like it)" if len(found) > 1 else ""
    count = sum(1 for _ in (out / "cells").glob("*.json"))
    told = "; ".join([*words[:MOST], *more])
    return (
        f"{record_path(out, task.cell)}{others} was done otherwise: {told}. It is kept: "
        f"--overwrite replaces it, with all {count} results there, or choose another folder"
    )


def differences(record: Record, task: Task) -> Iterator[str]:
    """Yield in words how a record's task differs from another one of the same cell."""
    known = False
    for told in (
        _settings(record.settings, task.settings),
        _scores(record, task),
        _data(record, task),
        _versions(record, task),
    ):
        for words in told:
            known = True
            yield words
    if not known:  # Records of before have neither scores nor hashes of data.
        yield "scores or data, which its record does not tell"


def _other_record(out: Path, task: Task) -> Record | None:
    record = read_cell(record_path(out, task.cell))
    return record if record is not None and record.settings_sha256 != task_sha256(task) else None


def others_there(out: Path, tasks: Sequence[Task]) -> int:
    """Return how many cells lie in a folder that were not asked for."""
    asked = {record_path(out, task.cell).name for task in tasks}
    return sum(path.name not in asked for path in (out / "cells").glob("*.json"))


def _settings(there: Mapping[str, Any], here: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name in sorted({*there, *here}):
        old, new = _plain(there.get(name, ABSENT)), _plain(here.get(name, ABSENT))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _settings(old, new, f"{path}{name}.")
        elif old != new:
            yield f"{path}{name} is {old} there and {new} here"


def _scores(record: Record, task: Task) -> Iterator[str]:
    if record.scores and set(record.scores) != set(task.scores):
        yield f"scores are {', '.join(record.scores)} there and {', '.join(task.scores)} here"
    elif record.scores and tuple(record.scores) != tuple(task.scores):
        yield "scores are in another order"


def _data(record: Record, task: Task) -> Iterator[str]:
    if record.data and dict(record.data) != dict(task.data):
        names = {*record.data, *task.data}
        changed = sorted(name for name in names if record.data.get(name) != task.data.get(name))
        yield f"data differ: {', '.join(changed)}"


def _versions(record: Record, task: Task) -> Iterator[str]:
    here = {"mednovelty": versions()["mednovelty"]}
    if task.outside:
        here[task.outside["library"]] = task.outside["version"]
    for name, new in here.items():
        if (old := record.versions.get(name)) != new:
            yield f"{name} was {old} there and is {new} here"


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: what was a tuple comes back as a list."""
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


__all__ = ["differences", "done_otherwise", "others_there"]
