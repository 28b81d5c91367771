"""Networks that bring normal samples close together: Deep SVDD, Deep SAD, hypersphere classification.

Ruff, "Deep One-Class Learning", 2021, sections 2.2 and 2.3; d = ||phi(x) - c||^2, c fixed before training.

    deep_svdd   mean d                                                  Eq. (2.11), one-class
                R^2 + 1/nu mean max(0, d - R^2)                         Eq. (2.10), soft boundary
    deep_sad    mean of d, of labelled samples eta d^y                  Eq. (2.13), y = 1 normal, -1 anomaly
    hsc         mean of h, of labelled anomalies -eta log(1 - exp(-h))  Eq. (2.20), h a norm of phi(x), no c

lambda / 2 ||weights||^2 is Adam's weight decay and not in the losses that are told.

c is the mean of phi over all training samples but labelled anomalies, in evaluation mode, after the network
was trained as an autoencoder's encoder. As in the released code, not in the text, its entries are moved
away from 0, which zero weights reach, to 0.1 or -0.1; exact zeros, which that code leaves, to 0.1. The same
code finds c with labelled anomalies. R is 0 at first and then the 1 - nu quantile of the distances, which
minimises Eq. (2.10).

Where settings ask for it, anomalies are planted in the samples of each batch, so many that a share of them
are abnormal, labelled anomalies and outliers included.

Samples are rows ``(B, D)``. For ``deep_sad`` and ``hsc`` they may end with a label, ``(B, D + 1)``: 0 for
none, 1 for a normal, -1 for an anomaly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from mednovelty.errors import SettingsError
from mednovelty.methods.hypersphere_model import HSCModel, Hypersphere
from mednovelty.methods.hypersphere_planting import learn_acquisition, plants, with_planted
from mednovelty.methods.hypersphere_pretraining import pretrain
from mednovelty.methods.hypersphere_settings import (
    DeepSADSettings,
    DeepSVDDSettings,
    HSCSettings,
    HypersphereSettings,
    defaults,
)
from mednovelty.outlier_exposure import can_choose
from mednovelty.papers import equation

SEMI_LABELS = (-1, 0, 1)
MARGIN = 0.1
"""Entries of the centre are at least as far from 0."""
NEAR_ZERO = 1e-6
"""Added to h of anomalies: the logarithm and its derivative stay finite where h is 0."""


class _HypersphereMethod:
    """What the methods share; each has a loss of its own."""

    Settings: ClassVar[type] = HypersphereSettings
    Model: ClassVar[type[Hypersphere]] = Hypersphere
    offers: ClassVar[tuple[str, ...]] = ("hypersphere",)
    lacks: ClassVar[tuple[str, ...]] = ("decode",)
    semi_labels: ClassVar[tuple[int, ...]] = ()
    keeps_own: ClassVar[tuple[str, ...]] = ("bvalues", "divisors")
    defaults = staticmethod(defaults)

    def __init__(self, settings: Any = None) -> None:
        self.settings = settings or self.Settings()

    @property
    def plants(self) -> bool:
        """Whether anomalies are planted in training samples."""
        return plants(self.settings)

    def can_choose(self, model: Hypersphere, training: Any, validation: Any) -> bool:
        """Return whether the held-out samples of a ``VoxelCache`` can choose an epoch.

        Not those without an anomaly where anomalies are trained on.
        """
        return not self.semi_labels or self.plants or can_choose(training, validation, math.prod(model.shape))

    def build(self, shape: Sequence[int]) -> Hypersphere:
        """Return the network for samples of a shape; ``start`` or a file sets its weights."""
        return self.Model(shape, self.settings, labels=bool(self.semi_labels))

    def parameter_groups(self, model: Hypersphere) -> list[dict[str, Any]]:
        """Return all weights, which decay."""
        return [{"params": list(model.parameters()), "weight_decay": self.settings.weight_decay}]

    @torch.no_grad()
    def start(self, model: Hypersphere, normals: Any, generator: Generator) -> None:
        """Draw the weights, train them as an autoencoder's, and find the centre.

        Args:
            model: From ``build``.
            normals: The training samples, a ``VoxelCache``.
            generator: On the CPU.

        Raises:
            SettingsError: A label is none, or there are only anomalies; the autoencoder's loss is not finite.
            StoppedError: Ctrl-C or SIGTERM.
        """
        check_labels(model, normals)
        learn_acquisition(model, self.settings, normals)
        model.encoder.initialise(generator)
        model.radius.zero_()
        model.pretraining.zero_()
        if model.standardises:
            shift, spread = normals.mean_and_spread(model.channels)
            model.shift.copy_(torch.from_numpy(shift))
            model.spread.copy_(torch.from_numpy(spread))
        if self.settings.pretrain_epochs:
            model.pretraining.copy_(self.pretrained(model, normals, generator))
        model.eval()
        mean, width = model.moments(normals)
        model.at_start.copy_(width)
        model.centre.copy_(away_from_zero(mean) if self.settings.centred else torch.zeros_like(mean))

    def pretrained(self, model: Hypersphere, normals: Any, generator: Generator) -> Tensor:
        """Train the encoder as an autoencoder's; return its mean squared error before and after, ``(2,)``."""
        return pretrain(model, self.settings, normals, generator)

    def loss(self, model: Hypersphere, x: Tensor, epoch: int, generator: Generator) -> dict[str, Tensor]:
        """Return ``loss`` and ``distance``, means over the batch; ``distance`` is d, or h.

        Args:
            model: In training mode.
            x: ``(B, D)``, or ``(B, D + 1)`` with labels.
            epoch: From 1.
            generator: On the samples' device; anomalies are planted with it.

        Raises:
            SettingsError: Rows are not as wide as that, or a batch is of a single sample.
        """
        samples, labels = model.split(x)
        if len(samples) < 2:
            raise SettingsError("a batch of 1 sample has no statistics to normalise with; give more samples")
        if self.plants:
            samples, labels = with_planted(model, self.settings, samples, labels, generator)
        distances = model.distances(model.encode(samples).mean)
        loss = self.losses(model, distances, labels).mean()
        self.after_batch(model, distances.detach(), epoch)
        return {"loss": loss, "distance": distances.detach().mean()}

    @torch.no_grad()
    def validate(
        self, model: Hypersphere, batches: Iterable[Tensor], generator: Generator
    ) -> dict[str, float]:
        """Return the same means over all samples of the batches, also with an anomaly planted in each."""
        self.after_epoch(model)
        losses, distances = [], []
        for rows in batches:
            for x, labels in self.both(model, *model.split(rows), generator):
                distances.append(model.distances(model.encode(x).mean))
                losses.append(self.losses(model, distances[-1], labels))
        means = (torch.cat(values).double().mean().item() for values in (losses, distances))
        return dict(zip(("loss", "distance"), means, strict=True))

    def assess(
        self, model: Hypersphere, training: Any, validation: Any, generator: Generator
    ) -> dict[str, Any]:
        """Return where held-out samples lie, and whether the network tells any apart, as JSON types.

        Args:
            model: Trained.
            training: The ``VoxelCache`` it was trained on.
            validation: One of samples of other scans.
            generator: On the CPU; anomalies are planted with it.
        """
        # Imported here: the assessment is of this module's model.
        from mednovelty.methods.hypersphere_assessment import assess

        return assess(model, self, training, validation, generator)

    def both(
        self, model: Hypersphere, x: Tensor, labels: Tensor | None, generator: Generator
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Return samples and labels and, where anomalies are planted, the normal ones again with one each."""
        if not self.plants:
            return [(x, labels)]
        normal = x if labels is None else x[labels >= 0]
        made = with_planted(model, self.settings, normal, None, generator, everywhere=True)
        return [(x, labels), made]

    def losses(self, model: Hypersphere, distances: Tensor, labels: Tensor | None) -> Tensor:
        """Return ``(B,)`` losses of samples at some ``(B,)`` distances."""
        raise TypeError(f"{type(self).__name__} has no loss")

    def after_batch(self, model: Hypersphere, distances: Tensor, epoch: int) -> None:
        """Do what is to be done with a batch's ``(B,)`` distances."""

    def after_epoch(self, model: Hypersphere) -> None:
        """Do what is to be done once all batches of an epoch were seen."""


class DeepSVDDMethod(_HypersphereMethod):
    """Deep SVDD: normal latents within a hypersphere as small as can be.

    Args:
        settings: ``None``: one-class.
    """

    Settings: ClassVar[type] = DeepSVDDSettings

    def build(self, shape: Sequence[int]) -> Hypersphere:
        """Return the network for samples of a shape; ``start`` or a file sets its weights."""
        model = super().build(shape)
        model.soft = self.settings.objective == "soft_boundary"
        return model

    @equation("ruff2021_thesis", "Eq. (2.11)")
    def losses(self, model: Hypersphere, distances: Tensor, labels: Tensor | None) -> Tensor:
        """Return ``(B,)`` losses: d, or of a soft boundary those of Eq. (2.10)."""
        if not model.soft:
            return distances
        return soft_boundary(distances, model.radius, self.settings.nu)

    def after_batch(self, model: Hypersphere, distances: Tensor, epoch: int) -> None:
        """Find the radius anew where each batch does so; else keep the distances for the epoch's end."""
        settings = self.settings
        if not model.soft or epoch <= settings.warm_up:
            return
        if not settings.radius_epochs:
            model.radius.copy_(radius_of(distances, settings.nu))
        elif (epoch - settings.warm_up) % settings.radius_epochs == 0:
            model.remember(epoch, distances)

    def after_epoch(self, model: Hypersphere) -> None:
        """Find the radius anew from the distances of an epoch that ends with one."""
        found = model.remembered()
        if found is not None:
            model.radius.copy_(radius_of(found, self.settings.nu))


class DeepSADMethod(_HypersphereMethod):
    """Deep SAD: Deep SVDD that pushes a few labelled anomalies away.

    Args:
        settings: ``None``: the thesis'.
    """

    Settings: ClassVar[type] = DeepSADSettings
    semi_labels: ClassVar[tuple[int, ...]] = SEMI_LABELS

    @equation("ruff2021_thesis", "Eq. (2.13)")
    def losses(self, model: Hypersphere, distances: Tensor, labels: Tensor | None) -> Tensor:
        """Return ``(B,)`` losses: d without a label, eta (d + epsilon)^y with one."""
        if labels is None:
            return distances
        powers = self.settings.eta * (distances + self.settings.epsilon).pow(labels)
        return torch.where(labels == 0, distances, powers)


class HSCMethod(_HypersphereMethod):
    """Hypersphere classification: normal latents around 0, labelled anomalies anywhere else.

    Args:
        settings: ``None``: pseudo-Huber.
    """

    Settings: ClassVar[type] = HSCSettings
    needs_anomalies: ClassVar[bool] = True
    Model: ClassVar[type[Hypersphere]] = HSCModel
    semi_labels: ClassVar[tuple[int, ...]] = SEMI_LABELS

    @equation("ruff2021_thesis", "Eq. (2.20)")
    def losses(self, model: Hypersphere, distances: Tensor, labels: Tensor | None) -> Tensor:
        """Return ``(B,)`` losses: the cross entropy of p = exp(-h), h for a normal."""
        if labels is None:
            return distances
        weights = torch.where(labels == 0, 1.0, self.settings.eta)
        return weights * torch.where(labels < 0, outside(distances), distances)


@equation("ruff2021_thesis", "Eq. (2.10)")
def soft_boundary(distances: Tensor, radius: Tensor, nu: float) -> Tensor:
    """Return R^2 + 1/nu max(0, d - R^2), ``(B,)``, of ``(B,)`` squared distances."""
    square = radius.square()
    return square + (distances - square).clamp_min(0) / nu


@equation("ruff2021_thesis", "Proposition 4")
def radius_of(distances: Tensor, nu: float) -> Tensor:
    """Return the radius that minimises the soft boundary's objective for ``(n,)`` squared distances.

    At most a share nu of them is beyond it, and at least that share is beyond or on it. The quantile is one
    of the distances, not between two; the released code's may be.

    Examples:
        >>> radius_of(torch.tensor([9.0, 1.0, 16.0, 4.0]), 0.25)
        tensor(3.)
    """
    allowed = min(int(nu * len(distances)), len(distances) - 1)
    return distances.sort(descending=True).values[allowed].sqrt()


def refuse_other_labels(labels: Tensor) -> None:
    """Refuse ``(n,)`` numbers that training rows end with and that are no labels.

    Raises:
        SettingsError: One is none.
    """
    if not torch.isin(labels, torch.tensor(SEMI_LABELS, dtype=labels.dtype)).all():
        raise SettingsError(
            "training rows must end with -1 (anomaly), 0 (no label) or 1 (normal), but some end with "
            f"numbers from {labels.min():g} to {labels.max():g}"
        )


def outside(h: Tensor) -> Tensor:
    """Return -log(1 - exp(-h)) of h >= 0, accurate for small and for large h; 13.8 at 0."""
    h = h + NEAR_ZERO
    # Each form where it is the accurate one; both are finite everywhere, as their derivatives are.
    return torch.where(h < 0.6931, -torch.log(-torch.expm1(-h)), -torch.log1p(-torch.exp(-h)))


def away_from_zero(centre: Tensor) -> Tensor:
    """Return a centre none of whose entries is within 0.1 of 0.

    Examples:
        >>> away_from_zero(torch.tensor([0.3, 0.02, -0.05, 0.0]))
        tensor([ 0.3000,  0.1000, -0.1000,  0.1000])
    """
    sides = torch.where(centre < 0, -MARGIN, MARGIN)
    return torch.where(centre.abs() < MARGIN, sides, centre)


def check_labels(model: Hypersphere, rows: Any) -> None:
    """Refuse training rows whose labels are none, or that are anomalies alone.

    Raises:
        SettingsError: They are.
    """
    normals = 0
    for block in rows.blocks():
        x, labels = model.split(torch.from_numpy(block))
        normals += len(x) if labels is None else int((labels >= 0).sum())
        if labels is not None:
            refuse_other_labels(labels)
    if not normals:
        raise SettingsError(
            f"all {len(rows)} training samples are labelled anomalies; there is no normal one to learn from"
        )


__all__ = [
    "DeepSADMethod",
    "DeepSADSettings",
    "DeepSVDDMethod",
    "DeepSVDDSettings",
    "HSCMethod",
    "HSCSettings",
    "away_from_zero",
    "outside",
    "radius_of",
    "soft_boundary",
]
