"""K and alpha are chosen by anomalies made of held-out normals, never by labels."""

import json
import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from test_autoencoders import SMALL, voxels

import mednovelty as mn
from mednovelty import tuning
from mednovelty.batch import Batch
from mednovelty.calibration import scale_of
from mednovelty.detector import Detector, checked_settings
from mednovelty.errors import SettingsError
from mednovelty.fit_command import FitRequest, _tell, overrides
from mednovelty.fitting import FitSettings, fit_model
from mednovelty.methods.nearest_latent import NearestLatentNeighbours, NLNMap
from mednovelty.model_folder import fit_settings
from mednovelty.neighbours.latent_settings import NLNSettings
from mednovelty.nn.point import Point
from mednovelty.reference import Reference
from mednovelty.synthetic_anomalies import synthetic_anomalies
from mednovelty.tuning import ALPHAS, check_tuning, clustered_auroc, enough, tuned_nln
from mednovelty.voxel_cache import VoxelCache


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_an_anomaly_is_a_sample_with_a_box_of_another():
    # Sample i is i everywhere: what is foreign shows whose it is.
    x = torch.arange(9.0)[:, None].expand(9, 2 * 8 * 12).contiguous()
    made = synthetic_anomalies(x, (2, 8, 12), generator())
    for own, image in enumerate(made.x.unflatten(1, (2, 8, 12))):
        foreign = image != own
        assert torch.equal(foreign[0], foreign[1]), "contrasts go together"
        assert torch.equal(foreign[0], made.pasted[own].reshape(8, 12)), "told otherwise"
        rows, columns = foreign[0].any(1), foreign[0].any(0)
        assert 2 <= rows.sum() <= 4
        assert 3 <= columns.sum() <= 6
        assert torch.equal(foreign[0], rows[:, None] & columns), "no box"
        assert len(image[foreign].unique()) == 1
    assert torch.equal(x, torch.arange(9.0)[:, None].expand(9, 192))


def test_of_voxels_half_of_the_channels_are_foreign():
    x = torch.arange(9.0)[:, None].expand(9, 7).contiguous()
    made = synthetic_anomalies(x, (7,), generator())
    assert ((made.x != x).sum(1) == 3).all()
    assert made.pasted.shape == (9, 1)
    assert made.pasted.all()
    assert torch.equal(made.x, synthetic_anomalies(x, (7,), generator()).x)
    assert not torch.equal(made.x, synthetic_anomalies(x, (7,), generator(1)).x)


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
    # Both halves of a normal are alike: what is foreign in the second shows in the error alone. Where all
    # channels are alike it shows in the latents, and the error of a decoder that gives nothing tells little.
    random = torch.randn(400, 4, generator=generator(3)) * torch.tensor([1.0, 0.1, 0.01, 0.01])
    if expected == "distance":
        random = torch.randn(400, 1, generator=generator(3)) + 0.05 * torch.randn(
            400, 4, generator=generator(4)
        )
    normals = torch.cat([random, random], 1)
    model = Half(gain)
    reference = Reference.of(model, normals[:200], ["latent_mean"])
    chosen, told = tuned_nln(
        model, reference, ["nearest_latent_neighbours"], normals[200:], NLNSettings(alpha=0.5), generator()
    )
    tried = {(row["k"], row["alpha"]): row["auroc"] for row in told["nln"]["tried"]}
    assert told["nln"]["auroc"] == tried[chosen.k, chosen.alpha]
    assert (told["nln"]["k"], told["nln"]["alpha"]) == (chosen.k, chosen.alpha)
    assert max(tried.values()) - 0.02 < told["nln"]["auroc"] <= max(tried.values())
    assert len(tried) == 5 * len(ALPHAS)
    alone = {"error": tried[chosen.k, 1.0], "distance": tried[chosen.k, 0.0]}
    assert (chosen.alpha > 0.5) == (expected == "error") == (alone["error"] > alone["distance"])


