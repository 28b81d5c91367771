"""Physics of planted diffusion anomalies, in closed form."""

from dataclasses import replace

import pytest
import torch
from anomaly_hosts import VOLUMES, crossing_signals, diffusion, drawn, gradients

from mednovelty.anomalies.bundles import Rows, bundle_attenuation, crossing, room, shells, without_means
from mednovelty.anomalies.diffusion import (
    AnisotropyLoss,
    DiffusivityChange,
    Exchange,
    FibreLoss,
    FreeWater,
    SignalChange,
)
from mednovelty.anomalies.shapes import Shapes
from mednovelty.errors import SettingsError

SCHEME = gradients()
B, G = SCHEME.bvalues_s_per_mm2, SCHEME.directions


def rows_of(signals, samples=None):
    sample = torch.arange(len(signals)) if samples is None else samples
    return Rows(signals, torch.ones(len(signals)), sample, B, G, int(sample.max()) + 1)


def test_exchange_is_the_mixture_with_an_isotropic_compartment():
    host = diffusion((), n=5)
    made = Exchange(fraction=(0.3, 0.3), diffusivity_mm2_per_s=(2e-3, 2e-3), relative_s0=(1.0, 1.0)).plant(
        host, drawn()
    )
    expected = 0.7 * host.images + 0.3 * host.images[:, :2].mean(1, keepdim=True) * torch.exp(-2e-3 * B)
    assert torch.allclose(made.images, expected, rtol=1e-5)
    assert made.truth.all()


def test_exchange_draws_from_all_of_its_range():
    host = diffusion((), n=2000)
    made = Exchange(fraction=(1.0, 1.0), relative_s0=(1.0, 1.0)).plant(host, drawn())
    found = -(made.images[:, -1] / made.images[:, 0]).log() / 1500
    assert found.min() == pytest.approx(0.2e-3, abs=0.02e-3)
    assert found.max() == pytest.approx(3.0e-3, abs=0.02e-3)
    assert found.mean() == pytest.approx(1.6e-3, rel=0.03)


def test_a_soft_profile_exchanges_less_at_the_edge():
    host = diffusion(VOLUMES)
    family = Exchange(Shapes(("blob",), (25.0, 25.0), (12.0, 12.0), 1), (0.5, 0.5), (3e-3, 3e-3), (1.0, 1.0))
    made = family.plant(host, drawn())
    s0, last = host.images[:, 0], host.images[:, -1]
    expected = last + 0.5 * made.profile * (s0 * torch.exp(torch.tensor(-4.5)) - last)
    assert ((made.profile > 0) & (made.profile < 1)).any()
    assert torch.allclose(made.images[:, -1], expected, atol=1e-3)


def test_what_channels_were_divided_by_drops_out():
    divisors = torch.linspace(0.5, 3, len(B))
    plain, divided = diffusion(VOLUMES), diffusion(VOLUMES, scheme=gradients(divisors=divisors))
    for family in (Exchange(), AnisotropyLoss(), FibreLoss(), SignalChange()):
        one, other = family.plant(plain, drawn()), family.plant(divided, drawn())
        spread = divisors[:, None, None, None]
        assert torch.allclose(one.images, other.images * spread, rtol=1e-3, atol=1e-3)


def test_signals_divided_by_b0_have_an_s0_of_1_even_without_a_volume_of_it():
    host = diffusion((), n=4, scheme=gradients(divided_by_b0=True))
    no_b0 = gradients(b0s=0, divided_by_b0=True)
    no_b0 = replace(no_b0, directions=G[2:])
    bare = replace(host, images=host.images[:, 2:], gradients=no_b0)
    for family in (Exchange(), AnisotropyLoss(), FibreLoss()):
        whole = family.plant(host, drawn())
        assert torch.allclose(whole.images[:, :2], torch.ones(4, 2), atol=1e-5)
        assert torch.allclose(family.plant(bare, drawn()).images, whole.images[:, 2:], atol=1e-5)
    with pytest.raises(SettingsError, match="divided by those at b = 0, so that nothing would change"):
        SignalChange().plant(host, drawn())


def test_lost_anisotropy_leaves_the_mean_of_each_shell():
    host = diffusion((), n=6)
    whole = AnisotropyLoss(fraction=(1.0, 1.0)).plant(host, drawn()).images
    half = AnisotropyLoss(fraction=(0.5, 0.5)).plant(host, drawn()).images
    for shell in (slice(2, 9), slice(9, 16)):
        mean = host.images[:, shell].mean(1, keepdim=True)
        assert torch.allclose(whole[:, shell], mean.expand(-1, 7), rtol=1e-5)
        assert torch.allclose(half[:, shell], (host.images[:, shell] + mean) / 2, rtol=1e-5)
    assert torch.equal(whole[:, :2], host.images[:, :2])


def test_shells_are_told_apart_by_gaps():
    found = shells(torch.tensor([1005.0, 0.0, 50.0, 2000.0, 995.0, 1090.0, 2101.0, 51.0]))
    assert found.tolist() == [2, 0, 0, 3, 2, 2, 4, 1]


def test_a_bundle_attenuates_most_along_itself():
    along = torch.nn.functional.normalize(G[5:6], dim=1)
    across = torch.linalg.cross(along, torch.tensor([[1.0, 0.0, 0.0]]))
    g = torch.cat([along, torch.nn.functional.normalize(across, dim=1)])
    found = bundle_attenuation(along, torch.tensor([1000.0, 1000.0]), g)[0]
    assert found.tolist() == pytest.approx([0.182684, 0.740818], rel=1e-4)  # exp(-1.7), exp(-0.3)


