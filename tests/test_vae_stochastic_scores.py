"""The stochastic scores by hand, against plain loops, and against their expectations."""

import math

import pytest
import torch
from by_hand import LOG_2PI, X, scores
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.batch import Batch, antithetic_noise
from mednovelty.methods.vae_stochastic_scores import (
    DecoderStochasticError,
    EncoderStochasticError,
    FullyStochasticError,
)
from mednovelty.plugins import names, plugin
from mednovelty.reference import Reference
from mednovelty.scoring import Scoring
from mednovelty.testing.models import HeteroscedasticVAE, LinearGaussianVAE, random_samples

MEANS = ("encoder_stochastic_error", "encoder_stochastic_likelihood", "decoder_stochastic_error",
         "fully_stochastic_error", "negative_elbo")  # fmt: skip


def noise(draws, width, seed=0):
    return antithetic_noise(draws, width, torch.Generator().manual_seed(seed))


# x1 = (2, -1, 0): z = (2, -4), p(x|z) = N((2, -4, -2), (2, 3, 7));
#                  z = (-1, 0.5), p(x|z) = N((-1, 0.5, -0.5), (2, 2, 3.5))
ERRORS = (0 + 9 + 4, 9 + 2.25 + 0.25)
MISFITS = (0 + 9 / 18 + 4 / 98 + math.log(42), 9 / 8 + 2.25 / 8 + 0.25 / 24.5 + math.log(14))
# x_1 = (2 + 2, -4, -2 - 7) and x_2 = (-1 + 1, 0.5 - 4, -0.5 + 3.5)
SAMPLED = (4 + 9 + 81, 4 + 6.25 + 9)
# Of N((1, -1, 0), (2, 2, 4)): x_1 = (3, -1, -4), x_2 = (2, -5, 4)
DECODED = (1 + 0 + 16, 0 + 16 + 16)


@pytest.mark.parametrize(
    ("equation", "name", "values", "constant"),
    [
        (8, "encoder_stochastic_error", ERRORS, 0),
        (9, "encoder_stochastic_likelihood", MISFITS, 1.5 * LOG_2PI),
        (10, "decoder_stochastic_error", DECODED, 0),
        (11, "fully_stochastic_error", SAMPLED, 0),
    ],
)
def test_equations_8_to_11_and_their_min_forms(equation, name, values, constant):
    assert scores(name, X[:1]) == pytest.approx([sum(values) / 2 + constant])
    assert scores(f"{name}_min", X[:1]) == pytest.approx([min(values) + constant])


def test_scores_are_those_of_a_plain_loop():
    model, x = HeteroscedasticVAE(5, 3), random_samples(7, 5)
    drawn, decoder_drawn = noise(4, 3), noise(4, 5, seed=1)
    posterior = model.encode(x)
    errors, misfits, sampled, decoded = [], [], [], []
    for draw, decoder_draw in zip(drawn, decoder_drawn, strict=True):
        likelihood = model.decode(posterior.mean + posterior.stddev * draw)
        errors.append((x - likelihood.mean).square().sum(1))
        misfits.append(-likelihood.log_prob(x))
        sampled.append((x - likelihood.mean - likelihood.stddev * decoder_draw).square().sum(1))
        central = model.decode(posterior.mean)
        decoded.append((x - central.mean - central.stddev * decoder_draw).square().sum(1))
    batch = Batch(x, noise=drawn, decoder_noise=decoder_drawn)
    for name, values in zip(MEANS, (errors, misfits, decoded, sampled), strict=False):
        values = torch.stack(values)
        torch.testing.assert_close(plugin("scorers", name)(model).score(batch), values.mean(0))
        torch.testing.assert_close(plugin("scorers", f"{name}_min")(model).score(batch), values.amin(0))


