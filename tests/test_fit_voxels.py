"""The array level: voxels in, a detector out."""

from dataclasses import replace

import numpy as np
import pytest
from cohorts import FAST

from mednovelty.errors import DetectorError, ScanError, SettingsError, UnknownPluginError
from mednovelty.testing.models import tiny_scan
from mednovelty.voxel_fitting import fit_voxels

N = 1200


@pytest.fixture(scope="module")
def voxels():
    rng = np.random.default_rng(0)
    return (2 + rng.normal(size=(N, 3)) @ rng.normal(size=(3, 9)) + 0.3 * rng.normal(size=(N, 9))).astype(
        "f4"
    )


@pytest.fixture(scope="module")
def scans():
    return np.arange(N) // 300


@pytest.fixture(scope="module")
def detector(voxels, scans):
    return fit_voxels(voxels, scans=scans, seed=3, settings=FAST)


def test_one_number_a_voxel_and_score(detector, voxels):
    scores = detector.score_voxels(voxels[:71])
    assert set(scores) == set(FAST.scores)
    assert {value.shape for value in scores.values()} == {(71,)}
    assert {value.dtype for value in scores.values()} == {np.dtype("f4")}


def test_strange_voxels_score_higher(detector, voxels):
    strange = voxels[:50] + np.where(np.arange(9) % 2, 4, -4)
    normal, novel = detector.score_voxels(voxels[:50]), detector.score_voxels(strange)
    for name in set(FAST.scores) - {"vae_regularizer", "latent_euclidean"}:
        assert np.median(novel[name]) > np.median(normal[name]), name


def test_same_seed_same_bits_other_seed_other_bits(detector, voxels, scans):
    again = fit_voxels(voxels, scans=scans, seed=3, settings=FAST).score_voxels(voxels[:71])
    other = fit_voxels(voxels, scans=scans, seed=4, settings=FAST).score_voxels(voxels[:71])
    for name, values in detector.score_voxels(voxels[:71]).items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)
        assert (values != other[name]).any(), name


def test_a_training_table_on_disk_gives_the_same_bits(detector, voxels, scans, tmp_path):
    on_disk = fit_voxels(
        voxels, scans=scans, seed=3, settings=replace(FAST, cache_bytes=1000), folder=tmp_path
    )
    for name, values in detector.score_voxels(voxels[:71]).items():
        np.testing.assert_array_equal(values, on_disk.score_voxels(voxels[:71])[name], err_msg=name)
    assert not list(tmp_path.glob("*.f32"))


def test_a_score_does_not_depend_on_its_company(detector, voxels):
    together = detector.score_voxels(voxels[:30])
    alone = [detector.score_voxels(voxels[i : i + 1]) for i in range(30)]
    for name, values in together.items():
        np.testing.assert_allclose(
            values, [one[name][0] for one in alone], rtol=2e-4, atol=2e-5, err_msg=name
        )


def test_validation_scans_are_held_out_whole(detector):
    roles = [scan.role for scan in detector.scans]
    assert sorted(roles) == ["training"] * 3 + ["validation"]
    assert detector.reference.drawn_from == 900


def test_the_reference_keeps_to_its_budget(voxels, scans):
    small = fit_voxels(voxels, scans=scans, settings=replace(FAST, reference_bytes=4 * 13 * 90))
    assert len(small.reference) == 90
    assert small.reference.n_bytes <= 4 * 13 * 90
    counts = [int(sum(any(np.array_equal(row, y) for y in voxels[s * 300 : s * 300 + 300])
                      for row in small.reference.parts["input"].numpy())) for s in range(4)]  # fmt: skip
    assert sorted(counts) == [0, 30, 30, 30]


def test_a_single_scan_holds_out_its_end(voxels):
    detector = fit_voxels(voxels, settings=FAST)
    assert detector.reference.drawn_from == 960
    assert detector.notes == (
        "a single scan: its last voxels in the file's order are held out for validation, not a scan",
    )


def test_scores_that_need_no_reference_keep_none(voxels, scans):
    detector = fit_voxels(voxels, scans=scans, settings=replace(FAST, scores=("negative_elbo",)))
    assert detector.reference.n_bytes == 0
    with pytest.raises(
        SettingsError, match="compares with normals in 'input', which this detector's reference"
    ):
        detector.score_voxels(voxels, ["nearest_normal"])


def test_what_cannot_be_scored_is_refused(detector, voxels):
    with pytest.raises(ScanError, match=r"voxels must be \(m, 9\), got \(1200, 8\)"):
        detector.score_voxels(voxels[:, :8])
    with pytest.raises(ScanError, match="1 of 3 voxels are not finite"):
        detector.score_voxels(np.where(np.eye(3, 9) * [[0], [0], [1]] > 0, np.nan, voxels[:3]))
    with pytest.raises(UnknownPluginError, match="did you mean 'latent_euclidean'"):
        detector.score_voxels(voxels, ["latent_euclidian"])
    with pytest.raises(SettingsError, match="raw_b0: needs is_b0"):
        detector.score_voxels(voxels, ["raw_b0"])
    with pytest.raises(DetectorError, match="fitted on arrays and knows no scans"):
        detector.score(tiny_scan())


def test_what_cannot_be_fitted_is_refused(voxels):
    with pytest.raises(ScanError, match=r"one scan id a voxel; got \(1200, 9\) and 3 ids"):
        fit_voxels(voxels, scans=[1, 2, 3])
    with pytest.raises(ScanError, match="not finite"):
        fit_voxels(np.full((60, 9), np.nan), settings=FAST)
    with pytest.raises(UnknownPluginError, match="no method is called 'vea'; did you mean 'vae'"):
        fit_voxels(voxels, settings=replace(FAST, method="vea"))
    with pytest.raises(SettingsError, match="validation_fraction must lie between 0 and 1, got 1"):
        replace(FAST, validation_fraction=1)
