"""The command line as a user meets it: words, exit codes, JSON, and what it does not import."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from cohorts import FAST_TOML, tiny_cohort, tiny_detector
from typer.testing import CliRunner

from mednovelty.cli import app

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env=ENVIRONMENT)


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Run the four commands once."""
    root = tmp_path_factory.mktemp("study")
    cohort = tiny_cohort()
    (root / "fast.toml").write_text(FAST_TOML)
    results = [
        run("check", cohort.controls),
        run("fit", cohort.controls, "-o", root / "model", "--settings", root / "fast.toml", "--seed", 1),
        run("score", root / "model", cohort.patients, "-o", root / "out"),
        run("evaluate", root / "out", "--masks", cohort.lesions),
    ]
    return root, results


def test_the_four_commands(study):
    root, results = study
    assert [result.exit_code for result in results] == [0, 0, 0, 0], [r.output for r in results]
    table = results[3].stdout
    assert "negative_elbo" in table
    assert "raw_b0" in table
    pictures = {path.name for path in (root / "out" / "evaluation").glob("*.png")}
    assert {"roc.png", "roc_negative_elbo.png", "histogram_negative_elbo.png"} <= pictures


@pytest.mark.usefixtures("unpictured")
def test_evaluate_as_json(study):
    root, _ = study
    result = run("evaluate", root / "out", "--masks", tiny_cohort().lesions, "--json")
    told = json.loads(result.stdout)
    assert set(told["scans"]) == {"sub-p01", "sub-p02"}
    assert 0 < told["scans"]["sub-p01"]["nearest_normal"]["auroc"] < 1
    assert {"auroc", "ap"} <= set(told["mean"]["raw_attenuation"])


def test_score_again_is_up_to_date(study):
    root, _ = study
    result = run("score", root / "model", tiny_cohort().patients, "-o", root / "out", "--json")
    assert result.exit_code == 0
    assert {scan["status"] for scan in json.loads(result.stdout)["Scans"]} == {"up to date"}
    assert "0 scored, 2 up to date, 0 failed" in result.stderr


def test_dry_run_does_nothing(study, tmp_path):
    root, _ = study
    result = run("score", root / "model", tiny_cohort().patients, "-o", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    assert "2 scans" in result.stdout
    assert not (tmp_path / "out").exists()


def test_an_existing_detector_is_not_replaced_unasked(study):
    root, _ = study
    before = (root / "model" / "detector.json").read_bytes()
    result = run("fit", tiny_cohort().controls, "-o", root / "model")
    assert result.exit_code == 5
    assert "a detector is there already" in result.stderr
    assert (root / "model" / "detector.json").read_bytes() == before


def test_one_bad_scan_gives_exit_code_6(study, tmp_path):
    root, _ = study
    patients = shutil.copytree(tiny_cohort().patients, tmp_path / "patients")
    (patients / "sub-p01" / "dwi" / "sub-p01_dwi.bval").write_text("0 1200\n")
    result = run("score", root / "model", patients, "-o", tmp_path / "out", "--scores", "vae_regularizer")
    assert result.exit_code == 6
    assert "failed: sub-p01" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["score", "{tmp}/none", "{patients}", "-o", "{tmp}/out"], 4, "no detector here"),
        (["score", "{model}", "{tmp}/none", "-o", "{tmp}/out"], 3, "none"),
        (["score", "{model}", "{patients}", "-o", "{tmp}/o", "--scores", "nearest"], 2, "'nearest_normal'"),
        (["score", "{model}", "{patients}", "-o", "{patients}"], 5, "scans are read from"),
        (["fit", "{controls}", "-o", "{tmp}/m", "--set", "train.max_epoch=3"], 2, "'train.max_epochs'"),
        (["fit", "{controls}", "-o", "{tmp}/m", "--set", "train.max_epochs=few"], 2, "train.max_epochs"),
        (["fit", "{controls}", "-o", "{tmp}/m", "--recipe", "slice"], 2, "known: qspace, qspace-vol"),
        (["fit", "{controls}", "-o", "{tmp}/m", "--latent", "7"], 2, "--latent: one or several of 8, 16, 24"),
        (["fit", "{controls}", "-o", "{tmp}/m", "--scores", ","], 2, "--scores ',' names no score"),
        (["score", "{model}", "{patients}", "-o", "{tmp}/o", "--scores", ""], 2, "names no score"),
        (["fit", "{controls}", "-o", "{tmp}/m", "--resume"], 4, "nothing to resume"),
        (["evaluate", "{tmp}/none", "--masks", "{lesions}"], 3, "none"),
        (["list", "scorer"], 2, "did you mean 'scorers'"),
        (["where", "vasilev2018", "Eq. (99)"], 2, "did you mean"),
        (["where", "vasilev2017", "Eq. (3)"], 2, "did you mean 'vasilev2018'"),
        (["demo", "{patients}"], 5, "holds no demo"),
    ],
)  # fmt: skip
def test_exit_codes_and_words(words, code, said, tmp_path):
    cohort = tiny_cohort()
    places = {"tmp": tmp_path, "model": tiny_detector()[1], "patients": cohort.patients,
              "controls": cohort.controls, "lesions": cohort.lesions}  # fmt: skip
    result = run(*[word.format(**places) for word in words])
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_discovery_commands():
    scorers = {row["name"] for row in json.loads(run("list", "scorers", "--json").stdout)}
    assert {"nearest_normal", "latent_euclidean", "negative_elbo"} <= scorers
    listed = run("list", "scorers").stdout
    assert re.search(
        r"^latent_euclidean +Eq\. \(3\) +Distance between .*\(mednovelty\)$", listed, re.MULTILINE
    )
    rows = {row["name"]: row for row in json.loads(run("list", "scorers", "--json").stdout)}
    told = rows["closest_generated_bounded"]
    assert (told["paper"], told["equation"]) == ("vasilev2018", "Eq. (18), bounded")
    assert all(row["summary"].endswith(".") for row in rows.values())
    found = json.loads(run("where", "vasilev2018", "Eq. (3)", "--json").stdout)
    assert (found["module"], found["name"]) == ("mednovelty.methods.vae_scores", "LatentEuclidean")
    assert found["file"].endswith("methods/vae_scores.py")
    assert "LatentEuclidean" in run("where", "vasilev2018", "Eq. (3)").stdout
    facts = json.loads(run("doctor", "--json").stdout)
    assert facts["missing"] == []
    assert facts["torch"]["threads"] >= 1
    assert "torch" in run("doctor").stdout


