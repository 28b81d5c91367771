"""The trivial baselines by hand."""

import math

import pytest
import torch

from mednovelty.batch import Batch
from mednovelty.methods.raw_intensity import RawAttenuation, RawB0, RawDWI

# Channels: b=0, dwi, b=0, dwi, dwi
IS_B0 = torch.tensor([True, False, True, False, False])
SIGNAL = torch.tensor([[300.0, 50.0, 100.0, 100.0, 25.0], [0.0, 3.0, 0.0, 6.0, 9.0]])
BATCH = Batch(torch.full((2, 5), math.nan), signal=SIGNAL)


def test_raw_b0_is_the_mean_of_the_b0_volumes():
    assert RawB0(IS_B0).score(BATCH).tolist() == [200.0, 0.0]


def test_raw_dwi_is_the_mean_of_the_weighted_volumes():
    assert RawDWI(IS_B0).score(BATCH).tolist() == pytest.approx([175 / 3, 6.0])


def test_raw_attenuation_is_higher_where_more_signal_is_lost():
    # ln(200/50) + ln(200/100) + ln(200/25) = ln(4 * 2 * 8); without b=0 signal nothing can be said: 0
    assert RawAttenuation(IS_B0).score(BATCH).tolist() == pytest.approx([math.log(64) / 3, 0.0])


def test_raw_attenuation_stays_finite_where_the_signal_is_gone():
    signal = torch.tensor([[100.0, 0.0, 100.0, -5.0, 100.0]])
    score = RawAttenuation(IS_B0).score(Batch(signal, signal=signal)).item()
    assert score == pytest.approx(2 * math.log(1000) / 3)


def test_a_raw_score_asks_for_the_signal():
    with pytest.raises(ValueError, match="give the batch its signal"):
        RawB0(IS_B0).score(Batch(SIGNAL))
