"""The module's icon: a brain's outline in grey, and in it one spot in the colours of maps."""

from __future__ import annotations

import numpy as np

from mednovelty.viewers.colours import map_colours

ICON_PIXELS = 64
_FINER = 4
"""Drawn so many times larger, for smooth edges."""
_GREY = (138, 146, 158)
"""Seen on the light and the dark windows of 3D Slicer."""


def icon() -> np.ndarray:
    """Return the icon as RGBA, ``(64, 64, 4)`` uint8."""
    size = ICON_PIXELS * _FINER
    across = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = across[None, :], across[:, None]
    head = np.hypot(x / 0.78, y / 0.94)
    # The two halves, apart by a line from front to back.
    shown = (head <= 1) & ((head >= 0.86) | (np.abs(x) <= 0.035))
    picture = np.zeros((size, size, 4))
    picture[shown] = (*_GREY, 255)
    apart = np.hypot(x - 0.33, y + 0.22) / 0.3
    colours = map_colours()
    step = np.clip((1 - apart) * (len(colours) - 1), 0, len(colours) - 1).astype(int)
    spot = apart <= 1
    picture[spot, :3], picture[spot, 3] = colours[step[spot]], 255
    return _smaller(picture)


def _smaller(picture: np.ndarray) -> np.ndarray:
    """Return the mean of each square of pixels; colours count by how opaque they are."""
    opaque = picture[..., 3:] / 255
    whole = np.concatenate([picture[..., :3] * opaque, opaque], axis=2)
    squares = whole.reshape(ICON_PIXELS, _FINER, ICON_PIXELS, _FINER, 4).mean(axis=(1, 3))
    colour = squares[..., :3] / np.maximum(squares[..., 3:], 1e-9)
    return np.rint(np.concatenate([colour, 255 * squares[..., 3:]], axis=2)).astype(np.uint8)


__all__ = ["ICON_PIXELS", "icon"]
