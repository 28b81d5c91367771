"""Nearest latent neighbours on MNIST or Fashion-MNIST: what they add to the reconstruction error.

    python -m mednovelty.benchmarks.nln FOLDER --methods ae ae_con --classes 0 5 --epochs 10

Mesarcik et al. 2021, tables 1 and 2. ``miso``: trained on nine classes, the tenth is novel; ``simo``: trained
on one, the nine others are novel. Official training and test images, each scaled to between 0 and 1 by its
own smallest and largest value. A twentieth of the training images is held out: its loss chooses the epoch,
and it gives the constants that the terms are normalised with. K, alpha and the number of latents are fixed in
advance, where the paper takes the best by the test set.

AUROC of the mean absolute error against the own reconstruction, Eq. (3), and of the form of nearest latent
neighbours that belongs to the method: Eq. (4); of ``ae_res`` Eq. (7); of ``ae_con`` Eq. (8). ``change`` is
relative to the reconstruction's AUROC, in percent; ``change_as_printed`` is 100 (1 - reconstruction / nln),
which is what the released code calls the increase. ``vae`` is ``image_vae`` on the same network. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mednovelty.batch import Batch
from mednovelty.benchmarks.arguments import add_classes, add_options, parser_of, runs_of
from mednovelty.benchmarks.idx import labelled_images
from mednovelty.calibration import measured_constants
from mednovelty.devices import chosen
from mednovelty.methods.autoencoder_settings import PAPER_TRAINING, RELEASED
from mednovelty.methods.image_vae import ImageVAEMethod, ImageVAESettings
from mednovelty.methods.nearest_latent import NearestLatentNeighbours, NLNConsistency, NLNResidual
from mednovelty.metrics import Ranking, auroc
from mednovelty.neighbours.latent_settings import NLNSettings
from mednovelty.plugins import plugin
from mednovelty.reference import Reference
from mednovelty.schedule import TrainSettings
from mednovelty.seeds import numpy_generator
from mednovelty.train import train
from mednovelty.voxel_cache import VoxelCache

METHODS = ("ae", "vae", "aae", "ae_res", "ae_con")
PAPER = {
    "miso": {
        "mnist": dict(zip(METHODS, (9.80, 11.65, 17.65, 10.13, 14.18), strict=True)),
        "fashion": dict(zip(METHODS, (11.52, 10.31, 9.53, 11.95, 11.52), strict=True)),
    },
    "simo": {
        "mnist": dict(zip(METHODS, (3.45, 3.99, 4.92, 3.47, 4.21), strict=True)),
        "fashion": dict(zip(METHODS, (5.66, 5.31, 5.12, 5.65, 3.49), strict=True)),
    },
}
"""Increase in percent, tables 1 and 2; each model there has its best K, alpha and L by the test set."""
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured.

    Args:
        methods: Which autoencoders.
        classes: Which classes are left out (``miso``), or trained on (``simo``), one after the other.
        protocol: ``miso`` or ``simo``.
        seed: Of everything random.
        epochs: Passes over the training images.
        learning_rate: Adam's; the paper's is 1e-4.
        batch: Images a step.
        latent: L.
        k: K.
        alpha: Weight of the error.
        images: At most as many training images; 0: all.
        released: Networks, losses and rates of the released code, for the methods that have such.
        device: Where, as torch names it.
    """

    methods: tuple[str, ...] = METHODS
    classes: tuple[int, ...] = tuple(range(10))
    protocol: str = "miso"
    seed: int = 0
    epochs: int = 50
    learning_rate: float = 1e-4
    batch: int = 1024
    latent: int = 32
    k: int = 2
    alpha: float = 0.8
    images: int = 0
    released: bool = False
    device: str = "cpu"

    def method(self, name: str) -> Any:
        """Return a method with its settings."""
        if name == "vae":
            return ImageVAEMethod(ImageVAESettings(network="lenet", latent=self.latent, output="sigmoid"))
        kind = plugin("methods", name)
        if self.released:
            return kind(replace(RELEASED[name][0], latent=self.latent))
        return kind(kind.Settings(network="lenet", latent=self.latent, output="sigmoid"))

    def training(self, name: str) -> TrainSettings:
        """Return a fixed number of epochs at a fixed rate."""
        rate = RELEASED[name][1] if self.released and name in RELEASED else self.learning_rate
        return replace(
            PAPER_TRAINING,
            batch_size=self.batch,
            learning_rate=rate,
            max_epochs=self.epochs,
            patience=self.epochs + 1,
            plateau_patience=self.epochs + 1,
        )


@dataclass(frozen=True, eq=False)
class Images:
    """``(n, 784)`` float32 each, and ``(m,)`` bool: which test images are novel."""

    training: VoxelCache
    held_out: VoxelCache
    test: np.ndarray
    novel: np.ndarray


