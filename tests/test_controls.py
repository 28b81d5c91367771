"""What calibration scans show, counted by hand, and what a scan is held against."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.calibrate.healthy_scans import THRESHOLDS_P, HealthyScans, floor_p, left_out_p
from mednovelty.calibrate.null import Null
from mednovelty.calibrate.scan_maps import ScanMaps
from mednovelty.errors import ScanError, SettingsError
from mednovelty.segment.controls import Controls, Curve, conformal
from mednovelty.segment.fdr import surprise_of
from mednovelty.segment.rules import FalseDiscoveries, FixedP
from mednovelty.segment.segmentation import MapToSegment, SegmentSettings, segment

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


TOLD = {
    "Scans": ["sub-01", "sub-02"],
    "ThresholdsP": [0.1, 0.01, 0.001],
    "Connectivities": [6, 26],
    "Scores": {
        "elbo": {
            "LargestMm3": [[[50, 9, 0], [60, 12, 0]], [[90, 30, 6], [99, 33, 7]]],
            "NovelMm3": [[100, 10, 0], [300, 40, 8]],
            "Share": [[0.10, 0.01, 0], [0.25, 0.05, 0.006]],
            "MaxScore": [5, 8],
            "SmallestP": 0.004,
        }
    },
}


def test_a_table_is_read_from_what_a_calibration_tells():
    read, made = Controls.from_told(json.loads(json.dumps(TOLD)), "elbo", "calibration.json"), table()
    assert (read.ids, read.floor_p) == (("sub-01", "sub-02"), 0.008)
    for name in ("grid", "volume_mm3", "share", "maximum"):
        assert getattr(read, name).tolist() == getattr(made, name).tolist()
    assert {c: rows.tolist() for c, rows in read.largest_mm3.items()} == {
        c: rows.tolist() for c, rows in made.largest_mm3.items()
    }


def test_p_that_no_control_can_have_is_held_against_the_lowest_that_they_can():
    # New scans can have 0.004, controls among the others 0.008 at best: 0.01 is asked, not 0.001.
    read = Controls.from_told(TOLD, "elbo", "calibration.json")
    assert [read.limit_mm3(p, 6) for p in (0.02, 0.004, 0.001)] == [90, 30, 30]
    assert read.p_cluster(20, 0.004, 6) == 2 / 3

    # Where it is told, as of scans that differ in size, it counts.
    told = TOLD | {"Scores": {"elbo": TOLD["Scores"]["elbo"] | {"FloorP": 0.02}}}
    read = Controls.from_told(told, "elbo", "calibration.json")
    assert [read.limit_mm3(p, 6) for p in (0.02, 0.004, 0.001)] == [90, 90, 90]
    # Nor is a scan as a whole counted where they cannot be.
    curve = Curve(np.array([90, 40, 20.0]), np.array([0.09, 0.04, 0.02]), 1.0)
    assert read.p_of(curve, FixedP(0.001))["p_volume"] == 1
    assert table().p_of(curve, FixedP(0.001))["p_volume"] == 1 / 3


def test_controls_of_different_sizes_leave_few_healthy_scans_with_a_cluster():
    # Sides of 4 and 16 voxels: at p = 0.001 only the small one can show anything, and a new scan can.
    rng, found, sides = np.random.default_rng(3), 0, (4, 16)
    maps = [ScanMaps(f"sub-{n}", np.ones((n,) * 3, bool), np.eye(4), (), Path()) for n in sides]
    for _ in range(30):
        values = [rng.normal(size=n**3) for n in sides]
        healthy = HealthyScans.measured(zip(maps, values, left_out_p(values, [None] * 2), strict=True))
        controls = table(
            grid=THRESHOLDS_P,
            largest_mm3={26: healthy.largest_mm3[:, 2]},
            volume_mm3=healthy.novel_mm3,
            share=healthy.share,
            maximum=healthy.max_score,
            floor_p=floor_p([n**3 for n in sides]),
        )
        p = Null.of(np.concatenate(values)).p(rng.normal(size=(16, 16, 16)))
        image = MapToSegment(-np.log10(p), np.ones(p.shape, bool), np.eye(4), -np.log10(p))
        made = segment(image, SegmentSettings(FixedP(0.001)), controls)
        found += made.numbers["clusters"] > 0
    # One in three at most, on average; without the floor it is nearly every one.
    assert found <= 14


@pytest.mark.parametrize(
    "change",
    [
        {"NovelMm3": [[1, 2]]},
        {"MaxScore": [1.0, math.nan]},
        {"LargestMm3": [1, 2]},
        {"SmallestP": [0.1, 0.2]},
        {"Share": "a lot"},
    ],
)
def test_a_damaged_table_is_refused_by_name(change):
    told = TOLD | {"Scores": {"elbo": TOLD["Scores"]["elbo"] | change}}
    with pytest.raises(
        ScanError, match=r"^out/calibration\.json: damaged: .*; score the scans again"
    ) as caught:
        Controls.from_told(told, "elbo", "out/calibration.json")
    assert caught.value.code == "calibration.damaged"
    for other in (TOLD | {"Scans": None}, TOLD | {"ThresholdsP": [0.001, 0.01, 0.1]}):
        with pytest.raises(ScanError, match="damaged"):
            Controls.from_told(other, "elbo", "out/calibration.json")


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
