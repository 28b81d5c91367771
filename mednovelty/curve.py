"""What happened in a training, epoch by epoch: as rows, as CSV, as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mednovelty.io.atomic import write_bytes_atomic

TIMES = ("seconds", "voxels_per_second")
"""The fields of an epoch that tell of the machine and the hour, not of the model."""


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One epoch.

    Args:
        epoch: From 1; 0 is the state before the first step.
        train_loss: Mean over the epoch's voxels, while the weights moved; ``None`` in epoch 0.
        learning_rate: Adam's.
        seconds: Of the steps, without validation; ``None`` where nobody knows any more.
        voxels_per_second: In the steps; ``None`` likewise.
        validation: The method's means over the validation voxels; ``loss`` decides.
        judged: Whether it can decide: not where anomalies are trained on and held-out samples have none.
    """

    epoch: int
    train_loss: float | None
    learning_rate: float
    seconds: float | None = None
    voxels_per_second: float | None = None
    validation: Mapping[str, float] = field(default_factory=dict)
    judged: bool = True

    def flat(self) -> dict[str, float | None]:
        """Return one level of names; the validation's ``loss`` is ``validation_loss``."""
        scores = {
            "validation_loss" if name == "loss" else name: value for name, value in self.validation.items()
        }
        own = {name: getattr(self, name) for name in ("epoch", "train_loss")}
        rest = {name: getattr(self, name) for name in ("learning_rate", "seconds", "voxels_per_second")}
        return own | scores | rest


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """The rows of one training run, epoch 0 first."""

    rows: tuple[EpochRow, ...] = ()

    @property
    def losses(self) -> list[float]:
        """Return the validation losses, epoch 0 first."""
        return [row.validation["loss"] for row in self.rows]

    @property
    def best_epoch(self) -> int:
        """Return the epoch with the lowest validation loss, the first of equals; or the last, unjudged."""
        if self.rows and not self.rows[-1].judged:
            return len(self.rows) - 1
        return self.losses.index(min(self.losses))

    @property
    def best(self) -> EpochRow:
        """Return the row of the best epoch: the model's weights are from there."""
        return self.rows[self.best_epoch]

    @property
    def seconds(self) -> float | None:
        """Return the time spent in steps; ``None`` where it is not known of every epoch."""
        known = [row.seconds for row in self.rows if row.seconds is not None]
        return sum(known) if len(known) == len(self.rows) else None

    def as_json(self, *, times: bool = True) -> list[dict[str, Any]]:
        """Return JSON types; ``from_json`` makes the record again.

        Args:
            times: Whether to tell how long each epoch took, in which no two runs agree.
        """
        left_out = () if times else TIMES
        return [
            {
                name: value
                for name, value in asdict(row).items()
                if name not in left_out and not (name == "judged" and value)
            }
            for row in self.rows
        ]

    @classmethod
    def from_json(cls, rows: list[dict[str, Any]]) -> TrainingRecord:
        """Return the record that ``as_json`` was called on; times that were left out are ``None``."""
        return cls(tuple(EpochRow(**row) for row in rows))


def write_curve_csv(record: TrainingRecord, path: Path) -> None:
    """Write one line an epoch, atomically.

    Raises:
        OutputError: The file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(record.rows[0].flat()), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.flat() for row in record.rows)
    write_bytes_atomic(path, text.getvalue().encode())


def plot_curve(
    record: TrainingRecord, path: Path, *, level: float | None = None, level_name: str = ""
) -> None:
    """Draw training and validation loss over epochs as a PNG.

    Args:
        record: At least one row.
        path: Where the picture goes.
        level: A loss to compare with, drawn as a horizontal line.
        level_name: What it is, for the legend.

    Raises:
        OutputError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    unit = "loss (nats per voxel)" if "elbo" in record.rows[0].validation else "loss"
    axes = figure.add_subplot(xlabel="epoch", ylabel=unit)
    trained = [(row.epoch, row.train_loss) for row in record.rows if row.train_loss is not None]
    if trained:
        axes.plot(*zip(*trained, strict=True), label="training")
    axes.plot(range(len(record.rows)), record.losses, label="validation")
    axes.plot(
        record.best_epoch, record.losses[record.best_epoch], "ko", label=f"best, epoch {record.best_epoch}"
    )
    if level is not None:
        axes.axhline(level, color="gray", linestyle="--", label=level_name)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120)
    write_bytes_atomic(path, picture.getvalue())


__all__ = ["EpochRow", "TrainingRecord", "plot_curve", "write_curve_csv"]
