"""Misfits and their derivatives: by hand, against automatic ones, against what Fisher's matrix means."""

import math

import pytest
import torch
from torch.distributions import Independent, Laplace, Normal

from mednovelty.errors import SettingsError
from mednovelty.nn.misfits import NegativeLogLikelihood, SquaredError
from mednovelty.protocols import SmoothedDecoder
from mednovelty.testing.models import LinearGaussianVAE, random_samples

KINDS = [SquaredError, NegativeLogLikelihood]


class Curved:
    """Two latents to three channels, mean and sigma both curved; no ``decode_smoothed``."""

    channels = 3
    prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)

    def decode(self, z):
        a, b = z[:, :1], z[:, 1:]
        mean = torch.cat([a.sin() + b, a * b, b.exp()], 1)
        return Independent(Normal(mean, torch.cat([0.5 + a**2, 1.5 + b.cos(), 2 + a * 0], 1)), 1)


def by_autograd(misfit, z, x):
    with torch.enable_grad():
        z = z.clone().requires_grad_()
        return torch.autograd.grad(misfit.value(z, x).sum(), z)[0]


def test_by_hand():
    # z = (0, 0): mean (0, 0, 1), sigma (0.5, 2.5, 2); x = (1, 5, -3)
    z, x = torch.zeros(1, 2), torch.tensor([[1.0, 5.0, -3.0]])
    squared, likelihood = SquaredError(Curved()), NegativeLogLikelihood(Curved())
    assert squared.value(z, x).item() == pytest.approx(1 + 25 + 16)
    expected = (4 + 4 + 4) / 2 + math.log(0.5 * 2.5 * 2) + 1.5 * math.log(2 * math.pi)
    assert likelihood.value(z, x).item() == pytest.approx(expected)
    # slopes of the means by a: (1, 0, 0), by b: (1, 0, 1); residuals mean - x = (-1, -5, 4); sigma is still
    at = squared.near(z, x, 0.1)
    assert at.gradient[0].tolist() == pytest.approx([2 * -1, 2 * (-1 + 4)])
    assert at.curvature()[0].flatten().tolist() == pytest.approx([2, 2, 2, 4])
    at = likelihood.near(z, x, 0.1)
    assert at.gradient[0].tolist() == pytest.approx([-4, -4 + 1])
    assert at.curvature()[0].flatten().tolist() == pytest.approx([4, 4, 4, 4.25])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", [Curved(), LinearGaussianVAE(3, 2)], ids=["curved", "linear"])
def test_values_and_gradients_of_any_model_are_exact(kind, model):
    assert not isinstance(model, SmoothedDecoder)
    misfit, x, z = kind(model), random_samples(13, 3), random_samples(13, 2, seed=1)
    at = misfit.near(z, x, 0.3)
    torch.testing.assert_close(at.value, misfit.value(z, x))
    torch.testing.assert_close(at.gradient, by_autograd(misfit, z, x))


def test_squared_error_of_a_linear_decoder_has_its_exact_curvature():
    model, x, z = LinearGaussianVAE(7, 3), random_samples(5, 7), random_samples(5, 3, seed=1)
    expected = 2 * model.decoder.T @ model.decoder
    torch.testing.assert_close(SquaredError(model).near(z, x, 0.1).curvature(), expected.expand(5, 3, 3))


def test_fishers_matrix_is_the_mean_outer_product_of_gradients():
    model, draws = Curved(), 200_000
    z = torch.tensor([[0.7, -0.4]])
    many = z.expand(draws, 2)
    likelihood = model.decode(many)
    noise = torch.randn(draws, 3, generator=torch.Generator().manual_seed(0))
    at = NegativeLogLikelihood(model).near(many, likelihood.mean + likelihood.stddev * noise, 0.1)
    sampled = at.gradient.T @ at.gradient / draws
    fisher = NegativeLogLikelihood(model).near(z, likelihood.mean[:1], 0.1).curvature()[0]
    torch.testing.assert_close(sampled, fisher, rtol=0.03, atol=0.03)
    # The part of sigma is not small beside it: without it the test would mean little.
    assert 0.2 * fisher[0, 0] < 2 * (2 * 0.7 / (0.5 + 0.49)) ** 2


def test_a_decoder_that_ignores_its_latents_has_no_derivatives():
    class Deaf(Curved):
        def decode(self, z):
            return Independent(Normal(torch.zeros(len(z), 3), torch.ones(len(z), 3)), 1)

    at = NegativeLogLikelihood(Deaf()).near(torch.ones(5, 2), random_samples(5, 3), 0.1)
    assert not at.gradient.any()
    assert not at.curvature().any()


def test_only_gaussians_have_a_likelihood_to_maximise():
    class Pointed(Curved):
        def decode(self, z):
            return Independent(Laplace(z[:, [0, 1, 1]], torch.ones(len(z), 3)), 1)

    z, x = torch.ones(5, 2), random_samples(5, 3)
    assert SquaredError(Pointed()).near(z, x, 0.1).gradient.shape == (5, 2)
    with pytest.raises(
        SettingsError, match="for a Gaussian p\\(x\\|z\\), not for Laplace; give the decoder a"
    ):
        NegativeLogLikelihood(Pointed()).near(z, x, 0.1)