def test_an_auroc_of_pooled_voxels_and_its_error():
    random = np.random.default_rng(0)
    # Half of the samples are novel in nearly all voxels, the other half in few.
    novel, counted = random.random((40, 6)) < [[0.9], [0.1]] * 20, random.random((40, 6)) < 0.8
    # Rounded: many are equal. Scores of a sample go together.
    scores = np.round(novel + random.normal(size=(40, 6)) + random.normal(size=(40, 1)), 1)
    found = clustered_auroc(scores, novel, counted)
    assert found.auroc == pytest.approx(roc_auc_score(novel[counted], scores[counted]))
    assert found.influence.sum() == pytest.approx(0, abs=1e-12)

    def bootstrapped():
        drawn = random.integers(0, 40, 40)
        return roc_auc_score(novel[drawn][counted[drawn]], scores[drawn][counted[drawn]])

    spread = np.std([bootstrapped() for _ in range(400)])
    assert np.sqrt(np.square(found.influence).sum()) == pytest.approx(spread, rel=0.2)
    # As independent voxels they would seem surer than they are.
    alone = clustered_auroc(
        scores[counted][:, None], novel[counted][:, None], np.ones((counted.sum(), 1), bool)
    )
    assert alone.auroc == pytest.approx(found.auroc)
    assert np.square(alone.influence).sum() < 0.5 * np.square(found.influence).sum()


def test_the_error_of_independent_scores_is_delongs():
    high, low = np.array([3.0, 1.0, 4.0, 2.5]), np.array([0.5, 2.0, 1.5])
    scores, novel = np.concatenate([high, low])[:, None], (np.arange(7) < 4)[:, None]
    # V10 = 1, 1/3, 1, 1 and V01 = 1, 3/4, 3/4: population variances over 4 and over 3.
    expected = np.var([1, 1 / 3, 1, 1]) / 4 + np.var([1, 3 / 4, 3 / 4]) / 3
    found = clustered_auroc(scores, novel, np.ones((7, 1), bool))
    assert found.auroc == pytest.approx(stats.mannwhitneyu(high, low).statistic / 12) == 10 / 12
    assert np.square(found.influence).sum() == pytest.approx(expected)


def judged(auroc, influence):
    return tuning._Judged(auroc, np.array(influence))


def test_of_settings_that_samples_cannot_tell_apart_the_nearest_to_the_default_is_taken():
    # The difference to the best is 0.02; of the second its error is 0.03, of the third, which moves with the
    # best, 0.001.
    tried = {
        (10, 0.1): judged(0.90, [0.03, 0.04]),
        (2, 0.8): judged(0.88, [0.03, 0.01]),
        (2, 0.7): judged(0.88, [0.03, 0.039]),
    }
    assert tuning._chosen(tried, NLNSettings()) == (2, 0.8)
    assert tuning._chosen({at: tried[at] for at in [(10, 0.1), (2, 0.7)]}, NLNSettings()) == (10, 0.1)
    equals = {(k, alpha): judged(0.7, [0.1]) for k in (1, 2, 3, 5) for alpha in ALPHAS}
    assert tuning._chosen(equals, NLNSettings()) == (2, 0.8)
    assert tuning._chosen(equals, NLNSettings(k=5, alpha=0.2)) == (5, 0.2)
    assert tuning._chosen(equals, NLNSettings(k=4, alpha=0.2)) == (5, 0.2)


class Pixels:
    """Two contrasts of 6 x 8 pixels; the latent is the sum, the decoder gives the mean image."""

    channels, latents, shape = 96, 1, (2, 6, 8)

    def __init__(self, mean):
        self.mean, self.decoded = mean, 0

    def encode(self, x):
        return Point(x.sum(1, keepdim=True))

    def decode(self, z):
        self.decoded += len(z)
        return Point(self.mean.expand(len(z), -1))


def pixels(n=160, margin=0):
    """Images that differ in level, so that a foreign box shows best in the sum; 0 at the left margin."""
    level = torch.randn(n, 1, generator=generator(1))
    x = 5 + 0.1 * level + 0.02 * torch.randn(n, 96, generator=generator(2))
    gradient = torch.linspace(-1, 1, 96)
    x = (x + gradient).unflatten(1, (2, 6, 8))
    x[..., :margin] = 0
    return x.flatten(1)


