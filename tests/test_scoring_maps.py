"""Scores that are maps, through the door that all scores go through."""

import numpy as np
import pytest
import torch

from mednovelty.batch import Batch
from mednovelty.errors import SettingsError
from mednovelty.methods.input_gradients import NoisyCopies
from mednovelty.nn.smoothing import Blur, Smoothing
from mednovelty.plugins import plugin
from mednovelty.reference import Reference
from mednovelty.scoring import Scoring, resolve_names
from mednovelty.testing.images import ConvVAE

SHAPE = (2, 6, 9)
MODEL = ConvVAE(SHAPE)
NAMES = ["vae_regularizer", "combi", "kl_gradient", "rec_error", "negative_elbo", "kl_gradient_smooth"]


def slices(count=7):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0)).numpy()


def scoring(batch=3, seed=5, **options):
    return Scoring(MODEL, Reference({}, "exact", 0), 4, seed, batch, **options)


def run(made, names=NAMES, count=7):
    x = slices(count)
    return made.run(names, lambda start, stop: (x[start:stop], None), count)


def test_maps_come_as_maps_and_numbers_as_numbers():
    found = run(scoring())
    assert list(found) == NAMES
    for name, scores in found.items():
        assert scores.shape == ((7,) if plugin("scorers", name).level == "sample" else (7, 6, 9)), name
        assert scores.dtype == np.float32
    x = torch.from_numpy(slices()).flatten(1)
    plain = plugin("scorers", "combi")(MODEL).score(Batch(x))
    np.testing.assert_allclose(found["combi"], plain, rtol=1e-4, atol=1e-6)
    assert {name: scores.shape[0] for name, scores in run(scoring(), count=0).items()} == dict.fromkeys(
        NAMES, 0
    )


def test_maps_do_not_depend_on_how_samples_are_divided_into_batches():
    one, other = run(scoring(batch=3)), run(scoring(batch=7))
    for name in NAMES:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_one_score_has_the_same_bits_whatever_else_is_asked_for():
    together = run(scoring())
    for name in NAMES:
        assert np.array_equal(run(scoring(), [name])[name], together[name]), name


def test_smoothing_reaches_the_scorers_in_pixels_of_their_grid():
    wide = scoring(smoothing=Smoothing(3.0, "mm", 2.0), spacing_mm=(1.5, 3.0))
    assert wide.scorers(["combi"])["combi"].blur == Blur((2.0, 1.0), 2.0)
    x = torch.from_numpy(slices()).flatten(1)
    expected = plugin("scorers", "kl_gradient")(MODEL, Blur((2.0, 1.0), 2.0)).score(Batch(x))
    np.testing.assert_allclose(run(wide)["kl_gradient"], expected, rtol=1e-4, atol=1e-6)
    assert scoring().scorers(["combi"])["combi"].blur == Blur(3.0, 1.0)
    with pytest.raises(SettingsError, match=r"smoothing over 3\.0 mm needs the spacing"):
        scoring(smoothing=Smoothing(3.0, "mm")).scorers(["combi"])
    # What is not smoothed needs no spacing.
    assert list(scoring(smoothing=Smoothing(3.0, "mm")).scorers(["rec_error", "rec_term"])) == [
        "rec_error",
        "rec_term",
    ]


def test_noisy_copies_follow_the_seed_of_the_scoring():
    made = scoring(seed=11, copies=NoisyCopies(count=3, sigma=0.4, seed=99))
    assert made.scorers(["kl_gradient_smooth"])["kl_gradient_smooth"].copies == NoisyCopies(3, 0.4, 11)
    first, again, other = (run(scoring(seed=seed))["kl_gradient_smooth"] for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other, rtol=1e-3)


def test_all_scores_of_images_are_with_those_that_say_where():
    voxels, images = set(resolve_names(["fast"])), set(resolve_names(["fast"], images=True))
    assert not voxels & {"kl_gradient", "rec_term", "combi_bright"}
    assert images - voxels >= {"kl_gradient", "rec_error", "rec_term", "combi_bright", "kl_gradient_smooth"}
    asked = {"rec_error", "kl_gradient", "rec_gradient", "elbo_gradient", "combi", "rec_term",
             "negative_elbo_at_mean", "nln_map"}  # fmt: skip
    assert set(resolve_names(["localisation"])) == asked
