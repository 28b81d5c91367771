"""Scoring a whole-brain scan: seconds and peak memory of `mednovelty score`, beside the least it could do.

    python -m mednovelty.benchmarks.whole_brain MODEL SCAN.nii.gz OUT [--rounds 3] [--scores a,b]

The competitor reads the same file with nibabel's ``get_fdata(dtype=float32)`` and runs the network's forward
passes on the same voxels, already normalised, and nothing else: no neighbour search, no writing, no checks.
Both run in processes of their own, in turn; their medians and the ratio are printed as JSON. ``--make SCAN``
writes a synthetic 256x256x172x46 int16 scan first.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FORWARD = """
import sys, numpy as np, nibabel as nib, torch
from mednovelty.detector import Detector
detector = Detector.load(sys.argv[1])
scan = nib.load(sys.argv[2])
data = scan.get_fdata(dtype=np.float32)
mask = nib.load(sys.argv[3]).get_fdata() > 0
x = data[mask]
del data
noise = detector.scoring()._noise()
model = detector.model
with torch.no_grad():
    for start in range(0, len(x), detector.settings.batch_voxels):
        posterior = model.encode(torch.from_numpy(x[start : start + detector.settings.batch_voxels]))
        model.decode(posterior.mean)
        for draw in noise:
            model.decode(posterior.mean + posterior.stddev * draw)
"""
SHAPE, N_B0, N_DIRECTIONS = (256, 256, 172), 6, 40


def make_scan(path: Path, seed: int = 0) -> None:
    """Write a brain-sized int16 scan with its gradients and brain mask: smooth tissue and noise."""
    import nibabel as nib
    import numpy as np
    from scipy.ndimage import gaussian_filter, zoom

    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE], indexing="ij", sparse=True)
    brain = (axes[0] / 0.62) ** 2 + (axes[1] / 0.76) ** 2 + (axes[2] / 0.72) ** 2 < 1
    tissue = zoom(gaussian_filter(rng.normal(size=[n // 4 for n in SHAPE]), 2), 4, order=1).astype(np.float32)
    tissue = tissue[: SHAPE[0], : SHAPE[1], : SHAPE[2]] / np.abs(tissue).max()
    directions = rng.normal(size=(N_DIRECTIONS, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    volumes = np.empty((*SHAPE, N_B0 + N_DIRECTIONS), np.int16, order="F")
    for c in range(N_B0 + N_DIRECTIONS):
        weight = 1.0 if c < N_B0 else float(np.exp(-0.9 + 0.2 * directions[c - N_B0, 0]))
        signal = np.where(brain, 900 * weight * (1 + 0.3 * tissue), 0)
        volumes[..., c] = np.abs(signal + rng.normal(0, 25, SHAPE).astype(np.float32)) * (
            brain | (tissue > 0.9)
        )
    affine = np.diag([-0.9, 0.9, 0.9, 1.0])
    image = nib.Nifti1Image(volumes, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, path)
    stem = str(path).removesuffix(".nii.gz")
    np.savetxt(f"{stem}.bval", np.r_[np.zeros(N_B0), np.full(N_DIRECTIONS, 1200)][None], fmt="%g")
    np.savetxt(f"{stem}.bvec", np.vstack([np.zeros((N_B0, 3)), directions]).T, fmt="%.6f")
    nib.save(nib.Nifti1Image(brain.astype(np.uint8), affine), mask_of(path))


def mask_of(path: Path) -> Path:
    """Return the name of the brain mask beside a scan."""
    return path.with_name(path.name.replace("_dwi.nii.gz", "_desc-brain_mask.nii.gz"))


def measured(words: list[str]) -> tuple[float, float]:
    """Run a command; return seconds and peak MiB of its process."""
    start = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} ended with status {status}")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and return medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("scan", type=Path)
    parser.add_argument("out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scores")
    parser.add_argument("--make", action="store_true")
    given = parser.parse_args(argv)
    if given.make:
        make_scan(given.scan)
    ours = [
        sys.executable,
        "-m",
        "mednovelty",
        "score",
        given.model,
        str(given.scan),
        "-o",
        given.out,
        "--overwrite",
    ]
    ours += ["--scores", given.scores] if given.scores else []
    theirs = [sys.executable, "-c", FORWARD, given.model, str(given.scan), str(mask_of(given.scan))]
    rows = []
    for _ in range(given.rounds):
        subprocess.run(["rm", "-rf", given.out], check=True)
        rows.append((*measured(ours), *measured(theirs)))
    names = ("score_seconds", "score_peak_mib", "competitor_seconds", "competitor_peak_mib")
    result: dict[str, Any] = dict(zip(names, map(statistics.median, zip(*rows, strict=True)), strict=True))
    result["ratio_score_over_competitor"] = statistics.median(row[0] / row[2] for row in rows)
    result["rounds"] = [[round(value, 2) for value in row] for row in rows]
    print(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    main()
