"""Whether a detector is right for the wrong reason: its AUROC, less how well its relevance meets the truth.

Ruff, "Deep One-Class Learning", 2021, Sec. 4.4.2: Clever Hans score = AUROC - cosine similarity of relevance
and ground truth, both as shares. It is near 1 where a detector finds all anomalies by something else than
what is anomalous, as an artefact that comes with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mednovelty.errors import SettingsError
from mednovelty.papers import equation

FLAGGED_ABOVE = 0.5
"""Between what Table 4.4 has as highest of KDE on MNIST-C, 0.32, where relevance is on the anomaly and beside
it, and of Deep SVDD, 0.60, where it is beside it."""

DETECTS_FROM = 0.7
"""Of an AUROC: below it, a score hardly finds anything, and the reason why matters little. The thesis' own
examples are all far above."""


@dataclass(frozen=True, slots=True)
class CleverHans:
    """How far detection and explanation are apart.

    Attributes:
        auroc: From 0 to 1.
        cosine: Mean over samples, from -1 to 1.
        even: The same of relevance that is the same everywhere: the root of the anomaly's share of a sample.
        threshold: Above which the difference is large.
    """

    auroc: float
    cosine: float
    even: float
    threshold: float = FLAGGED_ABOVE

    @property
    def value(self) -> float:
        """The Clever Hans score, AUROC less cosine."""
        return self.auroc - self.cosine

    @property
    def flagged(self) -> bool:
        """Whether it is large, anomalies are detected, and relevance is on them no better than if even.

        The thesis has the difference alone. That is large of everything that is small, since its cosines
        are small for everybody, and of what is not detected but has relevance that is negative there.
        """
        return self.value > self.threshold and self.auroc >= DETECTS_FROM and not self._meets

    @property
    def _meets(self) -> bool:
        """Whether relevance is on anomalies better than if it were even, by more than numbers are rounded."""
        return self.cosine > self.even + 1e-6

    def words(self) -> str:
        """Return it in words; of a large difference that is not flagged, why."""
        told = f"Clever Hans score {self.value:.3f}: AUROC {self.auroc:.3f} less cosine {self.cosine:.3f}"
        if self.value <= self.threshold:
            return told
        told += f"; above {self.threshold:g}"
        if self.auroc < DETECTS_FROM:
            return f"{told}, but with an AUROC below {DETECTS_FROM:g} there is little detected to explain"
        if self._meets:
            return f"{told}, but relevance is on what is novel, more than if it were even, {self.even:.3f}"
        why = f"and relevance no more on what is novel than if it were even, {self.even:.3f}"
        return f"{told}, {why}: it may be right for a wrong reason, so look at relevance"


@equation("ruff2021_thesis", "Clever Hans score")
def clever_hans(auroc: float, cosine: float, even: float, threshold: float = FLAGGED_ABOVE) -> CleverHans:
    """Return AUROC less cosine similarity, and whether that is large.

    Args:
        auroc: Of detection, from 0 to 1.
        cosine: Mean cosine similarity of relevance and ground truth, from -1 to 1.
        even: The same of relevance that is the same everywhere, from 0 to 1.
        threshold: Above which the difference is large.

    Raises:
        SettingsError: Numbers out of range, as shares in percent.
    """
    for name, share in (("auroc", auroc), ("even", even)):
        if not 0 <= share <= 1 + 1e-6:
            raise SettingsError(f"{name} must be from 0 to 1, got {share:g}")
    if not -1 - 1e-6 <= cosine <= 1 + 1e-6:
        raise SettingsError(f"cosine must be from -1 to 1, got {cosine:g}")
    return CleverHans(float(auroc), float(cosine), float(even), threshold)


def mean_cosine(relevance: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean cosine similarity of relevance and ground truth, over samples that have some.

    Args:
        relevance: ``(B, ...)``; of a sample without any, the cosine is 0.
        truth: ``(B, ...)``, at least 0: which inputs are anomalous, or how much.

    Raises:
        SettingsError: Of other shapes, not finite, or no sample has ground truth.
    """
    relevance, truth = np.asarray(relevance, np.float64), np.asarray(truth, np.float64)
    if relevance.shape != truth.shape:
        raise SettingsError(f"relevance {relevance.shape} and truth {truth.shape} must have one shape")
    if not (np.isfinite(relevance).all() and np.isfinite(truth).all()):
        raise SettingsError("relevance and truth must be finite")
    r, t = (each.reshape(len(each), -1) for each in (relevance, truth))
    has = t.any(1)
    if not has.any():
        raise SettingsError(f"none of {len(t)} samples has ground truth; give those that are anomalous")
    r, t = r[has], t[has]
    lengths = np.linalg.norm(r, axis=1) * np.linalg.norm(t, axis=1)
    cosine = np.divide((r * t).sum(1), lengths, out=np.zeros(len(r)), where=lengths > 0)
    return float(cosine.mean())


__all__ = ["DETECTS_FROM", "FLAGGED_ABOVE", "CleverHans", "clever_hans", "mean_cosine"]
