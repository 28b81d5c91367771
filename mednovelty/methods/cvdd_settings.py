"""Settings of context vector data description (Ruff 2021, section 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from mednovelty.errors import SettingsError
from mednovelty.methods.vae_settings import VAESettings

MOST_CONTEXTS, MOST_UNITS, MOST_FOLDS, MOST_BAGS = 64, 4096, 64, 4096


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """Contexts, attention and their training.

    Args:
        contexts: r, heads of attention and context vectors.
        attention: d_a, width of the attention's inner layer.
        penalty: Weight of the penalty on contexts that are not orthonormal; the thesis has 1 and 10.
        penalty_is: ``sum``, the squared Frobenius norm of Eq. (3.8); ``mean`` of its entries, as released.
        annealing: How alpha rises over the fifths of the training: ``logarithmic``, 0 and then 1e-4 to 1e-1;
            ``soft``, 0; ``hard``, 0 and then 100.
        start: Centroids that contexts start at, by k-means++: of ``bags``, the mean vectors of bags, as in
            the thesis; of ``members``, where bags are few or their means alike. With fewer bags than
            contexts it is ``members`` anyway.
        epochs: Steps through all bags; the learning rate falls to a tenth after two fifths of them.
        learning_rate: Of Adam.
        batch: Bags a step.
        weight_decay: Of all weights.
        clip: Largest norm of a step's gradient; released, not in the thesis.
        folds: Contexts are learnt once more without each of this many parts of the bags, so that normals
            are judged by contexts that never saw them; with fewer bags, without each bag.
    """

    contexts: int = 3
    attention: int = 150
    penalty: float = 1.0
    penalty_is: Literal["sum", "mean"] = "sum"
    annealing: Literal["logarithmic", "soft", "hard"] = "logarithmic"
    start: Literal["bags", "members"] = "bags"
    epochs: int = 100
    learning_rate: float = 1e-2
    batch: int = 64
    weight_decay: float = 5e-7
    clip: float = 0.5
    folds: int = 10

    def __post_init__(self) -> None:
        limits = {"contexts": MOST_CONTEXTS, "attention": MOST_UNITS, "epochs": 100_000, "batch": 1 << 20}
        for name, most in limits.items():
            if not 1 <= getattr(self, name) <= most:
                raise SettingsError(f"{name} must lie between 1 and {most}, got {getattr(self, name)}")
        if not 2 <= self.folds <= MOST_FOLDS:
            raise SettingsError(f"folds must lie between 2 and {MOST_FOLDS}, got {self.folds}")
        for name in ("penalty", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name} must be 0 or a finite number above, got {getattr(self, name)}")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"{name} must be a finite number above 0, got {getattr(self, name)}")
        choices = {"penalty_is": ("sum", "mean"), "annealing": ("logarithmic", "soft", "hard")}
        for name, known in (choices | {"start": ("bags", "members")}).items():
            if getattr(self, name) not in known:
                raise SettingsError(f"{name}={getattr(self, name)!r}: one of {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class CVDDSettings:
    """Of ``fit --method cvdd``: the network that gives voxels their latents, and the contexts over them.

    Args:
        latents: The VAE of voxels; the bag of a scan is its posterior means.
        contexts: See ``ContextSettings``; of scans, whose mean latents are all alike, they start at
            centroids of voxels.
        bag: Voxels of each scan that contexts are learnt from, drawn with the seed; all are judged.
        scans: Contexts are learnt from at most so many scans, and normals to compare with kept of as many.
    """

    latents: VAESettings = field(default_factory=VAESettings)
    contexts: ContextSettings = field(default_factory=lambda: ContextSettings(start="members"))
    bag: int = 4096
    scans: int = 256

    def __post_init__(self) -> None:
        for name, most in (("bag", 1 << 20), ("scans", MOST_BAGS)):
            if not 1 <= getattr(self, name) <= most:
                raise SettingsError(f"{name} must lie between 1 and {most}, got {getattr(self, name)}")


__all__ = ["CVDDSettings", "ContextSettings"]
