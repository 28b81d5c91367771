import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator
from torch.distributions import kl_divergence

from mednovelty.errors import SettingsError
from mednovelty.methods.image_vae import (
    FASHION_MNIST,
    PAPER_TRAINING,
    ImageVAE,
    ImageVAEMethod,
    ImageVAESettings,
    closed_forms,
    misfits,
)
from mednovelty.methods.image_vae_comparison import compare_with_mean_image, mean_image
from mednovelty.methods.vae import elbo_terms
from mednovelty.nn.augmentation import Augmentation, augmented, with_holes
from mednovelty.protocols import ProbabilisticAutoencoder
from mednovelty.schedule import exhausted, learning_rate
from mednovelty.settings import checked, overlaid, tree_of
from mednovelty.testing.contracts import METHOD_CHECKS
from mednovelty.train import train
from mednovelty.voxel_cache import VoxelCache

SLICES, WINDOWS = (2, 16, 24), (3, 8, 12, 4)
SMALL = ImageVAESettings(widths=(5, 6), latent=4, hidden=(9, 7))
DENSE = replace(SMALL, network="dense")
CASES = [(SLICES, SMALL), (WINDOWS, SMALL), (SLICES, DENSE), ((7,), DENSE)]
EVERY_CASE = pytest.mark.parametrize(("shape", "settings"), CASES, ids=["2d", "3d", "dense", "dense 1d"])


def noise(seed=5):
    return Generator().manual_seed(seed)


def images(shape, n=5, seed=2):
    return torch.randn(n, math.prod(shape), generator=noise(seed))


def started(shape, settings, seed=1):
    method = ImageVAEMethod(settings)
    model = method.build(shape)
    with torch.no_grad():
        method.start(model, None, noise(seed))
    return method, model.eval()


def blobs(shape=(1, 16, 16), n=400, seed=0):
    """Discs of varying place and brightness: two or three things to know about each."""
    rng = np.random.default_rng(seed)
    at = np.arange(shape[-1])
    x, y = rng.uniform(4, 11, (2, n, 1, 1))
    found = np.exp(-((at[:, None] - x) ** 2 + (at - y) ** 2) / 8) * rng.uniform(1, 3, (n, 1, 1))
    return (found.reshape(n, -1) + 0.1 * rng.standard_normal((n, math.prod(shape)))).astype("f4")


@EVERY_CASE
def test_rows_in_rows_out(shape, settings):
    _, model = started(shape, settings)
    x = images(shape)
    posterior = model.encode(x)
    likelihood = model.decode(posterior.mean)
    assert isinstance(model, ProbabilisticAutoencoder)
    assert (model.shape, model.channels) == (shape, math.prod(shape))
    assert (posterior.batch_shape, posterior.event_shape) == ((5,), (model.latents,))
    assert (likelihood.batch_shape, likelihood.event_shape) == ((5,), (model.channels,))
    assert model.prior.event_shape == posterior.event_shape
    assert not model.prior.mean.any()
    assert (model.prior.stddev == 1).all()


def test_number_of_latents():
    sizes = {(2, 16, 24): 4 * 1 * 3, (3, 8, 12, 4): 4, (1, 16, 16): 4, (1, 20, 28, 16): 4 * 2 * 4 * 1}
    assert {shape: ImageVAE(shape, SMALL).latents for shape in sizes} == sizes
    assert ImageVAE((1, 64, 64), ImageVAESettings()).latents == 256
    assert ImageVAE(SLICES, DENSE).latents == 4


@EVERY_CASE
def test_a_batch_equals_its_elements(shape, settings):
    _, model = started(shape, settings)
    x = images(shape)
    together, alone = model.encode(x), [model.encode(row[None]) for row in x]
    torch.testing.assert_close(together.mean, torch.cat([q.mean for q in alone]))
    torch.testing.assert_close(together.stddev, torch.cat([q.stddev for q in alone]))
    z = together.mean
    torch.testing.assert_close(model.decode(z).mean, torch.cat([model.decode(row[None]).mean for row in z]))


