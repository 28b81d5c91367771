"""In words: which scores beat the best trivial baseline, by AUROC and by AP, and by how much.

One sentence a metric for the reader, since with a dozen scores a line for each drowns what it says; every
number of every score is in ``standings``, for programs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mednovelty.evaluation.result import Evaluation

BASELINE_PREFIX = "raw_"
JUDGED = {"auroc": "AUROC", "ap": "AP"}
Interval = list[float] | None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where scores stand beside the best trivial baseline in one metric.

    Attributes:
        metric: ``auroc`` or ``ap``.
        best: The baseline that is highest in it.
        value: Its number; NaN where undefined.
        gaps: Score to how far it is ahead, and the interval over patients; NaN where they have no scan, or
            not the same scans, in common. By falling gap.
    """

    metric: str
    best: str
    value: float
    gaps: dict[str, tuple[float, Interval]]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types, but for NaN."""
        ahead = {score: {"ahead": gap, "interval": interval} for score, (gap, interval) in self.gaps.items()}
        return {"best": self.best, "value": self.value, "scores": ahead}


def verdicts(found: Evaluation) -> list[str]:
    """Say for AUROC and for AP, in the mean over scans, which scores beat the best trivial baseline."""
    scores, baselines = found.ranked()
    if not baselines:
        return [
            f"No trivial baseline ({BASELINE_PREFIX}*) among the maps: whether these scores beat plain "
            "intensity is unknown."
        ]
    if not scores:
        return ["Only trivial baselines among the maps."]
    said = [_sentence(found, in_mean(found, metric), "") for metric in JUDGED]
    return [*said, *_turned_round(found, baselines)]


def pooled_verdicts(found: Evaluation) -> list[str]:
    """Say the same of all scans pooled; empty without a baseline or without pooled numbers."""
    scores, baselines = found.ranked()
    if not (scores and baselines and found.pooled):
        return []
    return [_sentence(found, in_pool(found, metric), "pooled ") for metric in JUDGED]


def standings(found: Evaluation) -> dict[str, dict[str, dict[str, Any]]]:
    """Return every gap to the best trivial baseline as JSON types; empty without one."""
    if not found.ranked()[1]:
        return {}
    ways = {"mean": in_mean, "pooled": in_pool}
    return {name: {metric: way(found, metric).to_dict() for metric in JUDGED} for name, way in ways.items()}


def comparisons(found: Evaluation) -> dict[str, str]:
    """Say of each score whether it beats the best trivial baseline, in the mean and with scans pooled."""
    scores, baselines = found.ranked()
    if not baselines:
        return {}
    mean = [in_mean(found, metric) for metric in JUDGED]
    pooled = [in_pool(found, metric) for metric in JUDGED]
    return {
        score: f"{found.named(score)} {', '.join(_said(one, score) for one in mean)}; pooled, it "
        f"{', '.join(_said(one, score) for one in pooled)}."
        for score in scores
    }


def in_mean(found: Evaluation, metric: str) -> Standing:
    """Compare means over scans; each score scan by scan, so that one that lacks a scan has no easier set."""
    scores, baselines = found.ranked()
    best = max(baselines, key=lambda score: np.nan_to_num(found.mean[score][metric], nan=-1.0))
    theirs = found.column(best, metric)
    gaps = {}
    for score in scores:
        own = found.column(score, metric)
        by = {id: own[id] - theirs[id] for id in own if id in theirs}
        gaps[score] = (float(np.mean(list(by.values()))) if by else math.nan), found.interval(by)
    return Standing(metric, best, found.mean[best][metric], _falling(gaps))


def in_pool(found: Evaluation, metric: str) -> Standing:
    """Compare numbers of all scans pooled, of scores that have the baseline's scans."""
    scores, baselines = found.ranked()
    pooled = {name: found.pooled.get(name, {}) for name in (*scores, *baselines)}
    numbers = {name: row.get(metric, math.nan) for name, row in pooled.items()}
    best = max(baselines, key=lambda name: np.nan_to_num(numbers[name], nan=-1.0))
    gaps: dict[str, tuple[float, Interval]] = {}
    for score in scores:
        same = pooled[score].get("scans") == pooled[best].get("scans")
        gaps[score] = numbers[score] - numbers[best] if same else math.nan, None
    return Standing(metric, best, numbers[best], _falling(gaps))


def _falling(gaps: dict[str, tuple[float, Interval]]) -> dict[str, tuple[float, Interval]]:
    return dict(sorted(gaps.items(), key=lambda item: -np.nan_to_num(item[1][0], nan=-9.0)))


def _sentence(found: Evaluation, standing: Standing, what: str) -> str:
    name = f"{what}{JUDGED[standing.metric]}"
    name = name[0].upper() + name[1:]
    if math.isnan(standing.value):
        return f"{name} is undefined."
    gaps, shown = standing.gaps, {score: found.named(score) for score in (standing.best, *standing.gaps)}
    ahead = [f"{shown[score]} by {_size(*gaps[score])}" for score in gaps if gaps[score][0] > 0]
    behind = [score for score in gaps if gaps[score][0] < 0]
    equal = [shown[score] for score in gaps if gaps[score][0] == 0]
    unknown = [shown[score] for score in gaps if math.isnan(gaps[score][0])]
    said = f"{name}: the best trivial baseline, {shown[standing.best]} ({standing.value:.3f}), is beaten by "
    said += f"{', '.join(ahead) or 'no score'}."
    said += f" {', '.join(equal)} equal{'s' * (len(equal) == 1)} it." if equal else ""
    if behind:
        least, most = (f"{-gaps[score][0]:.3f}" for score in (behind[0], behind[-1]))
        by = least if least == most else f"{least} to {most}"
        losers = ", ".join(shown[score] for score in behind)
        said += f" {len(behind)} of {len(gaps)} lose to it, by {by}: {losers}."
    return said + (f" Not comparable, having other scans: {', '.join(unknown)}." if unknown else "")


def _said(standing: Standing, score: str) -> str:
    gap, interval = standing.gaps[score]
    best, metric = standing.best, JUDGED[standing.metric]
    if math.isnan(gap):
        return f"cannot be compared with {best} in {metric}, which has other scans"
    if gap == 0:
        return f"equals {best} in {metric}"
    what = "beats" if gap > 0 else "loses to"
    return f"{what} {best} in {metric} by {_size(gap, interval)}"


def _size(gap: float, interval: list[float] | None) -> str:
    """Return how large a gap is, whichever way, with its interval turned the same way."""
    if interval is None:
        return f"{abs(gap):.3f}"
    low, high = interval if gap > 0 else (-interval[1], -interval[0])
    return f"{abs(gap):.3f} [{low:.3f}, {high:.3f}]"


def _turned_round(found: Evaluation, baselines: list[str]) -> list[str]:
    best = found.mean[baselines[0]]["auroc"]
    return [
        f"{score} is low in lesions: turned round it would reach AUROC "
        f"{1 - found.mean[score]['auroc']:.3f}, more than any trivial baseline as it stands."
        for score in baselines
        if 1 - found.mean[score]["auroc"] > best
    ]
