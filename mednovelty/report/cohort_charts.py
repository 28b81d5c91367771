"""How the scans of a cohort stand to the calibration scans: charts of each segmented score."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.errors import MedNoveltyError, ScanError
from mednovelty.io.mask import read_mask
from mednovelty.io.nifti import read_volume
from mednovelty.report.charts import Chart, Series, chart_svg
from mednovelty.report.scan_facts import MapFacts, ScanFacts
from mednovelty.segment.controls import Controls, Curve
from mednovelty.told_calibrations import ToldCalibrations

MOST_CURVES = 40
"""Of scans: their p-values are read for it, and more lines cannot be told apart."""
MOST_SCORES = 3
"""With curves; the table has all."""
_GOLDEN = 0.618034
"""Spreads points that would lie over each other: evenly, and the same each time."""


def charts_of(out: Path, scans: Sequence[ScanFacts]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return of each segmented score the highest score and the share below each p, beside those of controls.

    Returns:
        The charts; and why there are none of other scores, as where what is told of calibrations is damaged.
    """
    found: dict[str, list[tuple[ScanFacts, MapFacts]]] = {}
    for scan in scans:
        for one in scan.maps:
            if one.numbers and one.is_calibrated:
                found.setdefault(one.name, []).append((scan, one))
    try:
        calibrations = ToldCalibrations.read(out)
    except ScanError as error:
        return [], [_without(out, error)]
    parts: list[dict[str, Any]] = []
    reasons = [] if found else [_why_none(scans)]
    for number, (name, of) in enumerate(found.items()):
        try:
            # That of the first scan: the others' are the same but for a scan that is itself among them.
            controls, _ = calibrations.table(name, of[0][1].sidecar)
        except ScanError as error:
            reasons.append(_without(out, error))
            continue
        curves = _curves_chart(name, of, controls) if number < MOST_SCORES else None
        parts.append(
            {"score": name, "highest": chart_svg(highest_chart(name, of, controls)), "curves": curves}
        )
    return parts, list(dict.fromkeys(reasons))


def _why_none(scans: Sequence[ScanFacts]) -> str:
    if any(one.is_calibrated for scan in scans for one in scan.maps):
        return "Nothing was segmented, so nothing is held against controls; see mednovelty threshold."
    return "Not calibrated, so no p and no plot against controls; see mednovelty calibrate."


def _without(out: Path, error: ScanError) -> str:
    """Return what is wrong; a page says nothing of where its folder lies."""
    return str(error).replace(f"{out}{os.sep}", "")


def highest_chart(name: str, of: Sequence[tuple[ScanFacts, MapFacts]], controls: Controls) -> Chart:
    """Return each scan's highest score beside those of calibration scans."""
    own = np.array([float(one.numbers["maximum"]) for _, one in of if _is_number(one.numbers.get("maximum"))])
    above = int((own > controls.maximum.max()).sum())
    low, high = controls.maximum.min(), controls.maximum.max()
    alt = f"Highest {name}: not known of any scan."
    if own.size:
        alt = (
            f"Highest {name} of each scan: {own.size} scans from {own.min():.4g} to {own.max():.4g}, "
            f"{len(controls)} calibration scans from {low:.4g} to {high:.4g}; {above} scans lie above all "
            "calibration scans."
        )
    series = [
        Series(
            f"{len(controls)} calibration scans", controls.maximum, _spread(len(controls), 0.0), 0, "points"
        ),
        Series(f"{own.size} scans", own, _spread(own.size, 1.0), 1, "points"),
    ]
    unit = f", {of[0][1].unit}" if of[0][1].unit else ""
    return Chart(alt, f"highest {name} in the mask{unit}", "", series, y_range=(-0.3, 2.0), y_ticks=False)


def _curves_chart(name: str, of: Sequence[tuple[ScanFacts, MapFacts]], controls: Controls) -> Any:
    """Return how much of the mask lies below each p; None where no p-values can be read."""
    grid = controls.grid
    shares = [share for scan, one in of[:MOST_CURVES] if (share := _share(scan, one, grid)) is not None]
    if not shares:
        return None
    series = [Series("", grid, row, 0) for row in controls.share]
    series += [Series("", grid, row, 1) for row in shares]
    series += [
        Series(f"{len(controls)} calibration scans, each held against the others", [], [], 0),
        Series(f"{len(shares)} of {len(of)} scans", [], [], 1),
        Series("as many as p says", grid, grid, 6, "line", True),
    ]
    at = int(np.argmin(np.abs(np.log10(grid) + 3)))
    alt = (
        f"Share of the mask with at most each p of {name}. At p = {grid[at]:.2g}: calibration scans "
        f"{controls.share[:, at].min():.2g} to {controls.share[:, at].max():.2g}, scans "
        f"{min(row[at] for row in shares):.2g} to {max(row[at] for row in shares):.2g}."
    )
    return chart_svg(Chart(alt, "p", "share of the mask with at most that p", series, True, True))


def _share(scan: ScanFacts, one: MapFacts, grid: np.ndarray) -> np.ndarray | None:
    try:
        p = read_volume(one.names.pvalue)
        mask, _ = read_mask(scan.scored.brain, p.grid, p.name)
    except MedNoveltyError:
        return None  # Its own page says what is wrong.
    return Curve.of(p.data[0][mask], 1.0, 0.0, grid).share


def _spread(n: int, floor: float) -> np.ndarray:
    return floor + 0.7 * ((np.arange(n) * _GOLDEN) % 1.0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and np.isfinite(value)


__all__ = ["charts_of", "highest_chart"]
