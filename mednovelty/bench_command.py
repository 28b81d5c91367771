"""What ``mednovelty bench`` does, once its words are understood."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mednovelty import console
from mednovelty.benchmarks.benchmark import Task
from mednovelty.benchmarks.beside_table import beside
from mednovelty.benchmarks.cell_files import (
    Record,
    begin,
    done,
    task_sha256,
    write_failures,
    write_results,
)
from mednovelty.benchmarks.comparison import markdown
from mednovelty.benchmarks.plan import Plan, plan_named, plans
from mednovelty.benchmarks.requested_tasks import BenchRequest, tasks_of, words_in
from mednovelty.benchmarks.run_facts import run_facts
from mednovelty.benchmarks.standing_cells import others_there, refuse_other_settings
from mednovelty.errors import SettingsError
from mednovelty.io.atomic import write_text_atomic
from mednovelty.text import printable

log = logging.getLogger("mednovelty")
SOME_FAILED = 6


def list_benchmarks(as_json: bool) -> int:
    """Print the benchmarks that are installed; none is imported."""
    rows = [
        {
            "name": info.name,
            "title": plan.title,
            "paper": plan.paper,
            "tables": plan.tables,
            "datasets": list(plan.datasets),
            "methods": list(plan.methods),
            "groups": {name: list(members) for name, members in plan.groups.items()},
            "any_method": plan.any_method,
            "classes": list(plan.classes),
            "seeds": plan.seeds,
            "settings": dict(plan.settings),
            "distribution": info.distribution,
        }
        for info, plan in plans()
    ]
    if as_json:
        console.print_json(rows)
        return 0
    wide = max((len(str(row["name"])) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:{wide}}  {row['title']}  ({row['paper']}, {row['tables']})")
        print(f"{'':{wide}}  on {', '.join(row['datasets'])}; methods {', '.join(row['methods'])}"  # type: ignore[arg-type]
              + ("; and any that is installed" if row["any_method"] else ""))  # fmt: skip
    return 0


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
    """

    plan: Plan
    tasks: tuple[Task, ...]
    records: tuple[Record, ...]
    failures: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    out: Path
    swept: bool = False

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return SOME_FAILED if self.failures else 0


def bench(request: BenchRequest) -> int:
    """Run a benchmark, print its tables or facts, and tell what failed; return the exit code."""
    ran = run_benchmark(request)
    if request.as_json:
        console.print_json(_facts(ran, request.oracle))
    elif ran.records:
        print(printable(_text(ran, request.oracle), keep="\n"))
    for name, message in ran.failures:
        log.error("failed: %s: %s", name, message)
    log.info("%d done, %d failed; %s", len(ran.records), len(ran.failures), ran.out / "results.md")
    return ran.exit_code


def run_benchmark(request: BenchRequest, *, what_is_there: bool = False) -> Ran:
    """Run a benchmark's cells, those that are not done, and write tables of all.

    Args:
        request: What is asked for.
        what_is_there: Run nothing.

    Raises:
        SettingsError: An unknown benchmark, method, score, class, data set or setting.
        ScanError: A data set is not there, or damaged.
        OutputError: The folder holds results already, or of other settings; another run writes there, or it
            cannot be written.
    """
    from mednovelty.output_folder import sole_writer

    plan, dataset = plan_named(request.name)
    if request.resume and request.overwrite:
        raise SettingsError("--resume keeps what is there and --overwrite does not; give one of the two")
    if request.sweep and request.oracle:
        raise SettingsError("--sweep tells every row and --oracle the best one; give one of the two")
    if dataset is not None and request.datasets is not None:
        raise SettingsError(f"--datasets: {request.name!r} names the data set already; give one of the two")
    named = (request.datasets, "--datasets"), (request.classes, "--classes")
    plan = plan.opened(*([] if text is None else words_in(text, option) for text, option in named))
    tasks, notes = tasks_of(plan, request, dataset)
    out = request.output or Path("runs") / request.name
    with nullcontext() if what_is_there else sole_writer(out):
        if request.resume and not what_is_there:
            refuse_other_settings(out, tasks)
        begin(out, resume=request.resume, overwrite=request.overwrite)
        console.log_to_folder(out)
        waiting = [task for task in tasks if done(out, task) is None]
        log.info("%s: %d cells, %d done already; results in %s", plan.name, len(tasks),
                 len(tasks) - len(waiting), out)  # fmt: skip
        if count := others_there(out, tasks):
            log.info("%d other cells lie in %s; they stay, and tables do not show them", count, out)
        failures = tuple(_run([] if what_is_there else waiting, out, request.workers))
        records = tuple(record for task in tasks if (record := done(out, task)) is not None)
        ran = Ran(plan, tuple(tasks), records, failures, tuple(notes), out, bool(request.sweep))
        _write(ran, request.oracle)
    return ran


def _run(tasks: Sequence[Task], out: Path, workers: int) -> list[tuple[str, str]]:
    """Run tasks, telling each; return name and message of those that failed."""
    from mednovelty.benchmarks.grid import Outcome, run_cells

    if not tasks:
        return []
    started, count = time.monotonic(), 0

    def told(outcome: Outcome) -> None:
        nonlocal count
        count += 1
        left = (time.monotonic() - started) / count * (len(tasks) - count)
        what = "failed" if outcome.failed else f"done in {outcome.seconds:.1f} s"
        log.info("%d of %d, %s: %s; about %d:%02d left", count, len(tasks), outcome.cell.name, what,
                 left // 60, left % 60)  # fmt: skip

    outcomes = run_cells(tasks, out, workers=workers, told=told)
    return [(outcome.cell.name, outcome.message) for outcome in outcomes if outcome.failed]


def _write(ran: Ran, oracle: bool) -> None:
    write_results(ran.out, ran.records)
    write_failures(ran.out, ran.failures)
    write_text_atomic(ran.out / "run.json", json.dumps(_facts(ran, oracle), indent=2, default=str) + "\n")
    write_text_atomic(ran.out / "results.md", _text(ran, oracle))


def _facts(ran: Ran, oracle: bool) -> dict[str, Any]:
    return run_facts(ran.plan, oracle, ran.records, ran.failures, ran.exit_code, swept=ran.swept)


def _text(ran: Ran, oracle: bool) -> str:
    """Return the protocol's tables, and that beside other libraries where some were run."""
    others = beside(ran.plan, ran.records)
    tables = markdown(ran.plan, ran.records, oracle=oracle, notes=ran.notes, swept=ran.swept)
    return tables + (f"\n{others}" if others else "")


__all__ = ["BenchRequest", "Ran", "bench", "list_benchmarks", "run_benchmark", "task_sha256", "tasks_of"]
