"""One image set is trained on, another one is novel: Tables 1 to 3 of Ascarate et al. 2026.

Any two sets do: the test images of the one against those of the other, made as large and as colourful
(``image_shapes``). A number instead of a set is a class of the set itself, left out of training. Classes of a
table are therefore what is out of distribution; ``--in`` and ``--ood`` are other words for ``--datasets`` and
``--classes``.

    vae, vmf, compressed    one network: Cartesian, the first angle compressed, all angles compressed
    ae                      an autoencoder of as many latents
    pixels                  no model

    knn                 mean distance to the three nearest training images, by latent means or by pixels
    isolation_forest    of latent means, or of pixels
    mse                 squared error of the reconstruction

Methods that are installed have their own scores. Where ``labels`` says so, as in Tables 2 and 3, training
knows the classes, each of which gets a pole of its own; ``vae``, ``ae`` and ``pixels`` have no use for them.
Batches of 200, Adam at 2e-4 and 300 epochs are the released code's; it keeps the last epoch, here a twentieth
of the training images chooses it.

The false positive rate at 95 % is given in both conventions, since the paper's text, and the methods it
compares with, have the one and its released code the other:

    fpr95_in_positive     images in distribution are positives: share of the others accepted where 95 % of
                          them are accepted
    fpr95_out_positive    images out of distribution are positives: share of those in distribution flagged
                          where 95 % of the others are flagged
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mednovelty.benchmarks.benchmark import Findings, Measured, Task
from mednovelty.benchmarks.image_methods import (
    Split,
    Trained,
    fixed_epochs,
    installed_method,
    sample_scores,
    scores_of,
    trained,
)
from mednovelty.benchmarks.image_sets import image_set
from mednovelty.benchmarks.image_shapes import fitted
from mednovelty.benchmarks.ood_images import labelled, split_of
from mednovelty.benchmarks.ood_settings import MODELS, OODSettings
from mednovelty.methods.autoencoder import AEMethod
from mednovelty.methods.hyperspherical import HypersphericalMethod
from mednovelty.methods.hyperspherical_scores import KNN
from mednovelty.metrics import Ranking, auroc, average_precision, fpr_at_healthy_tpr, fpr_at_lesion_tpr
from mednovelty.neighbours.exact import ExactNeighbours
from mednovelty.plugins import plugin

LIBRARY = {"knn": "hyperspherical_knn", "mse": "reconstruction_error"}
"""What the library calls the protocol's scores."""
FOREST = "isolation_forest"
OWN = {
    **dict.fromkeys((*MODELS, "ae"), ("knn", FOREST, "mse")),
    "pixels": ("knn", FOREST),
}
METRICS: dict[str, Callable[[Ranking], float]] = {
    "auroc": auroc,
    "fpr95_in_positive": fpr_at_healthy_tpr,
    "fpr95_out_positive": fpr_at_lesion_tpr,
    "ap": average_precision,
}
BATCH = 1000


class OutOfDistribution:
    """One set is trained on; another one, or a class that was left out, is novel."""

    Settings: ClassVar[type] = OODSettings

    def scores(self, method: str, asked: Sequence[str]) -> tuple[str, ...]:
        """Return which scores of those asked for a method has; ``all``: the protocol's, of its methods."""
        protocols = {name for names in OWN.values() for name in names}
        others = [name for name in asked if name not in protocols]
        if method not in OWN:
            return sample_scores(plugin("methods", method), others)
        own = tuple(name for name in OWN[method] if name in asked or "all" in asked)
        others = [name for name in others if name != "all"]
        if method == "pixels":
            sample_scores(AEMethod, others)  # A score that there is not is a mistake here, too.
            return own
        return own + sample_scores(AEMethod if method == "ae" else HypersphericalMethod, others)

    def check(self, method: str, settings: OODSettings) -> None:
        """Refuse settings that a method cannot be made with."""
        if method not in OWN:
            installed_method(method, settings.training(), settings.method_settings)
        elif method != "pixels":
            settings.method(method, 0)

    def run(self, task: Task, settings: OODSettings) -> Findings:
        """Train on the one, score the test images of both, and return AUROC, AP, and FPR95 both ways."""
        cell, left_out = task.cell, _left_out(task)
        words = json.dumps(asdict(settings), sort_keys=True)
        found = _fitted(cell.dataset, task.folder, left_out, cell.method, cell.seed, words, task.device)
        if left_out is not None:
            scores, novel = _scores_of_test(found, task.scores), found.split.novel
            return Findings(tuple(_measured(scores, novel)), found.told)
        strange, told = _strange(task, settings, found.split.shape)
        both = (_scores_of_test(found, task.scores), found.scores(task.scores, strange))
        novel = np.repeat([False, True], [len(found.split.test), len(strange)])
        scores = {each: np.concatenate([part[each] for part in both]) for each in task.scores}
        return Findings(tuple(_measured(scores, novel)), found.told | told)

    def split(self, task: Task, settings: OODSettings) -> Split:
        """Return the images of a cell: those in distribution, and last those that are not."""
        images, left_out = image_set(task.cell.dataset, task.folder), _left_out(task)
        most, tested = settings.images, settings.test_images
        split, _ = split_of(images, left_out, task.cell.seed, most=most, test_images=tested)
        if left_out is not None:
            return split
        strange, _ = _strange(task, settings, split.shape)
        novel = np.repeat([False, True], [len(split.test), len(strange)])
        return replace(split, test=torch.cat([split.test, strange]), novel=novel)


