"""Families of anomalies of diffusion samples, voxels and volumes, by the physics of their gradients.

With S(b, g) a voxel's signals as measured, up to a factor of the voxel, S0 their mean at b = 0, p the profile
and f, D, k drawn for each sample:

``exchange``         (1 - f p) S + f p k S0 exp(-b D): isotropic water of diffusivity D in place of tissue
``free_water``       (1 - f p) S + f p k S0 exp(-b D): free water, with its longer T2, in place of tissue
``anisotropy_loss``  S + f p (mean of the shell - S): nothing but directions is lost
``fibre_loss``       S + f p v S0 (exp(-b D) - A_u): one bundle of fibres becomes isotropic water
``diffusivity``      S0 (S / S0)^(1 + p (c - 1)) (1 + p (k - 1)): water moves c times as fast, every way
``s0``               S (1 + p (k - 1)): more or less water, or another T2; attenuations stay

How bundles, their shares v and shells are found is in ``bundles``. S is without its noise, which is given
back afterwards (``noise``): samples with an anomaly are as noisy as before. Of shells with fewer than 12
directions noise is not known, and what is taken away takes its own with it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from mednovelty.anomalies.bundles import Rows, bundle_attenuation, crossing, shares, without_means
from mednovelty.anomalies.geometry import log_uniform, uniform
from mednovelty.anomalies.host import Host, Planted, Prior, check_range, planted, refuse_kind
from mednovelty.anomalies.noise import given_back, split_noise
from mednovelty.anomalies.shapes import Shapes
from mednovelty.errors import SettingsError
from mednovelty.nn.planted_diffusion import B0_S_PER_MM2, DIFFUSIVITIES_MM2_PER_S, FRACTIONS, exchanged

LEAST_SHARE = 0.1
"""Of a voxel's signal: a bundle with less of it is none."""

LEAST_ATTENUATION = 1e-3
"""Signals of the fit are at least that share of those at b = 0, to have a power."""

SHAPES = Shapes(diameter_mm=(3.0, 40.0), edge_mm=(1.0, 6.0), most=6)
"""Small ones, too: a detector that has seen none below 6 mm finds none."""


