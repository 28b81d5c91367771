"""Healthy scans, or arrays, become two tables of voxels: to train on, and to hold out.

Scans are split whole: voxels of one head are too alike for some to judge what others taught. Where there
is a single scan, its last voxels in the file's order, a slab, are held out instead, and a note says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from mednovelty.errors import MedNoveltyError, OutputError, ScanError, SettingsError, StoppedError
from mednovelty.fitting import FitSettings
from mednovelty.plugins import plugin
from mednovelty.preprocess.intensity import ChannelMean, channel_means
from mednovelty.preprocess.qspace import GradientScheme
from mednovelty.protocols import Preprocessor
from mednovelty.scan import Scan
from mednovelty.seeds import numpy_generator
from mednovelty.voxel_cache import VoxelCache

if TYPE_CHECKING:
    from mednovelty.io.read_scan import ReadOptions

ROWS = 1 << 16
Role = Literal["training", "validation"]


@dataclass(frozen=True)
class SeenScan:
    """One scan that a detector has seen."""

    id: str
    sha256: str
    n_voxels: int
    role: Role


@dataclass
class Gathered:
    """Voxels to train on and to hold out, and how scans became these voxels."""

    training: VoxelCache
    validation: VoxelCache
    preprocessing: tuple[tuple[str, Preprocessor], ...] = ()
    scans: tuple[SeenScan, ...] = ()
    notes: tuple[str, ...] = ()
    _close: ExitStack = field(default_factory=ExitStack, repr=False)

    def __enter__(self) -> Self:
        self._close.enter_context(self.training)
        self._close.enter_context(self.validation)
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()


def gather_scans(
    scans: Iterable[Any],
    settings: FitSettings,
    seed: int,
    options: ReadOptions | None,
    folder: Path | None,
    on_scan: Callable[[str, str], Any],
) -> Gathered:
    """Read scans one after another, bring them to one scale, and keep their voxels.

    Each scan is put into the first one's channel order, divided by its mean intensity, and, once all are
    there, each channel is divided by its mean over the training scans (Vasilev et al. 2018, Sec. 3.1).

    Raises:
        ScanError: No scan can be used.
    """
    listed = list(scans)
    gather = _Gathering(settings, folder)
    validation = _validation_count(listed, settings)
    for files in _in_order_of_roles(listed, seed):
        name = getattr(files, "id", str(files))
        try:
            scan = files if isinstance(files, Scan) else _read(files, options)
            gather.add(scan, _role(files, gather, validation))
        except (OutputError, StoppedError):
            raise
        except (MedNoveltyError, OSError) as error:
            gather.notes.append(f"left out: {error}")
            on_scan(name, str(error))
            continue
        on_scan(name, "")
    return gather.finish()


class _Gathering:
    """The tables while they fill."""

    def __init__(self, settings: FitSettings, folder: Path | None) -> None:
        self.settings = settings
        self.folder = folder
        self.scheme: GradientScheme | None = None
        steps = [(name, plugin("preprocessors", name)()) for name in settings.preprocessors]
        mean_intensity = plugin("preprocessors", "mean_intensity")(within=settings.normalise_within)
        self.steps: list[tuple[str, Preprocessor]] = [*steps, ("mean_intensity", mean_intensity)]
        self.tables: dict[Role, VoxelCache] = {}
        self.moments: list[tuple[int, np.ndarray]] = []
        self.seen: list[SeenScan] = []
        self.notes: list[str] = []

    def count(self, role: Role) -> int:
        """Return how many scans a table holds."""
        return sum(scan.role == role for scan in self.seen)

    def add(self, scan: Scan, role: Role) -> None:
        """Preprocess a scan and keep its voxels."""
        if scan.gradients is None:
            raise ScanError(f"{scan.id}: has no gradients; the recipe 'qspace' needs diffusion scans",
                            code="gradients.missing")  # fmt: skip
        scheme = self.scheme or GradientScheme.of(
            scan.gradients,
            bvalue_tolerance=self.settings.bvalue_tolerance,
            angle_tolerance_deg=self.settings.angle_tolerance_deg,
        )
        prepared = scheme(scan)
        for _, step in self.steps:
            prepared = step(prepared)
        self.table(role, prepared.n_channels).append(scan.id, prepared.voxels())
        self.scheme = scheme
        if role == "training":
            self.moments.append((prepared.n_voxels, channel_means(prepared)))
        self.seen.append(SeenScan(scan.id, scan.sha256, scan.n_voxels, role))
        self.notes += [f"{scan.id}: {warning}" for warning in scan.warnings]

    def table(self, role: Role, channels: int) -> VoxelCache:
        """Return the table of a role, made when first asked for."""
        if role not in self.tables:
            budget = self.settings.cache_bytes // (1 if role == "training" else 4)
            self.tables[role] = VoxelCache(channels, budget_bytes=budget, folder=self.folder)
        return self.tables[role]

    def finish(self) -> Gathered:
        """Return the tables, each channel divided by its mean over the training scans."""
        if not self.seen:
            reasons = "; ".join(self.notes[:3]) or "the list is empty"
            raise ScanError(f"no scan can be used for training: {reasons}", code="cohort.empty")
        if "training" not in self.tables:
            raise ScanError("every usable scan is held out for validation; none is left to train on",
                            code="cohort.roles")  # fmt: skip
        step = ChannelMean.of_moments(self.moments)
        training = self.tables["training"]
        if "validation" not in self.tables:
            training, self.tables["validation"] = _slabs(training, self.settings)
            self.notes.append(
                "a single scan: its last voxels in the file's order are held out for validation, not a scan"
            )
        for table in (training, self.tables["validation"]):
            table.divide_channels(np.array(step.means))
        assert self.scheme is not None
        steps = (("gradient_scheme", self.scheme), *self.steps, ("channel_mean", step))
        return Gathered(training, self.tables["validation"], steps, tuple(self.seen), tuple(self.notes))


def gather_voxels(
    x: np.ndarray,
    scans: Sequence[Any] | np.ndarray | None,
    settings: FitSettings,
    seed: int,
    folder: Path | None,
) -> Gathered:
    """Split an array of voxels into two tables, by scan where there are at least two.

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
    held_out = {names[i] for i in order[: _held_out(len(names), settings)]}
    tables: dict[Role, VoxelCache] = {}
    seen = []
    of_scan = np.array(ids)
    for name in names:
        role: Role = "validation" if name in held_out else "training"
        rows = x[of_scan == name]
        tables.setdefault(role, VoxelCache(x.shape[1], budget_bytes=settings.cache_bytes, folder=folder))
        tables[role].append(name, rows)
        seen.append(SeenScan(name, "", len(rows), role))
    notes = []
    if "validation" not in tables:
        tables["training"], tables["validation"] = _slabs(tables["training"], settings)
        notes = ["a single scan: its last voxels are held out for validation, not a scan"]
    return Gathered(tables["training"], tables["validation"], (), tuple(seen), tuple(notes))


