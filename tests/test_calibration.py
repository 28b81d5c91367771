"""A calibration: regions, what healthy scans show among the others, and its files."""

import json
import shutil

import nibabel
import numpy as np
import pytest
from calibrations import AFFINE, DETECTOR, calibration_of, scan_of
from dipy.core.gradients import gradient_table
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mednovelty.calibrate.calibration import Calibration
from mednovelty.calibrate.files import check_fits, load_calibration, remove_calibration, save_calibration
from mednovelty.calibrate.healthy_scans import THRESHOLDS_P, HealthyScans, left_out_p, step_of
from mednovelty.calibrate.largest_clusters import largest_clusters
from mednovelty.calibrate.regions import Regions, features_of, label_image, labels_of
from mednovelty.errors import DetectorError, GeometryError, OutputError, ScanError, SettingsError
from mednovelty.scan import Scan, Volume

GENERATOR = np.random.default_rng(8)


def scores(count, shift=0.0):
    return GENERATOR.normal(shift, 2.0, count).astype(np.float32)


# Clusters


def grown(novel, connectivity):
    """Return the size of the largest cluster, found voxel by voxel."""
    most = {6: 1, 18: 2, 26: 3}[connectivity]
    left, largest = {tuple(map(int, at)) for at in np.argwhere(novel)}, 0
    while left:
        front, size = [left.pop()], 1
        while front:
            here = front.pop()
            near = [o for o in left if 0 < np.abs(np.subtract(o, here)).sum() <= most
                    and np.abs(np.subtract(o, here)).max() == 1]  # fmt: skip
            left -= set(near)
            front += near
            size += len(near)
        largest = max(largest, size)
    return largest


@given(arrays(np.int8, (3, 4, 2), elements=st.integers(0, 9)), st.sampled_from([6, 18, 26]))
def test_the_largest_cluster_is_the_one_found_voxel_by_voxel(levels, connectivity):
    mask = levels > 1
    p = levels[mask] / 10
    thresholds = np.array([0.3, 0.9, 0.05, 0.5])
    found = largest_clusters(p, mask, thresholds, connectivity)
    assert found.tolist() == [grown(mask & (levels / 10 <= t), connectivity) for t in thresholds]


def test_voxels_that_share_a_corner_are_neighbours_at_26_only():
    mask = np.ones((3, 2, 4), bool)
    p = np.ones(mask.shape)
    p[0, 0, 0] = p[1, 1, 1] = p[1, 0, 1] = 0.1
    found = [largest_clusters(p[mask], mask, np.array([0.1]), kind).tolist() for kind in (6, 18, 26)]
    assert found == [[2], [3], [3]]
    with pytest.raises(ValueError, match="one of \\(6, 18, 26\\), got 8"):
        largest_clusters(p[mask], mask, np.array([0.1]), 8)
    with pytest.raises(ValueError, match="p-values for 24 voxels"):
        largest_clusters(p, mask, np.array([0.1]), 6)


# Each scan among the others


def test_left_out_by_hand():
    # 5 among 2, 3, 9: one is as high, (1 + 1) / 4; 2 among 1, 5, 9: two, 3 / 4; 9 among 1, 5, 2, 3: none.
    values = [np.array([1.0, 5.0]), np.array([2.0, 3.0]), np.array([9.0])]
    p = left_out_p(values, [None] * 3)
    assert [one.tolist() for one in p] == [[1.0, 0.5], [0.75, 0.75], [0.2]]


def test_left_out_by_region_by_hand():
    values = [np.array([1.0, 5.0, 7.0]), np.array([2.0, 3.0, 8.0])]
    regions = [np.array([4, 4, 6]), np.array([4, 6, 6])]
    # Of region 4 the other scan has 2. Region 6 has no null of its own: 7 is held against 2, 3, 8.
    p = left_out_p(values, regions, own=[4])
    assert [one.tolist() for one in p] == [[1.0, 0.5, 0.5], [2 / 3, 0.75, 0.25]]


