"""Hyperspherical coordinates: closed forms, invariances, and what float32 and poles do to them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.errors import SettingsError
from mednovelty.nn.hyperspherical import (
    cosines,
    diagonal_cosines,
    on_sphere,
    rolled,
    to_cartesian,
    to_spherical,
)


def points(count, dimensions, seed=0, dtype=torch.float64):
    drawn = torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return drawn * torch.tensor([0.3, 2.0, 50.0], dtype=dtype).repeat(count)[:count, None]


@pytest.mark.parametrize("dimensions", [2, 3, 50, 128])
def test_there_and_back(dimensions):
    x = points(9, dimensions)
    x[1, 0] = 0  # On an equator,
    x[2, 1:] = 0  # at a pole,
    x[3, 1:] = 0
    x[3, 0] = -4  # at the other one,
    x[4, : dimensions // 2] = 0
    x[5, -1] = -x[5, -1].abs()  # and with a negative last coordinate,
    x[6, -1] = x[6, -1].abs()
    x[7, -1] = 0
    x[8] = 0  # and nowhere.
    radius, angles = to_spherical(x)
    torch.testing.assert_close(radius, x.norm(dim=1), rtol=1e-13, atol=0)
    assert angles.shape == (9, dimensions - 1)
    assert (angles >= 0).all()
    assert (angles[:, :-1] <= math.pi).all()
    assert (angles[:, -1] < 2 * math.pi).all()
    assert math.pi < angles[5, -1]
    assert angles[6, -1] < math.pi
    torch.testing.assert_close(to_cartesian(radius, angles), x, rtol=0, atol=1e-10)


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=7))
def test_there_and_back_in_float32(values):
    x = torch.tensor(values)
    radius, angles = to_spherical(x)
    torch.testing.assert_close(to_cartesian(radius, angles), x, rtol=0, atol=3e-6 * max(map(abs, values)))


def test_cosines_are_the_cosines_of_the_angles():
    x = points(6, 11)
    torch.testing.assert_close(cosines(x), to_spherical(x)[1].cos(), rtol=0, atol=1e-12)
    by_hand = torch.tensor([[12.0, 3.0, -4.0]], dtype=torch.float64)
    expected = torch.tensor([[12 / 13, 3 / 5]], dtype=torch.float64)
    torch.testing.assert_close(cosines(by_hand), expected)
    # 144 + 9 + 16 + 31 = 200 and 9 + 16 + 31 = 56.
    offset = torch.tensor([[12 / math.sqrt(200), 3 / math.sqrt(56)]], dtype=torch.float64)
    torch.testing.assert_close(cosines(by_hand, epsilon=31.0), offset)


def test_two_dimensions_are_polar_coordinates():
    angle = torch.linspace(0, 2 * math.pi, 12, dtype=torch.float64)[:-1]
    x = 3 * torch.stack([angle.cos(), angle.sin()], dim=1)
    radius, angles = to_spherical(x)
    torch.testing.assert_close(angles[:, 0], angle)
    torch.testing.assert_close(radius, torch.full_like(angle, 3))
    torch.testing.assert_close(cosines(x)[:, 0], torch.atan2(x[:, 1], x[:, 0]).cos())


def test_the_all_ones_vector():
    assert diagonal_cosines(4).tolist() == pytest.approx([1 / 2, 1 / math.sqrt(3), 1 / math.sqrt(2)])
    ones = torch.full((1, 37), 5.0)
    torch.testing.assert_close(cosines(ones)[0], diagonal_cosines(37))
    torch.testing.assert_close(cosines(ones / 5, epsilon=0.25)[0], diagonal_cosines(37, 0.25))


def test_normal_vectors_lie_on_the_equators():
    d = 23
    found = cosines(torch.randn(40_000, d, generator=torch.Generator().manual_seed(5)))
    left = torch.arange(d, 1, -1)
    torch.testing.assert_close(found.mean(0), torch.zeros(d - 1), rtol=0, atol=0.02)
    torch.testing.assert_close(found.var(0) * left, torch.ones(d - 1), rtol=0, atol=0.05)


@given(st.floats(1e-3, 1e3))
def test_cosines_do_not_know_the_length(factor):
    x = points(4, 6)
    torch.testing.assert_close(cosines(x * factor), cosines(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        cosines(x * factor, epsilon=0.7 * factor**2), cosines(x, epsilon=0.7), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_squares_stay_within_float32(size):
    x = points(3, 5, dtype=torch.float32)
    torch.testing.assert_close(cosines(x * size), cosines(x))
    radius, angles = to_spherical(x * size)
    torch.testing.assert_close(radius, to_spherical(x)[0] * size)
    torch.testing.assert_close(angles, to_spherical(x)[1])
    torch.testing.assert_close(on_sphere(x * size, 2.0), on_sphere(x, 2.0))


def test_a_short_tail_behind_a_long_head_keeps_its_digits():
    # 1 + 1e-10 is 1 in float32: the tail's square, as a difference, would be 0.
    x = torch.tensor([1.0, 3e-5, -4e-5])
    torch.testing.assert_close(cosines(x), torch.tensor([1.0, 0.6]))
    _, angles = to_spherical(x)
    torch.testing.assert_close(angles, torch.tensor([5e-5, 2 * math.pi - math.acos(0.6)]), rtol=1e-6, atol=0)


POLES = [[2.0, 0, 0, 0], [-2.0, 0, 0, 0], [0, 0, 0, 3.0], [0, 5.0, 0, 0], [0, 0, 0, 0], [1, 1e-18, 1e-18, 0],
         [1, 1e-12, 2e-12, 1e-12], [1e-25, 1e-25, 0, 0]]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
def test_gradients_at_poles_and_of_no_tail_are_finite(epsilon, dtype):
    x = torch.tensor(POLES, dtype=dtype, requires_grad=True)
    found = cosines(x, epsilon)
    radius, angles = to_spherical(x)
    for values in (found, angles, to_cartesian(radius, angles), on_sphere(x, 2.0)):
        assert torch.isfinite(values).all()
        (gradient,) = torch.autograd.grad(values.sum(), x, retain_graph=True)
        assert torch.isfinite(gradient).all()


def test_epsilon_bounds_the_derivatives_at_a_pole():
    x = torch.tensor([1.0, 1e-4, 1e-4], dtype=torch.float64, requires_grad=True)
    (free,) = torch.autograd.grad(cosines(x)[1], x)
    (bound,) = torch.autograd.grad(cosines(x, epsilon=1e-3)[1], x)
    assert free.abs().max() > 1e3
    assert bound.abs().max() <= 1e-3**-0.5


def test_gradients_are_those_of_finite_differences():
    x = points(3, 5).requires_grad_()
    assert torch.autograd.gradcheck(cosines, x)
    assert torch.autograd.gradcheck(lambda x: cosines(x, 0.3), x)
    assert torch.autograd.gradcheck(to_spherical, x)
    assert torch.autograd.gradcheck(lambda x: to_cartesian(*to_spherical(x)), x)
    assert torch.autograd.gradcheck(lambda x: on_sphere(x, 3.0), x)


def test_on_the_sphere_directions_stay():
    x = points(4, 7)
    found = on_sphere(x, 2.5)
    torch.testing.assert_close(found.norm(dim=1), torch.full((4,), 2.5, dtype=x.dtype))
    torch.testing.assert_close(found / 2.5, x / x.norm(dim=1, keepdim=True))
    assert on_sphere(torch.zeros(2, 3), 2.5).tolist() == [[0] * 3] * 2


def test_rows_are_rolled_as_torch_rolls_them():
    x, steps = points(4, 7), torch.tensor([0, 3, 6, 1])
    for row, step, found in zip(x, steps.tolist(), rolled(x, steps), strict=True):
        assert torch.equal(found, torch.roll(row, -step))


def test_one_dimension_has_no_angle():
    for function in (cosines, to_spherical):
        with pytest.raises(SettingsError, match="at least 2 dimensions, not 1"):
            function(torch.ones(3, 1))
