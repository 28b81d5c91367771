"""Settings of Deep SVDD, Deep SAD and hypersphere classification, which bring normal latents together.

Constants are those of Ruff, "Deep One-Class Learning", 2021, appendix B, and of its released code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from mednovelty.errors import SettingsError
from mednovelty.nn.one_class import Units
from mednovelty.schedule import TrainSettings

MOST_LAYERS, MOST_UNITS, MOST_FILTERS = 16, 1 << 14, 8
"""No sample needs more; a settings file that asks for more must not get the memory."""
UNBOUNDED = ("leaky_relu", "relu")
LARGE = (32, 64, 128), 128
SMALL = (8, 4), 32
"""Filters and latents of the thesis' networks for images of 32 pixels and of 28."""

PAPER_TRAINING = TrainSettings(
    batch_size=200,
    min_steps=1,
    learning_rate=1e-4,
    max_epochs=150,
    patience=151,
    plateau_patience=50,
    plateau_factor=0.1,
    min_learning_rate=1e-5,
    min_improvement=1e30,
    gradient_clip=None,
)
"""How the thesis trains on images: 50 epochs at 1e-4, 100 at 1e-5. No improvement is as large as asked for,
so the rate falls after 50 epochs whatever the loss. The best epoch is kept, by held-out samples; the thesis
keeps the last."""