def by_hand(x, trial_seed, nln, background=None):
    """The pooled AUROC of a map, straight from the scorer."""
    model = Pixels(x.mean(0))
    reference = Reference.of(model, x[:80], ["latent_mean"])
    trial = tuning._trial_of(x[80:], model.shape, background, generator(trial_seed))
    terms = NearestLatentNeighbours(model, reference, nln).terms_of(Batch(trial.x[~trial.novel]))
    constants = {name: scale_of(values) for name, values in terms.items()}
    found = NLNMap(model, reference, nln, constants).score(Batch(trial.x)).flatten(1)
    kept = trial.counted
    return roc_auc_score(trial.pasted[kept], found[kept]), trial


def test_a_map_is_judged_by_its_voxels_and_never_by_the_distance_alone():
    x = pixels()
    model = Pixels(x.mean(0))
    reference = Reference.of(model, x[:80], ["latent_mean"])
    _, of_samples = tuned_nln(
        model, reference, ["nearest_latent_neighbours"], x[80:], NLNSettings(), generator()
    )
    assert 0 in {row["alpha"] for row in of_samples["nln"]["tried"]}
    chosen, told = tuned_nln(model, reference, ["nln_map"], x[80:], NLNSettings(k=3), generator())
    tried = {(row["k"], row["alpha"]): row["auroc"] for row in told["nln"]["tried"]}
    assert {alpha for _, alpha in tried} == set(ALPHAS[1:])
    for k, alpha in ((1, 0.1), (3, 0.8), (10, 1.0)):
        assert tried[k, alpha] == pytest.approx(by_hand(x, 0, NLNSettings(k, alpha))[0], abs=1e-6)
    assert tried[chosen.k, chosen.alpha] > tried[chosen.k, 0.1]
    both, told = tuned_nln(
        model, reference, ["nearest_latent_neighbours", "nln_map"], x[80:], NLNSettings(k=3), generator()
    )
    assert set(told["nln"]["by_score"]) == {"nearest_latent_neighbours", "nln_map"}
    assert told["nln"]["by_score"]["nln_map"] == tried[both.k, both.alpha]
    assert told["nln"]["auroc"] == pytest.approx(np.mean(list(told["nln"]["by_score"].values())))
    assert both.alpha > 0


def test_voxels_outside_the_mask_are_not_looked_at():
    x = pixels(margin=3)
    model = Pixels(x.mean(0))
    reference = Reference.of(model, x[:80], ["latent_mean"])
    aurocs = {}
    for background in (None, 0.0):
        chosen, told = tuned_nln(
            model, reference, ["nln_map"], x[80:], NLNSettings(), generator(), background=background
        )
        expected, trial = by_hand(x, 0, chosen, background)
        aurocs[background] = told["nln"]["auroc"]
        assert aurocs[background] == pytest.approx(expected, abs=1e-6)
        inside = trial.counted.reshape(80, 6, 8)
        assert inside[..., 3:].all()
        assert inside[..., :3].any() == (background is None)
    assert aurocs[None] != pytest.approx(aurocs[0.0], abs=1e-3)


def test_a_hole_pasted_into_a_brain_is_within_its_mask():
    x = pixels(margin=3)
    trial = tuning._trial_of(x, (2, 6, 8), 0.0, generator())
    holes = (trial.x.unflatten(1, (2, 48)) == 0).all(1) & trial.pasted & trial.counted
    assert holes.any()


def test_where_no_pasted_voxel_lies_within_the_mask_all_are_looked_at():
    x = torch.zeros(24, 96)
    assert tuning._trial_of(x, (2, 6, 8), 0.0, generator()).counted.all()