@pytest.mark.parametrize(
    ("given_c", "c"), [({}, 1.0), ({"c": 2.5}, 2.5), ({"log_c": 1.4}, math.exp(1.4)), ({"log_c": 0}, 1.0)]
)
def test_log_likelihood_by_hand(given_c, c):
    # sum over d of -0.5 (x - g)^2 / c^2 - log c - 0.5 log 2 pi: c is a standard deviation.
    _, model = started(SLICES, replace(SMALL, **given_c))
    x, z = images(SLICES).double(), images((model.latents,), seed=3)
    g = model.decode(z).mean.detach().double()
    by_hand = [
        sum(-0.5 * d**2 / c**2 - math.log(c) - 0.5 * math.log(2 * math.pi) for d in row)
        for row in (x - g).tolist()
    ]
    assert model.decode(z).log_prob(x.float()).tolist() == pytest.approx(by_hand, rel=1e-5)
    assert misfits(model, x.float(), g.float()).tolist() == pytest.approx([-v for v in by_hand], rel=1e-5)
    assert "log_c" not in dict(model.named_parameters())


def test_kl_by_hand():
    _, model = started(SLICES, SMALL)
    x = images(SLICES)
    mean, log_sigma = (part.double() for part in model.posterior(x))
    by_hand = [
        [0.5 * (math.exp(2 * s) + m**2 - 1 - 2 * s) for m, s in zip(*row, strict=True)]
        for row in zip(mean.tolist(), log_sigma.tolist(), strict=True)
    ]
    assert min(abs(value) for value in log_sigma.flatten().tolist()) > 0
    torch.testing.assert_close(
        closed_forms(model, x, noise())[1].double(), torch.tensor(by_hand).double(), rtol=1e-4, atol=1e-6
    )
    divergence = kl_divergence(model.encode(x), model.prior)
    assert divergence.tolist() == pytest.approx([sum(row) for row in by_hand], rel=1e-4)


@EVERY_CASE
@pytest.mark.parametrize("learn_c", [False, True])
def test_the_loss_is_that_of_the_distributions(shape, settings, learn_c):
    settings = replace(settings, log_c=0.7, kl_weight=0.3, learn_c=learn_c)
    method, model = started(shape, settings)
    x = images(shape)
    terms, loss = elbo_terms(model, x, noise()), method.loss(model, x, 1, noise())
    torch.testing.assert_close(loss["reconstruction"], -terms.log_likelihood.mean())
    torch.testing.assert_close(loss["kl"], terms.kl.mean())
    torch.testing.assert_close(loss["loss"], -terms.log_likelihood.mean() + 0.3 * terms.kl.mean())
    averaged = ImageVAEMethod(replace(settings, reduction="mean")).loss(model, x, 1, noise())
    torch.testing.assert_close(averaged["reconstruction"], loss["reconstruction"] / model.channels)
    torch.testing.assert_close(averaged["kl"], loss["kl"] / model.latents)
    torch.testing.assert_close(averaged["loss"], averaged["reconstruction"] + 0.3 * averaged["kl"])


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_validation_is_the_loss_in_nats_an_image(reduction):
    settings = replace(SMALL, kl_weight=0.3, reduction=reduction)
    method, model = started(SLICES, settings)
    x = images(SLICES, n=7)
    found, loss = method.validate(model, [x], noise()), method.loss(model, x, 1, noise())
    factor = model.channels if reduction == "mean" else 1
    assert found["loss"] == pytest.approx(factor * loss["loss"].item(), rel=1e-5)
    assert found["elbo"] == pytest.approx(-found["reconstruction"] - found["kl"])
    assert found["elbo"] == pytest.approx(elbo_terms(model, x, noise()).elbo.mean().item(), rel=1e-5)
    parts = method.validate(model, [x[:3], x[3:]], noise())
    assert parts["kl"] == pytest.approx(found["kl"], rel=1e-5)
    assert found["active_latents"] == (closed_forms(model, x, noise())[1].mean(0) > 0.01).sum()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_context_encoding_restores_what_was_cut_out(reduction):
    settings = replace(SMALL, context_encoding=True, context_factor=0.3, kl_weight=0.6, reduction=reduction)
    method, model = started(SLICES, settings)
    x, shared = images(SLICES), noise()
    loss = method.loss(model, x, 1, noise())
    plain = ImageVAEMethod(replace(settings, context_encoding=False)).loss(model, x, 1, shared)
    holed = with_holes(x.unflatten(1, SLICES), shared).flatten(1)
    assert not torch.equal(holed, x)
    # The posterior's mean of the image with holes, the whole image as target, no KL.
    context = -model.decode(model.encode(holed).mean).log_prob(x).mean()
    context = context / (model.channels if reduction == "mean" else 1)
    torch.testing.assert_close(loss["context"], context)
    torch.testing.assert_close(loss["loss"], 0.7 * plain["loss"] + 0.3 * context)
    assert "context" not in plain


