"""Which voxels are flagged: Benjamini-Hochberg and the other rules, worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.errors import SettingsError
from mednovelty.segment.controls import Curve
from mednovelty.segment.fdr import benjamini_hochberg, critical_surprise, surprise_of
from mednovelty.segment.rules import (
    FalseDiscoveries,
    FixedP,
    Quantile,
    ScoreThreshold,
    flag,
    next_above,
    rule_of,
)

# Benjamini and Hochberg 1995, section 3: of 15 comparisons the first four, as 0.0095 <= 4/15 0.05 = 0.0133
# and 0.0201 > 5/15 0.05 = 0.0167.
PAPER = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
         0.6528, 0.7590, 1.0]  # fmt: skip


def surprise(*p):
    return surprise_of(np.array(p, np.float32))


def test_the_example_of_the_paper_has_four_discoveries():
    order = np.random.default_rng(3).permutation(15)
    found = benjamini_hochberg(np.array(PAPER)[order], 0.05)
    assert found[np.argsort(order)].tolist() == [True] * 4 + [False] * 11


def test_it_steps_up_from_the_largest_p():
    # Of four at 0.05 the bounds are 0.0125, 0.025, 0.0375, 0.05: only the third is below its own.
    assert benjamini_hochberg(np.array([0.036, 0.9, 0.02, 0.03]), 0.05).tolist() == [True, False, True, True]


def test_a_p_that_equals_its_bound_is_a_discovery():
    # As conformal p-values do: 1/20 of 1 voxel, 2/40 of 2 voxels.
    assert benjamini_hochberg(np.array([1 / 20]), 0.05).all()
    assert benjamini_hochberg(np.array([2 / 40, 2 / 40]), 0.05).all()
    assert not benjamini_hochberg(np.array([1 / 19, 1 / 19]), 0.05).any()


def test_nothing_is_discovered_among_high_p_or_no_voxels():
    assert critical_surprise(surprise(0.04, 0.5, 0.9), 0.05) == math.inf
    assert critical_surprise(surprise(), 0.05) == math.inf
    assert (surprise(1.0) == 0).all()
    assert not np.signbit(surprise(1.0)).any()


@pytest.mark.parametrize("q", [0, 1, -0.1, math.nan])
def test_a_rate_must_be_one(q):
    with pytest.raises(SettingsError, match="false discovery rate must lie between 0 and 1, got"):
        critical_surprise(surprise(0.5), q)


@given(
    p=st.lists(st.floats(1e-6, 1), min_size=1, max_size=40), q=st.floats(0.001, 0.4), more=st.floats(1.1, 2)
)
def test_discoveries_are_the_lowest_p_and_grow_with_q(p, q, more):
    p = np.array(p)
    found = benjamini_hochberg(p, q)
    assert (benjamini_hochberg(p, min(q * more, 0.9)) >= found).all()
    if found.any():
        assert np.float32(p[found].max()) <= np.float32(q * found.sum() / p.size) * (1 + 1e-5)
        assert (p[~found] > p[found].max() * (1 - 1e-5)).all()


def test_q_bounds_the_false_discoveries_of_many_scans():
    # 40 of 1,000 voxels are novel; over 200 scans the mean share of false ones is 96 % of q.
    rng, shares = np.random.default_rng(0), []
    for _ in range(200):
        p = rng.random(1000)
        p[:40] = 10.0 ** -rng.uniform(2, 6, 40)
        found = benjamini_hochberg(p, 0.1)
        shares.append(found[40:].sum() / max(found.sum(), 1))
    assert 0.075 < np.mean(shares) < 0.115


SCORES = np.array([5, 1, 9, 7], np.float32)


def test_a_fixed_p_flags_what_equals_it():
    found = flag(FixedP(0.01), SCORES, surprise(0.01, 0.011, 0.0002, 0.0101))
    assert found.where.tolist() == [True, False, True, False]
    assert found.p == pytest.approx(0.01, rel=1e-6)
    assert found.score == 5


def test_a_quantile_of_normals_is_a_p():
    rule = Quantile.of(0.999)
    assert rule.p == 0.001
    assert flag(rule, SCORES, surprise(0.001, 0.0011, 0.5, 0.0009)).where.tolist() == [
        True,
        False,
        False,
        True,
    ]
    assert "above the 0.999 quantile of the calibration scans' voxels (p <= 0.001)" in rule.words


def test_a_score_needs_no_p_and_tells_the_largest_one_where_there_are():
    rule = ScoreThreshold(7.0, 0.03, "best Dice on a fifth")
    alone, with_p = flag(rule, SCORES, None), flag(rule, SCORES, surprise(0.5, 0.6, 0.02, 0.25))
    assert alone.where.tolist() == with_p.where.tolist() == [False, False, True, True]
    assert math.isnan(alone.p)
    assert with_p.p == pytest.approx(0.25)
    assert (alone.score, with_p.score) == (7, 7)
    assert not flag(ScoreThreshold(math.nan), SCORES, None).where.any()


def test_a_score_threshold_is_compared_in_the_type_of_the_scores():
    tenth = np.array([0.1], np.float32)  # Above 0.1 as float64.
    assert flag(ScoreThreshold(float(np.float32(0.1))), tenth, None).where.all()
    assert flag(ScoreThreshold(0.1), tenth, None).where.all()


def test_p_is_needed_by_rules_of_p():
    with pytest.raises(SettingsError, match=r"p <= 0.01 needs p-values; .* --calibrate, and score again"):
        flag(FixedP(0.01), SCORES, None)


def test_none_flagged_has_p_0():
    found = flag(FalseDiscoveries(0.05), SCORES, surprise(0.3, 0.4, 0.5, 0.6))
    assert (found.where.any(), found.p) == (False, 0.0)
    assert math.isnan(found.score)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FalseDiscoveries(0.0), "--fdr must lie between 0 and 0.5, got 0"),
        (lambda: FixedP(0.5), "--p must lie between 0 and 0.5, got 0.5"),
        (lambda: Quantile.of(0.2), "--quantile must lie between 0.5 and 1, got 0.2"),
        (lambda: rule_of({"Rule": "otsu"}), "no rule for a segmentation is called 'otsu'"),
        (lambda: rule_of({"Rule": "p"}), "no rule for a segmentation: "),
        (lambda: rule_of({"Rule": "p", "P": 2}), "--p must lie between"),
    ],
)
def test_rules_out_of_range_are_refused(make, said):
    with pytest.raises(SettingsError, match=said):
        make()


@pytest.mark.parametrize(
    "rule",
    [FalseDiscoveries(0.01), FixedP(1e-4), Quantile.of(0.995), ScoreThreshold(2.5, 0.01, "a fifth")],
    ids=lambda rule: rule.name,
)
def test_a_rule_that_was_told_is_the_same(rule):
    assert rule_of(rule.told()) == rule
    assert type(rule_of(rule.told())) is type(rule)


def test_what_is_not_known_of_a_threshold_is_null():
    told = ScoreThreshold(math.nan).told()
    assert (told["Threshold"], told["P"]) == (None, None)
    assert math.isnan(rule_of(told).threshold)


def test_the_next_fixed_p_is_never_below():
    grid = np.array([0.5, 0.1, 0.01])
    assert [next_above(grid, p) for p in (0.05, 0.1, 1e-9, 0.5)] == [0.1, 0.1, 0.01, 0.5]
    assert next_above(grid, 0.6) == math.inf
    assert next_above(grid, float(10.0 ** -np.float32(1))) == 0.1


def test_false_discoveries_on_fixed_p_stop_where_enough_is_flagged():
    grid = np.array([0.5, 0.1, 0.01, 0.001])
    # q of what is flagged must be p of all: shares of at least 2.5, 0.5, 0.05, 0.005 at q = 0.2.
    stop = FalseDiscoveries(0.2).p_on
    assert stop(grid, np.array([0.6, 0.5, 0.04, 0.01])) == 0.1
    assert stop(grid, np.array([0.6, 0.4, 0.04, 0.01])) == 0.001
    assert stop(grid, np.array([0.6, 0.4, 0.04, 0.004])) == 0.0
    assert FixedP(0.02).p_on(grid, np.zeros(4)) == 0.1
    assert ScoreThreshold(1.0).p_on(grid, np.zeros(4)) == 0.0
    assert ScoreThreshold(1.0, 0.005).p_on(grid, np.zeros(4)) == 0.01


def test_fixed_p_come_close_to_benjamini_hochberg():
    p = np.random.default_rng(1).random(20_000)
    p[:600] *= 1e-3
    grid = np.logspace(-0.3, -6, 60)
    curve = Curve.of(surprise_of(p.astype(np.float32)), 2.0, 1.0, grid)
    exact = benjamini_hochberg(p, 0.05).sum()
    volume, share = curve.under(FalseDiscoveries(0.05), grid)
    assert exact > 400
    assert 0.9 * exact < volume / 2 <= exact
    assert share == pytest.approx(volume / 2 / 20_000)
