"""The scans with a lesion mask, one score after another, and the fifths of their patients.

A threshold is found on one fifth of the patients and tried on the others: a scan is never judged at a
threshold that it, or another scan of its patient, had a part in. ``dice_rotated`` does so with each of the
five fifths in turn. With fewer than five patients the fifths are of each scan's voxels.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.evaluation.files import patient_of
from mednovelty.evaluation.lesions import POINTS, Detection, thresholds_of
from mednovelty.evaluation.pooled import Draws, pooled_curve, ratio_interval
from mednovelty.evaluation.result import Curve, EvaluateSettings, Rated
from mednovelty.evaluation.scored import axis_number
from mednovelty.evaluation.slices import REDUCTIONS, SliceScores
from mednovelty.evaluation.truth import Truth
from mednovelty.metrics import Ranking, draw_fifths, fifth_threshold, roc_points, summary, thinned

FEWEST_PATIENTS_FOR_A_FIFTH = 5
FIFTHS = 5
DRAWN_SCORES = 2000
"""How many scores of each class a histogram is drawn from, at most, a scan."""
WORKERS = 2
"""Threads that read and sort maps ahead; each holds one map."""


class Study:
    """Scans with a mask, and who of the patients is in which fifth."""

    def __init__(self, truths: list[Truth], settings: EvaluateSettings, errors: list[ScanError]) -> None:
        patients = sorted({patient_of(truth.id) for truth in truths if truth.two_classes})
        self.settings = settings
        self.by_patients = len(patients) >= FEWEST_PATIENTS_FOR_A_FIFTH
        drawn = draw_fifths(len(patients), settings.seed).tolist() if self.by_patients else []
        self._fifths: dict[str, int] = dict(zip(patients, drawn, strict=False))
        # The first fifth's scans first.
        self.truths = sorted(truths, key=lambda truth: (self.fifth_of(truth) != 0, truth.id))
        self.without_threshold: list[str] = []
        self._errors = errors
        self._unusable: list[str] = []
        self._unscored: dict[str, list[str]] = {}

    def fifth_of(self, truth: Truth) -> int | None:
        """Return the fifth that a scan's patient is in; None where fifths are of voxels, or has no lesion."""
        return self._fifths.get(patient_of(truth.id))

    @property
    def fifth(self) -> dict[str, Any]:
        """What thresholds are found on."""
        by_fifth = [
            [who for who, fifth in self._fifths.items() if fifth == number] for number in range(FIFTHS)
        ]
        return {
            "drawn_from": "patients" if self.by_patients else "voxels",
            "patients": by_fifth[0],
            "scans": sorted(truth.id for truth in self.truths if self.fifth_of(truth) == 0),
            "rotations": by_fifth if self.by_patients else [],
        }

    def rate(self, score: str) -> Rated:
        """Return what one score's maps are worth; no rows where none can be used."""
        rating = _Rating(self)
        wanted = [truth for truth in self.truths if score in truth.files.scores]
        first = [truth for truth in wanted if not self.by_patients or self.fifth_of(truth) == 0]
        self._read_all(rating, score, first, None)
        # The first fifth's thresholds are known now: the others' voxels need not wait for them.
        thresholds = rating.thresholds() if self.by_patients else None
        self._read_all(rating, score, wanted[len(first) :], thresholds)
        rated = rating.finish()
        if rated.rows and math.isnan(rated.thresholds["dice"]):
            self.without_threshold.append(score)
        if told := _of_unscored(rated.rows):
            self._unscored.setdefault(told, []).append(score)
        return rated

    def warnings(self) -> list[str]:
        """Say which numbers are missing or cannot be compared, and why."""
        scores = sorted({score for truth in self.truths for score in truth.files.maps})
        said = list(self._unusable)
        for truth in sorted(self.truths, key=lambda truth: truth.id):
            said += _remarks(truth, scores)
        said += [f"{', '.join(scores)}: {told}" for told, scores in self._unscored.items()]
        if self.without_threshold:
            said.append(
                f"the fifth of the {self.fifth['drawn_from']} has no lesion voxel or no other for "
                f"{', '.join(self.without_threshold)}, so dice_fifth is undefined; try another seed"
            )
        with_lesion = {patient_of(truth.id) for truth in self.truths if truth.two_classes}
        if with_lesion and not self.by_patients:
            said.append(
                f"{len(with_lesion)} patients with a lesion, fewer than {FEWEST_PATIENTS_FOR_A_FIFTH}: "
                "thresholds come from a fifth of the voxels of the very scans that are reported on, so the "
                "lesion figures, and less so dice_fifth, are optimistic"
            )
        if len(with_lesion) < 2:
            said.append("fewer than 2 scans with a lesion: no bootstrap intervals, which are over scans")
        return said

    def _read_all(
        self, rating: _Rating, score: str, truths: list[Truth], thresholds: dict[str, float] | None
    ) -> None:
        for truth, future in _ahead(partial(self._read, score, thresholds), truths):
            try:
                rating.seen.append(future.result())
            except ScanError as error:
                self._errors.append(error)
                self._unusable.append(f"{error}; {truth.id} is left out of {score}")

    def _read(self, score: str, thresholds: dict[str, float] | None, truth: Truth) -> _Seen:
        """Read a map and work out all that needs no other scan; runs in a thread."""
        values, lesion = truth.scores(score), truth.labels()
        parts = self._parts(truth, values, lesion)
        # Whole scans are sorted once: as a part of their fifth they are the same arrays.
        whole = next(iter(parts.values())) if len(parts) == 1 else None
        whole = Ranking.of(values, lesion, truth.id) if whole is None else whole
        made = truth.files.made_of(score)
        told = None if made is None else made.slice_axis
        axis = axis_number(self.settings.slice_axis) if told is None else told
        slices = truth.slice_scores(values, 2 if axis is None else axis)
        row = {**summary(whole), **truth.facts(), **truth.unscored(score, values)}
        seen = _Seen(truth, whole, parts, slices, _curve(whole), row)
        if thresholds is not None:
            seen.detections = truth.detections(values, thresholds, self.settings.found_share)
        elif not self.by_patients:
            seen.values = values
        return seen

    def _parts(self, truth: Truth, values: np.ndarray, lesion: np.ndarray) -> dict[int, Ranking]:
        """Return the fifths that a scan's voxels are in."""
        if self.by_patients:
            fifth = self.fifth_of(truth)
            return {} if fifth is None else {fifth: Ranking.of(values, lesion, truth.id)}
        if not truth.two_classes:
            return {}
        # The same voxels whatever the score and whoever the other scans are.
        fifths = draw_fifths(truth.n, [self.settings.seed, *truth.id.encode()])
        return {
            number: Ranking.of(values[fifths == number], lesion[fifths == number], truth.id)
            for number in range(FIFTHS)
        }


