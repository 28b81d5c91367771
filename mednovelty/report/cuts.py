"""Three slices through one voxel, at right angles, right where right is said to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.explaining.places import Place
from mednovelty.report.mosaic import novelty_colours, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLANES = ("axial", "coronal", "sagittal")
EDGES = {"axial": ("R", "A"), "coronal": ("R", "S"), "sagittal": ("A", "S")}
"""What is on the left of each, and on top."""
SHOWN_FROM = 97.0
"""Percentile of the mask's scores from which they are drawn over the image."""


@dataclass(frozen=True, slots=True, eq=False)
class Slices:
    """What slices are cut from, all on one grid.

    Attributes:
        background: ``(I, J, K)`` grey.
        score: ``(I, J, K)``, higher is more novel.
        mask: ``(I, J, K)`` bool.
        affine: ``(4, 4)``, voxel indices to RAS+ millimetres.
        name: Of the score.
    """

    background: np.ndarray
    score: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """One slice, upright: row 0 on top.

    Attributes:
        plane: ``axial``, ``coronal`` or ``sagittal``, as nearly as the voxels allow.
        background: ``(H, W)``.
        score: ``(H, W)``.
        mask: ``(H, W)`` bool.
        cross: Row and column of the voxel.
        aspect: Height of a pixel by its width.
        at_mm: Where along the axis that it is at a right angle to.
    """

    plane: str
    background: np.ndarray
    score: np.ndarray
    mask: np.ndarray
    cross: tuple[int, int]
    aspect: float
    at_mm: float


def cuts_through(slices: Slices, mm: Place) -> list[Cut]:
    """Return the axial, coronal and sagittal slice through a place, radiological: right is on the left."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    turn = io_orientation(slices.affine)
    affine = slices.affine @ inv_ornt_aff(turn, slices.background.shape)
    layers = [apply_orientation(a, turn) for a in (slices.background, slices.score, slices.mask)]
    at = np.rint(np.linalg.solve(affine, np.array([*mm, 1.0]))[:3]).astype(int)
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    found = []
    for plane, through in zip(PLANES, (2, 1, 0), strict=True):
        across, up = (axis for axis in range(3) if axis != through)
        background, score, mask = (_upright(layer.take(at[through], through)) for layer in layers)
        height, width = background.shape
        cross = (height - 1 - int(at[up]), width - 1 - int(at[across]))
        aspect = float(spacing_mm[up] / spacing_mm[across])
        found.append(Cut(plane, background, score, mask, cross, aspect, float(mm[through])))
    return found


def _upright(plane: np.ndarray) -> np.ndarray:
    """Return a slice of two axes that run right or to the front, and to the front or up, as a picture."""
    return plane.T[::-1, ::-1]


def draw_cut(axes: Axes, cut: Cut, grey: tuple[float, float], ends: tuple[float, float]) -> Any:
    """Draw a slice, the highest scores over it and a cross that leaves the voxel free."""
    how: dict[str, Any] = {"aspect": cut.aspect, "interpolation": "nearest"}
    axes.imshow(cut.background, cmap="gray", vmin=grey[0], vmax=grey[1], **how)
    high = np.ma.masked_where(~cut.mask | (cut.score < ends[0]), cut.score)
    shown = axes.imshow(high, cmap=novelty_colours(), vmin=ends[0], vmax=ends[1], alpha=0.75, **how)
    row, column = cut.cross
    height, width = cut.background.shape
    gap = max(2.0, 0.04 * max(height, width))
    line: dict[str, Any] = {"color": "white", "linewidth": 1.0, "path_effects": dark_edge(1.0)}
    for start, stop in ((-0.5, column - gap), (column + gap, width - 0.5)):
        axes.plot([start, max(start, stop)], [row, row], **line)
    for start, stop in ((-0.5, row - gap), (row + gap, height - 0.5)):
        axes.plot([column, column], [start, max(start, stop)], **line)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    left, top = EDGES[cut.plane]
    text: dict[str, Any] = {"color": "white", "fontsize": 9, "transform": axes.transAxes}
    axes.text(0.02, 0.5, left, va="center", **text)
    axes.text(0.5, 0.98, top, ha="center", va="top", **text)
    axis = "xyz"[2 - PLANES.index(cut.plane)]
    axes.set_title(plain(f"{cut.plane}, {axis} {cut.at_mm:+.0f} mm"), fontsize=9)
    axes.set_axis_off()
    return shown


def dark_edge(width: float) -> list[Any]:
    """Return what gives a white line of some points a dark edge: seen on any ground, in any kind of sight."""
    from matplotlib import patheffects

    return [patheffects.Stroke(linewidth=width + 1.2, foreground="black"), patheffects.Normal()]


def ends_of(slices: Slices, value: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ends of the greys, and of the scores that are drawn, whose upper is not below a value."""
    inside = slices.mask
    grey = np.percentile(slices.background[inside], (1, 99.5))
    low, high = np.percentile(slices.score[inside], (SHOWN_FROM, 99.99))
    high = max(high, value)
    apart = 1e-6 * max(1.0, abs(low))
    return (float(grey[0]), float(max(grey[1], grey[0] + 1e-6))), (float(low), float(max(high, low + apart)))


__all__ = ["Cut", "Slices", "cuts_through", "dark_edge", "draw_cut", "ends_of"]
