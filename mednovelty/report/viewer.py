"""nilearn's interactive viewer, embedded, with what it lacks: a threshold that moves, several scores, places.

``view_img`` draws three slices through one point from a background and an overlay, whose threshold is fixed
when it is made, and names an icon on a server. Here its page is taken apart: viewer and background stay, what
it names elsewhere goes, and the overlay is painted in the browser, from levels 0 to 255 of each score,
each time threshold or score is changed. Coordinates are ours: RAS+ millimetres, right on the left.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import MedNoveltyError
from mednovelty.report.page import data_uri
from mednovelty.report.planes import PNG_LEVEL, colours, ends_of
from mednovelty.report.view_grid import MOST_VOXELS, ViewGrid

if TYPE_CHECKING:
    from markupsafe import Markup

LEVELS = 255
"""Of a score, from the lowest that the threshold can be set to, to the highest of the map."""
LOWEST_QUANTILE = 0.5
"""Of the mask: scores below it are never shown over the background, and take no space."""
BRIGHTEST_QUANTILE = 0.9995
"""Of the mask: where the last colour is reached; a single peak must not make all else dark."""
LARGEST_BYTES = 2_600_000
"""Of all that the viewer needs, as it stands in the page; the grid is made coarser until it fits."""


@dataclass(frozen=True, eq=False)
class ViewedScore:
    """One score to look at.

    Attributes:
        name: As it is chosen by.
        label: As it is shown, with what must stand beside it.
        unit: Of its values.
        values: ``(I, J, K)`` on the scan's voxels.
        threshold: What is shown at first is as high or higher.
        words: Why that is shown, where it is not what was flagged.
    """

    name: str
    label: str
    unit: str
    values: np.ndarray
    threshold: float
    words: str = ""


@dataclass(frozen=True, eq=False)
class Viewer:
    """What a page needs for the viewer.

    Attributes:
        html: nilearn's viewer.
        facts: For the script: affine, shape, and of each score its levels as an address.
        grid: What is shown.
    """

    html: Markup
    facts: dict[str, Any]
    grid: ViewGrid

    @property
    def size_mm(self) -> float:
        """Edge of the cubes that are shown."""
        return float(self.grid.affine[0, 0])


def build_viewer(
    background: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    scores: Sequence[ViewedScore],
    at_mm: Sequence[float],
) -> Viewer:
    """Return a viewer of some scores over a background.

    Args:
        background: ``(I, J, K)`` on the scan's voxels, as all that follows.
        mask: ``(I, J, K)`` bool.
        affine: ``(4, 4)`` to RAS+ millimetres.
        scores: At least one; the first is shown first.
        at_mm: Where the slices go through at first.
    """
    most = MOST_VOXELS
    while True:
        grid = ViewGrid.over(mask, affine, most)
        levels = [_levels(grid, score, mask) for score in scores]
        uris = [data_uri(_sprite_png(level)) for level, _ in levels]
        html = _embedded(grid, background, levels[0][0])
        if len(html) + sum(map(len, uris)) <= LARGEST_BYTES or most < 20_000:
            break
        most = int(0.7 * np.prod(grid.shape))
    size, origin = float(grid.affine[0, 0]), grid.affine[:3, 3]
    told = [
        {"name": s.name, "label": s.label, "unit": s.unit, "threshold": s.threshold, "words": s.words,
         "levels": uri, **ends}
        for s, uri, (_, ends) in zip(scores, uris, levels, strict=True)
    ]  # fmt: skip
    facts = {
        "shape": list(grid.shape),
        "size_mm": size,
        "origin_mm": [float(value) for value in origin],
        "at_mm": [float(value) for value in at_mm],
        "colours": colours().tolist(),
        "scores": told,
    }
    return Viewer(html, facts, grid)


def sprite(volume: np.ndarray) -> np.ndarray:
    """Return sagittal slices side by side as nilearn's viewer lays them out, radiological.

    Args:
        volume: ``(X, Y, Z)``.

    Returns:
        ``(rows * Z, columns * Y)``, the slice furthest to the right first, top to bottom.
    """
    x, y, z = volume.shape
    rows = int(np.ceil(np.sqrt(x)))
    columns = int(np.ceil(x / rows))
    sheet = np.zeros((rows * z, columns * y), volume.dtype)
    for number in range(x):
        row, column = divmod(number, columns)
        tile = volume[x - 1 - number, :, ::-1].T
        sheet[row * z : (row + 1) * z, column * y : (column + 1) * y] = tile
    return sheet


def _levels(grid: ViewGrid, score: ViewedScore, mask: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Return ``(X, Y, Z)`` uint8: 0 for what is never shown, 1 to 255 from the lowest to the highest."""
    inside = score.values[mask]
    inside = inside[np.isfinite(inside)]
    if not inside.size:
        inside = np.zeros(1)
    low, bright = (float(q) for q in np.quantile(inside, [LOWEST_QUANTILE, BRIGHTEST_QUANTILE]))
    high = float(inside.max())
    low = min(low, score.threshold)
    high = high if high > low else low + 1e-6 * max(1.0, abs(low))
    on_grid = grid.scores(score.values)
    with np.errstate(invalid="ignore"):
        level = 1 + np.floor((on_grid - low) / (high - low) * (LEVELS - 1))
    shown = np.isfinite(on_grid) & (on_grid >= low)
    found = np.where(shown, np.clip(np.nan_to_num(level), 1, LEVELS), 0).astype(np.uint8)
    return found, {"low": low, "high": high, "bright": max(bright, low + 1e-3 * (high - low))}


