"""Settings of the autoencoders of Mesarcik et al. 2021, and how its text and its code train them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mednovelty.errors import SettingsError
from mednovelty.schedule import TrainSettings

MOST_LAYERS, MOST_UNITS = 16, 1 << 14
"""No sample needs more; a settings file that asks for more must not get the memory."""
LARGEST_WEIGHT = 1e6
PATCH_SIDE = 64
"""Images whose sides are all as long get the networks of the paper's patches, if they fit."""

PAPER_TRAINING = TrainSettings(
    batch_size=1024,
    min_steps=1,
    learning_rate=1e-4,
    max_epochs=50,
    patience=50,
    plateau_patience=50,
    min_learning_rate=1e-8,
    min_improvement=1e-6,
    gradient_clip=None,
    validation_voxels=8192,
)
"""How the paper trains all of them: Adam at 1e-4, 50 epochs, neither lowered nor stopped. The batch is the
released code's, which the text does not tell. The best epoch is kept, by held-out normals; the paper's is the
last. ``validation_voxels`` counts samples."""

VOXEL_TRAINING = TrainSettings(min_improvement=1e-4, gradient_clip=None)
"""Of voxels, of which a cohort has millions: the library's own. The loss is a share of the variance."""


@dataclass(frozen=True)
class AutoencoderSettings:
    """Architecture and misfit of an autoencoder.

    Args:
        network: ``lenet``: ``nn.lenet``, for small images; ``patch``: ``nn.patchnet``, for patches of 128
            pixels; ``mlp``: fully connected; ``auto``: ``mlp`` for voxels, ``patch`` for images whose sides
            are multiples of 16 and at least 64, ``lenet`` for others.
        filters: Channels after each of the three convolutions (``lenet``); 32 everywhere in the released
            code.
        hidden: Widths of the encoder's hidden layers (``mlp``); the decoder mirrors them.
        latent: Z, the paper's L; None: 32, of voxels 16.
        output: What the decoder's output passes through: ``linear``, nothing; ``sigmoid``, for values
            between 0 and 1.
        misfit: How a reconstruction is compared in training, averaged over a sample's values: ``squared``;
            ``absolute``; ``cross_entropy``, of values between 0 and 1, what the released code calls l2.
    """

    network: Literal["auto", "lenet", "patch", "mlp"] = "auto"
    filters: tuple[int, ...] = (32, 64, 128)
    hidden: tuple[int, ...] = (128, 64, 32)
    latent: int | None = None
    output: Literal["linear", "sigmoid"] = "linear"
    misfit: Literal["squared", "absolute", "cross_entropy"] = "squared"

    def __post_init__(self) -> None:
        for name in ("filters", "hidden"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            check_layers(name, getattr(self, name))
        check_layers("latent", (1 if self.latent is None else self.latent,))
        for name, known in (
            ("network", ("auto", "lenet", "patch", "mlp")),
            ("output", ("linear", "sigmoid")),
            ("misfit", ("squared", "absolute", "cross_entropy")),
        ):
            if getattr(self, name) not in known:
                raise SettingsError(f"{name}={getattr(self, name)!r} is none of {', '.join(known)}")
        if self.misfit == "cross_entropy" and self.output != "sigmoid":
            raise SettingsError("misfit='cross_entropy' compares shares: it needs output='sigmoid'")

    def network_for(self, shape: Sequence[int]) -> str:
        """Return which network samples of a shape, ``(C,)`` or ``(C, *space)``, get."""
        space = shape[1:]
        if self.network != "auto":
            return self.network
        if not space:
            return "mlp"
        return "patch" if all(side % 16 == 0 and side >= PATCH_SIDE for side in space) else "lenet"

    def latent_for(self, shape: Sequence[int]) -> int:
        """Return Z for samples of a shape."""
        return self.latent if self.latent is not None else 32 if len(shape) > 1 else 16


@dataclass(frozen=True)
class AdversarialSettings(AutoencoderSettings):
    """An autoencoder that is trained against a discriminator.

    Args:
        adversarial_weight: Of what the autoencoder gains by deceiving it.
        discriminator_rate: Its learning rate, as a multiple of the autoencoder's.
    """

    adversarial_weight: float = 1.0
    discriminator_rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(self, ("adversarial_weight", "discriminator_rate"))
        if not self.discriminator_rate:
            raise SettingsError("discriminator_rate=0: the discriminator would not learn")


@dataclass(frozen=True)
class AAESettings(AdversarialSettings):
    """An adversarial autoencoder: the discriminator sees latents.

    Args:
        critic: Widths of the discriminator's layers.
        dropout: Share of their units left out in training.
    """

    critic: tuple[int, ...] = (64, 128, 256)
    dropout: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "critic", tuple(self.critic))
        check_layers("critic", self.critic)
        if not 0 <= self.dropout < 1:
            raise SettingsError(f"dropout={self.dropout}: must be at least 0 and less than 1")