def test_a_single_scan_is_held_against_itself():
    assert left_out_p([np.array([3.0, 1.0, 2.0])], [None])[0].tolist() == [0.5, 1.0, 0.75]


def test_what_healthy_scans_show_by_hand(tmp_path):
    # Ten voxels each, of 9 mm3, every second of a row of five: no two of them touch with a face.
    low, high = np.arange(10, dtype=np.float32), np.arange(10, dtype=np.float32) + 100
    calibration = calibration_of(tmp_path, [{"a": low}, {"a": high}])
    healthy = calibration.healthy["a"]
    # The second scan lies above all of the first: each of its voxels has p = 1 / 11.
    assert healthy.max_score.tolist() == [9.0, 109.0]
    assert healthy.min_p.tolist() == [1.0, pytest.approx(1 / 11)]
    here, below = step_of(1 / 11), step_of(1 / 11) + 1
    assert healthy.novel_mm3[:, [here, below]] == pytest.approx(np.array([[0, 0], [90, 0]]))
    assert healthy.share[:, here].tolist() == [0.0, 1.0]
    mask = calibration.maps(1).mask
    for connectivity in (6, 18, 26):
        expected = [0, grown(mask, connectivity) * 9.0]
        assert healthy.largest_cluster_mm3(1 / 11, connectivity) == pytest.approx(expected)
    assert grown(mask, 6) == 1 < grown(mask, 18)
    assert healthy.largest_cluster_mm3(0.08).tolist() == [0, 0]


@given(st.floats(1e-6, 0.5))
def test_a_threshold_between_two_takes_the_one_with_larger_clusters(p):
    step = step_of(p)
    assert THRESHOLDS_P[step] >= p * (1 - 1e-6)
    assert step == 59 or THRESHOLDS_P[step + 1] < p


# P-values


def test_left_out_is_what_the_others_alone_would_give(tmp_path):
    scans = [{"a": scores(80)}, {"a": scores(60, 1.0)}, {"a": scores(70, -1.0)}]
    whole = calibration_of(tmp_path / "whole", scans)
    for number, (maps, p) in enumerate(whole.left_out("a")):
        others = calibration_of(tmp_path / f"{number}", [s for i, s in enumerate(scans) if i != number])
        assert maps.id == whole.scans[number].id
        assert np.array_equal(p, others.p("a", scans[number]["a"]))
        assert np.array_equal(maps.volume(p)[maps.mask], p)


def test_regions_with_enough_voxels_have_a_null_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("mednovelty.calibrate.nulls.FEWEST_VOXELS", 5)
    folder = tmp_path / "calibration"
    values, labels = np.arange(8, dtype=np.float32), np.array([7, 7, 7, 7, 7, 2, 2, 2])
    made = [scan_of(folder, 0, {"a": values}, labels=labels)]
    calibration = Calibration.of(made, ["a"], folder, kind="labels")
    assert list(calibration.nulls["a"]) == ["all", "7"]
    # 4 in region 7, of 0..4: one as high, 2 / 6; in region 2, or one never seen, among all: 0..7, 5 / 9.
    p = calibration.p("a", np.full(3, 4.0), np.array([7, 2, 99]))
    assert p.tolist() == pytest.approx([2 / 6, 5 / 9, 5 / 9])
    assert calibration.smallest_p("a") == pytest.approx(1 / 6)
    z = calibration.z("a", np.full(2, -1.0), np.array([7, 2]))
    # p = 1: what 1 less the smallest p of that null gives.
    assert z == pytest.approx([-0.9674216, -1.2206403], abs=1e-6)
    with pytest.raises(
        SettingsError, match="by regions \\(labels\\); give the region of each of the 3 voxels"
    ):
        calibration.p("a", np.zeros(3))
    with pytest.raises(SettingsError, match="b is not calibrated; there are a"):
        calibration.p("b", np.zeros(3))


