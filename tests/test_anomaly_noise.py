"""Noise is told from signal by fits over directions, and planted anomalies are as noisy as tissue."""

import pytest
import torch
from anomaly_hosts import crossing_signals, directions, drawn

from mednovelty.anomalies.bundles import Rows
from mednovelty.anomalies.diffusion import AnisotropyLoss, Exchange, SignalChange
from mednovelty.anomalies.host import Gradients, Host
from mednovelty.anomalies.noise import fit_matrix, given_back, silenced, split_noise


def scheme(first=20, second=50):
    """Two volumes at b = 0 and two shells."""
    b = torch.tensor([0.0] * 2 + [700.0] * first + [1500.0] * second)
    return Gradients(b, torch.cat([torch.zeros(2, 3), directions(first + second)]))


def rows_of(signals, gradients):
    n = len(signals)
    own = torch.arange(n)
    return Rows(signals, torch.ones(n), own, gradients.bvalues_s_per_mm2, gradients.directions, n)


def test_the_fit_leaves_what_even_polynomials_describe_and_averages_the_rest():
    known = scheme()
    fit = fit_matrix(known.bvalues_s_per_mm2, known.directions)
    torch.testing.assert_close(fit @ fit, fit, rtol=0, atol=1e-5)
    assert torch.equal(fit[:2, :2], torch.full((2, 2), 0.5))  # Those at b = 0 by their mean.
    assert not fit[:2, 2:].any()
    assert not fit[2:22, 22:].any()  # Shells are apart.
    quadratic = known.directions[2:22, 0] * known.directions[2:22, 1] + 3
    torch.testing.assert_close(fit[2:22, 2:22] @ quadratic, quadratic, rtol=0, atol=1e-4)
    quartic = known.directions[22:, 2] ** 4 - known.directions[22:, 0] ** 2
    torch.testing.assert_close(fit[22:, 22:] @ quartic, quartic, rtol=0, atol=1e-4)
    # A projection's trace is its rank: 6 quadratic, 15 quartic polynomials.
    assert fit[2:22, 2:22].trace().item() == pytest.approx(6, abs=1e-3)
    assert fit[22:, 22:].trace().item() == pytest.approx(15, abs=1e-3)


def test_of_few_directions_nothing_is_known():
    few = scheme(5, 11)
    assert torch.equal(fit_matrix(few.bvalues_s_per_mm2, few.directions)[2:, 2:], torch.eye(16))
    assert silenced(few.bvalues_s_per_mm2) == (5, 11)
    assert silenced(scheme().bvalues_s_per_mm2) == ()


def noisy(known, n=4000, sigma=2.0):
    clean = crossing_signals(known, 1)[0].expand(n, -1)
    return clean, clean + sigma * torch.randn(clean.shape, generator=drawn(4))


@pytest.mark.parametrize(
    "family",
    [
        Exchange(fraction=(0.7, 0.7), diffusivity_mm2_per_s=(1e-3, 1e-3), relative_s0=(1.2, 1.2)),
        AnisotropyLoss(fraction=(1.0, 1.0)),
        SignalChange(factor=(1.2, 1.2)),
    ],
)
def test_voxels_with_an_anomaly_are_as_noisy_as_those_without(family):
    known = scheme()
    _, signals = noisy(known)
    host = Host(signals, torch.ones(len(signals), dtype=torch.bool), gradients=known)
    made = family.plant(host, drawn(1)).images
    # Half of the changes of s0 go up and half down; each by itself.
    lower = made[:, 2:].mean(1) < signals[:, 2:].mean(1)
    for part in (lower, ~lower):
        if part.any():
            spread = made[part].std(0)  # At b = 0, too.
            assert (spread / 2.0).mean().item() == pytest.approx(1, abs=0.04)
            assert (spread / 2.0 - 1).abs().max() < 0.25


def test_without_noise_the_formula_is_that_of_the_signals():
    known = scheme()
    # A tensor whose attenuation is nearly 1: quadratic in the directions.
    signals = 50 * (1 - 1e-6 * known.bvalues_s_per_mm2[None] * (1 + known.directions[:, 0] ** 2))
    host = Host(signals, torch.ones(1, dtype=torch.bool), gradients=known)
    made = (
        Exchange(fraction=(0.4, 0.4), diffusivity_mm2_per_s=(2e-3, 2e-3), relative_s0=(1.0, 1.0))
        .plant(host, drawn())
        .images
    )
    water = torch.exp(-2e-3 * known.bvalues_s_per_mm2)
    torch.testing.assert_close(made, 0.6 * signals + 0.4 * 50 * water, rtol=1e-5, atol=1e-4)


def test_noise_is_scaled_by_what_the_fit_has_kept_of_it():
    known = scheme()
    _, signals = noisy(known, 3)
    smooth, noise, kept = split_noise(rows_of(signals, known))
    torch.testing.assert_close(smooth.signals + noise, signals)
    assert torch.equal(given_back(noise, kept, torch.ones(3, 1))[:, 2:], noise[:, 2:])
    none = given_back(noise, kept, torch.zeros(3, 1))
    torch.testing.assert_close(none[:, 2:], noise[:, 2:] / (1 - kept[2:]).sqrt())
    assert none.isfinite().all()