@dataclass(slots=True, eq=False)
class _Seen:
    """One map, read and sorted; ``values`` are kept where thresholds are not known yet."""

    truth: Truth
    whole: Ranking
    parts: dict[int, Ranking]
    slices: SliceScores
    curve: Curve
    row: dict[str, float]
    detections: dict[str, Detection] = field(default_factory=dict)
    values: np.ndarray | None = None


class _Rating:
    """One score's maps as they come by."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._draws = Draws(study.settings.seed, study.settings.resamples, study.settings.level)
        self._fifths: dict[int, Ranking | None] = {}
        self.seen: list[_Seen] = []

    def thresholds(self) -> dict[str, float]:
        """Return the thresholds of the first fifth, all of whose maps must have been seen."""
        return thresholds_of(self._fifth(0))

    def finish(self) -> Rated:
        """Return the numbers that need all maps, too."""
        with ThreadPoolExecutor(WORKERS) as threads:
            fifths = list(threads.map(self._fifth, range(FIFTHS)))
        thresholds = thresholds_of(fifths[0])
        for seen in self.seen:
            if seen.values is not None:
                share = self._study.settings.found_share
                seen.detections = seen.truth.detections(seen.values, thresholds, share)
                seen.values = None
        limits = [thresholds["dice"], *map(fifth_threshold, fifths[1:])]
        counts = {seen.truth.id: self._dice_counts(seen, limits) for seen in self.seen}
        rows = {seen.truth.id: seen.row | self._at_thresholds(seen, counts, limits) for seen in self.seen}
        curves = {seen.truth.id: seen.curve for seen in self.seen}
        slices = {seen.truth.id: seen.slices for seen in self.seen}
        detections = {seen.truth.id: seen.detections for seen in self.seen if seen.detections}
        pooled: dict[str, Any] = {"scans": len(rows)}
        if rows:
            patients = [patient_of(id) for id in rows]
            rankings = [seen.whole for seen in self.seen]
            pooled |= pooled_curve(rankings, patients, self._draws, self._runs())
            pooled |= self._pooled_dice(counts, patients)
            pooled |= self._pooled_lesions(detections)
            pooled |= self._pooled_slices(slices, patients)
        return Rated(rows, curves, pooled, thresholds, slices, detections)

    def _fifth(self, number: int) -> list[Ranking]:
        """Return a fifth as one ranking, in a list; an empty list where nobody is in it."""
        if number not in self._fifths:
            parts = [seen.parts[number] for seen in self.seen if number in seen.parts]
            self._fifths[number] = Ranking.pooled(parts) if parts else None
        found = self._fifths[number]
        return [] if found is None else [found]

    def _runs(self) -> list[Ranking]:
        """Return few rankings that hold all the voxels once."""
        if not self._study.by_patients:
            return [Ranking.pooled(seen.whole for seen in self.seen)]
        rest = [seen.whole for seen in self.seen if not seen.parts]
        fifths = [part for number in range(FIFTHS) for part in self._fifth(number)]
        return fifths + ([Ranking.pooled(rest)] if rest else [])

    def _dice_counts(self, seen: _Seen, limits: list[float]) -> np.ndarray:
        """Return ``(5, 3)`` TP, FP and lesion voxels outside each fifth at its threshold; NaN where none."""
        found = np.full((FIFTHS, 3), math.nan)
        for number, limit in enumerate(limits):
            part = seen.parts.get(number)
            if math.isnan(limit) or (self._study.by_patients and part is not None):
                continue
            found[number] = (*seen.whole.flagged(limit), seen.whole.lesion.size)
            if part is not None:
                found[number] -= (*part.flagged(limit), part.lesion.size)
        return found

    def _at_thresholds(
        self, seen: _Seen, counts: dict[str, np.ndarray], limits: list[float]
    ) -> dict[str, float]:
        """Return what a scan's row tells of thresholds found elsewhere."""
        row: dict[str, float] = {}
        if seen.truth.two_classes:
            dice = _dice(counts[seen.truth.id])
            if not self._study.by_patients or self._study.fifth_of(seen.truth) != 0:
                row |= {"dice_fifth": float(dice[0]), "dice_fifth_threshold": limits[0]}
            known = dice[~np.isnan(dice)]
            row["dice_rotated"] = float(known.mean()) if known.size else math.nan
        for point, detection in seen.detections.items():
            row[f"lesion_recall_at_{point}"] = detection.recall
            row[f"false_positives_at_{point}"] = float(detection.false_positives)
        return row

    def _pooled_dice(self, counts: dict[str, np.ndarray], patients: list[str]) -> dict[str, Any]:
        table = np.stack(list(counts.values()))
        reported = ~np.isnan(table[:, 0, 0])
        first = table[reported, 0]
        who = [name for name, is_in in zip(patients, reported, strict=True) if is_in]
        dice, interval = ratio_interval(self._draws, who, 2 * first[:, 0], first.sum(axis=1))
        return {
            "dice_fifth": dice,
            "dice_fifth_interval": interval,
            "dice_rotated": float(_rotated(table, np.ones((1, len(table))))[0]),
            "dice_rotated_interval": self._draws.interval(patients, lambda weights: _rotated(table, weights)),
        }

    def _pooled_lesions(self, detections: dict[str, dict[str, Detection]]) -> dict[str, Any]:
        pooled: dict[str, Any] = {}
        for point in POINTS:
            found = {id: told[point] for id, told in detections.items() if point in told}
            patients = [patient_of(id) for id in found]
            hits = [int(one.found.sum()) for one in found.values()]
            lesions = [one.found.size for one in found.values()]
            false = [one.false_positives for one in found.values()]
            recall, interval = ratio_interval(self._draws, patients, hits, lesions)
            pooled |= {f"lesion_recall_at_{point}": recall, f"lesion_recall_at_{point}_interval": interval}
            mean, interval = ratio_interval(self._draws, patients, false, [1] * len(false))
            pooled |= {f"false_positives_at_{point}": mean, f"false_positives_at_{point}_interval": interval}
        return pooled

    def _pooled_slices(self, slices: dict[str, SliceScores], patients: list[str]) -> dict[str, Any]:
        least = self._study.settings.diseased_voxels
        classes = [name for one in slices.values() for name in one.classes(least)]
        pooled: dict[str, Any] = {
            f"slices_{name}": classes.count(name) for name in ("healthy", "diseased", "dropped")
        }
        for reduction in REDUCTIONS:
            rankings = [one.ranking(reduction, least) for one in slices.values()]
            found = pooled_curve(rankings, patients, self._draws)
            pooled |= {
                f"slice_{reduction}_{name}": number
                for name, number in found.items()
                if not name.startswith("dice")
            }
        return pooled


