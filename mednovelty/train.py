"""The training loop. It knows no method: a method gives the loss, the loop does the rest.

Adam, the learning rate lowered on plateaus of the validation loss, early stopping and best weights
by the same loss, a checkpoint an epoch. An epoch's random numbers come from (seed, epoch) alone and
every decision follows from the losses recorded so far, so that a run that was stopped and resumed
ends with the bits of one that was not. Where weights are averaged over steps, the average is validated,
chosen and kept.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from mednovelty.averaging import WeightAverage
from mednovelty.checkpoint import read_checkpoint, write_checkpoint
from mednovelty.curve import EpochRow, TrainingRecord
from mednovelty.errors import SettingsError, StoppedError
from mednovelty.initial_weights import InitialWeights
from mednovelty.reference import device_of
from mednovelty.schedule import TrainSettings, exhausted, learning_rate
from mednovelty.seeds import generator, numpy_generator
from mednovelty.voxel_cache import VoxelCache

CHECKPOINT_NAME = "checkpoint.safetensors"
_MAY_DIFFER = ("max_epochs", "checkpoint_every")


def train(  # noqa: PLR0913 - what is trained, on what, and how; the rest is by keyword
    method: Any,
    model: nn.Module,
    data: VoxelCache,
    validation: VoxelCache,
    settings: TrainSettings | None = None,
    *,
    seed: int = 0,
    folder: Path | None = None,
    resume: bool = False,
    init: InitialWeights | None = None,
    on_epoch: Callable[[TrainingRecord], None] | None = None,
) -> TrainingRecord:
    """Train a model in place; it ends with the weights of its best epoch, in evaluation mode.

    Where a method says that held-out samples cannot choose (``can_choose``), all epochs are trained, at one
    learning rate, and the last is kept.

    Args:
        method: A ``protocols.Method``: ``start``, ``loss`` and ``validate`` are called; of a model without
            weights, which is fitted at once, ``loss`` is not.
        model: From ``method.build``, on the device to train on.
        data: Training voxels.
        validation: Voxels of other scans.
        settings: Of the loop.
        seed: Of everything random.
        folder: Where checkpoints go; ``None``: nowhere.
        resume: Go on from the checkpoint in ``folder`` if there is one.
        init: What the model has learnt elsewhere: it replaces what ``start`` has set, but for what the method
            names in ``keeps_own``.
        on_epoch: Called after each epoch, and once before the first, with the record so far.

    Returns:
        A row for each epoch; row 0 is the start, before any step.

    Raises:
        SettingsError: The checkpoint is of another run, or the loss is not finite.
        DetectorError: The checkpoint is damaged.
        StoppedError: Ctrl-C or SIGTERM; the last checkpoint is kept.
        OutputError: A checkpoint cannot be written.
    """
    report = on_epoch or (lambda record: None)
    loop = _Loop(method, model, data, validation, settings or TrainSettings(), seed, folder, init)
    try:
        with _terminate_as_interrupt():
            loop.begin(resume)
            report(loop.record)
            while not loop.done:
                loop.epoch()
                report(loop.record)
    except KeyboardInterrupt as error:
        raise StoppedError(loop.stopped_message()) from error
    except StoppedError as error:
        # A caller that turns signals into errors of its own keeps its error, and thereby its exit code.
        raise type(error)(loop.stopped_message()) from error
    model.load_state_dict(loop.best)
    model.eval()
    return loop.record


class _Loop:
    """One training run between its start and its end."""

    def __init__(  # noqa: PLR0913 - what train() was called with
        self,
        method: Any,
        model: nn.Module,
        data: VoxelCache,
        validation: VoxelCache,
        settings: TrainSettings,
        seed: int,
        folder: Path | None,
        init: InitialWeights | None,
    ) -> None:
        self.method, self.model, self.data, self.settings, self.seed = method, model, data, settings, seed
        self.path = folder / CHECKPOINT_NAME if folder is not None else None
        self.device = device_of(model)
        rows = validation.sample_rows(settings.validation_voxels, numpy_generator(seed, "validation voxels"))
        self.held_out = torch.from_numpy(validation.take(rows))
        # Normals alone cannot choose where anomalies are learnt: a network that finds none is best there.
        chooses = getattr(method, "can_choose", None)
        self.judged = chooses is None or bool(chooses(model, data, validation))
        self.optimiser = _adam(method, model, settings)
        self.init = init
        self.average: WeightAverage | None = None
        self.record = TrainingRecord()
        self.best: dict[str, Tensor] = {}
        self.saved_epoch: int | None = None
        self.identity = {
            "seed": seed,
            "method": type(method).__name__,
            "method_settings": asdict(method.settings),
            "settings": asdict(settings),
            "data": data.fingerprint(),
            "validation": validation.fingerprint(),
            "init": None if init is None else init.sha256,
        }

    @property
    def done(self) -> bool:
        """Whether the losses recorded so far end the run, or there are no weights to move."""
        if next(self.model.parameters(), None) is None:
            return True
        if not self.judged:
            return len(self.record.losses) > self.settings.max_epochs
        return exhausted(self.record.losses, self.settings)

    def begin(self, resume: bool) -> None:
        """Take up the checkpoint, or start anew and measure where training starts."""
        if resume and self.path is not None and self.path.exists():
            self._load(self.path)
            return
        self.method.start(self.model, self.data, generator(self.seed, "start"))
        if self.init is not None:
            self.init.put_into(self.model, getattr(self.method, "keeps_own", ()))
        started = time.perf_counter()
        scores = self._validate()
        self._add(EpochRow(0, None, self.settings.learning_rate, time.perf_counter() - started, 0.0, scores))
        if self.settings.average is not None:  # What validation has set at the start is part of it.
            self.average = WeightAverage(self.model.state_dict(), self.settings.average)

    def epoch(self) -> None:
        """Train for one epoch, validate, record, keep a checkpoint when one is due."""
        number, started = len(self.record.rows), time.perf_counter()
        # A plateau of losses that cannot judge is none.
        rate = learning_rate(self.record.losses if self.judged else [], self.settings)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        loss, count = self._steps(number)
        seconds = time.perf_counter() - started
        self._add(EpochRow(number, loss / count, rate, seconds, count / seconds, self._validate()))
        if self.path is not None and (number % self.settings.checkpoint_every == 0 or self.done):
            self._save(self.path)

    def stopped_message(self) -> str:
        """Return what to tell who stopped the run."""
        message = f"training stopped after {max(len(self.record.rows) - 1, 0)} epochs"
        if self.path is None:
            return message + "; no folder was given, so nothing is kept"
        if self.saved_epoch is None:
            return message + f"; {self.path} was not written yet"
        return message + f"; {self.path} keeps epoch {self.saved_epoch}, and resuming goes on from it"

    def _steps(self, number: int) -> tuple[float, int]:
        """Take the steps of one epoch; return the summed loss and the number of voxels."""
        settings, total, count = self.settings, 0.0, 0
        noise = self._noise("training noise", number)
        order = generator(self.seed, "order", number)
        self.model.train()
        voxels = min(len(self.data), settings.epoch_voxels)
        for x in self.data.batches(settings.batch_for(voxels), order, limit=voxels):
            loss = self.method.loss(self.model, x.to(self.device), number, noise)["loss"]
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if settings.gradient_clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_clip)
            self.optimiser.step()
            if self.average is not None:
                self.average.add(self.model)
            total, count = total + loss.item() * len(x), count + len(x)
            if not math.isfinite(total):
                raise SettingsError(_diverged(number, loss.item(), x, self.optimiser.param_groups[0]["lr"]))
        return total, count

    def _validate(self) -> dict[str, float]:
        self.model.eval()
        # The same noise every epoch: what changes between two epochs is the model.
        noise = self._noise("validation noise")
        batches = (x.to(self.device) for x in self.held_out.split(self.settings.batch_size))
        with nullcontext() if self.average is None else self.average.within(self.model):
            found = self.method.validate(self.model, batches, noise)
        scores = {name: float(value) for name, value in found.items()}
        if not math.isfinite(scores["loss"]):
            raise SettingsError(
                f"validation loss is {scores['loss']} after {len(self.record.rows)} epochs; lower "
                f"the learning rate or look for extreme voxels (largest |x|: {self.held_out.abs().max():.4g})"
            )
        return scores

    def _noise(self, *purpose: str | int) -> Generator:
        return generator(self.seed, *purpose, device=self.device)

    def _add(self, row: EpochRow) -> None:
        row = replace(row, judged=self.judged)
        self.record = replace(self.record, rows=(*self.record.rows, row))
        if self.record.best_epoch == row.epoch:
            kept = self.model.state_dict() if self.average is None else self.average.tensors
            self.best = {name: value.detach().clone() for name, value in kept.items()}

    def _save(self, path: Path) -> None:
        tensors = {f"weights/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.average.tensors.items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam/{index}/{name}": value for name, value in values.items()}
        write_checkpoint(path, tensors, {"identity": self.identity, "record": self.record.as_json()})
        self.saved_epoch = len(self.record.rows) - 1

    def _load(self, path: Path) -> None:
        tensors, state = read_checkpoint(path)
        _check_identity(path, state["identity"], self.identity)
        self.record = TrainingRecord.from_json(state["record"])
        self.saved_epoch = len(self.record.rows) - 1
        self.model.load_state_dict(_part(tensors, "weights"))
        self.best = {name: value.to(self.device) for name, value in _part(tensors, "best").items()}
        if self.settings.average is not None:
            kept = {name: value.to(self.device) for name, value in _part(tensors, "average").items()}
            self.average = WeightAverage(kept, self.settings.average)
        adam: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "adam").items():
            index, key = name.split("/")
            adam.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": adam})


def _adam(method: Any, model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if hasattr(method, "parameter_groups"):
        groups = method.parameter_groups(model)
    groups = [{"rate": 1.0, **group} for group in groups]
    return torch.optim.Adam(groups, lr=settings.learning_rate, fused=True)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(prefix + "/")}


def _check_identity(path: Path, saved: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise if the checkpoint is of another run."""
    differences = [
        f"{name}: {was!r} there, {now!r} here"
        for name, was, now in _differences(saved, asked)
        if name.rpartition(".")[2] not in _MAY_DIFFER
    ]
    if differences:
        raise SettingsError(
            f"{path}: the checkpoint is of another run ({'; '.join(differences[:4])}); resume with the same "
            "settings and scans, or train into another folder"
        )


def _differences(saved: Any, asked: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(saved, dict) and isinstance(asked, dict):
        for key in {**asked, **saved}:
            yield from _differences(saved.get(key), asked.get(key), f"{name}.{key}" if name else key)
    elif saved != (list(asked) if isinstance(asked, tuple) else asked):
        yield name, saved, asked


def _diverged(epoch: int, loss: float, x: Tensor, rate: float) -> str:
    return (
        f"training loss became {loss} in epoch {epoch} at learning rate {rate:g}; lower the learning rate, "
        f"or look for extreme training voxels (largest |x| in that batch: {x.abs().max():.4g})"
    )


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the loop as Ctrl-C does, where signals can be caught and nobody catches it yet."""
    on_main_thread = threading.current_thread() is threading.main_thread()
    if not on_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


__all__ = ["CHECKPOINT_NAME", "EpochRow", "TrainSettings", "TrainingRecord", "train"]
