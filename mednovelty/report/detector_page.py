"""The page of a detector, ``MODEL/index.html``: how it was trained, what it makes of normals, what it is.

It is made from the folder and lies beside the detector: no record names it, and no hash is of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mednovelty.calibrate.files import load_calibration
from mednovelty.capabilities import BOTH_WAYS, offered_by
from mednovelty.curve import TrainingRecord
from mednovelty.detector import Detector
from mednovelty.errors import DetectorError, StoppedError
from mednovelty.model_folder import CARD
from mednovelty.report.latent_space import latent_space_of
from mednovelty.report.markdown import markdown_html
from mednovelty.report.null_charts import NullCharts, null_charts
from mednovelty.report.page import Cell, Table, number, render, write_page
from mednovelty.report.reconstructions import reconstructions_of
from mednovelty.report.training_curve import curve_chart
from mednovelty.views import samples_of

log = logging.getLogger("mednovelty")

PAGE = "index.html"
LARGEST_CARD_BYTES = 1 << 20
EVERY_S = 5.0
"""A page of a training is written no more often."""
CARD_LEVELS = 2
"""By which the card's headings lie below those of the page."""
LAST_EPOCHS = 10


def write_detector_page(folder: Path) -> Path:
    """Write the page of the detector in a folder; return its path.

    Raises:
        DetectorError: There is no detector of scans, or it is damaged.
        OutputError: It cannot be written, or another page of that name stands there.
    """
    return write_page(folder / PAGE, detector_html(Detector.load(folder), folder))


def detector_html(detector: Detector, folder: Path) -> str:
    """Return the page of a detector.

    Args:
        detector: From that folder.
        folder: Where its card and its calibration are.
    """
    summary, record = detector.fitted.summary, detector.fitted.record
    calibration = _calibration(detector, folder)
    return render(
        "detector.html",
        title="A novelty detector",
        verdict=str(summary.get("verdict", "")),
        warnings=_warnings(detector),
        numbers=_numbers(detector, calibration),
        curve=curve_chart(record, summary) if record.rows else None,
        curve_words=_curve_words(record),
        reconstructions=reconstructions_of(detector),
        latent=latent_space_of(detector),
        nulls=calibration,
        blind=blind_words(detector),
        found=_found_table(summary),
        card=_card(folder),
        epochs=None,
        reload_s=None,
    )


def blind_words(detector: Detector) -> list[str]:
    """Return what a detector cannot see, by how it was made, in sentences."""
    scheme, sees = detector.scheme, samples_of(detector.settings.view)
    images = f"{', '.join(detector.contrasts)} images" if detector.contrasts else "arrays of one kind"
    of = "diffusion scans of its own acquisition" if scheme else images
    words = [f"It knows {of}, of people like those it was trained on; others look abnormal all over."]
    if sees == "voxels":
        words.append("It sees each voxel alone: what is normal in itself but in the wrong place, or of the "
                     "wrong size or shape, escapes it.")  # fmt: skip
    elif sees == "slices":
        words.append("It sees one slice at a time, at the resolution of its network: what shows only in "
                     "three dimensions, or is smaller than its pixels, escapes it.")  # fmt: skip
    elif sees == "windows":
        words.append(
            "It sees one window at a time: what only the whole brain shows, as asymmetry, escapes it."
        )
    if set(BOTH_WAYS) <= set(offered_by(detector.fitted.method)):
        words.append("What it can reconstruct well it does not find, whether or not it is healthy.")
    words.append(
        "Whatever its training scans showed, signs of age and of overlooked disease too, is normal to it."
    )
    prior = detector.fitted.summary.get("prior")
    if prior:
        told = str(prior.get("words", "")).rstrip(". ")
        words.append(f"It was trained to find {told}; it is blind to what looks otherwise.")
    else:
        words.append(
            "No anomaly was planted to measure what it misses: its maps alone do not rule a disease out."
        )
    return words


