"""Figures of a scan's quality: signal of each volume, and gradients on the sphere against the detector's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mednovelty.preprocess.qspace import describe
from mednovelty.quality import FAR_DEVIATIONS, FAR_SHARE, Quality, outlying, shells_of
from mednovelty.report.charts import Chart, Series

if TYPE_CHECKING:
    from markupsafe import Markup

_SIZE, _RADIUS = 220.0, 96.0


def signal_chart(quality: Quality) -> tuple[Chart, str]:
    """Return the mean signal of each volume, outliers marked, and what it shows in words."""
    signal, shells = quality.signal, shells_of(quality.bvalues_s_per_mm2)
    far = outlying(signal, quality.bvalues_s_per_mm2)
    volumes = np.arange(len(signal))
    series = [
        Series(f"b = {shell} s/mm2, {np.count_nonzero(shells == shell)} volumes", volumes[shells == shell],
               signal[shells == shell], (0, 2, 3, 4, 5, 6)[number % 6], "points")
        for number, shell in enumerate(np.unique(shells))
    ]  # fmt: skip
    words = "no volume is an outlier"
    if far.any():
        listed = ", ".join(f"{volume} (b = {shells[volume]})" for volume in np.flatnonzero(far)[:20])
        words = f"{np.count_nonzero(far)} of {len(signal)} volumes are outliers, counted from 0: {listed}"
        series.append(Series("outliers", volumes[far], signal[far], 1, "points"))
    rule = (
        f"An outlier lies more than {FAR_DEVIATIONS:g} standard deviations (by the median absolute "
        f"deviation) and more than {100 * FAR_SHARE:g} % away from the median of its shell."
    )
    alt = (
        f"Mean signal in the mask of {len(signal)} volumes, from {signal.min():.4g} to {signal.max():.4g}; "
        f"{words}."
    )
    low = min(0.0, float(signal.min()))
    chart = Chart(alt, "volume", "mean signal in the mask", series, y_range=(low, 1.05 * float(signal.max())))
    return chart, f"{words[0].upper()}{words[1:]}. {rule}"


def contrast_rows(quality: Quality) -> list[tuple[str, str]]:
    """Return the mean signal of each contrast of a structural scan."""
    named = zip(quality.contrasts, quality.signal, strict=False)
    return [(f"mean signal of {name} in the mask", f"{mean:.5g}") for name, mean in named]


def scheme_rows(quality: Quality) -> list[tuple[str, str]]:
    """Return in words how the scan's gradients compare with those that the detector knows."""
    own, known = quality.bvalues_s_per_mm2, quality.scheme_bvalues_s_per_mm2
    if not len(own):
        return []
    rows = [("this scan", describe(own))]
    if not len(known):
        return rows
    rows.append(("the detector", describe(known)))
    if not len(quality.angle_deg):
        return [*rows, ("agreement", "they do not fit: the detector refuses such scans")]
    worst = int(np.argmax(quality.angle_deg))
    rows.append(("largest angle between gradients",
                 f"{quality.angle_deg[worst]:.2f} degrees, of the detector's gradient {worst}; a direction "
                 "and its opposite are one"))  # fmt: skip
    gap = np.abs(np.sort(own) - np.sort(known)).max()
    rows.append(("largest difference of b-values", f"{gap:.4g} s/mm2"))
    return rows


def gradients_svg(quality: Quality) -> Markup:
    """Return the scan's gradients on half a sphere, those that the detector knows as rings.

    A direction and its opposite are one, so that half a sphere shows all; there is a picture for each shell.
    """
    from markupsafe import Markup

    shells = shells_of(quality.bvalues_s_per_mm2)
    known_shells = shells_of(quality.scheme_bvalues_s_per_mm2)
    named = [int(shell) for shell in np.unique(shells) if shell > 0]
    pictures = []
    for number, shell in enumerate(named):
        own = _upper(quality.directions[shells == shell])
        known = _upper(quality.scheme_directions[known_shells == shell])
        pictures.append(
            _sphere(own, known, shell, number, x=number % 3 * _SIZE, y=number // 3 * (_SIZE + 24))
        )
    columns, rows = min(3, max(1, len(named))), -(-len(named) // 3) or 1
    alt = gradients_alt(quality, named)
    return Markup(
        f'<div class="wide"><svg class="chart" role="img" aria-label="{alt}" '
        f'style="max-width: {columns * 15}rem; --least: {columns * 11}rem" '
        f'viewBox="0 0 {columns * _SIZE:g} {rows * (_SIZE + 24):g}"><title>{alt}</title>'
        f"{''.join(pictures)}</svg></div>"
    )


def gradients_alt(quality: Quality, shells: Sequence[int]) -> str:
    """Return what the picture of gradients shows."""
    own = shells_of(quality.bvalues_s_per_mm2)
    counts = ", ".join(f"{np.count_nonzero(own == shell)} at b = {shell}" for shell in shells)
    told = f"Gradient directions on the upper half of the sphere, seen from above: {counts or 'none'}"
    if len(quality.angle_deg):
        told += f"; those that the detector knows lie at most {quality.angle_deg.max():.2f} degrees away"
    return f"{told}."


def _upper(directions: np.ndarray) -> np.ndarray:
    """Return directions with z of 0 and more: of two opposite ones, which are one, the upper."""
    return np.where(directions[:, 2:] < 0, -directions, directions)


def _sphere(own: np.ndarray, known: np.ndarray, shell: int, number: int, *, x: float, y: float) -> str:
    """Return one shell, radiological and from above: right is on the left, the front is up."""
    middle = (x + _SIZE / 2, y + _SIZE / 2 + 14)
    radii = [_RADIUS * np.sin(np.radians(degrees)) for degrees in (30, 60, 90)]
    centre = f'cx="{middle[0]:g}" cy="{middle[1]:g}"'
    rings = "".join(f'<circle class="grid" {centre} r="{radius:.1f}"/>' for radius in radii)
    marks = "".join(
        f'<circle class="data c6" style="stroke-width:1.2" cx="{a:.1f}" cy="{b:.1f}" r="5.5"/>'
        for a, b in _flat(known, middle)
    )
    dots = "".join(
        f'<circle class="dot f{(0, 2, 3, 4, 5)[number % 5]}" cx="{a:.1f}" cy="{b:.1f}" r="3.2"/>'
        for a, b in _flat(own, middle)
    )
    text = f'<text x="{middle[0]:g}" y="{y + 10:g}" text-anchor="middle">b = {shell}</text>'
    text += f'<text x="{x + 2:g}" y="{middle[1] + 4:g}">R</text>'
    text += f'<text x="{middle[0]:g}" y="{middle[1] - _RADIUS - 2:g}" text-anchor="middle">A</text>'
    return rings + marks + dots + text


def _flat(directions: np.ndarray, middle: tuple[float, float]) -> list[tuple[float, float]]:
    return [(middle[0] - _RADIUS * d[0], middle[1] - _RADIUS * d[1]) for d in directions]


__all__ = ["contrast_rows", "gradients_svg", "scheme_rows", "signal_chart"]
