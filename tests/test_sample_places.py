"""Where the normals of a reference come from: scan and millimetres, down to the voxel's own signal."""

import nibabel as nib
import numpy as np
import pytest
import torch
from cohorts import FAST, tiny_cohort, tiny_detector
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mednovelty import store
from mednovelty.detector import Detector
from mednovelty.errors import DetectorError
from mednovelty.io.read_scan import read_scan
from mednovelty.record_checks import check_places
from mednovelty.sample_places import NormalPlaces, SamplePlaces
from mednovelty.scan import Scan, Volume
from mednovelty.views.patch import PatchSettings, PatchView
from mednovelty.views.slice import SliceSettings, SliceView
from mednovelty.voxel_cache import VoxelCache
from mednovelty.voxel_fitting import fit_voxels

# Oblique in x and y, left-handed, unequal spacing and offsets.
LAS = np.array([[-1.2, 1.6, 0, 40], [1.6, 1.2, 0, -7], [0, 0, 3, -25], [0, 0, 0, 1.0]])
SHAPE = (7, 9, 5)


@given(arrays(np.int64, (6, 3), elements=st.integers(-9, 60)))
def test_places_come_out_as_they_went_in(halves):
    places = SamplePlaces.of(halves / 2, LAS)
    expected = halves / 2 @ LAS[:3, :3].T + LAS[:3, 3]
    np.testing.assert_allclose(places.mm(np.arange(6)), expected, atol=1e-9)
    np.testing.assert_allclose(places.part(1, 5).part(1, 3).mm(np.array([1, 0])), expected[[3, 2]], atol=1e-9)
    chosen = np.array([False, True, False, False, True, True])
    np.testing.assert_allclose(places.kept(chosen).mm(np.arange(3)), expected[chosen], atol=1e-9)


def test_places_of_a_large_scan_take_few_bytes():
    inside = np.argwhere(np.ones((60, 50, 40), bool))
    assert len(SamplePlaces.of(inside, LAS).packed) < len(inside) / 10


def table():
    """Two scans of 4 and 3 rows; row r of a scan lies at x = 10 * scan + r."""
    cache = VoxelCache(2)
    for number, (name, n) in enumerate((("a", 4), ("b", 3))):
        at = np.stack([10 * number + np.arange(n), np.zeros(n), np.zeros(n)], axis=1)
        cache.append(name, np.ones((n, 2)), SamplePlaces.of(at, np.eye(4)))
    return cache


def test_rows_of_a_table_keep_their_places():
    found = table().places_of(np.array([1, 3, 4, 6]))
    assert found.mm[:, 0].tolist() == [1, 3, 10, 12]
    assert [found.told(n)[0] for n in range(4)] == ["a", "a", "b", "b"]
    assert found.told(3) == ("b", (12.0, 0.0, 0.0))


def test_parts_of_a_table_keep_their_places():
    part = table().part(["a", "b"], 2, 6)
    assert part.places_of(np.arange(4)).mm[:, 0].tolist() == [2, 3, 10, 11]
    joined = table().joined([part.part(["b"]), table().part(["a"], 1)])
    assert joined.places_of(np.arange(5)).mm[:, 0].tolist() == [10, 11, 1, 2, 3]


def test_where_a_scan_tells_no_places_none_are_told():
    cache = table()
    cache.append("c", np.ones((2, 2)))
    assert cache.places_of(np.array([0, 8])).mm is None
    assert cache.places_of(np.array([0, 8])).told(1) == ("c", None)
    assert cache.places_of(np.array([0, 5])).mm is not None


def test_places_are_turned_to_another_list_of_scans():
    found = table().places_of(np.array([1, 4])).among(["b", "x", "a"])
    assert found.scan.tolist() == [2, 0]
    assert found.told(0) == ("a", (1.0, 0.0, 0.0))
    assert table().places_of(np.array([1, 4])).among(["a"]) is None


def marked(at, affine=LAS, shape=SHAPE):
    """A scan that is 1 in one voxel and 0 elsewhere."""
    data = np.zeros((1, *shape), np.float32)
    data[(0, *at)] = 1
    return Scan.of(Volume(data, affine, "marked"), np.ones(shape, bool))


