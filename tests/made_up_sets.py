"""Made-up sets of scans and pictures as the published ones lie, written by nibabel and PIL alone."""

import nibabel as nib
import numpy as np
from PIL import Image

SHAPE = (20, 24, 14)
# Left-handed, anisotropic, turned by atan(3/4) about x.
OBLIQUE = np.array([[-2.0, 0, 0, 31], [0, 1.2, -1.8, -12], [0, 0.9, 2.4, 7], [0, 0, 0, 1]])
RAS = np.diag([2.0, 1.5, 3.0, 1.0])


def person(seed, *, ill=True):
    """Return a contrast, 0 outside of the brain, and a brighter lesion of two parts; ``SHAPE`` both."""
    rng = np.random.default_rng(seed)
    i, j, k = np.indices(SHAPE)
    brain = ((i - 9.5) / 8) ** 2 + ((j - 11.5) / 10) ** 2 + ((k - 6.5) / 6) ** 2 < 1
    values = 100 + 20 * np.sin(i / 3 + seed) + 10 * np.cos(j / 4) + rng.normal(0, 6, SHAPE)
    large = (np.abs(i - 6) < 3) & (np.abs(j - 10 - seed % 3) < 3) & (np.abs(k - 8) < 2)
    small = (np.abs(i - 13) < 1) & (np.abs(j - 14) < 2) & (np.abs(k - 5) < 1)
    lesion = (large | small) & brain & ill
    return np.where(brain, np.maximum(values + 40 * lesion, 1), 0).astype(np.float32), lesion


def save(path, data, affine=OBLIQUE):
    """Write an image with both forms alike; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return path


def flipped(data, affine):
    """Return the same image with its first axis stored the other way round, and the affine to it."""
    turn = np.diag([-1.0, 1, 1, 1])
    turn[0, 3] = data.shape[0] - 1
    return data[::-1], affine @ turn


def labels(lesion):
    """Return 1, 2 and 4 in a lesion, as BraTS has them."""
    parts = np.array([1, 2, 4], np.uint8)[np.indices(lesion.shape).sum(0) % 3]
    return np.where(lesion, parts, 0).astype(np.uint8)


def write_brats(root, affine=OBLIQUE):
    """Three patients: one in HGG and one in LGG as of 2017, one at the top, not zipped, as of 2020."""
    places = ("HGG/Brats17_TCIA_192_1", "LGG/Brats17_2013_0_1", "BraTS20_Training_001")
    for seed, place in enumerate(places):
        values, lesion = person(seed)
        folder, name = root / place, place.rpartition("/")[2]
        end = ".nii.gz" if "17" in name else ".nii"
        for contrast, change in (("t2", 1.0), ("flair", 1.1), ("t1", 0.5), ("t1ce", 0.6)):
            save(folder / f"{name}_{contrast}{end}", values * np.float32(change), affine)
        seg, own = labels(lesion), affine
        if seed == 1:  # Stored along other axes than the images.
            seg, own = flipped(seg, affine)
        save(folder / f"{name}_seg{end}", seg, own)
    return root


def write_isles(root, affine=OBLIQUE):
    """Two patients as ISLES 2015 is unpacked."""
    for number in (1, 2):
        values, lesion = person(number + 10)
        folder = root / "Training" / str(number)
        for contrast, code in (("T2", 617), ("Flair", 618), ("T1", 619), ("DWI", 620)):
            name = f"VSD.Brain.XX.O.MR_{contrast}.70{code + number}"
            save(folder / name / f"{name}.nii", values, affine)
        name = f"VSD.Brain_3more.XX.XX.OT.7062{number}"
        save(folder / name / f"{name}.nii", lesion.astype(np.uint8), affine)
    return root


def write_hcp(root, count=3, affine=RAS):
    """Healthy subjects as the structural package is unpacked, with files that are not ours beside them."""
    for number in range(count):
        values, _ = person(number + 20, ill=False)
        folder = root / f"10030{number}" / "T1w"
        for contrast in ("T2w", "T1w"):
            save(folder / f"{contrast}_acpc_dc_restore_brain.nii.gz", values, affine)
            save(folder / f"{contrast}_acpc_dc_restore.nii.gz", values + 5, affine)
    return root


def write_lgg(root, count=5, affine=OBLIQUE):
    """Patients as the manifest has them."""
    for number in range(1, count + 1):
        values, lesion = person(number + 30)
        who = f"sub-{number:03d}"
        for contrast in ("FLAIR", "T1w", "ce-GD_T1w"):
            save(root / who / "anat" / f"{who}_{contrast}.nii.gz", values, affine)
        save(root / "derivatives" / "masks" / f"{who}_mask.nii.gz", lesion.astype(np.uint8), affine)
    return root


def write_open_ms(root, affine=OBLIQUE):
    """Two patients as the manifest has them."""
    for name, seed in (("patient07", 7), ("patient19", 19)):
        values, lesion = person(seed)
        for contrast in ("FLAIR", "T1", "T1POST", "T2"):
            save(root / name / f"{contrast}.nii.gz", values, affine)
        save(root / name / "lesion.nii.gz", lesion.astype(np.uint8), affine)
    return root


def picture(rng, shape, *, defect=False):
    """Return ``(H, W, 3)`` uint8 of stripes, and ``(H, W)`` bool where it is brighter in red."""
    i, j = np.indices(shape)
    colours = np.repeat((90 + 40 * np.sin(j / 3) + 10 * np.cos(i / 5))[..., None], 3, -1)
    colours = colours + rng.normal(0, 4, (*shape, 3))
    marked = np.zeros(shape, bool)
    if defect:
        a, b = rng.integers(4, shape[0] - 12), rng.integers(4, shape[1] - 12)
        marked[a : a + 8, b : b + 6] = True
        marked[2, 2] = True
        colours[marked, 0] += 90
    return np.clip(colours, 0, 255).astype(np.uint8), marked


def write_mvtec(root, names=("bottle", "grid"), shape=(40, 48), seed=0):
    """Classes as MVTec AD is unpacked; of ``grid`` pictures are grey."""
    rng = np.random.default_rng(seed)
    for name in names:

        def put(place, colours, grey=name == "grid", name=name):
            path = root / name / place
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(colours[..., 0] if grey else colours).save(path)

        for number in range(12):
            put(f"train/good/{number:03d}.png", picture(rng, shape)[0])
        for number in range(3):
            put(f"test/good/{number:03d}.png", picture(rng, shape)[0])
        for kind in ("broken_large", "contamination"):
            for number in range(2):
                colours, marked = picture(rng, shape, defect=True)
                put(f"test/{kind}/{number:03d}.png", colours)
                mask = np.repeat((255 * marked).astype(np.uint8)[..., None], 3, -1)
                put(f"ground_truth/{kind}/{number:03d}_mask.png", mask, grey=True)
    (root / "license.txt").write_text("CC BY-NC-SA 4.0")
    return root
