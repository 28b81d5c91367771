"""One class of MNIST is normal, the nine others are novel: the methods of Table 2.1 of the thesis, beside it.

    python -m mednovelty.benchmarks.one_vs_rest FOLDER --classes 0 3 5 8 --epochs 150 --pretrain-epochs 350

Ruff 2021, section 2.2.4; official training and test images, normalised as ``one_class_images`` says.
``one_class`` and ``soft_boundary`` are Deep SVDD, ``ae`` is the autoencoder that both start from, by its
reconstruction error; the shallow ones, and what they see, are told in ``one_vs_rest_shallow``.

A third of the epochs at the learning rate, the others at a tenth of it; of the autoencoder's before, 5 of 7.
A twentieth of the training images is held out: its loss chooses the epoch, where the thesis takes the last.

AUROC over all test images. Prints JSON, and a table on stderr.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from mednovelty.benchmarks.arguments import add_classes, add_options, parser_of
from mednovelty.benchmarks.one_class_images import OneClass, contrast_normalised, one_class, table_of
from mednovelty.benchmarks.one_vs_rest_shallow import SHALLOW, Components
from mednovelty.curve import TrainingRecord
from mednovelty.devices import chosen
from mednovelty.methods.hypersphere import DeepSVDDMethod, DeepSVDDSettings
from mednovelty.methods.hypersphere_model import Hypersphere
from mednovelty.methods.hypersphere_pretraining import Pretrained, PretrainingMethod
from mednovelty.methods.hypersphere_settings import PAPER_TRAINING
from mednovelty.metrics import Ranking, auroc
from mednovelty.schedule import TrainSettings
from mednovelty.seeds import generator
from mednovelty.train import train

PAPER_PERCENT = {
    "oc_svm": (98.6, 99.5, 82.5, 88.1, 94.9, 77.1, 96.5, 93.7, 88.9, 93.1),
    "kde": (97.1, 98.9, 79.0, 86.2, 87.9, 73.8, 87.6, 91.4, 79.2, 88.2),
    "isolation_forest": (98.0, 97.3, 88.6, 89.9, 92.7, 85.5, 95.6, 92.0, 89.9, 93.5),
    "ae": (97.6, 98.3, 85.4, 86.7, 86.5, 78.2, 94.6, 92.3, 86.5, 90.4),
    "anogan": (96.6, 99.2, 85.0, 88.7, 89.4, 88.3, 94.7, 93.5, 84.9, 92.4),
    "soft_boundary": (97.8, 99.6, 89.5, 90.3, 93.8, 85.8, 98.0, 92.7, 92.9, 94.9),
    "one_class": (98.0, 99.7, 91.7, 91.9, 94.9, 88.5, 98.3, 94.6, 93.9, 96.5),
}
"""Table 2.1: AUROC by digit, means over 10 seeds."""
VARIANTS = {"oc_svm_unlabelled": "oc_svm"}
"""A detector that the thesis does not have, and which of its own it stands beside."""
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured.

    Args:
        methods: Which detectors.
        classes: Which digits are normal, one after the other.
        seed: Of everything random.
        epochs: Of Deep SVDD.
        pretrain_epochs: Of the autoencoder, also of that before Deep SVDD; 0: Deep SVDD starts without.
        learning_rate: Adam's, of both.
        batch: Images a step, in both.
        nu: Of the soft boundary; the better of 0.01 and 0.1 by the test set in the thesis.
        warm_up: Its epochs with a radius of 0.
        slope: Of the leaky ReLU.
        images: At most as many training images; 0: all.
        scaled: Whether the shallow methods see images between 0 and 1.
        device: Where networks are, as torch names it.
    """

    methods: tuple[str, ...] = ("one_class", "soft_boundary", "ae", *SHALLOW)
    classes: tuple[int, ...] = tuple(range(10))
    seed: int = 0
    epochs: int = 150
    pretrain_epochs: int = 350
    learning_rate: float = 1e-4
    batch: int = 200
    nu: float = 0.1
    warm_up: int = 10
    slope: float = 0.1
    images: int = 0
    scaled: bool = False
    device: str = "cpu"

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
    """

    def __init__(self, images: OneClass, options: Options) -> None:
        self.images, self.options = images, options
        self.test = images.scale(images.test)
        tables = (images.training, images.held_out)
        self.training, self.held_out = (table_of(images.scale(rows), images.shape) for rows in tables)

    @cached_property
    def autoencoder(self) -> tuple[Pretrained, TrainingRecord]:
        """The autoencoder, trained, and how that went."""
        settings = self.options.settings()
        model = DeepSVDDMethod(settings).build(self.images.shape)
        model.encoder.initialise(generator(self.options.seed, "encoder"))
        network = Pretrained(model, settings).to(chosen(self.options.device))
        how = self.options.training(self.options.pretrain_epochs, 5 / 7)
        method = PretrainingMethod(model, settings)
        with torch.enable_grad():  # Whoever starts from it may have switched derivatives off.
            record = train(method, network, self.training, self.held_out, how, seed=self.options.seed)
        return network, record

    @cached_property
    def components(self) -> Components:
        """What the shallow methods see."""
        images = self.images
        normalised = images.scale if self.options.scaled else contrast_normalised
        training, test = normalised(images.training), normalised(images.test)
        return Components.of(training, test, images.novel, self.options.seed)

    @torch.no_grad()
    def scored(self, score: Callable[[Tensor], Tensor]) -> np.ndarray:
        """Return ``(m,)`` scores of the test images, ``BATCH`` at a time."""
        parts = self.test.to(chosen(self.options.device)).split(BATCH)
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
        model = method.build(run.images.shape).to(chosen(options.device))
        how = options.training(options.epochs, 1 / 3)
        record = train(method, model, run.training, run.held_out, how, seed=options.seed)
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


DETECTORS: dict[str, Detector] = {
    "one_class": deep_svdd("one_class"),
    "soft_boundary": deep_svdd("soft_boundary"),
    "ae": by_reconstruction,
    **{name: shallow(name) for name in SHALLOW},
}


def measure(run: Run, name: str, label: int) -> dict[str, Any]:
    """Train one detector on a class, score the test images, and return the AUROC."""
    started = time.perf_counter()
    scores, told = DETECTORS[name](run)
    return {
        "method": name,
        "class": label,
        "images": len(run.training),
        "auroc_percent": 100 * auroc(Ranking.of(scores, run.images.novel)),
        "paper_percent": PAPER_PERCENT[VARIANTS.get(name, name)][label],
        **told,
        "seconds": round(time.perf_counter() - started, 1),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return by method the means over classes, ours and the paper's."""
    found = {}
    for name in dict.fromkeys(run["method"] for run in runs):
        own = [run for run in runs if run["method"] == name]
        found[name] = {
            key: statistics.mean(run[key] for run in own) for key in ("auroc_percent", "paper_percent")
        }
    return found


