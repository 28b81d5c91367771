"""Tissue of another sample of the batch, blended in.

Interpolation (foreign patches, Tan et al. 2020, "Detecting outliers with foreign patch interpolation"), with
y the other sample and a the share of it:

    x + a p (y - x)

Poisson blending (Perez et al. 2003; for anomalies Schlueter et al. 2022, "Natural synthetic anomalies"):
inside the region the image has the slopes of y, on its border the values of x, so that no edge tells where:

    f = y + h,  Laplace(h) = 0 inside,  h = x - y on the border

Tissue comes from the same place of the other sample. Of a batch of one, from the sample itself, half an image
away. There must be tissue in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from mednovelty.anomalies.geometry import columns, uniform
from mednovelty.anomalies.host import Host, Planted, Prior, check_range, planted, refuse_kind
from mednovelty.anomalies.shapes import Shapes

TOLERANCE = 1e-5
"""Poisson blending ends where the squared residual is so small a share of what it was at first."""
MOST_STEPS = 500


@dataclass(frozen=True)
class Foreign:
    """Regions of another scan, blended in by interpolation.

    Attributes:
        shapes: Where.
        share: Least and most of the other scan.
    """

    shapes: Shapes = field(default_factory=Shapes)
    share: tuple[float, float] = (0.5, 1.0)

    needs: ClassVar[Literal["images", "diffusion"]] = "images"

    def __post_init__(self) -> None:
        check_range("share", self.share, 0.01, 1.0)

    def plant(self, host: Host, generator: Generator) -> Planted:
        """Return each sample with a region of another; see ``host.Anomaly``."""
        refuse_kind(self, host)
        donors, tissue = drawn_donors(host, generator)
        profile = self.shapes.draw(host, generator) * tissue
        share = columns(uniform((len(donors),), *self.share, generator), len(host.space) + 1)
        return planted(host, host.images + share * profile[:, None] * (donors - host.images), profile)

    def describe(self) -> Prior:
        """Return what is planted, in words and numbers."""
        low, high = (100 * share for share in self.share)
        words = f"{self.shapes.describe()}: {low:g} to {high:g} % replaced by another scan at the same place"
        return Prior(words, asdict(self))


@dataclass(frozen=True)
class PoissonForeign:
    """Regions of another scan without an edge, by Poisson blending.

    Attributes:
        shapes: Where; their soft edges are not used.
    """

    shapes: Shapes = field(default_factory=Shapes)

    needs: ClassVar[Literal["images", "diffusion"]] = "images"

    def plant(self, host: Host, generator: Generator) -> Planted:
        """Return each sample with a region of another; see ``host.Anomaly``."""
        refuse_kind(self, host)
        donors, tissue = drawn_donors(host, generator)
        both = tissue & host.mask
        region = (self.shapes.draw(host, generator) > 0.5) & both
        made = blended(host.images.float(), donors.float(), region, both, host.spacings_mm)
        return planted(host, made, region.float())

    def describe(self) -> Prior:
        """Return what is planted, in words and numbers."""
        where = self.shapes.describe(edges=False)
        words = f"{where}: another scan at the same place, Poisson-blended without an edge"
        ranges = asdict(self)
        del ranges["shapes"]["edge_mm"]
        return Prior(words, ranges)


def drawn_donors(host: Host, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return another sample for each, ``(B, C, *space)``, and where it has tissue, ``(B, *space)``."""
    donors = host.images if host.donors is None else host.donors
    masks = host.mask if host.donor_mask is None else host.donor_mask
    own = torch.arange(len(host.images), device=donors.device) if host.own is None else host.own
    if len(donors) > 1:
        # A shift by 1 to N - 1 gives everyone another one.
        shift = torch.randint(1, len(donors), (len(own),), generator=generator, device=generator.device)
        chosen = (own + shift) % len(donors)
        return donors[chosen], masks[chosen]
    half, axes = [side // 2 for side in host.space], tuple(range(1, len(host.space) + 1))
    return torch.roll(donors, half, [axis + 1 for axis in axes]), torch.roll(masks, half, axes)


def blended(images: Tensor, donors: Tensor, region: Tensor, tissue: Tensor, spacing_mm: Tensor) -> Tensor:
    """Return images Poisson-blended with others.

    Args:
        images: ``(B, C, *space)``.
        donors: ``(B, C, *space)``.
        region: ``(B, *space)`` bool, of the donors.
        tissue: ``(B, *space)`` bool: outside it neither image says anything, so no border is kept there.
        spacing_mm: ``(B, axes)``.
    """
    inside, known = region[:, None].to(images.dtype), tissue[:, None].to(images.dtype)
    weights = [columns(spacing_mm[:, axis].square().reciprocal(), images.dim() - 1)
               for axis in range(images.dim() - 2)]  # fmt: skip
    degree = _neighbours(known, weights) * inside

    def laplacian(h: Tensor) -> Tensor:
        return degree * h - inside * _neighbours(inside * h, weights)

    border = _neighbours((known - inside).clamp_min(0) * (images - donors), weights) * inside
    h = _conjugate_gradients(laplacian, border)
    return torch.where(region[:, None], donors + h, images)


def _conjugate_gradients(laplacian: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
    """Return h with ``laplacian(h) = right``, of each sample and channel."""

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return columns((a * b).flatten(2).sum(2), a.dim() - 2)

    h, residual = torch.zeros_like(right), right
    direction, size = residual, dot(residual, residual)
    least = TOLERANCE**2 * size
    for _ in range(MOST_STEPS):
        if bool((size <= least).all()):
            break
        pushed = laplacian(direction)
        step = torch.where(size > least, size / dot(direction, pushed).clamp_min(1e-30), 0)
        h = h + step * direction
        residual = residual - step * pushed
        new = torch.where(size > least, dot(residual, residual), size)
        direction = residual + new / size.clamp_min(1e-30) * direction
        size = new
    return h


def _neighbours(values: Tensor, weights: list[Tensor]) -> Tensor:
    """Return the weighted sum of each voxel's neighbours; beyond the border of the image there are none."""
    total = torch.zeros_like(values)
    for axis, weight in enumerate(weights, start=2):
        length = values.shape[axis] - 1
        low, high = values.narrow(axis, 0, length) * weight, values.narrow(axis, 1, length) * weight
        total.narrow(axis, 1, length).add_(low)
        total.narrow(axis, 0, length).add_(high)
    return total


__all__ = ["Foreign", "PoissonForeign", "blended", "drawn_donors"]
