"""What an evaluation found: numbers a scan and score, their means, and words about the baselines.

``to_json``   ``{"scans": {id: {score: {metric: number}}}, "mean": {score: {metric: number}}, ...}``
``write``     ``evaluation.json`` and ``evaluation.csv`` (one row a scan and score)
``table``     for the terminal, by mean AUROC, the trivial baselines set apart
``verdicts``  which scores lose to the best trivial baseline, in words
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import OutputError, SettingsError
from mednovelty.metrics import bootstrap_interval
from mednovelty.text import cell

if TYPE_CHECKING:
    from rich.table import Table

BASELINE_PREFIX = "raw_"
METRICS = {
    "auroc": "area under the ROC curve, ties counted half",
    "ap": "average precision, one step a distinct score; a score that knows nothing reaches the prevalence",
    "fpr_at_95_lesion_tpr": "lesion voxels positive: share of healthy voxels flagged when 95 % of lesion "
    "voxels are found",
    "fpr_at_95_healthy_tpr": "healthy voxels positive: share of lesion voxels accepted when 95 % of healthy "
    "voxels are accepted",
    "dice_best": "best Dice over all thresholds, chosen on the scan itself: an upper bound",
    "dice_fifth": "Dice on the rest at the threshold that is best on one fifth of the scans or, with fewer "
    "than five, of the voxels (zimmerer2019, Sec. 3.3)",
}
DETAILS = ("dice_best_threshold", "dice_fifth_threshold", "lesion_voxels", "lesion_voxels_outside_brain",
           "brain_voxels", "prevalence")  # fmt: skip
_HEADS = {"auroc": "AUROC", "ap": "AP", "fpr_at_95_lesion_tpr": "healthy flagged at 95 % lesion found",
          "fpr_at_95_healthy_tpr": "lesion missed at 95 % healthy passed", "dice_best": "Dice, best",
          "dice_fifth": "Dice, by a fifth"}  # fmt: skip
Row = dict[str, float]


@dataclass(frozen=True, slots=True)
class EvaluateSettings:
    """How to evaluate.

    Attributes:
        seed: Of the bootstrap and of the fifth that the Dice threshold is found on.
        resamples: How often the bootstrap draws the scans.
        level: Of the intervals.
    """

    seed: int = 0
    resamples: int = 2000
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.seed < 0 or self.resamples < 1 or not 0 < self.level < 1:
            raise SettingsError(
                f"evaluation needs seed >= 0, resamples >= 1 and 0 < level < 1, got {self.seed}, "
                f"{self.resamples} and {self.level}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One scan's scores as pictures need them.

    Attributes:
        fpr: ``(m,)`` from 0 to 1.
        tpr: ``(m,)`` from 0 to 1.
        lesion: ``(p,)`` evenly ranked scores of lesion voxels, ascending.
        healthy: ``(q,)`` evenly ranked scores of the other voxels, ascending.
    """

    fpr: np.ndarray
    tpr: np.ndarray
    lesion: np.ndarray
    healthy: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What an evaluation found.

    Attributes:
        scans: Scan id to score to metric to number; NaN where a number is undefined.
        curves: Score to scan id to its curve.
        settings: How it was evaluated.
        fifth: What the Dice threshold was found on: ``drawn_from``, ``scans`` or ``voxels``, and the
            ``scans`` drawn.
        warnings: What to know about the numbers.
        scans_without_mask: Ids.
        masks_without_scan: File names.
    """

    scans: dict[str, dict[str, Row]]
    curves: dict[str, dict[str, Curve]]
    settings: EvaluateSettings
    fifth: dict[str, Any]
    warnings: tuple[str, ...] = ()
    scans_without_mask: tuple[str, ...] = ()
    masks_without_scan: tuple[str, ...] = ()
    mean: dict[str, dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        scores = sorted({score for rows in self.scans.values() for score in rows})
        object.__setattr__(self, "mean", {score: self._mean(score) for score in scores})

    def ranked(self) -> tuple[list[str], list[str]]:
        """Return the scores and the trivial baselines, each by falling mean AUROC, undefined ones last."""
        order = sorted(self.mean, key=lambda score: -np.nan_to_num(self.mean[score]["auroc"], nan=-1.0))
        baselines = [score for score in order if score.startswith(BASELINE_PREFIX)]
        return [score for score in order if score not in baselines], baselines

    def fifth_threshold(self, score: str) -> float:
        """Return a score's Dice threshold found on one fifth, in its unit; NaN where there is none."""
        key = "dice_fifth_threshold"
        return next(
            (rows[score][key] for rows in self.scans.values() if key in rows.get(score, ())), math.nan
        )

    def verdicts(self) -> list[str]:
        """Say in words which scores lose to the best trivial baseline, by AUROC and by AP."""
        scores, baselines = self.ranked()
        if not baselines:
            return [
                f"No trivial baseline ({BASELINE_PREFIX}*) among the maps: whether these scores beat plain "
                "intensity is unknown."
            ]
        if not scores:
            return ["Only trivial baselines among the maps."]
        said = [self._verdict(metric, scores, baselines) for metric in ("auroc", "ap")]
        return [line for line in (*said, *self._turned_round(baselines)) if line]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the curves as JSON types; undefined numbers are None."""
        return _without_nan({
            "scans": self.scans,
            "mean": self.mean,
            "verdicts": self.verdicts(),
            "warnings": list(self.warnings),
            "scans_without_mask": list(self.scans_without_mask),
            "masks_without_scan": list(self.masks_without_scan),
            "dice_fifth": self.fifth,
            "settings": asdict(self.settings),
            "metrics": METRICS,
        })  # fmt: skip

    def to_json(self) -> str:
        """Return ``to_dict`` as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)

    def to_csv(self) -> str:
        """Return one row a scan and score; cells that a spreadsheet would run as formulas are quoted."""
        columns = (*METRICS, *DETAILS)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("scan", "score", *columns))
        for id, rows in self.scans.items():
            for score, row in rows.items():
                numbers = [row.get(name, math.nan) for name in columns]
                writer.writerow((cell(id), cell(score), *("" if math.isnan(n) else repr(n) for n in numbers)))
        return text.getvalue()

    def write(self, folder: Path) -> list[Path]:
        """Write ``evaluation.json`` and ``evaluation.csv``; the pictures are ``mednovelty.report``'s.

        Raises:
            OutputError: The folder or a file cannot be written.
        """
        from mednovelty.io.atomic import write_text_atomic

        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot be made ({error.strerror}); choose another folder"
            ) from error
        written = {
            folder / "evaluation.json": self.to_json() + "\n",
            folder / "evaluation.csv": self.to_csv(),
        }
        for path, text in written.items():
            write_text_atomic(path, text)
        return list(written)

    def table(self) -> Table:
        """Return the means over scans as a table for the terminal."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self._title(), caption="\n".join(self.verdicts()), caption_justify="left")
        table.add_column("score", no_wrap=True)
        for metric in METRICS:
            table.add_column(_HEADS[metric], justify="right")
        for group, style in zip(self.ranked(), ("", "yellow"), strict=True):
            for score in group:
                cells = [Text(_with_interval(self.mean[score], metric)) for metric in METRICS]
                table.add_row(Text(score), *cells, style=style, end_section=score == group[-1])
        return table

    def _title(self) -> str:
        n = len(self.scans)
        voxels = sum(int(next(iter(rows.values()))["lesion_voxels"]) for rows in self.scans.values())
        scans = f"{n} scan{'s' * (n != 1)} with a lesion mask, {voxels:,} lesion voxels"
        return f"{scans}; mean and {self.settings.level:.0%} interval over scans" if n > 1 else scans

    def _column(self, score: str, metric: str) -> dict[str, float]:
        known = {id: rows[score].get(metric, math.nan) for id, rows in self.scans.items() if score in rows}
        return {id: value for id, value in known.items() if not math.isnan(value)}

    def _interval(self, values: Iterable[float]) -> list[float] | None:
        found = bootstrap_interval(list(values), seed=self.settings.seed, resamples=self.settings.resamples,
                                   level=self.settings.level)  # fmt: skip
        return None if found is None else list(found)

    def _mean(self, score: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for metric in (*METRICS, "prevalence"):
            values = list(self._column(score, metric).values())
            found[metric] = float(np.mean(values)) if values else math.nan
            found[f"{metric}_interval"] = self._interval(values)
        found["scans"] = len(self._column(score, "auroc"))
        return found

    def _verdict(self, metric: str, scores: list[str], baselines: list[str]) -> str:
        best = max(baselines, key=lambda score: np.nan_to_num(self.mean[score][metric], nan=-1.0))
        ahead = self._column(best, metric)
        if not ahead:
            return f"{_HEADS[metric]} is undefined in every scan."
        behind = []
        for score in scores:
            own = self._column(score, metric)
            # Scan by scan, so that a score that lacks a scan is not judged on an easier set.
            by = [ahead[id] - own[id] for id in own if id in ahead]
            if by and np.mean(by) > 0:
                behind.append(f"{score} by {np.mean(by):.3f}{_brackets(self._interval(by))}")
        against = f"the best trivial baseline, {best} ({self.mean[best][metric]:.3f})"
        if not behind:
            return f"{_HEADS[metric]}: no score loses to {against}."
        return (
            f"{_HEADS[metric]}: {len(behind)} of {len(scores)} scores lose to {against}: {'; '.join(behind)}."
        )

    def _turned_round(self, baselines: list[str]) -> list[str]:
        best = self.mean[baselines[0]]["auroc"]
        return [
            f"{score} is low in lesions: turned round it would reach AUROC "
            f"{1 - self.mean[score]['auroc']:.3f}, more than any trivial baseline as it stands."
            for score in baselines
            if 1 - self.mean[score]["auroc"] > best
        ]


def _with_interval(row: Mapping[str, Any], metric: str) -> str:
    if math.isnan(row[metric]):
        return "-"
    interval = row[f"{metric}_interval"]
    return f"{row[metric]:.3f}" + ("" if interval is None else f"\n{interval[0]:.2f}-{interval[1]:.2f}")


def _brackets(interval: list[float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