@dataclass(frozen=True)
class AEResSettings(AdversarialSettings):
    """A discriminative autoencoder: the discriminator sees samples.

    The paper tells neither weight nor rate. These are of the released code, whose discriminator and generator
    step at a hundredth of the reconstruction's rate; with 1 and 1 the opponent wins, and reconstructions of
    held-out digits get worse than the untrained network's.
    """

    adversarial_weight: float = 0.01
    discriminator_rate: float = 0.01


@dataclass(frozen=True)
class AEConSettings(AdversarialSettings):
    """A feature-consistent autoencoder, GANomaly's scheme (Akcay et al. 2018); the weights are its own.

    The discriminator learns at a hundredth of the rate, as that of ``AEResSettings``: at the same rate its
    features grow, and their difference drowns the reconstruction.

    Args:
        misfit: GANomaly's is ``absolute``.
        reconstruction_weight: Of the misfit.
        latent_weight: Of the second encoder's squared error.
    """

    misfit: Literal["squared", "absolute", "cross_entropy"] = "absolute"
    discriminator_rate: float = 0.01
    reconstruction_weight: float = 50.0
    latent_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(self, ("reconstruction_weight", "latent_weight"))
        if not self.reconstruction_weight:
            raise SettingsError("reconstruction_weight=0: the decoder would learn nothing")


def check_layers(name: str, layers: tuple[int, ...]) -> None:
    """Refuse layers without units, and more of them than any sample needs."""
    if not layers or min(layers) < 1:
        raise SettingsError(f"an autoencoder needs layers of at least 1 unit, not {name}={layers}")
    if len(layers) > MOST_LAYERS or max(layers) > MOST_UNITS:
        raise SettingsError(
            f"an autoencoder has at most {MOST_LAYERS} layers of at most {MOST_UNITS} units, not "
            f"{name}={layers}"
        )


def check_weights(settings: Any, names: tuple[str, ...]) -> None:
    """Refuse weights below 0, or beyond what arithmetic takes."""
    for name in names:
        value = getattr(settings, name)
        if not (math.isfinite(value) and 0 <= value <= LARGEST_WEIGHT):
            raise SettingsError(f"{name}={value}: must lie between 0 and {LARGEST_WEIGHT:g}")


OWN_SCORES = {"features": "nln_residual", "consistent": "nln_consistency"}
"""By what a model offers, the score that is for it."""


def defaults(*, images: bool) -> dict[str, Any]:
    """Return settings of fitting, as a tree, where an autoencoder's are not everybody's.

    Args:
        images: Whether samples have voxels within.
    """
    scores = ["latent_euclidean", "reconstruction_error", "nearest_latent_neighbours"]
    if images:
        return {"train": asdict(PAPER_TRAINING), "scores": ["rec_error", "nln_map", *scores]}
    return {"train": asdict(VOXEL_TRAINING), "scores": ["nearest_normal", *scores]}


_RELEASED = {"filters": (32, 32, 32), "output": "sigmoid", "misfit": "cross_entropy"}
RELEASED: dict[str, tuple[AutoencoderSettings, float]] = {
    "ae": (AutoencoderSettings(**_RELEASED), 1e-3),  # type: ignore[arg-type]
    "aae": (AAESettings(**_RELEASED), 1e-5),  # type: ignore[arg-type]
    "ae_res": (AEResSettings(**_RELEASED), 1e-3),  # type: ignore[arg-type]
    "ae_con": (AEConSettings(**_RELEASED, discriminator_rate=1.0), 1e-4),  # type: ignore[arg-type]
}
"""What the released code has in place of the text, by method: settings, and Adam's learning rate.

For ``ae_res`` the code lets three optimisers step: the reconstruction's at 1e-3, the discriminator's and the
generator's at 1e-5. One Adam steps here for the autoencoder; its adversarial weight of 0.01 stands for the
hundredth of the rate. In the code the discriminator's decision is never trained, which is not copied."""


def presets(kind: type) -> dict[str, dict[str, Any]]:
    """Return presets for images, trees of settings by name, of the method with that class of settings."""
    settings, rate = next(pair for pair in RELEASED.values() if type(pair[0]) is kind)
    tree = {
        "method_settings": asdict(settings),
        "train": {"learning_rate": rate},
        # The cross entropy is one of shares.
        "preprocessors": ["unit_range"],
        "nln": {"alpha": 0.6},
    }
    return {"released": tree}


__all__ = [
    "OWN_SCORES",
    "PAPER_TRAINING",
    "RELEASED",
    "VOXEL_TRAINING",
    "AAESettings",
    "AEConSettings",
    "AEResSettings",
    "AdversarialSettings",
    "AutoencoderSettings",
    "defaults",
    "presets",
]
