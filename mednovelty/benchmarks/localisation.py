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
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from mednovelty.benchmarks.benchmark import Findings, Measured, Task
from mednovelty.benchmarks.map_scores import scores_given
from mednovelty.benchmarks.scan_sets import scan_manifest
from mednovelty.cohort import CohortSettings, score_cohort
from mednovelty.cross_validation import fold_detector, masked_scans
from mednovelty.errors import ScanError, SettingsError
from mednovelty.evaluation import EvaluateSettings, Evaluation, evaluate
from mednovelty.evaluation.region_overlap import RegionScores, area_under_pro, iou_of
from mednovelty.evaluation.truth import read_truth
from mednovelty.fitting import FitSettings
from mednovelty.io.folds import with_fold
from mednovelty.io.read_scan import ReadOptions
from mednovelty.io.scan_files import ScanList
from mednovelty.io.scan_folder import scan_folder
from mednovelty.model_folder import fit_settings
from mednovelty.plugins import plugin

log = logging.getLogger("mednovelty")
EVERYONE = "all"
"""The class that is all patients of a set."""
PLUGINS = {"vae": "image_vae", "vae_c03": "image_vae"}
"""What the plug-ins are called that a protocol calls otherwise."""
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


@dataclass(frozen=True)
class LocalisationSettings:
    """What the TOML file sets.

    Args:
        contrasts: Which images of a scan are its channels; as the manifest calls them.
        signs: By contrast in which direction a lesion changes it, for the ``_signed`` scores; none: 1 for
            each.
        recipe: ``slices`` or ``patches``.
        size: Pixels along each side of a slice or window.
        mask: What a scan's mask is made of where there is none: ``head``, right for what is skull-stripped;
            ``brain``.
        preprocessors: What is done to scans; none: as the recipe has it.
        median_px: Side of the median over finished maps, in voxels; 0: none.
        epochs: At most; 0: as many as the method's own defaults.
        learning_rate: 0: the method's own.
        batch: Slices or windows a step; 0: the method's own.
        patience: Epochs without improvement until training ends; 0: the method's own.
        patients: At most as many of each role, the first by name; 0: all.
        method_settings: Of the method, replacing its own.
    """

    contrasts: tuple[str, ...]
    signs: dict[str, float]
    recipe: Literal["slices", "patches"]
    size: int
    mask: Literal["head", "brain"]
    preprocessors: tuple[str, ...]
    median_px: int
    epochs: int
    learning_rate: float
    batch: int
    patience: int
    patients: int
    method_settings: dict[str, Any] = field(default_factory=dict)

    def fit(self, method: str, scores: Sequence[str], name: str) -> FitSettings:
        """Return the settings of a fit.

        Args:
            method: Of the protocol.
            scores: That its detector is to have.
            name: Of the protocol, for messages.
        """
        training = {
            "max_epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "batch_size": self.batch,
            "patience": self.patience,
        }
        tree = {
            "method": PLUGINS.get(method, method),
            "scores": list(scores),
            "structural_mask": self.mask,
            "annotations": {"lesions": "leave_out"},
            "maps": {"median_px": self.median_px, "signs": self.signs},
            "train": {key: value for key, value in training.items() if value},
            "view_settings": {"size": [self.size] * (3 if self.recipe == "patches" else 2)},
        }
        tree |= {"preprocessors": list(self.preprocessors)} if self.preprocessors else {}
        tree |= {"method_settings": self.method_settings} if self.method_settings else {}
        return fit_settings(tree, where=name, recipe=self.recipe)


class Localisation:
    """Lesions in brain scans, voxel by voxel, beside the raw intensity."""

    Settings: ClassVar[type] = LocalisationSettings

    def scores(self, method: str, asked: Sequence[str]) -> tuple[str, ...]:
        """Return which scores of those asked for a method has; raw intensities come unasked."""
        kind = plugin("methods", PLUGINS.get(method, method))
        found = scores_given(kind, asked, SCORES.get(method, ()))
        return (*found, RAW_SIGNED) if found and RAW_SIGNED not in found else found

    def run(self, task: Task, settings: LocalisationSettings) -> Findings:
        """Train a detector, score the patients that are tested, and return what its maps are worth."""
        manifest = scan_manifest(task.cell.dataset, task.folder)
        fit = settings.fit(task.cell.method, task.scores, task.benchmark)
        with tempfile.TemporaryDirectory(prefix="mednovelty-bench-") as scratch:
            out = Path(scratch)
            everyone = scan_folder(manifest, kind="structural", contrasts=settings.contrasts)
            mine = split(everyone, task, settings)
            if settings.mask == "brain":
                mine = masked_scans(mine, out / "brains", ReadOptions(structural_mask=settings.mask))
            test, training = mine.with_roles("test"), mine
            if task.beside:
                training = first(healthy(task.beside, settings.contrasts), settings.patients)
            unread: list[str] = []
            detector = fold_detector(
                training, fit, out / "model", recipe=settings.recipe, seed=task.cell.seed,
                ids=[files.id for files in everyone], lesions=not task.beside, device=task.device,
                on_scan=lambda scan_id, message: unread.append(f"{scan_id}: {message}") if message else None,
            )  # fmt: skip
            result = score_cohort(detector, test, out / "maps", settings=CohortSettings(scores=task.scores))
            failed = [f"{one.id}: {one.message}" for one in result.failures]
            if len(failed) == len(test):
                raise ScanError(f"no patient could be scored: {'; '.join(failed[:3])}", code="cohort.failed")
            for message in (*unread, *failed):
                log.warning("%s: left out: %s", task.cell.name, message)
            found = evaluate(
                out / "maps", manifest, settings=EvaluateSettings(seed=task.cell.seed, resamples=1)
            )
            told = {
                "patients_tested": len(found.scans),
                "scans_trained_on": sum(seen.role == "training" for seen in detector.scans),
                "epochs": len(detector.fitted.record.rows) - 1,
                "verdict": detector.fitted.summary["verdict"],
                "left_out": [*unread, *failed],
                "thresholds_from": found.fifth["drawn_from"],
            }
            return Findings(tuple(measured(found, task.scores)), told)


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
