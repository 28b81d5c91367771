"""A planted artefact through the command line: fit, score, explain, evaluate --clever-hans.

Slices of patients with a lesion either carry a mark in a corner of the brain, and the lesion is too faint to
see, or no mark and a plain lesion. Both kinds are detected; only one for the right reason.
"""

import json
import os
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import images
import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner
from without_pages import no_pictures, typed

from mednovelty.cli import app
from mednovelty.evaluation import EvaluateSettings, evaluate

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
SHAPE = (16, 14, 13)
AFFINE = np.array([[-2.0, 0, 0, 31], [0, 2, 0, -12], [0, 0, 2.5, 7], [0, 0, 0, 1]])
DISEASED = range(4, 9)
SETTINGS = ["preprocessors=['zscore']", "view_settings.size=[16,14]", "view_settings.axis='K'"]
DETECTORS = {
    "pca": ("outlier_score", ["method_settings.variance=0.5"]),
    "deep_svdd": ("hypersphere", [
        "train.max_epochs=12", "train.batch_size=16", "method_settings.pretrain_epochs=3",
        "method_settings.network='mlp'", "method_settings.hidden=[32]", "method_settings.latent=8",
    ]),
}  # fmt: skip
_MADE = []


def run(*words):
    result = CliRunner().invoke(app, typed(words), env=ENVIRONMENT)
    assert result.exit_code == 0, result.output
    return result


def brain():
    inside = np.zeros(SHAPE, np.uint8)
    inside[1:15, 1:13, 1:12] = 1
    return inside


def image(seed, lesion=0.0, mark=0.0):
    """Return an image and where its lesion is, a square of 5 x 5 voxels in each diseased slice."""
    random = np.random.default_rng(seed)
    i, j, k = np.indices(SHAPE)
    data = 100 + 10 * np.sin(i / 3) + 8 * np.cos(j / 4) + 3 * np.sin(k / 2) + random.normal(0, 4, SHAPE)
    where = np.zeros(SHAPE, np.uint8)
    for place in DISEASED:
        i, j = random.integers(4, 9), random.integers(3, 7)
        where[i : i + 5, j : j + 5, place] = 1
    data += lesion * where
    data[13:15, 11:13, list(DISEASED)] += mark
    return np.where(brain(), data, 0).astype(np.float32), where


@cache
def cohort(lesion, mark):
    """Return a folder of controls, patients, brains and lesion masks, written by nibabel alone."""
    _MADE.append(TemporaryDirectory(prefix="mednovelty-test-"))
    root = Path(_MADE[-1].name)
    for number in range(10):
        kind = "patients" if number >= 6 else "controls"
        id = f"sub-{number:02d}"
        data, where = image(number, lesion, mark) if kind == "patients" else image(number)
        images.save(root / kind / id / "anat" / f"{id}_FLAIR.nii.gz", data, AFFINE)
        images.save(root / "brains" / f"{id}_mask.nii.gz", brain(), AFFINE)
        if kind == "patients":
            images.save(root / "lesions" / f"{id}_mask.nii.gz", where, AFFINE)
    return root


@pytest.fixture(scope="module", autouse=True)
def nothing_stays():
    with no_pictures():
        yield
    cohort.cache_clear()
    judged.cache_clear()
    while _MADE:
        _MADE.pop().cleanup()


@cache
def judged(method, lesion, mark):
    """Return what the evaluation's JSON tells, and its folder."""
    root, (score, settings) = cohort(lesion, mark), DETECTORS[method]
    model, out, brains = root / f"{method}-model", root / f"{method}-out", ["--brain-masks", root / "brains"]
    words = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
    run("fit", root / "controls", "-o", model, "--recipe", "slices", "--method", method, *words, *brains)
    run("score", model, root / "patients", "-o", out, "--scores", score, *brains)
    run("explain", model, root / "patients", "-o", out, "--score", score, *brains)
    told = json.loads(run("evaluate", out, "--masks", root / "lesions", "--clever-hans", "--json").stdout)
    return told["clever_hans"][score], out


@pytest.mark.parametrize("method", DETECTORS)
def test_a_detector_that_sees_a_mark_and_not_the_lesion_is_flagged(method):
    told, _ = judged(method, 1.0, 160.0)
    assert told["auroc"] == 1
    assert told["cosine"] < 0.15
    assert told["clever_hans"] == pytest.approx(1 - told["cosine"])
    assert told["clever_hans"] > 0.85
    assert told["flagged"] is True
    assert (told["threshold"], told["detects_from"]) == (0.5, 0.7)
    assert told["cosine"] < told["cosine_of_even_relevance"]
    assert "it may be right for a wrong reason" in told["words"]


