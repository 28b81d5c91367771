"""Healthy scans, or arrays, become two tables of voxels: to train on, and to hold out.

Scans are split whole: voxels of one head are too alike for some to judge what others taught. Where there
is a single scan, its last voxels in the file's order, a slab, are held out instead, and a note says so.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from mednovelty.annotations import Annotations
from mednovelty.errors import ScanError
from mednovelty.fitting import FitSettings
from mednovelty.holding_out import (
    HeldAnomalies,
    add_known,
    held_out_count,
    held_out_ids,
    name_of,
    refuse_copy_of_outlier,
    refuse_outlier,
    validation_first,
)
from mednovelty.outlier_sources import Exposure
from mednovelty.preprocess.qspace import GradientScheme
from mednovelty.preprocess.resample import carried
from mednovelty.protocols import Preprocessor
from mednovelty.sample_places import SamplePlaces
from mednovelty.scan import Scan
from mednovelty.seeds import numpy_generator
from mednovelty.signal_scale import SignalScale, scheme_of
from mednovelty.views.voxel import VoxelView
from mednovelty.voxel_cache import VoxelCache

if TYPE_CHECKING:
    from mednovelty.io.read_scan import ReadOptions

log = logging.getLogger("mednovelty")
Role = Literal["training", "validation"]


@dataclass(frozen=True)
class SeenScan:
    """One scan that a detector has seen."""

    id: str
    sha256: str
    n_voxels: int
    role: Role
    annotation: str = ""
    """What was known of it, in words."""


@dataclass
class Gathered:
    """Voxels to train on and to hold out, and how scans became these voxels."""

    table: VoxelCache
    """All of them; it owns the memory, or the file."""
    training: VoxelCache
    validation: VoxelCache
    preprocessing: tuple[tuple[str, Preprocessor], ...] = ()
    scans: tuple[SeenScan, ...] = ()
    notes: tuple[str, ...] = ()
    contrasts: tuple[str, ...] = ()
    """Names of a structural scan's channels."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.table.close()
        if self.validation.owns_file:
            self.validation.close()


def gather_scans(  # noqa: PLR0913 - all but scans, settings and seed are by keyword
    scans: Iterable[Any],
    settings: FitSettings,
    seed: int,
    *,
    options: ReadOptions | None = None,
    folder: Path | None = None,
    on_scan: Callable[[str, str], Any] = lambda scan_id, message: None,
    known: Annotations | None = None,
    scheme: GradientScheme | None = None,
) -> Gathered:
    """Read scans one after another, bring them to one scale, and keep their voxels.

    Each scan is put into the channel order of the cohort's usual acquisition, divided by its mean
    intensity, and, once all are there, each channel is divided by its mean over the training scans
    (Vasilev et al. 2018, Sec. 3.1).

    Args:
        scans: What ``scan_folder`` lists, images, or scans in memory.
        settings: Preprocessing, the share to hold out, the byte budget.
        seed: Decides which scans are held out.
        options: How scans are read.
        folder: Where a table beyond the byte budget lies.
        on_scan: Told ``(scan id, message)`` of each scan; the message is empty where all went well.
        known: Lesions, labels, outliers; None: nothing is known of any scan.
        scheme: The acquisition, and the order of its channels, of what is trained on from here; None: the
            cohort's usual one.

    Raises:
        SettingsError: The cohort's usual acquisition is not the one given (``init.acquisition``).
        ScanError: No scan can be used, or an id occurs twice; no outlier can be used (``outliers.none``); or
            a scan is said to be anomalous and no mask says where (``labels.where``).
    """
    known = known or Annotations()
    listed = list(scans)
    refuse_same_ids(listed)
    asks = any(getattr(files, "role", None) == "validation" for files in listed)
    _refuse_anomalous_scans(known, listed)
    scale = SignalScale(settings, scheme_of(listed, settings, options, scheme))
    gather = _Gathering(settings, folder, scale, asks, known)
    gather.exposure = Exposure.of(known, settings.validation_fraction, seed, on_scan)
    gather.read = lambda files: scan_of(files, options)
    add_known(validation_first(listed, seed), gather, on_scan, seed)
    return gather.finish()


