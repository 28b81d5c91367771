"""From maps and masks to numbers, one map in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.evaluation.files import ScanFiles, find_maps, find_masks
from mednovelty.evaluation.result import Curve, EvaluateSettings, Evaluation, Row
from mednovelty.io.guard import shown
from mednovelty.metrics import (
    Ranking,
    dice_at,
    draw_fifth,
    fifth_threshold,
    roc_points,
    summary,
    thinned,
)
from mednovelty.scan import Grid

FEWEST_SCANS_FOR_A_FIFTH = 5
DRAWN_SCORES = 2000
"""How many scores of each class a histogram is drawn from, at most, a scan."""


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Where one scan's lesion is, among the voxels that were scored.

    Attributes:
        files: The scan's maps.
        grid: Of the maps.
        brain: ``(I, J, K)`` bool, packed eight voxels a byte: one for every scan stays in memory.
        lesion: ``(n,)`` bool over the voxels of ``brain``, packed.
        n: Voxels in ``brain``.
        outside: Lesion voxels outside ``brain``, which no map scores.
    """

    files: ScanFiles
    grid: Grid
    brain: np.ndarray
    lesion: np.ndarray
    n: int
    outside: int

    @property
    def id(self) -> str:
        """The scan's id."""
        return self.files.id

    @property
    def two_classes(self) -> bool:
        """Whether there are lesion voxels and others: without, there is nothing to tell apart."""
        return 0 < int(np.bitwise_count(self.lesion).sum()) < self.n

    def labels(self) -> np.ndarray:
        """Return ``(n,)`` bool: in the lesion."""
        return np.unpackbits(self.lesion, count=self.n).view(bool)

    def scores(self, score: str) -> np.ndarray:
        """Return ``(n,)`` scores in the order of ``labels``; the map is checked against the mask's grid."""
        from mednovelty.io.nifti import read_volume

        volume = read_volume(self.files.maps[score])
        volume.grid.check_same(self.grid, volume.name, self.files.brain.name)
        size = int(np.prod(self.grid.shape))
        inside = np.unpackbits(self.brain, count=size).view(bool).reshape(self.grid.shape)
        values = volume.data[0][inside]
        if missing := int(np.count_nonzero(np.isnan(values))):
            raise ScanError(
                f"{volume.name}: {missing} of {values.size} scores are NaN; score {self.files.id} again",
                code="maps.nan",
            )
        return values

    def facts(self) -> Row:
        """Return the counts that stand beside the metrics."""
        lesion = int(np.bitwise_count(self.lesion).sum())
        return {"lesion_voxels": lesion, "lesion_voxels_outside_brain": self.outside, "brain_voxels": self.n,
                "prevalence": lesion / self.n}  # fmt: skip


def evaluate(out: Path, masks: Path, *, settings: EvaluateSettings | None = None) -> Evaluation:
    """Compare the maps of a score run with lesion masks, inside each scan's brain mask.

    Args:
        out: The folder that ``score`` wrote to.
        masks: The folder of lesion masks; their names tell which scan each belongs to.
        settings: Seed and bootstrap.

    Raises:
        ScanError: No maps, no mask for any scan, or a file that cannot be used.
        GeometryError: A lesion mask or a map lies on other voxels than the scan's brain mask.
    """
    settings, out, masks = settings or EvaluateSettings(), Path(out), Path(masks)
    found, warnings = find_maps(out)
    owned, strangers = find_masks(masks, found, besides=out)
    if not owned:
        raise ScanError(
            f"{masks}: no lesion mask fits a scan of {out}: scans {_some(found)}; "
            f"masks {_some(shown(path) for path in strangers)}; call them <scan>_mask.nii.gz",
            code="masks.none",
        )
    study = _Study([_truth(found[id], owned[id], warnings) for id in found if id in owned], settings)
    rated = {score: study.rate(score) for score in sorted({s for t in study.truths for s in t.files.maps})}
    without = tuple(id for id in found if id not in owned)
    names = tuple(shown(path) for path in strangers)
    return Evaluation(
        scans={
            id: {score: rows[id] for score, (rows, _) in rated.items() if id in rows} for id in sorted(owned)
        },
        curves={score: curves for score, (_, curves) in rated.items()},
        settings=settings,
        fifth=study.fifth,
        warnings=(*warnings, *study.warnings(), *_left_out(without, names)),
        scans_without_mask=without,
        masks_without_scan=names,
    )


