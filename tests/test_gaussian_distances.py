"""Bhattacharyya distances and densities of Gaussians, as a reference answers for them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.errors import SettingsError
from mednovelty.reference import Reference

SEEDS = st.integers(0, 999)


def gaussians(count, width, seed):
    drawn = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(count, width, generator=drawn), 0.3 + 2 * torch.rand(count, width, generator=drawn)


def reference(mean, sigma):
    return Reference({"latent_mean": mean, "latent_sigma": sigma}, "exact", len(mean))


def distance(first, second):
    """Return D_B of two Gaussians, the second being all that the reference holds."""
    return reference(*second).nearest_gaussian("latent", *first)


@given(SEEDS, st.integers(1, 40))
def test_symmetric_at_least_0_and_0_for_itself(seed, width):
    first, second = gaussians(1, width, seed), gaussians(1, width, seed + 1)
    there, back = distance(first, second), distance(second, first)
    torch.testing.assert_close(there, back, rtol=1e-5, atol=1e-5)
    assert there > 1e-3
    torch.testing.assert_close(distance(first, first), torch.zeros(1), rtol=0, atol=1e-5)


@given(SEEDS, st.floats(0.1, 30))
def test_equal_variances_leave_the_squared_distance_over_8_variances(seed, sigma):
    (first, _), (second, _) = gaussians(1, 7, seed), gaussians(1, 7, seed + 1)
    wide = torch.full_like(first, sigma)
    expected = (first - second).square().sum(1) / (8 * sigma**2)
    torch.testing.assert_close(distance((first, wide), (second, wide)), expected, rtol=1e-4, atol=1e-5)


@given(SEEDS, st.floats(0.2, 5))
def test_units_and_origins_do_not_matter(seed, unit):
    (m1, s1), (m2, s2) = gaussians(1, 7, seed), gaussians(1, 7, seed + 1)
    moved = distance((unit * m1 + 3, unit * s1), (unit * m2 + 3, unit * s2))
    torch.testing.assert_close(moved, distance((m1, s1), (m2, s2)), rtol=1e-3, atol=1e-4)


def test_against_monte_carlo():
    # D_B = -ln E_p sqrt(q / p)
    (m1, s1), (m2, s2) = gaussians(1, 3, 0), gaussians(1, 3, 1)
    drawn = m1 + s1 * torch.randn(400_000, 3, generator=torch.Generator().manual_seed(2))
    p, q = torch.distributions.Normal(m1, s1), torch.distributions.Normal(m2, s2)
    coefficient = ((q.log_prob(drawn) - p.log_prob(drawn)).sum(1) / 2).exp().mean()
    torch.testing.assert_close(distance((m1, s1), (m2, s2)), -coefficient.log()[None], rtol=0.02, atol=0)


def test_hundreds_of_dimensions_stay_in_range():
    # The product of 784 variances of 1e-4 is 0 in any float; 1/2 of (1/2 ln of 5/4 squared) a dimension.
    mean, wide = torch.zeros(2, 784), torch.full((2, 784), 0.02)
    expected = torch.full((2,), 784 / 2 * math.log((1 + 4) / 2 / 2))
    torch.testing.assert_close(
        reference(mean[:1], wide[:1] / 2).nearest_gaussian("latent", mean, wide), expected
    )


def test_the_nearest_gaussian_is_not_the_nearest_mean():
    # To N(0, 1): N(1, 1) is at 1/8, N(0, 0.1^2) at ln(0.505 / 0.1) / 2.
    normals = reference(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.1], [1.0]]))
    found = normals.nearest_gaussian("latent", torch.zeros(1, 1), torch.ones(1, 1))
    torch.testing.assert_close(found, torch.tensor([1 / 8]))


@given(SEEDS, st.integers(1, 40), st.integers(1, 9))
def test_a_density_lies_between_its_best_normals_share_and_its_best_normal(seed, count, width):
    mean, sigma = gaussians(count, width, seed)
    points = gaussians(5, width, seed + 1)[0]
    each = torch.distributions.Normal(mean, sigma).log_prob(points[:, None]).sum(-1).amax(1)
    found = reference(mean, sigma).log_density("latent", points)
    assert (found <= each + 1e-3).all()
    assert (found >= each - math.log(count) - 1e-3).all()


def test_a_density_integrates_to_1():
    mean, sigma = gaussians(11, 2, 0)
    axis = torch.linspace(-20, 20, 201)
    grid = torch.cartesian_prod(axis, axis)
    total = reference(mean, sigma).log_density("latent", grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-3)


def test_copies_of_the_normals_change_no_density():
    mean, sigma = gaussians(11, 3, 0)
    points = gaussians(5, 3, 1)[0]
    once = reference(mean, sigma).log_density("latent", points)
    twice = reference(mean.repeat(2, 1), sigma.repeat(2, 1)).log_density("latent", points)
    torch.testing.assert_close(once, twice)


def test_many_queries_are_answered_in_chunks_as_one_by_one(monkeypatch):
    mean, sigma = gaussians(23, 3, 0)
    query_mean, query_sigma = gaussians(11, 3, 1)
    whole = reference(mean, sigma)
    rows = list(zip(query_mean.split(1), query_sigma.split(1), strict=True))
    near = torch.cat([reference(mean, sigma).nearest_gaussian("latent", *row) for row in rows])
    dense = torch.cat([reference(mean, sigma).log_density("latent", row) for row, _ in rows])
    torch.testing.assert_close(whole.nearest_gaussian("latent", query_mean, query_sigma), near)
    torch.testing.assert_close(whole.log_density("latent", query_mean), dense)


def test_missing_parts_are_named():
    normals = Reference({"latent_mean": torch.zeros(3, 2)}, "exact", 3)
    with pytest.raises(SettingsError, match="holds latent_mean, but not 'latent_sigma'; fit with the scores"):
        normals.log_density("latent", torch.zeros(2, 2))
    with pytest.raises(SettingsError, match="but not 'reconstruction_mean'"):
        normals.nearest_gaussian("reconstruction", torch.zeros(2, 2), torch.ones(2, 2))
