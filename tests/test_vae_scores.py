"""Each score against its equation worked out by hand: sigma is not 1, sizes are unequal."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal

from mednovelty.batch import Batch, antithetic_noise
from mednovelty.methods.vae_scores import (
    LatentEuclidean,
    NearestNormal,
    NegativeELBO,
    ReconstructionError,
    ReconstructionLikelihood,
    VAERegularizer,
)
from mednovelty.papers import where
from mednovelty.plugins import names, plugin
from mednovelty.reference import Reference
from mednovelty.testing.models import LinearGaussianVAE, random_samples

LOG_2PI = math.log(2 * math.pi)


class ByHand:
    """One channel pair to one latent: q(z|x) = N(x_0 + 2 x_1, 3^2), p(x|z) = N((z, 1 - z), (2, 5)^2)."""

    channels = 2
    prior = Independent(Normal(torch.zeros(1), torch.ones(1)), 1)

    def encode(self, x):
        mean = x[:, :1] + 2 * x[:, 1:]
        return Independent(Normal(mean, torch.full_like(mean, 3.0)), 1)

    def decode(self, z):
        mean = torch.cat([z, 1 - z], dim=1)
        return Independent(Normal(mean, torch.tensor([2.0, 5.0]).expand_as(mean)), 1)


X = torch.tensor([[1.0, -2.0]])  # its latent mean is 1 - 4 = -3, its reconstruction (-3, 4)


def test_equation_2_vae_regularizer():
    # KL(N(-3, 9) || N(0, 1)) = (9 + 9 - 1 - ln 9) / 2
    expected = (9 + 9 - 1 - math.log(9)) / 2
    assert VAERegularizer(ByHand()).score(Batch(X)).item() == pytest.approx(expected)


def test_baseline_nearest_normal_is_a_squared_distance():
    normals = torch.tensor([[4.0, 2.0], [1.0, 3.0], [-9.0, 9.0]])
    reference = Reference.of(ByHand(), normals, {"input"})
    # to (4, 2): 9 + 16; to (1, 3): 0 + 25; both 25; to the third: 100 + 121
    assert NearestNormal(ByHand(), reference).score(Batch(X)).item() == pytest.approx(25)


def test_equation_3_latent_euclidean_is_a_squared_distance():
    normals = torch.tensor([[4.0, 2.0], [1.0, 3.0], [-9.0, 9.0]])  # latent means 8, 7, 9
    reference = Reference.of(ByHand(), normals, {"latent_mean"})
    assert LatentEuclidean(ByHand(), reference).score(Batch(X)).item() == pytest.approx((7 + 3) ** 2)


def test_equation_6_reconstruction_error_is_squared():
    # (1 - -3)^2 + (-2 - 4)^2
    assert ReconstructionError(ByHand()).score(Batch(X)).item() == pytest.approx(16 + 36)


def test_equation_7_reconstruction_likelihood_is_negated():
    # 16 / (2 * 4) + 36 / (2 * 25) + ln 2 + ln 5 + ln 2 pi
    expected = 2 + 0.72 + math.log(2) + math.log(5) + LOG_2PI
    assert ReconstructionLikelihood(ByHand()).score(Batch(X)).item() == pytest.approx(expected)


def test_equation_20_negative_elbo_with_two_draws():
    # z = -3 +- 3 * 0.5 = -1.5 or -4.5; reconstructions (-1.5, 2.5) and (-4.5, 5.5)
    noise = torch.tensor([[0.5], [-0.5]])
    misfits = [(2.5**2 / 8 + 4.5**2 / 50), (5.5**2 / 8 + 7.5**2 / 50)]
    likelihood = sum(misfits) / 2 + math.log(2) + math.log(5) + LOG_2PI
    expected = likelihood + (9 + 9 - 1 - math.log(9)) / 2
    assert NegativeELBO(ByHand()).score(Batch(X, noise=noise)).item() == pytest.approx(expected)


def test_negative_elbo_converges_to_its_closed_form():
    # E_q of a Gaussian misfit: |x - M(m)|^2 plus the variance that W passes on, both over t^2.
    model, x = LinearGaussianVAE(5, 3), random_samples(11, 5, seed=4)
    posterior = model.encode(x)
    spread = (model.decoder.square() * posterior.variance[:, None]).sum(-1)
    squared = (x - model.decode(posterior.mean).mean).square() + spread
    expected = (squared / model.signal_sigma.square() / 2 + model.signal_sigma.log() + LOG_2PI / 2).sum(1)
    expected = expected + torch.distributions.kl_divergence(posterior, model.prior)
    noise = antithetic_noise(4000, 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(NegativeELBO(model).score(Batch(x, noise=noise)), expected, rtol=0.03, atol=0)


def test_scores_of_one_run_encode_once():
    model, calls = LinearGaussianVAE(5, 3), []
    encode = model.encode
    model.encode = lambda x: calls.append(len(x)) or encode(x)
    batch = Batch(random_samples(11, 5), noise=torch.ones(2, 3))
    for kind in (VAERegularizer, ReconstructionError, ReconstructionLikelihood, NegativeELBO):
        kind(model).score(batch)
    assert calls == [11]


def test_antithetic_draws_have_unit_variance_and_zero_mean():
    noise = antithetic_noise(50_000, 3, torch.Generator().manual_seed(0))
    assert noise.shape == (50_000, 3)
    torch.testing.assert_close(noise.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(noise.std(0), torch.ones(3), atol=0.02, rtol=0)


def test_stochastic_scores_say_what_they_miss():
    with pytest.raises(ValueError, match="needs draws; give the batch its noise"):
        NegativeELBO(ByHand()).score(Batch(X))


HOMES = {
    "N_x-y": "NearestNormal",
    "Eq. (2)": "VAERegularizer",
    "Eq. (3)": "LatentEuclidean",
    "Eq. (6)": "ReconstructionError",
    "Eq. (7)": "ReconstructionLikelihood",
    "Eq. (20)": "NegativeELBO",
}


@pytest.mark.parametrize(("label", "home"), HOMES.items())
def test_every_equation_has_a_home(label, home):
    for name in names("scorers"):
        plugin("scorers", name)
    assert where("vasilev2018", label) == f"mednovelty.methods.vae_scores:{home}"
