"""The methods of ``one_vs_rest`` that learn from anomalies: a few known ones, or outliers of another set.

Ruff 2021, section 2.3.4 (Deep SAD beside a supervised classifier) and Tables 2.4 and 3.1 (Deep SAD,
hypersphere classification and, in the text, a classifier, with outlier exposure).

    deep_sad      starts from the autoencoder that Deep SVDD starts from; without known anomalies it is Deep
                  SVDD, bit for bit
    hsc           hypersphere classification, h the pseudo-Huber norm
    classifier    binary cross entropy of one output: unlabelled images are normal
    ..._exposed   half of each batch is outliers of another set, made as large and as colourful

A twentieth of the known anomalies is held out with a twentieth of the normal images, and the loss of both
chooses the epoch; where a single anomaly is known the last epoch is kept, as in the thesis. Exposed networks
see images cropped after a margin of two pixels was added, and mirrored, at random; the thesis has a margin of
four, colours that vary and noise besides, and a dense layer of 512 more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from mednovelty.benchmarks.fcdd_images import shifted, shown, told_apart
from mednovelty.benchmarks.image_sets import ImageSet
from mednovelty.benchmarks.image_shapes import fitted
from mednovelty.benchmarks.one_class_images import AS_THEY_ARE, Scale, table_of
from mednovelty.devices import chosen
from mednovelty.methods.hypersphere import DeepSADMethod, HSCMethod
from mednovelty.methods.hypersphere_model import HSCModel, Hypersphere
from mednovelty.methods.hypersphere_settings import DeepSADSettings, HSCSettings
from mednovelty.outlier_exposure import Exposed
from mednovelty.seeds import numpy_generator
from mednovelty.train import train
from mednovelty.types import Latents, Samples
from mednovelty.voxel_cache import VoxelCache

if TYPE_CHECKING:
    from mednovelty.benchmarks.one_vs_rest import Run

BATCH = 1000
TOLD = 1000
"""Outliers, at most, of which is told how well they are known."""
FAST = 0.5
"""Share of the epochs at the whole rate, where there are outliers: the thesis' 100 of 200."""


class Scaled:
    """A network that normalises images itself, so that they can be moved before."""

    scale: Scale = AS_THEY_ARE

    def standardised(self, x: Samples) -> Tensor:
        """Return x as the network sees it."""
        return self.scale(x)


class ScaledHypersphere(Scaled, Hypersphere):
    """Of Deep SAD; arguments as of ``Hypersphere``."""


class ScaledHSC(Scaled, HSCModel):
    """Of hypersphere classification; arguments as of ``Hypersphere``."""


class Moving:
    """A method whose training images are moved and mirrored, anew each time, if it has a scale."""

    scale: Scale | None = None
    """What the network then normalises images by, after that."""

    def build(self, shape: Sequence[int]) -> Any:
        """Return the network for images ``(C, rows, columns)``."""
        model = super().build(shape)  # type: ignore[misc]
        model.scale = self.scale or AS_THEY_ARE
        return model

    def loss(self, model: Any, x: Tensor, epoch: int, generator: Generator) -> dict[str, Tensor]:
        """Return what is trained, a mean over the batch."""
        if self.scale is not None:
            samples, labels = model.split(x)
            x = shifted(samples.unflatten(1, model.shape), generator).flatten(1)
            x = x if labels is None else torch.cat([x, labels[:, None]], dim=1)
        found: dict[str, Tensor] = super().loss(model, x, epoch, generator)  # type: ignore[misc]
        return found


class Classifier(ScaledHSC):
    """One output, the logit of an anomaly; arguments as of ``Hypersphere``."""

    def distances(self, z: Latents) -> Tensor:
        """Return the logit, ``(B,)``."""
        return z[:, 0]


class ClassifierMethod(Moving, HSCMethod):
    """A binary classifier, by cross entropy; what has no label is normal."""

    Model: ClassVar[type[Hypersphere]] = Classifier

    def losses(self, model: Hypersphere, distances: Tensor, labels: Tensor | None) -> Tensor:
        """Return ``(B,)`` losses: -log p of anomalies, -log(1 - p) of others, p the logit's probability."""
        if labels is None:
            return softplus(distances)
        return softplus(torch.where(labels < 0, -distances, distances))


class ScaledHSCMethod(Moving, HSCMethod):
    """Hypersphere classification of images that the network normalises itself."""

    Model: ClassVar[type[Hypersphere]] = ScaledHSC


class StartedDeepSAD(Moving, DeepSADMethod):
    """Deep SAD that starts from an autoencoder that there is already.

    Args:
        settings: Network and loss.
        start: Returns the state of an encoder, and the autoencoder's errors before and after; None: the
            encoder is drawn at random.
    """

    Model: ClassVar[type[Hypersphere]] = ScaledHypersphere

    def __init__(
        self,
        settings: DeepSADSettings,
        start: Callable[[], tuple[dict[str, Any], tuple[float, float]]] | None = None,
    ) -> None:
        super().__init__(settings)
        self.started = start

    def pretrained(self, model: Hypersphere, normals: Any, generator: Generator) -> Tensor:
        """Copy the weights; return the error on held-out images before and after, ``(2,)``."""
        if self.started is None:
            return torch.zeros(2)
        state, errors = self.started()
        model.encoder.load_state_dict(state)
        return torch.tensor(errors, device=model.pretraining.device)


