"""Each term of Eq. (1) to (5) by hand, and what must not change it."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.methods.hyperspherical_loss import (
    angle_weights,
    annealed,
    cartesian,
    divergence,
    mean_weights,
    moments,
    mu_angles,
    prior_cosines,
    radial,
    shell,
    sigma_angles,
    sigma_radial,
    spread_misfit,
)
from mednovelty.methods.hyperspherical_settings import RELEASED, HypersphericalSettings
from mednovelty.nn.hyperspherical import cosines, diagonal_cosines

D = 23
PLAIN = HypersphericalSettings(latent=D, epsilon=0.0)
CLASSED = HypersphericalSettings(latent=D, classes=3, class_spacing=10)


def latents(count, seed=0, d=D):
    return torch.randn(count, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_misfit_of_a_spread_is_zero_where_it_is_its_prior():
    # g(0.5, 0.2) = 1.3^2 - ln 1.3^2 - 1.
    given = spread_misfit(torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64))
    assert given.item() == pytest.approx(1.69 - math.log(1.69) - 1)
    assert spread_misfit(torch.tensor(0.3), torch.tensor(0.3)).item() == 0


@given(st.floats(0.01, 5), st.floats(0, 0.7))
def test_the_misfit_of_a_spread_is_positive_elsewhere(std, prior):
    found = spread_misfit(torch.tensor(std, dtype=torch.float64), torch.tensor(prior, dtype=torch.float64))
    assert found > 0 or abs(std - prior) < 1e-7


def test_small_misfits_keep_their_digits_in_float32():
    # g = 2 e^2 + O(e^3).
    found = spread_misfit(torch.tensor(0.1 + 1e-4), torch.tensor(0.1))
    assert found.item() == pytest.approx(2e-8, rel=0.02)


def test_moments_class_by_class():
    values = torch.tensor([[1.0, 5.0], [4.0, 5.0], [2.0, 9.0], [7.0, 5.0]])
    found = moments(values, torch.tensor([2, 0, 2, 2]), groups=4)
    # Class 2: 1, 2, 7 and 5, 9, 5. Unbiased variances 31/3 and 16/3.
    assert found.size[:, 0].tolist() == [1, 0, 3, 0]
    torch.testing.assert_close(found.mean[2], torch.tensor([10 / 3, 19 / 3]))
    torch.testing.assert_close(found.std[2], torch.tensor([31 / 3 + 1e-4, 16 / 3 + 1e-4]).sqrt())
    torch.testing.assert_close(found.mean[0], values[1])
    torch.testing.assert_close(moments(values).std[0, 0], (values[:, 0].var() + 1e-4).sqrt())


def test_moments_of_what_is_compressed_keep_their_digits():
    far = 1000 + torch.tensor([[0.0], [0.25], [0.5]])
    found = moments(far, torch.tensor([1, 1, 1]), groups=2)
    assert found.std[1].item() == pytest.approx(math.sqrt(0.0625 + 1e-4), rel=1e-3)


def test_angles_of_means_by_hand():
    # Two dimensions, one angle: cosines 0.6 and 1, mean 0.8, unbiased variance 0.08.
    mean = torch.tensor([[3.0, -4.0], [2.0, 0.0]], dtype=torch.float64)
    settings = HypersphericalSettings(latent=2, epsilon=0.0)
    std, prior, weight = math.sqrt(0.0801), 1 / math.sqrt(2), 50 * math.sqrt(2)
    q = (1 + std - prior) ** 2
    expected = weight * (q - math.log(q) - 1 + 0.05 * 0.2**2)
    assert mu_angles(mean, settings).item() == pytest.approx(expected, rel=1e-6)
    free = weight * (q - math.log(q) - 1 + 0.05 * 0.8**2)
    assert mu_angles(mean, replace(settings, compressed=0)).item() == pytest.approx(free, rel=1e-6)
    gained = weight * (q - math.log(q) - 1 + 0.3 * 0.2**2)
    assert mu_angles(mean, replace(settings, mean_gain=0.3)).item() == pytest.approx(gained, rel=1e-6)


def test_lengths_of_means_by_hand():
    # 3 and 5: mean 4, unbiased variance 2, around a target of 3.5.
    std = math.sqrt(2.0001)
    expected = 50 * ((1 + std) ** 2 - 2 * math.log(1 + std) - 1) + 50 * 0.25
    found = radial(torch.tensor([3.0, 5.0], dtype=torch.float64), 3.5)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_lengths_of_sigmas_by_hand():
    q = 2.0001 / 0.5
    expected = 50 * (q - math.log(q) - 1) + 50 * 0.25
    found = sigma_radial(torch.tensor([3.0, 5.0], dtype=torch.float64), 3.5)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_angles_of_sigmas_by_hand():
    # sigmas (3, 4) and (1, 0): cosines 0.6 and 1 as above; the diagonal is at 1 / sqrt 2.
    sigma = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64)
    std, weight = math.sqrt(0.0801), 50 * math.sqrt(2)
    expected = (1 + std) ** 2 - 2 * math.log(1 + std) - 1 + 0.05 * (1 / math.sqrt(2) - 0.8) ** 2
    found = sigma_angles(sigma, HypersphericalSettings(latent=2))
    assert found.item() == pytest.approx(weight * expected, rel=1e-6)


def test_equal_sigmas_have_the_angles_of_the_diagonal_whatever_their_size():
    # All that is left is the 0.01 of the floor under the variance.
    least = (angle_weights(D) * spread_misfit(torch.tensor(0.01), torch.tensor(0.0))).sum().item()
    for size in (1e-3, 1.0):
        sigma = torch.full((5, D), size)
        assert sigma_angles(sigma, PLAIN).item() == pytest.approx(least, rel=1e-3)
    # The released code's epsilon pushes small sigmas away from the size that it asks for.
    small = sigma_angles(torch.full((5, D), 1e-3), replace(PLAIN, sigma_epsilon=1e-3)).item()
    assert small > 10 * least


def test_the_total_has_its_gains():
    mean, sigma = latents(6), latents(6, seed=1).exp()
    found = divergence(mean, sigma, PLAIN)
    expected = (
        1000 * mu_angles(mean, PLAIN)
        + 300 * radial(mean.norm(dim=1), math.sqrt(D - 0.5))
        + 500_000 * sigma_angles(sigma, PLAIN)
        + 500 * sigma_radial(sigma.norm(dim=1), 0.001 * math.sqrt(D - 0.5))
    )
    torch.testing.assert_close(found.total(PLAIN), expected)
    other = divergence(mean, sigma, replace(PLAIN, sigma_scale=1.0))
    torch.testing.assert_close(other.sigma_radius, sigma_radial(sigma.norm(dim=1), math.sqrt(D - 0.5)))


def test_cartesian_divergence_is_that_of_gaussians():
    mean, sigma = latents(4), latents(4, seed=1).exp()
    posterior = torch.distributions.Normal(mean, sigma)
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()
    torch.testing.assert_close(cartesian(mean, sigma), expected)


def test_compression_and_its_special_cases():
    assert prior_cosines(5, HypersphericalSettings(latent=5)).tolist() == [1, 1, 1, 1]
    one = HypersphericalSettings(latent=5, compressed=1)  # Von Mises-Fisher.
    assert prior_cosines(5, one).tolist() == [1, 0, 0, 0]
    assert prior_cosines(5, replace(one, compressed=0)).tolist() == [0, 0, 0, 0]
    diagonal = prior_cosines(5, replace(one, compressed=2, free_angles="diagonal"))
    assert diagonal.tolist() == pytest.approx([1, 1, 1 / math.sqrt(3), 1 / math.sqrt(2)])


def test_von_mises_fisher_knows_only_the_first_mean_angle():
    # With one compressed angle, a tail of any direction is as good as another of mean cosines 0.
    settings = HypersphericalSettings(latent=4, compressed=1, epsilon=0.0)
    x = latents(40, d=4)
    x = torch.cat([x, x * torch.tensor([1.0, -1, 1, 1]), x * torch.tensor([1.0, 1, -1, 1])])
    x = torch.cat([x, x * torch.tensor([1.0, -1, -1, -1])])
    weights = angle_weights(4)
    found = moments(torch.nn.functional.normalize(x, dim=1)[:, :1])
    spread = mu_angles(x, replace(settings, mean_gain=0.0))
    # The angles behind the first have mean cosine 0 by symmetry, and add nothing to it.
    expected = spread + 0.05 * weights[0] * (1 - found.mean[0, 0]) ** 2
    assert mu_angles(x, settings).item() == pytest.approx(expected.item(), rel=2e-3)


def test_rolling_latents_and_labels_together_changes_nothing():
    # Poles 10 axes apart; rolling right by 10 c is being of class c.
    x = latents(8)
    for number in (0, 1, 2):
        labels = torch.full((8,), number)
        moved = torch.roll(x, 10 * number, dims=1)
        torch.testing.assert_close(
            mu_angles(moved, CLASSED, labels=labels), mu_angles(x, CLASSED, labels=torch.zeros_like(labels))
        )
    assert not torch.isclose(
        mu_angles(x, CLASSED, labels=torch.ones(8, dtype=torch.int64)),
        mu_angles(x, CLASSED, labels=torch.zeros(8, dtype=torch.int64)),
    )


def test_classes_are_summed_each_for_itself():
    x, labels = latents(9), torch.tensor([0, 1, 1, 0, 2, 2, 1, 2, 0])
    single = replace(CLASSED, classes=0)
    apart = sum(mu_angles(torch.roll(x[labels == c], -10 * c, dims=1), single) for c in range(3))
    torch.testing.assert_close(mu_angles(x, CLASSED, labels=labels), apart)


@pytest.mark.parametrize("labels", [[0, 0, 2, 2], [0, 0, 0, 1], [1, 1, 1, 1]])
def test_absent_and_lonely_classes_do_no_harm(labels):
    x = latents(4).requires_grad_()
    found = mu_angles(x, CLASSED, labels=torch.tensor(labels))
    (gradient,) = torch.autograd.grad(found, x)
    assert torch.isfinite(found)
    assert torch.isfinite(gradient).all()


def test_a_lonely_class_has_a_place_but_no_spread():
    x, labels = latents(4), torch.tensor([0, 0, 0, 1])
    company = mu_angles(x[:3], replace(CLASSED, classes=0))
    cosine = cosines(torch.roll(x[3:], -10, dims=1), CLASSED.epsilon)[0]
    place = 0.05 * (angle_weights(D) * (1 - cosine).square()).sum()
    torch.testing.assert_close(mu_angles(x, CLASSED, labels=labels), company + place)


def test_the_order_of_samples_changes_nothing():
    x, labels = latents(7), torch.tensor([0, 1, 1, 0, 2, 2, 1])
    there = mu_angles(x, CLASSED, labels=labels)
    torch.testing.assert_close(mu_angles(x.flip(0), CLASSED, labels=labels.flip(0)), there)


def test_at_its_pole_a_class_has_nothing_left_but_the_spread():
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    x = torch.zeros(6, D, dtype=torch.float64)
    x[torch.arange(6), 10 * labels] = shell(D)
    one = replace(CLASSED, compressed=1, epsilon=0.0)
    spread = mu_angles(x, replace(one, mean_gain=0.0), labels=labels)
    torch.testing.assert_close(mu_angles(x, one, labels=labels), spread)
    assert radial(x.norm(dim=1), shell(D)) == pytest.approx(
        50 * spread_misfit(torch.tensor(0.01), torch.tensor(0.0)).item(), rel=1e-3
    )
    away = x.clone()
    away[0] = away[0].roll(1)
    assert mu_angles(away, replace(one, mean_gain=1e3), labels=labels) > mu_angles(
        x, replace(one, mean_gain=1e3), labels=labels
    )


def test_gradients_at_the_pole_are_finite_and_lead_to_it():
    x = torch.zeros(5, D)
    x[:, 0] = 3.0
    x[:, 1:] = 1e-6 * latents(5, seed=2)[:, 1:].float()
    x.requires_grad_()
    sigma = torch.full((5, D), 1e-4, requires_grad=True)
    settings = HypersphericalSettings(latent=D)
    total = divergence(x, sigma, settings).total(settings)
    for gradient in torch.autograd.grad(total, (x, sigma)):
        assert torch.isfinite(gradient).all()
    # Shorter than the shell: the loss falls with the radius.
    (pull,) = torch.autograd.grad(radial(x.norm(dim=1), shell(D)), x)
    assert (pull[:, 0] < 0).all()


def test_minimising_compresses_to_the_pole():
    def settled(compressed):
        x = latents(40, seed=3, d=6).float().requires_grad_()
        settings = HypersphericalSettings(latent=6, compressed=compressed, mean_gain=5.0)
        optimiser = torch.optim.Adam([x], lr=0.05)
        for _ in range(300):
            optimiser.zero_grad()
            parts = divergence(x, torch.ones(40, 6), settings)
            (parts.mu_angles + parts.mu_radius).backward()
            optimiser.step()
        return x.detach()

    full, first, free = settled(None), settled(1), settled(0)
    toward = [torch.nn.functional.normalize(x, dim=1)[:, 0].mean().item() for x in (full, first, free)]
    assert toward[0] > 0.8
    assert toward[1] > 0.6
    assert abs(toward[2]) < 0.15
    assert full.norm(dim=1).mean().item() == pytest.approx(shell(6), abs=0.2)


def test_weights_of_angles():
    assert angle_weights(4).tolist() == pytest.approx([100, 100 / math.sqrt(2), 100 / math.sqrt(3)])
    plain = HypersphericalSettings(latent=5)
    assert mean_weights(5, plain, 300).tolist() == [1, 1, 1, 1]
    assert mean_weights(5, RELEASED, 1).tolist() == [100, 1, 1, 0]
    assert mean_weights(5, RELEASED, 101).tolist() == [100, 1, 1, 0]  # Epoch 100, counted from 0.
    assert mean_weights(5, RELEASED, 102).tolist() == [150, 1, 1, 0]
    assert mean_weights(5, RELEASED, 102 + 16).tolist() == [150, 5, 5, 0]


def test_schedules():
    plain = HypersphericalSettings()
    assert [annealed(plain, epoch) for epoch in (1, 2, 5, 101, 102, 400)] == [1, 2, 3, 11, 11, 11]
    # Released, counted from 0: the root up to 100, 1 up to 300, the root since 301 up to 500, then 1 again.
    found = [annealed(RELEASED, epoch + 1) for epoch in (0, 100, 101, 300, 301, 305, 500, 501)]
    assert found == pytest.approx([1, 11, 1, 1, 1, 3, 1 + math.sqrt(199), 1])
    assert annealed(replace(plain, anneal_epochs=4), 9) == 3


def test_epsilon_of_the_means_biases_their_cosines():
    x = 0.01 * latents(6)
    assert mu_angles(x, replace(PLAIN, epsilon=1e-3)) != mu_angles(x, PLAIN)
    torch.testing.assert_close(mu_angles(100 * x, PLAIN), mu_angles(x, PLAIN))
    assert diagonal_cosines(D, 1e-3)[0] < diagonal_cosines(D)[0]
