"""From healthy voxels to a trained model and its reference; knows voxels, not scans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mednovelty.errors import SettingsError
from mednovelty.methods.vae_comparison import compare_with_ppca
from mednovelty.plugins import names, plugin
from mednovelty.reference import Reference, bytes_a_voxel
from mednovelty.scoring import reference_parts
from mednovelty.seeds import generator, numpy_generator
from mednovelty.train import TrainingRecord, TrainSettings, train
from mednovelty.voxel_cache import VoxelCache

DEFAULT_SCORES = (
    "nearest_normal",
    "vae_regularizer",
    "latent_euclidean",
    "reconstruction_error",
    "reconstruction_likelihood",
    "negative_elbo",
)


@dataclass(frozen=True)
class FitSettings:
    """Everything that decides what a fit gives, besides the scans and the seed.

    Attributes:
        method: Plug-in of group ``methods``.
        method_settings: That method's ``Settings``; None: its defaults.
        train: The loop's settings.
        validation_fraction: Share of the scans held out for early stopping, at least one scan.
        preprocessors: Further plug-ins of group ``preprocessors``, applied in this order before the scan is
            divided by its mean.
        normalise_within: ``mask`` or ``whole-scan``: over what a scan's mean intensity is taken.
        bvalue_tolerance: Relative difference of b-values that counts as the same gradient.
        angle_tolerance_deg: Angle between directions that counts as the same gradient.
        scores: What ``score`` computes when it is not told.
        reference_bytes: Budget of the reference; voxels are drawn evenly over scans to fit.
        neighbours: Plug-in of group ``neighbours``; ``auto``: faiss where it is installed.
        draws: Draws of stochastic scores.
        batch_voxels: Voxels a batch when scoring.
        cache_bytes: Training voxels beyond this lie in a memory-mapped file.
    """

    method: str = "vae"
    method_settings: Any = None
    train: TrainSettings = field(default_factory=TrainSettings)
    validation_fraction: float = 0.2
    preprocessors: tuple[str, ...] = ()
    normalise_within: str = "mask"
    bvalue_tolerance: float = 0.05
    angle_tolerance_deg: float = 5.0
    scores: tuple[str, ...] = DEFAULT_SCORES
    reference_bytes: int = 32 << 20
    neighbours: str = "auto"
    draws: int = 8
    batch_voxels: int = 1 << 14
    cache_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", tuple(self.scores))
        object.__setattr__(self, "preprocessors", tuple(self.preprocessors))
        if not 0 < self.validation_fraction < 1:
            raise SettingsError(
                f"validation_fraction must lie between 0 and 1, got {self.validation_fraction}"
            )
        for name in ("reference_bytes", "draws", "batch_voxels", "cache_bytes"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit gives.

    Attributes:
        method: The method with its settings.
        model: Trained, in evaluation mode, its weights frozen.
        reference: The training voxels as the model sees them.
        record: The training curve.
        summary: Held-out ELBO, probabilistic PCA beside it, active latents: JSON types.
    """

    method: Any
    model: Any
    reference: Reference
    record: TrainingRecord
    summary: dict[str, Any]


def make_method(settings: FitSettings) -> Any:
    """Return the method of some settings.

    Raises:
        UnknownPluginError: There is no such method.
    """
    kind = plugin("methods", settings.method)
    return kind(settings.method_settings or kind.Settings())


def fit_model(  # noqa: PLR0913 - what, on what, and by keyword how
    training: VoxelCache,
    validation: VoxelCache,
    settings: FitSettings,
    seed: int,
    *,
    folder: Path | None = None,
    resume: bool = False,
    on_epoch: Callable[[Any], Any] | None = None,
) -> Fitted:
    """Train a model on normal voxels and draw its reference.

    Args:
        training: ``(n, C)`` normalised voxels.
        validation: The same of other scans; they decide when to stop.
        settings: What to train, and how.
        seed: Same seed, same machine: same bits.
        folder: Where checkpoints lie; None: none are written.
        resume: Go on from the checkpoint in the folder.
        on_epoch: Told each row of the curve as it comes.
    """
    method = make_method(settings)
    neighbours = _neighbours(settings.neighbours)
    plugin("neighbours", neighbours)
    parts = reference_parts(settings.scores)
    model = method.build(training.channels)
    record = train(
        method,
        model,
        training,
        validation,
        settings.train,
        seed=seed,
        folder=folder,
        resume=resume,
        on_epoch=on_epoch,
    )
    model.eval().requires_grad_(False)
    draws = generator(seed, "held-out elbo")
    comparison = compare_with_ppca(model, training, validation, generator=draws)
    reference = _draw_reference(model, training, parts, settings, neighbours, seed)
    return Fitted(method, model, reference, record, comparison.as_json())


def _neighbours(name: str) -> str:
    if name != "auto":
        return name
    try:
        import faiss  # noqa: F401
    except ImportError:
        return "exact"
    return "faiss_flat" if "faiss_flat" in names("neighbours") else "exact"


def _draw_reference(
    model: Any, training: VoxelCache, parts: set[str], settings: FitSettings, neighbours: str, seed: int
) -> Reference:
    (latent,) = model.prior.event_shape
    cost = bytes_a_voxel(parts, training.channels, latent)
    count = settings.reference_bytes // cost if cost else 0
    rows = (
        training.sample_rows(max(count, 1), numpy_generator(seed, "reference")) if cost else np.empty(0, int)
    )
    normals = torch.from_numpy(training.take(rows))
    return Reference.of(model, normals, parts, neighbours=neighbours, drawn_from=len(training))
