"""Pipelines as a shell runs them, but in this process: to import all libraries anew takes long."""

import contextlib
import io
import logging
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def run_pipeline(name, *words, cwd):
    """Run a pipeline with the words of a command line in a folder; its own folder is looked in first."""
    program, stdout, stderr = PIPELINES / f"{name}.py", io.StringIO(), io.StringIO()
    log = logging.getLogger("mednovelty")
    kept = log.handlers[:], log.level, log.propagate
    argv, path = sys.argv, sys.path
    try:
        sys.argv, sys.path = [str(program), *map(str, words)], [str(PIPELINES), *path]
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), contextlib.chdir(cwd):
            runpy.run_path(str(program), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv, sys.path = argv, path
        for handler in log.handlers:
            if handler not in kept[0]:
                handler.close()
        log.handlers[:], log.propagate = kept[0], kept[2]
        log.setLevel(kept[1])
    return Done(code, stdout.getvalue(), stderr.getvalue())
