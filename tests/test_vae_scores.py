"""Each score against its equation worked out by hand, on the numbers of ``by_hand``; then in closed form."""

import math

import pytest
import torch
from by_hand import LOG_2PI, ByHand, X, scores

from mednovelty.batch import Batch, antithetic_noise
from mednovelty.methods.vae_scores import (
    NegativeELBO,
    NegativeELBOMin,
    ReconstructionError,
    ReconstructionLikelihood,
    VAERegularizer,
)
from mednovelty.papers import where
from mednovelty.plugins import import_all
from mednovelty.testing.models import ExactLinearVAE, LinearGaussianVAE, random_samples


def noise(draws, width, seed=0):
    return antithetic_noise(draws, width, torch.Generator().manual_seed(seed))


def test_baseline_nearest_normal_is_a_squared_distance():
    # x1 to y1: 1 + 1 + 4; to y2: 4 + 16 + 1; to y3: 16 + 4. x2 to y2: 1.
    assert scores("nearest_normal") == pytest.approx([6, 1])


def test_equation_2_vae_regularizer():
    # x1: N((1, -1), diag (25, 9)); x2: N((2, 1), diag (1, 16))
    first = (25 + 1 - 1 - math.log(25) + 9 + 1 - 1 - math.log(9)) / 2
    second = (1 + 4 - 1 - math.log(1) + 16 + 1 - 1 - math.log(16)) / 2
    assert scores("vae_regularizer") == pytest.approx([first, second])


def test_equation_3_latent_euclidean_is_a_squared_distance():
    # (1, -1) to (1, -2): 1; (2, 1) to (3, 2): 2
    assert scores("latent_euclidean") == pytest.approx([1, 2])


def test_equation_4_latent_bhattacharyya_takes_variances():
    # x1 is nearest not to y1, whose mean is nearest, but to y3, whose variances are its own.
    first = (4 / 25 + 4 / 9) / 8
    # x2, variances (1, 16), is nearest to y2, (1, 25): apart (1/1 + 1/20.5) / 8, unlike in shape by the rest.
    second = (1 + 1 / 20.5) / 8 + math.log(20.5 / math.sqrt(16 * 25)) / 2
    assert scores("latent_bhattacharyya") == pytest.approx([first, second])


def test_equation_5_latent_density_takes_the_normals_sigma():
    # At (1, -1): (0, 1) from y1, (2, 3) from y2, (2, 2) from y3; products of sigma 4, 5, 15.
    first = (math.exp(-1 / 8) / 4 + math.exp(-4 / 2 - 9 / 50) / 5 + math.exp(-4 / 50 - 4 / 18) / 15) / 3
    # At (2, 1): (1, 3) from y1, (1, 1) from y2, (3, 0) from y3.
    second = (math.exp(-1 / 8 - 9 / 8) / 4 + math.exp(-1 / 2 - 1 / 50) / 5 + math.exp(-9 / 50) / 15) / 3
    assert scores("latent_density") == pytest.approx([LOG_2PI - math.log(first), LOG_2PI - math.log(second)])


def test_equation_6_reconstruction_error_is_squared():
    assert scores("reconstruction_error") == pytest.approx([1, 4 + 1 + 4])


def test_equation_7_reconstruction_likelihood_is_negated():
    first = 1 / 8 + math.log(16) + 1.5 * LOG_2PI
    second = 4 / 8 + 1 / 18 + 4 / 32 + math.log(24) + 1.5 * LOG_2PI
    assert scores("reconstruction_likelihood") == pytest.approx([first, second])


# x1: z = (2, -4), p(x|z) = N((2, -4, -2), (2, 3, 7)); z = (-1, 0.5), N((-1, 0.5, -0.5), (2, 2, 3.5))
MISFITS = (0 + 9 / 18 + 4 / 98 + math.log(42), 9 / 8 + 2.25 / 8 + 0.25 / 24.5 + math.log(14))
KL = (25 + 1 - 1 - math.log(25) + 9 + 1 - 1 - math.log(9)) / 2


def test_equation_20_negative_elbo():
    assert scores("negative_elbo", X[:1]) == pytest.approx([sum(MISFITS) / 2 + 1.5 * LOG_2PI + KL])


def test_equation_21_negative_elbo_at_the_best_draw():
    assert scores("negative_elbo_min", X[:1]) == pytest.approx([MISFITS[1] + 1.5 * LOG_2PI + KL])


@pytest.mark.parametrize(("channels", "latent", "draws"), [(5, 2, 2), (7, 4, 6), (6, 6, 16)])
def test_with_the_exact_posterior_the_elbo_is_the_evidence(channels, latent, draws):
    # log p(x|z) is quadratic in z, its Hessian diagonal: antithetic draws give its mean without error.
    model, x = ExactLinearVAE(channels, latent, seed=draws), 3 * random_samples(11, channels).double()
    batch = Batch(x, noise=noise(draws, latent).double())
    torch.testing.assert_close(NegativeELBO(model).score(batch), -model.log_evidence(x), rtol=0, atol=1e-6)


def test_every_point_of_the_exact_model_obeys_bayes():
    # -log p(x|z) - log p(z) + log q(z|x) = -log p(x), whatever z: else the model above is not what it says.
    model, x, z = ExactLinearVAE(5, 3), random_samples(11, 5).double(), random_samples(11, 3, seed=1).double()
    evidence = model.decode(z).log_prob(x) + model.prior.log_prob(z) - model.encode(x).log_prob(z)
    torch.testing.assert_close(evidence, model.log_evidence(x))


