"""One class is normal, the nine others are novel: the methods of Tables 2.1 and 3.1 of the thesis.

Ruff 2021, sections 2.2.4 and 3.1.2; official training and test images, normalised as ``one_class_images``
says. ``one_class`` and ``soft_boundary`` are Deep SVDD, ``ae`` is the autoencoder that both start from, by
its reconstruction error; the shallow ones, and what they see, are told in ``one_vs_rest_shallow``; ``fcdd``,
which is shown outliers, in ``fcdd_images``. Other methods that are installed see what the networks see.

A third of the epochs at the learning rate, the others at a tenth of it; of the autoencoder's before, 5 of 7.
A twentieth of the training images is held out: its loss chooses the epoch, where the thesis takes the last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor

from mednovelty.benchmarks.benchmark import Findings, Task
from mednovelty.benchmarks.fcdd_images import ExposureSettings, exposed_scores
from mednovelty.benchmarks.image_methods import (
    Split,
    fixed_epochs,
    installed_method,
    measured,
    sample_scores,
    scores_among,
    scores_of,
    trained,
)
from mednovelty.benchmarks.image_sets import image_set
from mednovelty.benchmarks.one_class_images import OneClass, contrast_normalised, one_class, table_of
from mednovelty.benchmarks.one_vs_rest_shallow import SHALLOW, Components
from mednovelty.curve import TrainingRecord
from mednovelty.devices import chosen
from mednovelty.errors import SettingsError
from mednovelty.methods.hypersphere import DeepSVDDMethod, DeepSVDDSettings
from mednovelty.methods.hypersphere_model import Hypersphere
from mednovelty.methods.hypersphere_pretraining import Pretrained, PretrainingMethod
from mednovelty.methods.hypersphere_settings import PAPER_TRAINING
from mednovelty.plugins import plugin
from mednovelty.schedule import TrainSettings
from mednovelty.seeds import generator
from mednovelty.train import train

BATCH = 1000


SCORE = "score"
"""What the one score is called that each method of the thesis has."""


@dataclass(frozen=True)
class OneVsRestSettings:
    """What the TOML file sets.

    Args:
        epochs: Of Deep SVDD, and of FCDD.
        pretrain_epochs: Of the autoencoder, also of that before Deep SVDD; 0: Deep SVDD starts without.
        learning_rate: Adam's, of both.
        batch: Images a step, in both.
        nu: Of the soft boundary; the better of 0.01 and 0.1 by the test set in the thesis.
        warm_up: Its epochs with a radius of 0.
        slope: Of the leaky ReLU.
        images: At most as many training images; 0: all.
        test_images: At most as many test images, the first; 0: all.
        scaled: Whether the shallow methods see images between 0 and 1.
        share: Of FCDD's images that are replaced by outliers.
        filters: Of FCDD, in percent of the thesis'.
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
    method_settings: dict[str, Any] = field(default_factory=dict)

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


class Run:
    """One class' images, and what several detectors of it need; each is made once, when it is asked for.

    Args:
        images: Of the class.
        options: As given.
        seed: Of everything random.
        device: Where networks are.
        beside: Folder of another set, whose images are outliers; None: there is none.
    """

    def __init__(
        self,
        images: OneClass,
        options: OneVsRestSettings,
        seed: int = 0,
        device: str = "cpu",
        beside: Path | None = None,
    ) -> None:
        self.images, self.options, self.seed = images, options, seed
        self.device, self.beside = device, beside
        self.test = images.scale(images.test)
        tables = (images.training, images.held_out)
        self.training, self.held_out = (table_of(images.scale(rows), images.shape) for rows in tables)

    @cached_property
    def autoencoder(self) -> tuple[Pretrained, TrainingRecord]:
        """The autoencoder, trained, and how that went."""
        settings = self.options.settings()
        model = DeepSVDDMethod(settings).build(self.images.shape)
        model.encoder.initialise(generator(self.seed, "encoder"))
        network = Pretrained(model, settings).to(chosen(self.device))
        how = self.options.training(self.options.pretrain_epochs, 5 / 7)
        method = PretrainingMethod(model, settings)
        with torch.enable_grad():  # Whoever starts from it may have switched derivatives off.
            record = train(method, network, self.training, self.held_out, how, seed=self.seed)
        return network, record

    @cached_property
    def components(self) -> Components:
        """What the shallow methods see."""
        images = self.images
        normalised = images.scale if self.options.scaled else contrast_normalised
        training, test = normalised(images.training), normalised(images.test)
        return Components.of(training, test, images.novel, self.seed)

    @property
    def split(self) -> Split:
        """The images as networks see them."""
        images = self.images
        seen, held_out = (images.scale(rows) for rows in (images.training, images.held_out))
        return Split(seen, held_out, self.test, images.novel, images.shape)

    @torch.no_grad()
    def scored(self, score: Callable[[Tensor], Tensor]) -> np.ndarray:
        """Return ``(m,)`` scores of the test images, ``BATCH`` at a time."""
        parts = self.test.to(chosen(self.device)).split(BATCH)
        return torch.cat([score(x).cpu() for x in parts]).numpy()


