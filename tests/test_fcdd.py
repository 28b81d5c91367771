"""FCDD: losses by hand, labels, planted anomalies in batches, detectors that find a planted blob."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_images import scan_of

import mednovelty as mn
from mednovelty.batch import Batch
from mednovelty.detector import Detector
from mednovelty.errors import SettingsError
from mednovelty.methods.fcdd import FCDDMethod, FCDDSettings, image_losses, mean_of, pixel_losses
from mednovelty.methods.fcdd_scores import FCDDMap, FCDDScore
from mednovelty.model_folder import fit_settings
from mednovelty.nn.precision import in_precision
from mednovelty.scan import Scan, Volume
from mednovelty.testing.contracts import METHOD_CHECKS, SCORER_CHECKS, check_upwards
from mednovelty.voxel_cache import VoxelCache

SHAPE, WINDOW = (2, 20, 23), (2, 12, 13, 15)
SMALL = {"network": "cnn28", "filters": (4, 5)}


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n, shape=SHAPE, seed=0):
    return torch.randn(n, math.prod(shape), generator=draws(seed))


def table(rows, shape=SHAPE):
    cache = VoxelCache(rows.shape[1], shape=shape)
    cache.append("scan", rows.numpy())
    return cache


def method_of(**settings):
    return FCDDMethod(FCDDSettings(**SMALL, **settings))


def started(method, shape=SHAPE, rows=None):
    model = method.build(shape)
    method.start(model, table(images(5, shape) if rows is None else rows, shape), draws(1))
    return model


VARIANTS = [
    ({}, SHAPE),
    ({"loss": "pixel", "anomalies": "lesions"}, SHAPE),
    ({"anomalies": "lesions", "loss": "pixel", "truth": "whole"}, WINDOW),
    ({"anomalies": "confetti"}, WINDOW),
]


@pytest.mark.parametrize("check", METHOD_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("settings", "shape"), VARIANTS)
def test_method_contract(settings, shape, check):
    check(method_of(**settings), table(images(30, shape), shape), table(images(12, shape, 1), shape))


@pytest.mark.parametrize("check", SCORER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", [FCDDMap, FCDDScore])
@pytest.mark.parametrize("shape", [SHAPE, WINDOW])
def test_scorer_contract(kind, shape, check):
    model = started(method_of(), shape).eval().requires_grad_(False)
    check(kind(model), Batch, images(4, shape))


def test_the_map_is_the_pseudo_huber_of_the_output_and_the_score_its_mean():
    model = started(method_of()).eval().requires_grad_(False)
    x = images(3)
    output = model.network(x.unflatten(1, SHAPE)).double()
    assert output.shape == (3, 5, 5)
    expected = (output.square() + 1).sqrt() - 1
    torch.testing.assert_close(model.heatmap(x).double(), expected, atol=1e-7, rtol=1e-5)
    torch.testing.assert_close(
        FCDDScore(model).score(Batch(x)).double(), expected.mean((1, 2)), atol=1e-7, rtol=1e-5
    )
    found = FCDDMap(model).score(Batch(x))
    assert found.shape == (3, 20, 23)
    # An average of outputs: within their range.
    assert (found.amax((1, 2)) <= model.heatmap(x).amax((1, 2)) + 1e-6).all()
    check_upwards(FCDDScore(model), Batch, torch.zeros(2, math.prod(SHAPE)), 30 * images(2, seed=4))


def test_in_half_precision_the_map_is_nearly_the_same_and_not_the_same():
    model, x = started(method_of()).eval().requires_grad_(False), 50 * images(3)
    exact, half = (FCDDMap(in_precision(model, kind)).score(Batch(x)) for kind in ("float32", "bfloat16"))
    assert half.dtype == torch.float32
    assert not torch.equal(exact, half)
    torch.testing.assert_close(exact, half, rtol=0, atol=0.05 * exact.max().item())


def test_image_loss_by_hand_is_that_of_the_hypersphere_classifier_of_the_mean():
    # Maps with means 0.5 and 1.5: h for a normal, -log(1 - exp(-h)) for an anomaly.
    maps = torch.tensor([[[0.2, 0.8]], [[1.0, 2.0]], [[1.0, 2.0]]])
    means = mean_of(maps)
    assert means.tolist() == [0.5, 1.5, 1.5]
    found = image_losses(means, torch.tensor([False, False, True]))
    assert found.tolist() == pytest.approx([0.5, 1.5, -math.log(1 - math.exp(-1.5))], abs=1e-5)
    # Cross entropy of p = exp(-h), the probability of a normal.
    p = torch.exp(-means)
    entropy = torch.nn.functional.binary_cross_entropy(p, torch.tensor([1.0, 1.0, 0.0]), reduction="none")
    torch.testing.assert_close(found, entropy, atol=1e-5, rtol=1e-5)
    # Finite, with its derivative, where a map is 0.
    nothing = torch.zeros(2, requires_grad=True)
    image_losses(nothing, torch.tensor([True, True])).sum().backward()
    assert torch.isfinite(nothing.grad).all()


def test_pixel_loss_by_hand_and_at_both_ends_the_image_loss():
    maps = torch.tensor([[[0.4, 1.0, 0.6], [2.0, 0.0, 3.2]]])
    truth = torch.tensor([[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]])
    # Both means are over all 6 pixels: 4.2 / 6 outside, 3 / 6 inside.
    assert pixel_losses(maps, truth).item() == pytest.approx(0.7 - math.log(1 - math.exp(-0.5)), abs=1e-5)
    maps = torch.rand(4, 5, 7, generator=draws())
    for abnormal in (False, True):
        found = pixel_losses(maps, torch.full_like(maps, float(abnormal)))
        torch.testing.assert_close(found, image_losses(mean_of(maps), torch.full((4,), abnormal)))


@pytest.mark.parametrize("label", [-1, 0, 1])
def test_a_batch_of_one_label_has_that_labels_loss(label):
    # The released code would give all the normals' loss.
    method = method_of(anomalies="none", eta=1.7)
    x = images(6)
    mixed = torch.cat([x, torch.tensor([[-1.0], *[[0.0]] * 5])], 1)
    model = started(method, rows=mixed).eval()
    rows = torch.cat([x, torch.full((6, 1), float(label))], 1)
    found = method.loss(model, rows, 1, draws())["loss"]
    means = mean_of(model.heatmap(x))
    expected = means if label >= 0 else -torch.log(1 - torch.exp(-means))
    expected = expected.mean() * (1.7 if label else 1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    found.backward()
    assert any(weight.grad.any() for weight in model.parameters())
    one = method.loss(model.train(), rows[:1], 1, draws())["loss"]
    assert torch.isfinite(one)


def test_rows_may_end_with_a_map_of_the_anomaly():
    method = method_of(anomalies="none", loss="pixel")
    truth = torch.zeros(3, *SHAPE[1:])
    truth[1, 3:9, 4:8] = 1
    rows = torch.cat([images(3), truth.flatten(1), torch.tensor([[0.0], [-1.0], [1.0]])], 1)
    model = started(method, rows=rows).eval()
    samples = model.split(rows)
    assert torch.equal(samples.truth, truth)
    assert samples.labels.tolist() == [0, -1, 1]
    maps = model.upsampled(model.heatmap(samples.x))
    found = method.loss(model, rows, 1, draws())["loss"]
    torch.testing.assert_close(found, pixel_losses(maps, truth).mean())
    # Without a map, all of a labelled anomaly counts.
    whole = method.loss(model, torch.cat([rows[:, : math.prod(SHAPE)], rows[:, -1:]], 1), 1, draws())["loss"]
    truth[1] = 1
    torch.testing.assert_close(whole, pixel_losses(maps, truth).mean())


@pytest.mark.parametrize("kind", ["confetti", "lesions"])
def test_about_half_of_a_batch_gets_an_anomaly_and_labelled_ones_none(kind):
    method = method_of(anomalies=kind)
    model, x = started(method), images(400)
    rows = torch.cat([x, torch.zeros(400, 1)], 1)
    rows[:100, -1] = -1
    seen = []
    method.losses = lambda model, maps, samples: seen.append(samples) or maps.flatten(1).mean(1)
    method.loss(model, rows, 1, draws(2))
    (samples,) = seen
    changed = (samples.x != x).any(1)
    assert not changed[:100].any()
    # Labelled ones count: in all, half of the batch are anomalies.
    assert (samples.labels < 0).float().mean() == pytest.approx(0.5, abs=0.06)
    assert torch.equal(samples.labels < 0, changed | (torch.arange(400) < 100))
    where = samples.truth.flatten(1).bool()
    assert where[:100].all()
    assert torch.equal(where[100:].any(1), changed[100:])
    assert not where[100:].all(1).any()
    method.settings = replace(method.settings, truth="whole")
    method.loss(model, rows, 1, draws(2))
    assert torch.equal(seen[1].truth.flatten(1).bool().all(1), seen[1].labels < 0)
    rows[:200, -1] = -1
    method.loss(model, rows, 1, draws(2))
    assert torch.equal(seen[2].x, x)


def test_validation_sees_each_sample_with_and_without_an_anomaly():
    method = method_of(anomalies="lesions")
    model, x = started(method).eval(), images(10)
    first, second = (method.validate(model, x.split(4), draws(3)) for _ in range(2))
    assert first == second
    assert first["normal"] == pytest.approx(mean_of(model.heatmap(x)).mean().item(), rel=1e-5)
    normal = image_losses(mean_of(model.heatmap(x)), torch.zeros(10, dtype=torch.bool)).mean().item()
    assert first["loss"] > normal / 2
    assert set(first) == {"loss", "normal", "abnormal"}


def test_settings_and_rows_are_refused_in_words():
    for wrong, words in (
        ({"share": 1.0}, "share=1.0: must lie between 0 and 1, both left out"),
        ({"anomalies": "patches"}, "anomalies='patches' is none of confetti, lesions, none"),
        ({"network": "resnet"}, "network='resnet' is none of auto, cnn28, cnn32, cnn128, vgg11"),
        ({"filters": (0, 3)}, "at most 16 layers of 1 to"),
        ({"sigma": 0.0}, "sigma=0.0: must lie between"),
    ):
        with pytest.raises(SettingsError, match=words):
            FCDDSettings(**wrong)
    with pytest.raises(SettingsError, match="a network that sees normal samples alone learns a constant"):
        started(method_of(anomalies="none"))
    with pytest.raises(SettingsError, match="all 4 training samples are labelled anomalies"):
        started(method_of(), rows=torch.cat([images(4), -torch.ones(4, 1)], 1))
    with pytest.raises(SettingsError, match=r"must end with -1 .* numbers from 2 to 2"):
        started(method_of(), rows=torch.cat([images(4), 2 * torch.ones(4, 1)], 1))
    with pytest.raises(SettingsError, match=r"rows of 7 values: .* has 920, with a label 921, .* label 1381"):
        started(method_of()).split(torch.zeros(2, 7))
    with pytest.raises(SettingsError, match="not 0 axes of space; choose deep_svdd or hsc for voxels"):
        mn.fit_voxels(np.ones((60, 5)), settings=fit_settings({"method": "fcdd"}, where="here"))
    with pytest.raises(SettingsError, match="fcdd_map: needs a map that the network itself gives"):
        fit_settings_checked({"method": "deep_svdd", "scores": ["fcdd_map"]})


def fit_settings_checked(tree):
    from mednovelty.detector import checked_settings

    return checked_settings(fit_settings(tree, where="here", recipe="slices"), "slices")


def test_a_blind_network_says_so():
    method = method_of()
    model = started(method).eval()
    with torch.no_grad():
        model.network.layers[-1].weight.zero_()
    rows = table(images(8))
    said = method.assess(model, rows, rows, draws())
    assert said["collapsed"]
    assert said["auroc"] == 0.5
    assert "does not even find anomalies like those it was trained with (confetti)" in said["verdict"]
    assert (said["receptive_field"], said["stride"], said["sigma"]) == (16, 4, 1.2)


def with_blob(scan):
    """Return a scan with a bright ball in its FLAIR, and where it is."""
    i, j, k = np.indices(scan.grid.shape)
    blob = ((i - 8) / 3) ** 2 + ((j - 13) / 4) ** 2 + ((k - 6) / 2.5) ** 2 < 1
    data = scan.box((slice(0, 20), slice(0, 24), slice(0, 14)))
    data[0] += 60 * (blob & scan.mask)
    found = Scan.of(Volume(data, scan.grid.affine, "sub-9"), scan.mask)
    return Scan(**{n: getattr(found, n) for n in found.__slots__} | {"contrasts": scan.contrasts}), blob


@pytest.mark.parametrize(
    ("recipe", "anomalies", "scans", "epochs", "view"),
    [
        ("slices", "lesions", 4, 12, {"size": [24, 28]}),
        pytest.param(
            "patches",
            "confetti",
            10,
            28,
            {"size": [12, 12, 12], "overlap": 0.8, "min_brain": 0.05},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_detector_maps_a_planted_blob(recipe, anomalies, scans, epochs, view, tmp_path):
    how = {
        "max_epochs": epochs,
        "patience": 40,
        "plateau_patience": 40,
        "batch_size": 8,
        "learning_rate": 1e-2,
    }
    tree = {
        "method": "fcdd",
        "method_settings": {"network": "cnn28", "filters": [8, 8], "anomalies": anomalies, "loss": "pixel"},
        "train": how,
        "view_settings": view,
    }
    settings = fit_settings(tree, where="test", recipe=recipe)
    assert settings.scores == ("fcdd_map", "fcdd")
    detector = Detector.fit([scan_of(n) for n in range(10, 10 + scans)], recipe=recipe, settings=settings)
    assert not detector.fitted.summary["collapsed"], detector.fitted.summary["verdict"]
    healthy = scan_of(7)
    patient, blob = with_blob(healthy)
    before, after = (detector.score(scan)["fcdd_map"].volume.data[0] for scan in (healthy, patient))
    brain = patient.mask & ~blob
    assert after[blob].mean() > 2 * after[brain].mean()
    assert after[blob].mean() > 2 * before[blob].mean()
    detector.save(tmp_path / "model")
    again = Detector.load(tmp_path / "model")
    kept = again.score(patient)
    for name, found in detector.score(patient).items():
        np.testing.assert_array_equal(found.volume.data, kept[name].volume.data, err_msg=name)
    assert "receptive_field" in again.fitted.summary