@pytest.mark.parametrize("shape", [SLICES, WINDOWS])
def test_augmented_images_are_input_and_target(shape):
    how = Augmentation(mirror_axes=(1,))
    method, model = started(shape, replace(SMALL, augmentation=how, log_c=-0.5))
    x, shared = images(shape), noise()
    loss = method.loss(model, x, 1, noise())
    changed = augmented(x.unflatten(1, shape), how, shared).flatten(1)
    torch.testing.assert_close(loss["loss"], -elbo_terms(model, changed, shared).elbo.mean())
    again, other = method.loss(model, x, 1, noise()), method.loss(model, x, 1, noise(6))
    assert torch.equal(loss["loss"], again["loss"])
    assert not torch.equal(loss["loss"], other["loss"])
    held_out = method.validate(model, [x], noise())
    assert held_out["elbo"] == pytest.approx(elbo_terms(model, x, noise()).elbo.mean().item(), rel=1e-5)


def test_the_released_sampler_draws_with_the_root_of_sigma():
    _, model = started(SLICES, replace(SMALL, log_c=0.4))
    x = images(SLICES)
    misfit, kl = closed_forms(model, x, noise(), released_sampler=True)
    posterior, draws = model.encode(x), torch.randn(5, model.latents, generator=noise())
    z = posterior.mean + posterior.stddev.sqrt() * draws
    torch.testing.assert_close(misfit, -model.decode(z).log_prob(x))
    torch.testing.assert_close(kl, closed_forms(model, x, noise())[1])
    method = ImageVAEMethod(replace(SMALL, log_c=0.4, released_sampler=True))
    torch.testing.assert_close(method.loss(model, x, 1, noise())["reconstruction"], misfit.mean())


