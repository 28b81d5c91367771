"""A small score run and its lesion masks, written by nibabel alone."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (6, 7, 5)
# Left-handed, anisotropic, and turned by atan(3/4) about x.
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 1.76, -1.8, -40], [0, 1.32, 2.4, 5], [0, 0, 0, 1]])


def write(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, path)
    return path


def brain_of(shape=SHAPE) -> np.ndarray:
    brain = np.zeros(shape, np.uint8)
    brain[1:, 1:-1, :] = 1
    return brain


def add_scan(out: Path, id: str, maps: dict[str, np.ndarray], brain: np.ndarray | None = None) -> None:
    folder = out / Path(*id.split("_")) / "dwi"
    write(folder / f"{id}_desc-brain_mask.nii.gz", brain_of() if brain is None else brain)
    for score, data in maps.items():
        name = folder / f"{id}_desc-{score.replace('_', '')}_novelty"
        write(name.with_suffix(".nii.gz"), data.astype(np.float32))
        name.with_suffix(".json").write_text(json.dumps({"ScanId": id, "Score": {"name": score}}))


def lesion_of(seed: int, n: int = 30) -> np.ndarray:
    lesion = np.zeros(SHAPE, np.uint8)
    inside = np.flatnonzero(brain_of())
    lesion.flat[np.random.default_rng(seed).choice(inside, n, replace=False)] = 1
    return lesion


def noisy(lesion: np.ndarray, seed: int, strength: float) -> np.ndarray:
    return np.random.default_rng(100 + seed).normal(size=SHAPE) + strength * lesion


def make_study(root: Path, n: int) -> tuple[Path, Path]:
    """Write n scans with a good score, a weak one and two baselines; return (out, masks)."""
    for number in range(1, n + 1):
        id, lesion = f"sub-{number:02d}", lesion_of(number)
        add_scan(root / "out", id, {
            "latent_euclidean": noisy(lesion, number, 2.5),
            "vae_regularizer": noisy(lesion, number + 50, 0.3),
            "raw_b0": noisy(lesion, number + 70, 1.2),
            "raw_dwi": noisy(lesion, number + 90, -0.4),
        })  # fmt: skip
        write(root / "masks" / f"{id}_mask.nii.gz", lesion)
    return root / "out", root / "masks"


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def scores_of(out: Path, masks: Path, id: str, score: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one scan's scores and labels in its brain mask, read by nibabel."""
    folder = out / id / "dwi"
    brain = read(folder / f"{id}_desc-brain_mask.nii.gz") > 0
    values = read(folder / f"{id}_desc-{score.replace('_', '')}_novelty.nii.gz")
    return values[brain], read(masks / f"{id}_mask.nii.gz")[brain] > 0
