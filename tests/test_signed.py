"""Residuals in the direction in which lesions change each contrast."""

import numpy as np
import pytest
import torch
from small_images import TINY, detector_of, scan_of
from test_kl_gradient import SHAPES, images, made

from mednovelty.batch import Batch
from mednovelty.detector import Detector
from mednovelty.errors import SettingsError
from mednovelty.fit_command import overrides
from mednovelty.map_settings import MapSettings
from mednovelty.methods.signed import CombiSigned, RawSigned, RecSigned
from mednovelty.model_folder import fit_settings
from mednovelty.score_names import describe_score, resolve_names
from mednovelty.testing.images import ConvVAE, LinearImageVAE

SIGNS = {"FLAIR": 1, "T1w": -1}


def flat_model(shape):
    """Return a model that expects the same of every image."""
    model = LinearImageVAE(shape, 3)
    model.decoder = torch.zeros_like(model.decoder)
    return model


def test_by_hand():
    model = flat_model((2, 3, 4))
    x = model.decoder_shift[None].clone()
    x[0, 5] += 3  # First contrast, row 1, column 1.
    x[0, 12 + 5] -= 2  # The second, same place: as a lesion that is dark there.
    x[0, 0] += 3
    x[0, 12] += 3  # Bright in both, as fat is.
    x[0, 11] -= 1  # Dark in the first.
    score = RecSigned(model, (1.0, -1.0)).score(Batch(x))[0]
    assert score[1, 1].item() == pytest.approx(5)
    assert score[0, 0].item() == pytest.approx(0)
    assert score[2, 3].item() == pytest.approx(-1)
    assert RecSigned(model, (1.0, -0.5)).score(Batch(x))[0, 1, 1].item() == pytest.approx(4)
    assert RecSigned(model).score(Batch(x))[0, 1, 1].item() == pytest.approx(1)
    combi = CombiSigned(model, signs=(1.0, -1.0)).score(Batch(x))[0]
    kl = made("kl_gradient", model).score(Batch(x))[0]
    assert combi[1, 1].item() == pytest.approx(5 * kl[1, 1].item())
    assert combi[2, 3] == 0 < kl[2, 3]


@pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])
def test_is_the_weighted_sum_of_residuals(shape):
    model, x = ConvVAE(shape).double(), images(shape)
    signs = tuple(float(n) for n in np.linspace(-1, 1, shape[0])) if shape[0] > 1 else (-2.0,)
    weights = torch.tensor(signs, dtype=x.dtype).reshape(-1, *[1] * (len(shape) - 1))
    residual = (x - model.decode(model.encode(x).mean).mean).reshape(len(x), *shape)
    torch.testing.assert_close(RecSigned(model, signs).score(Batch(x)), (weights * residual).sum(1))
    raw = RawSigned(model, signs).score(Batch(x))
    torch.testing.assert_close(raw, (weights * x.reshape(len(x), *shape)).sum(1))


def test_signs_for_another_number_of_contrasts_are_refused():
    with pytest.raises(ValueError, match="signs for 3 contrasts, samples have 2"):
        RecSigned(flat_model((2, 3, 4)), (1.0, 0.0, 1.0)).score(Batch(torch.zeros(1, 24)))


@pytest.mark.parametrize("recipe", ["slices", "patches"])
def test_signs_go_by_contrast_name(recipe):
    detector, scan = detector_of(recipe), scan_of(4)
    maps = {
        name: detector.with_maps(MapSettings(signs=signs)).score(scan, "rec_signed")["rec_signed"]
        for name, signs in {"both": SIGNS, "flair": {"FLAIR": 1}, "t1": {"T1w": 1}, "none": {}}.items()
    }
    data = {name: novelty.data.astype(np.float64) for name, novelty in maps.items()}
    np.testing.assert_allclose(data["both"], data["flair"] - data["t1"], atol=1e-5)
    np.testing.assert_allclose(data["none"], data["flair"] + data["t1"], atol=1e-5)
    assert np.abs(data["t1"]).max() > 0.1
    assert maps["both"].about["settings"]["signs"] == SIGNS


def test_the_trivial_one_comes_with_signs_and_is_called_trivial():
    detector = detector_of("slices")
    assert detector.baselines == ("raw_FLAIR", "raw_T1w")
    signed = detector.with_maps(MapSettings(signs=SIGNS))
    assert signed.baselines == ("raw_FLAIR", "raw_T1w", "raw_signed")
    assert describe_score("raw_signed")["trivial"]
    assert not describe_score("rec_signed")["trivial"]
    found = signed.score(scan_of(4), ["raw_signed", "rec_signed"])
    assert found["raw_signed"].about["trivial"]
    # What it has in common with its competitor is done to it, too.
    smooth = signed.with_maps(MapSettings(signs=SIGNS, median_px=3)).score(scan_of(4), "raw_signed")
    assert smooth["raw_signed"].about["settings"] == {"signs": SIGNS, "median_px": 3}
    assert smooth["raw_signed"].data.std() < found["raw_signed"].data.std()


def test_from_the_command_line():
    settings = fit_settings(overrides(["maps.signs.FLAIR=1", "maps.signs.T1w=-1"]), where="--set",
                            recipe="slices")  # fmt: skip
    assert settings.maps.signs == SIGNS


@pytest.mark.parametrize("signs", [{"FLAIR": 0}, {"FLAIR": float("nan")}])
def test_signs_that_say_nothing_are_refused(signs):
    with pytest.raises(SettingsError, match="finite numbers and not all 0"):
        MapSettings(signs=signs)


def test_a_contrast_that_is_not_there_is_refused_before_training():
    tree = TINY | {"view_settings": {"size": [16, 16]}, "maps": {"signs": {"T2w": 1}}}
    settings = fit_settings(tree, where="test", recipe="slices")

    def trained(*_):
        raise AssertionError("training began")

    with pytest.raises(SettingsError, match=r"names 'T2w'; the contrasts are FLAIR, T1w"):
        Detector.fit([scan_of(n) for n in (1, 2)], recipe="slices", settings=settings, on_epoch=trained)


def test_all_has_them():
    assert {"rec_signed", "combi_signed"} <= set(resolve_names(["all"], images=True))


def test_scoring_can_be_set_anew_and_training_cannot():
    detector = detector_of("slices")
    changed = detector.with_scoring({"maps": {"signs": SIGNS, "median_px": 3}, "batch_voxels": 2})
    assert changed.settings.maps == MapSettings(signs=SIGNS, median_px=3)
    assert (changed.settings.batch_voxels, changed.settings.draws) == (2, detector.settings.draws)
    assert changed.settings.train == detector.settings.train
    again = changed.with_scoring({"maps": {"signs": {"T1w": 2}}}).settings.maps
    assert again == MapSettings(signs={"FLAIR": 1, "T1w": 2}, median_px=3)
    for tree, said in (
        ({"train": {"max_epochs": 3}}, "train is decided when fitting; scoring can change maps, draws"),
        ({"map": {}}, "no setting is called 'map'; did you mean 'maps'"),
        ({"maps": {"median_px": 4}}, "maps.median_px must be 0 or an odd number"),
        ({"maps": {"signs": {"T2w": 1}}}, "maps.signs names 'T2w'; the contrasts are FLAIR, T1w"),
    ):
        with pytest.raises(SettingsError, match=said):
            detector.with_scoring(tree)
