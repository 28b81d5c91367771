"""Lesions that were never there: folds of patients, what the detector is blind to, a likelihood beside it.

    python pipelines/synthetic_lesions.py --manifest data_manifests/lgg.toml --out study --contrasts FLAIR

Settings stand in ``synthetic_lesions.toml`` beside this file; ``--set`` replaces some of the detector's.
Each fold of patients is scored by a detector that was trained on the lesion-free slices of the others, with
anomalies planted in them, and by a VAE trained on the same slices. All maps are evaluated together: the table
as JSON on stdout, pictures in ``maps/evaluation``; so are the two scores as one, and which lesions neither
finds alone.

``blindness.tsv`` and ``blindness.png`` tell how a detector trained on one family of anomalies finds the
others, in held-out slices of the first fold. Exit codes are those of ``mednovelty score``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from lesion_localisation import find_scans, main

import mednovelty as mn
from mednovelty.candidates import remove_checkpoints
from mednovelty.cohort import CohortSettings
from mednovelty.errors import OutputError, SettingsError
from mednovelty.fit_command import lesions_in
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
SHARED = ("view_settings", "structural_mask", "preprocessors", "preprocessor_settings")
"""Settings that what stands beside the detector has in common with it."""
log = logging.getLogger("mednovelty")


def study(asked: argparse.Namespace) -> int:
    """Fit and score fold by fold, evaluate all, and look for blind spots; return the exit code.

    Args:
        asked: The words of the command line, and ``overrides``, a tree of settings.
    """
    out, given = asked.out, read_toml(asked.settings)
    if (out / "maps" / "evaluation").exists():
        raise OutputError(f"{out}: holds a study already; choose another folder")
    folds = read_manifest(asked.manifest).folds
    if folds is None:
        raise SettingsError(f"{asked.manifest}: has no [folds] to train and test in turn")
    scans, beside = find_scans(asked), given["likelihood"]
    ours = given["fit"], asked.overrides
    # Seen at the same size; whatever else is replaced is the detector's.
    shared = {name: tree for name, tree in asked.overrides.items() if name in SHARED}
    theirs = read_toml(SETTINGS.parent / beside["settings"])["fit"], shared
    codes = []
    for k in range(folds.count):
        mine = with_fold(scans, k)
        for name, trees, score in (("synthetic", ours, MAP), ("likelihood", theirs, beside["score"])):
            detector = trained(mine, scans, trees, out / "models" / name / f"fold-{k + 1}", asked)
            log.info("fold %d, %s: %s", k + 1, name, detector.fitted.summary["verdict"])
            where = out / "maps" / name / f"fold-{k + 1}"
            settings = CohortSettings(scores=(score,))
            result = mn.score_cohort(detector, mine.with_roles("test"), where, settings=settings)
            codes.append(result.exit_code)
            for one in result.failures:
                log.error("failed: %s: %s", one.id, one.message)
    if any(code not in (0, 6) for code in codes):
        return max(codes)
    evaluation = mn.evaluate(out / "maps", asked.manifest, together=(MAP, beside["score"]))
    evaluation.write(out / "maps" / "evaluation")
    draw_evaluation(evaluation, out / "maps" / "evaluation")
    blindness(with_fold(scans, 0), scans, given, asked)
    print(evaluation.to_json())
    return max(codes)


def blindness(mine: ScanList, scans: ScanList, given: dict[str, Any], asked: argparse.Namespace) -> None:
    """Train a detector on each family, and write how each finds all of them."""
    found, own = {}, given["fit"]["method_settings"]
    for family in given["blindness"]["families"]:
        ranges = {name: tree for name, tree in own.get("anomaly_settings", {}).items() if name == family}
        method = own | {"anomalies": [family], "held_out": [], "anomaly_settings": ranges}
        epochs = {"train": {"max_epochs": given["blindness"]["max_epochs"]}}
        trees = given["fit"] | {"method_settings": method}, epochs, asked.overrides
        detector = trained(mine, scans, trees, asked.out / "models" / "blindness" / family, asked)
        log.info("%s: %s", family, detector.fitted.summary["verdict"])
        found[family] = detector.fitted.summary["found"]
    write_text_atomic(asked.out / "blindness.tsv", blindness_table(found))
    save_figure(blindness_figure(found), asked.out / "blindness.png")


def trained(
    mine: ScanList,
    scans: ScanList,
    trees: tuple[dict[str, Any], ...],
    folder: Path,
    asked: argparse.Namespace,
) -> mn.Detector:
    """Return a detector of a fold's training scans; what is done stays done."""
    if (folder / "detector.json").exists():
        return mn.Detector.load(folder)
    given, leave_out = read_toml(asked.settings), {"annotations": {"lesions": "leave_out"}}
    detector = mn.Detector.fit(
        mine.with_roles("normal", "validation"),
        recipe=given["recipe"],
        lesions=lesions_in(scans.manifest.path, [files.id for files in scans], asked.out),
        seed=given["seed"],
        settings=fit_settings(*trees, leave_out, where=asked.settings.name, recipe=given["recipe"]),
        folder=folder,
        resume=any(folder.glob("checkpoint*")),
    ).save(folder)
    remove_checkpoints(folder)
    return detector


if __name__ == "__main__":
    sys.exit(main(study, SETTINGS, "Synthetic lesions: a manifest in, tables and pictures out."))
