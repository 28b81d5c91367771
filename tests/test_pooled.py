"""All scans as one, and how sure that is when patients are drawn again."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.evaluation.pooled import CURVE_METRICS, Draws, pooled_curve, ratio_interval
from mednovelty.metrics import (
    Pool,
    Ranking,
    average_precision,
    bootstrap_interval,
    draw_fifth,
    draw_fifths,
    patient_weights,
    summary,
)

DRAWS = Draws(seed=4, resamples=300, level=0.9)


def scans(n, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        lesion, healthy = rng.normal(1 + rng.normal(), 1, 20 + 9 * number), rng.normal(0, 1, 300 + number)
        made.append(Ranking(np.sort(lesion), np.sort(healthy)))
    return made


def test_numbers_are_those_of_all_voxels_together_however_they_are_pooled():
    parts = scans(5)
    expected = summary(Ranking.pooled(parts))
    found = pooled_curve(parts, list("abcde"), DRAWS)
    assert {name: found[name] for name in CURVE_METRICS} == {name: expected[name] for name in CURVE_METRICS}
    runs = [Ranking.pooled(parts[:2]), parts[2], Ranking.pooled(parts[3:])]
    assert pooled_curve(parts, list("abcde"), DRAWS, runs) == found


few = st.lists(st.sampled_from([-np.inf, -2.0, 0.0, 0.5, 1.0, 3.0, np.inf]), max_size=9)


@given(st.lists(st.tuples(few, few), min_size=1, max_size=4))
def test_a_pool_without_a_copy_has_the_numbers_of_the_pooled_ranking(scans):
    parts = [Ranking(*(np.sort(np.array(scores, np.float32)) for scores in scan)) for scan in scans]
    pool, whole = Pool.of_all(parts), Ranking.pooled(parts)
    assert pool.n_healthy == whole.healthy.size
    assert pool.undefined == whole.undefined
    np.testing.assert_equal(summary(pool), summary(whole))
    assert [pool.flagged(at) for at in (-1.0, 0.5, 9.0)] == [whole.flagged(at) for at in (-1.0, 0.5, 9.0)]


def test_intervals_are_those_of_pooling_the_drawn_patients_scans():
    parts, patients = scans(6, seed=2), ["a", "b", "b", "c", "d", "e"]
    weights = patient_weights(patients, DRAWS.seed, DRAWS.resamples)
    drawn = [
        summary(Ranking.pooled([part for part, n in zip(parts, row, strict=True) for _ in range(int(n))]))
        for row in weights
    ]
    found = pooled_curve(list(parts), patients, DRAWS)
    for name in CURVE_METRICS:
        ends = np.quantile([one[name] for one in drawn], [0.05, 0.95])
        assert found[f"{name}_interval"] == pytest.approx(ends, abs=0.02), name
        assert ends[1] - ends[0] > 0.05


def test_scans_of_one_patient_are_drawn_together():
    weights = patient_weights(["p", "q", "p", "r"], seed=1, resamples=50)
    assert weights.shape == (50, 4)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert patient_weights(["p", "p"], 1, 50) is None
    values = [0.1, 0.5, 0.3, 0.9]
    # Two patients, drawn as (p, p), (p, q), (q, q): the ends are the patients' own means.
    assert bootstrap_interval(values, seed=0, patients=["p", "q", "p", "q"]) == pytest.approx((0.2, 0.7))
    assert bootstrap_interval(values, seed=0, patients=["p"] * 4) is None


def test_without_patients_each_scan_is_drawn_by_itself():
    values = [0.1, math.nan, 0.5, 0.3, 0.9]
    drawn = np.random.default_rng(7).integers(4, size=(200, 4))
    means = np.array([0.1, 0.5, 0.3, 0.9])[drawn].mean(axis=1)
    assert bootstrap_interval(values, seed=7, resamples=200, level=0.8) == pytest.approx(
        np.quantile(means, [0.1, 0.9])
    )


def test_one_patient_and_one_class_have_no_interval():
    found = pooled_curve(scans(2), ["a", "a"], DRAWS)
    assert found["auroc"] > 0.5
    assert found["auroc_interval"] is None
    healthy = [Ranking(np.empty(0), np.arange(4.0)), Ranking(np.empty(0), np.arange(3.0))]
    empty = pooled_curve(healthy, ["a", "b"], DRAWS)
    assert math.isnan(empty["ap"])
    assert empty["ap_interval"] is None


def test_a_draw_without_lesion_is_left_out():
    parts = [*scans(1), Ranking(np.empty(0), np.linspace(-3, 3, 50))]
    low, high = pooled_curve(list(parts), ["a", "b"], DRAWS)["ap_interval"]
    # (a, a) has the first scan alone, (a, b) both; (b, b) has no lesion.
    assert high == pytest.approx(average_precision(parts[0]), abs=0.02)
    assert low == pytest.approx(average_precision(Ranking.pooled(parts)), abs=0.02)


def test_ratios_are_of_sums_over_scans():
    whole, interval = ratio_interval(DRAWS, ["a", "b"], [3, 0], [4, 6])
    assert whole == 3 / 10
    assert interval == pytest.approx([0, 3 / 4])
    assert ratio_interval(DRAWS, ["a"], [3], [4]) == (3 / 4, None)
    empty, none = ratio_interval(DRAWS, [], [], [])
    assert math.isnan(empty)
    assert none is None


@given(st.integers(2, 90), st.integers(0, 5))
def test_five_fifths_share_everything_and_the_first_is_the_one_drawn(n, seed):
    fifths = draw_fifths(n, seed)
    assert ((fifths == 0) == draw_fifth(n, seed)).all()
    sizes = np.bincount(fifths, minlength=5)
    assert sizes.sum() == n
    assert len(sizes) == 5
    assert sizes[0] == max(1, round(n / 5))
    assert np.ptp(sizes[1:]) <= 1
    if n >= 5:
        assert sizes.min() >= 1
