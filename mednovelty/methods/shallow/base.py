"""What all shallow methods share: which samples they are fitted on, and how they tell what came of it.

A method has no weights that steps could move: ``start`` fits it, training takes no step, and the loss is the
mean score of held-out samples. What scikit-learn has fitted is copied into tensors of sizes that settings and
shape alone decide; where it found less, as fewer support vectors than samples, the rest is zeros of no
effect. Scores are computed from those tensors by torch, and equal scikit-learn's with the sign that makes
higher more novel.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np
import torch
from torch import Generator, Tensor, nn

from mednovelty.errors import SettingsError
from mednovelty.methods.shallow.preparing import Preparation, register_count, told_in_words
from mednovelty.methods.shallow.settings import ReducedSettings, ShallowSettings, defaults
from mednovelty.types import Samples, SampleScores

NUMBERS_A_CHUNK = 1 << 23
ASSESSED = 4096
"""Training and held-out samples, at most, whose mean scores are told."""
SEEDS = 2**31 - 1


class ShallowModel(nn.Module, ABC):
    """A model that scores samples and does nothing else.

    Args:
        shape: ``(C,)`` of a voxel, ``(C, *space)`` of an image.
        settings: Of the method.

    Attributes:
        shape: As given.
        channels: D, values a sample has.
        latents: 0.
        fitted_on: How many samples it was fitted on.
    """

    fitted_on: Tensor
    latents = 0

    def __init__(self, shape: Sequence[int], settings: Any) -> None:
        super().__init__()
        self.shape, self.channels, self.settings = tuple(shape), math.prod(shape), settings
        self.preparation = self.prepared_by(settings)
        register_count(self, "fitted_on", settings.samples)
        self.reserve(settings.width_for(self.channels) if self.reduces else self.channels)

    @property
    def reduces(self) -> bool:
        """Whether it sees principal components."""
        return isinstance(self.settings, ReducedSettings) and self.settings.reduce is not None

    @property
    def like(self) -> Tensor:
        """A tensor with the device and the precision of the model."""
        return next(buffer for buffer in self.buffers() if buffer.is_floating_point())

    def prepared_by(self, settings: Any) -> Preparation:
        """Return what prepares samples."""
        room = settings.width_for(self.channels) if self.reduces else None
        return Preparation(self.channels, standardise=settings.standardise, room=room)

    @abstractmethod
    def reserve(self, width: int) -> None:
        """Register buffers for samples of at most so many numbers."""

    @abstractmethod
    def estimator(self, rows: np.ndarray, seed: int) -> Any:
        """Return scikit-learn's estimator, fitted on ``(n, W)`` float64 rows."""

    @abstractmethod
    def take(self, fitted: Any, rows: np.ndarray) -> None:
        """Copy what was fitted on ``(n, W)`` rows into the buffers."""

    @abstractmethod
    def of(self, z: Tensor) -> SampleScores:
        """Return ``(B,)`` scores of ``(B, W)`` prepared samples."""

    def facts(self) -> dict[str, Any]:
        """Return what was found, as JSON types."""
        return {}

    @abstractmethod
    def words(self) -> str:
        """Return what was fitted, in words, for the verdict."""

    def numbers_a_sample(self) -> int:
        """Return about how many numbers the score of one sample takes."""
        return max(self.preparation.width, 1)

    def novelty(self, x: Samples) -> SampleScores:
        """Return ``(B,)`` scores of ``(B, D)`` samples, higher is more novel."""
        rows = max(1, NUMBERS_A_CHUNK // self.numbers_a_sample())
        return torch.cat([self.of(self.preparation(part)) for part in x.split(rows)])


class ShallowMethod:
    """What a ``protocols.Method`` promises, for models that are fitted at once.

    Args:
        settings: ``None``: the defaults.
    """

    Settings: ClassVar[type] = ShallowSettings
    Model: ClassVar[type[ShallowModel]]
    offers: ClassVar[tuple[str, ...]] = ("novelty",)
    lacks: ClassVar[tuple[str, ...]] = ("encode", "decode")
    name: ClassVar[str] = ""
    fewest: ClassVar[int] = 2

    def __init__(self, settings: Any = None) -> None:
        self.settings = settings or self.Settings()

    @classmethod
    def defaults(cls, *, images: bool) -> dict[str, Any]:
        """Return settings of fitting, as a tree, where they are not everybody's."""
        return defaults(cls.Settings, ["outlier_score"], images=images)

    def build(self, shape: Sequence[int]) -> Any:
        """Return the model for samples of a shape; ``start`` or a file fills it."""
        return self.Model(shape, self.settings)

    def start(self, model: ShallowModel, normals: Any, generator: Generator) -> None:
        """Fit the model.

        Args:
            model: From ``build``.
            normals: The training samples, a ``VoxelCache``.
            generator: On the CPU.

        Raises:
            SettingsError: Too few samples, or none that can be fitted to.
        """
        random, seed = _randomness(generator)
        rows = _rows(normals, self.settings.samples, random, model.channels)
        if len(rows) < self.fewest:
            raise SettingsError(f"{self.name}: {len(rows)} training samples are too few; give {self.fewest}")
        share = self.settings.reduce if model.reduces else getattr(self.settings, "variance", None)
        model.preparation.fit(normals, rows, share, seed)
        prepared = model.preparation(rows.to(model.like)).cpu().double().numpy()
        with told_in_words(self.name):
            fitted = model.estimator(prepared, seed)
        model.take(fitted, prepared)
        model.fitted_on.fill_(len(rows))

    def loss(self, model: Any, x: Samples, epoch: int, generator: Generator) -> NoReturn:
        """Refuse: there are no weights to move.

        Raises:
            SettingsError: Always.
        """
        raise SettingsError(f"{self.name}: is fitted at once and takes no step of training")

    @torch.no_grad()
    def validate(self, model: Any, batches: Iterable[Samples], generator: Generator) -> Mapping[str, float]:
        """Return the mean score over all samples, as ``loss``."""
        total, count = 0.0, 0
        for x in batches:
            total += model.novelty(x[:, : model.channels]).cpu().double().sum().item()
            count += len(x)
        return {"loss": total / count}

    @torch.no_grad()
    def assess(self, model: Any, training: Any, validation: Any, generator: Generator) -> dict[str, Any]:
        """Return what was fitted, on how many samples, and mean scores, as JSON types.

        Args:
            model: Fitted.
            training: The ``VoxelCache`` it was fitted on.
            validation: One of other scans.
            generator: Draws the samples that are scored.
        """
        random, _ = _randomness(generator)
        seen, held_out = (
            model.novelty(_rows(cache, ASSESSED, random, model.channels).to(model.like))
            for cache in (training, validation)
        )
        scores = torch.cat([seen, held_out]).cpu().double()
        finite = bool(torch.isfinite(scores).all())
        collapsed = not finite or bool(scores.max() <= scores.min())
        said = f"{model.words()}, fitted on {int(model.fitted_on):,} of {len(training):,} training samples"
        if int(model.fitted_on) < len(training):
            said += ", evenly over scans"
        told = {
            "fitted_on": int(model.fitted_on),
            "training_samples": len(training),
            **model.facts(),
        }
        if not finite:
            return _verdict(f"{said}: some scores are not finite; look for extreme values", collapsed, told)
        told |= {
            "training_score": seen.cpu().double().mean().item(),
            "held_out_score": held_out.cpu().double().mean().item(),
        }
        said += f"; mean score {told['held_out_score']:.4g} on held-out samples, "
        said += f"{told['training_score']:.4g} on training samples"
        if collapsed:
            said += ": all scores are the same; fit on samples that differ, or change method_settings"
        return _verdict(said, collapsed, told)


def _verdict(said: str, collapsed: bool, told: Mapping[str, Any]) -> dict[str, Any]:
    return {"verdict": said, "collapsed": collapsed, **told}


def _randomness(generator: Generator) -> tuple[np.random.Generator, int]:
    """Return NumPy's generator, and a seed for scikit-learn, from torch's."""
    first, second = torch.randint(SEEDS, (2,), generator=generator).tolist()
    return np.random.default_rng(first), second


def _rows(cache: Any, count: int, random: np.random.Generator, values: int) -> Tensor:
    """Return ``(n, D)`` rows of a ``VoxelCache``, evenly over scans, without classes."""
    return torch.from_numpy(np.ascontiguousarray(cache.take(cache.sample_rows(count, random))[:, :values]))


__all__ = ["ShallowMethod", "ShallowModel"]
