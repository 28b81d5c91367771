"""Healthy scans become two tables of samples, slices or windows laid flat, as voxels do.

As for voxels, scans are held out whole. What touches a lesion can be left out, so that normals may come as
the healthy part of patients; or it is labelled as abnormal, for methods that learn from a few such samples.
Diffusion scans give windows of all their channels, on the scale of ``signal_scale``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.annotations import Annotations
from mednovelty.errors import ScanError
from mednovelty.fitting import FitSettings, make_steps, make_view
from mednovelty.gathering import (
    Gathered,
    SeenScan,
    refuse_same_ids,
    scan_of,
    split,
)
from mednovelty.holding_out import (
    HeldAnomalies,
    add_known,
    held_out_ids,
    refuse_copy_of_outlier,
    refuse_outlier,
    validation_first,
)
from mednovelty.outlier_sources import Exposure, picture_samples
from mednovelty.preprocess.qspace import GradientScheme
from mednovelty.preprocess.resample import carried
from mednovelty.protocols import Preprocessor
from mednovelty.sample_places import SamplePlaces
from mednovelty.scan import Scan
from mednovelty.signal_scale import SignalScale, scheme_of
from mednovelty.voxel_cache import Acquisition, VoxelCache

if TYPE_CHECKING:
    from mednovelty.io.read_scan import ReadOptions

BLOCK_SAMPLES = 64
BLOCK_BYTES = 64 * 2**20
"""Samples are cut so many at a time, fewer where they are large."""
HALF = 0.5 - 1e-6
"""From this share on, a pixel is a lesion's."""


def gather_images(  # noqa: PLR0913 - all but scans, settings and seed are by keyword
    scans: Iterable[Any],
    settings: FitSettings,
    seed: int,
    *,
    options: ReadOptions | None = None,
    folder: Path | None = None,
    on_scan: Callable[[str, str], Any] = lambda scan_id, message: None,
    known: Annotations | None = None,
    diffusion: bool = False,
    scheme: GradientScheme | None = None,
) -> Gathered:
    """Read scans one after another, preprocess them, and keep their samples.

    Args:
        scans: What ``structural_folder`` or ``scan_folder`` lists, or scans in memory.
        settings: Preprocessing, view, the share to hold out, the byte budget.
        seed: Decides which scans are held out.
        options: How scans are read.
        folder: Where a table beyond the byte budget lies.
        on_scan: Told ``(scan id, message)`` of each scan; the message is empty where all went well.
        known: Lesions, labels, outliers; None: all scans are healthy.
        diffusion: Whether scans are of diffusion, which are put into one order of gradients and divided by
            their mean and by those of the channels, as ``gather_scans`` does.
        scheme: Of diffusion, see ``gather_scans``.

    Raises:
        ScanError: No scan can be used, or an id occurs twice; or no outlier can be used (``outliers.none``).
    """
    known = known or Annotations()
    listed = list(scans)
    refuse_same_ids(listed)
    scale: _Contrasts | SignalScale = _Contrasts(settings)
    if diffusion:
        scale = SignalScale(settings, scheme_of(listed, settings, options, scheme))
    gather = _Gathering(settings, folder, known, scale)
    gather.exposure = Exposure.of(known, settings.validation_fraction, seed, on_scan)
    gather.read = lambda files: scan_of(files, options)
    add_known(validation_first(listed, seed), gather, on_scan, seed)
    return gather.finish()


class _Contrasts:
    """What is done to each structural scan, whose contrasts are those of the first one that is used."""

    def __init__(self, settings: FitSettings) -> None:
        self.steps = make_steps(settings)
        self.names: tuple[str, ...] | None = None

    def prepared(self, scan: Scan, left_out: np.ndarray | None = None) -> Scan:
        """Return a scan after all steps, its lesion included."""
        check_contrasts(scan, self.names)
        for _, step in self.steps:
            scan = step(scan)
        return scan

    def keep(self, id: str, healthy: Scan) -> None:
        """Remember the contrasts."""
        self.names = healthy.contrasts

    def divide(
        self, table: VoxelCache, training: list[str]
    ) -> tuple[Acquisition | None, tuple[tuple[str, Preprocessor], ...]]:
        """Return no acquisition, and the steps; nothing is divided."""
        return None, tuple(self.steps)


