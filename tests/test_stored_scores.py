"""Every score of the paper, of a detector that was saved and read again."""

from dataclasses import replace

import numpy as np
import pytest
from cohorts import FAST

from mednovelty.detector import Detector
from mednovelty.errors import DetectorError
from mednovelty.reference import part_widths
from mednovelty.scoring import resolve_names
from mednovelty.voxel_fitting import fit_voxels


def voxels(n=600, channels=6):
    rng = np.random.default_rng(0)
    return (
        2 + rng.normal(size=(n, 3)) @ rng.normal(size=(3, channels)) + rng.normal(size=(n, channels))
    ).astype("f4")


def test_every_score_of_the_paper_survives_saving(tmp_path):
    settings = replace(FAST, scores=tuple(resolve_names(["all"])))
    detector = fit_voxels(voxels(), scans=np.arange(600) // 200, seed=3, settings=settings)
    assert sorted(detector.reference.parts) == sorted(part_widths(6, 4))
    detector.save(tmp_path)
    told, again = detector.score_voxels(voxels()[:7]), Detector.load(tmp_path).score_voxels(voxels()[:7])
    assert list(told) == list(again) == resolve_names(["all"])
    for name, values in told.items():
        assert np.isfinite(values).all(), name
        np.testing.assert_array_equal(values, again[name], err_msg=name)


@pytest.mark.parametrize("part", ["latent_sigma", "reconstruction_sigma"])
def test_a_reference_whose_sigma_is_not_above_0_is_refused(tmp_path, part):
    settings = replace(FAST, scores=("latent_density", "input_density"))
    detector = fit_voxels(voxels(), scans=np.arange(600) // 200, seed=3, settings=settings)
    detector.reference.parts[part][5, 2] = 0
    detector.save(tmp_path)
    with pytest.raises(DetectorError, match=f"part '{part}' has a standard deviation that is not above 0"):
        Detector.load(tmp_path)
