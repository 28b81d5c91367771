"""A detector on disk: the same bits when read back, and no trust in what the files say."""

import json
import shutil

import numpy as np
import pytest
import torch
from cohorts import FAST
from safetensors.torch import load_file, save_file

from mednovelty.detector import Detector
from mednovelty.errors import DetectorError, OutputError
from mednovelty.store import json_types
from mednovelty.voxel_fitting import fit_voxels


@pytest.fixture(scope="module")
def voxels():
    rng = np.random.default_rng(0)
    return (2 + rng.normal(size=(900, 3)) @ rng.normal(size=(3, 9)) + 0.3 * rng.normal(size=(900, 9))).astype(
        "f4"
    )


@pytest.fixture(scope="module")
def saved(voxels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    detector = fit_voxels(voxels, scans=np.arange(900) // 300, seed=3, settings=FAST)
    return detector.save(folder), folder


@pytest.fixture
def copy(saved, tmp_path):
    shutil.copytree(saved[1], tmp_path / "model")
    return tmp_path / "model"


def test_read_back_it_scores_bit_for_bit_the_same(saved, voxels):
    detector, folder = saved
    again = Detector.load(folder)
    before, after = detector.score_voxels(voxels[:77]), again.score_voxels(voxels[:77])
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    assert again.sha256 == detector.sha256 != ""
    assert (again.settings, again.seed, again.scans) == (detector.settings, detector.seed, detector.scans)


def test_saving_what_was_read_gives_the_same_bytes(saved, tmp_path):
    Detector.load(saved[1]).save(tmp_path / "again")
    for name in ("detector.json", "weights.safetensors", "reference.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (saved[1] / name).read_bytes()


def test_the_folder_tells_its_story(saved):
    names = {path.name for path in saved[1].iterdir()}
    assert names == {"detector.json", "weights.safetensors", "reference.safetensors",
                         "searches.safetensors", "places.safetensors", "training.csv",
                     "training.png", "examples.safetensors", "README.md"}  # fmt: skip
    record = json.loads((saved[1] / "detector.json").read_text())
    assert record["schema_version"] == 2
    assert {scan["role"] for scan in record["scans"]} == {"training", "validation"}
    card = (saved[1] / "README.md").read_text()
    assert saved[0].sha256 in card
    assert "probabilistic PCA" in card
    assert (saved[1] / "training.csv").read_text().count("\n") == len(saved[0].fitted.record.rows) + 1


def change_record(folder, **changes):
    path = folder / "detector.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | changes))


def test_a_flipped_bit_is_noticed(copy):
    for name in ("weights.safetensors", "reference.safetensors"):
        data = bytearray((copy / name).read_bytes())
        data[-5] ^= 1
        (copy / name).write_bytes(data)
        with pytest.raises(DetectorError, match=rf"{name}: damaged: its sha256 is not the one"):
            Detector.load(copy)
        data[-5] ^= 1
        (copy / name).write_bytes(data)
    Detector.load(copy)


def test_values_that_are_not_finite_are_refused(copy):
    weights = load_file(copy / "weights.safetensors")
    name = next(name for name in weights if name.endswith("weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, copy / "weights.safetensors")
    import hashlib

    digest = hashlib.sha256((copy / "weights.safetensors").read_bytes()).hexdigest()
    files = json.loads((copy / "detector.json").read_text())["files"]
    change_record(copy, files=files | {"weights.safetensors": digest})
    with pytest.raises(DetectorError, match=f"tensor '{name}' holds values that are not finite"):
        Detector.load(copy)


def test_weights_of_another_net_are_refused(copy, voxels, tmp_path):
    settings = json.loads((copy / "detector.json").read_text())["settings"]
    settings["method_settings"]["latent"] = 3
    change_record(copy, settings=settings)
    with pytest.raises(DetectorError, match=r"tensor .decoder\.layers\.0\.weight. is \(16, 4\) float32, "):
        Detector.load(copy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 3}, "written in format 3; this version reads up to 2"),
        (
            {"schema_version": 1},
            "written in format 1, which this version reads no more; fit the detector again",
        ),
        ({"surprise": 1}, "not a detector's record: surprise"),
        ({"channels": -1}, "not a detector's record: channels"),
        (
            {"preprocessing": [{"name": "no_such_step", "state": {}}]},
            "no preprocessor is called 'no_such_step'",
        ),
        ({"preprocessing": [{"name": "mean_intensity", "state": {"x": 1}}]}, "unexpected keyword"),
    ],
)
def test_records_are_checked(copy, changes, words):
    change_record(copy, **changes)
    with pytest.raises(DetectorError, match=words):
        Detector.load(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"\x80\x04pickled", b"[" * 100_000, b"null", b"\xff\xfe"])
def test_what_is_no_record_is_refused(copy, content):
    (copy / "detector.json").write_bytes(content)
    with pytest.raises(DetectorError, match=r"detector\.json"):
        Detector.load(copy)


def test_nothing_there(tmp_path):
    with pytest.raises(DetectorError, match=r"no detector here: detector\.json is missing"):
        Detector.load(tmp_path)


def test_a_folder_that_cannot_be_made(saved, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        saved[0].save(tmp_path / "file" / "model")


def test_json_types():
    value = {"a": (1, np.float32(0.5)), "b": float("inf"), 3: np.arange(2), "t": torch.Size([2]) == (2,)}
    assert json_types(value) == {"a": [1, 0.5], "b": None, "3": [0, 1], "t": True}