def test_importing_imports_nothing_slow():
    heavy = "{'torch', 'nibabel', 'dipy', 'faiss', 'matplotlib', 'scipy', 'pydantic', 'monai', 'SimpleITK'}"
    assert python(f"import sys, mednovelty; print({heavy} & set(sys.modules))").strip() == "set()"
    assert python(f"import sys, mednovelty.cli; print({heavy} & set(sys.modules))").strip() == "set()"


def test_listing_plug_ins_imports_none():
    code = (
        "import sys; from mednovelty.discovery import listing; assert listing('scorers'); "
        "print({'torch', 'mednovelty.methods.vae_scores'} & set(sys.modules))"
    )
    assert python(code).strip() == "set()"


def test_the_core_needs_torch_and_little_else(tmp_path):
    # As on a machine without medical packages: importing any of them fails.
    code = f"""
import sys
for name in ("nibabel", "dipy", "faiss", "monai", "SimpleITK", "pydantic", "typer", "rich", "nilearn",
             "matplotlib", "jinja2", "isal", "skimage"):
    sys.modules[name] = None
sys.path.insert(0, {os.path.dirname(__file__)!r})
import numpy as np, mednovelty as mn
from mednovelty.fitting import FitSettings
from mednovelty.methods.vae import VAESettings
from mednovelty.train import TrainSettings
fast = FitSettings(method_settings=VAESettings(hidden=(16, 8), latent=3), train=TrainSettings(max_epochs=1))
x = np.random.default_rng(0).normal(2, 1, (600, 7))
detector = mn.fit_voxels(x, scans=np.arange(600) // 200, settings=fast)
print(detector.score_voxels(x[:5])["nearest_normal"].shape)
"""
    assert python(code).strip() == "(5,)"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_fit_keeps_its_checkpoint_and_resumes(number, code, tmp_path):
    (tmp_path / "fast.toml").write_text(
        FAST_TOML.replace("max_epochs = 3", "max_epochs = 100000\npatience = 100000")
    )
    words = [
        sys.executable,
        "-m",
        "mednovelty",
        "fit",
        str(tiny_cohort().controls),
        "-o",
        str(tmp_path / "model"),
    ]
    # Jobs in the background of a shell may ignore interrupts, and so would what they start.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen([*words, "--settings", str(tmp_path / "fast.toml")], env=ENVIRONMENT,
                               stderr=subprocess.PIPE, text=True, preexec_fn=heed)  # fmt: skip
    checkpoint = tmp_path / "model" / "checkpoint.safetensors"
    until = time.monotonic() + 300
    while not checkpoint.exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "resuming goes on from it" in said
    assert checkpoint.exists()
    assert not (tmp_path / "model" / "detector.json").exists()
    reached = int(said.split("training stopped after ")[1].split()[0])
    (tmp_path / "fast.toml").write_text(
        FAST_TOML.replace("max_epochs = 3", f"max_epochs = {reached + 1}\npatience = 100000")
    )
    result = run(*words[3:], "--settings", tmp_path / "fast.toml", "--resume")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "model" / "detector.json").exists()
    assert not checkpoint.exists()


def test_a_stopped_score_is_no_failed_scan(tmp_path, monkeypatch):
    from mednovelty.console import Terminated
    from mednovelty.detector import Detector

    def stop(*_, **__):
        raise Terminated("stopped by SIGTERM")

    monkeypatch.setattr(Detector, "score", stop)
    result = run("score", tiny_detector()[1], tiny_cohort().patients, "-o", tmp_path / "out")
    assert result.exit_code == 143
    assert "stopped by SIGTERM" in result.stderr
    run_record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run_record["ExitCode"], run_record["Scans"]) == (143, [])


def test_a_surprise_with_one_scan_is_that_scans_failure(tmp_path, monkeypatch):
    from mednovelty.detector import Detector

    score = Detector.score

    def surprise(self, scan, *words, **more):
        if scan.id == "sub-p01":
            raise ZeroDivisionError("by nothing")
        return score(self, scan, *words, **more)

    monkeypatch.setattr(Detector, "score", surprise)
    words = [
        "score",
        tiny_detector()[1],
        tiny_cohort().patients,
        "-o",
        tmp_path / "out",
        "--scores",
        "vae_regularizer",
    ]
    result = run(*words)
    assert result.exit_code == 6
    assert "unexpected ZeroDivisionError: by nothing" in result.stderr
    assert list((tmp_path / "out").rglob("sub-p02*_novelty.json"))
