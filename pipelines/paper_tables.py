"""Papers' tables, all at once: protocols run one after the other, and one summary of all of them.

    python pipelines/paper_tables.py --data IMAGES --out tables

Which protocols, with which methods, settings and seeds, stands in ``paper_tables.toml`` beside this file,
with the sentences that say why a number probably falls short of its paper. Each run is a run of ``mednovelty
bench`` in ``OUT/TABLE/RUN``, which the same command goes on with; ``summary.md`` is written after each, with
all tables: those that ``--only`` does not name are shown as they are. ``--show`` runs nothing, tells what is
there, and writes ``summary.md`` alone. Exit code 6: some cells, or some runs, were not done.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mednovelty import console
from mednovelty.bench_command import BenchRequest, run_benchmark
from mednovelty.benchmarks.machine import machine_words
from mednovelty.benchmarks.paper_tables import RunSettings, TableSettings, chosen_tables, tables_from
from mednovelty.benchmarks.summary import MadeRun, MadeTable, summary, with_run
from mednovelty.errors import MedNoveltyError, OutputError, StoppedError
from mednovelty.io.atomic import write_text_atomic
from mednovelty.settings import read_toml
from mednovelty.text import printable

SETTINGS = Path(__file__).with_suffix(".toml")
log = logging.getLogger("mednovelty")


def study(asked: argparse.Namespace) -> int:
    """Run the tables that are asked for, write and print the summary of all; return the exit code."""
    tables = tables_from(read_toml(asked.settings), asked.settings.name)
    chosen = [] if asked.show else chosen_tables(tables, asked.only)
    made = {table.name: MadeTable(table) for table in tables}
    for table in tables:
        if table not in chosen:
            for run in table.run:
                made[table.name] = one_run(made[table.name], run, asked, show=True)
    for table in chosen:
        for run in table.run:
            before = made[table.name]
            try:
                made[table.name] = one_run(before, run, asked)
            except StoppedError:
                made[table.name] = one_run(before, run, asked, show=True)
                raise
            finally:
                write_summary(made, asked)
    print(printable(write_summary(made, asked), keep="\n"))
    asked_for = chosen or chosen_tables(tables, asked.only)
    return 6 if any(made[table.name].failures for table in asked_for) else 0


def write_summary(made: Mapping[str, MadeTable], asked: argparse.Namespace) -> str:
    """Write and return the summary."""
    text = summary(list(made.values()), machine_words())
    asked.out.mkdir(parents=True, exist_ok=True)
    write_text_atomic(asked.out / "summary.md", text)
    return text


def one_run(made: MadeTable, run: RunSettings, asked: argparse.Namespace, *, show: bool = False) -> MadeTable:
    """Return a table with one more run; what it lacks is told and stops no other.

    Args:
        made: The table so far.
        run: Which.
        asked: As given.
        show: Run nothing: what is there.
    """
    request = request_of(made.settings, run, asked)
    console.start_logging(quiet=False, verbose=False)  # Each run has a log of its own.
    try:
        ran = run_benchmark(request, what_is_there=show)
    except StoppedError:
        raise
    except MedNoveltyError as error:
        log.error("%s, %s: %s", made.settings.name, run.name, error)
        failed = replace(made, failures=(*made.failures, f"{run.name}: {error}"))
        # What stands in the way of going on, as cells of other settings, hides nothing that is done.
        return (
            one_run(failed, run, asked, show=True) if isinstance(error, OutputError) and not show else failed
        )
    command = command_of(made.settings, run)
    told = MadeRun(command, ran.records, len(ran.tasks), ran.notes, run.oracle)
    return with_run(made, ran.plan, told, [f"{name}: {message}" for name, message in ran.failures])


def request_of(table: TableSettings, run: RunSettings, asked: argparse.Namespace) -> BenchRequest:
    """Return what is asked of ``bench``."""
    return BenchRequest(
        table.benchmark,
        data=asked.data,
        output=asked.out / table.name / run.name,
        methods=",".join(run.methods),
        scores=",".join(run.scores),
        classes=",".join(run.classes) or None,
        datasets=",".join(run.datasets) or None,
        seeds=run.seeds,
        assignments=run.assignments,
        resume=True,
        workers=asked.workers,
        threads=asked.threads,
        device=asked.device,
        oracle=run.oracle,
        against=",".join(run.against) or None,
        against_python=asked.against_python or (),
    )


def command_of(table: TableSettings, run: RunSettings) -> str:
    """Return a run as it can be typed."""
    words = ["mednovelty", "bench", table.benchmark, "--data", "IMAGES"]
    for option in ("methods", "scores", "datasets", "classes", "against"):
        given = getattr(run, option)
        words += [f"--{option}", ",".join(given)] if given else []
    words += ["--seeds", str(run.seeds)] if run.seeds else []
    for assignment in run.assignments:
        words += ["--set", assignment]
    words += ["--oracle"] if run.oracle else []
    return shlex.join(words)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Papers' tables: protocols in, one summary out.")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--settings", type=Path, default=SETTINGS)
    parser.add_argument("--only", help="run tables a,b, and show the others; default: all")
    parser.add_argument("--show", action="store_true", help="run nothing, tell what is there")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--against-python", action="append")
    given = parser.parse_args()
    console.start_logging(quiet=False, verbose=False)
    sys.exit(console.run(lambda: study(given)))