def _read(files: Any, options: ReadOptions | None) -> Scan:
    from mednovelty.io.read_scan import ReadOptions, read_scan

    return read_scan(files, options=options or ReadOptions())


def _held_out(count: int, settings: FitSettings) -> int:
    return 0 if count < 2 else min(count - 1, max(1, round(settings.validation_fraction * count)))


def _validation_count(listed: list[Any], settings: FitSettings) -> int | None:
    """Return how many scans to hold out, or None where the manifest says which."""
    if any(getattr(files, "role", None) == "validation" for files in listed):
        return None
    return _held_out(len(listed), settings)


def _in_order_of_roles(listed: list[Any], seed: int) -> list[Any]:
    """Return the scans in random order; the first that can be used are held out.

    Shuffled, since scans are often sorted by site or date, and drawn before reading, so that a scan that
    cannot be read gives its place to the next.
    """
    order = numpy_generator(seed, "validation scans").permutation(len(listed))
    return [listed[i] for i in order]


def _role(files: Any, gather: _Gathering, validation: int | None) -> Role:
    if validation is None:
        return "validation" if files.role == "validation" else "training"
    return "validation" if gather.count("validation") < validation else "training"


def _slabs(table: VoxelCache, settings: FitSettings) -> tuple[VoxelCache, VoxelCache]:
    cut = len(table) - round(settings.validation_fraction * len(table))
    if not 0 < cut < len(table):
        raise SettingsError(f"{len(table)} voxels are too few to hold any out for validation")
    first, last = VoxelCache(table.channels), VoxelCache(table.channels)
    first.append("training", table.take(np.arange(cut)))
    last.append("validation", table.take(np.arange(cut, len(table))))
    table.close()
    return first, last