def table(runs: list[dict[str, Any]]) -> str:
    """Return a row a method and a column a class as Markdown; in brackets the paper's."""
    classes = list(dict.fromkeys(run["class"] for run in runs))
    lines = [
        "| method | " + " | ".join(map(str, [*classes, "mean"])) + " |",
        "| --- " * (len(classes) + 2) + "|",
    ]
    for name, means in summary(runs).items():
        own = [run for run in runs if run["method"] == name]
        cells = [f"{run['auroc_percent']:.1f} ({run['paper_percent']:.1f})" for run in [*own, means]]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the numbers."""
    given = vars(_parser().parse_args(argv))
    folder = given.pop("folder")
    options = Options(**{**given, **{name: tuple(given[name]) for name in ("methods", "classes")}})
    runs = []
    for label in options.classes:
        run = Run(one_class(folder, label, seed=options.seed, most=options.images), options)
        for name in options.methods:
            runs.append(measure(run, name, label))
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    result = {"summary": summary(runs), "runs": runs}
    print(json.dumps(result, indent=2))
    print(table(runs), file=sys.stderr)
    return result


def _parser() -> argparse.ArgumentParser:
    default = Options()
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", nargs="+", choices=DETECTORS, default=list(default.methods))
    add_classes(parser, default.classes)
    parser.add_argument("--scaled", action="store_true", help="of the shallow methods' images")
    others = ("methods", "classes", "scaled")
    add_options(parser, default, (field.name for field in fields(Options) if field.name not in others))
    return parser


if __name__ == "__main__":
    main()
