"""Folders of maps as ``score`` would leave them, written by nibabel and json alone."""

import hashlib
import json

import nibabel as nib
import numpy as np

RAS = np.array([[2.0, 0, 0, -20], [0, 2, 0, -30], [0, 0, 2, -10], [0, 0, 0, 1]])
LAS = np.array([[-2.0, 0, 0, 21], [0, 2, 0, -30], [0, 0, 2, -10], [0, 0, 0, 1]])
ANISOTROPIC = np.array([[1.5, 0, 0, -15], [0, 1.5, 0, -20], [0, 0, 5, -22], [0, 0, 0, 1]])


def oblique():
    """Return an affine turned about two axes, its first axis to the left."""
    a, b = np.radians(24), np.radians(-17)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.diag([-1.8, 2.2, 3.0])
    affine[:3, 3] = [25, -18, 7]
    return affine


AFFINES = {"RAS": RAS, "LAS": LAS, "anisotropic": ANISOTROPIC, "oblique": oblique()}
SHAPE = (17, 23, 13)


def ball(shape=SHAPE):
    """Return a mask that is wider than it is high, and touches no border."""
    middle, radius = (np.array(shape) - 1) / 2, np.array(shape) / 2.6
    at = np.indices(shape).T - middle
    return ((at / radius) ** 2).sum(-1).T <= 1


def write_map(path, data, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)


def write_scan(out, id="sub-01", affine=RAS, scores=None, mask=None, background=None, facts=None):
    """Write one scored scan; return its folder.

    ``scores``: name to ``(I, J, K)``; ``facts``: what each sidecar tells besides.
    """
    folder = out / id / "dwi"
    mask = ball() if mask is None else mask
    generator = np.random.default_rng(0)
    scores = {"elbo": generator.gamma(2, 1, mask.shape)} if scores is None else scores
    background = generator.uniform(100, 900, mask.shape) if background is None else background
    write_map(folder / f"{id}_desc-background.nii.gz", (background * mask).astype(np.float32), affine)
    write_map(folder / f"{id}_desc-brain_mask.nii.gz", mask.astype(np.uint8), affine)
    for name, values in scores.items():
        path = folder / f"{id}_desc-{name}_novelty.nii.gz"
        write_map(path, (values * mask).astype(np.float32), affine)
        sidecar = {
            "ScanId": id,
            "Sources": [f"../../../scans/{id}_dwi.nii.gz"],
            "Score": {"name": name, "unit": "nats", "description": "How odd it is.", "paper": "vasilev2018"},
            "Detector": {"Sha256": "d" * 64, "Method": "vae"},
            "Mask": {"Source": "given", "Voxels": int(mask.sum())},
            "Gradients": {"Scheme": "3 volumes: 1 at b=0, 2 at b=1000"},
            "Warnings": [],
            "InputSha256": "e" * 64,
            "DetectorSha256": "d" * 64,
            "MapSha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            **(facts or {}),
        }
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    return folder


def write_clusters(folder, id, score, peaks_mm):
    """Write a segmentation of a score: a table of clusters with these peaks, and what tells of it."""
    start = folder / f"{id}_desc-{score}"
    columns = ("cluster", "voxels", "volume_mm3", "peak_x_mm", "peak_y_mm", "peak_z_mm", "max")
    rows = [(n, 5, 40.0, *mm, 9.5) for n, mm in enumerate(peaks_mm, 1)]
    lines = ["\t".join(map(str, row)) for row in (columns, *rows)]
    (folder / f"{start.name}_clusters.tsv").write_text("\n".join(lines) + "\n")
    numbers = {"novel_mm3": 40.0 * len(rows), "novel_share": 0.01, "clusters": len(rows), "largest_mm3": 40.0}
    told = {"Numbers": numbers, "Threshold": {"Words": "p <= 0.001", "Rule": "p"}}
    (folder / f"{start.name}_mask.json").write_text(json.dumps(told))
