"""Colours of maps and of clusters: for colour-blind eyes too, and never those of the grey below."""

from __future__ import annotations

import numpy as np

N_COLOURS = 256
_FIRST = 0.3
"""Where the colours of ``inferno`` begin: its black end would read as shadow on a grey background."""

SEGMENTS = ((86, 180, 233), (0, 158, 115), (255, 255, 255), (204, 121, 167), (0, 114, 178))
"""Okabe and Ito's colours that are not among those of a map."""


def map_colours() -> np.ndarray:
    """Return ``(256, 3)`` uint8, from the least novel that is shown to the most."""
    from matplotlib import colormaps

    shades = colormaps["inferno"](np.linspace(_FIRST, 1, N_COLOURS))[:, :3]
    return np.rint(255 * shades).astype(np.uint8)


def colour_table() -> str:
    """Return the colours as 3D Slicer reads them: ``index name R G B A``; all are opaque."""
    rows = [f"{n} {n} {r} {g} {b} 255" for n, (r, g, b) in enumerate(map_colours().tolist())]
    return "\n".join([f"# Colours of novelty maps, {N_COLOURS} values", *rows]) + "\n"


def segment_colour(n: int) -> tuple[int, int, int]:
    """Return the colour of a cluster's segment, 0..255; clusters count from 1."""
    return SEGMENTS[(n - 1) % len(SEGMENTS)]


__all__ = ["N_COLOURS", "SEGMENTS", "colour_table", "map_colours", "segment_colour"]
