"""A score's null: p-values by hand, and what must hold whatever the scores are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from mednovelty.calibrate.null import Null, z_of
from mednovelty.errors import ScanError

FINITE = st.floats(-1e6, 1e6, width=32)
COARSE = st.integers(-4, 4).map(float)
"""Many of them are the same."""


def samples(values=FINITE, least=1, most=60):
    return arrays(np.float64, st.integers(least, most), elements=values)


def conformal(calibration, scores):
    return np.array([(1 + (calibration >= s).sum()) / (len(calibration) + 1) for s in scores])


def test_p_by_hand():
    # Of 4, 1, 3, 3 at least 3: three, (1 + 3) / 5; at least 3.5: one; at least 0: all; above 4: none.
    null = Null.of(np.array([[4.0, 1.0], [3.0, 3.0]]))
    assert null.p([3.0, 3.5, 0.0, 4.0, 4.5]).tolist() == [0.8, 0.4, 1.0, 0.4, 0.2]
    assert null.smallest_p == 0.2
    assert null.n == 4
    assert null.p(np.float32(3.5)).shape == ()


def test_z_by_hand():
    null = Null.of([1.0, 2.0, 3.0])
    # p = 0.5, 0.25 and, of 1, what 1 - 1 / 4 gives.
    assert null.z([2.5, 9.0, 0.0]) == pytest.approx([0, 0.6744897, -0.6744897], abs=1e-6)


def test_z_of_a_tiny_p_keeps_its_digits():
    # 1 - 1e-20 is 1 in float64; the quantile is that of the survival function.
    assert z_of([1e-20], 1e-21) == pytest.approx([norm.isf(1e-20)], rel=1e-12)


@given(samples(), samples())
def test_p_is_the_formula_where_the_table_is_whole(calibration, scores):
    assert np.array_equal(Null.of(calibration).p(scores), conformal(calibration, scores))


@given(samples(COARSE), samples(COARSE))
def test_ties_count_as_at_least_as_high(calibration, scores):
    assert np.array_equal(Null.of(calibration).p(scores), conformal(calibration, scores))


@given(samples(least=2), samples(), st.integers(1, 6), st.sampled_from([0.05, 0.3, 1.0]))
def test_a_thinned_table_is_never_too_small_and_exact_in_the_tail(calibration, scores, tail, step):
    thin = Null.of(calibration, tail=tail, step=step)
    p, exact = thin.p(scores), conformal(calibration, scores)
    assert (p >= exact).all()
    high = scores >= np.sort(calibration)[-tail:][0]
    assert np.array_equal(p[high], exact[high])


def test_a_thinned_table_is_small_and_nearly_exact():
    generator = np.random.default_rng(3)
    calibration, scores = generator.gumbel(size=300_000), generator.gumbel(size=5_000)
    null = Null.of(calibration)
    exact = (1 + len(calibration) - np.searchsorted(np.sort(calibration), scores)) / (1 + len(calibration))
    assert len(null.values) < 32_000
    error = null.p(scores) / exact - 1
    assert error.min() >= 0
    assert 0 < error.max() < 2e-3


@pytest.mark.parametrize("draw", ["normal", "gumbel", "exponential"])
def test_p_and_z_of_a_thinned_table_are_near_the_exact_ones_in_both_tails(draw):
    generator = np.random.default_rng(4)
    calibration = getattr(generator, draw)(size=500_000)
    null, n, ordered = Null.of(calibration), len(calibration), np.sort(calibration)
    # As many scores below z = -3 as about 0, and above 3; some beyond all calibration values.
    places = (norm.cdf(np.linspace(-5.2, 5.2, 20_000)) * n).astype(int)
    scores = np.concatenate([ordered[places[places < n]] + 1e-12, ordered[[0, -1]] + [-1, 1]])
    exact = (1 + n - np.searchsorted(ordered, scores)) / (n + 1)
    p, z = null.p(scores), null.z(scores)
    assert (p >= exact).all()
    assert (p / exact - 1).max() < 1.1e-3
    below = exact < 1
    assert (1 - (1 - p[below]) / (1 - exact[below])).max() < 1.1e-3
    assert np.abs(z - z_of(exact, null.smallest_p)).max() < 1.5e-3
    assert len(null.values) < 36_000


@given(samples(least=2), samples(), st.integers(1, 6))
def test_the_lower_tail_is_exact(calibration, scores, low_tail):
    thin = Null.of(calibration, tail=1, step=1.0, low_tail=low_tail)
    low = scores <= np.sort(calibration)[:low_tail][-1]
    below = low & (len(calibration) >= 2 * low_tail)
    assert np.array_equal(thin.p(scores)[below], conformal(calibration, scores)[below])


@given(samples(), samples(), st.integers(1, 9))
def test_p_falls_as_the_score_rises_and_is_never_0(calibration, scores, tail):
    p = Null.of(calibration, tail=tail, step=0.4).p(np.sort(scores))
    assert (np.diff(p) <= 0).all()
    assert (p > 0).all()
    assert (p <= 1).all()


@given(samples(st.floats(-20, 20, width=16)), samples(st.floats(-20, 20, width=16)), st.integers(1, 9))
def test_p_is_the_same_for_any_monotone_transform(calibration, scores, tail):
    plain = Null.of(calibration, tail=tail, step=0.4).p(scores)
    for transform in (lambda s: np.exp(s / 4), lambda s: s**3 + 7 * s, lambda s: 5 * s - 3):
        assert np.array_equal(
            Null.of(transform(calibration), tail=tail, step=0.4).p(transform(scores)), plain
        )


@given(samples(), samples())
def test_z_rises_with_the_score_and_is_finite(calibration, scores):
    z = Null.of(calibration).z(np.sort(scores))
    assert np.isfinite(z).all()
    assert (np.diff(z) >= 0).all()


def test_p_of_normals_is_at_most_alpha_as_often_as_alpha():
    # Exchangeable scores: of 4000 the share with p <= alpha is alpha, up to five standard deviations.
    generator = np.random.default_rng(5)
    p = Null.of(generator.standard_cauchy(100_000)).p(generator.standard_cauchy(40_000))
    for alpha in (0.05, 0.01, 0.001):
        assert abs((p <= alpha).mean() - alpha) < 5 * np.sqrt(alpha / 40_000)


@given(samples(), samples())
def test_arrays_make_it_again(calibration, scores):
    null = Null.of(calibration, tail=3, step=0.5)
    assert np.array_equal(Null.from_arrays(null.arrays()).p(scores), null.p(scores))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("values", [1.0, 3.0, 2.0], "ascend"),
        ("values", [1.0, 2.0, np.inf], "finite"),
        ("values", [1.0, 2.0], "as many counts"),
        ("at_least", [3, 3, 1], "must fall"),
        ("at_least", [4, 2, 1], "n = 3"),
        ("above", [2, 1, 1], "to 0"),
        ("above", [3, 1, 0], "occurred"),
        ("n", [4], "n = 4"),
        ("n", [3, 3], "one number"),
    ],
)
def test_arrays_of_no_null_are_refused(name, value, words):
    whole = Null.of([1.0, 2.0, 3.0]).arrays()
    with pytest.raises(ValueError, match=words):
        Null.from_arrays(whole | {name: np.array(value)})


def test_what_is_not_finite_is_refused():
    null = Null.of([1.0, 2.0])
    for wrong in ([1.0, np.nan], [np.inf, 1.0]):
        with pytest.raises(ScanError, match="1 of 2 scores are not finite"):
            null.p(wrong)
        with pytest.raises(ScanError, match="1 of 2 scores are not finite"):
            Null.of(wrong)
    with pytest.raises(ScanError, match="no held-out value"):
        Null.of([])
