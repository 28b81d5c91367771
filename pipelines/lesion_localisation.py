"""Where in the image (Zimmerer et al. 2019): from a data manifest with folds to the table of AUCs.

    python pipelines/lesion_localisation.py --manifest data_manifests/lgg.toml --out study --contrasts FLAIR

Settings stand in ``lesion_localisation.toml`` beside this file. Each fold of patients is scored by a detector
that was trained on the lesion-free slices of the others: a patient is never in two folds. The maps of all
folds are evaluated together, beside the raw intensity of each contrast: the table as JSON on stdout, pictures
beside it. Exit codes are those of ``mednovelty score``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import mednovelty as mn
from mednovelty import console
from mednovelty.errors import OutputError, SettingsError
from mednovelty.fit_command import lesions_in
from mednovelty.io.folds import with_fold
from mednovelty.io.manifest import read_manifest
from mednovelty.io.scan_files import ScanList
from mednovelty.model_folder import fit_settings
from mednovelty.report.figures import draw_evaluation
from mednovelty.settings import read_toml

SETTINGS = Path(__file__).with_suffix(".toml")
log = logging.getLogger("mednovelty")


def study(manifest: Path, out: Path, settings: Path = SETTINGS, contrasts: list[str] | None = None) -> int:
    """Fit and score fold by fold, evaluate all; print the table, log what failed, return the exit code."""
    if (out / "evaluation.json").exists():
        raise OutputError(f"{out}: holds a study already; choose another folder")
    folds = read_manifest(manifest).folds
    if folds is None:
        raise SettingsError(f"{manifest}: has no [folds] to train and test in turn")
    scans = mn.scan_folder(manifest, kind="structural", contrasts=contrasts)
    codes = [fold(k, scans, out, settings) for k in range(folds.count)]
    if any(code not in (0, 6) for code in codes):
        return max(codes)
    evaluation = mn.evaluate(out / "maps", manifest)
    evaluation.write(out)
    draw_evaluation(evaluation, out)
    for warning in evaluation.warnings:
        log.warning("%s", warning)
    print(evaluation.to_json())
    return max(codes)


def fold(k: int, scans: ScanList, out: Path, settings: Path) -> int:
    """Train on all folds but k and score k; a fold that is done is not done again."""
    asked, model = read_toml(settings), out / "models" / f"fold-{k + 1}"
    mine, unread = with_fold(scans, k), []
    if (model / "detector.json").exists():
        detector = mn.Detector.load(model)
    else:
        detector = mn.Detector.fit(
            mine.with_roles("normal", "validation"),
            recipe=asked["recipe"],
            lesions=lesions_in(scans.manifest.path, [files.id for files in scans], out),
            seed=asked["seed"],
            settings=fit_settings(asked["fit"], where=settings.name, recipe=asked["recipe"]),
            folder=model,
            on_scan=lambda scan_id, message: unread.append(f"{scan_id}: {message}") if message else None,
        ).save(model)
    result = mn.score_cohort(detector, mine.with_roles("test"), out / "maps" / f"fold-{k + 1}")
    for failure in (*unread, *(f"{failed.id}: {failed.message}" for failed in result.failures)):
        log.error("failed: %s", failure)
    log.info("fold %d: %s", k + 1, detector.fitted.summary["verdict"])
    return result.exit_code or (6 if unread else 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Localisation in images: a manifest in, a table out.")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--settings", type=Path, default=SETTINGS)
    parser.add_argument("--contrasts", type=lambda text: text.split(","), help="e.g. FLAIR,T1w")
    given = parser.parse_args()
    console.start_logging(quiet=False, verbose=False)
    sys.exit(console.run(lambda: study(given.manifest, given.out, given.settings, given.contrasts)))
