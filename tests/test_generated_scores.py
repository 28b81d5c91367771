"""Eq. (18) and (19): closed forms of linear decoders, boxes, trained nets against SciPy's optimiser."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize as scipy_minimize
from torch.distributions import Independent, Normal

from mednovelty.batch import Batch
from mednovelty.methods import generated_scores
from mednovelty.methods.generated_scores import (
    BOUND,
    ClosestGenerated,
    ClosestGeneratedBounded,
    HighestGeneratedLikelihood,
    HighestGeneratedLikelihoodBounded,
    posterior_starts,
)
from mednovelty.methods.vae import VAEMethod, VAESettings
from mednovelty.methods.vae_scores import ReconstructionError, ReconstructionLikelihood
from mednovelty.nn.minimise import ROWS, minimise
from mednovelty.nn.misfits import SquaredError
from mednovelty.papers import where
from mednovelty.plugins import plugin
from mednovelty.testing.contracts import SCORER_CHECKS
from mednovelty.testing.models import LinearGaussianVAE, random_samples
from mednovelty.train import TrainSettings, train
from mednovelty.voxel_cache import VoxelCache

PAIRS = [
    (ClosestGenerated, ClosestGeneratedBounded, ReconstructionError),
    (HighestGeneratedLikelihood, HighestGeneratedLikelihoodBounded, ReconstructionLikelihood),
]


class Line:
    """q(z|x) = N(x_0, 3^2); p(x|z) = N((z, 2 z), (2, 5)^2): what it generates lies on a line."""

    channels = 2
    prior = Independent(Normal(torch.zeros(1), torch.ones(1)), 1)

    def encode(self, x):
        mean = x[:, :1] + 0
        return Independent(Normal(mean, torch.full_like(mean, 3.0)), 1)

    def decode(self, z):
        mean = torch.cat([z, 2 * z], dim=1)
        return Independent(Normal(mean, torch.tensor([2.0, 5.0]).expand_as(mean)), 1)


def score(kind, model, x):
    return kind(model).score(Batch(torch.tensor([x]))).item()


def test_equation_18_by_hand():
    # (1, 7) onto the direction (1, 2): z = 15 / 5 = 3, off by (-2, 1)
    assert score(ClosestGenerated, Line(), [1.0, 7.0]) == pytest.approx(5)
    assert score(ClosestGeneratedBounded, Line(), [1.0, 7.0]) == pytest.approx(5)
    # (0, 50): z = 100 / 5 = 20, off by (-20, 10); the box ends at 10, off by (-10, 30)
    assert score(ClosestGenerated, Line(), [0.0, 50.0]) == pytest.approx(500)
    assert score(ClosestGeneratedBounded, Line(), [0.0, 50.0]) == pytest.approx(1000)
    # and at -10 on the other side, where z = -20 is wanted
    assert score(ClosestGeneratedBounded, Line(), [-100.0, 0.0]) == pytest.approx(90**2 + 20**2)


def test_equation_19_by_hand():
    # (1, 7): z / 4 + 4 z / 25 = 1 / 4 + 14 / 25, so z = 81 / 41; sigma alone gives log 2 + log 5 + log 2 pi
    z, constant = 81 / 41, math.log(2 * 5 * 2 * math.pi)
    least = (1 - z) ** 2 / 8 + (7 - 2 * z) ** 2 / 50 + constant
    assert score(HighestGeneratedLikelihood, Line(), [1.0, 7.0]) == pytest.approx(least)
    # (0, 50): z = 4 / 0.41 < 10; (0, 70) would want 5.6 / 0.41 = 13.7
    assert score(HighestGeneratedLikelihoodBounded, Line(), [0.0, 50.0]) == pytest.approx(
        (4 / 0.41) ** 2 / 8 + (50 - 8 / 0.41) ** 2 / 50 + constant
    )
    bounded = 100 / 8 + 50**2 / 50 + constant
    assert score(HighestGeneratedLikelihoodBounded, Line(), [0.0, 70.0]) == pytest.approx(bounded)
    assert score(HighestGeneratedLikelihood, Line(), [0.0, 70.0]) < bounded - 1


def test_sigma_is_part_of_what_is_minimised():
    class Widening(Line):
        """p(x|z) = N((0, 0), exp(z)^2): the best z makes sigma the root mean square of x."""

        def decode(self, z):
            return Independent(Normal(torch.zeros(len(z), 2), z.exp().expand(-1, 2)), 1)

    # x = (0.5, -3): sigma^2 = 9.25 / 2, and both halves of 2 * u^2 / 2 make 1
    least = 1 + math.log(9.25 / 2) + math.log(2 * math.pi)
    assert score(HighestGeneratedLikelihood, Widening(), [0.5, -3.0]) == pytest.approx(least)


def test_a_linear_decoder_with_one_sigma_gives_the_same_minimum_twice():
    model, x = LinearGaussianVAE(7, 3), random_samples(40, 7, seed=1)
    model.signal_sigma = torch.full((7,), 1.7)
    squared = ClosestGenerated(model).score(Batch(x))
    expected = squared / (2 * 1.7**2) + 7 * (math.log(1.7) + 0.5 * math.log(2 * math.pi))
    torch.testing.assert_close(HighestGeneratedLikelihood(model).score(Batch(x)), expected)
    basis, _ = torch.linalg.qr(model.decoder)
    away = x - model.decoder_shift
    torch.testing.assert_close(squared, (away - away @ basis @ basis.T).square().sum(1))


@pytest.fixture(scope="module")
def trained():
    """A small net, trained for seconds on curved data in seven channels, and samples it has not seen."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(6000, 3))
    curved = np.concatenate([z, np.sin(2 * z), z[:, :1] * z[:, 1:2]], axis=1) @ rng.normal(size=(7, 7))
    x = (5 + curved + 0.3 * rng.normal(size=curved.shape)).astype(np.float32)
    method = VAEMethod(VAESettings(hidden=(24, 12), latent=3))
    model = method.build((7,))
    settings = TrainSettings(batch_size=256, max_epochs=15, min_steps=1)
    train(method, model, VoxelCache.from_array(x[:5000]), VoxelCache.from_array(x[5000:5500]), settings)
    return model.eval().requires_grad_(False), torch.from_numpy(x[5500:])


