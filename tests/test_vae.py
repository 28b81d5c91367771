import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator
from torch.distributions import kl_divergence

from mednovelty.errors import SettingsError
from mednovelty.methods.ppca import ProbabilisticPCA
from mednovelty.methods.vae import NETS, VAE, VAEMethod, VAESettings, closed_forms, elbo_terms
from mednovelty.methods.vae_comparison import compare_with_ppca
from mednovelty.papers import where
from mednovelty.protocols import ProbabilisticAutoencoder
from mednovelty.voxel_cache import VoxelCache


def voxels(n=3000, channels=9, seed=0):
    """Correlated, with channels of very different level and spread."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4)) @ rng.standard_normal((4, channels)) + 0.4 * rng.standard_normal(
        (n, channels)
    )
    return (x * np.geomspace(0.05, 7, channels) + np.linspace(-3, 11, channels)).astype(np.float32)


def noise(seed=5):
    return Generator().manual_seed(seed)


def started(x, start="pca", hidden=(14, 11), latent=3, **settings):
    method = VAEMethod(VAESettings(hidden=hidden, latent=latent, start=start, **settings))
    model = method.build(x.shape[1:])
    method.start(model, VoxelCache.from_array(x), noise(1))
    return method, model.eval()


def random_vae(channels=6, dtype=torch.float64, seed=3, **settings):
    """A VAE none of whose weights, shifts or spreads is 0 or 1."""
    model = VAE(channels, VAESettings(hidden=(8, 7), latent=3, **settings)).to(dtype)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.uniform_(-0.6, 0.6, generator=noise(seed))
        model.spread.uniform_(0.3, 4, generator=noise(seed))
    return model


def by_hand():
    """One channel, one latent, one hidden unit: q(z|x) = N(m, s^2), p(x|z) = N(M, S^2)."""
    model = VAE(1, VAESettings(hidden=(1,), latent=1, log_sigma_floor=-2.0)).double()
    model.shift.fill_(1.0)
    model.spread.fill_(2.0)
    with torch.no_grad():
        for part, weight, heads, bias in ((model.encoder, 3.0, [0.5, 0.1], [-1.0, 0.2]),
                                          (model.decoder, 2.0, [1.5, -4.0], [0.25, 0.5])):  # fmt: skip
            part.layers[0].weight.fill_(weight)
            part.heads.weight.copy_(torch.tensor(heads)[:, None])
            part.heads.bias.copy_(torch.tensor(bias))
    return model


def test_encode_by_hand():
    # x = 2: u = (2 - 1) / 2 = 0.5, hidden 1.5, mean 0.5 * 1.5 - 1 = -0.25, log sigma 0.15 + 0.2 = 0.35.
    posterior = by_hand().encode(torch.tensor([[2.0]], dtype=torch.float64))
    assert posterior.mean.item() == pytest.approx(-0.25)
    assert posterior.stddev.item() == pytest.approx(math.exp(0.35))


def test_decode_by_hand_in_units_of_x():
    # z = 0.1: hidden 0.2, mean 0.3 + 0.25 = 0.55 -> 1 + 2 * 0.55; log sigma -0.8 + 0.5 -> 2 exp(-0.3).
    # z = 5: log sigma -40 + 0.5, held at the floor -2 -> 2 exp(-2).
    likelihood = by_hand().decode(torch.tensor([[0.1], [5.0]], dtype=torch.float64))
    assert likelihood.mean[0].item() == pytest.approx(2.1)
    assert likelihood.stddev[:, 0].tolist() == pytest.approx([2 * math.exp(-0.3), 2 * math.exp(-2)])


def test_voxels_far_from_anything_have_finite_scores():
    x = 1e4 * torch.randn(50, 6, generator=noise(2))
    model = random_vae(dtype=torch.float32)
    terms = elbo_terms(model, x, noise())
    assert model.encoder(x)[1].max() > 100  # Without the ceiling, sigma is infinite here.
    assert model.encode(x).stddev.max().item() == pytest.approx(math.exp(10))
    assert torch.isfinite(terms.kl).all()
    assert torch.isfinite(terms.log_likelihood).all()


def test_elbo_by_hand():
    model, x = by_hand(), torch.tensor([[2.0]], dtype=torch.float64)
    mean, sigma = -0.25, math.exp(0.35)
    z = mean + sigma * torch.randn(1, 1, generator=noise(), dtype=torch.float64).item()
    hidden = max(2 * z, 0)
    centre, spread = 1 + 2 * (1.5 * hidden + 0.25), 2 * math.exp(max(-4 * hidden + 0.5, -2))
    log_likelihood = -0.5 * ((2 - centre) / spread) ** 2 - math.log(spread) - 0.5 * math.log(2 * math.pi)
    kl = 0.5 * (sigma**2 + mean**2 - 1) - 0.35
    terms = elbo_terms(model, x, noise())
    assert terms.log_likelihood.item() == pytest.approx(log_likelihood)
    assert terms.kl.item() == pytest.approx(kl)
    assert terms.elbo.item() == pytest.approx(log_likelihood - kl)


def test_the_loss_is_the_one_of_the_distributions():
    model, x = random_vae(), torch.randn(11, 6, generator=noise(2), dtype=torch.float64) * 3
    nll, kl = closed_forms(model, x, noise())
    terms = elbo_terms(model, x, noise())
    torch.testing.assert_close(nll, -terms.log_likelihood)
    torch.testing.assert_close(kl.sum(1), kl_divergence(model.encode(x), model.prior))
    method = VAEMethod(VAESettings(hidden=(8, 7), latent=3, kl_weight=0.3))
    loss = method.loss(model, x, 1, noise())
    torch.testing.assert_close(loss["loss"], (-terms.log_likelihood + 0.3 * terms.kl).mean())
    torch.testing.assert_close(loss["reconstruction"], -terms.log_likelihood.mean())
    torch.testing.assert_close(loss["kl"], terms.kl.mean())


def test_more_draws_average_the_log_likelihood():
    model, x = random_vae(), torch.randn(5, 6, generator=noise(2), dtype=torch.float64)
    shared = noise()
    singles = [elbo_terms(model, x, shared).log_likelihood for _ in range(3)]
    torch.testing.assert_close(elbo_terms(model, x, noise(), samples=3).log_likelihood, sum(singles) / 3)


@pytest.mark.parametrize("name", ["encoder.layers.0.weight", "encoder.heads.bias", "decoder.heads.weight"])
def test_gradients_are_those_of_finite_differences(name):
    model, x = random_vae(), torch.randn(9, 6, generator=noise(2), dtype=torch.float64)
    method = VAEMethod(VAESettings(hidden=(8, 7), latent=3, kl_weight=0.7))
    parameter = dict(model.named_parameters())[name]
    method.loss(model, x, 1, noise())["loss"].backward()
    for index in (0, parameter.numel() - 1):
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.view(-1)[index] += step
                values.append(method.loss(model, x, 1, noise())["loss"].item())
                parameter.view(-1)[index] -= step
        slope = (values[0] - values[1]) / 2e-6
        assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize(("latent", "hidden"), NETS.items())
def test_the_start_is_probabilistic_pca(latent, hidden):
    # With the exact, diagonal posterior of a linear model, -ELBO = -log p(x). The mean of log p(x|z) over
    # draws of z is, for a linear decoder of constant noise, log p(x|E z) - 0.5 sum_j s_j^2 |W_j|^2 / sigma^2.
    x = voxels(2000, 33)
    _, model = started(x, hidden=hidden, latent=latent)
    model = model.double()
    u = model.standardised(torch.from_numpy(x).double()).numpy()
    pca = ProbabilisticPCA.fit(u.mean(0), np.cov(u.T, bias=True), latent)
    some = torch.from_numpy(x[:200]).double()
    posterior, (mean, sigma) = model.encode(some), pca.posterior(u[:200])
    np.testing.assert_allclose(posterior.mean.detach(), mean, atol=1e-5)
    np.testing.assert_allclose(posterior.stddev.detach()[0], sigma, rtol=1e-5)
    log_p = model.decode(posterior.mean).log_prob(some).detach().numpy()
    log_p -= 0.5 * (sigma**2 * (pca.loadings**2).sum(0)).sum() / pca.noise_variance
    elbo = log_p - kl_divergence(posterior, model.prior).detach().numpy()
    expected = pca.log_likelihood(u[:200]) - model.spread.log().sum().item()
    np.testing.assert_allclose(elbo, expected, atol=1e-4)


def test_start_with_more_latents_than_can_be_carried():
    x = voxels(800, 5)
    for hidden, latent, carried in (((14, 11), 7, 4), ((9, 5), 4, 2)):
        method, model = started(x, hidden=hidden, latent=latent)
        active = method.validate(model, [torch.from_numpy(x)], noise())["active_latents"]
        assert active == carried


def test_start_of_a_net_too_narrow_to_carry_anything():
    x = voxels(300, 5)
    method, model = started(x, hidden=(9, 1), latent=3)
    assert math.isfinite(method.validate(model, [torch.from_numpy(x)], noise())["loss"])


def test_the_weights_can_learn_from_the_start():
    x = voxels(500)
    method, model = started(x)
    for step in range(2):  # The free units' inputs get a gradient once their outputs have moved.
        model.zero_grad()
        method.loss(model, torch.from_numpy(x), 1, noise(step))["loss"].backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 1e-3 * parameter.grad
    # A unit whose random weights on nonnegative inputs are all negative is dead; that is rare.
    rows = torch.cat([p.grad.abs().amax(1) for p in model.parameters() if p.ndim == 2])
    assert (rows == 0).float().mean() < 0.05


@pytest.mark.parametrize("start", ["pca", "random"])
def test_start_standardises(start):
    x = voxels()
    _, model = started(x, start)
    u = model.standardised(torch.from_numpy(x)).double()
    np.testing.assert_allclose(u.mean(0), np.zeros(9), atol=1e-4)
    np.testing.assert_allclose(u.std(0, correction=0), np.ones(9), rtol=1e-4)


def test_a_channel_that_never_changes_is_harmless():
    x = voxels(400)
    x[:, 4] = 2.5
    method, model = started(x)
    assert math.isfinite(method.validate(model, [torch.from_numpy(x)], noise())["loss"])


@given(factor=st.floats(0.01, 100), shift=st.floats(-50, 50))
def test_elbo_changes_with_the_units_as_a_density_does(factor, shift):
    # p(a x + b) = p(x) / a for each of the C channels.
    x = voxels(400, 5).astype(np.float64)
    other = factor * x + shift
    scores = []
    for values in (x, other):
        method, model = started(values.astype(np.float32))
        scores.append(method.validate(model.double(), [torch.from_numpy(values)], noise())["elbo"])
    assert scores[1] == pytest.approx(scores[0] - 5 * math.log(factor), abs=0.02)


def test_company_a_row_is_coded_alike_in_every_batch():
    model, x = random_vae(), torch.randn(13, 6, generator=noise(2), dtype=torch.float64)
    posterior, z = model.encode(x), torch.randn(13, 3, generator=noise(2), dtype=torch.float64)
    likelihood = model.decode(z)
    for i in range(13):
        torch.testing.assert_close(model.encode(x[i : i + 1]).mean[0], posterior.mean[i])
        torch.testing.assert_close(model.encode(x[i : i + 1]).stddev[0], posterior.stddev[i])
        torch.testing.assert_close(model.decode(z[i : i + 1]).mean[0], likelihood.mean[i])
        torch.testing.assert_close(model.decode(z[i : i + 1]).stddev[0], likelihood.stddev[i])


def test_training_and_evaluation_mode_are_the_same():
    model, x = random_vae(), torch.randn(4, 6, dtype=torch.float64, generator=noise(2))
    assert torch.equal(model.train().encode(x).mean, model.eval().encode(x).mean)


def test_is_a_probabilistic_autoencoder():
    model = random_vae()
    assert isinstance(model, ProbabilisticAutoencoder)
    assert model.prior.event_shape == (3,)
    assert model.encode(torch.zeros(5, 6, dtype=torch.float64)).batch_shape == (5,)
    assert model.decode(torch.zeros(5, 3, dtype=torch.float64)).event_shape == (6,)
    assert where("vasilev2018", "Eq. (1)") == "mednovelty.methods.vae:elbo_terms"


def test_validation_means_over_all_batches():
    x = voxels(100)
    method, model = started(x, latent=2)
    model.encoder.heads.bias.data += 0.3  # KL weights do not enter the validation loss.
    whole = method.validate(model, [torch.from_numpy(x)], noise())
    shared = noise()
    terms = [elbo_terms(model, part, shared) for part in torch.from_numpy(x).split(64)]
    shared = noise()
    parts = method.validate(model, torch.from_numpy(x).split(64), noise())
    assert parts["kl"] == pytest.approx(torch.cat([t.kl for t in terms]).mean().item(), rel=1e-5)
    assert parts["elbo"] == pytest.approx(torch.cat([t.elbo for t in terms]).mean().item(), rel=1e-5)
    assert parts["loss"] == pytest.approx(parts["reconstruction"] + parts["kl"], rel=1e-6) == -parts["elbo"]
    assert whole["kl"] == pytest.approx(parts["kl"], rel=1e-5)


def test_active_latents_are_counted_by_their_mean_kl():
    x = voxels(100)
    method, model = started(x, start="random", latent=4)
    with torch.no_grad():
        for tensor in (model.encoder.heads.weight, model.encoder.heads.bias):
            tensor.zero_()
        # KL of N(m, 1) from N(0, 1) is m^2 / 2: 0.0098, 0.0113; of N(0, s^2): (s^2 - 1) / 2 - ln s.
        model.encoder.heads.bias[:3] = torch.tensor([0.14, 0.15, 0.0])
        model.encoder.heads.bias[4 + 2] = -0.2  # (0.67 - 1) / 2 + 0.2 = 0.035
    assert method.validate(model, [torch.from_numpy(x)], noise())["active_latents"] == 2


def test_kl_warm_up():
    settings = VAESettings(kl_weight=0.8, kl_warmup_epochs=4)
    assert [settings.kl_weight_in(epoch) for epoch in (1, 2, 3, 4, 5, 50)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 0.8, 0.8]
    )
    assert VAESettings(kl_weight=0.8).kl_weight_in(1) == 0.8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden": ()}, "layers of at least 1 unit"),
        ({"latent": 0}, "latent=0"),
        ({"kl_weight": -1.0}, "kl_weight=-1.0"),
        ({"start": "pcs"}, "start='pcs' is neither"),
    ],
)
def test_settings_are_checked(settings, words):
    with pytest.raises(SettingsError, match=words):
        VAESettings(**settings)


def test_comparison_of_a_vae_at_its_start_is_a_draw():
    x = voxels(4000)
    data = VoxelCache.from_array(x[:3000])
    _, model = started(x[:3000])
    result = compare_with_ppca(model, data, VoxelCache.from_array(x[3000:]), generator=noise(), samples=30)
    held_out = x[3000:].astype(np.float64)
    moments = data.moments()
    given_pca = ProbabilisticPCA.fit(moments.mean, moments.covariance, 3).log_likelihood(held_out).mean()
    assert result.pca_as_given == pytest.approx(given_pca)
    assert result.pca == max(result.pca_as_given, result.pca_standardised)
    assert result.elbo == pytest.approx(result.pca_standardised, abs=0.03)
    assert result.gain == pytest.approx(result.elbo - result.pca)
    assert (result.active_latents, result.active_by_variance, result.components) == (3, 3, 3)
    assert result.log_two_pi == pytest.approx(4.5 * math.log(2 * math.pi))


def test_a_collapsed_vae_is_flagged_in_words():
    x = voxels(1500)
    data, held_out = VoxelCache.from_array(x[:1000]), VoxelCache.from_array(x[1000:])
    _, model = started(x, start="random")
    result = compare_with_ppca(model, data, held_out, generator=noise())
    assert result.collapsed
    assert result.verdict.startswith("WARNING: the VAE loses to probabilistic PCA with 3 components")
    assert result.as_json()["collapsed"] is True


def test_a_vae_that_wins_is_not_flagged():
    # Noise that grows with the signal is what probabilistic PCA cannot say.
    rng = np.random.default_rng(0)
    level = rng.uniform(-2, 2, (1500, 1))
    x = (level + np.exp(level) * 0.1 * rng.standard_normal((1500, 5))).astype(np.float32)
    method, model = started(x, hidden=(8, 6), latent=2)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    shared = noise()
    for _ in range(60):
        optimiser.zero_grad()
        method.loss(model, torch.from_numpy(x), 1, shared)["loss"].backward()
        optimiser.step()
    data = VoxelCache.from_array(x)
    result = compare_with_ppca(model, data, data, generator=noise())
    assert result.gain > 0.5
    assert not result.collapsed
    assert result.verdict.startswith("the VAE beats probabilistic PCA with 2 components")
