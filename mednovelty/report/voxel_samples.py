"""The slice or window that shows a voxel, what the model makes of it, and the nearest normals, decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.explaining.voxel_parts import Group, VoxelWhy, drawn_flat
from mednovelty.report.cuts import dark_edge
from mednovelty.report.mosaic import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

FEW_PICTURES = 4
"""With fewer there is room for the surroundings of the voxel, larger."""
CLOSER = "around the voxel"
CROSS: dict[str, Any] = {"marker": "s", "markersize": 7, "markerfacecolor": "none",
                         "markeredgecolor": "white", "markeredgewidth": 1.3}  # fmt: skip


def draw_samples(part: SubFigure, why: VoxelWhy) -> None:
    """Draw a row a contrast: the sample, the reconstruction, nearest normals, differences, the gradient."""
    shown = [_pictures(why, group) for group in why.groups]
    rows, columns = shape_of(why)
    grid = part.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for line, group, pictures in zip(grid, why.groups, shown, strict=False):
        own = picture(why.signal, why, group)
        grey = (float(np.percentile(own, 1)), float(np.percentile(own, 99.5)))
        for axes, (name, values, colours) in zip(line, pictures, strict=False):
            _draw(axes, values, why.pixel, name, colours, grey)
            if name.endswith(CLOSER):
                _draw_nearer(axes, values, why.pixel)
    if len(why.normals) and why.nearest is not None:
        group = why.groups[0]
        own = picture(why.signal, why, group)
        grey = (float(np.percentile(own, 1)), float(np.percentile(own, 99.5)))
        near = zip(grid[-1], why.normals, why.nearest.normals, strict=False)
        for number, (axes, values, normal) in enumerate(near, 1):
            where = "" if normal.mm is None else "\nat " + ", ".join(f"{v:.0f}" for v in normal.mm) + " mm"
            kind = "reconstruction of " if why.nearest.decoded else ""
            title = f"{kind}normal {number}, {group.name}\n{normal.scan}{where}"
            _draw(axes, picture(values, why, group), why.pixel, title, "gray", grey)
    part.suptitle(
        "What the detector saw: the voxel is in the white square; the patient's right is on the left where "
        "samples are turned to anatomical axes",
        fontsize=10,
    )


def shape_of(why: VoxelWhy) -> tuple[int, int]:
    """Return how many rows and columns of pictures there are."""
    columns = max(len(_pictures(why, why.groups[0])), len(why.normals), 1)
    return len(why.groups) + bool(len(why.normals)), columns


def picture(values: np.ndarray, why: VoxelWhy, group: Group) -> np.ndarray:
    """Return ``(H, W)`` of ``(C, *space)``: a group's mean, in the plane through the voxel."""
    return plane(values[list(group.channels)].mean(0), why.pixel)


def plane(values: np.ndarray, pixel: tuple[int, ...]) -> np.ndarray:
    """Return ``(H, W)``, the first two axes of a sample, through a pixel: upright, right on the left.

    Samples in anatomical axes run to the right, the front and up: the first axis becomes the columns, from
    the last to the first, and the second the rows, likewise.
    """
    cut = values if values.ndim == 2 else values[..., pixel[2]]
    return np.asarray(cut.T[::-1, ::-1])


def place_in(space: tuple[int, ...], pixel: tuple[int, ...]) -> tuple[int, int]:
    """Return column and row of the voxel in what ``plane`` makes of ``(*space)``."""
    return space[0] - 1 - pixel[0], space[1] - 1 - pixel[1]


def _pictures(why: VoxelWhy, group: Group) -> list[tuple[str, np.ndarray, str]]:
    own = picture(why.signal, why, group)
    found = [(f"{group.name}, as the detector sees it", own, "gray")]
    if why.reconstruction is not None:
        again = picture(why.reconstruction, why, group)
        flat = " (nearly flat)" if drawn_flat(why, group) is not None else ""
        found += [(f"what the model makes of it{flat}", again, "gray"), ("difference", own - again, "RdBu_r")]
    if len(why.normals):
        mean = picture(why.normals.mean(0), why, group)
        what = (
            "nearest normals,\nmean of reconstructions"
            if why.nearest and why.nearest.decoded
            else "nearest normals, mean"
        )
        found += [(what, mean, "gray"), ("difference from these", own - mean, "RdBu_r")]
    if why.gradient is not None and group is why.groups[0]:
        found.append(
            (f"gradient of {why.gradient_of},\nall contrasts", plane(why.gradient, why.pixel), "magma")
        )
    if len(found) < FEW_PICTURES:
        found.insert(1, (f"{group.name}, {CLOSER}", own, "gray"))
    return found


def _draw_nearer(axes: Axes, values: np.ndarray, pixel: tuple[int, ...]) -> None:
    """Show only what lies around the voxel."""
    column, row = place_in(values.T.shape, pixel)
    around = max(6.0, max(values.shape) / 6)
    axes.set(xlim=(column - around, column + around), ylim=(row + around, row - around))


def _draw(
    axes: Axes, values: np.ndarray, pixel: tuple[int, ...], name: str, colours: str, grey: tuple[float, float]
) -> None:
    low, high = grey
    if colours == "RdBu_r":
        high = float(max(np.abs(values).max(), 1e-6))
        low = -high
    elif colours != "gray":
        low, high = 0.0, float(max(np.percentile(values, 99.8), 1e-12))
    axes.imshow(values, cmap=colours, vmin=low, vmax=max(high, low + 1e-12), interpolation="nearest")
    axes.plot(*place_in(values.T.shape, pixel), **CROSS, path_effects=dark_edge(1.3))
    axes.set_title(plain(name), fontsize=8)
    axes.set_axis_off()


__all__ = ["draw_samples", "picture", "place_in", "plane", "shape_of"]
