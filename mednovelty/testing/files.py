"""Writing phantoms to disk, by nibabel and numpy alone: no test reads back what our own writer made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

    from mednovelty.testing.phantoms import PhantomScan


def write_scan(folder: Path, name: str, scan: PhantomScan) -> None:
    """Write ``name_dwi.nii.gz`` (int16), ``.bval``, ``.bvec`` and a sidecar into a new folder."""
    import nibabel as nib

    folder.mkdir(parents=True)
    data = np.clip(np.rint(np.moveaxis(scan.signal, 0, -1)), 0, 32000).astype(np.int16)
    nib.save(_image(data, scan.affine), folder / f"{name}_dwi.nii.gz")
    np.savetxt(folder / f"{name}_dwi.bval", scan.bvals[None], fmt="%g")
    # Adding 0 turns -0 into 0.
    np.savetxt(folder / f"{name}_dwi.bvec", fsl_bvecs(scan.bvecs, scan.affine).round(6).T + 0.0, fmt="%.6f")
    facts = {"MagneticFieldStrength": 3, "EchoTime": 0.09, "Phantom": True}
    (folder / f"{name}_dwi.json").write_text(json.dumps(facts))


def write_mask(path: Path, mask: np.ndarray, affine: np.ndarray) -> None:
    """Write a ``(I, J, K)`` bool mask as 0 and 1."""
    import nibabel as nib

    nib.save(_image(mask.astype(np.uint8), affine), path)


def fsl_bvecs(bvecs: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return ``(C, 3)`` directions as FSL writes them for ``(C, 3)`` directions in world axes.

    FSL's axes are those of the voxels, with the first one flipped where the voxels are right-handed
    (a positive determinant).

    Examples:
        >>> fsl_bvecs(np.array([[1.0, 0.0, 0.0]]), np.diag([2.0, 2.0, 3.0, 1.0])).tolist()
        [[-1.0, 0.0, 0.0]]
        >>> fsl_bvecs(np.array([[1.0, 0.0, 0.0]]), np.diag([-2.0, 2.0, 3.0, 1.0])).tolist()
        [[-1.0, 0.0, 0.0]]
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    flip = np.array([-1.0 if np.linalg.det(axes) > 0 else 1.0, 1.0, 1.0])
    return bvecs @ axes * flip


def _image(data: np.ndarray, affine: np.ndarray) -> Nifti1Image:
    """Return the NIfTI image with sform and qform alike, both in scanner coordinates."""
    import nibabel as nib

    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image
