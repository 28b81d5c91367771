"""What maps and detectors show of themselves in a notebook: tables in words, a mosaic, a viewer.

Tables say nothing of who was scanned: no ids, no file names, no notes. Pictures and viewers do show a scan,
and are only made when they are asked for, since a notebook keeps what it has shown.
"""

from __future__ import annotations

import html
import io
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import GeometryError, SettingsError
from mednovelty.io.nifti import read_volume, write_map
from mednovelty.report.mosaic import MapLayers, MosaicSettings, mosaic_figure
from mednovelty.report.sparks import histogram_spark, lines_spark
from mednovelty.scan import Scan, Volume
from mednovelty.text import printable
from mednovelty.views import samples_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mednovelty.detector import Detector
    from mednovelty.maps import NoveltyMap

log = logging.getLogger("mednovelty")

Background = Volume | Scan | np.ndarray | str | Path | None
SHOWN_FROM = 90.0
"""Percentile of a map below which it is transparent, unless told otherwise."""
SHOWN_TO = 99.9
OPACITY = 0.7
COLOURS, GREYS = "inferno", "gray"
DOORS = (
    "<code>.plot()</code> draws it, <code>.view()</code> opens a viewer, <code>.save(path)</code> writes it"
)
HEIGHT_PIXELS = 420
BARS = 48
WITHOUT_BACKGROUND = 3.0
"""A mask in place of a background is shown as dark grey: a third of white."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Where a map's colours begin, transparent below, and where they end."""

    low: float
    high: float

    @classmethod
    def of(cls, novelty: NoveltyMap, threshold: float | None) -> Ends:
        """Return the ends for a threshold; None: a percentile of the map.

        Raises:
            SettingsError: The threshold is not finite.
        """
        if threshold is not None and not np.isfinite(threshold):
            raise SettingsError(f"{novelty.score}: a threshold of {threshold} shows nothing; give a number")
        if not novelty.mask.any():
            return cls(0.0, 1.0)
        found, high, most = (float(n) for n in np.percentile(novelty.values, [SHOWN_FROM, SHOWN_TO, 100]))
        low = found if threshold is None else float(threshold)
        high = high if high > low else most
        return cls(low, high if high > low else low + max(1e-6, 1e-6 * abs(low)))


def map_figure(
    novelty: NoveltyMap, background: Background = None, threshold: float | None = None, title: str = ""
) -> Figure:
    """Return a mosaic of axial slices of a map; see ``NoveltyMap.plot``."""
    under = _volume(background, novelty)
    if under is None:
        under = _outline(novelty)
    under.grid.check_same(novelty.volume.grid, "background", f"the map {novelty.score}")
    layers = MapLayers(under.data[0], novelty.data, novelty.mask, novelty.affine)
    settings = MosaicSettings(
        title=title or novelty.score.replace("_", " "),
        label=_label(novelty),
        percentile=SHOWN_FROM,
        threshold=threshold,
    )
    return mosaic_figure(layers, settings, _shown_figure())


def map_view(novelty: NoveltyMap, background: Background = None, threshold: float | None = None) -> Any:
    """Return a viewer of a map; see ``NoveltyMap.view``."""
    ends, under = Ends.of(novelty, threshold), _volume(background, novelty)
    try:
        import ipyniivue
    except ImportError:
        log.warning(
            "ipyniivue is not installed: this is nilearn's viewer, on voxels it has resampled; for NiiVue "
            "pip install 'mednovelty[notebook]'"
        )
        return _nilearn_view(novelty, under, ends)
    return _niivue(ipyniivue, novelty, under, ends)


