"""FCDD with outlier exposure, of images: one class is normal, another set has the outliers.

Ruff 2021, section 3.1.2. The network has seen images of the normal class, and images of another set, made as
large and as colourful, as outliers: each image of a batch is replaced by one of them with a probability of
.5, anew in each epoch. The thesis takes CIFAR-100; where that is not at hand, the training images of CIFAR-10
stand in for it on Fashion-MNIST: they show no clothes either. Images are cropped after a margin of two pixels
was added, and mirrored, at random; then normalised as ``one_class_images`` says. The loss is that
of images, Eq. (3.1).

The thesis trains by stochastic gradients with momentum at 1e-2, which falls by 2 % an epoch, for 400 epochs,
and keeps the last. Here it is Adam, whose rate falls evenly on a logarithmic scale to a hundredth; the epoch
is chosen by the loss of held-out normals and held-out outliers: no anomaly of the test is looked at.

``outliers_auroc``: of held-out normals against the other set's test images, which says whether the network
has learnt what it was taught. ``one_vs_rest`` runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from mednovelty.batch import Batch
from mednovelty.benchmarks.image_sets import ImageSet
from mednovelty.benchmarks.image_shapes import fitted
from mednovelty.benchmarks.one_class_images import OneClass, Scale, table_of
from mednovelty.devices import chosen
from mednovelty.methods.fcdd import FCDDMethod, FCDDSettings
from mednovelty.methods.fcdd_model import FCDDModel
from mednovelty.methods.fcdd_scores import FCDDScore
from mednovelty.methods.hypersphere_settings import PAPER_TRAINING
from mednovelty.metrics import Ranking, auroc
from mednovelty.nn.fully_convolutional import filters_of, layout_for
from mednovelty.schedule import TrainSettings
from mednovelty.seeds import numpy_generator
from mednovelty.train import train

MARGIN_PX = 2
RATE_LEFT = 0.01
"""Share of the learning rate after the last epoch."""
BATCH = 250
TOLD = 1000
"""Outliers, at most, of which is told how well they are known."""


@dataclass(frozen=True, slots=True)
class ExposureSettings:
    """How FCDD is trained.

    Args:
        seed: Of everything random.
        epochs: Passes over the training images.
        learning_rate: Adam's at the start.
        batch: Images a step, outliers among them.
        share: With which probability an image is replaced by an outlier.
        filters: A filter's share of the thesis' network, in percent.
        device: Where, as torch names it.
    """

    seed: int = 0
    epochs: int = 30
    learning_rate: float = 1e-3
    batch: int = 128
    share: float = 0.5
    filters: int = 100
    device: str = "cpu"

    def settings(self, shape: Sequence[int]) -> FCDDSettings:
        """Return those of FCDD, for images ``(C, rows, columns)``."""
        network: Any = layout_for(shape[1:])
        widths = tuple(max(width * self.filters // 100, 1) for width in filters_of(network))
        return FCDDSettings(network=network, filters=widths, anomalies="none", share=self.share)

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


def trained(
    images: OneClass, outliers: Tensor, options: ExposureSettings
) -> tuple[FCDDModel, dict[str, Any]]:
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
    method = ExposedFCDD(options.settings(images.shape), images.scale, seen.to(device))
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


def exposed_scores(
    images: OneClass, outliers: ImageSet, options: ExposureSettings
) -> tuple[np.ndarray, dict[str, Any]]:
    """Train on one class, and return ``(m,)`` scores of the test images, and what else there is to tell.

    Args:
        images: Of the class.
        outliers: Another set; its training images are shown, its test images only tell how that went.
        options: How to train.
    """
    model, told = trained(images, fitted(shown(outliers), images.shape), options)
    normals = scores_of(model, images.held_out, images.scale)
    strange = scores_of(model, fitted(outliers.test[:TOLD], images.shape), images.scale)
    return scores_of(model, images.test, images.scale), told | told_apart(normals, strange)


def shown(outliers: ImageSet) -> np.ndarray:
    """Return the images of a set that are outliers in training: of a set without such, those to test on."""
    return outliers.training if len(outliers.training) else outliers.test


def told_apart(normals: np.ndarray, strange: np.ndarray) -> dict[str, float]:
    """Return the AUROC of outliers against held-out normals, by the scores of both."""
    mixed = np.concatenate([normals, strange])
    return {"outliers_auroc": auroc(Ranking.of(mixed, np.arange(len(mixed)) >= len(normals)))}


__all__ = [
    "ExposedFCDD",
    "ExposureSettings",
    "exposed_scores",
    "scores_of",
    "shifted",
    "shown",
    "told_apart",
    "trained",
]
