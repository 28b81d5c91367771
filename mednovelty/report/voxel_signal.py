"""A diffusion voxel's signal over its gradients, shell by shell, beside its nearest normals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.explaining.told import told_first
from mednovelty.explaining.voxel_parts import Group, VoxelWhy
from mednovelty.report.figures import HEALTHY_COLOUR, LESION_COLOUR
from mednovelty.report.mosaic import plain
from mednovelty.report.relevance import on_disc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

MOST_SHELLS = 3
LEAST_WIDTH = 5
"""Of a shell's axes, in channels."""
LEAST_DIRECTIONS = 3
"""On fewer there is no sphere to draw."""
SMALLEST_DOT, LARGEST_DOT = 15.0, 140.0
"""Areas, in square points, of what does not drive a score and of what drives it most."""
EDGES = ((1.15, 0, "R"), (-1.15, 0, "L"), (0, 1.15, "A"), (0, -1.15, "P"))


def draw_profiles(part: SubFigure, why: VoxelWhy) -> None:
    """Draw a shell beside the other: the signal along each direction, ordered by that of the normals."""
    sizes = [max(len(group.channels), LEAST_WIDTH) for group in why.groups]
    driven = falls_of(why)
    heights = (3.0, 1.0) if driven is not None else (1.0,)
    grid = part.subplots(
        len(heights), len(why.groups), squeeze=False, width_ratios=sizes, height_ratios=heights
    )
    for axes, group in zip(grid[0], why.groups, strict=True):
        _draw_profile(axes, why, group)
    if driven is not None:
        _draw_falls(grid[1], why, *driven)
    grid[0][0].set_ylabel("signal (1: mean of the brain)", fontsize=8)
    handles, labels = grid[0][-1].get_legend_handles_labels()
    # Signals are far from 0 on most shells, and the axis starts there.
    grid[0][-1].legend(handles, labels, fontsize=7.5, loc="lower left", framealpha=0.8, ncols=2)
    part.suptitle(
        "Signal in each direction, from where the most similar healthy voxels lose most (along fibres) to "
        "where they lose least (across)",
        fontsize=10,
    )


def falls_of(why: VoxelWhy) -> tuple[str, np.ndarray] | None:
    """Return whose drivers are told, and ``(C,)`` what it falls by when one measurement is as normal."""
    for score in told_first(why):
        if score.by_channel is not None and np.abs(score.by_channel).max() > 0:
            return score.score, score.by_channel
    return None


def _draw_falls(row: np.ndarray, why: VoxelWhy, score: str, falls: np.ndarray) -> None:
    """Draw, below each direction, how much it drives a score, on one scale for all shells."""
    ends = min(0.0, float(falls.min())), max(0.0, float(falls.max()))
    pad = 0.05 * (ends[1] - ends[0])
    for axes, group in zip(row, why.groups, strict=True):
        own = falls[order_of(why, group)]
        colours = np.where(own > 0, LESION_COLOUR, "0.6")
        axes.bar(np.arange(len(own)), own, color=colours, width=0.7)
        axes.axhline(0, color="0.4", linewidth=0.6)
        axes.set(xticks=[], ylim=(ends[0] - pad, ends[1] + pad), xlim=(-0.6, len(own) - 0.4))
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    words = f"what drives {score}: its fall when only this measurement is as in the nearest normals"
    row[-1].set_xlabel(plain(words), fontsize=8)


def order_of(why: VoxelWhy, group: Group) -> np.ndarray:
    """Return a shell's channels by rising signal of the nearest normals; without these, of the voxel."""
    channels = np.array(group.channels)
    by = why.normals.mean(0) if len(why.normals) else why.signal
    return channels[np.argsort(by[channels], kind="stable")]


