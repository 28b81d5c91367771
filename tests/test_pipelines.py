"""Every pipeline runs on phantoms, and defines no class of its own."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cohorts import FAST_TOML, tiny_cohort

PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"
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
    assert fit_settings(asked["fit"], program.name).method == asked["fit"]["method"]


def test_qspace_novelty_from_manifest_to_table(tmp_path):
    cohort = tiny_cohort()
    manifest = tmp_path / "cohort.toml"
    manifest.write_text(f"""
[dataset]
name = "tiny phantoms"
source = "simulated"
licence = "none"

[files]
root = {json.dumps(str(cohort.controls.parent))}
dwi = ["controls/*/dwi/*_dwi.nii.gz", "patients/*/dwi/*_dwi.nii.gz"]
masks = "lesions/{{id}}_mask.nii.gz"

[roles]
normal = ["sub-c01", "sub-c02"]
validation = ["sub-c03"]
test = ["sub-p*"]
""")
    settings = tmp_path / "settings.toml"
    fast = FAST_TOML.replace("[method_settings]", "[fit.method_settings]").replace("[train]", "[fit.train]")
    settings.write_text(f'recipe = "qspace"\nseed = 2\n\n[fit]\nmethod = "vae"\n{fast}')
    program = PIPELINES / "qspace_novelty.py"
    words = [
        sys.executable,
        program,
        "--manifest",
        manifest,
        "--out",
        tmp_path / "study",
        "--settings",
        settings,
    ]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told["scans"]) == {"sub-p01", "sub-p02"}
    assert 0 < told["mean"]["negative_elbo"]["auroc"] < 1
    record = json.loads((tmp_path / "study" / "model" / "detector.json").read_text())
    assert {scan["id"]: scan["role"] for scan in record["scans"]} == {
        "sub-c01": "training", "sub-c02": "training", "sub-c03": "validation"}  # fmt: skip
    assert (tmp_path / "study" / "evaluation.json").is_file()


def test_a_pipeline_can_be_imported_without_running():
    spec = importlib.util.spec_from_file_location("qspace_novelty", PIPELINES / "qspace_novelty.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert callable(module.study)
