"""Clever Hans scores: by hand, and on a planted artefact that a detector falls for."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mednovelty.errors import SettingsError
from mednovelty.evaluation.clever_hans import clever_hans, mean_cosine
from mednovelty.explaining import explain
from mednovelty.plugins import plugin
from mednovelty.voxel_cache import VoxelCache

SHAPE = (1, 8, 9)
ARTEFACT = (0, 7, 8)


def images(n, seed):
    return np.random.default_rng(seed).normal(0, 0.3, (n, *SHAPE)).astype(np.float32)


def anomalous(n, blob, artefact):
    """Return images with a blob somewhere, and a mark in the corner; and where the blob is."""
    random, x = np.random.default_rng(3), images(n, 2)
    truth = np.zeros(x.shape, bool)
    for each in truth:
        i, j = random.integers(0, 5, 2)
        each[:, i : i + 3, j : j + 3] = True
    x += blob * truth
    x[:, *ARTEFACT] += artefact
    return x, truth


def fitted(name, **settings):
    kind = plugin("methods", name)
    method = kind(kind.Settings(**settings))
    model = method.build(SHAPE)
    rows = images(200, 0).reshape(200, -1)
    method.start(model, VoxelCache.from_array(rows), torch.Generator().manual_seed(0))
    return model.eval()


def judged(model, method, blob, artefact):
    x, truth = anomalous(40, blob, artefact)
    normal = explain(model, images(60, 1), "outlier_score", method).score.numpy()
    found = explain(model, x, "outlier_score", method)
    auroc = roc_auc_score(np.repeat([0, 1], [60, 40]), np.concatenate([normal, found.score.numpy()]))
    assert auroc == 1
    even = mean_cosine(np.ones_like(truth), truth)
    return clever_hans(auroc, mean_cosine(found.values.numpy(), truth), even)


DETECTORS = [
    ("kde", "lrp", {"bandwidth": 1.0, "samples": 200}),
    ("pca", "lrp", {"variance": 0.5}),
    ("gaussian", "gradient_x_input", {}),
]


@pytest.mark.parametrize(("name", "method", "settings"), DETECTORS)
def test_a_detector_that_sees_the_mark_and_not_the_anomaly_is_flagged(name, method, settings):
    found = judged(fitted(name, **settings), method, blob=0.2, artefact=20.0)
    assert found.cosine < 0.15
    assert found.value > 0.85
    assert found.flagged
    assert "it may be right for a wrong reason" in found.words()


@pytest.mark.parametrize(("name", "method", "settings"), DETECTORS)
def test_an_honest_detector_is_not(name, method, settings):
    found = judged(fitted(name, **settings), method, blob=3.0, artefact=0.0)
    assert found.cosine > 0.6
    assert not found.flagged
    assert "wrong" not in found.words()


def test_by_hand():
    found = clever_hans(0.9, 0.25, 0.3)
    assert found.value == pytest.approx(0.65)
    assert found.flagged
    assert found.words().startswith("Clever Hans score 0.650: AUROC 0.900 less cosine 0.250; above 0.5, and ")
    assert "no more on what is novel than if it were even, 0.300" in found.words()
    assert not clever_hans(0.9, 0.45, 0.5).flagged
    assert clever_hans(0.9, 0.45, 0.5, threshold=0.4).flagged
    with pytest.raises(SettingsError, match=r"auroc must be from 0 to 1, got 98\.5"):
        clever_hans(98.5, 0.2, 0.3)
    with pytest.raises(SettingsError, match="cosine must be from -1 to 1, got 31"):
        clever_hans(0.9, 31, 0.3)
    with pytest.raises(SettingsError, match="even must be from 0 to 1, got 17"):
        clever_hans(0.9, 0.3, 17)


@pytest.mark.parametrize(("auroc", "cosine"), [(0.5, 0.0), (0.56, 0.05), (0.4, -0.2), (0.699, 0.0)])
def test_what_is_hardly_detected_is_no_clever_hans(auroc, cosine):
    found = clever_hans(auroc, cosine, 0.3)
    assert not found.flagged
    assert "right for a wrong reason" not in found.words()
    # By the difference alone all but the first were flagged.
    assert ("but with an AUROC below 0.7" in found.words()) == (found.value > 0.5)
    assert clever_hans(0.7, cosine, 0.3).flagged


def test_of_small_anomalies_relevance_need_only_be_on_them():
    # A lesion of 1.6 % of a slice, of which relevance is found 2.5 times as strong as beside it.
    truth = np.zeros((1, 25, 25))
    truth[0, 4:6, 3:8] = 1
    even = mean_cosine(np.ones_like(truth), truth)
    assert even == pytest.approx(np.sqrt(10 / 625))
    on_it = mean_cosine(1 + 1.5 * truth, truth)
    assert even < on_it < 0.4
    found = clever_hans(0.95, on_it, even)
    assert found.value > found.threshold
    assert not found.flagged
    assert "relevance is on what is novel, more than if it were even, 0.126" in found.words()
    assert clever_hans(0.95, mean_cosine(1 - 0.5 * truth, truth), even).flagged
    # Relevance that is the same everywhere explains nothing.
    assert clever_hans(0.95, even, even).flagged


def test_cosines_are_of_each_sample():
    # 3 * 1 / 5, 1, and 0 of a sample without relevance; one without truth does not count.
    relevance = np.array([[3.0, 4, 0], [0, 0, 7], [0, 0, 0], [1, 1, 1]])
    truth = np.array([[1, 0, 0], [0, 0, 2], [1, 1, 0], [0, 0, 0]])
    assert mean_cosine(relevance, truth) == pytest.approx((0.6 + 1 + 0) / 3)
    assert mean_cosine(-relevance[:2], truth[:2]) == pytest.approx(-0.8)
    with pytest.raises(SettingsError, match="none of 1 samples has ground truth"):
        mean_cosine(relevance[3:], truth[3:])
    with pytest.raises(SettingsError, match=r"relevance \(4, 3\) and truth \(3, 3\) must have one shape"):
        mean_cosine(relevance, truth[1:])
    with pytest.raises(SettingsError, match="must be finite"):
        mean_cosine(relevance * np.nan, truth)
