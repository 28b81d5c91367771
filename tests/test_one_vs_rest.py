"""The methods of Tables 2.1 and 3.1: what each sees and chooses by, and that shared parts are shared."""

import numpy as np
import pytest
import torch
from image_folders import folder, image_sets, run, task_of  # noqa: F401 - fixtures among them

from mednovelty.benchmarks import one_vs_rest, one_vs_rest_shallow
from mednovelty.benchmarks.image_sets import image_set
from mednovelty.benchmarks.one_class_images import contrast_normalised, one_class
from mednovelty.benchmarks.one_vs_rest import DETECTORS, SCORE, Run, StartedDeepSVDD
from mednovelty.benchmarks.one_vs_rest_labelled import EXPOSED
from mednovelty.benchmarks.one_vs_rest_shallow import GAMMAS, SHALLOW, Components, fitted_scores
from mednovelty.metrics import Ranking, auroc
from mednovelty.seeds import generator

SMALL = {"epochs": 2, "pretrain_epochs": 2, "batch": 10, "learning_rate": 1e-3, "warm_up": 1}


def run_of(folder, **more):  # noqa: F811
    _, settings = task_of("one-vs-rest", folder, "ae", **SMALL | more)
    return Run(one_class(image_set("mnist", folder), 5, seed=0), settings)


def clouds(seed=0, novel=40, shift=4.0):
    """Components: normals around 0, and among the test samples some around a point away from it."""
    random = np.random.default_rng(seed)
    test = random.normal(size=(160, 3)).astype(np.float32)
    test[:novel, 0] += shift
    training = random.normal(size=(90, 3)).astype(np.float32)
    return Components(torch.from_numpy(training), torch.from_numpy(test), np.arange(160) < novel, seed)


def test_the_rate_is_lowered_after_a_third(folder):  # noqa: F811
    _, settings = task_of("one-vs-rest", folder, "ae", epochs=6, learning_rate=1e-2)
    how = settings.training(6, 1 / 3)
    assert (how.max_epochs, how.plateau_patience, how.min_learning_rate) == (6, 2, 1e-3)


@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in ("fcdd", "classifier", *EXPOSED)])
def test_every_detector_is_trained_and_scored(folder, name):  # noqa: F811
    found = run("one-vs-rest", folder, name, **SMALL)
    (row,) = found.measured
    assert (row.score, row.metric) == (SCORE, "auroc")
    assert row.value > 0.6
    if name in ("one_class", "soft_boundary"):
        assert "started from an autoencoder whose error fell from" in found.told["verdict"]


def test_fcdd_is_shown_outliers(image_sets):  # noqa: F811
    over = {"epochs": 20, "batch": 7, "filters": 10, "learning_rate": 1e-2}
    beside = ("cifar10", str(image_sets / "cifar10"))
    found = run("one-vs-rest", image_sets / "mnist", "fcdd", beside=beside, **over)
    assert found.told["outliers_auroc"] > 0.9
    assert found.told["validation"]["abnormal"] > found.told["validation"]["normal"]
    assert run("one-vs-rest", image_sets / "mnist", "fcdd", beside=beside, **over) == found
    assert found.told["outliers"] == "cifar10"
    over |= {"epochs": 1, "batch": 30}
    grey = ("mnist", str(image_sets / "mnist"))
    (row,) = run(
        "one-vs-rest", image_sets / "cifar10", "fcdd", dataset="cifar10", beside=grey, **over
    ).measured
    assert 0 <= row.value <= 1
    with pytest.raises(ValueError, match="fcdd: needs another image set as outliers"):
        run("one-vs-rest", image_sets / "cifar10", "fcdd", dataset="cifar10", **over)


def test_the_autoencoder_is_trained_once_for_all_that_start_from_it(folder, monkeypatch):  # noqa: F811
    one_vs_rest._run.cache_clear()
    seeds, train = [], one_vs_rest.train
    monkeypatch.setattr(one_vs_rest, "train", lambda *a, **k: seeds.append(a[0]) or train(*a, **k))
    for name in ("one_class", "soft_boundary", "ae"):
        run("one-vs-rest", folder, name, **SMALL)
    assert [type(method).__name__ for method in seeds].count("PretrainingMethod") == 1
    run("one-vs-rest", folder, "ae", **SMALL, seed=1)
    assert [type(method).__name__ for method in seeds].count("PretrainingMethod") == 2


def test_colours_and_other_methods(image_sets):  # noqa: F811
    cifar = image_sets / "cifar10"
    (row,) = run("one-vs-rest", cifar, "one_class", dataset="cifar10", **SMALL).measured
    assert 0 <= row.value <= 1
    found = run("one-vs-rest", cifar, "local_outlier_factor", dataset="cifar10",
                method_settings={"neighbours": 3})  # fmt: skip
    assert {"outlier_score"} <= {row.score for row in found.measured}