def test_another_posterior_bounds_the_evidence_from_above():
    model, x = ExactLinearVAE(5, 3), random_samples(11, 5).double()
    exact = -model.log_evidence(x)
    model.latent_sigma = 1.3 * model.latent_sigma
    assert (NegativeELBO(model).score(Batch(x, noise=noise(8, 3).double())) > exact + 1e-3).all()


@pytest.mark.parametrize("draws", [6, 14, 400])
def test_negative_elbo_is_its_closed_form_from_twice_as_many_draws_as_latents(draws):
    # A quadratic in z whose Hessian is not diagonal. E_q of a Gaussian misfit: |x - M(m)|^2 plus the variance
    # that W passes on, both over t^2.
    model, x = LinearGaussianVAE(5, 3), random_samples(11, 5, seed=4)
    posterior = model.encode(x)
    spread = (model.decoder.square() * posterior.variance[:, None]).sum(-1)
    squared = (x - model.decode(posterior.mean).mean).square() + spread
    expected = (squared / model.signal_sigma.square() / 2 + model.signal_sigma.log() + LOG_2PI / 2).sum(1)
    expected = expected + torch.distributions.kl_divergence(posterior, model.prior)
    found = NegativeELBO(model).score(Batch(x, noise=noise(draws, 3)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_negative_elbo_converges_with_draws_that_owe_nothing_to_each_other():
    model, x = ExactLinearVAE(5, 3), random_samples(11, 5, seed=4).double()
    free = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)).double()
    expected = -model.log_evidence(x)
    torch.testing.assert_close(NegativeELBO(model).score(Batch(x, noise=free)), expected, rtol=0.03, atol=0)


def test_scores_of_one_run_encode_once():
    model, calls = LinearGaussianVAE(5, 3), []
    encode = model.encode
    model.encode = lambda x: calls.append(len(x)) or encode(x)
    batch = Batch(random_samples(11, 5), noise=torch.ones(2, 3))
    for kind in (
        VAERegularizer,
        ReconstructionError,
        ReconstructionLikelihood,
        NegativeELBO,
        NegativeELBOMin,
    ):
        kind(model).score(batch)
    assert calls == [11]


@pytest.mark.parametrize(("draws", "width"), [(2, 3), (4, 3), (6, 3), (8, 3), (90, 33), (5000, 3)])
def test_antithetic_draws_have_unit_variance_and_zero_mean(draws, width):
    drawn = noise(draws, width)
    assert drawn.shape == (draws, width)
    assert torch.equal(drawn[::2], -drawn[1::2])
    torch.testing.assert_close(drawn.square().mean(0), torch.ones(width))
    covariance = drawn.T @ drawn / draws
    if draws >= 2 * width:
        torch.testing.assert_close(covariance, torch.eye(width), rtol=0, atol=1e-5)
    else:
        assert not torch.allclose(covariance, torch.eye(width), atol=0.1)


def test_antithetic_draws_are_normal():
    drawn = noise(20_000, 3)
    within = [(drawn.abs() < limit).float().mean().item() for limit in (0.5, 1.0, 2.0)]
    assert within == pytest.approx([0.383, 0.683, 0.954], abs=0.01)
    assert not torch.equal(noise(8, 3), noise(8, 3, seed=1))


def test_an_odd_number_of_draws_leaves_the_last_without_its_opposite():
    assert torch.equal(noise(7, 3), noise(8, 3)[:7])


def test_stochastic_scores_say_what_they_miss():
    with pytest.raises(ValueError, match="needs draws; give the batch its noise"):
        NegativeELBO(ByHand()).score(Batch(X))


HOMES = {
    "N_x-y": "vae_scores:NearestNormal",
    "Eq. (1)": "vae:elbo_terms",
    "Eq. (2)": "vae_scores:VAERegularizer",
    "Eq. (3)": "vae_scores:LatentEuclidean",
    "Eq. (4)": "vae_scores:LatentBhattacharyya",
    "Eq. (5)": "vae_scores:LatentDensity",
    "Eq. (6)": "vae_scores:ReconstructionError",
    "Eq. (7)": "vae_scores:ReconstructionLikelihood",
    "Eq. (8)": "vae_stochastic_scores:EncoderStochasticError",
    "Eq. (8), min": "vae_stochastic_scores:EncoderStochasticErrorMin",
    "Eq. (9)": "vae_stochastic_scores:EncoderStochasticLikelihood",
    "Eq. (9), min": "vae_stochastic_scores:EncoderStochasticLikelihoodMin",
    "Eq. (10)": "vae_stochastic_scores:DecoderStochasticError",
    "Eq. (10), min": "vae_stochastic_scores:DecoderStochasticErrorMin",
    "Eq. (11)": "vae_stochastic_scores:FullyStochasticError",
    "Eq. (11), min": "vae_stochastic_scores:FullyStochasticErrorMin",
    "Eq. (12)": "vae_reference_scores:ReconstructionEuclidean",
    "Eq. (13)": "vae_reference_scores:ReconstructionBhattacharyya",
    "Eq. (14)": "vae_reference_scores:ReconstructionDensity",
    "Eq. (15)": "vae_reference_scores:InputToReconstructionEuclidean",
    "Eq. (16)": "vae_reference_scores:InputDensity",
    "Eq. (17)": "vae_reference_scores:ReconstructionToInputEuclidean",
    "Eq. (20)": "vae_scores:NegativeELBO",
    "Eq. (21)": "vae_scores:NegativeELBOMin",
}


@pytest.mark.parametrize(("label", "home"), HOMES.items())
def test_every_equation_has_a_home(label, home):
    import_all()
    assert where("vasilev2018", label) == f"mednovelty.methods.{home}"
