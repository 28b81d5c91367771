"""One cell of a protocol, by a detector of another library: images out, scores back.

See ``libraries`` for which Python does it, ``library_runner`` for what it does.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.benchmarks.benchmark import Findings, Measured, Task
from mednovelty.benchmarks.image_methods import Split
from mednovelty.benchmarks.libraries import LIBRARIES, RUNNER
from mednovelty.benchmarks.pixels import SCORE
from mednovelty.errors import MedNoveltyError, OutputError
from mednovelty.metrics import Ranking, auroc
from mednovelty.text import printable

FOLDER = "against"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def by_library(task: Task, split: Split, out: Path) -> Findings:
    """Fit and score with another library, and return the AUROC of its scores.

    Args:
        task: Whose ``outside`` names library, detector and Python.
        split: The images.
        out: Where the exchanged files are for as long as it takes.

    Raises:
        MedNoveltyError: The other Python fails, or what it leaves is no score for each image.
        OutputError: Images cannot be written.
    """
    folder = out / FOLDER / task.cell.name
    try:
        shutil.rmtree(folder, ignore_errors=True)  # Of one that was killed.
        folder.mkdir(parents=True)
        hand_over(task, split, folder)
        run_there(task, folder)
        scores, told = taken_back(task, folder, len(split.test))
    except OSError as error:
        if isinstance(error, MedNoveltyError):
            raise
        raise OutputError(f"{folder}: images cannot be exchanged: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    value = auroc(Ranking.of(scores, split.novel, task.cell.method))
    about = {key: task.outside[key] for key in ("library", "version", "versions")}
    return Findings((Measured(SCORE, value),), {**told, **about})


def hand_over(task: Task, split: Split, folder: Path) -> None:
    """Write what the other Python needs: no label is among it."""
    normals = np.concatenate([split.training.numpy(), split.held_out.numpy()])
    np.savez(folder / "split.npz", training=normals, test=split.test.numpy())
    words = {
        "library": task.outside["library"],
        "detector": task.outside["detector"],
        "seed": task.cell.seed,
        "threads": task.threads,
        "device": task.device,
        "shape": list(split.shape),
    }
    (folder / "task.json").write_text(json.dumps(words), encoding="utf-8")


def run_there(task: Task, folder: Path) -> None:
    """Run the runner in the other Python, until it ends.

    Raises:
        MedNoveltyError: It fails; with the last line that it wrote.
    """
    # Paths of this Python are none of that one's; and no weights are fetched unasked.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= dict.fromkeys(THREADS, str(task.threads)) | {"HF_HUB_OFFLINE": "1"}
    words = [task.outside["python"], "-I", str(RUNNER), "run", str(folder)]
    # The runner ends when its standard input does: nothing of it outlives a worker that is killed.
    with (
        (folder / "log.txt").open("wb") as log,
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment) as process,
    ):
        code = process.wait()
    if code:
        raise MedNoveltyError(_failure(task, code, folder))


def _failure(task: Task, code: int, folder: Path) -> str:
    lines = (folder / "log.txt").read_text(encoding="utf-8", errors="backslashreplace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    ended = f"exit code {code}" if code > 0 else signal.Signals(-code).name
    hint = ""
    if "ModuleNotFoundError" in last or "ImportError" in last:
        hint = f"; install what it needs there: pip install {LIBRARIES[task.outside['library']].install}"
    return f"{task.cell.method}: {task.outside['python']} ended with {ended}: {printable(last)}{hint}"


def taken_back(task: Task, folder: Path, count: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Return ``(count,)`` scores, and what else was told.

    Raises:
        MedNoveltyError: There are none, or not one finite number an image.
    """
    name = task.cell.method
    try:
        with np.load(folder / "scores.npz", allow_pickle=False) as found:
            scores = found["scores"]
        told = dict(json.loads((folder / "told.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise MedNoveltyError(f"{name}: left no scores that can be read: {error}") from error
    if scores.shape != (count,):
        raise MedNoveltyError(f"{name}: left scores of shape {scores.shape} for {count} images")
    if bad := int(np.count_nonzero(~np.isfinite(scores))):
        raise MedNoveltyError(f"{name}: {bad} of {count} scores are not finite")
    return scores, told


__all__ = ["FOLDER", "by_library", "hand_over", "run_there", "taken_back"]
