"""The method: its model, calibration and schedule, classes, detectors of voxels and of slices."""

import math
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from cohorts import FAST
from small_images import SIZES, TINY, scan_of
from test_methods import CHANNELS, voxels

from mednovelty.batch import Batch
from mednovelty.console import epoch_line
from mednovelty.detector import Detector
from mednovelty.errors import ScanError, SettingsError
from mednovelty.methods.hyperspherical import (
    PAPER_TRAINING,
    RELEASED,
    HypersphericalMethod,
    HypersphericalSettings,
    calibrated,
    labelled,
)
from mednovelty.methods.hyperspherical_assessment import assess
from mednovelty.methods.hyperspherical_loss import annealed, cartesian, divergence, shell
from mednovelty.methods.hyperspherical_scores import HypersphericalKNN
from mednovelty.model_folder import fit_settings
from mednovelty.nn.augmentation import Augmentation
from mednovelty.plugins import plugin
from mednovelty.reference import Reference, part_widths
from mednovelty.schedule import TrainSettings
from mednovelty.seeds import generator
from mednovelty.testing.contracts import SCORER_CHECKS
from mednovelty.train import train
from mednovelty.voxel_cache import VoxelCache
from mednovelty.voxel_fitting import fit_voxels

SHAPE = (2, 7, 10)
SMALL = HypersphericalSettings(widths=(2, 3), hidden=(9, 8), latent=5)