def map_html(novelty: NoveltyMap) -> str:
    """Return what a notebook shows of a map: numbers and a histogram, and no picture of the scan."""
    spacing = " x ".join(f"{side:.3g}" for side in novelty.volume.grid.spacing_mm)
    low, high = novelty.display_range()
    about = novelty.about
    rows: dict[str, object] = {
        "what it is": about.get("description") or about.get("equation"),
        "unit": about.get("unit"),
        "paper": about.get("paper"),
        "voxels": f"{' x '.join(map(str, novelty.data.shape))} of {spacing} mm, "
        f"{int(novelty.mask.sum()):,} scored",
        "median, 99.9th percentile": f"{low:.4g}, {high:.4g}",
        "done otherwise": "; ".join(novelty.fallbacks),
    }
    picture = ""
    if novelty.mask.any():
        counts, edges = np.histogram(novelty.values, BARS)
        told = f"{len(novelty.values):,} voxels from {edges[0]:.4g} to {edges[-1]:.4g}"
        told = f"Histogram of {novelty.score}: {told}"
        picture = histogram_spark(counts, (float(edges[0]), float(edges[-1])), told)
    return _card(f"Novelty map: {novelty.score}", rows, picture, f"Higher is more novel. {DOORS}")


def detector_html(detector: Detector) -> str:
    """Return what a notebook shows of a detector: what it knows, how well, and how it was trained."""
    summary, record = detector.fitted.summary, detector.fitted.record
    roles = [scan.role for scan in detector.scans]
    samples = samples_of(detector.settings.view)
    scheme = detector.scheme.describe() if detector.scheme else f"{detector.model.channels} channels"
    rows: dict[str, object] = {
        "recipe, method": f"{detector.recipe}, {detector.settings.method}",
        "acquisition": f"contrasts {', '.join(detector.contrasts)}" if detector.contrasts else scheme,
        "scans": f"{roles.count('training')} to train on, {roles.count('validation')} held out",
        "reference": f"{len(detector.reference):,} of {detector.reference.drawn_from:,} training {samples}",
        "training": f"{len(record.rows) - 1} epochs, epoch {record.best_epoch} kept",
        "scores": ", ".join(detector.settings.scores),
        "held out": summary.get("verdict"),
        "sha256": detector.sha256[:12] or "not saved",
    }
    trained = [(row.epoch, row.train_loss) for row in record.rows if row.train_loss is not None]
    foot = (f"loss: {record.losses[0]:.4g}", f"{record.losses[-1]:.4g} after {len(record.rows) - 1} epochs")
    told = f"Loss of held-out {samples} over epochs, from {foot[0][6:]} to {foot[1]}; and of training"
    picture = lines_spark([trained, list(enumerate(record.losses))], foot, told) if trained else ""
    return _card("Novelty detector", rows, picture, "Not a medical device.")


def _card(title: str, rows: Mapping[str, object], picture: str, foot: str) -> str:
    left = "style='text-align:left'"
    told = "".join(
        f"<tr><th {left}>{_safe(name)}</th><td {left}>{_safe(value)}</td></tr>"
        for name, value in rows.items()
        if value
    )
    return (
        f"<div><strong>{_safe(title)}</strong><table>{told}</table>{picture}"
        f"<div style='opacity:0.7'>{foot}</div></div>"
    )


def _safe(value: object) -> str:
    return html.escape(printable(str(value)))


def _label(novelty: NoveltyMap) -> str:
    unit = novelty.about.get("unit")
    return f"{novelty.score}, {unit}" if unit else novelty.score


def _volume(background: Background, novelty: NoveltyMap) -> Volume | None:
    """Return what maps are drawn on as a volume of one channel; None where nothing was given.

    Raises:
        GeometryError: An array is not of the map's shape, or a volume has several channels.
        ScanError: A file cannot be read.
    """
    if background is None:
        return None
    if isinstance(background, str | Path):
        background = read_volume(background)
    if isinstance(background, Scan):
        return Volume(background.background[None], background.grid.affine, background.id)
    if isinstance(background, np.ndarray):
        if background.shape != novelty.data.shape:
            raise GeometryError(
                f"background: shape {background.shape} does not fit the map {novelty.score}, "
                f"{novelty.data.shape}; give an array on its voxels, a Volume, or a NIfTI file",
                code="geometry.shape",
            )
        return Volume(background[None], novelty.affine, "background")
    if background.data.shape[0] != 1:
        raise GeometryError(
            f"background: {background.name} has {background.data.shape[0]} channels; give one of them, "
            "such as the mean of b=0",
            code="geometry.shape",
        )
    return background


