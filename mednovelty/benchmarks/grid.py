"""Runs cells, in worker processes, each cell's failure its own.

A worker is a process of its own (spawned: torch does not survive a fork), which gets one task after the other
and writes what came of it. One that dies takes its cell with it and nothing else; another takes its place.
Which worker runs a cell, and after which other, changes none of its bits: it is seeded by itself, and all
workers have as many threads.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from mednovelty.benchmarks.benchmark import Cell, Findings, Task
from mednovelty.benchmarks.cell_files import write_cell
from mednovelty.benchmarks.pixels import PIXELS, in_pixels
from mednovelty.errors import StoppedError, failure_message
from mednovelty.plugins import plugin
from mednovelty.settings import checked

log = logging.getLogger("mednovelty")
ENDS_IN_S = 10.0
"""A worker that has nothing more to do and does not end by then is ended."""


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: ``message`` is empty where it is done."""

    cell: Cell
    message: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether it was not done."""
        return bool(self.message)


Told = Callable[[Outcome], Any]


def run_cells(tasks: Sequence[Task], out: Path, *, workers: int, told: Told) -> list[Outcome]:
    """Run tasks, and return what became of each.

    Args:
        tasks: In the order in which they are begun.
        out: Where records go.
        workers: How many processes; 0: none but this one, where a cell that kills its process kills all.
        told: Called with each outcome as it comes.
    """
    if workers == 0:
        outcomes = []
        for task in tasks:
            outcomes.append(attempt(task, out))
            told(outcomes[-1])
        return outcomes
    return _in_processes(tasks, out, min(workers, len(tasks)), told)


def attempt(task: Task, out: Path) -> Outcome:
    """Run one cell in this process, and write its record; whatever it raises is its failure.

    Raises:
        StoppedError: Ctrl-C or SIGTERM.
    """
    import torch

    from mednovelty.devices import chosen

    started = time.perf_counter()
    try:
        device = chosen(task.device)
        if torch.get_num_threads() != task.threads:
            torch.set_num_threads(task.threads)
        benchmark = plugin("benchmarks", task.benchmark)()
        settings = checked(benchmark.Settings, task.settings, task.benchmark)
        findings = _findings(benchmark, replace(task, device=str(device)), settings, out)
        words = (
            torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {task.threads} threads"
        )
        write_cell(out, task, findings, words, time.perf_counter() - started)
    except StoppedError:  # Who stops a cell stops the grid.
        raise
    except Exception as error:
        log.debug("%s", task.cell.name, exc_info=error)
        return Outcome(task.cell, failure_message(error, task.cell.name), time.perf_counter() - started)
    return Outcome(task.cell, "", time.perf_counter() - started)


def _findings(benchmark: Any, task: Task, settings: Any, out: Path) -> Findings:
    """Return what comes of a cell, whoever's method it is."""
    if task.outside:
        from mednovelty.benchmarks.library_cells import by_library

        return by_library(task, benchmark.split(task, settings), out)
    if task.cell.method in PIXELS:
        return in_pixels(task.cell.method, benchmark.split(task, settings), task.device)
    found: Findings = benchmark.run(task, settings)
    return found


class _Worker:
    """A process and the task that it has."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()  # Else nobody would see it end.
        self.task: Task | None = None

    def give(self, task: Task, out: Path) -> None:
        self.task = task
        # Words, not objects: nothing is unpickled on either side. A dead one is seen when it is waited for.
        tree = asdict(task) | {"folder": str(task.folder), "out": str(out)}
        with suppress(OSError):
            self.connection.send_bytes(json.dumps(tree).encode())

    def take(self) -> Outcome:
        """Return what became of the task; of a dead process, that it died."""
        assert self.task is not None
        cell, self.task = self.task.cell, None
        try:
            told = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.process.join(ENDS_IN_S)
            return Outcome(cell, _death(self.process.exitcode))
        return Outcome(cell, told["message"], told["seconds"])

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def end(self, *, now: bool) -> None:
        if now:
            self.process.terminate()
        self.connection.close()
        self.process.join(ENDS_IN_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _in_processes(tasks: Sequence[Task], out: Path, workers: int, told: Told) -> list[Outcome]:
    waiting, outcomes = deque(tasks), []
    pool: list[_Worker] = []
    finished = False
    try:
        while waiting or any(worker.task for worker in pool):
            pool = _ready(pool, min(workers, len(waiting) + sum(w.task is not None for w in pool)))
            for worker in pool:
                if worker.task is None and waiting:
                    worker.give(waiting.popleft(), out)
            busy = {worker.connection: worker for worker in pool if worker.task is not None}
            for connection in wait(list(busy)):
                outcome = busy[connection].take()  # type: ignore[index]
                outcomes.append(outcome)
                told(outcome)
        finished = True
    finally:
        for worker in pool:
            worker.end(now=not finished)
    return outcomes


def _ready(pool: Iterable[_Worker], count: int) -> list[_Worker]:
    """Return the workers that live, and new ones in the place of those that do not."""
    living = []
    for worker in pool:
        if worker.task is not None or worker.alive:
            living.append(worker)
        else:
            worker.end(now=True)
    return [*living, *(_Worker() for _ in range(count - len(living)))]


def _work(connection: Connection) -> None:
    """Do tasks until nobody has any."""
    # Who asked for the grid ends it: Ctrl-C reaches all processes of a terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            tree = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        out = Path(tree.pop("out"))
        cell, folder = Cell(**tree.pop("cell")), Path(tree.pop("folder"))
        lists = {name: tuple(tree[name]) for name in ("scores", "beside")}
        task = Task(cell=cell, folder=folder, **tree | lists)
        try:
            outcome = attempt(task, out)
        except (StoppedError, KeyboardInterrupt):  # Who ended it has said so, or will.
            return
        # Nobody may be there to hear it: what is done is on disk.
        with suppress(OSError):
            connection.send_bytes(
                json.dumps({"message": outcome.message, "seconds": outcome.seconds}).encode()
            )


def _death(code: int | None) -> str:
    """Return in words how a process ended."""
    if code is None or code >= 0:
        return f"its process ended with exit code {code}; run it again with --workers 0 to see why"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; perhaps the memory did not suffice: try fewer workers" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"


__all__ = ["Outcome", "attempt", "run_cells"]
