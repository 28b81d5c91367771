"""From healthy voxels to a trained model and its reference; knows voxels, not scans."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mednovelty.annotation_settings import AnnotationSettings
from mednovelty.batch import Batch, sample_shape
from mednovelty.calibration import Constants, measured_constants, with_terms
from mednovelty.candidates import Training, train_best
from mednovelty.capabilities import asked_by, check_offers, offered_by
from mednovelty.coreset import k_center
from mednovelty.errors import SettingsError
from mednovelty.held_out_examples import examples_of
from mednovelty.initial_weights import InitialWeights
from mednovelty.map_settings import MapSettings
from mednovelty.neighbours.choice import is_approximate
from mednovelty.neighbours.latent_settings import MOST_NEIGHBOURS, NLNSettings
from mednovelty.plugins import plugin
from mednovelty.reference import Reference, bytes_a_voxel, latent_size
from mednovelty.sample_places import NormalPlaces
from mednovelty.scoring import Scoring, reference_parts
from mednovelty.searches import with_chosen_searches
from mednovelty.seeds import generator, numpy_generator
from mednovelty.settings import checked, overlaid, tree_of
from mednovelty.train import TrainingRecord, TrainSettings
from mednovelty.tuning import (
    FEWEST,
    check_held_out,
    check_tuning,
    enough,
    rows_a_batch,
    takes_neighbours,
    tuned_nln,
    widest,
)
from mednovelty.voxel_cache import VoxelCache

DEFAULT_SCORES = (
    "nearest_normal",
    "vae_regularizer",
    "latent_euclidean",
    "reconstruction_error",
    "reconstruction_likelihood",
    "negative_elbo",
)

SEARCH_SAMPLE = 8192
"""Held-out voxels on which the quality of searches is measured."""
SEARCH_BYTES = 1 << 28
"""Of slices and windows, which are thousands of times larger, as many as fit into this."""
LARGEST = {"draws": 10_000, "batch_voxels": 1 << 22, "knn": MOST_NEIGHBOURS}
"""Above these a setting is a slip of the pen, or a file that wants all our memory."""


@dataclass(frozen=True)
class FitSettings:
    """Everything that decides what a fit gives, besides the scans and the seed.

    Attributes:
        method: Plug-in of group ``methods``.
        method_settings: That method's ``Settings``; None: its defaults.
        preset: Which of the method's presets these settings began as, such as ``released``; none: its
            defaults.
        candidates: Settings that replace some of those, one mapping a network; the network with the lowest
            validation loss is kept. Empty: one network.
        train: The loop's settings.
        validation_fraction: Share of the scans held out for early stopping, at least one scan.
        preprocessors: Plug-ins of group ``preprocessors``, applied in this order; diffusion scans are divided
            by their mean after them.
        preprocessor_settings: What each of them is made with, by its name; defaults where there is nothing.
        normalise_within: ``mask`` or ``whole-scan``: over what a scan's mean intensity is taken.
        bvalue_tolerance: Relative difference of b-values that counts as the same gradient.
        angle_tolerance_deg: Angle between directions that counts as the same gradient.
        structural_mask: Of which a structural scan's mask is made where none is given: ``head`` or ``brain``.
        scores: What ``score`` computes when it is not told.
        reference: ``even``: where training voxels exceed the budget, they are drawn evenly over scans;
            ``coreset``: chosen so that no training voxel is far from a chosen one (greedy k-center).
        reference_bytes: Budget of the reference.
        neighbours: Plug-in of group ``neighbours``; ``auto``: for each search the cheapest that finds
            99.5 % of the nearest on held-out voxels.
        view: Plug-in of group ``views``: how a scan is cut into samples.
        view_settings: That view's ``Settings``; None: its defaults.
        draws: Draws of stochastic scores, 1 to 10,000.
        batch_voxels: Samples a batch when scoring, 1 to 4,194,304.
        maps: How maps of slices and windows are smoothed, and what is done to finished maps.
        nln: The scores by nearest latent neighbours: how many, and how their terms are weighed.
        knn: Over how many nearest normals ``hyperspherical_knn`` averages, 1 to 1,000.
        annotations: What is made of lesion masks, labels and outliers.
        cache_bytes: Training samples beyond this lie in a memory-mapped file.
    """

    method: str = "vae"
    method_settings: Any = None
    preset: str = ""
    candidates: tuple[dict[str, Any], ...] = ()
    train: TrainSettings = field(default_factory=TrainSettings)
    validation_fraction: float = 0.2
    preprocessors: tuple[str, ...] = ()
    preprocessor_settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    normalise_within: str = "mask"
    bvalue_tolerance: float = 0.05
    angle_tolerance_deg: float = 5.0
    structural_mask: Literal["head", "brain"] = "head"
    scores: tuple[str, ...] = DEFAULT_SCORES
    reference: Literal["even", "coreset"] = "even"
    reference_bytes: int = 1 << 30
    neighbours: str = "auto"
    view: str = "voxel"
    view_settings: Any = None
    draws: int = 8
    batch_voxels: int = 1 << 14
    maps: MapSettings = field(default_factory=MapSettings)
    nln: NLNSettings = field(default_factory=NLNSettings)
    knn: int = 3
    annotations: AnnotationSettings = field(default_factory=AnnotationSettings)
    cache_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        for name in ("scores", "preprocessors"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))
        object.__setattr__(self, "candidates", tuple(dict(tree) for tree in self.candidates))
        if self.reference not in ("even", "coreset"):
            raise SettingsError(f"reference={self.reference!r} is neither 'even' nor 'coreset'")
        if self.structural_mask not in ("head", "brain"):
            raise SettingsError(f"structural_mask={self.structural_mask!r} is neither 'head' nor 'brain'")
        if not 0 < self.validation_fraction < 1:
            raise SettingsError(
                f"validation_fraction must lie between 0 and 1, got {self.validation_fraction}"
            )
        for name in ("reference_bytes", "draws", "batch_voxels", "knn", "cache_bytes"):
            value, most = getattr(self, name), LARGEST.get(name)
            if not value >= 1:
                raise SettingsError(f"{name} must be at least 1, got {value}")
            if most is not None and value > most:
                raise SettingsError(f"{name} must be at most {most}, got {value}")
        for name, limit in (("bvalue_tolerance", 1.0), ("angle_tolerance_deg", 90.0)):
            if not 0 <= getattr(self, name) <= limit:
                raise SettingsError(f"{name} must lie between 0 and {limit:g}, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit gives.

    Attributes:
        method: The method with its settings.
        model: Trained, in evaluation mode, its weights frozen.
        reference: The training voxels as the model sees them.
        record: The training curve.
        summary: What the method's ``assess`` says of the model: JSON types, at least ``verdict`` and
            ``collapsed``. The VAE tells its held-out ELBO, probabilistic PCA beside it, active latents.
        constants_by_k: By number of neighbours and score, what the score's terms are normalised with,
            measured on held-out voxels; empty where no score has terms.
        nln: As asked for, or chosen.
        places: Where the reference's normals come from; None where that was not kept.
        examples: ``(n, C)`` a few held-out samples, to look at; None where the model does not reconstruct.
    """

    method: Any
    model: Any
    reference: Reference
    record: TrainingRecord
    summary: dict[str, Any]
    constants_by_k: Mapping[int, Mapping[str, Constants]] = field(default_factory=dict)
    nln: NLNSettings = field(default_factory=NLNSettings)
    places: NormalPlaces | None = None
    examples: torch.Tensor | None = None

    @property
    def constants(self) -> Mapping[str, Constants]:
        """By score, for as many neighbours as it was fitted with."""
        return self.constants_by_k.get(self.nln.k, {})


