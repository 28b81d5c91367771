"""How well scores tell lesion voxels from the others: exact, from two sorted arrays.

Scores are higher where more novel; a voxel is flagged where ``score >= threshold``. P lesion voxels and
N others ("healthy") are sorted once, apart, and every number below is a count in those two arrays:

    AUROC   sum over all pairs of ([lesion > healthy] + [lesion = healthy] / 2) / (P N)
    AP      sum over distinct thresholds of (recall_n - recall_(n-1)) precision_n
    FPR     at 95 % TPR, in both conventions, each named by what is counted
    Dice    2 TP / (TP + FP + P)

AP and the best Dice need the thresholds at lesion scores only: going down from one lesion score to just
above the next adds false positives and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mednovelty.errors import SettingsError
from mednovelty.papers import equation


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The scores of lesion voxels and of the others, each sorted: all that the metrics need.

    Attributes:
        lesion: ``(P,)`` ascending.
        healthy: ``(N,)`` ascending, of the same dtype.
    """

    lesion: np.ndarray
    healthy: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, lesion: np.ndarray, name: str = "scores") -> Ranking:
        """Sort the scores of one scan.

        Args:
            scores: ``(n,)`` real numbers, higher is more novel; infinities are ranked, NaN is refused.
            lesion: ``(n,)`` bool.
            name: What messages call the scores.

        Raises:
            SettingsError: Shapes differ, labels are not bool, or a score is NaN.
        """
        scores, lesion = np.asarray(scores), np.asarray(lesion)
        if scores.ndim != 1 or scores.shape != lesion.shape:
            raise SettingsError(
                f"{name}: scores and labels must be (n,) both, got {scores.shape} and {lesion.shape}"
            )
        if lesion.dtype != np.bool_:
            raise SettingsError(f"{name}: labels must be bool, true in the lesion, got {lesion.dtype}")
        if scores.dtype.kind != "f" or scores.dtype.itemsize < 4:
            scores = scores.astype(np.float64)
        if missing := int(np.count_nonzero(np.isnan(scores))):
            raise SettingsError(f"{name}: {missing} of {scores.size} scores are NaN; leave those voxels out")
        return cls(np.sort(scores[lesion]), np.sort(scores[~lesion]))

    @classmethod
    def pooled(cls, rankings: Iterable[Ranking]) -> Ranking:
        """Return the ranking of all their voxels together."""
        parts = list(rankings)
        if len(parts) == 1:
            return parts[0]
        lesion = np.concatenate([part.lesion for part in parts])
        healthy = np.concatenate([part.healthy for part in parts])
        # "stable" merges runs that are sorted already; in place, since a cohort's voxels fill the memory.
        lesion.sort(kind="stable")
        healthy.sort(kind="stable")
        return cls(lesion, healthy)

    @property
    def n_healthy(self) -> int:
        """Voxels outside the lesion."""
        return self.healthy.size

    @property
    def undefined(self) -> str | None:
        """Why the metrics are NaN: a class has no voxel; None where both have some."""
        if self.lesion.size and self.n_healthy:
            return None
        return "no lesion voxel" if self.n_healthy else "no voxel outside the lesion"

    @property
    def prevalence(self) -> float:
        """Share of lesion voxels: the AP of scores that know nothing."""
        n = self.lesion.size + self.n_healthy
        return self.lesion.size / n if n else math.nan

    def healthy_below(self, at: np.ndarray, side: Literal["left", "right"] = "left") -> np.ndarray:
        """Count healthy scores below each of ``(m,)`` ascending numbers; ``right``: at most each."""
        return np.searchsorted(self.healthy, at, side)

    def thresholds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the distinct lesion scores, ascending, with TP and FP at each, all ``(m,)``."""
        first = np.flatnonzero(np.append(True, self.lesion[1:] != self.lesion[:-1]))
        found = self.lesion[first]
        return found, self.lesion.size - first, self.n_healthy - self.healthy_below(found)

    def flagged(self, threshold: float) -> tuple[int, int]:
        """Return TP and FP where ``score >= threshold``."""
        # In the scores' own dtype: a Python float would make searchsorted copy the array to float64.
        at = np.asarray(threshold, dtype=self.healthy.dtype)
        return (self.lesion.size - int(np.searchsorted(self.lesion, at)),
                self.n_healthy - int(self.healthy_below(at)))  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Pool(Ranking):
    """Several rankings as one, without a copy of their healthy scores, which are many.

    Attributes:
        lesion: ``(P,)`` ascending, of all.
        healthy: Empty: they are in ``runs``.
        runs: ``(N_r,)`` ascending each, all of the healthy scores.
    """

    runs: tuple[np.ndarray, ...] = ()

    @classmethod
    def of_all(cls, rankings: Sequence[Ranking]) -> Pool:
        """Return all their voxels together; the fewer rankings, the faster its counts."""
        lesion = np.concatenate([ranking.lesion for ranking in rankings])
        lesion.sort(kind="stable")
        runs = tuple(ranking.healthy for ranking in rankings)
        return cls(lesion, np.empty(0, np.result_type(*runs)), runs)

    @property
    def n_healthy(self) -> int:
        """Voxels outside the lesion."""
        return sum(run.size for run in self.runs)

    def healthy_below(self, at: np.ndarray, side: Literal["left", "right"] = "left") -> np.ndarray:
        """Count healthy scores below each of ``(m,)`` ascending numbers; ``right``: at most each."""
        counts = [np.searchsorted(run, at, side) for run in self.runs]
        return np.asarray(np.sum(counts, axis=0, dtype=np.int64))


def auroc(ranking: Ranking) -> float:
    """Return the chance that a lesion voxel outscores another one, ties counted half; NaN for one class."""
    if ranking.undefined:
        return math.nan
    return _auroc(ranking, *ranking.thresholds())


def average_precision(ranking: Ranking) -> float:
    """Return step-wise average precision, as scikit-learn defines it; equal scores are one threshold."""
    if ranking.undefined:
        return math.nan
    return _average_precision(ranking, *ranking.thresholds())


def fpr_at_lesion_tpr(ranking: Ranking, tpr: float = 0.95) -> float:
    """Lesion voxels positive: share of healthy voxels flagged when ``tpr`` of the lesion voxels are found.

    The threshold is the highest at which at least that share is found; nothing is interpolated.
    """
    if ranking.undefined:
        return math.nan
    threshold = ranking.lesion[-_at_least(tpr, ranking.lesion.size)]
    return ranking.flagged(threshold)[1] / ranking.n_healthy


def fpr_at_healthy_tpr(ranking: Ranking, tpr: float = 0.95) -> float:
    """Healthy voxels positive: share of lesion voxels accepted when ``tpr`` of the healthy are accepted.

    A voxel is accepted where its score is at most the lowest limit that accepts at least that share.
    """
    if ranking.undefined:
        return math.nan
    return _fpr_at_healthy_tpr(ranking, *ranking.thresholds(), tpr=tpr)


def best_dice(ranking: Ranking) -> tuple[float, float]:
    """Return the best Dice over all thresholds and the threshold; the highest where several are best."""
    if ranking.undefined:
        return math.nan, math.nan
    return _best_dice(ranking, *ranking.thresholds())


def dice_at(ranking: Ranking, threshold: float) -> float:
    """Return the Dice of ``score >= threshold``; NaN where there is no lesion voxel to find."""
    if not ranking.lesion.size or math.isnan(threshold):
        return math.nan
    hits, false_alarms = ranking.flagged(threshold)
    return 2 * hits / (hits + false_alarms + ranking.lesion.size)


def draw_fifth(n: int, seed: int | Sequence[int]) -> np.ndarray:
    """Return ``(n,)`` bool, one fifth of n things true (rounded, at least one), drawn without replacement.

    Raises:
        SettingsError: Fewer than two things: nothing would be left to report on.
    """
    return draw_fifths(n, seed) == 0


def draw_fifths(n: int, seed: int | Sequence[int]) -> np.ndarray:
    """Return ``(n,)`` int8, the fifth of each of n things, 0 to 4; fifth 0 is the one of ``draw_fifth``.

    The other four share the rest as evenly as whole things can; with fewer than five some are empty.

    Raises:
        SettingsError: Fewer than two things: nothing would be left to report on.
    """
    if n < 2:
        raise SettingsError(f"one fifth of {n} leaves nothing to report on; at least 2 are needed")
    order = np.random.default_rng(seed).permutation(n)
    first = max(1, round(n / 5))
    fifths = np.zeros(n, dtype=np.int8)
    for number, rest in enumerate(np.array_split(order[first:], 4), start=1):
        fifths[rest] = number
    return fifths


@equation("zimmerer2019", "Sec. 3.3")
def fifth_threshold(fifth: Iterable[Ranking]) -> float:
    """Return the threshold with the best Dice over the pooled voxels of one fifth of the test data.

    The Dice is then reported on the other four fifths (``dice_at``). ``draw_fifth`` chooses the fifth: of
    the patients where there are five or more, else of each scan's voxels. The released code searches the
    threshold on the data it reports on; this follows the paper's text.

    Returns:
        In the scores' unit; NaN where the fifth is empty or lacks one of the two classes.
    """
    parts = list(fifth)
    return best_dice(Ranking.pooled(parts))[1] if parts else math.nan


def healthy_threshold(ranking: Ranking, share: float) -> float:
    """Return the lowest threshold that flags at most a share of the healthy voxels; NaN where none does.

    It is the next number above a healthy score, so that voxels of that score are not flagged, however many
    there are of them.
    """
    n = ranking.healthy.size
    allowed = math.floor(share * n + 1e-9 * n)
    if not n or allowed >= n:
        return -math.inf if n else math.nan
    highest = ranking.healthy[n - allowed - 1]
    return math.nan if np.isposinf(highest) else float(np.nextafter(highest, highest.dtype.type(np.inf)))


def roc_points(ranking: Ranking, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Return exact points of the ROC curve, thinned for plotting: ``(m,)`` FPR and TPR, m <= 3 n + 2.

    Thresholds are n order statistics of either class and, for a logarithmic axis, n healthy ones whose
    ranks from the top grow geometrically. Both arrays ascend from 0 to 1; empty for one class.
    """
    if ranking.undefined:
        return np.empty(0), np.empty(0)
    top = -np.geomspace(1, ranking.healthy.size, n).astype(int)
    at = np.unique(
        np.concatenate([thinned(ranking.lesion, n), thinned(ranking.healthy, n), ranking.healthy[top]])
    )
    points = [
        np.append((part.size - np.searchsorted(part, at[::-1])) / part.size, 1.0)
        for part in (ranking.healthy, ranking.lesion)
    ]
    return np.insert(points[0], 0, 0.0), np.insert(points[1], 0, 0.0)


