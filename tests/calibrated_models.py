"""Commands as a user types them, and copies of the small detector that are calibrated."""

import os
import shutil

from cohorts import tiny_cohort, tiny_detector
from typer.testing import CliRunner
from without_pages import typed

from mednovelty.cli import app

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
SCORES = ("vae_regularizer", "reconstruction_error")


def run(*words, code=0, pages=False):
    words = [str(word) for word in words] if pages else typed(words)
    result = CliRunner().invoke(app, words, env=ENVIRONMENT)
    assert result.exit_code == code, result.output + str(result.exception)
    return result


def calibrated_model(folder, scores=SCORES):
    """Return a copy of the small detector in a folder, calibrated on the scan that its fit held out."""
    model = shutil.copytree(tiny_detector()[1], folder / "model")
    cohort = tiny_cohort()
    run("calibrate", model, cohort.controls, "--brain-masks", cohort.brains, "--scores", ",".join(scores))
    return model


def score(model, out, *words, scores=SCORES, code=0, pages=False):
    """Score the small cohort's patients."""
    words = ("score", model, tiny_cohort().patients, "-o", out, "--scores", ",".join(scores), *words)
    return run(*words, code=code, pages=pages)
