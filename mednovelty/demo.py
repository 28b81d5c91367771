"""The main job on people who never lived: simulate, check, fit, score, evaluate, look."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mednovelty import commands, fit_command
from mednovelty.errors import OutputError

log = logging.getLogger("mednovelty")
DRAWN = ("nearest_normal", "negative_elbo")
PARTS = ("cohort", "model", "out")
MARK = ".mednovelty-demo"


def run(folder: Path, *, seed: int = 0, overwrite: bool = False, threads: int | None = None) -> int:
    """Run the demo in a folder and return its exit code.

    Args:
        folder: Gets ``cohort/``, ``model/`` and ``out/``.
        seed: Of the simulated people and of training.
        overwrite: Begin anew where an earlier demo stands.
        threads: Processor threads; None: all.

    Raises:
        OutputError: The folder holds something that is no demo, or a demo and ``overwrite`` is off.
    """
    from mednovelty.testing.phantoms import make_cohort

    _clear(folder, overwrite)
    start = time.monotonic()
    log.info("simulating 8 controls and 3 patients into %s", folder / "cohort")
    cohort = make_cohort(folder / "cohort", controls=8, patients=3, seed=seed)
    steps = (
        lambda: commands.check(commands.CheckRequest(cohort.controls)),
        lambda: fit_command.fit(
            fit_command.FitRequest(
                cohort.controls, folder / "model", seed=seed, threads=threads, calibrate="validation"
            )
        ),
        lambda: commands.score(
            commands.ScoreRequest(folder / "model", cohort.patients, folder / "out", threads=threads)
        ),
        lambda: commands.evaluate(commands.EvaluateRequest(folder / "out", cohort.lesions, seed)),
    )
    for step in steps:
        code = step()
        if code:
            return code
    pictures = draw_maps(folder / "out", cohort.lesions)
    log.info("pictures: %s", ", ".join(str(path) for path in pictures))
    log.info("the demo took %.0f s", time.monotonic() - start)
    return 0


def draw_maps(out: Path, lesions: Path, scores: Sequence[str] = DRAWN) -> list[Path]:
    """Draw some scores of every scan over its background, the lesions outlined; return the pictures."""
    return [
        _draw_map(path, lesions, score, out / "evaluation")
        for score in scores
        for path in sorted(out.rglob(f"*_desc-{score}_novelty.nii.gz"))
    ]


def _draw_map(path: Path, lesions: Path, score: str, folder: Path) -> Path:
    from mednovelty.io.nifti import read_volume
    from mednovelty.report.figures import MapLayers, MosaicSettings, plot_map_mosaic

    stem = path.name.split("_desc-")[0]
    beside = [path.with_name(f"{stem}_desc-{name}.nii.gz") for name in ("background", "brain_mask")]
    background, mask, lesion = (
        read_volume(image).data[0] for image in (*beside, lesions / f"{stem}_mask.nii.gz")
    )
    novelty = read_volume(path)
    layers = MapLayers(background, novelty.data[0], mask > 0, novelty.affine, lesion > 0)
    settings = MosaicSettings(title=f"{stem}: {score.replace('_', ' ')}")
    return plot_map_mosaic(layers, folder / f"{stem}_{score}.png", settings)


def _clear(folder: Path, overwrite: bool) -> None:
    """Make room; only what an earlier demo wrote is ever removed."""
    standing: list[Any] = list(folder.iterdir()) if folder.is_dir() else []
    if standing and not (folder / MARK).is_file():
        raise OutputError(f"{folder}: is not empty and holds no demo; choose another folder")
    if standing and not overwrite:
        raise OutputError(f"{folder}: holds a demo already; choose another folder or pass --overwrite")
    for part in PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text("made by `mednovelty demo`\n")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
