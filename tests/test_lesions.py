"""Lesion by lesion, on volumes small enough to count by eye."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mednovelty.evaluation import lesions as lesions_module
from mednovelty.evaluation.lesions import Lesions, component_of, detect, thresholds_of
from mednovelty.metrics import Ranking, best_dice, healthy_threshold

SHAPE = (5, 4, 6)
# One lesion of four voxels, which touch by face, edge and corner, from slice 1 to slice 3 along K;
# one of two voxels; one of a single voxel in the last corner.
FIRST = [(0, 0, 1), (0, 0, 2), (1, 1, 2), (2, 2, 3)]
SECOND = [(4, 0, 0), (4, 0, 1)]
THIRD = [(4, 3, 5)]


def volume(*voxels, shape=SHAPE):
    found = np.zeros(shape, bool)
    found[tuple(np.array(voxels).T)] = True
    return found


LESION = volume(*FIRST, *SECOND, *THIRD)


def test_voxels_that_share_a_corner_are_one_lesion_also_across_slices():
    lesions = Lesions.of(LESION)
    assert lesions.voxels.tolist() == [4, 2, 1]
    assert lesions.of_voxel.tolist() == [0, 0, 0, 0, 1, 1, 2]
    assert lesions.centres[0].tolist() == [3 / 4, 3 / 4, 8 / 4]
    assert lesions.centres[1:].tolist() == [[4, 0, 0.5], [4, 3, 5]]


def test_two_steps_apart_are_two_lesions():
    assert Lesions.of(volume((0, 0, 1), (0, 0, 3))).voxels.tolist() == [1, 1]
    assert Lesions.of(volume((0, 0, 0), (4, 3, 5))).voxels.tolist() == [1, 1]


def test_found_lesions_and_false_positives_are_counted_by_hand():
    flagged = volume(
        (2, 2, 3), (3, 3, 3),  # in the first lesion, and one beside it that belongs to the same component
        (4, 1, 2),  # beside the second lesion, without a voxel of it: a false positive
        (0, 3, 0), (0, 3, 1), (1, 2, 0),  # a false positive of three voxels
        (0, 2, 5), (1, 3, 5),  # another, which touches by an edge
    )  # fmt: skip
    found = detect(flagged, LESION, Lesions.of(LESION), threshold=0.7)
    assert found.found.tolist() == [True, False, False]
    assert found.shares.tolist() == [1 / 4, 0, 0]
    assert found.false_positives == 3
    assert found.recall == pytest.approx(1 / 3)
    assert found.threshold == 0.7


def test_one_flagged_component_finds_every_lesion_it_reaches():
    found = detect(np.ones(SHAPE, bool), LESION, Lesions.of(LESION), 0.0)
    assert (found.recall, found.false_positives) == (1, 0)
    none = detect(np.zeros(SHAPE, bool), LESION, Lesions.of(LESION), 9.0)
    assert (none.recall, none.false_positives) == (0, 0)


@pytest.mark.parametrize(
    ("share", "found"),
    [(0.0, [True, True, False]), (0.25, [True, True, False]), (0.26, [False, True, False]),
     (0.51, [False, False, False])],
)  # fmt: skip
def test_a_share_of_the_lesion_can_be_asked_for(share, found):
    flagged = volume((0, 0, 1), (4, 0, 1))  # one of four voxels, and one of two
    assert detect(flagged, LESION, Lesions.of(LESION), 0.5, share).found.tolist() == found


def test_three_tenths_of_ten_voxels_are_three():
    lesion = np.zeros((2, 3, 12), bool)
    lesion[1, 2, :10] = True
    flagged = np.zeros_like(lesion)
    flagged[1, 2, :3] = True
    assert 0.1 + 0.2 > 0.3
    assert detect(flagged, lesion, Lesions.of(lesion), 0.5, 0.1 + 0.2).found.tolist() == [True]


def test_without_a_lesion_all_components_are_false_and_recall_is_undefined():
    empty = np.zeros(SHAPE, bool)
    found = detect(volume((0, 0, 0), (2, 2, 2), (2, 3, 3)), empty, Lesions.of(empty), 0.5)
    assert found.false_positives == 2
    assert math.isnan(found.recall)


def components(mask):
    """Return the components as sets of voxels: a flood over the 26 neighbours."""
    left, found = set(map(tuple, np.argwhere(mask))), []
    while left:
        reached, edge = set(), {left.pop()}
        while edge:
            reached |= edge
            edge = {v for v in left if any(max(abs(np.subtract(v, w))) <= 1 for w in edge)}
            left -= edge
        found.append(reached)
    return found


masks = hnp.arrays(bool, (3, 4, 2), elements=st.sampled_from([True, False, False, False]))


@given(masks, masks)
def test_counts_are_those_of_a_flood(lesion, flagged):
    found = detect(flagged, lesion, Lesions.of(lesion), 0.5)
    of_lesion, of_flagged = components(lesion), components(flagged)
    at = set(map(tuple, np.argwhere(flagged)))
    assert found.found.sum() == sum(bool(one & at) for one in of_lesion)
    assert found.false_positives == sum(not any(one & other for other in of_lesion) for one in of_flagged)
    assert sorted(Lesions.of(lesion).voxels.tolist()) == sorted(len(one) for one in of_lesion)


def test_the_thresholds_of_a_fifth_are_those_of_its_pooled_voxels():
    # 1,000 healthy voxels scored 0..999 in two scans of unequal size, lesion voxels above 989.
    parts = [
        Ranking(np.array([989.5, 1005.0]), np.arange(0.0, 700.0)),
        Ranking(np.array([1003.0]), np.arange(700.0, 1000.0)),
    ]
    found = thresholds_of(parts)
    assert found["dice"] == 1003
    assert found["dice"] == best_dice(Ranking.pooled(parts))[1]
    # Just above 989, so that 990 to 999 are flagged, ten of a thousand; and just above 998.
    assert found["fpr_1_in_100"] == np.nextafter(989, 1000)
    assert found["fpr_1_in_1000"] == np.nextafter(998, 1000)
    assert all(math.isnan(number) for number in thresholds_of([]).values())


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.001, 0.05, 0.3, 0.9]),
)
def test_a_threshold_flags_at_most_its_share_and_a_lower_one_flags_more(scores, share):
    healthy = np.sort(np.array(scores, np.float32))
    ranking = Ranking(np.empty(0, np.float32), healthy)
    threshold = healthy_threshold(ranking, share)
    assert ranking.flagged(threshold)[1] <= share * len(scores) + 1e-6
    below = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
    assert ranking.flagged(below)[1] > share * len(scores) - 1e-6


def test_a_threshold_that_does_not_exist_is_nan():
    infinite = Ranking(np.empty(0), np.array([1.0, np.inf, np.inf]))
    assert math.isnan(healthy_threshold(infinite, 0.4))
    assert healthy_threshold(infinite, 0.7) == np.nextafter(1, 2)
    assert math.isnan(healthy_threshold(Ranking(np.ones(2), np.empty(0)), 0.4))


@given(hnp.arrays(bool, (3, 4, 2), elements=st.sampled_from([True, False, False])))
def test_components_joined_voxel_by_voxel_are_those_of_a_walk_through_the_volume(flagged):
    everywhere = np.arange(flagged.size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesions_module, "SPARSE_SHARE", 1.0)
        one_by_one, n = component_of(flagged, everywhere)
        patch.setattr(lesions_module, "SPARSE_SHARE", -1.0)
        walked, expected = component_of(flagged, everywhere)
    assert n == expected == len(components(flagged))
    # The same partition, whatever its parts are called.
    assert len(set(zip(one_by_one.tolist(), walked.tolist(), strict=True))) == len(set(walked.tolist()))
    assert ((one_by_one > 0) == flagged.ravel()).all()
    assert ((walked > 0) == flagged.ravel()).all()


def test_few_and_many_flagged_voxels_take_the_way_that_is_quicker(monkeypatch):
    walked = []
    label = lesions_module.ndimage.label
    monkeypatch.setattr(
        lesions_module.ndimage, "label", lambda *args: walked.append(args[0].sum()) or label(*args)
    )
    flagged = np.zeros((10, 20, 10), bool)
    flagged.flat[:30] = True
    assert component_of(flagged, np.array([0, 1999]))[0].tolist() == [1, 0]
    flagged.flat[30] = True
    assert component_of(flagged, np.array([0, 1999]))[0].tolist() == [1, 0]
    assert walked == [31]
