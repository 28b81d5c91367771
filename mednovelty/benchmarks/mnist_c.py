"""Clean digits are normal, corrupted ones are novel: Table 4.2 of the thesis of Ruff 2021, and Table 4.4.

Trained on the clean training images; tested are the test images, clean and corrupted by one of fifteen
corruptions (``corruptions``) each. ``gaussian``, ``mve``, ``pca``, ``kde``, ``svdd`` and ``kernel_pca`` are
the shallow methods on pixels (``mve`` on principal components of 90 % of the variance: of all pixels, most of
which never change, there is no such ellipsoid), ``ae`` an autoencoder of 64 latents. Kernel and bandwidth are
chosen by training images alone, where the thesis chooses those of SVDD by some labels. The thesis' Deep SVDD
is on features of a network that was trained on letters, and its AnoGAN is not here.

``clever_hans`` is AUROC less the mean cosine of relevance and of what the corruption has changed, |original -
corrupted|, over some of the corrupted images, for the methods whose scores are explained by layers.
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

from mednovelty.benchmarks.benchmark import Cell, Findings, Measured, Task
from mednovelty.benchmarks.corruptions import corrupted
from mednovelty.benchmarks.idx import flat
from mednovelty.benchmarks.image_methods import (
    Split,
    Trained,
    fixed_epochs,
    installed_method,
    sample_scores,
    scores_among,
    scores_of,
    scoring_of,
    trained,
)
from mednovelty.benchmarks.image_sets import image_set
from mednovelty.benchmarks.ranges import check_numbers
from mednovelty.errors import SettingsError
from mednovelty.evaluation.clever_hans import clever_hans, mean_cosine
from mednovelty.explaining import explain
from mednovelty.methods.autoencoder import AEMethod
from mednovelty.methods.autoencoder_settings import AutoencoderSettings
from mednovelty.metrics import Ranking, auroc, average_precision
from mednovelty.neighbours.latent_settings import NLNSettings
from mednovelty.plugins import plugin
from mednovelty.schedule import TrainSettings

SHALLOW = {
    "gaussian": "gaussian",
    "mve": "minimum_volume_ellipsoid",
    "pca": "pca",
    "kde": "kde",
    "svdd": "ocsvm",
    "kernel_pca": "kernel_pca",
}
"""What the thesis calls methods, and the plug-ins that they are."""
SCORES = {"ae": "reconstruction_error", **dict.fromkeys(SHALLOW, "outlier_score")}
EXPLAINED = ("pca", "kde", "ae")
SCORE = "score"


@dataclass(frozen=True)
class MNISTCSettings:
    """What the TOML file sets.

    Args:
        epochs: Of the autoencoder.
        batch: Images a step.
        learning_rate: Adam's.
        latent: Its latents.
        images: At most as many training images; 0: all.
        test_images: At most as many test images, the first; 0: all.
        explained: Corrupted images whose relevance is compared with what was changed, the first; 0: none.
        method_settings: Of the method, replacing its own.
    """

    epochs: int
    batch: int
    learning_rate: float
    latent: int
    images: int
    test_images: int
    explained: int
    method_settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_numbers(self)

    def made(self, name: str) -> tuple[Any, TrainSettings]:
        """Return a method, and how it is trained."""
        how = fixed_epochs(self.epochs, self.batch, self.learning_rate)
        if name == "ae":
            return AEMethod(AutoencoderSettings(network="lenet", latent=self.latent, output="sigmoid")), how
        return installed_method(SHALLOW.get(name, name), how, self.method_settings)


class MNISTC:
    """Clean images are trained on, corrupted ones are novel; relevance is held against what was changed."""

    Settings: ClassVar[type] = MNISTCSettings

    def scores(self, method: str, asked: Sequence[str]) -> tuple[str, ...]:
        """Return which scores of those asked for a method has; those of the thesis have one each."""
        if method in SCORES:
            return scores_among(asked, (SCORE,), "mnist-c")
        return sample_scores(plugin("methods", method), [name for name in asked if name != SCORE])

    def check(self, method: str, settings: MNISTCSettings) -> None:
        """Refuse settings that a method cannot be made with."""
        settings.made(method)

    def run(self, task: Task, settings: MNISTCSettings) -> Findings:
        """Score clean and corrupted images; return AUROC, AP and, of some methods, cosines of relevance."""
        cell = task.cell
        words = json.dumps(asdict(settings), sort_keys=True)
        found = _trained(cell.dataset, task.folder, cell.method, cell.seed, words, task.device)
        clean, changed = found.split.test, changed_images(found.split, cell)
        names = [SCORES[cell.method]] if cell.method in SCORES else list(task.scores)
        of_clean = _scores_of_clean(found, tuple(names))
        of_changed = scores_of(found, names, test=changed)
        rows: list[Measured] = []
        for name in names:
            both = np.concatenate([of_clean[name], of_changed[name]])
            ranking = Ranking.of(both, np.arange(len(both)) >= len(clean), name)
            told = SCORE if cell.method in SCORES else name
            rows += [Measured(told, auroc(ranking)), Measured(told, average_precision(ranking), "ap")]
        if cell.method in EXPLAINED and settings.explained:
            rows += _explained(found, names[0], changed, rows[0].value, settings.explained)
        return Findings(tuple(rows), found.told)

    def split(self, task: Task, settings: MNISTCSettings) -> Split:
        """Return clean images to train on; to test on the clean ones, then the corrupted ones."""
        split = clean_images(task.cell.dataset, task.folder, task.cell.seed, settings)
        both = torch.cat([split.test, changed_images(split, task.cell)])
        return replace(split, test=both, novel=np.arange(len(both)) >= len(split.test))


def clean_images(dataset: str, folder: Path, seed: int, settings: MNISTCSettings) -> Split:
    """Return clean images, none of them novel.

    Raises:
        SettingsError: They have colours.
    """
    images = image_set(dataset, folder)
    if images.shape[0] != 1:
        raise SettingsError(
            f"mnist-c: is for grey images, and those of {dataset} have {images.shape[0]} channels"
        )
    test = torch.from_numpy(flat(images.test[: settings.test_images or None]))
    normal = torch.from_numpy(flat(images.training))
    return Split.of(normal, test, np.zeros(len(test), bool), images.shape, seed, settings.images)


def changed_images(split: Split, cell: Cell) -> torch.Tensor:
    """Return ``(m, D)``: the test images of a split with a cell's corruption."""
    clean = split.test.view(-1, *split.shape[1:])
    return torch.from_numpy(corrupted(clean.numpy(), cell.label, cell.seed)).flatten(1)


