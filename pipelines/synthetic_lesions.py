"""Lesions that were never there: folds of patients, what the detector is blind to, a likelihood beside it.

    python pipelines/synthetic_lesions.py --manifest data_manifests/lgg.toml --out study --contrasts FLAIR

Settings stand in ``synthetic_lesions.toml`` beside this file; ``--set`` replaces some of the detector's, and
of those that look for blind spots all but their families.
Each fold of patients is scored by a detector that was trained on the lesion-free slices of the others, with
anomalies planted in them, and by a VAE trained on the same slices. All maps are evaluated together: the table
as JSON on stdout, pictures in ``maps/evaluation``; so are the two scores as one, and which lesions neither
finds alone.

``blindness.tsv`` and ``blindness.png`` tell how a detector trained on one family of anomalies finds the
others, in held-out slices of the first fold. Exit codes are those of ``mednovelty score``. A study that was
stopped goes on, with the same words, where it stood: what is trained and scored stays so.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from lesion_localisation import find_scans, main

import mednovelty as mn
from mednovelty.anomalies.mixture import spelled
from mednovelty.cohort import CohortSettings
from mednovelty.cross_validation import fold_detector
from mednovelty.errors import OutputError, SettingsError
from mednovelty.fitting import FitSettings, make_method
from mednovelty.io.atomic import write_text_atomic
from mednovelty.io.folds import with_fold
from mednovelty.io.manifest import read_manifest
from mednovelty.io.scan_files import ScanList
from mednovelty.model_folder import fit_settings
from mednovelty.report.blindness import blindness_figure, blindness_table
from mednovelty.report.figures import draw_evaluation, save_figure
from mednovelty.settings import read_toml

SETTINGS = Path(__file__).with_suffix(".toml")
MAP = "synthetic_lesions_map"
BLINDNESS = "blindness.tsv"
"""Written last: where it stands the study is done."""
SHARED = ("view_settings", "structural_mask", "preprocessors", "preprocessor_settings")
"""Settings that what stands beside the detector has in common with it."""
log = logging.getLogger("mednovelty")


def study(asked: argparse.Namespace) -> int:
    """Fit and score fold by fold, evaluate all, and look for blind spots; return the exit code.

    Args:
        asked: The words of the command line, and ``overrides``, a tree of settings.
    """
    out, given = asked.out, read_toml(asked.settings)
    if (out / BLINDNESS).exists():
        raise OutputError(f"{out}: holds a study already; choose another folder")
    folds = read_manifest(asked.manifest).folds
    if folds is None:
        raise SettingsError(f"{asked.manifest}: has no [folds] to train and test in turn")
    # All of them before the first scan is read: what is refused is refused at once, not after all folds.
    ours, theirs, alone = planned(given, asked)
    scans, score = find_scans(asked), given["likelihood"]["score"]
    codes = []
    for k in range(folds.count):
        mine = with_fold(scans, k)
        for name, settings, wanted in (("synthetic", ours, MAP), ("likelihood", theirs, score)):
            detector = trained(mine, scans, settings, out / "models" / name / f"fold-{k + 1}", asked)
            log.info("fold %d, %s: %s", k + 1, name, detector.fitted.summary["verdict"])
            where = out / "maps" / name / f"fold-{k + 1}"
            cohort = CohortSettings(scores=(wanted,))
            result = mn.score_cohort(detector, mine.with_roles("test"), where, settings=cohort)
            codes.append(result.exit_code)
            for one in result.failures:
                log.error("failed: %s: %s", one.id, one.message)
    if any(code not in (0, 6) for code in codes):
        return max(codes)
    evaluation = mn.evaluate(out / "maps", asked.manifest, together=(MAP, score))
    evaluation.write(out / "maps" / "evaluation")
    draw_evaluation(evaluation, out / "maps" / "evaluation")
    print(evaluation.to_json(), flush=True)
    blindness(with_fold(scans, 0), scans, alone, asked)
    return max(codes)


def blindness(
    mine: ScanList, scans: ScanList, alone: dict[str, FitSettings], asked: argparse.Namespace
) -> None:
    """Train a detector on each family, and write how each finds all of them."""
    found = {}
    for family, settings in alone.items():
        detector = trained(mine, scans, settings, asked.out / "models" / "blindness" / family, asked)
        log.info("%s: %s", family, detector.fitted.summary["verdict"])
        found[family] = detector.fitted.summary["found"]
    save_figure(blindness_figure(found), asked.out / "blindness.png")
    write_text_atomic(asked.out / BLINDNESS, blindness_table(found))


def planned(
    given: dict[str, Any], asked: argparse.Namespace
) -> tuple[FitSettings, FitSettings, dict[str, FitSettings]]:
    """Return the settings of the detector, of the likelihood beside it, and of a detector of each family.

    Raises:
        SettingsError: Some are none, or do not go together.
    """
    leave_out = {"annotations": {"lesions": "leave_out"}}

    def resolved(*trees: dict[str, Any]) -> FitSettings:
        settings = fit_settings(*trees, leave_out, where=asked.settings.name, recipe=given["recipe"])
        method = make_method(settings)
        if hasattr(method, "for_samples"):
            method.for_samples(images=True, gradients=False)
        return settings

    # Seen at the same size; whatever else is replaced is the detector's.
    shared = {name: tree for name, tree in asked.overrides.items() if name in SHARED}
    beside = read_toml(SETTINGS.parent / given["likelihood"]["settings"])["fit"]
    epochs = {"train": {"max_epochs": given["blindness"]["max_epochs"]}}
    alone = {
        family: resolved(of_family(given["fit"], family), epochs, of_family(asked.overrides, family))
        for family in spelled(given["blindness"]["families"])
    }
    return resolved(given["fit"], asked.overrides), resolved(beside, shared), alone


def of_family(tree: dict[str, Any], family: str) -> dict[str, Any]:
    """Return settings without those of other families, to train on this one alone.

    Examples:
        >>> asked = {"width": 4, "anomaly_settings": {"noise": {}, "blur": {}}, "weights": {"blur": 2}}
        >>> of_family({"method_settings": asked}, "noise")["method_settings"]
        {'width': 4, 'anomaly_settings': {'noise': {}}, 'anomalies': ['noise'], 'held_out': []}
    """
    method = {name: value for name, value in tree.get("method_settings", {}).items() if name != "weights"}
    if "anomaly_settings" in method:
        own = {
            name: ranges for name, ranges in method["anomaly_settings"].items() if spelled(name) == [family]
        }
        method["anomaly_settings"] = own
    return tree | {"method_settings": method | {"anomalies": [family], "held_out": []}}


def trained(
    mine: ScanList, scans: ScanList, settings: FitSettings, folder: Path, asked: argparse.Namespace
) -> mn.Detector:
    """Return a detector of a fold's training scans; what is done stays done."""
    given = read_toml(asked.settings)
    ids = [files.id for files in scans]
    return fold_detector(mine, settings, folder, recipe=given["recipe"], seed=given["seed"], ids=ids)


if __name__ == "__main__":
    sys.exit(main(study, SETTINGS, "Synthetic lesions: a manifest in, tables and pictures out."))
