"""Metrics: by hand with ties, against scikit-learn, and what must not change them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score, roc_curve

from mednovelty.benchmarks.auroc_speed import measure
from mednovelty.errors import SettingsError
from mednovelty.metrics import (
    Ranking,
    auroc,
    average_precision,
    best_dice,
    bootstrap_interval,
    dice_at,
    draw_fifth,
    fifth_threshold,
    fpr_at_healthy_tpr,
    fpr_at_lesion_tpr,
    roc_points,
    summary,
    thinned,
)
from mednovelty.papers import where


def ranking(lesion, healthy, dtype=np.float64):
    scores = np.array([*lesion, *healthy], dtype=dtype)
    labels = np.arange(scores.size) < len(lesion)
    order = np.random.default_rng(3).permutation(scores.size)
    return Ranking.of(scores[order], labels[order])


@st.composite
def labelled(draw):
    """Scores from few values, so that many tie, with both classes present."""
    labels = draw(st.lists(st.booleans(), min_size=2, max_size=40).filter(lambda x: 0 < sum(x) < len(x)))
    scores = draw(st.lists(st.integers(-4, 4), min_size=len(labels), max_size=len(labels)))
    return np.array(scores) / 2, np.array(labels)


def test_auroc_counts_ties_half():
    # lesion 3: above 1, 2 and ties with 3 -> 2.5; lesion 2: above 1, ties with 2 -> 1.5; of 2 x 3 pairs.
    assert auroc(ranking([3, 2], [1, 2, 3])) == 4 / 6
    # The same with more lesion voxels than others, which is counted from the other side.
    assert auroc(ranking([1, 2, 3], [3, 2])) == 2 / 6


def test_average_precision_takes_equal_scores_as_one_threshold():
    # >= 3: TP 1, FP 1, recall 1/2, precision 1/2; >= 2: TP 2, FP 2, recall 1, precision 1/2.
    assert average_precision(ranking([3, 2], [1, 2, 3])) == 0.5
    # >= 5: TP 1, FP 0: 1/3 * 1; >= 2: TP 3, FP 1: 2/3 * 3/4.
    assert average_precision(ranking([5, 2, 2], [1, 4, 0])) == pytest.approx(1 / 3 + 2 / 3 * 3 / 4)


def test_the_two_fpr_conventions_differ_and_each_counts_its_own_voxels():
    healthy = np.arange(20.0)
    lesion = [-5.0, *range(100, 119)]
    both = ranking(lesion, healthy)
    # 19 of 20 lesion voxels are found at 100, above every healthy voxel.
    assert fpr_at_lesion_tpr(both) == 0
    # 19 of 20 healthy voxels are accepted up to 18; the lesion voxel at -5 is accepted with them.
    assert fpr_at_healthy_tpr(both) == 1 / 20
    low = ranking([0.5, 10.5, 11.5], healthy)
    # All three are needed for 95 % of three: threshold 0.5, above which 19 of 20 healthy voxels lie.
    assert fpr_at_lesion_tpr(low) == 19 / 20
    assert fpr_at_healthy_tpr(low) == 1
    # At 60 % two of three suffice: threshold 10.5, 9 of 20 above it. 60 % of the healthy end at 11.
    assert fpr_at_lesion_tpr(low, 0.6) == 9 / 20
    assert fpr_at_healthy_tpr(low, 0.6) == 2 / 3


def test_fpr_counts_ties_at_the_threshold():
    tied = ranking([1, 2, 2], [0, 2, 2, 3, 1])
    assert fpr_at_lesion_tpr(tied, 0.6) == 3 / 5  # threshold 2, healthy 2, 2 and 3
    assert fpr_at_healthy_tpr(tied, 0.6) == 1  # limit 2 accepts all three


def test_ninety_five_percent_of_twenty_is_nineteen():
    # 0.95 * 20 and its like must not round up past the whole number.
    for n in (20, 60, 140, 180, 1000, 123_460):
        assert fpr_at_healthy_tpr(ranking([n * 0.95 - 1], np.arange(n))) == 1
        assert fpr_at_healthy_tpr(ranking([n * 0.95 - 0.5], np.arange(n))) == 0
    # 0.07 * 100 is 7.000000000000001.
    assert fpr_at_healthy_tpr(ranking([6.5], np.arange(100)), 0.07) == 0


def test_best_dice_by_hand():
    # >= 5: 2*1/(1+3) = 0.5; >= 3: TP 2, FP 1: 4/6; >= 1: TP 3, FP 3: 6/9. The higher threshold is kept.
    assert best_dice(ranking([5, 3, 1], [4, 2, 2, 0])) == (pytest.approx(2 / 3), 3.0)


def test_dice_at_flags_the_threshold_itself():
    both = ranking([5, 3, 1], [4, 3, 2])
    assert dice_at(both, 3) == 2 * 2 / (4 + 3)
    assert dice_at(both, 3.5) == 2 * 1 / (2 + 3)
    assert dice_at(both, 9) == 0


@given(labelled())
def test_metrics_agree_with_scikit_learn(data):
    scores, labels = data
    found = Ranking.of(scores, labels)
    assert auroc(found) == pytest.approx(roc_auc_score(labels, scores))
    assert average_precision(found) == pytest.approx(average_precision_score(labels, scores))
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert fpr_at_lesion_tpr(found) == pytest.approx(fpr[np.argmax(tpr >= 0.95 - 1e-9)])
    fpr, tpr, _ = roc_curve(~labels, -scores, drop_intermediate=False)
    assert fpr_at_healthy_tpr(found) == pytest.approx(fpr[np.argmax(tpr >= 0.95 - 1e-9)])
    dice, threshold = best_dice(found)
    assert dice == pytest.approx(max(f1_score(labels, scores >= t) for t in scores))
    assert (
        dice
        == pytest.approx(f1_score(labels, scores >= threshold))
        == pytest.approx(dice_at(found, threshold))
    )


@given(labelled())
def test_a_strictly_monotone_transform_changes_no_metric(data):
    scores, labels = data
    threshold = "dice_best_threshold"
    before, after = summary(Ranking.of(scores, labels)), summary(Ranking.of(np.exp(scores) - 7, labels))
    assert {k: v for k, v in before.items() if k != threshold} == {
        k: v for k, v in after.items() if k != threshold
    }
    assert after[threshold] == np.exp(before[threshold]) - 7


@given(labelled())
def test_the_opposite_sign_gives_one_minus_auroc_and_swaps_what_is_positive(data):
    scores, labels = data
    found, opposite = Ranking.of(scores, labels), Ranking.of(-scores, labels)
    assert auroc(opposite) == pytest.approx(1 - auroc(found))
    # Turning both the sign and the labels round makes one FPR convention the other.
    assert fpr_at_lesion_tpr(Ranking.of(-scores, ~labels)) == fpr_at_healthy_tpr(found)


@given(labelled(), st.integers(2, 9))
def test_roc_points_lie_on_the_curve_and_ascend(data, n):
    scores, labels = data
    fpr, tpr = roc_points(Ranking.of(scores, labels), n)
    exact = {(np.mean(scores[~labels] >= t), np.mean(scores[labels] >= t)) for t in [*scores, np.inf]}
    assert set(zip(fpr, tpr, strict=True)) <= exact
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()


def test_roc_points_of_many_voxels_are_few_and_hold_the_area():
    rng = np.random.default_rng(5)
    labels = rng.random(50_000) < 0.03
    found = Ranking.of((rng.normal(size=50_000) + 1.3 * labels).astype(np.float32), labels)
    fpr, tpr = roc_points(found, 200)
    assert fpr.size <= 602
    assert np.trapezoid(tpr, fpr) == pytest.approx(auroc(found), abs=1e-4)


def test_pooled_rankings_are_the_ranking_of_all_voxels():
    parts = [ranking([3, 9, 1], [2, 8]), ranking([4], [7, 0, 5, 6])]
    pooled = Ranking.pooled(parts)
    assert pooled.lesion.tolist() == [1, 3, 4, 9]
    assert pooled.healthy.tolist() == [0, 2, 5, 6, 7, 8]


def test_a_large_float32_ranking_stays_float32_and_exact():
    # 0.1 as float32 is not 0.1: a threshold taken from the scores must flag the voxel it came from.
    both = ranking([0.1, 0.7], [0.05, 0.4, 0.1], np.float32)
    assert both.lesion.dtype == np.float32
    dice, threshold = best_dice(both)
    assert dice_at(both, threshold) == dice
    # As float32 0.7 is a little less than 0.7, and is flagged at 0.7 all the same.
    assert dice_at(both, 0.7) == 2 * 1 / (1 + 2)


def test_infinite_scores_are_ranked():
    assert auroc(ranking([np.inf, 1], [-np.inf, 0, np.inf])) == (2.5 + 2) / 6


def test_integer_scores_keep_their_differences():
    assert auroc(ranking([2**40 + 1], [2**40, 2**40 + 2], np.int64)) == 0.5


@pytest.mark.parametrize(
    ("lesion", "healthy", "why"),
    [([], [1, 2], "no lesion voxel"), ([1, 2], [], "no voxel outside the lesion")],
)
def test_one_class_gives_nan_with_a_reason(lesion, healthy, why):
    found = ranking(lesion, healthy)
    assert found.undefined == why
    assert all(math.isnan(value) for value in summary(found).values())
    assert roc_points(found)[0].size == 0
    assert ranking([1], [2, 3]).undefined is None


def test_prevalence_is_the_share_of_lesion():
    assert ranking([1, 2], [3, 4, 5]).prevalence == 0.4
    assert math.isnan(ranking([], []).prevalence)


def test_nan_scores_are_refused_with_their_number():
    scores = np.array([1, np.nan, 2, np.nan, 3])
    with pytest.raises(SettingsError, match=r"sub-01: 2 of 5 scores are NaN; leave those voxels out"):
        Ranking.of(scores, scores > 1, "sub-01")


def test_shapes_and_labels_are_checked():
    with pytest.raises(SettingsError, match=r"must be \(n,\) both, got \(3,\) and \(4,\)"):
        Ranking.of(np.zeros(3), np.zeros(4, bool))
    with pytest.raises(SettingsError, match="labels must be bool, true in the lesion, got int64"):
        Ranking.of(np.zeros(3), np.zeros(3, np.int64))


@given(st.integers(2, 60), st.integers(0, 9))
def test_a_fifth_is_a_fifth_and_follows_the_seed(n, seed):
    chosen = draw_fifth(n, seed)
    assert chosen.sum() == max(1, round(n / 5))
    assert (chosen == draw_fifth(n, seed)).all()


def test_other_seeds_draw_other_fifths():
    assert len({draw_fifth(30, seed).tobytes() for seed in range(5)}) == 5
    with pytest.raises(SettingsError, match="one fifth of 1 leaves nothing"):
        draw_fifth(1, 0)


def test_the_fifths_threshold_is_the_best_of_its_pooled_voxels():
    parts = [ranking([5, 6], [1, 2, 3]), ranking([2], [4, 0])]
    # Pooled: >= 5: 2*2/(2+3) = 0.8; >= 2: TP 3, FP 3: 6/9.
    assert fifth_threshold(parts) == 5
    assert math.isnan(fifth_threshold([]))
    assert math.isnan(fifth_threshold([ranking([], [1])]))
    assert math.isnan(dice_at(ranking([1], [2]), math.nan))
    assert where("zimmerer2019", "Sec. 3.3") == "mednovelty.metrics:fifth_threshold"


def test_bootstrap_draws_scans_and_matches_a_plain_loop():
    values = [0.6, 0.9, 0.7, 0.95, 0.5]
    rng = np.random.default_rng(4)
    drawn = rng.integers(5, size=(300, 5))
    means = [np.mean([values[i] for i in row]) for row in drawn]
    found = bootstrap_interval(values, seed=4, resamples=300, level=0.8)
    assert found == pytest.approx((np.quantile(means, 0.1), np.quantile(means, 0.9)))
    assert min(values) < found[0] < np.mean(values) < found[1] < max(values)


def test_bootstrap_width_shrinks_with_scans_as_a_mean_does():
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=20), rng.normal(size=2000)
    width = [np.subtract(*bootstrap_interval(list(v), seed=1)[::-1]) for v in (few, many)]
    # 2 x 1.96 sigma / sqrt(n)
    assert width[1] == pytest.approx(3.92 * many.std() / math.sqrt(2000), rel=0.1)
    assert width[0] > 5 * width[1]


def test_bootstrap_of_fewer_than_two_scans_is_none():
    assert bootstrap_interval([], seed=0) is None
    assert bootstrap_interval([0.7, math.nan], seed=0) is None
    assert bootstrap_interval([0.7, 0.7], seed=0) == (0.7, 0.7)


def test_thinned_keeps_both_ends_and_short_arrays_whole():
    assert thinned(np.arange(100), 4).tolist() == [0, 33, 66, 99]
    assert thinned(np.arange(3), 9).tolist() == [0, 1, 2]
    assert thinned(np.arange(0), 9).size == 0


def test_the_speed_measurement_runs_and_both_libraries_agree():
    found = measure(n=3000, prevalence=0.1)
    assert found["largest_difference"] < 1e-12
    assert all(seconds > 0 for name, seconds in found.items() if name.endswith("seconds"))
