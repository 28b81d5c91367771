"""Maps of a diffusion volume's signals against closed forms of a tensor model."""

from math import erf, exp, log, pi, sqrt

import numpy as np
import pytest
import torch

from mednovelty.errors import SettingsError
from mednovelty.nn.qspace_maps import RATIOS, QspaceMaps
from mednovelty.testing.signals import (
    Gradients,
    gradient_scheme,
    isotropic_attenuation,
    tensor_attenuation,
)
from mednovelty.voxel_cache import Acquisition

B = 1200.0
AXIAL, RADIAL = 1.7e-3, 0.3e-3
SPACE = (4, 3, 5)


def scheme(directions=90, first=True):
    """Return three b=0 volumes, one of them of b = 20, and a shell; weighted ones first where asked."""
    made = gradient_scheme(3, directions, B)
    bvals = made.bvals.copy()
    bvals[1] = 20.0
    order = np.arange(len(bvals)) if first else np.roll(np.arange(len(bvals)), directions)
    return Gradients(bvals[order], made.bvecs[order])


def layer(gradients, divisors=None):
    """Return the maps of an acquisition, and its divisors."""
    found = np.ones(len(gradients.bvals)) if divisors is None else divisors
    maps = QspaceMaps(len(gradients.bvals))
    maps.learn(Acquisition(tuple(gradients.bvals), tuple(found), tuple(map(tuple, gradients.bvecs))))
    return maps


def volume(rows, divisors=None):
    """Return ``(2, C, *SPACE)`` of two rows ``(2, C)`` of signals, the first voxel of each empty."""
    images = torch.tensor(np.asarray(rows)).view(2, -1, 1, 1, 1).repeat(1, 1, *SPACE)
    images[:, :, 0, 0, 0] = 0
    return images if divisors is None else images / torch.tensor(divisors).view(-1, 1, 1, 1)


def along(direction):
    """Return ``(6, 1)`` of a fibre."""
    x, y, z = np.asarray(direction) / np.linalg.norm(direction)
    return np.array([x * x, y * y, z * z, x * y, x * z, y * z])[:, None]


def powder(b):
    """Return the mean of exp(-b g^T D g) over all directions, of one tensor."""
    root = sqrt(b * (AXIAL - RADIAL))
    return exp(-b * RADIAL) * sqrt(pi) / 2 * erf(root) / root


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("divided", [True, False])
def test_isotropic_diffusion_by_hand(first, divided):
    gradients = scheme(32, first)
    divisors = np.random.default_rng(0).uniform(0.3, 3, len(gradients.bvals)) if divided else None
    signals = isotropic_attenuation(np.array([0.9e-3, 2.1e-3]), gradients) * [[1.5], [0.4]]
    found = layer(gradients, divisors)(volume(signals, divisors))
    assert found.shape == (2, 5, *SPACE)
    for sample, (s0, d) in enumerate(((1.5, 0.9e-3), (0.4, 2.1e-3))):
        b0 = s0 * (2 + exp(-20 * d)) / 3
        weighted = s0 * exp(-B * d)
        wanted = [b0, weighted, log(b0 / weighted), 0, weighted / b0]
        assert found[sample, :, 1, 2, 3].tolist() == pytest.approx(wanted, rel=1e-5, abs=1e-6)
        assert not found[sample, :, 0, 0, 0].any()


def test_a_fibre_has_the_powder_average_and_spread_whichever_way_it_runs():
    gradients = scheme()
    dyads = np.concatenate([along((0, 0, 1)), along((2, -1, 0.5))], 1)
    found = layer(gradients)(volume(tensor_attenuation(dyads, AXIAL, RADIAL, gradients)))
    mean, square = powder(B), powder(2 * B)
    spread = sqrt(square - mean**2) / mean
    for sample in range(2):
        shown = found[sample, :, 3, 0, 4].tolist()
        assert shown[1] == pytest.approx(mean, rel=0.01)
        assert shown[3] == pytest.approx(spread, rel=0.01)
        assert shown[2] == pytest.approx(log(shown[0] / shown[1]), rel=1e-6)
        assert shown[4] == pytest.approx(mean / shown[0], rel=0.01)
    assert 0.4 < spread < 0.8


def test_a_factor_of_the_scan_changes_the_signals_alone():
    gradients = scheme(20)
    signals = tensor_attenuation(np.repeat(along((1, 2, 3)), 2, 1), AXIAL, RADIAL, gradients)
    once, twice = (layer(gradients)(volume(signals * factor)) for factor in (1.0, 2.0))
    torch.testing.assert_close(twice[:, :2], 2 * once[:, :2])
    torch.testing.assert_close(twice[:, 2:], once[:, 2:], atol=1e-6, rtol=1e-5)


def test_maps_and_their_gradients_are_finite_whatever_the_signals():
    gradients = scheme(6)
    maps, n = layer(gradients), len(gradients.bvals)
    weighted = torch.tensor(gradients.bvals) > 50
    images = torch.zeros(7, n, 2, 3)
    images[1] = -1.0
    images[2, weighted] = 3.0  # No signal at b = 0.
    images[3, ~weighted] = 3.0  # None with weighting.
    images[4] = 1.0  # No spread.
    images[5] = torch.randn(n, 2, 3, generator=torch.Generator().manual_seed(0))
    images[6] = 1e-30
    images.requires_grad_()
    found = maps(images)
    assert torch.isfinite(found).all()
    found.square().sum().backward()
    assert torch.isfinite(images.grad).all()
    assert images.grad[4].any()
    assert not found[0].any()
    assert found[2, 4].unique().tolist() == [RATIOS[1]]
    assert found[3, 2].unique().tolist() == pytest.approx([-log(RATIOS[0])])
    assert found[3, 1].unique().tolist() == [0.0]


def test_the_gradient_is_that_of_finite_differences():
    gradients = scheme(5)
    maps = layer(gradients, np.linspace(0.5, 2, 8)).double()
    images = torch.rand(2, 8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.3
    assert torch.autograd.gradcheck(maps, images.requires_grad_())


def test_what_was_learnt_is_kept_with_the_weights():
    gradients = scheme(6)
    divisors = np.linspace(0.5, 1.5, 9)
    other = QspaceMaps(9)
    other.load_state_dict(layer(gradients, divisors).state_dict())
    assert other.bvalues.tolist() == pytest.approx(gradients.bvals)
    images = torch.rand(1, 9, 3, 2, generator=torch.Generator().manual_seed(2))
    assert torch.equal(other(images), layer(gradients, divisors)(images))


@pytest.mark.parametrize(
    ("bvalues", "said"),
    [
        ((700.0, 1000.0), "need a b=0 volume, and of 2 volumes, b-values from 700 to 1000 s/mm2, none"),
        ((0.0, 45.0), "need a volume with diffusion weighting"),
        ((0.0, 45.0, 1000.0), "an acquisition of 3 volumes, and samples have 2 channels"),
    ],
)
def test_other_acquisitions_are_refused(bvalues, said):
    with pytest.raises(SettingsError, match=said):
        QspaceMaps(2).learn(Acquisition(bvalues, (1.0,) * len(bvalues)))
