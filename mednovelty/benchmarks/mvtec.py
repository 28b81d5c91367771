"""Defects in pictures of things, pixel by pixel: MVTec AD, trained on faultless pictures of one class.

Mesarcik et al. 2021, table 5 (``ae`` by ``nln_map``: K = 1, 128 latents, alpha = 0.6, tiles of 128 of 1024
pixels), and Ruff 2021, table 3.2 (``fcdd``, trained on faultless pictures with confetti planted, at 224
pixels). Both are cut-down here where they need what is not at hand: the thesis' network begins with layers
that were trained on ImageNet; here all layers are trained, unless ``method_settings.weights`` names a file
of those (``nn.pretrained``), and pictures are neither turned nor cropped at random. ``vae`` is
``image_vae``, other methods for images that are installed are taken by the scores of theirs that say where.
``deviation`` is the trivial baseline: how many standard deviations a pixel is from the mean of the
faultless ones at the same place, no network at all.

Maps are drawn back to the size that the defects were marked at. By metric, all pixels of the class' test
pictures pooled: ``auroc``, ``ap``, ``iou`` (at the best threshold), ``aupro`` (up to an FPR of 0.3, every
defect counting the same), and of whole pictures, by their highest pixel, ``image_auroc``. A twentieth of
the training pictures chooses the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mednovelty.benchmarks.benchmark import Findings, Measured, Task
from mednovelty.benchmarks.defect_sets import DefectClass, defect_class
from mednovelty.benchmarks.image_methods import Split, fixed_epochs, installed_method, scores_of, trained
from mednovelty.benchmarks.map_scores import scores_given
from mednovelty.benchmarks.ranges import check_numbers
from mednovelty.errors import SettingsError
from mednovelty.evaluation.region_overlap import RegionScores, area_under_pro, iou_of
from mednovelty.metrics import Ranking, auroc, summary
from mednovelty.neighbours.latent_settings import NLNSettings
from mednovelty.plugins import plugin
from mednovelty.schedule import TrainSettings

PLUGINS = {"vae": "image_vae"}
TRIVIAL = "deviation"
SCORES = {
    "ae": ("nln_map", "rec_error"),
    "vae": ("rec_error", "kl_gradient", "combi"),
    "fcdd": ("fcdd_map",),
}
"""What ``all`` is."""
SMALLEST_SD = 1.0
"""Of ``deviation``, in steps of 255: where all pictures have one value, another is not infinitely far."""


@dataclass(frozen=True)
class MVTecSettings:
    """What the TOML file sets.

    Args:
        side: Of pictures, in pixels.
        tile: Side of the pieces that they are cut into, each a sample; a part of the side; 0: whole pictures.
        epochs: Passes over the training pictures.
        learning_rate: Adam's.
        batch: Pictures or pieces a step.
        k: Nearest latent neighbours.
        alpha: Weight of their error beside their distance.
        pictures: Used to train on, and of each kind to test on, at most; 0: all.
        method_settings: Of the method, replacing its own.
    """

    side: int
    tile: int
    epochs: int
    learning_rate: float
    batch: int
    k: int
    alpha: float
    pictures: int
    method_settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.tile and self.side % self.tile:
            raise SettingsError(
                f"side={self.side}, tile={self.tile}: pictures are cut into whole tiles; give a side of at "
                "least 8 that the tile divides, or 0 for none"
            )

    def made(self, name: str) -> tuple[Any, TrainSettings]:
        """Return a method, and how it is trained."""
        how = fixed_epochs(self.epochs, self.batch, self.learning_rate)
        return installed_method(PLUGINS.get(name, name), how, self.method_settings)


class MVTec:
    """Defects in pictures, found by what has seen faultless ones alone."""

    Settings: ClassVar[type] = MVTecSettings
    trivial: ClassVar[str] = "deviation: ask with --methods trivial, or leave --methods out"

    def scores(self, method: str, asked: Sequence[str]) -> tuple[str, ...]:
        """Return which scores of those asked for, that say where, a method has."""
        if method == TRIVIAL:
            return (TRIVIAL,) if {"all", TRIVIAL} & set(asked) else ()
        kind = plugin("methods", PLUGINS.get(method, method))
        others = [name for name in asked if name != TRIVIAL]
        return scores_given(kind, others, SCORES.get(method, ()), maps_only=True)

    def check(self, method: str, settings: MVTecSettings) -> None:
        """Refuse settings that a method cannot be made with."""
        if method != TRIVIAL:
            settings.made(method)

    def run(self, task: Task, settings: MVTecSettings) -> Findings:
        """Train on faultless pictures of a class, and return what maps of the others are worth."""
        images = defect_class(task.folder, task.cell.label, settings.side, settings.pictures)
        told: dict[str, Any] = {"pictures": len(images.training), "tested": len(images.test)}
        if task.cell.method == TRIVIAL:
            maps = {TRIVIAL: deviation(images)}
        else:
            maps, more = learnt(images, task, settings)
            told |= more
        rows = [
            Measured(name, value, metric)
            for name, found in maps.items()
            for metric, value in rated(found, images.truth)
        ]
        return Findings(tuple(rows), told)


def deviation(images: DefectClass) -> np.ndarray:
    """Return ``(m, side, side)``: |x - mean| / SD of training pictures at the same place, over colours."""
    mean = images.training.mean(0, dtype=np.float64)
    spread = np.maximum(images.training.std(0, dtype=np.float64), SMALLEST_SD)
    return np.stack([(np.abs(x - mean) / spread).mean(0) for x in images.test]).astype(np.float32)


def learnt(
    images: DefectClass, task: Task, settings: MVTecSettings
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return ``(m, side, side)`` maps by score of a method that was trained, and how that went."""
    tile = settings.tile or settings.side
    training, test = (tiles(_unit(rows), tile) for rows in (images.training, images.test))
    shape = (3, tile, tile)
    # Which pictures are novel is nothing that a split is asked for.
    split = Split.of(training.flatten(1), test.flatten(1), np.zeros(len(test), bool), shape, task.cell.seed)
    method, how = settings.made(task.cell.method)
    found = trained(method, split, how, seed=task.cell.seed, device=task.device)
    scores = scores_of(found, task.scores, nln=NLNSettings(settings.k, settings.alpha))
    maps = {
        key: untiled(torch.from_numpy(values)[:, None], settings.side)[:, 0].numpy()
        for key, values in scores.items()
    }
    return maps, found.told


