"""What a score is on held-out normals, as a curve to be drawn: which share of their voxels is as high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mednovelty.calibrate.null import Null

QUANTILES = (0.5, 0.95, 0.99, 0.999)
"""Those that are told."""


@dataclass(frozen=True, eq=False)
class NullCurve:
    """A score on the voxels of held-out normals.

    Attributes:
        values: ``(m,)`` float64, ascending.
        as_high: ``(m,)`` share of the n voxels that score as high as each or higher.
        n: How many voxels there were.
        ends_early: Whether nothing is known above the highest value but how many voxels are there.
    """

    values: np.ndarray
    as_high: np.ndarray
    n: int
    ends_early: bool = False

    @classmethod
    def of(cls, null: Null) -> NullCurve:
        """Return the curve of a calibration's table."""
        return cls(null.values, null.at_least / null.n, null.n)

    @classmethod
    def read_off(cls, scores: np.ndarray, p: np.ndarray, n: int) -> NullCurve:
        """Return the curve from a map and its p-values, ``p = (1 + #{null >= s}) / (n + 1)`` solved for #.

        It is known at the map's own values, so nothing is told of normals beyond the highest of these.

        Args:
            scores: Any shape.
            p: Of the same shape, by one null for all.
            n: How many voxels the null has.

        Examples:
            >>> curve = NullCurve.read_off(np.array([3.0, 1.0]), np.array([0.2, 0.8]), 4)
            >>> curve.values.tolist(), curve.as_high.round(6).tolist()
            ([1.0, 3.0], [0.75, 0.0])
        """
        values, where = np.unique(np.asarray(scores, np.float64).ravel(), return_index=True)
        count = np.rint(np.asarray(p, np.float64).ravel()[where] * (n + 1) - 1)
        # Maps hold -log10 p as float32: a count may be off by one where it is large.
        shares = np.minimum.accumulate(np.clip(count / n, 0.0, 1.0))
        return cls(values, shares, n, ends_early=True)

    def share(self, scores: np.ndarray | float) -> np.ndarray:
        """Return which share of the normals' voxels is as high or higher, of the shape of the scores."""
        at = np.searchsorted(self.values, scores, "left")
        return np.asarray(np.append(self.as_high, 0.0)[at])

    def p(self, score: float) -> float:
        """Return the p-value of a score."""
        return float((1.0 + self.share(score) * self.n) / (1.0 + self.n))

    def quantile(self, q: float) -> float:
        """Return the lowest value of the curve below which a share q of the normals' voxels lies."""
        enough = np.flatnonzero(self.as_high <= 1.0 - q + 1e-12)
        return float(self.values[enough[0]] if len(enough) else self.values[-1])


def that_gave(curves: Sequence[NullCurve], score: float, p: float | None) -> NullCurve | None:
    """Return the curve by which a score has its p-value, as of a voxel's region; None of none.

    Args:
        curves: That of all voxels first.
        score: Of the voxel.
        p: Its p-value; None: not known.
    """
    if not curves or p is None:
        return None
    return min(curves, key=lambda curve: round(abs(np.log(curve.p(score) / p)), 3))


__all__ = ["QUANTILES", "NullCurve", "that_gave"]