def made(shape=SHAPE, settings=SMALL, n=40):
    """Return a method, its model as training starts, and samples of two kinds."""
    method = HypersphericalMethod(settings)
    model = method.build(shape)
    x = np.random.default_rng(0).normal(size=(n, math.prod(shape))) * 0.4
    x[: n // 2] += np.linspace(-2, 2, x.shape[1])
    normals = VoxelCache(x.shape[1], shape=shape)
    normals.append("scan", x)
    if settings.classes:
        normals = labelled(x.astype(np.float32), np.arange(n) % settings.classes, shape)
    method.start(model, normals, generator(0, "start"))
    return method, model, normals


def test_voxels_get_a_dense_network_and_images_a_residual_one():
    assert type(made((6,))[1].encoder).__name__ == "GaussianMLP"
    assert type(made()[1].encoder).__name__ == "ResidualEncoder"
    assert type(made((2, 4, 5, 6))[1].encoder).__name__ == "ResidualEncoder"
    assert type(made(settings=replace(SMALL, network="dense"))[1].encoder).__name__ == "GaussianMLP"
    open_ = HypersphericalSettings()
    assert (open_.latent_for((33,)), open_.latent_for((1, 28, 28))) == (16, 128)


@pytest.mark.parametrize("shape", [(6,), SHAPE])
def test_scores_see_evaluation_mode_whatever_the_mode_is(shape):
    method, model, normals = made(shape)
    x = torch.from_numpy(normals.array())
    method.loss(model, x, 1, generator(0, "loss"))
    assert model.training
    before = {name: value.clone() for name, value in model.state_dict().items()}
    there = model.encode(x)
    alone = torch.cat([model.encode(row[None]).mean for row in x])
    torch.testing.assert_close(there.mean, alone, rtol=1e-4, atol=1e-5)
    image = model.decode(there.mean).mean
    assert model.training
    assert all(part.training for part in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    assert torch.equal(model.encode(x).mean, there.mean)
    assert torch.equal(model.decode(there.mean).mean, image)


def test_what_is_decoded_lies_on_the_sphere():
    _, model, _ = made()
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    there = model.decode(z).mean
    torch.testing.assert_close(model.decode(7 * z).mean, there)
    model.eval()
    on_it = math.sqrt(5) * torch.nn.functional.normalize(z, dim=1)
    torch.testing.assert_close(model.decoder(on_it), there)
    for change in ({"normalise": False}, {"coordinates": "cartesian"}):
        _, free, _ = made(settings=replace(SMALL, **change))
        assert not torch.allclose(free.decode(7 * z).mean, free.decode(z).mean, atol=1e-3)


def test_the_likelihood_is_the_squared_error_and_a_constant():
    _, model, normals = made((6,))
    x = torch.from_numpy(normals.array())[:5]
    assert (model.spread != 1).all()
    likelihood = model.decode(model.encode(x).mean)
    constant = 6 * 0.5 * math.log(math.pi) + model.spread.log().sum()
    torch.testing.assert_close(-likelihood.log_prob(x), model.errors(x, likelihood.mean) + constant)


def test_sigma_is_half_the_log_variance_within_limits():
    _, model, normals = made(settings=replace(SMALL, log_sigma_floor=-0.01, log_sigma_ceiling=0.002))
    x = torch.from_numpy(normals.array())
    model.eval()
    _, log_variance = model.encoder(x)
    _, log_sigma = model.posterior(x)
    torch.testing.assert_close(log_sigma, (log_variance / 2).clamp(-0.01, 0.002))
    assert log_sigma.min().item() == pytest.approx(-0.01)
    assert model.encode(x).stddev.log().max().item() == pytest.approx(0.002, abs=1e-6)


def test_the_prior_is_at_the_pole_where_there_is_one():
    pole = torch.tensor([shell(5), 0, 0, 0, 0])
    assert torch.equal(made()[1].prior.mean, pole)
    for change in ({"compressed": 0}, {"coordinates": "cartesian"}, {"classes": 2, "class_spacing": 2}):
        assert torch.equal(made(settings=replace(SMALL, **change))[1].prior.mean, torch.zeros(5)), change
    assert (made()[1].prior.stddev == 1).all()


def test_the_loss_is_its_terms_with_noise_in_cartesian_coordinates():
    method, model, normals = made()
    x = torch.from_numpy(normals.array())
    found = method.loss(model, x, 1, generator(3, "noise"))
    mean, log_sigma = model.posterior(x)
    noise = torch.randn(mean.shape, generator=generator(3, "noise"))
    image = model.sample(mean + log_sigma.exp() * noise)
    torch.testing.assert_close(found["reconstruction"], (x - image).square().sum(1).mean())
    torch.testing.assert_close(found["kl"], divergence(mean, log_sigma.exp(), SMALL).total(SMALL))
    torch.testing.assert_close(found["loss"], found["reconstruction"] + found["kl"])
    usual, model, _ = made(settings=replace(SMALL, coordinates="cartesian", cartesian_weight=0.3))
    found = usual.loss(model, x, 7, generator(3, "noise"))
    mean, log_sigma = model.posterior(x)
    torch.testing.assert_close(found["kl"], cartesian(mean, log_sigma.exp()))
    torch.testing.assert_close(found["loss"], found["reconstruction"] + 0.3 * found["kl"])


def test_beta_is_measured_in_the_first_epoch_and_kept():
    method, model, normals = made()
    x = torch.from_numpy(normals.array())
    batches = [x[:25], x[25:]]
    first = [method.loss(model, batch, 1, generator(i, "noise")) for i, batch in enumerate(batches)]
    rec, kl = (
        sum(len(b) * terms[name].item() for b, terms in zip(batches, first, strict=True)) / 40
        for name in ("reconstruction", "kl")
    )
    expected = 2500 * rec / (kl + 1e-3)
    assert calibrated(2500.0, *model.first_epoch).item() == pytest.approx(expected, rel=1e-5)
    for epoch in (2, 5):
        terms = method.loss(model, x, epoch, generator(9, "noise"))
        weight = (terms["loss"] - terms["reconstruction"]) / terms["kl"]
        assert weight.item() == pytest.approx(expected * annealed(SMALL, epoch), rel=1e-4)
    fixed = HypersphericalMethod(replace(SMALL, calibrate=False, beta=0.25))
    assert [fixed.weight(model, epoch) for epoch in (1, 5)] == [0.25, 0.75]


def test_where_both_terms_fall_so_does_the_loss_from_the_start_on():
    method, model, normals = made()
    how = TrainSettings(batch_size=8, max_epochs=6, patience=7, validation_voxels=40, gradient_clip=None)
    rows = [row.validation for row in train(method, model, normals, normals, how).rows]
    for before, after in pairwise(rows):
        fell = [after[name] < before[name] for name in ("reconstruction", "kl")]
        if all(fell) or not any(fell):
            assert (after["loss"] < before["loss"]) == fell[0]


def test_progress_calls_the_loss_no_elbo():
    method, model, normals = made((6,))
    how = TrainSettings(batch_size=10, max_epochs=1, validation_voxels=40)
    record = train(method, model, normals, normals, how)
    assert f"epoch 1/1  loss {record.losses[-1]:.4g}  reconstruction" in epoch_line(record, 1)
    assert "ELBO" not in epoch_line(record, 1)


def test_validation_takes_all_batches_as_one_and_no_annealing():
    method, model, normals = made()
    x = torch.from_numpy(normals.array())
    before = method.validate(model, [x], generator(1, "v"))
    # The samples calibrate: loss = reconstruction + 2500 reconstruction.
    assert before["loss"] == pytest.approx(2501 * before["reconstruction"], rel=1e-4)
    assert not model.first_epoch.any()
    beta = 2500 * before["reconstruction"] / (before["kl"] + 1e-3)
    method.loss(model, x, 1, generator(0, "noise"))
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(0.7)
    after = method.validate(model, [x], generator(1, "v"))
    # What was calibrated is kept: epochs are compared by one yardstick.
    assert after["loss"] == pytest.approx(after["reconstruction"] + beta * after["kl"], rel=1e-4)
    assert after["kl"] != pytest.approx(before["kl"], rel=0.01)
    split = method.validate(model, [x[:39], x[39:]], generator(1, "v"))
    assert split["kl"] == pytest.approx(after["kl"], rel=1e-4)
    posterior = model.encode(x)
    parts = divergence(posterior.mean, posterior.stddev, SMALL)
    assert after["mu_radius"] == pytest.approx(parts.mu_radius.item(), rel=1e-4)


def test_classes_end_the_rows_and_only_the_loss_looks_at_them():
    settings = replace(SMALL, classes=2, class_spacing=3)
    method, model, normals = made(settings=settings)
    rows = torch.from_numpy(normals.array())
    x, labels = model.split(rows)
    assert x.shape == (40, 140)
    assert labels.tolist() == [0, 1] * 20
    found = method.loss(model, rows, 1, generator(0, "noise"))
    mean, log_sigma = model.posterior(x)
    expected = divergence(mean, log_sigma.exp(), settings, labels=labels).total(settings)
    torch.testing.assert_close(found["kl"], expected)
    swapped = torch.cat([rows[:, :-1], 1 - rows[:, -1:]], dim=1)
    assert method.loss(model, swapped, 1, generator(0, "noise"))["mu_angles"] != found["mu_angles"]
    assert np.isfinite(method.validate(model, [rows], generator(0, "v"))["loss"])
    assert method.assess(model, normals, normals, generator(0, "assess"))["samples"] == 40


def test_wrong_labels_and_rows_are_refused():
    settings = replace(SMALL, classes=2, class_spacing=3)
    method, model, normals = made(settings=settings)
    with pytest.raises(
        SettingsError, match=r"rows of 140 values: with classes=2 .* \(2, 7, 10\) has 141, the"
    ):
        method.loss(model, torch.zeros(3, 140), 1, generator(0, "noise"))
    x = normals.array()[:, :-1]
    with pytest.raises(
        SettingsError, match="end with a class of 0 to 1, but some end with numbers from 0 to 2"
    ):
        method.start(model, labelled(x, np.arange(40) % 3, SHAPE), generator(0, "start"))
    with pytest.raises(SettingsError, match="whole numbers from 0, not int64 from -1"):
        labelled(x, np.full(40, -1))
    with pytest.raises(SettingsError, match=r"not \(40, 140\) and \(39,\)"):
        labelled(x, np.zeros(39, int))
    with pytest.raises(SettingsError, match="a batch of 1 sample has no statistics"):
        made()[0].loss(made()[1], torch.zeros(1, 140), 1, generator(0, "noise"))


def test_training_resumes_with_the_calibration_it_had(tmp_path):
    whole = TrainSettings(batch_size=10, max_epochs=4, patience=9, validation_voxels=40)
    method, straight, normals = made((6,))
    record = train(method, straight, normals, normals, whole, seed=2)
    first = replace(whole, max_epochs=2)
    _, again, _ = made((6,))
    train(method, again, normals, normals, first, seed=2, folder=tmp_path)
    _, resumed, _ = made((6,))
    continued = train(method, resumed, normals, normals, whole, seed=2, folder=tmp_path, resume=True)
    assert continued.losses == record.losses
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def trained(compressed):
    """Return what is said of a model before and after it was trained on two groups of voxels."""
    method, model, normals = made((6,), replace(SMALL, latent=4, beta=20.0, compressed=compressed), n=400)
    how = TrainSettings(batch_size=50, learning_rate=5e-3, max_epochs=25, patience=99, validation_voxels=400)
    before = assess(model, normals, normals, generator=generator(0, "assess"))
    train(method, model, normals, normals, how)
    return before, assess(model, normals, normals, generator=generator(0, "assess"))


def test_training_compresses_and_reconstructs():
    before, after = trained(None)
    assert before.collapsed
    assert before.verdict.startswith("WARNING: the hyperspherical VAE does no better than")
    assert not after.collapsed
    assert "% of the mean training sample's error" in after.verdict
    assert after.radius == pytest.approx(shell(4), rel=0.1)
    _, free = trained(0)
    assert after.first_cosine > free.first_cosine + 0.3


def test_the_score_is_the_mean_distance_to_three_normals():
    _, model, normals = made((6,))
    model.eval().requires_grad_(False)
    x = torch.from_numpy(normals.array())
    reference = Reference.of(model, x[:30], ["latent_mean"])
    mean, others = model.encode(x[30:]).mean.double(), model.encode(x[:30]).mean.double()
    distances = torch.cdist(mean, others).sort(dim=1).values
    for k in (1, 3, 30, 31):
        found = HypersphericalKNN(model, reference, knn=k).score(Batch(x[30:]))
        torch.testing.assert_close(found.double(), distances[:, :k].mean(1), rtol=1e-4, atol=1e-5)
    default = HypersphericalKNN(model, reference).score(Batch(x[30:]))
    torch.testing.assert_close(default.double(), distances[:, :3].mean(1), rtol=1e-4, atol=1e-5)
    with pytest.raises(SettingsError, match="knn=0"):
        HypersphericalKNN(model, reference, knn=0)


@pytest.mark.parametrize("name", ["hyperspherical_knn", "vae_regularizer", "reconstruction_likelihood"])
@pytest.mark.parametrize("check", SCORER_CHECKS, ids=lambda check: check.__name__)
def test_scores_of_this_model_keep_the_contract(name, check):
    method, model, normals = made()
    x = torch.from_numpy(normals.array())
    method.loss(model, x, 1, generator(0, "loss"))  # Moves the running statistics.
    model.eval().requires_grad_(False)
    kind = plugin("scorers", name)
    parts = {"model": model, "reference": Reference.of(model, x[:30], part_widths(1, 1))}
    check(kind(**{need: parts[need] for need in kind.needs}), Batch, x[30:35])


def test_a_detector_of_voxels(tmp_path):
    settings = replace(
        FAST,
        method="hyperspherical",
        method_settings=replace(SMALL, latent=3),
        scores=("hyperspherical_knn", "reconstruction_error"),
    )
    detector = fit_voxels(voxels(), scans=np.arange(600) // 200, settings=settings)
    detector.save(tmp_path)
    again, x = Detector.load(tmp_path), voxels(50, seed=2)
    found = detector.score_voxels(x)
    for name, scores in found.items():
        np.testing.assert_array_equal(scores, again.score_voxels(x)[name], err_msg=name)
    far = detector.score_voxels(x + 40)["hyperspherical_knn"]
    assert far.shape == (50,)
    assert np.isfinite(far).all()
    assert x.shape[1] == CHANNELS


def test_a_detector_of_slices(tmp_path):
    tree = TINY | {
        "view_settings": {"size": SIZES["slices"]},
        "method": "hyperspherical",
        "method_settings": {"widths": [2, 3], "latent": 5},
        "scores": ["hyperspherical_knn", "rec_error"],
    }
    tree["train"] = dict(tree["train"]) | {"max_epochs": 1}
    settings = fit_settings(tree, where="test", recipe="slices")
    detector = Detector.fit([scan_of(n) for n in (1, 2, 3)], recipe="slices", settings=settings)
    detector.save(tmp_path)
    again = Detector.load(tmp_path)
    for name, value in detector.fitted.model.state_dict().items():
        assert torch.equal(value, again.fitted.model.state_dict()[name]), name
    maps = again.score(scan_of(4))
    assert set(maps) == {"hyperspherical_knn", "rec_error"}
    for found in maps.values():
        assert np.isfinite(found.data).all()


def test_the_released_preset_is_that_without_labels():
    found = fit_settings({"method": "hyperspherical", "preset": "released"}, where="test", recipe="slices")
    assert found.method_settings == replace(RELEASED, classes=0)
    assert found.train == PAPER_TRAINING
    assert found.preprocessors == ("unit_range",)


def test_how_many_neighbours_is_a_setting_of_scoring(tmp_path):
    from mednovelty.voxel_fitting import fit_voxels

    _, _, normals = made((6,))
    x = normals.array()
    settings = fit_settings(
        {"method": "hyperspherical", "scores": ["hyperspherical_knn"], "train": {"max_epochs": 1}, "knn": 5},
        where="test",
    )
    detector = fit_voxels(x, settings=settings)
    means = detector.reference.parts["latent_mean"].double()
    own = detector.model.encode(torch.from_numpy(x[:20])).mean.double()
    distances = torch.cdist(own, means).sort(dim=1).values
    for asked, k in ((detector, 5), (detector.with_scoring({"knn": 2}), 2)):
        found = asked.score_voxels(x[:20])["hyperspherical_knn"]
        np.testing.assert_allclose(found, distances[:, :k].mean(1), rtol=1e-3, atol=1e-4)
        asked.save(tmp_path / str(k))
        np.testing.assert_array_equal(
            Detector.load(tmp_path / str(k)).score_voxels(x[:20])["hyperspherical_knn"], found
        )
    with pytest.raises(SettingsError, match="knn must be at least 1"):
        detector.with_scoring({"knn": 0})


def test_labelled_voxels_make_a_detector_that_scores_voxels(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 900)
    x = (rng.normal(size=(900, 6)) + 4 * np.eye(6)[labels]).astype(np.float32)
    tree = {
        "method": "hyperspherical",
        "method_settings": {"classes": 3, "latent": 8, "hidden": [16], "class_spacing": 2},
        "train": {"max_epochs": 2},
        "reference_bytes": 6000,
        "scores": ["hyperspherical_knn", "nearest_normal"],
    }
    for reference in ("even", "coreset"):
        settings = fit_settings(tree | {"reference": reference}, where="test")
        detector = fit_voxels(x, labels=labels, scans=np.arange(900) // 300, settings=settings)
        assert detector.reference.parts["input"].shape[1] == 6
        found = detector.save(tmp_path / reference).score_voxels(x[:20])
        again = Detector.load(tmp_path / reference).score_voxels(x[:20])
        assert all(np.array_equal(found[name], again[name]) for name in found)


@pytest.mark.parametrize(
    ("classes", "labels", "error", "words"),
    [
        (
            0,
            np.zeros(40, int),
            SettingsError,
            "method hyperspherical has no classes; set method_settings.classes",
        ),
        (2, None, SettingsError, "method_settings.classes=2, and no voxel's class was given; pass labels"),
        (2, np.zeros(39, int), ScanError, r"labels must be \(40,\), one a voxel, got \(39,\)"),
        (2, np.full(40, 2), ScanError, "whole numbers from 0 to 1, got int64 from 2 to 2"),
        (2, np.full(40, -1), ScanError, "whole numbers from 0 to 1, got int64 from -1 to -1"),
        (2, np.zeros(40), ScanError, "whole numbers from 0 to 1, got float64"),
        (2, np.full(40, "a"), ScanError, "whole numbers from 0 to 1, got <U1"),
    ],
)
def test_words_of_labels_that_do_not_fit(classes, labels, error, words):
    own = {"classes": classes, "class_spacing": 3}
    tree = {"method": "hyperspherical", "method_settings": own}
    with pytest.raises(error, match=words):
        fit_voxels(voxels(40), labels=labels, settings=fit_settings(tree, where="test"))


def test_the_method_brings_its_own_score_and_training():
    of_voxels = fit_settings({"method": "hyperspherical"}, where="test")
    of_slices = fit_settings({"method": "hyperspherical"}, where="test", recipe="slices")
    assert "hyperspherical_knn" in of_voxels.scores
    assert {"hyperspherical_knn", "rec_error"} <= set(of_slices.scores)
    assert of_slices.train == PAPER_TRAINING


def test_images_are_augmented_where_asked():
    plain, model, normals = made()
    x = torch.from_numpy(normals.array())
    mirrored = HypersphericalMethod(
        replace(
            SMALL, augmentation=Augmentation(rotation_rad=0, scale=(1, 1), brightness=(1, 1), noise_sigma=0)
        )
    )
    there, here = (m.loss(model, x, 1, generator(0, "n"))["kl"] for m in (plain, mirrored))
    assert there != here


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latent": 1}, "latent=1: a sphere has at least 2 dimensions"),
        ({"compressed": 5}, "compressed=5: of 5 latents there are 4 angles"),
        ({"classes": 2}, "classes=2 with poles 10 axes apart do not fit 5 latents; give more than 10"),
        ({"network": "deep"}, "network='deep' is none of 'auto', 'residual', 'dense'"),
        ({"annealing": "linear"}, "annealing='linear' is none of"),
        ({"widths": ()}, r"widths=\(\): 1 to 16 layers"),
        ({"beta": -1.0}, "beta=-1.0: must be finite and not negative"),
        ({"sigma_scale": 0.0}, "sigma_scale=0.0: must be finite and positive"),
        ({"anneal_epochs": 0}, "anneal_epochs=0, classes=0, class_spacing=10: at least"),
        ({"log_sigma_floor": 20.0}, "the first must be the smaller"),
    ],
)
def test_settings_that_cannot_be_meant(change, words):
    with pytest.raises(SettingsError, match=words):
        replace(SMALL, **change)


def test_the_released_settings():
    assert (RELEASED.latent, RELEASED.classes, RELEASED.sigma_epsilon, RELEASED.output) == (
        128, 10, 1e-3, "sigmoid",
    )  # fmt: skip
    gains = [asdict(RELEASED)[name] for name in asdict(RELEASED) if name.endswith("_gain")]
    assert gains == [1000, 300, 500_000, 500, 0.05]
    assert replace(RELEASED, compressed=1).compressed == 1
