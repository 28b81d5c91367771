"""Voxels come out as they went in, and lie where they lay."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.errors import GeometryError
from mednovelty.scan import Grid, Scan, Volume
from mednovelty.testing.models import tiny_scan
from mednovelty.views.voxel import VoxelView


def volume(shape=(3, 4, 5, 6), affine=None):
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Volume(data, np.eye(4) if affine is None else affine, "dwi.nii.gz")


@given(seed=st.integers(0, 1000))
def test_assemble_undoes_cut(seed):
    scan, view = tiny_scan(seed), VoxelView()
    for channel in range(scan.n_channels):
        values = view.cut(scan, 0, view.count(scan))[:, channel]
        back = view.assemble(scan, values, "back").data[0]
        original = np.zeros(scan.grid.shape, np.float32)
        original[scan.mask] = volume_of(scan, seed)[channel][scan.mask]
        np.testing.assert_array_equal(back, original)


def volume_of(scan, seed):
    rng = np.random.default_rng(seed)
    return rng.uniform(50, 150, (scan.n_channels, *scan.grid.shape)).astype(np.float32)


def test_voxels_are_scaled_and_shifted():
    scan = tiny_scan()
    changed = scan.scaled(np.arange(1.0, 6.0))
    np.testing.assert_allclose(changed.voxels(3, 9), scan.voxels(3, 9) * np.arange(1, 6), rtol=1e-6)


def test_channels_can_be_taken():
    scan = tiny_scan()
    np.testing.assert_array_equal(scan.take(np.array([4, 0]), None).voxels(), scan.voxels()[:, [4, 0]])


def test_a_mask_must_fit():
    good = Scan.of(volume(), np.ones((4, 5, 6), bool), id="sub-01")
    with pytest.raises(
        GeometryError, match=r"mask of sub-01: shape \(4, 5, 7\) does not fit its voxels, \(4, 5, 6\)"
    ):
        replace(good, mask=np.ones((4, 5, 7), bool))


def test_channels_must_fit_the_mask():
    good = tiny_scan()
    with pytest.raises(GeometryError, match=r"n = 70, the voxels of the mask; got \(5, 69\)"):
        Scan(good.id, good.stored[:, 1:], good.scale, good.offset, good.mask, good.grid, good.background, 1.0)


def test_volumes_are_checked_at_birth():
    with pytest.raises(GeometryError, match=r"data must be \(C, I, J, K\), got shape \(3, 4\)"):
        Volume(np.zeros((3, 4)), np.eye(4), "x")
    with pytest.raises(GeometryError, match=r"affine must be \(4, 4\), got \(3, 3\)"):
        Volume(np.zeros((2, 3, 4, 5)), np.eye(3), "x")
    with pytest.raises(GeometryError, match=r"does not fit the voxels of dwi.nii.gz, \(4, 5, 6\)"):
        volume().with_data(np.zeros((1, 4, 5, 7)), "map")


def test_grids_agree_within_a_hundredth_of_a_millimetre():
    near, far = np.eye(4), np.eye(4)
    near[0, 3], far[0, 3] = 0.005, 0.5
    own = Grid((4, 5, 6), np.eye(4))
    own.check_same(Grid((4, 5, 6), near), "mask", "scan")
    with pytest.raises(GeometryError, match=r"mask: its voxels lie up to 0.5 mm away from those of scan"):
        own.check_same(Grid((4, 5, 6), far), "mask", "scan")
    with pytest.raises(
        GeometryError, match=r"shape \(4, 5, 6\) does not fit the voxels of scan, \(4, 6, 5\)"
    ):
        own.check_same(Grid((4, 6, 5), near), "mask", "scan")


def test_spacing_is_measured_along_the_voxel_axes():
    np.testing.assert_allclose(tiny_scan().grid.spacing_mm, [np.hypot(2, 0.2), np.hypot(0.3, 1.5), 3])
