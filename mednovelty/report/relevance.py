"""Where relevance lies: over a scan's slices, and, of a diffusion scan, over shells and directions.

Directions are points of half a sphere, seen from above (Lambert's projection, equal areas): the middle is the
world's z, the rim the plane of x, to the right, and y, to the front. Opposite directions are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.explaining.scans import ScanRelevance
from mednovelty.explaining.tables import MOST_NOVEL, GradientRelevance
from mednovelty.report.figures import HEALTHY_COLOUR, LESION_COLOUR, save_figure
from mednovelty.report.mosaic import MapLayers, MosaicSettings, mosaic_figure, plain
from mednovelty.scan import Scan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_relevance(
    found: ScanRelevance, scan: Scan, start: Path, region: np.ndarray | None = None
) -> list[Path]:
    """Draw the map over the scan, and the gradients of a diffusion scan; return the pictures.

    Args:
        found: Of the scan.
        scan: As it was given.
        start: How names begin; ``.png`` and ``-gradients.png`` follow.
        region: ``(I, J, K)`` bool: of which voxels tables tell, outlined.

    Raises:
        OutputError: A picture cannot be written.
    """
    layers = MapLayers(scan.background, found.volume.data[0], scan.mask, scan.grid.affine, region)
    title = f"{found.scan_id}, relevance for {found.score}. {found.rule}"
    settings = MosaicSettings(title=title, label="relevance", n_slices=12)
    drawn = [save_figure(mosaic_figure(layers, settings), start.with_name(start.name + ".png"))]
    if found.gradients:
        where = "all voxels of the mask" if region is None else f"{int((region & scan.mask).sum()):,} voxels"
        figure = gradients_figure(found, title, where)
        drawn.append(save_figure(figure, start.with_name(start.name + "-gradients.png")))
    return drawn


def gradients_figure(found: ScanRelevance, title: str, where: str) -> Figure:
    """Draw mean relevance by shell, beside that of each direction of each shell.

    Args:
        found: Of a diffusion scan.
        title: Above it.
        where: Over which voxels means are taken, in words.
    """
    from matplotlib.figure import Figure

    # A b=0 has no direction.
    shells = [row.shell_s_per_mm2 for row in found.shells if row.shell_s_per_mm2]
    figure = Figure(figsize=(5.2 + 3.6 * len(shells), 4.4), layout="constrained")
    axes = figure.subplots(1, 1 + len(shells), squeeze=False)[0]
    _draw_shells(axes[0], found, where)
    rows = {shell: [row for row in found.gradients if row.shell_s_per_mm2 == shell] for shell in shells}
    all_of = [row.mean_relevance_most_novel for own in rows.values() for row in own]
    high = max(map(abs, all_of), default=0.0) or 1.0
    signed = min(all_of, default=0.0) < 0
    dots = None
    for place, (shell, own) in zip(axes[1:], rows.items(), strict=True):
        dots = _draw_directions(place, own, (-high if signed else 0.0, high))
        place.set_title(f"b={shell}: {len(own)} directions")
    if dots is not None:
        bar = figure.colorbar(dots, ax=list(axes[1:]), shrink=0.8)
        bar.set_label(f"mean relevance, the {MOST_NOVEL:.0%} most novel voxels")
    figure.suptitle(plain(title), fontsize=10)
    return figure


def on_disc(directions: np.ndarray) -> np.ndarray:
    """Return ``(n, 2)`` places within a disc of radius 1 for ``(n, 3)`` unit directions, opposites as one.

    Examples:
        >>> (on_disc(np.array([[0.0, 0, -1], [1, 0, 0]])) + 0).round(3).tolist()
        [[0.0, 0.0], [1.0, 0.0]]
    """
    up = np.where(directions[:, 2:] < 0, -directions, directions)
    return up[:, :2] / np.sqrt(1 + np.abs(up[:, 2:]))


def _draw_shells(axes: Axes, found: ScanRelevance, where: str) -> None:
    at = np.arange(len(found.shells))
    kinds = (
        (-0.2, [row.mean_relevance for row in found.shells], HEALTHY_COLOUR, where),
        (0.2, [row.mean_relevance_most_novel for row in found.shells], LESION_COLOUR,
         f"the {MOST_NOVEL:.0%} most novel of these"),
    )  # fmt: skip
    for shift, heights, colour, label in kinds:
        axes.bar(at + shift, heights, 0.4, color=colour, label=label)
    axes.set_xticks(
        at,
        [
            f"b={row.shell_s_per_mm2}\n{row.gradients} gradient{'s' * (row.gradients > 1)}"
            for row in found.shells
        ],
    )
    axes.set_ylabel("mean relevance of a gradient")
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.margins(y=0.2)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _draw_directions(axes: Axes, rows: Sequence[GradientRelevance], ends: tuple[float, float]) -> Any:
    from matplotlib.patches import Circle

    places = on_disc(np.array([(row.x, row.y, row.z) for row in rows]))
    values = [row.mean_relevance_most_novel for row in rows]
    colours = "RdBu_r" if ends[0] < 0 else "viridis"
    axes.add_patch(Circle((0, 0), 1, fill=False, color="0.6", linewidth=0.8))
    dots = axes.scatter(places[:, 0], places[:, 1], c=values, cmap=colours, vmin=ends[0], vmax=ends[1], s=90,
                        edgecolors="0.3", linewidths=0.5)  # fmt: skip
    for x, y, name in ((1.12, 0, "R"), (-1.12, 0, "L"), (0, 1.12, "A"), (0, -1.12, "P")):
        axes.text(x, y, name, ha="center", va="center", fontsize=8, color="0.4")
    axes.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal")
    axes.set_axis_off()
    return dots


__all__ = ["draw_relevance", "gradients_figure", "on_disc"]
