"""Scores with one value for each slice or window: p-values that stand on samples, not on voxels."""

import json
from dataclasses import replace

import numpy as np
import pytest
from calibrations import calibration_of, scan_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_images import detector_of
from small_images import scan_of as image_of

from mednovelty.calibrate.calibration import Calibration
from mednovelty.calibrate.files import load_calibration, save_calibration
from mednovelty.calibrate.measuring import CalibrateSettings, measured
from mednovelty.calibrate.samples import of_samples
from mednovelty.combine.calibrated import Member, calibrated_again
from mednovelty.commands import ScoreRequest, _pvalues
from mednovelty.detector import Detector
from mednovelty.errors import DetectorError
from mednovelty.io.read_scan import ReadOptions
from mednovelty.segment.fdr import critical_surprise

SLICES = ([(1.0, 12), (5.0, 3)], [(2.0, 9), (4.0, 2), (3.0, 11)])
"""Of two scans the score of each slice, and how many voxels it has."""


def spread(slices):
    return np.concatenate([np.full(count, score, np.float32) for score, count in slices])


def sampled(folder, scans=SLICES, name="a", **more):
    """Return a calibration of a score with one value a slice, and of ``voxels``, with one a voxel."""
    made, rng = [], np.random.default_rng(3)
    for number, slices in enumerate(scans):
        values = {name: spread(slices)}
        values["voxels"] = rng.normal(size=len(values[name]))
        labels = np.arange(len(values[name])) % 2
        samples = {name: of_samples(values[name], len(slices))}
        made.append(scan_of(folder / "calibration", number, values, samples=samples, labels=labels))
    more = {"detector_sha256": "d" * 64} | more
    return Calibration.of(made, [name, "voxels"], folder / "calibration", **more)


def test_p_by_hand(tmp_path):
    calibration = sampled(tmp_path)
    # Five slices, 1 to 5, whatever their sizes: at least 4.5 is one, (1 + 1) / 6; above all: 1 / 6.
    assert calibration.p("a", np.array([4.5, 9.0, 3.0, 0.0])).tolist() == [2 / 6, 1 / 6, 4 / 6, 1.0]
    assert calibration.smallest_p("a") == 1 / 6
    assert calibration.smallest_p("voxels") == 1 / 38
    assert (calibration.counts("a"), calibration.counts("voxels")) == ((2, 3), (15, 22))


def test_scans_are_held_against_the_slices_of_the_others(tmp_path):
    first, second = (p for _, p in sampled(tmp_path).left_out("a"))
    # 1 and 5 among 2, 4, 3; 2, 4 and 3 among 1, 5.
    assert first.tolist() == [1.0] * 12 + [1 / 4] * 3
    assert second == pytest.approx([2 / 3] * 22)
    assert sampled(tmp_path).healthy["a"].min_p == pytest.approx([1 / 4, 2 / 3])


def test_it_is_told_on_how_many_samples_p_stands(tmp_path):
    calibration = sampled(tmp_path)
    about = calibration.about("a")
    assert (about["Voxels"], about["Samples"], about["SmallestP"]) == (37, 5, 1 / 6)
    told = next(words for words in about["Warnings"] if words.startswith("a has one value"))
    assert "no p-value below 0.17 can be had from 5 of them, however many voxels they have" in told
    assert "Samples" not in calibration.about("voxels")
    assert not any("one value" in words for words in calibration.warnings("voxels"))


def test_regions_are_for_scores_of_voxels(tmp_path, monkeypatch):
    monkeypatch.setattr("mednovelty.calibrate.nulls.FEWEST_VOXELS", 5)
    calibration = sampled(tmp_path, kind="labels")
    assert list(calibration.nulls["voxels"]) == ["all", "0", "1"]
    assert list(calibration.nulls["a"]) == ["all"]
    assert calibration.p("a", np.full(2, 9.0), np.array([0, 1])).tolist() == [1 / 6] * 2
    assert [p.min() for _, p in calibration.left_out("a")] == pytest.approx([1 / 4, 2 / 3])


def test_one_odd_slice_is_no_discovery_among_few(tmp_path):
    # Voxel by voxel p = 1 / 371 would make 200 voxels of 1,000 discoveries; of six slices one is the highest.
    scans = [[(score, 10 * count) for score, count in slices] for slices in SLICES]
    assert sum(count for slices in scans for _, count in slices) == 370
    values = np.concatenate([np.full(800, 1.5), np.full(200, 9.0)])
    surprise = -np.log10(sampled(tmp_path, scans).p("a", values))
    assert (surprise >= critical_surprise(surprise, 0.05)).sum() == 0


def test_shares_of_false_slices_are_at_most_alpha(tmp_path):
    # Slices of very unequal sizes, all healthy: p <= alpha in at most that share of slices.
    rng = np.random.default_rng(5)
    shares = []
    for number in range(60):
        scans = [[(rng.normal(), int(rng.integers(1, 5))) for _ in range(7)] for _ in range(4)]
        calibration = sampled(tmp_path / f"{number}", scans)
        shares.append((calibration.p("a", rng.normal(size=500)) <= 0.1).mean())
    # Of 28 values the mean is 2 / 29; five standard deviations of a mean of 60 draws of Beta(2, 27).
    assert np.mean(shares) == pytest.approx(2 / 29, abs=0.03)


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(-9, 9, width=16)), st.integers(1, 50))
def test_what_stands_for_samples(values, count):
    found = of_samples(values, count)
    assert 1 <= len(found) <= count
    assert (np.diff(found) >= 0).all()
    assert found[-1] == values.max()
    if len(np.unique(values)) > count:
        assert len(found) == count
        for value in values:
            # Never a smaller share than of the voxels: p is not too small.
            assert (found >= value).mean() >= (values >= value).mean() - 1e-12
    assert np.array_equal(of_samples(np.exp(values / 4), count), np.exp(found / 4))


