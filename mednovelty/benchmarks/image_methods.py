"""What protocols on images share: tables on the device, training by the project's loop, scores of a test set.

Any method that is installed can be trained so, and every score of samples that its model can give is the
detector's own: nothing here knows how a score is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from mednovelty.batch import Batch
from mednovelty.benchmarks.benchmark import Measured
from mednovelty.calibration import measured_constants
from mednovelty.capabilities import WORDS, asked_by, offered_by
from mednovelty.curve import TrainingRecord
from mednovelty.devices import chosen
from mednovelty.errors import UnknownPluginError
from mednovelty.metrics import Ranking, auroc
from mednovelty.neighbours.latent_settings import NLNSettings
from mednovelty.plugins import names as plugin_names
from mednovelty.plugins import plugin
from mednovelty.reference import Reference
from mednovelty.schedule import TrainSettings
from mednovelty.score_names import reference_parts, resolve_names
from mednovelty.scoring import Scoring
from mednovelty.seeds import numpy_generator
from mednovelty.settings import checked, overlaid, tree_of
from mednovelty.train import train
from mednovelty.voxel_cache import VoxelCache

BATCH = 1000
GAUSSIANS = "reconstruction_sigma"
"""The part of a reference by which scores compare distributions of whole images: a pair of them costs as much
as thousands of distances, so fewer normals are compared with."""


class ImageTable(VoxelCache):
    """Training images as one tensor on the device where they are trained on; the same batches as elsewhere.

    Args:
        rows: ``(n, D)`` float32, on the processor.
        shape: ``(C, rows, columns)`` of an image.
        device: Where batches come from.
    """

    def __init__(self, rows: Tensor, shape: Sequence[int], device: torch.device) -> None:
        super().__init__(rows.shape[1], shape=tuple(shape))
        self.append("images", rows.numpy())
        self._images = torch.from_numpy(self.array()).to(device)

    @property
    def images(self) -> Tensor:
        """``(n, D)``, on the device."""
        return self._images

    def _mixed(self, batch_size: int, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for _, order in super()._mixed(batch_size, generator):
            yield self._images, order.to(self._images.device)


@dataclass(frozen=True, eq=False)
class Split:
    """Images of one cell, ``(n, D)`` float32 each.

    Attributes:
        training: Normal.
        held_out: Normal, and not trained on: they choose the epoch.
        test: All that is tested.
        novel: ``(m,)`` bool: which of these are novel.
        shape: ``(C, rows, columns)``.
    """

    training: Tensor
    held_out: Tensor
    test: Tensor
    novel: np.ndarray
    shape: tuple[int, ...]

    @classmethod
    def of(
        cls, normal: Tensor, test: Tensor, novel: np.ndarray, shape: tuple[int, ...], seed: int, most: int = 0
    ) -> Split:
        """Return a split with a twentieth of the normal images held out, at least two.

        Args:
            normal: ``(n, D)``.
            test: ``(m, D)``.
            novel: ``(m,)``.
            shape: Of an image.
            seed: Decides which images are held out, and which are left out if not all are used.
            most: Normal images used, with those held out; 0: all.
        """
        order = torch.from_numpy(numpy_generator(seed, "images").permutation(len(normal))[: most or None])
        held = max(len(order) // 20, 2)
        return cls(normal[order[held:]], normal[order[:held]], test, novel, shape)


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model and what it was trained on."""

    method: Any
    model: Any
    split: Split
    record: TrainingRecord
    seed: int
    device: torch.device

    @property
    def told(self) -> dict[str, Any]:
        """How training went, as JSON types."""
        best = self.record.rows[self.record.best_epoch].validation
        return {
            "images": len(self.split.training),
            "epochs": len(self.record.rows) - 1,
            "best_epoch": self.record.best_epoch,
            "validation": {name: float(value) for name, value in best.items()},
        }


def fixed_epochs(epochs: int, batch: int, rate: float) -> TrainSettings:
    """Return a training of a number of epochs, none left out, at one rate."""
    return TrainSettings(
        batch_size=batch,
        min_steps=1,
        learning_rate=rate,
        max_epochs=epochs,
        patience=epochs + 1,
        plateau_patience=epochs + 1,
        min_improvement=1e-6,
        gradient_clip=None,
        validation_voxels=2500,
    )


def trained(method: Any, split: Split, how: TrainSettings, *, seed: int, device: str) -> Trained:
    """Train a method on the normals of a split."""
    place = chosen(device)
    tables = (ImageTable(split.training, split.shape, place), ImageTable(split.held_out, split.shape, place))
    model = method.build(split.shape).to(place)
    record = train(method, model, *tables, how, seed=seed)
    return Trained(method, model.eval().requires_grad_(False), split, record, seed, place)


