import pytest
import torch

from mednovelty.errors import SettingsError
from mednovelty.nn.residual import ResidualDecoder, ResidualEncoder, padded_space

WIDTHS = (16, 32, 64)


def nets(shape, widths=(3, 5), latent=6):
    made = ResidualEncoder(shape, widths, latent), ResidualDecoder(shape, widths, latent)
    for i, net in enumerate(made):
        net.initialise(torch.Generator().manual_seed(i))
    return made


def test_as_many_weights_as_the_released_network():
    made = ResidualEncoder((3, 32, 32), WIDTHS, 128), ResidualDecoder((3, 32, 32), WIDTHS, 128)
    assert sum(p.numel() for net in made for p in net.parameters()) == 660_995


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 10, 13), (2, 5, 6, 9), (3, 8, 16)])
def test_any_size_goes_in_and_comes_out(shape):
    encoder, decoder = nets(shape)
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(7)).flatten(1)
    mean, other = encoder(x)
    assert mean.shape == other.shape == (4, 6)
    assert not torch.equal(mean, other)
    assert decoder(mean).shape == x.shape


def test_padding_continues_the_border():
    encoder, _ = nets((1, 6, 5))
    encoder.eval()
    x = torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(3))
    rows = [0, 0, 1, 2, 3, 4, 5, 5]
    columns = [0, 0, 1, 2, 3, 4, 4, 4]
    whole, _ = nets((1, 8, 8))
    whole.eval()
    expected = whole(x[:, :, rows][..., columns].flatten(1))
    for one, other in zip(encoder(x.flatten(1)), expected, strict=True):
        torch.testing.assert_close(one, other)
    assert padded_space((6, 5), 2) == (8, 8)


def test_the_same_generator_gives_the_same_weights_and_fresh_norms():
    first, second = nets((2, 8, 12))[0], nets((2, 8, 12))[0]
    first(torch.randn(5, 192))  # Moves the running statistics.
    first.initialise(torch.Generator().manual_seed(0))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_an_image_is_alone_in_evaluation_mode():
    encoder, decoder = nets((2, 8, 12))
    x, z = (torch.randn(5, n, generator=torch.Generator().manual_seed(n)) for n in (192, 6))
    for net, rows in ((lambda x: encoder(x)[0], x), (decoder, z)):
        net(rows)  # Moves the running statistics.
        assert not torch.allclose(net(rows)[2:4], net(rows[2:4]), atol=1e-3)
        for part in (encoder, decoder):
            part.eval()
        torch.testing.assert_close(net(rows)[2:3], net(rows[2:3]))
        decoder.train()


def test_the_order_of_the_layers():
    encoder, decoder = nets((1, 8, 8), widths=(2, 3), latent=2)
    kinds = [type(layer).__name__ for layer in encoder.blocks[0].children()]
    assert kinds == ["Conv2d", "Conv2d", "BatchNorm2d", "Conv2d", "BatchNorm2d"]
    assert [type(block.skip).__name__ for block in encoder.blocks] == ["Conv2d", "Identity"]
    assert [type(block.skip).__name__ for block in decoder.blocks] == ["Identity", "Conv2d", "Identity"]
    biased = {
        name for name, _ in [*encoder.named_parameters(), *decoder.named_parameters()] if "bias" in name
    }
    assert {name for name in biased if "norm" not in name} == {"heads.bias", "first.bias", "last.bias"}


def test_what_a_block_adds_goes_by_its_input():
    encoder, _ = nets((1, 8, 8), widths=(2, 3), latent=2)
    widens, same = encoder.blocks
    x = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        same.second.weight.zero_()
        widens.second.weight.zero_()
        torch.testing.assert_close(same(x), torch.nn.functional.leaky_relu(x, 0.2))
        expected = torch.nn.functional.conv2d(x[:, :2], widens.skip.weight)
        torch.testing.assert_close(widens(x[:, :2]), torch.nn.functional.leaky_relu(expected, 0.2))


def test_voxels_are_no_images():
    with pytest.raises(SettingsError, match=r"not 0 axes of space, \(\); set network='dense'"):
        ResidualEncoder((7,), WIDTHS, 3)
