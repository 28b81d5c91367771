"""What the TOML file of ``ood`` sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mednovelty.benchmarks.image_methods import fixed_epochs
from mednovelty.benchmarks.ranges import check_numbers
from mednovelty.methods.autoencoder import AEMethod
from mednovelty.methods.autoencoder_settings import AutoencoderSettings
from mednovelty.methods.hyperspherical import HypersphericalMethod, HypersphericalSettings
from mednovelty.nn.augmentation import Augmentation
from mednovelty.schedule import TrainSettings

MODELS: dict[str, dict[str, Any]] = {
    "vae": {"coordinates": "cartesian"},
    "vmf": {"compressed": 1},
    "compressed": {"compressed": None},
}
MIRRORED = Augmentation(
    mirror_axes=(1,), rotation_rad=0.0, scale=(1.0, 1.0), brightness=(1.0, 1.0), noise_sigma=0.0
)


@dataclass(frozen=True)
class OODSettings:
    """What the TOML file sets.

    Args:
        epochs: Passes over the training images.
        batch: Images a step.
        learning_rate: Adam's.
        network: Of the three VAEs: ``residual``, the paper's, or ``dense``, which a CPU trains in minutes.
        hidden: Layers of a dense one.
        latent: Z.
        labels: Whether training knows the classes.
        mirrored: Whether training images are mirrored at random, left and right.
        images: At most as many training images; 0: all.
        test_images: At most as many test images of either side, the first; 0: all.
        method_settings: Of other methods that are installed, replacing their own.
    """

    epochs: int
    batch: int
    learning_rate: float
    network: str
    hidden: tuple[int, ...]
    latent: int
    labels: bool
    mirrored: bool
    images: int
    test_images: int
    method_settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_numbers(self)

    def training(self) -> TrainSettings:
        """Return a fixed number of epochs at a fixed rate."""
        return fixed_epochs(self.epochs, self.batch, self.learning_rate)

    def method(self, name: str, classes: int) -> Any:
        """Return a method of the paper.

        Args:
            name: Which.
            classes: Of the training images; 0: they are not told.
        """
        if name == "ae":
            return AEMethod(AutoencoderSettings(network="lenet", latent=self.latent, output="sigmoid"))
        network: Any = self.network
        return HypersphericalMethod(
            HypersphericalSettings(
                output="sigmoid",
                network=network,
                hidden=self.hidden,
                latent=self.latent,
                classes=classes if name != "vae" else 0,
                augmentation=MIRRORED if self.mirrored else None,
                **MODELS[name],
            )
        )


__all__ = ["MODELS", "OODSettings"]