def _remarks(truth: Truth, scores: list[str]) -> list[str]:
    said, facts = [], truth.facts()
    if not truth.two_classes:
        what = "no lesion voxel" if not facts["lesion_voxels"] else "nothing but lesion"
        said.append(f"{truth.id}: {what} in the brain mask, so its metrics are undefined")
    said += truth.files.mixtures()
    if truth.outside:
        said.append(
            f"{truth.id}: {truth.outside} of {truth.outside + facts['lesion_voxels']:.0f} lesion "
            "voxels lie outside the brain mask and are not evaluated"
        )
    if missing := [score for score in scores if score not in truth.files.maps]:
        said.append(f"{truth.id}: no map of {', '.join(missing)}; their means are over fewer scans")
    return said


def _of_unscored(rows: dict[str, dict[str, float]]) -> str:
    """Say how many voxels no sample covered, over the scans whose sidecars tell; empty where all are."""
    told = [row for row in rows.values() if row.get("unscored_voxels")]
    voxels = sum(row["unscored_voxels"] for row in told)
    if not voxels:
        return ""
    brain, lesion = (sum(row[name] for row in rows.values()) for name in ("brain_voxels", "lesion_voxels"))
    among = sum(row["unscored_lesion_voxels"] for row in told)
    which = "unknown which" if math.isnan(among) else f"{among:,} of {lesion:,} lesion voxels among them"
    return (
        f"{voxels:,} of {brain:,} voxels in the brain masks ({voxels / brain:.2%}), in {len(told)} of "
        f"{len(rows)} scans, lie in no sample that the detector scored, {which}; their score counts as 0"
    )