def installed_method(
    name: str, training: TrainSettings, settings: dict[str, Any]
) -> tuple[Any, TrainSettings]:
    """Return any method for images, with its own defaults, and how it is trained.

    Args:
        name: Of the plug-in.
        training: Of the protocol; what the method asks for replaces it.
        settings: Of the method, replacing its own; ``none`` is what TOML has no word for.

    Raises:
        SettingsError: A setting is unknown.
    """
    kind = plugin("methods", name)
    tree = kind.defaults(images=True) if hasattr(kind, "defaults") else {}
    base = tree_of(kind.Settings())
    own = overlaid(base, tree.get("method_settings", {}), name)
    settings = {key: None if value == "none" else value for key, value in settings.items()}
    made = checked(kind.Settings, overlaid(own, settings, f"method_settings of {name}"), name)
    asked = {key: value for key, value in tree.get("train", {}).items() if key == "max_epochs" and not value}
    return kind(made), replace(training, **asked)


def sample_scores(method: Any, asked: Sequence[str], default: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the scores of samples that a method's models can give, of those asked for.

    Args:
        method: A plug-in's class.
        asked: Names and groups; ``all``: all but those that optimise for every image, which takes hours.
        default: What ``all`` is where a protocol has scores of its own for the method.

    Raises:
        SettingsError: No score or group has that name.
    """
    offers = offered_by(method)
    found: list[str] = []
    for name in asked:
        if name == "all" and default:
            found += default
            continue
        # Of all there are: that a method can give none of a group is no mistake of the name.
        found += resolve_names(["fast" if name == "all" else name], offers=tuple(WORDS))
    kinds = {name: plugin("scorers", name) for name in dict.fromkeys(found)}
    able = [
        name
        for name, kind in kinds.items()
        if set(asked_by(kind)) <= set(offers) and "is_b0" not in kind.needs and kind.level == "sample"
    ]
    return tuple(able)


def scores_among(asked: Sequence[str], known: Sequence[str], who: str) -> tuple[str, ...]:
    """Return the scores of those asked for that a method of a protocol has.

    Args:
        asked: Names; ``all``.
        known: Those that it has, or, so that others are no mistakes, that any method here has.
        who: Whose, for the message.

    Raises:
        UnknownPluginError: Neither the method nor the library has such a score.
    """
    for name in asked:
        if name not in (*known, "all") and name not in plugin_names("scorers"):
            raise UnknownPluginError(f"no score of {who} is called {name!r}; known: all, {', '.join(known)}")
    return tuple(known) if "all" in asked else tuple(name for name in known if name in asked)


def scores_of(
    trained: Trained,
    names: Sequence[str],
    *,
    draws: int = 16,
    compared: int = 0,
    nln: NLNSettings | None = None,
    test: Tensor | None = None,
) -> dict[str, np.ndarray]:
    """Return ``(m,)`` scores by name; higher is more novel.

    Args:
        trained: A model.
        names: Scores of samples.
        test: ``(m, D)`` images; None: those that the split has to test on.
        draws: Of stochastic scores.
        compared: With so many normals scores compare that compare distributions of whole images; 0: all.
        nln: Of scores by nearest latent neighbours.
    """
    few = [name for name in names if GAUSSIANS in plugin("scorers", name).reference_parts]
    found: dict[str, np.ndarray] = {}
    rows = trained.split.test if test is None else test
    for group, most in (([name for name in names if name not in few], 0), (few, compared)):
        if group:
            scoring = scoring_of(trained, group, draws=draws, most=most, nln=nln or NLNSettings())
            predict = scoring.predictor(group)
            parts = [predict(x) for x in rows.split(BATCH)]
            found |= {name: torch.cat([part[name].cpu() for part in parts]).numpy() for name in group}
    return {name: found[name] for name in names}


def scoring_of(trained: Trained, names: Sequence[str], *, draws: int, most: int, nln: NLNSettings) -> Scoring:
    """Return what computes scores of a trained model, in comparison with its own training images.

    Args:
        trained: A model.
        names: Scores.
        draws: Of stochastic scores.
        most: Training images that are compared with, drawn at random; 0: all.
        nln: Of scores by nearest latent neighbours.
    """
    normals = trained.split.training
    if most and most < len(normals):
        drawn = numpy_generator(trained.seed, "compared").permutation(len(normals))[:most]
        normals = normals[torch.from_numpy(np.sort(drawn))]
    parts = reference_parts(names)
    reference = Reference({}, "exact", 0)
    if parts:
        rows = normals.to(trained.device)
        reference = Reference.of(trained.model, rows, parts, drawn_from=len(trained.split.training))
    scoring = Scoring(trained.model, reference, draws, trained.seed, BATCH, nln=nln)
    terms = [name for name in names if hasattr(plugin("scorers", name), "terms")]
    if not terms:
        return scoring
    held_out = trained.split.held_out.to(trained.device).split(BATCH)
    constants = measured_constants(scoring.scorers(terms), Batch, held_out, [nln.k])[nln.k]
    return replace(scoring, constants=constants)


def measured(scores: dict[str, np.ndarray], novel: np.ndarray) -> tuple[Measured, ...]:
    """Return the AUROC of each score."""
    return tuple(Measured(name, auroc(Ranking.of(values, novel, name))) for name, values in scores.items())


__all__ = [
    "ImageTable",
    "Split",
    "Trained",
    "fixed_epochs",
    "installed_method",
    "measured",
    "sample_scores",
    "scores_among",
    "scores_of",
    "scoring_of",
    "trained",
]