def test_deep_svdd_starts_from_the_autoencoder_that_is_scored(folder):  # noqa: F811
    run = run_of(folder)
    network, record = run.autoencoder
    method = StartedDeepSVDD(run, "one_class")
    model = method.build(run.images.shape)
    method.start(model, run.training, generator(0, "start"))
    kept, own = network.encoder.state_dict(), model.encoder.state_dict()
    assert kept.keys() == own.keys()
    assert all(torch.equal(kept[name], own[name]) for name in kept)
    assert model.pretraining.tolist() == pytest.approx([record.losses[0], min(record.losses)])
    # A copy: what trains the one leaves the other.
    next(model.encoder.parameters()).data.add_(1)
    assert not torch.equal(next(model.encoder.parameters()), next(network.encoder.parameters()))
    assert run.autoencoder[0] is network


def test_components_are_the_fewest_that_keep_95_percent():
    # Patterns without a mean that do not overlap; the first is so strong that all images have its contrast.
    random = np.random.default_rng(1)
    pattern = np.kron(np.eye(3), [1, -1, 1, -1]) / 4  # Mean magnitude 1 if added up, a quarter each.
    pattern[0] *= 100
    weights = np.column_stack([random.choice([-1, 1], 500), random.normal(0, [5, 0.5], (500, 2))])
    rows = torch.from_numpy((weights @ pattern + 3).astype(np.float32))
    expected = contrast_normalised(rows)
    seen = Components.of(expected[:400], expected[400:], np.zeros(100, bool), 0)
    # Left out is the third, whose share of the variance is 1 % of the second's; the first has nearly all.
    assert seen.training.shape == (400, 1)
    torch.testing.assert_close(seen.training.mean(0), torch.zeros(1), atol=1e-4, rtol=0)
    centred = expected[400:] - expected[:400].mean(0)
    along = centred[:, :4].norm(dim=1)
    torch.testing.assert_close(seen.test.abs()[:, 0], along, rtol=0.02, atol=0)


def test_scaled_components_are_smaller_and_rank_alike(folder):  # noqa: F811
    raw, scaled = (run_of(folder, scaled=value) for value in (False, True))
    scale = raw.images.scale
    ratio = raw.components.test.norm(dim=1) / scaled.components.test.norm(dim=1)
    torch.testing.assert_close(ratio, torch.full_like(ratio, scale.high - scale.low), rtol=1e-3, atol=0)
    (one, one_told), (other, other_told) = (
        SHALLOW["oc_svm_unlabelled"](run.components) for run in (raw, scaled)
    )
    np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-2)
    assert one_told["gamma"] < other_told["gamma"]


def test_shallow_methods_see_components_alone(folder):  # noqa: F811
    run = run_of(folder)
    width = run.components.training.shape[1]
    assert width < len(run.training)
    scores, told = DETECTORS["isolation_forest"](run)
    assert (scores.shape, told["components"], told["trees"]) == ((100,), width, 100)


def test_the_oracle_is_told_labels_and_the_other_is_not(monkeypatch):
    seen, asked = clouds(), []

    def listening(name, seen, **settings):
        asked.append(settings)
        return fitted_scores(name, seen, **settings)

    monkeypatch.setattr(one_vs_rest_shallow, "fitted_scores", listening)
    scores, told = SHALLOW["oc_svm"](seen)
    assert [settings["gamma"] for settings in asked] == [*GAMMAS, *GAMMAS]
    assert told["gamma"] in GAMMAS
    every = [auroc(Ranking.of(fitted_scores("ocsvm", seen, **s)[0], seen.novel)) for s in asked]
    assert min(every) < auroc(Ranking.of(scores, seen.novel)) <= max(every)
    # Labels turned round: the oracle chooses anew, the other gives the same scores.
    turned = Components(seen.training, seen.test, ~seen.novel, seen.seed)
    assert SHALLOW["oc_svm"](turned)[1] != told
    np.testing.assert_array_equal(
        SHALLOW["oc_svm_unlabelled"](turned)[0], SHALLOW["oc_svm_unlabelled"](seen)[0]
    )


def test_the_oracle_takes_the_better_nu(monkeypatch):
    def by(nus, seen):
        monkeypatch.setattr(one_vs_rest_shallow, "NUS", nus)
        scores, told = SHALLOW["oc_svm"](seen)
        return auroc(Ranking.of(scores, seen.novel)), told["nu"]

    better = set()
    for seed in range(4):
        seen = clouds(seed, shift=1.5)
        each = {nu: by((nu,), seen)[0] for nu in (0.01, 0.1)}
        found, nu = by((0.01, 0.1), seen)
        assert found == max(each.values()) == each[nu]
        better.add(nu)
    assert better == {0.01, 0.1}  # Neither place is right by chance.


def test_bandwidths_are_those_of_the_thesis():
    told = SHALLOW["kde"](clouds())[1]
    # Points a unit apart are likeliest by less than its least.
    assert told["bandwidth"] == pytest.approx(2**0.5)
    assert told["bandwidth_at_edge"]