def test_regions_that_only_one_scan_has_are_held_against_all_and_the_floor_is_of_every_region(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("mednovelty.calibrate.nulls.FEWEST_VOXELS", 3)
    folder, values = tmp_path / "calibration", np.arange(20, dtype=np.float32)
    # Region 1: 4 and 6 voxels; region 2: 9 and 14; region 3: 7 and none; 20 voxels each.
    labels = [np.repeat([1, 2, 3], [4, 9, 7]), np.repeat([1, 2], [6, 14])]
    made = [scan_of(folder, n, {"a": values + n}, labels=one) for n, one in enumerate(labels)]
    calibration = Calibration.of(made, ["a"], folder, kind="labels")
    assert list(calibration.nulls["a"]) == ["all", "1", "2"]
    # The second scan's voxels of region 1 are among 4 of the first.
    assert calibration.floor_p("a") == calibration.told()["Scores"]["a"]["FloorP"] == 1 / 5
    one = calibration_of(tmp_path / "one", [{"a": scores(50)}, {"a": scores(30)}, {"a": scores(20)}])
    assert one.floor_p("a") == 1 / 51


def test_few_scans_and_few_voxels_are_told(tmp_path):
    calibration = calibration_of(tmp_path, [{"a": scores(50)}, {"a": scores(60)}])
    scans, voxels = calibration.warnings("a")
    assert "calibrated on 2 scans" in scans
    assert "none of a whole scan is below 0.33" in scans
    assert "no p-value below 0.009 can be had from 110 voxels" in voxels
    many = calibration_of(tmp_path / "many", [{"a": scores(150)} for _ in range(70)])
    assert many.warnings("a") == []


# Regions


def test_classes_are_thirds_of_the_normals():
    first, second = np.arange(9.0), np.arange(9.0)[::-1] * 10
    regions = Regions.found_in([np.stack([first[:5], second[:5]]), np.stack([first[5:], second[5:]])], "xy")
    classes = regions.classes_of(np.stack([first, second]))
    # x rises, y falls: low x with high y and so on.
    assert classes.tolist() == [3, 3, 3, 5, 5, 5, 7, 7, 7]
    assert [regions.name_of(c) for c in (3, 7)] == ["x low, y high", "x high, y low"]
    assert Regions("labels").name_of(12) == "label 12"


def diffusion_scan():
    """Two voxels of b=0 signal 200 and 50 at b=1000 and 2000 s/mm2, along two directions each."""
    bvals = np.array([0, 1000, 1000, 2000, 2000])
    bvecs = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]], float)
    diffusivity = np.array([[1e-3, 3e-3], [0.5e-3, 0.5e-3]])
    signal = np.zeros((5, 2, 3, 1))
    for voxel, b0 in enumerate((200.0, 50.0)):
        along = np.array([0, *np.tile(diffusivity[voxel], 2)])
        signal[:, voxel, 1, 0] = b0 * np.exp(-bvals * along)
    mask = np.zeros((2, 3, 1), bool)
    mask[:, 1] = True
    return Scan.of(Volume(signal, AFFINE, "made"), mask, gradient_table(bvals, bvecs=bvecs))


def test_features_of_diffusion_by_hand():
    scan = diffusion_scan()
    found, names = features_of(scan, scan.mask)
    assert names == ("diffusivity", "anisotropy")
    # Directions of 1e-3 and 3e-3 mm2/s: mean 2e-3, deviation 1e-3, which is half of it, on both shells.
    assert found[:, 0] == pytest.approx([2e-3, 0.5], rel=1e-4)
    assert found[:, 1] == pytest.approx([0.5e-3, 0.0], abs=1e-6)


def test_features_lie_in_their_voxels_whatever_the_order_of_storage():
    generator = np.random.default_rng(4)
    signal = generator.uniform(1, 9, (2, 4, 3, 5))
    mask = generator.random((4, 3, 5)) < 0.6
    scan = Scan.of(Volume(signal, AFFINE, "made"), mask)
    inside = mask & (generator.random(mask.shape) < 0.7)
    (found,), names = features_of(scan, inside)
    assert names == ("intensity",)
    assert found == pytest.approx(signal[0][inside] / np.median(signal[0][mask]), rel=1e-5)


