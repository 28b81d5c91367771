"""Nearest latent neighbours on classes of images: what they add to the reconstruction error.

Mesarcik et al. 2021, tables 1 to 4 and 6. ``miso``: trained on nine classes, the tenth is novel; ``simo``:
trained on one, the nine others are novel. Official training and test images, each channel of each scaled to
between 0 and 1 by its own smallest and largest value. A twentieth of the training images is held out: its
loss chooses the epoch, and it gives the constants that the terms are normalised with. K, alpha and the number
of latents are fixed in advance, where the paper takes the best by the test set: ``--oracle`` does so too.

``reconstruction`` is the mean absolute error against the own reconstruction, Eq. (3), ``nln`` the form of
nearest latent neighbours that belongs to the method: Eq. (4); of ``ae_res`` Eq. (7); of ``ae_con`` Eq. (8);
``error`` and ``distance`` are its terms. ``change`` is relative to the reconstruction's AUROC, in percent;
``change_as_printed`` is 100 (1 - reconstruction / nln), which is what the released code calls the increase.
``vae`` is ``image_vae`` on the same network. Of other methods that are installed the scores are their own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mednovelty.batch import Batch
from mednovelty.benchmarks.benchmark import Cell, Findings, Measured, Task
from mednovelty.benchmarks.image_methods import (
    BATCH,
    Split,
    Trained,
    fixed_epochs,
    installed_method,
    measured,
    sample_scores,
    scores_among,
    scores_of,
    trained,
)
from mednovelty.benchmarks.image_sets import image_set
from mednovelty.benchmarks.ranges import check_numbers
from mednovelty.calibration import measured_constants
from mednovelty.methods.autoencoder_settings import RELEASED
from mednovelty.methods.image_vae import ImageVAEMethod, ImageVAESettings
from mednovelty.methods.nearest_latent import NearestLatentNeighbours, NLNConsistency, NLNResidual
from mednovelty.neighbours.latent_settings import NLNSettings
from mednovelty.plugins import plugin
from mednovelty.reference import Reference
from mednovelty.schedule import TrainSettings

METHODS = ("ae", "vae", "aae", "ae_res", "ae_con")
OWN_SCORES = ("reconstruction", "nln", "error", "distance")
NOT_TRAINED = ("k", "alpha")
"""Settings that change no weight: what differs in them alone is trained once."""


@dataclass(frozen=True)
class NLNProtocolSettings:
    """What the TOML file sets.

    Args:
        epochs: Passes over the training images.
        learning_rate: Adam's.
        batch: Images a step.
        latent: L.
        k: K.
        alpha: Weight of the error.
        images: At most as many training images; 0: all.
        test_images: At most as many test images, the first; 0: all.
        released: Networks, losses and rates of the released code, for the methods that have such.
        method_settings: Of other methods that are installed, replacing their own.
    """

    epochs: int
    learning_rate: float
    batch: int
    latent: int
    k: int
    alpha: float
    images: int
    test_images: int
    released: bool
    method_settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_numbers(self)

    def method(self, name: str) -> Any:
        """Return a method of the paper with its settings."""
        if name == "vae":
            return ImageVAEMethod(ImageVAESettings(network="lenet", latent=self.latent, output="sigmoid"))
        kind = plugin("methods", name)
        if self.released:
            return kind(replace(RELEASED[name][0], latent=self.latent))
        return kind(kind.Settings(network="lenet", latent=self.latent, output="sigmoid"))

    def made(self, name: str) -> tuple[Any, TrainSettings]:
        """Return any method with its settings, and how it is trained."""
        how = self.training(name)
        if name in METHODS:
            return self.method(name), how
        return installed_method(name, how, self.method_settings)

    def training(self, name: str) -> TrainSettings:
        """Return a fixed number of epochs at a fixed rate."""
        rate = RELEASED[name][1] if self.released and name in RELEASED else self.learning_rate
        return replace(fixed_epochs(self.epochs, self.batch, rate), validation_voxels=8192)


class _NLNProtocol:
    """What ``Miso`` and ``Simo`` share."""

    Settings: ClassVar[type] = NLNProtocolSettings
    one_trained: ClassVar[bool]

    def scores(self, method: str, asked: Sequence[str]) -> tuple[str, ...]:
        """Return which scores of those asked for a method has."""
        if method in METHODS:
            return scores_among(asked, OWN_SCORES, "miso and simo")
        return sample_scores(plugin("methods", method), [name for name in asked if name not in OWN_SCORES])

    def check(self, method: str, settings: NLNProtocolSettings) -> None:
        """Refuse settings that a method cannot be made with."""
        settings.made(method)

    def run(self, task: Task, settings: NLNProtocolSettings) -> Findings:
        """Train a method, and return the AUROC of each score, of ``nln`` also what it adds."""
        name = task.cell.method
        free = {**asdict(settings), **dict.fromkeys(NOT_TRAINED, 1)}
        words = json.dumps(free, sort_keys=True)
        found = _trained(replace(task.cell, variant=""), task.folder, task.device, words, self.one_trained)
        nln = NLNSettings(settings.k, settings.alpha)
        if name not in METHODS:
            rows = measured(scores_of(found, task.scores, nln=nln), found.split.novel)
            return Findings(rows, found.told)
        rows = measured(nln_scores(found, name, nln), found.split.novel)
        by_name = {row.score: row.value for row in rows}
        more = changes(by_name["reconstruction"], by_name["nln"]) if "nln" in task.scores else {}
        kept = [row for row in rows if row.score in task.scores]
        return Findings((*kept, *(Measured("nln", value, key) for key, value in more.items())), found.told)

    def split(self, task: Task, settings: NLNProtocolSettings) -> Split:
        """Return the images of a cell."""
        return images_of(task.cell, task.folder, settings, self.one_trained)


class Miso(_NLNProtocol):
    """One class is novel, nine are trained on, with nearest latent neighbours."""

    one_trained: ClassVar[bool] = False


class Simo(_NLNProtocol):
    """One class is trained on, nine are novel, with nearest latent neighbours."""

    one_trained: ClassVar[bool] = True


@lru_cache(maxsize=1)
def _trained(cell: Cell, folder: Path, device: str, words: str, one_trained: bool) -> Trained:
    """Return what was trained; settings are words, by which the last one is known again."""
    settings = NLNProtocolSettings(**json.loads(words))
    split = images_of(cell, folder, settings, one_trained)
    method, how = settings.made(cell.method)
    return trained(method, split, how, seed=cell.seed, device=device)


def images_of(cell: Cell, folder: Path, settings: NLNProtocolSettings, one_trained: bool) -> Split:
    """Return the images of one training.

    Args:
        cell: Data set, class and seed are used.
        folder: Of the data set.
        settings: Numbers of images are used.
        one_trained: Train on the class alone, instead of on all others.
    """
    images, label = image_set(cell.dataset, folder), int(cell.label)
    normal = images.training[(images.labels == label) == one_trained]
    test = slice(settings.test_images or None)
    return Split.of(
        torch.from_numpy(scaled(normal)),
        torch.from_numpy(scaled(images.test[test])),
        (images.truth[test] == label) != one_trained,
        images.shape,
        cell.seed,
        settings.images,
    )


def scaled(images: np.ndarray) -> np.ndarray:
    """Return ``(n, D)`` float32 of ``(n, C, rows, columns)``, each channel from 0 to 1 by its own values."""
    planes = images.reshape(*images.shape[:2], -1).astype(np.float32)
    low, high = planes.min(2, keepdims=True), planes.max(2, keepdims=True)
    return ((planes - low) / np.maximum(high - low, 1)).reshape(len(images), -1)


@torch.no_grad()
def nln_scores(found: Trained, name: str, nln: NLNSettings) -> dict[str, np.ndarray]:
    """Return ``(m,)`` scores of a split's test images by name; higher is more novel."""
    model, split = found.model, found.split
    reference = Reference.of(model, split.training.to(found.device), ["latent_mean"])
    kind = {"ae_res": NLNResidual, "ae_con": NLNConsistency}.get(name, NearestLatentNeighbours)
    held_out = split.held_out.to(found.device).split(BATCH)
    constants = measured_constants({name: kind(model, reference, nln)}, Batch, held_out, [nln.k])[nln.k][name]
    scorer = kind(model, reference, nln, constants)
    parts: dict[str, list[torch.Tensor]] = {}
    for x in split.test.to(found.device).split(BATCH):
        batch = Batch(x)
        of_batch = {
            "reconstruction": (x - batch.likelihood(model).mean).abs().mean(1),
            "nln": scorer.score(batch),
        }
        for key, value in (of_batch | scorer.terms_of(batch)).items():
            parts.setdefault(key, []).append(value.cpu())
    return {key: torch.cat(values).numpy() for key, values in parts.items()}


def changes(reconstruction: float, nln: float) -> dict[str, float]:
    """Return how much larger the second AUROC is, in percent of the first, and as the paper's code counts."""
    return {
        "change": 100 * (nln / reconstruction - 1),
        "change_as_printed": 100 * (1 - reconstruction / nln),
    }


__all__ = ["METHODS", "Miso", "NLNProtocolSettings", "Simo", "changes", "images_of", "nln_scores", "scaled"]
