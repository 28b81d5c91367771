"""A lesion planted by nibabel comes out where it was planted, in millimetres."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from cohorts import FAST

import mednovelty as mn
from mednovelty.cohort import CohortSettings, score_cohort

SHAPE = (11, 13, 7)
SPACING_MM = np.array([2.0, 1.5, 3.0])
BVALS = np.r_[np.zeros(2), np.full(9, 1000)]
TARGET = (2, 10, 5)


def rotation(degrees):
    a, b, c = np.deg2rad(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


def affine(flips):
    """Oblique, anisotropic, with unequal offsets; ``flips`` gives the handedness."""
    return nib.affines.from_matvec(rotation([12, -9, 17]) * SPACING_MM * flips, [71, -93, -42])


AFFINES = {"LAS": affine([-1, 1, 1]), "RAS": affine([1, 1, 1]), "LPI": affine([-1, -1, -1])}


def directions(rng):
    d = rng.normal(size=(11, 3))
    d /= np.linalg.norm(d, axis=1)[:, None]
    d[:2] = 0
    return d


def write_scan(folder, name, matrix, lesion=None, seed=0):
    """Write a scan with nibabel and NumPy alone; gradients are the same in the world, whatever the grid."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    world = directions(np.random.default_rng(99))
    tissue = rng.uniform(0.4, 1.2, SHAPE)[..., None]
    signal = 800 * np.exp(-BVALS * 1e-3 * tissue) * rng.normal(1, 0.03, (*SHAPE, 11))
    if lesion is not None:
        signal[lesion] = 800 * np.exp(-BVALS * 3e-3 * (1 + 0.5 * world[:, 0] ** 2))
    image = nib.Nifti1Image(np.rint(signal).astype(np.int16), matrix)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(matrix, 1)
    image.set_qform(matrix, 1)
    nib.save(image, folder / f"{name}_dwi.nii.gz")
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    fsl = world @ axes * [-1 if np.linalg.det(axes) > 0 else 1, 1, 1]
    np.savetxt(folder / f"{name}_dwi.bval", BVALS[None], fmt="%g")
    np.savetxt(folder / f"{name}_dwi.bvec", fsl.T, fmt="%.6f")
    mask = np.ones(SHAPE, np.uint8)
    mask[0] = mask[:, -1] = 0
    nib.save(nib.Nifti1Image(mask, matrix), folder / f"{name}_desc-brain_mask.nii.gz")


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    controls = tmp_path_factory.mktemp("controls")
    for i in range(3):
        write_scan(controls, f"sub-c{i}", AFFINES["RAS"], seed=i)
    return mn.Detector.fit(mn.scan_folder(controls), settings=FAST).save(
        tmp_path_factory.mktemp("m") / "model"
    )


@pytest.mark.parametrize("orientation", AFFINES)
def test_a_planted_lesion_comes_out_at_its_world_position(detector, tmp_path, orientation):
    matrix = AFFINES[orientation]
    write_scan(tmp_path / "patients", "sub-p", matrix, lesion=TARGET, seed=7)
    planted_mm = nib.affines.apply_affine(matrix, TARGET)

    settings = CohortSettings(("nearest_normal", "latent_euclidean"))
    score_cohort(detector, mn.scan_folder(tmp_path / "patients"), tmp_path / "out", settings=settings)

    for name in ("nearest_normal", "latent_euclidean", "raw_attenuation"):
        (path,) = (tmp_path / "out").rglob(f"*_desc-{name}_novelty.nii.gz")
        written = nib.load(path)
        # Outside the mask a map is 0, which a negative log-likelihood may lie below.
        mask = nib.load(path.with_name(path.name.split("_desc-")[0] + "_desc-brain_mask.nii.gz"))
        inside = np.where(mask.get_fdata() > 0, written.get_fdata(), -np.inf)
        peak = np.unravel_index(np.argmax(inside), written.shape)
        np.testing.assert_allclose(nib.affines.apply_affine(written.affine, peak), planted_mm, atol=1e-3)
        # ITK's world is LPS: x and y of the other sign.
        image = sitk.ReadImage(str(path))
        index = image.TransformPhysicalPointToIndex([float(v) for v in planted_mm * [-1, -1, 1]])
        assert image.GetPixel(*index) == written.get_fdata()[peak]


def test_the_background_and_the_mask_lie_on_the_same_voxels(detector, tmp_path):
    write_scan(tmp_path / "patients", "sub-p", AFFINES["LAS"], lesion=TARGET, seed=7)
    score_cohort(detector, mn.scan_folder(tmp_path / "patients"), tmp_path / "out",
                 settings=CohortSettings("vae_regularizer"))  # fmt: skip
    scan = nib.load(tmp_path / "patients" / "sub-p_dwi.nii.gz")
    given = nib.load(tmp_path / "patients" / "sub-p_desc-brain_mask.nii.gz").get_fdata()
    (background,) = (tmp_path / "out").rglob("*_desc-background.nii.gz")
    (mask,) = (tmp_path / "out").rglob("*_desc-brain_mask.nii.gz")
    np.testing.assert_allclose(
        nib.load(background).get_fdata(), scan.get_fdata()[..., :2].mean(-1), rtol=1e-6
    )
    np.testing.assert_array_equal(nib.load(mask).get_fdata(), given)
    for path in (background, mask):
        np.testing.assert_allclose(nib.load(path).affine, scan.affine, atol=1e-4)
