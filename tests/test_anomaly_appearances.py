"""What changes in planted anomalies of images: strengths, channels, texture, foreign tissue, deformation."""

from dataclasses import replace

import pytest
import torch
from anomaly_hosts import SLICES, VOLUMES, ball_mask, drawn, images

from mednovelty.anomalies import deformation
from mednovelty.anomalies.deformation import Deformation, pulled
from mednovelty.anomalies.families import (
    Contrast,
    Hyperintense,
    Hypointense,
    Inversion,
    LocalBlur,
    Noise,
    Texture,
)
from mednovelty.anomalies.foreign import Foreign, PoissonForeign, blended, drawn_donors
from mednovelty.anomalies.host import Host, moments
from mednovelty.anomalies.shapes import Shapes
from mednovelty.errors import SettingsError

LARGE = Shapes(("ellipsoid",), (30.0, 30.0), (2.0, 2.0), 1)


def change(family, host):
    made = family.plant(host, drawn())
    return made, (made.images - host.images)


def core(made):
    return (made.profile == 1)[:, None].expand_as(made.images)


def test_moments_are_of_the_tissue_alone():
    host = images(n=3)
    mean, spread = moments(host)
    inside = host.images[1, 0][host.mask[1]]
    assert mean[1, 0].item() == pytest.approx(inside.mean().item(), rel=1e-5)
    assert spread[1, 0].item() == pytest.approx(inside.std(correction=0).item(), rel=1e-4)


@pytest.mark.parametrize(("kind", "sign"), [(Hyperintense, 1), (Hypointense, -1)])
def test_contrast_is_in_standard_deviations_of_the_tissue(kind, sign):
    host = images()
    made, changed = change(kind(LARGE, strength_sd=(2.0, 2.0)), host)
    expected = sign * 2 * moments(host)[1].expand_as(changed)
    assert torch.allclose(changed[core(made)], expected[core(made)], atol=1e-4)
    soft = changed / expected
    assert torch.allclose(soft, made.profile[:, None].expand_as(soft), atol=1e-4)


def strengths(family, host):
    _, changed = change(family, host)
    peak = changed.flatten(2).gather(2, changed.flatten(2).abs().argmax(2, keepdim=True))[..., 0]
    return peak / moments(host)[1].flatten(1)


def test_channels_change_together_or_each_its_own_way():
    host = images((11, 13), n=200)
    together, independent = (
        strengths(Contrast(LARGE, channels=channels), host) for channels in ("together", "independent")
    )
    assert torch.allclose(together[:, 0], together[:, 1], atol=1e-3)
    assert 0.4 < (together[:, 0] > 0).float().mean() < 0.6
    assert 0.4 < (independent[:, 0] * independent[:, 1] > 0).float().mean() < 0.6
    assert together.abs().max() <= 3.001
    # Weaker at soft edges only: the ellipsoids are larger than the images.
    assert together.abs().median() == pytest.approx(1.75, abs=0.3)
    opposite = strengths(Hyperintense(LARGE, signs=(-1, 1)), host)
    assert (opposite[:, 0] < 0).all()
    assert torch.allclose(opposite[:, 0], -opposite[:, 1], atol=1e-3)
    half = strengths(Hyperintense(LARGE, signs=(1, -0.5)), host)
    assert torch.allclose(-0.5 * half[:, 0], half[:, 1], atol=1e-3)
    with pytest.raises(SettingsError, match="is for 3 channels; the samples have 2"):
        Hyperintense(signs=(1, 1, -1)).plant(host, drawn())
    with pytest.raises(SettingsError, match="signs must be from -1 to 1, one a channel and not all 0"):
        Hyperintense(signs=(0, 0))
    with pytest.raises(SettingsError, match="signs must be from -1 to 1"):
        Hyperintense(signs=(1, float("nan")))


def test_texture_has_no_brightness_of_its_own():
    host = images((40, 44), channels=1)
    made, changed = change(Texture(LARGE, strength_sd=(1.5, 1.5), grain_mm=(1.0, 1.0)), host)
    assert changed.flatten(1).sum(1).abs().max() < 1e-2
    inside = changed[core(made)] / moments(host)[1].expand_as(changed)[core(made)]
    assert inside.std().item() == pytest.approx(1.5, rel=0.15)


def test_noise_is_of_each_voxel_and_channel():
    host = images((40, 44))
    made, changed = change(Noise(LARGE, strength_sd=(0.8, 0.8)), host)
    inside = (changed / moments(host)[1])[core(made)].reshape(-1)
    assert inside.std().item() == pytest.approx(0.8, rel=0.08)
    one, other = (changed[:, channel][made.profile == 1] for channel in (0, 1))
    assert torch.corrcoef(torch.stack([one, other]))[0, 1].abs() < 0.1


def test_blur_lets_no_background_in_and_makes_smooth():
    host = images()
    constant = replace(host, images=torch.where(host.mask[:, None], 7.0, -50.0).expand(-1, 2, -1, -1))
    _, changed = change(LocalBlur(LARGE), constant)
    assert changed.abs().max() < 1e-3
    made, _ = change(LocalBlur(LARGE, sigma_mm=(8.0, 8.0)), host)
    before, after = (x.diff(dim=3)[core(made)[..., 1:]].abs().mean() for x in (host.images, made.images))
    assert after < before / 2


def test_inversion_mirrors_at_the_mean_of_the_tissue():
    host = images()
    made, _ = change(Inversion(LARGE), host)
    expected = 2 * moments(host)[0] - host.images
    assert torch.allclose(made.images[core(made)], expected[core(made)], atol=1e-4)


