"""Maps of derivatives against finite differences and by hand, in two and three dimensions."""

import gc
import weakref

import pytest
import torch
from torch.distributions import kl_divergence

from mednovelty.batch import Batch, antithetic_noise
from mednovelty.methods.input_gradients import InputGradients, NoisyCopies
from mednovelty.nn.smoothing import Blur
from mednovelty.plugins import plugin
from mednovelty.reference import Reference
from mednovelty.scoring import LOCALISATION, score_groups
from mednovelty.testing.contracts import SCORER_CHECKS
from mednovelty.testing.images import ConvVAE, LinearImageVAE

SHAPES = ((3, 7, 6), (2, 5, 4, 6))
SHARP = Blur(0.0)
# The map of nearest latent neighbours compares with normals, in float32: test_nearest_latent.py.
NAMES = [name for group in LOCALISATION for name in score_groups()[group] if name != "nln_map"]


def images(shape, count=4, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, torch.Size(shape).numel(), dtype=torch.float64, generator=generator)


@pytest.fixture(params=SHAPES, ids=["2-D", "3-D"])
def shape(request):
    return request.param


@pytest.fixture(params=["linear", "conv"])
def model(request, shape):
    return LinearImageVAE(shape, 5) if request.param == "linear" else ConvVAE(shape).double()


def kl(model, x):
    return kl_divergence(model.encode(x), model.prior)


def misfit(model, x):
    return -model.decode(model.encode(x).mean).log_prob(x)


def central_differences(term, x, step=1e-4):
    """Return (B, D) derivatives of a term of each sample, two evaluations for each value of it."""
    steps = step * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.stack([(term(one + steps) - term(one - steps)) / (2 * step) for one in x])


def moduli(gradient, shape):
    return gradient.abs().reshape(len(gradient), *shape).sum(1)


def made(name, model, **options):
    kind = plugin("scorers", name)
    if "reference" in kind.needs:
        options["reference"] = Reference.of(model, images(model.shape, 9, seed=8), kind.reference_parts)
    return kind(model=model, **options)


TERMS = {
    "kl_gradient": lambda model: lambda x: kl(model, x),
    "rec_gradient": lambda model: lambda x: misfit(model, x),
    "elbo_gradient": lambda model: lambda x: kl(model, x) + misfit(model, x),
}


