"""Scores are asked for by name, by group, or all at once: when fitting, scoring and on the command line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from cohorts import FAST, FAST_TOML, tiny_cohort
from typer.testing import CliRunner
from without_pages import typed

import mednovelty as mn
from mednovelty.cli import app
from mednovelty.errors import UnknownPluginError


def test_groups_are_spelled_out_when_fitting_and_scoring():
    x = np.random.default_rng(0).normal(2, 1, (600, 7))
    scans = np.arange(600) // 200
    detector = mn.fit_voxels(x, scans=scans, settings=replace(FAST, scores=("latent", "negative_elbo")))
    names = detector.settings.scores
    assert {"vae_regularizer", "latent_euclidean", "latent_bhattacharyya", "latent_density"} <= set(names)
    assert names[-1] == "negative_elbo"
    assert list(detector.score_voxels(x[:9])) == list(names)
    assert list(detector.score_voxels(x[:9], "latent")) == list(names[:-1])
    with pytest.raises(UnknownPluginError, match="no scorer is called 'latents'; did you mean 'latent'"):
        detector.score_voxels(x[:9], "latents")
    with pytest.raises(UnknownPluginError, match="no scorer is called 'everything'"):
        mn.fit_voxels(x, scans=scans, settings=replace(FAST, scores=("everything",)))


def test_all_scores_of_a_patient_from_the_command_line(tmp_path):
    cohort = tiny_cohort()
    (tmp_path / "fast.toml").write_text(FAST_TOML)

    def run(*words):
        result = CliRunner().invoke(app, typed(words))
        assert result.exit_code == 0, result.stderr

    run("fit", cohort.controls, "-o", tmp_path / "model", "--settings", tmp_path / "fast.toml",
        "--scores", "all")  # fmt: skip
    run("score", tmp_path / "model", cohort.patients, "-o", tmp_path / "out", "--scores", "all", "-d", "cpu")
    maps = sorted((tmp_path / "out" / "sub-p01" / "dwi").glob("*_novelty.nii.gz"))
    found = {path.name.split("_desc-")[1].removesuffix("_novelty.nii.gz") for path in maps}
    assert len(found) == 29 + 3
    told = json.loads(next(maps[0].parent.glob("*_desc-closest_generated_novelty.json")).read_text())
    assert 0.5 < told["Score"]["converged"] <= 1
    assert {"latent_bhattacharyya", "fully_stochastic_error_min", "input_density", "raw_b0"} <= found
