"""Clusters on volumes small enough to count by eye: connectivity, sizes, places in mm, cleaning, table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mednovelty.errors import SettingsError
from mednovelty.segment.cleaning import Cleaning, cleaned
from mednovelty.segment.clusters import (
    CONNECTIVITIES,
    Cluster,
    describe,
    labelled,
    largest_mm3,
    only_large,
    voxel_mm3_of,
)
from mednovelty.segment.table import clusters_tsv

SHAPE = (5, 4, 6)
# 1.5 x 2 x 3 mm, left-handed, turned by atan(3/4) about x: 9 mm3 a voxel.
OBLIQUE = np.array([[-1.5, 0, 0, 30], [0, 1.6, -1.8, -40], [0, 1.2, 2.4, 5], [0, 0, 0, 1]])


def volume(*voxels, shape=SHAPE):
    found = np.zeros(shape, bool)
    found[tuple(np.array(voxels).T)] = True
    return found


FACE, EDGE, CORNER = (1, 1, 2), (2, 2, 2), (3, 3, 3)
CHAIN = volume((1, 1, 1), FACE, EDGE, CORNER)  # Each touches the one before it by what it is called.


@pytest.mark.parametrize(("connectivity", "sizes"), [(6, [2, 1, 1]), (18, [3, 1]), (26, [4])])
def test_connectivity_says_what_touches(connectivity, sizes):
    labels, found = labelled(CHAIN, connectivity)
    assert found.tolist() == sizes
    assert np.bincount(labels[CHAIN]).tolist() == [0, *sizes]
    assert (labels > 0).tolist() == CHAIN.tolist()
    assert largest_mm3(CHAIN, OBLIQUE, connectivity) == pytest.approx(9 * sizes[0])


def test_other_connectivities_are_refused():
    with pytest.raises(SettingsError, match="connectivity must be 6, 18 or 26 neighbours, got 8"):
        labelled(CHAIN, 8)


def test_numbers_go_by_size_and_then_by_place():
    flagged = volume((0, 0, 0), (0, 0, 5), (4, 0, 0), (4, 0, 1), (4, 1, 1))
    labels, sizes = labelled(flagged, 26)
    assert sizes.tolist() == [3, 1, 1]
    assert (labels[4, 0, 0], labels[0, 0, 0], labels[0, 0, 5]) == (1, 2, 3)


def test_none_flagged_is_no_cluster():
    labels, sizes = labelled(np.zeros(SHAPE, bool), 18)
    assert (labels.any(), sizes.size) == (False, 0)
    assert largest_mm3(np.zeros(SHAPE, bool), OBLIQUE, 18) == 0
    assert describe(labels, np.ones(SHAPE), None, OBLIQUE) == []
    assert not only_large(np.zeros(SHAPE, bool), 1, 26).any()


def test_the_volume_of_a_voxel_is_that_of_its_edges_whatever_their_handedness():
    assert voxel_mm3_of(OBLIQUE) == pytest.approx(1.5 * 2 * 3)
    assert voxel_mm3_of(np.diag([2, 2, 2.5, 1.0])) == pytest.approx(10)


def test_small_clusters_are_dropped():
    flagged = volume((0, 0, 0), (0, 0, 1), (2, 2, 2), (4, 3, 3), (4, 3, 4), (4, 3, 5))
    assert only_large(flagged, 2, 6).sum() == 5
    assert only_large(flagged, 2, 6, strictly=True).sum() == 3
    assert only_large(flagged, 3, 6, strictly=True).sum() == 0
    # 27 mm3 in voxels of 9 mm3 are three, whatever float32 makes of the one or the other.
    for near in (27 / np.float32(9.000001), 27 / np.float32(8.999999)):
        assert only_large(flagged, near, 6).sum() == 3
        assert only_large(flagged, near, 6, strictly=True).sum() == 0


def test_places_are_in_mm_on_oblique_anisotropic_voxels():
    flagged = volume((1, 1, 1), (1, 1, 2), (2, 1, 2), (4, 3, 5))
    score, surprise = np.zeros(SHAPE), np.full(SHAPE, 0.5)
    score[flagged] = [2.0, 4.0, 9.0, 1.5]
    surprise[flagged] = [3.0, 2.0, 2.5, 4.0]
    labels, _ = labelled(flagged, 26)
    large, small = describe(labels, score, surprise, OBLIQUE)
    assert (large.label, large.voxels, small.label, small.voxels) == (1, 3, 2, 1)
    assert large.volume_mm3 == pytest.approx(27)
    # The smallest p is at (1, 1, 1): x = 30 - 1.5, y = -40 + 1.6 - 1.8, z = 5 + 1.2 + 2.4.
    assert large.peak_mm == pytest.approx((28.5, -40.2, 8.6))
    assert large.p_peak == pytest.approx(0.001)
    # Mean index (4/3, 1, 5/3): x = 30 - 2, y = -40 + 1.6 - 3, z = 5 + 1.2 + 4.
    assert large.centroid_mm == pytest.approx((28, -41.4, 10.2))
    assert (large.mean, large.maximum) == (5, 9)
    # (4, 3, 5): x = 30 - 6, y = -40 + 4.8 - 9, z = 5 + 3.6 + 12.
    assert small.peak_mm == pytest.approx((24, -44.2, 20.6))
    assert small.centroid_mm == small.peak_mm
    assert (small.mean, small.maximum, small.p_peak) == (1.5, 1.5, pytest.approx(1e-4))


def test_the_highest_score_is_the_peak_where_p_is_the_same_or_unknown():
    flagged = volume((0, 1, 1), (0, 1, 2), (0, 1, 3))
    score, ties = np.zeros(SHAPE), np.full(SHAPE, 5.0)
    score[flagged] = [1, 3, 2]
    labels, _ = labelled(flagged, 6)
    identity = np.eye(4)
    assert describe(labels, score, ties, identity)[0].peak_mm == (0, 1, 2)
    (found,) = describe(labels, score, None, identity)
    assert (found.peak_mm, found.p_peak, found.p_cluster) == ((0, 1, 2), None, None)
    assert describe(labels, np.ones(SHAPE), ties, identity)[0].peak_mm == (0, 1, 1)


def test_negative_scores_have_a_highest_one_too():
    flagged = volume((0, 0, 0), (0, 0, 1))
    score = np.zeros(SHAPE)
    score[flagged] = [-3, -2]
    (found,) = describe(labelled(flagged, 6)[0], score, None, np.eye(4))
    assert (found.maximum, found.mean) == (-2, -2.5)


@given(flagged=hnp.arrays(bool, (4, 5, 3)), connectivity=st.sampled_from(CONNECTIVITIES))
def test_clusters_share_out_what_is_flagged(flagged, connectivity):
    labels, sizes = labelled(flagged, connectivity)
    found = describe(labels, np.arange(60.0).reshape(4, 5, 3), None, OBLIQUE)
    assert [one.voxels for one in found] == sizes.tolist() == sorted(sizes, reverse=True)
    assert sum(one.volume_mm3 for one in found) == pytest.approx(9 * flagged.sum())
    assert len(labelled(flagged, 26)[1]) <= len(sizes)


ALL = np.ones(SHAPE, bool)


def test_a_median_takes_specks_away_and_fills_holes():
    flagged = volume(*[(i, j, k) for i in range(3) for j in range(3) for k in range(3)], (4, 3, 5))
    flagged[1, 1, 1] = False
    found = cleaned(flagged, ALL, Cleaning("median", 3))
    assert found[1, 1, 1]
    assert not found[4, 3, 5]
    assert found[1, 1, 0]
    assert not found[2, 2, 2]  # Of the 27 around it 7 are flagged.


def test_a_median_counts_voxels_of_the_mask_only():
    flagged = volume((2, 1, 1), (2, 1, 2), (2, 1, 3))
    mask = volume((2, 1, 1), (2, 1, 2), (2, 1, 3), (2, 1, 4))
    assert cleaned(flagged, mask, Cleaning("median", 3)).tolist() == flagged.tolist()
    assert not cleaned(flagged, ALL, Cleaning("median", 3)).any()


def test_opening_takes_away_what_is_thin_but_not_at_the_border_of_the_mask():
    cube = np.zeros((9, 8, 7), bool)
    cube[0:3, 2:5, 2:5] = True
    thread = cube.copy()
    thread[3:8, 3, 3] = True
    mask = np.ones_like(cube)
    opened = cleaned(thread, mask, Cleaning("opening", 1))
    # A ball of one step: corners and edges of the inner face go, the face at the volume's border stays.
    assert not opened[4:].any()
    assert opened[0, 3, 3]
    assert opened[0, 2:5, 3].all()
    assert (opened <= thread).all()
    assert not cleaned(thread, mask, Cleaning("opening", 2)).any()
    # A sheet of one voxel between two borders of the mask is as thick as can be.
    sheet = np.zeros_like(cube)
    sheet[4] = True
    assert (cleaned(sheet, sheet, Cleaning("opening", 1)) == sheet).all()


def test_closing_fills_gaps_inside_the_mask():
    flagged = np.zeros((7, 5, 6), bool)
    flagged[1:6, 1:4, 1:5] = True
    flagged[3, 2, 2] = False
    mask = np.ones_like(flagged)
    filled = cleaned(flagged, mask, Cleaning("closing", 1))
    assert filled[3, 2, 2]
    assert filled.sum() == flagged.sum() + 1
    mask[3, 2, 2] = False
    assert (cleaned(flagged, mask, Cleaning("closing", 1)) == flagged).all()


@given(
    seed=st.integers(0, 1000),
    how=st.sampled_from(
        [
            Cleaning(),
            Cleaning("median", 3),
            Cleaning("opening", 1),
            Cleaning("opening", 2),
            Cleaning("closing", 2),
        ]
    ),
)
def test_cleaning_stays_in_the_mask_and_needs_no_room_around(seed, how):
    rng = np.random.default_rng(seed)
    mask = rng.random((6, 7, 5)) < 0.8
    flagged = mask & (rng.random(mask.shape) < 0.6)
    found = cleaned(flagged, mask, how)
    assert not found[~mask].any()
    # The same in a larger volume: only the box around what is flagged is looked at.
    wide = [np.pad(part, 6) for part in (flagged, mask)]
    assert (cleaned(*wide, how)[6:-6, 6:-6, 6:-6] == found).all()
    if how.kind == "opening":
        assert (found <= flagged).all()
    if how.kind == "closing":
        assert (found >= flagged).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("median", 4), "a median needs an odd side of 3 voxels or more, got 4"),
        (("median", 1), "a median needs an odd side of 3 voxels or more, got 1"),
        (("opening", 0), "opening needs 1 step or more, got 0"),
        (("polish", 1), "cleaning must be none, median, opening or closing, got 'polish'"),
    ],
)
def test_cleaning_that_makes_no_sense_is_refused(words, said):
    with pytest.raises(SettingsError, match=said):
        Cleaning(*words)


def test_cleaning_says_what_it_does():
    assert [Cleaning(*how).words for how in ((), ("median", 5), ("opening", 1), ("closing", 2))] == [
        "",
        "median over cubes of 5 voxels",
        "opening, 1 step",
        "closing, 2 steps",
    ]


def test_the_table_tells_what_is_known():
    known = Cluster(
        1, 12, 30.0, (1.5, -2, 3), (0, -0.0, 4.25), 0.5, 2.0, 1e-5, 0.1, (("=Insula\t", 0.75), ("7", 0.25))
    )
    unknown = Cluster(2, 1, 2.5, (0, 0, 0), (0, 0, 0), 1.0, 1.0)
    header, first, second = (
        line.split("\t") for line in clusters_tsv([known, unknown], with_atlas=True).splitlines()
    )
    assert dict(zip(header, first, strict=True)) == {
        "cluster": "1", "voxels": "12", "volume_mm3": "30",
        "peak_x_mm": "1.5", "peak_y_mm": "-2", "peak_z_mm": "3",
        "centroid_x_mm": "0", "centroid_y_mm": "0", "centroid_z_mm": "4.25", "mean": "0.5", "max": "2",
        "p_peak": "1e-05", "p_cluster": "0.1", "region": "'=Insula\\x09", "region_share": "0.75",
        "regions": "'=Insula\\x09 75%; 7 25%",
    }  # fmt: skip
    assert second[-5:] == ["n/a"] * 5
    assert clusters_tsv([]).splitlines() == ["\t".join(header[:13])]
