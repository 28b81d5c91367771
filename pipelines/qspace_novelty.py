"""q-space novelty detection (Vasilev et al. 2018): from a data manifest to the table of AUCs.

    python pipelines/qspace_novelty.py --manifest data_manifests/demo.toml --out study

Settings stand in ``qspace_novelty.toml`` beside this file. Healthy scans with the role ``normal`` train the
detector, those with ``validation`` stop the training, those with ``test`` are scored and, where the manifest
names lesion masks, evaluated beside the trivial baselines.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

import mednovelty as mn
from mednovelty.cohort import CohortSettings
from mednovelty.evaluation import Evaluation
from mednovelty.io.read_scan import ReadOptions
from mednovelty.model_folder import fit_settings

SETTINGS = Path(__file__).with_suffix(".toml")


def study(manifest: Path, out: Path, settings: Path = SETTINGS) -> Evaluation:
    """Fit, score and evaluate a data set; return the table."""
    asked = tomllib.loads(settings.read_text())
    seed, options = asked["seed"], ReadOptions()
    scans = mn.scan_folder(manifest)
    detector = mn.Detector.fit(
        scans.with_roles("normal", "validation"),
        recipe=asked["recipe"],
        seed=seed,
        settings=fit_settings(asked["fit"], settings.name),
        options=options,
        folder=out / "model",
    ).save(out / "model")
    mn.score_cohort(detector, scans.with_roles("test"), out / "maps", CohortSettings(), options)
    evaluation = mn.evaluate(out / "maps", scans.manifest.mask_folder)
    evaluation.write(out)
    return evaluation


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="q-space novelty detection: a manifest in, a table out.")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--settings", type=Path, default=SETTINGS)
    given = parser.parse_args()
    print(study(given.manifest, given.out, given.settings).to_json())
