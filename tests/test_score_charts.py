"""Charts of scores beside held-out normals, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from mednovelty.calibrate.null import Null
from mednovelty.explaining.null_curve import NullCurve
from mednovelty.report.cohort_charts import highest_chart
from mednovelty.report.null_chart import score_chart
from mednovelty.report.scan_facts import MapFacts
from mednovelty.segment.controls import Controls
from mednovelty.segment_files import SegmentNames


@pytest.fixture
def facts(tmp_path):
    return MapFacts("elbo", SegmentNames.beside(tmp_path / "a_desc-elbo_novelty.nii.gz"), {}, {}, ())


def test_bars_and_curve_are_shares_of_their_own(facts):
    values = np.arange(2000) / 10 + 0.05  # Evenly over 0 to 200,
    null = NullCurve.of(Null.of(np.arange(10_000) / 100 + 0.005))  # and over 0 to 100.
    chart = score_chart(facts, values, null, 150.0)
    scan, normals = chart.series
    assert np.nansum(scan.y) == pytest.approx(1)
    assert np.nansum(normals.y) == pytest.approx(1, abs=0.02)
    width = np.diff(normals.x[:2])[0]
    below, above = normals.x < 100 - width, normals.x > 100 + width
    np.testing.assert_allclose(normals.y[below][1:], width / 100, rtol=0.02)
    assert np.isnan(normals.y[above]).all()  # None is there, and a logarithm has no 0.
    np.testing.assert_allclose(scan.y[1:-1], width / 200, rtol=0.1)
    assert "half of the scan's voxels score above 100," in chart.alt
    assert "half score above 50" in chart.alt
    assert "which 50.5 % of this scan's voxels exceed" in chart.alt  # 101 of 200 are above 99.
    assert chart.marks == [(150.0, "segmented from 150")]


def test_without_a_null_there_are_the_scans_own_scores_alone(facts):
    chart = score_chart(facts, np.arange(100.0), None, None)
    assert [one.label for one in chart.series] == ["this scan, 100 voxels"]
    assert "held-out" not in chart.alt


def test_scans_above_all_calibration_scans_are_counted(facts):
    grid, table = np.array([0.1, 0.01]), np.zeros((3, 2))
    controls = Controls(("a", "b", "c"), grid, {}, table, table, np.array([2.0, 5.0, 3.0]))
    highest = (1.0, 4.0, 5.5, 9.0, float("nan"), None)
    of = [(None, replace(facts, segmentation={"Numbers": {"maximum": one}})) for one in highest]
    chart = highest_chart("elbo", of, controls)
    assert chart.alt == (
        "Highest elbo of each scan: 4 scans from 1 to 9, 3 calibration scans from 2 to 5; 2 scans lie above "
        "all calibration scans."
    )
    calibration, scans = chart.series
    assert list(calibration.x) == [2, 5, 3]
    assert list(scans.x) == [1, 4, 5.5, 9]
