"""Several settings of one method are tried; held-out healthy scans decide, labels never.

The paper chose network and score by the AUC on its test scans. Here the network with the lowest validation
loss, for a VAE the highest ELBO, is kept, and what the others reached is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mednovelty.curve import TrainingRecord
from mednovelty.initial_weights import InitialWeights
from mednovelty.train import CHECKPOINT_NAME, TrainSettings, train
from mednovelty.voxel_cache import VoxelCache

log = logging.getLogger("mednovelty")


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model: its method, weights frozen, and its training curve."""

    method: Any
    model: Any
    record: TrainingRecord


@dataclass(frozen=True)
class Training:
    """What all candidates are trained on, and how.

    Attributes:
        training: ``(n, C)`` normalised voxels.
        validation: The same of other scans.
        settings: Of the loop.
        seed: The same for all.
        folder: Where checkpoints lie; None: none are written.
        resume: Go on from them.
        on_epoch: Told each record as it grows.
        device: Where to train.
        init: What all start from; None: from nothing learnt.
    """

    training: VoxelCache
    validation: VoxelCache
    settings: TrainSettings
    seed: int
    folder: Path | None = None
    resume: bool = False
    on_epoch: Callable[[Any], Any] | None = None
    device: str | torch.device = "cpu"
    init: InitialWeights | None = None


def train_best(methods: list[Any], how: Training) -> tuple[Trained, dict[str, Any]]:
    """Train each method and return the best, and what to tell of the choice, as JSON types.

    Args:
        methods: One or more, ready to build.
        how: On what, and how.

    Returns:
        The one with the lowest validation loss, the first of equals; and, where there are several,
        ``candidates``: settings, loss and epochs of each, and ``choice``: the same in words.

    Raises:
        SettingsError: A loss is not finite, or a checkpoint is of another run.
        StoppedError: Ctrl-C or SIGTERM; checkpoints are kept.
    """
    trained = []
    for number, method in enumerate(methods):
        if len(methods) > 1:
            log.info("network %d of %d: %s", number + 1, len(methods), _told(method, methods))
        trained.append(_train(method, how, checkpoint_folder(how.folder, number, len(methods))))
    best = min(trained, key=lambda one: one.record.best.validation["loss"])
    if len(methods) == 1:
        return best, {}
    rows = [
        {
            "settings": asdict(one.method.settings),
            "validation_loss": one.record.best.validation["loss"],
            "epochs": len(one.record.rows) - 1,
            "kept": one is best,
        }
        for one in trained
    ]
    return best, {"candidates": rows, "choice": _in_words(trained, best, methods)}


def checkpoint_folder(folder: Path | None, number: int, count: int) -> Path | None:
    """Return where the checkpoint of one of several candidates lies; a single one has the folder itself."""
    return folder if folder is None or count == 1 else folder / "candidates" / str(number + 1)


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints that a fit has left in its folder."""
    return sorted([*folder.glob(CHECKPOINT_NAME), *folder.glob(f"candidates/*/{CHECKPOINT_NAME}")])


def remove_checkpoints(folder: Path) -> None:
    """Remove them, and the folders that held nothing else."""
    for path in checkpoints(folder):
        path.unlink(missing_ok=True)
    for empty in _empty_folders(folder):
        empty.rmdir()


def _empty_folders(folder: Path) -> Iterator[Path]:
    for path in [*folder.glob("candidates/*"), folder / "candidates"]:
        if path.is_dir() and not any(path.iterdir()):
            yield path


def _train(method: Any, how: Training, folder: Path | None) -> Trained:
    model = method.build(how.training.shape).to(how.device)
    # A candidate that a stop has kept waiting has no checkpoint yet, and starts.
    record = train(
        method,
        model,
        how.training,
        how.validation,
        how.settings,
        seed=how.seed,
        folder=folder,
        resume=how.resume,
        init=how.init,
        on_epoch=how.on_epoch,
    )
    model.eval().requires_grad_(False)
    return Trained(method, model, record)


def _told(method: Any, methods: list[Any]) -> str:
    """Return those settings of a method in which the candidates differ."""
    trees = [asdict(other.settings) for other in methods]
    own = asdict(method.settings)
    return ", ".join(f"{key}={own[key]}" for key in own if any(tree[key] != own[key] for tree in trees))


def _in_words(trained: list[Trained], best: Trained, methods: list[Any]) -> str:
    losses = "; ".join(
        f"{_told(one.method, methods)}: {one.record.best.validation['loss']:.3f}" for one in trained
    )
    unit = ", in nats a voxel," if "elbo" in best.record.best.validation else ""
    return (
        f"kept {_told(best.method, methods)}: the lowest validation loss{unit} of {len(trained)} "
        f"networks ({losses}); no label was looked at"
    )


__all__ = ["Trained", "Training", "checkpoint_folder", "checkpoints", "remove_checkpoints", "train_best"]