def _explained(found: Trained, score: str, changed: torch.Tensor, area: float, most: int) -> list[Measured]:
    """Return the cosine of relevance and change, that of even relevance, and the Clever Hans score."""
    scoring = scoring_of(found, [score], draws=2, most=0, nln=NLNSettings())
    some = changed[:most]
    truth = (some - found.split.test[: len(some)]).abs().numpy()
    has = truth.any(1)
    relevance = torch.cat([explain(scoring, part, score).values.cpu() for part in some.split(100)])
    cosine = mean_cosine(relevance.flatten(1).numpy(), truth)
    even = mean_cosine(np.ones_like(truth[has]), truth[has])
    told = clever_hans(area, cosine, min(even, 1.0))
    return [
        Measured(SCORE, cosine, "cosine"),
        Measured(SCORE, told.even, "cosine_of_even_relevance"),
        Measured(SCORE, told.value, "clever_hans"),
    ]


@lru_cache(maxsize=1)
def _trained(dataset: str, folder: Path, name: str, seed: int, words: str, device: str) -> Trained:
    """Return what was trained; settings are words, by which the last one is known again."""
    settings = MNISTCSettings(**json.loads(words))
    split = clean_images(dataset, folder, seed, settings)
    method, how = settings.made(name)
    return trained(method, split, how, seed=seed, device=device)


@lru_cache(maxsize=1)
def _scores_of_clean(found: Trained, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    # The same for all corruptions.
    return scores_of(found, names)


__all__ = ["EXPLAINED", "MNISTC", "SCORES", "MNISTCSettings"]
