"""Anomalies planted in normal images while training: confetti, and blobs like lesions.

``confetti`` is that of Ruff, "Deep One-Class Learning", 2021, section 3.1.2, with the constants of its
released code as shares of a side of 224 pixels: squares of sides between 8 and 54 pixels, turned by up to 45
degrees, some of a random colour darker than what is there, some darker by the whole range; at least one of
each kind; then blurred, and cut off at the image's smallest and largest values. Different from that code,
each square has a colour of its own (there, squares of one size share it), contrasts have ranges of their own,
and squares of windows are cubes, as many as on a slice.

``lesions`` is ours: one to three ellipsoids with soft, uneven borders, inside of what is not background, in
which each contrast is brighter or darker by half a standard deviation of the image to three.

All are made of ``(B, C, *space)`` images on their device; each image has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from mednovelty.nn.smoothing import Blur

Kind = Literal["confetti", "lesions"]

SIDE_PX = 224
"""What the sizes below are shares of."""
SQUARES_PX = (8, 54)
SQUARES = (1.8e-5 * SIDE_PX**2, 1.2e-5 * SIDE_PX**2)
"""Expected squares of random colours, and of the darkest; the code's probabilities a pixel, on one image."""
BLUR_PX, BLUR_SIGMAS = 5, 12 / 5
FAINT = 0.025
"""Of the range: where squares change an image by less on average, brighter ones are tried."""
MOST_LESIONS = 3
RADII = 0.04, 0.15
"""Of lesions, shares of the shortest side; at least one pixel."""
STRENGTH = 0.5, 3.0
SOFTNESS, UNEVENNESS = 0.15, 0.3


class Planted(NamedTuple):
    """Images with anomalies in them."""

    images: Tensor
    """``(B, C, *space)``"""
    where: Tensor
    """``(B, *space)`` bool, before any blurring."""
    profile: Tensor
    """``(B, *space)`` in 0 to 1, after it: images are as they were where it is 0."""


class Squares(NamedTuple):
    """Confetti before it is blurred."""

    noise: Tensor
    """``(B, C, *space)``, 0 outside of squares, else between -2 and 0: shares of an image's range."""
    where: Tensor
    """``(B, *space)`` bool"""
    counts: Tensor
    """``(B, 2)`` squares of random colours, and of the darkest."""


def planted(images: Tensor, kind: Kind, generator: Generator, background: float = 0.0) -> Planted:
    """Return images with an anomaly in each.

    Args:
        images: ``(B, C, *space)``, two or three axes of space.
        kind: See the head of this module.
        generator: On the device of the images; the same state gives the same anomalies.
        background: What images show outside of the scan; lesions are not put there.
    """
    return confetti(images, generator) if kind == "confetti" else lesions(images, generator, background)


def chance(labels: Tensor, share: float) -> float:
    """Return the probability of planting an anomaly in a sample that has none.

    Args:
        labels: ``(B,)`` of the batch; those below 0 are anomalies already and count.
        share: Of the batch, how many are to be anomalies.

    Examples:
        >>> chance(torch.zeros(8), 0.5), chance(torch.tensor([0, 1, 0, -1]), 0.5)
        (0.5, 0.3333333333333333)
        >>> chance(torch.tensor([0, -1, -1]), 0.5)
        0.0
    """
    there = int((labels < 0).sum()) / len(labels)
    return max(share - there, 0.0) / (1 - there) if there < 1 else 0.0


def confetti(images: Tensor, generator: Generator) -> Planted:
    """Return images with squares on them; arguments as of ``planted``."""
    squares = draw_squares(images, generator)
    side, axes = min(images.shape[2:]), images.dim() - 2
    low, high = (extreme(images.flatten(2), 2) for extreme in (torch.amin, torch.amax))
    low, high = _column(low, axes), _column(high, axes)
    blur = Blur(BLUR_PX * side / SIDE_PX, BLUR_SIGMAS)
    noise = blur(squares.noise.flatten(0, 1)).view_as(images) * (high - low)
    darker, brighter = (torch.clamp(images + change, low, high) for change in (noise, -noise))
    spread = (high - low).clamp_min(torch.finfo(images.dtype).tiny)
    moved = [((tried - images).abs() / spread).flatten(1).mean(1) for tried in (darker, brighter)]
    turned = (moved[0] < FAINT) & (moved[1] > moved[0])
    made = torch.where(_column(turned, axes + 1), brighter, darker)
    return Planted(made, squares.where, blur(squares.where.to(images.dtype)))


def draw_squares(images: Tensor, generator: Generator) -> Squares:
    """Return confetti for images, not yet blurred; arguments as of ``planted``."""
    space, device, n = images.shape[2:], images.device, len(images)
    noise, everywhere = torch.zeros_like(images), torch.zeros(n, *space, dtype=torch.bool, device=device)
    expected = torch.tensor(SQUARES, device=device).expand(n, 2)
    counts = torch.poisson(expected, generator=generator).clamp_min(1)
    smallest, largest = (max(px * min(space) / SIDE_PX, 1.0) for px in SQUARES_PX)
    for kind in range(2):
        layer = torch.zeros_like(images)
        for number in range(int(counts[:, kind].max())):
            colours = -_uniform((n, images.shape[1]), 0.0, 1.0, generator)
            half = _uniform((n, 1), smallest, largest, generator) / 2
            middles = (torch.rand(n, len(space), generator=generator, device=device)
                       * torch.tensor(space, device=device)).floor()  # fmt: skip
            offsets = _turned(_offsets(space, middles), generator)
            inside = (offsets.abs() <= half.view(n, 1, *[1] * len(space))).all(1)
            inside &= _column(number < counts[:, kind], len(space))
            colours = colours if kind == 0 else -torch.ones_like(colours)
            layer = torch.where(inside[:, None], _column(colours, len(space)), layer)
            everywhere |= inside
        noise += layer
    return Squares(noise, everywhere, counts)


