"""Where a voxel's score lies: among the voxels of its scan, and among those of healthy scans held out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mednovelty.explaining.voxel_parts import ScoreWhy
from mednovelty.report.cuts import Slices
from mednovelty.report.figures import HEALTHY_COLOUR, LESION_COLOUR
from mednovelty.report.mosaic import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 80
FARTHEST = 2.0
"""How far the axis follows the null beyond the scan's own values, in ranges of these."""
LOWEST = 0.5
"""Of the axis of counts, in voxels."""


def draw_standing(axes: Axes, score: ScoreWhy, slices: Slices) -> None:
    """Draw the scan's own voxels as bars, healthy ones as a line, and the part of these that is as high."""
    values = slices.score[slices.mask]
    edges = edges_of(values, score)
    axes.hist(values, bins=edges.tolist(), color="0.75", log=True, label="this scan's brain")
    lowest, words = LOWEST, "no calibration by healthy scans"
    if score.p_value is not None:
        words = f"p = {score.p_value:.2g} among healthy scans held out"
    if score.null is not None:
        expected = -np.diff(score.null.share(edges)) * values.size
        as_high = max(0, int(np.searchsorted(edges, score.value, "right")) - 1)
        healthy = f"healthy scans held out:\n{score.null.n:,} voxels, scaled to this scan's"
        healthy += "\n(last: and all that are higher)" if score.null.ends_early else ""
        axes.stairs(expected, edges, color=HEALTHY_COLOUR, linewidth=1.5, label=healthy)
        axes.stairs(expected[as_high:], edges[as_high:], fill=True, color=HEALTHY_COLOUR, alpha=0.45,
                    label="healthy and as high: p")  # fmt: skip
        lowest = min(LOWEST, LOWEST * values.size / score.null.n)
    axes.axvline(score.value, color=LESION_COLOUR, linewidth=2, label="this voxel")
    axes.set_ylim(bottom=lowest)
    stands = score.standing
    told = f"{score.score}\n{words}\nnumber {stands.above:,} of {stands.of:,} voxels of this scan"
    axes.set_title(plain(told), fontsize=9)
    axes.set_xlabel(plain(score.score), fontsize=8)
    axes.set_ylabel("voxels", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7.5, framealpha=0.85)


def edges_of(values: np.ndarray, score: ScoreWhy) -> np.ndarray:
    """Return the edges of bins over a scan's values, its voxel's, and, within limits, the null's."""
    low, high = min(float(values.min()), score.value), max(float(values.max()), score.value)
    if score.null is not None:
        farthest = (high - low) * (FARTHEST - 1)
        low = max(min(low, float(score.null.values[0])), low - farthest)
        high = min(max(high, float(score.null.values[-1])), high + farthest)
    pad = 0.02 * (high - low) or 1.0
    return np.linspace(low - pad, high + pad, BINS + 1)


__all__ = ["draw_standing", "edges_of"]