@dataclass(frozen=True)
class HypersphereSettings:
    """Network and start, which the three methods have in common.

    Args:
        network: ``lenet``: convolutions; ``mlp``: fully connected, which standardises its inputs; ``auto``:
            ``mlp`` for voxels, else ``lenet``.
        filters: Channels after each convolution, halving the image each time; none: 32, 64, 128 where every
            side is a multiple of 8, else 8, 4: the thesis' for images of 32 and of 28 pixels.
        hidden: Widths of the hidden layers (``mlp``).
        latent: Z; None: 32, of the larger convolutional network 128.
        activation: ``leaky_relu`` or ``relu``; bounded ones are refused, proposition 3.
        slope: Of the leaky ReLU; the released code has 0.01.
        biases: Whether layers have biases, and batch norms weights of their own.
        weight_decay: Of Adam: lambda / 2.
        pretrain_epochs: For how many an autoencoder is trained whose encoder the network then is; 0: none.
        pretrain_rate: Its learning rate, a tenth of it for the last 2 of 7 epochs, as 250 and 100 are.
        pretrain_batch: Its largest batch; small cohorts take smaller ones.
        pretrain_output: What its output passes through: ``linear``, nothing; ``sigmoid``, for samples between
            0 and 1.
    """

    centred: ClassVar[bool] = True
    """Whether latents are brought to a fixed centre, for which a constant would do."""

    network: Literal["auto", "lenet", "mlp"] = "auto"
    filters: tuple[int, ...] = ()
    hidden: tuple[int, ...] = (128, 64)
    latent: int | None = None
    activation: str = "leaky_relu"
    slope: float = 0.1
    biases: bool = False
    weight_decay: float = 0.5e-6
    pretrain_epochs: int = 10
    pretrain_rate: float = 1e-3
    pretrain_batch: int = 32768
    pretrain_output: Literal["linear", "sigmoid"] = "linear"

    def __post_init__(self) -> None:
        for name in ("filters", "hidden"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_choice(self, "network", ("auto", "lenet", "mlp"))
        check_choice(self, "pretrain_output", ("linear", "sigmoid"))
        check_between(self, "slope", 0, 0.99)
        check_between(self, "weight_decay", 0, 1)
        check_between(self, "pretrain_epochs", 0, 100_000)
        check_between(self, "pretrain_rate", 1e-12, 1)
        check_between(self, "pretrain_batch", 2, 1 << 24)
        self._check_layers()
        self._check_constants()

    def network_for(self, shape: Sequence[int]) -> str:
        """Return which network samples of a shape, ``(C,)`` or ``(C, *space)``, get."""
        return self.network if self.network != "auto" else "lenet" if len(shape) > 1 else "mlp"

    def filters_for(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the filters for samples of a shape; none where the network is fully connected."""
        if self.network_for(shape) == "mlp":
            return ()
        return self.filters or (LARGE if all(side % 8 == 0 for side in shape[1:]) else SMALL)[0]

    def latent_for(self, shape: Sequence[int]) -> int:
        """Return Z for samples of a shape."""
        if self.latent is not None:
            return self.latent
        return LARGE[1] if self.filters_for(shape) == LARGE[0] else SMALL[1]

    @property
    def units(self) -> Units:
        """What all layers have in common."""
        return Units(self.slope if self.activation == "leaky_relu" else 0.0, self.biases)

    def _check_layers(self) -> None:
        for name, most in (("filters", MOST_FILTERS), ("hidden", MOST_LAYERS)):
            layers = getattr(self, name)
            if len(layers) > most or not all(1 <= units <= MOST_UNITS for units in layers):
                raise SettingsError(
                    f"{name}={layers}: at most {most} layers of 1 to {MOST_UNITS} units are taken"
                )
        if self.latent is not None:
            check_between(self, "latent", 1, MOST_UNITS)

    def _check_constants(self) -> None:
        """Refuse what lets a network map all samples to one point: then no sample is further away."""
        if self.activation not in UNBOUNDED:
            raise SettingsError(
                f"activation={self.activation!r} is none of {', '.join(UNBOUNDED)}: a bounded unit can be "
                "driven to its bound by all samples alike and then stands for a bias, by which the network "
                "can map them all to the centre (Ruff 2021, proposition 3)"
            )
        if self.biases and self.centred:
            raise SettingsError(
                "biases=true: with a bias the network can map all samples to the centre whatever they are, "
                "which is the best there is and tells nothing apart (Ruff 2021, proposition 2); set "
                "biases=false, or train hsc, which has anomalies to tell apart"
            )


@dataclass(frozen=True)
class DeepSVDDSettings(HypersphereSettings):
    """Deep SVDD.

    Args:
        objective: ``one_class``, Eq. (2.11), or ``soft_boundary``, Eq. (2.10).
        nu: The share of training samples that a soft boundary may leave outside.
        warm_up: Epochs in which the radius is 0 (``soft_boundary``).
        radius_epochs: The radius is found anew each so many epochs, from the distances of that epoch's
            batches; 0: after each batch, from its own, as in the thesis' experiments and the released code.
    """

    objective: Literal["one_class", "soft_boundary"] = "one_class"
    nu: float = 0.1
    warm_up: int = 10
    radius_epochs: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "objective", ("one_class", "soft_boundary"))
        if not 0 < self.nu <= 1:
            raise SettingsError(f"nu={self.nu}: a share of samples, must be above 0 and at most 1")
        check_between(self, "warm_up", 0, 100_000)
        check_between(self, "radius_epochs", 0, 100_000)


@dataclass(frozen=True)
class PlantingSettings(HypersphereSettings):
    """What methods that learn from anomalies have in common: they can be planted.

    Args:
        anomalies: What is planted in training samples: ``diffusion``, in q-space voxels, freer or more
            restricted diffusion (``nn.planted_diffusion``); ``confetti`` or ``lesions``, in slices
            and windows (``nn.planted_anomalies``); ``none``; ``auto``: ``none`` where labels, lesions or
            outliers are given, else ``diffusion`` or ``confetti``.
        share: Of a batch, how many are to be anomalies: with this probability one is planted in a sample,
            anew each time it is seen; labelled anomalies and outliers of the batch count.
        background: What samples show outside of the scan; lesions are not planted there. None: the view's
            ``background``.
    """

    anomalies: Literal["auto", "none", "diffusion", "confetti", "lesions"] = "none"
    share: float = 0.5
    background: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "anomalies", ("auto", "none", "diffusion", "confetti", "lesions"))
        if not 0 < self.share < 1:
            raise SettingsError(f"share={self.share}: must lie between 0 and 1, both left out")
        if self.background is not None:
            check_between(self, "background", -1e15, 1e15)


@dataclass(frozen=True)
class DeepSADSettings(PlantingSettings):
    """Deep SAD.

    Args:
        eta: Weight of a labelled sample, or of one with an anomaly planted in it, beside an unlabelled one.
        epsilon: Added to squared distances before they are inverted; the released code's.
    """

    eta: float = 1.0
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between(self, "eta", 1e-6, 1e6)
        check_between(self, "epsilon", 1e-12, 1)


@dataclass(frozen=True)
class HSCSettings(PlantingSettings):
    """Hypersphere classification.

    Args:
        norm: h: ``pseudo_huber``, ``sqrt(||z||^2 + 1) - 1``; ``l1``; ``l2``; ``squared``.
        eta: Weight of a labelled sample, or of one with an anomaly planted in it, beside an unlabelled one.
    """

    centred: ClassVar[bool] = False

    biases: bool = True
    pretrain_epochs: int = 0
    anomalies: Literal["auto", "none", "diffusion", "confetti", "lesions"] = "auto"
    norm: Literal["pseudo_huber", "l1", "l2", "squared"] = "pseudo_huber"
    eta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "norm", ("pseudo_huber", "l1", "l2", "squared"))
        check_between(self, "eta", 1e-6, 1e6)


def check_choice(settings: Any, name: str, known: tuple[str, ...]) -> None:
    """Refuse a name that is none of those known."""
    if getattr(settings, name) not in known:
        raise SettingsError(f"{name}={getattr(settings, name)!r} is none of {', '.join(known)}")


def check_between(settings: Any, name: str, least: float, most: float) -> None:
    """Refuse a number out of bounds, or none."""
    value = getattr(settings, name)
    if not (math.isfinite(value) and least <= value <= most):
        raise SettingsError(f"{name}={value}: must lie between {least:g} and {most:g}")


def defaults(*, images: bool) -> dict[str, Any]:
    """Return settings of fitting, as a tree, where those of these methods are not everybody's.

    Args:
        images: Whether samples have voxels within.
    """
    tree: dict[str, Any] = {"scores": ["hypersphere", "latent_euclidean"]}
    if images:
        return tree | {"train": asdict(PAPER_TRAINING)}
    # The loss is a squared distance, whose scale the start decides.
    return {"scores": ["nearest_normal", *tree["scores"]], "train": {"min_improvement": 1e-5}}


__all__ = [
    "PAPER_TRAINING",
    "DeepSADSettings",
    "DeepSVDDSettings",
    "HSCSettings",
    "HypersphereSettings",
    "PlantingSettings",
    "defaults",
]
