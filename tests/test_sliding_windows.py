"""The benchmark of sliding windows measures what it says."""

import json

import numpy as np
import pytest
import torch

from mednovelty.benchmarks.sliding_windows import (
    divergence,
    forward,
    head_like_scan,
    kl_gradient,
    main,
    network,
)


def test_it_prints_its_figures(capsys):
    main(["--shape", "40", "36", "33", "--rounds", "2", "--channels", "3"])
    found = json.loads(capsys.readouterr().out)
    # Windows begin at 0 and 8, 0 and 4, 0 and 1, and each has some of the ellipsoid.
    assert found["windows"] == 8
    for clock in ("seconds", "processor_seconds"):
        assert found[clock]["ratio"] == pytest.approx(np.median(found[clock]["ratios"]), abs=2e-3)
        assert len(found[clock]["ratios"]) == 2
        assert found[clock]["forward"] > 0
    assert "peak_mib" not in found  # Only a card tells.


def test_the_score_is_the_gradient_of_the_divergence():
    torch.manual_seed(1)
    model = network(2, 32).double()
    x = torch.randn(3, 2, 32, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        score = kl_gradient(model, x)["kl_gradient"]
        step, slopes = 1e-4, []
        for channel in range(2):
            ends = []
            for sign in (1, -1):
                moved = x.clone()
                moved[1, channel, 15, 16, 17] += sign * step
                ends.append(divergence(model, moved)[1])
            slopes.append((ends[0] - ends[1]) / (2 * step))
    assert score.shape == (3, 32, 32, 32)
    np.testing.assert_allclose(score[1, 15, 16, 17], sum(abs(s) for s in slopes), rtol=1e-4)


def test_the_scan_fills_its_grid():
    scan = head_like_scan((20, 24, 18), 2)
    assert all(scan.mask.any(axes).all() for axes in ((1, 2), (0, 2), (0, 1)))
    assert 0.45 < scan.mask.mean() < 0.6


def test_forward_is_the_reconstruction_of_the_mean():
    model, x = network(2, 16), torch.randn(3, 2, 16, 16, 16)
    expected = model.decode(model.encode(x.flatten(1)).mean).mean.reshape(x.shape)
    torch.testing.assert_close(forward(model, x), expected.detach())
