"""Pictures with defects as a benchmark: folders, pieces, maps at the marked size, metrics by hand."""

import json
import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_folders import run, task_of
from made_up_sets import write_mvtec
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner

from mednovelty.benchmarks.defect_sets import (
    DefectClass,
    defect_class,
    defects_sha256,
    found_defects,
    is_defect_set,
    resized,
)
from mednovelty.benchmarks.mvtec import MVTec, deviation, rated, tiles, untiled
from mednovelty.benchmarks.plan import plan_named
from mednovelty.cli import app
from mednovelty.errors import ScanError, SettingsError
from mednovelty.io.pictures import read_colours

SMALL = {"side": 32, "tile": 0, "epochs": 1, "batch": 8}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two classes, pictures of 40 x 48 pixels."""
    return write_mvtec(tmp_path_factory.mktemp("sets") / "mvtec")


def by_metric(found, score):
    """Return metric to number of one score."""
    return {row.metric: row.value for row in found.measured if row.score == score}


def test_a_class_as_it_lies(root):
    assert is_defect_set("mvtec")
    assert not is_defect_set("mnist")
    assert found_defects("mvtec", root.parent) == found_defects("mvtec", root) == root
    images = defect_class(root, "bottle", 20)
    assert images.training.shape == (12, 3, 20, 20)
    # Kinds and pictures in the order of their names: two, two, and three that are good.
    assert images.test.shape == (7, 3, 20, 20)
    assert [int(marked.sum()) for marked in images.truth] == [49] * 4 + [0] * 3
    assert {marked.shape for marked in images.truth} == {(40, 48)}
    first = np.asarray(Image.open(root / "bottle" / "test" / "broken_large" / "000.png"))
    np.testing.assert_array_equal(images.test[0], resized(first, 20))
    red = images.test[0].astype(float)
    marked = np.asarray(Image.fromarray(images.truth[0]).resize((20, 20), Image.Resampling.BOX)) > 0.5
    assert red[0][marked].mean() > red[0][~marked].mean() + 40
    grey = defect_class(root, "grid", 20)
    np.testing.assert_array_equal(grey.test[:, 0], grey.test[:, 2])
    few = defect_class(root, "bottle", 20, 1)
    assert (len(few.training), len(few.test)) == (1, 3)


def test_larger_and_smaller_by_averages():
    board = (255 * (np.indices((40, 40)).sum(0) % 2)).astype(np.uint8)
    made = resized(np.repeat(board[..., None], 3, -1), 10)
    assert made.shape == (3, 10, 10)
    np.testing.assert_allclose(made.astype(float), 127.5, atol=6)
    half = np.zeros((6, 8, 3), np.uint8)
    half[:, 4:] = 200  # Columns stay columns.
    assert (resized(half, 24)[:, :, 20] == 200).all()
    assert (resized(half, 24)[:, :, 3] == 0).all()


def test_what_is_wrong_with_a_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MEDNOVELTY_DATA", raising=False)
    with pytest.raises(
        ScanError, match=r"mvtec: no folder with CLASS/train/good; looked in: nowhere: give --d"
    ):
        found_defects("mvtec", None)
    with pytest.raises(ScanError, match=r"Nothing is downloaded: get MVTec AD.*Licence: CC BY-NC-SA 4.0"):
        found_defects("mvtec", tmp_path)
    root = write_mvtec(tmp_path / "mvtec", ("bottle",))
    with pytest.raises(ScanError, match=r"zipper: test has nothing; needed are good and at least one kind"):
        defect_class(root, "zipper", 16)
    mask = root / "bottle" / "ground_truth" / "contamination" / "001_mask.png"
    Image.new("L", (5, 4)).save(mask)
    with pytest.raises(ScanError, match=r"001_mask.png: \(4, 5\) pixels, its picture has \(40, 48\)"):
        defect_class(root, "bottle", 16)
    mask.unlink()
    with pytest.raises(
        ScanError, match=r"001.png: no 001_mask in .*contamination; a defect that nobody has marked"
    ):
        defect_class(root, "bottle", 16)
    picture = root / "bottle" / "train" / "good" / "003.png"
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(ScanError, match=r"003.png: cannot be read as a picture") as raised:
        read_colours(picture)
    assert raised.value.code == "picture.damaged"


def test_the_hash_is_of_pictures_and_masks(tmp_path):
    root = write_mvtec(tmp_path / "mvtec", ("bottle",))
    before = defects_sha256(root)
    Image.new("L", (48, 40)).save(root / "bottle" / "ground_truth" / "contamination" / "001_mask.png")
    defects_sha256.cache_clear()
    assert defects_sha256(root) != before


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(2, 5))
def test_pieces_together_are_the_whole(n, channels, count, side):
    whole = torch.arange(n * channels * (count * side) ** 2, dtype=torch.float32)
    images = whole.reshape(n, channels, count * side, count * side)
    cut = tiles(images, side)
    assert cut.shape == (n * count * count, channels, side, side)
    assert torch.equal(untiled(cut, count * side), images)
    # Row by row: the second piece lies right of the first.
    if count > 1:
        assert torch.equal(cut[1], images[0, :, :side, side : 2 * side])


def test_deviation_by_hand():
    training = np.zeros((4, 3, 8, 8), np.uint8)
    training[:, 0, 2, 3] = [100, 110, 90, 100]  # Mean 100, standard deviation sqrt(50).
    test = np.zeros((1, 3, 8, 8), np.uint8)
    test[0, 0, 2, 3] = 121
    test[0, 1, 5, 5] = 6  # Where all have one value, a deviation of 6 steps is 6.
    found = deviation(DefectClass(training, test, ()))
    assert found[0, 2, 3] == pytest.approx(21 / math.sqrt(50) / 3)
    assert found[0, 5, 5] == pytest.approx(2)
    assert np.count_nonzero(found) == 2


def test_metrics_by_hand():
    """Maps of 2 x 2 pixels, defects marked at 4 x 6: bilinear in between."""
    maps = np.array([[[0.0, 4], [0, 4]], [[1, 1], [1, 1]]], np.float32)
    truth = np.zeros((2, 4, 6), bool)
    truth[0, :, 4:] = True
    # Columns lie at 1/6, 3/6 ... 11/6 of a map's pixels, whose middles are at 1/2 and 3/2: 0, 0, 2/3 2, ...
    columns = [0, 0, 4 / 3, 8 / 3, 4, 4]
    scores = np.stack([np.tile(columns, (4, 1)), np.ones((4, 6))])
    found = dict(rated(maps, truth))
    assert found["auroc"] == pytest.approx(roc_auc_score(truth.ravel(), scores.ravel())) == 1.0
    assert (found["ap"], found["iou"], found["aupro"], found["image_auroc"]) == (1.0, 1.0, 1.0, 1.0)
    # The defect is one column further to the left now: 8 pixels, of which 4 are 8/3, above 1.
    truth = np.roll(truth, -1, axis=2)
    found = dict(rated(maps, truth))
    values = scores.ravel()
    assert found["auroc"] == pytest.approx(roc_auc_score(truth.ravel(), values))
    assert found["ap"] == pytest.approx(average_precision_score(truth.ravel(), values))
    assert found["iou"] == pytest.approx(8 / 12)  # From 8/3 on, four pixels too many.
    # One region: 4 of 40 pixels are above the first half, none more above the second.
    assert found["aupro"] == pytest.approx(((0.3 - 0.05) * 0.5 + (0.3 - 0.1) * 0.5) / 0.3)


@pytest.mark.parametrize("method", ["deviation", "ae", "vae"])
def test_a_method_from_folder_to_numbers(root, method):
    more = {"deviation": {}, "ae": {"method_settings": {"latent": 4}, "tile": 16}, "vae": {
        "method_settings": {"widths": [4, 8], "latent": 4}}}[method]  # fmt: skip
    found = run("mvtec", root, method, "bottle", dataset="mvtec", **(SMALL | more))
    scores = {"deviation": {"deviation"}, "ae": {"nln_map", "rec_error"},
              "vae": {"rec_error", "kl_gradient", "combi"}}[method]  # fmt: skip
    assert {row.score for row in found.measured} == scores
    for score in scores:
        numbers = by_metric(found, score)
        assert set(numbers) == {"auroc", "ap", "iou", "aupro", "image_auroc"}
        assert all(0 <= value <= 1 for value in numbers.values())
    if method == "deviation":
        assert by_metric(found, "deviation")["auroc"] > 0.95
        assert by_metric(found, "deviation")["image_auroc"] == 1.0
    assert found.told["tested"] == 7
    assert json.loads(json.dumps(found.told)) == found.told


def test_confetti_is_planted_in_pictures(root):
    found = run("mvtec", root, "fcdd", "grid", dataset="mvtec", **SMALL,
                method_settings={"network": "cnn28", "filters": [3, 4]})  # fmt: skip
    assert {row.score for row in found.measured} == {"fcdd_map"}


def test_a_seed_decides(root):
    def numbers(seed):
        return run("mvtec", root, "ae", "bottle", dataset="mvtec", seed=seed, **SMALL).measured

    assert numbers(1) == numbers(1)
    assert numbers(1) != numbers(2)


def test_settings_and_scores_that_are_refused(root):
    with pytest.raises(SettingsError, match="side=30, tile=16: pictures are cut into whole tiles"):
        task_of("mvtec", root, "ae", "bottle", dataset="mvtec", side=30, tile=16)
    scores = MVTec().scores
    assert scores("deviation", ["all"]) == scores("deviation", ["deviation", "combi"]) == ("deviation",)
    assert scores("deviation", ["combi"]) == ()
    # A number a picture says nothing of where.
    assert scores("vae", ["vae_regularizer", "combi", "deviation"]) == ("combi",)


def test_numbers_are_the_papers():
    plan, _ = plan_named("mvtec")
    rows = {(row.method, row.score): row for row in plan.published}
    nln, l2, fcdd = rows["ae", "nln_map"], rows["ae", "rec_error"], rows["fcdd", "fcdd_map"]
    assert (nln.values["bottle"], nln.values["wood"], nln.values["zipper"]) == (0.95, 0.72, 0.96)
    assert (l2.values["carpet"], l2.values["metal_nut"]) == (0.59, 0.86)
    assert (fcdd.values["pill"], fcdd.values["screw"]) == (0.81, 0.86)
    assert fcdd.mean == pytest.approx(0.92, abs=0.005)
    assert l2.mean == pytest.approx(0.82, abs=0.005)


def bench(*words, code=0):
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    result = CliRunner().invoke(app, ["bench", "mvtec", *map(str, words)], env=environment)
    assert result.exit_code == code, result.output + str(result.exception)
    return result


def test_classes_that_are_not_at_hand_are_left_out_and_told_once(tmp_path):
    """Also that the trivial method of the protocol is what it has of trivial methods."""
    write_mvtec(tmp_path / "mvtec")
    out = tmp_path / "out"
    words = ("--data", tmp_path, "--methods", "trivial", "--set", "side=16", "--workers", 0, "-o", out)
    result = bench(*words)
    assert "2 of 2, " in result.stderr
    told = "13 of 15 classes are not at hand: carpet, leather, tile, wood, cable, capsule, hazelnut"
    assert result.stderr.count(f"mvtec: {told}") == 1
    assert "zipper; left out" in result.stderr
    assert f"Of mvtec, {told}" in (out / "results.md").read_text()
    cells = {path.stem for path in (out / "cells").iterdir()}
    assert cells == {"mvtec-grid-0-deviation", "mvtec-bottle-0-deviation"}
    assert "left out" not in bench(*words, "--classes", "grid", "--resume").stderr


def test_classes_that_are_asked_for_must_be_at_hand(tmp_path):
    write_mvtec(tmp_path / "mvtec", names=("bottle",))
    out = tmp_path / "out"
    words = ("--data", tmp_path, "--methods", "deviation", "-o", out, "--classes", "bottle,wood")
    told = bench(*words, code=3).stderr
    assert f"mvtec: 1 of 2 classes are not at hand: wood; {tmp_path / 'mvtec'} has bottle: add them" in told
    assert not out.exists()
