"""From maps and masks to numbers, one map in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.evaluation.files import ScoredScan, find_maps, find_masks, manifest_masks
from mednovelty.evaluation.result import Curve, EvaluateSettings, Evaluation, Row
from mednovelty.evaluation.truth import Truth, read_truth
from mednovelty.io.guard import shown
from mednovelty.io.manifest import read_manifest
from mednovelty.metrics import (
    Ranking,
    dice_at,
    draw_fifth,
    fifth_threshold,
    roc_points,
    summary,
    thinned,
)

FEWEST_SCANS_FOR_A_FIFTH = 5
DRAWN_SCORES = 2000
"""How many scores of each class a histogram is drawn from, at most, a scan."""


def evaluate(out: str | Path, masks: str | Path, *, settings: EvaluateSettings | None = None) -> Evaluation:
    """Compare the maps of a score run with lesion masks, inside each scan's brain mask.

    Args:
        out: The folder that ``score`` wrote to.
        masks: The folder of lesion masks, whose names tell which scan each belongs to; or a data manifest
            (``*.toml``), which says where each lies.
        settings: Seed and bootstrap.

    A scan whose masks cannot be used, and a map that cannot, is left out with a warning.

    Raises:
        ScanError: No maps, no mask for any scan, or no scan with masks and a map that can be used; where
            only one thing was wrong, its own error (``GeometryError`` for other voxels).
        SettingsError: The manifest is wrong, or names no lesion masks.
    """
    settings, out, masks = settings or EvaluateSettings(), Path(out), Path(masks)
    found, warnings = find_maps(out)
    owned, strangers = _masks(masks, found, out)
    errors: list[ScanError] = []
    truths = _truths({id: (found[id], owned[id]) for id in found if id in owned}, warnings, errors)
    study = _Study(truths, settings, errors)
    rated = {score: study.rate(score) for score in sorted({s for t in study.truths for s in t.files.maps})}
    rated = {score: (rows, curves) for score, (rows, curves) in rated.items() if rows}
    if not rated:
        raise _nothing_left(out, errors)
    without = tuple(id for id in found if id not in owned)
    unknown = tuple(shown(path) for path in strangers)
    return Evaluation(
        scans={
            id: {score: rows[id] for score, (rows, _) in rated.items() if id in rows}
            for id in sorted({id for rows, _ in rated.values() for id in rows})
        },
        curves={score: curves for score, (_, curves) in rated.items()},
        settings=settings,
        fifth=study.fifth,
        warnings=(*warnings, *study.warnings(), *_left_out(without, unknown)),
        scans_without_mask=without,
        masks_without_scan=unknown,
    )


class _Study:
    """The scans with a mask, and the fifth of them, or of their voxels, that sets the Dice threshold."""

    def __init__(self, truths: list[Truth], settings: EvaluateSettings, errors: list[ScanError]) -> None:
        usable = sorted(truth.id for truth in truths if truth.two_classes)
        self.seed = settings.seed
        self.of_scans = len(usable) >= FEWEST_SCANS_FOR_A_FIFTH
        chosen = draw_fifth(len(usable), self.seed) if self.of_scans else np.zeros(len(usable), bool)
        self.drawn = {id for id, drawn in zip(usable, chosen, strict=True) if drawn}
        # The fifth's scans first: their threshold is known when the others come by, so none has to wait.
        self.truths = sorted(truths, key=lambda truth: (truth.id not in self.drawn, truth.id))
        self.without_threshold: list[str] = []
        self._errors = errors
        self._unusable: list[str] = []

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
            try:
                scores = truth.scores(score)
            except ScanError as error:
                self._errors.append(error)
                self._unusable.append(f"{error}; {truth.id} is left out of {score}")
                continue
            whole, fifth, rest = self._split(truth, scores)
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
        if rows and math.isnan(threshold):
            self.without_threshold.append(score)
        return rows, curves

    def warnings(self) -> list[str]:
        """Say which numbers are missing or cannot be compared, and why."""
        scores = sorted({score for truth in self.truths for score in truth.files.maps})
        said = list(self._unusable)
        for truth in sorted(self.truths, key=lambda truth: truth.id):
            facts = truth.facts()
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


def _masks(masks: Path, found: dict[str, ScoredScan], out: Path) -> tuple[dict[str, Path], list[Path]]:
    """Return the lesion masks by scan id, at least one, and those that fit no scan."""
    if masks.suffix == ".toml" and not masks.is_dir():
        manifest = read_manifest(masks)
        owned, strangers = manifest_masks(manifest, found)
        names = str(manifest.root / manifest.masks)
    else:
        owned, strangers = find_masks(masks, found, besides=out)
        names = "<scan>_mask.nii.gz"
    if not owned:
        raise ScanError(
            f"{masks}: no lesion mask fits a scan of {out}: scans {_some(found)}; "
            f"masks {_some(shown(path) for path in strangers)}; call them {names}",
            code="masks.none",
        )
    return owned, strangers


def _truths(
    files: dict[str, tuple[ScoredScan, Path]], warnings: list[str], errors: list[ScanError]
) -> list[Truth]:
    """Return the scans whose masks can be used; the others go into the errors and the warnings."""
    truths = []
    for id, (scored, mask) in files.items():
        try:
            truth, remarks = read_truth(scored, mask)
        except ScanError as error:
            errors.append(error)
            warnings.append(f"{error}; {id} is left out")
        else:
            truths.append(truth)
            warnings += remarks
    return truths


def _nothing_left(out: Path, errors: list[ScanError]) -> ScanError:
    if len(errors) == 1:
        return errors[0]
    reasons = _some([str(error) for error in errors], most=3)
    return ScanError(f"{out}: no scan can be evaluated: {reasons}", code="evaluation.none")


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
