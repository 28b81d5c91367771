"""Settings of the VAE in hyperspherical coordinates, its special cases, and what its released code does."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from mednovelty.errors import SettingsError
from mednovelty.nn.augmentation import Augmentation
from mednovelty.schedule import TrainSettings

MOST_LAYERS, MOST_UNITS = 16, 1 << 14
"""No sample needs more; a settings file that asks for more must not get the memory."""

LATENTS = {"residual": 128, "dense": 16}
"""Z where the settings leave it open."""

Network = Literal["auto", "residual", "dense"]
Coordinates = Literal["hyperspherical", "cartesian"]
FreeAngles = Literal["equator", "diagonal"]
Annealing = Literal["sqrt", "restarts"]

PAPER_TRAINING = TrainSettings(
    batch_size=200,
    learning_rate=2e-4,
    max_epochs=300,
    patience=301,
    plateau_patience=301,
    gradient_clip=None,
)
"""How the released code trains, but that it halves the rate at epochs 280 and 450 and keeps the last weights,
not the best. It takes a step of the encoder and one of the decoder in turn, the loss times 0.001: under
Adam, which knows no scale, and with a divergence that the decoder does not enter, one step of both."""


@dataclass(frozen=True, slots=True)
class HypersphericalSettings:
    """Architecture, priors, gains and schedule.

    Args:
        network: ``residual``, for slices, windows and small images; ``dense``, an MLP that standardises its
            inputs, for voxels; ``auto``: ``dense`` for voxels, else ``residual``.
        widths: Of a residual network, see ``nn.residual``.
        hidden: Of a dense encoder; the decoder mirrors them.
        latent: Z, d in the paper; None: 128 of a residual network, 16 of a dense one.
        output: ``linear``, or ``sigmoid`` for samples between 0 and 1.
        coordinates: Those of the divergence; ``cartesian``: the usual VAE, Eq. (1), to compare with.
        compressed: How many angles, from the first, are drawn to the pole; None: all; 1: the von Mises-Fisher
            case; 0: none.
        free_angles: Where the others are: ``equator``, mean cosine 0, as of normal vectors; ``diagonal``, the
            cosines of the all-ones vector (the authors' earlier paper).
        sigma_scale: The length of the vector of sigmas is drawn to this times ``sqrt(d - 0.5)``; 1 in the
            authors' earlier paper.
        mu_angle_gain: Of the angles of the means.
        mu_radius_gain: Of their lengths.
        sigma_angle_gain: Of the angles of the vectors of sigmas.
        sigma_radius_gain: Of their lengths.
        mean_gain: Of the means of cosines, beside their spreads.
        first_angle_emphasis: The released code's weights of the means of cosines: 100 for the first angle
            (150 after epoch 100), none for the last, and ``sqrt(epoch - 101) + 1`` for the others after epoch
            100, counted from 0. Without it all angles are alike, as in Eq. (2).
        beta: Weight of the divergence, times the annealing; where calibrated, in units of the first epoch's
            reconstruction error over its divergence.
        calibrate: Measure that in the first epoch, where the weight is 1.
        annealing: ``sqrt``: ``sqrt(epoch) + 1``, which stays where ``anneal_epochs`` has brought it;
            ``restarts``: the released code's, which falls to 1 there, stays for twice as long, and starts
            again.
        anneal_epochs: How long it rises.
        cartesian_weight: Weight of the divergence in Cartesian coordinates; 1: the ELBO, where the variance
            of the likelihood is a half.
        epsilon: Added to squared lengths under the cosines of the means, 0.001 in the released code. Without
            it (0, Eq. 2) derivatives grow without limit just where compression leads.
        sigma_epsilon: The same of the sigmas, which need none; the released code has 0.001 here too, a
            thousand times the square of the sigma that it asks for.
        normalise: Bring z to the length ``sqrt(d)`` before it is decoded.
        classes: Labelled classes, each with a pole of its own; 0: the samples have no labels.
        class_spacing: Poles are so many axes apart.
        augmentation: How training images are changed; None: not at all.
        log_sigma_floor: Smallest log sigma of q(z|x).
        log_sigma_ceiling: Largest.
    """

    network: Network = "auto"
    widths: tuple[int, ...] = (16, 32, 64)
    hidden: tuple[int, ...] = (128, 64, 32)
    latent: int | None = None
    output: Literal["linear", "sigmoid"] = "linear"
    coordinates: Coordinates = "hyperspherical"
    compressed: int | None = None
    free_angles: FreeAngles = "equator"
    sigma_scale: float = 0.001
    mu_angle_gain: float = 1000.0
    mu_radius_gain: float = 300.0
    sigma_angle_gain: float = 500_000.0
    sigma_radius_gain: float = 500.0
    mean_gain: float = 0.05
    first_angle_emphasis: bool = False
    beta: float = 2500.0
    calibrate: bool = True
    annealing: Annealing = "sqrt"
    anneal_epochs: int = 100
    cartesian_weight: float = 1.0
    epsilon: float = 1e-3
    sigma_epsilon: float = 0.0
    normalise: bool = True
    classes: int = 0
    class_spacing: int = 10
    augmentation: Augmentation | None = None
    log_sigma_floor: float = -10.0
    log_sigma_ceiling: float = 10.0

    def __post_init__(self) -> None:
        for name, known in (
            ("network", Network),
            ("output", Literal["linear", "sigmoid"]),
            ("coordinates", Coordinates),
            ("free_angles", FreeAngles),
            ("annealing", Annealing),
        ):
            if getattr(self, name) not in get_args(known):
                raise SettingsError(
                    f"{name}={getattr(self, name)!r} is none of {', '.join(map(repr, get_args(known)))}"
                )
        for name in ("widths", "hidden"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            self._check_layers(name)
        self._check_numbers()
        for latent in (self.latent,) if self.latent is not None else ():
            self.check_latent(latent)

    def network_for(self, shape: tuple[int, ...]) -> Literal["residual", "dense"]:
        """Return which network samples of ``(C, *space)`` get."""
        if self.network != "auto":
            return self.network
        return "dense" if len(shape) == 1 else "residual"

    def latent_for(self, shape: tuple[int, ...]) -> int:
        """Return Z for samples of ``(C, *space)``.

        Raises:
            SettingsError: It is too small for the classes or for hyperspherical coordinates.
        """
        latent = LATENTS[self.network_for(shape)] if self.latent is None else self.latent
        self.check_latent(latent)
        return latent

    def check_latent(self, latent: int) -> None:
        """Raise where a latent space cannot hold what is asked for.

        Raises:
            SettingsError: Too few dimensions, or too many to be meant.
        """
        if not 2 <= latent <= MOST_UNITS:
            raise SettingsError(
                f"latent={latent}: a sphere has at least 2 dimensions, and at most {MOST_UNITS} are taken"
            )
        if self.compressed is not None and not 0 <= self.compressed < latent:
            raise SettingsError(
                f"compressed={self.compressed}: of {latent} latents there are {latent - 1} angles"
            )
        if self.class_spacing * (self.classes - 1) >= latent:
            raise SettingsError(
                f"classes={self.classes} with poles {self.class_spacing} axes apart do not fit {latent} "
                f"latents; give more than {self.class_spacing * (self.classes - 1)}, or a smaller "
                "class_spacing"
            )

    def _check_layers(self, name: str) -> None:
        layers = getattr(self, name)
        if not 1 <= len(layers) <= MOST_LAYERS or not all(1 <= units <= MOST_UNITS for units in layers):
            raise SettingsError(
                f"{name}={layers}: 1 to {MOST_LAYERS} layers of 1 to {MOST_UNITS} units are taken"
            )

    def _check_numbers(self) -> None:
        for name in (
            "mu_angle_gain",
            "mu_radius_gain",
            "sigma_angle_gain",
            "sigma_radius_gain",
            "mean_gain",
            "beta",
            "cartesian_weight",
            "epsilon",
            "sigma_epsilon",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name}={getattr(self, name)}: must be finite and not negative")
        if not 0 < self.sigma_scale < math.inf:
            raise SettingsError(f"sigma_scale={self.sigma_scale}: must be finite and positive")
        if self.anneal_epochs < 1 or self.classes < 0 or self.class_spacing < 1:
            raise SettingsError(
                f"anneal_epochs={self.anneal_epochs}, classes={self.classes}, class_spacing="
                f"{self.class_spacing}: at least 1, 0 and 1"
            )
        if not -40 <= self.log_sigma_floor < self.log_sigma_ceiling <= 40:
            raise SettingsError(
                f"log_sigma_floor={self.log_sigma_floor}, log_sigma_ceiling={self.log_sigma_ceiling}: the "
                "first must be the smaller, both within -40 and 40"
            )


RELEASED = HypersphericalSettings(
    output="sigmoid",
    latent=128,
    first_angle_emphasis=True,
    annealing="restarts",
    sigma_epsilon=1e-3,
    classes=10,
)
"""What the released code trains on 10 labelled classes of images between 0 and 1 (``compressed=1``: its von
Mises-Fisher ablation). It also mirrors images at random."""


def defaults(*, images: bool) -> dict[str, Any]:
    """Return settings of fitting, as a tree, where those of this VAE are not everybody's.

    Args:
        images: Whether samples have voxels within.
    """
    scores = ["nearest_normal", "hyperspherical_knn", "latent_euclidean", "vae_regularizer"]
    if images:
        return {"train": asdict(PAPER_TRAINING), "scores": [*scores, "rec_error", "negative_elbo"]}
    return {"scores": [*scores, "reconstruction_error", "reconstruction_likelihood"]}


def presets(*, images: bool) -> dict[str, dict[str, Any]]:
    """Return trees of settings by name; for voxels there are none.

    ``released`` is ``RELEASED`` without labels, which scans do not have.
    """
    tree = {
        "method_settings": asdict(replace(RELEASED, classes=0)),
        "train": asdict(PAPER_TRAINING),
        "preprocessors": ["unit_range"],
    }
    return {"released": tree} if images else {}


__all__ = ["LATENTS", "PAPER_TRAINING", "RELEASED", "HypersphericalSettings", "defaults", "presets"]