@pytest.mark.parametrize("name", TERMS)
def test_finite_differences_agree(name, model, shape):
    x = images(shape, 2)
    expected = moduli(central_differences(TERMS[name](model), x), shape)
    found = made(name, model, blur=SHARP).score(Batch(x))
    assert found.shape == (2, *shape[1:])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_kl_gradient_of_a_linear_encoder_is_its_transpose_times_the_mean(shape):
    model, x = LinearImageVAE(shape, 5), images(shape)
    mean = x @ model.encoder.T + model.encoder_shift
    exact = mean @ model.encoder
    torch.testing.assert_close(InputGradients(model, Batch(x)).kl, exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(made("kl_gradient", model, blur=SHARP).score(Batch(x)), moduli(exact, shape))


def test_rec_gradient_of_a_linear_model_by_hand(shape):
    # d/dx 1/2 sum ((x - W A x - c) / t)^2 = (1 - W A)' (r / t^2); log t and log 2 pi drop out.
    model, x = LinearImageVAE(shape, 5), images(shape)
    mean = x @ model.encoder.T + model.encoder_shift
    pull = (x - mean @ model.decoder.T - model.decoder_shift) / model.signal_sigma.square()
    exact = pull - pull @ model.decoder @ model.encoder
    torch.testing.assert_close(InputGradients(model, Batch(x)).rec, exact, rtol=1e-11, atol=1e-11)


def test_elbo_gradient_is_the_sum_of_both_before_the_modulus(model, shape):
    batch = Batch(images(shape))
    gradients = InputGradients(model, batch)
    elbo = made("elbo_gradient", model, blur=SHARP).score(batch)
    torch.testing.assert_close(elbo, moduli(gradients.kl + gradients.rec, shape))
    assert (moduli(gradients.kl, shape) + moduli(gradients.rec, shape) > elbo + 1e-3).any()


def test_constants_of_the_likelihood_do_not_change_rec_gradient_but_combi_likelihood(shape):
    model, x = LinearImageVAE(shape, 5), images(shape)

    class Shifted(LinearImageVAE):
        def decode(self, z):
            likelihood = super().decode(z)
            plain = likelihood.base_dist.log_prob
            likelihood.base_dist.log_prob = lambda value: plain(value) + 7.25
            return likelihood

    wide = Shifted(shape, 5)
    assert not torch.allclose(misfit(model, x), misfit(wide, x))
    same = [made("rec_gradient", each).score(Batch(x)) for each in (model, wide)]
    torch.testing.assert_close(*same, rtol=0, atol=0)
    combis = [made("combi_likelihood", each).score(Batch(x)) for each in (model, wide)]
    kl_map = made("kl_gradient", model).score(Batch(x))
    torch.testing.assert_close(combis[0] - combis[1], 7.25 * shape[0] * kl_map)


def test_sums_not_means_over_the_batch_and_company_changes_nothing(model, shape):
    x = images(shape, 6)
    for name in NAMES:
        scorer = made(name, model)
        alone = torch.cat([scorer.score(Batch(one[None])) for one in x])
        torch.testing.assert_close(scorer.score(Batch(x)), alone, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("check", SCORER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_contract_of_images(name, check, shape):
    model = ConvVAE(shape)
    kind = plugin("scorers", name)
    parts = {"model": model, "reference": Reference.of(model, images(shape, 9).float(), ["input"])}
    check(kind(**{need: parts[need] for need in kind.needs}), Batch, images(shape).float())


def test_scores_of_one_batch_are_those_of_batches_of_their_own(model, shape):
    x, shared = images(shape), Batch(images(shape))
    scorers = {name: made(name, model) for name in NAMES}
    for name, scorer in scorers.items():
        torch.testing.assert_close(scorer.score(shared), scorer.score(Batch(x)), rtol=0, atol=0, msg=name)
    other = ConvVAE(shape, seed=3).double()  # Nothing of one model is taken for another's.
    for name in NAMES:
        mine = made(name, other)
        torch.testing.assert_close(mine.score(shared), mine.score(Batch(x)), rtol=0, atol=0, msg=name)


def test_maps_are_smoothed_after_the_modulus(model, shape):
    blur = Blur(1.2, 2.0)
    for name in (*TERMS, "kl_gradient_smooth"):
        sharp = made(name, model, blur=SHARP).score(Batch(images(shape)))
        smooth = made(name, model, blur=blur).score(Batch(images(shape)))
        torch.testing.assert_close(smooth, blur(sharp))
        assert not torch.allclose(smooth, sharp)
    torch.testing.assert_close(
        made("kl_gradient", model).score(Batch(images(shape))),
        made("kl_gradient", model, blur=Blur(3.0, 1.0)).score(Batch(images(shape))),
    )


def test_errors_and_combi_by_hand(model, shape):
    x, blur = images(shape), Blur(1.2, 2.0)
    residual = (x - model.decode(model.encode(x).mean).mean).reshape(4, *shape)
    error = residual.square().sum(1)
    torch.testing.assert_close(made("rec_error", model).score(Batch(x)), error)
    kl_map = made("kl_gradient", model, blur=blur).score(Batch(x))
    torch.testing.assert_close(made("combi", model, blur=blur).score(Batch(x)), kl_map * error)


class Exact(LinearImageVAE):
    """Reconstructs the first half of every image exactly, the rest as 0."""

    def __init__(self, shape, x):
        super().__init__(shape, 5)
        self.x, self.half = x, x.shape[1] // 2

    def decode(self, z):
        likelihood = super().decode(z)
        likelihood.base_dist.loc = torch.cat(
            [self.x[:, : self.half], torch.zeros_like(self.x[:, self.half :])], 1
        )
        return likelihood


def test_combi_is_zero_where_the_residual_is_and_positive_elsewhere():
    shape = (1, 6, 5)
    x = images(shape)
    for name in ("combi", "combi_smooth"):
        combi = made(name, Exact(shape, x)).score(Batch(x))
        assert (combi[:, :3] == 0).all()
        assert (combi[:, 3:] > 0).all()
    assert (made("combi_likelihood", Exact(shape, x)).score(Batch(x))[:, :3] != 0).all()


def test_sample_wise_terms(model, shape):
    # vae_regularizer and negative_elbo are Vasilev et al.'s, of flattened images as they are.
    x = images(shape)
    (latent,) = model.prior.event_shape
    noise = antithetic_noise(6, latent, torch.Generator().manual_seed(0)).double()
    batch = Batch(x, noise=noise)
    posterior = model.encode(x)
    by_hand = [-model.decode(posterior.mean + posterior.stddev * draw).log_prob(x) for draw in noise]
    expected = {
        "vae_regularizer": kl(model, x),
        "rec_term": misfit(model, x),
        "negative_elbo_at_mean": kl(model, x) + misfit(model, x),
        "negative_elbo": kl(model, x) + torch.stack(by_hand).mean(0),
    }
    made("elbo_gradient", model).score(batch)
    for name, value in expected.items():
        assert value.shape == (4,)
        torch.testing.assert_close(plugin("scorers", name)(model).score(batch), value, msg=name)


def test_a_sample_without_axes_is_one_voxel():
    from mednovelty.testing.models import HeteroscedasticVAE, random_samples

    model, x = HeteroscedasticVAE(7, 3), random_samples(5, 7)
    gradient = central_differences(lambda x: kl(model, x), x, step=1e-2)
    torch.testing.assert_close(plugin("scorers", "kl_gradient")(model).score(Batch(x)), gradient.abs().sum(1),
                               rtol=1e-3, atol=1e-4)  # fmt: skip


def test_a_batch_and_its_graph_go_when_the_last_hold_of_them_does():
    # Without waiting for the collector of circles: a graph of a batch is what fills the memory of a card.
    model, batch = ConvVAE(SHAPES[0]), Batch(images(SHAPES[0]).float())
    for name in NAMES:
        if name != "combi_additive":
            made(name, model).score(batch)
    graphs = [value for value in batch._shared.values() if isinstance(value, tuple)]
    leaf = weakref.ref(graphs[0][0])
    gc.disable()
    try:
        del graphs, batch
        assert leaf() is None
    finally:
        gc.enable()


class Counting:
    """An image model that counts how often each of its maps is applied."""

    def __init__(self, model):
        self.model, self.shape, self.channels, self.prior = model, model.shape, model.channels, model.prior
        self.encoded = self.decoded = 0

    def encode(self, x):
        self.encoded += 1
        return self.model.encode(x)

    def decode(self, z):
        self.decoded += 1
        return self.model.decode(z)


def test_all_maps_of_a_batch_take_one_pass_through_each_half():
    from mednovelty.scoring import Scoring

    counting = Counting(ConvVAE(SHAPES[0]))
    names = [*TERMS, "combi", "rec_error", "combi_bright", "combi_likelihood", "vae_regularizer", "rec_term"]
    for order in (names, names[::-1]):
        counting.encoded = counting.decoded = 0
        found = Scoring(counting, Reference({}, "exact", 0), 2, 0, 3).predictor(order)(
            images(SHAPES[0]).float(), None
        )
        assert list(found) == order
        assert (counting.encoded, counting.decoded) == (1, 1)
    counting.encoded = counting.decoded = 0
    plugin("scorers", "kl_gradient")(counting).score(Batch(images(SHAPES[0]).float()))
    assert (counting.encoded, counting.decoded) == (1, 0)


def test_noisy_copies_are_the_same_for_every_sample_and_seed_dependent():
    copies = NoisyCopies(count=6, sigma=0.3, seed=4)
    noise = copies.noise(50)
    assert noise.shape == (6, 50)
    assert torch.equal(noise, copies.noise(50))
    assert not torch.equal(noise, NoisyCopies(count=6, sigma=0.3, seed=5).noise(50))
    torch.testing.assert_close(noise.square().mean(0), torch.full((50,), 0.09))
    torch.testing.assert_close(noise.sum(0), torch.zeros(50))