class _Gathering:
    """The table while it fills."""

    exposure: Exposure
    read: Callable[[Any], Scan]

    def __init__(
        self,
        settings: FitSettings,
        folder: Path | None,
        scale: SignalScale,
        asks: bool,
        known: Annotations,
    ) -> None:
        self.settings, self.known = settings, known
        self.folder = folder
        self.scale = scale
        self.table: VoxelCache | None = None
        self.seen: list[SeenScan] = []
        self.asks = asks
        self.asked: set[str] = set()
        self.held = HeldAnomalies()
        self.outliers: dict[str, str] = {}
        self.subjects: dict[str, str] = {}
        self.notes: list[str] = []

    def add(self, scan: Scan, role: str | None, lesion: np.ndarray | None = None) -> None:
        """Preprocess a scan and keep its voxels: those of a lesion, ``(I, J, K)`` bool, as far as known."""
        refuse_copy_of_outlier(scan, self.outliers)
        same = next((seen.id for seen in self.seen if scan.sha256 and seen.sha256 == scan.sha256), None)
        if same is not None:
            raise ScanError(f"{scan.id}: the same file, byte for byte, as {same}; it is used once",
                            code="cohort.duplicate")  # fmt: skip
        if lesion is not None and not self.known.shows(scan.id):
            scan, lesion = scan.without(lesion), None
        prepared = self.scale.prepared(scan)
        if lesion is not None and prepared.grid.shape != scan.grid.shape:
            lesion = carried(lesion, scan.grid, prepared.grid)
        healthy = prepared if lesion is None else prepared.without(lesion)
        labels, used = self._labels(prepared, lesion)
        rows = self.known.rows(prepared.voxels(), labels)[used]
        if self.table is None:
            budget, shape = self.settings.cache_bytes, (prepared.n_channels,)
            self.table = VoxelCache(rows.shape[1], shape=shape, budget_bytes=budget, folder=self.folder)
            self.exposure.hold_out(self.table, self._outlier_rows, self.notes)
        centres = VoxelView().centres(prepared, 0, prepared.n_voxels)[used]
        places = SamplePlaces.of(centres, prepared.grid.affine)
        held = self.held.append(self.table, scan.id, rows, places)
        self.notes += [f"{scan.id}: {held}"] if held else []
        self.scale.keep(scan.id, healthy)
        told = self.known.told(scan.id)
        if prepared.n_voxels > healthy.n_voxels:
            count, in_all = int((labels[used] < 0).sum()), prepared.n_voxels - healthy.n_voxels
            told = f"{count} voxels of its lesion are labelled as abnormal"
            self.notes.append(
                f"{scan.id}: {told}" + (f", {in_all - count} left out" if count < in_all else "")
            )
        self.seen.append(SeenScan(scan.id, scan.sha256, scan.n_voxels, "training", told))
        if role == "validation":
            self.asked.add(scan.id)
        self.notes += [f"{scan.id}: {warning}" for warning in scan.warnings]

    def finish(self) -> Gathered:
        """Return the tables, each channel divided by its mean over the training scans."""
        if self.table is None:
            reasons = "; ".join(self.notes[:3]) or "the list is empty"
            raise ScanError(f"no scan can be used for training: {reasons}", code="cohort.empty")
        ids = [scan.id for scan in self.seen]
        if self.asks and not self.asked:
            self.notes.append("no scan with the role validation can be used; others are held out")
        first = held_out_ids([scan for scan in ids if scan not in self.held.whole], self.asked,
                             self.settings.validation_fraction, self.subjects)  # fmt: skip
        held_out = first | self.held.whole
        self.exposure.train(self.table, self._outlier_rows, self.notes)
        acquisition, steps = self.scale.divide(self.table, [id for id in ids if id not in held_out])
        self.exposure.apart = self.held.names
        training, validation, more = self.exposure.split(self.table, len(first), self.settings, split)
        training.acquisition = validation.acquisition = acquisition
        seen = tuple(replace(s, role="validation") if s.id in held_out else s for s in self.seen)
        return Gathered(self.table, training, validation, steps, seen, (*self.notes, *more))

    def _labels(self, scan: Scan, lesion: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(n,)`` labels of a scan's voxels, and ``(n,)`` bool: which of them are used."""
        whole = self.known.label_of(scan.id)
        if lesion is None and self.known.semi and whole == -1:
            raise ScanError(f"{scan.id}: is labelled as anomalous, and no mask says which of its voxels are",
                            code="labels.where")  # fmt: skip
        if lesion is None:
            return np.full(scan.n_voxels, whole, np.float32), np.ones(scan.n_voxels, bool)
        inside = labels_of(scan, lesion) < 0
        shown = self.known.drawn(scan.id, inside)
        return np.where(shown, -1, 0).astype(np.float32), shown | ~inside

    def _outlier_rows(self, files: Any) -> np.ndarray:
        """Return ``(n, C + 1)`` rows of a scan that is all outliers."""
        scan = self.read(files)
        refuse_outlier(scan, self.seen, self.outliers)
        samples = self.scale.prepared(scan).voxels()
        return self.known.rows(samples, np.full(len(samples), -1, np.float32))


def _refuse_anomalous_scans(known: Annotations, listed: list[Any]) -> None:
    """Refuse whole diffusion scans that are said to be anomalous."""
    names = [name_of(files) for files in listed if known.semi and known.label_of(name_of(files)) == -1]
    if names and not known.shows_any:
        raise ScanError(
            f"{names[0]}: is labelled as anomalous, but most of its voxels are not; say which "
            "are with masks of lesions (and annotations.lesions=label), or give scans that are abnormal "
            "throughout as outliers",
            code="labels.where",
        )


def labels_of(scan: Scan, lesion: np.ndarray | None) -> np.ndarray:
    """Return ``(n,)`` labels of a scan's voxels: -1 in a lesion, ``(I, J, K)`` bool, 0 elsewhere."""
    if lesion is None:
        return np.zeros(scan.n_voxels, np.float32)
    return np.where(lesion.ravel(order="F")[np.flatnonzero(scan.mask.ravel(order="F"))], -1, 0)


def gather_voxels(
    x: np.ndarray,
    scans: Sequence[Any] | np.ndarray | None,
    settings: FitSettings,
    seed: int,
    *,
    labels: np.ndarray | None = None,
    folder: Path | None = None,
) -> Gathered:
    """Split an array of voxels into two tables, by scan where there are at least two.

    Args:
        x: ``(n, C)``.
        scans: ``(n,)`` the scan of each voxel; None: one scan.
        settings: The share to hold out, the byte budget.
        seed: Decides which scans are held out.
        labels: ``(n,)`` class of each voxel, which its row of the table ends with; None: rows are voxels.
        folder: Where a table beyond the byte budget lies.

    Raises:
        ScanError: Wrong shape, or values that are not finite.
    """
    x = np.asarray(x)
    ids = [""] * len(x) if scans is None else [str(scan) for scan in scans]
    if x.ndim != 2 or len(ids) != len(x):
        raise ScanError(f"voxels must be (n, C) with one scan id a voxel; got {x.shape} and {len(ids)} ids",
                        code="voxels.shape")  # fmt: skip
    names = list(dict.fromkeys(ids))
    order = numpy_generator(seed, "validation scans").permutation(len(names))
    count = held_out_count(len(names), settings.validation_fraction)
    shape = (x.shape[1],)
    x = x if labels is None else np.column_stack([x, labels])
    table = VoxelCache(x.shape[1], shape=shape, budget_bytes=settings.cache_bytes, folder=folder)
    of_scan, seen = np.array(ids), []
    for i, name in enumerate(names[j] for j in order):
        rows = x[of_scan == name]
        table.append(name, rows)
        seen.append(SeenScan(name, "", len(rows), "validation" if i < count else "training"))
    training, validation, notes = split(table, count, settings.validation_fraction)
    return Gathered(table, training, validation, (), tuple(seen), notes)


def split(
    table: VoxelCache, held_out: int, fraction: float, ids: list[str] | None = None
) -> tuple[VoxelCache, VoxelCache, tuple[str, ...]]:
    """Return training voxels, held-out voxels, and notes: the first scans are held out, or a slab of one.

    Args:
        table: Of the voxels of all scans.
        held_out: How many scans; 0: there is a single one.
        fraction: Share of a single scan to hold out.
        ids: Of neighbouring scans; None: of all.

    Raises:
        ScanError: Too few voxels.
    """
    ids = list(table.scans) if ids is None else ids
    if held_out:
        return table.part(ids[held_out:]), table.part(ids[:held_out]), ()
    size = sum(rows.stop - rows.start for rows in (table.scans[name] for name in ids))
    cut = size - round(fraction * size)
    if not 0 < cut < size:
        raise ScanError(f"{size} voxels are too few to hold any out for validation",
                        code="voxels.too_few")  # fmt: skip
    note = "a single scan: its last voxels in the file's order are held out for validation, not a scan"
    return table.part(ids, 0, cut), table.part(ids, cut), (note,)


def scan_of(files: Any, options: ReadOptions | None) -> Scan:
    """Return a scan: the one given, or the one read from its files."""
    from mednovelty.io.read_scan import DEFAULTS, read_scan

    return files if isinstance(files, Scan) else read_scan(files, options=options or DEFAULTS)


def refuse_same_ids(listed: list[Any]) -> None:
    """Raise ``ScanError`` where two scans have one id."""
    count = Counter(map(name_of, listed))
    twice = [name for name, n in count.items() if n > 1]
    if twice:
        raise ScanError(f"{twice[0]}: {count[twice[0]]} scans have this id; give each its own",
                        code="cohort.same_id")  # fmt: skip
