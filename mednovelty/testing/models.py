"""Models and scans small enough that the right answer is known in closed form."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from mednovelty.nn.point import Point
from mednovelty.scan import Scan, Volume
from mednovelty.types import Latents, Samples


class LinearGaussianVAE:
    """A VAE without networks: linear maps, constant widths that are not 1.

    ``q(z|x) = N(A x + a, diag s^2)`` and ``p(x|z) = N(W z + b, diag t^2)``, with A, a, W, b drawn from a
    seed and s, t between 0.5 and 2. It keeps every promise of ``ProbabilisticAutoencoder``, and offers what
    ``capabilities`` lists besides: ``features`` 2 tanh(A x), another ``consistent`` encoder,
    A x / 2, ``novelty`` ||x||^2, a ``hypersphere`` around the prior's mean, and a ``heatmap`` and a
    ``lesion_map`` of squares.

    Args:
        channels: C.
        latent: Z.
        seed: Draws the maps.
    """

    def __init__(self, channels: int, latent: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.channels = channels
        self.encoder = torch.randn(latent, channels, generator=generator) / channels**0.5
        self.encoder_shift = torch.randn(latent, generator=generator)
        self.decoder = torch.randn(channels, latent, generator=generator)
        self.decoder_shift = torch.randn(channels, generator=generator)
        self.latent_sigma = 0.5 + 1.5 * torch.rand(latent, generator=generator)
        self.signal_sigma = 0.5 + 1.5 * torch.rand(channels, generator=generator)

    @property
    def prior(self) -> Independent:
        """N(0, 1)."""
        zeros = torch.zeros_like(self.latent_sigma)
        return Independent(Normal(zeros, torch.ones_like(zeros)), 1)

    def encode(self, x: Samples) -> Independent:
        """Return N(A x + a, diag s^2)."""
        # A sum over products, not a matrix product: the same bits whatever the batch.
        mean = (x[:, None] * self.encoder).sum(-1) + self.encoder_shift
        return Independent(Normal(mean, self.latent_sigma.expand_as(mean)), 1)

    def decode(self, z: Latents) -> Independent:
        """Return N(W z + b, diag t^2)."""
        mean = (z[:, None] * self.decoder).sum(-1) + self.decoder_shift
        return Independent(Normal(mean, self.signal_sigma.expand_as(mean)), 1)

    def features(self, x: Samples) -> Tensor:
        """Return 2 tanh(A x)."""
        return 2 * (x[:, None] * self.encoder).sum(-1).tanh()

    def consistent(self, x: Samples) -> Latents:
        """Return A x / 2."""
        return (x[:, None] * self.encoder).sum(-1) / 2

    def hypersphere(self, z: Latents) -> Tensor:
        """Return ||z||^2 - 2."""
        return z.square().sum(-1) - 2

    def novelty(self, x: Samples) -> Tensor:
        """Return ||x||^2."""
        return x.square().sum(1)

    def heatmap(self, x: Samples) -> Tensor:
        """Return x^2 summed over the channels of each voxel, ``(B, *space)``."""
        return x.square().reshape(len(x), *getattr(self, "shape", (self.channels,))).sum(1)

    def lesion_map(self, x: Samples) -> Tensor:
        """Return what ``heatmap`` does."""
        return self.heatmap(x)

    def upsampled(self, maps: Tensor) -> Tensor:
        """Return the maps: they are of voxels already."""
        return maps


class PointAutoencoder:
    """The means of a ``LinearGaussianVAE`` without its distributions: a deterministic autoencoder.

    Args:
        channels: C.
        latent: Z.
        seed: Draws the maps.
    """

    def __init__(self, channels: int, latent: int, seed: int = 0) -> None:
        self._vae = LinearGaussianVAE(channels, latent, seed)
        self.channels, self.latents = channels, latent

    def encode(self, x: Samples) -> Point:
        """Return A x + a."""
        return Point(self._vae.encode(x).mean)

    def decode(self, z: Latents) -> Point:
        """Return W z + b."""
        return Point(self._vae.decode(z).mean)


class HeteroscedasticVAE(LinearGaussianVAE):
    """The same with widths that differ from sample to sample, by up to a factor of 1.65 either way.

    With constant widths, a sample's sigma and a normal's are one, and taking one for the other goes unseen.
    """

    def encode(self, x: Samples) -> Independent:
        """Return N(A x + a, diag s(x)^2)."""
        return _rippled(super().encode(x).mean, self.latent_sigma)

    def decode(self, z: Latents) -> Independent:
        """Return N(W z + b, diag t(z)^2)."""
        return _rippled(super().decode(z).mean, self.signal_sigma)


class ExactLinearVAE(LinearGaussianVAE):
    """A linear model whose q(z|x) is the true posterior, so that -ELBO is -log p(x); float64.

    ``x = W z + b + t eps`` with ``W = diag(t) Q diag(g)`` and orthonormal columns in Q: then
    ``W' diag(t)^-2 W = diag(g^2)``, and the posterior is diagonal: variance ``1 / (1 + g^2)``, mean
    ``g Q' diag(t)^-1 (x - b) / (1 + g^2)``.

    Args:
        channels: C.
        latent: Z, at most C.
        seed: Draws the maps.
    """

    def __init__(self, channels: int, latent: int, seed: int = 0) -> None:
        super().__init__(channels, latent, seed)
        noise = self.signal_sigma.double()
        axes = torch.linalg.qr(self.decoder.double()).Q
        gain = torch.linspace(0.6, 2.3, latent, dtype=torch.float64)
        self.signal_sigma = noise
        self.decoder = noise[:, None] * axes * gain
        self.decoder_shift = self.decoder_shift.double()
        self.latent_sigma = (1 + gain.square()).rsqrt()
        self.encoder = (gain / (1 + gain.square()))[:, None] * axes.T / noise
        self.encoder_shift = -self.encoder @ self.decoder_shift

    def log_evidence(self, x: Samples) -> Tensor:
        """Return ``(B,)`` log p(x), of N(b, W W' + diag t^2)."""
        covariance = self.decoder @ self.decoder.T + self.signal_sigma.square().diag()
        return MultivariateNormal(self.decoder_shift, covariance).log_prob(x)


def _rippled(mean: Tensor, sigma: Tensor) -> Independent:
    return Independent(Normal(mean, sigma * (mean.sin() / 2).exp()), 1)


def tiny_scan(seed: int = 0, channels: int = 5, shape: tuple[int, int, int] = (4, 3, 6)) -> Scan:
    """Return a scan in memory: noise around 100, an oblique left-handed grid, a mask with a hole."""
    rng = np.random.default_rng(seed)
    data = rng.uniform(50, 150, (channels, *shape)).astype(np.float32)
    affine = np.array([[-2.0, 0.3, 0, 90], [0.2, 1.5, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]])
    mask = np.ones(shape, bool)
    mask[1, 1, 2:4] = False
    return Scan.of(Volume(data, affine, "tiny.nii.gz"), mask, id="sub-tiny")


def random_samples(count: int, channels: int, seed: int = 0) -> Tensor:
    """Return ``(count, channels)`` standard normal samples."""
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))
