import math

import pytest
import torch
from torch import Generator
from torch.nn.functional import conv2d, conv3d, conv_transpose2d, conv_transpose3d, leaky_relu

from mednovelty.errors import SettingsError
from mednovelty.nn.conv import ConvDecoder, ConvEncoder, last_kernel, latent_space

PAPER = (16, 32, 64, 256)


def noise(seed=0):
    return Generator().manual_seed(seed)


def drawn(kind, shape, widths, latent, seed=1):
    network = kind(shape, widths, latent)
    network.initialise(noise(seed))
    return network


def test_the_papers_network_has_the_papers_layers():
    encoder, decoder = ConvEncoder((1, 64, 64), PAPER, 256), ConvDecoder((1, 64, 64), PAPER, 256)
    assert {name: tuple(value.shape) for name, value in encoder.state_dict().items()} == {
        "halvings.0.weight": (16, 1, 4, 4),
        "halvings.1.weight": (32, 16, 4, 4),
        "halvings.2.weight": (64, 32, 4, 4),
        "halvings.3.weight": (256, 64, 4, 4),
        "heads.weight": (512, 256, 4, 4),
    }
    assert {name: tuple(value.shape) for name, value in decoder.state_dict().items()} == {
        "first.weight": (256, 256, 4, 4),
        "doublings.0.weight": (256, 64, 4, 4),
        "doublings.1.weight": (64, 32, 4, 4),
        "doublings.2.weight": (32, 16, 4, 4),
        "doublings.3.weight": (16, 1, 4, 4),
    }
    assert decoder.latent_shape == (256, 1, 1)


@pytest.mark.parametrize(
    ("space", "strides", "positions"),
    [
        ((64, 64), 4, (1, 1)),
        ((128, 96), 4, (5, 3)),
        ((16, 48), 4, (1, 1)),
        ((80, 64, 112), 4, (2, 1, 4)),
        ((8, 20, 12), 2, (1, 2, 1)),
    ],
)
def test_every_multiple_of_the_strides_works(space, strides, positions):
    widths, latent, shape = (3, 5, 4, 6)[:strides], 7, (2, *space)
    encoder, decoder = drawn(ConvEncoder, shape, widths, latent), drawn(ConvDecoder, shape, widths, latent)
    x = torch.randn(3, math.prod(shape), generator=noise())
    mean, log_sigma = encoder(x)
    assert latent_space(space, strides) == positions
    assert mean.shape == log_sigma.shape == (3, 7 * math.prod(positions))
    assert decoder(mean).shape == x.shape


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ((50, 64), r"an image of 50 x 64 does not fit 4 strides of 2.*multiples of 16; cut it to \(48, 64\)"),
        ((8, 64, 64), r"8 x 64 x 64 does not fit.*cut it to \(16, 64, 64\)"),
        ((64,), r"slices \(C, I, J\) or windows \(C, I, J, K\), not 1 axes of space"),
        ((), r"not 0 axes of space, \(\); cut with the view 'slice' or 'patch', or set network='dense'"),
    ],
)
def test_other_sizes_are_refused(space, words):
    with pytest.raises(SettingsError, match=words):
        last_kernel(space, 4)
    with pytest.raises(SettingsError, match=words):
        ConvEncoder((1, *space), PAPER, 4)
    with pytest.raises(SettingsError, match=words):
        ConvDecoder((1, *space), PAPER, 4)


@pytest.mark.parametrize(
    ("shape", "convolve", "transposed"),
    [((2, 8, 20), conv2d, conv_transpose2d), ((3, 12, 8, 4), conv3d, conv_transpose3d)],
)
def test_layers_one_by_one(shape, convolve, transposed):
    encoder, decoder = drawn(ConvEncoder, shape, (5, 6), 3), drawn(ConvDecoder, shape, (5, 6), 3, seed=2)
    x = torch.randn(4, *shape, generator=noise())
    weights = list(encoder.state_dict().values())
    h = leaky_relu(convolve(x, weights[0], stride=2, padding=1), 0.01)
    h = leaky_relu(convolve(h, weights[1], stride=2, padding=1), 0.01)
    h = convolve(h, weights[2])
    mean, log_sigma = encoder(x.flatten(1))
    torch.testing.assert_close(mean, h[:, :3].flatten(1))
    torch.testing.assert_close(log_sigma, h[:, 3:].flatten(1))
    weights = list(decoder.state_dict().values())
    back = leaky_relu(transposed(h[:, :3], weights[0]), 0.01)
    back = leaky_relu(transposed(back, weights[1], stride=2, padding=1), 0.01)
    back = transposed(back, weights[2], stride=2, padding=1)
    torch.testing.assert_close(decoder(mean), back.flatten(1))


def test_black_in_black_out():
    encoder = drawn(ConvEncoder, (2, 16, 24), (3, 5), 4)
    mean, log_sigma = encoder(torch.zeros(2, 2 * 16 * 24))
    assert not mean.any()
    assert not log_sigma.any()
    assert not drawn(ConvDecoder, (2, 16, 24), (3, 5), 4)(mean).any()


def test_weights_are_those_of_the_generator_and_building_draws_none():
    state = torch.get_rng_state()
    first, second, other = (drawn(ConvDecoder, (1, 16, 16), (4, 8), 5, seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.first.weight, other.first.weight)


@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 32, 32, 32)])
def test_the_start_neither_fades_nor_explodes(shape):
    # Without normalisation layers this rests on the weights alone.
    encoder, decoder = drawn(ConvEncoder, shape, PAPER[-len(shape) - 1 :], 40), None
    x = torch.randn(8, math.prod(shape), generator=noise())
    mean, log_sigma = encoder(x)
    assert 0.1 < mean.std() < 1
    assert 0.1 < log_sigma.std() < 1
    decoder = drawn(ConvDecoder, shape, PAPER[-len(shape) - 1 :], 40)
    assert 0.2 < decoder(torch.randn(8, mean.shape[1], generator=noise())).std() < 1
