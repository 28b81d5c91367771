"""What is cut out of a scan comes back to where it was, along every axis and in every orientation."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.errors import GeometryError, SettingsError
from mednovelty.interpolation import interpolation
from mednovelty.scan import Scan, Volume
from mednovelty.testing.models import tiny_scan
from mednovelty.views.axes import to_ras
from mednovelty.views.slice import SliceSettings, SliceView
from mednovelty.views.voxel import VoxelView

AXES = ("I", "J", "K", "axial", "coronal", "sagittal")
CODES = ("RAS", "LAS", "SPL", "AIR")


def affine_of(codes="RAS", spacing=(1.5, 2.0, 3.5), tilt=0.0):
    """Return an affine whose voxel axes run to those directions, tilted by some degrees."""
    turn = nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
        ),
        (2, 2, 2),
    )
    c, s = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ turn[:3, :3] @ np.diag(spacing)
    affine[:3, 3] = 7, -5, 3
    return affine


def scan_of(data, affine=None, mask=None):
    affine = affine_of() if affine is None else affine
    mask = np.ones(data.shape[1:], bool) if mask is None else mask
    return Scan.of(Volume(data.astype(np.float32), affine, "scan"), mask, id="sub-01")


def world(affine, voxels):
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def centroid_mm(volume):
    data = volume.data[0].astype(np.float64)
    index = np.stack(np.indices(data.shape), -1)
    return world(volume.affine, (data[..., None] * index).sum((0, 1, 2)) / data.sum())


def there_and_back(view, scan):
    images = view.cut(scan, 0, view.count(scan))
    return view.assemble(scan, images[:, 0], "map").data[0]


class TestDense:
    def test_dense_is_the_volume_inside_the_mask(self):
        rng = np.random.default_rng(0)
        data = rng.normal(size=(2, 5, 4, 7)).astype(np.float32)
        mask = rng.uniform(size=(5, 4, 7)) < 0.6
        scan = scan_of(data, mask=mask).scaled(np.array([2.0, -3.0]))
        expected = np.where(mask, data * np.array([2, -3], np.float32)[:, None, None, None], -9)
        np.testing.assert_array_equal(scan.dense(-9), expected)
        np.testing.assert_array_equal(
            scan.box((slice(1, 4), slice(0, 3), slice(2, 6)), -9), expected[:, 1:4, :3, 2:6]
        )
        assert scan.dense().dtype == np.float32
        assert scan.dense().flags.c_contiguous

    def test_stored_numbers_are_scaled_and_shifted(self):
        scan = tiny_scan()
        stored = (scan.stored - 100).astype(np.int16)
        scan = replace(scan, stored=stored, scale=np.full(5, 0.5), offset=np.arange(5.0))
        np.testing.assert_array_equal(
            scan.dense()[:, scan.mask], 0.5 * reordered(scan) + np.arange(5)[:, None]
        )

    def test_names_of_channels_follow_the_channels(self):
        scan = replace(tiny_scan(), contrasts=("a", "b", "c", "d", "e"))
        assert scan.take(np.array([3, 1]), None).contrasts == ("d", "b")
        assert tiny_scan().take(np.array([3, 1]), None).contrasts == ()
        with pytest.raises(GeometryError, match="sub-tiny: 5 channels cannot be called FLAIR, T1w"):
            replace(scan, contrasts=("FLAIR", "T1w"))


def reordered(scan):
    """Return the stored numbers in the order in which NumPy picks masked voxels."""
    place = np.zeros(scan.mask.shape, int, order="F")
    place.T[scan.mask.T] = np.arange(scan.n_voxels)
    return scan.stored[:, place[scan.mask]]


class TestInterpolation:
    @given(n=st.integers(3, 40), samples=st.integers(1, 40))
    def test_constants_and_ramps_stay_what_they_are(self, n, samples):
        matrix = interpolation(n, samples, n / samples)
        at = (np.arange(samples) + 0.5) * n / samples - 0.5
        inside = (at >= 0) & (at <= n - 1)
        np.testing.assert_allclose(matrix.sum(1)[inside], 1, rtol=1e-5)
        np.testing.assert_allclose((matrix @ np.arange(n))[inside], at[inside], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(interpolation(n, samples, n / samples, clamp=True).sum(1), 1, rtol=1e-5)

    def test_by_hand(self):
        np.testing.assert_allclose(interpolation(6, 2, 3), [[0.25, 0.5, 0.25, 0, 0, 0],
                                                            [0, 0, 0, 0.25, 0.5, 0.25]])  # fmt: skip
        np.testing.assert_allclose(
            interpolation(2, 4, 0.5), [[0.75, 0], [0.75, 0.25], [0.25, 0.75], [0, 0.75]]
        )
        np.testing.assert_array_equal(interpolation(5, 5, 1), np.eye(5))
        # Samples whose centre lies beyond the last voxel's edge have nothing to repeat.
        np.testing.assert_allclose(interpolation(2, 5, 0.8, clamp=True).sum(1), [0, 1, 1, 1, 0])


class TestTurns:
    @pytest.mark.parametrize("codes", CODES)
    def test_as_nibabel_turns(self, codes):
        data = np.random.default_rng(1).normal(size=(4, 5, 6))
        affine = affine_of(codes, tilt=20)
        assert "".join(nib.aff2axcodes(affine)) == codes
        expected = nib.as_closest_canonical(nib.Nifti1Image(data, affine)).get_fdata()
        np.testing.assert_array_equal(to_ras(affine)(data), expected)

    @pytest.mark.parametrize("codes", CODES)
    def test_a_box_is_the_same_box(self, codes):
        turn, data = to_ras(affine_of(codes)), np.random.default_rng(1).normal(size=(4, 5, 6))
        where = [(1, 3), (0, 2), (2, 4)]
        np.testing.assert_array_equal(turn(data[turn.box(where, data.shape)]), turn(data)[1:3, 0:2, 2:4])


class TestSlices:
    @pytest.mark.parametrize("axis", AXES)
    @pytest.mark.parametrize("codes", CODES)
    @pytest.mark.parametrize("size", [(16, 16), (17, 23), (9, 12)])
    def test_a_voxels_centroid_comes_back_where_it_was(self, axis, codes, size):
        affine, shape = affine_of(codes, tilt=15), (13, 10, 11)
        data = np.zeros((1, *shape))
        data[0, 5, 6, 4] = 100
        scan = scan_of(data, affine)
        view = SliceView(SliceSettings(axis=axis, size=size))
        back = view.assemble(scan, view.cut(scan, 0, view.count(scan))[:, 0], "map")
        # One voxel between pixels weighs a little more on one side; a shift by half a pixel is far more.
        pixel_mm = view._pixel_mm(scan)
        assert np.linalg.norm(centroid_mm(back) - world(affine, np.array([5, 6, 4]))) < 0.35 * pixel_mm
        peak = np.unravel_index(back.data[0].argmax(), shape)
        assert np.abs(np.subtract(peak, (5, 6, 4))).max() <= 1

    @pytest.mark.parametrize("axis", AXES)
    @pytest.mark.parametrize("codes", CODES)
    @pytest.mark.parametrize("size", [(20, 20), (13, 18)])
    def test_a_blobs_centroid_comes_back_exactly(self, axis, codes, size):
        affine, shape = affine_of(codes, tilt=15), (29, 24, 21)
        centre = np.array([13.3, 12.6, 9.1])
        distance = np.stack(np.indices(shape), -1) - centre
        data = np.exp(-(distance**2 / 2 / np.array([4.0, 3.0, 2.0]) ** 2).sum(-1))
        scan = scan_of(data[None], affine)
        view = SliceView(SliceSettings(axis=axis, size=size))
        back = view.assemble(scan, view.cut(scan, 0, view.count(scan))[:, 0], "map")
        apart_mm = np.linalg.norm(centroid_mm(back) - centroid_mm(Volume(data[None], affine, "blob")))
        assert apart_mm < 0.03 * view._pixel_mm(scan)

    @pytest.mark.parametrize("axis", AXES)
    @pytest.mark.parametrize("codes", ["RAS", "AIR"])
    @pytest.mark.parametrize("size", [(30, 30), (13, 18), (12, 11)])
    def test_a_ramp_comes_back_as_itself(self, axis, codes, size):
        affine, shape = affine_of(codes), (24, 19, 14)
        ramp = np.einsum("a,a...->...", [1.0, -2.0, 0.5], np.indices(shape)) + 40
        scan = scan_of(ramp[None], affine)
        view = SliceView(SliceSettings(axis=axis, size=size))
        along = {"I": 0, "J": 1, "K": 2}.get(axis)
        if along is None:
            along = to_ras(affine).order[["sagittal", "coronal", "axial"].index(axis)]
        # At the rim the padding shows, and the outermost pixels are repeated.
        inner = tuple(slice(None) if n == along else slice(5, -5) for n in range(3))
        np.testing.assert_allclose(there_and_back(view, scan)[inner], ramp[inner], rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize("axis", AXES)
    def test_images_of_the_slices_own_size_are_the_slices(self, axis):
        data = np.random.default_rng(2).normal(size=(2, 8, 8, 8))
        scan = scan_of(data, affine_of("LAS", (2, 2, 2)))
        view = SliceView(SliceSettings(axis=axis, size=(8, 8)))
        np.testing.assert_array_equal(there_and_back(view, scan), data[0].astype(np.float32))

    def test_by_hand(self):
        # 4 x 2 voxels of 1 x 1 mm on 2 x 2 pixels: pixels of 2 mm; the shorter axis is padded on both sides.
        data = np.arange(8.0).reshape(1, 4, 2, 1)
        scan = scan_of(data, np.eye(4))
        view = SliceView(SliceSettings(axis="K", size=(2, 2), background=10))
        # Along I: means of voxels 0, 1 and of 2, 3; along J: half padding, half a voxel.
        expected = [[(1 + 10) / 2, (2 + 10) / 2], [(5 + 10) / 2, (6 + 10) / 2]]
        np.testing.assert_allclose(view.cut(scan, 0, 1)[0, 0], expected)

    def test_anatomical_slices_do_not_depend_on_how_a_scan_is_stored(self):
        data = np.random.default_rng(3).normal(size=(5, 6, 7))
        image = nib.Nifti1Image(data, affine_of("RAS"))
        for axis in ("axial", "coronal", "sagittal"):
            view = SliceView(SliceSettings(axis=axis, size=(12, 9)))
            expected = view.cut(scan_of(data[None], image.affine), 0, 99)
            for codes in CODES:
                turned = image.as_reoriented(nib.orientations.ornt_transform(
                    nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes)))  # fmt: skip
                scan = scan_of(turned.get_fdata()[None], turned.affine)
                np.testing.assert_allclose(view.cut(scan, 0, 99), expected, atol=1e-6)

    def test_axial_rows_run_to_the_right_and_columns_to_the_front(self):
        data = np.zeros((1, 6, 6, 6))
        data[0, 4, 1, 2] = 1
        affine = affine_of("LPI", (2, 2, 2))
        images = SliceView(SliceSettings(axis="axial", size=(6, 6))).cut(scan_of(data, affine), 0, 6)
        assert np.argwhere(images[:, 0]).tolist() == [[3, 1, 4]]

    def test_slices_with_little_brain_are_left_out_and_written_as_0(self):
        mask = np.zeros((8, 8, 5), bool)
        mask[2:6, 2:6, 1:4] = True
        mask[2:6, 2:6, 2] = False
        mask[3, 3, 2] = True
        scan = scan_of(np.ones((2, 8, 8, 5)), np.diag([2.0, 2, 3, 1]), mask)
        view = SliceView(SliceSettings(axis="K", size=(8, 8), min_brain=0.1))
        assert view.count(scan) == 2
        found = view.assemble(scan, np.array([3.0, 5.0]), "map").data[0]
        np.testing.assert_array_equal(found, mask * np.array([0, 3, 0, 5, 0]))

    def test_blocks_make_up_the_whole(self):
        mask = np.random.default_rng(5).uniform(size=(9, 7, 8)) < 0.4
        mask[:, :, 3] = False
        scan = scan_of(np.random.default_rng(4).normal(size=(3, 9, 7, 8)), mask=mask)
        for axis in AXES:
            view = SliceView(SliceSettings(axis=axis, size=(10, 12), min_brain=0.001))
            whole = view.cut(scan, 0, view.count(scan))
            parts = [view.cut(scan, n, n + 3) for n in range(0, view.count(scan), 3)]
            np.testing.assert_array_equal(np.concatenate(parts), whole)
            assert whole.dtype == np.float32
            assert whole.flags.c_contiguous
            assert whole.shape[1:] == view.shape(3)
            assert view.cut(scan, 2, 2).shape == (0, 3, 10, 12)

    def test_what_a_spacing_cuts_off_gets_no_score(self):
        scan = scan_of(np.ones((1, 12, 12, 3)), np.eye(4))
        view = SliceView(SliceSettings(axis="K", size=(3, 4), spacing_mm=2.0))
        found = view.assemble(scan, np.ones((3, 3, 4)), "map").data[0, ..., 1]
        expected = np.zeros((12, 12))
        expected[3:9, 2:10] = 1
        np.testing.assert_allclose(found, expected)

    @pytest.mark.parametrize("axis", AXES)
    @pytest.mark.parametrize("more", [{"min_brain": 0.05}, {"spacing_mm": 0.7, "min_brain": 0}])
    def test_covered_are_the_voxels_that_get_a_score(self, axis, more):
        mask = np.random.default_rng(5).uniform(size=(9, 7, 8)) < 0.6
        for plane in (mask[2], mask[:, 3], mask[:, :, 5]):  # Too little for an image.
            plane[:] = False
            plane[4, 4] = True
        scan = scan_of(np.ones((1, 9, 7, 8)), mask=mask)
        view = SliceView(SliceSettings(axis=axis, size=(10, 8), **more))
        ones = np.ones((view.count(scan), 10, 8), np.float32)
        found = view.assemble(scan, ones, "map").data[0]
        covered = view.covered(scan)
        np.testing.assert_array_equal(covered, found > 0)
        assert 0 < covered.sum() < mask.sum()

    def test_which_slices_touch_a_lesion(self):
        scan = scan_of(np.ones((1, 6, 7, 5)), affine_of("LAS"))
        lesion = np.zeros((6, 7, 5), bool)
        lesion[4, 1:3, 2] = True
        for axis, expected in {"I": [4], "J": [1, 2], "K": [2], "sagittal": [1], "axial": [2]}.items():
            view = SliceView(SliceSettings(axis=axis))
            assert np.flatnonzero(view.touches(scan, lesion, 0, 99)).tolist() == expected
        assert SliceView(SliceSettings(axis="J")).touches(scan, lesion, 2, 5).tolist() == [True, False, False]

    @pytest.mark.parametrize("codes", CODES)
    @pytest.mark.parametrize("axis", AXES)
    def test_the_stored_axis_is_the_one_that_a_slice_is_thin_along(self, codes, axis):
        scan = scan_of(np.ones((1, 8, 8, 8)), affine_of(codes, tilt=15))
        view = SliceView(SliceSettings(axis=axis, size=(8, 8), min_brain=0))
        plane = view.assemble(scan, (np.arange(view.count(scan)) == 3).astype(np.float32), "map").data[0]
        thin = [n for n in range(3) if np.count_nonzero(plane.any(tuple({0, 1, 2} - {n}))) == 1]
        assert "IJK".index(view.slice_axis(scan)) == thin[0]

    def test_words_of_errors(self):
        with pytest.raises(SettingsError, match="one of I, J, K, sagittal, coronal, axial, got 'Z'"):
            SliceSettings(axis="Z")
        with pytest.raises(SettingsError, match=r"two numbers of pixels, got \(4, 0\)"):
            SliceSettings(size=[4, 0])
        with pytest.raises(SettingsError, match="spacing_mm must be above 0, got -1"):
            SliceSettings(spacing_mm=-1)
        with pytest.raises(SettingsError, match="min_brain must lie in 0 to 1, got 1"):
            SliceSettings(min_brain=1)
        with pytest.raises(
            GeometryError, match=r"kl: scores of sub-tiny must be \(6,\) or \(6, 64, 64\), got"
        ):
            SliceView(SliceSettings(axis="K")).assemble(tiny_scan(), np.ones((6, 64)), "kl")


def test_voxels_touch_lesions():
    scan = tiny_scan()
    lesion = np.zeros(scan.mask.shape, bool)
    lesion[1, 1, 1:4] = lesion[3, 2, 5] = True
    view = VoxelView()
    touched = view.touches(scan, lesion, 0, scan.n_voxels)
    np.testing.assert_array_equal(scan.assemble(touched, "x").data[0] > 0, lesion & scan.mask)
    np.testing.assert_array_equal(view.touches(scan, lesion, 20, 70), touched[20:70])
    assert view.shape(5) == (5,)