def test_foreign_tissue_is_another_samples_at_the_same_place():
    host = images()
    made, _ = change(Foreign(LARGE, share=(1.0, 1.0)), host)
    donors, _ = drawn_donors(host, drawn())
    assert torch.allclose(made.images[core(made)], donors[core(made)])
    for seed in range(5):
        donors, _ = drawn_donors(host, drawn(seed))
        assert (donors != host.images).flatten(1).any(1).all()
    half = Foreign(LARGE, share=(0.5, 0.5)).plant(host, drawn())
    expected = (host.images + drawn_donors(host, drawn())[0]) / 2
    assert torch.allclose(half.images[core(half)], expected[core(half)], atol=1e-5)


def test_of_one_sample_foreign_tissue_comes_from_half_an_image_away():
    image = torch.arange(8 * 6).float().reshape(1, 1, 8, 6)
    host = Host(image, torch.ones(1, 8, 6, dtype=torch.bool), (1.0, 1.0))
    donors, _ = drawn_donors(host, drawn())
    assert donors[0, 0, 4, 3] == image[0, 0, 0, 0]


def test_foreign_tissue_is_only_put_where_both_have_some():
    host = images()
    mask = host.mask.clone()
    mask[3:, :, 16:] = False
    made = Foreign(LARGE).plant(replace(host, mask=mask), drawn())
    _, tissue = drawn_donors(replace(host, mask=mask), drawn())
    assert not made.profile[~tissue].any()


@pytest.mark.parametrize("space", [SLICES, VOLUMES])
def test_poisson_blending_keeps_border_and_slopes(space):
    n, spacing = 2, torch.tensor([[1.0, 2.0, 1.5][: len(space)]] * 2)
    image, donor = (torch.randn(n, 2, *space, generator=drawn(seed)) for seed in (1, 2))
    region, tissue = torch.zeros(n, *space, dtype=torch.bool), torch.ones(n, *space, dtype=torch.bool)
    region[(slice(None), *[slice(3, side - 3) for side in space])] = True
    made = blended(image, donor, region, tissue, spacing)
    outside = ~region[:, None].expand_as(image)
    assert torch.equal(made[outside], image[outside])
    h, total = made - donor, torch.zeros_like(image)
    for axis, step in enumerate(spacing[0].tolist(), start=2):
        second = torch.roll(h, 1, axis) + torch.roll(h, -1, axis) - 2 * h
        total += second / step**2
    assert total[~outside].abs().max() < 5e-3  # Harmonic inside, equal to the image on the border.


def test_a_donor_that_differs_by_a_constant_blends_into_the_image_itself():
    host = images(channels=1)
    region = ball_mask(6, SLICES)
    region[:, :, :8] = False
    region[:, :6] = False
    found = blended(host.images, host.images + 40, region, host.mask, host.spacings_mm)
    assert torch.allclose(found, host.images, atol=1e-2)
    made = PoissonForeign(LARGE).plant(host, drawn())
    assert torch.equal(made.truth, made.profile == 1)


@pytest.mark.parametrize("space", [SLICES, VOLUMES])
@pytest.mark.parametrize("way", ["expansion", "shrinkage", "shift"])
def test_a_deformed_constant_is_the_constant_and_background_stays_out(way, space):
    host = images(space)
    lead = [slice(None), None]
    constant = replace(
        host, images=torch.where(host.mask[tuple(lead)], 7.0, 900.0).repeat(1, 2, *[1] * len(space))
    )
    made = Deformation(ways=(way,)).plant(constant, drawn())
    assert torch.allclose(made.images, constant.images, rtol=1e-5)
    assert made.truth.any()


def test_displacements_are_in_mm_and_read_from_where_they_point():
    ramp = torch.arange(20.0)[:, None] * 2.0 + torch.zeros(20, 10)
    host = Host(ramp[None, None], torch.ones(1, 20, 10, dtype=torch.bool), (2.0, 3.0))
    moved = torch.zeros(1, 2, 20, 10)
    moved[:, 0] = 5.0
    assert torch.allclose(pulled(host, moved)[0, 0, :17], ramp[:17] + 5, atol=1e-4)
    moved[:, 0] = 0
    moved[:, 1] = 3.0
    assert torch.allclose(pulled(host, moved)[0, 0], ramp, atol=1e-4)


def one_ball(monkeypatch, way, strength, diameter=60.0):
    """A ramp of mm along the first axis, deformed in a ball around one voxel."""
    ramp = (torch.arange(81.0) - 40)[:, None].expand(81, 41).clone()
    host = Host(ramp[None, None], torch.ones(1, 81, 41, dtype=torch.bool), (1.0, 2.0))
    monkeypatch.setattr(deformation, "one_voxel", lambda weights, generator: torch.tensor([[40.0, 20.0]]))
    return Deformation((diameter, diameter), (way,), (strength, strength)).plant(host, drawn())


def test_expansion_and_shrinkage_follow_their_formula(monkeypatch):
    for way, sign in (("expansion", 1), ("shrinkage", -1)):
        made = one_ball(monkeypatch, way, 0.5)
        x = torch.arange(81.0) - 40
        weight = (1 - (x / 30).square()).clamp_min(0).square()
        expected = x * (1 - sign * 0.5 * weight)
        assert torch.allclose(made.images[0, 0, :, 20], expected, atol=1e-3)
        assert (expected.diff() > 0).all()  # Nothing is folded.
        assert torch.equal(made.truth[0, :, 20], weight > 0.25)


def test_a_shift_is_by_half_the_strength_of_the_radius(monkeypatch):
    made = one_ball(monkeypatch, "shift", 0.9)
    shift = made.images[0, 0] - (torch.arange(81.0) - 40)[:, None]
    assert 0 < shift.abs().max() <= 0.45 * 30 + 1e-3
    assert (made.images[0, 0].diff(dim=0) > 0).all()
