"""Area under the per-region overlap: by hand, against the curve drawn point by point, and its properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.errors import SettingsError
from mednovelty.evaluation.region_overlap import RegionScores, area_under_pro, iou_of
from mednovelty.metrics import Ranking, auroc, best_dice

# Two regions, of 4 pixels and of 1, and ten unmarked pixels.
TRUTH = np.array([[1, 1, 0, 0, 0], [1, 1, 0, 0, 1], [0, 0, 0, 0, 0]], bool)
SCORES = np.array([[9.0, 9, 1, 2, 3], [5, 4, 8, 0.5, 7], [1, 1, 2, 3, 6]])


def test_by_hand():
    """Unmarked: 8, 6, 3, 3, 2, 2, 1, 1, 1, 0.5; ten of them, a tenth of FPR each.

    Weights: 1/8 for each pixel of the large region, 1/2 for the small one's. Left up to L = 0.3:
    9 and 9: nothing above, 0.3 each; 7: 8 above, 0.2; 5 and 4: 8 and 6 above, 0.1 each.
    2/8 0.3 + 1/2 0.2 + 2/8 0.1 = 0.2; / 0.3 = 2/3.
    """
    part = RegionScores.of(SCORES, TRUTH)
    assert part.weights.tolist() == pytest.approx([0.25, 0.25, 0.25, 0.25, 1.0])
    assert area_under_pro([part]) == pytest.approx(2 / 3)
    # Up to 0.1: 2/8 0.1, nothing is left for the others.
    assert area_under_pro([part], 0.1) == pytest.approx(0.25)


def test_a_tie_is_a_straight_line():
    """One marked pixel, of the score of two of four others: from 0 to 0.5 the curve rises to 1.

    Up to 0.3 it has risen to 0.6: a triangle of 0.3 0.6 / 2 = 0.09; / 0.3 = 0.3. Up to 1: 1 - 0.25.
    """
    scores, truth = np.array([[3.0, 3, 3, 1, 2]]), np.array([[True, False, False, False, False]])
    assert area_under_pro([RegionScores.of(scores, truth)]) == pytest.approx(0.3)
    assert area_under_pro([RegionScores.of(scores, truth)], 1.0) == pytest.approx(0.75)


def test_a_small_region_counts_as_much_as_a_large_one():
    truth = np.zeros((20, 20), bool)
    truth[:10, :10], truth[15, 15] = True, True
    found = np.zeros((20, 20))
    found[:10, :10] = 1
    rest = np.random.default_rng(0).random((20, 20))
    large = area_under_pro([RegionScores.of(found + 0.1 * rest, truth)])
    assert large == pytest.approx(0.5, abs=0.2)
    lone = np.zeros((20, 20))
    lone[15, 15] = 1
    assert area_under_pro([RegionScores.of(lone + 0.1 * rest, truth)]) == pytest.approx(
        0.5 + 0.5 * 0.15, abs=0.1
    )
    assert auroc(Ranking.of((lone + 0.1 * rest).ravel(), truth.ravel())) < 0.6


def test_corners_touch_in_two_and_three_dimensions():
    truth = np.zeros((3, 3, 3), bool)
    truth[0, 0, 0] = truth[1, 1, 1] = True
    assert RegionScores.of(np.zeros((3, 3, 3)), truth).region.tolist() == [0, 0]
    assert RegionScores.of(np.zeros((3, 3)), np.eye(3, dtype=bool)).region.tolist() == [0, 0, 0]
    truth[1, 1, 1], truth[2, 2, 2] = False, True
    assert RegionScores.of(np.zeros((3, 3, 3)), truth).region.tolist() == [0, 1]


def drawn(parts, limit):
    """The same area, by the points of the curve and trapezoids, as the definition has it."""
    healthy = np.concatenate([part.healthy for part in parts])
    marked = np.concatenate([part.marked for part in parts])
    weights = np.concatenate([part.weights for part in parts])
    x, y = [0.0], [0.0]
    for t in np.unique(np.concatenate([healthy, marked]))[::-1]:
        x.append((healthy >= t).mean())
        y.append(weights[marked >= t].sum() / weights.sum())
    end = np.interp(limit, x, y) if limit not in x else y[len(x) - 1 - x[::-1].index(limit)]
    kept = [(a, b) for a, b in zip(x, y, strict=True) if a <= limit]
    if kept[-1][0] < limit:
        kept.append((limit, end))
    return np.trapezoid([b for _, b in kept], [a for a, _ in kept]) / limit


@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.3, 0.77, 1.0]), st.integers(2, 12))
def test_it_is_the_area_under_the_curve(seed, limit, levels):
    rng = np.random.default_rng(seed)
    parts = []
    for shape in ((7, 9), (4, 5)):
        truth = rng.random(shape) < 0.3
        truth[0, 0], truth[-1, -1] = True, False
        parts.append(RegionScores.of(rng.integers(0, levels, shape).astype(float), truth))
    assert area_under_pro(parts, limit) == pytest.approx(drawn(parts, limit), abs=1e-12)


@given(st.integers(0, 10_000))
def test_of_one_region_up_to_one_it_is_the_auroc(seed):
    rng = np.random.default_rng(seed)
    truth = np.zeros((6, 8), bool)
    truth[1:4, 2:6] = True
    scores = rng.integers(0, 6, (6, 8)) + 0.5 * truth
    found = area_under_pro([RegionScores.of(scores, truth)], 1.0)
    assert found == pytest.approx(auroc(Ranking.of(scores.ravel(), truth.ravel())))
    # Only ranks count.
    assert area_under_pro([RegionScores.of(np.exp(scores), truth)], 1.0) == pytest.approx(found)


def test_perfect_and_worst():
    truth = np.zeros((5, 6), bool)
    truth[2:4, 1:3] = True
    assert area_under_pro([RegionScores.of(truth.astype(float), truth)]) == 1.0
    assert area_under_pro([RegionScores.of(-truth.astype(float), truth)]) == 0.0


def test_undefined_and_refused():
    none = RegionScores.of(np.zeros((2, 3)), np.zeros((2, 3), bool))
    assert math.isnan(area_under_pro([none]))
    assert math.isnan(area_under_pro([]))
    assert math.isnan(area_under_pro([RegionScores.of(np.zeros((2, 3)), np.ones((2, 3), bool))]))
    # An image without anything marked adds what may be flagged in vain.
    some = RegionScores.of(SCORES, TRUTH)
    assert area_under_pro([some, RegionScores(np.full(10, 8.5), np.empty(0), np.empty(0, int))]) < 0.5
    with pytest.raises(SettingsError, match=r"limit of AUPRO must lie above 0 and be at most 1, got 0"):
        area_under_pro([some], 0)
    with pytest.raises(SettingsError, match=r"one shape, got \(3, 5\) and \(2, 3\) of bool"):
        RegionScores.of(SCORES, np.zeros((2, 3), bool))
    with pytest.raises(SettingsError, match="1 of 15 scores are NaN"):
        RegionScores.of(np.where(SCORES == 8, np.nan, SCORES), TRUTH)


def test_iou_and_dice_are_best_at_one_threshold():
    scores, truth = SCORES.ravel(), TRUTH.ravel()
    dice, _ = best_dice(Ranking.of(scores, truth))
    direct = max((truth & (scores >= t)).sum() / (truth | (scores >= t)).sum() for t in scores)
    assert iou_of(dice) == pytest.approx(direct)
