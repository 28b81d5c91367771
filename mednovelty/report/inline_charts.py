"""Small charts as SVG: lines, bars and clouds of points that take a page's own colours, light or dark.

Text and axes have the colour of the text around them; no font, picture or address is asked for. What a chart
shows is said in words, ``alt``, for those who do not see it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mednovelty.text import printable

COLOURS = ("#3b8fd0", "#c9711a", "#1a9e77", "#b0679c", "#7f7f7f")
"""On white and on black alike, and for colour-blind eyes; after these they come again, dashed."""
SIZE = (560, 250)
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 10, 40
FONT = 13
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart.

    Attributes:
        name: For the legend; empty: it has no entry.
        points: x and y, finite, x ascending.
        dashed: Whether it is drawn so.
        colour: Which of ``COLOURS``; None: by its place.
    """

    name: str
    points: Points
    dashed: bool = False
    colour: int | None = None


@dataclass(frozen=True, slots=True)
class Marks:
    """What is written into a chart besides its lines.

    Attributes:
        x: Places along x with their names, as upright lines.
        y: The same along y, as level lines.
        point: A dot with its name, or None.
    """

    x: Sequence[tuple[float, str]] = ()
    y: Sequence[tuple[float, str]] = ()
    point: tuple[float, float, str] | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where numbers lie in the picture."""

    x: tuple[float, float]
    y: tuple[float, float]
    size: tuple[int, int] = field(default=SIZE)

    def across(self, value: float) -> float:
        share = (value - self.x[0]) / (self.x[1] - self.x[0])
        return round(LEFT + share * (self.size[0] - LEFT - RIGHT), 1)

    def down(self, value: float) -> float:
        share = (value - self.y[0]) / (self.y[1] - self.y[0])
        return round(self.size[1] - BOTTOM - share * (self.size[1] - TOP - BOTTOM), 1)


def chart(  # noqa: PLR0913 - what is drawn; the rest is by keyword
    lines: Sequence[Line],
    *,
    alt: str,
    x: str = "",
    y: str = "",
    marks: Marks | None = None,
    size: tuple[int, int] = SIZE,
    ends: tuple[float, float] | None = None,
    power_of_ten: bool = False,
) -> str:
    """Return lines over an axis as SVG.

    Args:
        lines: Those without a point are left out.
        alt: What the chart shows, with numbers.
        x: What runs to the right.
        y: What runs upwards.
        marks: What is written into it.
        size: Width and height; the text is made for about 560 pixels.
        ends: Of y; None: those of the lines, and of what is marked.
        power_of_ten: Whether y are logarithms, and ticks say of what.
    """
    marks = marks or Marks()
    known = [line for line in lines if len(line.points)]
    xs = [p[0] for line in known for p in line.points] + [at for at, _ in marks.x]
    ys = [p[1] for line in known for p in line.points] + [at for at, _ in marks.y]
    frame = _Frame(apart(xs), apart(ys) if ends is None else ends, size)
    parts = [*_axes(frame, x, y, power_of_ten), *_marked(frame, marks)]
    for number, line in enumerate(known):
        colour = COLOURS[(number if line.colour is None else line.colour) % len(COLOURS)]
        dash = ' stroke-dasharray="6 4"' if line.dashed or number >= len(COLOURS) else ""
        way = "L".join(f"{frame.across(a):g} {_held(frame, b):g}" for a, b in line.points)
        if len(line.points) == 1:
            way += "h0.01"
        parts.append(
            f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round" '
            f'stroke-linecap="round"{dash}/>'
        )
    if marks.point is not None:
        a, b, name = marks.point
        parts.append(f'<circle cx="{frame.across(a):g}" cy="{_held(frame, b):g}" r="5" fill="currentColor">'
                     f"<title>{_safe(name)}</title></circle>")  # fmt: skip
    return _svg(parts, size, alt) + _legend(known, marks.point)


def bars(
    counts: Sequence[float] | np.ndarray,
    ends: tuple[float, float],
    *,
    alt: str,
    size: tuple[int, int] = (420, 110),
) -> str:
    """Return a histogram as SVG; heights are roots of counts, so that tails are seen.

    Args:
        counts: Of bins of one width.
        ends: Where the first begins and the last ends.
        alt: What it shows, with numbers.
        size: Width and height.
    """
    width, height = size[0] / max(len(counts), 1), size[1] - 20
    most = max(float(np.max(counts)) if len(counts) else 0.0, 1.0)
    parts = []
    for number, count in enumerate(counts):
        tall = height * math.sqrt(float(count) / most)
        if tall > 0:
            parts.append(f'<rect x="{number * width:.1f}" y="{height - tall:.1f}" width="{width * 0.9:.1f}" '
                         f'height="{tall:.1f}" fill="{COLOURS[0]}"/>')  # fmt: skip
    for at, anchor, value in ((0, "start", ends[0]), (size[0], "end", ends[1])):
        parts.append(_text(at, size[1] - 4, f"{value:.4g}", anchor))
    return _svg(parts, size, alt)


def cloud(  # noqa: PLR0913 - what is drawn; the rest is by keyword
    points: np.ndarray,
    *,
    alt: str,
    x: str = "",
    y: str = "",
    more: np.ndarray | None = None,
    names: tuple[str, str] = ("", ""),
    size: tuple[int, int] = (480, 420),
) -> str:
    """Return points of the plane as SVG, with one scale for both axes.

    Args:
        points: ``(n, 2)``.
        alt: What they show, with numbers.
        x: What runs to the right.
        y: What runs upwards.
        more: ``(m, 2)`` of another kind, drawn over them; None: there are none.
        names: Of both kinds, for the legend.
        size: Width and height.
    """
    every = points if more is None else np.concatenate([points, more])
    frame = _alike(every, size)
    parts = _axes(frame, x, y, False)
    kinds = [points] if more is None else [points, more]
    for number, (kind, colour) in enumerate(zip(kinds, COLOURS, strict=False)):
        way = "".join(f"M{frame.across(a):g} {frame.down(b):g}h0" for a, b in kind.tolist())
        parts.append(
            f'<path d="{way}" stroke="{colour}" stroke-width="{3 if number == 0 else 4}" '
            f'stroke-linecap="round" stroke-opacity="{0.45 if number == 0 else 0.8}"/>'
        )
    lines = [Line(name, [(0, 0)]) for name, kind in zip(names, kinds, strict=False) if name and len(kind)]
    return _svg(parts, size, alt) + _legend(lines, None)


def apart(values: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest value, or ends around them where they are one.

    Examples:
        >>> apart([3.0, 1.0, 2.0]), apart([2.0]), apart([])
        ((1.0, 3.0), (1.5, 2.5), (0.0, 1.0))
    """
    if not len(values):
        return 0.0, 1.0
    low, high = float(min(values)), float(max(values))
    if high > low:
        return low, high
    around = 0.5 * max(1.0, abs(low) * 1e-6)
    return low - around, high + around


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers between two ends, at most so many.

    Examples:
        >>> ticks(0.0, 1.0), ticks(-38.6, 12.0)
        ([0.0, 0.25, 0.5, 0.75, 1.0], [-20.0, 0.0])
        >>> ticks(0, 53)
        [0.0, 20.0, 40.0]
    """
    rough = (high - low) / max(most - 1, 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(step * unit for step in (1, 2, 2.5, 5, 10, 20) if step * unit >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _alike(points: np.ndarray, size: tuple[int, int]) -> _Frame:
    """Return a frame in which a step to the right is as long as one upwards."""
    low, high = points.min(0), points.max(0)
    middle, room = (low + high) / 2, np.array([size[0] - LEFT - RIGHT, size[1] - TOP - BOTTOM])
    half = float(max(((high - low) / room).max(), 1e-12)) * room / 2 * 1.04
    ends = [(float(m - h), float(m + h)) for m, h in zip(middle, half, strict=True)]
    return _Frame(ends[0], ends[1], size)


def _axes(frame: _Frame, x: str, y: str, power_of_ten: bool) -> list[str]:
    width, height = frame.size
    base, top = height - BOTTOM, TOP
    parts = [
        f'<path d="M{LEFT} {top}V{base}H{width - RIGHT}" fill="none" stroke="currentColor" opacity="0.6"/>'
    ]
    for value in ticks(*frame.x):
        parts.append(_text(frame.across(value), base + 16, f"{value:.6g}", "middle"))
    for value in ticks(*frame.y):
        at = frame.down(value)
        parts.append(f'<path d="M{LEFT} {at:g}H{width - RIGHT}" stroke="currentColor" opacity="0.15"/>')
        shown = f"{10.0**value:.3g}" if power_of_ten else f"{value:.6g}"
        parts.append(_text(LEFT - 5, at + 4, shown, "end"))
    parts.append(_text((LEFT + width - RIGHT) / 2, height - 6, x, "middle"))
    middle = (top + base) / 2
    turned = f' transform="rotate(-90 13 {middle:g})"'
    return [*parts, _text(13, middle, y, "middle", turned)]


def _marked(frame: _Frame, marks: Marks) -> list[str]:
    width, height = frame.size
    way, parts = 'stroke="currentColor" stroke-dasharray="3 3" opacity="0.7"', []
    for value, name in marks.x:
        at = frame.across(value)
        left = at > (LEFT + width) / 2
        parts += [f'<path d="M{at:g} {TOP}V{height - BOTTOM}" {way}/>',
                  _text(at + (-4 if left else 4), TOP + 12, name, "end" if left else "start")]  # fmt: skip
    for value, name in marks.y:
        at = frame.down(value)
        below = at < TOP + 20
        parts += [f'<path d="M{LEFT} {at:g}H{width - RIGHT}" {way}/>',
                  _text(width - RIGHT - 4, at + (14 if below else -5), name, "end")]  # fmt: skip
    return parts


def _held(frame: _Frame, value: float) -> float:
    """Return where a value lies; beyond the ends, at the ends."""
    return frame.down(min(max(value, frame.y[0]), frame.y[1]))


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    if not text:
        return ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{more}>{_safe(text)}</text>'


def _legend(lines: Sequence[Line], point: tuple[float, float, str] | None) -> str:
    entries = [
        f'<span style="white-space:nowrap"><span style="color:{colour}" aria-hidden="true">'
        f"{'&#9473; &#9473;' if line.dashed else '&#9473;&#9473;'}</span> {_safe(line.name)}</span>"
        for number, line in enumerate(lines)
        if line.name
        for colour in [COLOURS[(number if line.colour is None else line.colour) % len(COLOURS)]]
    ]
    if point is not None:
        entries.append(f'<span style="white-space:nowrap">&#9679; {_safe(point[2])}</span>')
    return f'<div style="font-size:0.9em">{" &emsp;".join(entries)}</div>' if entries else ""


def _svg(parts: Sequence[str], size: tuple[int, int], alt: str) -> str:
    told = _safe(alt)
    return (
        f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{told}" '
        f'style="width:100%;max-width:{size[0]}px;height:auto" font-size="{FONT}" '
        f'font-family="sans-serif"><title>{told}</title><g fill="currentColor">{"".join(parts)}</g></svg>'
    )


def _safe(text: str) -> str:
    return html.escape(printable(text))


__all__ = ["COLOURS", "Line", "Marks", "apart", "bars", "chart", "cloud", "ticks"]
