"""Many scans with one and the same thing to say: one line on the screen, all of them in the log."""

import json
import logging
import os

import numpy as np
import pytest
import structural_images as made
from test_image_recipes import SLICES
from test_structural_mask import SPACING, head
from typer.testing import CliRunner
from without_pages import typed

from mednovelty import console
from mednovelty.cli import app

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
SKULL = "the image is not skull-stripped"


def run(*words):
    return CliRunner().invoke(app, typed(words), env=ENVIRONMENT)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("heads")
    for i in range(1, 6):
        path = root / "data" / f"sub-{i}" / "anat" / f"sub-{i}_T1w.nii.gz"
        made.save(path, head(seed=i), np.diag([*SPACING, 1.0]))
    (root / "slices.toml").write_text(SLICES)
    return root


def logged(folder):
    (path,) = (folder / "logs").glob("*.log")
    return path.read_text().splitlines()


def test_heads_are_told_once_a_cohort_when_fitting_and_when_scoring(cohort):
    model, out = cohort / "model", cohort / "out"
    fitted = run(
        "fit", cohort / "data", "-o", model, "--recipe", "slices", "--settings", cohort / "slices.toml"
    )
    scored = run("score", model, cohort / "data", "-o", out, "--scores", "rec_error")
    for result, folder in ((fitted, model), (scored, out)):
        assert result.exit_code == 0, result.output
        (line,) = [line for line in result.stderr.splitlines() if SKULL in line]
        assert line.startswith("5 alike, the first: sub-")
        assert line.endswith("strip it, give --brain-masks, or try --mask-maker brain")
        of_each = [line for line in logged(folder) if " DEBUG sub-" in line and SKULL in line]
        assert len(of_each) == 5
    told = json.loads(next((out / "sub-3").rglob("*_novelty.json")).read_text())["Warnings"]
    assert [SKULL in warning for warning in told].count(True) == 1
    assert (model / "README.md").read_text().count(SKULL) == 5
    again = run("score", model, cohort / "data", "-o", out, "--scores", "rec_error")
    assert (again.exit_code, SKULL in again.stderr) == (0, False)


def test_what_is_alike_and_what_is_not():
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append((record.levelname, record.getMessage()))
    console.log.addHandler(handler)
    before = console.log.level
    console.log.setLevel(logging.INFO)
    few = [f"sub-{i}: sub-{i}.nii.gz: {i}% odd: quite" for i in (1, 2, 3)]
    many = [f"sub-{i}: sub-{i}.nii.gz: {i}.5% even: quite" for i in (4, 5, 6, 7)]
    try:
        console.tell_alike([*few[:2], *many, few[2], "one scan only"])
    finally:
        console.log.removeHandler(handler)
        console.log.setLevel(before)
    assert said == [
        *(("INFO", message) for message in few),
        ("WARNING", f"4 alike, the first: {many[0]}"),
        ("INFO", "one scan only"),
    ]


def test_a_long_scan_says_how_far_it_is(monkeypatch):
    told = []

    def heard(level, words, *values):
        told.extend([words % values] if level == logging.INFO else [])

    monkeypatch.setattr(console.log, "log", heard)
    seconds = iter([0.0, 20.0, 61.0, 62.0, 130.0])
    with console.scoring_progress(2, lambda: next(seconds)) as advance:
        for scan, done in (("sub-01", 500), ("sub-01", 700), ("sub-01", 100), ("sub-02", 50)):
            advance(scan, done, 2000)
    assert told == ["sub-01: 1,200 of 2,000 samples scored", "sub-02: 50 of 2,000 samples scored"]
