"""The curve of a training as text: losses over epochs in dots of braille, eight to a character.

A line is a list of ``Part``; a terminal gives each kind of part a colour, a test reads the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mednovelty.curve import TrainingRecord

Kind = Literal["plain", "training", "held-out"]
BLANK = 0x2800
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Of the dots of a braille character, top to bottom and left to right."""
LABEL = 10
"""Characters left of the plot."""
OUTLIERS = 20.0
"""A start this many times farther above the median than the best lies below it would flatten all the rest."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a line.

    Attributes:
        text: What it says.
        kind: What it belongs to.
    """

    text: str
    kind: Kind = "plain"


def curve_lines(record: TrainingRecord, width: int, height: int) -> list[list[Part]]:
    """Return the plot, the epochs below it and its legend, line by line.

    Args:
        record: At least one row.
        width: Characters of a line, labels included.
        height: Lines of the plot itself.
    """
    width = max(width - LABEL, 8)
    trained = [(row.epoch, row.train_loss) for row in record.rows if row.train_loss is not None]
    held_out = list(enumerate(record.losses))
    low, high = ends_of([loss for _, loss in (*trained, *held_out)])
    span = max(len(record.rows) - 1, 1)
    drawn = [dots(points, (height, width), (low, high), span) for points in (trained, held_out)]
    labels = {0: f"{high:.4g}", height - 1: f"{low:.4g}"}
    lines = [
        [Part(f"{labels.get(row, ''):>{LABEL - 2}} │"), *_row(drawn[0], drawn[1], row)]
        for row in range(height)
    ]
    last = str(len(record.rows) - 1)
    lines.append([Part(" " * (LABEL - 1) + "0" + last.rjust(width) + " epochs")])
    return [*lines, _legend(record)]


def ends_of(losses: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest loss to show: a start far above all others runs off the top.

    Examples:
        >>> ends_of([5.0, 4.0, 3.0]), ends_of([2.0])
        ((3.0, 5.0), (1.5, 2.5))
        >>> ends_of([1e6, 3.0, 2.0, 1.0, 1.5])
        (1.0, 3.0)
    """
    values = np.asarray(losses, np.float64)
    low, middle = float(values.min()), float(np.median(values))
    shown = values[values <= middle + OUTLIERS * max(middle - low, 1e-12)]
    high = float(shown.max()) if middle > low else float(values.max())
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def dots(
    points: Sequence[tuple[int, float]], size: tuple[int, int], ends: tuple[float, float], span: int
) -> np.ndarray:
    """Return ``(height, width)`` braille characters of a line through points: sums of dots' bits.

    Args:
        points: Epoch and loss, ascending; none gives no dot.
        size: Height and width in characters.
        ends: Losses at the bottom and the top; what lies beyond is drawn there.
        span: The epoch at the right.
    """
    height, width = size
    grid = np.zeros((4 * height, 2 * width), bool)
    if points:
        epochs, losses = np.array(points, np.float64).T
        first, last = (epochs[[0, -1]] / span * (2 * width - 1)).round().astype(int)
        columns = np.arange(first, last + 1)
        values = np.interp(columns / (2 * width - 1) * span, epochs, losses)
        share = np.clip((ends[1] - values) / (ends[1] - ends[0]), 0.0, 1.0)
        rows = (share * (4 * height - 1)).round().astype(int)
        for column, row, before in zip(columns, rows, (rows[0], *rows[:-1]), strict=True):
            # A steep line is one without gaps: from where the last column ended, without its own dot.
            start = row if row == before else before + np.sign(row - before)
            grid[min(start, row) : max(start, row) + 1, column] = True
    blocks = grid.reshape(height, 4, width, 2).transpose(0, 2, 1, 3)
    return np.asarray((blocks * _BITS).sum((2, 3)), np.int64)


def _row(trained: np.ndarray, held_out: np.ndarray, row: int) -> list[Part]:
    """Return a line of the plot; a character with dots of both has the colour of what decides."""
    parts: list[Part] = []
    for one, other in zip(trained[row].tolist(), held_out[row].tolist(), strict=True):
        kind: Kind = "held-out" if other else "training" if one else "plain"
        text = chr(BLANK + (one | other))
        if parts and parts[-1].kind == kind:
            parts[-1] = Part(parts[-1].text + text, kind)
        else:
            parts.append(Part(text, kind))
    return parts


def _legend(record: TrainingRecord) -> list[Part]:
    best = record.best
    told = f"epoch {best.epoch}" + (f", held-out loss {best.validation['loss']:.4g}" if best.judged else "")
    what = "kept so far" if best.judged else "kept: the last,"
    return [
        Part(" " * LABEL),
        Part("⠒⠒ training", "training"),
        Part("   "),
        Part("⠒⠒ held out", "held-out"),
        Part(f"   {what} {told}"),
    ]


__all__ = ["Kind", "Part", "curve_lines", "dots", "ends_of"]
