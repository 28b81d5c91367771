"""One number of the p-values that several scores give a voxel; higher is more novel.

    fisher        ``-2 sum log p``              Fisher 1932, Statistical Methods for Research Workers
    cauchy        ``mean of cot(pi p)``         Liu and Xie 2020, "Cauchy combination test", eq. (1)
    mean_z        ``mean of z``                 Stouffer et al. 1949, The American Soldier, divided by sqrt(K)
    rank_average  ``-mean of p``                p is the rank among the normals, from the top, as a share

What each is worth where the K p-values are independent is ``p_if_independent``. Scores of one voxel are not:
they look at the same signal. So a statistic is held against the same statistic of held-out normals, see
``calibrated``, and what is given here serves those who have independent p-values, and the tests.

Fisher's sum listens to the most convinced score and to many that are half convinced; Cauchy's mean nearly to
the most convinced alone; the mean of z asks most of them to agree; the rank average asks all of them to.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr
from scipy.stats import chi2

from mednovelty.calibrate.null import z_of
from mednovelty.errors import ScanError, SettingsError

MOST_RANKS = 20
"""Of so many scores the distribution of the rank average is known to all digits that matter."""


def fisher(p: np.ndarray) -> np.ndarray:
    """Return ``(n,)`` of ``(K, n)`` p-values in (0, 1].

    Examples:
        >>> fisher(np.array([[0.1], [0.5]])).round(4).tolist()
        [5.9915]
    """
    return -2.0 * np.log(p).sum(0) + 0.0


def cauchy(p: np.ndarray) -> np.ndarray:
    """Return ``(n,)`` of ``(K, n)`` p-values in (0, 1).

    Examples:
        >>> cauchy(np.array([[0.25], [0.5]])).round(4).tolist()
        [0.5]
    """
    # The cotangent, not tan(pi (1/2 - p)), which loses the digits of a small p.
    return np.mean(np.cos(np.pi * p) / np.sin(np.pi * p), axis=0)


def mean_z(p: np.ndarray) -> np.ndarray:
    """Return ``(n,)`` of ``(K, n)`` p-values in (0, 1).

    Examples:
        >>> mean_z(np.array([[0.025], [0.5]])).round(4).tolist()
        [0.98]
    """
    return z_of(p, 0.0).mean(0)


def rank_average(p: np.ndarray) -> np.ndarray:
    """Return ``(n,)`` of ``(K, n)`` p-values in (0, 1]; from -1 to 0.

    Examples:
        >>> rank_average(np.array([[0.25], [0.5]])).tolist()
        [-0.375]
    """
    return -p.mean(0)


def _fisher_p(statistic: np.ndarray, count: int) -> np.ndarray:
    return chi2.sf(statistic, 2 * count)


def _cauchy_p(statistic: np.ndarray, count: int) -> np.ndarray:
    return np.arctan2(1.0, statistic) / np.pi


def _mean_z_p(statistic: np.ndarray, count: int) -> np.ndarray:
    return ndtr(-statistic * math.sqrt(count))


def _rank_average_p(statistic: np.ndarray, count: int) -> np.ndarray:
    """Return the share of sums of K uniforms at or below that of the ranks (Irwin 1927, Hall 1927)."""
    if count > MOST_RANKS:
        raise SettingsError(f"a rank average of {count} scores; its distribution is known up to {MOST_RANKS}")
    total = np.clip(-statistic * count, 0.0, count)
    # From the nearer end: the terms of the sum alternate, and grow.
    near = np.minimum(total, count - total)
    below = sum(
        (-1) ** j * math.comb(count, j) * np.maximum(near - j, 0.0) ** count for j in range(count // 2 + 1)
    ) / math.factorial(count)
    return np.where(total <= count / 2, below, 1.0 - below)


@dataclass(frozen=True)
class Combination:
    """A way of making one score of several.

    Attributes:
        name: Of the score that it makes.
        statistic: Gives ``(n,)`` of ``(K, n)`` p-values.
        words: What sidecars say of it.
        of_independent: Gives the p-values of ``(n,)`` statistics of K independent uniforms.
    """

    name: str
    statistic: Callable[[np.ndarray], np.ndarray]
    words: str
    of_independent: Callable[[np.ndarray, int], np.ndarray]


COMBINATIONS: Mapping[str, Combination] = {
    one.name: one
    for one in (
        Combination("mean_z", mean_z, "mean of the normal quantiles of 1 - p", _mean_z_p),
        Combination("fisher", fisher, "Fisher's -2 sum log p", _fisher_p),
        Combination("cauchy", cauchy, "Cauchy combination, the mean of cot(pi p)", _cauchy_p),
        Combination("rank_average", rank_average, "minus the mean p, which is that of the ranks among the "
                    "normals", _rank_average_p),
    )
}  # fmt: skip


def combination(name: str) -> Combination:
    """Return a combination by its name.

    Raises:
        SettingsError: None is called so.
    """
    if name not in COMBINATIONS:
        near = difflib.get_close_matches(name, COMBINATIONS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMBINATIONS)}"
        raise SettingsError(f"no combination is called {name!r}; {hint}")
    return COMBINATIONS[name]


def as_stored(p: ArrayLike) -> np.ndarray:
    """Return p-values as maps on disk hold them, float64: float32 of -log10 p and back.

    Examples:
        >>> float(as_stored(0.5)) == 0.5, bool(abs(as_stored(0.3) - 0.3) < 1e-7)
        (False, True)
    """
    surprise = (-np.log10(np.asarray(p, np.float64))).astype(np.float32)
    return 10.0 ** -surprise.astype(np.float64)


def combined(name: str, p: ArrayLike, floor: ArrayLike = 0.0) -> np.ndarray:
    """Return what a combination makes of p-values, ``(n,)`` float32: higher is more novel.

    Args:
        name: One of ``COMBINATIONS``.
        p: ``(K, n)``, of n voxels.
        floor: ``(K,)`` or one: a p-value below it, or above one less it, counts as that. A p of 1 has no
            finite z, and a null of more voxels no right to a higher statistic.

    Raises:
        ScanError: A p-value is not in (0, 1].
        SettingsError: An unknown name, no score, or a floor that is not in [0, 0.5).
    """
    way, wide = combination(name), np.asarray(p, np.float64)
    least = np.broadcast_to(np.asarray(floor, np.float64).reshape(-1, 1), (len(wide), 1))
    if wide.ndim != 2 or not len(wide):
        raise SettingsError(f"p-values of K scores of n voxels must be (K, n), got {wide.shape}")
    if not ((least >= 0) & (least < 0.5)).all():
        raise SettingsError(f"the floors of p-values must lie in [0, 0.5), got {least.ravel().tolist()}")
    if not ((wide > 0) & (wide <= 1)).all():
        wrong = np.count_nonzero(~((wide > 0) & (wide <= 1)))
        raise ScanError(f"{wrong} of {wide.size} p-values do not lie in (0, 1]", code="combine.p")
    # Not quite 1 in any case: the nearest float64 below.
    return way.statistic(np.clip(wide, least, np.minimum(1.0 - least, 1.0 - 2.0**-53))).astype(np.float32)


def p_if_independent(name: str, statistic: ArrayLike, count: int) -> np.ndarray:
    """Return the p-values of a statistic of independent p-values, float64 in [0, 1].

    Args:
        name: One of ``COMBINATIONS``.
        statistic: What ``combined`` gives.
        count: K, of how many scores.

    Raises:
        SettingsError: An unknown name, no score, or too many of them.

    Examples:
        >>> p_if_independent("fisher", combined("fisher", [[0.1], [0.5]]), 2).round(4).tolist()
        [0.1998]
    """
    if count < 1:
        raise SettingsError(f"a combination is of at least one score, got {count}")
    return combination(name).of_independent(np.asarray(statistic, np.float64), count)


__all__ = ["COMBINATIONS", "Combination", "as_stored", "cauchy", "combination", "combined", "fisher",
           "mean_z", "p_if_independent", "rank_average"]  # fmt: skip
