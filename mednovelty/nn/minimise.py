"""Many small minimisations side by side, each within a box, of misfits that have kinks.

A decoder of ReLUs is piecewise linear: its derivatives jump at kinks, minima lie on kinks, and exact
derivatives say nothing of what is behind them, so that a plain descent stops short. Here the kinks are
rounded off at first widely, then ever finer, and the minimum is followed along:

* At each width the misfit's curvature (Gauss-Newton or Fisher, damped as Levenberg and Marquardt do: more
  after a first step that failed, less after one that did not) starts an estimate of the inverse curvature.
* A few quasi-Newton steps follow (BFGS), each with a gradient only, shortened where they fail.
* A latent at a wall that pushes outwards is held; steps are cut off at the walls (projected, active set).

Every start is explored with few steps; the best of them, by the exact misfit, is refined with more. All
samples take the same number of steps, so a sample's path does not depend on its company; matrix products of
at least ``ROWS`` rows are the only thing that could tell, by their last bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from mednovelty.nn.misfits import Misfit
from mednovelty.types import Latents, Samples

ROWS = 32
"""Fewer rows may take another way through a matrix product, with other last bits: less is padded."""

TILE = 1024
"""Samples at a time, so that what belongs to them stays in the processor's cache."""

DAMPING, LESS, MORE = 1e-2, 1 / 3, 10.0
"""Damping at the start, and its factors after a first step that succeeded and one that failed."""

DAMPINGS = (1e-6, 1e3)
"""Damping stays between these."""

EVENLY = 0.03
"""Share of the curvature's mean diagonal that is damped along with each latent's own."""

TINY, TINIEST = 1e-6, 1e-30
"""Added to the curvature's diagonal, as a share of its mean and absolutely: rounding, and no curvature."""

FARTHEST = 10.0
"""No latent moves farther in one step; the prior's sigma is 1."""

SLIGHT = 1e-4
"""A step succeeds that lowers the misfit by this share of what its slope promises."""

ENOUGH = 1e-4
"""Share of the misfit: who gains less in the last third of the finest steps has converged."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How finely and how long to descend.

    Args:
        widest: The first width of rounding, in the units of the hidden layers.
        finest: The last; widths lie between in equal ratios.
        widths: How many, at least 2.
        steps: At each.
        curvatures: At how many of the widths, from the first, the curvature is computed afresh; at the
            others the estimate goes on.
    """

    widest: float
    finest: float
    widths: int
    steps: int
    curvatures: int

    @property
    def smoothings(self) -> list[float]:
        """Return the widths, widest first."""
        ratio = (self.finest / self.widest) ** (1 / (self.widths - 1))
        return [self.widest * ratio**i for i in range(self.widths)]


EXPLORE = Schedule(widest=0.05, finest=0.004, widths=4, steps=6, curvatures=4)
REFINE = Schedule(widest=0.02, finest=0.0005, widths=4, steps=12, curvatures=1)


class Minimum(NamedTuple):
    """Where a misfit is least, as far as was found."""

    z: Latents
    """``(B, Z)``."""
    value: Tensor
    """``(B,)``: the exact misfit there; never above that at any start within the box."""
    converged: Tensor
    """``(B,)`` bool; False where the last steps still gained, or the misfit is not finite."""


