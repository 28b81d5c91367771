"""What one score is on held-out normals, and how often it is as high there: a conformal p-value.

``p(s) = (1 + #{calibration >= s}) / (n + 1)`` (Vovk et al. 2005; Bates et al. 2023, "Testing for outliers
with conformal p-values"): where s is exchangeable with the n calibration values, ``P(p <= alpha) <= alpha``.
It is never 0, and it asks for nothing but ranks: a monotone transform of the score changes nothing.

The values are kept as a table: the upper tail value by value, what is below thinned out so that a count is
never too small, and too large by a thousandth at most. The lower tail is kept as finely, counted from below:
z is a quantile of ``1 - p``, of which little is left there. It is never too high, and too low by 0.0013 at
most. A lookup is a binary search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from mednovelty.errors import ScanError

TAIL = 20_000
"""As many of the highest values are kept as they are."""
LOW_TAIL = 2_000
"""As many of the lowest values are kept as they are."""
STEP = 1e-3
"""Between the tails, relative distance of the counts that are kept, from above and from below."""


@dataclass(frozen=True, eq=False)
class Null:
    """The values of one score on held-out normals, as a monotone table.

    Attributes:
        values: ``(m,)`` float64, those that are kept, ascending, each once.
        at_least: ``(m,)`` int64, how many calibration values are as high as each or higher.
        above: ``(m,)`` int64, how many are higher than each.
        n: How many calibration values there were.
    """

    values: np.ndarray
    at_least: np.ndarray
    above: np.ndarray
    n: int

    def __post_init__(self) -> None:
        same = self.values.shape == self.at_least.shape == self.above.shape
        if not same or self.values.ndim != 1 or not len(self.values):
            raise ValueError("a null needs as many counts as values, and at least one")
        if not np.isfinite(self.values).all() or (np.diff(self.values) <= 0).any():
            raise ValueError("the values of a null must be finite, and ascend")
        counts = np.stack([self.at_least, self.above], 1).ravel()
        if counts[0] != self.n or counts[-1] != 0 or (np.diff(counts) > 0).any():
            raise ValueError(f"the counts of a null must fall from n = {self.n} to 0")
        if (self.at_least <= self.above).any():
            raise ValueError("each value of a null must have occurred")

    @classmethod
    def of(cls, values: ArrayLike, *, tail: int = TAIL, step: float = STEP, low_tail: int = LOW_TAIL) -> Null:
        """Return the null of calibration values.

        Args:
            values: Any shape, real numbers.
            tail: How many of the highest are kept one by one.
            step: Relative distance of the counts kept between the tails.
            low_tail: How many of the lowest are kept one by one.

        Raises:
            ScanError: There is none, or one is not finite.

        Examples:
            >>> Null.of([1.0, 2.0, 3.0]).p([0.5, 2.0, 2.5, 9.0])
            array([1.  , 0.75, 0.5 , 0.25])
        """
        ordered = np.sort(checked_scores(values), axis=None)
        n = len(ordered)
        if not n:
            raise ScanError("no held-out value to calibrate with", code="calibration.empty")
        # From below no further than to the middle: above it, counts from the top lie closer.
        places = [n - _counts(n, tail, step), _counts((n + 1) // 2, low_tail, step) - 1]
        kept = np.unique(ordered[np.concatenate(places)])
        at_least = n - np.searchsorted(ordered, kept, "left")
        above = n - np.searchsorted(ordered, kept, "right")
        return cls(kept, at_least.astype(np.int64), above.astype(np.int64), n)

    def count(self, values: ArrayLike) -> np.ndarray:
        """Return how many calibration values are as high or higher, int64; between two kept ones, at most."""
        values = checked_scores(values)
        place = np.searchsorted(self.values, values, "left")
        higher = np.concatenate([[self.n], self.above])[place]
        nearest = np.minimum(place, len(self.values) - 1)
        return np.where(self.values[nearest] == values, self.at_least[nearest], higher)

    def p(self, values: ArrayLike) -> np.ndarray:
        """Return p-values, float64 in (0, 1], of the shape of the scores.

        Raises:
            ScanError: A score is not finite.
        """
        return (1.0 + self.count(values)) / (self.n + 1.0)

    def z(self, values: ArrayLike) -> np.ndarray:
        """Return the normal quantiles of ``1 - p``, float64, within those of ``smallest_p``; see ``z_of``."""
        return z_of(self.p(values), self.smallest_p)

    @property
    def smallest_p(self) -> float:
        """The p-value of a score above all calibration values."""
        return 1.0 / (self.n + 1.0)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what ``from_arrays`` makes it again from."""
        return {
            "values": self.values,
            "at_least": self.at_least,
            "above": self.above,
            "n": np.array([self.n], np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Null:
        """Return a null from its arrays.

        Raises:
            ValueError: They are not those of a null.
            KeyError: One is missing.
        """
        if arrays["n"].shape != (1,):
            raise ValueError("n of a null must be one number")
        return cls(arrays["values"], arrays["at_least"], arrays["above"], int(arrays["n"][0]))


def _counts(n: int, tail: int, step: float) -> np.ndarray:
    """Return 1, 2, ..., tail, then counts ever further apart, and n.

    Examples:
        >>> _counts(30, 3, 0.5).tolist()
        [1, 2, 3, 5, 7, 11, 16, 23, 30]
    """
    tail = max(tail, 1)
    further = max(0, int(np.ceil(np.log(max(n / tail, 1)) / np.log1p(step))))
    thinned = np.ceil(tail * (1 + step) ** np.arange(1, further + 1)).astype(np.int64)
    return np.unique(np.concatenate([np.arange(1, min(tail, n) + 1), thinned[thinned < n], [n]]))


def z_of(p: ArrayLike, smallest_p: float | np.ndarray) -> np.ndarray:
    """Return the normal quantiles of ``1 - p``, float64: higher is more novel.

    A p of 1 has no finite quantile; it gets that of ``1 - smallest_p``, so that z lies symmetrically about 0.

    Examples:
        >>> z_of([0.5, 0.025, 1.0], 1e-3).round(3).tolist()
        [0.0, 1.96, -3.09]
    """
    # Of p, not of 1 - p, which has lost its digits where p is small.
    return -ndtri(np.minimum(np.asarray(p, np.float64), 1.0 - np.asarray(smallest_p))) + 0.0


def checked_scores(values: ArrayLike) -> np.ndarray:
    """Return scores as float64.

    Raises:
        ScanError: One is not finite.
    """
    wide = np.asarray(values, np.float64)
    if not np.isfinite(wide).all():
        count = np.count_nonzero(~np.isfinite(wide))
        raise ScanError(f"{count} of {wide.size} scores are not finite; no p-value can be given",
                        code="calibration.finite")  # fmt: skip
    return wide


__all__ = ["LOW_TAIL", "STEP", "TAIL", "Null", "checked_scores", "z_of"]
