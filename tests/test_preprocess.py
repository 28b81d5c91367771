"""Intensities and channel order."""

import re
from dataclasses import replace

import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.errors import ScanError, SchemeError, SettingsError
from mednovelty.preprocess.intensity import ChannelMean, MeanIntensity
from mednovelty.preprocess.qspace import GradientScheme, describe
from mednovelty.testing.models import tiny_scan

B = np.array([0.0, 1000, 0, 1000, 2000, 1000])
D = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0.6, 0.8], [0.6, 0, 0.8]])


def table(order=range(6), bvalues=B, directions=D):
    order = list(order)
    return gradient_table(bvalues[order], bvecs=directions[order], b0_threshold=50)


def scan_with(gradients, seed=0):
    return replace(tiny_scan(seed, channels=len(gradients.bvals)), gradients=gradients)


def test_mean_intensity_inside_the_mask_by_hand():
    scan = tiny_scan()
    expected = scan.voxels() / scan.voxels().astype(np.float64).mean()
    np.testing.assert_allclose(MeanIntensity()(scan).voxels(), expected, rtol=1e-5)


def test_mean_intensity_of_the_whole_scan():
    scan = replace(tiny_scan(), whole_mean=25.0)
    np.testing.assert_allclose(MeanIntensity("whole-scan")(scan).voxels(), scan.voxels() / 25, rtol=1e-5)


@given(gain=st.floats(1e-3, 1e3))
def test_the_scanners_gain_drops_out(gain):
    scan = tiny_scan()
    np.testing.assert_allclose(
        MeanIntensity()(scan.scaled(gain)).voxels(), MeanIntensity()(scan).voxels(), rtol=1e-5
    )


def test_channel_mean_counts_every_voxel_once():
    small, large = tiny_scan(1, shape=(4, 3, 5)), tiny_scan(2, shape=(7, 5, 6))
    step = ChannelMean.fit([small, large])
    expected = np.concatenate([small.voxels(), large.voxels()]).mean(0, dtype=np.float64)
    np.testing.assert_allclose(step.means, expected, rtol=1e-6)
    np.testing.assert_allclose(step(small).voxels(), small.voxels() / expected, rtol=1e-5)


def test_steps_leave_the_scan_as_it_was_and_come_back_from_their_state():
    scan = tiny_scan()
    before = scan.voxels()
    for step in (MeanIntensity(), ChannelMean.fit([tiny_scan(3)])):
        changed = step(scan).voxels()
        np.testing.assert_array_equal(scan.voxels(), before)
        np.testing.assert_array_equal(type(step)(**step.state())(scan).voxels(), changed)


def test_words_of_intensity_errors():
    with pytest.raises(ScanError, match=r"sub-tiny: its mean intensity \(mask\) is 0"):
        MeanIntensity()(tiny_scan().scaled(0))
    with pytest.raises(ScanError, match="sub-tiny: 5 channels; the training scans had 3"):
        ChannelMean((1.0, 2.0, 3.0))(tiny_scan())
    with pytest.raises(ScanError, match="channel 1 has mean 0 over the training scans"):
        ChannelMean((1.0, 0.0, 3.0))
    with pytest.raises(SettingsError, match="got 'brain'"):
        MeanIntensity("brain")


def test_the_same_scheme_is_left_in_place():
    scan = scan_with(table())
    assert GradientScheme.of(table())(scan) is scan


@given(order=st.permutations(range(6)))
def test_another_order_is_put_in_order(order):
    scan = scan_with(table())
    shuffled = replace(scan.take(np.array(order), table(order)))
    ordered = GradientScheme.of(table())(shuffled)
    weighted = B > 0
    np.testing.assert_array_equal(ordered.voxels()[:, weighted], scan.voxels()[:, weighted])
    np.testing.assert_allclose(ordered.gradients.bvals, B)
    # b=0 volumes cannot be told apart; all of them are there.
    np.testing.assert_array_equal(
        np.sort(ordered.voxels()[:, ~weighted], axis=1), np.sort(scan.voxels()[:, ~weighted], axis=1)
    )


def test_a_direction_and_its_opposite_are_one():
    flipped = table(directions=D * np.array([1, -1, 1, 1, -1, -1])[:, None])
    np.testing.assert_array_equal(GradientScheme.of(table()).order_of(flipped, "sub-01"), np.arange(6))


def test_small_turns_and_b_value_jitter_are_the_same_scheme():
    turn = np.deg2rad(3)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    jittered = table(bvalues=B + np.array([5, 10, 0, -15, 40, 20]), directions=D @ rotation.T)
    np.testing.assert_array_equal(GradientScheme.of(table()).order_of(jittered, "sub-01"), np.arange(6))


def test_what_differs_is_said():
    scheme = GradientScheme.of(table())
    with pytest.raises(
        SchemeError, match=re.escape("sub-tiny: has no gradients; the detector knows 6 volumes")
    ):
        scheme(tiny_scan())
    with pytest.raises(SchemeError, match=re.escape(
        "sub-02: acquired with 4 volumes: 1 at b=0, 3 at b=1000; the detector knows "
        "6 volumes: 2 at b=0, 3 at b=1000, 1 at b=2000"
    )):  # fmt: skip
        scheme.order_of(table([0, 1, 3, 5]), "sub-02")
    with pytest.raises(SchemeError, match="1 at b=3000; the detector knows"):
        scheme.order_of(table(bvalues=np.array([0.0, 1000, 0, 1000, 3000, 1000])), "sub-02")
    turned = D.copy()
    turned[3] = [0, np.cos(0.5), np.sin(0.5)]
    with pytest.raises(SchemeError, match=r"detector's gradient 3 \(b=1000, .*28\.6 degrees away"):
        scheme.order_of(table(directions=turned), "sub-02")


def test_scheme_comes_back_from_its_state():
    scheme = GradientScheme.of(table(), angle_tolerance_deg=2.0)
    assert GradientScheme(**scheme.state()) == scheme


def test_describe_counts_shells():
    assert describe([0, 5, 995, 1005, 2000]) == "5 volumes: 2 at b=0, 2 at b=1000, 1 at b=2000"
