"""What the TOML file of ``one_vs_rest`` sets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from mednovelty.benchmarks.image_methods import fixed_epochs, installed_method
from mednovelty.benchmarks.one_class_images import Scenario
from mednovelty.benchmarks.ranges import check_numbers
from mednovelty.methods.hypersphere import DeepSVDDSettings
from mednovelty.methods.hypersphere_settings import PAPER_TRAINING
from mednovelty.schedule import TrainSettings


@dataclass(frozen=True)
class OneVsRestSettings:
    """What the TOML file sets.

    Args:
        epochs: Of what is trained.
        pretrain_epochs: Of the autoencoder, also of that before Deep SVDD; 0: Deep SVDD starts without.
        learning_rate: Adam's, of both.
        batch: Images a step, in both.
        nu: Of the soft boundary; the better of 0.01 and 0.1 by the test set in the thesis.
        warm_up: Its epochs with a radius of 0.
        slope: Of the leaky ReLU.
        images: At most as many training images; 0: all.
        test_images: At most as many test images, the first; 0: all.
        scaled: Whether the shallow methods see images between 0 and 1.
        share: Of a batch, outliers, where a method is shown some.
        filters: Of FCDD, in percent of the thesis'.
        contrast: Whether images' contrast is normalised; else pixels are between 0 and 1 as they are.
        labelled: Share of known anomalies in all training images, gamma_l.
        pollution: Share of unknown anomalies in the unlabelled ones, gamma_p.
        known_classes: How many classes known anomalies are of, k_l.
        eta: Weight of labelled images, of Deep SAD and of hypersphere classification.
        outliers: Image set that methods are shown; empty: the first of the protocol's that is at hand.
        method_settings: Of other methods that are installed, replacing their own.
    """

    epochs: int
    pretrain_epochs: int
    learning_rate: float
    batch: int
    nu: float
    warm_up: int
    slope: float
    images: int
    test_images: int
    scaled: bool
    share: float
    filters: int
    contrast: bool
    labelled: float
    pollution: float
    known_classes: int
    eta: float
    outliers: str
    method_settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_numbers(self)
        self.scenario()

    def scenario(self) -> Scenario:
        """Return what anomalies there are in training."""
        return Scenario(self.labelled, self.pollution, self.known_classes)

    def settings(self, objective: Any = "one_class") -> DeepSVDDSettings:
        """Return the settings of Deep SVDD."""
        return DeepSVDDSettings(
            objective=objective,
            nu=self.nu,
            warm_up=self.warm_up,
            slope=self.slope,
            pretrain_epochs=self.pretrain_epochs,
            pretrain_output="sigmoid",
        )

    def installed(self, name: str) -> tuple[Any, TrainSettings]:
        """Return a method that is installed, and how it is trained."""
        how = fixed_epochs(self.epochs, self.batch, self.learning_rate)
        return installed_method(name, how, self.method_settings)

    def training(self, epochs: int, fast: float) -> TrainSettings:
        """Return a fixed number of epochs, the first share ``fast`` of them at the whole learning rate."""
        return replace(
            PAPER_TRAINING,
            batch_size=self.batch,
            learning_rate=self.learning_rate,
            min_learning_rate=0.1 * self.learning_rate,
            max_epochs=epochs,
            patience=epochs + 1,
            plateau_patience=max(1, round(fast * epochs)),
        )


__all__ = ["OneVsRestSettings"]