AFFINES = {"LAS": np.diag([-2.0, 1, 3, 1]), "RAS": np.diag([2.0, 1, 3, 1]), "LPI": np.diag([-2.0, -1, -3, 1]),
           "turned": LAS}  # fmt: skip


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("axes", ["RAS", "stored"])
def test_the_middle_of_a_window_is_where_the_window_shows_it(affine, axes):
    view = PatchView(PatchSettings(size=(3, 5, 3), overlap=0.5, min_brain=0, axes=axes))
    scan = marked((2, 6, 3), affine)
    windows, centres = view.cut(scan, 0, 99), view.centres(scan, 0, 99)
    hit = np.flatnonzero(windows[:, 0, 1, 2, 1])
    at = np.flatnonzero((centres == [2, 6, 3]).all(1))
    assert len(centres) == view.count(scan)
    assert hit.tolist() == at.tolist()
    assert len(hit) == 1


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("axis", ["axial", "coronal", "K", "I"])
def test_the_middle_of_an_image_is_where_the_image_shows_it(affine, axis):
    view = SliceView(SliceSettings(axis=axis, size=(9, 9), min_brain=0))
    scan = marked((3, 4, 2), affine)
    centres = view.centres(scan, 0, 99)
    hit = np.flatnonzero(view.cut(scan, 0, 99)[:, 0, 4, 4])
    assert len(centres) == view.count(scan)
    # An image is symmetric about its middle; which of the slices it is, flips tell apart.
    assert centres[hit].tolist() == [[3, 4, 2]]
    first = view.centres(marked((1, 4, 1), affine), 1, 2)
    kept = np.abs(first - [3, 4, 2]).sum()
    assert kept == abs(list(first[0])[["I", "J", "K"].index(view.slice_axis(scan))] -
                       [3, 4, 2][["I", "J", "K"].index(view.slice_axis(scan))])  # fmt: skip


def signal_at(scan, mm):
    """Return a scan's signal at a place in the world, by nibabel."""
    image = nib.load(scan.source)
    i, j, k = np.rint(np.linalg.solve(image.affine, [*mm, 1])[:3]).astype(int)
    return np.asarray(image.dataobj[i, j, k], float)


def test_a_normal_is_the_voxel_it_is_said_to_be():
    detector, _ = tiny_detector()
    cohort, places = tiny_cohort(), detector.fitted.places
    prepared = {}
    for normal in (0, 17, len(detector.reference) - 1):
        id, mm = places.told(normal)
        files = cohort.controls / id / "dwi" / f"{id}_dwi.nii.gz"
        prepared.setdefault(id, read_scan(files))
        own = detector.reference.parts["input"][normal].double().numpy()
        order = detector.scheme.order_of(prepared[id].gradients, id)
        means = np.array(dict(detector.preprocessing)["channel_mean"].means)
        # Divided by the scan's mean and the channels' means: the ratio to the signal is one number.
        ratio = own * means / signal_at(prepared[id], mm)[order]
        assert np.ptp(ratio) < 1e-4 * ratio.mean()
        roles = {scan.id: scan.role for scan in detector.scans}
        assert roles[id] == "training"


def test_places_survive_the_disk():
    detector, folder = tiny_detector()
    loaded, own = Detector.load(folder).fitted.places, detector.fitted.places
    for normal in (0, 5, len(detector.reference) - 1):
        assert loaded.told(normal) == own.told(normal)
    assert loaded.scans == tuple(scan.id for scan in detector.scans)


def test_a_detector_of_before_has_no_places(tmp_path):
    detector, _ = tiny_detector()
    from dataclasses import replace

    before = replace(detector, fitted=replace(detector.fitted, places=None)).save(tmp_path)
    assert not (tmp_path / store.PLACES).exists()
    assert Detector.load(tmp_path).fitted.places is None
    assert before.sha256 != detector.sha256


def test_damaged_places_are_refused(tmp_path):
    detector, _ = tiny_detector()
    detector.save(tmp_path)
    (tmp_path / store.PLACES).write_bytes((tmp_path / store.REFERENCE).read_bytes())
    with pytest.raises(DetectorError, match=r"places\.safetensors: damaged"):
        Detector.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("scan"), "no places of"),
        (lambda t: t.update(mm=t["mm"][:-1]), "no places of"),
        (lambda t: t.update(scan=t["scan"].long()), "int64"),
        (lambda t: t.update(more=t["mm"]), "no places of"),
        (lambda t: t["scan"].__setitem__(2, 9), "none of the record's 3"),
        (lambda t: t["scan"].__setitem__(2, -1), "none of the record's 3"),
    ],
)
def test_places_that_do_not_fit_are_refused(change, words):
    from mednovelty.model_folder import record_of

    detector, _ = tiny_detector()
    n = len(detector.reference)
    tensors = {"scan": torch.zeros(n, dtype=torch.int32), "mm": torch.zeros(n, 3)}
    check_places(record_of(detector), tensors)
    change(tensors)
    with pytest.raises(DetectorError, match=words):
        check_places(record_of(detector), tensors)


def test_arrays_have_scans_and_no_millimetres():
    x = np.random.default_rng(0).normal(size=(60, 4)) + 5
    detector = fit_voxels(x, scans=np.repeat(["p", "q", "r"], 20), settings=FAST)
    own = detector.fitted.places
    assert own.mm is None
    training = {scan.id for scan in detector.scans if scan.role == "training"}
    assert {own.told(n)[0] for n in range(len(detector.reference))} == training


def test_places_of_a_reference_without_rows():
    assert NormalPlaces.of({"a": slice(0, 2)}, {}, np.empty(0, int)).scan.tolist() == []
