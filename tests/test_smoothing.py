"""Smoothing by hand: constants, sums, borders, axes that differ, millimetres."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from mednovelty.errors import SettingsError
from mednovelty.nn.smoothing import Blur, Smoothing

SPACES = ((11, 6), (9, 5, 7))


@given(
    st.sampled_from(SPACES),
    st.floats(0, 8),
    st.floats(0.3, 4),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_a_constant_stays_what_it_is(space, sigma, truncate, dtype):
    maps = torch.full((2, *space), 2.75, dtype=dtype)
    smooth = Blur(sigma, truncate)(maps)
    torch.testing.assert_close(smooth, maps, rtol=1e-5, atol=0)


@pytest.mark.parametrize("space", SPACES)
def test_it_is_the_gaussian_within_the_map_over_its_sum(space):
    maps = torch.randn(3, *space, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for sigmas, truncate in (((1.3,) * len(space), 2.0), ((0.6, 2.2, 1.1)[: len(space)], 1.5)):
        reach = {"sigma": sigmas, "truncate": truncate, "mode": "constant"}
        sums = gaussian_filter(np.ones(space), **reach)
        expected = np.stack([gaussian_filter(each, **reach) / sums for each in maps.numpy()])
        np.testing.assert_allclose(Blur(sigmas, truncate)(maps).numpy(), expected, rtol=1e-12)


def test_what_is_away_from_the_border_keeps_its_sum():
    maps = torch.zeros(1, 21, 19, dtype=torch.float64)
    maps[0, 8:13, 7:12] = torch.rand(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    smooth = Blur(3.0, 1.0)(maps)
    torch.testing.assert_close(smooth.sum(), maps.sum())
    assert (smooth > 0).sum() == 11 * 11  # Three pixels further on each side.


def test_the_default_is_the_released_kernel_in_the_middle():
    # 7 x 7, sigma 3: weights exp(-d^2 / 18), 1 in the middle, over the square of their sum.
    point = torch.zeros(1, 15, 17, dtype=torch.float64)
    point[0, 7, 8] = 1
    smooth = Smoothing().on(None)(point)[0]
    ends = [np.exp(-d * d / 18) for d in range(4)]
    total = ends[0] + 2 * sum(ends[1:])
    assert smooth[7, 8].item() == pytest.approx(1 / total**2)
    assert smooth[4, 10].item() == pytest.approx(ends[3] * ends[2] / total**2)
    assert (smooth > 0).sum() == (smooth[4:11, 5:12] > 0).sum() == 49


def test_a_corner_is_not_darkened():
    maps = torch.zeros(1, 8, 9, dtype=torch.float64)
    maps[0, 0, 0] = 1
    ends = [np.exp(-d * d / 18) for d in range(4)]
    # Of the kernel at a corner, a quarter lies within: each axis has its middle and three more.
    assert Smoothing().on(None)(maps)[0, 0, 0].item() == pytest.approx(1 / sum(ends) ** 2)


def test_millimetres_are_pixels_on_every_axis_of_its_own():
    smoothing = Smoothing(sigma=4.0, unit="mm", truncate=1.5)
    assert smoothing.on((2.0, 0.5, 1.6)) == Blur((2.0, 8.0, 2.5), 1.5)
    assert Smoothing(sigma=4.0).on((2.0, 0.5)) == Smoothing(sigma=4.0).on(None) == Blur(4.0, 1.0)
    maps = torch.randn(1, 12, 9, generator=torch.Generator().manual_seed(0))
    rows = torch.stack([Blur(2.0, 1.5)(row[None])[0] for row in maps[0]])
    torch.testing.assert_close(smoothing.on((1e6, 2.0))(maps)[0], rows)


def test_none_at_all_is_none():
    maps = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Smoothing(sigma=0).on(None)(maps), maps)
    scores = torch.tensor([1.5, 2.5])
    assert torch.equal(Smoothing().on(None)(scores), scores)  # Samples without axes.


def test_a_map_depends_on_no_other():
    maps = torch.randn(5, 12, 9, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([Blur()(one[None]) for one in maps])
    torch.testing.assert_close(Blur()(maps), alone)


def test_what_is_wrong_is_said():
    with pytest.raises(SettingsError, match=r"smoothing over 5 mm needs the spacing.*unit = 'px'"):
        Smoothing(sigma=5, unit="mm").on(None)
    with pytest.raises(SettingsError, match=r"sigma >= 0 and truncate > 0, got -1 and 1\.0"):
        Smoothing(sigma=-1)
    with pytest.raises(SettingsError, match="unit is px or mm, got 'cm'"):
        Smoothing(unit="cm")
    with pytest.raises(ValueError, match="a sigma for 3 axes, the maps have 2"):
        Blur((1.0, 2.0, 3.0))(torch.zeros(1, 4, 5))


def test_an_axis_of_wide_pixels_is_smoothed_as_far_as_its_gaussian_reaches():
    maps = torch.zeros(1, 7, 7, dtype=torch.float64)
    maps[0, 3, 3] = 1
    smooth = Smoothing(4.0, "mm").on((1.0, 9.0))(maps)[0]
    beside = np.exp(-0.5 * (9 / 4) ** 2)
    assert smooth[3, 4] / smooth[3, 3] == pytest.approx(beside)
    assert smooth[3, 5] == 0
