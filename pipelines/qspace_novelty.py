"""q-space novelty detection (Vasilev et al. 2018): from a data manifest to the table of AUCs.

    python pipelines/qspace_novelty.py --manifest data_manifests/demo.toml --out study

Settings stand in ``qspace_novelty.toml`` beside this file. Healthy scans with the role ``normal`` train the
detector, those with ``validation`` stop the training, those with ``test`` are scored and, where the manifest
names lesion masks, evaluated beside the trivial baselines: the table as JSON on stdout, pictures beside it.
Exit codes are those of ``mednovelty score``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import mednovelty as mn
from mednovelty import console
from mednovelty.errors import OutputError
from mednovelty.io.manifest import read_manifest
from mednovelty.model_folder import fit_settings
from mednovelty.report.figures import draw_evaluation
from mednovelty.settings import read_toml

SETTINGS = Path(__file__).with_suffix(".toml")
log = logging.getLogger("mednovelty")


def study(manifest: Path, out: Path, settings: Path = SETTINGS) -> int:
    """Fit, score and evaluate a data set; print the table, log what failed, return the exit code."""
    asked, has_masks, scans = read_toml(settings), read_manifest(manifest).masks, mn.scan_folder(manifest)
    if (out / "model" / "detector.json").exists():
        raise OutputError(f"{out}: holds a study already; choose another folder")
    unread: list[str] = []
    detector = mn.Detector.fit(
        scans.with_roles("normal", "validation"),
        recipe=asked["recipe"],
        seed=asked["seed"],
        settings=fit_settings(asked["fit"], where=settings.name),
        folder=out / "model",
        on_scan=lambda scan_id, message: unread.append(f"{scan_id}: {message}") if message else None,
    ).save(out / "model")
    result = mn.score_cohort(detector, scans.with_roles("test"), out / "maps")
    for failure in (*unread, *(f"{failed.id}: {failed.message}" for failed in result.failures)):
        log.error("failed: %s", failure)
    for note in (*detector.notes, detector.fitted.summary["verdict"]):
        log.info("%s", note)
    if has_masks and result.exit_code in (0, 6):
        evaluation = mn.evaluate(out / "maps", manifest)
        evaluation.write(out)
        draw_evaluation(evaluation, out)
        for warning in evaluation.warnings:
            log.warning("%s", warning)
        print(evaluation.to_json())
    return result.exit_code or (6 if unread else 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="q-space novelty detection: a manifest in, a table out.")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--settings", type=Path, default=SETTINGS)
    given = parser.parse_args()
    console.start_logging(quiet=False, verbose=False)
    sys.exit(console.run(lambda: study(given.manifest, given.out, given.settings)))
