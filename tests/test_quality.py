"""What is told of a scan's quality: signal of each volume, gradients, agreement with the detector."""

import json

import numpy as np
import pytest
from cohorts import tiny_cohort, tiny_detector

from mednovelty.io.read_scan import read_scan
from mednovelty.io.scan_folder import scan_folder
from mednovelty.preprocess.qspace import GradientScheme
from mednovelty.quality import Quality, outlying
from mednovelty.report.quality_figures import gradients_svg, scheme_rows, signal_chart


def patient():
    return read_scan(next(iter(scan_folder(tiny_cohort().patients))))


def test_the_signal_is_the_mean_inside_the_mask():
    scan = patient()
    found = Quality.of(scan, tiny_detector()[0].scheme)
    assert found.signal == pytest.approx(scan.voxels().mean(0, dtype=np.float64), rel=1e-5)
    assert found.input_sha256 == scan.sha256
    assert len(found.bvalues_s_per_mm2) == scan.n_channels


def test_angles_are_those_between_the_detectors_gradients_and_the_scans():
    scan = patient()
    # The detector knows the same gradients, in another order, each turned by 3 degrees about z.
    turn, c, s = np.arange(scan.n_channels)[::-1], np.cos(np.radians(3)), np.sin(np.radians(3))
    own = GradientScheme.of(scan.gradients)
    directions = np.array(own.directions) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T
    scheme = GradientScheme(
        tuple(np.array(own.bvalues_s_per_mm2)[turn]), tuple(map(tuple, -directions[turn]))
    )
    found = Quality.of(scan, scheme)
    height = np.array(own.directions)[turn][:, 2]
    weighted = np.array(own.bvalues_s_per_mm2)[turn] > 50
    # A direction at height z is turned by 2 asin(sqrt(1 - z^2) sin(1.5 degrees)).
    expected = np.degrees(2 * np.arcsin(np.sqrt(1 - height**2) * np.sin(np.radians(1.5))))
    assert found.angle_deg == pytest.approx(np.where(weighted, expected, 0), abs=1e-3)
    rows = dict(scheme_rows(found))
    assert rows["largest angle between gradients"].startswith(f"{found.angle_deg.max():.2f} degrees")


def test_gradients_that_do_not_fit_are_told():
    scan = patient()
    found = Quality.of(scan, GradientScheme((0.0, 3000.0), ((0, 0, 0), (1, 0, 0))))
    assert dict(scheme_rows(found))["agreement"] == "they do not fit: the detector refuses such scans"


def test_it_comes_back_from_its_file(tmp_path):
    found = Quality.of(patient(), tiny_detector()[0].scheme)
    found.write(tmp_path / "q.json")
    again = Quality.read(tmp_path / "q.json")
    assert again.signal == pytest.approx(found.signal, rel=1e-5)
    assert again.angle_deg == pytest.approx(found.angle_deg, abs=1e-4)
    assert again.told() == found.told()


@pytest.mark.parametrize(
    "change", [{"MeanSignal": "x"}, {"MeanSignal": [1.0]}, {"Directions": [[1, 2, None]]}]
)
def test_a_damaged_file_tells_nothing(tmp_path, change):
    told = Quality.of(patient(), None).told() | change
    (tmp_path / "q.json").write_text(json.dumps(told))
    assert Quality.read(tmp_path / "q.json") is None
    assert Quality.read(tmp_path / "absent.json") is None


def test_outliers_are_far_in_deviations_and_in_signal():
    b = np.array([0.0] + [1000.0] * 6 + [2000.0] * 3)
    signal = np.array([900.0, 50, 51, 49, 50.5, 49.5, 30, 20, 20, 90])
    # The shell of three says nothing; 30 is 20 below a median of 49.75, with a deviation of about 1.
    assert np.flatnonzero(outlying(signal, b)).tolist() == [6]
    # 52 is far in deviations of a shell that hardly differs, but not by 5 %.
    assert not outlying(np.array([50, 50.001, 49.999, 50, 52.0]), np.full(5, 1000.0)).any()


@pytest.mark.parametrize(("away", "expected"), [(74.0, []), (74.3, [7, 8])])
def test_five_standard_deviations_are_those_of_a_normal_distribution(away, expected):
    # The median absolute deviation is 10: a standard deviation of 14.826, and five are 74.13.
    signal = np.array([90.0, 90, 90, 100, 110, 110, 110, 100 - away, 100 + away])
    assert np.flatnonzero(outlying(signal, np.full(9, 1000.0))).tolist() == expected


def test_an_outlier_is_marked_and_named():
    signal = np.array([900.0, 50, 51, 49, 50.5, 49.5, 30])
    b = np.array([0.0] + [1000.0] * 6)
    chart, words = signal_chart(Quality(signal, (), b, np.eye(3)[[0] * 7]))
    assert words.startswith("1 of 7 volumes are outliers, counted from 0: 6 (b = 1000).")
    assert chart.series[-1].label == "outliers"
    assert list(chart.series[-1].y) == [30]


def test_a_gradient_to_the_right_is_drawn_on_the_left():
    directions = np.array([[0, 0, 0], [0.8, 0, 0.6], [0, -0.6, -0.8]])
    svg = gradients_svg(Quality(np.ones(3), (), np.array([0.0, 1000, 1000]), directions))
    # The middle is (110, 124), the radius 96; the second is shown by its opposite, to the front, above.
    assert 'cx="33.2" cy="124.0"' in svg
    assert 'cx="110.0" cy="66.4"' in svg
