"""Hyperspherical coordinates of vectors in d dimensions: a radius and d - 1 angles, in O(d).

    r       = ||x||
    cos phi_k = x_k / sqrt(x_k^2 + ... + x_(d-1)^2)            k = 0 .. d-2, the tail of x from k on
    x_k     = r cos phi_k sin phi_0 ... sin phi_(k-1)           x_(d-1) = r sin phi_0 ... sin phi_(d-2)

phi_0 to phi_(d-3) lie in [0, pi], phi_(d-2) in [0, 2 pi). All tails come from one reversed cumulative sum of
squares: nothing is subtracted, so that a short tail behind a long head keeps its digits, where ``r^2`` less
the sum of the first squares would have none left. Vectors are divided by their largest entry first, so that
no square leaves the range of float32. Where a tail is shorter than 3e-10 of that entry (in float32) it
counts as none: the cosines and angles behind it are 0, and gradients are finite.

Angles are those of ``atan2(tail behind k, x_k)``: an arccosine of float32 cannot tell angles below 3e-4 from
0, and its derivative at the poles is infinite.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mednovelty.errors import SettingsError


def cosines(x: Tensor, epsilon: float = 0.0) -> Tensor:
    """Return cos phi_k of ``(..., d)`` vectors, ``(..., d - 1)``.

    Args:
        x: d at least 2.
        epsilon: Added to the squared tails, in squared units of x. It draws all cosines towards 0 whose tail
            is not much longer than its root, and keeps their derivatives below the inverse of that root:
            without it they grow without limit as a vector nears a pole.

    Raises:
        SettingsError: d is less than 2.

    Examples:
        >>> cosines(torch.tensor([3.0, 0.0, 4.0])).tolist()
        [0.6000000238418579, 0.0]
    """
    scaled, tails, scale = _tails(x)
    squared = tails[..., :-1]
    if epsilon:
        squared = squared + epsilon / scale.square()
    long = squared > _floor(x)
    # Of a tail that counts as none, the root has no derivative: it must not be taken at all.
    return torch.where(long, scaled[..., :-1] * torch.where(long, squared, 1.0).rsqrt(), 0.0)


def to_spherical(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return radius ``(...)`` and angles ``(..., d - 1)``, in radians, of ``(..., d)`` vectors.

    Raises:
        SettingsError: d is less than 2.

    Examples:
        >>> radius, angles = to_spherical(torch.tensor([0.0, 0.0, -2.0]))
        >>> radius.item(), (angles / math.pi).tolist()
        (2.0, [0.5, 1.5])
    """
    scaled, tails, scale = _tails(x)
    long = tails > _floor(x)
    norms = torch.where(long, torch.where(long, tails, 1.0).sqrt(), 0.0)
    here = torch.where(long[..., :-1], scaled[..., :-1], 1.0)
    # The last angle goes all the way round: behind it is a number with a sign, not a length.
    behind = torch.cat([norms[..., 1:-1], torch.where(long[..., -2:-1], scaled[..., -1:], 0.0)], dim=-1)
    angles = torch.atan2(behind, here)
    last = angles[..., -1:]
    angles = torch.cat([angles[..., :-1], torch.where(last < 0, last + 2 * math.pi, last)], dim=-1)
    return norms[..., 0] * scale[..., 0], angles


def to_cartesian(radius: Tensor, angles: Tensor) -> Tensor:
    """Return ``(..., d)`` vectors for their radius ``(...)`` and angles ``(..., d - 1)``, in radians.

    Examples:
        >>> to_cartesian(torch.tensor(2.0), torch.tensor([0.0, 1.0])).tolist()
        [2.0, 0.0, 0.0]
    """
    one = torch.ones_like(angles[..., :1])
    sines = torch.cat([one, angles.sin().cumprod(-1)], dim=-1)
    return radius[..., None] * sines * torch.cat([angles.cos(), one], dim=-1)


def diagonal_cosines(
    dimensions: int, epsilon: float = 0.0, *, device: torch.device | str | None = None
) -> Tensor:
    """Return the cosines of the all-ones vector, ``(d - 1,)``: ``1 / sqrt(d - k + epsilon)``.

    They are also the standard deviations of cos phi_k where vectors are standard normal.
    """
    left = torch.arange(dimensions, 1, -1, device=device)
    return (left + epsilon).rsqrt()


def on_sphere(z: Tensor, radius: float) -> Tensor:
    """Return ``(..., d)`` vectors of one length in the directions of those given; 0 stays 0."""
    scale = _scale(z)
    scaled = z / scale
    return radius * scaled * scaled.square().sum(-1, keepdim=True).clamp(min=_floor(z)).rsqrt()


def rolled(x: Tensor, steps: Tensor) -> Tensor:
    """Roll each row of ``(B, d)`` to the left by as many places as its step, ``(B,)`` int64, says.

    Examples:
        >>> rolled(torch.tensor([[1, 2, 3], [1, 2, 3]]), torch.tensor([0, 2])).tolist()
        [[1, 2, 3], [3, 1, 2]]
    """
    places = torch.arange(x.shape[-1], device=x.device) + steps[:, None]
    return x.gather(-1, places % x.shape[-1])


def _tails(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return x over its largest entry, the squared lengths of what is left from each k on, and that entry."""
    if x.shape[-1] < 2:
        raise SettingsError(f"hyperspherical coordinates need at least 2 dimensions, not {x.shape[-1]}")
    scale = _scale(x)
    scaled = x / scale
    return scaled, scaled.square().flip(-1).cumsum(-1).flip(-1), scale


def _scale(x: Tensor) -> Tensor:
    # Directions and cosines do not depend on it, so that nothing is lost by leaving out its derivative.
    largest = x.detach().abs().amax(-1, keepdim=True)
    return torch.where(largest > 0, largest, 1.0)


def _floor(x: Tensor) -> float:
    return math.sqrt(torch.finfo(x.dtype).tiny)


__all__ = ["cosines", "diagonal_cosines", "on_sphere", "rolled", "to_cartesian", "to_spherical"]
