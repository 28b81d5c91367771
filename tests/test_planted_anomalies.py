"""Confetti and lesions: how many, how large, where, and that nothing else changes."""

import math

import pytest
import torch

from mednovelty.nn import planted_anomalies
from mednovelty.nn.planted_anomalies import SQUARES, confetti, draw_squares, lesions, planted


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def brains(n=40, channels=2, space=(45, 52), seed=1):
    """Return images of noise in a disc, or a ball, with 0 around it."""
    images = 3 + torch.randn(n, channels, *space, generator=drawn(seed))
    places = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in space), indexing="ij")
    tissue = sum(place.square() for place in places) < 0.7
    return images * tissue, tissue


@pytest.mark.parametrize("kind", ["confetti", "lesions"])
@pytest.mark.parametrize("space", [(45, 52), (17, 20, 23)])
def test_the_same_state_plants_the_same_and_the_images_stay(kind, space):
    images, _ = brains(6, space=space)
    before = images.clone()
    first, second = (planted(images, kind, drawn(5)) for _ in range(2))
    assert torch.equal(images, before)
    assert torch.equal(first.images, second.images)
    assert first.images.shape == images.shape
    assert first.where.shape == (6, *space)
    assert first.where.flatten(1).any(1).all()
    assert ((first.images != images).flatten(1).any(1)).all()
    assert not torch.equal(first.where[0], first.where[1])
    assert not torch.equal(planted(images, kind, drawn(6)).images, first.images)


def test_confetti_has_at_least_one_square_of_each_kind_and_the_thesis_number_of_them():
    squares = draw_squares(torch.zeros(3000, 1, 9, 8), drawn())
    # Of a Poisson count with mean m, the larger of it and 1 has mean m + exp(-m): 1.308 and 1.150.
    expected = torch.tensor(SQUARES) + torch.exp(-torch.tensor(SQUARES))
    assert list(SQUARES) == pytest.approx([0.9032, 0.6021], abs=1e-4)
    assert squares.counts.min() == 1
    assert squares.counts.shape == (3000, 2)
    torch.testing.assert_close(squares.counts.mean(0), expected, atol=0.05, rtol=0)


def test_squares_are_of_8_to_54_pixels_at_224():
    # One kind whose colour is random, of which none is ever twice, and the darkest: taken apart by colour.
    squares = draw_squares(torch.zeros(60, 1, 224, 224), drawn(2))
    alone = (squares.counts == 1).all(1)
    areas = []
    for noise in squares.noise[alone, 0]:
        values, counts = noise[noise < 0].unique(return_counts=True)
        border = noise[0].any() or noise[-1].any() or noise[:, 0].any() or noise[:, -1].any()
        if len(values) == 2 and not border:  # Neither hides or touches the other.
            assert values[0] == -1
            areas += counts.tolist()
    sides = torch.tensor(areas).sqrt()
    assert len(sides) > 20
    assert sides.min() > 7
    assert sides.max() < 55
    assert sides.max() > 45
    assert sides.min() < 16
    assert squares.noise.min() >= -2


def test_before_blurring_only_squares_change_and_after_it_what_is_near(monkeypatch):
    images, _ = brains(30)
    squares = draw_squares(images, drawn(4))
    assert not squares.noise[~squares.where[:, None].expand_as(images)].any()
    assert (squares.noise.amin(1)[squares.where] < 0).all()
    monkeypatch.setattr(planted_anomalies, "BLUR_PX", 0.0)
    sharp = confetti(images, drawn(4))
    assert torch.equal(sharp.where, squares.where)
    outside = ~sharp.where[:, None].expand_as(images)
    assert torch.equal(sharp.images[outside], images[outside])
    assert (sharp.images != images).any(1)[sharp.where].float().mean() > 0.5
    monkeypatch.undo()
    soft = confetti(images, drawn(4))
    changed = (soft.images != images).any(1)
    assert changed.sum() > sharp.where.sum()
    # 12 pixels of 224 are 2.4 of 45.
    near = torch.nn.functional.max_pool2d(sharp.where[:, None].float(), 5, stride=1, padding=2)[:, 0] > 0
    assert not (changed & ~near).any()


