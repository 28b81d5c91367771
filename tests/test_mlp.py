import pytest
import torch
from torch import Generator

from mednovelty.nn.mlp import GaussianMLP


def test_by_hand_two_heads_on_one_relu_layer():
    # hidden = relu([[1, -2], [0, 3], [-1, 0]] x + [0, -1, 2]):
    # x = (2, 1): (0, 2, 0);  x = (-1, 1): (0, 2, 3);  x = (3, 1): (1, 2, 0)
    net = GaussianMLP(2, [3], 2)
    with torch.no_grad():
        net.layers[0].weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 3.0], [-1.0, 0.0]]))
        net.layers[0].bias.copy_(torch.tensor([0.0, -1.0, 2.0]))
        net.heads.weight.copy_(torch.tensor([[1.0, 1, 1], [0, 2, 0], [0, 0, -1], [0, 0.5, 0]]))
        net.heads.bias.copy_(torch.tensor([0.0, 1.0, 0.25, -3.0]))
    mean, log_sigma = net(torch.tensor([[2.0, 1.0], [-1.0, 1.0], [3.0, 1.0]]))
    assert mean.tolist() == [[2, 5], [5, 5], [3, 5]]
    assert log_sigma.tolist() == [[0.25, -2], [-2.75, -2], [0.25, -2]]


def test_building_draws_no_random_number_and_gives_zeros():
    before = torch.random.get_rng_state()
    net = GaussianMLP(7, [5, 3], 2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(not parameter.any() for parameter in net.parameters())


def test_widths_of_the_layers():
    shapes = [tuple(p.shape) for p in GaussianMLP(46, [128, 64, 32], 16).parameters() if p.ndim == 2]
    assert shapes == [(128, 46), (64, 128), (32, 64), (32, 32)]


def test_initial_variances():
    net = GaussianMLP(300, [400], 500)
    net.initialise(Generator().manual_seed(3))
    assert net.layers[0].weight.var().item() == pytest.approx(1 / 900, rel=0.03)
    assert net.heads.weight.var().item() == pytest.approx(1 / 1200, rel=0.03)
    assert not net.heads.bias.any()


def test_initial_weights_follow_the_generator_only():
    nets = [GaussianMLP(7, [5, 3], 2) for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        torch.rand(11)
        net.initialise(Generator().manual_seed(seed))
    first, again, other = (net.layers[1].weight for net in nets)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
