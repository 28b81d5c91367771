"""Families of anomalies of diffusion samples, voxels and volumes, by the physics of their gradients.

With S(b, g) a voxel's signals as measured, up to a factor of the voxel, S0 their mean at b = 0, p the profile
and f, D, k drawn for each sample:

``exchange``         (1 - f p) S + f p S0 exp(-b D): isotropic water of diffusivity D in place of tissue
``anisotropy_loss``  S + f p (mean of the shell - S): nothing but directions is lost
``fibre_loss``       S + f p v S0 (exp(-b D) - A_u): one bundle of fibres becomes isotropic water
``s0``               S (1 + p (k - 1)): more or less water, or another T2; attenuations stay

A bundle along u attenuates like an axially symmetric tensor,

    A_u(b, g) = exp(-b (D_radial + (D_axial - D_radial) (g . u)^2)),

and a voxel is taken to be two of them and something isotropic, S = S0 (v_1 A_1 + v_2 A_2 + c_shell). Without
the means of the shells c drops out, and v are the least squares of what is left, at least 0, and at most what
leaves no signal below 0. The directions are the same in all of a sample: the measured one that explains most
of the differences between directions, and, at least 45 degrees from it, the one that explains most of the
rest. One of the two is drawn, so that of a crossing one bundle goes and the other stays. Where a bundle has
less than a tenth of the signal nothing changes, and that is not counted as anomaly either.

Shells are gradients whose sorted b-values are at most 100 s/mm^2 apart. The noise of what is taken away goes
with it: samples with an anomaly are a little less noisy than real ones would be.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from mednovelty.anomalies.geometry import log_uniform, uniform
from mednovelty.anomalies.host import Gradients, Host, Planted, Prior, check_range, planted, refuse_kind
from mednovelty.anomalies.shapes import Shapes
from mednovelty.errors import SettingsError
from mednovelty.nn.planted_diffusion import B0_S_PER_MM2, DIFFUSIVITIES_MM2_PER_S, FRACTIONS, exchanged

SHELL_GAP_S_PER_MM2 = 100.0
LEAST_SHARE = 0.1
"""Of a voxel's signal: a bundle with less of it is none."""
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


@dataclass(frozen=True)
class Diffusing:
    """What the families of this module share: one shape a sample; of voxels all of each.

    Attributes:
        shapes: Where.
    """

    shapes: Shapes = field(default_factory=lambda: Shapes(diameter_mm=(6.0, 40.0), edge_mm=(2.0, 6.0)))

    needs: ClassVar[Literal["images", "diffusion"]] = "diffusion"

    def plant(self, host: Host, generator: Generator) -> Planted:
        """Return each sample with an anomaly of its own; see ``host.Anomaly``."""
        refuse_kind(self, host)
        profile = self.shapes.draw(host, generator)
        inside = profile > 0
        rows, divisors, added = _rows(host, profile, inside)
        changed = self.change(rows, generator)
        there = changed.isfinite().all(1)
        profile = profile.masked_scatter(inside, torch.where(there, rows.profile, 0))
        images = host.images.movedim(1, -1).contiguous()
        images = images.masked_scatter(inside[..., None], (changed[:, added:] / divisors).to(images.dtype))
        return planted(host, images.movedim(-1, 1), profile)

    def change(self, rows: Rows, generator: Generator) -> Tensor:
        """Return ``(n, C)`` changed signals; NaN in voxels that cannot change in this way, which stay."""
        raise TypeError(f"{type(self).__name__} does not say what changes")

    def words(self) -> str:
        """Return what changes, in words."""
        return ""

    def describe(self) -> Prior:
        """Return what is planted, in words and numbers."""
        return Prior(f"{self.words()}; where there is space, {self.shapes.describe()}", asdict(self))


@dataclass(frozen=True)
class Exchange(Diffusing):
    """A share of the tissue's signal exchanged for isotropic diffusion, freer or more restricted.

    Attributes:
        shapes: Where.
        fraction: f, least and most.
        diffusivity_mm2_per_s: D, lowest and highest.
    """

    fraction: tuple[float, float] = FRACTIONS
    diffusivity_mm2_per_s: tuple[float, float] = DIFFUSIVITIES_MM2_PER_S

    def __post_init__(self) -> None:
        check_range("fraction", self.fraction, 0.001, 1.0)
        check_range("diffusivity_mm2_per_s", self.diffusivity_mm2_per_s, 0.0, 0.01)

    def change(self, rows: Rows, generator: Generator) -> Tensor:
        """Return signals after the exchange."""
        fraction = uniform((rows.samples,), *self.fraction, generator)[rows.sample] * rows.profile
        diffusivity = uniform((rows.samples,), *self.diffusivity_mm2_per_s, generator)[rows.sample]
        return exchanged(rows.signals, rows.bvalues, fraction, diffusivity)

    def words(self) -> str:
        """Return the ranges in words."""
        return (
            f"{_percent(self.fraction)} of the signal exchanged for isotropic diffusion of "
            f"{_diffusivities(self.diffusivity_mm2_per_s)}"
        )


@dataclass(frozen=True)
class AnisotropyLoss(Diffusing):
    """Signals drawn towards the mean over the directions of their shell.

    Attributes:
        shapes: Where.
        fraction: f, least and most.
    """

    fraction: tuple[float, float] = (0.3, 1.0)

    def __post_init__(self) -> None:
        check_range("fraction", self.fraction, 0.001, 1.0)

    def change(self, rows: Rows, generator: Generator) -> Tensor:
        """Return signals with less anisotropy; those at b = 0 and the means of shells stay."""
        fraction = uniform((rows.samples,), *self.fraction, generator)[rows.sample] * rows.profile
        return rows.signals - fraction[:, None] * without_means(rows.signals, rows.bvalues)

    def words(self) -> str:
        """Return the range in words."""
        return f"{_percent(self.fraction)} of the differences between directions of a shell lost"