def test_it_comes_back_from_disk(tmp_path):
    saved = save_calibration(sampled(tmp_path), tmp_path)
    loaded = load_calibration(tmp_path)
    assert loaded.samples == saved.samples == {"a": (2, 3)}
    assert loaded.told() == saved.told()
    assert [p.tolist() for _, p in loaded.left_out("a")] == [p.tolist() for _, p in saved.left_out("a")]


def test_a_calibration_from_before_is_read(tmp_path):
    save_calibration(calibration_of(tmp_path, [{"a": spread(slices)} for slices in SLICES]), tmp_path)
    path = tmp_path / "calibration.json"
    record = json.loads(path.read_text())
    assert record.pop("samples") == {}
    path.write_text(json.dumps(record))
    loaded = load_calibration(tmp_path)
    assert loaded.samples == {}
    assert loaded.p("a", np.array([9.0])).tolist() == [1 / 38]


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ({"a": [2, 4]}, "a: not of the 6 samples of 2 scans"),
        ({"a": [5]}, "a: not of the 5 samples of 2 scans"),
        ({}, "a: not of the 37 voxels of 2 scans"),
        ({"a": [2, 3], "b": [2, 3]}, "samples: not of a score that is there"),
    ],
)
def test_counts_that_do_not_fit_are_refused(tmp_path, samples, words):
    save_calibration(sampled(tmp_path), tmp_path)
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"samples": samples}))
    with pytest.raises(DetectorError, match=words):
        load_calibration(tmp_path)


def test_a_combination_of_scores_of_samples_is_one(tmp_path):
    one = save_calibration(sampled(tmp_path / "1"), tmp_path / "1")
    # Another cut of the same scans, into fewer parts.
    cuts = ([(3.0, 10), (6.0, 5)], [(2.0, 10), (7.0, 12)])
    other = save_calibration(sampled(tmp_path / "2", cuts, name="b"), tmp_path / "2")
    members = [Member("a", one, "OUT1"), Member("b", other, "OUT2")]
    assert [member.floor for member in members] == [1 / 3, 1 / 3]
    made = calibrated_again(members, ["fisher"]).calibration
    assert made.samples == {"fisher": (2, 2)}
    assert made.smallest_p("fisher") == 1 / 5
    assert made.about("fisher")["Samples"] == 4
    mixed = calibrated_again([members[0], Member("voxels", one, "OUT1")], ["fisher"]).calibration
    assert mixed.samples == {}
    assert mixed.smallest_p("fisher") == 1 / 38


@pytest.mark.parametrize("recipe", ["slices", "patches"])
def test_a_detector_of_images_counts_its_samples(tmp_path, recipe):
    detector_of(recipe).save(tmp_path / "model")
    detector, scans = Detector.load(tmp_path / "model"), [image_of(n) for n in (11, 12)]
    names = ("vae_regularizer", "rec_error", "raw_FLAIR")
    calibration = measured(
        [(detector, scan) for scan in scans], detector, tmp_path / "model", method="held-out scans",
        how={}, settings=CalibrateSettings(scores=names),
    )  # fmt: skip
    prepared = [detector.prepare(scan)[0] for scan in scans]
    count = detector.view.count if recipe == "slices" else detector.view.stitch_count
    assert calibration.samples == {"vae_regularizer": tuple(map(count, prepared))}
    samples = sum(map(count, prepared))
    assert calibration.smallest_p("vae_regularizer") == 1 / (samples + 1)
    assert calibration.smallest_p("rec_error") < 1 / 1000
    if recipe == "slices":
        maps = detector.score(image_of(13), ["vae_regularizer"])["vae_regularizer"]
        inside = detector.covered(image_of(13))
        slices = [detector.score(scan, ["vae_regularizer"])["vae_regularizer"] for scan in scans]
        normals = np.concatenate(
            [np.unique(m.data[detector.covered(s)]) for m, s in zip(slices, scans, strict=True)]
        )
        expected = [(1 + (normals >= s).sum()) / (1 + samples) for s in np.unique(maps.data[inside])]
        found = np.unique(calibration.p("vae_regularizer", maps.data[inside]))
        assert found == pytest.approx(np.unique(expected))


def test_a_calibration_from_before_is_told_of_its_p(tmp_path, monkeypatch, caplog):
    calibration = sampled(tmp_path, name="vae_regularizer")
    request = ScoreRequest(tmp_path, tmp_path, tmp_path)
    for samples, told in ((calibration.samples, False), ({}, True)):
        standing = replace(calibration, samples=samples)
        monkeypatch.setattr("mednovelty.pvalue_maps.calibration_of", lambda *_, it=standing: it)
        caplog.clear()
        _pvalues(detector_of("slices"), ReadOptions(), ["vae_regularizer", "rec_error"], request)
        words = "vae_regularizer: one value for each slice or window, calibrated by an earlier version"
        assert (words in caplog.text) == told