class TrainingPage:
    """The page of a detector that is being trained; a page that fails stops no training.

    Args:
        folder: Of the detector.
        settings: Names and values that the page tells.
        max_epochs: That may be trained.
        clock: Gives seconds.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, str],
        max_epochs: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = folder / PAGE
        self.settings, self.max_epochs = settings, max_epochs
        self._clock, self._last, self._failed = clock, -EVERY_S, False
        self._record: TrainingRecord | None = None

    def epoch(self, record: TrainingRecord) -> None:
        """Write the page with another epoch, unless it was written a moment ago."""
        self._record = record
        now = self._clock()
        if now - self._last >= EVERY_S and not self._failed:
            self._last = now
            self._write(record, "training", reload_s=2 * EVERY_S)

    def stopped(self) -> None:
        """Write that the training is no longer going on."""
        if self._record is not None and not self._failed:
            self._write(self._record, "stopped before its end", reload_s=None)

    def _write(self, record: TrainingRecord, state: str, reload_s: float | None) -> None:
        self._failed = not _whatever_happens(
            self.path, lambda: write_page(self.path, self._html(record, state, reload_s))
        )

    def _html(self, record: TrainingRecord, state: str, reload_s: float | None) -> str:
        row = record.rows[-1]
        told = time.strftime("%Y-%m-%d %H:%M:%S")
        return render(
            "detector.html",
            title="A novelty detector in training",
            verdict=f"{state}: epoch {row.epoch} of at most {self.max_epochs}, as of {told}. There is no "
            "detector yet: what follows is its training so far.",
            warnings=[],
            numbers=[(name, value) for name, value in self.settings.items()],
            curve=curve_chart(record),
            curve_words=_curve_words(record, so_far=True),
            reconstructions=None,
            latent=None,
            nulls=None,
            blind=[],
            found=None,
            card=None,
            epochs=_epochs_table(record),
            reload_s=reload_s,
        )


def try_detector_page(folder: Path) -> Path | None:
    """Write the page of a detector; None, and a warning, where that fails: the detector is whole without."""
    return folder / PAGE if _whatever_happens(folder / PAGE, lambda: write_detector_page(folder)) else None


def _whatever_happens(path: Path, write: Callable[[], Any]) -> bool:
    """Return whether a page was written; what went wrong is told, but for signals, which go through."""
    try:
        write()
    except StoppedError:
        raise
    except Exception as error:  # A picture is not worth a training, whatever is wrong with it.
        log.warning("%s: the page could not be made: %s: %s", path, type(error).__name__, error)
        return False
    return True


def _calibration(detector: Detector, folder: Path) -> NullCharts | None:
    """Return what is shown of the folder's calibration; None where it is of another detector, or none."""
    try:
        calibration = load_calibration(folder)
    except DetectorError as error:
        log.warning("%s", error)
        return None
    if calibration is None or calibration.detector_sha256 != detector.sha256:
        return None
    return null_charts(calibration)


def _warnings(detector: Detector) -> list[str]:
    if not detector.fitted.summary.get("collapsed"):
        return []
    return ["Its scores are not to be relied on: see what it says of held-out samples."]


def _numbers(detector: Detector, calibration: NullCharts | None) -> list[tuple[str, str]]:
    roles = [scan.role for scan in detector.scans]
    record = detector.fitted.record
    return [
        ("recipe", detector.recipe),
        ("method", detector.settings.method),
        ("scans trained on", f"{roles.count('training')}"),
        ("scans held out", f"{roles.count('validation')}"),
        ("epochs, and the one kept", f"{len(record.rows) - 1}, {record.best_epoch}"),
        ("normals in its reference", f"{len(detector.reference):,}"),
        ("calibrated scores", "none" if calibration is None else f"{len(calibration.charts)}"),
        ("sha256", detector.sha256[:12]),
    ]


def _curve_words(record: TrainingRecord, so_far: bool = False) -> str:
    best = record.best
    if len(record.rows) < 2:
        return "It was fitted at once, without epochs." if not so_far else "Nothing has been trained yet."
    if not best.judged:
        return "Held-out normals cannot choose an epoch here: the last one is kept."
    kept = "is the best so far" if so_far else "was kept"
    return f"Epoch {best.epoch}, with the lowest held-out loss ({best.validation['loss']:.5g}), {kept}."


def _epochs_table(record: TrainingRecord) -> Table:
    names = list(dict.fromkeys(name for row in record.rows for name in row.flat()))
    columns = [(name.replace("_", " "), "") for name in names]
    rows = [[_cell(row.flat().get(name)) for name in names] for row in record.rows[-LAST_EPOCHS:]]
    return Table(columns, rows[::-1], f"The last {len(rows)} epochs")


def _cell(value: float | None) -> Cell:
    return number(value, 5)


def _found_table(summary: Any) -> Table | None:
    """Return how well planted anomalies of each family were found; None where none was planted."""
    found = summary.get("found") or ()
    if not found:
        return None
    columns = [("family", "of planted anomalies"), ("trained on", ""),
               ("AUROC", "of voxels; 0.5 is chance"), ("AP", "average precision")]  # fmt: skip
    rows = [
        [Cell(str(row["family"])), Cell("yes" if row["trained_on"] else "no"), number(row["auroc"], 3),
         number(row["ap"], 3)]
        for row in found
    ]  # fmt: skip
    return Table(columns, rows, "Anomalies planted in held-out samples")


def _card(folder: Path) -> Any:
    """Return the model card as HTML; None where there is none."""
    path = folder / CARD
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_CARD_BYTES:
            return None
        return markdown_html(path.read_text(encoding="utf-8", errors="backslashreplace"), CARD_LEVELS)
    except OSError:
        return None


__all__ = ["EVERY_S", "PAGE", "TrainingPage", "blind_words", "detector_html", "try_detector_page",
           "write_detector_page"]  # fmt: skip