class StartedDeepSVDD(DeepSVDDMethod):
    """Deep SVDD that starts from an autoencoder that there is already.

    Args:
        run: Whose autoencoder.
        objective: ``one_class`` or ``soft_boundary``.
    """

    def __init__(self, run: Run, objective: str) -> None:
        super().__init__(run.options.settings(objective))
        self.run = run

    def pretrained(self, model: Hypersphere, normals: Any, generator: Generator) -> Tensor:
        """Copy the weights; return the error on held-out images before and after, ``(2,)``."""
        network, record = self.run.autoencoder
        model.encoder.load_state_dict(network.encoder.state_dict())
        return torch.tensor([record.losses[0], min(record.losses)], device=model.pretraining.device)


Detector = Callable[[Run], tuple[np.ndarray, dict[str, Any]]]
"""Gives ``(m,)`` scores of the test images, higher for novel ones, and what else there is to tell."""


def deep_svdd(objective: str) -> Detector:
    """Return Deep SVDD with an objective as a detector."""

    def detect(run: Run) -> tuple[np.ndarray, dict[str, Any]]:
        options, method = run.options, StartedDeepSVDD(run, objective)
        model = method.build(run.images.shape).to(chosen(run.device))
        how = options.training(options.epochs, 1 / 3)
        record = train(method, model, run.training, run.held_out, how, seed=run.seed)
        said = method.assess(model, run.training, run.held_out, generator(0, "assess"))
        scores = run.scored(lambda x: model.hypersphere(model.encode(x).mean))
        return scores, {"best_epoch": record.best_epoch, "verdict": said["verdict"]}

    return detect


def by_reconstruction(run: Run) -> tuple[np.ndarray, dict[str, Any]]:
    """Detect by the autoencoder's squared error."""
    network, record = run.autoencoder
    scores = run.scored(lambda x: (network(x) - x).square().sum(1))
    return scores, {"best_epoch": record.best_epoch, "held_out_error": min(record.losses)}


def shallow(name: str) -> Detector:
    """Return a shallow method as a detector."""
    return lambda run: SHALLOW[name](run.components)


def by_exposure(run: Run) -> tuple[np.ndarray, dict[str, Any]]:
    """Detect by FCDD that was shown outliers of another set."""
    if run.beside is None:
        raise SettingsError("fcdd: needs the images of cifar10 as outliers")
    own = run.options
    how = ExposureSettings(run.seed, own.epochs, own.learning_rate, own.batch, own.share, own.filters,
                           run.device)  # fmt: skip
    return exposed_scores(run.images, run.beside, how)


DETECTORS: dict[str, Detector] = {
    "one_class": deep_svdd("one_class"),
    "soft_boundary": deep_svdd("soft_boundary"),
    "ae": by_reconstruction,
    "fcdd": by_exposure,
    **{name: shallow(name) for name in SHALLOW},
}


class OneVsRest:
    """One class is trained on, nine are novel, with the methods of Tables 2.1 and 3.1 of the thesis."""

    Settings: ClassVar[type] = OneVsRestSettings

    def scores(self, method: str, asked: Sequence[str]) -> tuple[str, ...]:
        """Return which scores of those asked for a method has; those of the thesis have one each."""
        if method in DETECTORS:
            return scores_among(asked, (SCORE,), "one-vs-rest")
        return sample_scores(plugin("methods", method), [name for name in asked if name != SCORE])

    def run(self, task: Task, settings: OneVsRestSettings) -> Findings:
        """Train one detector on a class, score the test images, and return the AUROC."""
        cell = task.cell
        words, beside = json.dumps(asdict(settings)), task.beside[1] if task.beside else ""
        run = _run(cell.dataset, task.folder, int(cell.label), cell.seed, words, task.device, beside)
        if cell.method in DETECTORS:
            scores, told = DETECTORS[cell.method](run)
            return Findings(measured({SCORE: scores}, run.images.novel), told)
        how = fixed_epochs(settings.epochs, settings.batch, settings.learning_rate)
        method, how = installed_method(cell.method, how, settings.method_settings)
        split = run.split
        found = trained(method, split, how, seed=cell.seed, device=task.device)
        return Findings(measured(scores_of(found, task.scores), split.novel), found.told)

    def split(self, task: Task, settings: OneVsRestSettings) -> Split:
        """Return the images of a cell."""
        cell, words = task.cell, json.dumps(asdict(settings))
        return _run(cell.dataset, task.folder, int(cell.label), cell.seed, words, task.device, "").split


@lru_cache(maxsize=1)
def _run(  # noqa: PLR0913 - what a cell depends on, by which the last run is known again
    dataset: str, folder: Path, label: int, seed: int, words: str, device: str, beside: str
) -> Run:
    options = OneVsRestSettings(**json.loads(words))
    images = one_class(image_set(dataset, folder), label, seed=seed, most=options.images)
    most = options.test_images or None
    images = replace(images, test=images.test[:most], novel=images.novel[:most])
    return Run(images, options, seed, device, Path(beside) if beside else None)


__all__ = ["DETECTORS", "SCORE", "OneVsRest", "OneVsRestSettings", "Run", "StartedDeepSVDD"]
