"""A rounded network against a by-hand unit and against automatic derivatives."""

import pytest
import torch

from mednovelty.methods.vae import VAE, VAESettings
from mednovelty.nn.mlp import GaussianMLP
from mednovelty.nn.smoothed import CHUNK, SmoothedMLP

IN, OUT = 3, 5


def network(hidden=(11, 7), seed=0):
    net = GaussianMLP(IN, hidden, OUT).double()
    net.initialise(torch.Generator().manual_seed(seed))
    for layer in [*net.hidden, net.heads]:
        layer.bias.data.uniform_(-1, 1, generator=torch.Generator().manual_seed(seed + 1))
    return net.requires_grad_(False)


def inputs(count, seed=2):
    return torch.randn(count, IN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def written_out(net, x, smoothing):
    for layer in net.hidden:
        before = layer(x)
        x = (before + (before**2 + smoothing**2).sqrt()) / 2
    return net.heads(x)


def test_by_hand_one_unit():
    # a = 3, smoothing 4: root 5, h = 4, slope 0.8; mean 2 h + 1 = 9 with slope 1.6, log sigma -h = -4
    net = GaussianMLP(1, [1], 1)
    with torch.no_grad():
        net.layers[0].weight.fill_(3)
        net.heads.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        net.heads.bias.copy_(torch.tensor([1.0, 0.0]))
        at = SmoothedMLP(net, torch.ones(1, 1), 4.0)
        mean_slope, log_sigma_slope = at.slopes()
    assert (at.mean.item(), at.log_sigma.item()) == pytest.approx((9, -4))
    # by x: the unit's weight 3 as well
    assert (mean_slope.item(), log_sigma_slope.item()) == pytest.approx((3 * 1.6, 3 * -0.8))
    assert at.pull(torch.tensor([[10.0]]), torch.tensor([[1.0]])).item() == pytest.approx(48 - 2.4)


@pytest.mark.parametrize("hidden", [(11, 7), (6,)])
def test_derivatives_are_those_of_the_rounded_network(hidden):
    net, x = network(hidden), inputs(13)
    at = SmoothedMLP(net, x, 0.4)
    torch.testing.assert_close(torch.cat([at.mean, at.log_sigma], 1), written_out(net, x, 0.4))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: written_out(net, row, 0.4)))(x).mT
    mean, log_sigma = at.slopes()
    torch.testing.assert_close(mean, jacobian[..., :OUT])
    torch.testing.assert_close(log_sigma, jacobian[..., OUT:])
    by_mean, by_log_sigma = torch.randn(
        2, 13, OUT, dtype=torch.float64, generator=torch.Generator().manual_seed(5)
    )
    expected = (jacobian[..., :OUT] @ by_mean[..., None] + jacobian[..., OUT:] @ by_log_sigma[..., None])[
        ..., 0
    ]
    torch.testing.assert_close(at.pull(by_mean, by_log_sigma), expected)
    torch.testing.assert_close(at.pull(by_mean), (jacobian[..., :OUT] @ by_mean[..., None])[..., 0])


def test_means_alone_and_chunks_give_the_same():
    net, x = network(), inputs(CHUNK + 3)
    at = SmoothedMLP(net, x, 0.1)
    alone, nothing = at.slopes(mean_only=True)
    assert nothing is None
    torch.testing.assert_close(alone, at.slopes()[0])
    torch.testing.assert_close(alone[-2:], SmoothedMLP(net, x[-2:], 0.1).slopes()[0])


def test_rounding_vanishes_with_its_width():
    net, x = network(), inputs(17)
    mean, _ = net(x)
    wide, fine = (SmoothedMLP(net, x, width).mean - mean for width in (0.5, 1e-9))
    assert wide.abs().max() > 1e-3
    assert fine.abs().max() < 1e-8


def test_a_vae_gives_the_units_of_x_and_stills_sigma_at_its_limits():
    model = VAE(
        OUT, VAESettings(hidden=(7, 11), latent=IN, log_sigma_floor=-0.3, log_sigma_ceiling=0.2)
    ).double()
    model.decoder.load_state_dict(network((11, 7)).state_dict())
    model.shift.copy_(torch.arange(5.0))
    model.spread.copy_(torch.linspace(0.5, 2, 5))
    z = inputs(19)
    at = model.requires_grad_(False).decode_smoothed(z, 1e-9)
    exact = model.decode(z)
    torch.testing.assert_close(at.mean, exact.mean)
    torch.testing.assert_close(at.log_sigma, exact.stddev.log())

    def both(row):
        p = model.decode(row[None])
        return torch.cat([p.mean, p.stddev.log()], 1)[0]

    jacobian = torch.func.vmap(torch.func.jacrev(both))(z).mT
    mean, log_sigma = at.slopes()
    still = (log_sigma == 0).all(1)
    assert still.any()
    assert not still.all()
    torch.testing.assert_close(mean, jacobian[..., :OUT])
    torch.testing.assert_close(log_sigma, jacobian[..., OUT:])
    weights = torch.ones(19, OUT, dtype=torch.float64)
    torch.testing.assert_close(at.pull(2 * weights, weights), 2 * mean.sum(2) + log_sigma.sum(2))
