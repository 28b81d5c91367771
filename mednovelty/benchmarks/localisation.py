"""Where in a brain scan: lesions found by detectors that have seen no labelled one.

Zimmerer et al. 2019, section 3. ``lgg`` and ``open-ms`` train on the lesion-free slices (or windows) of
some patients and test on others: a class is the fold, or the patient, that is tested. ``brats`` and
``isles`` train on healthy subjects of another set, ``hcp``, and test on all patients, as the paper does.
Lesion masks tell what is left out of training and what is found in testing, nothing else.

``vae`` is the paper's: ``kl_gradient``, ``combi``, ``rec_error`` and their relatives; ``synthetic_lesions``
is trained to find bright blobs that were planted in healthy slices. Other methods for slices that are
installed are taken where the protocol allows it, with their own settings. The intensity of each contrast,
as measured (``raw_FLAIR``) and as the detector sees it, by its signs (``raw_signed``), stands beside all of
them: it needs no training.

By metric, all voxels of the tested patients pooled, inside their brain masks: ``auroc``, ``ap``,
``dice_best``, ``iou`` (at that threshold), ``aupro`` (up to an FPR of 0.3), ``dice_fifth`` (at the
threshold of a fifth of the patients, the paper's), ``slice_max_auroc`` (slices with a lesion, by their
highest voxel); ``mean_auroc`` and ``mean_ap`` are means over patients; ``auroc_over_raw`` and
``ap_over_raw`` are how far a score is ahead of the best raw intensity.

Where this departs from the paper: maps are rated on the scans' own voxels and in the mask, where the paper
pools all pixels of all slices, background included, at 64 x 64. ``lgg`` and ``open-ms`` train ten times as
fast, with c = 0.3 and a median over maps, as ``pipelines/lesion_localisation.py`` does. Training images are
not augmented.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from mednovelty.benchmarks.benchmark import Findings, Measured, Task
from mednovelty.benchmarks.localisation_settings import PLUGINS, LocalisationSettings
from mednovelty.benchmarks.map_scores import scores_given
from mednovelty.benchmarks.scan_sets import scan_manifest
from mednovelty.cohort import CohortSettings, score_cohort
from mednovelty.cross_validation import fold_detector, masked_scans
from mednovelty.detector import Detector
from mednovelty.errors import ScanError, SettingsError
from mednovelty.evaluation import EvaluateSettings, Evaluation, evaluate
from mednovelty.evaluation.region_overlap import RegionScores, area_under_pro, iou_of
from mednovelty.evaluation.truth import read_truth
from mednovelty.fitting import FitSettings
from mednovelty.io.folds import with_fold
from mednovelty.io.manifest import Manifest
from mednovelty.io.read_scan import ReadOptions
from mednovelty.io.scan_files import ScanList
from mednovelty.io.scan_folder import scan_folder
from mednovelty.plugins import plugin

log = logging.getLogger("mednovelty")
EVERYONE = "all"
"""The class that is all patients of a set."""
RAW_SIGNED = "raw_signed"
VAE_SCORES = (
    "kl_gradient",
    "combi",
    "rec_error",
    "elbo_gradient",
    "rec_gradient",
    "combi_bright",
    "rec_error_bright",
    "combi_signed",
    "rec_signed",
    "vae_regularizer",
    "rec_term",
    "nearest_normal",
    RAW_SIGNED,
)
SCORES = {
    "vae": VAE_SCORES,
    "vae_c03": VAE_SCORES,
    "synthetic_lesions": ("synthetic_lesions_map", RAW_SIGNED),
}
"""What ``all`` is."""
POOLED = ("auroc", "ap", "dice_best", "dice_fifth", "slice_max_auroc")
OVER_RAW = ("auroc", "ap")


class Localisation:
    """Lesions in brain scans, voxel by voxel, beside the raw intensity."""

    Settings: ClassVar[type] = LocalisationSettings
    trivial: ClassVar[str] = (
        "raw_signed and the intensity of each contrast (raw_FLAIR and such), which stand beside the scores "
        "of every method: leave --methods out, or name one"
    )

    def scores(self, method: str, asked: Sequence[str]) -> tuple[str, ...]:
        """Return which scores of those asked for a method has; raw intensities come unasked."""
        kind = plugin("methods", PLUGINS.get(method, method))
        found = scores_given(kind, asked, SCORES.get(method, ()))
        return (*found, RAW_SIGNED) if found and RAW_SIGNED not in found else found

    def check(self, method: str, settings: LocalisationSettings) -> None:
        """Refuse settings that a detector cannot be fitted with."""
        settings.fit(method, (RAW_SIGNED,), "fit")

    def run(self, task: Task, settings: LocalisationSettings) -> Findings:
        """Train a detector, score the patients that are tested, and return what its maps are worth."""
        fit = settings.fit(task.cell.method, task.scores, task.benchmark)
        with tempfile.TemporaryDirectory(prefix="mednovelty-bench-") as scratch:
            chosen = Chosen.of(task, settings, Path(scratch))
            detector, unread = fitted(chosen, fit, task, settings.recipe, Path(scratch) / "model")
            scored = Path(scratch) / "maps"
            failed = _scored(detector, chosen.test, task.scores, scored)
            for message in (*unread, *failed):
                log.warning("%s: left out: %s", task.cell.name, message)
            # The same fifth of the patients whatever the seed, which is that of the training.
            found = evaluate(scored, chosen.manifest, settings=EvaluateSettings(resamples=1))
            told = {
                "patients_tested": len(found.scans),
                "scans_trained_on": sum(seen.role == "training" for seen in detector.scans),
                "epochs": len(detector.fitted.record.rows) - 1,
                "verdict": detector.fitted.summary["verdict"],
                "left_out": [*unread, *failed],
                "thresholds_from": found.fifth["drawn_from"],
            }
            return Findings(tuple(measured(found, task.scores)), told)


@dataclass(frozen=True)
class Chosen:
    """The scans of a cell.

    Attributes:
        manifest: Of the patients.
        ids: Of all of them, also of those that are not used.
        test: Patients.
        training: Scans with roles, the tested ones perhaps among them.
    """

    manifest: Manifest
    ids: tuple[str, ...]
    test: ScanList
    training: ScanList

    @classmethod
    def of(cls, task: Task, settings: LocalisationSettings, scratch: Path) -> Chosen:
        """Choose who trains and who is tested, and make brain masks where they are asked for."""
        manifest = scan_manifest(task.cell.dataset, task.folder)
        everyone = scan_folder(manifest, kind="structural", contrasts=settings.contrasts)
        mine = split(everyone, task, settings)
        others = first(healthy(task.beside, settings.contrasts), settings.patients) if task.beside else None
        if settings.mask == "brain":
            options = ReadOptions(structural_mask=settings.mask)
            mine = masked_scans(mine, scratch / "brains", options)
            others = None if others is None else masked_scans(others, scratch / "healthy", options)
        ids = tuple(files.id for files in everyone)
        return cls(manifest, ids, mine.with_roles("test"), mine if others is None else others)


def fitted(
    chosen: Chosen, settings: FitSettings, task: Task, recipe: str, folder: Path
) -> tuple[Detector, list[str]]:
    """Return the detector of a cell, and in words which scans it could not be trained on."""
    unread: list[str] = []
    detector = fold_detector(
        chosen.training,
        settings,
        folder,
        recipe=recipe,
        seed=task.cell.seed,
        ids=chosen.ids,
        lesions=not task.beside,
        device=task.device,
        on_scan=lambda scan_id, message: unread.append(f"{scan_id}: {message}") if message else None,
    )
    return detector, unread


def _scored(detector: Detector, test: ScanList, scores: tuple[str, ...], folder: Path) -> list[str]:
    """Score patients into a folder; return in words who could not be.

    Raises:
        ScanError: Nobody could.
    """
    result = score_cohort(detector, test, folder, settings=CohortSettings(scores=scores))
    failed = [f"{one.id}: {one.message}" for one in result.failures]
    if len(failed) == len(test):
        raise ScanError(f"no patient could be scored: {'; '.join(failed[:3])}", code="cohort.failed")
    return failed


def split(scans: ScanList, task: Task, settings: LocalisationSettings) -> ScanList:
    """Return scans with the roles that they have where a class is tested, as many as are used.

    Raises:
        SettingsError: There is no such fold or patient.
    """
    label = task.cell.label
    if label == EVERYONE:
        return first(
            replace(scans, scans=tuple(replace(files, role="test") for files in scans)), settings.patients
        )
    folds = scans.manifest.folds if scans.manifest else None
    if folds is None:
        raise SettingsError(f"{task.benchmark}: {scans.root} has no folds; the only class is {EVERYONE}")
    by_id = {files.id: files.fold for files in scans}
    k = int(label) - 1 if label.isdigit() else by_id.get(label)
    if k is None:
        raise SettingsError(f"{task.benchmark}: no scan is called {label!r}; there are {', '.join(by_id)}")
    return first(with_fold(scans, k), settings.patients)


def first(scans: ScanList, most: int) -> ScanList:
    """Return the first scans of each role by name; 0: all."""
    if not most:
        return scans
    kept: list[str] = []
    for role in {files.role for files in scans}:
        kept += sorted(files.id for files in scans if files.role == role)[:most]
    return replace(scans, scans=tuple(files for files in scans if files.id in kept))


def healthy(beside: Sequence[str], contrasts: Sequence[str]) -> ScanList:
    """Return the scans of healthy subjects of another set, by its name and folder."""
    manifest = scan_manifest(beside[0], Path(beside[1]))
    missing = [contrast for contrast in contrasts if contrast not in manifest.contrasts]
    if missing:
        raise SettingsError(
            f"contrasts: {beside[0]} has no {', '.join(missing)}, and training is on it; it has "
            f"{', '.join(manifest.contrasts)}"
        )
    return scan_folder(manifest, kind="structural", contrasts=contrasts)


def measured(found: Evaluation, asked: Sequence[str] = ()) -> Iterator[Measured]:
    """Yield the numbers of an evaluation, and how far each score is ahead of the best raw intensity.

    What is undefined, as of patients without a lesion, is left out.

    Args:
        found: Of all maps.
        asked: Scores in the order of tables; those that are not named, and raw intensities, come last.
    """
    trivial = [score for score in found.rated if found.is_trivial(score)]
    order = [*(score for score in asked if score in found.rated), *found.rated]
    order = [*(score for score in order if score not in trivial), *trivial]
    rows = {score: dict(_numbers(found, score)) for score in dict.fromkeys(order)}
    for score, numbers in rows.items():
        ahead = {} if score in trivial else {
            f"{metric}_over_raw": numbers[metric] - max(rows[other][metric] for other in trivial)
            for metric in OVER_RAW if trivial
        }  # fmt: skip
        for metric, value in (numbers | ahead).items():
            if not math.isnan(value):
                yield Measured(score, float(value), metric)


def _numbers(found: Evaluation, score: str) -> Iterator[tuple[str, float]]:
    pooled = found.rated[score].pooled
    for metric in POOLED:
        yield metric, pooled.get(metric, math.nan)
    yield "iou", iou_of(pooled["dice_best"])
    yield "aupro", area_under_pro(_regions(found, score))
    yield "mean_auroc", found.mean[score]["auroc"]
    yield "mean_ap", found.mean[score]["ap"]


def _regions(found: Evaluation, score: str) -> Iterator[RegionScores]:
    """Yield each scan's scores in its brain mask, and which lesion its voxels are in."""
    for id, rows in found.scans.items():
        if score in rows:
            truth, _ = read_truth(*found.sources[id])
            values, lesion = truth.scores(score), truth.labels()
            yield RegionScores(values[~lesion], values[lesion], np.asarray(truth.lesions.of_voxel))


__all__ = ["Localisation", "LocalisationSettings", "first", "measured", "split"]
