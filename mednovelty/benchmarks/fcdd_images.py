"""One class of Fashion-MNIST is normal, the others are novel: FCDD beside tables 3.1 and C.5 of the thesis.

    python -m mednovelty.benchmarks.fcdd_images FASHION CIFAR10 --classes 0 3 9

Ruff 2021, section 3.1.2. The network has seen images of the normal class, and grey images of another set as
outliers: each image of a batch is replaced by one of them with a probability of .5, anew in each epoch. The
thesis takes CIFAR-100; here they are the training images of CIFAR-10, which has no clothes either, made as
small as Fashion-MNIST's. Images are cropped after a margin of two pixels was added, and mirrored, at random;
then normalised as ``one_class_images`` says. The loss is that of images, Eq. (3.1).

The thesis trains by stochastic gradients with momentum at 1e-2, which falls by 2 % an epoch, for 400 epochs,
and keeps the last. Here it is Adam, whose rate falls evenly on a logarithmic scale to a hundredth; the epoch
is chosen by the loss of held-out normals and held-out outliers: no anomaly of the test is looked at.

AUROC over all test images. ``outliers_auroc``: of held-out normals against CIFAR-10's test images, which says
whether the network has learnt what it was taught. Prints JSON, and a table on stderr.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from mednovelty.batch import Batch
from mednovelty.benchmarks.arguments import add_classes, add_options, parser_of
from mednovelty.benchmarks.cifar import TEST, TRAINING, grey_images
from mednovelty.benchmarks.one_class_images import OneClass, Scale, one_class, table_of
from mednovelty.devices import chosen
from mednovelty.methods.fcdd import FCDDMethod, FCDDSettings
from mednovelty.methods.fcdd_model import FCDDModel
from mednovelty.methods.fcdd_scores import FCDDScore
from mednovelty.methods.hypersphere_settings import PAPER_TRAINING
from mednovelty.metrics import Ranking, auroc
from mednovelty.schedule import TrainSettings
from mednovelty.seeds import numpy_generator
from mednovelty.train import train

PAPER = {
    "ae": (0.85, 0.91, 0.78, 0.88, 0.88, 0.45, 0.70, 0.96, 0.87, 0.96),
    "deep_svdd": (0.98, 0.90, 0.91, 0.94, 0.89, 0.92, 0.83, 0.99, 0.92, 0.99),
    "fcdd": (0.82, 0.98, 0.84, 0.92, 0.87, 0.90, 0.75, 0.99, 0.86, 0.94),
}
"""Table C.5: AUROC by class, means over 5 seeds; those of FCDD have a mean of .89, table 3.1."""
NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
MARGIN_PX = 2
RATE_LEFT = 0.01
"""Share of the learning rate after the last epoch."""
BATCH = 250


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured.

    Args:
        classes: Which classes are normal, one after the other.
        seed: Of everything random.
        epochs: Passes over the training images.
        learning_rate: Adam's at the start.
        batch: Images a step, outliers among them.
        share: With which probability an image is replaced by an outlier.
        images: At most as many training images; 0: all.
        filters: A filter's share of the thesis' network, in percent.
        device: Where, as torch names it.
    """

    classes: tuple[int, ...] = tuple(range(10))
    seed: int = 0
    epochs: int = 30
    learning_rate: float = 1e-3
    batch: int = 128
    share: float = 0.5
    images: int = 0
    filters: int = 100
    device: str = "cpu"

    def settings(self) -> FCDDSettings:
        """Return those of FCDD."""
        width = max(128 * self.filters // 100, 1)
        return FCDDSettings(network="cnn28", filters=(width, width), anomalies="none", share=self.share)

    def training(self) -> TrainSettings:
        """Return a fixed number of epochs, each at a lower rate than the one before."""
        return replace(
            PAPER_TRAINING,
            batch_size=self.batch,
            learning_rate=self.learning_rate,
            max_epochs=self.epochs,
            patience=self.epochs + 1,
            plateau_patience=1,
            plateau_factor=RATE_LEFT ** (1 / self.epochs),
            min_learning_rate=1e-12,
        )


class ExposedFCDD(FCDDMethod):
    """FCDD that sees outliers of another set: outlier exposure, section 3.1.2.

    Training rows are normal images as they are, ``(n, D)`` between 0 and 1; rows to validate with end with
    their label.

    Args:
        settings: ``anomalies`` must be ``none``; ``share`` is that of outliers.
        scale: How images are normalised.
        outliers: ``(m, D)`` between 0 and 1, as they are.
    """

    def __init__(self, settings: FCDDSettings, scale: Scale, outliers: Tensor) -> None:
        super().__init__(settings)
        self.scale, self.outliers = scale, outliers

    def start(self, model: FCDDModel, normals: Any, generator: Generator) -> None:
        """Draw the weights; that no training row is labelled is as it should be."""
        model.network.initialise(generator)

    def loss(self, model: FCDDModel, x: Tensor, epoch: int, generator: Generator) -> dict[str, Tensor]:
        """Return ``loss``, the mean over the batch, some of it replaced by outliers."""
        replaced = torch.rand(len(x), generator=generator, device=x.device) < self.settings.share
        drawn = torch.randint(len(self.outliers), (len(x),), generator=generator, device=x.device)
        images = torch.where(replaced[:, None], self.outliers[drawn], x)
        images = shifted(images.unflatten(1, model.shape), generator).flatten(1)
        return super().loss(model, self._rows(images, replaced), epoch, generator)

    def validate(self, model: FCDDModel, batches: Iterable[Tensor], generator: Generator) -> dict[str, float]:
        """Return means over images as they are, that end with their labels."""
        rows = (self._rows(x[:, :-1], x[:, -1] < 0) for x in batches)
        return super().validate(model, rows, generator)

    def _rows(self, images: Tensor, abnormal: Tensor) -> Tensor:
        labels = torch.where(abnormal, -1.0, 1.0)
        return torch.cat([self.scale(images), labels[:, None]], dim=1)


def shifted(images: Tensor, generator: Generator) -> Tensor:
    """Return ``(B, C, I, J)`` images moved by up to two pixels, zeros coming in, every other one mirrored."""
    n, sides = len(images), images.shape[2:]
    device = images.device
    first = torch.randint(2 * MARGIN_PX + 1, (2, n), generator=generator, device=device)
    mirrored = torch.rand(n, generator=generator, device=device) < 0.5
    rows, columns = (
        start[:, None] + torch.arange(side, device=device) for start, side in zip(first, sides, strict=True)
    )
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    wide = pad(images, (MARGIN_PX,) * 4)
    each = torch.arange(n, device=device)[:, None, None]
    # Indices around a slice put the slice's axis last.
    return wide[each, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def trained(images: OneClass, outliers: Tensor, options: Options) -> tuple[FCDDModel, dict[str, Any]]:
    """Return a trained network and what is to tell of its training.

    Args:
        images: Normals.
        outliers: ``(m, D)``; a twentieth is held out.
        options: Seed, settings and training are used.
    """
    device = chosen(options.device)
    order = torch.from_numpy(numpy_generator(options.seed, "outliers").permutation(len(outliers)))
    held = len(images.held_out)
    unseen, seen = outliers[order[:held]], outliers[order[max(held, len(order) // 20) :]]
    labels = torch.tensor([1.0] * held + [-1.0] * len(unseen))[:, None]
    rows = torch.cat([torch.cat([images.held_out, unseen]), labels], dim=1)
    method = ExposedFCDD(options.settings(), images.scale, seen.to(device))
    model = method.build(images.shape).to(device)
    tables = table_of(images.training, images.shape), table_of(rows, (rows.shape[1],))
    record = train(method, model, *tables, options.training(), seed=options.seed)
    best = record.rows[record.best_epoch]
    return model, {"best_epoch": record.best_epoch, "validation": dict(best.validation)}


def scores_of(model: FCDDModel, images: Tensor, scale: Scale) -> np.ndarray:
    """Return ``(n,)`` means of maps of ``(n, D)`` images as they are; higher is more novel."""
    device = next(model.parameters()).device
    scorer = FCDDScore(model)
    parts = [scorer.score(Batch(scale(x.to(device)))).cpu() for x in images.split(BATCH)]
    return torch.cat(parts).numpy()


def measure(fashion: Path, cifar: Path, label: int, options: Options) -> dict[str, Any]:
    """Train on one class, score the test images, and return the AUROC."""
    started = time.perf_counter()
    images = one_class(fashion, label, seed=options.seed, most=options.images)
    side = images.shape[-1]
    model, told = trained(images, grey_images(cifar, TRAINING, side), options)
    seconds = time.perf_counter() - started
    normals = scores_of(model, images.held_out, images.scale)
    strange = scores_of(model, grey_images(cifar, TEST, side)[:1000], images.scale)
    mixed = np.concatenate([normals, strange])
    return {
        "class": label,
        "name": NAMES[label],
        "images": len(images.training),
        "auroc": auroc(Ranking.of(scores_of(model, images.test, images.scale), images.novel)),
        "outliers_auroc": auroc(Ranking.of(mixed, np.arange(len(mixed)) >= len(normals))),
        **{f"paper_{name}": values[label] for name, values in PAPER.items()},
        **told,
        "training_seconds": round(seconds, 1),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return means over classes, ours and the paper's of the same classes."""
    names = ("auroc", *(f"paper_{name}" for name in PAPER))
    return {name: statistics.mean(run[name] for run in runs) for name in names}


def table(runs: list[dict[str, Any]]) -> str:
    """Return the runs and their means as Markdown."""
    names = ("auroc", *(f"paper_{name}" for name in reversed(PAPER)))
    lines = [
        "| normal class | FCDD | thesis: FCDD | Deep SVDD | AE |",
        "| --- | --- | --- | --- | --- |",
    ]
    for run in [*runs, {"name": "mean", **summary(runs)}]:
        lines.append(f"| {run['name']} | " + " | ".join(f"{run[name]:.3f}" for name in names) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the numbers."""
    given = vars(_parser().parse_args(argv))
    fashion, cifar = given.pop("fashion"), given.pop("cifar")
    options = Options(**{**given, "classes": tuple(given["classes"])})
    runs = []
    for label in options.classes:
        runs.append(measure(fashion, cifar, label, options))
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    result = {"summary": summary(runs), "runs": runs}
    print(json.dumps(result, indent=2))
    print(table(runs), file=sys.stderr)
    return result


def _parser() -> argparse.ArgumentParser:
    default = Options()
    parser = parser_of(__doc__)
    parser.add_argument("fashion", type=Path)
    parser.add_argument("cifar", type=Path)
    add_classes(parser, default.classes)
    add_options(parser, default, (field.name for field in fields(Options) if field.name != "classes"))
    return parser


if __name__ == "__main__":
    main()
