"""Autoencoders: whose loss moves which weights, repeatable runs, honest refusals, detectors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_train import Interrupted

import mednovelty as mn
from mednovelty.detector import Detector, checked_settings
from mednovelty.errors import DetectorError, SettingsError, StoppedError
from mednovelty.fitting import FitSettings
from mednovelty.methods.adversarial_autoencoders import (
    AAEMethod,
    AEConMethod,
    AEResMethod,
    Critic,
    fixed,
    taken_for,
    told_apart,
)
from mednovelty.methods.autoencoder import AEMethod, check_shares
from mednovelty.methods.autoencoder_settings import (
    PAPER_TRAINING,
    RELEASED,
    AAESettings,
    AEConSettings,
    AEResSettings,
    AutoencoderSettings,
)
from mednovelty.methods.image_vae_settings import NLN_RELEASED
from mednovelty.methods.vae_scores import LatentBhattacharyya, VAERegularizer
from mednovelty.model_folder import fit_settings, record_of
from mednovelty.nn.point import Point
from mednovelty.nn.precision import HalfPrecision
from mednovelty.plugins import plugin
from mednovelty.record_checks import check_record
from mednovelty.reference import Reference
from mednovelty.train import TrainSettings, train
from mednovelty.voxel_cache import VoxelCache

CHANNELS = 5
SMALL = {"hidden": (8, 6), "latent": 3}
METHODS = {
    "aae": AAEMethod(AAESettings(**SMALL, critic=(7, 6), dropout=0.0, adversarial_weight=0.7)),
    "ae_res": AEResMethod(AEResSettings(**SMALL, adversarial_weight=0.7)),
    "ae_con": AEConMethod(AEConSettings(**SMALL, adversarial_weight=0.7, reconstruction_weight=3.0)),
}


def voxels(n=600, seed=0):
    random = np.random.default_rng(seed)
    level = random.uniform(-2, 2, (n, 2)) @ np.random.default_rng(9).normal(size=(2, CHANNELS))
    return (4 + level + 0.1 * random.normal(size=(n, CHANNELS))).astype(np.float32)


def caches():
    return VoxelCache.from_array(voxels(600, 0)), VoxelCache.from_array(voxels(200, 1))


def started(method, seed=0):
    model = method.build((CHANNELS,))
    with torch.no_grad():
        method.start(model, caches()[0], torch.Generator().manual_seed(seed))
    return model.train()


def noise(seed=5):
    return torch.Generator().manual_seed(seed)


def sides(method, model):
    own, opponent = (group["params"] for group in method.parameter_groups(model))
    return own, opponent


def term_of(name, method, model, x):
    """Return what each side of a method minimises, written down again with nothing held fixed."""
    x = (x - model.shift) / model.spread
    z = model.encoder(x)
    image = model.decoder(z)
    if name == "aae":
        draws = torch.randn(z.shape, generator=noise())
        real, made = (model.discriminator(some, noise()) for some in (draws, z))
        own = (x - image).square().mean() + 0.7 * -torch.sigmoid(made).log().mean()
    else:
        (real, seen), (made, again) = (model.discriminator(some) for some in (x, image))
        own = (x - image).square().mean() + 0.7 * -torch.sigmoid(made).log().mean()
        if name == "ae_con":
            apart = (z - model.second_encoder(image)).square().mean()
            own = 3 * (x - image).abs().mean() + apart + 0.7 * (seen - again).square().mean()
    opponent = -torch.sigmoid(real).log().mean() - (1 - torch.sigmoid(made)).log().mean()
    return own, opponent


@pytest.mark.parametrize("name", METHODS)
def test_each_side_moves_by_its_own_loss_alone(name):
    method, x = METHODS[name], torch.from_numpy(voxels(64, 3))
    model = started(method)
    method.loss(model, x, 1, noise())["loss"].backward()
    own, opponent = sides(method, model)
    of_own, of_opponent = term_of(name, method, model, x)
    expected = [
        *torch.autograd.grad(of_own, own, retain_graph=True),
        *torch.autograd.grad(of_opponent, opponent),
    ]
    for weight, gradient in zip([*own, *opponent], expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_one_adam_steps_for_both_sides_as_two_would():
    method = AEResMethod(replace(METHODS["ae_res"].settings, discriminator_rate=0.25))
    settings = TrainSettings(batch_size=600, min_steps=1, max_epochs=6, gradient_clip=None)
    settings = replace(settings, min_improvement=1e-12)
    model = method.build((CHANNELS,))
    assert train(method, model, *caches(), settings, seed=3).best_epoch == 6
    seen = {}

    class Kept(AEResMethod):
        def start(self, model, normals, generator):
            super().start(model, normals, generator)
            seen["start"] = {name: value.clone() for name, value in model.state_dict().items()}

    again = Kept(method.settings)
    train(again, again.build((CHANNELS,)), *caches(), replace(settings, max_epochs=1), seed=3)
    two = method.build((CHANNELS,))
    two.load_state_dict(seen["start"])
    own, opponent = sides(method, two)
    optimisers = [torch.optim.Adam(own, lr=1e-3), torch.optim.Adam(opponent, lr=0.25e-3)]
    x = torch.from_numpy(voxels(600, 0))  # All of them in one batch: the order changes nothing but bits.
    for _ in range(6):
        of_own, of_opponent = term_of("ae_res", method, two, x)
        gradients = (
            torch.autograd.grad(of_own, own, retain_graph=True),
            torch.autograd.grad(of_opponent, opponent),
        )
        for weights, some, optimiser in zip((own, opponent), gradients, optimisers, strict=True):
            for weight, gradient in zip(weights, some, strict=True):
                weight.grad = gradient
            optimiser.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, two.state_dict()[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_ends_with_the_bits_of_one_that_was_not_stopped(name, tmp_path):
    settings = METHODS[name].settings
    method = type(METHODS[name])(replace(settings, dropout=0.3) if name == "aae" else settings)
    how = TrainSettings(batch_size=128, max_epochs=4, validation_voxels=100)
    whole, stopped = method.build((CHANNELS,)), method.build((CHANNELS,))
    train(method, whole, *caches(), how, seed=2)
    with pytest.raises(StoppedError):
        train(method, stopped, *caches(), how, seed=2, folder=tmp_path,
              on_epoch=Interrupted(2, KeyboardInterrupt()))  # fmt: skip
    train(method, stopped, *caches(), how, seed=2, folder=tmp_path, resume=True)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, stopped.state_dict()[key]), key


def test_equation_6_by_hand():
    # d = 0.8 for real: logit ln 4; d = 0.25 for made: logit -ln 3. -ln 0.8 - ln 0.75.
    real, made = torch.full((3,), np.log(4.0)), torch.full((2,), -np.log(3.0))
    assert told_apart(real, made).item() == pytest.approx(-np.log(0.8) - np.log(0.75))
    assert taken_for(made, real=True).item() == pytest.approx(-np.log(0.25))


def test_what_is_held_fixed_gets_no_derivative_and_passes_one_on():
    critic = Critic(3, (4, 5), 0.0)
    critic.initialise(noise())
    z = torch.randn(6, 3, generator=noise(1)).requires_grad_()
    fixed(critic, z, noise()).sum().backward()
    assert z.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in critic.parameters())


def test_dropout_is_repeatable_keeps_the_mean_and_ends_with_training():
    critic = Critic(3, (400, 7), 0.3)
    critic.initialise(noise())
    z = torch.randn(50, 3, generator=noise(1))
    first, again, other = (critic(z, noise(seed)) for seed in (2, 2, 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    inner = critic.layers[0]
    inner.weight.data.zero_()
    inner.bias.data.fill_(1.0)
    critic.layers[1].weight.data.fill_(1 / 400)
    critic.layers[2].weight.data.fill_(1 / 7)
    assert critic(z, noise(4)).mean().item() == pytest.approx(1.0, abs=0.05)
    assert (
        torch.equal(critic.eval()(z, noise(5)), torch.ones(50))
        or critic(z, noise(5)).sub(1).abs().max() < 1e-5
    )


def test_an_autoencoder_without_opponent_learns_and_says_how_well():
    method = AEMethod(AutoencoderSettings(hidden=(16,), latent=2))
    model = method.build((CHANNELS,))
    training, held_out = caches()
    before = method.assess(started(method), training, held_out, noise())
    how = TrainSettings(batch_size=64, max_epochs=15, learning_rate=5e-3, min_improvement=1e-4)
    record = train(method, model, training, held_out, how)
    said = method.assess(model, training, held_out, noise())
    assert record.best.validation["loss"] < 0.1 * record.losses[0]
    assert said["explained"] > 0.9 > 0.01 > before["explained"]
    assert (said["collapsed"], before["collapsed"]) == (False, True)
    assert said["verdict"].startswith("2 latents explain 9")
    assert "no more than the mean sample" in before["verdict"]


@pytest.mark.parametrize(
    ("kind", "settings", "old"),
    [
        (AEResMethod, AEResSettings, {"adversarial_weight": 1.0, "discriminator_rate": 1.0}),
        (AEConMethod, AEConSettings, {"discriminator_rate": 1.0}),
    ],
)
def test_by_default_the_opponent_does_not_drown_the_reconstruction(kind, settings, old):
    found = {}
    for name, more in (("default", {}), ("equal rates", old)):
        method = kind(settings(network="lenet", filters=(6, 8, 10), latent=4, output="sigmoid", **more))
        model = method.build((1, 12, 12))
        data, held_out = (VoxelCache(144, shape=(1, 12, 12)) for _ in range(2))
        data.append("squares", squares(192, 0)), held_out.append("squares", squares(64, 1))
        how = TrainSettings(batch_size=16, min_steps=1, learning_rate=3e-3, max_epochs=8, patience=9)
        rows = train(method, model, data, held_out, how, seed=0).rows
        found[name] = rows[-1].validation["reconstruction"] / rows[0].validation["reconstruction"]
    assert found["default"] < 0.5
    assert found["default"] < 0.7 * found["equal rates"]


def squares(n, seed):
    random = np.random.default_rng(seed)
    images = np.zeros((n, 12, 12), np.float32)
    for image, (row, column, side) in zip(images, random.integers([1, 1, 3], [6, 6, 6], (n, 3)), strict=True):
        image[row : row + side, column : column + side] = 1
    return images.reshape(n, 144)


def test_explained_is_1_less_errors_over_variation():
    method = AEMethod(AutoencoderSettings(hidden=(4,), latent=2))
    model = started(method)
    for layer in model.decoder.layers:
        layer.weight.data.zero_()
    training, held_out = caches()
    assert method.assess(model, training, held_out, noise())["explained"] == pytest.approx(0, abs=1e-5)


def test_standardisation_is_that_of_the_training_samples():
    training, _ = caches()
    mean, spread = training.mean_and_spread()
    np.testing.assert_allclose(mean, training.array().mean(0), rtol=1e-5)
    np.testing.assert_allclose(spread, training.array().std(0), rtol=1e-5)
    model = started(AEMethod(AutoencoderSettings(**SMALL)))
    x = torch.from_numpy(training.array())
    assert model.standardised(x).mean(0).abs().max() < 1e-4
    constant = VoxelCache.from_array(np.full((9, 2), 3.0, np.float32))
    assert constant.mean_and_spread()[1].tolist() == [1.0, 1.0]


def test_reconstructions_are_in_the_units_of_the_samples():
    method = AEMethod(AutoencoderSettings(hidden=(4,), latent=2))
    model = started(method)
    for layer in model.decoder.layers:
        layer.weight.data.zero_()
    mean, _ = caches()[0].mean_and_spread()
    decoded = model.decode(torch.zeros(3, 2)).mean
    torch.testing.assert_close(decoded, torch.from_numpy(mean).float().expand(3, CHANNELS))


def test_a_point_has_a_mean_and_nothing_else():
    point = Point(torch.zeros(4, 3))
    for name, what in (
        ("stddev", "standard deviation"),
        ("variance", "variance"),
        ("base_dist", "distribution"),
    ):
        with pytest.raises(SettingsError, match=f"gives points, which have no {what}; fit a variational one"):
            getattr(point, name)
    with pytest.raises(SettingsError, match="no density"):
        point.log_prob(torch.zeros(4, 3))
    model = started(AEMethod(AutoencoderSettings(**SMALL))).eval()
    with pytest.raises(SettingsError, match="no distribution"):
        Reference.of(model, torch.from_numpy(voxels(5)), ["latent_sigma"])
    half = HalfPrecision(model, "bfloat16").encode(torch.from_numpy(voxels(5)))
    assert isinstance(half, Point)
    assert half.mean.dtype == torch.float32


@pytest.mark.parametrize("kind", [VAERegularizer, LatentBhattacharyya])
def test_scores_that_need_distributions_refuse_a_model_without(kind):
    model = AEMethod(AutoencoderSettings(**SMALL)).build((CHANNELS,))
    rest = (Reference({}, "exact", 0),) if kind is LatentBhattacharyya else ()
    with pytest.raises(
        SettingsError,
        match=rf"{kind.__name__}: needs distributions .*, which variational methods .*; AE does not",
    ):
        kind(model, *rest)


def test_a_fit_that_asks_for_what_the_method_does_not_give_stops_before_training():
    with pytest.raises(SettingsError, match=r"vae_regularizer: needs distributions.*; the method ae does"):
        checked_settings(FitSettings(method="ae", scores=("latent_euclidean", "vae_regularizer")))
    with pytest.raises(
        SettingsError, match=r"nln_consistency: needs a second encoder.*; the method ae_res does"
    ):
        checked_settings(FitSettings(method="ae_res", scores=("nln_consistency",)))
    for method, more in (
        ("ae", set()),
        ("ae_res", {"nln_residual"}),
        ("ae_con", {"nln_residual", "nln_consistency"}),
    ):
        names = set(checked_settings(FitSettings(method=method, scores=("all",))).scores)
        assert {"nearest_latent_neighbours", "reconstruction_error", "nearest_normal"} <= names
        assert {name for name in names if name.startswith("nln")} == more
        assert "vae_regularizer" not in names


def test_a_method_brings_its_own_defaults_and_the_user_has_the_last_word():
    voxelwise = fit_settings({"method": "ae"}, where="here")
    assert "nearest_latent_neighbours" in voxelwise.scores
    assert "vae_regularizer" not in voxelwise.scores
    images = fit_settings({"method": "ae_con", "train": {"max_epochs": 3}}, where="here", recipe="slices")
    assert "nln_map" in images.scores
    assert (images.train.learning_rate, images.train.max_epochs, images.train.batch_size) == (1e-4, 3, 1024)
    assert fit_settings(where="here").scores == FitSettings().scores


@pytest.mark.parametrize(
    ("method", "rate"), [("ae", 1e-3), ("aae", 1e-5), ("ae_res", 1e-3), ("ae_con", 1e-4)]
)
def test_a_preset_is_laid_over_the_defaults_and_under_what_is_asked_for(method, rate):
    asked = {"method": method, "preset": "released", "method_settings": {"latent": 9}, "nln": {"k": 5}}
    found = fit_settings({"method": "ae"}, asked, where="here", recipe="slices")
    own, _ = RELEASED[method]
    assert found.preset == "released"
    assert found.method_settings == replace(own, latent=9)
    assert found.train == replace(PAPER_TRAINING, learning_rate=rate)
    assert found.preprocessors == ("unit_range",)
    assert found.preprocessor_settings == {"unit_range": {"percentiles": None}}
    assert (found.nln.k, found.nln.alpha) == (5, 0.6)
    again = fit_settings(asked | {"preprocessors": ["unit_range", "clip"]}, where="here", recipe="slices")
    assert set(again.preprocessor_settings) == {"unit_range", "clip"}


def test_the_vae_of_nearest_latent_neighbours_has_a_preset_with_its_network_and_rate():
    asked = {"method": "image_vae", "preset": "nln-released"}
    found = fit_settings(asked, where="here", recipe="slices")
    assert found.method_settings == NLN_RELEASED
    assert (found.train.batch_size, found.train.learning_rate, found.train.max_epochs) == (1024, 1e-3, 50)
    assert (found.preprocessors, found.nln.alpha) == (("unit_range",), 0.6)
    # A Gaussian of standard deviation c is as curved as -log of a share at a half: 1/c^2 = 1/(p (1 - p)).
    assert 1 / NLN_RELEASED.c**2 == 1 / (0.5 * 0.5)


@pytest.mark.parametrize(
    ("tree", "recipe", "words"),
    [
        (
            {"method": "ae", "preset": "released"},
            "qspace",
            "preset 'released': the method ae for voxels has none",
        ),
        (
            {"method": "ae", "preset": "paper"},
            "slices",
            "preset 'paper': the method ae for images has released",
        ),
        ({"preset": "released"}, "slices", "preset 'released': the method image_vae for images has nln-released"),
    ],
)
def test_a_preset_that_is_not_there_is_named(tree, recipe, words):
    with pytest.raises(SettingsError, match=words):
        fit_settings(tree, where="here", recipe=recipe)


def fitted(method, folder=None, **settings):
    tree = {
        "method": method,
        "method_settings": SMALL,
        "train": {"batch_size": 128, "max_epochs": 3},
        **settings,
    }
    return mn.fit_voxels(voxels(), scans=np.arange(600) // 150, settings=fit_settings(tree, where="here"))


@pytest.mark.parametrize("method", ["ae", "aae", "ae_res", "ae_con"])
def test_a_detector_is_fitted_kept_and_scores_one_sample_as_many(method, tmp_path):
    detector = fitted(method, scores=["all"])
    assert set(detector.fitted.constants) == {
        name for name in detector.settings.scores if name.startswith(("nln", "nearest_latent"))
    }
    x = voxels(40, seed=2)
    x[:7] += 3 * np.random.default_rng(5).normal(size=(7, CHANNELS)).astype(np.float32)
    together = detector.score_voxels(x)
    detector.save(tmp_path)
    again = Detector.load(tmp_path).score_voxels(x)
    alone = [detector.score_voxels(row[None]) for row in x[4:9]]
    for name, scores in together.items():
        np.testing.assert_array_equal(scores, again[name], err_msg=name)
        one_by_one = np.concatenate([found[name] for found in alone])
        np.testing.assert_allclose(scores[4:9], one_by_one, rtol=2e-4, atol=1e-5, err_msg=name)
    nln = together["nearest_latent_neighbours"]
    assert nln[:7].mean() > 2 > abs(nln[7:].mean())


def test_constants_are_of_the_detector_and_a_score_without_is_refused():
    detector = fitted("ae", scores=["latent_euclidean"], reference="even")
    with pytest.raises(
        SettingsError,
        match=r"nearest_latent_neighbours: normalises its terms by .* Fit with --scores nearest_l",
    ):
        detector.score_voxels(voxels(5), "nearest_latent_neighbours")


def test_a_record_that_lacks_constants_or_has_others_is_damaged():
    detector = fitted("ae", scores=["nearest_latent_neighbours"])
    record = record_of(detector)
    check_record(record, detector.settings)
    given = record.constants["nearest_latent_neighbours"]
    check_record(record.model_copy(update={"constants": {}, "constants_by_k": {}}), detector.settings)
    for constants, words in (
        (
            {"nearest_latent_neighbours": {}},
            "constants: nearest_latent_neighbours has those of nothing, but its terms are distance, error",
        ),
        (
            {"nearest_latent_neighbours": {"error": given["error"]}},
            "has those of error, but its terms are dist",
        ),
        (
            record.constants | {"latent_euclidean": given},
            "latent_euclidean has those of distance, error, but",
        ),
    ):
        with pytest.raises(DetectorError, match=words):
            check_record(record.model_copy(update={"constants": constants}), detector.settings)
        words = words.replace("constants: ", "constants_by_k.3: ")
        with pytest.raises(DetectorError, match=words):
            check_record(record.model_copy(update={"constants_by_k": {"3": constants}}), detector.settings)
    for k, words in (
        ("02", "constants_by_k: '02' is no number of neighbours among 450 normals"),
        ("0", "constants_by_k: '0' is no number"),
        ("451", "constants_by_k: '451' is no number"),
        ("2", "constants_by_k: those for nln.k=2 are told in constants already"),
    ):
        with pytest.raises(DetectorError, match=words):
            check_record(
                record.model_copy(update={"constants_by_k": {k: record.constants}}), detector.settings
            )


def test_cross_entropy_is_for_shares():
    with pytest.raises(
        SettingsError, match="misfit='cross_entropy' compares shares: it needs output='sigmoid'"
    ):
        AutoencoderSettings(misfit="cross_entropy")
    with pytest.raises(
        SettingsError, match=r"values between 0 and 1, and the training samples have -3 to 2;"
    ):
        check_shares(VoxelCache.from_array(np.array([[0.5, -3], [2, 0.1]], np.float32)))
    method = AEMethod(AutoencoderSettings(**SMALL, output="sigmoid", misfit="cross_entropy"))
    with pytest.raises(SettingsError, match="scale them, or set misfit='squared'"):
        started(method)


def test_misfits_by_hand():
    image, x = torch.tensor([[0.8, 0.5]]), torch.tensor([[1.0, 0.0]])
    for name, expected in (("squared", 0.145), ("absolute", 0.35), ("cross_entropy", -np.log(0.8 * 0.5) / 2)):
        settings = AutoencoderSettings(output="sigmoid", misfit=name)
        assert AEMethod(settings).misfit(image, x).item() == pytest.approx(expected)


def test_which_network_a_shape_gets():
    settings = AutoencoderSettings()
    for shape, network, latent in (
        ((46,), "mlp", 16), ((1, 28, 28), "lenet", 32), ((2, 128, 128), "patch", 32),
        ((1, 64, 60), "lenet", 32), ((1, 32, 32, 32), "lenet", 32), ((1, 64, 64, 80), "patch", 32),
    ):  # fmt: skip
        assert (settings.network_for(shape), settings.latent_for(shape)) == (network, latent), shape
    assert AutoencoderSettings(network="mlp", latent=7).network_for((1, 28, 28)) == "mlp"


def test_the_released_presets_are_settings_of_their_methods():
    for name, (settings, rate) in RELEASED.items():
        assert isinstance(settings, plugin("methods", name).Settings)
        assert (settings.filters, settings.misfit) == ((32, 32, 32), "cross_entropy")
        assert rate in (1e-3, 1e-4, 1e-5)


@pytest.mark.parametrize(
    ("kind", "wrong", "words"),
    [
        (AutoencoderSettings, {"network": "resnet"}, "network='resnet' is none of auto, lenet, patch, mlp"),
        (AutoencoderSettings, {"latent": 0}, "at least 1 unit, not latent=(0,)"),
        (AutoencoderSettings, {"hidden": (1 << 15,)}, "at most 16 layers of at most 16384 units"),
        (AEResSettings, {"adversarial_weight": -1}, "adversarial_weight=-1: must lie between 0 and"),
        (AEResSettings, {"discriminator_rate": 0}, "the discriminator would not learn"),
        (AAESettings, {"dropout": 1.0}, "dropout=1.0: must be at least 0 and less than 1"),
        (AAESettings, {"critic": ()}, "at least 1 unit, not critic=()"),
        (AEConSettings, {"reconstruction_weight": 0}, "the decoder would learn nothing"),
    ],
)
def test_settings_have_bounds(kind, wrong, words):
    with pytest.raises(SettingsError) as caught:
        kind(**wrong)
    assert words in str(caught.value)
