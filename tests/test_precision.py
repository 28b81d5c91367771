"""Half precision: asked for or not there at all, told, and how far from float32 it is."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import tiny_detector
from small_images import detector_of, scan_of

from mednovelty.batch import Batch
from mednovelty.detector import checked_settings
from mednovelty.errors import SettingsError
from mednovelty.map_settings import MapSettings
from mednovelty.memory_ladder import on_processor
from mednovelty.methods.image_vae import ImageVAEMethod
from mednovelty.methods.image_vae_settings import ImageVAESettings
from mednovelty.model_folder import fit_settings
from mednovelty.nn.precision import HalfPrecision, check_precision, in_precision
from mednovelty.outputs import environment
from mednovelty.plugins import plugin
from mednovelty.reference import Reference
from mednovelty.scoring import Scoring

NAMES = ["kl_gradient", "rec_gradient", "combi", "rec_error", "vae_regularizer", "rec_term"]
# Of the range of each map, or of the number; a derivative jumps where a leaky ReLU's input changes its sign.
LARGEST = {"kl_gradient": 0.25, "rec_gradient": 0.25, "combi": 0.15, "rec_error": 0.02,
           "vae_regularizer": 0.03, "rec_term": 0.001}  # fmt: skip
MEAN = {"kl_gradient": 0.02, "rec_gradient": 0.02, "combi": 0.005, "rec_error": 0.001}


def network(shape=(2, 16, 16), **settings):
    method = ImageVAEMethod(ImageVAESettings(widths=[4, 8], latent=5, **settings))
    net = method.build(shape)
    method.start(net, None, torch.Generator().manual_seed(0))
    return net.eval().requires_grad_(False)


def images(net, count=6):
    return torch.randn(count, net.channels, generator=torch.Generator().manual_seed(1))


def errors(exact, rough):
    """Return the largest and the mean difference, as shares of the map's range or of the number."""
    apart = (exact - rough).abs() / ((exact.max() - exact.min()) if exact.ndim > 1 else exact.abs())
    return apart.max().item(), apart.mean().item()


@pytest.mark.parametrize("shape", [(2, 16, 16), (1, 8, 16, 12)])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("precision", "share"), [("bfloat16", 1.0), ("float16", 0.5)])
def test_the_error_of_half_precision_is_small_and_there(shape, name, precision, share):
    net, kind = network(shape), plugin("scorers", name)
    x = images(net)
    exact, rough = kind(net).score(Batch(x)), kind(HalfPrecision(net, precision)).score(Batch(x))
    assert rough.dtype == torch.float32
    largest, mean = errors(exact, rough)
    assert 0 < largest < share * LARGEST[name]
    assert mean < share * MEAN.get(name, LARGEST[name])


@pytest.mark.parametrize("recipe", ["slices", "patches"])
def test_a_map_in_bfloat16_is_the_map_and_says_so(recipe):
    detector, names = detector_of(recipe), ["kl_gradient", "rec_error", "raw_FLAIR"]
    half = detector.with_maps(MapSettings(precision="bfloat16"))
    exact, rough = detector.score(scan_of(4), names), half.score(scan_of(4), names)
    for name in names[:2]:
        a, b = (torch.from_numpy(found[name].data) for found in (exact, rough))
        assert 0 < errors(a, b)[0] < LARGEST[name]
        assert rough[name].about["settings"]["precision"] == "bfloat16"
        assert "precision" not in exact[name].about["settings"]
    np.testing.assert_array_equal(exact["raw_FLAIR"].data, rough["raw_FLAIR"].data)
    assert environment(half)["Dtype"] == "bfloat16"
    assert environment(detector)["Dtype"] == environment()["Dtype"] == "float32"


def test_in_float32_the_model_is_the_model():
    net = network()
    assert in_precision(net, "float32") is net
    half = in_precision(net, "bfloat16")
    assert (half.shape, half.channels) == (net.shape, net.channels)
    assert half.prior.mean.dtype == torch.float32
    assert copy.deepcopy(half).channels == net.channels


def test_only_the_network_computes_in_half():
    # A likelihood in bfloat16 would be off by a hundredth, and a sum over 512 values by more.
    net = network()
    x = images(net)
    half = HalfPrecision(net, "bfloat16")
    for gaussian in (half.encode(x), half.decode(half.encode(x).mean)):
        assert gaussian.mean.dtype == gaussian.base_dist.stddev.dtype == torch.float32
    mean = half.decode(half.encode(x).mean).mean
    expected = 0.5 * (x - mean).square().sum(1) + 0.5 * np.log(2 * np.pi) * net.channels
    torch.testing.assert_close(plugin("scorers", "rec_term")(half).score(Batch(x)), expected)
    assert not torch.is_autocast_enabled("cpu")


def test_float16_is_refused_on_the_processor_and_for_voxels():
    with pytest.raises(SettingsError, match=r"float16 is for CUDA: a processor .* take bfloat16, or float32"):
        detector_of("slices").with_maps(MapSettings(precision="float16")).score(scan_of(4))
    voxels = tiny_detector()[0].with_maps(MapSettings(precision="bfloat16")).scoring()
    with pytest.raises(SettingsError, match="networks of slices and windows; voxels are scored in float32"):
        voxels.check(["vae_regularizer"])
    for recipe in ("qspace", "slices"):
        settings = fit_settings({"maps": {"precision": "float16"}}, where="test", recipe=recipe)
        if recipe == "slices":  # Which device will score is not known when it is fitted.
            assert checked_settings(settings, recipe).maps.precision == "float16"
        else:
            with pytest.raises(SettingsError, match="voxels are scored in float32"):
                checked_settings(settings, recipe)
    check_precision("float16", torch.device("cuda"), images=True)
    with pytest.raises(SettingsError, match=r"maps\.precision"):
        fit_settings({"maps": {"precision": "half"}}, where="test", recipe="slices")


class Anywhere(Scoring):
    """Takes float16 on the processor too."""

    def check(self, names):
        pass


def test_what_float16_cannot_hold_is_refused_and_not_written():
    net = network(log_c=-6.0)  # 1 / c^2 is 163,000.
    x = images(net).numpy()

    def run(precision):
        made = Anywhere(net, Reference({}, "exact", 0), 2, 0, 3, precision=precision, name="sub-01")
        return made.run(["rec_gradient"], lambda a, b: (x[a:b], None), len(x))["rec_gradient"]

    with pytest.raises(
        SettingsError, match=r"sub-01: rec_gradient is not finite: .* 65504, where float16 ends"
    ):
        run("float16")
    assert np.isfinite(run("bfloat16")).all()


def test_the_processor_steps_in_with_float32():
    net = network()
    scoring = Scoring(net, Reference({}, "exact", 0), 2, 0, 3, precision="float16")
    there = scoring._on_processor()
    assert there.precision == "float32"
    there.check(["kl_gradient"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card here")
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("recipe", ["slices", "patches"])
def test_on_a_card(recipe, precision):
    detector, names = detector_of(recipe), ["kl_gradient", "rec_error"]
    exact = detector.score(scan_of(4), names)
    model = on_processor(detector.model).to("cuda")
    half = replace(detector, fitted=replace(detector.fitted, model=model))
    rough = half.with_maps(MapSettings(precision=precision)).score(scan_of(4), names)
    for name in names:
        a, b = (torch.from_numpy(found[name].data) for found in (exact, rough))
        assert 0 < errors(a, b)[0] < LARGEST[name]
