"""Weights with which a VAE is probabilistic PCA: the start of its training.

A ReLU cannot pass a signed number, but a pair of them can: relu(a) - relu(-a) = a. So each principal
coordinate travels through the hidden layers as two units, which takes 2 Z units a layer: as many as
the narrowest layer of the paper's three nets has, or less. The heads then give

    q(z|x) = N(M^-1 W' x, sigma^2 M^-1)       the exact posterior of probabilistic PCA,
    p(x|z) = N(W z, sigma^2 I)                its likelihood,

so that the ELBO equals log p(x) of probabilistic PCA from the first step on, and training can only
add to it what is not linear or not of constant noise. The other units start with random inputs and
no effect on the output; their gradients are not zero.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mednovelty.methods.ppca import ProbabilisticPCA
from mednovelty.nn.mlp import GaussianMLP


@torch.no_grad()
def start_at_pca(encoder: GaussianMLP, decoder: GaussianMLP, covariance: np.ndarray) -> None:
    """Set the weights of initialised networks to those of probabilistic PCA, in place.

    As many components are carried as fit: at most Z, C - 1 and half the narrowest layer. Latents
    without a component start at the prior.

    Args:
        encoder: From C inputs to Z.
        decoder: From Z inputs to C.
        covariance: ``(C, C)`` of centred inputs.
    """
    latent, channels = encoder.n_out, encoder.n_in
    narrowest = min(layer.out_features for layer in [*encoder.hidden, *decoder.hidden])
    carried = min(latent, channels - 1, narrowest // 2)
    if carried < 1:
        return
    pca = ProbabilisticPCA.fit(np.zeros(channels), covariance, carried)
    to_latent, posterior_sigma = pca.posterior(np.eye(channels))
    _carry(encoder, torch.from_numpy(to_latent.T), torch.eye(latent, carried))
    _set(encoder.heads.bias[latent : latent + carried], torch.from_numpy(np.log(posterior_sigma)))
    _carry(decoder, torch.eye(carried, latent), torch.from_numpy(pca.loadings))
    _set(decoder.heads.bias[channels:], torch.tensor(0.5 * np.log(pca.noise_variance)))


def _carry(network: GaussianMLP, into: Tensor, out: Tensor) -> None:
    """Make a network's mean ``out @ into @ x`` and its log sigma 0, through pairs of units.

    Args:
        network: From N_in to N_out.
        into: ``(K, N_in)``.
        out: ``(N_out, K)``.
    """
    pairs = 2 * len(into)
    first, *later = network.hidden
    _set(first.weight[:pairs], _signed(into.T).T)
    for layer in later:
        _set(layer.weight[:pairs], torch.eye(pairs, layer.in_features))
    network.heads.weight.zero_()
    _set(network.heads.weight[: len(out), :pairs], _signed(out))


def _set(weights: Tensor, values: Tensor) -> None:
    """Write values, of whatever dtype and device, into a view of a network's weights."""
    weights.copy_(values)


def _signed(matrix: Tensor) -> Tensor:
    """Return each column twice, side by side, the second with its sign changed."""
    return torch.stack([matrix, -matrix], dim=2).flatten(1)


__all__ = ["start_at_pca"]
