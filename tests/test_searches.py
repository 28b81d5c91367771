"""Searches are those that scores make, chosen on held-out voxels, and the same when read back."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import FAST

import mednovelty as mn
from mednovelty.errors import DetectorError, SettingsError
from mednovelty.neighbours import choice
from mednovelty.neighbours.latent_settings import NLNSettings
from mednovelty.reference import Reference
from mednovelty.searches import moved, queries_of, told_of
from mednovelty.testing.models import HeteroscedasticVAE, random_samples
from mednovelty.tuning import widest

COMPARING = ("nearest_normal", "latent_euclidean", "latent_bhattacharyya", "latent_density", "input_density",
             "reconstruction_euclidean", "input_to_reconstruction_euclidean", "reconstruction_density",
             "reconstruction_bhattacharyya", "reconstruction_to_input_euclidean")  # fmt: skip


@pytest.fixture(scope="module")
def voxels():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(9000, 3)) @ rng.normal(size=(3, 6)) + 0.3 * rng.normal(size=(9000, 6))
    return x.astype(np.float32), np.arange(9000) // 1500


@pytest.fixture(scope="module")
def detector(voxels, tmp_path_factory):
    x, scans = voxels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "SMALL", 100)
        made = mn.fit_voxels(
            x, scans=scans, settings=replace(FAST, scores=COMPARING, reference_bytes=1 << 30)
        )
        folder = tmp_path_factory.mktemp("searches") / "model"
        return made.save(folder), folder


def reference_of(model, normals):
    parts = ["input", "latent_mean", "latent_sigma", "reconstruction_mean", "reconstruction_sigma"]
    return Reference.of(model, normals, parts)


def test_what_scores_ask_is_heard():
    model = HeteroscedasticVAE(5, 2)
    sample = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    reference = reference_of(model, torch.randn(30, 5, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        posterior = model.encode(sample)
        likelihood = model.decode(posterior.mean)
    heard = queries_of(reference, model, [*COMPARING, "vae_regularizer"], sample)
    assert set(heard) == {
        ("euclidean", "input"),
        ("euclidean", "latent_mean"),
        ("euclidean", "reconstruction_mean"),
        ("bhattacharyya", "latent"),
        ("bhattacharyya", "reconstruction"),
        ("density", "latent"),
        ("density", "reconstruction"),
    }
    # Two scores ask among the inputs: with the samples, and with their reconstructions.
    (asked,) = heard["euclidean", "input"].queries
    torch.testing.assert_close(asked, torch.cat([sample, likelihood.mean]))
    mean, sigma = heard["bhattacharyya", "latent"].queries
    torch.testing.assert_close(mean, posterior.mean)
    torch.testing.assert_close(sigma, posterior.stddev)
    assert queries_of(reference, model, ["vae_regularizer"], sample) == {}


def test_a_search_is_tuned_for_as_many_neighbours_as_scores_look_at():
    model = HeteroscedasticVAE(5, 2)
    reference = reference_of(model, random_samples(30, 5, seed=1))
    sample = random_samples(40, 5, seed=2)
    for names, options, k in (
        (["latent_euclidean"], {}, 1),
        (["latent_euclidean", "hyperspherical_knn"], {}, 3),
        (["hyperspherical_knn"], {"knn": 7}, 7),
        (["nearest_latent_neighbours"], {"nln": NLNSettings(k=5)}, 5),
        (["nearest_latent_neighbours"], {"nln": widest(NLNSettings(k=2), 30)}, 10),
        (["nearest_latent_neighbours"], {"nln": widest(NLNSettings(k=2), 8)}, 5),
        (["latent_euclidean"], {"nln": NLNSettings(k=5)}, 1),
    ):
        assert queries_of(reference, model, names, sample, **options)["euclidean", "latent_mean"].k == k


def test_a_score_whose_normals_are_not_there_cannot_listen():
    model = HeteroscedasticVAE(5, 2)
    reference = Reference.of(model, torch.zeros(4, 5), ["input"])
    with pytest.raises(SettingsError, match="latent_mean"):
        queries_of(reference, model, ["latent_euclidean"], torch.zeros(3, 5))


def test_each_search_is_recorded_with_its_quality(detector):
    made, folder = detector
    told = json.loads((folder / "detector.json").read_text())["reference"]["searches"]
    assert {(one["kind"], one["place"]) for one in told} == set(made.reference.chosen)
    assert len(told) == 7
    for one in told:
        assert one["why"]
        if one["quality"] is not None:
            assert one["quality"]["recall"] >= one["target"] == 0.995


def test_a_sidecar_tells_which_search_it_was_and_how_sure(detector):
    made, _ = detector
    told = told_of(made.reference)
    assert set(told) == {"otherwise"} | {f"{kind} {place}" for kind, place in made.reference.chosen}
    for (kind, place), chosen in made.reference.chosen.items():
        facts, quality = told[f"{kind} {place}"], chosen.record["quality"]
        assert facts["Name"] == chosen.record["name"]
        assert facts.get("Recall") == (quality["recall"] if quality else None)
    assert any("Recall" in facts for facts in told.values())


def test_scores_read_back_are_the_same_to_the_bit(detector, voxels):
    made, folder = detector
    again = mn.Detector.load(folder)
    x = voxels[0][:700]
    before, after = made.score_voxels(x), again.score_voxels(x)
    assert list(before) == list(COMPARING)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert again.reference.chosen.keys() == made.reference.chosen.keys()


def test_chosen_searches_agree_with_exact_ones(detector, voxels):
    made, _ = detector
    exact = Reference(made.reference.parts, "exact", made.reference.drawn_from)
    plain = replace(made, fitted=replace(made.fitted, reference=exact))
    held_out = next(int(scan.id) for scan in made.scans if scan.role == "validation")
    x = voxels[0][voxels[1] == held_out][:1000]
    found, right = made.score_voxels(x), plain.score_voxels(x)
    for name in COMPARING:
        same = np.isclose(found[name], right[name], rtol=1e-4, atol=0.011 if "density" in name else 1e-5)
        assert same.mean() > 0.985, name


def test_a_search_that_nobody_foresaw_is_exact(voxels):
    x, scans = voxels
    made = mn.fit_voxels(x, scans=scans, settings=replace(FAST, scores=("nearest_normal", "latent_density")))
    assert ("euclidean", "latent_mean") not in made.reference.chosen
    with torch.no_grad():
        means = made.model.encode(torch.from_numpy(x[:50])).mean
    every = (means[:, None] - made.reference.parts["latent_mean"]).square().sum(-1).amin(1)
    np.testing.assert_allclose(made.score_voxels(x[:50], "latent_euclidean")["latent_euclidean"], every,
                               rtol=1e-4, atol=1e-6)  # fmt: skip


@pytest.mark.parametrize("damage", ["drop", "add", "twice", "place"])
def test_records_and_tensors_must_fit(damage, detector, tmp_path):
    import hashlib

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(detector[1], folder)
    record = json.loads((folder / "detector.json").read_text())
    searches = record["reference"]["searches"]
    states = load_file(folder / "searches.safetensors")
    if damage == "add":
        states["euclidean/nowhere/centre"] = torch.zeros(3)
        save_file(states, folder / "searches.safetensors")
        digest = hashlib.sha256((folder / "searches.safetensors").read_bytes()).hexdigest()
        record["files"]["searches.safetensors"] = digest
    elif damage == "twice":
        searches.append(searches[0])
    elif damage == "place":
        searches[0]["place"] = "elsewhere"
    else:
        (folder / "searches.safetensors").unlink()
    (folder / "detector.json").write_text(json.dumps(record))
    with pytest.raises(DetectorError, match=str(folder)):
        mn.Detector.load(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quality": {"recall": 7.0}}, "recall: Input should be less than or equal to 1"),
        ({"quality": {"recall": 0.5}}, r"euclidean input: its recall, 0\.5, is below its target"),
        ({"quality": {"surprise": 1}}, "surprise: Extra inputs are not permitted"),
        ({"quality": {"mean_error_nats": 0.1}}, "errors in nats are told of densities"),
        ({"target": -5.0}, "target: Input should be greater than 0"),
        ({"asked": "nonsense"}, "'nonsense' was asked for, but the settings say 'auto'"),
        ({"quality": None}, "an approximate search has settings and a quality, an exact one neither"),
    ],
)
def test_what_is_told_of_a_search_has_bounds(detector, tmp_path, changes, words):
    folder = shutil.copytree(detector[1], tmp_path / "model")
    record = json.loads((folder / "detector.json").read_text())
    told = record["reference"]["searches"]
    (search,) = [one for one in told if (one["kind"], one["place"]) == ("euclidean", "input")]
    for name, value in changes.items():
        search[name] = (search[name] | value) if isinstance(value, dict) else value
    (folder / "detector.json").write_text(json.dumps(record))
    with pytest.raises(DetectorError, match=words):
        mn.Detector.load(folder)


def test_a_reference_on_the_cpu_keeps_its_searches(detector):
    made, _ = detector
    there = moved(made.reference, torch.device("cpu"))
    assert told_of(there) == told_of(made.reference)
    # Off the CPU, all are exact, and say so: no tensor of the meta device holds anything, and none is asked.
    on_card = moved(made.reference, torch.device("meta"))
    assert {told["Name"] for told in told_of(on_card).values()} == {"exact"}
    assert all("Recall" not in told for told in told_of(on_card).values())


def test_the_card_tells_how_neighbours_are_searched(detector):
    made, folder = detector
    card = (folder / "README.md").read_text()
    for place, told in told_of(made.reference).items():
        assert f"* Neighbours, {place}: `{told['Name']}`" in card
