"""Which of a scan's samples shows one of its voxels, and where in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mednovelty.errors import GeometryError
from mednovelty.scan import Scan

HEIGHT_MM = 1000.0
"""Of a cone over the voxel, by which it is found in samples: larger than any head."""
AT_A_TIME = 32


def sample_showing(view: Any, scan: Scan, mm: np.ndarray) -> tuple[int, tuple[int, ...]]:
    """Return the sample in which a place lies nearest to the middle, and its pixel there.

    What the view makes of a cone over the place tells, so that any view can be asked: the pixel nearest to
    the place is the highest, however samples are turned and interpolated.

    Args:
        view: That cuts the scan.
        scan: As it is cut, after all preprocessing.
        mm: ``(3,)`` in the world.

    Raises:
        GeometryError: No sample shows it (``geometry.outside``).
    """
    places = np.argwhere(scan.mask.transpose(2, 1, 0))[:, ::-1]
    away_mm = np.linalg.norm(places @ scan.grid.affine[:3, :3].T + scan.grid.affine[:3, 3] - mm, axis=1)
    cone = np.maximum(HEIGHT_MM - away_mm, 1.0)[None].astype(np.float32)
    marked = replace(scan, stored=cone, scale=np.ones(1), offset=np.zeros(1), contrasts=(), gradients=None)
    on_nothing = view
    if hasattr(getattr(view, "settings", None), "background"):
        on_nothing = type(view)(replace(view.settings, background=0.0))
    heights, pixels, count = [], [], view.count(scan)
    for start in range(0, count, AT_A_TIME):
        samples = on_nothing.cut(marked, start, min(start + AT_A_TIME, count))[:, 0]
        flat = samples.reshape(len(samples), -1)
        heights.append(flat.max(1))
        pixels.append(np.stack(np.unravel_index(flat.argmax(1), samples.shape[1:]), axis=1))
    spacing_mm = np.array([*scan.grid.spacing_mm, *getattr(view, "spacing_mm", lambda scan: ())(scan)])
    if not heights or (top := np.concatenate(heights)).max() < HEIGHT_MM - 2 * spacing_mm.max():
        told = ", ".join(f"{value:.1f}" for value in mm)
        raise GeometryError(
            f"{scan.id}: no sample that the detector sees shows {told} mm; choose one that its maps cover",
            code="geometry.outside",
        )
    where = np.concatenate(pixels)
    middle = (np.array(view.shape(scan.n_channels)[1:]) - 1) / 2
    off_centre = np.linalg.norm((where - middle) / (middle + 0.5), axis=1)
    near = top >= top.max() - spacing_mm.min() / 4
    chosen = int(np.argmin(np.where(near, off_centre, np.inf)))
    return chosen, tuple(int(n) for n in where[chosen])


__all__ = ["sample_showing"]