def _sprite_png(levels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(sprite(levels)).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def _embedded(grid: ViewGrid, background: np.ndarray, levels: np.ndarray) -> Markup:
    """Return nilearn's viewer of one score, as a part of a page."""
    import warnings

    from matplotlib.colors import ListedColormap
    from nibabel import Nifti1Image
    from nilearn.plotting import view_img

    # nilearn's window ends at the brightest voxel, often one of a vessel or of the eyes.
    _, white = ends_of(background[background > 0], 0.01, 0.995)
    grey = Nifti1Image(np.clip(grid.image(background), 0, white), grid.affine)
    # float32: nibabel has no images of bool or of bytes that nilearn would not warn of.
    shown = Nifti1Image(levels.astype(np.float32), grid.affine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        view = view_img(
            shown,
            bg_img=grey,
            threshold=0.5,
            cmap=ListedColormap(colours() / 255),
            symmetric_cmap=False,
            vmin=0,
            vmax=LEVELS,
            black_bg=True,
            resampling_interpolation="nearest",
            radiological=True,
            colorbar=True,
            title=None,
        )
    return _without_the_rest(view.html)


_BODY = re.compile(r"<body[^>]*>(.*)</body>", re.DOTALL)
_START = "brain = brainsprite("
_RANDOM = re.compile(r"\b[0-9a-f]{32}\b")
_PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")
_SCRIPT = re.compile(r"<script\b[^>]*>.*?</script>", re.DOTALL | re.IGNORECASE)
_ELSEWHERE = re.compile(r"""(?:src|href)\s*=\s*["']?(?!["']?data:)|@import|url\(""", re.IGNORECASE)


def _without_the_rest(page: str) -> Markup:
    """Return the viewer of nilearn's page, its object within reach of our script, and nothing from elsewhere.

    Raises:
        MedNoveltyError: The page is not built as those of the nilearn versions that were tried.
    """
    from markupsafe import Markup

    body = _BODY.search(page)
    if body is None or body[1].count(_START) != 1:
        raise MedNoveltyError(
            f"nilearn {_nilearn()} builds its viewer in a way that is not known here; install nilearn 0.12 "
            "to 0.14, or pass --no-report"
        )
    part = body[1].replace(_START, "brain = window.mednoveltyBrain = brainsprite(")
    # Drawn at random; without it the same scan makes the same page.
    part = _RANDOM.sub("map", part)
    part = _PNG.sub(lambda found: data_uri(_smaller(base64.b64decode(found[1]))), part)
    scripts = _SCRIPT.findall(part)
    if not any("$(" in script for script in scripts if not _is_jquery(script)):
        part = _SCRIPT.sub(lambda found: "" if _is_jquery(found[0]) else found[0], part)
    # What scripts would fetch, the page's policy refuses.
    if found := _ELSEWHERE.search(_SCRIPT.sub("", part)):
        raise MedNoveltyError(
            f"nilearn {_nilearn()}: its viewer refers to another place ({found[0]!r}), which a report must "
            "not; install nilearn 0.12 to 0.14, or pass --no-report"
        )
    return Markup(part)


def _is_jquery(script: str) -> bool:
    return "jQuery requires a window" in script


def _smaller(png: bytes) -> bytes:
    """Return a PNG without loss but smaller: nilearn writes grey pictures as RGBA."""
    from PIL import Image

    picture: Image.Image = Image.open(io.BytesIO(png))
    if picture.mode == "RGBA":
        red, green, blue, alpha = picture.split()
        bytes_of = [band.tobytes() for band in (red, green, blue)]
        if bytes_of[0] == bytes_of[1] == bytes_of[2] and alpha.getextrema() == (255, 255):
            picture = red
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def _nilearn() -> str:
    from importlib.metadata import version

    return version("nilearn")


__all__ = ["LARGEST_BYTES", "LEVELS", "ViewedScore", "Viewer", "build_viewer", "sprite"]
