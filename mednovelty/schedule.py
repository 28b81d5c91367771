"""When to lower the learning rate and when to stop: functions of the validation losses so far.

There is no scheduler with a state of its own, so there is none to save, and a resumed run cannot
decide differently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mednovelty.errors import SettingsError

SMALLEST_BATCH = 256
"""Below this the noise of a step outweighs its worth; only ``batch_size`` itself goes lower."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train, whatever is trained.

    Args:
        batch_size: Largest number of voxels a step.
        min_steps: Small cohorts take smaller batches, so that an epoch has about as many steps.
        learning_rate: Adam's, at the start.
        max_epochs: Stop after as many; 0: the start is all there is.
        epoch_voxels: An epoch is one pass over the training voxels, or this many of them if fewer.
        patience: Stop after as many epochs without a better validation loss.
        plateau_patience: Lower the learning rate after as many.
        plateau_factor: By this factor.
        min_learning_rate: But not below this.
        min_improvement: What counts as better, in the loss's unit (nats a voxel).
        gradient_clip: Largest norm of the gradient; ``None``: any. On diffusion scans it cuts one step in
            thousands: without it a single broken voxel would stay in Adam's variance for as many steps.
        validation_voxels: At most as many, evenly over the validation scans.
        checkpoint_every: Epochs between two checkpoints.
        average: Between 0 and 1: validated, chosen and kept is a moving average of the weights over steps;
            0.99 remembers about 100 of them. ``None``: the weights themselves.
    """

    batch_size: int = 32768
    min_steps: int = 200
    learning_rate: float = 1e-3
    max_epochs: int = 60
    epoch_voxels: int = 4_000_000
    patience: int = 8
    plateau_patience: int = 3
    plateau_factor: float = 0.5
    min_learning_rate: float = 1e-5
    min_improvement: float = 0.01
    gradient_clip: float | None = 500.0
    validation_voxels: int = 65536
    checkpoint_every: int = 1
    average: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not value > 0 and (name, value) != ("max_epochs", 0):
                raise SettingsError(f"{name}={value!r}: must be positive")
        if not self.plateau_factor < 1:
            raise SettingsError(f"plateau_factor={self.plateau_factor}: must be less than 1")
        if self.average is not None and not self.average < 1:
            raise SettingsError(f"average={self.average}: must be between 0 and 1, or none for no average")

    def batch_for(self, voxels: int) -> int:
        """Return the largest batch for as many training voxels an epoch."""
        return min(self.batch_size, max(SMALLEST_BATCH, voxels // self.min_steps))


def exhausted(losses: Sequence[float], settings: TrainSettings) -> bool:
    """Return whether training ends here.

    Args:
        losses: Validation losses; the first is from before the first epoch.
        settings: ``max_epochs``, ``patience`` and ``min_improvement`` are used.
    """
    best, since = math.inf, 0
    for loss in losses:
        best, since = _step(best, since, loss, settings.min_improvement)
    return since >= settings.patience or len(losses) > settings.max_epochs


def learning_rate(losses: Sequence[float], settings: TrainSettings) -> float:
    """Return the rate of the next epoch: lowered after each plateau in the losses so far."""
    rate, best, since = settings.learning_rate, math.inf, 0
    for loss in losses:
        best, since = _step(best, since, loss, settings.min_improvement)
        if since >= settings.plateau_patience:
            rate, since = max(rate * settings.plateau_factor, settings.min_learning_rate), 0
    return rate


def _step(best: float, since: int, loss: float, min_improvement: float) -> tuple[float, int]:
    """Return the best loss and the number of losses since then, with one more loss."""
    return (loss, 0) if loss <= best - min_improvement else (best, since + 1)


__all__ = ["TrainSettings", "exhausted", "learning_rate"]
