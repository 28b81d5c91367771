"""One class is normal, the nine others are novel: the methods of Tables 2.1, 2.4 and 3.1 of the thesis.

Ruff 2021, sections 2.2.4 and 3.1.2; official training and test images, normalised as ``one_class_images``
says. ``one_class`` and ``soft_boundary`` are Deep SVDD, ``ae`` is the autoencoder that both start from, by
its reconstruction error; the shallow ones, and what they see, are told in ``one_vs_rest_shallow``; those
that learn from anomalies in ``one_vs_rest_labelled``, ``fcdd``, which is shown outliers, in ``fcdd_images``.
Other methods that are installed see what the networks see.

Deep SAD's scenarios, section 2.3.4, are the settings ``labelled``, ``pollution`` and ``known_classes``, see
``one_class_images``, with ``contrast=false`` for all methods:

    bench one-vs-rest --methods scenarios --set contrast=false --seeds 9 --sweep labelled=0,0.01,0.05,0.1,0.2
    bench one-vs-rest --methods scenarios --set contrast=false --seeds 9 --set labelled=0.05
        --sweep pollution=0,0.01,0.05,0.1,0.2
    bench one-vs-rest --methods scenarios --set contrast=false --seeds 10 --set labelled=0.05
        --set pollution=0.1 --sweep known_classes=1,2,3,5

The thesis prints figures of them, and no table.

A third of the epochs at the learning rate, the others at a tenth of it; of the autoencoder's before, 5 of 7.
A twentieth of the training images is held out: its loss chooses the epoch, where the thesis takes the last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
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
    measured,
    sample_scores,
    scores_among,
    scores_of,
    trained,
)
from mednovelty.benchmarks.image_sets import ImageSet, image_set
from mednovelty.benchmarks.one_class_images import (
    OneClass,
    contrast_normalised,
    one_class,
    table_of,
)
from mednovelty.benchmarks.one_vs_rest_labelled import (
    EXPOSED,
    KNOWN,
    NEEDS_ANOMALIES,
    by_known,
    by_outliers,
)
from mednovelty.benchmarks.one_vs_rest_settings import OneVsRestSettings
from mednovelty.benchmarks.one_vs_rest_shallow import SHALLOW, Components
from mednovelty.curve import TrainingRecord
from mednovelty.devices import chosen
from mednovelty.errors import SettingsError
from mednovelty.methods.hypersphere import DeepSVDDMethod
from mednovelty.methods.hypersphere_model import Hypersphere
from mednovelty.methods.hypersphere_pretraining import Pretrained, PretrainingMethod
from mednovelty.plugins import plugin
from mednovelty.seeds import generator
from mednovelty.train import train

BATCH = 1000


SCORE = "score"
"""What the one score is called that each method of the thesis has."""


class Run:
    """One class' images, and what several detectors of it need; each is made once, when it is asked for.

    Args:
        images: Of the class.
        options: As given.
        seed: Of everything random.
        device: Where networks are.
        beside: Name and folder of another set, whose images are outliers; none: there is none.
    """

    def __init__(
        self,
        images: OneClass,
        options: OneVsRestSettings,
        seed: int = 0,
        device: str = "cpu",
        beside: tuple[str, ...] = (),
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

    def encoder(self) -> tuple[dict[str, Any], tuple[float, float]]:
        """Return the weights of the autoencoder's encoder, and its errors before and after training."""
        network, record = self.autoencoder
        return network.encoder.state_dict(), (record.losses[0], min(record.losses))

    def outliers(self, who: str) -> ImageSet:
        """Return the set of outliers.

        Args:
            who: Needs it.

        Raises:
            SettingsError: There is none.
        """
        if not self.beside:
            raise SettingsError(f"{who}: needs another image set as outliers")
        name, folder = self.beside
        return image_set(name, Path(folder), (self.images.shape[1], self.images.shape[2]))

    @cached_property
    def components(self) -> Components:
        """What the shallow methods see."""
        images = self.images
        scaled = self.options.scaled or not self.options.contrast
        normalised = images.scale if scaled else contrast_normalised
        training, test = normalised(images.training), normalised(images.test)
        return Components.of(training, test, images.novel, self.seed)

    @property
    def told(self) -> dict[str, Any]:
        """What anomalies there were in training, as JSON types; nothing where there were none."""
        images, found = self.images, dict[str, Any]()
        if images.known:
            count = len(images.labelled) + len(images.labelled_held_out)
            found["known_anomalies"] = {"images": count, "classes": list(images.known)}
        if self.beside:
            found["outliers"] = self.beside[0]
        return found

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
        state, errors = self.run.encoder()
        model.encoder.load_state_dict(state)
        return torch.tensor(errors, device=model.pretraining.device)


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
    own = run.options
    how = ExposureSettings(run.seed, own.epochs, own.learning_rate, own.batch, own.share, own.filters,
                           run.device)  # fmt: skip
    return exposed_scores(run.images, run.outliers("fcdd"), how)


