"""The networks of Mesarcik et al. 2021: shapes, kernels that keep an image in its place, words."""

import math

import pytest
import torch

from mednovelty.errors import SettingsError
from mednovelty.methods.image_vae import ImageVAE, ImageVAESettings
from mednovelty.nn.lenet import LeNetDecoder, LeNetEncoder, _cropped
from mednovelty.nn.patchnet import PatchDecoder, PatchEncoder

FILTERS = (3, 4, 5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(2, 12, 20), (1, 28, 28), (2, 8, 4, 12)])
def test_lenet_goes_there_and_back(shape):
    encoder, decoder = LeNetEncoder(shape, FILTERS, 7), LeNetDecoder(shape, FILTERS, 7)
    for part in (encoder, decoder):
        part.initialise(generator())
    z = encoder(torch.randn(6, math.prod(shape), generator=generator(1)))
    image = decoder(z)
    assert (z.shape, image.shape) == ((6, 7), (6, math.prod(shape)))
    assert 0.1 < z.std() < 3
    assert 0.1 < image.std() < 3


@pytest.mark.parametrize("shape", [(3, 64, 80), (2, 16, 32, 48)])
def test_patch_networks_go_there_and_back(shape):
    encoder, decoder = PatchEncoder(shape, 7), PatchDecoder(shape, 7)
    for part in (encoder, decoder):
        part.initialise(generator())
    z = encoder(torch.randn(2, math.prod(shape), generator=generator(1)))
    assert (z.shape, decoder(z).shape) == ((2, 7), (2, math.prod(shape)))


def test_the_paper_s_networks_have_the_paper_s_sizes():
    # Weights and biases of convolutions of 2, of the dense layer on 7 x 7 x 128, two of each norm.
    encoder = LeNetEncoder((1, 28, 28), (32, 64, 128), 32)
    convolutions = (4 * 1 + 1) * 32 + (4 * 32 + 1) * 64 + (4 * 64 + 1) * 128
    assert sum(w.numel() for w in encoder.parameters()) == convolutions + (49 * 128 + 1) * 32 + 2 * (
        32 + 64 + 128
    )
    assert encoder.dense.in_features == 7 * 7 * 128
    decoder = LeNetDecoder((1, 28, 28), (32, 64, 128), 32)
    assert [tuple(layer.weight.shape[:2]) for layer in decoder.transposed] == [(128, 64), (64, 32), (32, 1)]
    patch = PatchEncoder((3, 128, 128), 128)
    assert tuple(patch.last.weight.shape) == (128, 32, 8, 8)
    assert [layer.stride[0] for layer in patch.layers] == [2, 2, 2, 1, 2, 1, 1, 1]
    mirrored = PatchDecoder((3, 128, 128), 128)
    assert [tuple(layer.weight.shape) for layer in mirrored.layers] == [
        tuple(layer.weight.shape) for layer in reversed(patch.layers)
    ]


def test_kernels_reach_one_pixel_to_the_right_and_below():
    encoder = LeNetEncoder((1, 4, 8), (1, 1, 1), 1)
    x = torch.arange(1.0, 33.0).reshape(1, 1, 4, 8)
    seen = []
    encoder.convolutions[0].register_forward_hook(lambda layer, given, out: seen.append(out))
    for place in ((0, 0), (1, 1)):
        encoder.convolutions[0].weight.data.zero_()
        encoder.convolutions[0].weight.data[0, 0][place] = 1.0
        encoder(x.flatten(1))
    assert torch.equal(seen[0], x)
    shifted = torch.zeros_like(x)
    shifted[..., :-1, :-1] = x[..., 1:, 1:]
    assert torch.equal(seen[1], shifted)


def test_transposed_kernels_are_cropped_where_they_reach_further():
    layer = LeNetDecoder((1, 4, 8), (1, 1, 1), 1).transposed[-1]
    x = torch.arange(1.0, 33.0).reshape(1, 1, 4, 8)
    layer.weight.data[0, 0, 0, 0] = 1.0
    assert torch.equal(_cropped(layer(x)), x)
    layer.weight.data.zero_()
    layer.weight.data[0, 0, 1, 1] = 1.0
    moved = torch.zeros_like(x)
    moved[..., 1:, 1:] = x[..., :-1, :-1]
    assert torch.equal(_cropped(layer(x)), moved)


def test_a_trained_network_scores_a_sample_alone_as_in_a_batch():
    encoder = LeNetEncoder((1, 8, 12), FILTERS, 4)
    encoder.initialise(generator())
    x = torch.randn(9, 96, generator=generator(1))
    for _ in range(5):
        encoder.train()(3 * x + 1)
    encoder.eval()
    torch.testing.assert_close(encoder(x), torch.cat([encoder(row[None]) for row in x]))
    assert not torch.allclose(encoder(x), encoder.train()(x))


@pytest.mark.parametrize("network", ["lenet", "patch"])
def test_the_variational_autoencoder_has_these_networks(network):
    shape = (1, 16, 32)
    model = ImageVAE(shape, ImageVAESettings(network=network, latent=6, filters=FILTERS)).eval()
    for seed, part in enumerate((model.encoder, model.decoder)):
        part.initialise(generator(seed))
    x = torch.randn(5, 512, generator=generator(2))
    posterior = model.encode(x)
    assert posterior.event_shape == model.prior.event_shape == (6,)
    assert model.decode(posterior.mean).event_shape == (512,)
    both = model.encoder.body(x)
    torch.testing.assert_close(posterior.mean, both[:, :6])
    torch.testing.assert_close(posterior.base_dist.stddev, both[:, 6:].exp())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LeNetEncoder((5,), FILTERS, 2), "not 0 axes of space, (); set network='mlp'"),
        (
            lambda: LeNetDecoder((1, 30, 28), FILTERS, 2),
            "image of 30 x 28 does not fit network='lenet': its sides",
        ),
        (lambda: LeNetEncoder((1, 28, 28), (3, 4), 2), "three convolutions, so three filters, not (3, 4)"),
        (
            lambda: PatchEncoder((1, 64, 72), 2),
            "must be multiples of 16; cut it to another size, or set network='l",
        ),
        (lambda: PatchDecoder((1, 2, 16, 16, 16), 2), "not 4 axes of space"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(make, words):
    with pytest.raises(SettingsError) as caught:
        make()
    assert words in str(caught.value)
