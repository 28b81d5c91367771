"""FCDD: a one-class classifier whose output is a map, and the map its explanation.

Ruff, "Deep One-Class Learning", 2021, section 3.1; A = sqrt(phi(x)^2 + 1) - 1, a map with u x v places.

    image   a, of anomalies -log(1 - exp(-a)), a the mean of A                            Eq. (3.1)
    pixel   mean of U (1 - M), and where M has a 1, - log(1 - exp(-mean of U M))           section 3.1.2

U is A drawn back onto the image (``nn.receptive_field``), M is 1 where an anomaly is. Means are over all
pixels, so a small anomaly has a small argument of the logarithm. The weights' decay is Adam's.

Anomalies are planted in the samples of each batch (``nn.planted_anomalies``), so many that half of them are
abnormal, labelled anomalies and outliers included: where these are half of it, none. In the released code,
all samples of a batch whose labels are one and the same, be they all anomalies, have the normals' loss; here
each sample has that of its own label. Its pixel loss takes all of an image with planted anomalies as abnormal
(``truth=whole``); here their places are known. The early layers of its largest network come from ImageNet;
here, too, where a file of them is given (``weights``), and all are trained where none is.

Samples are rows ``(B, D)``. They may end with a label, ``(B, D + 1)``: 0 for none, 1 for a normal, -1 for an
anomaly; before it may stand a map of the anomaly, ``(B, D + V + 1)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor

from mednovelty.errors import SettingsError
from mednovelty.methods.fcdd_model import FCDDModel, Labelled
from mednovelty.methods.fcdd_settings import FCDDSettings, defaults
from mednovelty.methods.hypersphere import SEMI_LABELS, outside, refuse_other_labels
from mednovelty.nn.planted_anomalies import chance, planted
from mednovelty.nn.pretrained import check_file, read_into
from mednovelty.outlier_exposure import UNJUDGED, can_choose
from mednovelty.papers import equation
from mednovelty.types import SampleScores, VoxelScores

ASSESSED = 256
"""Held-out samples, at most, of which the assessment tells."""
BLIND = 0.6
"""An AUROC up to this is that of a network that has learnt nothing."""


class FCDDMethod:
    """Fully convolutional data description.

    Args:
        settings: ``None``: the thesis', with confetti.
    """

    Settings: ClassVar[type] = FCDDSettings
    offers: ClassVar[tuple[str, ...]] = ("heatmap",)
    lacks: ClassVar[tuple[str, ...]] = ("encode", "decode")
    semi_labels: ClassVar[tuple[int, ...]] = SEMI_LABELS
    defaults = staticmethod(defaults)

    def __init__(self, settings: Any = None) -> None:
        self.settings = settings or self.Settings()

    @property
    def truth_maps(self) -> bool:
        """Whether it is to be told where in a sample an anomaly is."""
        return self.settings.loss == "pixel"

    @property
    def plants(self) -> bool:
        """Whether anomalies are planted, in training and in held-out samples."""
        return self.settings.anomalies != "none"

    def can_choose(self, model: FCDDModel, training: Any, validation: Any) -> bool:
        """Return whether held-out samples, a ``VoxelCache``, can choose an epoch: they have anomalies."""
        return self.plants or can_choose(training, validation, math.prod(model.shape))

    def build(self, shape: Sequence[int]) -> FCDDModel:
        """Return the network for samples of a shape; ``start`` or a file sets its weights.

        Raises:
            SettingsError: It cannot take them, as when they are voxels.
        """
        return FCDDModel(shape, self.settings)

    def parameter_groups(self, model: FCDDModel) -> list[dict[str, Any]]:
        """Return all weights that are trained, which decay."""
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        return [{"params": trained, "weight_decay": self.settings.weight_decay}]

    def check_ready(self, model: FCDDModel) -> None:
        """Refuse what ``start`` would, before any scan is read.

        Raises:
            SettingsError: The file of weights is not there, or of another network.
        """
        if self.settings.weights:
            check_file(self.settings.weights, model.network.layers)

    @torch.no_grad()
    def start(self, model: FCDDModel, normals: Any, generator: Generator) -> None:
        """Draw the weights, and read those that a file has; black and white are percentiles of the normals.

        Args:
            model: From ``build``.
            normals: The training samples, a ``VoxelCache``.
            generator: On the CPU.

        Raises:
            SettingsError: A label is none; or all samples are anomalies, or none is and none is planted; or
                the file of weights does not fit.
        """
        normal, abnormal = count_labels(model, normals)
        if not normal:
            raise SettingsError(
                f"all {abnormal} training samples are labelled anomalies; there is no normal one to learn "
                "from"
            )
        if self.settings.anomalies == "none" and not abnormal and normals.outliers is None:
            raise SettingsError(
                "anomalies='none', and no training sample is labelled as abnormal: a network that sees "
                "normal samples alone learns a constant; set anomalies='confetti' or 'lesions', or give "
                "labels or outliers"
            )
        model.network.initialise(generator)
        if self.settings.weights:
            read_into(self.settings.weights, model.network.layers)
            low, high = contrast_ends(model, normals)
            model.low.copy_(low)
            model.high.copy_(high)

    def loss(self, model: FCDDModel, x: Tensor, epoch: int, generator: Generator) -> dict[str, Tensor]:
        """Return ``loss``, the mean over the batch.

        Args:
            model: In training mode.
            x: ``(B, D)``, or with labels and maps, see ``FCDDModel.split``.
            epoch: From 1.
            generator: On the samples' device; anomalies are planted with it.

        Raises:
            SettingsError: Rows are not as wide as that.
        """
        samples = model.split(x)
        if self.settings.anomalies != "none":
            drawn = torch.rand(len(x), generator=generator, device=generator.device)
            chosen = drawn < chance(samples.labels, self.settings.share)
            samples = self.with_planted(model, samples, chosen.to(x.device), generator)
        return {"loss": self.losses(model, model.heatmap(samples.x), samples).mean()}

    @torch.no_grad()
    def validate(self, model: FCDDModel, batches: Iterable[Tensor], generator: Generator) -> dict[str, float]:
        """Return means over all samples of the batches, as they are and with an anomaly planted in each.

        ``normal`` and ``abnormal`` are the mean of the map of those without and with an anomaly.
        """
        losses, means, labels = [], [], []
        for rows in batches:
            for samples in self.both(model, model.split(rows), generator):
                maps = model.heatmap(samples.x)
                losses.append(self.losses(model, maps, samples))
                means.append(mean_of(maps))
                labels.append(samples.labels)
        told = {"loss": torch.cat(losses)}
        found, abnormal = torch.cat(means), torch.cat(labels) < 0
        told |= {"normal": found[~abnormal], "abnormal": found[abnormal]}
        return {name: values.double().mean().item() for name, values in told.items() if len(values)}

    @torch.no_grad()
    def assess(
        self, model: FCDDModel, training: Any, validation: Any, generator: Generator
    ) -> dict[str, Any]:
        """Return whether held-out samples are told from the same with anomalies, as JSON types.

        Args:
            model: Trained.
            training: The ``VoxelCache`` it was trained on.
            validation: One of samples of other scans.
            generator: On the CPU.
        """
        rows = validation.take_evenly(ASSESSED)
        device = next(model.parameters()).device
        means, labels = [], []
        # Anomalies are drawn where the generator is.
        for some in torch.tensor(rows).split(16):
            for samples in self.both(model, model.split(some), generator):
                means.append(mean_of(model.heatmap(samples.x.to(device))).cpu())
                labels.append(samples.labels)
        found, abnormal = torch.cat(means).double(), torch.cat(labels) < 0
        judged = self.can_choose(model, training, validation)
        auroc = _auroc(found[~abnormal], found[abnormal])
        if not judged:
            auroc = _auroc(found[~abnormal], self._trained_with(model, training))
        field = model.network.fields[0]
        said = {
            "anomalies": self.settings.anomalies,
            "labelled_anomalies": count_labels(model, training)[1],
            **({} if training.n_outliers == 0 else {"outliers": training.n_outliers}),
            "receptive_field": field.size,
            "stride": field.stride,
            "sigma": float(model.sigma),
            "normal": found[~abnormal].mean().item() if (~abnormal).any() else None,
            "abnormal": found[abnormal].mean().item() if abnormal.any() else None,
            "auroc": auroc if judged else None,
        }
        return {**_verdict(said, auroc, judged), **said}

    def _trained_with(self, model: FCDDModel, training: Any) -> Tensor:
        """Return ``(n,)`` means of the maps of some anomalies that were trained with, at least one."""
        table = training if not training.n_outliers else training.outliers
        places = np.flatnonzero(table.array()[:, -1] < 0)
        chosen = places[np.unique(np.linspace(0, len(places) - 1, ASSESSED).astype(np.int64))]
        rows = torch.from_numpy(table.take(chosen)).to(next(model.parameters()).device)
        return (
            torch.cat([mean_of(model.heatmap(model.split(some).x)) for some in rows.split(16)]).cpu().double()
        )

    def both(self, model: FCDDModel, samples: Labelled, generator: Generator) -> list[Labelled]:
        """Return samples, and where anomalies are to be planted, the normal ones again with one in each."""
        if self.settings.anomalies == "none":
            return [samples]
        normal = samples.labels >= 0
        truth = None if samples.truth is None else samples.truth[normal]
        again = Labelled(samples.x[normal], samples.labels[normal], truth)
        return [samples, self.with_planted(model, again, torch.ones_like(normal[normal]), generator)]

    def with_planted(
        self, model: FCDDModel, samples: Labelled, chosen: Tensor, generator: Generator
    ) -> Labelled:
        """Return samples with anomalies in those chosen, ``(B,)`` bool, that are not labelled as abnormal."""
        chosen = chosen & (samples.labels >= 0)
        if not chosen.any():
            return samples
        settings = self.settings
        images = samples.x[chosen].unflatten(1, model.shape)
        made = planted(images, settings.anomalies, generator, settings.background or 0.0)
        x, labels, truth = samples.x.clone(), samples.labels.clone(), truth_of(model, samples).clone()
        x[chosen] = made.images.flatten(1)
        labels[chosen] = -1
        truth[chosen] = 1.0 if settings.truth == "whole" else made.where.to(truth.dtype)
        return Labelled(x, labels, truth)

    def losses(self, model: FCDDModel, maps: VoxelScores, samples: Labelled) -> SampleScores:
        """Return ``(B,)`` losses of samples that have some ``(B, *sides)`` maps."""
        if self.settings.loss == "image":
            losses = image_losses(mean_of(maps), samples.labels < 0)
        else:
            losses = pixel_losses(model.upsampled(maps), truth_of(model, samples))
        return torch.where(samples.labels == 0, 1.0, self.settings.eta) * losses


@equation("ruff2021_thesis", "Eq. (3.1)")
def image_losses(means: SampleScores, abnormal: Tensor) -> SampleScores:
    """Return a of normals and -log(1 - exp(-a)) of anomalies, ``(B,)``, a the means of maps."""
    return torch.where(abnormal, outside(means), means)


@equation("ruff2021_thesis", "Section 3.1.2, pixel level")
def pixel_losses(maps: VoxelScores, truth: Tensor) -> SampleScores:
    """Return ``(B,)``: the normals' loss where there is no anomaly and the anomalies' where there is one.

    Args:
        maps: ``(B, *space)``, drawn back onto the images.
        truth: The same shape, 1 where an anomaly is, 0 elsewhere.
    """
    inside = outside(mean_of(maps * truth))
    return mean_of(maps * (1 - truth)) + torch.where(truth.flatten(1).any(1), inside, 0.0)


def contrast_ends(model: FCDDModel, normals: Any) -> tuple[Tensor, Tensor]:
    """Return ``(C,)`` percentiles 0.5 and 99.5 of contrasts, over evenly chosen rows of a ``VoxelCache``.

    Raises:
        SettingsError: A contrast does not vary.
    """
    rows = normals.take_evenly(ASSESSED)
    images = rows[:, : model.channels].reshape(len(rows), model.shape[0], -1)
    low, high = (torch.from_numpy(np.percentile(images, q, axis=(0, 2))).float() for q in (0.5, 99.5))
    if not (high > low).all():
        raise SettingsError("weights: a contrast of the training samples does not vary")
    return low, high


def mean_of(maps: VoxelScores) -> SampleScores:
    """Return the means of maps, ``(B,)``."""
    return maps.flatten(1).mean(1)


def truth_of(model: FCDDModel, samples: Labelled) -> Tensor:
    """Return ``(B, *space)``: where anomalies are; where rows do not say, all of a labelled anomaly."""
    if samples.truth is not None:
        return samples.truth
    axes = [1] * len(model.shape[1:])
    return (samples.labels < 0).to(samples.x.dtype).view(-1, *axes).expand(-1, *model.shape[1:])


def count_labels(model: FCDDModel, rows: Any) -> tuple[int, int]:
    """Return how many samples of a ``VoxelCache`` are no labelled anomalies, and how many are.

    Raises:
        SettingsError: A label is none.
    """
    abnormal = 0
    for block in rows.blocks():
        labels = model.split(torch.from_numpy(block)).labels
        abnormal += int((labels < 0).sum())
        refuse_other_labels(labels)
    return len(rows) - abnormal, abnormal


def _auroc(normal: Tensor, abnormal: Tensor) -> float | None:
    """Return with which probability an anomaly is above a normal, half for equals; None without both."""
    if not len(normal) or not len(abnormal):
        return None
    pairs = abnormal[:, None] - normal
    return ((pairs > 0).double() + 0.5 * (pairs == 0).double()).mean().item()


def _verdict(said: dict[str, Any], auroc: float | None, judged: bool) -> dict[str, Any]:
    """Return ``verdict`` and ``collapsed``.

    Args:
        said: What else is said.
        auroc: Of held-out normals against held-out anomalies, or those trained with where none is held out.
        judged: Whether any is.
    """
    kind = "labelled" if said["anomalies"] == "none" else said["anomalies"]
    sees = f"each of its outputs sees {said['receptive_field']} pixels, {said['stride']} apart"
    more = f"; {sees}" if judged else f"; {UNJUDGED}; {sees}"
    if auroc is None:
        return {"verdict": f"no anomaly to tell from held-out normals{more}", "collapsed": True}
    if auroc > BLIND:
        whose = f"the same with anomalies ({kind})" if judged else "the anomalies that it was trained with"
        return {"verdict": f"tells held-out samples from {whose} with an AUROC of {auroc:.3f}{more}",
                "collapsed": False}  # fmt: skip
    like = (
        f"anomalies like those it was trained with ({kind})"
        if judged
        else "the anomalies it was trained with"
    )
    unheld = "" if judged else f"; {UNJUDGED}"
    return {
        "verdict": f"the network does not even find {like}: AUROC {auroc:.3f} on held-out samples; train for "
        f"longer, at another learning rate or with more scans, or choose other anomalies{unheld}",
        "collapsed": True,
    }


__all__ = ["FCDDMethod", "FCDDSettings", "image_losses", "mean_of", "pixel_losses"]
