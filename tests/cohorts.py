"""A small cohort and a small detector, made once a test session and never written to."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from mednovelty.detector import Detector
from mednovelty.fitting import FitSettings
from mednovelty.io.scan_folder import scan_folder
from mednovelty.methods.vae import VAESettings
from mednovelty.testing.phantoms import make_cohort, tiny_settings
from mednovelty.train import TrainSettings

FAST = FitSettings(
    method_settings=VAESettings(hidden=(24, 16), latent=4),
    train=TrainSettings(batch_size=1024, max_epochs=3),
    reference_bytes=200_000,
    batch_voxels=500,
    draws=2,
)
FAST_TOML = """
batch_voxels = 500
draws = 2
reference_bytes = 200_000

[method_settings]
hidden = [24, 16]
latent = 4

[train]
batch_size = 1024
max_epochs = 3
"""


_MADE: list[TemporaryDirectory] = []


def _folder():
    _MADE.append(TemporaryDirectory(prefix="mednovelty-test-"))
    return Path(_MADE[-1].name)


def remove_made():
    """Remove every folder that was made here; the end of a test session calls this."""
    while _MADE:
        _MADE.pop().cleanup()


@cache
def tiny_cohort():
    """Return the folders of three controls and two patients with lesions."""
    folder = _folder() / "cohort"
    return make_cohort(folder, controls=3, patients=2, settings=tiny_settings(), seed=0)


@cache
def tiny_detector():
    """Return a detector trained on them, saved, with its folder."""
    folder = _folder() / "model"
    cohort = tiny_cohort()
    detector = Detector.fit(scan_folder(cohort.controls, brain_masks=cohort.brains), settings=FAST, seed=1)
    return detector.save(folder), folder
