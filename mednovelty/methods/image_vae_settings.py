"""Settings of the VAE for images, and how its paper trains it (Zimmerer et al. 2019)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mednovelty.errors import SettingsError
from mednovelty.nn.augmentation import Augmentation
from mednovelty.schedule import TrainSettings

MOST_LAYERS, MOST_UNITS = 16, 1 << 14
"""No image needs more; a settings file that asks for more must not get the memory."""

WIDEST_LOG_SIGMA = 40.0
"""Beyond this sigma squared leaves the range of float32."""

PAPER_TRAINING = TrainSettings(
    batch_size=64,
    learning_rate=1e-4,
    max_epochs=100,
    patience=4,
    plateau_patience=2,
    plateau_factor=0.1,
    min_learning_rate=1e-8,
    min_improvement=0.01,
    gradient_clip=None,
    validation_voxels=2048,
)
"""How the paper trains: Adam at 1e-4, times 0.1 on a plateau of the validation loss, stopped once that
loss has not decreased for more than 3 epochs. Batches of 64 are the released code's, which trains for 5
epochs and neither lowers the rate nor stops. What neither of them says is ours: a plateau is two epochs
long (it must be shorter than what stops training), a decrease is 0.01 nats an image or more, at most 100
epochs. ``validation_voxels`` counts images here, and bounds the memory they take."""


@dataclass(frozen=True, slots=True)
class ImageVAESettings:
    """Architecture, likelihood and loss of the VAE for images.

    Args:
        network: ``conv``: fully convolutional, for slices and windows; ``dense``: fully connected, for
            small images of any shape; ``lenet`` and ``patch``: those of Mesarcik et al. 2021, ``nn.lenet``
            for small images and ``nn.patchnet`` for patches of 128 pixels; ``pooled``: that of Vasilev et
            al. 2018 for small images, ``nn.pooled``.
        widths: Channels after each convolution of stride 2 (``conv``); the decoder mirrors them.
        filters: Channels after each of the three convolutions (``lenet``).
        hidden: Widths of the encoder's hidden layers (``dense``); the decoder mirrors them.
        latent: Z: latents of a dense network, latent channels of a convolutional one, which has as many at
            each of its latent positions.
        output: What the decoder's mean passes through: ``linear``, nothing; ``sigmoid``, for images
            between 0 and 1.
        likelihood: p(x|z): ``gaussian``, with standard deviation c; ``bernoulli``, of values between 0 and 1,
            with ``sigmoid``: its mean m is all it has, its variance m (1 - m) at least the floor's square.
        c: Standard deviation of p(x|z) in units of x, the same for all values. The paper calls c that
            too, though it prints N(g(z), c I).
        log_c: The same as a natural logarithm; give one of the two. Neither: c = 1.
        learn_c: Train log c with the weights, as one number; the given one is where it starts.
        reduction: What the training loss adds up: ``sum``, over values and latents: the ELBO; ``mean``,
            averages over values and over latents, each for itself, which weighs the KL by values/latents.
        kl_weight: Weight of the KL term, often called beta; 1 with ``sum`` is the ELBO.
        context_encoding: Train a ceVAE: also restore images with squares cut out of them.
        context_factor: Share of that in the loss, between 0 and 1.
        augmentation: How training images are changed; None: not at all.
        released_sampler: Draw z with exp(h / 2), h = log sigma, where the KL has exp(h): the mistake of the
            released Fashion-MNIST code, to compare with it.
        log_sigma_floor: Smallest log sigma of q(z|x), and log c, at least -40.
        log_sigma_ceiling: Largest, at most 40; it keeps the scores of images far from any seen finite.
    """

    network: Literal["conv", "dense", "lenet", "patch", "pooled"] = "conv"
    widths: tuple[int, ...] = (16, 32, 64, 256)
    filters: tuple[int, ...] = (32, 64, 128)
    hidden: tuple[int, ...] = (400,)
    latent: int = 256
    output: Literal["linear", "sigmoid"] = "linear"
    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    c: float | None = None
    log_c: float | None = None
    learn_c: bool = False
    reduction: Literal["sum", "mean"] = "sum"
    kl_weight: float = 1.0
    context_encoding: bool = False
    context_factor: float = 0.5
    augmentation: Augmentation | None = None
    released_sampler: bool = False
    log_sigma_floor: float = -10.0
    log_sigma_ceiling: float = 10.0

    def __post_init__(self) -> None:
        for name in ("widths", "filters", "hidden"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            self._check_layers(name)
        for name, known in (
            ("network", ("conv", "dense", "lenet", "patch", "pooled")),
            ("output", ("linear", "sigmoid")),
            ("likelihood", ("gaussian", "bernoulli")),
            ("reduction", ("sum", "mean")),
        ):
            if getattr(self, name) not in known:
                raise SettingsError(f"{name}={getattr(self, name)!r} is none of {', '.join(known)}")
        self._check_numbers()

    @property
    def start_log_c(self) -> float:
        """Return log c, where it starts if it is learned."""
        if self.log_c is not None:
            return self.log_c
        return 0.0 if self.c is None else math.log(self.c)

    def _check_layers(self, name: str) -> None:
        layers = getattr(self, name)
        if not layers or min(*layers, self.latent) < 1:
            raise SettingsError(
                f"a VAE needs layers of at least 1 unit, not {name}={layers}, latent={self.latent}"
            )
        if len(layers) > MOST_LAYERS or max(*layers, self.latent) > MOST_UNITS:
            raise SettingsError(
                f"a VAE for images has at most {MOST_LAYERS} layers of at most {MOST_UNITS} units, not "
                f"{name}={layers}, latent={self.latent}"
            )

    def _check_numbers(self) -> None:
        if self.likelihood == "bernoulli" and (self.output != "sigmoid" or self.learn_c):
            raise SettingsError("likelihood='bernoulli' needs output='sigmoid', and has no c to learn")
        low, high = self.log_sigma_floor, self.log_sigma_ceiling
        if not -WIDEST_LOG_SIGMA <= low < high <= WIDEST_LOG_SIGMA:
            raise SettingsError(
                f"log_sigma_floor={low}, log_sigma_ceiling={high}: the first must be the smaller, both "
                f"within {-WIDEST_LOG_SIGMA:g} and {WIDEST_LOG_SIGMA:g}"
            )
        if self.c is not None and self.log_c is not None:
            raise SettingsError(f"c={self.c} and log_c={self.log_c} are the same setting; give one")
        if self.c is not None and not 0 < self.c < math.inf:
            raise SettingsError(f"c={self.c} is a standard deviation: it must be positive")
        if not low <= self.start_log_c <= high:
            raise SettingsError(f"log c = {self.start_log_c:g} lies outside of {low:g} to {high:g}")
        if not 0 <= self.kl_weight < math.inf:
            raise SettingsError(f"kl_weight={self.kl_weight}: must be finite and not negative")
        if not 0 < self.context_factor < 1:
            raise SettingsError(f"context_factor={self.context_factor}: must lie between 0 and 1")


FASHION_MNIST = ImageVAESettings(network="dense", hidden=(400,), latent=20, output="sigmoid")
"""The paper's fully connected network for 28 x 28 images: 784-400-20-400-784, as its code has it."""

