"""What ``fit`` refuses before it reads anything, and what it tells."""

import json

import pytest
from cohorts import FAST_TOML, tiny_cohort
from typer.testing import CliRunner

from mednovelty.cli import app

FEW = ["--set", "train.max_epochs=1"]


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "fast.toml"
    path.write_text(FAST_TOML)
    return path


@pytest.fixture
def unread(monkeypatch):
    """Fail where a voxel is read."""

    def read(*_, **__):
        raise AssertionError("a scan was read")

    monkeypatch.setattr("mednovelty.gathering.scan_of", read)


def fit(output, settings, *words):
    return run("fit", tiny_cohort().controls, "-o", output, "--settings", settings, *FEW, *words)


def test_json_tells_what_was_fitted(tmp_path, settings):
    result = fit(tmp_path / "model", settings, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["folder"] == str(tmp_path / "model")
    assert len(told["sha256"]) == 64
    assert told["failures"] == []
    assert {"elbo", "pca", "collapsed", "verdict"} <= set(told["summary"])
    assert told["summary"]["verdict"] in result.stderr


def test_a_bad_scan_is_told_and_the_others_train(tmp_path, settings):
    import shutil

    shutil.copytree(tiny_cohort().controls, tmp_path / "controls")
    (tmp_path / "controls" / "sub-c02" / "dwi" / "sub-c02_dwi.bval").write_text("0 1200\n")
    words = ("fit", tmp_path / "controls", "-o", tmp_path / "model", "--settings", settings, *FEW, "--json")
    result = run(*words)
    assert result.exit_code == 6, result.stderr
    told = json.loads(result.stdout)
    assert [failure["id"] for failure in told["failures"]] == ["sub-c02"]
    assert any(note.startswith("left out: ") and "sub-c02" in note for note in told["notes"])


def test_a_refusal_is_json_too(tmp_path, settings):
    result = fit(tmp_path / "model", settings, "--json", "--resume")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["exit_code"], told["kind"]) == (4, 4, "DetectorError")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("standing", "words", "code", "said"),
    [
        ("detector.json", (), 5, "a detector is there already"),
        ("checkpoint.safetensors", (), 5, "an earlier fit was stopped here; pass --resume"),
        ("README.md", (), 5, "README.md: would be replaced"),
        ("searches.safetensors", (), 5, "searches.safetensors: would be replaced"),
        ("README.md", ("--resume",), 4, "nothing to resume"),
    ],
)
def test_what_is_there_is_not_replaced_unasked(standing, words, code, said, tmp_path, settings):
    model = tmp_path / "model"
    model.mkdir()
    (model / standing).write_text("mine")
    result = fit(model, settings, *words)
    assert result.exit_code == code
    assert said in result.stderr
    assert (model / standing).read_text() == "mine"
    assert [path.name for path in model.iterdir()] == [standing]


@pytest.mark.usefixtures("unread")
def test_the_detector_does_not_go_among_the_scans(settings):
    controls = tiny_cohort().controls
    result = run("fit", controls, "-o", controls, "--settings", settings)
    assert result.exit_code == 5
    assert "is a folder that scans are read from" in result.stderr
    assert not (controls / "logs").exists()


@pytest.mark.usefixtures("unread")
def test_a_folder_that_cannot_be_written_is_found_out_first(tmp_path, settings):
    (tmp_path / "file").write_text("")
    result = fit(tmp_path / "file" / "model", settings)
    assert result.exit_code == 5
    assert "cannot be written: Not a directory" in result.stderr


def test_overwrite_replaces_a_detector(tmp_path, settings):
    model = tmp_path / "model"
    assert fit(model, settings).exit_code == 0
    before = json.loads((model / "detector.json").read_text())
    assert fit(model, settings, "--seed", "3").exit_code == 5
    result = fit(model, settings, "--seed", "3", "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert before["seed"] == 0
    assert json.loads((model / "detector.json").read_text())["seed"] == 3


def test_another_seed_is_named_when_resuming(tmp_path, settings):
    from mednovelty.train import CHECKPOINT_NAME

    model = tmp_path / "model"
    kept = []

    import mednovelty.detector as module

    original = module.Detector.save

    def save(detector, folder):
        kept.append((model / CHECKPOINT_NAME).read_bytes())
        return original(detector, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Detector, "save", save)
        assert fit(model, settings).exit_code == 0
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / CHECKPOINT_NAME).write_bytes(kept[0])
    result = fit(tmp_path / "again", settings, "--resume", "--seed", "5")
    assert result.exit_code == 2
    assert "of another run (seed: 0 there, 5 here" in result.stderr