def make_method(settings: FitSettings) -> Any:
    """Return the method of some settings.

    Raises:
        UnknownPluginError: There is no such method.
    """
    kind = plugin("methods", settings.method)
    return kind(settings.method_settings or kind.Settings())


def make_steps(settings: FitSettings) -> list[tuple[str, Any]]:
    """Return name and step of each preprocessor, in order.

    Raises:
        UnknownPluginError: There is no such preprocessor.
        SettingsError: It does not take its settings.
    """
    return [
        (name, plugin("preprocessors", name)(**settings.preprocessor_settings.get(name, {})))
        for name in settings.preprocessors
    ]


def make_view(settings: FitSettings) -> Any:
    """Return the view of some settings.

    Raises:
        UnknownPluginError: There is no such view.
    """
    kind = plugin("views", settings.view)
    known = getattr(kind, "Settings", None)
    return kind() if known is None else kind(settings.view_settings or known())


def make_candidates(settings: FitSettings) -> list[Any]:
    """Return one method for each candidate; the one of ``method_settings`` where there are none.

    Raises:
        UnknownPluginError: There is no such method.
        SettingsError: A candidate has settings that the method does not know.
    """
    method = make_method(settings)
    base = tree_of(method.settings)
    kinds = type(method).Settings
    trees = [overlaid(base, tree, f"candidates.{i}") for i, tree in enumerate(settings.candidates)]
    return [type(method)(checked(kinds, tree, "candidates")) for tree in trees] or [method]