@given(seed=st.integers(0, 99), draws=st.integers(1, 9), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_the_smallest_is_at_most_the_mean_and_falls_with_more_draws(seed, draws, scale):
    model, x = HeteroscedasticVAE(5, 3, seed), scale * random_samples(7, 5, seed)
    drawn, decoder_drawn = noise(draws + 2, 3, seed), noise(draws + 2, 5, seed + 1)
    fewer = Batch(x, noise=drawn[:draws], decoder_noise=decoder_drawn[:draws])
    more = Batch(x, noise=drawn, decoder_noise=decoder_drawn)
    for name in MEANS:
        mean, least = (plugin("scorers", form)(model) for form in (name, f"{name}_min"))
        assert (least.score(fewer) <= mean.score(fewer)).all()
        assert (least.score(more) <= least.score(fewer)).all()


def test_a_mean_of_equal_draws_is_not_below_them():
    # Seven times a number, over seven, may round to below it.
    model, x = HeteroscedasticVAE(5, 3), random_samples(999, 5).double()
    batch = Batch(x, noise=torch.ones(7, 3).double(), decoder_noise=torch.ones(7, 5).double())
    for name in MEANS:
        mean, least = (plugin("scorers", form)(model).score(batch) for form in (name, f"{name}_min"))
        torch.testing.assert_close(mean, least, rtol=1e-14, atol=0)
        assert (mean >= least).all(), name


def test_double_precision_is_kept():
    model, x = HeteroscedasticVAE(5, 3), random_samples(7, 5).double()
    drawn = noise(4, 3).double()
    batch = Batch(x, noise=drawn)
    posterior = model.encode(x)
    errors = [
        (x - model.decode(posterior.mean + posterior.stddev * draw).mean).square().sum(1) for draw in drawn
    ]
    torch.testing.assert_close(
        EncoderStochasticError(model).score(batch), torch.stack(errors).mean(0), rtol=1e-13, atol=0
    )


def test_equation_10_is_its_expectation_with_two_draws_already():
    # E |x - x_i|^2 = |x - M|^2 + sum S^2
    model, x = HeteroscedasticVAE(5, 3), random_samples(7, 5)
    central = model.decode(model.encode(x).mean)
    expected = (x - central.mean).square().sum(1) + central.variance.sum(1)
    for draws in (2, 8):
        batch = Batch(x, decoder_noise=noise(draws, 5))
        torch.testing.assert_close(DecoderStochasticError(model).score(batch), expected)


def test_equation_8_is_its_expectation_and_11_converges_to_it():
    # E |x - M(z)|^2 = |x - M(m)|^2 + sum (W^2 s^2), quadratic in z; drawing x_i too adds sum t^2.
    model, x = LinearGaussianVAE(5, 3), random_samples(7, 5)
    posterior = model.encode(x)
    passed_on = (model.decoder.square() * posterior.variance[:, None]).sum((1, 2))
    expected = (x - model.decode(posterior.mean).mean).square().sum(1) + passed_on
    few = EncoderStochasticError(model).score(Batch(x, noise=noise(6, 3)))
    torch.testing.assert_close(few, expected, rtol=1e-5, atol=0)
    batch = Batch(x, noise=noise(20_000, 3), decoder_noise=noise(20_000, 5, seed=1))
    added = FullyStochasticError(model).score(batch) - EncoderStochasticError(model).score(batch)
    sum_of_variances = model.signal_sigma.square().sum().expand(7)
    torch.testing.assert_close(added, sum_of_variances, rtol=0.02, atol=0)


def test_one_pass_of_the_decoder_a_draw_serves_all():
    model, calls = HeteroscedasticVAE(5, 3), []
    decode = model.decode
    model.decode = lambda z: calls.append(len(z)) or decode(z)
    batch = Batch(random_samples(7, 5), noise=noise(4, 3), decoder_noise=noise(4, 5))
    for name in names("scorers"):
        kind = plugin("scorers", name)
        if kind.group in ("stochastic", "elbo", "reconstruction"):
            kind(model).score(batch)
    assert calls == [7] * (4 + 1)


def scoring(draws, batch_voxels=1 << 14, seed=0, latent=3):
    model = HeteroscedasticVAE(5, latent)
    return Scoring(model, Reference({}, "exact", 0), draws, seed=seed, batch_voxels=batch_voxels)


@pytest.mark.parametrize("draws", [4, 5])
def test_a_map_depends_neither_on_batches_nor_on_the_other_scores(draws):
    x = random_samples(23, 5).numpy()
    asked = [form for name in MEANS for form in (name, f"{name}_min")]
    whole = scoring(draws).run(asked, lambda a, b: (x[a:b], None), 23)
    cut = scoring(draws, batch_voxels=7).run(asked[::-1], lambda a, b: (x[a:b], None), 23)
    for name in asked:
        assert whole[name].tolist() == cut[name].tolist(), name
        alone = scoring(draws).run([name], lambda a, b: (x[a:b], None), 23)
        assert whole[name].tolist() == alone[name].tolist(), name
        other = scoring(draws, seed=1).run([name], lambda a, b: (x[a:b], None), 23)
        if name == "decoder_stochastic_error" and draws == 4:  # Its expectation, whatever the draws.
            assert other[name].tolist() == pytest.approx(whole[name].tolist())
        else:
            assert whole[name].tolist() != pytest.approx(other[name].tolist()), name


def test_the_draws_of_encoder_and_decoder_are_not_in_step():
    # Row i of both together makes one x_i: with the pairs in step, z_i eps_i would not change sign in a pair.
    drawn, decoder_drawn = scoring(8)._noise(), scoring(8)._decoder_noise()
    assert (drawn.shape, decoder_drawn.shape) == ((8, 3), (8, 5))
    torch.testing.assert_close(decoder_drawn.sum(0), torch.zeros(5))
    torch.testing.assert_close(decoder_drawn.square().mean(0), torch.ones(5))
    assert torch.equal(drawn[0], -drawn[1])
    assert torch.equal(decoder_drawn[1], -decoder_drawn[2])
    assert not torch.equal(decoder_drawn[0], -decoder_drawn[1])
    square = scoring(8, latent=5)  # As many latents as channels: two streams all the same.
    assert not torch.allclose(square._noise(), square._decoder_noise().roll(-1, 0))


def test_what_is_missing_is_named():
    model = HeteroscedasticVAE(5, 3)
    with pytest.raises(ValueError, match="needs draws; give the batch its noise"):
        EncoderStochasticError(model).score(Batch(random_samples(7, 5)))
    for kind in (DecoderStochasticError, FullyStochasticError):
        with pytest.raises(ValueError, match="needs draws; give the batch its decoder_noise"):
            kind(model).score(Batch(random_samples(7, 5), noise=noise(4, 3)))


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_samples_are_decoded_in_blocks(monkeypatch, rows):
    model, x = HeteroscedasticVAE(5, 3), random_samples(7, 5)
    drawn, decoder_drawn = noise(4, 3), noise(4, 5)
    for name in MEANS:
        kind = plugin("scorers", name)
        whole = kind(model).score(Batch(x, noise=drawn, decoder_noise=decoder_drawn))
        with monkeypatch.context() as patched:
            patched.setattr("mednovelty.batch.CPU_ROWS", rows)
            blocks = kind(model).score(Batch(x, noise=drawn, decoder_noise=decoder_drawn))
        torch.testing.assert_close(whole, blocks, rtol=0, atol=0)


def counted(monkeypatch):
    """Count how often the wide draws of a scoring are made, and the passes through a decoder."""
    made, passes = [], []
    noise_of, decode = Scoring._decoder_noise, HeteroscedasticVAE.decode
    monkeypatch.setattr(Scoring, "_decoder_noise", lambda self: made.append(1) or noise_of(self))
    monkeypatch.setattr(HeteroscedasticVAE, "decode", lambda self, z: passes.append(1) or decode(self, z))
    return made, passes


@pytest.mark.parametrize(
    ("asked", "made", "passes"),
    [
        (["encoder_stochastic_error", "negative_elbo", "reconstruction_error"], 0, 4 + 1),
        (["negative_elbo", "fully_stochastic_error", "encoder_stochastic_error"], 1, 4),
        (["negative_elbo", "decoder_stochastic_error_min"], 1, 4 + 1),
        (["encoder_stochastic_error_min", "fully_stochastic_error_min"], 1, 4),
    ],
)
def test_draws_as_wide_as_a_sample_are_made_once_and_only_if_a_score_asks(monkeypatch, asked, made, passes):
    x = random_samples(23, 5)
    eager = Batch(x, noise=scoring(4)._noise(), decoder_noise=scoring(4)._decoder_noise())
    expected = {name: plugin("scorers", name)(HeteroscedasticVAE(5, 3)).score(eager) for name in asked}
    times, passed = counted(monkeypatch)
    found = scoring(4, batch_voxels=7).run(asked, lambda a, b: (x[a:b].numpy(), None), 23)
    assert (len(times), len(passed)) == (made, 4 * passes)
    for name in asked:  # The same bits as when they were made for every run.
        assert found[name].tolist() == expected[name].tolist(), name


def test_a_batch_asks_for_its_wide_draws_once():
    made = []
    batch = Batch(random_samples(7, 5), noise=noise(4, 3),
                  decoder_noise=lambda: made.append(1) or noise(4, 5))  # fmt: skip
    model = HeteroscedasticVAE(5, 3)
    assert batch.encoder_draws(model).sampled_error is None
    # A score that does not say beforehand that it will ask costs a second pass, and gets what it asks for.
    sampled = FullyStochasticError(model).score(batch)
    eager = Batch(batch.x, noise=noise(4, 3), decoder_noise=noise(4, 5))
    assert torch.equal(sampled, FullyStochasticError(model).score(eager))
    assert torch.equal(DecoderStochasticError(model).score(batch), DecoderStochasticError(model).score(eager))
    assert made == [1]
