"""The VAE for slices, windows and small images, trained on healthy ones only.

Zimmerer et al., "Unsupervised Anomaly Localization using Variational Auto-Encoders", 2019.

    q(z|x) = N(f_mean(x), diag f_sigma(x)^2)      p(z) = N(0, I)
    p(x|z) = N(g(z), c^2 I)                       c fixed, or learned as one number        Eq. (2)
             or each value for itself 1 with probability g(z): for values between 0 and 1
    loss   = mean over the batch of KL(q(z|x) || p(z)) - log p(x|z), z ~ q(z|x)            Eq. (1)
    ceVAE  = (1 - f) loss + f mean of -log p(x | z = mean of q(z | x with holes))          f = 0.5

Images are rows: ``(B, D)``, the row-major flattening of ``(C, *space)``, so that every score of samples
works on them unchanged; latents are rows too, ``(B, Z * positions)``. Log likelihoods include
``-0.5 log(2 pi)`` for each value. Noise is drawn in training and for the ELBO only: scores take the mean
of q(z|x), as the released code does.

ceVAE is Zimmerer et al. 2018 (arXiv 1812.05941), with the authors' later factor of one half.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal
from torch.nn.functional import binary_cross_entropy

from mednovelty.errors import SettingsError
from mednovelty.methods.image_vae_settings import FASHION_MNIST, PAPER_TRAINING, ImageVAESettings, presets
from mednovelty.nn.augmentation import augmented, with_holes
from mednovelty.nn.conv import ConvDecoder, ConvEncoder
from mednovelty.nn.dense import MLP
from mednovelty.nn.lenet import LeNetDecoder, LeNetEncoder
from mednovelty.nn.mlp import GaussianHeads, GaussianMLP
from mednovelty.nn.patchnet import PatchDecoder, PatchEncoder
from mednovelty.nn.pooled import PooledDecoder, PooledEncoder
from mednovelty.papers import equation
from mednovelty.types import Latents, Samples

ACTIVE_NATS = 0.01
"""A latent is active when its KL, averaged over images, exceeds this many nats."""

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@equation("zimmerer2019", "Eq. (2)")
class ImageVAE(nn.Module):
    """Encoder, decoder and the standard deviation c of the likelihood.

    Args:
        shape: ``(C, *space)`` of an image.
        settings: Architecture, likelihood and the limits of sigma are used.

    Attributes:
        shape: As given.
        channels: D, values an image has: what scorers call the number of channels.
        latents: Length of a row of latents.
        log_c: A 0-dimensional tensor, a parameter where c is learned.

    Raises:
        SettingsError: A convolutional network cannot take images of that shape; see ``nn.conv``.
    """

    log_c: Tensor

    def __init__(self, shape: Sequence[int], settings: ImageVAESettings) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.channels = math.prod(self.shape)
        self.limits = (settings.log_sigma_floor, settings.log_sigma_ceiling)
        self.output, self.likelihood = settings.output, settings.likelihood
        self.encoder: GaussianMLP | ConvEncoder | GaussianHeads
        self.decoder: MLP | ConvDecoder | LeNetDecoder | PatchDecoder | PooledDecoder
        if settings.network == "conv":
            self.encoder = ConvEncoder(self.shape, settings.widths, settings.latent)
            self.decoder = ConvDecoder(self.shape, settings.widths, settings.latent)
            self.latents = math.prod(self.decoder.latent_shape)
        elif settings.network == "lenet":
            self.encoder = GaussianHeads(LeNetEncoder(self.shape, settings.filters, 2 * settings.latent))
            self.decoder = LeNetDecoder(self.shape, settings.filters, settings.latent)
            self.latents = settings.latent
        elif settings.network == "patch":
            self.encoder = GaussianHeads(PatchEncoder(self.shape, 2 * settings.latent))
            self.decoder = PatchDecoder(self.shape, settings.latent)
            self.latents = settings.latent
        elif settings.network == "pooled":
            self.encoder = GaussianHeads(PooledEncoder(self.shape, 2 * settings.latent))
            self.decoder = PooledDecoder(self.shape, settings.latent)
            self.latents = settings.latent
        else:
            self.encoder = GaussianMLP(self.channels, settings.hidden, settings.latent)
            self.decoder = MLP(settings.latent, settings.hidden[::-1], self.channels)
            self.latents = settings.latent
        log_c = torch.full((), float(settings.start_log_c))
        if settings.learn_c:
            self.log_c = nn.Parameter(log_c)
        else:
            self.register_buffer("log_c", log_c)

    @property
    def prior(self) -> Independent:
        """Return p(z) = N(0, I), event shape ``(Z * positions,)``."""
        zero = self.log_c.detach().new_zeros(self.latents)
        return _normal(zero, torch.ones_like(zero))

    @property
    def log_sigma(self) -> Tensor:
        """Return log c within its limits, a 0-dimensional tensor."""
        return self.log_c.clamp(*self.limits)

    def encode(self, x: Samples) -> Independent:
        """Return q(z|x), batch ``(B,)``, event ``(Z * positions,)``, for ``(B, D)`` images."""
        mean, log_sigma = self.posterior(x)
        return _normal(mean, log_sigma.exp())

    def decode(self, z: Latents) -> Independent:
        """Return p(x|z), batch ``(B,)``, event ``(D,)``, for ``(B, Z * positions)`` latents."""
        mean = self.image(z)
        if self.likelihood == "bernoulli":
            return _independent(_Bernoulli(mean, math.exp(self.limits[0])))
        return _normal(mean, self.log_sigma.exp().expand_as(mean))

    def posterior(self, x: Samples) -> tuple[Tensor, Tensor]:
        """Return mean and log sigma, ``(B, Z * positions)`` each, of q(z|x)."""
        mean, log_sigma = self.encoder(x)
        return mean, log_sigma.clamp(*self.limits)

    def image(self, z: Latents) -> Tensor:
        """Return g(z), ``(B, D)``: the mean of p(x|z)."""
        mean = self.decoder(z)
        return torch.sigmoid(mean) if self.output == "sigmoid" else mean


class ImageVAEMethod:
    """VAE of slices and windows, convolutional or dense; also ceVAE.

    Args:
        settings: Architecture, likelihood, loss; ``None``: the paper's network for brain slices.
    """

    Settings: ClassVar[type] = ImageVAESettings
    training: ClassVar[Any] = PAPER_TRAINING
    """The ``TrainSettings`` to train it with, as the paper states them."""
    presets = staticmethod(presets)

    def __init__(self, settings: ImageVAESettings | None = None) -> None:
        self.settings = settings or ImageVAESettings()

    def build(self, shape: Sequence[int]) -> ImageVAE:
        """Return the network for images of ``(C, *space)``; ``start`` or a file sets its weights."""
        return ImageVAE(shape, self.settings)

    def start(self, model: ImageVAE, normals: Any, generator: Generator) -> None:
        """Draw the weights.

        Args:
            model: From ``build``.
            normals: Images, normalised before they get here; looked at only where the likelihood is one of
                values between 0 and 1.
            generator: On the CPU.

        Raises:
            SettingsError: The likelihood is for values between 0 and 1, and they are not.
        """
        if self.settings.likelihood == "bernoulli":
            _check_shares(normals)
        model.encoder.initialise(generator)
        model.decoder.initialise(generator)

    def loss(self, model: ImageVAE, x: Samples, epoch: int, generator: Generator) -> dict[str, Tensor]:
        """Return ``loss`` and its terms, means over the batch, after augmentation.

        ``reconstruction`` and ``kl`` are sums or means over an image's values and latents, as the settings
        have it; so is ``context``, there only where a ceVAE is trained.
        """
        settings = self.settings
        if settings.augmentation is not None:
            images = augmented(x.unflatten(1, model.shape), settings.augmentation, generator)
            x = images.flatten(1)
        misfit, kl = closed_forms(model, x, generator, released_sampler=settings.released_sampler)
        values, latents = (model.channels, model.latents) if settings.reduction == "mean" else (1, 1)
        terms = {"reconstruction": misfit.mean() / values, "kl": kl.sum(1).mean() / latents}
        loss = terms["reconstruction"] + settings.kl_weight * terms["kl"]
        if settings.context_encoding:
            holed = with_holes(x.unflatten(1, model.shape), generator).flatten(1)
            terms["context"] = misfits(model, x, model.image(model.posterior(holed)[0])).mean() / values
            loss = (1 - settings.context_factor) * loss + settings.context_factor * terms["context"]
        return {"loss": loss, **terms}

    @torch.no_grad()
    def validate(self, model: ImageVAE, batches: Iterable[Samples], generator: Generator) -> dict[str, float]:
        """Return means over all images of the batches, in nats an image.

        ``loss`` is what is trained, in nats an image whatever the reduction, without augmentation and
        context encoding; with a KL weight of 1 and ``sum`` it is ``-elbo``. Beside it ``elbo``,
        ``reconstruction`` (-E log p(x|z)), ``kl`` and ``active_latents``.
        """
        count, reconstruction, kl = 0, 0.0, torch.zeros(model.latents, dtype=torch.float64)
        for x in batches:
            misfit, divergence = closed_forms(
                model, x, generator, released_sampler=self.settings.released_sampler
            )
            count += len(x)
            reconstruction += misfit.sum(dtype=torch.float64).item()
            kl += divergence.sum(0, dtype=torch.float64).cpu()
        fit, total = reconstruction / count, kl.sum().item() / count
        weight = self.settings.kl_weight
        if self.settings.reduction == "mean":
            weight *= model.channels / model.latents
        return {
            "loss": fit + weight * total,
            "elbo": -fit - total,
            "reconstruction": fit,
            "kl": total,
            "active_latents": float((kl / count > ACTIVE_NATS).sum()),
        }

    def assess(self, model: ImageVAE, training: Any, validation: Any, generator: Generator) -> dict[str, Any]:
        """Return the held-out ELBO beside the likelihood of the mean image, as JSON types.

        The numbers are those of ``image_vae_comparison.Comparison``, nats an image.

        Args:
            model: Trained.
            training: The ``VoxelCache`` of the images it was trained on.
            validation: One of images of other scans.
            generator: On the CPU.
        """
        # Imported here: the comparison is about this module's model.
        from mednovelty.methods.image_vae_comparison import compare_with_mean_image

        return compare_with_mean_image(model, training, validation, generator=generator).as_json()


@equation("zimmerer2019", "Eq. (1)")
def closed_forms(
    model: ImageVAE, x: Samples, generator: Generator, *, released_sampler: bool = False
) -> tuple[Tensor, Tensor]:
    """Return -log p(x|z) for one z of each image, ``(B,)``, and KL of each latent, ``(B, Z * positions)``.

    Args:
        model: Any state.
        x: ``(B, D)``.
        generator: Where the noise of z comes from, on the device of x.
        released_sampler: As in the settings.
    """
    mean, log_sigma = model.posterior(x)
    sigma = log_sigma.exp()
    noise = torch.randn(mean.shape, generator=generator, dtype=x.dtype, device=x.device)
    kl = 0.5 * (sigma.square() + mean.square() - 1.0) - log_sigma
    spread = (0.5 * log_sigma).exp() if released_sampler else sigma
    return misfits(model, x, model.image(mean + spread * noise)), kl


def misfits(model: ImageVAE, x: Samples, image: Tensor) -> Tensor:
    """Return ``-log N(x; image, c^2 I)``, ``(B,)``, in nats, for ``(B, D)`` images and their means.

    Of a model of values between 0 and 1 it is their cross-entropy, which is no density: nats of other models
    do not compare with it.
    """
    if model.likelihood == "bernoulli":
        return binary_cross_entropy(image.expand_as(x), x, reduction="none").sum(1)
    log_sigma = model.log_sigma
    constant = model.channels * (log_sigma + _HALF_LOG_2PI)
    return 0.5 * (x - image).square().sum(1) * (-2 * log_sigma).exp() + constant


def _check_shares(normals: Any) -> None:
    low = min(float(block.min()) for block in normals.blocks())
    high = max(float(block.max()) for block in normals.blocks())
    if low < 0 or high > 1:
        raise SettingsError(
            f"likelihood='bernoulli' is for values between 0 and 1, and the training images have {low:.4g} "
            f"to {high:.4g}; scale them, or set likelihood='gaussian'"
        )


def _normal(mean: Tensor, sigma: Tensor) -> Independent:
    # Arguments are not validated: it costs a pass over each array, and sigma is an exponential.
    return _independent(Normal(mean, sigma, validate_args=False))


def _independent(each: Distribution) -> Independent:
    return Independent(each, 1, validate_args=False)


class _Bernoulli(Bernoulli):
    """Of each value by itself; values between 0 and 1 have a cross-entropy for a log-likelihood.

    Args:
        mean: ``(B, D)`` probabilities.
        least: Of the standard deviation: scores that divide by it see no more certainty than that.
    """

    def __init__(self, mean: Tensor, least: float) -> None:
        super().__init__(probs=mean, validate_args=False)
        self._least = least**2

    @property
    def variance(self) -> Tensor:
        return super().variance.clamp_min(self._least)


__all__ = [
    "ACTIVE_NATS",
    "FASHION_MNIST",
    "PAPER_TRAINING",
    "ImageVAE",
    "ImageVAEMethod",
    "ImageVAESettings",
    "closed_forms",
    "misfits",
]
