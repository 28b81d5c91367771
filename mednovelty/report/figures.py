"""ROC curves and histograms of an evaluation, as PNG files.

Drawn through matplotlib's objects on the Agg canvas: no window, no current figure, nothing global.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mednovelty.errors import OutputError, SettingsError
from mednovelty.evaluation.files import patient_of
from mednovelty.evaluation.result import Curve, Evaluation
from mednovelty.report.mosaic import MapLayers, MosaicSettings, mosaic_figure, plain
from mednovelty.report.panels import DPI as PANELS_DPI
from mednovelty.report.panels import MOST_PATIENTS, panel_choice, panels_figure, read_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LESION_COLOUR, HEALTHY_COLOUR = "#d1495b", "#30638e"
_SCORE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b4fa3", "#8c1c13",
                  "#3c6e47", "#5d5d81")  # fmt: skip
_BASELINE_COLOURS = ("#222222", "#777777", "#aaaaaa", "#5c5346")
_BASELINE_DASHES = ("--", "-.", ":")
MOST_NAMED_SCANS = 8
LEAST_FPR = 1e-3
_ROC_INCHES, _ROC_AXES_INCHES = 12.0, 7.9
"""Width of a ROC picture, more where a long legend would leave both axes together less than that."""
BINS = 120
_DRAWN_BEFORE = re.compile(r"roc\.png|panels\.png|(?:roc|histogram)_[A-Za-z0-9_-]+\.png")
LONGEST_TAIL = 30
PNG_LEVEL = 3
"""Of zlib's 1 to 9; 6 takes three times as long for files a tenth smaller."""


@dataclass(frozen=True, slots=True, eq=False)
class RocLine:
    """One curve of a ROC picture.

    Attributes:
        label: For the legend; empty draws the curve without an entry.
        fpr: ``(m,)`` ascending from 0 to 1.
        tpr: ``(m,)`` ascending from 0 to 1.
        kind: ``score``, ``baseline`` (dashed grey), or ``scan`` (thin, behind the others).
    """

    label: str
    fpr: np.ndarray
    tpr: np.ndarray
    kind: str = "score"


def mean_roc(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Average ROC curves at equal FPR: the area under the mean curve is the mean of the areas.

    Args:
        curves: FPR and TPR of each scan, ascending from 0 to 1; empty ones are left out.

    Returns:
        ``(m,)`` FPR and mean TPR; empty where every curve is.
    """
    known = [(fpr, tpr) for fpr, tpr in curves if fpr.size]
    if not known:
        return np.empty(0), np.empty(0)
    grid = np.unique(np.concatenate([[0.0], np.geomspace(1e-6, 1e-2, 200), np.linspace(1e-2, 1, 400)]))
    # Where a curve rises straight up, interp takes the highest of the TPR at that FPR.
    reached = [np.interp(grid, fpr, tpr) for fpr, tpr in known]
    return np.insert(grid, 0, 0.0), np.insert(np.mean(reached, axis=0), 0, 0.0)


def plot_roc(lines: Sequence[RocLine], path: Path, title: str) -> Path:
    """Draw ROC curves, on a linear and on a logarithmic FPR axis, the legend beside them.

    Args:
        lines: In the order of the legend.
        path: Of the PNG.
        title: What the curves are of.

    Raises:
        OutputError: The picture cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(_ROC_INCHES, 5))
    linear, logarithmic = figure.subplots(1, 2, sharey=True)
    styles = _styles(lines)
    for axes in (linear, logarithmic):
        for line, style in zip(lines, styles, strict=True):
            axes.plot(line.fpr, line.tpr, **style)
        axes.set_xlabel("false positive rate: share of other voxels flagged")
        axes.grid(True, alpha=0.25)
        axes.set_ylim(0, 1.01)
    linear.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    chance = np.geomspace(LEAST_FPR, 1, 100)
    logarithmic.plot(chance, chance, color="0.6", linewidth=0.8)
    linear.set_xlim(-0.005, 1)
    logarithmic.set_xscale("log")
    logarithmic.set_xlim(LEAST_FPR, 1)
    # Over three decades minor ticks have no labels; to find that out tick by tick takes long.
    logarithmic.xaxis.set_minor_formatter(NullFormatter())
    linear.set_ylabel("true positive rate: share of lesion voxels found")
    figure.suptitle(plain(title))
    handles = [line for line in linear.get_lines() if not str(line.get_label()).startswith("_")]
    legend = figure.legend(
        handles=handles, loc="center right", frameon=False, title="AUROC and AP in brackets"
    )
    # Only the legend's width is not known beforehand; a layout engine would measure every tick, twice.
    inches = legend.get_window_extent().width / figure.dpi
    figure.set_figwidth(max(_ROC_INCHES, _ROC_AXES_INCHES + inches))
    width = min(0.5, inches / figure.get_figwidth())
    figure.subplots_adjust(left=0.055, right=0.985 - width, bottom=0.11, top=0.92, wspace=0.06)
    return save_figure(figure, path)


