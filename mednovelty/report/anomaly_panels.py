"""Planted anomalies to look at: each row a sample as it was, with an anomaly, what changed, and the truth.

Samples lie with their axes to the right, the front and up; drawn as in ``mosaic``: the patient's right on the
left, the front on top.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import SettingsError
from mednovelty.report.mosaic import outline, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES, CAPTION_INCHES = 2.0, 0.42
DPI = 110
COLUMNS = ("as it was", "planted", "difference", "truth")
PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One sample before and after, as a picture.

    Attributes:
        title: Whose it is and what of it is shown.
        before: ``(X, Y)``, to the right and to the front.
        after: ``(X, Y)``.
        truth: ``(X, Y)`` bool.
        mask: ``(X, Y)`` bool.
        aspect: Spacing along Y over that along X.
    """

    title: str
    before: np.ndarray
    after: np.ndarray
    truth: np.ndarray
    mask: np.ndarray
    aspect: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """The samples of one family, and what it plants in words."""

    caption: str
    pairs: Sequence[Pair]


def anomalies_figure(families: Sequence[Family], title: str) -> Figure:
    """Draw families below one another.

    Args:
        families: At least one, each with a sample.
        title: Above everything.

    Raises:
        SettingsError: There is nothing to draw.
    """
    from matplotlib.figure import Figure

    if not families or not all(family.pairs for family in families):
        raise SettingsError("there is no sample to plant anomalies in; are the scans' masks very small?")
    tall = [pair.aspect * pair.before.shape[1] / pair.before.shape[0]
            for family in families for pair in family.pairs]  # fmt: skip
    pictures = [WIDTH_INCHES * float(np.clip(ratio, 0.4, 2.5)) + 0.16 for ratio in tall]
    heights = iter(pictures)
    total = sum(pictures) + CAPTION_INCHES * len(families) + 0.3
    figure = Figure(figsize=(WIDTH_INCHES * len(COLUMNS), total), facecolor="black")
    figure.text(0.005, 1 - 0.06 / total, plain(title), color="white", fontsize=7, va="top")
    top = total - 0.3
    for family in families:
        caption = "\n".join(textwrap.wrap(plain(family.caption), 150)[:3])
        figure.text(0.005, (top - 0.02) / total, caption, color="#ffd166", fontsize=6.5, va="top")
        top -= CAPTION_INCHES
        for pair in family.pairs:
            height = next(heights)
            top -= height
            _draw(figure, pair, top / total, (height - 0.16) / total)
    return figure


def _draw(figure: Figure, pair: Pair, bottom: float, height: float) -> None:
    inside = pair.before[pair.mask] if pair.mask.any() else pair.before.ravel()
    low, high = (float(end) for end in np.percentile(inside, PERCENTILES))
    span = max(high - low, 1e-6)
    change = np.where(pair.mask, pair.after - pair.before, 0)
    width = 1 / len(COLUMNS)
    places: list[Axes] = [
        figure.add_axes((width * number + 0.002, bottom, width - 0.004, height))
        for number in range(len(COLUMNS))
    ]
    small: dict[str, Any] = {"color": "white", "fontsize": 6}
    for place, name in zip(places, COLUMNS, strict=True):
        place.set_axis_off()
        place.set_title(plain(f"{pair.title}, {name}" if name == COLUMNS[0] else name), pad=1.5, **small)
    colours = _diverging()
    images = (pair.before, pair.after, change, pair.before)
    for place, image in zip(places, images, strict=True):
        grey = image is not change
        # Outside the mask there is nothing to see: left black.
        shown = np.ma.masked_where(~_upright(pair.mask), _upright(image))
        ends = (low, low + span) if grey else (-span, span)
        place.imshow(shown, cmap="gray" if grey else colours, vmin=ends[0], vmax=ends[1],
                     interpolation="nearest", aspect=pair.aspect)  # fmt: skip
    outline(places[3], _upright(pair.truth))


def _diverging() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    # Black where nothing changed, as all around.
    return LinearSegmentedColormap.from_list(
        "change", ["#80d8ff", "#1565c0", "#161616", "#c62828", "#ffd180"]
    )


def _upright(image: np.ndarray) -> np.ndarray:
    """Return ``(H, W)``: the front on top, the patient's right on the left."""
    return image.T[::-1, ::-1]


__all__ = ["DPI", "Family", "Pair", "anomalies_figure"]
