"""All scans as one: metrics over their pooled voxels or slices, with intervals over patients.

The numbers are exact. For the intervals patients are drawn again and again, and every draw is read off the
scans' counts at the same ``THRESHOLDS`` pooled lesion scores; each is then moved by what these few thresholds
get wrong in the cohort as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mednovelty.metrics import Pool, Ranking, patient_weights, summary, thinned

THRESHOLDS = 500
BLOCK = 250
"""Draws that are worked out together, which bounds the memory."""
CURVE_METRICS = ("auroc", "ap", "fpr_at_95_lesion_tpr", "fpr_at_95_healthy_tpr", "dice_best")
Interval = list[float] | None


@dataclass(frozen=True, slots=True)
class Draws:
    """How patients are drawn again.

    Attributes:
        seed: Of the draws.
        resamples: How many.
        level: Of the intervals.
    """

    seed: int
    resamples: int
    level: float

    def interval(
        self, patients: Sequence[str], number: Callable[[np.ndarray], np.ndarray], correct: float = 0.0
    ) -> Interval:
        """Return the percentile interval of a number over patients.

        Args:
            patients: ``S`` names, whose each scan is.
            number: From ``(R, S)`` how often each scan counts to ``(R,)``; NaN is left out.
            correct: Added to both ends.

        Returns:
            Both ends; None for fewer than two patients, or where every draw is NaN.
        """
        found = self.intervals(patients, lambda weights: number(weights)[:, None], np.array([correct]))
        return None if found is None else found[0]

    def intervals(
        self,
        patients: Sequence[str],
        numbers: Callable[[np.ndarray], np.ndarray],
        correct: np.ndarray,
    ) -> list[Interval] | None:
        """Return ``m`` intervals at once; ``numbers`` gives ``(R, m)``, ``correct`` is ``(m,)``."""
        weights = patient_weights(patients, self.seed, self.resamples)
        if weights is None:
            return None
        blocks = [numbers(weights[start : start + BLOCK]) for start in range(0, len(weights), BLOCK)]
        ends = [(1 - self.level) / 2, (1 + self.level) / 2]
        found: list[Interval] = []
        for column, moved in zip(np.concatenate(blocks).T, correct, strict=True):
            known = column[~np.isnan(column)]
            found.append((np.quantile(known, ends) + moved).tolist() if known.size else None)
        return found


def ratio_interval(
    draws: Draws, patients: Sequence[str], over: Sequence[float], under: Sequence[float]
) -> tuple[float, Interval]:
    """Return the ratio of two sums over scans, NaN where the lower one is 0, and its interval."""
    above, below = np.asarray(over, dtype=np.float64), np.asarray(under, dtype=np.float64)
    with np.errstate(all="ignore"):
        whole = float(above.sum() / below.sum()) if below.sum() else math.nan
        return whole, draws.interval(patients, lambda weights: (weights @ above) / (weights @ below))


def pooled_curve(
    rankings: Sequence[Ranking], patients: Sequence[str], draws: Draws, runs: Sequence[Ranking] = ()
) -> dict[str, float | Interval]:
    """Return ``CURVE_METRICS`` of all rankings pooled, each with its ``_interval`` over patients.

    Args:
        rankings: One a scan.
        patients: Whose each scan is.
        draws: How patients are drawn again.
        runs: All the rankings again, where some are pooled already: fewer are counted faster.
    """
    pooled = Pool.of_all(runs or rankings)
    lesion = pooled.lesion
    counts = _Counts.at(np.unique(thinned(lesion, THRESHOLDS)) if lesion.size else lesion, rankings)
    found: dict[str, float | Interval] = {
        name: number for name, number in summary(pooled).items() if name in CURVE_METRICS
    }
    if pooled.undefined:
        return found | {f"{name}_interval": None for name in CURVE_METRICS}
    exact = np.array([found[name] for name in CURVE_METRICS], dtype=np.float64)
    correct = exact - counts.metrics(np.ones((1, len(patients))))[0]
    intervals = draws.intervals(patients, counts.metrics, correct) or [None] * len(CURVE_METRICS)
    for name, interval in zip(CURVE_METRICS, intervals, strict=True):
        found[f"{name}_interval"] = None if interval is None else [min(max(end, 0), 1) for end in interval]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Counts:
    """Each scan's counts at ``m`` ascending thresholds."""

    hits: np.ndarray  # (S, m)
    false_alarms: np.ndarray  # (S, m)
    lesion: np.ndarray  # (S,)
    healthy: np.ndarray  # (S,)

    @classmethod
    def at(cls, thresholds: np.ndarray, rankings: Sequence[Ranking]) -> _Counts:
        parts = [[ranking.lesion for ranking in rankings], [ranking.healthy for ranking in rankings]]
        flagged = [[part.size - np.searchsorted(part, thresholds) for part in side] for side in parts]
        sizes = [[part.size for part in side] for side in parts]
        return cls(*(np.array(counts, dtype=np.float64) for counts in (*flagged, *sizes)))

    def metrics(self, weights: np.ndarray) -> np.ndarray:
        """Return ``(R, 5)`` ``CURVE_METRICS`` where each scan counts as often as ``(R, S)`` weights say."""
        lesion, healthy = (weights @ self.lesion)[:, None], (weights @ self.healthy)[:, None]
        hits, false_alarms = weights @ self.hits, weights @ self.false_alarms
        with np.errstate(all="ignore"):
            tpr, fpr = hits / lesion, false_alarms / healthy
            # From the highest threshold down, from (0, 0) to (1, 1).
            x = np.pad(fpr[:, ::-1], ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))
            y = np.pad(tpr[:, ::-1], ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))
            gained = tpr - np.pad(tpr[:, 1:], ((0, 0), (0, 1)))
            precision = np.nan_to_num(hits / (hits + false_alarms))
            rows = np.arange(len(weights))
            highest = tpr.shape[1] - 1 - np.argmax((tpr >= 0.95)[:, ::-1], axis=1)
            lowest = np.argmax(fpr <= 0.05, axis=1)
            missed = np.where((fpr <= 0.05).any(axis=1), 1 - tpr[rows, lowest], 1.0)
            found = np.stack([
                np.trapezoid(y, x, axis=1),
                (gained * precision).sum(axis=1),
                fpr[rows, highest],
                missed,
                (2 * hits / (hits + false_alarms + lesion)).max(axis=1),
            ], axis=1)  # fmt: skip
        return np.where((lesion > 0) & (healthy > 0), found, np.nan)
