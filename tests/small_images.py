"""Small structural scans in memory, and detectors trained on them in a second."""

from functools import cache

import numpy as np

from mednovelty.detector import Detector
from mednovelty.model_folder import fit_settings
from mednovelty.scan import Scan, Volume

SHAPE, SPACING = (20, 24, 14), (2.0, 1.5, 3.0)
AFFINE = np.diag([-SPACING[0], SPACING[1], SPACING[2], 1.0])
TINY = {
    "batch_voxels": 5,
    "draws": 2,
    "method_settings": {"widths": [4, 8], "latent": 5},
    "train": {"max_epochs": 2, "batch_size": 16},
    "scores": ["kl_gradient", "rec_error", "vae_regularizer"],
}
SIZES = {"slices": [16, 16], "patches": [8, 8, 8]}


def scan_of(number, order=(0, 1, 2)):
    """Return one subject's two contrasts, stored with its axes in some order."""
    rng = np.random.default_rng(number)
    i, j, k = np.indices(SHAPE)
    brain = ((i - 9.5) / 8) ** 2 + ((j - 11.5) / 10) ** 2 + ((k - 6.5) / 6) ** 2 < 1
    flair = 100 + 20 * np.sin(i / 3 + number) + 10 * np.cos(j / 4) + rng.normal(0, 3, SHAPE)
    t1 = 300 - flair + rng.normal(0, 3, SHAPE)
    data = np.where(brain, [flair, t1], 0).astype(np.float32)
    affine = AFFINE.copy()
    affine[:, :3] = affine[:, list(order)]
    volume = Volume(data.transpose(0, *(1 + axis for axis in order)), affine, f"sub-{number}")
    found = Scan.of(volume, brain.transpose(order))
    return Scan(**{name: getattr(found, name) for name in found.__slots__} | {"contrasts": ("FLAIR", "T1w")})


@cache
def detector_of(recipe):
    """Return a detector of slices or patches, trained on three of them."""
    tree = TINY | {"view_settings": {"size": SIZES[recipe]}}
    settings = fit_settings(tree, where="test", recipe=recipe)
    return Detector.fit([scan_of(n) for n in (1, 2, 3)], recipe=recipe, settings=settings)
