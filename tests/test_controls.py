"""What calibration scans show, counted by hand, and what a scan is held against."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.errors import ScanError, SettingsError
from mednovelty.segment.controls import GRID_P, Controls, Curve, conformal, count_scan
from mednovelty.segment.fdr import surprise_of
from mednovelty.segment.rules import FalseDiscoveries, FixedP

AFFINE = np.array([[-1.5, 0, 0, 30], [0, 1.6, -1.8, -40], [0, 1.2, 2.4, 5], [0, 0, 0, 1]])  # 9 mm3 a voxel.
GRID = np.array([0.1, 0.01, 0.001])


def table(**other):
    parts = {
        "ids": ("sub-01", "sub-02"),
        "grid": GRID,
        "largest_mm3": {6: np.array([[50, 9, 0], [90, 30, 6.0]]), 26: np.array([[60, 12, 0], [99, 33, 7.0]])},
        "volume_mm3": np.array([[100, 10, 0], [300, 40, 8.0]]),
        "share": np.array([[0.10, 0.01, 0], [0.25, 0.05, 0.006]]),
        "maximum": np.array([5, 8.0]),
    }
    return Controls(**(parts | other))


def test_the_limit_is_the_largest_cluster_of_any_scan_at_the_next_p_above():
    controls = table()
    assert [controls.limit_mm3(p, 6) for p in (0.1, 0.05, 0.01, 0.002, 0.001, 1e-9)] == [90, 90, 30, 30, 6, 6]
    assert controls.limit_mm3(0.01, 26) == 33
    assert controls.limit_mm3(0.2, 26) == math.inf
    with pytest.raises(SettingsError, match="knows clusters of connectivity 6, 26, not 18"):
        controls.limit_mm3(0.01, 18)


def test_a_clusters_p_counts_the_scans_that_show_one_as_large():
    controls = table()
    assert [controls.p_cluster(v, 0.01, 6) for v in (31, 30, 9, 8)] == [1 / 3, 2 / 3, 1, 1]
    assert controls.p_cluster(1e9, 0.3, 6) == 1


def test_a_scan_is_held_against_what_the_same_rule_finds_in_the_others():
    controls = table()
    curve = Curve(np.array([200, 40, 0.0]), np.array([0.2, 0.02, 0.0]), 9.0)
    found = controls.p_of(curve, FixedP(0.01))
    assert found == {"p_volume": 2 / 3, "p_share": 2 / 3, "p_maximum": 1 / 3}
    # At q = 0.4 shares of 0.25, 0.025 and 0.0025 are enough. The scan stops nowhere, nor does the first
    # control; the second does so at 0.1.
    assert curve.under(FalseDiscoveries(0.4), GRID) == (0, 0)
    assert controls.p_of(curve, FalseDiscoveries(0.4))["p_volume"] == 1
    more = Curve(np.array([301, 40, 0.0]), np.array([0.26, 0.02, 0.0]), 1.0)
    assert controls.p_of(more, FalseDiscoveries(0.4)) == {"p_volume": 1 / 3, "p_share": 1 / 3, "p_maximum": 1}


def test_a_curve_counts_voxels_below_each_p():
    curve = Curve.of(surprise_of(np.array([0.1, 0.01, 0.011, 0.5, 1e-7], np.float32)), 2.5, 4.0, GRID)
    assert curve.volume_mm3.tolist() == [10, 5, 2.5]
    assert curve.share.tolist() == [0.8, 0.4, 0.2]
    empty = Curve.of(np.empty(0, np.float32), 2.5, 4.0, GRID)
    assert empty.volume_mm3.tolist() == empty.share.tolist() == [0, 0, 0]


def test_a_scan_is_counted_at_each_p_in_its_mask():
    shape = (4, 3, 5)
    surprise, mask = np.zeros(shape, np.float32), np.ones(shape, bool)
    surprise[0, 0, 0], surprise[1, 1, 0], surprise[1, 1, 1] = 3.5, 2.5, 2.5  # Edge, then face.
    surprise[3, 2, 4] = 9
    mask[3, 2, 4] = False
    score = np.where(mask, -1.0, 99.0)
    counted = count_scan(surprise, score, mask, AFFINE)
    at_001, at_0001 = (int(np.flatnonzero(GRID_P >= p)[-1]) for p in (0.01, 0.001))
    for connectivity, most in ((6, 18), (18, 27), (26, 27)):
        largest = counted.largest_mm3[connectivity]
        assert largest[at_001] == pytest.approx(most)
        assert largest[at_0001] == pytest.approx(9)
        assert largest[-1] == 0
    assert counted.curve.volume_mm3[at_001] == pytest.approx(27)
    assert counted.curve.share[at_001] == pytest.approx(3 / 59)
    assert counted.curve.maximum == -1
    assert counted.curve.volume_mm3[0] == pytest.approx(27)


def test_a_table_survives_json():
    rng, shape = np.random.default_rng(0), (5, 6, 4)
    scans = {
        id: count_scan(
            surprise_of(rng.random(shape).astype(np.float32)), rng.random(shape), np.ones(shape, bool), AFFINE
        )
        for id in ("sub-01", "sub-02", "sub-03")
    }
    controls = Controls.of(scans)
    read = Controls.from_told(json.loads(json.dumps(controls.told())), "calibration.json")
    assert read.ids == ("sub-01", "sub-02", "sub-03")
    for p in (0.4, 0.02, 1e-5):
        assert read.limit_mm3(p, 18) == controls.limit_mm3(p, 18)
    curve = scans["sub-02"].curve
    assert read.p_of(curve, FixedP(0.05)) == controls.p_of(curve, FixedP(0.05))
    # A scan of the table is at least as large as itself.
    assert read.p_of(curve, FixedP(0.05))["p_volume"] >= 2 / 4


@pytest.mark.parametrize(
    "change",
    [
        {"VolumeMm3": [[1, 2]]},
        {"Maximum": [1.0, math.nan]},
        {"LargestMm3": {"six": []}},
        {"P": [0.001, 0.01, 0.1]},
        {"Share": "a lot"},
        {"Scans": None},
    ],
)
def test_a_damaged_table_is_refused_by_name(change):
    told = table().told() | change
    with pytest.raises(
        ScanError, match=r"^out/calibration\.json: damaged: .*; score the scans again"
    ) as caught:
        Controls.from_told(told, "out/calibration.json")
    assert caught.value.code == "calibration.damaged"


def test_a_table_without_scans_is_none():
    with pytest.raises(SettingsError, match="needs a scan and falling p"):
        table(
            ids=(), largest_mm3={}, volume_mm3=np.empty((0, 3)), share=np.empty((0, 3)), maximum=np.empty(0)
        )


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), own=st.floats(-1e3, 1e3))
def test_a_p_value_is_never_0_and_falls_with_what_is_found(values, own):
    p = conformal(values, own)
    assert 1 / (len(values) + 1) <= p <= 1
    assert conformal(values, own + 1) <= p


def test_one_more_healthy_scan_exceeds_the_limit_as_often_as_it_should():
    # 9 controls and 1 more, 400 times: its largest cluster is above all of theirs in one case of ten.
    rng, above = np.random.default_rng(5), 0
    largest = rng.gamma(2.0, 30.0, (400, 10))
    for row in largest:
        controls = table(
            ids=tuple(map(str, range(9))),
            grid=np.array([0.1]),
            largest_mm3={26: row[:9, None]},
            volume_mm3=np.ones((9, 1)),
            share=np.ones((9, 1)),
            maximum=np.ones(9),
        )
        above += row[9] > controls.limit_mm3(0.05, 26)
    assert 25 <= above <= 55
