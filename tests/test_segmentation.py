"""From one map to a mask, clusters and numbers: the steps in their order, counted by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mednovelty.errors import SettingsError
from mednovelty.segment.cleaning import Cleaning
from mednovelty.segment.controls import Controls
from mednovelty.segment.fdr import surprise_of
from mednovelty.segment.rules import FalseDiscoveries, FixedP, ScoreThreshold
from mednovelty.segment.segmentation import MapToSegment, SegmentSettings, segment, told_of

SHAPE = (6, 5, 7)
AFFINE = np.diag([2, 2.5, 3, 1.0])  # 15 mm3 a voxel.


def image(with_p=True):
    """Five voxels in a row at p = 1e-4, two at 1e-3, one at 1e-5, one outside the mask; all others at 0.5."""
    p, mask = np.full(SHAPE, 0.5, np.float32), np.ones(SHAPE, bool)
    p[1, 1, 1:6], p[4, 3, 0:2], p[4, 0, 6], p[0, 4, 6] = 1e-4, 1e-3, 1e-5, 1e-6
    mask[0, 4, 6] = False
    surprise = surprise_of(p)
    return MapToSegment(surprise**2, mask, AFFINE, surprise if with_p else None)


def controls(largest=(15.0, 45.0)):
    """Two scans: at p = 0.01 clusters of 15 and 45 mm3 unless told otherwise, at 0.0001 none and 15."""
    grid = np.array([0.01, 0.0001])
    tables = np.array([[largest[0], 0], [largest[1], 15.0]])
    return Controls(
        ("a", "b"), grid, dict.fromkeys((6, 18, 26), tables), tables * 3, tables / 1000, np.array([8, 30.0])
    )


def sizes(found):
    return [one.voxels for one in found.clusters]


def test_without_controls_every_cluster_stays():
    found = segment(image(), SegmentSettings(FixedP(0.01)), None)
    assert sizes(found) == [5, 2, 1]
    assert np.bincount(found.labels.ravel())[1:].tolist() == [5, 2, 1]
    assert found.mask.sum() == 8
    assert not found.mask[0, 4, 6]
    assert (found.limit_mm3, found.clusters[0].p_cluster) == (None, None)
    assert found.p == pytest.approx(1e-3)
    assert found.numbers == {
        "brain_mm3": 209 * 15, "novel_mm3": 120, "novel_share": 8 / 209, "clusters": 3, "largest_mm3": 75,
        "maximum": pytest.approx(25, rel=1e-5), "flagged_mm3": 120, "flagged_share": 8 / 209,
        "flagged_p": pytest.approx(1e-3),
    }  # fmt: skip


def test_an_empty_mask_has_neither_volume_nor_share():
    one = replace(image(), mask=np.zeros_like(image().mask))
    found = segment(one, SegmentSettings(FixedP(0.01)), None)
    assert (found.numbers["brain_mm3"], found.numbers["flagged_share"], found.clusters) == (0, 0, ())


def test_clusters_no_larger_than_those_of_controls_are_dropped():
    found = segment(image(), SegmentSettings(FixedP(0.01)), controls())
    assert (sizes(found), found.limit_mm3) == ([5], 45)
    # No control shows 75 mm3 at p = 0.01.
    assert found.clusters[0].p_cluster == 1 / 3
    assert found.numbers["flagged_mm3"] == 120
    assert (found.numbers["novel_mm3"], found.numbers["controls"]) == (75, 2)
    # As large is not larger.
    assert sizes(segment(image(), SegmentSettings(FixedP(0.01)), controls((0, 75.0)))) == []
    everything = segment(image(), SegmentSettings(FixedP(0.01), cluster_size=False), controls())
    assert (sizes(everything), everything.limit_mm3) == ([5, 2, 1], None)
    assert [one.p_cluster for one in everything.clusters] == [1 / 3, 2 / 3, 1]


def test_the_limit_is_that_of_the_p_that_was_flagged():
    # At 1e-4 the largest of the controls is 15 mm3: the row stays, the single voxel goes.
    found = segment(image(), SegmentSettings(FixedP(0.0001)), controls())
    assert (sizes(found), found.limit_mm3) == ([5], 15)
    assert found.p == pytest.approx(1e-4)


def test_false_discoveries_are_controlled_over_the_mask_alone():
    # 8 of 209 voxels: the bound of the eighth is 0.05 8/209 = 1.9e-3.
    found = segment(image(), SegmentSettings(FalseDiscoveries(0.05)), None)
    assert sizes(found) == [5, 2, 1]
    # At 0.02 it is 7.7e-4, below 1e-3; that of the sixth is 5.7e-4.
    assert sizes(segment(image(), SegmentSettings(FalseDiscoveries(0.02)), None)) == [5, 1]


def test_controls_are_asked_before_cleaning_and_the_smallest_volume_after():
    opened = SegmentSettings(FixedP(0.01), cleaning=Cleaning("median", 3))
    # A row one voxel thin has no majority anywhere.
    assert sizes(segment(image(), opened, None)) == []
    thick = image()
    thick.surprise[1:4, 1:4, 1:4] = 4
    thick.surprise[1, 1, 4:6] = 4
    both = SegmentSettings(FixedP(0.01), cleaning=Cleaning("opening", 1), min_mm3=0)
    # 31 voxels, two of them by a corner, are above the limit of 30; opened, 7 are left.
    found = segment(thick, both, controls((0, 30 * 15.0)))
    assert sizes(found) == [7]
    assert sizes(segment(thick, both, controls((0, 31 * 15.0)))) == []
    for smallest, left in ((7 * 15, [7]), (7 * 15 + 1, [])):
        wanted = SegmentSettings(FixedP(0.01), cleaning=Cleaning("opening", 1), min_mm3=smallest)
        assert sizes(segment(thick, wanted, None)) == left


def test_connectivity_joins_or_parts_clusters():
    touching = image()
    touching.surprise[2, 2, 6] = 4  # Shares a corner with the row's end.
    for connectivity, found in ((26, [6, 2, 1]), (18, [5, 2, 1, 1])):
        assert (
            sizes(segment(touching, SegmentSettings(FixedP(0.01), connectivity=connectivity), None)) == found
        )


def test_a_score_needs_no_p_but_uses_it_where_there_is_one():
    rule = ScoreThreshold(10.0, 0.001, "a fifth")  # 16 and 25 are above, 9 is not.
    alone = segment(image(with_p=False), SegmentSettings(rule), None)
    assert sizes(alone) == [5, 1]
    assert math.isnan(alone.p)
    assert (alone.limit_mm3, alone.clusters[0].p_peak) == (None, None)
    held = segment(image(), SegmentSettings(rule), controls())
    assert (sizes(held), held.limit_mm3) == ([5], 15)
    assert segment(image(with_p=False), SegmentSettings(rule), controls()).limit_mm3 is None


def test_nothing_found_is_a_segmentation_too():
    found = segment(image(), SegmentSettings(FixedP(1e-7)), controls())
    assert (found.mask.any(), found.clusters, found.p, found.limit_mm3) == (False, (), 0.0, None)
    assert found.numbers["novel_mm3"] == 0
    # Scans are compared at the lowest p in the table, 1e-4: 90 mm3 against none and 45.
    assert found.numbers["p_volume"] == 1 / 3


def test_a_scans_p_values_are_those_of_what_was_flagged():
    found = segment(image(), SegmentSettings(FixedP(0.01)), controls())
    # 120 mm3 against 45 and 135; a share of 0.038 against 0.015 and 0.045; the highest, 25, against 8 and 30.
    assert (found.numbers["p_volume"], found.numbers["p_share"], found.numbers["p_maximum"]) == (
        2 / 3,
        2 / 3,
        2 / 3,
    )


def test_settings_out_of_range_are_refused():
    with pytest.raises(SettingsError, match="--min-mm3 must be 0 or more, got -1"):
        SegmentSettings(min_mm3=-1)
    with pytest.raises(SettingsError, match="connectivity must be 6, 18 or 26 neighbours, got 7"):
        SegmentSettings(connectivity=7)


def test_settings_are_told():
    told = told_of(SegmentSettings(cleaning=Cleaning("median", 3), min_mm3=20))
    assert told == {
        "Rule": "fdr", "Q": 0.05, "ClusterSizeRule": True, "Connectivity": 26, "MinMm3": 20,
        "Cleaning": "median", "CleaningSize": 3,
    }  # fmt: skip