def check_plugins(settings: FitSettings) -> None:
    """Look for every plug-in that settings name, before hours are spent on reading scans.

    Raises:
        UnknownPluginError: One is not installed; the nearest is suggested.
        SettingsError: A score asks for what the method's models do not have, or settings are to be tuned for
            which there is no score.
    """
    named = {
        "methods": (settings.method,),
        "preprocessors": settings.preprocessors,
        "neighbours": (fallback_neighbours(settings.neighbours),),
        "views": (settings.view,),
        "scorers": settings.scores,
    }
    for group, chosen in named.items():
        for name in chosen:
            plugin(group, name)
    offers = offered_by(plugin("methods", settings.method))
    for name in settings.scores:
        check_offers(name, asked_by(plugin("scorers", name)), offers, f"the method {settings.method}")
    if settings.nln.tune:
        check_tuning(settings.scores, offers)


def check_neighbours(training: VoxelCache, validation: VoxelCache, settings: FitSettings) -> None:
    """Look whether there are samples enough for the scores by nearest latent neighbours, before training.

    Raises:
        SettingsError: ``nln.k`` is more than the normals that the reference will hold, or there are too few
            held-out samples to tune on.
    """
    if not takes_neighbours(settings.scores):
        return
    if settings.nln.tune:
        check_held_out(len(validation))
        return
    parts = reference_parts(settings.scores)
    for method in make_candidates(settings):
        with torch.device("meta"):  # No memory is taken.
            sketch = method.build(training.shape)
        count = _reference_size(sketch, training, parts, settings)
        if settings.nln.k > count:
            raise SettingsError(
                f"nln.k={settings.nln.k}: the reference will hold {count} normals, of {len(training)} "
                f"training samples; set nln.k to one of 1 to {count}"
            )


def fit_model(  # noqa: PLR0913 - what, on what, and by keyword how
    training: VoxelCache,
    validation: VoxelCache,
    settings: FitSettings,
    seed: int,
    *,
    folder: Path | None = None,
    resume: bool = False,
    init: InitialWeights | None = None,
    on_epoch: Callable[[Any], Any] | None = None,
    on_reference: Callable[[int, int], Any] = lambda chosen, count: None,
    device: str | torch.device = "cpu",
) -> Fitted:
    """Train a model on normal voxels and draw its reference.

    Args:
        training: ``(n, C)`` normalised voxels; ``(n, C + 1)`` with their classes or labels, for methods that
            know such. No score compares with voxels labelled as abnormal.
        validation: The same of other scans; they decide when to stop.
        settings: What to train, and how.
        seed: Same seed, same machine: same bits.
        folder: Where checkpoints lie; None: none are written.
        resume: Go on from the checkpoint in the folder.
        init: What training starts from; None: from nothing learnt.
        on_epoch: Told the record so far after each epoch, and once before the first.
        on_reference: Told how many voxels of a coreset are chosen, and of how many.
        device: Where to train; the model stays there.

    Raises:
        UnknownPluginError: The settings name a plug-in that is not installed.
        SettingsError: There are too few samples for what the settings ask, the loss is not finite, or the
            checkpoint is of another run; or the method needs labelled anomalies, and there are none.
        StoppedError: Ctrl-C or SIGTERM; the last checkpoint is kept.
    """
    _check_anomalies(training, settings)
    parts = reference_parts(settings.scores)
    check_neighbours(training, validation, settings)
    how = Training(training, validation, settings.train, seed, folder, resume, on_epoch, device,
                   init)  # fmt: skip
    best, choice = train_best(make_candidates(settings), how)
    if hasattr(best.method, "finish"):
        best.method.finish(best.model, training, validation, seed)
    held_out = generator(seed, "held-out elbo")
    summary = dict(best.method.assess(best.model, training, validation, held_out)) | choice
    summary |= {} if init is None else {"started_from": init.words}
    reference, places = _draw_reference(best, training, parts, settings, seed, on_reference)
    sample = _held_out(validation, best.method, settings, seed).to(device)
    reference = with_chosen_searches(reference, best.model, settings.scores, sample,
                                     name=settings.neighbours, seed=seed, knn=settings.knn,
                                     nln=widest(settings.nln, len(reference)))  # fmt: skip
    if settings.nln.tune:
        nln, told = tuned_nln(best.model, reference, settings.scores, sample, settings.nln,
                              generator(seed, "tune nln"), background=_background(settings))  # fmt: skip
        settings, summary = replace(settings, nln=nln), summary | {"tuned": told}
    constants = _constants(best.model, reference, settings, sample)
    examples = examples_of(sample, best.method, sample_shape(best.model))
    return Fitted(best.method, best.model, reference, best.record, summary, constants, settings.nln, places,
                  examples)  # fmt: skip


