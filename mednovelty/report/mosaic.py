"""A map over its background, slice beside slice, right where right is said to be.

The voxels are reordered so that the axes come as near to right, anterior and superior as they can without
resampling (nibabel's closest canonical orientation); slices are the scan's own, from low to high.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mednovelty.errors import GeometryError, SettingsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARGIN_VOXELS = 2
_OBLIQUE_DEGREES = 3.0
FLAT = 4.0
"""White, in units of a background that is the same everywhere."""


@dataclass(frozen=True, slots=True, eq=False)
class MapLayers:
    """What a mosaic shows, all on one grid.

    Attributes:
        background: ``(I, J, K)`` grey.
        score: ``(I, J, K)`` the map; higher is more novel.
        mask: ``(I, J, K)`` bool, where the map counts.
        affine: ``(4, 4)`` voxel indices to RAS+ millimetres.
        lesion: ``(I, J, K)`` bool to outline, or None.
    """

    background: np.ndarray
    score: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    lesion: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("score", "mask", "lesion"):
            layer = getattr(self, name)
            if layer is not None and layer.shape != self.background.shape:
                raise GeometryError(
                    f"mosaic: {name} {layer.shape} does not fit the background, {self.background.shape}",
                    code="geometry.shape",
                )
        if self.background.ndim != 3 or not np.any(self.mask):
            raise GeometryError(
                f"mosaic: needs (I, J, K) arrays and a mask that is not empty, got {self.background.shape} "
                f"and {np.count_nonzero(self.mask)} voxels",
                code="geometry.shape",
            )


@dataclass(frozen=True, slots=True)
class MosaicSettings:
    """How a mosaic looks.

    Attributes:
        title: Above the picture.
        label: Of the colour bar: the score and its unit.
        n_slices: At most so many axial slices, spread over the mask; the one with most lesion among them.
        columns: Slices a row.
        convention: ``radiological`` shows the patient's right on the left, ``neurological`` on the right.
        percentile: Scores below this percentile of the mask are transparent.
        threshold: Scores below this are transparent instead; None: the percentile decides.
    """

    title: str = ""
    label: str = "score"
    n_slices: int = 18
    columns: int = 6
    convention: Literal["radiological", "neurological"] = "radiological"
    percentile: float = 90.0
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.n_slices < 1 or self.columns < 1 or not 0 <= self.percentile < 100:
            raise SettingsError(
                f"a mosaic needs n_slices >= 1, columns >= 1 and 0 <= percentile < 100, got {self.n_slices}, "
                f"{self.columns} and {self.percentile}"
            )
        if self.convention not in ("radiological", "neurological"):
            raise SettingsError(f"convention is radiological or neurological, got {self.convention!r}")


@dataclass(frozen=True, slots=True, eq=False)
class Mosaic:
    """Slices side by side, row 0 on top: anterior is up, and left is what ``left`` says.

    Attributes:
        background: ``(H, W)``; NaN where a row of slices is not full.
        score: ``(H, W)``.
        mask: ``(H, W)`` bool.
        lesion: ``(H, W)`` bool, or None.
        tile: Height and width of one slice in pixels.
        spacing_mm: Height and width of one pixel.
        left: ``R`` or ``L``, the patient's side on the left of every slice.
        heights_mm: World z of each slice's centre.
        tilt_degrees: Between the slices' normal and the world's z axis.
    """

    background: np.ndarray
    score: np.ndarray
    mask: np.ndarray
    lesion: np.ndarray | None
    tile: tuple[int, int]
    spacing_mm: tuple[float, float]
    left: Literal["R", "L"]
    heights_mm: tuple[float, ...]
    tilt_degrees: float


def build_mosaic(layers: MapLayers, settings: MosaicSettings) -> Mosaic:
    """Cut the slices and lay them out; nothing is drawn yet."""
    ras, affine = _closest_ras(layers)
    inside = ras["mask"]
    box = [_extent(inside, axis) for axis in (0, 1)]
    chosen = _choose(inside, ras.get("lesion"), settings.n_slices)
    flip = settings.convention == "radiological"

    def lay(volume: np.ndarray, empty: float) -> np.ndarray:
        cut = volume[box[0], box[1]]
        tiles = [_upright(cut[:, :, k], flip) for k in chosen]
        return _grid(tiles, settings.columns, empty)

    centre = [(part.start + part.stop - 1) / 2 for part in box]
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    return Mosaic(
        background=lay(ras["background"].astype(np.float32), np.nan),
        score=lay(ras["score"].astype(np.float32), np.nan),
        mask=lay(inside, False),
        lesion=lay(ras["lesion"], False) if "lesion" in ras else None,
        tile=(box[1].stop - box[1].start, box[0].stop - box[0].start),
        spacing_mm=(float(spacing_mm[1]), float(spacing_mm[0])),
        left="R" if flip else "L",
        heights_mm=tuple(float((affine @ [*centre, k, 1])[2]) for k in chosen),
        tilt_degrees=float(np.degrees(np.arccos(min(1.0, affine[2, 2] / spacing_mm[2])))),
    )


def mosaic_figure(layers: MapLayers, settings: MosaicSettings, kind: type[Figure] | None = None) -> Figure:
    """Draw axial slices: background in grey, the map's highest scores in colour, the lesion outlined.

    The picture says which side is right, where each slice lies, and which scores are left transparent.

    Args:
        layers: What is shown.
        settings: How.
        kind: Of the figure; None: matplotlib's own.
    """
    from matplotlib.figure import Figure as Plain

    mosaic = build_mosaic(layers, settings)
    inside = layers.mask.astype(bool)
    low, high = _range(layers.score[inside], settings.percentile / 100, 0.995)
    if settings.threshold is not None:
        low = settings.threshold
        high = max(high, low + 1e-6 * max(1.0, abs(low)))
    grey = _greys(layers.background[inside])
    figure = (kind or Plain)(figsize=_size_inches(mosaic), layout="constrained", facecolor="black")
    axes = figure.subplots()
    how: dict[str, Any] = {"aspect": mosaic.spacing_mm[0] / mosaic.spacing_mm[1], "interpolation": "nearest"}
    axes.imshow(np.nan_to_num(mosaic.background, nan=grey[0]), cmap="gray", vmin=grey[0], vmax=grey[1], **how)
    shown = axes.imshow(mosaic.score, cmap=novelty_colours(), vmin=low, vmax=high,
                        alpha=_opacity(mosaic, low, high), **how)  # fmt: skip
    outline(axes, mosaic.lesion)
    _annotate(axes, mosaic, settings)
    bar = figure.colorbar(shown, ax=axes, fraction=0.025, pad=0.01, shrink=0.8, extend="max")
    start = f"percentile {settings.percentile:g} of the mask"
    if settings.threshold is not None:
        start = f"{settings.threshold:.4g}"
    bar.set_label(plain(f"{settings.label}; shown from {start}"), color="white")
    bar.ax.tick_params(colors="white")
    return figure


def plain(text: str) -> str:
    """Return a text as matplotlib shows it word for word: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def _closest_ras(layers: MapLayers) -> tuple[dict[str, np.ndarray], np.ndarray]:
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    turn = io_orientation(layers.affine)
    volumes = {"background": layers.background, "score": layers.score, "mask": layers.mask.astype(bool)}
    if layers.lesion is not None:
        volumes["lesion"] = layers.lesion.astype(bool)
    affine = layers.affine @ inv_ornt_aff(turn, layers.background.shape)
    return {name: apply_orientation(volume, turn) for name, volume in volumes.items()}, affine