def method_named(name: str, run: Run, *, start: bool) -> Any:
    """Return ``deep_sad``, ``hsc`` or ``classifier`` for a class.

    Args:
        name: Which.
        run: Whose settings, and whose autoencoder.
        start: Whether Deep SAD starts from that.
    """
    slope, own = run.options.slope, run.options
    if name == "deep_sad":
        settings = DeepSADSettings(slope=slope, pretrain_epochs=own.pretrain_epochs if start else 0,
                                   pretrain_output="sigmoid", eta=own.eta)  # fmt: skip
        return StartedDeepSAD(settings, run.encoder if start else None)
    if name == "hsc":
        return ScaledHSCMethod(HSCSettings(slope=slope, anomalies="none", eta=own.eta))
    return ClassifierMethod(HSCSettings(slope=slope, anomalies="none", latent=1))


def by_known(name: str) -> Callable[[Run], tuple[np.ndarray, dict[str, Any]]]:
    """Return a method that learns from known anomalies as a detector."""

    def detect(run: Run) -> tuple[np.ndarray, dict[str, Any]]:
        images, options = run.images, run.options
        method = method_named(name, run, start=True)
        model = method.build(images.shape).to(chosen(run.device))
        how = options.training(options.epochs, 1 / 3)
        # Without a label a row is as wide as an image: what then is trained is Deep SVDD.
        tables = (run.training, run.held_out)
        if len(images.labelled):
            tables = tuple(
                _labelled(images.scale(rows), images.scale(known), images.shape)
                for rows, known in (
                    (images.training, images.labelled),
                    (images.held_out, images.labelled_held_out),
                )
            )  # type: ignore[assignment]
        record = train(method, model, *tables, how, seed=run.seed)
        scores = run.scored(lambda x: model.hypersphere(model.encode(x).mean))
        return scores, {"best_epoch": record.best_epoch}

    return detect


def by_outliers(name: str) -> Callable[[Run], tuple[np.ndarray, dict[str, Any]]]:
    """Return a method that is shown outliers of another set as a detector."""

    def detect(run: Run) -> tuple[np.ndarray, dict[str, Any]]:
        images, options, others = run.images, run.options, run.outliers(name)
        device = chosen(run.device)
        method = method_named(name, run, start=False)
        method.scale = images.scale
        model = method.build(images.shape).to(device)
        training, held_out = exposed_tables(run, others)
        how = options.training(options.epochs, FAST)
        record = train(method, model, training, held_out, how, seed=run.seed)

        @torch.no_grad()
        def scores_of(rows: Tensor) -> np.ndarray:
            parts = rows.to(device).split(BATCH)
            return torch.cat([model.hypersphere(model.encode(x).mean).cpu() for x in parts]).numpy()

        strange = scores_of(fitted(others.test[:TOLD], images.shape))
        told = told_apart(scores_of(images.held_out), strange)
        return scores_of(images.test), {"best_epoch": record.best_epoch, **told}

    return detect


def exposed_tables(run: Run, others: ImageSet) -> tuple[VoxelCache, VoxelCache]:
    """Return training rows whose batches have outliers in them, and held-out rows with as many of both.

    Known anomalies, if there are any, are among the former as they come. Images are as they are.
    """
    images, shape = run.images, run.images.shape
    outliers = fitted(shown(others), shape)
    order = torch.from_numpy(numpy_generator(run.seed, "outliers").permutation(len(outliers)))
    held = len(images.held_out)
    unseen, seen = outliers[order[:held]], outliers[order[max(held, len(order) // 20) :]]
    own = _labelled(images.training, images.labelled, shape)
    training = Exposed(own, _labelled(seen[:0], seen, shape), run.options.share)
    return training, _labelled(images.held_out, torch.cat([images.labelled_held_out, unseen]), shape)


def _labelled(normal: Tensor, abnormal: Tensor, shape: tuple[int, ...]) -> VoxelCache:
    """Return a table of unlabelled images and, after them, labelled anomalies."""
    rows = torch.cat([normal, abnormal])
    labels = torch.tensor([0.0] * len(normal) + [-1.0] * len(abnormal))
    return table_of(torch.cat([rows, labels[:, None]], dim=1), shape)


KNOWN = ("deep_sad", "hsc", "classifier")
NEEDS_ANOMALIES = ("hsc", "classifier")
EXPOSED = {f"{name}_exposed": name for name in KNOWN}

__all__ = [
    "EXPOSED",
    "KNOWN",
    "NEEDS_ANOMALIES",
    "ClassifierMethod",
    "StartedDeepSAD",
    "by_known",
    "by_outliers",
    "exposed_tables",
    "method_named",
]