NLN_RELEASED = ImageVAESettings(
    network="lenet", filters=(32, 32, 32), latent=32, output="sigmoid", c=0.5, kl_weight=784 / 1024
)
"""The VAE of the code of Mesarcik et al. 2021, but for its likelihood: binary cross-entropy there, 1024 times
its mean over 784 pixels; here a Gaussian, which every score of a VAE needs, with c = 1/2, as curved as the
cross-entropy is at a half."""


def presets(*, images: bool) -> dict[str, dict[str, Any]]:
    """Return trees of settings by name, of slices and windows; for voxels there are none.

    ``nln-released`` is ``NLN_RELEASED``, trained in batches of 1024 by Adam at 1e-3 for 50 epochs.
    """
    rates = {"batch_size": 1024, "min_steps": 1, "learning_rate": 1e-3, "max_epochs": 50, "patience": 50}
    tree = {
        "method_settings": asdict(NLN_RELEASED),
        "train": {**rates, "plateau_patience": 50, "gradient_clip": None},
        "preprocessors": ["unit_range"],
        "nln": {"alpha": 0.6},
    }
    return {"nln-released": tree} if images else {}


__all__ = ["FASHION_MNIST", "NLN_RELEASED", "PAPER_TRAINING", "ImageVAESettings", "presets"]
