"""One digit is novel, nine are normal: Table 3 of Vasilev et al. 2018, section 3.2.

80 % of the normal images are trained on; tested are the other 20 % and all images of the novel digit. The
paper does not say of which images: here of all 70,000, official training and test images alike. A twentieth
of those trained on is held out and chooses the epoch.

``vae_z24``, ``vae_z48`` and ``vae_z64`` are the convolutional network of Table 2 (``nn.pooled``) with as
many latents: the table has each of its rows at one of the three. What the paper leaves open is the
likelihood; here that of values between 0 and 1, Bernoulli. It trains at 1e-5, which takes days; here at 5e-4
for a few epochs. Reconstructions are compared, as distributions, with fewer normals than are trained on
(``compared``): a pair of them takes 784 logarithms.

``an_cho`` is the reconstruction probability of An and Cho 2015 with their fully connected network, 784-400-
200-400-784; ``pca`` and ``kernel_pca`` are the shallow methods, by their errors of reconstruction.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from mednovelty.benchmarks.benchmark import Findings, Measured, Task
from mednovelty.benchmarks.idx import flat
from mednovelty.benchmarks.image_methods import (
    Split,
    fixed_epochs,
    installed_method,
    measured,
    sample_scores,
    scores_of,
    trained,
)
from mednovelty.benchmarks.image_sets import image_set
from mednovelty.benchmarks.ranges import check_numbers
from mednovelty.methods.image_vae import ImageVAEMethod, ImageVAESettings
from mednovelty.plugins import plugin
from mednovelty.schedule import TrainSettings
from mednovelty.score_names import describe_score, resolve_names
from mednovelty.seeds import numpy_generator

log = logging.getLogger("mednovelty")
TRAINING_SHARE = 0.8
SHALLOW = ("pca", "kernel_pca")
GENERATED = tuple(resolve_names(["generated"]))
AN_CHO = "encoder_stochastic_likelihood"


@dataclass(frozen=True)
class NovelDigitSettings:
    """What the TOML file sets.

    Args:
        epochs: Passes over the training images.
        batch: Images a step.
        learning_rate: Adam's.
        network: Of the VAE.
        hidden: Its layers, where it is ``dense``.
        latent: Z.
        likelihood: Of the VAE.
        log_c: Of a Gaussian one.
        log_sigma_floor: Of the VAE; scores see no standard deviation below its exponential.
        draws: Of stochastic scores.
        compared: Normals that reconstructions are compared with as distributions; 0: all.
        images: At most as many normal images to train on; 0: all.
        test_images: At most as many images to test on, drawn at random; 0: all.
        generated: For as many of these, drawn at random, scores of the group ``generated`` are computed, Eq.
            (18) and (19), which optimise for each image, seconds each; 0: for all.
        method_settings: Of other methods that are installed, replacing their own.
    """

    epochs: int
    batch: int
    learning_rate: float
    network: str
    hidden: tuple[int, ...]
    latent: int
    likelihood: str
    log_c: float
    log_sigma_floor: float
    draws: int
    compared: int
    images: int
    test_images: int
    generated: int
    method_settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_numbers(self)

    def training(self) -> TrainSettings:
        """Return how is trained."""
        return fixed_epochs(self.epochs, self.batch, self.learning_rate)

    def made(self, name: str) -> tuple[Any, TrainSettings]:
        """Return a method, and how it is trained."""
        if name.startswith(("vae_z", "an_cho")):
            return self.vae(), self.training()
        return installed_method(name, self.training(), self.method_settings)

    def vae(self) -> ImageVAEMethod:
        """Return the VAE."""
        tree: Mapping[str, Any] = {
            "network": self.network,
            "hidden": self.hidden,
            "latent": self.latent,
            "likelihood": self.likelihood,
            "log_c": self.log_c if self.likelihood == "gaussian" else None,
            "log_sigma_floor": self.log_sigma_floor,
        }
        return ImageVAEMethod(ImageVAESettings(output="sigmoid", **tree))


class NovelDigit:
    """One class is left out of training and novel in the test, of 80 % and 20 % of all other images."""

    Settings: ClassVar[type] = NovelDigitSettings

    def scores(self, method: str, asked: Sequence[str]) -> tuple[str, ...]:
        """Return which scores of those asked for a method has; ``all``: of a VAE, the paper's fast ones."""
        if method.startswith("vae_z") and "all" in asked and not {"generated", *GENERATED} & set(asked):
            log.info("all: without the group generated (%s), which optimises for each image; ask for it by "
                     "name, as all,generated", ", ".join(GENERATED))  # fmt: skip
        if method == "an_cho":
            found = sample_scores(ImageVAEMethod, asked, [AN_CHO])
        elif method.startswith("vae_z"):
            every = sample_scores(ImageVAEMethod, ["all"])
            papers = [name for name in every if describe_score(name)["paper"] == "vasilev2018"]
            found = sample_scores(ImageVAEMethod, asked, papers)
        else:
            found = sample_scores(plugin("methods", method), asked)
        return found

    def check(self, method: str, settings: NovelDigitSettings) -> None:
        """Refuse settings that a method cannot be made with."""
        settings.made(method)

    def run(self, task: Task, settings: NovelDigitSettings) -> Findings:
        """Train without the digit, and return the AUROC of each score."""
        split = split_of(task, settings)
        method, how = settings.made(task.cell.method)
        found = trained(method, split, how, seed=task.cell.seed, device=task.device)
        told: dict[str, Any] = {**found.told, "test": _counts(split.novel)}
        rows: tuple[Measured, ...] = ()
        for group, some in _groups(task, split, settings):
            novel, test = split.novel[some], split.test[some]
            scores = scores_of(found, group, draws=settings.draws, compared=settings.compared, test=test)
            rows += measured(scores, novel)
            if len(some) < len(split.novel):
                told["test_of_generated"] = _counts(novel)
        by_score = {row.score: row for row in rows}
        return Findings(tuple(by_score[name] for name in task.scores), told)

    def split(self, task: Task, settings: NovelDigitSettings) -> Split:
        """Return the images of a cell."""
        return split_of(task, settings)


