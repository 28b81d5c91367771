"""How AUROC moves with the size of the reference, drawn evenly over scans or as a k-center coreset.

    python -m mednovelty.benchmarks.reference_size MODEL CONTROLS PATIENTS MASKS [--sizes 1000 ...]

The network stays; only the normals that its scores compare with change, drawn from the voxels of the scans
that it was trained on. Searches are chosen as ``fit`` chooses them. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from mednovelty.coreset import k_center
from mednovelty.detector import Detector
from mednovelty.io.mask import read_on_grid
from mednovelty.io.read_scan import read_scan
from mednovelty.io.scan_folder import scan_folder
from mednovelty.metrics import Ranking, auroc
from mednovelty.reference import Reference
from mednovelty.scoring import Scoring, reference_parts
from mednovelty.searches import with_chosen_searches

SCORES = ("nearest_normal", "latent_euclidean", "latent_bhattacharyya", "reconstruction_to_input_euclidean")
SIZES = (1_000, 4_000, 16_000, 64_000, 256_000)
SAMPLE = 8192


class Study:
    """Voxels of the scans that a detector has seen, and of patients with their lesions."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.detector = Detector.load(options.model)
        roles = {scan.id: scan.role for scan in self.detector.scans}
        controls = list(scan_folder(options.controls))
        self.random = np.random.default_rng(0)
        self.scans = [self._voxels(files) for files in controls if roles.get(files.id) == "training"]
        self.training = np.concatenate(self.scans)
        held_out = [self._voxels(files) for files in controls if roles.get(files.id) == "validation"]
        self.sample = torch.from_numpy(self.random.permutation(np.concatenate(held_out))[:SAMPLE])
        self.patients = {
            files.id: self._patient(files, options.masks) for files in scan_folder(options.patients)
        }

    def _voxels(self, files: Any) -> np.ndarray:
        return np.ascontiguousarray(self.detector.prepare(read_scan(files))[0].voxels())

    def _patient(self, files: Any, masks: Path) -> tuple[np.ndarray, np.ndarray]:
        scan = read_scan(files)
        lesion, _ = read_on_grid(next(masks.glob(f"{files.id}*.nii*")), scan.grid, scan.id)
        voxels = np.ascontiguousarray(self.detector.prepare(scan)[0].voxels())
        # Voxels come in the file's order, I fastest.
        inside = lesion.ravel(order="F")[np.flatnonzero(scan.mask.ravel(order="F"))]
        return voxels, inside > 0.5

    def rows(self, size: int, how: str) -> np.ndarray:
        """Return which training voxels are the reference."""
        if how == "coreset":
            return k_center(self.training, size)
        if size >= len(self.training):
            return np.arange(len(self.training))
        starts = np.cumsum([0, *(len(scan) for scan in self.scans)])
        share = np.diff(np.linspace(0, size, len(self.scans) + 1).astype(int))
        drawn = [
            start + self.random.permutation(len(scan))[:count]
            for start, scan, count in zip(starts[:-1], self.scans, share, strict=True)
        ]
        return np.sort(np.concatenate(drawn))

    def measure(self, size: int, how: str) -> dict[str, Any]:
        """Return one row of the table."""
        began = perf_counter()
        normals = torch.from_numpy(self.training[self.rows(size, how)])
        drawn = perf_counter() - began
        parts = reference_parts(SCORES)
        reference = Reference.of(self.detector.model, normals, parts, drawn_from=len(self.training))
        reference = with_chosen_searches(
            reference, self.detector.model, SCORES, self.sample, name="auto", seed=0
        )
        scoring = Scoring(self.detector.model, reference, 1, 0, self.detector.settings.batch_voxels)
        row: dict[str, Any] = {"voxels": len(normals), "drawn": how, "draw_s": round(drawn, 1), "auroc": {}}
        began = perf_counter()
        for patient, (x, lesion) in self.patients.items():
            cut = lambda start, stop, x=x: (x[start:stop], None)  # noqa: E731 - one line says it
            values = scoring.run(SCORES, cut, len(x))
            row["auroc"][patient] = {
                name: round(auroc(Ranking.of(values[name], lesion)), 4) for name in SCORES
            }
        row["score_s"] = round(perf_counter() - began, 1)
        return row


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and return the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("controls", type=Path)
    parser.add_argument("patients", type=Path)
    parser.add_argument("masks", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--coreset", type=int, default=16_000, help="the largest coreset: it takes time")
    options = parser.parse_args(arguments)
    study = Study(options)
    sizes = sorted({min(size, len(study.training)) for size in [*options.sizes, len(study.training)]})
    asked = [(size, "even") for size in sizes]
    asked += [(size, "coreset") for size in sizes if size <= options.coreset]
    table = [study.measure(size, how) for size, how in asked]
    sys.stdout.write(json.dumps(table, indent=2) + "\n")
    return table


if __name__ == "__main__":
    main()