def write_labels(path, data, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, affine), path)


def test_labels_come_from_the_image_of_the_scan(tmp_path):
    scan = diffusion_scan()
    data = np.arange(6, dtype=np.int16).reshape(2, 3, 1)
    write_labels(tmp_path / "deep" / "sub-01_dseg.nii.gz", data)
    write_labels(tmp_path / "sub-011_dseg.nii.gz", data)
    path = label_image(tmp_path, "sub-01")
    assert path.name == "sub-01_dseg.nii.gz"
    assert labels_of(path, scan, scan.mask).tolist() == [1, 4]
    with pytest.raises(ScanError, match=r"sub-02: no label image in .*call it sub-02_dseg.nii.gz"):
        label_image(tmp_path, "sub-02")
    write_labels(tmp_path / "sub-01_labels.nii.gz", data)
    with pytest.raises(ScanError, match="sub-01: 2 label images"):
        label_image(tmp_path, "sub-01")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.full((2, 3, 1), 1.5, np.float32), "whole numbers"),
        (np.full((2, 3, 1), -1, np.int16), "whole numbers"),
        (np.full((2, 3, 1), 3e9, np.float64), "too large"),
        (np.zeros((3, 2, 1), np.int16), "does not fit"),
    ],
)
def test_images_that_are_no_labels_are_refused(tmp_path, data, words):
    scan = diffusion_scan()
    write_labels(tmp_path / "sub-01_dseg.nii.gz", data)
    with pytest.raises((ScanError, GeometryError), match=words):
        labels_of(tmp_path / "sub-01_dseg.nii.gz", scan, scan.mask)


# Files


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """A detector's folder with a calibration of two scores and three scans."""
    model = tmp_path_factory.mktemp("model")
    scans = [{"a": scores(60 + i), "b": scores(60 + i, 3.0)} for i in range(3)]
    return save_calibration(calibration_of(model, scans, method="validation scans"), model), model


@pytest.fixture
def model(standing, tmp_path):
    return shutil.copytree(standing[1], tmp_path / "model")


def test_a_calibration_comes_back_to_the_bit(standing):
    saved, folder = standing
    loaded = load_calibration(folder)
    assert loaded.sha256 == saved.sha256 != ""
    assert loaded.scores == ("a", "b")
    assert (loaded.scans, loaded.method, loaded.regions) == (saved.scans, saved.method, saved.regions)
    asked = np.linspace(-9, 9, 40)
    for score in "ab":
        assert np.array_equal(loaded.p(score, asked), saved.p(score, asked))
        for name, array in saved.healthy[score].arrays().items():
            assert np.array_equal(getattr(loaded.healthy[score], name), array)
        pairs = zip(loaded.left_out(score), saved.left_out(score), strict=True)
        assert all(np.array_equal(one[1], other[1]) for one, other in pairs)
    assert loaded.told() == saved.told()
    assert json.loads(json.dumps(loaded.told()))["Scores"]["a"]["MinP"] == saved.healthy["a"].min_p.tolist()


def test_an_earlier_calibrations_maps_are_removed_and_nothing_else(model):
    (model / "calibration" / "notes.txt").write_text("mine")
    before = {path.name for path in (model / "calibration").iterdir()}
    again = save_calibration(calibration_of(model, [{"a": scores(33)}]), model)
    left = {path.name for path in (model / "calibration").iterdir()}
    assert left == {again.scans[0].file, "notes.txt"}
    assert not left & (before - {"notes.txt"})
    remove_calibration(model)
    assert load_calibration(model) is None
    assert [path.name for path in model.rglob("*") if path.is_file()] == ["notes.txt"]