def _extent(mask: np.ndarray, axis: int) -> slice:
    hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
    return slice(
        max(0, int(hit[0]) - _MARGIN_VOXELS), min(mask.shape[axis], int(hit[-1]) + 1 + _MARGIN_VOXELS)
    )


def _choose(mask: np.ndarray, lesion: np.ndarray | None, n: int) -> list[int]:
    """Return ascending slice indices, evenly over the mask; the slice with most lesion is among them."""
    area = mask.sum(axis=(0, 1))
    # The tips of a brain show little: slices from a tenth of the largest area on.
    hit = np.flatnonzero(area >= 0.1 * area.max())
    step = hit.size / min(n, hit.size)
    chosen = [int(hit[int((number + 0.5) * step)]) for number in range(min(n, hit.size))]
    if lesion is not None and lesion.any():
        most = int(np.argmax(lesion.sum(axis=(0, 1))))
        chosen[int(np.argmin(np.abs(np.array(chosen) - most)))] = most
    return sorted(chosen)


def _upright(plane: np.ndarray, flip: bool) -> np.ndarray:
    """Return an (I, J) slice in RAS order as a picture: anterior on top; flipped, right is on the left."""
    picture = plane.T[::-1]
    return picture[:, ::-1] if flip else picture


def _grid(tiles: list[np.ndarray], columns: int, empty: float) -> np.ndarray:
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    height, width = tiles[0].shape
    sheet = np.full((rows * height, columns * width), empty, dtype=tiles[0].dtype)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    return sheet


