"""Healthy structural scans become two tables of samples, slices or windows laid flat, as voxels do.

As for voxels, scans are held out whole. What touches a lesion can be left out, so that normals may come as
the healthy part of patients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.fitting import FitSettings, make_steps, make_view
from mednovelty.gathering import (
    Gathered,
    SeenScan,
    add_each,
    held_out_ids,
    refuse_same_ids,
    scan_of,
    split,
    validation_first,
)
from mednovelty.preprocess.resample import carried
from mednovelty.scan import Scan
from mednovelty.voxel_cache import VoxelCache

if TYPE_CHECKING:
    from mednovelty.io.read_scan import ReadOptions

BLOCK_SAMPLES = 64
LesionOf = Callable[[Scan], np.ndarray | None]
"""``(I, J, K)`` bool of a scan's lesion; None where nothing is to be left out."""


def gather_images(  # noqa: PLR0913 - all but scans, settings and seed are by keyword
    scans: Iterable[Any],
    settings: FitSettings,
    seed: int,
    *,
    options: ReadOptions | None = None,
    folder: Path | None = None,
    on_scan: Callable[[str, str], Any] = lambda scan_id, message: None,
    lesion_of: LesionOf | None = None,
) -> Gathered:
    """Read structural scans one after another, preprocess them, and keep their samples.

    Args:
        scans: What ``structural_folder`` lists, or scans in memory.
        settings: Preprocessing, view, the share to hold out, the byte budget.
        seed: Decides which scans are held out.
        options: How scans are read.
        folder: Where a table beyond the byte budget lies.
        on_scan: Told ``(scan id, message)`` of each scan; the message is empty where all went well.
        lesion_of: Gives each scan's lesion; samples that touch it are left out. None: all are healthy.

    Raises:
        ScanError: No scan can be used, or an id occurs twice.
    """
    listed = list(scans)
    refuse_same_ids(listed)
    gather = _Gathering(settings, folder, lesion_of)

    def add(files: Any) -> None:
        gather.add(scan_of(files, options), getattr(files, "role", None))

    add_each(validation_first(listed, seed), add, gather.notes, on_scan)
    return gather.finish()


class _Gathering:
    """The table while it fills."""

    def __init__(self, settings: FitSettings, folder: Path | None, lesion_of: LesionOf | None) -> None:
        self.settings, self.folder, self.lesion_of = settings, folder, lesion_of
        self.steps, self.view = make_steps(settings), make_view(settings)
        self.contrasts: tuple[str, ...] | None = None
        self.table: VoxelCache | None = None
        self.seen: list[SeenScan] = []
        self.asked: set[str] = set()
        self.notes: list[str] = []

    def add(self, scan: Scan, role: str | None) -> None:
        """Preprocess a scan and keep its samples."""
        same = next((seen.id for seen in self.seen if scan.sha256 and seen.sha256 == scan.sha256), None)
        if same is not None:
            raise ScanError(f"{scan.id}: the same files, byte for byte, as {same}; they are used once",
                            code="cohort.duplicate")  # fmt: skip
        check_contrasts(scan, self.contrasts)
        samples = self._samples(scan)
        if not len(samples):
            raise ScanError(f"{scan.id}: no sample is left to train on: too little brain, or lesions in all",
                            code="samples.none")  # fmt: skip
        if self.table is None:
            self.contrasts = scan.contrasts
            shape = self.view.shape(scan.n_channels)
            budget = self.settings.cache_bytes
            self.table = VoxelCache(math.prod(shape), shape=shape, budget_bytes=budget, folder=self.folder)
        self.table.append(scan.id, samples)
        self.seen.append(SeenScan(scan.id, scan.sha256, len(samples), "training"))
        if role == "validation":
            self.asked.add(scan.id)
        self.notes += [f"{scan.id}: {warning}" for warning in scan.warnings]

    def _samples(self, scan: Scan) -> np.ndarray:
        """Return ``(n, D)`` samples that touch no lesion."""
        prepared = scan
        for _, step in self.steps:
            prepared = step(prepared)
        lesion = None if self.lesion_of is None else self.lesion_of(scan)
        if lesion is not None and prepared.grid.shape != scan.grid.shape:
            lesion = carried(lesion, scan.grid, prepared.grid)
        count, blocks = self.view.count(prepared), []
        for start in range(0, count, BLOCK_SAMPLES):
            stop = min(start + BLOCK_SAMPLES, count)
            samples = self.view.cut(prepared, start, stop).reshape(stop - start, -1)
            if lesion is not None:
                samples = samples[~self.view.touches(prepared, lesion, start, stop)]
            blocks.append(samples)
        return np.concatenate(blocks) if blocks else np.empty((0, 0), np.float32)

    def finish(self) -> Gathered:
        """Return the tables."""
        if self.table is None:
            reasons = "; ".join(self.notes[:3]) or "the list is empty"
            raise ScanError(f"no scan can be used for training: {reasons}", code="cohort.empty")
        fraction = self.settings.validation_fraction
        held_out = held_out_ids([scan.id for scan in self.seen], self.asked, fraction)
        # A table's parts are neighbours in it; a scan whose role was asked for comes first.
        training, validation, more = split(self.table, len(held_out), fraction)
        seen = tuple(replace(s, role="validation") if s.id in held_out else s for s in self.seen)
        notes = (*self.notes, *more)
        return Gathered(
            self.table, training, validation, tuple(self.steps), seen, notes, self.contrasts or ()
        )


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


__all__ = ["LesionOf", "check_contrasts", "gather_images"]