def lesions(
    images: Tensor,
    generator: Generator,
    background: float = 0.0,
    tissue: Tensor | None = None,
    signs: Sequence[float] = (),
    radii: tuple[float, float] = RADII,
) -> Planted:
    """Return images with smooth blobs of another contrast; arguments as of ``planted``.

    Args:
        images: See there.
        generator: See there.
        background: See there.
        tissue: ``(B, *space)`` bool, where they may be; None: where images do not show the background.
        signs: For each channel, or for all, 1: brighter, -1: darker, 0: unchanged, or a share between; none:
            either way.
        radii: Smallest and largest, shares of the shortest side; at least one pixel.
    """
    n, channels, *space = images.shape
    ways = None if not signs else torch.tensor(signs, device=images.device).float().expand(n, channels)
    tissue = (images != background).any(1) if tissue is None else tissue.clone()
    tissue |= ~_column(tissue.flatten(1).any(1), len(space))  # Of an empty image all is as good.
    spread = _spread(images, tissue)
    middles = torch.multinomial(
        tissue.flatten(1).float(), MOST_LESIONS, replacement=True, generator=generator
    )
    counts = 1 + (torch.rand(n, generator=generator, device=images.device) * MOST_LESIONS).floor()
    made, where, share = images.clone(), torch.zeros_like(tissue), torch.zeros_like(images[:, 0])
    for number in range(MOST_LESIONS):
        change = spread * _uniform((n, channels), *STRENGTH, generator)
        change = change * (_signs((n, channels), generator) if ways is None else ways)
        profile = _ellipsoid(space, _places(middles[:, number], space), radii, generator)
        profile = profile * (tissue & _column(number < counts, len(space)))
        made += profile[:, None] * _column(change, len(space))
        where |= profile > 0.5
        share = torch.maximum(share, profile)
    return Planted(made, where, share)


def _ellipsoid(
    space: Sequence[int], middles: Tensor, shares: tuple[float, float], generator: Generator
) -> Tensor:
    """Return ``(B, *space)``: near 1 in an ellipsoid with an uneven border, .5 on it, near 0 outside."""
    n, axes, side = len(middles), len(space), min(space)
    smallest, largest = (max(share * side, 1.0) for share in shares)
    radii = _uniform((n, axes), smallest, largest, generator)
    offsets = _turned(_offsets(space, middles), generator) / _column(radii, axes)
    bumps = Blur(largest, 2.0)(torch.randn(n, *space, generator=generator, device=middles.device))
    bumps = bumps / bumps.flatten(1).std(1).view(n, *[1] * axes).clamp_min(1e-12)
    distances = torch.linalg.vector_norm(offsets, dim=1) * (UNEVENNESS * bumps).exp()
    return torch.sigmoid((1 - distances) / SOFTNESS)


def _offsets(space: Sequence[int], middles: Tensor) -> Tensor:
    """Return ``(B, axes, *space)``: each pixel's place from a ``(B, axes)`` middle."""
    places = torch.meshgrid(*(torch.arange(side, device=middles.device) for side in space), indexing="ij")
    return torch.stack(places) - _column(middles, len(space))


def _turned(offsets: Tensor, generator: Generator) -> Tensor:
    """Return ``(B, axes, *space)`` offsets turned by up to 45 degrees in the plane of each two axes."""
    n, axes = offsets.shape[:2]
    parts = list(offsets.float().unbind(1))
    for one, two in combinations(range(axes), 2):
        angle = _column(_uniform((n,), -torch.pi / 4, torch.pi / 4, generator), axes)
        cosine, sine = angle.cos(), angle.sin()
        parts[one], parts[two] = (
            cosine * parts[one] - sine * parts[two],
            sine * parts[one] + cosine * parts[two],
        )
    return torch.stack(parts, 1)


def _spread(images: Tensor, tissue: Tensor) -> Tensor:
    """Return ``(B, C)`` standard deviations of what is not background."""
    weights = (tissue / _column(tissue.flatten(1).sum(1), tissue.dim() - 1))[:, None].flatten(2)
    values = images.flatten(2)
    mean = (weights * values).sum(2, keepdim=True)
    return (weights * (values - mean).square()).sum(2).sqrt()


def _places(numbers: Tensor, space: Sequence[int]) -> Tensor:
    """Return ``(B, axes)`` places of pixels by their ``(B,)`` numbers in row-major order."""
    return torch.stack(torch.unravel_index(numbers, tuple(space)), 1)


def _uniform(shape: Sequence[int], low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator, device=generator.device)


def _signs(shape: Sequence[int], generator: Generator) -> Tensor:
    return 1.0 - 2.0 * (torch.rand(*shape, generator=generator, device=generator.device) < 0.5)


def _column(values: Tensor, axes: int) -> Tensor:
    return values.reshape(*values.shape, *[1] * axes)


__all__ = ["Kind", "Planted", "Squares", "chance", "confetti", "draw_squares", "lesions", "planted"]