DETECTORS: dict[str, Detector] = {
    "one_class": deep_svdd("one_class"),
    "soft_boundary": deep_svdd("soft_boundary"),
    "ae": by_reconstruction,
    "fcdd": by_exposure,
    **{name: by_known(name) for name in KNOWN},
    **{name: by_outliers(base) for name, base in EXPOSED.items()},
    **{name: shallow(name) for name in SHALLOW},
}


class OneVsRest:
    """One class is trained on, nine are novel, with the methods of Tables 2.1, 2.4 and 3.1 of the thesis."""

    Settings: ClassVar[type] = OneVsRestSettings

    def lacks(self, method: str, settings: OneVsRestSettings) -> str:
        """Return what a method lacks with some settings; empty where it lacks nothing."""
        if method in NEEDS_ANOMALIES and not settings.labelled:
            return "learns from known anomalies; set labelled to a share of the training images, as 0.05"
        return ""

    def check(self, method: str, settings: OneVsRestSettings) -> None:
        """Refuse settings that a method cannot be made with."""
        _ = settings.settings() if method in DETECTORS else settings.installed(method)

    def scores(self, method: str, asked: Sequence[str]) -> tuple[str, ...]:
        """Return which scores of those asked for a method has; those of the thesis have one each."""
        if method in DETECTORS:
            return scores_among(asked, (SCORE,), "one-vs-rest")
        return sample_scores(plugin("methods", method), [name for name in asked if name != SCORE])

    def run(self, task: Task, settings: OneVsRestSettings) -> Findings:
        """Train one detector on a class, score the test images, and return the AUROC."""
        cell = task.cell
        words = json.dumps(asdict(settings))
        run = _run(cell.dataset, task.folder, int(cell.label), cell.seed, words, task.device, task.beside)
        if cell.method in DETECTORS:
            scores, told = DETECTORS[cell.method](run)
            return Findings(measured({SCORE: scores}, run.images.novel), told | run.told)
        method, how = settings.installed(cell.method)
        split = run.split
        found = trained(method, split, how, seed=cell.seed, device=task.device)
        return Findings(measured(scores_of(found, task.scores), split.novel), found.told | run.told)

    def split(self, task: Task, settings: OneVsRestSettings) -> Split:
        """Return the images of a cell."""
        cell, words = task.cell, json.dumps(asdict(settings))
        return _run(cell.dataset, task.folder, int(cell.label), cell.seed, words, task.device, ()).split


@lru_cache(maxsize=1)
def _run(  # noqa: PLR0913 - what a cell depends on, by which the last run is known again
    dataset: str, folder: Path, label: int, seed: int, words: str, device: str, beside: tuple[str, ...]
) -> Run:
    options = OneVsRestSettings(**json.loads(words))
    images = one_class(
        image_set(dataset, folder),
        label,
        seed=seed,
        most=options.images,
        scenario=options.scenario(),
        contrast=options.contrast,
    )
    most = options.test_images or None
    images = replace(images, test=images.test[:most], novel=images.novel[:most])
    return Run(images, options, seed, device, beside)


__all__ = ["DETECTORS", "SCORE", "OneVsRest", "OneVsRestSettings", "Run", "StartedDeepSVDD"]