def test_crossing_bundles_are_found_along_their_directions():
    signals, _, _ = crossing_signals(SCHEME, 40)
    weighted = G[B > 50]
    second = weighted[(weighted @ weighted[0]).abs().argmin()]
    found = crossing(rows_of(signals, torch.zeros(40, dtype=torch.long)))[0]
    assert {tuple(u.tolist()) for u in found} == {tuple(weighted[0].tolist()), tuple(second.tolist())}


def test_fibre_loss_takes_one_bundle_of_a_crossing_and_leaves_the_other():
    signals, shares, (one, other, rest) = crossing_signals(SCHEME, 60)
    rows = rows_of(signals, torch.arange(60) // 6)  # Ten samples of six voxels.
    made, scale = FibreLoss(fraction=(1.0, 1.0), diffusivity_mm2_per_s=(2e-3, 2e-3)).change(rows, drawn())
    assert (scale == 1).all()
    water = torch.exp(-2e-3 * B)[None]
    without_one = 90 * (shares[:, :1] * water + shares[:, 1:2] * other + shares[:, 2:] * rest)
    without_other = 90 * (shares[:, :1] * one + shares[:, 1:2] * water + shares[:, 2:] * rest)
    lost = torch.stack([(made - each).abs().amax(1) < 0.05 for each in (without_one, without_other)])
    assert lost.any(0).all()
    assert lost.reshape(2, 10, 6).all(2).any(0).all()  # The same one in all of a sample,
    assert lost.sum(1).min() >= 6  # and either.
    assert torch.allclose(made[:, :2], signals[:, :2], rtol=1e-4)
    assert (made > 0).all()


def test_where_there_is_no_bundle_nothing_is_lost():
    isotropic = 80 * torch.exp(-0.9e-3 * B).expand(7, -1).clone()
    host = replace(diffusion((), n=7), images=isotropic)
    made = FibreLoss().plant(host, drawn())
    assert torch.equal(made.images, isotropic)
    assert not made.truth.any()
    assert not made.profile.any()


def test_room_is_what_leaves_no_signal_below_0():
    signals, _, (one, _, _) = crossing_signals(SCHEME, 9)
    found = room(rows_of(signals), one)
    left = signals - found[:, None] * 90 * one
    assert left[:, B > 50].amin(1).abs().max() < 1e-3
    assert not without_means(torch.full((2, len(B)), 3.0), B).any()


def test_s0_changes_all_signals_alike():
    host = diffusion((), n=500)
    ratio = SignalChange(factor=(1.5, 2.0)).plant(host, drawn()).images / host.images
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-5)
    up = ratio[:, 0] > 1
    assert 0.4 < up.float().mean() < 0.6
    assert ratio[up, 0].min() >= 1.4999
    assert ratio[up, 0].max() <= 2.0001
    assert ratio[~up, 0].min() >= 0.4999
    assert ratio[~up, 0].max() <= 1 / 1.4999


def test_free_water_is_brighter_at_b_0_and_gone_at_high_b():
    host = diffusion((), n=400)
    family = FreeWater(fraction=(0.4, 0.4), diffusivity_mm2_per_s=(3e-3, 3e-3), relative_s0=(1.5, 1.5))
    made = family.plant(host, drawn()).images
    s0 = host.images[:, :2].mean(1, keepdim=True)
    expected = 0.6 * host.images + 0.4 * 1.5 * s0 * torch.exp(-3e-3 * B)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-3)
    assert (made[:, :2].mean(1) > host.images[:, :2].mean(1)).all()
    assert (made[:, B > 1000] < host.images[:, B > 1000]).double().mean() > 0.8


def test_diffusivity_multiplies_what_is_in_the_exponent():
    bvalues = B[None].expand(30, -1)
    tensor = (G @ torch.diag(torch.tensor([1.6e-3, 0.5e-3, 0.3e-3])) * G).sum(1)
    host = replace(diffusion((), n=30), images=70 * torch.exp(-bvalues * tensor))
    family = DiffusivityChange(factor=(1.5, 1.5), way="faster", relative_s0=(1.2, 1.2))
    smooth = rows_of(host.images, torch.arange(30))
    made, scale = family.change(smooth, drawn())
    torch.testing.assert_close(made, 1.2 * 70 * torch.exp(-1.5 * bvalues * tensor), rtol=1e-4, atol=1e-3)
    step = 1e-2  # What noise on all weighted signals comes to, beside how much of it is said to be left.
    weighted = (B > 50).float()
    more, _ = family.change(smooth._replace(signals=smooth.signals + step * weighted), drawn())
    torch.testing.assert_close(scale[:, B > 50], (more - made)[:, B > 50] / step, rtol=0.02, atol=1e-3)
    assert scale[:, B <= 50].tolist() == [[pytest.approx(1.2)] * 2] * 30
    slower, _ = replace(family, way="slower", relative_s0=(1.0, 1.0)).change(smooth, drawn())
    torch.testing.assert_close(slower, 70 * torch.exp(-bvalues * tensor / 1.5), rtol=1e-4, atol=1e-3)
    either, _ = replace(family, way="either", relative_s0=(1.0, 1.0)).change(smooth, drawn())
    faster = (either < host.images)[:, B > 50].all(1)
    assert 5 <= faster.sum() <= 25
    with pytest.raises(SettingsError, match="way=up: must be either, faster or slower"):
        DiffusivityChange(way="up")


def test_without_a_signal_at_b_0_diffusivity_stays():
    host = replace(diffusion((), n=5), images=torch.zeros(5, len(B)))
    made = DiffusivityChange().plant(host, drawn())
    assert torch.equal(made.images, host.images)
    assert not made.truth.any()