def _outline(novelty: NoveltyMap) -> Volume:
    return Volume(novelty.mask[None].astype(np.float32), novelty.affine, "mask")


def _grey(under: Volume) -> tuple[float, float]:
    values = under.data[np.isfinite(under.data) & (under.data != 0)]
    low, high = np.percentile(values, [1, 99.5]) if values.size else (0.0, 1.0)
    return float(min(low, 0.0)), float(high if high > min(low, 0.0) else low + 1)


def _niivue(ipyniivue: Any, novelty: NoveltyMap, under: Volume | None, ends: Ends) -> Any:
    """Return an ipyniivue widget that holds both images whole: NiiVue reads their affines itself."""
    grey = (0.0, WITHOUT_BACKGROUND) if under is None else _grey(under)
    below = _outline(novelty) if under is None else under
    # Outside the mask a map is 0, which of a score below 0 everywhere is more than all there is.
    # One step lower than the end of the colours, which rounding could else bring above it.
    outside = np.float32(0) if ends.low > 0 else np.nextafter(np.float32(ends.low), np.float32(-np.inf))
    inside = np.where(novelty.mask, novelty.data, outside).astype(np.float32)
    shown = novelty.volume.with_data(inside[None], novelty.score)
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in novelty.score)
    volumes = [
        {"data": _nifti(below, grey), "name": "background.nii.gz", "colormap": GREYS,
         "cal_min": grey[0], "cal_max": grey[1], "colorbar_visible": False},
        {"data": _nifti(shown, (ends.low, ends.high)), "name": f"{name}.nii.gz", "colormap": COLOURS,
         "cal_min": ends.low, "cal_max": ends.high, "opacity": OPACITY},
    ]  # fmt: skip
    # MIN_TO_MAX, the default, leaves what is not above cal_min transparent in layers above the first.
    widget = ipyniivue.NiiVue(height=HEIGHT_PIXELS, is_colorbar=True, is_radiological_convention=True)
    widget.load_volumes(volumes)
    return widget


def _nifti(volume: Volume, ends: Sequence[float]) -> bytes:
    """Return a volume as the bytes of a compressed NIfTI, by the one writer there is."""
    with tempfile.TemporaryDirectory(prefix="mednovelty-") as folder:
        path = Path(folder) / "volume.nii.gz"
        write_map(path, volume, cal_min=ends[0], cal_max=ends[1], description="mednovelty")
        return path.read_bytes()


def _nilearn_view(novelty: NoveltyMap, under: Volume | None, ends: Ends) -> Any:
    from nibabel.nifti1 import Nifti1Image
    from nilearn.plotting import view_img

    below = _outline(novelty) if under is None else under
    grey = (0.0, WITHOUT_BACKGROUND) if under is None else _grey(below)
    # nilearn's threshold is of absolute values and hides 0: what is shown is told from where it begins.
    over = np.where(novelty.mask & (novelty.data > ends.low), novelty.data - ends.low, 0.0).astype(np.float32)
    title = f"{_label(novelty)}: dark {ends.low:.4g} to bright {ends.high:.4g}, nothing shown below"
    return view_img(
        Nifti1Image(over, novelty.affine),
        bg_img=Nifti1Image(np.clip(below.data[0], *grey).astype(np.float32), below.affine),
        threshold=np.nextafter(np.float32(0), np.float32(1)),
        vmin=0.0,
        vmax=ends.high - ends.low,
        symmetric_cmap=False,
        cmap=COLOURS,
        opacity=OPACITY,
        colorbar=False,
        black_bg=True,
        resampling_interpolation="nearest",
        title=html.escape(printable(title)),
    )


def _shown_figure() -> type[Figure]:
    """Return a figure that shows itself in a notebook, whatever matplotlib's backend there is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Base

    class ShownFigure(Base):
        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            FigureCanvasAgg(self).print_png(picture)
            return picture.getvalue()

    return ShownFigure


__all__ = ["Background", "Ends", "detector_html", "map_figure", "map_html", "map_view"]