def thinned(ordered: np.ndarray, n: int) -> np.ndarray:
    """Return at most n of the values of a sorted array at evenly spaced ranks, both ends among them."""
    return ordered[np.unique(np.linspace(0, ordered.size - 1, min(n, ordered.size)).round().astype(int))]


def bootstrap_interval(
    values: Sequence[float],
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
    patients: Sequence[str] | None = None,
) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval of the mean over scans.

    Voxels of one scan resemble each other, and so do scans of one patient: patients are what is drawn again.

    Args:
        values: One number a scan; NaN (undefined there) is left out.
        seed: Of the draws.
        resamples: How many times the patients are drawn, with replacement.
        level: Share of resampled means inside the interval.
        patients: Whose each scan is; None: each scan is of a patient of its own.

    Returns:
        Both ends; None for fewer than two patients, who tell nothing about the next one.
    """
    whose = list(range(len(values))) if patients is None else list(patients)
    known = [(value, who) for value, who in zip(values, whose, strict=True) if not math.isnan(value)]
    weights = patient_weights([str(who) for _, who in known], seed, resamples)
    if weights is None:
        return None
    means = weights @ np.array([value for value, _ in known], dtype=np.float64) / weights.sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def patient_weights(patients: Sequence[str], seed: int, resamples: int) -> np.ndarray | None:
    """Draw patients again, with replacement: ``(resamples, S)`` float64, how often each of S scans counts.

    Args:
        patients: ``S`` names, whose each scan is.
        seed: Of the draws.
        resamples: How many times the patients are drawn.

    Returns:
        The counts; None for fewer than two patients.
    """
    place = {name: number for number, name in enumerate(dict.fromkeys(patients))}
    n = len(place)
    if n < 2:
        return None
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    flat = (drawn + n * np.arange(resamples)[:, None]).ravel()
    counts = np.bincount(flat, minlength=resamples * n).reshape(resamples, n)
    return counts[:, [place[name] for name in patients]].astype(np.float64)


def summary(ranking: Ranking) -> dict[str, float]:
    """Return every metric of one scan's scores that needs no other scan, by the names of the reports."""
    names = ("auroc", "ap", "fpr_at_95_lesion_tpr", "fpr_at_95_healthy_tpr", "dice_best",
             "dice_best_threshold")  # fmt: skip
    if ranking.undefined:
        return dict.fromkeys(names, math.nan)
    # The same thresholds for all: to count at them is most of the work.
    counts = ranking.thresholds()
    numbers = (
        _auroc(ranking, *counts),
        _average_precision(ranking, *counts),
        fpr_at_lesion_tpr(ranking),
        _fpr_at_healthy_tpr(ranking, *counts),
        *_best_dice(ranking, *counts),
    )
    return dict(zip(names, numbers, strict=True))


