"""``clusters.tsv``: what is told of each cluster of a map, one a line; ``n/a`` is what is not known."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from mednovelty.segment.clusters import Cluster
from mednovelty.text import cell

COLUMNS = ("cluster", "voxels", "volume_mm3", "peak_x_mm", "peak_y_mm", "peak_z_mm", "centroid_x_mm",
           "centroid_y_mm", "centroid_z_mm", "mean", "max", "p_peak", "p_cluster")  # fmt: skip
REGIONS = ("region", "region_share", "regions")
"""With an atlas: where most of its voxels lie, their share, and all regions with their shares."""


def clusters_tsv(clusters: Iterable[Cluster], *, with_atlas: bool = False) -> str:
    """Return the table; places are in RAS+ mm, ``cluster`` is the number in the label image."""
    lines = [[*COLUMNS, *(REGIONS if with_atlas else ())]]
    for one in clusters:
        row = (one.label, one.voxels, one.volume_mm3, *one.peak_mm, *one.centroid_mm, one.mean, one.maximum,
               one.p_peak, one.p_cluster)  # fmt: skip
        lines.append([number(value) for value in row] + (_regions(one) if with_atlas else []))
    return "".join("\t".join(line) + "\n" for line in lines)


def _regions(one: Cluster) -> list[str]:
    if not one.regions:
        return ["n/a"] * len(REGIONS)
    (name, share), all_of_them = one.regions[0], [f"{cell(n)} {100 * s:.3g}%" for n, s in one.regions]
    return [cell(name), number(share), "; ".join(all_of_them)]


def number(value: Any) -> str:
    """Return a number as a cell; ``n/a`` for None, NaN and infinities.

    Examples:
        >>> number(0.125), number(None), number(12), number(float("nan")), number(-0.0)
        ('0.125', 'n/a', '12', 'n/a', '0')
    """
    if value is None or not math.isfinite(value):
        return "n/a"
    return str(value) if isinstance(value, int) else f"{value + 0.0:.7g}"


__all__ = ["COLUMNS", "REGIONS", "clusters_tsv", "number"]
