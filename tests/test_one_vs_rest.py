"""The methods of Table 2.1: what each sees and chooses by, that shared parts are shared, and the table."""

import json

import numpy as np
import pytest
import torch
from test_fashion_mnist import folder  # noqa: F401 - a fixture

from mednovelty.benchmarks import one_vs_rest_shallow
from mednovelty.benchmarks.one_class_images import contrast_normalised, one_class
from mednovelty.benchmarks.one_vs_rest import (
    DETECTORS,
    PAPER_PERCENT,
    VARIANTS,
    Options,
    Run,
    StartedDeepSVDD,
    main,
    summary,
    table,
)
from mednovelty.benchmarks.one_vs_rest_shallow import GAMMAS, SHALLOW, Components, fitted_scores
from mednovelty.metrics import Ranking, auroc
from mednovelty.seeds import generator

WORDS = ("--classes", "5", "--epochs", "2", "--batch", "10", "--pretrain-epochs", "2", "--learning-rate",
         "1e-3", "--warm-up", "1")  # fmt: skip


def run_of(folder, **more):  # noqa: F811
    options = Options(**{"epochs": 2, "pretrain_epochs": 2, "batch": 10, "learning_rate": 1e-3} | more)
    return Run(one_class(folder, 5, seed=0), options)


def clouds(seed=0, novel=40, shift=4.0):
    """Components: normals around 0, and among the test samples some around a point away from it."""
    random = np.random.default_rng(seed)
    test = random.normal(size=(160, 3)).astype(np.float32)
    test[:novel, 0] += shift
    training = random.normal(size=(90, 3)).astype(np.float32)
    return Components(torch.from_numpy(training), torch.from_numpy(test), np.arange(160) < novel, seed)


def test_the_rate_is_lowered_after_a_third():
    how = Options(epochs=6, learning_rate=1e-2).training(6, 1 / 3)
    assert (how.max_epochs, how.plateau_patience, how.min_learning_rate) == (6, 2, 1e-3)


def test_means_are_over_classes_and_stand_in_the_table():
    runs = [
        {"method": name, "class": label, "auroc_percent": value, "paper_percent": other}
        for name, label, value, other in (
            ("ae", 3, 50, 60),
            ("ae", 8, 90, 70),
            ("kde", 3, 80, 85),
            ("kde", 8, 81, 87),
        )
    ]
    found = summary(runs)
    assert found["ae"] == {"auroc_percent": 70, "paper_percent": 65}
    assert table(runs).splitlines() == [
        "| method | 3 | 8 | mean |",
        "| --- | --- | --- | --- |",
        "| `ae` | 50.0 (60.0) | 90.0 (70.0) | 70.0 (65.0) |",
        "| `kde` | 80.0 (85.0) | 81.0 (87.0) | 80.5 (86.0) |",
    ]


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_is_trained_and_scored(folder, name, capsys):  # noqa: F811
    found = main([str(folder), "--methods", name, *WORDS])
    (run,) = found["runs"]
    assert run["auroc_percent"] > 60
    assert run["paper_percent"] == PAPER_PERCENT[VARIANTS.get(name, name)][5]
    assert found["summary"][name]["auroc_percent"] == run["auroc_percent"]
    if name in ("one_class", "soft_boundary"):
        assert "started from an autoencoder whose error fell from" in run["verdict"]
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads(json.dumps(found))
    assert f"| `{name}` | " in printed.err


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


def test_the_paper_has_all_digits():
    assert all(len(values) == 10 and min(values) > 70 for values in PAPER_PERCENT.values())
    assert set(DETECTORS) == {*PAPER_PERCENT, *VARIANTS} - {"anogan"}


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