@dataclass(frozen=True)
class FibreLoss(Diffusing):
    """Fibres of one of two crossing directions replaced by isotropic water.

    Attributes:
        shapes: Where.
        fraction: f, least and most, of what lies along the direction.
        diffusivity_mm2_per_s: D of the water in their place, lowest and highest.
    """

    fraction: tuple[float, float] = (0.4, 1.0)
    diffusivity_mm2_per_s: tuple[float, float] = (0.7e-3, 3.0e-3)

    def __post_init__(self) -> None:
        check_range("fraction", self.fraction, 0.001, 1.0)
        check_range("diffusivity_mm2_per_s", self.diffusivity_mm2_per_s, 0.0, 0.01)

    def change(self, rows: Rows, generator: Generator) -> Tensor:
        """Return signals without a part of the fibres along one direction."""
        fraction = uniform((rows.samples,), *self.fraction, generator)[rows.sample] * rows.profile
        diffusivity = uniform((rows.samples,), *self.diffusivity_mm2_per_s, generator)[rows.sample]
        second = torch.rand(rows.samples, generator=generator, device=generator.device) < 0.5
        pairs, sample = crossing(rows), torch.arange(rows.samples, device=rows.signals.device)
        one, other = (
            bundle_attenuation(pairs[sample, number][rows.sample], rows.bvalues, rows.directions)
            for number in (second.long(), 1 - second.long())
        )
        water = torch.exp(-diffusivity[:, None] * rows.bvalues)
        share = shares(rows, one, other)
        share = torch.where(share >= LEAST_SHARE, share, torch.nan)
        return rows.signals + (fraction * share)[:, None] * rows.s0 * (water - one)

    def words(self) -> str:
        """Return the ranges in words."""
        return (
            f"{_percent(self.fraction)} of the fibres along one of two directions replaced by isotropic "
            f"diffusion of {_diffusivities(self.diffusivity_mm2_per_s)}"
        )


@dataclass(frozen=True)
class SignalChange(Diffusing):
    """All signals raised or lowered alike, as by another T2 or amount of water.

    Attributes:
        shapes: Where.
        factor: Of k or of 1 / k, weakest and strongest, above 1.
    """

    factor: tuple[float, float] = (1.15, 2.0)

    def __post_init__(self) -> None:
        check_range("factor", self.factor, 1.0, 100.0)

    def plant(self, host: Host, generator: Generator) -> Planted:
        """Return each sample with a change; see ``host.Anomaly``.

        Raises:
            SettingsError: Also where signals were divided by those at b = 0: nothing would change.
        """
        if host.gradients is not None and host.gradients.divided_by_b0:
            raise SettingsError(
                "anomalies s0: these signals were divided by those at b = 0, so that nothing would change",
                code="anomalies.kind",
            )
        return super().plant(host, generator)

    def change(self, rows: Rows, generator: Generator) -> Tensor:
        """Return signals times a factor."""
        factor = log_uniform((rows.samples,), *self.factor, generator)
        lower = torch.rand(rows.samples, generator=generator, device=generator.device) < 0.5
        factor = torch.where(lower, 1 / factor, factor)[rows.sample]
        return rows.signals * (1 + rows.profile * (factor - 1))[:, None]

    def words(self) -> str:
        """Return the range in words."""
        return f"all signals times or divided by {self.factor[0]:g} to {self.factor[1]:g}"


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


def _rows(host: Host, profile: Tensor, inside: Tensor) -> tuple[Rows, Tensor, int]:
    """Return the voxels that change, what their channels were divided by, and how many channels are added."""
    gradients = host.gradients
    assert gradients is not None
    device = host.images.device
    bvalues, directions = gradients.bvalues_s_per_mm2.to(device), gradients.directions.to(device)
    divisors = torch.ones_like(bvalues) if gradients.divisors is None else gradients.divisors.to(device)
    signals = host.images.movedim(1, -1)[inside].float() * divisors
    added = int(not (bvalues <= B0_S_PER_MM2).any())
    if added:  # Divided by S0, which is therefore 1.
        signals = torch.cat([torch.ones_like(signals[:, :1]), signals], 1)
        bvalues = torch.cat([torch.zeros_like(bvalues[:1]), bvalues])
        directions = torch.cat([torch.zeros_like(directions[:1]), directions])
    sample = inside.nonzero()[:, 0]
    rows = Rows(signals, profile[inside], sample, bvalues.float(), directions.float(), len(inside))
    return rows, divisors, added


def _percent(pair: tuple[float, float]) -> str:
    return f"{100 * pair[0]:g} to {100 * pair[1]:g} %"


def _diffusivities(pair: tuple[float, float]) -> str:
    return f"{1e3 * pair[0]:g} to {1e3 * pair[1]:g} x 10^-3 mm^2/s"


__all__ = [
    "AnisotropyLoss",
    "Diffusing",
    "Exchange",
    "FibreLoss",
    "Gradients",
    "Rows",
    "SignalChange",
    "bundle_attenuation",
    "crossing",
    "room",
    "shares",
    "shells",
    "without_means",
]
