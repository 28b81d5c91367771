"""The method on the command line, and its study: from a manifest with folds to tables and blind spots."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from pipeline_runs import PIPELINES, run_pipeline
from test_image_recipes import ENVIRONMENT, cohort, run, write_manifest  # noqa: F401 - a fixture

import mednovelty as mn
from mednovelty.model_folder import fit_settings

TINY = ("--set", "method_settings.width=2", "--set", "train.max_epochs=2", "--set",
        "view_settings.size=[16,16]",
        "--set", "train.batch_size=16", "--contrasts", "FLAIR", "--method", "synthetic-lesions")  # fmt: skip
STUDY = """
recipe = "slices"
seed = 0
[fit]
method = "synthetic_lesions"
[fit.method_settings]
anomalies = ["hyperintense"]
width = 2
[fit.method_settings.anomaly_settings.hyperintense]
strength_sd = [1.0, 2.0]
[fit.train]
max_epochs = 1
batch_size = 16
[fit.view_settings]
size = [16, 16]
[likelihood]
settings = "{likelihood}"
score = "rec_error_bright"
[blindness]
families = {families}
max_epochs = 1
"""
LIKELIHOOD = """
[fit]
method = "image_vae"
[fit.method_settings]
widths = [4, 8]
latent = 5
[fit.train]
max_epochs = 1
batch_size = 16
[fit.view_settings]
size = [16, 16]
"""


def test_from_healthy_scans_to_a_map_that_says_what_it_looks_for(cohort, tmp_path):  # noqa: F811
    made = run("fit", cohort / "scans", "-o", tmp_path / "model", "--recipe", "slices", *TINY,
               "--brain-masks", cohort / "brains", "--masks", cohort / "masks",
               "--set", "annotations.lesions=leave_out",
               "--anomalies", "hyperintense,texture", "--held-out", "foreign")  # fmt: skip
    assert made.exit_code == 0, made.output
    record = json.loads((tmp_path / "model" / "detector.json").read_text())
    own = record["settings"]["method_settings"]
    assert (own["anomalies"], own["held_out"]) == (["hyperintense", "texture"], ["foreign"])
    assert record["summary"]["prior"]["words"].startswith("hyperintense (50 %): 1 to 3 shapes of 4 to 40 mm")
    assert "AUROC of voxels" in record["summary"]["verdict"]
    card = (tmp_path / "model" / "README.md").read_text()
    assert "It was trained to find hyperintense (50 %)" in card
    assert "| hypointense | no |" in card
    assert " training slices (" in card
    assert "voxels" not in card.split("## What it takes")[0].split("* Record")[1]
    assert "slices/s" in made.output
    scored = run("score", tmp_path / "model", cohort / "scans", "-o", tmp_path / "maps",
                 "--brain-masks", cohort / "brains")  # fmt: skip
    assert scored.exit_code == 0, scored.output
    (path,) = tmp_path.glob("maps/**/sub-4*synthetic_lesions_map_novelty.nii.gz")
    told = json.loads(Path(str(path).replace(".nii.gz", ".json")).read_text())
    assert told["Score"]["unit"] == "log-odds"
    assert told["Score"]["prior"]["words"] == record["summary"]["prior"]["words"]
    assert not told["Score"]["semi_supervised"]
    found, scan = nib.load(path), nib.load(next(cohort.glob("scans/sub-4/anat/*FLAIR*")))
    np.testing.assert_allclose(found.affine, scan.affine)
    assert np.isfinite(found.get_fdata()).all()


def test_a_few_annotated_scans_are_mixed_in_and_told(cohort, tmp_path):  # noqa: F811
    made = run("fit", cohort / "scans", "-o", tmp_path / "model", "--recipe", "slices", *TINY,
               "--brain-masks", cohort / "brains", "--masks", cohort / "masks")  # fmt: skip
    assert made.exit_code == 0, made.output
    record = json.loads((tmp_path / "model" / "detector.json").read_text())
    assert record["summary"]["labelled_anomalies"] > 5
    assert {scan["id"] for scan in record["scans"] if scan["annotation"]} == {
        "sub-1",
        "sub-2",
        "sub-4",
        "sub-5",
    }
    # Whatever is annotated is trained on: a family that is held out chooses the epoch.
    assert all(scan["role"] == "training" for scan in record["scans"] if scan["annotation"])
    detector = mn.Detector.load(tmp_path / "model")
    assert detector.settings.method_settings.anomalies == ("contrast",)
    again = run("fit", cohort / "scans", "-o", tmp_path / "next", "--recipe", "slices", *TINY,
                "--brain-masks", cohort / "brains", "--masks", cohort / "masks", "--set",
                "annotations.lesions=leave_out", "--init", tmp_path / "model")  # fmt: skip
    assert again.exit_code == 0, again.output
    assert detector.sha256[:12] in (tmp_path / "next" / "README.md").read_text()


def study_of(cohort, folder, *more, families='["hyperintense", "texture"]', apart=False):  # noqa: F811
    write_manifest(folder / "cohort.toml", cohort, 2)
    (folder / "likelihood.toml").write_text(LIKELIHOOD)
    (folder / "settings.toml").write_text(
        STUDY.format(likelihood=folder / "likelihood.toml", families=families)
    )
    words = ["--manifest", folder / "cohort.toml", "--out", folder / "study", "--settings",
             folder / "settings.toml", "--brain-masks", cohort / "brains", *more]  # fmt: skip
    if not apart:
        return run_pipeline("synthetic_lesions", *words, cwd=folder)
    program = PIPELINES / "synthetic_lesions.py"
    return subprocess.run([sys.executable, program, *map(str, words)],
                          env=ENVIRONMENT, capture_output=True, text=True, timeout=600)  # fmt: skip


def test_the_study_writes_one_table_and_what_it_is_blind_to(cohort, tmp_path):  # noqa: F811
    # The range of one family and what is held out are none of the others' business.
    own_range = "method_settings.anomaly_settings.hyperintense.strength_sd=[1.0,3.0]"
    words = ["--set", "draws=3", "--set", own_range, "--set", 'method_settings.held_out=["texture"]']
    done = study_of(cohort, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    table, study = json.loads(done.stdout), tmp_path / "study"
    assert set(table["scans"]) == {f"sub-{n}" for n in range(1, 6)}
    both = "synthetic_lesions_map+rec_error_bright"
    assert {"synthetic_lesions_map", "rec_error_bright", "raw_FLAIR", both} <= set(table["mean"])
    rows = [line.split("\t") for line in (study / "blindness.tsv").read_text().splitlines()]
    assert rows[0] == ["trained_on", "family", "auroc", "ap"]
    assert {row[0] for row in rows[1:]} == {"hyperintense", "texture"}
    assert {row[1] for row in rows[1:]} >= {"hyperintense", "hypointense", "texture", "deformation"}
    assert (study / "blindness.png").stat().st_size > 10_000
    kept = json.loads((study / "models/blindness/texture/detector.json").read_text())
    assert kept["settings"]["method_settings"]["anomalies"] == ["texture"]
    assert kept["settings"]["method_settings"]["anomaly_settings"] == {}
    own = json.loads((study / "models/synthetic/fold-1/detector.json").read_text())
    assert own["settings"]["method_settings"]["anomaly_settings"]["hyperintense"]["strength_sd"] == [1.0, 3.0]
    assert own["settings"]["method_settings"]["held_out"] == ["texture"]
    assert own["settings"]["draws"] == kept["settings"]["draws"] == 3
    assert (study / "maps" / "evaluation" / "roc.png").exists()
    assert "holds a study already" in study_of(cohort, tmp_path, *words).stderr
    # Stopped while it looked for blind spots, it goes on there.
    (study / "blindness.tsv").unlink()
    (study / "models/blindness/texture/detector.json").unlink()
    again = study_of(cohort, tmp_path, *words)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["mean"] == table["mean"]
    assert {line.split("\t")[0] for line in (study / "blindness.tsv").read_text().splitlines()} == {
        "trained_on", "hyperintense", "texture"}  # fmt: skip
    assert json.loads((study / "models/synthetic/fold-1/detector.json").read_text()) == own


def test_settings_that_do_not_go_together_are_refused_before_any_training(cohort, tmp_path):  # noqa: F811
    done = study_of(cohort, tmp_path, families='["hyperintense", "exchange"]', apart=True)
    assert done.returncode == 2, done.stderr
    assert "anomalies exchange are of diffusion" in done.stderr
    assert not (tmp_path / "study").exists()


def test_windows_have_smaller_batches_and_networks_than_slices():
    slices, windows = (fit_settings({"method": "synthetic_lesions"}, where="test", recipe=recipe)
                       for recipe in ("slices", "qspace-volumes"))  # fmt: skip
    assert (slices.method_settings.width, slices.train.batch_size) == (24, 64)
    assert (windows.method_settings.width, windows.train.batch_size) == (8, 4)
    assert (slices.train.average, windows.train.average) == (0.97, 0.97)
    asked = {"method": "synthetic_lesions", "method_settings": {"width": 5}, "train": {"batch_size": 2}}
    own = fit_settings(asked, where="test", recipe="patches")
    assert (own.method_settings.width, own.train.batch_size) == (5, 2)
    assert fit_settings({"method": "fcdd"}, where="test", recipe="patches").train.batch_size == 16