def _groups(task: Task, split: Split, settings: NovelDigitSettings) -> list[tuple[list[str], np.ndarray]]:
    """Return scores, and which test images they are computed for."""
    every = np.arange(len(split.novel))
    drawn = numpy_generator(task.cell.seed, "images of generated scores").permutation(len(every))
    slow = [name for name in task.scores if name in GENERATED]
    quick = [name for name in task.scores if name not in slow]
    groups = [(quick, every), (slow, np.sort(drawn[: settings.generated or None]))]
    return [(names, some) for names, some in groups if names]


def _counts(novel: np.ndarray) -> dict[str, int]:
    return {"normal": int((~novel).sum()), "novel": int(novel.sum())}


def split_of(task: Task, settings: NovelDigitSettings) -> Split:
    """Return the images of a cell, between 0 and 1.

    Args:
        task: Data set, class and seed are used.
        settings: Numbers of images are used.
    """
    images, cell = image_set(task.cell.dataset, task.folder), task.cell
    every = np.concatenate([images.training, images.test])
    novel = np.concatenate([images.labels, images.truth]) == int(cell.label)
    normal = np.flatnonzero(~novel)
    order = numpy_generator(cell.seed, "training and test").permutation(len(normal))
    count = round(TRAINING_SHARE * len(normal))
    test = np.concatenate([normal[np.sort(order[count:])], np.flatnonzero(novel)])
    if 0 < settings.test_images < len(test):
        drawn = numpy_generator(cell.seed, "test images").permutation(len(test))[: settings.test_images]
        test = test[np.sort(drawn)]
    seen, tested = (torch.from_numpy(flat(every[part])) for part in (normal[np.sort(order[:count])], test))
    return Split.of(seen, tested, novel[test], images.shape, cell.seed, settings.images)


__all__ = ["NovelDigit", "NovelDigitSettings", "split_of"]
