"""Several p-values of a voxel as one number: by hand, by property, and calibrated again."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from mednovelty.combine.statistics import COMBINATIONS, as_stored, combined, p_if_independent
from mednovelty.errors import ScanError, SettingsError

NAMES = tuple(COMBINATIONS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_combinations_of_independent_uniforms_are_uniform(name, count):
    p = np.random.default_rng(3).uniform(size=(count, 20_000))
    found = p_if_independent(name, combined(name, p), count)
    assert kstest(found, "uniform").pvalue > 0.01
    assert (found <= 0.01).mean() == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_of_one_score_its_own_p_comes_back(name):
    p = np.array([[1e-5, 0.001, 0.2, 0.5, 0.9]])
    assert p_if_independent(name, combined(name, p), 1) == pytest.approx(p[0], rel=1e-5)


def test_statistics_by_hand():
    # Three scores of one voxel: 0.02, 0.3, 0.8.
    p = np.array([[0.02], [0.3], [0.8]])
    # -2 (ln 0.02 + ln 0.3 + ln 0.8) = -2 (-3.91202 - 1.20397 - 0.22314)
    assert combined("fisher", p) == pytest.approx([10.67827], rel=1e-5)
    # cot(0.0628319) = 15.89454, cot(0.942478) = 0.726543, cot(2.513274) = -1.376382; their mean
    assert combined("cauchy", p) == pytest.approx([5.081568], rel=1e-5)
    # 2.053749 + 0.524401 - 0.841621 over 3
    assert combined("mean_z", p) == pytest.approx([0.578843], rel=1e-5)
    assert combined("rank_average", p) == pytest.approx([-1.12 / 3], rel=1e-6)


def test_p_values_of_statistics_by_hand():
    # Fisher of two: q (1 - ln q) with q the product, 0.05.
    assert p_if_independent("fisher", combined("fisher", [[0.1], [0.5]]), 2) == pytest.approx(
        0.05 * (1 - math.log(0.05)), rel=1e-6
    )
    # The sum of two uniforms is at most 0.6 in 0.6^2 / 2 of cases, at most 1.4 in 1 - 0.6^2 / 2.
    assert p_if_independent("rank_average", [-0.3, -0.7], 2) == pytest.approx([0.18, 0.82])
    # Three: 1.2^3 / 6 - 3 * 0.2^3 / 6.
    assert p_if_independent("rank_average", [-0.4], 3) == pytest.approx([0.284])
    assert p_if_independent("mean_z", [1.0], 4) == pytest.approx([norm.sf(2)])
    assert p_if_independent("cauchy", [1.0], 7) == pytest.approx([0.25])


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.data())
def test_a_smaller_p_never_makes_a_voxel_less_novel(data):
    share = st.floats(1e-6, 1.0)
    p = np.array(data.draw(st.lists(st.lists(share, min_size=4, max_size=4), min_size=3, max_size=3)))
    lower = p * np.array(data.draw(st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4)))
    for name in NAMES:
        assert (combined(name, lower, 1e-6) >= combined(name, p, 1e-6)).all()
        assert combined(name, p[::-1], 1e-6) == pytest.approx(combined(name, p, 1e-6), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_lies_below_its_floor_counts_as_the_floor(name):
    p, floor = np.array([[1e-9, 1.0], [0.4, 0.4]]), [0.01, 0.001]
    expected = combined(name, [[0.01, 0.99], [0.4, 0.4]])
    assert combined(name, p, floor).tolist() == expected.tolist()
    assert np.isfinite(combined(name, [[1.0], [1.0]])).all()


def test_p_values_as_maps_hold_them():
    p = np.geomspace(1e-9, 1, 50)
    assert as_stored(p) == pytest.approx(p, rel=3e-6)
    assert as_stored(as_stored(p)).tolist() == as_stored(p).tolist()


def test_what_cannot_be_combined_is_refused():
    with pytest.raises(SettingsError, match=r"^no combination is called 'fischer'; did you mean 'fisher'\?$"):
        combined("fischer", [[0.5]])
    with pytest.raises(SettingsError, match=r"called 'xyz'; there are mean_z, fisher, cauchy, rank_average$"):
        combined("xyz", [[0.5]])
    with pytest.raises(ScanError, match=r"^2 of 4 p-values do not lie in \(0, 1\]$"):
        combined("fisher", [[0.5, 0.0], [np.nan, 1.0]])
    with pytest.raises(SettingsError, match=r"must be \(K, n\), got \(2,\)"):
        combined("fisher", [0.5, 0.5])
    with pytest.raises(SettingsError, match=r"floors of p-values must lie in \[0, 0.5\), got \[0.5\]"):
        combined("fisher", [[0.5]], 0.5)
    with pytest.raises(SettingsError, match="rank average of 21 scores; its distribution is known up to 20"):
        p_if_independent("rank_average", [-0.5], 21)