def plot_histograms(curves: Mapping[str, Curve], path: Path, title: str, threshold: float = math.nan) -> Path:
    """Write a histogram of lesion and other voxels' scores; see ``histogram_figure``.

    Raises:
        SettingsError: No scan has both lesion and other voxels.
        OutputError: The picture cannot be written.
    """
    return save_figure(histogram_figure(curves, title, threshold), path)


def histogram_figure(curves: Mapping[str, Curve], title: str, threshold: float = math.nan) -> Figure:
    """Draw how lesion and other voxels' scores spread, each scan weighing the same, each class of area 1.

    Args:
        curves: Scan id to its scores.
        title: What the scores are.
        threshold: Marked with a line, in the scores' unit; NaN marks nothing.

    Raises:
        SettingsError: No scan has both lesion and other voxels.
    """
    from matplotlib.figure import Figure

    both = [curve for curve in curves.values() if curve.lesion.size and curve.healthy.size]
    if not both:
        raise SettingsError(f"{title}: no scan has both lesion and other voxels; nothing to draw")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axis = _Axis.over(both)
    _density(axes, [curve.healthy for curve in both], axis, "other voxels", HEALTHY_COLOUR)
    _density(axes, [curve.lesion for curve in both], axis, "lesion voxels", LESION_COLOUR)
    if math.isfinite(threshold):
        at = float(axis.place(np.array(threshold)))
        axes.axvline(at, color="0.2", linewidth=1.2, linestyle="--", label="Dice threshold, by a fifth")
    axis.dress(axes)
    axes.set_title(plain(title))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=1, frameon=False)
    return figure


def plot_map_mosaic(layers: MapLayers, path: Path, settings: MosaicSettings | None = None) -> Path:
    """Write a mosaic of axial slices with the map over its background; see ``mosaic_figure``.

    Raises:
        GeometryError: The arrays do not have one shape.
        OutputError: The picture cannot be written.
    """
    return save_figure(mosaic_figure(layers, settings or MosaicSettings()), path)


def draw_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Draw ``roc.png`` (all scores), and for each score ``roc_<score>.png`` and ``histogram_<score>.png``.

    And ``panels.png``: the first ten patients with a lesion, the best trivial baseline and the best scores.
    Scores without a scan that has lesion and other voxels are left out. Pictures that an earlier evaluation
    left in the folder under such names are removed first: they belong to no number beside them.

    Raises:
        OutputError: A picture cannot be written, or an old one not removed.
    """
    _remove_drawn(folder)
    ranked = [score for group in evaluation.ranked() for score in group]
    means = {score: mean_roc([(c.fpr, c.tpr) for c in evaluation.curves[score].values()]) for score in ranked}
    drawn = [score for score in ranked if means[score][0].size]
    if not drawn:
        return []
    n = len(evaluation.scans)
    of_scans = f"mean of {n} scans" if n > 1 else next(iter(evaluation.scans))
    lines = [_line(score, evaluation, means[score]) for score in drawn]
    paths = [plot_roc(lines, folder / "roc.png", f"ROC by voxel, {of_scans}")]
    for score in drawn:
        by_scan, part = _by_scan(evaluation, score, means[score]), file_part(score)
        shown = evaluation.named(score)
        paths.append(plot_roc(by_scan, folder / f"roc_{part}.png", f"{shown}: ROC by voxel"))
        title = f"{shown}: lesion and other voxels"
        curves, threshold = evaluation.curves[score], evaluation.fifth_threshold(score)
        paths.append(plot_histograms(curves, folder / f"histogram_{part}.png", title, threshold))
    return paths + _panels(evaluation, folder / "panels.png")


def _panels(evaluation: Evaluation, path: Path) -> list[Path]:
    """Draw one scan of each of the first patients; maps that could not be evaluated are left out."""
    first: dict[str, str] = {}
    for id in sorted(evaluation.sources):
        if evaluation.lesions.get(id) and id in evaluation.scans:
            first.setdefault(patient_of(id), id)
    scores = panel_choice(evaluation.mean, *evaluation.ranked())
    rows = []
    for id in list(first.values())[:MOST_PATIENTS]:
        files, mask = evaluation.sources[id]
        usable = [score for score in scores if score in evaluation.scans[id]]
        rows.append(read_row(files, mask, usable))
    return [save_figure(panels_figure(rows, scores), path, PANELS_DPI)] if rows else []


def _remove_drawn(folder: Path) -> None:
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if _DRAWN_BEFORE.fullmatch(path.name) and (path.is_file() or path.is_symlink()):
            try:
                path.unlink()
            except OSError as error:
                raise OutputError(
                    f"{path}: an earlier picture, cannot be removed ({error.strerror}); choose another folder"
                ) from error


def save_figure(figure: Figure, path: Path, dpi: int = 130) -> Path:
    """Write a figure as PNG, whole or not at all.

    Raises:
        OutputError: The picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from mednovelty.io.atomic import write_bytes_atomic

    picture = io.BytesIO()
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
    # Not by savefig, which draws the whole figure a first time for the layout's sake.
    canvas.print_png(picture, pil_kwargs={"compress_level": PNG_LEVEL})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path.parent}: cannot be made ({error.strerror}); choose another folder"
        ) from error
    write_bytes_atomic(path, picture.getvalue())
    return path


