"""Combinations held against those of held-out normals: by hand, honest where scores depend, and refused."""

from dataclasses import replace

import numpy as np
import pytest
from calibrations import AFFINE, SHAPE, calibration_of

from mednovelty.calibrate.calibration import Calibration, CalibrationScan
from mednovelty.calibrate.healthy_scans import THRESHOLDS_P
from mednovelty.calibrate.scan_maps import write_scan_maps
from mednovelty.combine.calibrated import Member, calibrated_again, in_order, key_of
from mednovelty.combine.statistics import COMBINATIONS, as_stored, combined, p_if_independent
from mednovelty.errors import GeometryError, ScanError, SettingsError


def member(calibration, score, where="OUT1"):
    return Member(score, calibration, where)


def known(calibration, sha256="1" * 64):
    return replace(calibration, sha256=sha256)


def dependent(rng, count):
    """Two scores of which one is nearly the other, on another scale."""
    one = rng.normal(size=count)
    return {"a": one, "b": np.exp(one + 0.1 * rng.normal(size=count))}


@pytest.fixture
def two(tmp_path):
    scans = [
        {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([7.0, 5.0, 6.0])},
        {"a": np.array([2.5, 0.0]), "b": np.array([6.5, 9.0])},
    ]
    return known(calibration_of(tmp_path / "two", scans))


def test_the_null_by_hand(two):
    made = calibrated_again([member(two, "a"), member(two, "b")], ["fisher"])
    # The first scan among two values, a {2.5, 0}, b {6.5, 9}: 1 + how many are as high, over 3; the second
    # among three.
    p = [
        (np.array([2 / 3, 2 / 3, 1 / 3]), np.array([2 / 3, 1.0, 1.0])),
        (np.array([2 / 4, 4 / 4]), np.array([2 / 4, 1 / 4])),
    ]
    # No p that only the second could have: among two values 1/3 is the smallest. And none above 2/3.
    bounded = [np.clip(np.stack(one), 1 / 3, 2 / 3) for one in p]
    expected = np.concatenate([-2 * np.log(one).sum(0) for one in bounded])
    null = made.calibration.nulls["fisher"]["all"]
    assert null.n == 5
    assert null.values == pytest.approx(np.unique(expected.round(4)), abs=1e-4)
    assert made.members[0].floor == pytest.approx(1 / 3)
    # Above all of them: one in six.
    top = made.statistic("fisher", np.full((2, 1), 1e-6))
    assert made.calibration.p("fisher", top) == pytest.approx([1 / 6])
    assert made.calibration.scans[1].id == "sub-c02"
    assert made.calibration.healthy["fisher"].largest_mm3.shape == (2, 3, len(THRESHOLDS_P))


def test_a_single_scan_is_held_against_itself(tmp_path):
    alone = known(calibration_of(tmp_path, [{"a": np.arange(4.0), "b": np.arange(4.0)}]))
    made = calibrated_again([member(alone, "a"), member(alone, "b")], ["rank_average"])
    # p is 2/5 to 5/5, and 2/5 the smallest that there can be; so none is above 3/5.
    null = made.calibration.nulls["rank_average"]["all"]
    assert null.values[[0, -1]] == pytest.approx([-0.6, -0.4])
    assert (null.n, null.at_least[-1]) == (4, 1)


def test_p_values_are_honest_where_scores_depend_on_each_other(tmp_path):
    rng = np.random.default_rng(0)
    normals = known(calibration_of(tmp_path, [dependent(rng, 300) for _ in range(12)]))
    made = calibrated_again([member(normals, "a"), member(normals, "b")], list(COMBINATIONS))
    fresh = dependent(rng, 40_000)
    p = np.stack([normals.p(one.score, fresh[one.score].astype(np.float32)) for one in made.members])
    for name in COMBINATIONS:
        statistic = made.statistic(name, p)
        for alpha, tolerance in ((0.5, 0.1), (0.1, 0.2), (0.02, 0.4)):
            share = (made.calibration.p(name, statistic) <= alpha).mean()
            assert share == pytest.approx(alpha, rel=tolerance), (name, alpha)
    # As if they were independent it would be far off: of two scores that agree, twice the evidence.
    assert (p_if_independent("fisher", made.statistic("fisher", p), 2) <= 0.02).mean() > 0.035


def test_members_are_combined_in_one_order(two, tmp_path):
    other = known(
        calibration_of(tmp_path / "other", [{"c": np.arange(3.0)}, {"c": np.arange(2.0)}]), "0" * 64
    )
    one, two_, three = member(two, "a"), member(two, "b"), member(other, "c", "OUT2")
    ordered = in_order([two_, one, three])
    assert [m.score for m in ordered] == ["c", "a", "b"]
    assert key_of(ordered) == key_of(in_order([three, two_, one]))
    assert key_of(ordered) != key_of(in_order([one, three]))
    left = calibrated_again([two_, one, three], ["cauchy"]).calibration.nulls["cauchy"]["all"]
    right = calibrated_again([one, three, two_], ["cauchy"]).calibration.nulls["cauchy"]["all"]
    assert left.values.tolist() == right.values.tolist()


def of_masks(folder, scores, masks, affine=AFFINE, ids=("sub-c01", "sub-c02"), images=("1" * 64, "2" * 64)):
    """Return a calibration by the masks of its scans; ``scores`` gives a scan's volume by its number."""
    scans = []
    (folder / "calibration").mkdir(parents=True)
    for number, (id, image, mask) in enumerate(zip(ids, images, masks, strict=True)):
        values = {name: volume(number)[mask] for name, volume in scores.items()}
        file, sha256 = write_scan_maps(
            folder / "calibration", number, mask=mask, affine=affine, values=values
        )
        scans.append(CalibrationScan(id, image, int(mask.sum()), 9.0, file, sha256))
    made = Calibration.of(scans, list(scores), folder / "calibration", detector_sha256=folder.name[0] * 64)
    return known(made, folder.name[0] * 64)