@dataclass(frozen=True)
class Diffusing:
    """What the families of this module share: one shape a sample; of voxels all of each.

    Attributes:
        shapes: Where.
    """

    shapes: Shapes = field(default_factory=lambda: SHAPES)

    needs: ClassVar[Literal["images", "diffusion"]] = "diffusion"

    def plant(self, host: Host, generator: Generator) -> Planted:
        """Return each sample with an anomaly of its own; see ``host.Anomaly``."""
        refuse_kind(self, host)
        profile = self.shapes.draw(host, generator)
        inside = profile > 0
        rows, divisors, added = _rows(host, profile, inside)
        smooth, noise, kept = split_noise(rows)
        changed, scale = self.change(smooth, generator)
        changed = changed + given_back(noise, kept, scale)
        assert host.gradients is not None
        if host.gradients.divided_by_b0:
            changed = changed / rows._replace(signals=changed).s0
        there = changed.isfinite().all(1)
        profile = profile.masked_scatter(inside, torch.where(there, rows.profile, 0))
        images = host.images.movedim(1, -1).contiguous()
        images = images.masked_scatter(inside[..., None], (changed[:, added:] / divisors).to(images.dtype))
        return planted(host, images.movedim(-1, 1), profile)

    def change(self, rows: Rows, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return ``(n, C)`` changed signals, and ``(n, C)`` or ``(n, 1)`` factors of the tissue's own.

        Signals are NaN in voxels that cannot change in this way, which stay.
        """
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
        relative_s0: k, signal of the water at b = 0 in that of the tissue, least and most: its T2 is another.
    """

    fraction: tuple[float, float] = FRACTIONS
    diffusivity_mm2_per_s: tuple[float, float] = DIFFUSIVITIES_MM2_PER_S
    relative_s0: tuple[float, float] = (0.8, 1.6)

    def __post_init__(self) -> None:
        check_range("fraction", self.fraction, 0.001, 1.0)
        check_range("diffusivity_mm2_per_s", self.diffusivity_mm2_per_s, 0.0, 0.01)
        check_range("relative_s0", self.relative_s0, 0.1, 10.0)

    def change(self, rows: Rows, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return signals after the exchange."""
        fraction = _drawn(rows, self.fraction, generator) * rows.profile
        diffusivity = _drawn(rows, self.diffusivity_mm2_per_s, generator)
        ratio = _drawn(rows, self.relative_s0, generator)
        more = (ratio[:, None] - 1) * rows.s0 * torch.exp(-diffusivity[:, None] * rows.bvalues)
        changed = exchanged(rows.signals, rows.bvalues, fraction, diffusivity)
        kept = _by_weighting(rows, 1 + fraction * (ratio - 1), 1 - fraction)
        return changed + fraction[:, None] * more, kept

    def words(self) -> str:
        """Return the ranges in words."""
        return (
            f"{_percent(self.fraction)} of the signal exchanged for isotropic diffusion of "
            f"{_diffusivities(self.diffusivity_mm2_per_s)} with {self.relative_s0[0]:g} to "
            f"{self.relative_s0[1]:g} times its signal at b = 0"
        )


@dataclass(frozen=True)
class FreeWater(Exchange):
    """A share of the tissue replaced by free water, brighter at b = 0 than what it replaces: as in oedema.

    Attributes:
        shapes: Where; ellipsoids, so that it differs from ``exchange`` in its outlines, too.
        fraction: f, least and most.
        diffusivity_mm2_per_s: D of water at body temperature.
        relative_s0: k, see ``Exchange``.
    """

    shapes: Shapes = field(
        default_factory=lambda: Shapes(("ellipsoid",), diameter_mm=(3.0, 30.0), edge_mm=(1.0, 4.0))
    )
    fraction: tuple[float, float] = (0.2, 0.9)
    diffusivity_mm2_per_s: tuple[float, float] = (2.8e-3, 3.2e-3)
    relative_s0: tuple[float, float] = (1.0, 2.0)


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

    def change(self, rows: Rows, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return signals with less anisotropy; those at b = 0 and the means of shells stay."""
        fraction = _drawn(rows, self.fraction, generator) * rows.profile
        changed = rows.signals - fraction[:, None] * without_means(rows.signals, rows.bvalues)
        return changed, _by_weighting(rows, torch.ones_like(fraction), 1 - fraction)

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

    def change(self, rows: Rows, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return signals without a part of the fibres along one direction."""
        fraction = _drawn(rows, self.fraction, generator) * rows.profile
        diffusivity = _drawn(rows, self.diffusivity_mm2_per_s, generator)
        second = torch.rand(rows.samples, generator=generator, device=generator.device) < 0.5
        pairs, sample = crossing(rows), torch.arange(rows.samples, device=rows.signals.device)
        one, other = (
            bundle_attenuation(pairs[sample, number][rows.sample], rows.bvalues, rows.directions)
            for number in (second.long(), 1 - second.long())
        )
        water = torch.exp(-diffusivity[:, None] * rows.bvalues)
        share = shares(rows, one, other)
        share = torch.where(share >= LEAST_SHARE, share, torch.nan)
        changed = rows.signals + (fraction * share)[:, None] * rows.s0 * (water - one)
        return changed, torch.ones_like(fraction)[:, None]

    def words(self) -> str:
        """Return the ranges in words."""
        return (
            f"{_percent(self.fraction)} of the fibres along one of two directions replaced by isotropic "
            f"diffusion of {_diffusivities(self.diffusivity_mm2_per_s)}"
        )


@dataclass(frozen=True)
class DiffusivityChange(Diffusing):
    """Water that moves faster or slower in every direction alike, as where cells are fewer or swollen.

    No compartment is exchanged: what was anisotropic stays so, and its attenuation is raised to a power.

    Attributes:
        shapes: Where.
        factor: Of c or of 1 / c, weakest and strongest, above 1.
        way: Which of the two, ``faster`` (c) or ``slower`` (1 / c); ``either``: each half of the samples.
        relative_s0: k, signal at b = 0 in that of the tissue, least and most: its T2 is another.
    """

    factor: tuple[float, float] = (1.15, 2.0)
    way: Literal["either", "faster", "slower"] = "either"
    relative_s0: tuple[float, float] = (0.8, 1.6)

    def __post_init__(self) -> None:
        check_range("factor", self.factor, 1.0, 100.0)
        check_range("relative_s0", self.relative_s0, 0.1, 10.0)
        if self.way not in ("either", "faster", "slower"):
            raise SettingsError(f"way={self.way}: must be either, faster or slower")

    def change(self, rows: Rows, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return signals of faster or slower diffusion; those without a signal at b = 0 cannot change."""
        power = _either(rows, self.factor, generator, self.way)
        power = (1 + rows.profile * (power - 1))[:, None]
        brighter = 1 + rows.profile * (_drawn(rows, self.relative_s0, generator) - 1)
        s0 = torch.where(rows.s0 > 0, rows.s0, torch.nan)
        attenuation = (rows.signals / s0).clamp_min(LEAST_ATTENUATION)
        weighted = rows.bvalues > B0_S_PER_MM2
        changed = torch.where(weighted, s0 * attenuation**power, rows.signals) * brighter[:, None]
        slope = torch.where(weighted, power * attenuation ** (power - 1), 1.0)
        return changed, slope * brighter[:, None]

    def words(self) -> str:
        """Return the ranges in words."""
        low, high = self.factor
        told = {"either": "times or divided by", "faster": "times", "slower": "divided by"}[self.way]
        return (
            f"diffusivities of all directions {told} {low:g} to {high:g}, with {self.relative_s0[0]:g} to "
            f"{self.relative_s0[1]:g} times the signal at b = 0"
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

    def change(self, rows: Rows, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return signals times a factor."""
        scale = 1 + rows.profile * (_either(rows, self.factor, generator) - 1)
        return rows.signals * scale[:, None], scale[:, None]

    def words(self) -> str:
        """Return the range in words."""
        return f"all signals times or divided by {self.factor[0]:g} to {self.factor[1]:g}"


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


def _drawn(rows: Rows, between: tuple[float, float], generator: Generator) -> Tensor:
    """Return ``(n,)``: a number of each sample's own, for each of its voxels."""
    return uniform((rows.samples,), *between, generator)[rows.sample]


def _either(rows: Rows, between: tuple[float, float], generator: Generator, way: str = "either") -> Tensor:
    """Return ``(n,)``: a factor of each sample's own, or one divided by it, for each of its voxels."""
    factor = log_uniform((rows.samples,), *between, generator)
    lower = torch.rand(rows.samples, generator=generator, device=generator.device) < 0.5
    if way != "either":
        lower = torch.full_like(lower, way == "slower")
    return torch.where(lower, 1 / factor, factor)[rows.sample]


def _by_weighting(rows: Rows, at_zero: Tensor, weighted: Tensor) -> Tensor:
    """Return ``(n, C)``: one ``(n,)`` factor for signals at b = 0, another for those of shells."""
    return torch.where(rows.bvalues > B0_S_PER_MM2, weighted[:, None], at_zero[:, None])


def _percent(pair: tuple[float, float]) -> str:
    return f"{100 * pair[0]:g} to {100 * pair[1]:g} %"


def _diffusivities(pair: tuple[float, float]) -> str:
    return f"{1e3 * pair[0]:g} to {1e3 * pair[1]:g} x 10^-3 mm^2/s"


__all__ = [
    "AnisotropyLoss",
    "Diffusing",
    "DiffusivityChange",
    "Exchange",
    "FibreLoss",
    "FreeWater",
    "SignalChange",
]
