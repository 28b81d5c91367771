"""The normals as a model sees them."""

import pytest
import torch

from mednovelty.errors import SettingsError
from mednovelty.reference import Reference, bytes_a_voxel, part_widths
from mednovelty.testing.models import HeteroscedasticVAE, LinearGaussianVAE, random_samples


def test_latent_means_are_the_models():
    model, normals = LinearGaussianVAE(5, 3), random_samples(11, 5)
    reference = Reference.of(model, normals, {"latent_mean"}, drawn_from=99)
    torch.testing.assert_close(reference.parts["latent_mean"], model.encode(normals).mean)
    assert (len(reference), reference.drawn_from, reference.n_bytes) == (11, 99, 11 * 3 * 4)


@pytest.mark.parametrize("rows", [4, 11, 1000])
def test_every_part_is_what_it_is_called(rows, monkeypatch):
    monkeypatch.setattr("mednovelty.reference.ENCODE_ROWS", rows)
    model, normals = HeteroscedasticVAE(5, 3), random_samples(11, 5)
    posterior = model.encode(normals)
    likelihood = model.decode(posterior.mean)
    expected = {
        "input": normals,
        "latent_mean": posterior.mean,
        "latent_sigma": posterior.stddev,
        "reconstruction_mean": likelihood.mean,
        "reconstruction_sigma": likelihood.stddev,
    }
    reference = Reference.of(model, normals, expected)
    assert list(reference.parts) == list(expected) == list(part_widths(5, 3))
    for name, part in reference.parts.items():
        torch.testing.assert_close(part, expected[name], msg=name)
        assert part.dtype == torch.float32
        assert part.shape == (11, part_widths(5, 3)[name])
        assert list(Reference.of(model, normals, {name}).parts) == [name]
    assert reference.n_bytes == 11 * bytes_a_voxel(expected, channels=5, latent=3)


def test_normals_are_encoded_and_decoded_only_where_a_part_asks_for_it():
    model, normals, calls = LinearGaussianVAE(5, 3), random_samples(11, 5), []
    encode, decode = model.encode, model.decode
    model.encode = lambda x: calls.append("encode") or encode(x)
    model.decode = lambda z: calls.append("decode") or decode(z)
    Reference.of(model, normals, {"input"})
    assert calls == []
    Reference.of(model, normals, {"latent_sigma", "input"})
    assert calls == ["encode"]
    Reference.of(model, normals, {"reconstruction_sigma"})
    assert calls == ["encode", "encode", "decode"]


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
    assert bytes_a_voxel(part_widths(33, 16), channels=33, latent=16) == 4 * (3 * 33 + 2 * 16)
