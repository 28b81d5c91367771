"""Two bundles of fibres that cross, found in the signals of diffusion voxels.

A bundle along u attenuates like an axially symmetric tensor,

    A_u(b, g) = exp(-b (D_radial + (D_axial - D_radial) (g . u)^2)),

and a voxel is taken to be two of them and something isotropic, S = S0 (v_1 A_1 + v_2 A_2 + c_shell). Without
the means of the shells c drops out, and v are the least squares of what is left, at least 0, and at most what
leaves no signal below 0. The directions are the same in all of a sample: the measured one that explains most
of the differences between directions, and, at least 45 degrees from it, the one that explains most of the
rest. One of the two is drawn, so that of a crossing one bundle goes and the other stays. Where a bundle has
less than a tenth of the signal nothing changes, and that is not counted as anomaly either.

Shells are gradients whose sorted b-values are at most 100 s/mm^2 apart.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mednovelty.nn.planted_diffusion import B0_S_PER_MM2

SHELL_GAP_S_PER_MM2 = 100.0
AXIAL_MM2_PER_S, RADIAL_MM2_PER_S = 1.7e-3, 0.3e-3
"""Of a bundle of fibres in healthy white matter."""
APART_DEG = 45.0


class Rows(NamedTuple):
    """The voxels of samples in which something changes."""

    signals: Tensor
    """``(n, C)``, as measured up to a factor a voxel; the first channel is S0 where none was measured."""
    profile: Tensor
    """``(n,)``"""
    sample: Tensor
    """``(n,)`` whose voxel it is."""
    bvalues: Tensor
    """``(C,)`` in s/mm^2."""
    directions: Tensor
    """``(C, 3)``"""
    samples: int
    """B."""

    @property
    def s0(self) -> Tensor:
        """``(n, 1)``."""
        return self.signals[:, self.bvalues <= B0_S_PER_MM2].mean(1, keepdim=True)


def shells(bvalues: Tensor) -> Tensor:
    """Return ``(C,)`` the number of each gradient's shell, 0 for those at b = 0.

    Examples:
        >>> shells(torch.tensor([0.0, 995.0, 2000.0, 5.0, 1005.0]))
        tensor([0, 1, 2, 0, 1])
    """
    ranked, order = bvalues.sort()
    weighted = ranked > B0_S_PER_MM2
    begins = weighted & ((ranked.diff(prepend=ranked[:1]) > SHELL_GAP_S_PER_MM2) | (weighted.cumsum(0) == 1))
    numbers = torch.empty_like(order)
    numbers[order] = begins.cumsum(0)
    return numbers


def bundle_attenuation(along: Tensor, bvalues: Tensor, directions: Tensor) -> Tensor:
    """Return ``(n, C)`` attenuations A_u of bundles of fibres.

    Args:
        along: ``(n, 3)`` unit vectors u.
        bvalues: ``(C,)`` in s/mm^2.
        directions: ``(C, 3)`` unit vectors g.
    """
    cosines = (along @ directions.T).square()
    return torch.exp(-bvalues * (RADIAL_MM2_PER_S + (AXIAL_MM2_PER_S - RADIAL_MM2_PER_S) * cosines))


def room(rows: Rows, bundle: Tensor) -> Tensor:
    """Return ``(n,)``: the largest share of a bundle, ``(n, C)``, that leaves no signal below 0."""
    weighted = rows.bvalues > B0_S_PER_MM2
    shares = rows.signals[:, weighted] / (rows.s0 * bundle[:, weighted]).clamp_min(1e-12)
    return shares.amin(1).clamp(0, 1)


def without_means(values: Tensor, bvalues: Tensor) -> Tensor:
    """Return ``(n, C)`` differences from the mean of each shell; 0 at b = 0."""
    numbers, found = shells(bvalues), torch.zeros_like(values)
    for number in range(1, int(numbers.max()) + 1):
        of_shell = values[:, numbers == number]
        found[:, numbers == number] = of_shell - of_shell.mean(1, keepdim=True)
    return found


def crossing(rows: Rows) -> Tensor:
    """Return ``(B, 2, 3)``: of each sample two measured directions that explain most of its anisotropy."""
    candidates = rows.directions[rows.bvalues > B0_S_PER_MM2]
    bundles = without_means(bundle_attenuation(candidates, rows.bvalues, rows.directions), rows.bvalues)
    bundles = bundles / torch.linalg.vector_norm(bundles, dim=1, keepdim=True).clamp_min(1e-12)
    differences = without_means(rows.signals / rows.s0.clamp_min(1e-12), rows.bvalues)
    apart = (candidates @ candidates.T).abs() <= math.cos(math.radians(APART_DEG)) + 1e-6

    def explained(rest: Tensor) -> Tensor:
        each = (rest @ bundles.T).clamp_min(0).square() * rows.profile[:, None]
        return torch.zeros(rows.samples, len(candidates), device=rest.device).index_add(0, rows.sample, each)

    first = explained(differences).argmax(1)
    own = bundles[first][rows.sample]
    rest = differences - (differences * own).sum(1, keepdim=True).clamp_min(0) * own
    second = torch.where(apart[first], explained(rest), -1.0).argmax(1)
    return torch.stack([candidates[first], candidates[second]], 1)


def shares(rows: Rows, one: Tensor, other: Tensor) -> Tensor:
    """Return ``(n,)`` the share v of one of two bundles in each voxel.

    Args:
        rows: The voxels.
        one: ``(n, C)`` attenuation of the bundle that is asked for.
        other: ``(n, C)`` of the one that crosses it.
    """
    signals = without_means(rows.signals / rows.s0.clamp_min(1e-12), rows.bvalues)
    a, b = without_means(one, rows.bvalues), without_means(other, rows.bvalues)
    aa, bb, ab = ((x * y).sum(1) for x, y in ((a, a), (b, b), (a, b)))
    sa, sb = (signals * a).sum(1), (signals * b).sum(1)
    both = (aa * bb - ab.square()).clamp_min(1e-12)
    v, w = (sa * bb - sb * ab) / both, (sb * aa - sa * ab) / both
    # Where the other would be negative, this one alone.
    v = torch.where(w >= 0, v, sa / aa.clamp_min(1e-12)).clamp_min(0)
    return torch.minimum(v, room(rows, one))


__all__ = ["Rows", "bundle_attenuation", "crossing", "room", "shares", "shells", "without_means"]
