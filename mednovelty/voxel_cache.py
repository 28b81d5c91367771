"""Training voxels of many scans as one table: in memory up to a byte budget, on disk beyond it.

Which of the two it is changes no number: moments and batches are read in the same order from both.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from mednovelty.errors import ScanError, SettingsError
from mednovelty.sample_places import NormalPlaces, SamplePlaces
from mednovelty.scratch import ScratchTable

BLOCK_ROWS = 4096
"""Rows that lie and stay together when shuffled rows are read from disk, fewer where rows are wide."""
BLOCK_BYTES = 4 * 2**20
BUFFER_BYTES = 64 * 2**20
"""Blocks of about this many bytes are mixed at a time."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Number of rows, mean ``(C,)`` and covariance ``(C, C)`` (divided by the number), float64."""

    count: int
    mean: np.ndarray
    covariance: np.ndarray

    @property
    def spread(self) -> np.ndarray:
        """Return the standard deviation of each channel, ``(C,)``; 1 for a channel that never changes."""
        spread = np.sqrt(np.diag(self.covariance))
        return np.where(spread > 1e-6 * np.abs(self.mean).max(), spread, 1.0)


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How the channels of q-space voxels were measured, and what they were divided by.

    Attributes:
        bvalues_s_per_mm2: ``(C,)``.
        divisors: ``(C,)``: a row is a voxel's signals, times any factor of that voxel, over these.
        directions: ``(C, 3)`` unit vectors; anything where b = 0.
    """

    bvalues_s_per_mm2: tuple[float, ...]
    divisors: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...] = ()


class VoxelCache:
    """An ``(n, C)`` float32 table that is filled scan by scan, then read.

    A row is a sample: a voxel's channels, or a slice or window laid flat.

    Args:
        channels: C, values a sample.
        shape: ``(C,)`` or ``(contrasts, *space)``: what a row was before it was laid flat; None: ``(C,)``.
        budget_bytes: As much is kept in memory; ``None``: all.
        folder: Where the file lies when the budget is exceeded; ``None``: the system's temporary folder.

    Attributes:
        places: Where each scan's rows are, of those of which it is known.
        outliers: Labelled rows that batches are mixed with, see ``outlier_exposure``; None: there are none.
        acquisition: Of q-space voxels, where it is known.

    Examples:
        >>> cache = VoxelCache(channels=3)
        >>> cache.append("sub-01", np.ones((5, 3), np.float32))
        >>> cache.append("sub-02", np.zeros((7, 3), np.float32))
        >>> len(cache), cache.scans["sub-02"], cache.moments().mean.round(3).tolist()
        (12, slice(5, 12, None), [0.417, 0.417, 0.417])
    """

    def __init__(
        self,
        channels: int,
        *,
        shape: tuple[int, ...] | None = None,
        budget_bytes: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self.channels = channels
        self.shape = shape or (channels,)
        self.block_rows = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (4 * channels)))
        self.scans: dict[str, slice] = {}
        self.places: dict[str, SamplePlaces] = {}
        self.outliers: VoxelCache | None = None
        self.acquisition: Acquisition | None = None
        self._budget = budget_bytes
        self._folder = folder
        self._parts: list[np.ndarray] = []
        self._file: ScratchTable | None = None
        self._table: np.ndarray | None = None
        self._rows = 0
        self._before = 0  # Rows of the file that lie before the first one here.
        self._on_disk = False

    @classmethod
    def from_array(cls, voxels: np.ndarray, scans: Sequence[str] | None = None) -> VoxelCache:
        """Return a cache in memory with a copy of ``(n, C)`` voxels.

        Args:
            voxels: ``(n, C)``, any real dtype.
            scans: The scan id of each row; rows of one scan need not be adjacent. ``None``: one scan.
        """
        cache = cls(voxels.shape[1])
        ids = np.zeros(len(voxels), np.int64) if scans is None else np.asarray([str(i) for i in scans])
        for scan_id in dict.fromkeys(ids.tolist()):
            cache.append(str(scan_id), voxels[ids == scan_id])
        return cache

    def __len__(self) -> int:
        return self._rows

    def __enter__(self) -> VoxelCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_outliers(self) -> int:
        """How many outliers its batches are mixed with."""
        return 0

    @property
    def on_disk(self) -> bool:
        """Whether the rows lie in a file."""
        return self._on_disk

    def part(self, scans: Sequence[str], first: int | None = None, last: int | None = None) -> VoxelCache:
        """Return the rows of some neighbouring scans as a table of their own; nothing is copied.

        Args:
            scans: Ids that follow each other in this table.
            first: Of these rows, where to begin; as in slices.
            last: Where to end.

        Raises:
            SettingsError: The scans are not there, or do not follow each other.
        """
        wanted = [self.scans.get(scan, slice(-1, -1)) for scan in scans]
        ends = [rows.stop for rows in wanted]
        if not wanted or [rows.start for rows in wanted[1:]] != ends[:-1] or wanted[0].start < 0:
            raise SettingsError(f"{', '.join(scans) or 'no scan'}: no neighbours in the training table")
        start, stop, _ = slice(first, last).indices(ends[-1] - wanted[0].start)
        start, stop = start + wanted[0].start, stop + wanted[0].start
        part = VoxelCache(self.channels, shape=self.shape)
        part._table, part._on_disk = self._read()[start:stop], self._on_disk
        part._rows, part._before = stop - start, self._before + start
        for scan, rows in zip(scans, wanted, strict=True):
            begin, end = max(rows.start, start) - start, min(rows.stop, stop) - start
            if begin < end:
                part.scans[scan] = slice(begin, end)
                if scan in self.places:
                    first = begin + start - rows.start
                    part.places[scan] = self.places[scan].part(first, first + end - begin)
        return part

    @property
    def owns_file(self) -> bool:
        """Whether it has a file that ``close`` removes."""
        return self._file is not None

    def joined(self, parts: Sequence[VoxelCache]) -> VoxelCache:
        """Return a table with copies of the rows of some parts of this one, within its budget.

        Args:
            parts: From ``part``; they need not be neighbours.
        """
        table = VoxelCache(self.channels, shape=self.shape, budget_bytes=self._budget, folder=self._folder)
        for part in parts:
            for scan, rows in part.scans.items():
                table.append(scan, part.array()[rows], part.places.get(scan))
        return table

    def append(self, scan_id: str, voxels: np.ndarray, places: SamplePlaces | None = None) -> None:
        """Add the voxels of one scan, ``(n, C)``; they are copied as float32.

        Args:
            scan_id: Whose.
            voxels: As many as there are places.
            places: Where they are; None: that is not known.

        Raises:
            ScanError: Wrong number of channels, or values that are not finite.
            SettingsError: The scan is there already, or the cache has been read.
            OutputError: The file cannot be written.
        """
        if scan_id in self.scans:
            raise SettingsError(
                f"{scan_id}: its voxels are in the training table already; give each scan its own id"
            )
        if self._table is not None:
            raise SettingsError(f"{scan_id}: the training table has been read; it takes no more scans")
        if voxels.ndim != 2 or voxels.shape[1] != self.channels:
            raise ScanError(
                f"{scan_id}: voxels of shape {voxels.shape} do not fit a table of {self.channels} channels",
                code="voxels.channels",
            )
        rows = np.array(voxels, dtype=np.float32, order="C")
        if not np.isfinite(rows).all():
            bad = int((~np.isfinite(rows)).any(1).sum())
            raise ScanError(
                f"{scan_id}: {bad} of {len(rows)} voxels have values that are not finite; repair the scan "
                "or mask them out",
                code="voxels.not_finite",
            )
        self.scans[scan_id] = slice(self._rows, self._rows + len(rows))
        self._rows += len(rows)
        if places is not None:
            self.places[scan_id] = places
        self._keep(rows)

    def divide_channels(self, divisors: np.ndarray) -> None:
        """Divide each channel by its own number, ``(C,)``, in place."""
        factors = np.asarray(divisors, np.float32)
        if factors.shape != (self.channels,) or not np.isfinite(factors).all() or (factors == 0).any():
            raise SettingsError(
                f"channels are divided by {self.channels} finite numbers other than 0, not by {divisors}"
            )
        table = self._read()
        for start in range(0, len(table), self.block_rows):
            table[start : start + self.block_rows] /= factors

    def moments(self) -> Moments:
        """Return mean and covariance of all rows, accumulated in float64 (Chan et al. 1983)."""
        count, mean = 0, np.zeros(self.channels)
        scatter = np.zeros((self.channels, self.channels))
        for block in self.blocks():
            rows = block.astype(np.float64)
            centre = rows.mean(0)
            rows -= centre
            step, total = centre - mean, count + len(rows)
            scatter += rows.T @ rows + np.outer(step, step) * (count * len(rows) / total)
            mean = mean + step * (len(rows) / total)
            count = total
        return Moments(count, mean, scatter / max(count, 1))

    def mean_and_spread(self, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each value, ``(C,)`` float64; 1 for one that never changes.

        Args:
            width: Of how many of the first values; None: of all.
        """
        total, squares = np.zeros((2, width or self.channels))
        for block in self.blocks():
            total += block[:, :width].sum(0, dtype=np.float64)
        mean = total / len(self)
        for block in self.blocks():
            squares += np.square(block[:, :width] - mean).sum(0)
        spread = np.sqrt(squares / len(self))
        return mean, np.where(spread > 1e-6 * max(np.abs(mean).max(), 1e-30), spread, 1.0)

    def blocks(self, rows: int | None = None) -> Iterator[np.ndarray]:
        """Yield all rows in order, ``rows`` at a time; the arrays are views: do not write into them."""
        table, rows = self._read(), rows or self.block_rows
        for start in range(0, len(table), rows):
            yield table[start : start + rows]

    def array(self) -> np.ndarray:
        """Return the table itself, ``(n, C)`` float32, in memory or on disk; do not write into it."""
        return self._read()

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return the rows at sorted or unsorted ``indices`` as a new ``(m, C)`` float32 array."""
        return np.array(self._read()[indices])

    def take_evenly(self, count: int) -> np.ndarray:
        """Return about ``count`` rows at even distances, at most all, as a new ``(m, C)`` float32 array."""
        return self.take(np.unique(np.linspace(0, len(self) - 1, count).astype(np.int64)))

    def places_of(self, rows: np.ndarray) -> NormalPlaces:
        """Return which scans ``(m,)`` rows are of, and where in them."""
        return NormalPlaces.of(self.scans, self.places, rows)

    def sample_rows(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Return sorted indices of about ``count`` rows, evenly over scans; all of them if there are no more.

        A scan with fewer rows than its share gives all; the others share what is left.
        """
        if count >= len(self):
            return np.arange(len(self))
        left, chosen = count, []
        by_size = sorted(self.scans.values(), key=lambda rows: rows.stop - rows.start)
        for i, rows in enumerate(by_size):
            share = min(rows.stop - rows.start, left // (len(by_size) - i))
            chosen.append(rows.start + generator.choice(rows.stop - rows.start, share, replace=False))
            left -= share
        return np.sort(np.concatenate(chosen))

    def batches(self, batch_size: int, generator: Generator, *, limit: int | None = None) -> Iterator[Tensor]:
        """Yield the rows in random order as ``(b, C)`` float32 tensors, each row once.

        Blocks of neighbouring rows are drawn in random order, and some 64 MiB of them are mixed at
        a time, so that a table on disk is read in long runs. All batches have the same size up to
        one row, at most ``batch_size``: no small last batch takes a noisy step.

        Args:
            batch_size: The largest batch.
            generator: Decides the order, on the CPU.
            limit: Stop after about this many rows; another generator goes on with others.
        """
        wanted = len(self) if limit is None else min(limit, len(self))
        n_batches = -(-wanted // batch_size)
        sizes = iter([wanted // n_batches + (i < wanted % n_batches) for i in range(n_batches)])
        missing, parts = next(sizes, 0), []
        for source, order in self._mixed(batch_size, generator):
            while missing and len(order):
                parts.append(source.index_select(0, order[:missing]))
                order, missing = order[missing:], missing - len(parts[-1])
                if not missing:
                    yield torch.cat(parts) if len(parts) > 1 else parts[0]
                    missing, parts = next(sizes, 0), []

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON types that tell this table from another: scans, sizes, some of the values."""
        some = self.take(np.linspace(0, len(self) - 1, min(len(self), 1024)).astype(np.int64))
        return {
            "channels": self.channels,
            "shape": list(self.shape),
            "scans": {scan: rows.stop - rows.start for scan, rows in self.scans.items()},
            "sum": float(some.sum(dtype=np.float64)),
            "sum_of_squares": float((some.astype(np.float64) ** 2).sum()),
        }

    def close(self) -> None:
        """Let go of the memory, and remove the file if there is one."""
        self._table, self._parts, self._on_disk = None, [], False
        if self._file is not None:
            self._file.close()
        self._rows, self.scans = 0, {}

    def _mixed(self, batch_size: int, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield groups of blocks: a table that holds them, and the indices of their rows, shuffled."""
        table = self._read()
        block = self.block_rows
        blocks = torch.randperm(-(-len(table) // block), generator=generator)
        per_group = -(-max(batch_size, BUFFER_BYTES // (4 * self.channels)) // block)
        groups = [group.sort().values for group in blocks.split(per_group)]
        for i, group in enumerate(groups):
            rows = (group[:, None] * block + torch.arange(block)).flatten()
            rows = rows[rows < len(table)]
            order = torch.randperm(len(rows), generator=generator)
            if not self.on_disk:
                yield torch.from_numpy(table), rows[order]
                continue
            self._fetch_ahead(table, groups[i + 1].tolist() if i + 1 < len(groups) else [])
            held = [table[number * block : (number + 1) * block] for number in group.tolist()]
            yield torch.from_numpy(np.concatenate(held)), order

    def _fetch_ahead(self, table: np.ndarray, blocks: list[int]) -> None:
        """Let the system read blocks from disk while the present ones are used; it needs no thread."""
        mapped: Any = getattr(table, "_mmap", None)
        if not hasattr(mapped, "madvise"):
            return
        for block in blocks:
            first = self._before + block * self.block_rows
            start = 4 * self.channels * first // mmap.PAGESIZE * mmap.PAGESIZE
            length = min(4 * self.channels * self.block_rows + mmap.PAGESIZE, len(mapped) - start)
            mapped.madvise(mmap.MADV_WILLNEED, start, length)

    def _keep(self, rows: np.ndarray) -> None:
        held = sum(part.nbytes for part in self._parts) + rows.nbytes
        self._parts.append(rows)
        if self._file is None and (self._budget is None or held <= self._budget):
            return
        if self._file is None:
            self._file, self._on_disk = ScratchTable(self._folder), True
        while self._parts:
            self._file.write(self._parts.pop(0))

    def _read(self) -> np.ndarray:
        """Return the table; from now on no scan can be added."""
        if self._table is not None:
            return self._table
        if not self._rows:
            raise SettingsError("the training table is empty (or closed): append at least one voxel first")
        if self._file is not None:
            self._table = self._file.map(self._rows, self.channels)
            return self._table
        self._table = np.empty((self._rows, self.channels), np.float32)
        for rows in self.scans.values():  # Each part is freed once copied: never all of them in memory twice.
            self._table[rows] = self._parts.pop(0)
        return self._table


__all__ = ["Moments", "VoxelCache"]