def _left_out(task: Task) -> int | None:
    return int(task.cell.label) if task.cell.label.isdigit() else None


def _strange(task: Task, settings: OODSettings, shape: tuple[int, ...]) -> tuple[Tensor, dict[str, Any]]:
    """Return images out of distribution, ``(m, D)``, of that shape, and what is told of them."""
    name, folder = task.beside
    images = image_set(name, Path(folder), (shape[1], shape[2])).test[: settings.test_images or None]
    return fitted(images, shape), {"out": {"images": len(images), "shape": list(images.shape[1:])}}


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a cell has trained, and how images are scored by it.

    Attributes:
        split: Images in distribution.
        name: Of the method.
        seed: Of everything random.
        trained: The model; None: pixels, of which there is none.
        device: Where, as torch names it.
    """

    split: Split
    name: str
    seed: int
    trained: Trained | None
    device: str

    @property
    def told(self) -> dict[str, Any]:
        """How training went, as JSON types."""
        return self.trained.told if self.trained else {"images": len(self.split.training)}

    def scores(self, names: Sequence[str], test: Tensor) -> dict[str, np.ndarray]:
        """Return ``(m,)`` scores by name of ``(m, D)`` images; higher is more novel."""
        if self.trained is None:
            found = {"knn": self._nearest} if "knn" in names else {}
            found |= {FOREST: self._forest} if FOREST in names else {}
            return {name: found[name](test) for name in names}
        library = [LIBRARY.get(name, name) for name in names if name != FOREST]
        scores = scores_of(self.trained, library, test=test)
        if FOREST in names:
            scores[FOREST] = self._forest(self.latents(test))
        return {name: scores[LIBRARY.get(name, name)] for name in names}

    def _nearest(self, test: Tensor) -> np.ndarray:
        search = ExactNeighbours(self.split.training)
        count = min(KNN, len(self.split.training))
        parts = [search.search(block, count)[0].clamp(min=0).sqrt().mean(1) for block in test.split(BATCH)]
        return torch.cat(parts).numpy()

    def _forest(self, test: Tensor) -> np.ndarray:
        return scores_of(_forest_of(self), ["outlier_score"], test=test)["outlier_score"]

    @torch.no_grad()
    def latents(self, images: Tensor) -> Tensor:
        """Return the latent means, ``(m, Z)``, of ``(m, D)`` images."""
        assert self.trained is not None
        parts = images.to(self.trained.device).split(BATCH)
        return torch.cat([self.trained.model.encode(x).mean.cpu() for x in parts])


@lru_cache(maxsize=1)
def _forest_of(found: Fitted) -> Trained:
    """Return an isolation forest of latent means, or of pixels."""
    split = found.split
    if found.trained is not None:
        seen, held_out = found.latents(split.training), found.latents(split.held_out)
        split = replace(split, training=seen, held_out=held_out, shape=(seen.shape[1],))
    method, how = installed_method(FOREST, fixed_epochs(1, BATCH, 1e-3), {})
    return trained(method, split, how, seed=found.seed, device="cpu")


@lru_cache(maxsize=1)
def _fitted(  # noqa: PLR0913 - what a training depends on, by which the last one is known again
    dataset: str, folder: Path, left_out: int | None, name: str, seed: int, words: str, device: str
) -> Fitted:
    settings = OODSettings(**json.loads(words))
    images = image_set(dataset, folder)
    most, tested = settings.images, settings.test_images
    split, labels = split_of(images, left_out, seed, most=most, test_images=tested)
    if name == "pixels":
        return Fitted(split, name, seed, None, device)
    how = settings.training()
    if name not in OWN:
        method, how = installed_method(name, how, settings.method_settings)
        return Fitted(split, name, seed, trained(method, split, how, seed=seed, device=device), device)
    told = settings.labels and name in ("vmf", "compressed")
    method = settings.method(name, int(labels[0].max()) + 1 if told else 0)
    seen = labelled(split, labels) if told else split
    found = trained(method, seen, how, seed=seed, device=device)
    # What is compared with are images alone: no score is told a class.
    return Fitted(split, name, seed, replace(found, split=split), device)


@lru_cache(maxsize=1)
def _scores_of_test(found: Fitted, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    # The same whatever they are compared with.
    return found.scores(names, found.split.test)


def _measured(scores: dict[str, np.ndarray], novel: np.ndarray) -> list[Measured]:
    found = []
    for name, values in scores.items():
        ranking = Ranking.of(values, novel, name)
        found += [Measured(name, measure(ranking), metric) for metric, measure in METRICS.items()]
    return found


__all__ = ["METRICS", "MODELS", "OWN", "OODSettings", "OutOfDistribution"]
