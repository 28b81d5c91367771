"""Where in the image (Zimmerer et al. 2019): from a data manifest with folds to the table of AUCs.

    python pipelines/lesion_localisation.py --manifest data_manifests/lgg.toml --out study \
        --contrasts FLAIR,T1w --set maps.signs.FLAIR=1 --set maps.signs.T1w=-1

Settings stand in ``lesion_localisation.toml`` beside this file; ``--set`` replaces some. Each fold of
patients is scored by a detector that was trained on the lesion-free slices of the others: a patient is never
in two folds. The maps of all folds are evaluated together, beside the raw intensity of each contrast: the
table as JSON on stdout, pictures beside it. Exit codes are those of ``mednovelty score``.

Which score is best is not for the tested patients to say. Of three folds or more, each detector has a fold
for early stopping, which it has not learned from: the score with the highest mean average precision there is
the fold's choice, and ``choice.json`` tells what the choices reach on the tested patients.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mednovelty as mn
from mednovelty import console
from mednovelty.cross_validation import fold_detector, masked_scans
from mednovelty.errors import OutputError, SettingsError
from mednovelty.evaluation import Evaluation
from mednovelty.io.atomic import write_text_atomic
from mednovelty.io.folds import with_fold
from mednovelty.io.manifest import read_manifest
from mednovelty.io.read_scan import ReadOptions
from mednovelty.io.scan_files import ScanList
from mednovelty.model_folder import fit_settings
from mednovelty.report.figures import draw_evaluation
from mednovelty.settings import parse_assignments, read_toml

SETTINGS = Path(__file__).with_suffix(".toml")
log = logging.getLogger("mednovelty")


def study(asked: argparse.Namespace) -> int:
    """Fit and score fold by fold, evaluate all; print the table, log what failed, return the exit code.

    Args:
        asked: The words of the command line, and ``overrides``, a tree of settings.
    """
    out = asked.out
    if (out / "evaluation.json").exists():
        raise OutputError(f"{out}: holds a study already; choose another folder")
    folds = read_manifest(asked.manifest).folds
    if folds is None:
        raise SettingsError(f"{asked.manifest}: has no [folds] to train and test in turn")
    scans = find_scans(asked)
    codes = [fold(k, scans, asked) for k in range(folds.count)]
    if any(code not in (0, 6) for code in codes):
        return max(codes)
    evaluation = mn.evaluate(out / "maps", asked.manifest)
    evaluation.write(out)
    draw_evaluation(evaluation, out)
    if folds.count > 2:
        write_text_atomic(out / "choice.json", json.dumps(choice(scans, asked, evaluation), indent=2) + "\n")
    for warning in evaluation.warnings:
        log.warning("%s", warning)
    print(evaluation.to_json())
    return max(codes)


def find_scans(asked: argparse.Namespace) -> ScanList:
    """Return the scans; their brain masks, where a folder for them is named, are made there once for all."""
    scans = mn.scan_folder(asked.manifest, kind="structural", contrasts=asked.contrasts)
    if asked.brain_masks is None:
        return scans
    given = read_toml(asked.settings)
    settings = fit_settings(given["fit"], asked.overrides, where="settings", recipe=given["recipe"])
    return masked_scans(scans, asked.brain_masks, ReadOptions(structural_mask=settings.structural_mask))


def fold(k: int, scans: ScanList, asked: argparse.Namespace) -> int:
    """Train on all folds but k, score k and the fold that decided when to stop; what is done stays done."""
    given, out = read_toml(asked.settings), asked.out
    model, recipe = out / "models" / f"fold-{k + 1}", given["recipe"]
    mine, unread = with_fold(scans, k), []
    settings = fit_settings(given["fit"], asked.overrides, where=asked.settings.name, recipe=recipe)
    detector = fold_detector(
        mine,
        settings,
        model,
        recipe=recipe,
        seed=given["seed"],
        ids=[files.id for files in scans],
        on_scan=lambda scan_id, message: unread.append(f"{scan_id}: {message}") if message else None,
    )
    log.info("fold %d: %s", k + 1, detector.fitted.summary["verdict"])
    results = [mn.score_cohort(detector, mine.with_roles("test"), out / "maps" / f"fold-{k + 1}")]
    if validation := mine.with_roles("validation").scans:
        log.info("fold %d: scoring %d patients to choose by", k + 1, len(validation))
        chosen_by = out / "validation" / f"fold-{k + 1}"
        results.append(mn.score_cohort(detector, mine.with_roles("validation"), chosen_by))
    failed = [f"{one.id}: {one.message}" for result in results for one in result.failures]
    for failure in (*unread, *failed):
        log.error("failed: %s", failure)
    return max(result.exit_code for result in results) or (6 if unread else 0)


def choice(scans: ScanList, asked: argparse.Namespace, tested: Evaluation) -> dict[str, Any]:
    """Return each fold's choice, made by its validation patients, and what the choices reach when tested."""
    told, reached = [], []
    for k in range(read_manifest(asked.manifest).folds.count):
        judged = mn.evaluate(asked.out / "validation" / f"fold-{k + 1}", asked.manifest)
        by = {score: row["ap"] for score, row in judged.mean.items() if not math.isnan(row["ap"])}
        ours = [score for score in by if not judged.is_trivial(score)]
        if not ours:  # Nobody there has a lesion.
            told.append({"fold": k + 1, "validation_ap": by, "chosen": None, "test_ap": None})
            continue
        best = max(ours, key=by.__getitem__)
        ids = [files.id for files in with_fold(scans, k).with_roles("test")]
        own = [tested.scans[id][best]["ap"] for id in ids if best in tested.scans.get(id, {})]
        own = [ap for ap in own if not math.isnan(ap)]
        reached += own
        told.append({"fold": k + 1, "validation_ap": by, "chosen": best, "test_ap": _mean(own)})
    return {"folds": told, "test_ap": _mean(reached), "patients": len(reached)}


def _mean(numbers: list[float]) -> float | None:
    return statistics.fmean(numbers) if numbers else None


def main(study: Callable[[argparse.Namespace], int], settings: Path, description: str) -> int:
    """Read the command line of a study of folds, run it, and return its exit code."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--settings", type=Path, default=settings)
    parser.add_argument("--contrasts", type=lambda text: text.split(","), help="e.g. FLAIR,T1w")
    parser.add_argument(
        "--brain-masks", type=Path, help="folder of brain masks; those missing are made there"
    )
    parser.add_argument("--set", action="append", default=[], help="one setting, e.g. train.max_epochs=50")
    asked = parser.parse_args()
    console.start_logging(quiet=False, verbose=False)

    def run() -> int:
        asked.overrides = parse_assignments(asked.set)
        return study(asked)

    return console.run(run)


if __name__ == "__main__":
    sys.exit(main(study, SETTINGS, "Localisation in images: a manifest in, a table out."))