def _auroc(ranking: Ranking, found: np.ndarray, hits: np.ndarray, false_alarms: np.ndarray) -> float:
    below, at_most = ranking.n_healthy - false_alarms, ranking.healthy_below(found, "right")
    # Twice the Mann-Whitney count, in integers, so exact.
    twice = int((_gained(hits) * (below + at_most)).sum())
    return twice / (2 * ranking.lesion.size * ranking.n_healthy)


def _average_precision(
    ranking: Ranking, found: np.ndarray, hits: np.ndarray, false_alarms: np.ndarray
) -> float:
    return float((_gained(hits) * (hits / (hits + false_alarms))).sum() / ranking.lesion.size)


def _fpr_at_healthy_tpr(
    ranking: Ranking, found: np.ndarray, hits: np.ndarray, false_alarms: np.ndarray, tpr: float = 0.95
) -> float:
    # A score is at most the n-th lowest healthy one where fewer than n healthy ones are below it.
    accepted = ranking.n_healthy - false_alarms < _at_least(tpr, ranking.n_healthy)
    return int(_gained(hits)[accepted].sum()) / ranking.lesion.size


def _best_dice(
    ranking: Ranking, found: np.ndarray, hits: np.ndarray, false_alarms: np.ndarray
) -> tuple[float, float]:
    dice = 2 * hits / (hits + false_alarms + ranking.lesion.size)
    best = dice.size - 1 - int(np.argmax(dice[::-1]))
    return float(dice[best]), float(found[best])


def _gained(hits: np.ndarray) -> np.ndarray:
    """Return how many lesion voxels have just each threshold's score."""
    return hits - np.append(hits[1:], 0)


def _at_least(share: float, n: int) -> int:
    # 0.95 * 20 may come out a hair above 19: such a hair must not cost a voxel.
    return max(1, math.ceil(share * n - 1e-9 * n))
