"""Scores that compare reconstructions with the normals': by hand, and against integrals and plain loops."""

import math

import pytest
import torch
from by_hand import LOG_2PI, scores

from mednovelty.batch import Batch
from mednovelty.plugins import plugin
from mednovelty.reference import Reference
from mednovelty.testing.models import HeteroscedasticVAE, random_samples


def test_equation_12_reconstruction_euclidean():
    # (1, -1, 0) to (1, -2, -1); (2, 1, 3) to (3, 2, 5)
    assert scores("reconstruction_euclidean") == pytest.approx([2, 6])


def test_equation_13_reconstruction_bhattacharyya_takes_variances():
    # x1, variances (4, 4, 16), to y1, (4, 4, 25); x2, (4, 9, 16), to y2, (4, 16, 25)
    first = (1 / 4 + 1 / 20.5) / 8 + math.log(20.5 / 20) / 2
    second = (1 / 4 + 1 / 12.5 + 4 / 20.5) / 8 + math.log(12.5 / 12 * 20.5 / 20) / 2
    assert scores("reconstruction_bhattacharyya") == pytest.approx([first, second])


def minus_log_mean(*exponents_and_volumes):
    terms = [math.exp(-exponent) / volume for exponent, volume in exponents_and_volumes]
    return 1.5 * LOG_2PI - math.log(sum(terms) / len(terms))


def test_equation_14_reconstruction_density_takes_the_normals_sigma():
    # (1, -1, 0) is (0, 1, 1) from y1, (2, 3, 5) from y2, (2, 2, 0) from y3.
    first = minus_log_mean((1 / 8 + 1 / 50, 20), (4 / 8 + 9 / 32 + 25 / 50, 40), (4 / 8 + 4 / 8, 16))
    # (2, 1, 3) is (1, 3, 4) from y1, (1, 1, 2) from y2, (3, 0, 3) from y3.
    second = minus_log_mean(
        (1 / 8 + 9 / 8 + 16 / 50, 20), (1 / 8 + 1 / 32 + 4 / 50, 40), (9 / 8 + 9 / 32, 16)
    )
    assert scores("reconstruction_density") == pytest.approx([first, second])


def test_equation_15_input_to_reconstruction_euclidean():
    # (2, -1, 0) to y1's (1, -2, -1); (0, 2, 1) to y3's (-1, 1, 0)
    assert scores("input_to_reconstruction_euclidean") == pytest.approx([3, 3])


def test_equation_16_input_density():
    # (2, -1, 0) is (1, 1, 1) from y1, (1, 3, 5) from y2, (3, 2, 0) from y3.
    first = minus_log_mean((1 / 8 + 1 / 8 + 1 / 50, 20), (1 / 8 + 9 / 32 + 25 / 50, 40), (9 / 8 + 4 / 8, 16))
    # (0, 2, 1) is (1, 4, 2) from y1, (3, 0, 4) from y2, (1, 1, 1) from y3.
    second = minus_log_mean(
        (1 / 8 + 16 / 8 + 4 / 50, 20), (9 / 8 + 16 / 50, 40), (1 / 8 + 1 / 8 + 1 / 32, 16)
    )
    assert scores("input_density") == pytest.approx([first, second])


def test_equation_17_reconstruction_to_input_euclidean():
    # (1, -1, 0) to y1 = (1, 0, 2); (2, 1, 3) to y1: 1 + 1 + 1
    assert scores("reconstruction_to_input_euclidean") == pytest.approx([5, 3])


MODEL = HeteroscedasticVAE(6, 3)
QUERIES, NORMALS = random_samples(7, 6, seed=1), random_samples(29, 6, seed=2)


def reconstructed(x):
    return MODEL.decode(MODEL.encode(x).mean)


def score(name):
    kind = plugin("scorers", name)
    reference = Reference.of(MODEL, NORMALS, kind.reference_parts)
    return kind(model=MODEL, reference=reference).score(Batch(QUERIES))


@pytest.mark.parametrize(
    ("name", "points", "normals"),
    [
        ("nearest_normal", QUERIES, NORMALS),
        ("latent_euclidean", MODEL.encode(QUERIES).mean, MODEL.encode(NORMALS).mean),
        ("reconstruction_euclidean", reconstructed(QUERIES).mean, reconstructed(NORMALS).mean),
        ("input_to_reconstruction_euclidean", QUERIES, reconstructed(NORMALS).mean),
        ("reconstruction_to_input_euclidean", reconstructed(QUERIES).mean, NORMALS),
    ],
)
def test_distances_are_those_of_every_pair(name, points, normals):
    every = (points[:, None].double() - normals.double()).square().sum(-1)
    torch.testing.assert_close(score(name).double(), every.amin(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "points", "normals"),
    [
        ("latent_density", MODEL.encode(QUERIES).mean, MODEL.encode(NORMALS)),
        ("reconstruction_density", reconstructed(QUERIES).mean, reconstructed(NORMALS)),
        ("input_density", QUERIES, reconstructed(NORMALS)),
    ],
)
def test_densities_are_means_over_all_normals(name, points, normals):
    density = torch.stack(
        [normals.log_prob(point.expand_as(normals.mean)).double().exp().mean() for point in points]
    )
    torch.testing.assert_close((-score(name).double()).exp(), density, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("name", "of"),
    [("latent_bhattacharyya", MODEL.encode), ("reconstruction_bhattacharyya", reconstructed)],
)
def test_bhattacharyya_distances_are_overlap_integrals(name, of):
    # D_B = -ln int sqrt(p q), a product of one integral for each dimension.
    x, y = of(QUERIES), of(NORMALS)
    grid = torch.linspace(-60, 60, 6001, dtype=torch.float64)

    def root_density(distribution):
        mean, sigma = distribution.mean.double()[..., None], distribution.stddev.double()[..., None]
        return torch.distributions.Normal(mean, sigma).log_prob(grid).div(2).exp()

    overlaps = torch.einsum("bdg,ndg->bnd", root_density(x), root_density(y)) * (grid[1] - grid[0])
    expected = (-overlaps.log().sum(-1)).amin(1)
    torch.testing.assert_close(score(name).double(), expected, rtol=1e-4, atol=1e-6)
