"""What the VAE method says of its model: a single channel, and the words."""

import numpy as np
import pytest
from scipy.stats import norm
from torch import Generator

from mednovelty.methods.vae import VAEMethod, VAESettings
from mednovelty.methods.vae_comparison import compare_with_ppca
from mednovelty.voxel_cache import VoxelCache


def noise():
    return Generator().manual_seed(5)


def started(training):
    method = VAEMethod(VAESettings(hidden=(8, 6), latent=3, start="random"))
    model = method.build(training.shape)
    method.start(model, training, noise())
    return method, model.eval().requires_grad_(False)


def test_a_single_channel_is_compared_with_a_gaussian():
    rng = np.random.default_rng(0)
    x = (7 + 2.5 * rng.standard_normal((900, 1))).astype("f4")
    training, held_out = VoxelCache.from_array(x[:600]), VoxelCache.from_array(x[600:])
    method, model = started(training)
    result = compare_with_ppca(model, training, held_out, generator=noise())
    expected = norm(x[:600].mean(dtype="f8"), x[:600].std(dtype="f8")).logpdf(x[600:]).mean()
    assert result.pca == pytest.approx(expected, rel=1e-6)
    assert result.pca_as_given == pytest.approx(result.pca_standardised)
    assert result.components == 0
    assert f"a Gaussian ({result.pca:.2f};" in result.verdict
    assert "principal components" in result.verdict
    assert method.assess(model, training, held_out, noise()) == result.as_json()


def test_as_many_components_as_latents_but_one_less_than_channels():
    x = np.random.default_rng(0).standard_normal((300, 6)).astype("f4")
    for channels, components in ((2, 1), (3, 2), (4, 3), (6, 3)):
        cache = VoxelCache.from_array(x[:, :channels])
        method, model = started(cache)
        assert method.assess(model, cache, cache, noise())["components"] == components