def volume_of(seed):
    return lambda number: np.random.default_rng([seed, number]).normal(size=SHAPE)


def boxes(*bounds):
    found = []
    for low, high in bounds:
        mask = np.zeros(SHAPE, bool)
        mask[low:high] = True
        found.append(mask)
    return found


def test_voxels_of_several_detectors_meet_by_their_place(tmp_path):
    one = of_masks(tmp_path / "e", {"a": volume_of(1)}, boxes((0, 6), (1, 9)))
    other = of_masks(tmp_path / "f", {"a": volume_of(2)}, boxes((2, 9), (1, 9)))
    made = calibrated_again([member(one, "a"), member(other, "a", "OUT2")], ["mean_z"])
    assert [scan.n_voxels for scan in made.calibration.scans] == [4 * 35, 8 * 35]
    assert made.notes == ("calibration scan sub-c01: 140 of 245 voxels were scored by all detectors",)
    # By place: each scan's p-values in the voxels that both have, each among the other scan's own mask; of
    # both scans the larger is left out of the floor: 8 of 9 planes are 280 voxels.
    statistics = []
    for number, common in enumerate((np.s_[2:6], np.s_[1:9])):
        p = []
        for seed, others in ((1, (np.s_[1:9], np.s_[0:6])), (2, (np.s_[1:9], np.s_[2:9]))):
            scans = [volume_of(seed)(which).astype(np.float32) for which in (0, 1)]
            normals = scans[1 - number][others[number]].ravel()
            count = (normals >= scans[number][common].reshape(-1, 1)).sum(1)
            p.append((1 + count) / (1 + normals.size))
        statistics.append(combined("mean_z", as_stored(np.stack(p)), [1 / 211, 1 / 246]))
    null = made.calibration.nulls["mean_z"]["all"]
    assert null.values == pytest.approx(np.unique(np.concatenate(statistics)), rel=1e-5, abs=1e-6)
    highest = [one.max() for one in statistics]
    assert made.calibration.healthy["mean_z"].max_score == pytest.approx(highest, rel=1e-6)


def test_what_does_not_fit_is_told(tmp_path, two):
    whole = boxes((0, 9), (0, 9))
    one = of_masks(tmp_path / "a", {"a": volume_of(1)}, whole)
    shifted = of_masks(tmp_path / "b", {"a": volume_of(1)}, whole, AFFINE + np.eye(4)[:, ::-1] * 0.5)
    away = r"^sub-c01 in OUT2: its voxels lie up to .* mm away from those of sub-c01 in OUT1$"
    with pytest.raises(GeometryError, match=away):
        calibrated_again([member(one, "a"), member(shifted, "a", "OUT2")], ["fisher"])
    strangers = of_masks(tmp_path / "c", {"a": volume_of(1)}, whole, ids=("sub-x", "sub-y"))
    with pytest.raises(SettingsError, match=r"no scan was used to calibrate all detectors \(OUT1: sub-c01, "
                       r"sub-c02; OUT2: sub-x, sub-y\); calibrate them on the same normals"):  # fmt: skip
        calibrated_again([member(one, "a"), member(strangers, "a", "OUT2")], ["fisher"])
    images = of_masks(tmp_path / "d", {"a": volume_of(1)}, whole, images=("1" * 64, "7" * 64))
    with pytest.raises(ScanError, match=r"sub-c02 in OUT2 is another image \(777777777777\) than sub-c02 in "
                       r"OUT1 \(222222222222\).*--other-images"):  # fmt: skip
        calibrated_again([member(one, "a"), member(images, "a", "OUT2")], ["fisher"])
    both = [member(one, "a"), member(images, "a", "OUT2")]
    assert calibrated_again(both, ["fisher"], other_images=True).calibration.smallest_p("fisher") < 0.01
    apart = of_masks(tmp_path / "e", {"a": volume_of(1)}, boxes((0, 4), (0, 4)))
    away = of_masks(tmp_path / "f", {"a": volume_of(1)}, boxes((4, 9), (4, 9)))
    with pytest.raises(ScanError, match=r"^sub-c01: no voxel of it was scored by all detectors$"):
        calibrated_again([member(apart, "a"), member(away, "a", "OUT2")], ["fisher"])
    with pytest.raises(SettingsError, match=r"two calibrated scores or more; there is only a of OUT1$"):
        calibrated_again([member(two, "a")], ["fisher"])
    with pytest.raises(SettingsError, match=r"a of OUT1 and of OUT3 are the same score of the same detector"):
        calibrated_again([member(two, "a"), member(two, "a", "OUT3")], ["fisher"])


def test_scans_that_only_one_detector_has_are_left_out(tmp_path):
    whole = boxes((0, 9), (0, 9))
    one = of_masks(tmp_path / "a", {"a": volume_of(1)}, whole)
    other = of_masks(
        tmp_path / "b", {"b": volume_of(2)}, whole, ids=("sub-c02", "sub-x"), images=("2" * 64, "3" * 64)
    )
    made = calibrated_again([member(one, "a"), member(other, "b", "OUT2")], ["fisher"])
    assert [scan.id for scan in made.calibration.scans] == ["sub-c02"]
    assert made.notes == (
        "OUT1: calibration scans that not all detectors have are left out: sub-c01",
        "OUT2: calibration scans that not all detectors have are left out: sub-x",
    )
    # It is still held against the others of each detector, so its p is not that among itself.
    assert made.calibration.nulls["fisher"]["all"].n == 315
