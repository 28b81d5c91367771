"""What healthy scans show: the table that a scan's clusters and numbers are held against.

Each calibration scan was given p-values by the others, so that it stands to them as a new scan does. Of these
p-values the table has, at each of some fixed p: how many voxels there are with at most that p, and how large
the largest cluster of them is. A cluster counts as abnormal when it is larger than any of them at its p: of n
healthy scans and one more, which is as healthy, the last has the largest cluster with a chance of 1 in n + 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mednovelty.errors import ScanError, SettingsError
from mednovelty.segment.clusters import HAIR
from mednovelty.segment.rules import Rule, next_above

AMONG_OTHERS = 2.0
"""A calibration scan's smallest p among the others is above that of a new scan among all: twice at most,
where scans are of one size. For records that do not tell it, as they were written before."""


@dataclass(frozen=True, eq=False)
class Controls:
    """What S calibration scans show of one score at G fixed p.

    Attributes:
        ids: ``S`` scan ids.
        grid: ``(G,)`` p, falling.
        largest_mm3: ``(S, G)`` by connectivity: the largest cluster of voxels with at most that p.
        volume_mm3: ``(S, G)``: all of them.
        share: ``(S, G)``: of the mask.
        maximum: ``(S,)`` highest score.
        floor_p: The smallest that each of the scans can have among the others, the largest scan, too. A new
            scan, held against all, can have smaller ones: there the scans show nothing, and so say nothing.
    """

    ids: tuple[str, ...]
    grid: np.ndarray
    largest_mm3: Mapping[int, np.ndarray]
    volume_mm3: np.ndarray
    share: np.ndarray
    maximum: np.ndarray
    floor_p: float = 0.0

    def __post_init__(self) -> None:
        shape = (len(self.ids), self.grid.size)
        tables = [*self.largest_mm3.values(), self.volume_mm3, self.share]
        wrong = [table.shape for table in tables if table.shape != shape]
        if wrong or self.maximum.shape != shape[:1] or self.grid.ndim != 1:
            found = wrong[0] if wrong else self.maximum.shape
            raise SettingsError(f"a table of {shape[0]} scans at {shape[1]} p must be {shape}, got {found}")
        if not self.ids or not (np.diff(self.grid) < 0).all():
            raise SettingsError("a table of calibration scans needs a scan and falling p")

    @classmethod
    def from_told(cls, told: Mapping[str, Any], score: str, where: str) -> Controls:
        """Return a score's table from what a calibration tells, see ``calibrate.Calibration.told``.

        Args:
            told: JSON types: ``Scans``, ``ThresholdsP``, ``Connectivities``, and in ``Scores`` by score
                ``LargestMm3`` (scan, connectivity, p), ``NovelMm3``, ``Share`` (scan, p), ``MaxScore`` (scan)
                ``SmallestP`` and ``FloorP``.
            score: Which.
            where: What messages call the file.

        Raises:
            ScanError: Something is missing, of another size, or no finite number (``calibration.damaged``).
        """
        try:
            own = told["Scores"][score]
            largest = _numbers(own["LargestMm3"])
            return cls(
                ids=tuple(map(str, told["Scans"])),
                grid=_numbers(told["ThresholdsP"]),
                largest_mm3={int(c): largest[:, n] for n, c in enumerate(told["Connectivities"])},
                volume_mm3=_numbers(own["NovelMm3"]),
                share=_numbers(own["Share"]),
                maximum=_numbers(own["MaxScore"]),
                floor_p=float(_numbers(own.get("FloorP", AMONG_OTHERS * _numbers(own["SmallestP"])))),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ScanError(
                f"{where}: damaged: {type(error).__name__}: {error}; score the scans again",
                code="calibration.damaged",
            ) from error

    def __len__(self) -> int:
        return len(self.ids)

    def without(self, place: int) -> Controls:
        """Return the table without one of its scans, of which there must be others."""
        return Controls(
            ids=tuple(np.delete(self.ids, place).tolist()),
            grid=self.grid,
            largest_mm3={c: np.delete(rows, place, 0) for c, rows in self.largest_mm3.items()},
            volume_mm3=np.delete(self.volume_mm3, place, 0),
            share=np.delete(self.share, place, 0),
            maximum=np.delete(self.maximum, place),
            floor_p=self.floor_p,
        )

    def limit_mm3(self, p: float, connectivity: int) -> float:
        """Return the largest cluster that any of the scans shows among voxels with at most ``p``, in mm3.

        Of the fixed p the next above is asked, and below the lowest of them, or below what the scans can
        have, the lowest that they can: the limit is never too small. Infinite above the highest.

        Raises:
            SettingsError: The connectivity is not in the table.
        """
        return float(self._largest(p, connectivity).max())

    def p_cluster(self, volume_mm3: float, p: float, connectivity: int) -> float:
        """Return ``(1 + how many scans show a cluster as large at p) / (1 + scans)``; see ``limit_mm3``."""
        return conformal(self._largest(p, connectivity), volume_mm3)

    def p_of(self, scan: Curve, rule: Rule) -> dict[str, float]:
        """Return a scan's p-values as a whole: of what a rule flags in mm3, of its share, of the maximum.

        The rule is followed on the fixed p, for the scan and for each calibration scan alike: on those that
        all of them can have.
        """
        reach = self.grid >= self.floor_p * (1 - 1e-6)
        grid = self.grid[reach]
        own = scan.at(reach).under(rule, grid)
        curves = [Curve(*parts) for parts in zip(self.volume_mm3, self.share, self.maximum, strict=True)]
        volumes, shares = np.array([curve.at(reach).under(rule, grid) for curve in curves]).T
        return {
            "p_volume": conformal(volumes, own[0]),
            "p_share": conformal(shares, own[1]),
            "p_maximum": conformal(self.maximum, scan.maximum),
        }

    def _largest(self, p: float, connectivity: int) -> np.ndarray:
        if connectivity not in self.largest_mm3:
            known = ", ".join(map(str, self.largest_mm3))
            raise SettingsError(f"the calibration knows clusters of connectivity {known}, not {connectivity}")
        at = next_above(self.grid, max(p, self.floor_p))
        if not math.isfinite(at):
            return np.full(len(self), math.inf)
        return self.largest_mm3[connectivity][:, int(np.flatnonzero(self.grid == at)[0])]


@dataclass(frozen=True, eq=False)
class Curve:
    """How much of a scan lies below each fixed p.

    Attributes:
        volume_mm3: ``(G,)`` of voxels with at most each p.
        share: ``(G,)``: of the mask.
        maximum: Highest score.
    """

    volume_mm3: np.ndarray
    share: np.ndarray
    maximum: float

    @classmethod
    def of(cls, surprise: np.ndarray, voxel_mm3: float, maximum: float, grid: np.ndarray) -> Curve:
        """Count ``(n,)`` -log10 p of the voxels of a mask, each of ``voxel_mm3``, on ``(G,)`` p."""
        bounds = (-np.log10(grid)).astype(surprise.dtype)
        counts = surprise.size - np.searchsorted(np.sort(surprise), bounds)
        return cls(counts * voxel_mm3, counts / max(surprise.size, 1), maximum)

    def at(self, reach: np.ndarray) -> Curve:
        """Return the curve at some of the fixed p, ``(G,)`` bool."""
        return Curve(self.volume_mm3[reach], self.share[reach], self.maximum)

    def under(self, rule: Rule, grid: np.ndarray) -> tuple[float, float]:
        """Return volume in mm3 and share of what a rule flags on the fixed p; 0 where it flags nothing."""
        at = np.flatnonzero(grid == rule.p_on(grid, self.share))
        return (float(self.volume_mm3[at[0]]), float(self.share[at[0]])) if at.size else (0.0, 0.0)


def conformal(others: Sequence[float] | np.ndarray, own: float) -> float:
    """Return ``(1 + how many of the others are at least as large) / (1 + others)``.

    Examples:
        >>> conformal([1.0, 2.0, 3.0], 2.0)
        0.75
    """
    values = np.asarray(others, dtype=np.float64)
    return float((1 + np.count_nonzero(values >= own - HAIR * abs(own))) / (1 + values.size))


def _numbers(told: Any) -> np.ndarray:
    values = np.array(told, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    return values


__all__ = ["Controls", "Curve", "conformal"]
