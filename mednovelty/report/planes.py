"""Mosaics for pages: axial, coronal and sagittal slices in a row each, drawn by numpy and Pillow.

A page holds dozens of slices; drawn as pixels, with a palette, they take a tenth of the time and of the bytes
that a drawing library would. Radiological: right is on the left, anterior or superior is up.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.report.cuts import EDGES, PLANES

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS = 7
"""Slices of each plane."""
TILE_PIXELS = 148
"""Width of an axial slice."""
OUTLINE = (86, 180, 233)
"""Of masks and clusters: a light blue that any kind of sight tells from greys and from ``colours``."""
STRIP_PIXELS = 18
"""Below each row of slices, for what is said of them: on bright tissue it could not be read."""
_MARGIN_VOXELS = 2
_PALETTE = 96
PNG_LEVEL = 6
"""Of zlib's 1 to 9; 9 takes three times as long for files a fiftieth smaller."""


@dataclass(frozen=True, slots=True, eq=False)
class Upright:
    """Volumes turned to the closest RAS+ axes, so that index order is right, anterior, superior.

    Attributes:
        volumes: Each ``(I, J, K)``.
        affine: ``(4, 4)`` of their voxels to RAS+ millimetres.
    """

    volumes: tuple[np.ndarray, ...]
    affine: np.ndarray

    @classmethod
    def of(cls, affine: np.ndarray, *volumes: np.ndarray) -> Upright:
        """Turn volumes; no value is changed."""
        from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

        turn = io_orientation(affine)
        turned = tuple(apply_orientation(volume, turn) for volume in volumes)
        return cls(turned, affine @ inv_ornt_aff(turn, volumes[0].shape))

    def index_of(self, mm: Sequence[float]) -> np.ndarray:
        """Return the voxel, ``(3,)``, that a place in RAS+ millimetres lies in."""
        return np.rint(np.linalg.solve(self.affine, np.array([*mm, 1.0]))[:3]).astype(int)

    @property
    def spacing_mm(self) -> np.ndarray:
        """``(3,)``."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


@dataclass(frozen=True, slots=True)
class Sheet:
    """Which slices of each plane are shown.

    Attributes:
        chosen: Indices along the axis of each of ``PLANES``, ascending.
        box: First and last index, exclusive, along the three axes: what of a slice is shown.
    """

    chosen: tuple[tuple[int, ...], ...]
    box: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, mask: np.ndarray, through: Sequence[np.ndarray] = (), columns: int = COLUMNS) -> Sheet:
        """Choose slices evenly over a mask, of which the nearest give way to those through some voxels.

        Args:
            mask: ``(I, J, K)`` bool, upright.
            through: Voxels, the most important first; as many as there are columns count.
            columns: Slices a plane.
        """
        box, chosen = [], []
        for axis in range(3):
            hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
            low, high = (int(hit[0]), int(hit[-1])) if hit.size else (0, mask.shape[axis] - 1)
            box.append((max(0, low - _MARGIN_VOXELS), min(mask.shape[axis], high + 1 + _MARGIN_VOXELS)))
        for axis in (2, 1, 0):
            area = mask.sum(axis=tuple(other for other in range(3) if other != axis))
            # The tips of a brain show little: slices from a tenth of the largest area on.
            hit = np.flatnonzero(area >= 0.1 * area.max())
            step = hit.size / min(columns, hit.size)
            even = [int(hit[int((n + 0.5) * step)]) for n in range(min(columns, hit.size))]
            chosen.append(_through(even, [int(voxel[axis]) for voxel in through]))
        return cls(tuple(chosen), tuple(box))

    def at_mm(self, affine: np.ndarray, axis: int, index: int) -> float:
        """Return where a slice lies along the world axis that is nearest to its own, in its middle."""
        at = [*((low + high - 1) / 2 for low, high in self.box), 1.0]
        at[axis] = float(index)
        return float((affine @ at)[axis])

    def places_mm(self, affine: np.ndarray) -> list[str]:
        """Return where the slices of each plane lie, in words, in the middle of what is shown."""
        told = []
        for plane, axis, indices in zip(PLANES, (2, 1, 0), self.chosen, strict=True):
            places = [f"{self.at_mm(affine, axis, index):+.0f}" for index in indices]
            told.append(f"{plane} at {'xyz'[axis]} = {', '.join(places)} mm")
        return told


def _through(even: list[int], wanted: Sequence[int]) -> tuple[int, ...]:
    """Return slices of which those that are wanted have taken the place of the nearest.

    Examples:
        >>> _through([10, 20, 30], [19, 18]), _through([10, 20], [20])
        ((18, 19, 30), (10, 20))
    """
    kept, free = [], list(even)
    for index in dict.fromkeys(wanted):
        if not free:
            break
        free.remove(min(free, key=lambda one: abs(one - index)))
        kept.append(index)
    return tuple(sorted({*kept, *free}))


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """What is drawn over the background.

    Attributes:
        values: ``(I, J, K)``, upright.
        shown: ``(I, J, K)`` bool: where.
        ends: Values of the first and of the last colour.
    """

    values: np.ndarray
    shown: np.ndarray
    ends: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """What mosaics of one scan share.

    Attributes:
        background: ``(I, J, K)``, upright.
        affine: ``(4, 4)`` of its voxels.
        sheet: Which slices are shown.
        grey: Values of black and white.
        tile: Width of an axial slice in pixels.
    """

    background: np.ndarray
    affine: np.ndarray
    sheet: Sheet
    grey: tuple[float, float]
    tile: int = TILE_PIXELS

    def png(self, overlay: Overlay | None = None, outlined: np.ndarray | None = None) -> bytes:
        """Return slices of three planes as PNG, a row a plane.

        Args:
            overlay: What is drawn over the background.
            outlined: ``(I, J, K)`` bool, upright, of which the outline is drawn.
        """
        from PIL import Image

        rows = []
        for plane, axis, indices in zip(PLANES, (2, 1, 0), self.sheet.chosen, strict=True):
            tiles = [self._tile(axis, index, overlay, outlined) for index in indices]
            rows.append(self._labelled(np.concatenate(tiles, axis=1), plane, axis, indices))
        picture = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)))
        top = 0
        for row in rows:
            picture.paste(row, (0, top))
            top += row.height
        return palette_png(picture)

    def _tile(
        self, axis: int, index: int, overlay: Overlay | None, outlined: np.ndarray | None
    ) -> np.ndarray:
        """Return one slice as ``(H, W, 3)`` uint8, its pixels as wide as they are high."""
        places = self._places(axis)

        def cut(volume: np.ndarray) -> np.ndarray:
            # Right on the left, front or top above.
            return volume.take(index, axis)[np.ix_(*places)].T[::-1, ::-1]

        black, white = self.grey
        level = np.clip((cut(self.background).astype(np.float32) - black) / (white - black), 0, 1)
        picture = np.repeat((255 * np.nan_to_num(level))[..., None], 3, axis=2)
        if overlay is not None:
            shown, values = cut(overlay.shown), cut(overlay.values)
            low, high = overlay.ends
            step = np.clip(np.nan_to_num((values[shown] - low) / (high - low)), 0, 1)
            picture[shown] = 0.15 * picture[shown] + 0.85 * colours()[(255 * step).astype(np.uint8)]
        if outlined is not None:
            picture[_edge(cut(outlined))] = OUTLINE
        return picture.astype(np.uint8)

    def _places(self, axis: int) -> list[np.ndarray]:
        """Return which voxels the pixels of a slice show, along its two axes: the nearest."""
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        first, last = self.sheet.box[0]
        pixel_mm = (last - first) * spacing[0] / self.tile
        found = []
        for along in (other for other in range(3) if other != axis):
            start, stop = self.sheet.box[along]
            pixels = max(1, round((stop - start) * spacing[along] / pixel_mm))
            found.append(start + np.arange(pixels) * (stop - start) // pixels)
        return found

    def _labelled(self, row: np.ndarray, plane: str, axis: int, indices: Sequence[int]) -> Image:
        """Return a row of slices with a strip below that says where they lie, and what is on their left."""
        from PIL import Image, ImageDraw, ImageFont

        height, width = row.shape[0], row.shape[1] // len(indices)
        picture = Image.new("RGB", (row.shape[1], height + STRIP_PIXELS))
        picture.paste(Image.fromarray(row))
        pen = ImageDraw.Draw(picture)
        how: dict[str, Any] = {"font": ImageFont.load_default(size=12), "fill": (255, 255, 255)}
        middle = height + STRIP_PIXELS // 2
        for number, index in enumerate(indices):
            place = f"{'xyz'[axis]} {self.sheet.at_mm(self.affine, axis, index):+.0f}"
            pen.text((number * width + 3, middle), EDGES[plane][0], anchor="lm", **how)
            pen.text((number * width + width // 2, middle), place, anchor="mm", **how)
        return picture


def palette_png(picture: Image, colours: int = _PALETTE) -> bytes:
    """Return a picture as PNG with a palette: a third of the bytes, and no difference to be seen."""
    from PIL import Image

    buffer = io.BytesIO()
    how: dict[str, Any] = {"method": Image.Quantize.FASTOCTREE, "dither": Image.Dither.NONE}
    flat = picture.convert("RGB").quantize(colours, **how)
    flat.save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def colours(steps: int = 256) -> np.ndarray:
    """Return the colour map, ``(steps, 3)`` uint8: inferno without its black end, dark to bright.

    It is perceptually uniform and safe for colour-blind people; its black end would read as shadow.
    """
    return _colours(steps).copy()


@cache
def _colours(steps: int) -> np.ndarray:
    from matplotlib import colormaps

    rgba = colormaps["inferno"](np.linspace(0.3, 1.0, steps))
    return np.rint(255 * rgba[:, :3]).astype(np.uint8)


def css_gradient() -> str:
    """Return the colour map for a style sheet."""
    return f"linear-gradient(to right, {', '.join(f'rgb({r},{g},{b})' for r, g, b in colours(9))})"


def ends_of(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Return two quantiles of values, the second above the first."""
    known = values[np.isfinite(values)]
    first, last = (float(q) for q in np.quantile(known, [low, high])) if known.size else (0.0, 1.0)
    return first, last if last > first else first + 1e-6 * max(1.0, abs(first))


def _edge(shape: np.ndarray) -> np.ndarray:
    """Return the pixels of a shape that touch what is outside it."""
    padded = np.pad(shape, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return shape & ~inner


__all__ = ["COLUMNS", "OUTLINE", "PNG_LEVEL", "STRIP_PIXELS", "Canvas", "Overlay", "Sheet", "Upright",
           "colours", "css_gradient", "ends_of", "palette_png"]  # fmt: skip
