"""Charts as SVG in a page: sharp in print, in the page's own colours, light and dark; no drawing library.

Colours are those of Okabe and Ito, which people who are colour-blind tell apart, darker on white and lighter
on black; lines of the same chart also differ in their labels, which stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

import numpy as np

from mednovelty.text import printable

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 640.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 72.0, 14.0, 10.0, 44.0
COLOURS = 7
LEGEND_LINE = 18.0
MOST_POINTS = 1500
"""Of a line; more cannot be told apart at this width."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One line, area or set of points.

    Attributes:
        label: In the legend; empty: not there.
        x: ``(n,)``.
        y: ``(n,)``; where it is not finite there is a gap.
        colour: 0 to 6.
        kind: ``area`` is filled down to the axis, ``bars`` too, each on its own, ``steps`` holds each value
            until the next x.
        dashed: Of lines.
    """

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    colour: int = 0
    kind: Literal["line", "steps", "area", "bars", "points"] = "line"
    dashed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """What is drawn.

    Attributes:
        alt: What it shows, with numbers, for those who do not see it.
        x_label: With the unit.
        y_label: With the unit.
        series: Later ones lie over earlier ones.
        log_x: Whether the axis is logarithmic; what is not above 0 is left out.
        log_y: As ``log_x``.
        marks: ``(x, label)`` of vertical lines.
        x_range: Ends of the axis; None: those of the data.
        y_range: As ``x_range``.
    """

    alt: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False
    marks: Sequence[tuple[float, str]] = ()
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    y_ticks: bool = True
    """Whether numbers stand beside the vertical axis; where it only keeps points apart they say nothing."""


def chart_svg(chart: Chart) -> Markup:
    """Return a chart as SVG that stands in a page, and scrolls on narrow screens; its texts are escaped."""
    from markupsafe import Markup

    x = _Axis.over([s.x for s in chart.series], chart.x_range, chart.log_x, (LEFT, WIDTH - RIGHT))
    y = _Axis.over([s.y for s in chart.series], chart.y_range, chart.log_y, (HEIGHT - BOTTOM, TOP))
    named = [s for s in chart.series if s.label]
    height = HEIGHT + LEGEND_LINE * len(named)
    parts = [
        f'<div class="wide"><svg class="chart" role="img" aria-label="{_text(chart.alt)}" '
        f'viewBox="0 0 {WIDTH:g} {height:g}" '
        'preserveAspectRatio="xMinYMin meet">',
        f"<title>{_text(chart.alt)}</title>",
        *_frame(chart, x, y),
        *(_drawn(series, x, y) for series in chart.series),
        *(part for at, label in chart.marks for part in _mark(at, label, x)),
        *(part for line, series in enumerate(named) for part in _legend(series, line)),
        "</svg></div>",
    ]
    return Markup("".join(parts))


@dataclass(frozen=True, slots=True)
class _Axis:
    """From numbers to places: ``ends`` of the numbers, already logarithms where ``log``."""

    ends: tuple[float, float]
    log: bool
    span: tuple[float, float]

    @classmethod
    def over(
        cls,
        values: Sequence[Sequence[float] | np.ndarray],
        ends: tuple[float, float] | None,
        log: bool,
        span: tuple[float, float],
    ) -> _Axis:
        joined = np.concatenate([np.asarray(v, np.float64).ravel() for v in values] or [np.zeros(0)])
        if ends is not None:
            joined = np.asarray(ends, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            joined = np.log10(joined) if log else joined
        known = joined[np.isfinite(joined)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        if high <= low:
            low, high = low - 0.5 * max(1.0, abs(low)) * (not log), high + 0.5 * max(1.0, abs(high))
        return cls((low, high), log, span)

    def place(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        wide = np.asarray(values, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            wide = np.log10(wide) if self.log else wide
        wide = np.where(np.isfinite(wide), np.clip(wide, *self.ends), np.nan)
        share = (wide - self.ends[0]) / (self.ends[1] - self.ends[0])
        return self.span[0] + share * (self.span[1] - self.span[0])

    def ticks(self) -> list[tuple[float, str]]:
        """Return numbers in the axis's own unit, and what stands beside them."""
        if self.log:
            first, last = math.ceil(self.ends[0] - 1e-9), math.floor(self.ends[1] + 1e-9)
            every = max(1, -(-(last - first + 1) // 7))
            found = range(first, last + 1, every)
            return [(10.0**power, _short(10.0**power)) for power in found]
        step = _step((self.ends[1] - self.ends[0]) / 5)
        first = math.ceil(self.ends[0] / step - 1e-9)
        last = math.floor(self.ends[1] / step + 1e-9)
        return [(n * step, _short(n * step)) for n in range(first, last + 1)]


def _step(rough: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at least ``rough``.

    Examples:
        >>> _step(0.13), _step(3.0), _step(70.0)
        (0.2, 5.0, 100.0)
    """
    power = 10.0 ** math.floor(math.log10(rough))
    return next(n * power for n in (1.0, 2.0, 5.0, 10.0) if n * power >= rough * (1 - 1e-9))


def _short(value: float) -> str:
    return f"{value:.6g}" if 1e-4 <= abs(value) < 1e6 or abs(value) < 1e-300 else f"{value:.0e}"


def _frame(chart: Chart, x: _Axis, y: _Axis) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value, label in x.ticks():
        at = x.place([value])[0]
        parts.append(f'<path class="grid" d="M{at:.1f} {TOP:g}V{bottom:g}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 15:g}" text-anchor="middle">{_text(label)}</text>')
    for value, label in y.ticks() if chart.y_ticks else ():
        at = y.place([value])[0]
        parts.append(f'<path class="grid" d="M{LEFT:g} {at:.1f}H{right:g}"/>')
        parts.append(f'<text x="{LEFT - 6:g}" y="{at + 4:.1f}" text-anchor="end">{_text(label)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT:g} {TOP:g}V{bottom:g}H{right:g}"/>')
    middle = (LEFT + right) / 2
    below, beside = _text(chart.x_label), _text(chart.y_label)
    parts.append(f'<text x="{middle:g}" y="{bottom + 34:g}" text-anchor="middle">{below}</text>')
    up = (TOP + bottom) / 2
    parts.append(f'<text transform="translate(13 {up:g}) rotate(-90)" text-anchor="middle">{beside}</text>')
    return parts


def _drawn(series: Series, x: _Axis, y: _Axis) -> str:
    across, up = _thinned(x.place(series.x), y.place(series.y))
    colour = series.colour % COLOURS
    good = np.isfinite(across) & np.isfinite(up)
    if series.kind == "points":
        dots = zip(across[good], up[good], strict=True)
        return "".join(f'<circle class="dot f{colour}" cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>' for a, b in dots)
    if series.kind == "bars":
        half = 0.5 * float(np.median(np.diff(across))) if len(across) > 1 else 4.0
        path = "".join(
            f"M{a - half:.1f} {y.span[0]:.1f}V{b:.1f}H{a + half:.1f}V{y.span[0]:.1f}Z"
            for a, b in zip(across[good], up[good], strict=True)
        )
        return f'<path class="area f{colour}" d="{path}"/>'
    runs = [_run(across[run], up[run], series.kind) for run in _runs(good)]
    if series.kind == "area":
        floor = y.span[0]
        closed = [f"{d}L{across[run][-1]:.1f} {floor:.1f}L{across[run][0]:.1f} {floor:.1f}Z"
                  for d, run in zip(runs, _runs(good), strict=True)]  # fmt: skip
        fill = f'<path class="area f{colour}" d="{"".join(closed)}"/>'
        return fill + f'<path class="data c{colour}" d="{"".join(runs)}"/>'
    dashed = " dashed" if series.dashed else ""
    return f'<path class="data c{colour}{dashed}" d="{"".join(runs)}"/>'


def _thinned(across: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(across) <= MOST_POINTS:
        return across, up
    kept = np.unique(np.linspace(0, len(across) - 1, MOST_POINTS).round().astype(int))
    return across[kept], up[kept]


def _runs(good: np.ndarray) -> list[slice]:
    """Return where values stand one after another without a gap."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good.astype(np.int8), [0]])))
    return [slice(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _run(across: np.ndarray, up: np.ndarray, kind: str) -> str:
    places = [f"{a:.1f} {b:.1f}" for a, b in zip(across, up, strict=True)]
    if kind != "steps":
        return "M" + "L".join(places)
    return f"M{places[0]}" + "".join(f"H{a:.1f}V{b:.1f}" for a, b in zip(across[1:], up[1:], strict=True))


def _mark(at: float, label: str, x: _Axis) -> list[str]:
    place = float(x.place([at])[0])
    if not math.isfinite(place):
        return []
    left = place > WIDTH * 0.6
    beside, anchor = (place - 5, "end") if left else (place + 5, "start")
    return [
        f'<path class="axis dashed" d="M{place:.1f} {TOP:g}V{HEIGHT - BOTTOM:g}"/>',
        f'<text x="{beside:.1f}" y="{TOP + 12:g}" text-anchor="{anchor}">{_text(label)}</text>',
    ]


def _legend(series: Series, line: int) -> list[str]:
    up = HEIGHT + LEGEND_LINE * line + 4
    colour = series.colour % COLOURS
    if series.kind == "points":
        sign = f'<circle class="dot f{colour}" cx="{LEFT + 11:g}" cy="{up:g}" r="3.5"/>'
    else:
        area = f'<rect class="area f{colour}" x="{LEFT:g}" y="{up - 4:g}" width="22" height="8"/>'
        dashed = " dashed" if series.dashed else ""
        sign = area * (series.kind in ("area", "bars"))
        if series.kind != "bars":
            sign += f'<path class="data c{colour}{dashed}" d="M{LEFT:g} {up:g}h22"/>'
    return [sign, f'<text x="{LEFT + 30:g}" y="{up + 4:g}">{_text(series.label)}</text>']


def _text(text: str) -> str:
    return escape(printable(text))


__all__ = ["Chart", "Series", "chart_svg"]