@pytest.mark.parametrize("shape", [SLICES, WINDOWS])
@pytest.mark.parametrize("name", ["encoder.heads.weight", "decoder.first.weight", "log_c"])
def test_gradients_are_those_of_finite_differences(shape, name):
    method, model = started(shape, replace(SMALL, learn_c=True, log_c=0.4, kl_weight=0.7))
    model, x = model.double(), images(shape).double()
    parameter = dict(model.named_parameters())[name]
    method.loss(model, x, 1, noise())["loss"].backward()
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            parameter.view(-1)[-1] += step
            values.append(method.loss(model, x, 1, noise())["loss"].item())
            parameter.view(-1)[-1] -= step
    slope = (values[0] - values[1]) / 2e-6
    assert parameter.grad.view(-1)[-1].item() == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_the_learned_c_is_the_residuals():
    # With everything else fixed the best c^2 is the mean squared residual.
    method, model = started(SLICES, replace(SMALL, learn_c=True))
    x = images(SLICES, n=40)
    model.requires_grad_(False)
    model.log_c.requires_grad_()
    optimiser = torch.optim.Adam([model.log_c], lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        method.loss(model, x, 1, noise())["loss"].backward()
        optimiser.step()
    posterior = model.encode(x)
    z = posterior.mean + posterior.stddev * torch.randn(40, model.latents, generator=noise())
    residual = (x - model.decode(z).mean).square().mean().sqrt().item()
    assert model.decode(z).stddev[0, 0].item() == pytest.approx(residual, rel=1e-3)


def test_images_far_from_any_seen_have_finite_scores():
    _, model = started(SLICES, SMALL)
    posterior = model.encode(1e4 * images(SLICES))
    assert posterior.stddev.max().item() == pytest.approx(math.exp(10))
    assert torch.isfinite(kl_divergence(posterior, model.prior)).all()


def test_a_sigmoid_keeps_images_between_0_and_1():
    _, model = started((1, 28, 28), FASHION_MNIST)
    widths = [tuple(value.shape) for name, value in model.state_dict().items() if name.endswith("weight")]
    assert widths == [(400, 784), (40, 400), (400, 20), (784, 400)]
    image = model.decode(50 * images((20,))).mean
    assert 0 <= image.min() < 0.1
    assert 0.9 < image.max() <= 1


class OnSlices(ImageVAEMethod):
    """The contract's tables have rows of 48 values; here they are slices."""

    settings_given = ImageVAESettings(widths=(3, 4), latent=2)

    def __init__(self, settings=None):
        super().__init__(settings or self.settings_given)

    def build(self, shape):
        return super().build((1, 4, 12))


class OnWindows(OnSlices):
    def build(self, shape):
        return ImageVAEMethod.build(self, (3, 4, 4, 4))


@pytest.mark.parametrize(
    "settings", [OnSlices.settings_given, replace(OnSlices.settings_given, learn_c=True)]
)
@pytest.mark.parametrize("check", METHOD_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("kind", "values"), [(OnSlices, 48), (OnWindows, 192)])
def test_contract(check, settings, kind, values):
    rng = np.random.default_rng(0)
    tables = [VoxelCache.from_array(rng.normal(1, 2, (n, values)).astype("f4")) for n in (90, 40)]
    check(kind(settings), *tables)


def trained(settings, x, epochs=25, **changes):
    method = ImageVAEMethod(settings)
    model = method.build((1, 16, 16))
    how = replace(
        PAPER_TRAINING, batch_size=50, learning_rate=2e-3, max_epochs=epochs, patience=epochs, **changes
    )
    data, held_out = VoxelCache.from_array(x[:300]), VoxelCache.from_array(x[300:])
    record = train(method, model, data, held_out, how, seed=0)
    return method, model, data, held_out, record


@pytest.mark.parametrize("network", ["conv", "dense"])
def test_training_beats_the_mean_image(network):
    settings = ImageVAESettings(network=network, widths=(8, 16), hidden=(32,), latent=6, log_c=-1.0)
    method, model, data, held_out, record = trained(settings, blobs())
    said = method.assess(model, data, held_out, noise())
    assert record.losses[-1] < record.losses[0]
    assert not said["collapsed"]
    assert said["gain"] > 10 * said["gain_error"]
    assert said["active_latents"] >= 2
    assert said["residual_rms"] < 0.7 * said["mean_image_rms"]
    assert said["verdict"].startswith("the VAE beats the mean training image by")


def test_a_collapsed_posterior_is_told():
    settings = ImageVAESettings(widths=(8, 16), latent=6, log_c=3.0)
    method, model, data, held_out, _ = trained(settings, blobs(), epochs=15)
    said = method.assess(model, data, held_out, noise())
    assert said["collapsed"]
    assert said["active_latents"] == 0
    assert said["verdict"].startswith("WARNING: the VAE does no better than the mean training image")
    assert "lower c (or learn_c=true)" in said["verdict"]


def test_comparison_by_hand():
    # A decoder that says 0 whatever z is, and a posterior that is the prior: ELBO = log N(x; 0, c^2 I).
    c, x = 0.5, blobs(n=60)
    method = ImageVAEMethod(ImageVAESettings(widths=(2, 3), latent=2, c=c))
    model = method.build((1, 16, 16))
    data, held_out = VoxelCache.from_array(x[:40]), VoxelCache.from_array(x[40:])
    said = method.assess(model, data, held_out, noise())
    constant = 256 * (math.log(c) + 0.5 * math.log(2 * math.pi))
    elbos = -0.5 * (x[40:].astype("f8") ** 2).sum(1) / c**2 - constant
    mean = x[:40].astype("f8").mean(0)
    alone = -0.5 * ((x[40:] - mean) ** 2).sum(1) / c**2 - constant
    sigma = math.sqrt(((x[:40] - mean) ** 2).mean())
    best = -0.5 * ((x[40:] - mean) ** 2).sum(1).mean() / sigma**2
    best -= 256 * (math.log(sigma) + 0.5 * math.log(2 * math.pi))
    assert said["elbo"] == pytest.approx(elbos.mean(), rel=1e-5)
    assert said["elbo_error"] == pytest.approx(elbos.std(ddof=1) / math.sqrt(20), rel=1e-4)
    assert said["kl"] == 0
    assert said["mean_image"] == pytest.approx(alone.mean(), rel=1e-5)
    assert said["mean_image_best_sigma"] == pytest.approx(best, rel=1e-5)
    assert said["gain"] == pytest.approx((elbos - alone).mean(), rel=1e-4)
    assert said["gain_error"] == pytest.approx((elbos - alone).std(ddof=1) / math.sqrt(20), rel=1e-3)
    assert said["residual_rms"] == pytest.approx(math.sqrt((x[40:] ** 2).mean()), rel=1e-5)
    assert said["mean_image_rms"] == pytest.approx(math.sqrt(((x[40:] - mean) ** 2).mean()), rel=1e-5)
    assert said["c"] == pytest.approx(c)
    assert (said["images"], said["latents"], said["active_latents"], said["collapsed"]) == (20, 2, 0, True)


def test_the_mean_image_is_found_in_blocks(monkeypatch):
    x = blobs(n=50)
    monkeypatch.setattr("mednovelty.methods.image_vae_comparison._VALUES", 256 * 7)
    mean, sigma = mean_image(VoxelCache.from_array(x))
    np.testing.assert_allclose(mean, x.astype("f8").mean(0), atol=1e-12)
    assert sigma == pytest.approx(math.sqrt(((x - x.astype("f8").mean(0)) ** 2).mean()), rel=1e-9)


def test_a_single_held_out_image_has_no_error():
    _, model = started((1, 16, 16), SMALL)
    x = blobs(n=9)
    data, one = VoxelCache.from_array(x[:8]), VoxelCache.from_array(x[8:])
    found = compare_with_mean_image(model, data, one, generator=noise())
    assert found.elbo_error is None
    assert found.images == 1


def test_the_papers_schedule_by_hand():
    # Lowered on a plateau (two epochs), stopped once the loss has not decreased for more than three.
    falling = [9.0, 8.0, 7.0]
    assert learning_rate(falling, PAPER_TRAINING) == 1e-4
    assert learning_rate([*falling, 7.5], PAPER_TRAINING) == 1e-4
    assert learning_rate([*falling, 7.5, 7.5], PAPER_TRAINING) == pytest.approx(1e-5)
    assert not exhausted([*falling, 7.5, 7.5, 7.5], PAPER_TRAINING)
    assert exhausted([*falling, 7.5, 7.5, 7.5, 7.5], PAPER_TRAINING)
    assert not exhausted([*falling, 7.5, 7.5, 7.5, 6.9], PAPER_TRAINING)
    assert learning_rate([*falling, 7.5, 7.5, 7.5, 7.5, 6.0, 6.0, 6.0], PAPER_TRAINING) == pytest.approx(1e-7)
    assert PAPER_TRAINING.batch_for(100) == PAPER_TRAINING.batch_for(10**6) == 64
    assert ImageVAEMethod.training is PAPER_TRAINING


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"widths": ()}, r"at least 1 unit, not widths=\(\), latent=256"),
        ({"hidden": (0,)}, r"not hidden=\(0,\)"),
        ({"latent": 0}, "latent=0"),
        ({"latent": 10**6}, "at most 16 layers of at most 16384 units.*latent=1000000"),
        ({"widths": (2,) * 17}, "at most 16 layers"),
        ({"network": "resnet"}, "network='resnet' is none of conv, dense, lenet, patch"),
        ({"output": "tanh"}, "output='tanh' is none of linear, sigmoid"),
        ({"reduction": "max"}, "reduction='max' is none of sum, mean"),
        ({"c": 0.0}, "c=0.0 is a standard deviation: it must be positive"),
        ({"c": float("nan")}, "c=nan"),
        ({"c": 1.0, "log_c": 0.0}, "c=1.0 and log_c=0.0 are the same setting; give one"),
        ({"log_c": 11.0}, "log c = 11 lies outside of -10 to 10"),
        ({"log_c": float("nan")}, "log c = nan"),
        ({"kl_weight": -1.0}, "kl_weight=-1.0"),
        ({"context_factor": 1.0}, "context_factor=1.0: must lie between 0 and 1"),
        ({"log_sigma_floor": 3.0, "log_sigma_ceiling": 2.0}, "the first must be the smaller"),
    ],
)
def test_settings_are_checked(settings, words):
    with pytest.raises(SettingsError, match=words):
        ImageVAESettings(**settings)


@given(st.floats(0.01, 100))
def test_c_and_log_c_are_one_setting(c):
    by_log = ImageVAESettings(log_c=math.log(c))
    assert ImageVAESettings(c=c).start_log_c == pytest.approx(by_log.start_log_c, abs=1e-12)


def test_settings_come_from_a_tree():
    base = tree_of(ImageVAESettings())
    tree = overlaid(base, {"augmentation": {"noise_sigma": 0.1}, "widths": [8, 16]}, "settings")
    found = checked(ImageVAESettings, tree, "settings")
    assert found.augmentation == Augmentation(noise_sigma=0.1)
    assert found.widths == (8, 16)
    assert checked(ImageVAESettings, tree_of(found), "settings") == found
    assert checked(ImageVAESettings, {"augmentation": {}}, "settings").augmentation == Augmentation()