def by_scipy(kind, model, x, bound=math.inf):
    """Each sample's minimum as SciPy's L-BFGS-B finds it from the encoder's mean, derivatives numerical."""
    misfit = kind.misfit(copy.deepcopy(model).double())
    bounds = [(-bound, bound)] * model.latent if bound < math.inf else None

    def value(z, row):
        return misfit.value(torch.from_numpy(z)[None], row[None]).item()

    starts = model.encode(x).mean.double().clamp(-bound, bound).numpy()
    return torch.tensor(
        [
            scipy_minimize(value, start, args=(row,), method="L-BFGS-B", bounds=bounds).fun
            for start, row in zip(starts, x.double(), strict=True)
        ]
    )


@pytest.mark.parametrize("pair", PAIRS, ids=["18", "19"])
def test_of_a_trained_net_as_low_as_scipy_goes(trained, pair):
    model, x = trained
    free = pair[0]
    x = x[:60]
    theirs = by_scipy(free, model, x)
    ours = free(model).score(Batch(x)).double()
    assert (ours <= theirs + 1e-4 * theirs.abs()).float().mean() >= 0.95
    assert ours.mean() <= theirs.mean() + 1e-4 * theirs.abs().mean()


@pytest.mark.slow
@pytest.mark.parametrize("bound", [math.inf, BOUND])
@pytest.mark.parametrize("pair", PAIRS, ids=["18", "19"])
def test_of_a_trained_net_as_low_as_scipy_goes_in_99_percent(trained, pair, bound):
    model, x = trained
    kind = pair[bound == BOUND]
    theirs = by_scipy(kind, model, x, bound)
    ours = kind(model).score(Batch(x)).double()
    assert (ours <= theirs + 1e-4 * theirs.abs()).float().mean() >= 0.99


@pytest.mark.parametrize("pair", PAIRS, ids=["18", "19"])
def test_free_is_at_most_bounded_is_at_most_the_score_at_the_encoders_mean(trained, pair):
    model, x = trained
    x = torch.cat([x, x[:200] * 3, 20 * random_samples(100, 7, seed=1)])
    batch = Batch(x)
    free, boxed, plain = (kind(model).score(batch) for kind in pair)
    inside = (batch.posterior(model).mean.abs() <= BOUND).all(1)
    assert (free <= boxed).all()
    assert (free <= plain).all()
    assert (boxed <= plain)[inside].all()
    assert (free < boxed).any()
    assert inside.sum() > 500
    # Each is what its name says at its own latents, and those are in the box.
    for kind in pair[:2]:
        found = kind(model).minimum(batch)
        torch.testing.assert_close(found.value, kind.misfit(model).value(found.z, x))
    assert pair[1](model).minimum(batch).z.abs().max() <= BOUND
    assert pair[0](model).minimum(batch).z.abs().max() > BOUND