class _Gathering:
    """The table while it fills."""

    exposure: Exposure
    read: Callable[[Any], Scan]

    def __init__(
        self, settings: FitSettings, folder: Path | None, known: Annotations, scale: _Contrasts | SignalScale
    ) -> None:
        self.settings, self.folder, self.known = settings, folder, known
        self.scale, self.view = scale, make_view(settings)
        self.table: VoxelCache | None = None
        self.seen: list[SeenScan] = []
        self.asked: set[str] = set()
        self.held = HeldAnomalies()
        self.outliers: dict[str, str] = {}
        self.subjects: dict[str, str] = {}
        self.notes: list[str] = []

    def add(self, scan: Scan, role: str | None, lesion: np.ndarray | None) -> None:
        """Preprocess a scan and keep its samples."""
        refuse_copy_of_outlier(scan, self.outliers)
        same = next((seen.id for seen in self.seen if scan.sha256 and seen.sha256 == scan.sha256), None)
        if same is not None:
            raise ScanError(f"{scan.id}: the same files, byte for byte, as {same}; they are used once",
                            code="cohort.duplicate")  # fmt: skip
        shown = lesion is not None and self.known.shows(scan.id)
        prepared = self.scale.prepared(scan, None if shown else lesion)
        if lesion is not None and prepared.grid.shape != scan.grid.shape:
            lesion = carried(lesion, scan.grid, prepared.grid)
        rows, places = self._rows(prepared, lesion, shown)
        told = self._told(scan, rows, shown)
        if not len(rows):
            raise ScanError(f"{scan.id}: no sample is left to train on: too little brain, or lesions in all",
                            code="samples.none")  # fmt: skip
        healthy = prepared.without(lesion) if shown and told and lesion is not None else prepared
        self.scale.keep(scan.id, healthy)
        if self.table is None:
            shape, budget = self.view.shape(prepared.n_channels), self.settings.cache_bytes
            self.table = VoxelCache(rows.shape[1], shape=shape, budget_bytes=budget, folder=self.folder)
            self.exposure.hold_out(self.table, self._outlier_rows, self.notes)
        held = self.held.append(self.table, scan.id, rows, places)
        self.notes += [f"{scan.id}: {held}"] if held else []
        self.seen.append(SeenScan(scan.id, scan.sha256, len(rows), "training", told))
        self.notes += [f"{scan.id}: {told}"] if told else []
        if role == "validation":
            self.asked.add(scan.id)
        self.notes += [f"{scan.id}: {warning}" for warning in scan.warnings]

    def _rows(
        self, prepared: Scan, lesion: np.ndarray | None, shown: bool
    ) -> tuple[np.ndarray, SamplePlaces | None]:
        """Return ``(n, D)`` or wider rows, those of samples that may be used, and where they are."""
        whole, count, blocks = self.known.label_of(prepared.id), self.view.count(prepared), []
        kept = [np.empty(0, bool)]
        sample_bytes = 4 * math.prod(self.view.shape(prepared.n_channels))
        at_a_time = max(1, min(BLOCK_SAMPLES, BLOCK_BYTES // sample_bytes))
        for start in range(0, count, at_a_time):
            stop = min(start + at_a_time, count)
            samples = self.view.cut(prepared, start, stop).reshape(stop - start, -1)
            labels, used, truth = np.full(len(samples), whole, np.float32), np.ones(len(samples), bool), None
            if lesion is not None:
                used = ~self.view.touches(prepared, lesion, start, stop)
            if lesion is not None and shown:
                truth = self._truth(prepared, lesion, start, stop)
                enough = truth.any(1) if self.known.maps else truth.mean(1) >= self._share
                labels, used = np.where(enough, -1.0, 0.0), used | enough
            rows = self.known.rows(samples, labels, truth, self._spacing_mm(prepared))
            blocks.append(rows[used])
            kept.append(used)
        if not blocks:
            return np.empty((0, 0), np.float32), None
        # A view that does not say where its samples are is not asked.
        places = None
        if hasattr(self.view, "centres"):
            centres = self.view.centres(prepared, 0, count)[np.concatenate(kept)]
            places = SamplePlaces.of(centres, prepared.grid.affine)
        return np.concatenate(blocks), places

    def _spacing_mm(self, scan: Scan) -> tuple[float, ...]:
        return tuple(self.view.spacing_mm(scan)) if hasattr(self.view, "spacing_mm") else ()

    @property
    def _share(self) -> float:
        return self.settings.annotations.abnormal_share

    def _told(self, scan: Scan, rows: np.ndarray, shown: bool) -> str:
        """Return in words what a scan's samples are labelled as; empty where they are not."""
        if not shown:
            told = self.known.told(scan.id)
            whole = ": each of its samples, since no mask says which" if told == "anomalous" else ""
            return f"labelled as {told}{whole}" if told else ""
        count = int((rows[:, -1] < 0).sum()) if rows.size else 0
        return f"{count} of its {len(rows)} samples are labelled as abnormal, by its lesion" if count else ""

    def _truth(self, scan: Scan, lesion: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Return ``(n, V)`` float32: 1 in pixels of samples of which a lesion has at least half, else 0."""
        inside = lesion.ravel(order="F")[np.flatnonzero(scan.mask.ravel(order="F"))]
        marked = replace(scan, stored=inside[None].astype(np.float32), scale=np.ones(1), offset=np.zeros(1),
                         contrasts=())  # fmt: skip
        view = type(self.view)(replace(self.view.settings, background=0.0))
        return (view.cut(marked, start, stop).reshape(stop - start, -1) >= HALF).astype(np.float32)

    def _outlier_rows(self, files: Any) -> np.ndarray:
        """Return rows of a scan or picture that is all outliers."""
        spacing = tuple[float, ...]()
        if isinstance(files, Path):
            assert isinstance(self.scale, _Contrasts)  # Others' pictures are refused before.
            names = self.scale.names or ()
            samples = picture_samples(files, names, self.scale.steps, self.view.shape(len(names)))
        else:
            scan = self.read(files)
            refuse_outlier(scan, self.seen, self.outliers)
            scan = self.scale.prepared(scan)
            samples, spacing = self.view.cut(scan, 0, self.view.count(scan)), self._spacing_mm(scan)
        flat, labels = samples.reshape(len(samples), -1), np.full(len(samples), -1, np.float32)
        return self.known.rows(flat, labels, None, spacing)

    def finish(self) -> Gathered:
        """Return the tables."""
        if self.table is None:
            reasons = "; ".join(self.notes[:3]) or "the list is empty"
            raise ScanError(f"no scan can be used for training: {reasons}", code="cohort.empty")
        fraction = self.settings.validation_fraction
        ids = [scan.id for scan in self.seen if scan.id not in self.held.whole]
        first = held_out_ids(ids, self.asked, fraction, self.subjects)
        held_out = first | self.held.whole
        self.exposure.train(self.table, self._outlier_rows, self.notes)
        training_ids = [scan.id for scan in self.seen if scan.id not in held_out]
        acquisition, steps = self.scale.divide(self.table, training_ids)
        self.exposure.apart = self.held.names
        # A table's parts are neighbours in it; a scan whose role was asked for comes first.
        training, validation, more = self.exposure.split(self.table, len(first), self.settings, split)
        training.acquisition = validation.acquisition = acquisition
        seen = tuple(replace(s, role="validation") if s.id in held_out else s for s in self.seen)
        names = (self.scale.names or ()) if isinstance(self.scale, _Contrasts) else ()
        return Gathered(self.table, training, validation, steps, seen, (*self.notes, *more), names)


def contrasts_of(listed: Sequence[Any]) -> tuple[str, ...] | None:
    """Return the contrasts of the first of some scans or their files; None where only reading tells them."""
    from mednovelty.io.scan_folder import ScanFiles

    first = listed[0] if listed else None
    if isinstance(first, ScanFiles):
        return tuple(name for name, _ in first.contrasts)
    return first.contrasts if isinstance(first, Scan) else None


def check_contrasts(scan: Scan, expected: tuple[str, ...] | None) -> None:
    """Refuse a scan whose contrasts are not those expected, in that order; None: any.

    Raises:
        ScanError: It has others, or none at all.
    """
    if not scan.contrasts:
        raise ScanError(f"{scan.id}: its channels have no names; a structural scan has one image a contrast",
                        code="contrasts.none")  # fmt: skip
    if expected is not None and scan.contrasts != expected:
        raise ScanError(
            f"{scan.id}: its contrasts are {', '.join(scan.contrasts)}, needed are {', '.join(expected)}",
            code="contrasts.differ",
        )


__all__ = ["check_contrasts", "contrasts_of", "gather_images"]
