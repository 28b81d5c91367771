"""Pictures the size of a few words, as SVG that needs no page around it: for notebooks.

Text has the colour of the text around it, bars and lines have colours that are seen on white and on black
and by colour-blind eyes. What a picture shows is said in words, for those who do not see it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np

from mednovelty.text import printable

COLOURS = ("#c9711a", "#3b8fd0")
WIDTH, HEIGHT, FOOT = 420, 90, 18
Points = Sequence[tuple[float, float]]


def histogram_spark(counts: Sequence[float] | np.ndarray, ends: tuple[float, float], alt: str) -> str:
    """Return a histogram; heights are roots of counts, so that tails are seen.

    Args:
        counts: Of bins of one width.
        ends: Where the first begins and the last ends.
        alt: What it shows, with numbers.
    """
    wide = WIDTH / len(counts)
    most = max(float(np.max(counts)), 1.0)
    heights = [HEIGHT * math.sqrt(float(count) / most) for count in counts]
    parts = [
        f'<rect x="{number * wide:.1f}" y="{HEIGHT - tall:.1f}" width="{wide * 0.9:.1f}" '
        f'height="{tall:.1f}" fill="{COLOURS[1]}"/>'
        for number, tall in enumerate(heights)
        if tall > 0
    ]
    return _svg(parts, [f"{end:.4g}" for end in ends], alt)


def lines_spark(lines: Sequence[Points], foot: tuple[str, str], alt: str) -> str:
    """Return up to two lines on one scale, the last drawn over the first.

    Args:
        lines: Points of each, x ascending; those without a point are left out.
        foot: What stands below, on the left and on the right.
        alt: What they show, with numbers.
    """
    every = np.array([point for line in lines for point in line], np.float64)
    low, high = every.min(0), every.max(0)
    span = np.where(high > low, high - low, 1.0)
    parts = []
    for line, colour in zip(lines, COLOURS, strict=False):
        places = (np.array(line, np.float64).reshape(-1, 2) - low) / span
        way = "L".join(f"{3 + x * (WIDTH - 6):.1f} {HEIGHT - 3 - y * (HEIGHT - 6):.1f}" for x, y in places)
        if way:
            parts.append(f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return _svg(parts, foot, alt)


def _svg(parts: Sequence[str], foot: Sequence[str], alt: str) -> str:
    told = html.escape(printable(alt))
    texts = [
        f'<text x="{x}" y="{HEIGHT + FOOT - 4}" text-anchor="{anchor}" fill="currentColor" font-size="13">'
        f"{html.escape(printable(text))}</text>"
        for x, anchor, text in zip((0, WIDTH), ("start", "end"), foot, strict=True)
    ]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img" aria-label="{told}" '
        f'style="width:100%;max-width:{WIDTH}px;height:auto"><title>{told}</title>'
        f"{''.join([*parts, *texts])}</svg>"
    )


__all__ = ["histogram_spark", "lines_spark"]