def test_memory_is_bounded_however_many_samples(monkeypatch):
    x = pixels(600)
    model, rows = Pixels(x.mean(0)), []
    reference = Reference.of(model, x[:100], ["latent_mean"])
    monkeypatch.setattr(tuning, "NUMBERS_A_BATCH", 96 * 10 * 7)
    monkeypatch.setattr(tuning, "MOST_PLACES", 400 * 5)
    monkeypatch.setattr(model, "decode", lambda z: rows.append(len(z)) or Pixels.decode(model, z))
    names = ["nearest_latent_neighbours", "nln_map"]
    _, told = tuned_nln(model, reference, names, x[100:], NLNSettings(), generator())
    assert told["nln"]["samples"] == 400
    assert max(rows) == 7 * 10
    assert sum(rows) == 400 * 10, "each neighbour once, for all K and scores"
    trial = tuning._trial_of(x[100:], model.shape, None, generator())
    assert trial.places.shape == (400, 5)
    assert (trial.places.diff(dim=1) > 0).all()
    seed = generator()
    order = torch.randperm(400, generator=seed)
    whole = synthetic_anomalies(enough(x[100:], model.shape)[order[200:]], model.shape, seed)
    assert torch.equal(trial.pasted[200:], whole.pasted.gather(1, trial.places[200:]))


def test_as_many_samples_as_are_enough_come_from_all_of_them():
    x = torch.arange(1000.0)[:, None]
    found = enough(x, (1, 1, 1))[:, 0]
    assert (len(found), found[0], found[-1]) == (400, 0, 999)
    assert set(found.diff().tolist()) == {2.0, 3.0}
    assert enough(x, (1,)) is x
    assert enough(x[:399], (1, 1, 1)) is not x
    assert len(enough(x[:399], (1, 1, 1))) == 399