def test_confetti_darkens_within_the_range_of_each_contrast_unless_nothing_would_be_seen():
    images, _ = brains(30)
    images[:, 1] *= 10
    found = confetti(images, drawn(7)).images
    for reach, side in ((torch.amin, 1), (torch.amax, -1)):
        assert (side * (reach(found, (2, 3)) - reach(images, (2, 3))) >= 0).all()
    bright = torch.ones(20, 1, 45, 52)
    bright[:, :, 0, 0] = 0
    changed = confetti(bright, drawn(7)).images - bright
    assert (changed <= 0).all()
    assert (changed.flatten(1).sum(1) < 0).all()
    # What is as dark as it gets cannot be darkened: squares brighten it.
    dark = torch.zeros(20, 1, 45, 52)
    dark[:, :, 0, 0] = 1
    changed = confetti(dark, drawn(7)).images - dark
    assert (changed.flatten(1).sum(1) > 0).all()


@pytest.mark.parametrize("space", [(45, 52), (21, 20, 23)])
def test_lesions_are_soft_and_in_tissue_alone(space):
    images, tissue = brains(space=space)
    found = lesions(images, drawn(3))
    change = (found.images - images).abs()
    assert not change[:, :, ~tissue].any()
    assert not found.where[:, ~tissue].any()
    assert found.where.flatten(1).any(1).all()
    share = found.where.flatten(1).sum(1) / tissue.sum()
    assert share.median() < 0.3
    # Inside of a lesion there is more change than outside, in the outskirts little, far away none.
    inside = (change.amax(1) * found.where).flatten(1).sum(1) / found.where.flatten(1).sum(1)
    outside = (change.amax(1) * (tissue & ~found.where)).flatten(1).sum(1) / (tissue & ~found.where).flatten(
        1
    ).sum(1)
    assert (inside > 3 * outside).float().mean() > 0.8
    spread = images[:, :, tissue].std(2).mean()
    assert 0.5 * spread < inside.mean() < 4 * spread
    # Contrasts change in either direction.
    signs = torch.sign((found.images - images).flatten(2).sum(2))
    assert {(-1.0, 1.0), (1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)} == set(map(tuple, signs.tolist()))


def test_lesions_are_as_large_as_they_are_asked_to_be():
    images, _ = brains(space=(90, 104))
    small, large = (lesions(images, drawn(3), radii=radii) for radii in ((0.01, 0.04), (0.1, 0.2)))
    sizes = [found.where.flatten(1).sum(1).float().median() for found in (small, large)]
    # Up to three of a radius of 2 pixels, or of 13, less what lies outside of the tissue.
    assert math.pi < sizes[0] < 3 * math.pi * 3.6**2
    assert sizes[1] > 20 * sizes[0]


def test_radii_are_shares_of_the_shortest_side():
    squares, strips = (torch.randn(200, 1, *space, generator=drawn()) for space in ((40, 40), (40, 160)))
    sizes = [
        lesions(images, drawn(3), radii=(0.1, 0.1)).where.flatten(1).sum(1).float().mean().item()
        for images in (squares, strips)
    ]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.3)  # Less is cut off at the ends of a strip.


def test_lesions_leave_another_background_alone_and_take_images_without_one():
    images, tissue = brains(5)
    shifted = torch.where(tissue, images, torch.tensor(-1.5))
    found = lesions(shifted, drawn(3), background=-1.5)
    assert torch.equal(found.images[:, :, ~tissue], shifted[:, :, ~tissue])
    empty = torch.zeros(2, 3, 12, 15)
    assert torch.equal(lesions(empty, drawn()).images, empty)  # No contrast to change by.
