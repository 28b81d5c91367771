"""What came of each cell, on disk: a record a cell, and tables of all of them.

``OUT/cells/<cell>.json``   written last and whole: a cell is done where its record has the hash of its task
``OUT/results.csv``         a row a cell and number
``OUT/failures.tsv``        cells that failed, and why
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mednovelty.benchmarks.benchmark import Cell, Findings, Measured, Task
from mednovelty.errors import OutputError
from mednovelty.io.atomic import write_text_atomic
from mednovelty.text import cell as safe

PACKAGES = ("mednovelty", "torch", "numpy", "scikit-learn")
COLUMNS = ("protocol", "dataset", "method", "class", "seed", "variant", "score", "metric", "value",
           "settings_sha256", "settings_alone_sha256", "published_data", "versions", "device",
           "seconds")  # fmt: skip


@dataclass(frozen=True)
class Record:
    """A cell that is done.

    Attributes:
        benchmark: Name of the protocol.
        cell: Which.
        settings_sha256: Of its task.
        measured: Numbers.
        told: What else there is to tell.
        settings: Of the cell.
        versions: By package.
        device: In words.
        seconds: By the clock.
        scores: That were asked for; empty in records of before.
        data: Hashes of the files of its data sets, by name; likewise.
    """

    benchmark: str
    cell: Cell
    settings_sha256: str
    measured: tuple[Measured, ...]
    told: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str]
    device: str
    seconds: float
    scores: tuple[str, ...] = ()
    data: dict[str, str] = field(default_factory=dict)

    @property
    def settings_alone_sha256(self) -> str:
        """A hash of the settings and nothing else: the same for all classes and seeds of a method."""
        return _sha256(self.settings)

    @property
    def published_data(self) -> str:
        """Whether its data are those that were published: ``yes``, ``no``, or empty where it is not known."""
        from mednovelty.benchmarks.image_sets import published_words

        return published_words(self.cell.dataset, self.data)


def versions() -> dict[str, str]:
    """Return the versions of what numbers depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def task_sha256(task: Task) -> str:
    """Return a hash of what a cell's numbers depend on.

    Where it is computed, the kind of device and its threads, is told in the record and not hashed: a grid
    that was begun on one machine can be ended on another.
    """
    facts = {
        "benchmark": task.benchmark,
        "cell": asdict(task.cell),
        "settings": task.settings,
        "scores": task.scores,
        "data": task.data,
        "version": versions()["mednovelty"],
    }
    if task.outside:  # Which Python has it is where, not what.
        facts["outside"] = {key: task.outside[key] for key in ("library", "detector", "version")}
    return _sha256(facts)


def _sha256(facts: Mapping[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def record_path(out: Path, cell: Cell) -> Path:
    """Return where a cell's record is."""
    return out / "cells" / f"{cell.name}.json"


def write_cell(out: Path, task: Task, findings: Findings, device: str, seconds: float) -> None:
    """Write the record of a cell.

    Raises:
        OutputError: It cannot be written.
    """
    record = Record(
        task.benchmark,
        task.cell,
        task_sha256(task),
        findings.measured,
        dict(findings.told),
        dict(task.settings),
        # Numbers of another library depend on what is installed beside that one.
        versions() | dict(task.outside.get("versions", {})),
        device,
        round(seconds, 2),
        tuple(task.scores),
        dict(task.data),
    )
    tree = asdict(record) | {"measured": [row._asdict() for row in record.measured]}
    write_text_atomic(record_path(out, task.cell), json.dumps(tree, indent=1, default=str) + "\n")


def read_cell(path: Path) -> Record | None:
    """Return a cell's record; None where there is none, or it is no such record."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        measured = tuple(Measured(**row) for row in tree.pop("measured"))
        cell, scores = Cell(**tree.pop("cell")), tuple(tree.pop("scores", ()))
        # What a later version tells beside makes no record unreadable: it would be done again, and replaced.
        known = {each.name: tree[each.name] for each in fields(Record) if each.name in tree}
        return Record(cell=cell, measured=measured, scores=scores, **known)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def done(out: Path, task: Task) -> Record | None:
    """Return the record of a task that was done already; None where it was not, or otherwise."""
    record = read_cell(record_path(out, task.cell))
    return record if record is not None and record.settings_sha256 == task_sha256(task) else None


def begin(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Make the folder ready.

    Raises:
        OutputError: It holds results already, and neither is asked for; or it cannot be made.
    """
    cells = out / "cells"
    try:
        cells.mkdir(parents=True, exist_ok=True)
        there = sorted(cells.glob("*.json"))
        if overwrite:
            for path in there:
                path.unlink()
        elif there and not resume:
            raise OutputError(
                f"{out}: holds {len(there)} results already; go on with --resume, begin anew with "
                "--overwrite, or choose another folder"
            )
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{out}: cannot be made: {error.strerror}") from error


def write_results(out: Path, records: Iterable[Record]) -> None:
    """Write ``results.csv``, in the order of the records."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for record in records:
        cell = record.cell
        told = " ".join(f"{name}={value}" for name, value in record.versions.items())
        hashes = (record.settings_sha256, record.settings_alone_sha256, record.published_data)
        for row in record.measured:
            numbers = (row.score, row.metric, repr(float(row.value)))
            own = (record.benchmark, cell.dataset, cell.method, cell.label, str(cell.seed), cell.variant)
            rest = (*hashes, told, record.device, f"{record.seconds:g}")
            table.writerow([safe(field) for field in (*own, *numbers, *rest)])
    write_text_atomic(out / "results.csv", text.getvalue())


def write_failures(out: Path, failures: Sequence[tuple[str, str]]) -> None:
    """Write ``failures.tsv``, names and messages; only its head where nothing failed."""
    rows = [("cell", "message"), *failures]
    write_text_atomic(out / "failures.tsv", "".join("\t".join(map(safe, row)) + "\n" for row in rows))


__all__ = [
    "Record",
    "begin",
    "done",
    "read_cell",
    "record_path",
    "task_sha256",
    "versions",
    "write_cell",
    "write_failures",
    "write_results",
]