def tiles(images: Tensor, side: int) -> Tensor:
    """Return ``(n * t * t, C, side, side)`` pieces of ``(n, C, t * side, t * side)``, row by row."""
    n, channels, whole, _ = images.shape
    count = whole // side
    cut = images.reshape(n, channels, count, side, count, side)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(n * count * count, channels, side, side)


def untiled(pieces: Tensor, whole: int) -> Tensor:
    """Return ``(n, C, whole, whole)`` of the pieces that ``tiles`` has cut."""
    _, channels, side, _ = pieces.shape
    count = whole // side
    laid = pieces.reshape(-1, count, count, channels, side, side).permute(0, 3, 1, 4, 2, 5)
    return laid.reshape(-1, channels, whole, whole)


def rated(maps: np.ndarray, truth: Sequence[np.ndarray]) -> Iterator[tuple[str, float]]:
    """Yield metrics of ``(m, side, side)`` maps, at the size that defects were marked at."""
    parts = [
        RegionScores.of(_sized(found, marked.shape), marked)
        for found, marked in zip(maps, truth, strict=True)
    ]
    scores = np.concatenate([np.concatenate([part.healthy, part.marked]) for part in parts])
    marked = np.concatenate([np.arange(p.healthy.size + p.marked.size) >= p.healthy.size for p in parts])
    pooled = summary(Ranking.of(scores, marked))
    yield "auroc", pooled["auroc"]
    yield "ap", pooled["ap"]
    yield "iou", iou_of(pooled["dice_best"])
    yield "aupro", area_under_pro(parts)
    highest = np.array([float(found.max()) for found in maps])
    yield "image_auroc", auroc(Ranking.of(highest, np.array([each.any() for each in truth])))


def _sized(found: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    drawn = interpolate(torch.from_numpy(found)[None, None], size=shape, mode="bilinear", align_corners=False)
    return drawn[0, 0].numpy()


def _unit(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).float() / 255


__all__ = ["MVTec", "MVTecSettings", "deviation", "rated", "tiles", "untiled"]
