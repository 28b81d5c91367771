"""Patients as rows, scores as columns: each patient's slice with most lesion, its outline on every map.

Slices are laid out as in ``mosaic``: axial, anterior up, the patient's right on the left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import ScanError, SettingsError
from mednovelty.evaluation.files import find_maps, find_masks
from mednovelty.evaluation.scored import ScoredScan
from mednovelty.metrics import Ranking, average_precision
from mednovelty.report.mosaic import MapLayers, Mosaic, MosaicSettings, build_mosaic, outline, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PATIENTS = 10
MOST_SCORES = 5
PERCENTILES = (0.5, 99.5)
_WIDTH_INCHES = 1.9
_LINE_INCHES = 0.12
DPI = 110
_CONVENTION = (
    "Radiological: the patient's right (R) is on the left. Each row is the slice with most lesion, outlined; "
    "colours run from percentile 0.5 to 99.5 of each map in its brain mask."
)


@dataclass(frozen=True, slots=True, eq=False)
class PanelRow:
    """One scan's slice with most lesion, ready to be drawn.

    Attributes:
        id: The scan's id.
        background: The slice, with mask and lesion.
        grey: Ends of the background's greys.
        maps: Score to ``(H, W)`` and the ends of its colours.
        ap: Score to average precision over the whole scan; NaN where undefined.
        kinds: Score to what must stand beside its name.
    """

    id: str
    background: Mosaic
    grey: tuple[float, float]
    maps: dict[str, tuple[np.ndarray, tuple[float, float]]] = field(default_factory=dict)
    ap: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, tuple[str, ...]] = field(default_factory=dict)


def draw_panels(out: Path, masks: Path, scans: Sequence[str], scores: Sequence[str], path: Path) -> Path:
    """Draw up to ten scans of a score run: the background with the lesion outlined, then each score's map.

    Args:
        out: The folder that ``score`` wrote to.
        masks: The folder of lesion masks.
        scans: Ids, a row each; those after the tenth are left out.
        scores: A column each; a scan without one has an empty place.
        path: Of the PNG.

    Raises:
        SettingsError: No scan or no score is asked for, or a scan has no maps or no lesion mask.
        ScanError: An image cannot be read, or a lesion mask has no lesion in the brain.
        OutputError: The picture cannot be written.
    """
    from mednovelty.report.figures import save_figure

    found, _ = find_maps(out)
    owned, _ = find_masks(masks, found, besides=out)
    for id in scans:
        if id not in found or id not in owned:
            what = "maps" if id not in found else "lesion mask"
            raise SettingsError(f"panels: scan {id} has no {what}; there are {', '.join(found)}")
    rows = [read_row(found[id], owned[id], scores) for id in list(scans)[:MOST_PATIENTS]]
    return save_figure(panels_figure(rows, scores), path, dpi=DPI)


def read_row(files: ScoredScan, mask: Path, scores: Sequence[str]) -> PanelRow:
    """Read what is drawn of one scan; without a background image the lesion stands on the brain mask.

    Raises:
        ScanError: An image cannot be read, or there is no lesion in the brain mask.
    """
    from mednovelty.evaluation.truth import read_truth
    from mednovelty.io.nifti import read_volume

    truth, _ = read_truth(files, mask)
    inside, lesion = truth.inside(), np.zeros(truth.grid.shape, dtype=bool)
    lesion[inside] = truth.labels()
    if not lesion.any():
        raise ScanError(
            f"{files.id}: no lesion voxel in the brain mask; leave this scan out", code="mask.empty"
        )
    image = files.brain.with_name(files.brain.name.replace("_desc-brain_mask", "_desc-background"))
    background = read_volume(image).data[0] if image.is_file() else inside.astype(np.float32)

    def cut(volume: np.ndarray) -> Mosaic:
        return build_mosaic(MapLayers(background, volume, inside, truth.grid.affine, lesion),
                            MosaicSettings(n_slices=1, columns=1))  # fmt: skip

    row = PanelRow(files.id, cut(background), _ends(background[inside]))
    for score in scores:
        if score in files.scores:
            values = truth.scores(score)
            volume = np.zeros(truth.grid.shape, dtype=np.float32)
            volume[inside] = values
            row.maps[score] = cut(volume).score, _ends(values)
            row.kinds[score] = files.kinds(score)
            row.ap[score] = average_precision(Ranking.of(values, truth.labels(), files.id))
    return row


def panels_figure(rows: Sequence[PanelRow], scores: Sequence[str]) -> Figure:
    """Draw the rows: one axes for each background and each score.

    Raises:
        SettingsError: There is no row or no score.
    """
    from matplotlib.figure import Figure

    if not rows or not scores:
        raise SettingsError(f"panels need a scan and a score, got {len(rows)} and {len(scores)}")
    heights = [_height_inches(row.background) + _extra_inches(row, scores) for row in rows]
    figure = Figure(figsize=(_WIDTH_INCHES * (1 + len(scores)), sum(heights) + 0.5), facecolor="black")
    grid = figure.subplots(len(rows), 1 + len(scores), squeeze=False, height_ratios=heights)
    for axes, row in zip(grid, rows, strict=True):
        _draw_row(axes, row, scores)
    top = 1 - 0.45 / (sum(heights) + 0.5)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.002, top=top, wspace=0.02, hspace=0.0)
    figure.text(0.005, 0.999, _CONVENTION, color="white", fontsize=7, va="top", wrap=True)
    return figure


def panel_choice(
    means: Mapping[str, Mapping[str, Any]], scores: Sequence[str], baselines: Sequence[str]
) -> list[str]:
    """Return up to five scores to look at: the best trivial baseline by AP, then the best scores by AP.

    Args:
        means: Score to its means, ``ap`` among them.
        scores: Those that are no baselines.
        baselines: Trivial ones.
    """

    def by_ap(names: Sequence[str]) -> list[str]:
        return sorted(names, key=lambda name: -np.nan_to_num(means[name]["ap"], nan=-1.0))

    return [*by_ap(baselines)[:1], *by_ap(scores)][:MOST_SCORES]


def _draw_row(axes: Sequence[Axes], row: PanelRow, scores: Sequence[str]) -> None:
    how: dict[str, Any] = {"interpolation": "nearest",
                           "aspect": row.background.spacing_mm[0] / row.background.spacing_mm[1]}  # fmt: skip
    small: dict[str, Any] = {"color": "white", "fontsize": 7}
    for place in axes:
        place.set_axis_off()
    axes[0].imshow(row.background.background, cmap="gray", vmin=row.grey[0], vmax=row.grey[1], **how)
    axes[0].set_title(plain(f"{row.id}, z {row.background.heights_mm[0]:+.0f} mm"), pad=2, **small)
    axes[0].text(0.02, 0.5, row.background.left, transform=axes[0].transAxes, va="center", **small)
    outline(axes[0], row.background.lesion)
    for place, score in zip(axes[1:], scores, strict=True):
        if score not in row.maps:
            place.set_title(plain(f"{score}: no map"), pad=2, **small)
            continue
        image, (low, high) = row.maps[score]
        # Outside the brain a map is 0, which is no score: left black.
        shown = np.ma.masked_where(~row.background.mask, image)
        place.imshow(shown, cmap="viridis", vmin=low, vmax=high, **how)
        ap = row.ap[score]
        place.set_title(plain(_title(score, row.kinds.get(score, ()), ap)), pad=2, **small)
        outline(place, row.background.lesion, colour="white")


def _title(score: str, kinds: Sequence[str], ap: float) -> str:
    """Return what stands over a map; a column is too narrow for a kind beside the name."""
    told = "AP -" if math.isnan(ap) else f"AP {ap:.3f}"
    if not kinds:
        return f"{score}, {told}"
    # A name of two is broken where they meet.
    return "\n".join([score.replace("+", "\n+"), f"({', '.join(kinds)}), {told}"])


def _ends(values: np.ndarray) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, PERCENTILES) if values.size else (0.0, 1.0)
    # A flat map still needs two ends.
    return float(low), float(high if high > low else low + max(1e-6, 1e-6 * abs(low)))


def _extra_inches(row: PanelRow, scores: Sequence[str]) -> float:
    """Return how much higher a row's titles are than one line."""
    titles = [_title(score, row.kinds.get(score, ()), row.ap[score]) for score in scores if score in row.maps]
    return _LINE_INCHES * max((title.count("\n") for title in titles), default=0)


def _height_inches(mosaic: Mosaic) -> float:
    height_mm, width_mm = np.array(mosaic.background.shape) * mosaic.spacing_mm
    return float(np.clip(_WIDTH_INCHES * height_mm / width_mm, 0.6, 4.0)) + 0.2