def _draw_profile(axes: Axes, why: VoxelWhy, group: Group) -> None:
    assert why.diffusion is not None
    channels = order_of(why, group)
    at = np.arange(len(channels))
    style: dict[str, Any] = {"marker": "o", "markersize": 3}
    # A line of one point is none.
    single: dict[str, Any] = {"marker": "_", "markersize": 22} if len(channels) == 1 else {}
    if why.diffusion.band is not None:
        low, high = why.diffusion.band[:, channels]
        edges = np.repeat(np.arange(len(at) + 1) - 0.5, 2)[1:-1]
        low, high = np.repeat(low, 2), np.repeat(high, 2)
        axes.fill_between(edges, low, high, color="0.88", label="90 % of all healthy voxels")
    for number, normal in enumerate(why.normals):
        label = f"{len(why.normals)} most similar healthy voxels" if number == 0 else None
        axes.plot(at, normal[channels], color=HEALTHY_COLOUR, linewidth=0.9, alpha=0.8, label=label, **single)
    if why.reconstruction is not None:
        axes.plot(
            at,
            why.reconstruction[channels],
            "k--",
            linewidth=1.1,
            label="what the model reconstructs",
            **single,
        )
    axes.plot(at, why.signal[channels], color=LESION_COLOUR, linewidth=1.4, label="this voxel", **style)
    axes.set_title(plain(f"{group.name} ({len(channels)})"), fontsize=9)
    axes.set_xticks([])
    # Shells differ in signal by more than voxels do: each has a scale of its own, from 0.
    axes.set_ylim(bottom=0)
    axes.set_xlim(-0.6, len(at) - 0.4)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def draw_discs(part: SubFigure, why: VoxelWhy) -> None:
    """Draw the sphere of directions of up to three shells: the voxel, its nearest normals, the difference."""
    assert why.diffusion is not None
    shells = [g for g in why.groups if g.name != "b=0" and len(g.channels) >= LEAST_DIRECTIONS]
    if len(shells) > MOST_SHELLS:
        shells = [shells[n] for n in np.linspace(0, len(shells) - 1, MOST_SHELLS).round().astype(int)]
    if not shells:
        return
    groups = np.atleast_1d(np.array(part.subfigures(1, len(shells)), object))
    for place, group in zip(groups, shells, strict=True):
        _draw_shell(place, why, group)
    part.suptitle(
        "The same on the sphere of directions: a dot is a direction (middle: along the body; rim: in axial "
        "slices), its colour the signal",
        fontsize=10,
    )


def _draw_shell(part: SubFigure, why: VoxelWhy, group: Group) -> None:
    assert why.diffusion is not None
    channels = list(group.channels)
    places = on_disc(why.diffusion.directions[channels])
    own = why.signal[channels]
    shown = [("this voxel", own)]
    if len(why.normals):
        normal = why.normals[:, channels].mean(0)
        shown += [("nearest normals", normal), ("difference", own - normal)]
    signals = np.concatenate([values for name, values in shown if name != "difference"])
    low, high = float(signals.min()), float(max(signals.max(), signals.min() + 1e-6))
    largest = float(max(np.abs(shown[-1][1]).max(), 1e-6))
    driven = falls_of(why)
    sizes = None if driven is None else sizes_of(driven[1], channels)
    axes = np.atleast_1d(part.subplots(1, len(shown)))
    for place, (name, values) in zip(axes, shown, strict=True):
        differs = name == "difference"
        ends = (-largest, largest) if differs else (low, high)
        colours = "RdBu_r" if differs else "viridis"
        dots = _draw_disc(place, places, values, ends, colours, sizes if differs else None)
        if differs and driven is not None:
            name = f"difference; large: drives {driven[0]}"
        place.set_title(plain(f"{group.name}\n{name}"), fontsize=8)
        if differs or place is axes[0]:
            bar = part.colorbar(dots, ax=place, orientation="horizontal", fraction=0.06, pad=0.02)
            bar.ax.tick_params(labelsize=6)
    if len(shown) > 1:
        # The middle one has the scale of the first, and no room of its own below: keep all of one size.
        bar = part.colorbar(dots, ax=axes[1], orientation="horizontal", fraction=0.06, pad=0.02)
        bar.ax.set_visible(False)


def sizes_of(falls: np.ndarray, channels: list[int]) -> np.ndarray:
    """Return areas of dots that grow with what a score falls by, on one scale for all shells.

    Examples:
        >>> sizes_of(np.array([4.0, 0.0, -1.0, 2.0]), [1, 2, 3]).tolist()
        [15.0, 15.0, 77.5]
    """
    largest = max(float(falls.max()), 1e-12)
    return SMALLEST_DOT + (LARGEST_DOT - SMALLEST_DOT) * np.clip(falls[channels] / largest, 0.0, 1.0)


def _draw_disc(
    axes: Axes,
    places: np.ndarray,
    values: np.ndarray,
    ends: tuple[float, float],
    colours: str,
    sizes: np.ndarray | None,
) -> Any:
    from matplotlib.patches import Circle

    axes.add_patch(Circle((0, 0), 1.02, fill=False, color="0.6", linewidth=0.8))
    dots = axes.scatter(places[:, 0], places[:, 1], c=values, cmap=colours, vmin=ends[0], vmax=ends[1],
                        s=45 if sizes is None else sizes, edgecolors="0.3", linewidths=0.4)  # fmt: skip
    for x, y, name in EDGES:
        axes.text(x, y, name, ha="center", va="center", fontsize=7, color="0.4")
    # Radiological, as the slices above: the patient's right on the left.
    axes.set(xlim=(1.3, -1.3), ylim=(-1.3, 1.3), aspect="equal")
    axes.set_axis_off()
    return dots


__all__ = ["draw_discs", "draw_profiles", "order_of"]
