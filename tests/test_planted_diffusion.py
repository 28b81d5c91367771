"""Exchange with an isotropic compartment: the closed form, whatever signals were divided by."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_gathering import FAST, people
from test_hypersphere import HOW

from mednovelty.annotations import Annotations
from mednovelty.errors import SettingsError
from mednovelty.gathering import gather_scans
from mednovelty.methods.hypersphere import DeepSADMethod, DeepSADSettings, HSCMethod, HSCSettings
from mednovelty.nn.planted_anomalies import chance
from mednovelty.nn.planted_diffusion import DIFFUSIVITIES_MM2_PER_S, FRACTIONS, exchanged, with_exchange
from mednovelty.train import train
from mednovelty.voxel_cache import Acquisition, VoxelCache

B = torch.tensor([0.0, 1000.0, 5.0, 2500.0, 700.0])
SMALL = {"hidden": (8, 6), "latent": 3, "pretrain_epochs": 0}


def signals(n=7, seed=0):
    draws = torch.Generator().manual_seed(seed)
    s0 = 150 + 100 * torch.rand(n, 1, generator=draws)
    return s0 * torch.exp(-0.8e-3 * B * (0.5 + torch.rand(n, len(B), generator=draws)))


def closed_form(s, f, d):
    """S = S0 ((1 - f) S / S0 + f exp(-b D)), as it stands in the text."""
    s0 = (s[:, 0] + s[:, 2]) / 2
    f, d = f[:, None], d[:, None]
    return s0[:, None] * ((1 - f) * s / s0[:, None] + f * torch.exp(-B * d))


def test_the_closed_form():
    s, f, d = signals(), torch.linspace(0.1, 0.9, 7), torch.linspace(3e-3, 0.2e-3, 7)
    torch.testing.assert_close(exchanged(s, B, f, d), closed_form(s, f, d))
    # By hand: a fifth of free water at b = 1000 leaves 0.8 S + 0.2 S0 exp(-3).
    by_hand = 0.8 * 90 + 0.2 * 200 * 0.0497870684
    found = exchanged(
        torch.tensor([[200.0, 90.0]]), torch.tensor([0.0, 1e3]), torch.tensor([0.2]), torch.tensor([3e-3])
    )
    assert found[0, 1].item() == pytest.approx(by_hand, rel=1e-6)
    assert found[0, 0].item() == pytest.approx(200)


@pytest.mark.parametrize("space", ["channel means", "scan's gain", "own b=0"])
def test_whatever_signals_were_divided_by(space):
    s = signals(500, seed=3)
    divisors, gain = torch.ones(5), torch.ones(500, 1)
    if space == "channel means":
        divisors = s.mean(0)
    if space == "scan's gain":
        divisors, gain = torch.tensor([3.0, 1.5, 2.5, 0.5, 2.0]), torch.full((500, 1), 0.004)
    if space == "own b=0":
        gain = 1 / s[:, [0, 2]].mean(1, keepdim=True)
    drawn = torch.Generator().manual_seed(5)
    low, high = FRACTIONS
    f = low + (high - low) * torch.rand(500, generator=drawn)
    low, high = DIFFUSIVITIES_MM2_PER_S
    d = low + (high - low) * torch.rand(500, generator=drawn)
    found = with_exchange(s * gain / divisors, B, divisors, torch.Generator().manual_seed(5))
    torch.testing.assert_close(found, closed_form(s, f, d) * gain / divisors, rtol=2e-5, atol=1e-6)
    assert (d < 0.7e-3).any()
    assert (d > 2.5e-3).any()
    assert d.max() <= 3.0e-3


def acquired(n=600, seed=0):
    x = signals(n, seed)
    divisors = x.mean(0)
    cache = VoxelCache.from_array((x / divisors).numpy())
    cache.acquisition = Acquisition(tuple(B.tolist()), tuple(divisors.tolist()))
    return cache


@pytest.mark.parametrize(("kind", "settings"), [(DeepSADMethod, DeepSADSettings), (HSCMethod, HSCSettings)])
def test_half_of_a_batch_is_exchanged_and_pushed_away(kind, settings):
    method, rows = kind(settings(anomalies="diffusion", **SMALL)), acquired()
    model = method.build((5,))
    method.start(model, rows, torch.Generator().manual_seed(1))
    torch.testing.assert_close(model.bvalues, B)
    seen = []
    method.losses = lambda model, distances, labels: seen.append(labels) or distances
    method.loss(model.train(), torch.from_numpy(rows.array()), 1, torch.Generator().manual_seed(2))
    assert (seen[0] == -1).float().mean() == pytest.approx(0.5, abs=0.07)
    assert ((seen[0] == -1) | (seen[0] == 0)).all()
    # Of a batch of which more than half is labelled already, none; of one without labels, told rows only.
    half = torch.cat(
        [torch.from_numpy(rows.array()), torch.where(torch.arange(600) < 400, -1.0, 0.0)[:, None]], 1
    )
    method.loss(model, half, 1, torch.Generator().manual_seed(2))
    assert torch.equal(seen[1], half[:, -1])


def test_a_network_learns_to_tell_exchanged_voxels_and_says_so():
    method = HSCMethod(HSCSettings(anomalies="diffusion", **SMALL))
    model = method.build((5,))
    train(method, model, acquired(), acquired(200, 4), replace(HOW, max_epochs=30, learning_rate=3e-3))
    told = method.assess(model, acquired(), acquired(200, 4), torch.Generator().manual_seed(0))
    assert told["auroc"] > 0.7
    assert not told["collapsed"]
    assert told["anomalies"] == "diffusion"
    assert "told from held-out anomalies with an AUROC" in told["verdict"]


def test_what_scans_were_divided_by_is_known_and_signals_come_out():
    settings = replace(FAST, method="hsc", method_settings=HSCSettings(anomalies="diffusion", **SMALL))
    scans = people(4)
    with gather_scans(scans, settings, 0, known=Annotations.of(settings, 0)) as voxels:
        found = voxels.training.acquisition
        assert found == voxels.validation.acquisition
        np.testing.assert_allclose(found.bvalues_s_per_mm2, scans[0].gradients.bvals)
        scan = next(scan for scan in scans if scan.id in voxels.training.scans)
        rows = voxels.training.array()[voxels.training.scans[scan.id]]
        signal, gain = rows * np.array(found.divisors), scan.voxels()
        # One factor for the whole scan: its mean intensity.
        np.testing.assert_allclose(gain / signal, np.full_like(signal, gain.mean()), rtol=1e-4)


def test_where_it_cannot_be_planted_it_says_why():
    rows = acquired(50)
    method = HSCMethod(HSCSettings(anomalies="diffusion", **SMALL))
    for acquisition, said in (
        (None, "the b-values of these voxels, or what they were divided by, are not known"),
        (Acquisition((1000.0,) * 5, (1.0,) * 5), "there is no volume at b = 0"),
    ):
        rows.acquisition = acquisition
        with pytest.raises(SettingsError, match=said) as caught:
            method.start(method.build((5,)), rows, torch.Generator())
        assert caught.value.code == "anomalies.acquisition"
    method = HSCMethod(HSCSettings(anomalies="confetti", **SMALL))
    with pytest.raises(SettingsError, match=r"confetti cannot be planted in samples of shape \(5,\)"):
        method.start(method.build((5,)), rows, torch.Generator())


def test_the_chance_makes_up_for_what_is_there():
    assert chance(torch.zeros(6), 0.3) == pytest.approx(0.3)
    labels = torch.tensor([-1.0, 0, 0, 0, 1, 0, 0, 0, 0, 0])
    assert 0.1 + 0.9 * chance(labels, 0.4) == pytest.approx(0.4)
    assert chance(-torch.ones(3), 0.4) == 0
