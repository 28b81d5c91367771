"""Mass effect: tissue pushed aside, drawn together or shifted, smoothly, within a ball.

An image is read at other places: of x, as an offset from the ball's middle in mm, with r = |x| / R below 1
and w(r) = (1 - r^2)^2, which is smooth at the rim,

    expansion, shrinkage    x (1 - a w(r)),  a above 0 and below 0
    shift                   x - d w(r),      |d| = a R / 2

r (1 - a w) rises as long as -1.25 < a < 1, and a shift folds nothing up to |d| = 0.65 R: tissue is neither
doubled nor torn. The profile is 2 w, at most 1; so the truth is where w is above a quarter, r below 0.71.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Generator, Tensor

from mednovelty.anomalies.geometry import columns, log_uniform, offsets_mm, one_voxel, sampled, uniform
from mednovelty.anomalies.host import Host, Planted, Prior, check_range, planted, refuse_kind
from mednovelty.errors import SettingsError

Way = Literal["expansion", "shrinkage", "shift"]
LARGEST = 0.9
FAINTEST_TISSUE = 0.1
"""Where less than this of what would be read is tissue, the image stays."""


@dataclass(frozen=True)
class Deformation:
    """Tissue pushed aside, drawn together or shifted, as around a mass; no intensity is new.

    Attributes:
        diameter_mm: Of the ball.
        ways: What can happen, all equally often.
        strength: a, weakest and strongest; at most 0.9.
    """

    diameter_mm: tuple[float, float] = (20.0, 60.0)
    ways: tuple[Way, ...] = ("expansion", "shrinkage", "shift")
    strength: tuple[float, float] = (0.4, 0.9)

    needs: ClassVar[Literal["images", "diffusion"]] = "images"

    def __post_init__(self) -> None:
        check_range("diameter_mm", self.diameter_mm, 0.1, 500)
        check_range("strength", self.strength, 0.01, LARGEST)
        object.__setattr__(self, "ways", tuple(self.ways))
        if not self.ways or any(way not in get_args(Way) for way in self.ways):
            raise SettingsError(f"ways must be of {', '.join(get_args(Way))}, got {list(self.ways)}")

    def plant(self, host: Host, generator: Generator) -> Planted:
        """Return each sample with one deformation; see ``host.Anomaly``."""
        refuse_kind(self, host)
        n, axes = len(host.images), len(host.space)
        radii = log_uniform((n,), *self.diameter_mm, generator) / 2
        middles = one_voxel(host.mask.float(), generator)
        ways = torch.randint(len(self.ways), (n,), generator=generator, device=generator.device)
        strength = uniform((n,), *self.strength, generator)
        aim = torch.randn(n, axes, generator=generator, device=generator.device)
        aim = aim / torch.linalg.vector_norm(aim, dim=1, keepdim=True).clamp_min(1e-12)
        offsets = offsets_mm(host.space, host.spacings_mm, middles)
        reach = torch.linalg.vector_norm(offsets, dim=1) / columns(radii, axes)
        weight = (1 - reach.square()).clamp_min(0).square()
        turns = torch.tensor([{"expansion": 1.0, "shrinkage": -1.0, "shift": 0.0}[w] for w in self.ways])
        radial = columns(turns.to(ways.device)[ways] * strength, axes + 1)
        shifts = columns((turns.to(ways.device)[ways] == 0) * strength * radii / 2, 1) * aim
        moved = offsets * radial + columns(shifts, axes)
        return planted(host, pulled(host, -moved * weight[:, None]), 2 * weight)

    def describe(self) -> Prior:
        """Return what is planted, in words and numbers."""
        (low, high), (weak, strong) = self.diameter_mm, self.strength
        words = (
            f"{' or '.join(self.ways)} of tissue in balls of {low:g} to {high:g} mm, by {weak:g} to "
            f"{strong:g} of what would fold it"
        )
        return Prior(words, asdict(self))


def pulled(host: Host, displacement_mm: Tensor) -> Tensor:
    """Return ``(B, C, *space)`` images that show at each voxel what lay a displacement away.

    Only tissue is read: what lies beyond the mask is not drawn in.

    Args:
        host: The samples.
        displacement_mm: ``(B, axes, *space)``.
    """
    axes = len(host.space)
    at_home = offsets_mm(host.space, torch.ones_like(host.spacings_mm), torch.zeros_like(host.spacings_mm))
    places = at_home + displacement_mm / columns(host.spacings_mm, axes)
    tissue = host.mask[:, None].float()
    read = sampled(torch.cat([host.images.float() * tissue, tissue], 1), places)
    amount = read[:, -1:]
    return torch.where(amount > FAINTEST_TISSUE, read[:, :-1] / amount.clamp_min(1e-6), host.images.float())


__all__ = ["Deformation", "pulled"]
