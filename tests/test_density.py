"""Log densities of mixtures: by hand, against float64, and how far the fast form is off."""

import math

import pytest
import torch
from clouds import gaussians
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Independent, Normal

from mednovelty.neighbours import density, fast_density
from mednovelty.neighbours.density import ExactDensity
from mednovelty.neighbours.fast_density import TOLERANCE_NATS, FastDensity


def brute(points, mean, sigma):
    """(B,) in float64, one Gaussian at a time."""
    each = Independent(Normal(mean.double(), sigma.double()), 1).log_prob(points.double()[:, None])
    return each.logsumexp(1) - math.log(len(mean))


def test_by_hand():
    # Two Gaussians of sigma 2 and 1/2 at 0 and 4, asked at 1: half the sum of their densities.
    mixture = ExactDensity(torch.tensor([[0.0], [4.0]]), torch.tensor([[2.0], [0.5]]))
    first = math.exp(-1 / 8) / (2 * math.sqrt(2 * math.pi))
    second = math.exp(-18) / (0.5 * math.sqrt(2 * math.pi))
    assert mixture.log_density(torch.tensor([[1.0]])).item() == pytest.approx(
        math.log((first + second) / 2), rel=1e-6
    )


@given(seed=st.integers(0, 50), n=st.integers(1, 40), b=st.integers(1, 20), width=st.integers(1, 7))
def test_exact_equals_float64(seed, n, b, width):
    parts, points = gaussians(n, width, seed), gaussians(b, width, seed + 100)[0]
    ours = ExactDensity(*parts).log_density(points)
    torch.testing.assert_close(ours.double(), brute(points, *parts), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("family", [ExactDensity, FastDensity])
def test_small_sigmas_far_from_the_origin_lose_no_digits(family):
    # a^2 / s^2 is some 1e10 here, and its difference to the other terms about 1.
    mean = 1000 + gaussians(200, 5, 0)[0]
    sigma = torch.full_like(mean, 0.01) * torch.tensor([1.0, 2, 3, 4, 5])
    points = mean[:50] + sigma[:50] * torch.randn(50, 5, generator=torch.Generator().manual_seed(3))
    ours = family(mean, sigma).log_density(points)
    # float32 holds the differences themselves to 6e-5 near 1000, some thousandths of a sigma.
    torch.testing.assert_close(
        ours.double(), brute(points, mean, sigma), rtol=0, atol=0.05 if family is FastDensity else 1e-4
    )


def test_nothing_underflows_far_away():
    parts = gaussians(50, 5, 0)
    far = ExactDensity(*parts).log_density(torch.full((1, 5), 1e4))
    assert far.item() == pytest.approx(brute(torch.full((1, 5), 1e4), *parts).item(), rel=1e-5)
    assert -1e11 < far.item() < -1e6
    assert FastDensity(*parts).log_density(torch.full((1, 5), 1e4)).item() == pytest.approx(
        far.item(), rel=1e-3
    )


@pytest.mark.parametrize("a_chunk", [1, 3, 31, 100])
def test_chunks_change_nothing(monkeypatch, a_chunk):
    parts, points = gaussians(31, 3, 0), gaussians(17, 3, 1)[0]
    whole = ExactDensity(*parts).log_density(points)
    monkeypatch.setattr(density, "GAUSSIANS_A_CHUNK", a_chunk)
    monkeypatch.setitem(density.TERMS_A_CHUNK, "cpu", 5 * a_chunk)
    torch.testing.assert_close(ExactDensity(*parts).log_density(points), whole, rtol=1e-6, atol=1e-6)


def test_memory_is_bounded_by_the_chunk(monkeypatch):
    sizes = []
    summed = density.log_sum_exp
    monkeypatch.setattr(density, "log_sum_exp", lambda terms: (sizes.append(terms.numel()), summed(terms))[1])
    monkeypatch.setattr(density, "GAUSSIANS_A_CHUNK", 10)
    monkeypatch.setitem(density.TERMS_A_CHUNK, "cpu", 50)
    ExactDensity(*gaussians(31, 3, 0)).log_density(gaussians(17, 3, 1)[0])
    assert max(sizes) == 50
    assert sum(sizes) == 31 * 17


def test_a_share_below_float32_changes_nothing_and_none_is_lost():
    terms = torch.tensor([[0.0, -1.0, -200.0, -1e30], [-5e8, -5e8, -6e8, -7e8]], dtype=torch.float64)
    expected = terms.logsumexp(1)
    torch.testing.assert_close(density.log_sum_exp(terms.clone()), expected, rtol=1e-7, atol=1e-7)


def test_no_points_no_densities():
    parts = gaussians(31, 3, 0)
    for family in (ExactDensity, FastDensity):
        assert family(*parts).log_density(torch.empty(0, 3)).shape == (0,)


@pytest.mark.parametrize("target", [0.9, 0.99])
def test_the_fast_form_reaches_its_target_and_says_so(target):
    parts, points = gaussians(3000, 5, 1), gaussians(700, 5, 2)[0]
    fast, quality = FastDensity.tuned(parts, points, target, 7)
    error = (fast.log_density(points).double() - brute(points, *parts)).abs()
    assert quality.recall == pytest.approx((error <= TOLERANCE_NATS).double().mean().item(), abs=2 / 700)
    assert quality.recall >= target
    assert quality.mean_error_nats == pytest.approx(error.mean().item(), abs=1e-4)
    assert quality.max_error_nats == pytest.approx(error.max().item(), abs=1e-3)
    assert quality.share_compared < 0.7


def test_what_is_left_out_only_makes_it_smaller():
    parts, points = gaussians(3000, 5, 1), gaussians(700, 5, 2)[0]
    exact = ExactDensity(*parts).log_density(points)
    few, more = (FastDensity(*parts, probes).log_density(points) for probes in (1, 8))
    assert (few <= more + 1e-4).all()
    assert (more <= exact + 1e-4).all()
    assert (exact - few).max() > 10 * (exact - more).max()


def test_the_fast_form_is_the_same_bits_again_and_in_any_company(monkeypatch):
    parts, points = gaussians(3000, 5, 1), gaussians(300, 5, 2)[0]
    fast = FastDensity(*parts, 16, seed=7)
    whole = fast.log_density(points)
    kept = FastDensity.restored(parts, fast.settings(), fast.state())
    assert torch.equal(whole, kept.log_density(points))
    assert torch.equal(whole, FastDensity(*parts, 16, seed=7).log_density(points))
    monkeypatch.setattr(fast_density, "ENTRIES_A_CHUNK", 16 * 7)
    monkeypatch.setattr(fast_density, "TERMS_A_CHUNK", 1000)
    torch.testing.assert_close(whole, fast.log_density(points), rtol=1e-6, atol=1e-5)


def test_damaged_states_are_refused():
    parts = gaussians(300, 3, 0)
    fast = FastDensity(*parts)
    state = fast.state()
    with pytest.raises(ValueError, match="probes must be a whole number from 1 to 16, got 17"):
        FastDensity.restored(parts, {"lists": 16, "probes": 17}, state)
    with pytest.raises(ValueError, match="tensor 'assignments' is missing; there: centre, centroids"):
        FastDensity.restored(parts, fast.settings(), {k: state[k] for k in ("centre", "centroids")})