class _Study:
    """The scans with a mask, and the fifth of them, or of their voxels, that sets the Dice threshold."""

    def __init__(self, truths: list[Truth], settings: EvaluateSettings) -> None:
        usable = sorted(truth.id for truth in truths if truth.two_classes)
        self.seed = settings.seed
        self.of_scans = len(usable) >= FEWEST_SCANS_FOR_A_FIFTH
        chosen = draw_fifth(len(usable), self.seed) if self.of_scans else np.zeros(len(usable), bool)
        self.drawn = {id for id, drawn in zip(usable, chosen, strict=True) if drawn}
        # The fifth's scans first: their threshold is known when the others come by, so none has to wait.
        self.truths = sorted(truths, key=lambda truth: (truth.id not in self.drawn, truth.id))
        self.without_threshold: list[str] = []

    @property
    def fifth(self) -> dict[str, Any]:
        """What the Dice threshold is found on."""
        return {"drawn_from": "scans" if self.of_scans else "voxels", "scans": sorted(self.drawn)}

    def rate(self, score: str) -> tuple[dict[str, Row], dict[str, Curve]]:
        """Return one score's metrics and curves, each by scan id."""
        rows: dict[str, Row] = {}
        curves: dict[str, Curve] = {}
        pool: list[Ranking] = []
        waiting: dict[str, Ranking] = {}
        threshold: float | None = None
        for truth in self.truths:
            if score not in truth.files.maps:
                continue
            whole, fifth, rest = self._split(truth, truth.scores(score))
            rows[truth.id] = {**summary(whole), **truth.facts()}
            curves[truth.id] = _curve(whole)
            if fifth is not None:
                pool.append(fifth)
            if rest is None:
                continue
            if self.of_scans:
                threshold = fifth_threshold(pool) if threshold is None else threshold
                rows[truth.id] |= _dice(rest, threshold)
            else:
                waiting[truth.id] = rest
        threshold = fifth_threshold(pool) if threshold is None else threshold
        for id, rest in waiting.items():
            rows[id] |= _dice(rest, threshold)
        if math.isnan(threshold):
            self.without_threshold.append(score)
        return rows, curves

    def warnings(self) -> list[str]:
        """Say which numbers are missing or cannot be compared, and why."""
        scores = sorted({score for truth in self.truths for score in truth.files.maps})
        said = []
        for truth in sorted(self.truths, key=lambda truth: truth.id):
            facts = truth.facts()
            if not truth.two_classes:
                what = "no lesion voxel" if not facts["lesion_voxels"] else "nothing but lesion"
                said.append(f"{truth.id}: {what} in the brain mask, so its metrics are undefined")
            if truth.outside:
                said.append(
                    f"{truth.id}: {truth.outside} of {truth.outside + facts['lesion_voxels']:.0f} lesion "
                    "voxels lie outside the brain mask and are not evaluated"
                )
            if missing := [score for score in scores if score not in truth.files.maps]:
                said.append(f"{truth.id}: no map of {', '.join(missing)}; their means are over fewer scans")
        if self.without_threshold:
            said.append(
                f"the fifth of the {self.fifth['drawn_from']} has no lesion voxel or no other for "
                f"{', '.join(self.without_threshold)}, so dice_fifth is undefined; try another seed"
            )
        if sum(truth.two_classes for truth in self.truths) < 2:
            said.append("fewer than 2 scans with a lesion: no bootstrap intervals, which are over scans")
        return said

    def _split(self, truth: Truth, scores: np.ndarray) -> tuple[Ranking, Ranking | None, Ranking | None]:
        """Return the scan's ranking, its part in the fifth and its part in the rest."""
        lesion = truth.labels()
        if not truth.two_classes or self.of_scans:
            whole = Ranking.of(scores, lesion, truth.id)
            if not truth.two_classes:
                return whole, None, None
            return (whole, whole, None) if truth.id in self.drawn else (whole, None, whole)
        # The same voxels whatever the score and whoever the other scans are.
        inside = draw_fifth(truth.n, [self.seed, *truth.id.encode()])
        parts = [Ranking.of(scores[part], lesion[part], truth.id) for part in (inside, ~inside)]
        return Ranking.pooled(parts), parts[0], parts[1]


def _truth(files: ScanFiles, path: Path, warnings: list[str]) -> Truth:
    from mednovelty.io.nifti import read_volume

    brain, lesion = read_volume(files.brain), read_volume(path)
    lesion.grid.check_same(brain.grid, lesion.name, brain.name)
    inside = brain.data[0] > 0.5
    n = int(np.count_nonzero(inside))
    if not n:
        raise ScanError(f"{brain.name}: the brain mask is empty; score {files.id} again", code="mask.empty")
    values = lesion.data[0]
    if not (values >= 0).all():
        raise ScanError(
            f"{lesion.name}: a lesion mask is 0 outside and positive inside; its least value is "
            f"{values.min():.3g}",
            code="mask.values",
        )
    if soft := int(np.count_nonzero((values > 0) & (values < 1))):
        warnings.append(f"{lesion.name}: {soft} voxels between 0 and 1; more than 0.5 counts as lesion")
    marked = values > 0.5
    return Truth(files, brain.grid, np.packbits(inside), np.packbits(marked[inside]), n,
                 int(np.count_nonzero(marked & ~inside)))  # fmt: skip


def _curve(ranking: Ranking) -> Curve:
    return Curve(
        *roc_points(ranking), thinned(ranking.lesion, DRAWN_SCORES), thinned(ranking.healthy, DRAWN_SCORES)
    )


def _dice(rest: Ranking, threshold: float) -> Row:
    return {"dice_fifth": dice_at(rest, threshold), "dice_fifth_threshold": threshold}


def _left_out(without: tuple[str, ...], strangers: tuple[str, ...]) -> list[str]:
    said = []
    if without:
        said.append(f"{len(without)} scans have no lesion mask and are not evaluated: {_some(without)}")
    if strangers:
        said.append(f"{len(strangers)} masks fit no scan: {_some(strangers)}")
    return said


def _some(names: Iterable[str], most: int = 10) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return (", ".join(listed[:most]) or "none") + more
