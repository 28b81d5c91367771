"""Folders of maps as ``score`` leaves them, on any grid, their images written by nibabel alone."""

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (11, 14, 9)
BOX = (slice(6, 9), slice(3, 5), slice(4, 8))
"""Where the cluster is: away from the middle along each axis, so that a flip moves it out of itself."""
PEAK = (7, 4, 6)
SMALLEST_P = 1e-5


def turned(spacing_mm, angles_degrees=(0, 0, 0), flips=(1, 1, 1), origin=(-12.0, 30.0, 7.5)):
    """Return an affine by hand: rotations about x, y and z, then what runs backwards."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(angles_degrees)):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        rotation = np.eye(3)
        rotation[one, one] = rotation[two, two] = np.cos(angle)
        rotation[one, two], rotation[two, one] = -np.sin(angle), np.sin(angle)
        matrix = rotation @ matrix
    affine = np.eye(4)
    affine[:3, :3] = matrix * np.array(spacing_mm) * np.array(flips)
    affine[:3, 3] = origin
    return affine


GRIDS = {
    "RAS": turned((2.0, 2.0, 2.0)),
    "LAS": turned((2.0, 2.0, 2.0), flips=(-1, 1, 1)),
    "LPS-anisotropic": turned((1.0, 2.5, 4.0), flips=(-1, -1, 1)),
    "oblique": turned((2.0, 2.0, 3.0), (20, -12, 35)),
    "LAS-oblique-anisotropic": turned((1.5, 2.5, 3.5), (-15, 25, 10), flips=(-1, 1, 1)),
}


@dataclass(frozen=True)
class Written:
    """What was written of one scan."""

    out: Path
    folder: Path
    id: str
    affine: np.ndarray
    background: np.ndarray
    mask: np.ndarray
    raw: np.ndarray
    surprise: np.ndarray
    labels: np.ndarray

    @property
    def scene(self):
        return self.folder / f"{self.id}_scene.mrml"

    def path(self, ending):
        return self.folder / f"{self.id}_{ending}"

    def mm(self, index):
        return (self.affine @ [*index, 1])[:3]


def save(path, data, affine, dtype):
    image = nib.Nifti1Image(data.astype(dtype), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, path)


def write_scored(out, affine, id="sub-01", score="elbo", segmented=True, calibrated=True):
    """Write the maps of two scores, one of them calibrated and segmented, the other a trivial baseline."""
    rng = np.random.default_rng(3)
    folder = out / id / "dwi"
    folder.mkdir(parents=True)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
    # Linear, so that it is known between voxels as well.
    background = 100.0 + 30 * index[0] + 11 * index[1] + 17 * index[2]
    mask = np.zeros(SHAPE, bool)
    mask[1:-1, 1:-1, 1:-1] = True
    surprise = np.where(mask, rng.uniform(0, 2.5, SHAPE), 0)
    labels = np.zeros(SHAPE, int)
    labels[BOX] = 1
    surprise[BOX] = rng.uniform(3.2, 4.5, surprise[BOX].shape)
    surprise[PEAK] = 5
    surprise = surprise.astype(np.float32)
    raw = (2 * surprise + 1).astype(np.float32)
    written = Written(out, folder, id, affine, background, mask, raw, surprise, labels)
    save(written.path("desc-background.nii.gz"), background, affine, np.float32)
    save(written.path("desc-brain_mask.nii.gz"), mask, affine, np.uint8)
    _write_score(written, "raw_b0", raw[::-1], trivial=True)
    _write_score(written, score, raw, trivial=False, calibrated=calibrated)
    if calibrated:
        save(written.path(f"desc-{score}_pvalue.nii.gz"), surprise, affine, np.float32)
    if segmented:
        _write_segmentation(written, score)
    (out / "run.json").write_text(json.dumps({"Scores": [score]}))
    return written


def _write_score(written, score, values, *, trivial, calibrated=False):
    save(written.path(f"desc-{score}_novelty.nii.gz"), values, written.affine, np.float32)
    calibration = {"SmallestP": SMALLEST_P} if calibrated else None
    told = {"ScanId": written.id, "Score": {"name": score, "unit": "nats", "trivial": trivial},
            "Calibration": calibration, "MapSha256": f"of {score}"}  # fmt: skip
    written.path(f"desc-{score}_novelty.json").write_text(json.dumps(told))


def _write_segmentation(written, score):
    save(written.path(f"desc-{score}_dseg.nii.gz"), written.labels, written.affine, np.int16)
    lowest = float(written.surprise[BOX].min())
    x, y, z = written.mm(PEAK)
    volume = written.labels.sum() * abs(np.linalg.det(written.affine[:3, :3]))
    columns = ["cluster", "voxels", "volume_mm3", "peak_x_mm", "peak_y_mm", "peak_z_mm", "centroid_x_mm",
               "centroid_y_mm", "centroid_z_mm", "mean", "max", "p_peak", "p_cluster"]  # fmt: skip
    row = [1, written.labels.sum(), volume, x, y, z, 0, 0, 0, 9, 11, 1e-5, "n/a"]
    table = "\t".join(columns) + "\n" + "\t".join(str(value) for value in row) + "\n"
    written.path(f"desc-{score}_clusters.tsv").write_text(table)
    threshold = {
        "Rule": "fdr",
        "Q": 0.05,
        "FlaggedP": float(10.0**-lowest),
        "Words": "false discovery rate 0.05",
    }
    told = {"Threshold": threshold, "Numbers": {"clusters": 1}, "Files": {"dseg": "1"}}
    written.path(f"desc-{score}_mask.json").write_text(json.dumps(told))
