"""``score`` and ``evaluate`` as a user meets them where something is in the way."""

import json
import os
import shutil

import pytest
from cohorts import tiny_cohort, tiny_detector
from lesion_study import make_study
from typer.testing import CliRunner
from without_pages import typed

from mednovelty.cli import app
from mednovelty.evaluation import evaluate

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}


def run(*words):
    return CliRunner().invoke(app, typed(words), env=ENVIRONMENT)


@pytest.fixture
def patients(tmp_path):
    return shutil.copytree(tiny_cohort().patients, tmp_path / "patients")


def image_of(patients, id):
    return patients / id / "dwi" / f"{id}_dwi.nii.gz"


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["{patients}", "--scores", "raw_bogus"], 2, "no scorer is called 'raw_bogus'; did you mean"),
        (["{patients}", "--scores", "raw_dwi,nearest"], 2, "did you mean 'nearest_normal'"),
        (["{tmp}/nowhere"], 3, "nowhere: no such file"),
        (["{tmp}/nowhere.toml"], 3, "nowhere.toml: no such file"),
        (["{tmp}/loop"], 3, "loop: a link that leads back to itself"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_before_a_folder_is_made(patients, tmp_path, words, code, said, dry):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    words = [word.format(patients=patients, tmp=tmp_path) for word in words]
    result = run("score", tiny_detector()[1], *words, "-o", tmp_path / "out", *dry)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_number_of_draws_is_chosen_when_scoring(patients, tmp_path):
    model = tiny_detector()[1]
    for draws, code in (("2", 0), ("3", 0), ("0", 2)):
        words = ["-o", tmp_path / draws, "--scores", "encoder_stochastic_error", "--draws", draws]
        assert run("score", model, patients, *words).exit_code == code
    name = "sub-p01/dwi/sub-p01_desc-encoder_stochastic_error_novelty"
    told = [json.loads((tmp_path / f"{draws}/{name}.json").read_text()) for draws in "23"]
    assert [facts["Environment"]["Draws"] for facts in told] == [2, 3]
    # Two draws are what the detector was fitted with: the same run as without the option.
    assert run("score", model, patients, "-o", tmp_path / "2").exit_code == 0
    assert told[0]["MapSha256"] != told[1]["MapSha256"]
    assert not (tmp_path / "0").exists()


@pytest.mark.parametrize("trap", ["input", "detector", "data set"])
def test_traps_are_refused_before_even_a_log_is_kept(patients, tmp_path, trap):
    model = shutil.copytree(tiny_detector()[1], tmp_path / "model")
    study = tmp_path / "study"
    study.mkdir()
    (study / "dataset_description.json").write_text('{"Name": "mine"}')
    out = {"input": patients / "sub-p01", "detector": model, "data set": study}[trap]
    before = sorted(tmp_path.rglob("*"))
    result = run("score", model, patients, "-o", out)
    assert result.exit_code == 5, result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_no_scan_of_the_role_is_told_as_json_too(tmp_path):
    manifest = tmp_path / "cohort.toml"
    manifest.write_text(
        '[dataset]\nname = "n"\nlicence = "none"\n[roles]\nnormal = ["*"]\n'
        f'[files]\nroot = {json.dumps(str(tiny_cohort().patients))}\ndwi = "*/dwi/*_dwi.nii.gz"\n'
    )
    result = run("score", tiny_detector()[1], manifest, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["code"] == "folder.no_scan"
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_which_files_cannot_be_read(patients, tmp_path):
    loop, gone = image_of(patients, "sub-p01"), image_of(patients, "sub-p02")
    size = gone.stat().st_size
    loop.unlink()
    loop.symlink_to(loop)
    words = ["score", tiny_detector()[1], patients, "-o", tmp_path / "out", "--dry-run"]
    result = run(*words)
    assert result.exit_code == 6, result.output
    assert "sub-p01  cannot be read" in result.stdout
    assert f"1 scans, {size / 2**20:.1f} MiB" in result.stdout
    assert "would fail: sub-p01: sub-p01_dwi.nii.gz: a link that leads back to itself" in result.stderr
    gone.unlink()
    gone.symlink_to(tmp_path / "nowhere")
    result = run(*words, "--json")
    assert result.exit_code == 3
    rows = json.loads(result.stdout)["scans"]
    assert [(row["id"], row["bytes"], row["code"]) for row in rows] == [
        ("sub-p01", None, "file.link"),
        ("sub-p02", None, "file.link"),
    ]
    assert not (tmp_path / "out").exists()


def test_maps_of_another_detector_fail_scan_by_scan(patients, tmp_path):
    model, out = tiny_detector()[1], tmp_path / "out"
    words = ["score", model, patients, "-o", out, "--scores", "vae_regularizer"]
    assert run(*words).exit_code == 0
    for path in out.rglob("sub-p01*_novelty.json"):
        path.write_text(path.read_text().replace(tiny_detector()[0].sha256, "0" * 64))
    result = run(*words, "--json")
    assert result.exit_code == 6
    assert [scan["status"] for scan in json.loads(result.stdout)["Scans"]] == ["failed", "up to date"]
    assert "\toutput.exists\t" in (out / "failures.tsv").read_text()
    shutil.rmtree(out / "sub-p02")
    shutil.rmtree(patients / "sub-p02")
    assert run(*words).exit_code == 5
    assert run(*words, "--overwrite").exit_code == 0


def write_manifest(path, root, masks):
    path.write_text(
        f'[dataset]\nname = "n"\nlicence = "none"\n[files]\nroot = {json.dumps(str(root))}\n'
        f'dwi = "*_dwi.nii.gz"\n{masks}\n'
    )
    return path


@pytest.mark.usefixtures("unpictured")
def test_evaluate_takes_the_masks_that_a_manifest_names(tmp_path):
    out, masks = make_study(tmp_path, 3)
    expected = evaluate(out, masks)
    # Names that only the manifest can tell: no folder of them would be understood.
    for path in sorted(masks.iterdir()):
        id = path.name.split("_mask")[0]
        (tmp_path / "truth" / id).mkdir(parents=True)
        path.rename(tmp_path / "truth" / id / "expert[1]-drew-this.nii.gz")
    (tmp_path / "truth" / "sub-77").mkdir()
    (tmp_path / "truth" / "sub-77" / "expert[1]-drew-this.nii.gz").write_text("of nobody here")
    manifest = write_manifest(
        tmp_path / "study.toml", tmp_path, 'masks = "truth/{id}/expert[1]-drew-this.nii.gz"'
    )
    found = evaluate(str(out), str(manifest))
    assert found.scans == expected.scans
    assert found.masks_without_scan == ("expert[1]-drew-this.nii.gz",)
    result = run("evaluate", out, "--masks", manifest, "--json")
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)["scans"]) == {"sub-01", "sub-02", "sub-03"}


@pytest.mark.parametrize(
    ("masks", "code", "said"),
    [
        ("", 2, "study.toml: names no lesion masks; add files.masks"),
        ('masks = "nowhere/{id}.nii.gz"', 3, "nowhere/{id}.nii.gz"),
        ('mask = "masks/{id}.nii.gz"', 2, "did you mean files.masks"),
    ],
)
def test_a_manifest_without_masks_is_an_error(tmp_path, masks, code, said):
    out, _ = make_study(tmp_path, 2)
    manifest = write_manifest(tmp_path / "study.toml", tmp_path, masks)
    result = run("evaluate", out, "--masks", manifest)
    assert result.exit_code == code, result.output
    assert said in result.stderr


def test_a_mask_folder_with_links_in_a_circle_is_read(tmp_path):
    out, masks = make_study(tmp_path, 2)
    (masks / "sub-09_mask.nii.gz").symlink_to(masks / "sub-09_mask.nii.gz")
    assert set(evaluate(out, masks).scans) == {"sub-01", "sub-02"}