def _range(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    ends = [float(end) for end in np.quantile(values, [low, high])] if values.size else [0.0, 1.0]
    # A flat picture still needs two ends.
    return ends[0], ends[1] if ends[1] > ends[0] else ends[0] + 1e-6 * max(1.0, abs(ends[0]))


def _greys(background: np.ndarray) -> tuple[float, float]:
    """Return the ends of the greys; what is flat, as a mask in place of a scan, is dark grey, not black."""
    low, high = float(background.min()), float(background.max())
    if low == high > 0:
        return 0.0, FLAT * high
    return _range(background, 0.01, 0.995)


def _size_inches(mosaic: Mosaic) -> tuple[float, float]:
    height_mm, width_mm = np.array(mosaic.background.shape) * mosaic.spacing_mm
    # What is left beside the slices: a colour bar on the right, two lines of text above.
    return 12.0, float(np.clip(11.0 * height_mm / width_mm, 2.0, 24.0)) + 0.5


def novelty_colours() -> Any:
    """Return the colours of scores over a grey background: even steps look even, in any kind of sight."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    # Without its black end, which on a grey background would read as shadow.
    return ListedColormap(colormaps["inferno"](np.linspace(0.3, 1, 256)))


def outline(axes: Axes, lesion: np.ndarray | None, colour: str = "#56b4e9") -> None:
    """Draw the outline of ``(H, W)`` bool along the edges of its pixels."""
    if lesion is None or not lesion.any():
        return
    fine = 4
    # Only the part with lesion, and a pixel around it: contour keeps several copies of what it is given.
    box = [(int(at.min()), int(at.max()) + 1) for at in np.nonzero(lesion)]
    part = np.pad(lesion[slice(*box[0]), slice(*box[1])], 1)
    shown = np.kron(part, np.ones((fine, fine)))
    down, right = (
        (np.arange(size) + 0.5) / fine - 1.5 + start
        for size, (start, _) in zip(shown.shape, box, strict=True)
    )
    axes.contour(right, down, shown, levels=[0.5], colors=colour, linewidths=1.3)


def _opacity(mosaic: Mosaic, low: float, high: float) -> np.ndarray:
    """Return ``(H, W)``: 0 below the threshold and outside the mask, then from 0.45 to 1."""
    score = np.where(np.isnan(mosaic.score), -np.inf, mosaic.score)
    strength = np.clip((score - low) / (high - low), 0, 1)
    return np.where(mosaic.mask & (score >= low), 0.45 + 0.55 * strength, 0.0)


def _annotate(axes: Axes, mosaic: Mosaic, settings: MosaicSettings) -> None:
    height, width = mosaic.tile
    columns = mosaic.background.shape[1] // width
    small: dict[str, Any] = {"color": "white", "fontsize": 8}
    for number, z_mm in enumerate(mosaic.heights_mm):
        row, column = divmod(number, columns)
        left, top = column * width, row * height
        axes.text(left + 1, top + height - 2, f"z {z_mm:+.0f} mm", va="bottom", **small)
        axes.text(left + 0.5, top + height / 2, mosaic.left, va="center", **small)
    other = "L" if mosaic.left == "R" else "R"
    sides = {"R": "right", "L": "left"}
    axes.text(columns * width - 1, height / 2, other, va="center", ha="right", **small)
    tilt = f"; slices tilted by {mosaic.tilt_degrees:.0f}°" if mosaic.tilt_degrees > _OBLIQUE_DEGREES else ""
    outline = "; lesion outlined in light blue" if mosaic.lesion is not None else ""
    told = f"{settings.convention}: the patient's {sides[mosaic.left]} is on the left{tilt}{outline}"
    axes.set_title(plain(f"{settings.title}\n{told}".lstrip()), color="white", fontsize=10, loc="left")
    axes.set_axis_off()
