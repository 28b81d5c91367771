"""Where an anomaly is: soft profiles whose sizes are in mm.

=========== =====================================================================================
``field``    the highest parts of a smooth random field in the tissue: scattered, uneven islands
``ellipsoid`` ellipsoids of random axes
``blob``     ellipsoids with uneven outlines
``border``   the same, around borders of tissues: cortex, ventricles
``outline``  outlines of real lesions, turned, scaled and warped at random
=========== =====================================================================================

Each makes a distance to its outline in mm, above 0 inside; the profile is 0.5 there and goes from 0 to 1 over
a soft edge. Sizes are diameters of the ball (in slices: the circle) of the same volume: of ``field`` that of
the largest island, beside which there are smaller ones; of ``outline`` that of the whole lesion, through
which slices show a random section, at most as large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from mednovelty.anomalies.geometry import (
    columns,
    log_uniform,
    offsets_mm,
    one_voxel,
    rotations,
    smooth_fields,
    soft,
    turned,
    uniform,
)
from mednovelty.anomalies.host import Host, check_range, moments
from mednovelty.anomalies.outlines import distances_mm
from mednovelty.errors import SettingsError

Kind = Literal["field", "ellipsoid", "blob", "border", "outline"]
WORDS = {
    "field": "islands of a smooth random field, the largest of that size",
    "ellipsoid": "ellipsoids",
    "blob": "uneven blobs",
    "border": "uneven blobs at borders of tissues",
    "outline": "outlines of real lesions, of which slices show sections of at most that size",
}
UNEVENNESS = 0.25
"""Of blobs: standard deviation of the logarithm of the radius along the outline."""
ELONGATION = 1.6
"""Radii of ellipsoids differ from their mean by up to this factor."""
LARGEST_SHARE = 0.3
"""Of the tissue, that islands of a field fill; they are fewer or smaller in small brains."""
BUMP_SIGMA = 0.2
"""Kernel of the field that makes outlines uneven, as a share of the diameter."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """Settings of where anomalies are.

    Attributes:
        kinds: See the head of this module; each sample has one of them, all equally often.
        diameter_mm: Smallest and largest; as many between 4 and 8 as between 20 and 40. Of ``field`` of the
            largest island; of ``outline``, of the sizes that scaled lesions can have, of the whole lesion.
        edge_mm: Narrowest and widest soft edge.
        most: At most so many in a sample, at least one.
    """

    kinds: tuple[Kind, ...] = ("field", "blob", "border")
    diameter_mm: tuple[float, float] = (4.0, 40.0)
    edge_mm: tuple[float, float] = (1.0, 4.0)
    most: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", (self.kinds,) if isinstance(self.kinds, str) else tuple(self.kinds))
        unknown = [kind for kind in self.kinds if kind not in get_args(Kind)]
        if unknown or not self.kinds:
            what = f"{unknown[0]!r} is none of them" if unknown else "got none"
            raise SettingsError(f"shapes: kinds must be of {', '.join(get_args(Kind))}; {what}")
        check_range("shapes: diameter_mm", self.diameter_mm, 0.1, 500)
        check_range("shapes: edge_mm", self.edge_mm, 1e-3, 100)
        if not 1 <= self.most <= 100:
            raise SettingsError(f"shapes: most must be between 1 and 100, got {self.most}")

    def draw(self, host: Host, generator: Generator) -> Tensor:
        """Return ``(B, *space)`` profiles, 0 outside the mask; of voxels, which have no axes, the mask.

        Raises:
            SettingsError: Real outlines are asked for, and the host has none, or none of these sizes.
        """
        if "outline" in self.kinds and host.outlines is None:
            raise SettingsError(
                "shapes: kinds asks for outlines of real lesions, and there are none: give "
                "--lesion-shapes, a folder of lesion masks", code="anomalies.outlines",
            )  # fmt: skip
        if not host.space:
            return host.mask.float()
        n = len(host.images)
        edges = log_uniform((n,), *self.edge_mm, generator)
        counts = 1 + (torch.rand(n, generator=generator, device=generator.device) * self.most).long()
        counts = counts.clamp_max(self.most)
        which = torch.randint(len(self.kinds), (n,), generator=generator, device=generator.device)
        profile = torch.zeros(host.mask.shape, device=host.images.device)
        for number, kind in enumerate(self.kinds):
            chosen = (which == number).nonzero()[:, 0]
            if len(chosen):
                distance = self._distance(kind, host.take(chosen), counts[chosen], generator)
                profile[chosen] = soft(distance, edges[chosen])
        return profile * host.mask

    def describe(self, *, edges: bool = True) -> str:
        """Return them in words; without ``edges`` nothing of how soft these are."""
        low, high = self.diameter_mm
        kinds = [WORDS[kind] for kind in self.kinds]
        listed = kinds[0] if len(kinds) == 1 else f"{'; '.join(kinds[:-1])}; or {kinds[-1]}"
        words = f"1 to {self.most} shapes of {low:g} to {high:g} mm ({listed})"
        edge = f" with soft edges of {self.edge_mm[0]:g} to {self.edge_mm[1]:g} mm"
        return words + edge * edges

    def _distance(self, kind: Kind, host: Host, counts: Tensor, generator: Generator) -> Tensor:
        sizes_mm = self.diameter_mm
        if kind == "outline":
            assert host.outlines is not None
            sizes_mm = host.outlines.attainable_mm(sizes_mm)
        diameters = log_uniform((len(counts), self.most), *sizes_mm, generator)
        if kind == "field":
            return _islands(host, diameters[:, 0], counts, generator)
        distance = torch.full(host.mask.shape, -torch.inf, device=host.images.device)
        weights = tissue_borders(host) if kind == "border" else host.mask.float()
        for number in range(int(counts.max())):
            middles = one_voxel(weights, generator)
            if kind == "outline":
                assert host.outlines is not None
                own = distances_mm(host.outlines, host, middles, diameters[:, number], generator)
            else:
                own = _ellipsoid(host, middles, diameters[:, number], generator, even=kind == "ellipsoid")
            there = columns(number < counts, len(host.space))
            distance = torch.where(there, torch.maximum(distance, own), distance)
        return distance


def ball(diameter_mm: Tensor, axes: int) -> Tensor:
    """Return the volume of balls, mm^3, or with two axes the area of circles, mm^2."""
    return math.pi / 4 * diameter_mm**2 if axes == 2 else math.pi / 6 * diameter_mm**3


def tissue_borders(host: Host) -> Tensor:
    """Return ``(B, *space)``: how steep images are between voxels of the mask, squared; 0 outside it.

    Contrasts count alike, by their standard deviations. Where all is flat the mask.
    """
    _, spread = moments(host)
    images = host.images.float() / spread.clamp_min(1e-12)
    steepness = torch.zeros(host.mask.shape, device=host.images.device)
    for axis in range(len(host.space)):
        step = images.diff(dim=axis + 2) / columns(host.spacings_mm[:, axis], len(host.space) + 1)
        both = host.mask.narrow(axis + 1, 1, host.space[axis] - 1)
        both = both & host.mask.narrow(axis + 1, 0, host.space[axis] - 1)
        squared = step.square().sum(1) * both
        steepness.narrow(axis + 1, 0, host.space[axis] - 1).add_(squared)
        steepness.narrow(axis + 1, 1, host.space[axis] - 1).add_(squared)
    flat = ~steepness.flatten(1).any(1)
    return torch.where(columns(flat, len(host.space)), host.mask.float(), steepness * host.mask)


def _islands(host: Host, diameters_mm: Tensor, counts: Tensor, generator: Generator) -> Tensor:
    """Return distances to the outlines of the highest parts of a field, as large as some balls together."""
    axes, tissue = len(host.space), host.mask.flatten(1).sum(1)
    voxels = counts * ball(diameters_mm, axes) / host.spacings_mm.prod(1)
    voxels = torch.minimum(voxels, LARGEST_SHARE * tissue).round().long().clamp_min(1)
    # Above a high level u, islands of a field of kernel sigma have diameters of about 4 sigma / u: their
    # volume over their number, which is the field's Euler characteristic (Adler 1981).
    level = math.sqrt(2) * torch.erfinv(1 - 2 * voxels / tissue.clamp_min(1)).clamp(0.5, 4)
    sigma = diameters_mm * level / 4
    field = smooth_fields(host.space, host.spacings_mm, sigma, generator)
    ranked = torch.where(host.mask, field, -torch.inf).flatten(1).sort(1, descending=True).values
    threshold = ranked.gather(1, voxels.clamp_max(ranked.shape[1] - 1)[:, None])[:, 0]
    # The field's slope is known beforehand: so its excess is a distance, on average.
    slope_per_mm = 1 / (math.sqrt(2) * sigma)
    threshold = torch.where(tissue > 0, threshold, torch.inf)
    return (field - columns(threshold, axes)) / columns(slope_per_mm, axes)


def _ellipsoid(
    host: Host, middles: Tensor, diameters_mm: Tensor, generator: Generator, *, even: bool
) -> Tensor:
    """Return about the distance to the outline of one ellipsoid a sample."""
    axes, n = len(host.space), len(middles)
    stretch = uniform((n, axes), -math.log(ELONGATION), math.log(ELONGATION), generator)
    radii = diameters_mm[:, None] / 2 * (stretch - stretch.mean(1, keepdim=True)).exp()
    offsets = turned(offsets_mm(host.space, host.spacings_mm, middles), rotations(n, axes, generator))
    reach = torch.linalg.vector_norm(offsets / columns(radii, axes), dim=1)
    if not even:
        bumps = smooth_fields(host.space, host.spacings_mm, BUMP_SIGMA * diameters_mm, generator)
        # The second term keeps the mean volume, which the larger bumps would raise.
        reach = reach * (UNEVENNESS * bumps + axes * UNEVENNESS**2 / 2).exp()
    return (1 - reach) * columns(diameters_mm / 2, axes)


__all__ = ["WORDS", "Kind", "Shapes", "ball", "tissue_borders"]
