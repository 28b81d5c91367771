"""The normals as a model sees them."""

import pytest
import torch

from mednovelty.errors import SettingsError
from mednovelty.reference import Reference, bytes_a_voxel
from mednovelty.testing.models import LinearGaussianVAE, random_samples


def test_latent_means_are_the_models():
    model, normals = LinearGaussianVAE(5, 3), random_samples(11, 5)
    reference = Reference.of(model, normals, {"latent_mean"}, drawn_from=99)
    torch.testing.assert_close(reference.parts["latent_mean"], model.encode(normals).mean)
    assert (len(reference), reference.drawn_from, reference.n_bytes) == (11, 99, 11 * 3 * 4)


def test_only_what_is_wanted_is_kept():
    reference = Reference.of(LinearGaussianVAE(5, 3), random_samples(11, 5), {"input"})
    with pytest.raises(SettingsError, match="holds input, but not 'latent_mean'"):
        reference.nearest("latent_mean", torch.zeros(2, 3))


def test_unknown_parts_are_refused():
    with pytest.raises(SettingsError, match="no part of a reference is called 'latents'"):
        Reference.of(LinearGaussianVAE(5, 3), random_samples(11, 5), {"latents"})


def test_parts_must_be_of_one_length():
    with pytest.raises(SettingsError, match="one length"):
        Reference({"input": torch.zeros(3, 2), "latent_mean": torch.zeros(4, 2)}, "exact", 9)


def test_cost_of_a_voxel_is_counted_in_float32():
    assert bytes_a_voxel({"input", "latent_mean"}, channels=33, latent=16) == 4 * 49
