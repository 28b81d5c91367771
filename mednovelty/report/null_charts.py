"""What each score is on the healthy scans of a calibration: how many of their voxels score as high."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mednovelty.calibrate.calibration import Calibration
from mednovelty.calibrate.null import Null
from mednovelty.calibrate.nulls import ALL
from mednovelty.report.charts import Chart, Series, chart_svg
from mednovelty.report.page import Cell, Table, number

if TYPE_CHECKING:
    from markupsafe import Markup

SHARES = (0.5, 0.05, 0.01, 0.001)
"""Of healthy voxels, for which the table tells the score that no more of them exceed."""
POINTS = 300


@dataclass(frozen=True, slots=True)
class NullCharts:
    """What is shown of a calibration.

    Attributes:
        table: A row a score.
        charts: Name and picture of each score.
        words: Of what healthy scans, and what follows from their number.
        warnings: What the calibration itself warns of.
    """

    table: Table
    charts: tuple[tuple[str, Markup], ...]
    words: str
    warnings: tuple[str, ...]


def null_charts(calibration: Calibration) -> NullCharts:
    """Return what is shown of a calibration."""
    nulls = {score: calibration.nulls[score][ALL] for score in calibration.scores}
    count = len(calibration.scans)
    words = (
        f"{count} healthy scan{'s' * (count != 1)} ({calibration.method}) whose voxels say what a score is "
        "worth: a voxel's p-value is the share of theirs that score as high or higher. "
        f"Of a whole scan none is below {calibration.smallest_scan_p:.2g}."
    )
    told = (text for score in calibration.scores for text in calibration.warnings(score))
    return NullCharts(
        _table(calibration, nulls),
        tuple((score, _chart(score, null, _what(calibration, score))) for score, null in nulls.items()),
        words,
        tuple(dict.fromkeys(told)),
    )


def reached(null: Null, share: float) -> float:
    """Return the smallest kept score that no more than a share of the healthy values reach; NaN: none.

    Examples:
        >>> reached(Null.of(np.arange(100.0)), 0.05), reached(Null.of([1.0, 2.0]), 0.1)
        (95.0, nan)
    """
    found = np.flatnonzero(null.at_least <= share * null.n)
    return float(null.values[found[0]]) if found.size else float("nan")


def _table(calibration: Calibration, nulls: dict[str, Null]) -> Table:
    columns = [
        ("score", "higher is more novel"),
        ("healthy values", "voxels; of scores with one value a slice or window, these"),
        *((f"{100 * share:g} % reach", "the score that no more healthy values reach") for share in SHARES),
        ("smallest p", "of a single voxel"),
    ]
    rows = [
        [
            Cell(score),
            Cell(f"{null.n:,} {_what(calibration, score)}", null.n),
            *(number(reached(null, share)) for share in SHARES),
            number(null.smallest_p, 2),
        ]
        for score, null in nulls.items()
    ]
    return Table(columns, rows)


def _what(calibration: Calibration, score: str) -> str:
    return "slices or windows" if score in calibration.samples else "voxels"


def _chart(score: str, null: Null, what: str) -> Markup:
    counts = np.unique(np.geomspace(1, null.n, POINTS).round())
    places = np.clip(np.searchsorted(-null.at_least, -counts), 0, len(null.values) - 1)
    places = np.unique(places)
    at, share = null.values[places], null.at_least[places] / null.n
    one = reached(null, 0.01)
    chart = Chart(
        alt=f"{score}: share of {null.n:,} healthy {what} that reach a score, from 1 at "
        f"{null.values[0]:.4g} to {share[-1]:.2g} at {null.values[-1]:.4g}; 1 % reach {one:.4g}",
        x_label=f"{score}; upwards: share of healthy {what} as high",
        # Beside the powers of ten there is no room for words.
        y_label="",
        series=[Series(f"{null.n:,} healthy {what}", at, share, 0, "area")],
        log_y=True,
    )
    return chart_svg(chart)


__all__ = ["NullCharts", "null_charts", "reached"]
