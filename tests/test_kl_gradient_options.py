"""Released, signed and averaged variants of the maps, by hand."""

import pytest
import torch
from test_kl_gradient import SHAPES, SHARP, central_differences, images, kl, made, moduli

from mednovelty.batch import Batch
from mednovelty.errors import SettingsError
from mednovelty.methods.input_gradients import NoisyCopies
from mednovelty.methods.kl_gradient_options import NORMALS, CombiAdditive
from mednovelty.plugins import plugin
from mednovelty.reference import Reference
from mednovelty.testing.images import ConvVAE, LinearImageVAE


@pytest.fixture(params=SHAPES, ids=["2-D", "3-D"])
def shape(request):
    return request.param


def test_likelihoods_are_those_of_the_voxels(shape):
    model, x = ConvVAE(shape).double(), images(shape)
    likelihood = model.decode(model.encode(x).mean)
    # 1/2 (r / t)^2 + log t + 1/2 log 2 pi, the last 0.918938533.
    mean, sigma = likelihood.mean, likelihood.stddev
    each = 0.5 * ((x - mean) / sigma) ** 2 + sigma.log() + 0.918938533204673
    expected = each.reshape(4, *shape).sum(1)
    torch.testing.assert_close(made("rec_likelihood", model).score(Batch(x)), expected)
    total = made("rec_term", model).score(Batch(x))
    torch.testing.assert_close(expected.flatten(1).sum(1), total)
    kl_map = made("kl_gradient", model).score(Batch(x))
    torch.testing.assert_close(made("combi_likelihood", model).score(Batch(x)), kl_map * expected)


def test_bright_and_dark_are_the_two_halves(shape):
    model, x = ConvVAE(shape).double(), images(shape)
    bright, dark, both = (made(f"rec_error{end}", model).score(Batch(x)) for end in ("_bright", "_dark", ""))
    torch.testing.assert_close(bright + dark, both)
    kl_map = made("kl_gradient", model).score(Batch(x))
    torch.testing.assert_close(made("combi_bright", model).score(Batch(x)), kl_map * bright)
    torch.testing.assert_close(made("combi_dark", model).score(Batch(x)), kl_map * dark)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_bright_spot_is_bright_and_a_dark_one_dark(sign):
    model, shape = LinearImageVAE((1, 6, 5), 3), (1, 6, 5)
    model.decoder = torch.zeros_like(model.decoder)  # Expects the same of every image.
    x = model.decoder_shift[None].clone()
    x[0, 12] += 2.5 * sign
    names = ("bright", "dark") if sign > 0 else ("dark", "bright")
    there, not_there = (made(f"rec_error_{name}", model).score(Batch(x)) for name in names)
    assert there[0, 2, 2].item() == pytest.approx(6.25)
    assert there.sum() == there[0, 2, 2]
    assert not_there.abs().sum() == 0
    combi, none = (made(f"combi_{name}", model).score(Batch(x)) for name in names)
    assert combi[0, 2, 2] > 0
    assert none.abs().sum() == 0
    assert model.shape == shape


def test_of_several_contrasts_each_has_its_own_sign():
    model = LinearImageVAE((2, 3, 4), 3)
    model.decoder = torch.zeros_like(model.decoder)
    x = model.decoder_shift[None].clone()
    x[0, 5] += 3  # First contrast, row 1, column 1.
    x[0, 12 + 5] -= 2  # The second, same place.
    assert made("rec_error_bright", model).score(Batch(x))[0, 1, 1].item() == pytest.approx(9)
    assert made("rec_error_dark", model).score(Batch(x))[0, 1, 1].item() == pytest.approx(4)
    assert made("rec_error", model).score(Batch(x))[0, 1, 1].item() == pytest.approx(13)


def test_additive_terms_are_in_means_over_normals(shape):
    model, x = ConvVAE(shape).double(), images(shape)
    normals = images(shape, 11, seed=9)
    scorer = CombiAdditive(model, Reference({"input": normals}, "exact", 11))
    a = made("kl_gradient", model).score(Batch(normals)).mean()
    b = made("rec_error", model).score(Batch(normals)).mean()
    expected = made("kl_gradient", model).score(Batch(x)) / a + made("rec_error", model).score(Batch(x)) / b
    torch.testing.assert_close(scorer.score(Batch(x)), expected)
    assert scorer.score(Batch(normals)).mean().item() == pytest.approx(2)


def test_additive_takes_normals_from_all_over_a_large_reference():
    model = LinearImageVAE((1, 6, 5), 3)
    normals = images((1, 6, 5), 3 * NORMALS + 5)
    rows = torch.linspace(0, len(normals) - 1, NORMALS).round().long()
    few, many = (
        CombiAdditive(model, Reference({"input": part}, "exact", 9)) for part in (normals[rows], normals)
    )
    assert (many.kl_mean, many.error_mean) == (few.kl_mean, few.error_mean)
    assert len(rows.unique()) == NORMALS
    assert rows[-1] == len(normals) - 1


def test_additive_of_a_perfect_model_is_finite():
    model = LinearImageVAE((1, 6, 5), 3)
    model.encoder = torch.zeros_like(model.encoder)  # KL depends on nothing.
    scorer = CombiAdditive(model, Reference({"input": images((1, 6, 5))}, "exact", 4))
    assert torch.isfinite(scorer.score(Batch(images((1, 6, 5), seed=1)))).all()


def test_smoothgrad_is_the_modulus_of_the_mean_over_copies(shape):
    model, x = ConvVAE(shape).double(), images(shape, 2)
    copies = NoisyCopies(count=4, sigma=0.7, seed=3)
    noise = copies.noise(model.channels).double()
    each = [central_differences(lambda x: kl(model, x), x + draw) for draw in noise]
    found = plugin("scorers", "kl_gradient_smooth")(model, SHARP, copies).score(Batch(x))
    torch.testing.assert_close(found, moduli(torch.stack(each).mean(0), shape), rtol=1e-5, atol=1e-7)
    plain = made("kl_gradient", model, blur=SHARP).score(Batch(x))
    assert not torch.allclose(found, plain, rtol=1e-3)
    error = made("rec_error", model).score(Batch(x))
    combi = plugin("scorers", "combi_smooth")(model, SHARP, copies).score(Batch(x))
    torch.testing.assert_close(combi, found * error)


def test_smoothgrad_of_a_linear_encoder_is_kl_gradient(shape):
    # Pairs of opposite noise: what is linear in x keeps its value exactly.
    model, x = LinearImageVAE(shape, 4), images(shape)
    smooth = plugin("scorers", "kl_gradient_smooth")(model, SHARP, NoisyCopies(4, 2.0, 1)).score(Batch(x))
    torch.testing.assert_close(smooth, made("kl_gradient", model, blur=SHARP).score(Batch(x)))


def test_copies_without_number_or_noise_are_refused():
    with pytest.raises(SettingsError, match=r"count >= 1 and sigma > 0, got 0 and 0\.1"):
        NoisyCopies(count=0)
    with pytest.raises(SettingsError, match="got 8 and 0"):
        NoisyCopies(sigma=0)
