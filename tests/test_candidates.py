"""Several networks are tried on held-out healthy scans; the best is kept, and said why."""

import json
from dataclasses import replace

import numpy as np
import pytest
from cohorts import FAST, FAST_TOML, tiny_cohort
from typer.testing import CliRunner

import mednovelty as mn
from mednovelty.candidates import checkpoints, remove_checkpoints
from mednovelty.cli import app
from mednovelty.errors import SettingsError
from mednovelty.fit_command import overrides
from mednovelty.fitting import make_candidates

NETS = ({"hidden": (9, 5), "latent": 1}, {"hidden": (24, 16), "latent": 4}, {"hidden": (12,), "latent": 2})


def voxels(n=900, channels=6, factors=4):
    """Return voxels of three scans that need four latents."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, factors)) @ (3 * rng.normal(size=(factors, channels)))
    return (x + 0.1 * rng.normal(size=(n, channels))).astype(np.float32), np.arange(n) // (n // 3)


def test_the_lowest_validation_loss_wins_whatever_the_order():
    x, scans = voxels()
    for nets in (NETS, NETS[::-1]):
        detector = mn.fit_voxels(x, scans=scans, settings=replace(FAST, candidates=nets))
        summary = detector.fitted.summary
        rows = summary["candidates"]
        assert [row["settings"]["latent"] for row in rows] == [net["latent"] for net in nets]
        (kept,) = [row for row in rows if row["kept"]]
        assert kept["validation_loss"] == min(row["validation_loss"] for row in rows)
        assert (
            kept["settings"]["latent"]
            == detector.model.latent
            == detector.settings.method_settings.latent
            == 4
        )
        assert min(detector.fitted.record.losses) == kept["validation_loss"]
        assert "kept hidden=(24, 16), latent=4: the lowest validation loss" in summary["choice"]
        assert "no label was looked at" in summary["choice"]


def test_the_kept_network_is_the_one_that_is_trained_alone(tmp_path):
    x, scans = voxels()
    of_three = mn.fit_voxels(x, scans=scans, settings=replace(FAST, candidates=NETS)).save(tmp_path / "three")
    alone = mn.fit_voxels(x, scans=scans, settings=FAST)
    assert np.array_equal(*(d.score_voxels(x[:50])["negative_elbo"] for d in (of_three, alone)))
    again = mn.Detector.load(tmp_path / "three")
    assert np.array_equal(*(d.score_voxels(x[:50])["nearest_normal"] for d in (of_three, again)))
    assert again.fitted.summary["choice"] == of_three.fitted.summary["choice"]


def test_one_network_is_no_choice():
    x, scans = voxels()
    assert "candidates" not in mn.fit_voxels(x, scans=scans, settings=FAST).fitted.summary
    assert [type(m).__name__ for m in make_candidates(FAST)] == ["VAEMethod"]


def test_candidates_keep_the_other_settings():
    settings = replace(FAST, method_settings=replace(FAST.method_settings, kl_weight=0.5), candidates=NETS)
    methods = make_candidates(settings)
    assert [m.settings.kl_weight for m in methods] == [0.5] * 3
    assert [m.settings.latent for m in methods] == [1, 4, 2]
    with pytest.raises(SettingsError, match=r"did you mean .*latent"):
        make_candidates(replace(FAST, candidates=({"latents": 3},)))


def test_what_the_flag_means():
    assert overrides(None, latent="8")["method_settings"] == {"hidden": [64, 32, 16], "latent": 8}
    assert [net["latent"] for net in overrides(None, latent="8, 16,24")["candidates"]] == [8, 16, 24]
    with pytest.raises(SettingsError, match="one or several of 8, 16, 24, not '12'"):
        overrides(None, latent="8,12")


def test_fit_tries_several_and_leaves_no_checkpoint(tmp_path):
    (tmp_path / "fast.toml").write_text(FAST_TOML)
    words = ["fit", str(tiny_cohort().controls), "-o", str(tmp_path / "model"), "--latent", "8,16"]
    words += ["--settings", str(tmp_path / "fast.toml"), "--set", "train.max_epochs=1", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert [row["settings"]["latent"] for row in told["summary"]["candidates"]] == [8, 16]
    assert told["summary"]["choice"] in result.stderr
    assert checkpoints(tmp_path / "model") == []
    assert not (tmp_path / "model" / "candidates").exists()


def test_each_candidate_has_its_checkpoint(tmp_path):
    x, scans = voxels()
    detector = mn.fit_voxels(x, scans=scans, settings=replace(FAST, candidates=NETS), folder=tmp_path)
    assert [path.parent.name for path in checkpoints(tmp_path)] == ["1", "2", "3"]
    (tmp_path / "candidates" / "2" / "mine.txt").write_text("kept")
    settings = replace(FAST, candidates=NETS)
    again = mn.fit_voxels(x, scans=scans, settings=settings, folder=tmp_path, resume=True)
    assert again.fitted.summary == detector.fitted.summary
    remove_checkpoints(tmp_path)
    assert checkpoints(tmp_path) == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["2", "candidates", "mine.txt"]
