"""What came of a run, and its files: tables of what is done, also while it runs and where it is stopped."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mednovelty.benchmarks.benchmark import Task
from mednovelty.benchmarks.beside_table import beside
from mednovelty.benchmarks.cell_files import Record, done, write_failures, write_results
from mednovelty.benchmarks.comparison import markdown
from mednovelty.benchmarks.plan import Plan
from mednovelty.benchmarks.run_facts import run_facts
from mednovelty.io.atomic import write_text_atomic

if TYPE_CHECKING:
    from mednovelty.benchmarks.grid import Outcome

log = logging.getLogger("mednovelty")
SOME_FAILED = 6
REST_S = 10.0
"""Tables are written anew while a grid runs, but not more often; who is killed leaves those."""
SHARE = 0.02
"""Of the time that a grid runs, at most, goes into them."""


@dataclass(frozen=True)
class Ran:
    """What came of a request.

    Attributes:
        plan: Of the protocol.
        tasks: All of its cells.
        records: Of those that are done.
        failures: Names and messages of those that failed.
        notes: What is told beside the results.
        out: Where they are.
        swept: Whether each variant is a row.
        oracle: Whether labels chose.
        stopped: Exit code of what ended it before its end; 0: nothing did; None: it is running.
        choices: Of the command, by option.
    """

    plan: Plan
    tasks: tuple[Task, ...]
    records: tuple[Record, ...]
    failures: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    out: Path
    swept: bool = False
    oracle: bool = False
    stopped: int | None = 0
    choices: Mapping[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return self.stopped or (SOME_FAILED if self.failures else 0)

    @property
    def waiting(self) -> int:
        """How many cells are neither done nor failed."""
        return len(self.tasks) - len(self.records) - len(self.failures)

    def from_disk(self) -> Ran:
        """Return the same with what is done now."""
        return replace(
            self, records=tuple(r for task in self.tasks if (r := done(self.out, task)) is not None)
        )


def facts_of(ran: Ran) -> dict[str, Any]:
    """Return what ``run.json`` tells; of what is running neither its end nor its exit code."""
    facts = run_facts(ran.plan, ran.oracle, ran.records, ran.failures, ran.exit_code, swept=ran.swept,
                      choices=ran.choices)  # fmt: skip
    running = {"finished": None, "exit_code": None} if ran.stopped is None else {}
    return {**facts, **running, "waiting": ran.waiting}


def text_of(ran: Ran) -> str:
    """Return the protocol's tables, and that beside other libraries where some were run."""
    left = f"**{ran.waiting} of {len(ran.tasks)} cells are not done yet: --resume goes on.**"
    notes = [left, *ran.notes] if ran.waiting else ran.notes
    others = beside(ran.plan, ran.records)
    tables = markdown(ran.plan, ran.records, oracle=ran.oracle, notes=notes, swept=ran.swept)
    return tables + (f"\n{others}" if others else "")


def write_tables(ran: Ran) -> None:
    """Write ``results.csv``, ``failures.tsv``, ``run.json`` and ``results.md``.

    Raises:
        OutputError: One cannot be written.
    """
    write_results(ran.out, ran.records)
    write_failures(ran.out, ran.failures)
    write_text_atomic(ran.out / "run.json", json.dumps(facts_of(ran), indent=2, default=str) + "\n")
    write_text_atomic(ran.out / "results.md", text_of(ran))


class Progress:
    """Says what becomes of each cell, and keeps tables of those that are done.

    Args:
        ran: What is there before.
        clock: Gives seconds.
    """

    def __init__(self, ran: Ran, clock: Callable[[], float] = time.monotonic) -> None:
        self._ran, self._clock = ran, clock
        self._tasks: Mapping[str, Task] = {task.cell.name: task for task in ran.tasks}
        self._records = {record.cell.name: record for record in ran.records}
        self._failures: list[tuple[str, str]] = []
        self._count = ran.waiting
        self._done = 0
        self._started = clock()
        self._next = self._started + REST_S

    @property
    def failures(self) -> Sequence[tuple[str, str]]:
        """Names and messages of what failed."""
        return self._failures

    def told(self, outcome: Outcome) -> None:
        """Say it, and write tables where that was long ago."""
        self._done += 1
        name = outcome.cell.name
        if outcome.failed:
            self._failures.append((name, outcome.message))
        elif (record := done(self._ran.out, self._tasks[name])) is not None:
            self._records[name] = record
        left = (self._clock() - self._started) / self._done * (self._count - self._done)
        what = "failed" if outcome.failed else f"done in {outcome.seconds:.1f} s"
        log.info("%d of %d, %s: %s; about %d:%02d left", self._done, self._count, name, what,
                 left // 60, left % 60)  # fmt: skip
        if self._done < self._count and self._clock() >= self._next:
            self._write()

    def _write(self) -> None:
        started = self._clock()
        records = tuple(self._records[name] for name in self._tasks if name in self._records)
        write_tables(replace(self._ran, records=records, failures=tuple(self._failures), stopped=None))
        ended = self._clock()
        self._next = ended + max(REST_S, (ended - started) / SHARE)


__all__ = ["REST_S", "Progress", "Ran", "facts_of", "text_of", "write_tables"]
