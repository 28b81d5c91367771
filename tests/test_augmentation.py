import numpy as np
import pytest
import torch
from torch import Generator

from mednovelty.errors import SettingsError
from mednovelty.nn.augmentation import Augmentation, augmented, with_holes

NOTHING = {
    "mirror_axes": (),
    "rotation_rad": 0.0,
    "scale": (1.0, 1.0),
    "brightness": (1.0, 1.0),
    "noise_sigma": 0.0,
}


def noise(seed=0):
    return Generator().manual_seed(seed)


def images(*space, n=6, channels=2):
    return torch.randn(n, channels, *space, generator=noise(9))


def only(**changes):
    return Augmentation(**{**NOTHING, **changes})


def disc(radius=6.0, side=32):
    at = torch.arange(side) - (side - 1) / 2
    return ((at[:, None] ** 2 + at**2) < radius**2).float()[None]


@pytest.mark.parametrize("space", [(12, 9), (7, 10, 8)])
def test_same_generator_same_images(space):
    x = images(*space)
    before, state = x.clone(), torch.get_rng_state()
    first, second, other = (augmented(x, Augmentation(), noise(seed)) for seed in (3, 3, 4))
    assert first.shape == x.shape
    assert first.dtype == torch.float32
    assert type(first) is torch.Tensor
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(x, before)
    assert torch.equal(state, torch.get_rng_state())


def test_nothing_changes_nothing():
    x = images(12, 9)
    torch.testing.assert_close(augmented(x, only(), noise()), x, atol=1e-5, rtol=0)


def test_each_image_is_changed_in_its_own_way_anew_at_each_call():
    x = images(12, 9, n=1).expand(5, -1, -1, -1)
    generator = noise()
    first, second = (augmented(x, only(brightness=(0.5, 1.5)), generator) for _ in range(2))
    assert len({round(value, 5) for value in torch.cat([first, second])[:, 0, 0, 0].tolist()}) == 10


@pytest.mark.parametrize(("space", "axis"), [((12, 9), 0), ((12, 9), 1), ((7, 10, 8), 2)])
def test_mirror_flips_its_axis_in_half_of_the_images(space, axis):
    x = images(*space, n=40)
    y = augmented(x, only(mirror_axes=(axis,)), noise())
    mirrored = [torch.allclose(b, a.flip(1 + axis), atol=1e-5) for a, b in zip(x, y, strict=True)]
    kept = [torch.allclose(b, a, atol=1e-5) for a, b in zip(x, y, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 8 < sum(mirrored) < 32


def test_brightness_multiplies_within_its_range():
    x = images(12, 9, n=50)
    factors = (augmented(x, only(brightness=(0.95, 1.1)), noise()) / x).flatten(1)
    assert (factors.std(1) < 1e-2).all()
    factors = factors.median(1).values
    assert factors.min() >= 0.95 - 1e-4
    assert factors.max() <= 1.1 + 1e-4
    assert factors.max() - factors.min() > 0.08


def test_noise_has_a_standard_deviation_up_to_the_one_given():
    x = images(30, 40, n=30)
    sigma = (augmented(x, only(noise_sigma=0.3), noise()) - x).flatten(1).std(1)
    assert sigma.max() < 0.32
    assert sigma.max() > 0.2
    assert sigma.min() < 0.1


def test_above_one_the_image_shrinks():
    x = disc()[None]
    larger = augmented(x, only(scale=(0.5, 0.5)), noise())
    smaller = augmented(x, only(scale=(2.0, 2.0)), noise())
    assert larger.sum().item() == pytest.approx(4 * x.sum().item(), rel=0.1)
    assert smaller.sum().item() == pytest.approx(x.sum().item() / 4, rel=0.1)


def test_rotation_stays_within_its_angle():
    bar = torch.zeros(1, 1, 65, 65)
    bar[..., 30:35, :] = 1
    turned = augmented(bar.expand(30, -1, -1, -1), only(rotation_rad=0.3), noise())[:, 0]
    at = torch.arange(65) - 32.0
    # Where the bar crosses the column 20 voxels from the centre, its height says the angle.
    column = turned[:, :, 52]
    angle = torch.atan((column * at).sum(1) / column.sum(1) / 20)
    assert angle.abs().max() < 0.31
    assert angle.min() < -0.15
    assert angle.max() > 0.15


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mirror_axes": (3,)}, r"mirror_axes=\(3,\): axes of space are 0, 1 and 2"),
        ({"scale": (1.2, 0.9)}, r"scale=\(1.2, 0.9\): the first must be positive"),
        ({"brightness": (0.0, 1.0)}, r"brightness=\(0.0, 1.0\)"),
        ({"noise_sigma": -0.1}, "noise_sigma=-0.1: must not be negative"),
        ({"rotation_rad": float("nan")}, "rotation_rad=nan"),
    ],
)
def test_settings_are_checked(settings, words):
    with pytest.raises(SettingsError, match=words):
        Augmentation(**settings)


def test_an_axis_that_slices_do_not_have():
    with pytest.raises(SettingsError, match=r"mirror_axes=\(2,\): the images have 2 axes of space"):
        augmented(images(12, 9), only(mirror_axes=(2,)), noise())


@pytest.mark.parametrize("space", [(12, 9), (7, 10, 8)])
def test_holes_are_boxes_of_one_value_over_all_channels(space):
    x = images(*space, n=60)
    y = with_holes(x, noise())
    changed = (x != y).any(1)
    assert torch.equal(y, with_holes(x, noise()))
    assert 6 < (~changed.flatten(1).any(1)).sum() < 30  # No hole in one of four.
    for i in range(len(x)):
        values = y[i][:, changed[i]]
        assert len(values.unique()) <= 3
        assert torch.equal(values, values[:1].expand_as(values))
        if len(values.unique()) == 1:
            corners = changed[i].nonzero()
            sides = corners.max(0).values - corners.min(0).values + 1
            assert sides.prod() == len(corners)
            assert len(sides.unique()) == 1
            assert sides[0] <= max(space) // 2
    assert (y.flatten(1).amax(1) <= x.flatten(1).amax(1)).all()
    assert (y.flatten(1).amin(1) >= x.flatten(1).amin(1)).all()


def test_holes_reach_every_voxel_and_every_size():
    x = images(12, 9, n=400)
    changed = (x != with_holes(x, noise())).any(1)
    share = changed.float().mean(0)
    assert share.min() > 0
    assert share.max() < 0.5
    sizes = {int(np.sqrt(n)) for n in changed.flatten(1).sum(1).tolist() if int(np.sqrt(n)) ** 2 == n}
    assert {1, 2, 3, 4, 5, 6} <= sizes