def test_there_may_be_none(tmp_path):
    assert load_calibration(tmp_path) is None
    remove_calibration(tmp_path)


def edited(model, change):
    path = model / "calibration.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


EDITS = {
    "another format": (lambda r: r.update(schema_version=9), "written in format 9"),
    "a key too many": (lambda r: r.update(extra=1), "extra: Extra inputs"),
    "a hash that is none": (lambda r: r.update(detector_sha256="x"), "detector_sha256"),
    "no scans": (lambda r: r.update(scans=[]), "scans"),
    "a way out": (lambda r: r["scans"][0].update(file="../../secret.safetensors"), "scans.0.file"),
    "one scan twice": (lambda r: r["scans"].append(r["scans"][0]), "two have one id"),
    "fewer voxels": (lambda r: r["scans"][0].update(n_voxels=3), "not of the 126 voxels of 3 scans"),
    "a scan less": (lambda r: r["scans"].pop(), "not of the 121 voxels of 2 scans"),
    "other thresholds": (lambda r: r["thresholds_p"].pop(), "not those of this version"),
    "a null that is not there": (lambda r: r["scores"].update(c=["all"]), "cannot be put together"),
    "a region of one": (lambda r: r["scores"].update(a=["all", "1"]), "null of all voxels"),
    "a region in words": (lambda r: r["scores"].update(a=["all", "x"]), "null of all voxels"),
    "cuts without features": (lambda r: r["regions"].update(cuts=[[1.0, 2.0]]), "two cuts for each"),
    "not a record": (lambda r: r.clear(), "not a calibration's record"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_record_that_was_edited_is_refused(model, name):
    change, words = EDITS[name]
    edited(model, change)
    with pytest.raises(DetectorError, match=words) as refused:
        load_calibration(model)
    assert "calibration." in str(refused.value)


def read_whole(model):
    calibration = load_calibration(model)
    return [list(calibration.left_out(score)) for score in calibration.scores]


@pytest.mark.parametrize("file", ["calibration.json", "calibration.safetensors", "scan"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_damage_is_refused(model, file, damage):
    path = next((model / "calibration").iterdir()) if file == "scan" else model / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 if file != "calibration.json" else 255
    changed = {"cut": content[:-9], "flipped": content}
    path.unlink() if damage == "missing" else path.write_bytes(changed[damage])
    if (file, damage) == ("calibration.json", "missing"):
        assert load_calibration(model) is None
        return
    with pytest.raises(DetectorError) as refused:
        read_whole(model)
    assert path.name in str(refused.value)


def test_another_detectors_or_settings_calibration_is_refused(model):
    calibration, path = load_calibration(model), model / "calibration.json"
    how = {"maps": {"median_px": 1}}
    check_fits(calibration, DETECTOR, how, path)
    with pytest.raises(DetectorError, match="belongs to another detector \\(dddddddddddd, and this is 000"):
        check_fits(calibration, "0" * 64, how, path)
    with pytest.raises(DetectorError, match=r"calibrated with maps.median_px=1, and is to score with 5"):
        check_fits(calibration, DETECTOR, {"maps": {"median_px": 5}}, path)
    with pytest.raises(DetectorError, match="calibrated with draws=null, and is to score with 3"):
        check_fits(calibration, DETECTOR, {**how, "draws": 3}, path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    calibration = calibration_of(tmp_path, [{"a": scores(20)}])
    with pytest.raises(OutputError, match=r"calibration.safetensors: cannot be written"):
        save_calibration(calibration, tmp_path / "nowhere")


def test_shapes_of_what_scans_show_are_checked(standing):
    whole = standing[0].healthy["a"].arrays()
    with pytest.raises(ValueError, match="novel_mm3 must be"):
        HealthyScans.from_arrays(whole | {"novel_mm3": whole["novel_mm3"][:, :5]})
    with pytest.raises(KeyError, match="share"):
        HealthyScans.from_arrays({name: one for name, one in whole.items() if name != "share"})
