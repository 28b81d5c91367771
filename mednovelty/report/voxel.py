"""One voxel on one page: where it is, how high it stands, how its nearest normals look, what drives it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mednovelty.explaining.told import lines_of
from mednovelty.explaining.voxel_parts import Group, ScoreWhy, VoxelWhy
from mednovelty.report.cuts import Slices, cuts_through, draw_cut, ends_of
from mednovelty.report.figures import save_figure
from mednovelty.report.mosaic import plain
from mednovelty.report.voxel_samples import draw_samples, shape_of
from mednovelty.report.voxel_signal import draw_discs, draw_profiles
from mednovelty.report.voxel_standing import draw_standing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

WIDTH_INCHES = 14.0
TEXT_WIDTH = 165
MOST_SCORES = 12
PICTURE_INCHES = 4.2
"""Of the largest picture of a sample."""
DARK = 0.6
"""Of the colours; darker ones have white text."""


def draw_voxel(why: VoxelWhy, slices: Slices, path: Path) -> Path:
    """Write the page of a voxel as PNG.

    Args:
        why: What was found.
        slices: The scan, and the map of the score that it is about.
        path: Of the PNG.

    Raises:
        OutputError: It cannot be written.
    """
    return save_figure(voxel_figure(why, slices), path, dpi=110)


def voxel_figure(why: VoxelWhy, slices: Slices) -> Figure:
    """Return the page of a voxel."""
    from matplotlib.figure import Figure

    lines = [part for line in lines_of(why) for part in textwrap.wrap(line, TEXT_WIDTH)]
    diffusion = why.diffusion is not None
    scores = [score for score in why.scores if score.drivers][:MOST_SCORES]
    last = [2.6] if scores or why.nearest is not None else []
    rows = [0.2 * len(lines) + 0.15, 3.7, *([3.4, 2.6] if diffusion else [_sample_inches(why)]), *last]
    figure = Figure(figsize=(WIDTH_INCHES, sum(rows)), layout="constrained", facecolor="white")
    parts = list(np.ravel(np.array(figure.subfigures(len(rows), 1, height_ratios=rows), object)))
    parts[0].text(0.01, 0.97, plain("\n".join(lines)), va="top", fontsize=10.5, linespacing=1.25)
    _draw_place(parts[1], why, slices)
    if diffusion:
        draw_profiles(parts[2], why)
        draw_discs(parts[3], why)
    else:
        draw_samples(parts[2], why)
    if last:
        _draw_drivers(parts[-1], why, scores)
    return figure


def _sample_inches(why: VoxelWhy) -> float:
    rows, columns = shape_of(why)
    # Pictures fill the width of the page, as far as that leaves its height within reason.
    return 0.5 + rows * (0.35 + min(PICTURE_INCHES, 0.9 * WIDTH_INCHES / columns, 2 * PICTURE_INCHES / rows))


def _draw_place(part: SubFigure, why: VoxelWhy, slices: Slices) -> None:
    """Draw the three slices, and where the voxel's score lies among those of its scan."""
    axes = part.subplots(1, 4, width_ratios=(1, 1, 1, 1.25))
    first = next(score for score in why.scores if score.score == slices.name)
    grey, ends = ends_of(slices, first.value)
    for place, cut in zip(axes, cuts_through(slices, why.mm), strict=False):
        shown = draw_cut(place, cut, grey, ends)
    bar = part.colorbar(shown, ax=axes[:3], orientation="horizontal", fraction=0.05, pad=0.02, shrink=0.4)
    bar.set_label(plain(f"{slices.name}, the highest 3 % of the brain"), fontsize=8)
    bar.ax.tick_params(labelsize=7)
    draw_standing(axes[3], first, slices)


def _draw_drivers(part: SubFigure, why: VoxelWhy, scores: Sequence[ScoreWhy]) -> None:
    """Draw what each score falls by when a group is as in the nearest normals, and who these are."""
    if why.nearest is None:
        _draw_table(part.subplots(1, 1), scores, why.groups)
        return
    left, right = part.subplots(1, 2, width_ratios=(1.35, 1))
    if scores:
        _draw_table(left, scores, why.groups)
    else:
        _say(left, "No score here is one that the detector makes of this sample: none has drivers.")
    _say_nearest(right, why)


def _draw_table(axes: Axes, scores: Sequence[ScoreWhy], groups: Sequence[Group]) -> None:
    shares = np.array([[*shares_of(score), 0.0] for score in scores])
    axes.imshow(np.nan_to_num(shares), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        own, normal = scores[row].own, scores[row].as_normal
        text = "-" if np.isnan(share) else f"{share:.0%}".replace("%", " %")
        if column == len(groups):
            text = f"from {own:.3g} to {normal:.3g}"
        dark = abs(np.nan_to_num(share)) > DARK
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
    names = [*(plain(group.name) for group in groups), "all together"]
    axes.set_xticks(range(len(names)), names, fontsize=9)
    axes.set_yticks(range(len(scores)), [plain(score.score) for score in scores], fontsize=8)
    axes.set_title(
        "What drives each score: how far it comes back when only these channels are as in the nearest "
        "normals\n(100 %: as far as with all together; -: all together do not lower it)",
        fontsize=9,
    )
    axes.tick_params(length=0)


def shares_of(score: ScoreWhy) -> list[float]:
    """Return which share of the way to the value with all channels as normal each group alone brings a score.

    NaN where all channels together do not lower it.

    Examples:
        >>> from mednovelty.explaining.places import Standing
        >>> from mednovelty.explaining.voxel_parts import Driver
        >>> drivers = (Driver("b=0", 3.0), Driver("b=1000", 5.0))
        >>> shares_of(ScoreWhy("a", 4.0, Standing(1, 9, ""), own=4.0, as_normal=0.0, drivers=drivers))
        [0.25, -0.25]
    """
    if score.own is None or score.as_normal is None or score.as_normal >= score.own:
        return [float("nan")] * len(score.drivers)
    return [(score.own - driver.without) / (score.own - score.as_normal) for driver in score.drivers]


def _say_nearest(axes: Axes, why: VoxelWhy) -> None:
    assert why.nearest is not None
    rows = [["", "healthy scan", "x, y, z (mm)", f"distance ({why.nearest.between})"]]
    for number, normal in enumerate(why.nearest.normals, 1):
        place = "not kept" if normal.mm is None else ", ".join(f"{value:.0f}" for value in normal.mm)
        rows.append([str(number), plain(normal.scan or "not kept"), place, f"{normal.distance:.3g}"])
    table = axes.table(rows[1:], colLabels=rows[0], loc="upper center", cellLoc="left", edges="horizontal",
                       colWidths=[0.06, 0.42, 0.27, 0.25])  # fmt: skip
    table.auto_set_font_size(False)
    table.set_fontsize(8.5)
    table.scale(1, 1.25)
    axes.set_title("Nearest normals: where the most similar healthy samples lie", fontsize=9)
    axes.set_axis_off()


def _say(axes: Axes, words: str) -> None:
    axes.text(0.5, 0.5, textwrap.fill(words, 50), ha="center", va="center", fontsize=9, color="0.35")
    axes.set_axis_off()


__all__ = ["Slices", "draw_voxel", "shares_of", "voxel_figure"]
