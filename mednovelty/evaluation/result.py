"""What an evaluation found: numbers a scan and score, their means, and words about the baselines.

``to_json``   ``{"scans": {id: {score: {metric: number}}}, "mean": {score: {metric: number}}, ...}``
``write``     ``evaluation.json``, ``evaluation.csv`` (one row a scan and score), ``evaluation.md``,
              ``slices.tsv`` and ``lesions.tsv``
``table``     for the terminal, by mean AUROC, the trivial baselines set apart; Clever Hans scores, if any
``verdicts``  which scores beat the best trivial baseline and which lose to it, a sentence a metric
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import OutputError, SettingsError
from mednovelty.evaluation import lesion_sizes
from mednovelty.evaluation import together as combinations
from mednovelty.evaluation.files import patient_of
from mednovelty.evaluation.lesions import POINTS, Detection
from mednovelty.evaluation.listing import lesions_tsv, slices_tsv
from mednovelty.evaluation.right_reason import Reason
from mednovelty.evaluation.scored import ScoredScan, axis_number, named
from mednovelty.evaluation.slices import SliceScores
from mednovelty.evaluation.tables import markdown, tables
from mednovelty.evaluation.verdicts import BASELINE_PREFIX, comparisons, pooled_verdicts, standings, verdicts
from mednovelty.metrics import bootstrap_interval
from mednovelty.text import cell

if TYPE_CHECKING:
    from rich.console import Group

Row = dict[str, float]
METRICS = {
    "auroc": "area under the ROC curve, ties counted half",
    "ap": "average precision, one step a distinct score; a score that knows nothing reaches the prevalence",
    "fpr_at_95_lesion_tpr": "lesion voxels positive: share of healthy voxels flagged when 95 % of lesion "
    "voxels are found",
    "fpr_at_95_healthy_tpr": "healthy voxels positive: share of lesion voxels accepted when 95 % of healthy "
    "voxels are accepted",
    "dice_best": "best Dice over all thresholds, chosen on the scan itself: an upper bound",
    "dice_fifth": "Dice on the rest at the threshold that is best on one fifth of the patients or, with "
    "fewer than five, of the voxels (zimmerer2019, Sec. 3.3)",
    "dice_rotated": "mean of dice_fifth over those of the five fifths, in turn, that the scan is not in",
    **{f"lesion_recall_at_{point}": f"share of the scan's lesions (26-connected) found at {what}"
       for point, what in POINTS.items()},
    **{f"false_positives_at_{point}": f"flagged components without a lesion voxel, at {what}"
       for point, what in POINTS.items()},
}  # fmt: skip
DETAILS = ("dice_best_threshold", "dice_fifth_threshold", "lesion_voxels", "lesion_voxels_outside_brain",
           "brain_voxels", "prevalence", "lesions", "unscored_voxels", "unscored_lesion_voxels")  # fmt: skip


@dataclass(frozen=True, slots=True)
class EvaluateSettings:
    """How to evaluate.

    Attributes:
        seed: Of the bootstrap and of the fifth that thresholds are found on.
        resamples: How often the bootstrap draws the patients.
        level: Of the intervals.
        slice_axis: I, J or K: along which slices are cut where a map's sidecar has no ``SliceAxis``.
        diseased_voxels: Lesion voxels that make a slice diseased; with fewer, but some, it is left out.
        found_share: Of a lesion's voxels that must be flagged for it to count as found; one at least.
    """

    seed: int = 0
    resamples: int = 2000
    level: float = 0.95
    slice_axis: str = "K"
    diseased_voxels: int = 20
    found_share: float = 0.0

    def __post_init__(self) -> None:
        if self.seed < 0 or self.resamples < 1 or not 0 < self.level < 1:
            raise SettingsError(
                f"evaluation needs seed >= 0, resamples >= 1 and 0 < level < 1, got {self.seed}, "
                f"{self.resamples} and {self.level}"
            )
        if axis_number(self.slice_axis) is None or self.diseased_voxels < 1 or not 0 <= self.found_share <= 1:
            raise SettingsError(
                "evaluation needs slice_axis I, J or K, diseased_voxels >= 1 and 0 <= found_share <= 1, got "
                f"{self.slice_axis!r}, {self.diseased_voxels} and {self.found_share}"
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
class Rated:
    """What one score's maps are worth.

    Attributes:
        rows: Scan id to metric to number.
        curves: Scan id to its curve.
        pooled: Metric to number with all scans pooled, and ``<metric>_interval`` over patients.
        thresholds: Name of ``lesions.POINTS`` to threshold, found on the fifth; NaN where undefined.
        slices: Scan id to its slices.
        detections: Scan id to name of ``lesions.POINTS`` to what that threshold finds.
    """

    rows: dict[str, Row]
    curves: dict[str, Curve]
    pooled: dict[str, Any]
    thresholds: dict[str, float]
    slices: dict[str, SliceScores]
    detections: dict[str, dict[str, Detection]]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What an evaluation found.

    Attributes:
        scans: Scan id to score to metric to number; NaN where a number is undefined.
        curves: Score to scan id to its curve.
        settings: How it was evaluated.
        fifth: What thresholds were found on: ``drawn_from``, ``patients`` or ``voxels``; the ``patients``
            and ``scans`` of the fifth; and ``rotations``, the patients of each of the five fifths.
        rated: Score to what its maps are worth.
        lesions: Scan id to size and centre of each of its lesions.
        trivial: Scores that their sidecars call trivial baselines.
        warnings: What to know about the numbers.
        scans_without_mask: Ids.
        masks_without_scan: File names.
        sources: Scan id to its maps and its lesion mask.
        reasons: Score to its Clever Hans score, where relevance was asked for.
        together: Name of a combination to the two scores that it is of.
    """

    scans: dict[str, dict[str, Row]]
    curves: dict[str, dict[str, Curve]]
    settings: EvaluateSettings
    fifth: dict[str, Any]
    rated: dict[str, Rated] = field(default_factory=dict)
    lesions: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    trivial: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()
    scans_without_mask: tuple[str, ...] = ()
    masks_without_scan: tuple[str, ...] = ()
    sources: dict[str, tuple[ScoredScan, Path]] = field(default_factory=dict)
    reasons: dict[str, Reason] = field(default_factory=dict)
    together: dict[str, tuple[str, str]] = field(default_factory=dict)
    mean: dict[str, dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        scores = sorted({score for rows in self.scans.values() for score in rows})
        object.__setattr__(self, "mean", {score: self._mean(score) for score in scores})

    @property
    def pooled(self) -> dict[str, dict[str, Any]]:
        """Score to metric to number with all scans pooled, each with its ``_interval`` over patients."""
        return {score: found.pooled for score, found in self.rated.items()}

    def is_trivial(self, score: str) -> bool:
        """Return whether a score is a trivial baseline: its sidecars say so, or its name begins with raw_.

        A combination is one where both of its scores are.
        """
        if score in self.together:
            return all(map(self.is_trivial, self.together[score]))
        return score in self.trivial or score.startswith(BASELINE_PREFIX)

    def kinds(self, score: str) -> tuple[str, ...]:
        """Return what stands beside a score's name everywhere: combination, semi-supervised."""
        told = (files.kinds(score) for files, _ in self.sources.values() if score in files.scores)
        return tuple(dict.fromkeys(kind for kinds in told for kind in kinds))

    def named(self, score: str) -> str:
        """Return a score's name as tables, pictures and sentences show it."""
        return named(score, self.kinds(score))

    def priors(self) -> dict[tuple[str, str], list[str]]:
        """Return a method and what it was trained to find, in words, to its scores."""
        found: dict[tuple[str, str], list[str]] = {}
        for score in self.mean:
            made = (files.made.get(score) for files, _ in self.sources.values())
            told = {(one.method or score, one.prior): None for one in made if one is not None and one.prior}
            for key in told:
                found.setdefault(key, []).append(score)
        return found

    def ranked(self) -> tuple[list[str], list[str]]:
        """Return the scores and the trivial baselines, each by falling mean AUROC, undefined ones last."""
        order = sorted(self.mean, key=lambda score: -np.nan_to_num(self.mean[score]["auroc"], nan=-1.0))
        baselines = [score for score in order if self.is_trivial(score)]
        return [score for score in order if score not in baselines], baselines

    def fifth_threshold(self, score: str) -> float:
        """Return a score's Dice threshold found on one fifth, in its unit; NaN where there is none."""
        key = "dice_fifth_threshold"
        return next(
            (rows[score][key] for rows in self.scans.values() if key in rows.get(score, ())), math.nan
        )

    def maps_sha256(self) -> dict[str, dict[str, str]]:
        """Return scan id to score to the hash of its map, as its sidecar tells it, of all that was rated."""
        return {id: {score: one.sha256 for score, one in sorted(files.made.items())
                     if one.sha256 is not None and score in self.scans.get(id, ())}
                for id, (files, _) in self.sources.items()}  # fmt: skip

    def verdicts(self) -> list[str]:
        """Say in words which scores beat the best trivial baseline, by AUROC and by AP."""
        return verdicts(self)

    def comparisons(self) -> dict[str, str]:
        """Say in words for each score whether it beats the best trivial baseline; empty without one."""
        return comparisons(self)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the curves as JSON types; undefined numbers are None."""
        return _without_nan({
            "scans": self.scans,
            "maps": self.maps_sha256(),
            "mean": self.mean,
            "pooled": self.pooled,
            "trivial": sorted(score for score in self.mean if self.is_trivial(score)),
            "semi_supervised": [score for score in self.mean if "semi-supervised" in self.kinds(score)],
            "names": {score: self.named(score) for score in self.mean},
            "trained_to_find": [
                {"method": method, "scores": scores, "words": words}
                for (method, words), scores in self.priors().items()
            ],
            "together": combinations.to_dict(self),
            "verdicts": self.verdicts(),
            "verdicts_pooled": pooled_verdicts(self),
            "against_trivial": self.comparisons(),
            "gaps_to_trivial": standings(self),
            "warnings": list(self.warnings),
            "scans_without_mask": list(self.scans_without_mask),
            "masks_without_scan": list(self.masks_without_scan),
            "dice_fifth": self.fifth,
            "thresholds": {score: found.thresholds for score, found in self.rated.items()},
            "threshold_points": POINTS,
            "lesions_by_size": lesion_sizes.as_json(lesion_sizes.found_by_size(self)),
            "clever_hans": {score: reason.to_dict() for score, reason in self.reasons.items()},
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
        writer.writerow(("scan", "score", *columns, "kind"))
        kinds = {score: "; ".join(self.kinds(score)) for score in self.mean}
        for id, rows in self.scans.items():
            for score, row in rows.items():
                numbers = [row.get(name, math.nan) for name in columns]
                shown = ("" if math.isnan(n) else repr(n) for n in numbers)
                writer.writerow((cell(id), cell(score), *shown, kinds[score]))
        return text.getvalue()

    def write(self, folder: Path) -> list[Path]:
        """Write JSON, CSV, Markdown, slices and lesions; the pictures are ``mednovelty.report``'s.

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
            folder / "evaluation.md": self.to_markdown(),
            folder / "slices.tsv": slices_tsv(self),
            folder / "lesions.tsv": lesions_tsv(self),
        }
        for path, text in written.items():
            write_text_atomic(path, text)
        return list(written)

    def table(self) -> Group:
        """Return tables for the terminal: means over scans; all pooled and by slice; by lesion; reasons."""
        from rich.console import Group

        return Group(*tables(self))

    def to_markdown(self) -> str:
        """Return the tables of ``table``, with their words, as Markdown."""
        return markdown(self)

    def column(self, score: str, metric: str) -> dict[str, float]:
        """Return a metric by scan id, without those where it is undefined."""
        known = {id: rows[score].get(metric, math.nan) for id, rows in self.scans.items() if score in rows}
        return {id: value for id, value in known.items() if not math.isnan(value)}

    def interval(self, values: Mapping[str, float]) -> list[float] | None:
        """Return the bootstrap interval, over patients, of the mean of numbers by scan id."""
        found = bootstrap_interval(
            list(values.values()),
            seed=self.settings.seed,
            resamples=self.settings.resamples,
            level=self.settings.level,
            patients=[patient_of(id) for id in values],
        )
        return None if found is None else list(found)

    def _mean(self, score: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for metric in (*METRICS, "prevalence"):
            values = self.column(score, metric)
            found[metric] = float(np.mean(list(values.values()))) if values else math.nan
            found[f"{metric}_interval"] = self.interval(values)
        found["scans"] = len(self.column(score, "auroc"))
        return found


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
