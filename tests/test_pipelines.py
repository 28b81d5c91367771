"""Every pipeline runs on phantoms, and defines no class of its own."""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib

import pytest
from cohorts import FAST_TOML, tiny_cohort
from pipeline_runs import PIPELINES, run_pipeline

PROGRAMS = sorted(PIPELINES.glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_no_class_is_defined_and_settings_stand_beside_it(program):
    classes = [
        node.name for node in ast.walk(ast.parse(program.read_text())) if isinstance(node, ast.ClassDef)
    ]
    assert classes == []
    assert tomllib.loads(program.with_suffix(".toml").read_text())


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_its_settings_are_known(program):
    from mednovelty.model_folder import fit_settings

    asked = tomllib.loads(program.with_suffix(".toml").read_text())
    if "fit" not in asked:
        pytest.skip("fits no detector; see test_paper_tables.py")
    settings = fit_settings(asked["fit"], where=program.name, recipe=asked["recipe"])
    assert settings.method == asked["fit"]["method"]


def write_study(folder, root):
    """Write a manifest of the tiny cohort below a root, and quick settings."""
    (folder / "cohort.toml").write_text(f"""
[dataset]
name = "tiny phantoms"
source = "simulated"
licence = "none"

[files]
root = {json.dumps(str(root))}
dwi = ["controls/*/dwi/*_dwi.nii.gz", "patients/*/dwi/*_dwi.nii.gz"]
masks = "lesions/{{id}}_mask.nii.gz"

[roles]
normal = ["sub-c01", "sub-c02"]
validation = ["sub-c03"]
test = ["sub-p*"]
""")
    fast = FAST_TOML.replace("[method_settings]", "[fit.method_settings]").replace("[train]", "[fit.train]")
    fast = fast.replace("batch_voxels", 'scores = ["vae_regularizer", "negative_elbo"]\nbatch_voxels')
    (folder / "settings.toml").write_text(f'recipe = "qspace"\nseed = 2\n\n[fit]\nmethod = "vae"\n{fast}')


WORDS = ("--manifest", "cohort.toml", "--out", "study", "--settings", "settings.toml")


def run(folder):
    return run_pipeline("qspace_novelty", *WORDS, cwd=folder)


def run_apart(folder):
    """Run it as a process of its own."""
    program = PIPELINES / "qspace_novelty.py"
    return subprocess.run([sys.executable, program, *WORDS], capture_output=True, text=True, cwd=folder,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip


def test_qspace_novelty_from_manifest_to_table(tmp_path):
    write_study(tmp_path, tiny_cohort().controls.parent)
    done = run_apart(tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told["scans"]) == {"sub-p01", "sub-p02"}
    assert 0 < told["mean"]["negative_elbo"]["auroc"] < 1
    record = json.loads((tmp_path / "study" / "model" / "detector.json").read_text())
    assert {scan["id"]: scan["role"] for scan in record["scans"]} == {
        "sub-c01": "training", "sub-c02": "training", "sub-c03": "validation"}  # fmt: skip
    assert record["summary"]["verdict"] in done.stderr
    written = {path.name for path in (tmp_path / "study").iterdir()}
    assert {"evaluation.json", "evaluation.csv", "roc.png", "histogram_negative_elbo.png"} <= written
    again = run(tmp_path)
    assert again.returncode == 5
    assert "study: holds a study already; choose another folder" in again.stderr


@pytest.mark.usefixtures("unpictured")
def test_qspace_novelty_says_what_failed_and_goes_on(tmp_path):
    root = shutil.copytree(tiny_cohort().controls.parent, tmp_path / "root")
    (root / "patients" / "sub-p01" / "dwi" / "sub-p01_dwi.bval").write_text("0 1200\n")
    write_study(tmp_path, root)
    done = run(tmp_path)
    assert done.returncode == 6, done.stderr
    assert set(json.loads(done.stdout)["scans"]) == {"sub-p02"}
    assert "failed: sub-p01: sub-p01_dwi" in done.stderr
    assert "1 scans have no lesion mask" not in done.stderr
    for path in (root / "patients").rglob("*.bval"):
        path.write_text("0 1200\n")
    shutil.rmtree(tmp_path / "study")
    done = run(tmp_path)
    assert done.returncode == 3
    assert "failed: sub-p02" in done.stderr
    assert (done.stdout, "Traceback" in done.stderr) == ("", False)


def test_a_manifest_without_masks_gives_maps_and_no_table(tmp_path, capsys):
    write_study(tmp_path, tiny_cohort().controls.parent)
    manifest = tmp_path / "cohort.toml"
    manifest.write_text("".join(line for line in manifest.open() if not line.startswith("masks")))
    assert module().study(manifest, tmp_path / "study", tmp_path / "settings.toml") == 0
    assert len(list((tmp_path / "study" / "maps").rglob("*_novelty.nii.gz"))) == 2 * 5
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "study" / "evaluation.json").exists()


def module():
    spec = importlib.util.spec_from_file_location("qspace_novelty", PIPELINES / "qspace_novelty.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_a_pipeline_can_be_imported_without_running():
    assert callable(module().study)
