"""``fit --fold`` and ``score --fold``: who trains, who is tested, and what is refused."""

import json
import os

import pytest
import structural_images as made
from test_image_recipes import SLICES
from typer.testing import CliRunner
from without_pages import typed

from mednovelty.cli import app

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
SUBJECTS = [f"sub-{i}" for i in range(1, 8)]
FOLDS = [["sub-3", "sub-6"], ["sub-1", "sub-7"], ["sub-2", "sub-5"]]
MANIFEST = f"""
[dataset]
name = "small"
licence = "CC0"
[files]
root = "data"
contrasts = {{ FLAIR = "{{id}}/anat/{{id}}_FLAIR.nii.gz" }}
[folds]
patterns = {FOLDS}
"""


def run(*words):
    return CliRunner().invoke(app, typed(words), env=ENVIRONMENT)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("folds")
    for i, subject in enumerate(SUBJECTS):
        path = root / "data" / subject / "anat" / f"{subject}_FLAIR.nii.gz"
        made.save(path, made.volume(i, (18, 20, 7)))
    (root / "small.toml").write_text(MANIFEST)
    (root / "slices.toml").write_text(SLICES)
    return root


def fit(cohort, output, *words, source="small.toml"):
    settings = ["--settings", cohort / "slices.toml"]
    return run("fit", cohort / source, "-o", output, "--recipe", "slices", *settings, *words)


@pytest.fixture(scope="module")
def model(cohort):
    result = fit(cohort, cohort / "model", "--fold", 2)
    assert result.exit_code == 0, result.output
    return cohort / "model"


def test_the_fold_is_kept_out_the_next_validates_and_the_card_says_so(model):
    told = json.loads((model / "detector.json").read_text())
    roles = {
        role: {s["id"] for s in told["scans"] if s["role"] == role} for role in ("training", "validation")
    }
    assert roles == {"training": set(FOLDS[0]), "validation": set(FOLDS[2])}
    note = "fold 2 of 3 of small is tested; its 2 scans were kept out"
    assert note in told["notes"]
    assert f"* {note}\n" in (model / "README.md").read_text()


def test_score_takes_the_folds_scans(cohort, model, tmp_path):
    result = run("score", model, cohort / "small.toml", "-o", tmp_path, "--fold", 2, "--scores", "rec_error")
    assert result.exit_code == 0, result.output
    assert "fold 2 of 3 of small is tested" in result.stderr
    scored = {scan["id"] for scan in json.loads((tmp_path / "run.json").read_text())["Scans"]}
    assert scored == set(FOLDS[1])


@pytest.mark.parametrize(
    ("words", "trained"), [(["--fold", 1], "sub-3"), ([], "sub-3"), (["--fold", 3], "sub-2")]
)
def test_nobody_is_tested_who_was_trained_on(cohort, model, tmp_path, words, trained):
    result = run("score", model, cohort / "small.toml", "-o", tmp_path / "out", *words)
    assert result.exit_code == 4
    assert f"was fitted with {trained}, which is to be tested (fold 2 of 3" in result.stderr
    assert (
        "fold 2 of 3 of small is tested; its 2 scans were kept out); score the fold it was fitted for"
        in result.stderr
    )
    assert not (tmp_path / "out").exists()


def test_other_scans_of_the_same_name_are_tested(cohort, model, tmp_path):
    for i, subject in enumerate(SUBJECTS):
        path = tmp_path / "data" / subject / "anat" / f"{subject}_FLAIR.nii.gz"
        made.save(path, made.volume(50 + i, (18, 20, 7)))
    (tmp_path / "small.toml").write_text(MANIFEST)
    words = ["-o", tmp_path / "out", "--fold", 3, "--scores", "rec_error"]
    assert run("score", model, tmp_path / "small.toml", *words).exit_code == 0


def test_the_first_fold_is_tested_where_nobody_says(cohort, tmp_path):
    assert fit(cohort, tmp_path / "model").exit_code == 0
    told = json.loads((tmp_path / "model" / "detector.json").read_text())
    assert {scan["id"] for scan in told["scans"]} == {*FOLDS[1], *FOLDS[2]}
    assert "fold 1 of 3 of small is tested; its 2 scans were kept out" in told["notes"]


@pytest.mark.parametrize(
    ("source", "fold", "said"),
    [
        ("small.toml", 4, "--fold 4: small.toml has 3 folds, 1 to 3"),
        ("small.toml", 0, "--fold"),
        ("data", 1, "data has no folds; give a data manifest with [folds]"),
    ],
)
def test_what_is_no_fold_is_said(cohort, model, tmp_path, source, fold, said):
    for result in (
        fit(cohort, tmp_path / "out", "--fold", fold, source=source),
        run("score", model, cohort / source, "-o", tmp_path / "out", "--fold", fold),
    ):
        assert result.exit_code == 2, result.output
        assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_help_says_where_counting_starts():
    for command in ("fit", "score"):
        assert "counted from 1" in " ".join(run(command, "--help").stdout.split())