def _ahead(work: Callable[[Truth], _Seen], truths: Iterable[Truth]) -> Iterator[tuple[Truth, Future[_Seen]]]:
    """Yield each scan with its work, done by a few threads a few scans ahead, in order."""
    waiting: deque[tuple[Truth, Future[_Seen]]] = deque()
    with ThreadPoolExecutor(WORKERS) as threads:
        for truth in truths:
            waiting.append((truth, threads.submit(work, truth)))
            if len(waiting) > WORKERS:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()


def _dice(counts: np.ndarray) -> np.ndarray:
    """Return ``(...,)`` Dice of ``(..., 3)`` TP, FP and lesion voxels; NaN where there is no lesion."""
    with np.errstate(all="ignore"):
        return np.where(counts[..., 2] > 0, 2 * counts[..., 0] / counts.sum(axis=-1), math.nan)


def _rotated(table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ``(R,)`` mean over rotations of the pooled Dice; ``(S, 5, 3)`` counts, ``(R, S)`` weights."""
    summed = np.einsum("rs,sfc->rfc", weights, np.nan_to_num(table))
    dice = _dice(summed)
    known = ~np.isnan(dice)
    with np.errstate(all="ignore"):
        return np.where(known, dice, 0).sum(axis=1) / known.sum(axis=1)


def _curve(ranking: Ranking) -> Curve:
    return Curve(
        *roc_points(ranking), thinned(ranking.lesion, DRAWN_SCORES), thinned(ranking.healthy, DRAWN_SCORES)
    )
