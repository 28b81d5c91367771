"""Detectors of shallow methods: voxels, slices and the command line, kept and scored again to the bit."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import tiny_cohort
from small_images import scan_of
from typer.testing import CliRunner
from without_pages import typed

from mednovelty.capabilities import offered_by
from mednovelty.cli import app
from mednovelty.detector import Detector
from mednovelty.errors import DetectorError, SettingsError
from mednovelty.fitting import FitSettings
from mednovelty.model_folder import fit_settings
from mednovelty.plugins import names, plugin
from mednovelty.schedule import TrainSettings
from mednovelty.store import WEIGHTS
from mednovelty.voxel_fitting import fit_voxels

CHANNELS = 5
SHALLOW = [
    "pca",
    "kernel_pca",
    "kde",
    "ocsvm",
    "isolation_forest",
    "gaussian",
    "gaussian_mixture",
    "minimum_volume_ellipsoid",
    "local_outlier_factor",
]


def voxels(n=480, seed=0):
    random = np.random.default_rng(seed)
    level = random.uniform(-2, 2, (n, 2)) @ np.random.default_rng(9).normal(size=(2, CHANNELS))
    return (4 + level + 0.1 * random.normal(size=(n, CHANNELS))).astype(np.float32)


def fitted(method, **tree):
    settings = fit_settings({"method": method, "method_settings": {"samples": 120}} | tree, where="here")
    return fit_voxels(voxels(), scans=np.arange(480) // 120, settings=settings)


def test_these_are_all_there_are():
    found = [
        name
        for name in names("methods")
        if plugin("methods", name).__module__.startswith("mednovelty.methods.shallow")
    ]
    assert found == sorted(SHALLOW)


@pytest.mark.parametrize("method", SHALLOW)
def test_voxels_are_fitted_kept_and_scored_again_to_the_bit(method, tmp_path):
    detector = fitted(method)
    assert len(detector.fitted.record.rows) == 1
    assert detector.fitted.summary["fitted_on"] == 120
    assert "on 120 of 360 training samples, evenly over scans" in detector.fitted.summary["verdict"]
    assert not detector.fitted.summary["collapsed"]
    x = np.concatenate([voxels(30, seed=2), voxels(9, seed=3) + np.where(np.arange(CHANNELS) % 2, 3, -3)])
    scores = detector.score_voxels(x)
    assert scores["outlier_score"].dtype == np.float32
    assert np.median(scores["outlier_score"][30:]) > scores["outlier_score"][:30].max() - 1e-6
    detector.save(tmp_path)
    again = Detector.load(tmp_path)
    for name, values in again.score_voxels(x).items():
        np.testing.assert_array_equal(values, scores[name], err_msg=name)
    same = fitted(method)
    for name, value in detector.model.state_dict().items():
        assert torch.equal(value, same.model.state_dict()[name]), name
    assert "of 360 training samples" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("method", SHALLOW)
def test_slices_are_fitted_and_mapped(method, tmp_path):
    tree = {"method": method, "method_settings": {"samples": 30}, "view_settings": {"size": [16, 16]}}
    if method == "minimum_volume_ellipsoid":
        tree["method_settings"]["components"] = 4
    settings = fit_settings(tree, where="test", recipe="slices")
    detector = Detector.fit([scan_of(n) for n in (1, 2, 3)], recipe="slices", settings=settings)
    if method not in ("pca", "isolation_forest"):
        assert detector.settings.method_settings.reduce == 0.95
        assert 1 <= detector.model.preparation.width < 30
    detector.save(tmp_path)
    maps = detector.score(scan_of(4))
    again = Detector.load(tmp_path).score(scan_of(4))
    assert set(maps) == {"outlier_score"} | ({"rec_error"} if method == "pca" else set())
    for name, found in maps.items():
        inside = found.volume.data[0][scan_of(4).mask]
        assert np.isfinite(inside).all()
        assert inside.std() > 0
        np.testing.assert_array_equal(found.volume.data, again[name].volume.data)


def test_windows_take_a_shallow_method():
    tree = {"method": "gaussian", "method_settings": {"samples": 20}, "view_settings": {"size": [8, 8, 8]}}
    settings = fit_settings(tree, where="test", recipe="patches")
    detector = Detector.fit([scan_of(n) for n in (1, 2, 3)], recipe="patches", settings=settings)
    assert detector.model.shape == (2, 8, 8, 8)
    assert np.isfinite(detector.score(scan_of(4))["outlier_score"].volume.data).all()


def test_scans_are_fitted_from_the_command_line(tmp_path):
    words = ["fit", tiny_cohort().controls, "-o", tmp_path / "model", "--method", "isolation-forest",
             "--set", "method_settings.trees=7", "--json"]  # fmt: skip
    result = CliRunner().invoke(app, typed(words))
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["summary"]["verdict"].startswith("7 isolation trees of 256 samples at most, fitted on ")
    assert Detector.load(tmp_path / "model").settings.scores == ("outlier_score",)


def test_pca_also_reconstructs():
    detector = fitted("pca", scores=["all"])
    scores = detector.score_voxels(voxels(20, seed=2))
    assert {"outlier_score", "reconstruction_error", "latent_euclidean", "nearest_normal"} <= set(scores)
    x = torch.from_numpy(voxels(20, seed=2))
    residual = x - detector.model.decode(detector.model.encode(x).mean).mean
    np.testing.assert_allclose(scores["reconstruction_error"], residual.square().sum(1), rtol=1e-4)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ("reconstruction_error", "reconstruction_error: needs latents, which the methods that encode"),
        ("latent_euclidean", "latent_euclidean: needs latents"),
        ("hyperspherical_knn", "hyperspherical_knn: needs latents"),
        ("nearest_latent_neighbours", "nearest_latent_neighbours: needs latents"),
        ("rec_error", "rec_error: needs latents"),
        ("rec_signed", "rec_signed: needs latents"),
        ("negative_elbo", "negative_elbo: needs distributions"),
    ],
)
def test_scores_that_need_latents_are_refused_in_words(score, words):
    with pytest.raises(SettingsError) as error:
        fitted("kde", scores=[score])
    assert words in str(error.value)
    assert str(error.value).endswith("the method kde does not")
    with pytest.raises(SettingsError, match=f"{score}: needs .*; KDE does not"):
        fitted("kde").score_voxels(voxels(5), score)


def test_a_network_has_no_outlier_score():
    words = (
        r"outlier_score: needs a score of the method's own, which the shallow methods .*; the method ae does"
    )
    with pytest.raises(SettingsError, match=words):
        fit_voxels(voxels(), settings=FitSettings(method="ae", scores=("outlier_score",)))


def test_a_shallow_model_still_compares_with_normals():
    detector = fitted("gaussian", scores=["outlier_score", "nearest_normal"])
    assert set(detector.reference.parts) == {"input"}
    scores = detector.score_voxels(voxels(480)[:3])
    assert set(scores) == {"outlier_score", "nearest_normal"}
    assert detector.names_of("all") == ["nearest_normal", "outlier_score"]


def test_what_methods_offer():
    assert offered_by(plugin("methods", "kde")) == ("novelty",)
    assert offered_by(plugin("methods", "pca")) == ("novelty", "encode", "decode")
    assert offered_by(plugin("methods", "ae")) == ("encode", "decode")
    assert offered_by(plugin("methods", "vae")) == ("prior", "encode", "decode")


def test_the_start_may_be_all_there_is():
    assert TrainSettings(max_epochs=0).max_epochs == 0
    tree = {"method": "ae", "method_settings": {"hidden": [6], "latent": 2}, "train": {"max_epochs": 0}}
    detector = fit_voxels(voxels(), settings=fit_settings(tree, where="here"))
    assert len(detector.fitted.record.rows) == 1


def test_no_step_is_taken_whatever_the_epochs():
    settings = FitSettings(method="gaussian", scores=("outlier_score",), train=TrainSettings(max_epochs=9))
    assert len(fit_voxels(voxels(), settings=settings).fitted.record.rows) == 1


def test_tensors_of_another_size_are_refused(tmp_path):
    detector = fitted("kde")
    detector.save(tmp_path)
    other = replace(
        detector,
        settings=replace(
            detector.settings, method_settings=replace(detector.settings.method_settings, samples=99)
        ),
    )
    other.save(tmp_path)
    with pytest.raises(DetectorError, match=rf"{WEIGHTS}: tensor 'points' is \(120, 5\) float32, but"):
        Detector.load(tmp_path)
