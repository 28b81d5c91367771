import copy
import json

import numpy as np
import pytest
import torch
from cohorts import tiny_cohort, tiny_detector

from mednovelty.benchmarks.optimising_scores import SCORES, in_numpy, in_torch, main
from mednovelty.nn.misfits import NegativeLogLikelihood, SquaredError


def test_a_small_run_prints_its_figures(capsys):
    _, folder = tiny_detector()
    scan = next(iter(sorted(tiny_cohort().patients.rglob("*_dwi.nii.gz"))))
    main([str(folder), str(scan), "--voxels", "6", "--torch-voxels", "2", "--rounds", "2"])
    figures = json.loads(capsys.readouterr().out)
    assert set(SCORES) < set(figures)
    for name in SCORES:
        assert 0.5 <= figures[name]["as_low_or_lower"] <= 1
        assert figures[name]["lower"] <= figures[name]["as_low_or_lower"]
        assert figures[name]["us_per_voxel"] > 0
        assert figures[name]["scipy_ms_per_voxel"]["median"] > 0


@pytest.mark.parametrize("kind", [SquaredError, NegativeLogLikelihood])
def test_what_scipy_minimises_is_the_misfit(kind):
    detector, _ = tiny_detector()
    model = copy.deepcopy(detector.model).double()
    rng = np.random.default_rng(0)
    z, x = rng.normal(size=model.latent), 1 + rng.normal(size=model.channels)
    expected = kind(model).value(torch.from_numpy(z)[None], torch.from_numpy(x)[None]).item()
    for value in (in_numpy(model, likelihood=kind is NegativeLogLikelihood), in_torch(kind(model))):
        assert value(z, x) == pytest.approx(expected, rel=1e-9)