def test_smaller_batches_change_nothing(monkeypatch):
    x = pixels()
    model = Pixels(x.mean(0))
    reference = Reference.of(model, x[:80], ["latent_mean"])
    found = []
    for numbers in (1, 1 << 20):
        monkeypatch.setattr(tuning, "NUMBERS_A_BATCH", numbers)
        found.append(tuned_nln(model, reference, ["nln_map"], x[80:], NLNSettings(), generator())[1])
    for one, other in zip(*(told["nln"]["tried"] for told in found), strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_what_cannot_be_tuned_is_refused_in_words():
    reference = Reference({}, "exact", 0)
    with pytest.raises(SettingsError, match=r"nln.tune: 19 held-out samples; it takes at least 20: hold out"):
        tuned_nln(
            Half(1.0),
            reference,
            ["nearest_latent_neighbours"],
            torch.zeros(19, 8),
            NLNSettings(),
            generator(),
        )
    with pytest.raises(SettingsError, match=r"nln.tune: none of the scores latent_euclidean is by nearest"):
        tuned_nln(Half(1.0), reference, ["latent_euclidean"], torch.zeros(40, 8), NLNSettings(), generator())
    with pytest.raises(SettingsError, match="--tune 'latents': there is nln to be tuned"):
        overrides([], tune="latents")


def test_tuning_without_a_score_to_tune_is_refused_before_scans_are_read():
    settings = FitSettings(method="ae_res", scores=("latent_euclidean",), nln=NLNSettings(tune=True))
    with pytest.raises(
        SettingsError,
        match=r"one of nearest_latent_neighbours, nln_map, nln_residual, with --scores$",
    ):
        checked_settings(settings)
    check_tuning(["latent_euclidean", "nln_map"], ())
    checked_settings(replace(settings, scores=("nln_residual",)))


def tables(n, held_out):
    return VoxelCache.from_array(voxels(n)), VoxelCache.from_array(voxels(held_out, seed=1))


def refused(settings, n=60, held_out=30):
    trained = []
    with pytest.raises(SettingsError) as caught:
        fit_model(*tables(n, held_out), settings, 0, on_epoch=trained.append)
    assert not trained, "it was trained before"
    return str(caught.value)


def test_what_cannot_work_is_refused_before_the_first_epoch():
    tree = {"method": "ae", "method_settings": SMALL, "train": {"max_epochs": 1}}
    few = fit_settings(tree, {"nln": {"tune": True}}, where="here")
    assert "nln.tune: 12 held-out samples; it takes at least 20" in refused(few, held_out=12)
    many = fit_settings(tree, {"nln": {"k": 61}}, where="here")
    assert refused(many) == (
        "nln.k=61: the reference will hold 60 normals, of 60 training samples; set nln.k to one of 1 to 60"
    )
    # An input of 5 channels and a latent of 3, 4 bytes each: 32 bytes a normal.
    small = fit_settings(tree, {"nln": {"k": 8}, "reference_bytes": 7 * 32 + 5}, where="here")
    assert "the reference will hold 7 normals" in refused(small)
    nets = fit_settings(
        {**tree, "scores": ["nearest_latent_neighbours"], "candidates": [{"latent": 2}, {"latent": 4}]},
        {"nln": {"k": 8}, "reference_bytes": 8 * 8}, where="here",
    )  # fmt: skip
    assert "the reference will hold 4 normals" in refused(nets)


def test_a_k_that_no_score_looks_at_is_not_refused():
    tree = {"method": "ae", "method_settings": SMALL, "train": {"max_epochs": 1}, "nln": {"k": 61}}
    settings = fit_settings(tree, {"scores": ["latent_euclidean"]}, where="here")
    assert fit_model(*tables(60, 12), settings, 0).constants_by_k == {}


def test_a_reference_of_few_offers_few_neighbours():
    tree = {"method": "ae", "method_settings": SMALL, "train": {"max_epochs": 1}, "nln": {"tune": True}}
    fitted = fit_model(*tables(4, 30), fit_settings(tree, where="here"), 0)
    assert sorted(fitted.constants_by_k) == [1, 2, 3]
    assert {row["k"] for row in fitted.summary["tuned"]["nln"]["tried"]} == {1, 2, 3}


@pytest.fixture(scope="module")
def tuned():
    tree = {"method_settings": SMALL, "train": {"batch_size": 128, "max_epochs": 3}}
    flags = overrides(
        ["nln.k=3"], method="ae-con", tune="nln", scores="nearest_latent_neighbours,nln_consistency"
    )
    assert flags["method"] == "ae_con"
    settings = fit_settings(tree, flags, where="here")
    assert settings.nln == NLNSettings(k=3, tune=True)
    return mn.fit_voxels(voxels(), scans=np.arange(600) // 150, settings=settings)


def test_a_detector_keeps_what_was_chosen(tuned, tmp_path):
    told, chosen = tuned.fitted.summary["tuned"]["nln"], tuned.settings.nln
    assert (told["k"], told["alpha"]) == (chosen.k, chosen.alpha)
    assert {"k": chosen.k, "alpha": chosen.alpha, "auroc": told["auroc"]} in told["tried"]
    tuned.save(tmp_path)
    record = json.loads((tmp_path / "detector.json").read_text())
    assert record["settings"]["nln"] == {"k": chosen.k, "alpha": chosen.alpha, "reverse": False, "tune": True}
    x = voxels(5, seed=2)
    for name, scores in tuned.score_voxels(x).items():
        np.testing.assert_array_equal(scores, Detector.load(tmp_path).score_voxels(x)[name])


def test_what_was_chosen_is_told_after_the_fit_and_on_the_card(tuned, tmp_path, caplog):
    told = tuned.fitted.summary["tuned"]["nln"]
    words = (
        f"K = {told['k']}, alpha = {told['alpha']:g}: AUROC {told['auroc']:.3f} on held-out normals and "
        "anomalies made of them"
    )
    with caplog.at_level(logging.INFO, logger="mednovelty"):
        _tell(tuned, FitRequest(tmp_path, tmp_path))
    assert f"nln: {words}" in caplog.messages
    tuned.save(tmp_path)
    others = ", ".join(str(k) for k in (1, 2, 3, 5, 10) if k != told["k"])
    card = (tmp_path / "README.md").read_text()
    assert f"* Nearest latent neighbours: chosen: {words}; K = {others} can be had when scoring\n" in card
    nln = replace(tuned.settings.nln, alpha=0.35)
    replace(tuned, settings=replace(tuned.settings, nln=nln)).save(tmp_path / "other")
    card = (tmp_path / "other" / "README.md").read_text()
    assert f"neighbours: K = {told['k']}, alpha = 0.35, as asked for; chosen: {words};" in card


def test_the_background_is_that_of_the_view():
    from mednovelty.fitting import _background

    for tree, expected in (({}, 0.0), ({"view_settings": {"background": -1.5}}, -1.5)):
        assert _background(fit_settings(tree, where="here", recipe="slices")) == expected
    assert _background(FitSettings()) is None
    assert _background(SimpleNamespace(view="slice", view_settings=None)) == 0.0