def images_of(folder: Path, label: int, options: Options) -> Images:
    """Return the images of one training.

    Args:
        folder: Of the four IDX files.
        label: The class that is left out, or trained on.
        options: Protocol, seed and number of images are used.
    """
    images, labels = labelled_images(folder, "train")
    test, truth = labelled_images(folder, "t10k")
    simo = options.protocol == "simo"
    normal = images[(labels == label) == simo]
    order = numpy_generator(options.seed, "images").permutation(len(normal))[: options.images or None]
    held = max(len(order) // 20, 2)
    shape = (1, *normal.shape[1:])
    return Images(
        _cache(normal[order[held:]], shape),
        _cache(normal[order[:held]], shape),
        scaled(test),
        (truth == label) != simo,
    )


def scaled(images: np.ndarray) -> np.ndarray:
    """Return ``(n, D)`` float32, each image between 0 and 1 by its own smallest and largest value."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    return (rows - low) / np.maximum(high - low, 1)


@torch.no_grad()
def scores_of(model: Any, name: str, images: Images, options: Options) -> dict[str, np.ndarray]:
    """Return ``(m,)`` scores by name; higher is more novel."""
    device = next(model.parameters()).device
    normals = torch.from_numpy(images.training.array()).to(device)
    reference = Reference.of(model, normals, ["latent_mean"])
    kind = {"ae_res": NLNResidual, "ae_con": NLNConsistency}.get(name, NearestLatentNeighbours)
    nln = NLNSettings(options.k, options.alpha)
    held_out = torch.from_numpy(images.held_out.array()).to(device).split(BATCH)
    constants = measured_constants({name: kind(model, reference, nln)}, Batch, held_out, [nln.k])[nln.k][name]
    scorer = kind(model, reference, nln, constants)
    parts: dict[str, list[torch.Tensor]] = {}
    for x in torch.from_numpy(images.test).to(device).split(BATCH):
        batch = Batch(x)
        found = {
            "reconstruction": (x - batch.likelihood(model).mean).abs().mean(1),
            "nln": scorer.score(batch),
        }
        for key, value in (found | scorer.terms_of(batch)).items():
            parts.setdefault(key, []).append(value.cpu())
    return {key: torch.cat(values).numpy() for key, values in parts.items()}


def measure(folder: Path, name: str, label: int, options: Options) -> dict[str, Any]:
    """Train one autoencoder, score the test images, and return the AUROC of each score and term."""
    started = time.perf_counter()
    images, method = images_of(folder, label, options), options.method(name)
    model = method.build(images.training.shape).to(chosen(options.device))
    record = train(method, model, images.training, images.held_out, options.training(name), seed=options.seed)
    scores = scores_of(model, name, images, options)
    found = {key: auroc(Ranking.of(values, images.novel)) for key, values in scores.items()}
    return {
        "method": name,
        "class": label,
        "images": len(images.training),
        "best_epoch": record.best_epoch,
        "auroc": found,
        **changes(found["reconstruction"], found["nln"]),
        "seconds": round(time.perf_counter() - started, 1),
    }


def changes(reconstruction: float, nln: float) -> dict[str, float]:
    """Return how much larger the second AUROC is, in percent of the first, and as the paper's code counts."""
    return {
        "change": 100 * (nln / reconstruction - 1),
        "change_as_printed": 100 * (1 - reconstruction / nln),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return by method the means over classes."""
    found = {}
    for name in dict.fromkeys(run["method"] for run in runs):
        own = [run for run in runs if run["method"] == name]
        found[name] = {key: statistics.mean(run["auroc"][key] for run in own) for key in own[0]["auroc"]}
        for key in ("change", "change_as_printed"):
            found[name][key] = statistics.mean(run[key] for run in own)
    return found


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the numbers."""
    given = _parser().parse_args(argv)
    folder = given.__dict__.pop("folder")
    lists = {name: tuple(getattr(given, name)) for name in ("methods", "classes")}
    options = Options(**{**vars(given), **lists})
    runs = runs_of(measure, folder, options)
    result = {"summary": summary(runs), "paper_percent": PAPER[options.protocol], "runs": runs}
    print(json.dumps(result, indent=2))
    return result


def _parser() -> argparse.ArgumentParser:
    default = Options()
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    add_classes(parser, default.classes)
    parser.add_argument("--protocol", choices=tuple(PAPER), default=default.protocol)
    names = ("seed", "epochs", "learning_rate", "batch", "latent", "k", "alpha", "images", "device")
    add_options(parser, default, names)
    parser.add_argument("--released", action="store_true")
    return parser


def _cache(images: np.ndarray, shape: tuple[int, ...]) -> VoxelCache:
    rows = scaled(images)
    cache = VoxelCache(rows.shape[1], shape=shape)
    cache.append("images", rows)
    return cache


if __name__ == "__main__":
    main()