@pytest.mark.parametrize("method", DETECTORS)
def test_an_honest_detector_is_not(method):
    told, _ = judged(method, 60.0, 0.0)
    assert told["auroc"] > 0.95
    assert told["cosine"] > 0.6
    assert told["flagged"] is False
    assert told["cosine"] > told["cosine_of_even_relevance"]


def test_cosines_are_of_lesions_in_diseased_slices():
    told, out = judged("pca", 60.0, 0.0)
    cosines, even = [], []
    for path in sorted(out.rglob("*_relevance.nii.gz")):
        id = path.name.partition("_")[0]
        relevance = np.asarray(nib.load(path).dataobj)
        lesion = np.asarray(nib.load(out.parent / "lesions" / f"{id}_mask.nii.gz").dataobj)
        for k in DISEASED:
            r, where = relevance[..., k].ravel(), lesion[..., k].ravel()
            cosines.append(r @ where / np.linalg.norm(r) / np.linalg.norm(where))
            even.append(np.sqrt(25 / (14 * 12)))
    assert len(cosines) == told["slices"] == 20
    assert told["scans"] == 4
    assert told["cosine"] == pytest.approx(np.mean(cosines), rel=1e-5)
    assert told["cosine_of_even_relevance"] == pytest.approx(np.mean(even), rel=1e-5)


def test_tables_flag_it_and_say_by_what_rule_of_thumb():
    _, out = judged("pca", 1.0, 160.0)
    screen = run("evaluate", out, "--masks", out.parent / "lesions", "--clever-hans").output
    written = (out / "evaluation" / "evaluation.md").read_text()
    for text in (screen, written):
        assert "Clever Hans scores: 20 diseased slices" in text
        assert "flagged above 0.5" in text
        assert "so look at relevance" in " ".join(text.split())
    without = run("evaluate", out, "--masks", out.parent / "lesions").output
    assert "Clever Hans" not in without


def test_relevance_of_something_else_is_left_out(tmp_path):
    _, out = judged("pca", 1.0, 160.0)
    masks = out.parent / "lesions"
    relevance = tmp_path / "relevance"
    for path in out.rglob("*_relevance.*"):
        if path.suffix != ".png":
            (relevance / path.parent.relative_to(out)).mkdir(parents=True, exist_ok=True)
            (relevance / path.relative_to(out)).write_bytes(path.read_bytes())
    sidecars = sorted(relevance.rglob("*_relevance.json"))
    _change(sidecars[0], DetectorSha256="0" * 64)
    _change(sidecars[1], InputSha256="0" * 64)
    image = sidecars[2].with_suffix(".nii.gz")
    image.write_bytes(sidecars[3].with_suffix(".nii.gz").read_bytes())
    found = evaluate(out, masks, settings=EvaluateSettings(resamples=20), relevance=relevance)
    said = "\n".join(found.warnings)
    assert "sub-06_desc-outlier_score_relevance.nii.gz: was made by another detector than the map" in said
    assert "sub-07_desc-outlier_score_relevance.nii.gz: was made from another image than the map" in said
    assert "sub-08_desc-outlier_score_relevance.nii.gz: its sha256 is" in said
    assert (found.reasons["outlier_score"].scans, found.reasons["outlier_score"].slices) == (1, 5)
    sidecars[3].unlink()
    found = evaluate(out, masks, settings=EvaluateSettings(resamples=20), relevance=relevance)
    assert "outlier_score: no relevance of sub-09" in "\n".join(found.warnings)
    assert "outlier_score: no Clever Hans score: there is no diseased slice" in "\n".join(found.warnings)
    assert found.reasons == {}
    assert found.to_dict()["clever_hans"] == {}


def test_without_relevance_it_is_said_how_to_get_it(tmp_path):
    _, out = judged("pca", 1.0, 160.0)
    words = ["evaluate", str(out), "--masks", str(out.parent / "lesions"), "--relevance", str(tmp_path)]
    result = CliRunner().invoke(app, words, env=ENVIRONMENT)
    assert result.exit_code == 3
    assert f"no relevance is there; run `mednovelty explain MODEL SCANS -o {tmp_path}` first" in result.output


def _change(sidecar, **values):
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | values))
