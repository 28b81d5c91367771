"""Image models small enough for finite differences, in two and three dimensions."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from mednovelty.testing.models import LinearGaussianVAE
from mednovelty.types import Latents, Samples


class LinearImageVAE(LinearGaussianVAE):
    """``LinearGaussianVAE`` of flattened images, in float64.

    Args:
        shape: ``(C, *space)``.
        latent: Z.
        seed: Draws the maps.
    """

    def __init__(self, shape: tuple[int, ...], latent: int, seed: int = 0) -> None:
        super().__init__(prod(shape), latent, seed)
        self.shape = shape
        for name, value in list(vars(self).items()):
            if isinstance(value, Tensor):
                setattr(self, name, value.double())


class ConvVAE(nn.Module):
    """A convolutional VAE with kinkless nonlinearities, whose sigmas differ from sample to sample; float32.

    One strided convolution, flattened latents; one transposed convolution back.

    Args:
        shape: ``(C, *space)``, two or three axes.
        maps: Latent channels; Z is their number times that of places that are left.
        seed: Draws the weights.
    """

    def __init__(self, shape: tuple[int, ...], maps: int = 2, seed: int = 0) -> None:
        super().__init__()
        contrasts, *space = shape
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[len(space)]
        transposed = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[len(space)]
        self.shape, self.channels = shape, prod(shape)
        self.latent_shape = (maps, *((length + 1) // 2 for length in space))
        self.down = convolution(contrasts, 5, 3, stride=2, padding=1)
        self.heads = convolution(5, 2 * maps, 1)
        self.up = transposed(maps, 2 * contrasts, 3, stride=2, padding=1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weights in self.parameters():
                weights.copy_(0.3 * torch.randn(weights.shape, generator=generator))
        self.eval().requires_grad_(False)

    @property
    def prior(self) -> Independent:
        """N(0, 1)."""
        return _gaussian(torch.zeros(prod(self.latent_shape), dtype=self.down.weight.dtype), torch.zeros(()))

    def encode(self, x: Samples) -> Independent:
        """Return q(z|x) of ``(B, D)`` flattened images."""
        hidden = torch.tanh(self.down(x.reshape(len(x), *self.shape)))
        mean, log_sigma = self.heads(hidden).chunk(2, dim=1)
        return _gaussian(mean.flatten(1), log_sigma.flatten(1))

    def decode(self, z: Latents) -> Independent:
        """Return p(x|z), event ``(D,)``."""
        places = z.reshape(len(z), *self.latent_shape)
        grown = self.up(places, output_size=[len(z), 2 * self.shape[0], *self.shape[1:]])
        mean, log_sigma = grown.chunk(2, dim=1)
        return _gaussian(mean.flatten(1), log_sigma.flatten(1))


def _gaussian(mean: Tensor, log_sigma: Tensor) -> Independent:
    return Independent(Normal(mean, log_sigma.exp().to(mean.dtype).expand_as(mean)), 1)
