"""Which voxels are flagged, and at which p: the first step from a map to a segmentation.

A rule also says at which of some fixed p it would stop for a scan of which only the share of voxels below
each is known. So a patient and the calibration scans, whose maps are not at hand, are counted alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from mednovelty.errors import SettingsError
from mednovelty.segment.fdr import critical_surprise


@dataclass(frozen=True, eq=False)
class Flagged:
    """What a rule flags of one map.

    Attributes:
        where: ``(n,)`` bool.
        p: The largest p-value among them; 0 where none is flagged, NaN where there are no p-values.
        score: The lowest score among them; NaN where none is flagged.
    """

    where: np.ndarray
    p: float
    score: float


class Rule(Protocol):
    """How flagged voxels are found."""

    name: ClassVar[str]
    needs_p: ClassVar[bool]
    """Whether it needs p-values."""

    def bound(self, surprise: np.ndarray) -> float:
        """Return from which -log10 p on the voxels of a scan are flagged; infinity: none is."""

    def p_on(self, grid: np.ndarray, shares: np.ndarray) -> float:
        """Return at which of ``(G,)`` falling p it stops; 0 for at none.

        ``shares`` holds the share of a scan's voxels with at most each p, ``(G,)``.
        """

    def told(self) -> dict[str, Any]:
        """Return the rule as JSON types."""

    @property
    def words(self) -> str:
        """The rule in words."""


@dataclass(frozen=True)
class FalseDiscoveries:
    """Benjamini-Hochberg over the voxels of the mask.

    Attributes:
        q: The share of false discoveries that is allowed, on average over scans; above 0, below 0.5.
    """

    q: float = 0.05
    name: ClassVar[str] = "fdr"
    needs_p: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _between(self.q, "--fdr")

    def bound(self, surprise: np.ndarray) -> float:
        """See ``Rule``."""
        return critical_surprise(surprise, self.q)

    def p_on(self, grid: np.ndarray, shares: np.ndarray) -> float:
        """See ``Rule``: the largest p at which so many voxels are flagged that q of them are p of all."""
        enough = np.flatnonzero(shares * self.q >= grid * (1 - 1e-9))
        return float(grid[enough[0]]) if enough.size else 0.0

    def told(self) -> dict[str, Any]:
        """See ``Rule``."""
        return {"Rule": self.name, "Q": self.q}

    @property
    def words(self) -> str:
        """See ``Rule``."""
        return f"false discovery rate {self.q:g} (Benjamini-Hochberg over the mask)"


@dataclass(frozen=True)
class FixedP:
    """Every voxel with at most one p.

    Attributes:
        p: Above 0, below 0.5.
    """

    p: float = 0.001
    name: ClassVar[str] = "p"
    needs_p: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _between(self.p, "--p")

    def bound(self, surprise: np.ndarray) -> float:
        """See ``Rule``."""
        return float(surprise.dtype.type(-math.log10(self.p)))

    def p_on(self, grid: np.ndarray, shares: np.ndarray) -> float:
        """See ``Rule``."""
        return next_above(grid, self.p)

    def told(self) -> dict[str, Any]:
        """See ``Rule``."""
        return {"Rule": self.name, "P": self.p}

    @property
    def words(self) -> str:
        """See ``Rule``."""
        return f"p <= {self.p:g}"


@dataclass(frozen=True)
class Quantile(FixedP):
    """Every voxel above a quantile of the calibration scans' voxels; of ``quantile`` 0.999, p <= 0.001.

    Where there is a null for each region, the quantile is of the voxels of the region.
    """

    quantile: float = 0.999
    name: ClassVar[str] = "quantile"

    @classmethod
    def of(cls, quantile: float) -> Quantile:
        """Return the rule of a quantile between 0.5 and 1."""
        _between(quantile, "--quantile", 0.5, 1.0)
        # 1 - 0.999 is a hair above 0.001.
        return cls(float(f"{1 - quantile:.12g}"), quantile)

    def told(self) -> dict[str, Any]:
        """See ``Rule``."""
        return {"Rule": self.name, "Quantile": self.quantile, "P": self.p}

    @property
    def words(self) -> str:
        """See ``Rule``."""
        return f"above the {self.quantile:g} quantile of the calibration scans' voxels (p <= {self.p:g})"


@dataclass(frozen=True)
class ScoreThreshold:
    """Every voxel with at least one score, as found on labelled scans.

    Attributes:
        threshold: In the score's unit; NaN, which flags nothing, where the labelled scans gave none.
        p: The largest p of any voxel with such a score, in whichever scan; NaN where there are no p-values.
        source: Where the threshold is from, in words.
    """

    threshold: float
    p: float = math.nan
    source: str = "given"
    name: ClassVar[str] = "dice"
    needs_p: ClassVar[bool] = False

    def bound(self, surprise: np.ndarray) -> float:
        """See ``Rule``; not of p-values."""
        return math.inf

    def p_on(self, grid: np.ndarray, shares: np.ndarray) -> float:
        """See ``Rule``."""
        return 0.0 if not self.p > 0 else next_above(grid, self.p)

    def told(self) -> dict[str, Any]:
        """See ``Rule``."""
        told = {"Threshold": self.threshold, "P": self.p}
        numbers = {key: None if math.isnan(value) else value for key, value in told.items()}
        return {"Rule": self.name, **numbers, "Source": self.source}

    @property
    def words(self) -> str:
        """See ``Rule``."""
        return f"score >= {self.threshold:.6g} ({self.source})"


def flag(rule: Rule, scores: np.ndarray, surprise: np.ndarray | None) -> Flagged:
    """Return what a rule flags of one map.

    Args:
        rule: Which.
        scores: ``(n,)`` of the voxels of the mask.
        surprise: ``(n,)`` -log10 p of them; None where there are no p-values.

    Raises:
        SettingsError: It needs p-values and there are none.
    """
    if isinstance(rule, ScoreThreshold):
        # In the scores' own type, in which the threshold was found.
        where = scores >= scores.dtype.type(rule.threshold)
    elif surprise is None:
        raise SettingsError(
            f"{rule.words} needs p-values; fit or calibrate with --calibrate, and score again"
        )
    else:
        where = surprise >= rule.bound(surprise)
    lowest = float(scores[where].min()) if where.any() else math.nan
    if surprise is None:
        return Flagged(where, math.nan, lowest)
    return Flagged(where, float(10.0 ** -np.float64(surprise[where].min())) if where.any() else 0.0, lowest)


def next_above(grid: np.ndarray, p: float) -> float:
    """Return the smallest of ``(G,)`` falling p that is not below ``p``; infinity where all are."""
    # A hair, since p may have come through a map of float32.
    above = grid[grid >= p * (1 - 1e-6)]
    return float(above[-1]) if above.size else math.inf


def rule_of(told: dict[str, Any]) -> Rule:
    """Return the rule that ``told`` has told, but that of scores, which each have a threshold of their own.

    Raises:
        SettingsError: There is no such rule.
    """
    try:
        name = told["Rule"]
        if name == FalseDiscoveries.name:
            return FalseDiscoveries(float(told["Q"]))
        if name == FixedP.name:
            return FixedP(float(told["P"]))
        if name == Quantile.name:
            return Quantile.of(float(told["Quantile"]))
        if name == ScoreThreshold.name:
            at, p = (math.nan if told[key] is None else float(told[key]) for key in ("Threshold", "P"))
            return ScoreThreshold(at, p, str(told["Source"]))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"no rule for a segmentation: {told!r}") from error
    raise SettingsError(f"no rule for a segmentation is called {name!r}")


def _between(value: float, name: str, low: float = 0.0, high: float = 0.5) -> None:
    # Beyond a half nothing is abnormal any more, and the calibration scans are not counted there.
    if not low < value < high:
        raise SettingsError(f"{name} must lie between {low:g} and {high:g}, got {value:g}")


__all__ = [
    "FalseDiscoveries",
    "FixedP",
    "Flagged",
    "Quantile",
    "Rule",
    "ScoreThreshold",
    "flag",
    "next_above",
    "rule_of",
]
