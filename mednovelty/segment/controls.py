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
from mednovelty.segment.clusters import CONNECTIVITIES, labelled, voxel_mm3_of
from mednovelty.segment.rules import Rule, next_above

GRID_P = np.logspace(-0.3, -6, 60)
"""Fixed p, falling, at which scans are counted."""


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
    """

    ids: tuple[str, ...]
    grid: np.ndarray
    largest_mm3: Mapping[int, np.ndarray]
    volume_mm3: np.ndarray
    share: np.ndarray
    maximum: np.ndarray

    def __post_init__(self) -> None:
        shape = (len(self.ids), self.grid.size)
        tables = [*self.largest_mm3.values(), self.volume_mm3, self.share]
        wrong = [table.shape for table in tables if table.shape != shape]
        if wrong or self.maximum.shape != shape[:1] or self.grid.ndim != 1:
            found = wrong[0] if wrong else self.maximum.shape
            raise SettingsError(f"a table of {shape[0]} scans at {shape[1]} p must be {shape}, got {found}")
        if not self.ids or not (np.diff(self.grid) < 0).all():
            raise SettingsError("a table of calibration scans needs a scan and falling p")

    def __len__(self) -> int:
        return len(self.ids)

    def limit_mm3(self, p: float, connectivity: int) -> float:
        """Return the largest cluster that any of the scans shows among voxels with at most ``p``, in mm3.

        Of the fixed p the next above is asked, and below the lowest of them the lowest: the limit is never
        too small. Infinite above the highest.

        Raises:
            SettingsError: The connectivity is not in the table.
        """
        at = next_above(self.grid, p)
        column = int(np.flatnonzero(self.grid == at)[0]) if math.isfinite(at) else None
        found = self._largest(connectivity)
        return math.inf if column is None else float(found[:, column].max())

    def p_cluster(self, volume_mm3: float, p: float, connectivity: int) -> float:
        """Return ``(1 + how many scans show a cluster as large at p) / (1 + scans)``."""
        at = next_above(self.grid, p)
        if not math.isfinite(at):
            return 1.0
        largest = self._largest(connectivity)[:, int(np.flatnonzero(self.grid == at)[0])]
        return conformal(largest, volume_mm3)

    def p_of(self, scan: Curve, rule: Rule) -> dict[str, float]:
        """Return a scan's p-values as a whole: of what a rule flags in mm3, of its share, of the maximum.

        The rule is followed on the fixed p, for the scan and for each calibration scan alike.
        """
        own = scan.under(rule, self.grid)
        others = [self._curve(number).under(rule, self.grid) for number in range(len(self))]
        volumes, shares = np.array(others).T
        return {
            "p_volume": conformal(volumes, own[0]),
            "p_share": conformal(shares, own[1]),
            "p_maximum": conformal(self.maximum, scan.maximum),
        }

    def _curve(self, number: int) -> Curve:
        return Curve(self.volume_mm3[number], self.share[number], float(self.maximum[number]))

    def _largest(self, connectivity: int) -> np.ndarray:
        if connectivity not in self.largest_mm3:
            known = ", ".join(map(str, self.largest_mm3))
            raise SettingsError(f"the calibration knows clusters of connectivity {known}, not {connectivity}")
        return self.largest_mm3[connectivity]

    @classmethod
    def of(cls, scans: Mapping[str, Counted]) -> Controls:
        """Return the table of some scans that were counted on the same p."""
        rows = list(scans.values())
        return cls(
            ids=tuple(scans),
            grid=GRID_P,
            largest_mm3={c: np.stack([row.largest_mm3[c] for row in rows]) for c in CONNECTIVITIES},
            volume_mm3=np.stack([row.curve.volume_mm3 for row in rows]),
            share=np.stack([row.curve.share for row in rows]),
            maximum=np.array([row.curve.maximum for row in rows]),
        )

    def told(self) -> dict[str, Any]:
        """Return the table as JSON types."""
        return {
            "Scans": list(self.ids),
            "P": self.grid.tolist(),
            "LargestMm3": {str(c): table.tolist() for c, table in self.largest_mm3.items()},
            "VolumeMm3": self.volume_mm3.tolist(),
            "Share": self.share.tolist(),
            "Maximum": self.maximum.tolist(),
        }

    @classmethod
    def from_told(cls, told: Mapping[str, Any], where: str) -> Controls:
        """Return the table that ``told`` has told.

        Raises:
            ScanError: Something is missing, of another size, or no finite number.
        """
        try:
            tables = {int(c): _numbers(rows) for c, rows in told["LargestMm3"].items()}
            names = ("P", "VolumeMm3", "Share", "Maximum")
            grid, volume_mm3, share, maximum = (_numbers(told[name]) for name in names)
            return cls(tuple(map(str, told["Scans"])), grid, tables, volume_mm3, share, maximum)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ScanError(
                f"{where}: damaged: {type(error).__name__}: {error}; score the scans again",
                code="calibration.damaged",
            ) from error


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
    def of(cls, surprise: np.ndarray, voxel_mm3: float, maximum: float, grid: np.ndarray = GRID_P) -> Curve:
        """Count ``(n,)`` -log10 p of the voxels of a mask, each of ``voxel_mm3``."""
        bounds = (-np.log10(grid)).astype(surprise.dtype)
        counts = surprise.size - np.searchsorted(np.sort(surprise), bounds)
        return cls(counts * voxel_mm3, counts / max(surprise.size, 1), maximum)

    def under(self, rule: Rule, grid: np.ndarray) -> tuple[float, float]:
        """Return volume in mm3 and share of what a rule flags on the fixed p; 0 where it flags nothing."""
        at = np.flatnonzero(grid == rule.p_on(grid, self.share))
        return (float(self.volume_mm3[at[0]]), float(self.share[at[0]])) if at.size else (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Counted:
    """One scan at each fixed p: its curve, and its largest cluster by connectivity, ``(G,)`` mm3."""

    curve: Curve
    largest_mm3: Mapping[int, np.ndarray]


def count_scan(surprise: np.ndarray, score: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> Counted:
    """Count one scan for the table.

    Args:
        surprise: ``(I, J, K)`` -log10 p of a scan that had no part in them.
        score: ``(I, J, K)``.
        mask: ``(I, J, K)`` bool.
        affine: ``(4, 4)``, voxel indices to RAS+ mm.
    """
    voxel_mm3 = voxel_mm3_of(affine)
    curve = Curve.of(surprise[mask], voxel_mm3, float(score[mask].max()))
    largest = {c: np.zeros(GRID_P.size) for c in CONNECTIVITIES}
    for n, bound in enumerate((-np.log10(GRID_P)).astype(surprise.dtype)):
        flagged = mask & (surprise >= bound)
        if not flagged.any():
            break  # The p fall: nothing further down either.
        for c in CONNECTIVITIES:
            largest[c][n] = labelled(flagged, c)[1][0] * voxel_mm3
    return Counted(curve, largest)


def conformal(others: Sequence[float] | np.ndarray, own: float) -> float:
    """Return ``(1 + how many of the others are at least as large) / (1 + others)``.

    Examples:
        >>> conformal([1.0, 2.0, 3.0], 2.0)
        0.75
    """
    values = np.asarray(others, dtype=np.float64)
    # A hair, since volumes are sums of voxels in float64 and may have come through text.
    return float((1 + np.count_nonzero(values >= own - 1e-9 * abs(own))) / (1 + values.size))


def _numbers(told: Any) -> np.ndarray:
    values = np.array(told, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    return values


__all__ = ["GRID_P", "Controls", "Counted", "Curve", "conformal", "count_scan"]
