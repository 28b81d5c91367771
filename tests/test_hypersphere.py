"""Deep SVDD, Deep SAD, hypersphere classification: losses by hand, the start, collapse, labels, detectors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy

import mednovelty as mn
from mednovelty.detector import Detector
from mednovelty.errors import ScanError, SettingsError
from mednovelty.methods.hypersphere import (
    DeepSADMethod,
    DeepSADSettings,
    DeepSVDDMethod,
    DeepSVDDSettings,
    HSCMethod,
    HSCSettings,
    away_from_zero,
    outside,
    radius_of,
    soft_boundary,
)
from mednovelty.methods.hypersphere_model import NORMS, pseudo_huber
from mednovelty.methods.hypersphere_pretraining import Pretrained, PretrainingMethod
from mednovelty.methods.hypersphere_settings import PAPER_TRAINING
from mednovelty.model_folder import fit_settings
from mednovelty.schedule import learning_rate
from mednovelty.train import TrainSettings, train
from mednovelty.voxel_cache import VoxelCache

CHANNELS = 5
SMALL = {"hidden": (8, 6), "latent": 3, "pretrain_epochs": 0}
HOW = TrainSettings(batch_size=128, max_epochs=3, validation_voxels=100, min_improvement=1e-9)


def voxels(n=600, seed=0):
    random = np.random.default_rng(seed)
    level = random.uniform(-2, 2, (n, 2)) @ np.random.default_rng(9).normal(size=(2, CHANNELS))
    return (4 + level + 0.1 * random.normal(size=(n, CHANNELS))).astype(np.float32)


def anomalies(n=60, seed=5):
    # Off the plane on which the normals lie, but not further from their mean.
    random = np.random.default_rng(seed)
    axis = np.linalg.svd(np.random.default_rng(9).normal(size=(2, CHANNELS)))[2][3]
    return (voxels(n, seed) + 1.5 * random.choice([-1, 1], (n, 1)) * axis).astype(np.float32)


def table(x, labels=None):
    if labels is None:
        return VoxelCache.from_array(x)
    cache = VoxelCache(x.shape[1] + 1, shape=(x.shape[1],))
    cache.append("scan", np.column_stack([x, labels]))
    return cache


def started(method, rows=None, seed=0):
    model = method.build((CHANNELS,))
    method.start(model, rows or table(voxels()), torch.Generator().manual_seed(seed))
    return model


def trained(method, rows, held_out=None, how=HOW, seed=3):
    model = method.build((CHANNELS,))
    record = train(method, model, rows, held_out or table(voxels(200, 1)), how, seed=seed)
    return model, record


def linear(method):
    """Return a model whose network is linear: z = A x."""
    model = started(method)
    model.encoder = torch.nn.Linear(CHANNELS, 3, bias=False)
    model.shift.zero_()
    model.spread.fill_(1)
    model.centre.copy_(torch.tensor([0.7, -0.4, 0.2]))
    return model


def of_loss(method, model, rows):
    loss = method.loss(model, rows, 99, torch.Generator())["loss"]
    return loss, torch.autograd.grad(loss, model.encoder.weight)[0]


def test_equation_2_11_of_a_linear_network_has_the_gradient_in_closed_form():
    method = DeepSVDDMethod(DeepSVDDSettings(**SMALL))
    model, x = linear(method), torch.from_numpy(voxels(7))
    residual = x @ model.encoder.weight.T - model.centre
    loss, gradient = of_loss(method, model, x)
    torch.testing.assert_close(loss, residual.square().sum() / 7)
    torch.testing.assert_close(gradient, 2 / 7 * residual.T @ x)


def test_equation_2_10_counts_only_what_is_outside():
    method = DeepSVDDMethod(DeepSVDDSettings(**SMALL, objective="soft_boundary", nu=0.25, radius_epochs=7))
    model, x = linear(method), torch.from_numpy(voxels(8))
    residual = x @ model.encoder.weight.T - model.centre
    distances = residual.square().sum(1).detach()
    model.radius.copy_(distances.sort().values[4:6].mean().sqrt())
    beyond = distances > model.radius.square()
    assert beyond.sum() == 3
    loss, gradient = of_loss(method, model, x)
    square = model.radius.square()
    torch.testing.assert_close(loss, square + (distances[beyond] - square).sum() / (8 * 0.25))
    torch.testing.assert_close(gradient, 2 / (8 * 0.25) * residual[beyond].T @ x[beyond])


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 20))
def test_proposition_4_the_share_outside_is_at_most_nu_and_with_the_boundary_at_least(values, twentieths):
    # Whole numbers squared: their roots, squared again, are themselves.
    distances, nu = torch.tensor(values).float().square(), twentieths / 20
    square = radius_of(distances, nu).square()
    outer, with_boundary = (distances > square).sum().item(), (distances >= square).sum().item()
    assert outer <= nu * len(values) * (1 + 1e-9)
    assert with_boundary >= nu * len(values) * (1 - 1e-9)
    objective = [
        soft_boundary(distances, torch.tensor(radius).float(), nu).mean().item() for radius in {0, *values}
    ]
    found = soft_boundary(distances, square.sqrt(), nu).mean().item()
    assert found <= min(objective) * (1 + 1e-5) + 1e-5


def test_the_radius_is_0_while_warming_up_and_then_a_quantile_of_the_batch_or_of_the_epoch():
    settings = DeepSVDDSettings(**SMALL, objective="soft_boundary", nu=0.2, warm_up=2)
    x = torch.from_numpy(voxels(64))
    for epochs in (0, 2):
        method = DeepSVDDMethod(replace(settings, radius_epochs=epochs))
        model = started(method).train()
        seen = []
        for epoch in (1, 2, 3, 4, 5):
            for part in x.split(32):
                distances = model.distances(model.encode(part).mean).detach()
                method.loss(model, part, epoch, torch.Generator())
                seen.append(radius_of(distances, 0.2).item())
            both = radius_of(model.distances(torch.cat([model.encode(p).mean for p in x.split(32)])), 0.2)
            method.validate(model, [x], torch.Generator())
            if epoch <= 2:
                assert model.radius == 0
            elif not epochs:
                assert model.radius.item() == pytest.approx(seen[-1], rel=1e-6)
            elif epoch >= 4:  # Of epoch 4; in 3 and 5 nothing is found.
                assert model.radius.item() == pytest.approx(both.item(), rel=1e-6)
            else:
                assert model.radius == 0


def test_soft_boundary_leaves_about_nu_of_the_training_samples_outside():
    settings = DeepSVDDSettings(**SMALL, objective="soft_boundary", nu=0.2, warm_up=2)
    method = DeepSVDDMethod(settings)
    model, record = trained(method, table(voxels()), how=replace(HOW, max_epochs=8))
    assert record.best_epoch > 2
    said = method.assess(model, table(voxels()), table(voxels()), torch.Generator())
    assert 0.1 < said["outside"] < 0.35
    assert f"{said['outside']:.1%} of held-out samples are outside of the radius" in said["verdict"]
    model, _ = trained(method, table(voxels()), how=replace(HOW, max_epochs=1))
    said = method.assess(model, table(voxels()), table(voxels()), torch.Generator())
    assert said["verdict"].endswith("its radius is still 0: train for more epochs than warm_up")


def test_the_centre_is_the_mean_of_normal_latents_away_from_zero():
    x = np.concatenate([voxels(300), anomalies(50)])
    labels = np.repeat([0, 1, -1], [200, 100, 50])
    model = started(DeepSADMethod(DeepSADSettings(**SMALL)), table(x, labels))
    assert not model.training
    latents = model.encode(torch.from_numpy(x[:300])).mean
    expected = away_from_zero(latents.double().mean(0).float())
    torch.testing.assert_close(model.centre, expected, rtol=1e-4, atol=1e-5)
    spread = latents.var(0, correction=0).sum().sqrt()
    torch.testing.assert_close(model.at_start, spread, rtol=1e-3, atol=0)
    assert (model.centre.abs() >= 0.1).all()
    assert "centre" not in dict(model.named_parameters())


def test_zero_weights_are_the_best_where_the_centre_is_zero_and_are_seen_to_have_collapsed():
    method = DeepSVDDMethod(DeepSVDDSettings(**SMALL))
    model, rows = started(method).train(), table(voxels(64))
    for weight in model.parameters():
        weight.data.zero_()
    x = torch.from_numpy(voxels(64))
    assert method.loss(model, x, 1, torch.Generator())["loss"] > 0.02  # Not so with a centre away from 0.
    model.centre.zero_()
    loss = method.loss(model, x, 1, torch.Generator())["loss"]
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients)
    said = method.assess(model.eval(), rows, rows, torch.Generator())
    assert said["collapsed"]
    assert "the network has collapsed: held-out latents spread by 0, where" in said["verdict"]
    assert "all samples score alike; train for fewer epochs" in said["verdict"]


def test_a_trained_network_has_not_collapsed_and_tells_samples_apart():
    method = DeepSVDDMethod(DeepSVDDSettings(**SMALL))
    model, record = trained(method, table(voxels()), how=replace(HOW, max_epochs=10, learning_rate=1e-2))
    assert record.losses[-1] < 0.2 * record.losses[0]
    said = method.assess(model, table(voxels()), table(voxels(200, 1)), torch.Generator())
    assert not said["collapsed"]
    assert "labelled_anomalies" not in said


def test_pretraining_sets_the_weights_of_the_network_bit_for_bit():
    settings = DeepSVDDSettings(**SMALL | {"pretrain_epochs": 3}, weight_decay=0.01)
    method, rows = DeepSVDDMethod(settings), table(voxels())
    model = started(method, rows, seed=4)
    without = started(DeepSVDDMethod(replace(settings, pretrain_epochs=0)), rows, seed=4)
    # The same autoencoder, trained apart from any method.
    other = started(DeepSVDDMethod(replace(settings, pretrain_epochs=0)), rows, seed=4)
    generator = torch.Generator().manual_seed(4)
    other.encoder.initialise(generator)
    seed = int(torch.randint(1 << 31, (), generator=generator))
    network = Pretrained(other, settings)
    how = TrainSettings(batch_size=32768, learning_rate=1e-3, max_epochs=3, patience=4, plateau_patience=2,
                        plateau_factor=0.1, min_learning_rate=1e-4, min_improvement=1e30)  # fmt: skip
    record = train(PretrainingMethod(other, settings), network, rows, rows, how, seed=seed)
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, network.encoder.state_dict()[name]), name
        drawn = without.encoder.state_dict()[name]
        assert (value != drawn).float().mean() > 0.9, f"{name} is as it was drawn"
    assert model.pretraining.tolist() == pytest.approx([record.losses[0], min(record.losses)])
    assert record.losses[-1] < record.losses[0]
    torch.testing.assert_close(model.centre, away_from_zero(model.moments(rows)[0]))
    said = method.assess(model, rows, rows, torch.Generator())
    assert said["pretraining"]["error_after"] < said["pretraining"]["error"]
    assert "started from an autoencoder whose error fell from" in said["verdict"]
    assert not any(key.startswith("decoder") for key in model.state_dict())


def test_labelled_anomalies_do_not_train_the_autoencoder():
    model = started(DeepSADMethod(DeepSADSettings(**SMALL)))
    network = Pretrained(model, DeepSADSettings(**SMALL))
    network.decoder.initialise(torch.Generator().manual_seed(0))
    method, x = PretrainingMethod(model, model_settings()), torch.from_numpy(voxels(6))
    y = torch.tensor([0, -1, 1, -1, 0, -1.0])
    errors = (network.eval()(model.standardised(x)) - model.standardised(x)).square().sum(1)
    loss = method.loss(network, torch.column_stack([x, y]), 1, torch.Generator())["loss"]
    torch.testing.assert_close(loss, errors[y >= 0].sum() / 6)


def model_settings():
    return DeepSADSettings(**SMALL)


@pytest.mark.parametrize("zeros", [False, True])
def test_deep_sad_without_labels_is_deep_svdd_bit_for_bit(zeros):
    x, more = voxels(), {**SMALL, "pretrain_epochs": 2}
    rows = table(x, np.zeros(len(x))) if zeros else table(x)
    expected, record = trained(DeepSVDDMethod(DeepSVDDSettings(**more)), table(x))
    found, again = trained(DeepSADMethod(DeepSADSettings(**more)), rows)
    assert record.losses == again.losses
    for name, value in expected.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name


def test_equation_2_13_by_hand():
    method = DeepSADMethod(DeepSADSettings(**SMALL, eta=3.0, epsilon=0.5))
    distances = torch.tensor([4.0, 4.0, 4.0, 0.0])
    losses = method.losses(started(method), distances, torch.tensor([0, 1, -1, -1.0]))
    torch.testing.assert_close(losses, torch.tensor([4, 3 * 4.5, 3 / 4.5, 6]))


@pytest.mark.parametrize("kind", [DeepSADMethod, HSCMethod])
def test_a_step_moves_a_labelled_anomaly_away_and_a_normal_closer(kind):
    method = kind(kind.Settings(**SMALL))
    model = started(method)
    z = torch.tensor([[1.0, 0.4, -0.3], [0.2, -0.6, 0.9]], requires_grad=True)
    for label in (-1.0, 0.0, 1.0):
        loss = method.losses(model, model.distances(z), torch.full((2,), label)).sum()
        (gradient,) = torch.autograd.grad(loss, z)
        outwards = -(gradient * (z - model.centre)).sum(1)
        assert ((outwards > 0) == (label < 0)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_equation_2_20_is_the_cross_entropy_of_exp_minus_h(norm):
    method = HSCMethod(HSCSettings(**SMALL, norm=norm, eta=0.7))
    model = started(method)
    z = torch.tensor([[1.2, -0.5, 0.3], [0.1, 0.02, -0.05], [2.0, 1.0, -1.5], [0.6, 0.1, 0.2]])
    labels = torch.tensor([-1, 0, -1, 1.0])
    h = model.distances(z).double()
    expected = binary_cross_entropy(torch.exp(-h), (labels >= 0).double(), reduction="none")
    weights = torch.tensor([0.7, 1, 0.7, 0.7], dtype=torch.float64)
    losses = method.losses(model, model.distances(z), labels)
    torch.testing.assert_close(losses.double(), weights * expected, rtol=2e-4, atol=1e-6)


def test_norms_by_hand():
    z = torch.tensor([[3.0, -4.0], [0.0, 0.0], [2e-4, 0.0]])
    assert pseudo_huber(z).tolist() == pytest.approx([26**0.5 - 1, 0, 2e-8], rel=1e-5)
    assert NORMS["l1"](z).tolist() == pytest.approx([7, 0, 2e-4])
    assert NORMS["l2"](z).tolist() == pytest.approx([5, 0, 2e-4])
    assert NORMS["squared"](z).tolist() == pytest.approx([25, 0, 4e-8])


@pytest.mark.parametrize("norm", NORMS)
def test_the_loss_of_an_anomaly_is_accurate_and_its_gradient_finite_at_0_and_far_away(norm):
    z = torch.tensor([[0.0, 0.0], [1e-3, 0.0], [1.0, 0.3], [40.0, 3.0], [1e4, 0.0]], requires_grad=True)
    h = NORMS[norm](z)
    (gradient,) = torch.autograd.grad(outside(h).sum(), z)
    assert torch.isfinite(gradient).all()
    shifted = h.detach().double() + 1e-6
    expected = torch.where(
        shifted < 1, -torch.log(-torch.expm1(-shifted)), -torch.log1p(-torch.exp(-shifted))
    )
    torch.testing.assert_close(outside(h).double(), expected, rtol=1e-5, atol=1e-38)
    assert outside(h)[0].item() == pytest.approx(-np.log(1e-6), rel=1e-5)


def test_the_score_of_hsc_does_not_saturate():
    model = started(HSCMethod(HSCSettings(**SMALL)))
    z = torch.tensor([[10.0, 0, 0], [20.0, 0, 0], [30.0, 0, 0], [3e4, 0, 0]])
    assert (model.hypersphere(z).diff() > 0).all()
    assert (1 - torch.exp(-model.hypersphere(z)))[2:].tolist() == [1, 1]  # As in the released code.


def test_a_detector_with_labelled_anomalies_finds_their_like(tmp_path):
    x, y = np.concatenate([voxels(600), anomalies(60)]), np.repeat([0, -1], [600, 60])
    scans = np.concatenate([np.arange(600) // 150, np.arange(60) // 15])
    new = np.concatenate([voxels(100, 7), anomalies(100, 8)])
    found = {}
    for method in ("deep_svdd", "deep_sad", "hsc"):
        how = {"batch_size": 128, "max_epochs": 15, "learning_rate": 1e-2}
        tree = {"method": method, "method_settings": SMALL, "train": how,
                "scores": ["hypersphere", "latent_euclidean", "nearest_normal"]}  # fmt: skip
        settings = fit_settings(tree, where="here")
        rows = slice(None, 600 if method == "deep_svdd" else None)
        detector = mn.fit_voxels(
            x[rows], scans=scans[rows], labels=None if method == "deep_svdd" else y, settings=settings
        )
        scores = detector.score_voxels(new)
        found[method] = (scores["hypersphere"][:100, None] < scores["hypersphere"][100:]).mean()
        detector.save(tmp_path / method)
        again = Detector.load(tmp_path / method).score_voxels(new)
        for name, values in scores.items():
            np.testing.assert_array_equal(values, again[name], err_msg=f"{method} {name}")
        # Nothing is compared with what was labelled as abnormal.
        assert not set(map(bytes, detector.reference.parts["input"].numpy())) & set(map(bytes, x[600:]))
        assert len(detector.reference) == 450
        assert not detector.fitted.summary["collapsed"], detector.fitted.summary["verdict"]
    assert found["deep_sad"] > 0.95
    assert found["hsc"] > 0.95
    assert found["deep_sad"] > found["deep_svdd"]


def fitted(labels=None, **tree):
    settings = fit_settings({"method_settings": SMALL, "train": {"max_epochs": 1}, **tree}, where="here")
    return mn.fit_voxels(voxels(), labels=labels, settings=settings)


def test_hsc_without_anomalies_is_refused_before_training_and_by_its_assessment():
    for labels in (None, np.zeros(600, int)):
        with pytest.raises(
            SettingsError, match=r"method hsc tells normal from abnormal .* none here is labelled"
        ):
            fitted(labels, method="hsc")
    method, rows = HSCMethod(HSCSettings(**SMALL)), table(voxels())
    said = method.assess(started(method), rows, rows, torch.Generator())
    assert said["collapsed"]
    assert "no labelled anomaly was among the training samples" in said["verdict"]


def test_labels_are_refused_in_words():
    for method, labels, kind, words in (
        ("deep_svdd", np.zeros(600, int), SettingsError, "deep_svdd has no classes; .* or choose deep_sad"),
        ("deep_sad", np.full(600, 2), ScanError, r"be -1 \(anomaly\), 0 \(no label\) or 1 \(normal\), got"),
        ("hsc", np.zeros(5, int), ScanError, r"labels must be \(600,\), one a voxel, got \(5,\)"),
        ("deep_sad", np.full(600, -1), SettingsError, "training samples are labelled anomalies"),
    ):  # fmt: skip
        with pytest.raises(kind, match=words):
            fitted(labels, method=method)
    with pytest.raises(SettingsError, match=r"must end with -1 \(anomaly\), .* numbers from 0 to 0\.5"):
        started(DeepSADMethod(DeepSADSettings(**SMALL)), table(voxels(4), [0, 0.5, 0, 0]))
    model = started(DeepSVDDMethod(DeepSVDDSettings(**SMALL)))
    with pytest.raises(SettingsError, match=r"rows of 6 values: .* has 5; this method knows no labels"):
        model.split(torch.zeros(2, 6))
    method = DeepSADMethod(DeepSADSettings(**SMALL))
    with pytest.raises(SettingsError, match="a batch of 1 sample has no statistics"):
        method.loss(started(method), torch.zeros(1, 5), 1, torch.Generator())


def test_scores_that_reconstruct_are_refused_for_want_of_a_decoder():
    for score in ("reconstruction_error", "nearest_latent_neighbours"):
        with pytest.raises(
            SettingsError, match=f"{score}: needs reconstructions, .* the method deep_svdd does not"
        ):
            fitted(method="deep_svdd", scores=[score])
    with pytest.raises(SettingsError, match="hypersphere: needs a hypersphere around normal latents"):
        fitted(method="ae", method_settings={"latent": 3}, scores=["hypersphere"])
    names = fitted(method="deep_svdd", scores=["all"]).settings.scores
    assert {"hypersphere", "latent_euclidean", "nearest_normal", "hyperspherical_knn"} == set(names)


@pytest.mark.parametrize(
    ("kind", "wrong", "words"),
    [
        (DeepSVDDSettings, {"biases": True}, "and tells nothing apart (Ruff 2021, proposition 2)"),
        (DeepSADSettings, {"biases": True}, "set biases=false, or train hsc"),
        (DeepSVDDSettings, {"activation": "sigmoid"}, "stands for a bias, by which the network can"),
        (HSCSettings, {"activation": "tanh"}, "'tanh' is none of leaky_relu, relu: a bounded unit"),
        (DeepSVDDSettings, {"objective": "hard"}, "objective='hard' is none of one_class, soft_boundary"),
        (DeepSVDDSettings, {"nu": 0.0}, "nu=0.0: a share of samples, must be above 0 and at most 1"),
        (DeepSADSettings, {"eta": -1}, "eta=-1: must lie between 1e-06 and 1e+06"),
        (DeepSADSettings, {"eta": 0}, "eta=0: must lie between 1e-06 and 1e+06"),
        (HSCSettings, {"eta": 0}, "eta=0: must lie between 1e-06 and 1e+06"),
        (HSCSettings, {"norm": "l3"}, "norm='l3' is none of pseudo_huber, l1, l2, squared"),
        (DeepSVDDSettings, {"hidden": (1 << 15,)}, "at most 16 layers of 1 to 16384 units"),
        (DeepSVDDSettings, {"latent": 0}, "latent=0: must lie between 1 and 16384"),
        (DeepSVDDSettings, {"pretrain_epochs": -1}, "pretrain_epochs=-1: must lie between 0"),
    ],
)  # fmt: skip
def test_settings_have_bounds(kind, wrong, words):
    with pytest.raises(SettingsError) as caught:
        kind(**wrong)
    assert words in str(caught.value)


def test_networks_of_the_thesis():
    settings = DeepSVDDSettings()
    for shape, filters, latent in (((1, 28, 28), (8, 4), 32), ((3, 32, 32), (32, 64, 128), 128),
                                   ((2, 12, 20, 8), (8, 4), 32), ((46,), (), 32)):  # fmt: skip
        assert (settings.filters_for(shape), settings.latent_for(shape)) == (filters, latent)
    model = DeepSVDDMethod(settings).build((1, 28, 28))
    assert sum(weight.numel() for weight in model.parameters()) == 8 * 25 + 4 * 8 * 25 + 32 * 4 * 49
    assert not [name for name, _ in model.named_parameters() if "bias" in name or "norm" in name]
    assert [name for name, _ in HSCMethod().build((1, 28, 28)).named_parameters() if "bias" in name]
    with pytest.raises(SettingsError, match=r"30 x 28 does not fit .* must be multiples of 4"):
        DeepSVDDMethod(settings).build((1, 30, 28))


@pytest.mark.parametrize("shape", [(2, 12, 20), (1, 8, 12, 4)])
def test_slices_and_windows_are_trained_on(shape):
    random, size = np.random.default_rng(0), int(np.prod(shape))
    cache = VoxelCache(size, shape=shape)
    cache.append("scan", random.normal(size=(40, size)))
    method = DeepSVDDMethod(DeepSVDDSettings(filters=(3, 2), latent=5, pretrain_epochs=1))
    model = method.build(shape)
    train(method, model, cache, cache, replace(HOW, batch_size=20, max_epochs=1))
    x = torch.from_numpy(cache.take(np.arange(6)))
    assert model.encode(x).mean.shape == (6, 5)
    assert model.pretraining[1] < model.pretraining[0]


def test_the_thesis_lowers_the_rate_after_50_epochs_whatever_the_loss():
    rates = [learning_rate([9.0 / n for n in range(1, epoch + 1)], PAPER_TRAINING) for epoch in range(1, 151)]
    assert rates[:50] == [1e-4] * 50
    assert rates[50:] == pytest.approx([1e-5] * 100)


def test_weight_decay_reaches_adam():
    rows = table(voxels())
    weights = [
        trained(DeepSVDDMethod(DeepSVDDSettings(**SMALL, weight_decay=decay)), rows)[0]
        .encoder.layers[0]
        .weight
        for decay in (0.0, 0.5)
    ]
    assert weights[1].norm() < weights[0].norm()