def _held_out(validation: VoxelCache, method: Any, settings: FitSettings, seed: int) -> torch.Tensor:
    """Return ``(n, C)`` held-out samples on which searches, settings and constants are measured."""
    count = max(1, min(SEARCH_SAMPLE, SEARCH_BYTES // (4 * validation.channels)))
    count = max(count, FEWEST) if settings.nln.tune else count
    rows = validation.sample_rows(count, numpy_generator(seed, "search sample"))
    return torch.from_numpy(_samples(validation, _healthy(validation, rows, method)))


def _background(settings: FitSettings) -> float | None:
    """Return what samples show outside the mask; None where a sample is a voxel of it."""
    value = getattr(getattr(make_view(settings), "settings", None), "background", None)
    return None if value is None else float(value)


def _constants(
    model: Any, reference: Reference, settings: FitSettings, sample: torch.Tensor
) -> dict[int, dict[str, Constants]]:
    """Return what terms are normalised with, by K and score, measured on held-out ``(n, C)`` samples."""
    names, ks = with_terms(settings.scores), settings.nln.offered(len(reference))
    if not names:
        return {}
    nln = widest(settings.nln, len(reference))
    scorers = Scoring(model, reference, 1, 0, 1, nln=nln).scorers(names)
    rows = min(settings.batch_voxels, rows_a_batch(nln.k, sample.shape[1]))
    normals = enough(sample, sample_shape(model))
    measured = measured_constants(scorers, Batch, normals.split(rows), ks)
    return {k: {**constants} for k, constants in measured.items()}


def fallback_neighbours(name: str) -> str:
    """Return the exact plug-in for searches that nobody foresaw: the one asked for, if that is exact."""
    return "exact" if name == "auto" or is_approximate(plugin("neighbours", name)) else name


def _samples(table: VoxelCache, rows: np.ndarray) -> np.ndarray:
    """Return ``(n, C)`` rows of a table, without classes."""
    return np.ascontiguousarray(table.take(rows)[:, : math.prod(table.shape)])


def _check_anomalies(training: VoxelCache, settings: FitSettings) -> None:
    """Refuse to train what needs labelled anomalies without any."""
    if not getattr(plugin("methods", settings.method), "needs_anomalies", False):
        return
    labelled = training.channels > math.prod(training.shape)
    planted = getattr(make_method(settings).settings, "anomalies", "none") not in ("none", "auto")
    if planted or training.outliers is not None:
        return
    if not labelled or not (training.array()[:, -1] < 0).any():
        raise SettingsError(
            f"the method {settings.method} tells normal from abnormal samples and learns nothing from normal "
            "ones alone, and none here is labelled as abnormal; fit scans with --masks of lesions, --labels "
            "or --outliers, have anomalies planted (method_settings.anomalies), give fit_voxels labels, or "
            "choose deep_svdd"
        )


def _healthy(table: VoxelCache, rows: np.ndarray, method: Any) -> np.ndarray:
    """Return those rows of a table, by index, that no label says to be abnormal."""
    if table.channels == math.prod(table.shape) or not getattr(method, "semi_labels", ()):
        return rows
    return rows[table.array()[rows, -1] >= 0]


def _draw_reference(
    best: Any,
    training: VoxelCache,
    parts: set[str],
    settings: FitSettings,
    seed: int,
    advance: Callable[[int, int], Any],
) -> tuple[Reference, NormalPlaces | None]:
    model = best.model
    count = _reference_size(model, training, parts, settings)
    if not count:
        rows = np.empty(0, np.int64)
    elif settings.reference == "coreset":
        own = _healthy(training, np.arange(len(training)), best.method)
        every = training.array()[:, : math.prod(training.shape)]
        if len(own) < len(training):
            every, count = every[own], min(count, len(own))
        rows = own[k_center(every, count, advance=lambda chosen: advance(chosen, count))]
    else:
        rows = training.sample_rows(count, numpy_generator(seed, "reference"))
        rows = _healthy(training, rows, best.method)
    normals = torch.from_numpy(_samples(training, rows))
    neighbours = fallback_neighbours(settings.neighbours)
    reference = Reference.of(model, normals, parts, neighbours=neighbours, drawn_from=len(training))
    return reference, training.places_of(rows) if len(rows) else None


def _reference_size(model: Any, training: VoxelCache, parts: set[str], settings: FitSettings) -> int:
    """Return how many normals a reference with some parts will hold."""
    cost = bytes_a_voxel(parts, model.channels, latent_size(model))
    return min(max(settings.reference_bytes // cost, 1), len(training)) if cost else 0