def test_the_few_outside_the_box_are_sought_again_from_their_own_starts(trained, monkeypatch):
    model, x = trained
    asked = []
    monkeypatch.setattr(
        generated_scores,
        "minimise",
        lambda misfit, x, starts, **how: asked.append((x, starts)) or minimise(misfit, x, starts, **how),
    )
    batch = Batch(torch.cat([x[:40], 20 * random_samples(40, 7, seed=1)]))
    free, boxed = (kind(model).minimum(batch) for kind in PAIRS[0][:2])
    outside = (free.z.abs() > BOUND).any(1)
    assert 5 < outside.sum() < 40
    starts = posterior_starts(model, batch)[:, outside]
    again = minimise(SquaredError(model), batch.x[outside], starts, bound=BOUND)
    torch.testing.assert_close(boxed.value[outside], again.value)
    torch.testing.assert_close(boxed.z[~outside], free.z[~outside])
    assert torch.equal(asked[1][0], batch.x[outside])
    assert torch.equal(asked[1][1], starts)


@pytest.mark.parametrize("pair", PAIRS, ids=["18", "19"])
def test_most_samples_converge_and_who_has_not_is_known(trained, pair):
    model, x = trained
    found = pair[0](model).minimum(Batch(x))
    assert found.converged.shape == (len(x),)
    assert found.converged.float().mean() > 0.95


@pytest.mark.parametrize("kind", [kind for pair in PAIRS for kind in pair[:2]])
@pytest.mark.parametrize("check", SCORER_CHECKS, ids=lambda check: check.__name__)
def test_the_contract_holds_for_a_net_with_kinks(trained, kind, check):
    model, x = trained
    check(kind(model), Batch, x[:9])


def test_company_does_not_matter_across_paddings_and_tiles(trained):
    model, x = trained
    scorer = ClosestGenerated(model)
    together = scorer.score(Batch(x))
    for size, count in ((1, 10), (7, 70), (ROWS, 160), (ROWS + 1, 160), (100, 300)):
        parts = torch.cat([scorer.score(Batch(rows)) for rows in x[:count].split(size)])
        torch.testing.assert_close(parts, together[:count])


def test_free_and_bounded_share_one_minimisation(trained):
    model, x = trained
    batch, calls = Batch(x[:50]), []
    decode = model.decode_smoothed
    counted = copy.copy(model)
    counted.decode_smoothed = lambda z, smoothing: calls.append(len(z)) or decode(z, smoothing)
    ClosestGenerated(counted).score(batch)
    once = len(calls)
    ClosestGeneratedBounded(counted).score(batch)
    assert len(calls) == once > 0
    HighestGeneratedLikelihood(counted).score(batch)
    assert len(calls) > once


def test_starts_are_the_posteriors_mean_and_points_about_it():
    model, x = LinearGaussianVAE(7, 3), random_samples(ROWS + 3, 7)
    posterior = model.encode(x)
    starts = posterior_starts(model, Batch(x))
    torch.testing.assert_close(starts[0], posterior.mean)
    draws = (starts - posterior.mean) / posterior.stddev
    torch.testing.assert_close(draws, draws[:, :1].expand_as(draws))
    torch.testing.assert_close(draws[1], -draws[2])
    assert (draws[1] - draws[3]).abs().min() > 0
    torch.testing.assert_close(posterior_starts(model, Batch(x[:2])), starts[:, :2])
    # A short batch goes through the encoder with as many rows as the minimiser pads to.
    encoded, encode = [], model.encode
    model.encode = lambda x: encoded.append(len(x)) or encode(x)
    for count in (1, ROWS - 1, ROWS + 1):
        posterior_starts(model, Batch(x[:count]))
    assert encoded == [ROWS, ROWS, ROWS + 1]


@pytest.mark.parametrize(
    ("label", "name"),
    {
        "Eq. (18)": "closest_generated",
        "Eq. (18), bounded": "closest_generated_bounded",
        "Eq. (19)": "highest_generated_likelihood",
        "Eq. (19), bounded": "highest_generated_likelihood_bounded",
    }.items(),
)
def test_names_and_equations(label, name):
    kind = plugin("scorers", name)
    assert where("vasilev2018", label) == f"{kind.__module__}:{kind.__qualname__}"
    assert (kind.group, kind.needs, kind.reference_parts) == ("generated", ("model",), ())
