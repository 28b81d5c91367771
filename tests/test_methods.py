"""Every installed method keeps every promise, and fitting knows no method by name."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import strangers
from cohorts import FAST

from mednovelty import fitting
from mednovelty.detector import Detector
from mednovelty.errors import DetectorError, SettingsError
from mednovelty.plugins import names, plugin
from mednovelty.testing.contracts import METHOD_CHECKS
from mednovelty.voxel_cache import Acquisition, VoxelCache
from mednovelty.voxel_fitting import fit_voxels

CHANNELS = 7


def voxels(n=600, seed=0):
    rng = np.random.default_rng(seed)
    return (
        3 + rng.normal(size=(n, 2)) @ rng.normal(size=(2, CHANNELS)) + rng.normal(size=(n, CHANNELS))
    ).astype("f4")


@pytest.fixture(params=[*names("methods"), "affine"])
def method(request, monkeypatch):
    strangers.install(monkeypatch)
    return plugin("methods", request.param)()


def samples(method, n, seed):
    """Return voxels, or images for a method that takes nothing else."""
    try:
        method.build((CHANNELS,))
    except SettingsError:
        random = np.random.default_rng(seed)
        cache = VoxelCache(2 * 16 * 16, shape=(2, 16, 16))
        smooth = random.normal(size=(n // 10, 3)) @ np.random.default_rng(9).normal(size=(3, 2 * 16 * 16))
        cache.append("scan", smooth + 0.1 * random.normal(size=smooth.shape))
        return cache
    cache = VoxelCache.from_array(voxels(n, seed))
    # One volume at b = 0 and six directions, for methods that plant changes of diffusion.
    directions = [(0.0, 0.0, 0.0), *map(tuple, np.repeat(np.eye(3), 2, 0).tolist())]
    cache.acquisition = Acquisition((0.0, *[1000.0] * 6), (1.0,) * CHANNELS, tuple(directions))
    return cache


@pytest.mark.parametrize("check", METHOD_CHECKS, ids=lambda check: check.__name__)
def test_contract(method, check):
    check(method, samples(method, 600, 0), samples(method, 200, 1))


def test_a_strangers_method_is_fitted_kept_and_scored(monkeypatch, tmp_path):
    strangers.install(monkeypatch)
    settings = replace(FAST, method="affine", method_settings=None)
    detector = fit_voxels(voxels(), scans=np.arange(600) // 200, settings=settings)
    assert detector.fitted.summary["verdict"].startswith("an affine map, ")
    assert detector.settings.method_settings == strangers.AffineSettings(axes=2)
    detector.save(tmp_path)
    assert "an affine map" in (tmp_path / "README.md").read_text()
    again, x = Detector.load(tmp_path), voxels(50, seed=2)
    for name, scores in detector.score_voxels(x).items():
        np.testing.assert_array_equal(scores, again.score_voxels(x)[name], err_msg=name)
    monkeypatch.undo()
    with pytest.raises(
        DetectorError, match=r"detector\.json: cannot be put together: no method is called 'aff"
    ):
        Detector.load(tmp_path)


def test_fitting_names_no_method():
    tree = ast.parse(Path(fitting.__file__).read_text())
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in imported if name.startswith("mednovelty.methods")]
