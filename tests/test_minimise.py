"""The minimiser on functions whose minima are known, and against SciPy's within a box."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize as scipy_minimize

from mednovelty.methods.vae import VAE, VAESettings
from mednovelty.nn.minimise import (
    LESS,
    MORE,
    ROWS,
    TILE,
    Minimum,
    Schedule,
    _damped_inverse,
    _Descent,
    better,
    minimise,
)
from mednovelty.nn.misfits import NegativeLogLikelihood, SquaredError
from mednovelty.testing.models import LinearGaussianVAE, random_samples

CHANNELS, LATENT = 9, 4


class Local:
    def __init__(self, value, gradient, curvature):
        self.value, self.gradient, self._curvature = value, gradient, curvature

    def curvature(self):
        return self._curvature


class Kinked:
    """``sum_j w_j |z_j - x_j|``, rounded to hyperbolas: least at x, at a kink in every latent."""

    weights = torch.tensor([1.0, 3.0])

    def value(self, z, x):
        return ((z - x).abs() * self.weights).sum(1)

    def near(self, z, x, smoothing):
        root = ((z - x).square() + smoothing**2).sqrt()
        return Local(
            (root * self.weights).sum(1),
            (z - x) / root * self.weights,
            torch.diag_embed(self.weights / root),
        )


def relu_vae(seed=0, scale=2.0):
    """A VAE with random weights, wilder than a trained one."""
    model = VAE(CHANNELS, VAESettings(hidden=(20, 12), latent=LATENT)).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for part in (model.encoder, model.decoder):
        part.initialise(generator)
        for layer in part.hidden:
            layer.weight.mul_(scale)
            layer.bias.uniform_(-1, 1, generator=generator)
    model.decoder.heads.weight[CHANNELS:].mul_(0.3)
    model.shift.copy_(torch.linspace(-1, 2, CHANNELS))
    model.spread.copy_(torch.linspace(0.5, 2, CHANNELS))
    return model


def starts_of(model, x):
    return model.encode(x).mean[None]


def test_least_squares_of_a_linear_decoder_is_the_residual_of_a_projection():
    model, x = LinearGaussianVAE(7, 3), random_samples(50, 7, seed=1)
    basis, _ = torch.linalg.qr(model.decoder.double())
    away = (x - model.decoder_shift).double()
    expected = (away - away @ basis @ basis.T).square().sum(1)
    found = minimise(SquaredError(model), x, starts_of(model, x))
    torch.testing.assert_close(found.value.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.value, SquaredError(model).value(found.z, x))
    assert found.converged.all()


def test_minima_on_kinks_are_found():
    x = 3 * random_samples(40, 2, seed=1)
    found = minimise(Kinked(), x, torch.zeros(1, 40, 2))
    torch.testing.assert_close(found.z, x, rtol=0, atol=1e-3)
    assert Kinked().value(torch.zeros(40, 2), x).min() > 0.1


@pytest.mark.parametrize("kind", [SquaredError, NegativeLogLikelihood])
def test_within_a_box_a_linear_decoder_agrees_with_scipy(kind):
    # A convex problem, so that there is one minimum; half the samples end at a wall.
    model, x, bound = LinearGaussianVAE(7, 3), 3 * random_samples(31, 7, seed=1), 0.8
    found = minimise(kind(model), x, starts_of(model, x), bound=bound)
    assert found.z.abs().max() <= bound
    assert 0.3 < (found.z.abs() == bound).any(1).float().mean() < 1
    assert found.converged.all()
    for row, z, value in zip(x.double(), starts_of(model, x)[0].double(), found.value, strict=True):
        scale = model.signal_sigma.double() if kind is NegativeLogLikelihood else torch.full((7,), 0.5**0.5)
        w, away = (
            (model.decoder / scale[:, None]).double().numpy(),
            ((row - model.decoder_shift) / scale).numpy(),
        )
        best = scipy_minimize(
            lambda z, w=w, away=away: 0.5 * ((away - w @ z) ** 2).sum(),
            np.clip(z.numpy(), -bound, bound),
            method="L-BFGS-B",
            bounds=[(-bound, bound)] * 3,
        ).fun
        constant = (
            (scale.log() + 0.5 * math.log(2 * math.pi)).sum().item() if kind is NegativeLogLikelihood else 0
        )
        assert value.item() == pytest.approx(best + constant, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", [SquaredError, NegativeLogLikelihood])
@pytest.mark.parametrize("bound", [math.inf, 1.0])
def test_never_worse_than_any_start_within_the_box(kind, bound):
    model, x = relu_vae(), 3 * random_samples(200, CHANNELS, seed=1)
    starts = torch.stack([starts_of(model, x)[0], 5 * random_samples(200, LATENT, seed=2)])
    found = minimise(kind(model), x, starts, bound=bound)
    for start in starts:
        assert (found.value <= kind(model).value(start.clamp(-bound, bound), x)).all()
    assert (found.value < kind(model).value(starts[0].clamp(-bound, bound), x)).float().mean() > 0.9
    torch.testing.assert_close(found.value, kind(model).value(found.z, x))
    assert found.z.abs().max() <= bound
    assert found.value.isfinite().all()


def test_a_sample_does_not_depend_on_its_company():
    model, x = relu_vae(), 3 * random_samples(TILE + ROWS + 5, CHANNELS, seed=1)
    starts = model.encode(x).mean[None]
    for kind in (SquaredError, NegativeLogLikelihood):
        together = minimise(kind(model), x, starts)
        for rows in (slice(3, 4), slice(TILE - 3, TILE + 40), slice(len(x) - 2, len(x))):
            torch.testing.assert_close(
                minimise(kind(model), x[rows], starts[:, rows]).value, together.value[rows]
            )


def test_the_same_question_gets_the_same_bits():
    model, x = relu_vae(), random_samples(100, CHANNELS, seed=1)
    first, second = (minimise(SquaredError(model), x, starts_of(model, x)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_who_is_still_on_the_way_has_not_converged():
    model, x = relu_vae(), 3 * random_samples(200, CHANNELS, seed=1)
    hasty = Schedule(widest=0.05, finest=0.003, widths=2, steps=3, curvatures=2)
    few = minimise(SquaredError(model), x, starts_of(model, x), explore=hasty, refine=hasty)
    many = minimise(SquaredError(model), x, starts_of(model, x))
    assert few.converged.float().mean() < many.converged.float().mean()
    assert many.converged.float().mean() > 0.8
    assert (many.value < few.value).sum() > (many.value > few.value).sum()


def test_what_is_not_finite_stays_with_its_sample():
    model, x = relu_vae(), random_samples(5, CHANNELS, seed=1)
    starts = starts_of(model, x)
    alone = minimise(SquaredError(model), x, starts)
    x[2] = math.nan
    found = minimise(SquaredError(model), x, starts)
    assert found.value[2].isnan()
    assert not found.converged[2]
    others = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(found.value[others], alone.value[others])


def test_of_two_minima_the_smaller_and_nothing_over_a_number():
    values = torch.tensor([1.0, 2.0, math.nan, 4.0, math.nan])
    others = torch.tensor([2.0, 1.0, 3.0, math.nan, math.nan])
    first, second = (
        Minimum(torch.full((5, 2), k), v, torch.full((5,), k > 0)) for k, v in ((1.0, values), (0.0, others))
    )
    best = better(first, second)
    assert best.value.nan_to_num(-1).tolist() == [1, 1, 3, 4, -1]
    assert best.z[:4, 0].tolist() == [1, 0, 0, 1]
    assert best.converged[:4].tolist() == [True, False, False, True]


def test_widths_lie_in_equal_ratios():
    assert Schedule(8.0, 1.0, 4, 1, 1).smoothings == pytest.approx([8, 4, 2, 1])


def test_extreme_decoders_give_finite_values():
    model = relu_vae(scale=30.0)
    model.decoder.heads.weight[CHANNELS:].mul_(100)
    x = 100 * random_samples(40, CHANNELS, seed=1)
    for bound in (math.inf, 10.0):
        found = minimise(NegativeLogLikelihood(model), x, starts_of(model, x), bound=bound)
        assert found.value.isfinite().all()
        assert found.z.isfinite().all()


def test_an_update_makes_the_estimate_explain_the_step():
    model, x = relu_vae().double(), random_samples(6 * ROWS, CHANNELS, seed=1).double()
    descent = _Descent(SquaredError(model), x, starts_of(model, x)[0], math.inf)
    descent.look(0.05, afresh=True)
    for _ in range(4):
        before, gradient = descent.z, descent.gradient
        good = descent.step(0.05)
        moved, turned = descent.z - before, descent.gradient - gradient
        bent = good & ((moved * turned).sum(1) > 1e-6)
        explained = (descent.inverse @ turned[:, :, None])[:, :, 0]
        torch.testing.assert_close(explained[bent], moved[bent])
        torch.testing.assert_close(descent.inverse, descent.inverse.mT)
        assert bent.sum() > len(x) / 6
    newton = (descent.inverse @ descent.gradient[:, :, None])[:, :, 0]
    torch.testing.assert_close(descent.newton, newton)


def test_latents_that_a_wall_holds_stand_alone_in_the_inverse():
    root = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(0))
    curvature, free = root @ root.mT + torch.eye(4), torch.tensor([1.0, 0.0, 1.0, 1.0]).expand(5, 4)
    inverse = _damped_inverse(curvature, free, torch.full((5,), 1e-9))
    kept = torch.tensor([0, 2, 3])
    expected = torch.linalg.inv(curvature[:, kept][:, :, kept])
    torch.testing.assert_close(inverse[:, kept][:, :, kept], expected, rtol=1e-3, atol=1e-4)
    assert not inverse[:, 1, kept].any()
    assert (inverse[:, 1, 1] > 0).all()


def test_damping_shortens_steps():
    curvature, free = torch.eye(3).expand(2, 3, 3), torch.ones(2, 3)
    little, much = _damped_inverse(curvature, free, torch.tensor([1e-6, 9.0]))
    assert little[0, 0].item() == pytest.approx(1, rel=1e-3)
    # 1 + 9 (1 + 0.03)
    assert much[0, 0].item() == pytest.approx(1 / 10.27, rel=1e-3)


def test_small_batches_are_padded_so_that_products_keep_their_bits():
    model, x = relu_vae(), random_samples(TILE + 3, CHANNELS, seed=1)
    sizes = set()

    class Spy(SquaredError):
        def near(self, z, x, smoothing):
            sizes.add(len(z))
            return super().near(z, x, smoothing)

    short = Schedule(widest=0.05, finest=0.003, widths=2, steps=1, curvatures=1)
    for rows in (x, x[:1]):
        found = minimise(Spy(model), rows, starts_of(model, rows), explore=short, refine=short)
        assert len(found.value) == len(rows)
    assert sizes == {TILE, ROWS}


def test_a_descent_that_ends_above_its_start_has_not_converged():
    class Misled(Kinked):
        def near(self, z, x, smoothing):
            return super().near(z, x + 1, smoothing)

    x = random_samples(7, 2, seed=1)
    found = minimise(Misled(), x, x[None])
    assert not found.value.any()
    assert not found.converged.any()
    assert minimise(Misled(), x, x[None] + 1).value.min() > 3


def test_damping_falls_with_first_steps_that_succeed_and_rises_with_those_that_fail():
    class Uphill(SquaredError):
        def near(self, z, x, smoothing):
            at = super().near(z, x, smoothing)
            return Local(at.value, -at.gradient, at.curvature())

    model, x = LinearGaussianVAE(7, 3), random_samples(ROWS, 7, seed=1)
    once = Schedule(widest=0.05, finest=0.003, widths=2, steps=1, curvatures=1)
    dampings = []
    for kind in (SquaredError, Uphill):
        descent = _Descent(kind(model), x, starts_of(model, x)[0], math.inf)
        before = descent.damping
        descent.run(once)
        dampings.append(descent.damping / before)
    torch.testing.assert_close(dampings[0], torch.full((ROWS,), LESS))
    torch.testing.assert_close(dampings[1], torch.full((ROWS,), MORE))
