"""A detector that learns, from healthy scans alone, to find lesions that were never there.

In each batch anomalies are planted in a share of the normal samples, anew each time
(``mednovelty.anomalies``), and a network learns by cross entropy where they are. Which epoch is kept, a
family of another shape and appearance decides, planted in held-out normals: the average precision with which
its voxels are found among theirs. No label is looked at for that. Annotated anomalies, where they are shown,
are trained on as they are.

What such a detector knows is what was planted: ``assess`` tells it in words, and how well each family that is
installed is found.

Sources: planting lesions to train a segmentation network is that of Tan et al. 2022, "Detecting Outliers with
Foreign Patch Interpolation", and Ruff 2021, section 3.1.2; the families of diffusion are this project's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from mednovelty.anomalies.host import Host, Prior
from mednovelty.anomalies.mixture import Mixture
from mednovelty.anomalies.noise import silenced
from mednovelty.anomalies.outlines import Outlines, read_outlines
from mednovelty.errors import SettingsError
from mednovelty.methods.fcdd import pixel_losses
from mednovelty.methods.hypersphere import SEMI_LABELS, refuse_other_labels
from mednovelty.methods.synthetic_lesions_augmentation import moved, shaded
from mednovelty.methods.synthetic_lesions_found import found_of_all, ranked, ranking_of
from mednovelty.methods.synthetic_lesions_model import Rows, SyntheticLesionsModel
from mednovelty.methods.synthetic_lesions_settings import SyntheticLesionsSettings, defaults
from mednovelty.metrics import auroc, average_precision
from mednovelty.nn.planted_anomalies import chance
from mednovelty.outlier_exposure import count_abnormal

MEASURED = 512
"""Training samples, at most, of which means and ranges are taken."""
MEASURED_BYTES = 1 << 28
BLIND = 0.6
"""An AUROC up to this is that of a network that has learnt nothing."""


class SyntheticLesionsMethod:
    """Segmentation of planted anomalies.

    Args:
        settings: ``None``: the defaults.
    """

    Settings: ClassVar[type] = SyntheticLesionsSettings
    offers: ClassVar[tuple[str, ...]] = ("lesion_map",)
    lacks: ClassVar[tuple[str, ...]] = ("encode", "decode")
    semi_labels: ClassVar[tuple[int, ...]] = SEMI_LABELS
    truth_maps: ClassVar[bool] = True
    spaced: ClassVar[bool] = True
    plants: ClassVar[bool] = True
    keeps_own: ClassVar[tuple[str, ...]] = ("bvalues", "directions", "divisors", "low", "high", "maps.")
    defaults = staticmethod(defaults)

    def __init__(self, settings: Any = None) -> None:
        self.settings = settings or self.Settings()

    def for_samples(self, *, images: bool, gradients: bool) -> SyntheticLesionsSettings:
        """Return the settings for samples of a kind, see ``SyntheticLesionsSettings.resolved``."""
        return self.settings.resolved(images=images, gradients=gradients)

    def can_choose(self, model: SyntheticLesionsModel, training: Any, validation: Any) -> bool:
        """Return True: anomalies are planted in held-out samples, which choose an epoch."""
        return True

    def build(self, shape: Sequence[int]) -> SyntheticLesionsModel:
        """Return the network for samples of a shape; ``start`` or a file sets its weights.

        Raises:
            SettingsError: It cannot take them.
        """
        settings, images = self.settings, len(shape) > 1
        if not settings.anomalies or "auto" in (settings.network, settings.inputs):
            settings = settings.resolved(images=images, gradients=not images)
        return SyntheticLesionsModel(shape, settings)

    def parameter_groups(self, model: SyntheticLesionsModel) -> list[dict[str, Any]]:
        """Return all weights, which decay."""
        return [{"params": list(model.parameters()), "weight_decay": self.settings.weight_decay}]

    def check_ready(self, model: SyntheticLesionsModel) -> None:
        """Refuse what ``start`` would, before any scan is read.

        Raises:
            ScanError: The folder of lesion shapes is not there, or has none.
            SettingsError: They cannot have the sizes that a family asks for.
        """
        model.mixtures.training.describe(self.outlines)

    @cached_property
    def outlines(self) -> Outlines | None:
        """Outlines of real lesions, where a folder of them is named."""
        return read_outlines(Path(self.settings.lesion_shapes)) if self.settings.lesion_shapes else None

    @torch.no_grad()
    def start(self, model: SyntheticLesionsModel, normals: Any, generator: Generator) -> None:
        """Draw the weights; measure what the tissue of training samples shows.

        Args:
            model: From ``build``.
            normals: The training samples, a ``VoxelCache``.
            generator: On the CPU.

        Raises:
            SettingsError: A label is none, or all samples are anomalies; or of voxels of diffusion the
                acquisition is not known.
        """
        most = MEASURED if model.shape[1:] else len(normals)
        count = max(1, min(most, MEASURED_BYTES // (4 * normals.channels), len(normals)))
        rows = model.split(torch.from_numpy(normals.take_evenly(count)))
        _check_labels(normals, model)
        if model.diffusion:
            _learn_acquisition(model, normals.acquisition)
        if model.maps is not None:
            model.maps.learn(normals.acquisition)  # type: ignore[operator]
        model.measure(rows)
        model.initialise(generator)

    def loss(
        self, model: SyntheticLesionsModel, x: Tensor, epoch: int, generator: Generator
    ) -> dict[str, Tensor]:
        """Return ``loss``, the mean over the batch's voxels.

        Args:
            model: In training mode.
            x: ``(B, D)`` or wider, see ``SyntheticLesionsModel.split``.
            epoch: From 1.
            generator: On the samples' device; anomalies are planted with it.
        """
        with torch.no_grad():
            rows = moved(model, model.split(x), generator)
            drawn = torch.rand(len(x), generator=generator, device=generator.device).to(x.device)
            share = chance(rows.labels, 1 - model.settings.clean)
            chosen = (drawn < share) & (rows.labels >= 0)
            rows = self.with_planted(model, rows, chosen, model.mixtures.training, generator)
            images = shaded(model, rows, generator)
        return {"loss": self.losses(model, images, rows.truth).mean()}

    @torch.no_grad()
    def validate(
        self, model: SyntheticLesionsModel, batches: Iterable[Tensor], generator: Generator
    ) -> dict[str, float]:
        """Return one minus the average precision on the held-out family, planted in normal samples.

        ``auroc`` is of the same voxels; ``trained_ap`` is of the families that are trained on, where those
        of this epoch are not the very same. Voxels of the samples as they are count as healthy.
        """
        samples = [rows.take(rows.labels >= 0) for rows in map(model.split, batches)]
        samples = [rows for rows in samples if len(rows.images)]
        if not samples:
            raise SettingsError("all held-out samples are anomalies: there is none to plant others in")
        mixtures = model.mixtures
        clean = [ranked(model, rows.images, rows.mask) for rows in samples]
        told = {}
        for name, mixture in (("held_out", mixtures.validation), ("trained", mixtures.training)):
            planted = [
                self.with_planted(
                    model, rows, torch.ones_like(rows.labels, dtype=torch.bool), mixture, generator
                )
                for rows in samples
            ]
            told[name] = ranking_of(model, clean, planted)
        held = told["held_out"]
        precision = average_precision(held)
        return {
            "loss": 1.0 if math.isnan(precision) else 1 - precision,
            "auroc": auroc(held),
            "trained_ap": average_precision(told["trained"]),
        }

    @torch.no_grad()
    def assess(
        self, model: SyntheticLesionsModel, training: Any, validation: Any, generator: Generator
    ) -> dict[str, Any]:
        """Return what it takes to be abnormal, and how well it finds each family, as JSON types.

        Args:
            model: Trained.
            training: The ``VoxelCache`` it was trained on.
            validation: One of samples of other scans; anomalies are planted in some of them.
            generator: On the CPU.
        """
        mixtures = model.mixtures
        rows = found_of_all(self, model, validation, generator)
        prior, held = mixtures.training.describe(self.outlines), mixtures.validation.describe()
        own = [row for row in rows if row["trained_on"]]
        others = [row for row in rows if row["family"] in mixtures.validation.families]
        best = max((row["auroc"] for row in own), default=0.0)
        told = _told(prior)
        if model.diffusion and (few := silenced(model.bvalues)):
            told["words"] += (
                f"; the noise of shells of {' and '.join(map(str, few))} directions is taken away with the "
                "tissue's signal: what is merely quiet may be found, too"
            )
        return {
            **_verdict(own, others, collapsed=best <= BLIND),
            "prior": told | {"held_out": _told(held)},
            "found": rows,
            **({"outliers": training.n_outliers} if training.n_outliers else {}),
            "labelled_anomalies": count_abnormal(training, model.channels),
        }

    def with_planted(
        self,
        model: SyntheticLesionsModel,
        rows: Rows,
        chosen: Tensor,
        mixture: Mixture,
        generator: Generator,
    ) -> Rows:
        """Return samples with anomalies in those chosen, ``(B,)`` bool, and where they are.

        What is planted shows no more than the training samples did: the brightest voxels would give it away.
        """
        if not chosen.any():
            return rows
        host = Host(
            rows.images,
            rows.mask,
            rows.spacing_mm,
            model.gradients(rows.images.device),
            outlines=self.outlines,
        )
        places = chosen.nonzero()[:, 0]
        made = mixture.plant(host.take(places), generator)
        images, truth = rows.images.clone(), rows.truth.clone()
        where = rows.mask[places][:, None]
        images[places] = torch.where(where, model.clamped(made.images), rows.images[places])
        truth[places] = made.truth
        return rows._replace(images=images, truth=truth)

    def losses(self, model: SyntheticLesionsModel, images: Tensor, truth: Tensor) -> Tensor:
        """Return losses: of voxels, ``(B, *space)``; with ``network=fcdd`` of samples, ``(B,)``."""
        target = truth.to(images.dtype)
        if model.fcdd:
            return pixel_losses(model.distances(images), target)
        weight = torch.tensor(1.0 if model.sphere else model.weight, device=images.device)
        return cross_entropy(model.logits(images), target, pos_weight=weight, reduction="none")


def _learn_acquisition(model: SyntheticLesionsModel, acquisition: Any) -> None:
    if acquisition is None or not acquisition.directions:
        raise SettingsError(
            "synthetic_lesions: the b-values and directions of these voxels, or what they were divided by, "
            "are not known; it needs diffusion scans whose preprocessors change no channel by itself (none "
            "but resample)", code="anomalies.acquisition",
        )  # fmt: skip
    model.bvalues.copy_(torch.tensor(acquisition.bvalues_s_per_mm2))
    model.directions.copy_(torch.tensor(acquisition.directions))
    model.divisors.copy_(torch.tensor(acquisition.divisors))
    model.gradients(model.bvalues.device)  # Refuses those without a volume at b = 0.


def _check_labels(rows: Any, model: SyntheticLesionsModel) -> None:
    if rows.channels == model.channels:
        return
    labels = torch.from_numpy(np.unique(rows.array()[:, -1]))
    refuse_other_labels(labels)
    if (labels < 0).all():
        raise SettingsError(
            "all training samples are labelled anomalies; there is no normal one to learn from"
        )


def _told(prior: Prior) -> dict[str, Any]:
    # By way of JSON, which has lists where settings have tuples.
    return {"words": prior.words, "ranges": json.loads(json.dumps(dict(prior.ranges)))}


def _verdict(own: list[Any], others: list[Any], *, collapsed: bool) -> dict[str, Any]:
    def told(rows: list[Any]) -> str:
        return ", ".join(f"{row['family']} {row['auroc']:.3f}" for row in rows) or "nothing"

    if collapsed:
        words = (
            f"the network does not even find what it was trained on (AUROC of voxels: {told(own)}); train "
            "for longer, at another learning rate or with more scans, or choose stronger anomalies"
        )
        return {"verdict": words, "collapsed": True}
    words = (
        f"finds in held-out samples, by the AUROC of voxels, what it was trained on: {told(own)}; what it "
        f"was not: {told(others)}; it is blind to what looks otherwise"
    )
    return {"verdict": words, "collapsed": False}


__all__ = ["SyntheticLesionsMethod", "SyntheticLesionsSettings"]