def _by_scan(evaluation: Evaluation, score: str, mean: tuple[np.ndarray, np.ndarray]) -> list[RocLine]:
    curves = {id: curve for id, curve in evaluation.curves[score].items() if curve.fpr.size}
    named = len(curves) <= MOST_NAMED_SCANS
    lines = [
        RocLine(
            f"{id} {_areas(evaluation.scans[id][score])}" if named else "",
            curve.fpr,
            curve.tpr,
            "scan",
        )
        for id, curve in curves.items()
    ]
    if len(lines) == 1:
        return lines
    return [RocLine(f"mean {_areas(evaluation.mean[score])}", *mean, "score"), *lines]


def _line(score: str, evaluation: Evaluation, points: tuple[np.ndarray, np.ndarray]) -> RocLine:
    kind = "baseline" if evaluation.is_trivial(score) else "score"
    return RocLine(f"{evaluation.named(score)} {_areas(evaluation.mean[score])}", *points, kind)


def _areas(row: Mapping[str, float]) -> str:
    return f"({row['auroc']:.3f}, {row.get('ap', math.nan):.3f})"


def _styles(lines: Sequence[RocLine]) -> list[dict[str, object]]:
    seen = {"score": 0, "baseline": 0, "scan": 0}
    styles: list[dict[str, object]] = []
    for line in lines:
        number = seen[line.kind]
        seen[line.kind] += 1
        style: dict[str, object] = {"label": plain(line.label) or "_", "linewidth": 1.8, "zorder": 3}
        if line.kind == "baseline":
            style |= {"color": _BASELINE_COLOURS[number % 4], "linestyle": _BASELINE_DASHES[number % 3]}
        else:
            style |= {"color": _SCORE_COLOURS[number % len(_SCORE_COLOURS)]}
        if line.kind == "scan":
            style |= {
                "linewidth": 1.0,
                "zorder": 2,
                "color": _SCORE_COLOURS[(number + 1) % len(_SCORE_COLOURS)],
            }
        styles.append(style)
    return styles


@dataclass(frozen=True, slots=True)
class _Axis:
    """Where scores are drawn: as they are or, where a long tail would squeeze the rest, by asinh."""

    low: float
    high: float
    centre: float = 0.0
    width: float = 0.0

    @classmethod
    def over(cls, curves: Sequence[Curve]) -> _Axis:
        # Scan by scan: pooled, a scan of few voxels could lie off the axis altogether.
        parts = [part[np.isfinite(part)] for curve in curves for part in (curve.healthy, curve.lesion)]
        found = [np.quantile(part, [0.001, 0.5, 0.75, 0.995]) for part in parts if part.size]
        ends = np.array(found or [[0, 0.5, 0.75, 1]])
        low, high = float(ends[:, 0].min()), float(ends[:, 3].max())
        centre, width = float(np.median(ends[:, 1])), float(np.median(ends[:, 2] - ends[:, 1]))
        if 0 < width * LONGEST_TAIL < high - centre:
            return cls(low, high, centre, width)
        return cls(low, high if high > low else low + 1)

    def place(self, scores: np.ndarray) -> np.ndarray:
        return np.arcsinh((scores - self.centre) / self.width) if self.width else scores

    def steps(self, n: int) -> np.ndarray:
        """Return n + 1 places, evenly from end to end."""
        low, high = (float(end) for end in self.place(np.array([self.low, self.high])))
        return np.linspace(low, high, n + 1)

    def dress(self, axes: Axes) -> None:
        axes.set(xlim=self.steps(1), ylim=(0, None), yticks=[], ylabel="density, each class of area 1")
        axes.set_xlabel(
            "score, higher is more novel" + ("; the axis is stretched (asinh)" if self.width else "")
        )
        if self.width:
            at = self.steps(8)
            axes.set_xticks(at, [f"{self.centre + self.width * np.sinh(place):.3g}" for place in at])


def _density(axes: Axes, parts: Sequence[np.ndarray], axis: _Axis, name: str, colour: str) -> None:
    edges = axis.steps(BINS)
    weights = np.concatenate([np.full(part.size, 1 / (part.size * len(parts))) for part in parts])
    height = np.histogram(axis.place(np.concatenate(parts)), edges, weights=weights)[0]
    beyond = max(0.0, 1 - float(height.sum()))
    label = f"{name}, {beyond:.1%} of them beyond the axis" if beyond >= 5e-4 else name
    axes.stairs(height / np.diff(edges), edges, fill=True, color=colour, alpha=0.35, linewidth=0)
    axes.stairs(height / np.diff(edges), edges, color=colour, linewidth=1.6, label=label)


def file_part(score: str) -> str:
    """Return a score's name as it stands in names of files."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", score)