def minimise(
    misfit: Misfit,
    x: Samples,
    starts: Tensor,
    *,
    bound: float = math.inf,
    explore: Schedule = EXPLORE,
    refine: Schedule = REFINE,
) -> Minimum:
    """Return the least misfit found for each sample.

    Args:
        misfit: What to minimise.
        x: ``(B, C)``.
        starts: ``(S, B, Z)``; what lies outside the box is moved to its wall.
        bound: No latent leaves [-bound, bound].
        explore: From each start.
        refine: From the best end.
    """
    rows = torch.arange(len(x), device=x.device)
    found = []
    for tile in rows.split(TILE):
        padded = torch.cat([tile, tile[-1:].expand(-len(tile) % ROWS)])
        descend = partial(_Descent, misfit, x[padded], bound=bound)
        ends = [descend(z=start[padded].clamp(-bound, bound)).run(explore) for start in starts]
        best = ends[0]
        for end in ends[1:]:
            best = better(end, best)
        end = descend(z=best.z).run(refine)
        found.append(Minimum(*(part[: len(tile)] for part in end)))
    return Minimum(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def better(challenger: Minimum, holder: Minimum) -> Minimum:
    """Return the smaller minimum of each sample; on a draw the challenger's."""
    wins = (challenger.value <= holder.value) | holder.value.isnan()
    return Minimum(
        torch.where(wins[:, None], challenger.z, holder.z),
        torch.where(wins, challenger.value, holder.value),
        torch.where(wins, challenger.converged, holder.converged),
    )


class _Descent:
    """One descent of one tile's samples.

    Args:
        misfit: What to minimise.
        x: ``(B, C)``.
        z: ``(B, Z)`` where to start, within the box.
        bound: The box.
    """

    def __init__(self, misfit: Misfit, x: Samples, z: Latents, bound: float) -> None:
        self.misfit, self.x, self.z, self.bound = misfit, x, z, bound
        self.start = Minimum(z, misfit.value(z, x), torch.zeros_like(z[:, 0], dtype=torch.bool))
        self.damping = torch.full_like(self.start.value, DAMPING)

    def run(self, schedule: Schedule) -> Minimum:
        """Return the end of the descent, or its start where the end is no better."""
        for i, smoothing in enumerate(schedule.smoothings):
            # Within a box always: the estimate knows little of latents that a wall has held.
            afresh = i < schedule.curvatures or self.bound < math.inf
            self.look(smoothing, afresh=afresh)
            early = self.value
            for step in range(schedule.steps):
                good = self.step(smoothing)
                if step == 0 and afresh:
                    self.damping = (self.damping * torch.where(good, LESS, MORE)).clamp(*DAMPINGS)
                if step == schedule.steps - 1 - schedule.steps // 3:
                    early = self.value
        value = self.misfit.value(self.z, self.x)
        least = value.fmin(self.start.value)
        settled = early - self.value <= ENOUGH * self.value.abs()
        # Not at something above what it came from.
        converged = settled & (value - least <= ENOUGH * least.abs())
        return better(Minimum(self.z, value, converged), self.start._replace(converged=converged))

    def look(self, smoothing: float, *, afresh: bool) -> None:
        """Evaluate where the samples are, with kinks rounded anew."""
        here = self.misfit.near(self.z, self.x, smoothing)
        self.value, self.gradient = here.value, here.gradient
        self.free = self._free()
        if afresh:
            self.inverse = _damped_inverse(here.curvature(), self.free, self.damping)
        self.newton = _times(self.inverse, self.gradient * self.free)
        self.length = torch.ones_like(self.value)

    def step(self, smoothing: float) -> Tensor:
        """Try a step of each sample and learn from it; return ``(B,)`` bool, whose succeeded."""
        direction = self.newton * self.free
        # Where a decoder saturates, a step may have no end; what is not a number does not move.
        length = self.length.fmin(FARTHEST / direction.abs().amax(1))
        z = (self.z - (length[:, None] * direction).nan_to_num(0.0)).clamp(-self.bound, self.bound)
        moved = z - self.z
        promised = (self.gradient * moved).sum(1)
        there = self.misfit.near(z, self.x, smoothing)
        good = there.value <= self.value + SLIGHT * promised
        self._learn(moved, there.gradient, good)
        self.length = torch.where(good, 1.0, _shorter(length, promised, there.value - self.value))
        self.z = torch.where(good[:, None], z, self.z)
        self.value = torch.where(good, there.value, self.value)
        self.gradient = torch.where(good[:, None], there.gradient, self.gradient)
        if self.bound < math.inf:
            self.free = self._free()
            self.newton = _times(self.inverse, self.gradient * self.free)
        return good

    def _learn(self, moved: Tensor, gradient: Tensor, good: Tensor) -> None:
        """Update the inverse curvature from how the gradient turned along a good step (BFGS).

        ``H += (1 + y'Hy / s'y) s s' / s'y - (H y s' + s y'H) / s'y`` for a step s and a turn y; no change
        where s'y is not positive. ``newton``, H times the gradient, changes with both.
        """
        gradient = gradient * self.free
        newton = _times(self.inverse, gradient)
        turned = torch.where(good[:, None], gradient - self.gradient * self.free, 0)
        along = torch.where(good[:, None], newton - self.newton, 0)
        product, energy = (moved * turned).sum(1), (turned * along).sum(1)
        rate = torch.where(product > 1e-10 * energy, 1 / product, 0)[:, None]
        side = (0.5 + 0.5 * energy[:, None] * rate) * rate * moved - rate * along
        self.inverse.addcmul_(side[:, :, None], moved[:, None, :]).addcmul_(
            moved[:, :, None], side[:, None, :]
        )
        newton += side * (moved * gradient).sum(1, keepdim=True) + moved * (side * gradient).sum(
            1, keepdim=True
        )
        self.newton = torch.where(good[:, None], newton, self.newton)

    def _free(self) -> Tensor:
        """Return ``(B, Z)`` 1 for latents that may move, 0 for those that a wall holds."""
        if self.bound == math.inf:
            return torch.ones_like(self.z)
        from_low = (self.z > -self.bound) | (self.gradient < 0)
        from_high = (self.z < self.bound) | (self.gradient > 0)
        return (from_low & from_high).to(self.z.dtype)


def _damped_inverse(curvature: Tensor, free: Tensor, damping: Tensor) -> Tensor:
    """Return the inverse of the damped curvature; latents that are held stand alone in it."""
    diagonal = curvature.diagonal(dim1=1, dim2=2).clone()
    curvature = curvature * free[:, None] * free[:, :, None]
    # A share of the mean keeps directions of little curvature from running off.
    mean = diagonal.mean(1, keepdim=True)
    added = damping[:, None] * (diagonal + EVENLY * mean) + TINY * mean + TINIEST
    curvature.diagonal(dim1=1, dim2=2).add_(added + diagonal * (1 - free))
    return torch.cholesky_inverse(torch.linalg.cholesky_ex(curvature).L)


def _shorter(length: Tensor, promised: Tensor, rise: Tensor) -> Tensor:
    """Return a tenth to a half of a length that failed, where the parabola through both ends is least."""
    share = (-promised / (2 * (rise - promised))).nan_to_num(0.1)
    return length * share.clamp(0.1, 0.5)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[:, :, None])[:, :, 0]


__all__ = ["EXPLORE", "REFINE", "ROWS", "Minimum", "Schedule", "better", "minimise"]
