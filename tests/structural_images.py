"""Structural images for tests, one a contrast, written by nibabel alone."""

import images
import numpy as np

SHAPE = (7, 9, 5)
INSIDE = np.zeros(SHAPE, bool)
INSIDE[1:6, 2:8, 1:4] = True
HIGH = 300.0


def volume(seed=0, shape=SHAPE, dtype=np.int16):
    """A box of different values in every voxel on a ground that is exactly 0, ``shape``."""
    rng = np.random.default_rng(seed)
    inside = np.zeros(shape, bool)
    inside[1:-1, 2:-1, 1:-1] = True
    return np.where(inside, rng.integers(100, HIGH, shape), 0).astype(dtype)


def save(path, data=None, affine=images.LAS, **options):
    """Write an image; return its path."""
    return images.save(path, volume(len(str(path))) if data is None else data, affine, **options)


def bids(root, subject, *contrasts, session=None):
    """Write ``anat`` images of a subject; return their folder."""
    who = subject if session is None else f"{subject}_{session}"
    folder = root / subject / (session or "") / "anat"
    for contrast in contrasts:
        save(folder / f"{who}_{contrast}.nii.gz")
    return folder


def mask(path):
    """Write a mask of what ``volume`` has inside."""
    return images.save(path, INSIDE.astype(np.uint8))


def told(found):
    """Return what was left out: path to code."""
    return {s.path: s.code for s in found.skipped}
