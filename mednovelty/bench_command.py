"""What ``mednovelty bench`` does, once its words are understood."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mednovelty import console
from mednovelty.benchmarks.cell_files import begin, task_sha256
from mednovelty.benchmarks.plan import plan_named, plans
from mednovelty.benchmarks.requested_tasks import BenchRequest, tasks_of, words_in
from mednovelty.benchmarks.run_facts import choices_of
from mednovelty.benchmarks.run_tables import Progress, Ran, facts_of, text_of, write_tables
from mednovelty.benchmarks.standing_cells import done_otherwise, others_there
from mednovelty.errors import OutputError, SettingsError, StoppedError
from mednovelty.text import printable

log = logging.getLogger("mednovelty")


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


def bench(request: BenchRequest) -> int:
    """Run a benchmark, print its tables or facts, and tell what failed; return the exit code."""
    ran = run_benchmark(request)
    if request.as_json:
        console.print_json(facts_of(ran))
    elif ran.records:
        print(printable(text_of(ran), keep="\n"))
    for name, message in ran.failures:
        log.error("failed: %s: %s", name, message)
    log.info("%d done, %d failed; %s", len(ran.records), len(ran.failures), ran.out / "results.md")
    return ran.exit_code


def run_benchmark(request: BenchRequest, *, what_is_there: bool = False) -> Ran:
    """Run a benchmark's cells, those that are not done, and write tables of all.

    Args:
        request: What is asked for.
        what_is_there: Run nothing, and write nothing either.

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
    ran = Ran(plan, tuple(tasks), (), (), tuple(notes), out, bool(request.sweep), request.oracle,
              choices=choices_of(request))  # fmt: skip
    if what_is_there:
        if words := done_otherwise(out, tasks):
            log.warning("not shown: %s", words)
        ran = ran.from_disk()
        _begun(ran)
        return ran
    with sole_writer(out):
        if request.resume and (words := done_otherwise(out, tasks)):
            raise OutputError(words)
        begin(out, resume=request.resume, overwrite=request.overwrite)
        console.log_to_folder(out)
        ran = ran.from_disk()
        _begun(ran)
        return _run(ran, request.workers)


def _begun(ran: Ran) -> None:
    log.info("%s: %d cells, %d done already; results in %s", ran.plan.name, len(ran.tasks),
             len(ran.records), ran.out)  # fmt: skip
    if count := others_there(ran.out, ran.tasks):
        log.info("%d other cells lie in %s; they stay, and tables do not show them", count, ran.out)


def _run(ran: Ran, workers: int) -> Ran:
    """Run the cells that are not done, and write tables of all, also where it is stopped."""
    from mednovelty.benchmarks.grid import run_cells

    progress, there = Progress(ran), {record.cell for record in ran.records}
    waiting = [task for task in ran.tasks if task.cell not in there]
    try:
        if waiting:
            run_cells(waiting, ran.out, workers=workers, told=progress.told)
    except BaseException as error:
        # Ctrl-C, too: what hours have made is to be read without running anything again.
        code = getattr(error, "exit_code", StoppedError.exit_code)
        stopped = replace(ran, failures=tuple(progress.failures), stopped=code).from_disk()
        with suppress(OutputError):
            write_tables(stopped)
            log.info("%d of %d cells are done; %s", len(stopped.records), len(ran.tasks),
                     ran.out / "results.md")  # fmt: skip
        raise
    ran = replace(ran, failures=tuple(progress.failures)).from_disk()
    write_tables(ran)
    return ran


__all__ = ["BenchRequest", "Ran", "bench", "list_benchmarks", "run_benchmark", "task_sha256", "tasks_of"]
