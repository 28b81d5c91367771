"""The median filter on finished maps: over the mask and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import median_filter

from mednovelty import postprocess
from mednovelty.postprocess import masked_median

SHAPE = (7, 9, 5)


def random_map(seed=0, share=0.6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=SHAPE).astype(np.float32), rng.uniform(size=SHAPE) < share


@pytest.mark.parametrize("side", [1, 3, 5, 11])
@pytest.mark.parametrize("order", ["C", "F"])
def test_as_a_loop_by_hand(side, order, monkeypatch):
    monkeypatch.setattr(postprocess, "_NUMBERS_A_BLOCK", 1000)  # Several blocks, the last not full.
    values, mask = (np.asarray(a, order=order) for a in random_map())
    expected, half = np.zeros(SHAPE, np.float32), side // 2
    for place in np.argwhere(mask):
        box = tuple(slice(max(p - half, 0), p + half + 1) for p in place)
        expected[tuple(place)] = np.median(values[box][mask[box]])
    found = masked_median(values, mask, side)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32


def test_away_from_borders_as_scipy():
    values, _ = random_map()
    inner = (slice(1, -1),) * 3
    expected = median_filter(values, 3)[inner]
    np.testing.assert_array_equal(masked_median(values, np.ones(SHAPE, bool), 3)[inner], expected)


@given(seed=st.integers(0, 99), share=st.floats(0.05, 1), outside=st.floats(allow_nan=True, width=32))
def test_voxels_outside_the_mask_do_not_matter(seed, share, outside):
    values, mask = random_map(seed, share)
    found = masked_median(np.where(mask, values, np.float32(outside)), mask, 3)
    np.testing.assert_array_equal(found, masked_median(values, mask, 3))
    assert not found[~mask].any()
    np.testing.assert_array_equal(masked_median(np.where(mask, 2.5, outside), mask, 3), 2.5 * mask)
    # What grows with the values grows with their medians.
    np.testing.assert_allclose(masked_median(3 * values + 7, mask, 3)[mask], 3 * found[mask] + 7, rtol=1e-4)


def test_a_speck_goes_and_a_lump_stays():
    values, mask = np.zeros((2, *SHAPE), np.float32), np.ones(SHAPE, bool)
    values[0, 3, 4, 2] = 9
    values[1, 2:5, 3:6, 1:4] = 9
    assert not masked_median(values[0], mask, 3).any()
    assert masked_median(values[1], mask, 3)[3, 4, 2] == 9


def test_what_it_does_not_take():
    values, mask = random_map()
    for side, m in ((2, mask), (0, mask), (-1, mask), (3, mask[1:])):
        with pytest.raises(ValueError, match="an odd side and a mask of the map's shape, got"):
            masked_median(values, m, side)
