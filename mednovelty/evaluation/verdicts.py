"""In words: which scores beat the best trivial baseline, by AUROC and by AP, and by how much."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mednovelty.evaluation.result import Evaluation

BASELINE_PREFIX = "raw_"
JUDGED = {"auroc": "AUROC", "ap": "AP"}


def verdicts(found: Evaluation) -> list[str]:
    """Say for AUROC and for AP which scores lose to the best trivial baseline."""
    scores, baselines = found.ranked()
    if not baselines:
        return [
            f"No trivial baseline ({BASELINE_PREFIX}*) among the maps: whether these scores beat plain "
            "intensity is unknown."
        ]
    if not scores:
        return ["Only trivial baselines among the maps."]
    said = [_verdict(found, metric, scores, baselines) for metric in JUDGED]
    return [*said, *_turned_round(found, baselines)]


def comparisons(found: Evaluation) -> dict[str, str]:
    """Say of each score whether it beats the best trivial baseline, in the mean and with scans pooled."""
    scores, baselines = found.ranked()
    if not baselines:
        return {}
    said = {}
    for score in scores:
        in_mean = ", ".join(_against_in_mean(found, score, metric, baselines) for metric in JUDGED)
        pooled = ", ".join(_against_pooled(found, score, metric, baselines) for metric in JUDGED)
        said[score] = f"{score} {in_mean}; pooled, it {pooled}."
    return said


def best_in_mean(found: Evaluation, metric: str, baselines: list[str]) -> str:
    """Return the trivial baseline with the highest mean."""
    return max(baselines, key=lambda score: np.nan_to_num(found.mean[score][metric], nan=-1.0))


def _gap(found: Evaluation, score: str, best: str, metric: str) -> tuple[float, list[float] | None]:
    """Return how far a score is ahead in the mean over the scans that both have, and the interval."""
    ahead, own = found.column(best, metric), found.column(score, metric)
    # Scan by scan, so that a score that lacks a scan is not judged on an easier set.
    by = {id: own[id] - ahead[id] for id in own if id in ahead}
    return (float(np.mean(list(by.values()))) if by else math.nan), found.interval(by)


def _verdict(found: Evaluation, metric: str, scores: list[str], baselines: list[str]) -> str:
    best, name = best_in_mean(found, metric, baselines), JUDGED[metric]
    if not found.column(best, metric):
        return f"{name} is undefined in every scan."
    behind = []
    for score in scores:
        gap, interval = _gap(found, score, best, metric)
        if gap < 0:
            behind.append(f"{score} by {_size(gap, interval)}")
    against = f"the best trivial baseline, {best} ({found.mean[best][metric]:.3f})"
    if not behind:
        return f"{name}: no score loses to {against}."
    return f"{name}: {len(behind)} of {len(scores)} scores lose to {against}: {'; '.join(behind)}."


def _against_in_mean(found: Evaluation, score: str, metric: str, baselines: list[str]) -> str:
    best = best_in_mean(found, metric, baselines)
    return _said(*_gap(found, score, best, metric), best, JUDGED[metric])


def _against_pooled(found: Evaluation, score: str, metric: str, baselines: list[str]) -> str:
    pooled = {name: found.pooled.get(name, {}).get(metric, math.nan) for name in (score, *baselines)}
    best = max(baselines, key=lambda name: np.nan_to_num(pooled[name], nan=-1.0))
    if found.pooled.get(score, {}).get("scans") != found.pooled.get(best, {}).get("scans"):
        return f"cannot be compared with {best} in {JUDGED[metric]}, which has other scans"
    return _said(pooled[score] - pooled[best], None, best, JUDGED[metric])


def _said(gap: float, interval: list[float] | None, best: str, metric: str) -> str:
    if math.isnan(gap):
        return f"cannot be compared with {best} in {metric}"
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
