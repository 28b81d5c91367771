"""K and alpha are chosen by anomalies made of held-out normals, never by labels."""

import json

import numpy as np
import pytest
import torch
from test_autoencoders import SMALL, voxels

import mednovelty as mn
from mednovelty.detector import Detector
from mednovelty.errors import SettingsError
from mednovelty.fit_command import overrides
from mednovelty.model_folder import fit_settings
from mednovelty.neighbours.latent_settings import NLNSettings
from mednovelty.nn.point import Point
from mednovelty.reference import Reference
from mednovelty.tuning import ALPHAS, synthetic_anomalies, tuned_nln


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_an_anomaly_is_a_sample_with_a_box_of_another():
    # Sample i is i everywhere: what is foreign shows whose it is.
    x = torch.arange(9.0)[:, None].expand(9, 2 * 8 * 12).contiguous()
    made = synthetic_anomalies(x, (2, 8, 12), generator()).unflatten(1, (2, 8, 12))
    for own, image in enumerate(made):
        foreign = image != own
        assert torch.equal(foreign[0], foreign[1]), "contrasts go together"
        rows, columns = foreign[0].any(1), foreign[0].any(0)
        assert 2 <= rows.sum() <= 4
        assert 3 <= columns.sum() <= 6
        assert torch.equal(foreign[0], rows[:, None] & columns), "no box"
        assert len(image[foreign].unique()) == 1
    assert torch.equal(x, torch.arange(9.0)[:, None].expand(9, 192))


def test_of_voxels_half_of_the_channels_are_foreign():
    x = torch.arange(9.0)[:, None].expand(9, 7).contiguous()
    made = synthetic_anomalies(x, (7,), generator())
    assert ((made != x).sum(1) == 3).all()
    assert torch.equal(made, synthetic_anomalies(x, (7,), generator()))
    assert not torch.equal(made, synthetic_anomalies(x, (7,), generator(1)))


class Half:
    """Its latents see the first half of a sample only, and the decoder gives that twice, or nothing."""

    channels, latents = 8, 4

    def __init__(self, gain):
        self.gain = gain

    def encode(self, x):
        return Point(x[:, :4])

    def decode(self, z):
        return Point(self.gain * torch.cat([z, z], 1))


@pytest.mark.parametrize(("gain", "expected"), [(1.0, "error"), (0.0, "distance")])
def test_the_term_that_tells_the_anomalies_gets_the_weight(gain, expected):
    # Both halves of a normal are alike. A decoder that gives nothing leaves an error that tells nothing much.
    random = torch.randn(400, 4, generator=generator(3)) * torch.tensor([1.0, 0.1, 0.01, 0.01])
    normals = torch.cat([random, random], 1)
    model = Half(gain)
    reference = Reference.of(model, normals[:200], ["latent_mean"])
    chosen, told = tuned_nln(
        model, reference, ["nearest_latent_neighbours"], normals[200:], NLNSettings(), generator()
    )
    tried = {(row["k"], row["alpha"]): row["auroc"] for row in told["nln"]["tried"]}
    assert (
        told["nln"]["auroc"] == max(tried.values()) == pytest.approx(tried[chosen.k, chosen.alpha], abs=1e-4)
    )
    assert len(tried) == 5 * len(ALPHAS)
    alone = {"error": tried[chosen.k, 1.0], "distance": tried[chosen.k, 0.0]}
    assert (chosen.alpha > 0.5) == (expected == "error") == (alone["error"] > alone["distance"])


def test_what_cannot_be_tuned_is_refused_in_words():
    reference, normals = Reference({}, "exact", 0), torch.zeros(19, 8)
    with pytest.raises(
        SettingsError, match=r"nln.tune: 19 held-out samples and 1 scores .* at least 20 samples"
    ):
        tuned_nln(Half(1.0), reference, ["nearest_latent_neighbours"], normals, NLNSettings(), generator())
    with pytest.raises(SettingsError, match="and 0 scores"):
        tuned_nln(Half(1.0), reference, [], torch.zeros(40, 8), NLNSettings(), generator())
    with pytest.raises(SettingsError, match="--tune 'latents': there is nln to be tuned"):
        overrides([], tune="latents")


def test_a_detector_keeps_what_was_chosen(tmp_path):
    tree = {"method_settings": SMALL, "train": {"batch_size": 128, "max_epochs": 3}}
    flags = overrides(
        ["nln.k=3"], method="ae-con", tune="nln", scores="nearest_latent_neighbours,nln_consistency"
    )
    assert flags["method"] == "ae_con"
    settings = fit_settings(tree, flags, where="here")
    assert settings.nln == NLNSettings(k=3, tune=True)
    detector = mn.fit_voxels(voxels(), scans=np.arange(600) // 150, settings=settings)
    told = detector.fitted.summary["tuned"]["nln"]
    best = max(row["auroc"] for row in told["tried"])
    chosen = detector.settings.nln
    assert told["auroc"] == pytest.approx(best, abs=1e-4)
    assert {"k": chosen.k, "alpha": chosen.alpha, "auroc": told["auroc"]} in told["tried"]
    detector.save(tmp_path)
    record = json.loads((tmp_path / "detector.json").read_text())
    assert record["settings"]["nln"] == {"k": chosen.k, "alpha": chosen.alpha, "reverse": False, "tune": True}
    x = voxels(5, seed=2)
    for name, scores in detector.score_voxels(x).items():
        np.testing.assert_array_equal(scores, Detector.load(tmp_path).score_voxels(x)[name])
