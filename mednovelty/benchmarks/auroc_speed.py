"""Seconds for every metric of many voxels, beside scikit-learn; runs with ``python -m``."""

from __future__ import annotations

import json
import sys
from time import perf_counter

import numpy as np

from mednovelty.metrics import Ranking, auroc, summary


def measure(n: int = 5_000_000, prevalence: float = 0.02, seed: int = 0) -> dict[str, float]:
    """Time the metrics on n float32 scores and check that both libraries agree.

    Returns:
        Seconds for the sort, for AUROC alone, for every metric, and for scikit-learn's AUROC and average
        precision; and the largest difference between the two libraries.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(seed)
    labels = rng.random(n) < prevalence
    scores = (rng.normal(size=n) + labels).astype(np.float32)
    start = perf_counter()
    ranking = Ranking.of(scores, labels)
    is_sorted = perf_counter()
    auroc(ranking)
    has_auroc = perf_counter()
    ours = summary(ranking)
    has_all = perf_counter()
    area = roc_auc_score(labels, scores)
    has_their_area = perf_counter()
    precision = average_precision_score(labels, scores)
    return {
        "sort_seconds": is_sorted - start,
        "auroc_seconds": has_auroc - is_sorted,
        "all_metrics_seconds": has_all - has_auroc,
        "sklearn_auroc_seconds": has_their_area - has_all,
        "sklearn_ap_seconds": perf_counter() - has_their_area,
        "largest_difference": max(abs(ours["auroc"] - area), abs(ours["ap"] - precision)),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
