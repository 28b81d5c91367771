"""Places of voxels: millimetres to voxels and back, in words; peaks; how high a score stands."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.errors import GeometryError, SettingsError
from mednovelty.explaining.places import in_words, mm_of, peaks, short, standing, voxel_at
from mednovelty.scan import Grid

SHAPE = (7, 9, 5)
# x = 40 - 2 i, y = -7 + 3 k, z = 5 + 1.5 j: flipped, and two axes change places.
AFFINE = np.array([[-2.0, 0, 0, 40], [0, 0, 3, -7], [0, 1.5, 0, 5], [0, 0, 0, 1]])
GRID = Grid(SHAPE, AFFINE)
ALL = np.ones(SHAPE, bool)


def test_a_place_by_hand():
    assert mm_of(GRID, (3, 6, 2)) == (34.0, -1.0, 14.0)
    assert voxel_at(GRID, ALL, (34, -1, 14), "s") == (3, 6, 2)
    # Half a voxel is 1 mm along x, 1.5 along y, 0.75 along z.
    assert voxel_at(GRID, ALL, (34.9, -2.4, 13.3), "s") == (3, 6, 2)
    assert voxel_at(GRID, ALL, (35.1, -2.6, 14.8), "s") == (2, 7, 1)


@given(st.integers(0, 6), st.integers(0, 8), st.integers(0, 4))
def test_there_and_back(i, j, k):
    assert voxel_at(GRID, ALL, mm_of(GRID, (i, j, k)), "s") == (i, j, k)


def test_a_place_outside_the_scan_is_refused_with_its_box():
    with pytest.raises(
        GeometryError,
        match=r"sub-1: 60, 0, 6 mm lies outside the scan, .* x 28 to 40; y -7 to 5; z 5 to 17 mm",
    ):
        voxel_at(GRID, ALL, (60, 0, 6), "sub-1")


def test_a_place_outside_the_mask_is_refused_with_the_nearest_inside():
    mask = np.zeros(SHAPE, bool)
    mask[3, 6, 2] = mask[0, 0, 0] = True
    # (3, 8, 2) lies at z 17: 3 mm above (3, 6, 2).
    with pytest.raises(GeometryError, match=r"sub-1: 34, -1, 17 mm .* at 34\.0,-1\.0,14\.0 mm, 3\.0 mm away"):
        voxel_at(GRID, mask, (34, -1, 17), "sub-1")


@pytest.mark.parametrize(
    ("mm", "words", "name"),
    [
        ((10, -32, 24), "10 mm right, 32 mm back and 24 mm up from", "R10P32S24"),
        ((-10.26, 32, -24.04), "10 mm left, 32 mm forward and 24 mm down from", "L10d3A32I24"),
        ((0, -0.01, 0.5), "0 mm right, 0 mm back and 0 mm up from", "R0A0S0d5"),
    ],
)
def test_words_of_places(mm, words, name):
    assert in_words(mm).startswith(words)
    assert short(mm) == name
    assert short(mm).isalnum()


def volume():
    found = np.zeros(SHAPE)
    found[1, 4, 2], found[1, 5, 2], found[5, 1, 0], found[6, 8, 4] = 9, 8, 7, 99
    return found


def test_peaks_lie_apart_and_in_the_mask():
    mask = ALL.copy()
    mask[6, 8, 4] = False
    # (1, 5, 2) is 1.5 mm from the highest; (5, 1, 0) is (8, 6, 4.5) mm away.
    assert peaks(volume(), mask, GRID, 2, apart_mm=3) == [(1, 4, 2), (5, 1, 0)]
    assert peaks(volume(), mask, GRID, 3, apart_mm=1.4) == [(1, 4, 2), (1, 5, 2), (5, 1, 0)]
    assert peaks(volume(), mask, GRID, 2, apart_mm=10.9)[1] == (5, 1, 0)
    assert peaks(volume(), mask, GRID, 2, apart_mm=11.1)[1] != (5, 1, 0)


def test_there_are_no_more_peaks_than_room():
    assert peaks(volume(), ALL, GRID, 5, apart_mm=1000) == [(6, 8, 4)]
    with pytest.raises(SettingsError, match="at least 1, got 0"):
        peaks(volume(), ALL, GRID, 0)


def test_how_high_a_voxel_stands():
    mask = ALL.copy()
    mask[6, 8, 4] = False
    found = standing(volume(), mask, (5, 1, 0), "voxels")
    assert (found.above, found.of, found.share) == (3, 314, 3 / 314)
    assert standing(volume(), mask, (0, 0, 0), "voxels").above == 314
