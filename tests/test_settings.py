"""Settings from defaults, files and flags."""

import pytest

from mednovelty.errors import SettingsError
from mednovelty.fitting import DEFAULT_SCORES, FitSettings
from mednovelty.methods.vae import VAESettings
from mednovelty.model_folder import fit_settings
from mednovelty.settings import parse_assignments, read_toml, tree_of
from mednovelty.store import json_types
from mednovelty.views.voxel import VoxelSettings


def test_later_layers_win():
    file = {"train": {"max_epochs": 7, "batch_size": 11}, "draws": 3}
    settings = fit_settings(file, parse_assignments(["train.max_epochs=5"]), where="test")
    assert (settings.train.max_epochs, settings.train.batch_size, settings.draws) == (5, 11, 3)
    assert settings.scores == DEFAULT_SCORES


def test_the_methods_own_settings_are_checked():
    settings = fit_settings({"method_settings": {"hidden": [9, 7], "latent": 3}}, where="test")
    assert settings.method_settings == VAESettings(hidden=(9, 7), latent=3)
    with pytest.raises(SettingsError, match=r"no setting is called 'method_settings\.latents'; did you mean"):
        fit_settings({"method_settings": {"latents": 3}}, where="test")
    with pytest.raises(SettingsError, match="latent"):
        fit_settings({"method_settings": {"latent": "many"}}, where="test")


def test_settings_survive_json():
    settings = fit_settings({"method_settings": {"latent": 5}}, where="test")
    assert fit_settings(json_types(tree_of(settings)), where="test") == settings


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"trian": {}}, r"test: no setting is called 'trian'; did you mean 'train'"),
        ({"train": {"batchsize": 3}}, r"'train\.batchsize'; did you mean 'train\.batch_size'"),
        ({"draws": "two"}, r"test: draws: .*got 'two'"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"train": 3}, "train"),
    ],
)
def test_mistakes_are_named(layer, words):
    with pytest.raises(SettingsError, match=words):
        fit_settings(layer, where="test")


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("nln.k=true", "here: nln.k: must be a number, got true"),
        ("nln.alpha=false", "here: nln.alpha: must be a number, got false"),
        ("draws=true", "here: draws: must be a number, got true"),
        ("method_settings.hidden=[6, true]", "here: hidden.1: must be a number, got true"),
        ("nln.tune=1", "here: nln.tune: must be true or false, got 1"),
    ],
)
def test_true_is_no_number_and_1_is_not_true(assignment, words):
    with pytest.raises(SettingsError, match=f"^{words}"):
        fit_settings(parse_assignments([assignment]), where="here")


def test_true_stays_true():
    assert fit_settings(parse_assignments(["nln.tune=true"]), where="here").nln.tune is True


def test_assignments_are_toml_or_text():
    assert parse_assignments(["a.b=1e-3", "a.c=[1, 2]", "name=exact", "on=true"]) == {
        "a": {"b": 0.001, "c": [1, 2]}, "name": "exact", "on": True}  # fmt: skip
    with pytest.raises(SettingsError, match="'train' is no setting; write name=value"):
        parse_assignments(["train"])


def test_files_that_are_no_settings(tmp_path):
    (tmp_path / "bad.toml").write_text("a = = 3")
    with pytest.raises(SettingsError, match=r"bad\.toml: not TOML"):
        read_toml(tmp_path / "bad.toml")
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read"):
        read_toml(tmp_path / "none.toml")


def test_defaults_are_those_of_the_class():
    assert fit_settings(where="test") == FitSettings(
        method_settings=VAESettings(), view_settings=VoxelSettings()
    )
