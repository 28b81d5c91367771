"""What anomalies are planted in, what comes out, and what a family of them promises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from mednovelty.errors import SettingsError
from mednovelty.nn.planted_diffusion import B0_S_PER_MM2

if TYPE_CHECKING:
    from mednovelty.anomalies.outlines import Outlines


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """How the channels of diffusion samples were measured.

    Attributes:
        bvalues_s_per_mm2: ``(C,)``.
        directions: ``(C, 3)`` unit vectors; anything where b = 0. Their axes do not matter here.
        divisors: ``(C,)``: a sample's channels are its signals over these; None: they are the signals. A
            factor of a voxel's own, as its scan's mean intensity, does not matter.
        divided_by_b0: Whether each voxel's signals were divided by its own signal at b = 0.
    """

    bvalues_s_per_mm2: Tensor
    directions: Tensor
    divisors: Tensor | None = None
    divided_by_b0: bool = False

    def __post_init__(self) -> None:
        count = len(self.bvalues_s_per_mm2)
        if self.directions.shape != (count, 3) or (
            self.divisors is not None and self.divisors.shape != (count,)
        ):
            raise SettingsError(
                f"{count} b-values need ({count}, 3) directions and ({count},) divisors, got "
                f"{tuple(self.directions.shape)} and {_shape(self.divisors)}", code="anomalies.acquisition",
            )  # fmt: skip
        if not (self.divided_by_b0 or (self.bvalues_s_per_mm2 <= B0_S_PER_MM2).any()):
            raise SettingsError(
                "there is no volume at b = 0 to compare signals with, and they were not divided by one; "
                "anomalies of diffusion need either", code="anomalies.acquisition",
            )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Host:
    """Normal samples that anomalies are planted in.

    Attributes:
        images: ``(B, C, *space)``: voxels have no axes of space, slices two, windows and volumes three.
        mask: ``(B, *space)`` bool: where anomalies may lie, brain or body.
        spacing_mm: Distance of two voxels along each axis: ``(axes,)``, or ``(B, axes)`` where samples
            differ.
        gradients: Of diffusion samples.
        outlines: Of real lesions, for shapes that ask for them.
        donors: ``(N, C, *space)`` samples of which foreign tissue is taken; None: ``images``.
        donor_mask: ``(N, *space)`` bool; None: ``mask``.
        own: ``(B,)`` which donor each sample is itself; None: they stand in the same order.
    """

    images: Tensor
    mask: Tensor
    spacing_mm: Tensor | tuple[float, ...] = ()
    gradients: Gradients | None = None
    outlines: Outlines | None = None
    donors: Tensor | None = None
    donor_mask: Tensor | None = None
    own: Tensor | None = None

    def __post_init__(self) -> None:
        n, channels, *space = self.images.shape
        if self.mask.shape != (n, *space) or self.mask.dtype != torch.bool:
            raise SettingsError(
                f"samples {tuple(self.images.shape)} need a mask {(n, *space)} of bool, got "
                f"{tuple(self.mask.shape)} of {self.mask.dtype}", code="anomalies.host",
            )  # fmt: skip
        spacing = torch.as_tensor(self.spacing_mm, dtype=torch.float32, device=self.images.device)
        if spacing.shape not in ((len(space),), (n, len(space))) or not (spacing > 0).all():
            raise SettingsError(
                f"anomalies are measured in mm: samples of {len(space)} axes need ({len(space)},) or "
                f"({n}, {len(space)}) spacings above 0, got {spacing.tolist()}", code="anomalies.host",
            )  # fmt: skip
        object.__setattr__(self, "spacing_mm", spacing.expand(n, len(space)))
        if self.gradients is not None and len(self.gradients.bvalues_s_per_mm2) != channels:
            raise SettingsError(
                f"samples of {channels} channels cannot have {len(self.gradients.bvalues_s_per_mm2)} "
                "b-values", code="anomalies.acquisition",
            )  # fmt: skip

    @property
    def space(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return tuple(self.images.shape[2:])

    @property
    def spacings_mm(self) -> Tensor:
        """``(B, axes)``."""
        assert isinstance(self.spacing_mm, Tensor)
        return self.spacing_mm

    def take(self, chosen: Tensor) -> Host:
        """Return some of the samples, ``(b,)`` indices; foreign tissue still comes from all of them."""
        own = torch.arange(len(self.images), device=self.images.device) if self.own is None else self.own
        return replace(
            self,
            images=self.images[chosen],
            mask=self.mask[chosen],
            spacing_mm=self.spacings_mm[chosen],
            donors=self.images if self.donors is None else self.donors,
            donor_mask=self.mask if self.donor_mask is None else self.donor_mask,
            own=own[chosen],
        )


class Planted(NamedTuple):
    """Samples with anomalies in them."""

    images: Tensor
    """``(B, C, *space)``; as they were where the profile is 0."""
    profile: Tensor
    """``(B, *space)`` in 0 to 1: how much of a voxel is changed; 0 outside the mask."""
    truth: Tensor
    """``(B, *space)`` bool, inside the mask: what counts as anomaly. A sample can have none."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What a family takes to be abnormal: all that a detector trained on it can know.

    Attributes:
        words: With units.
        ranges: The same as JSON types; names end in units.
    """

    words: str
    ranges: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Anomaly(Protocol):
    """A family of anomalies: a frozen dataclass of settings whose defaults work.

    ``mednovelty.testing.anomaly_contracts`` holds a family to what is written here.
    """

    needs: ClassVar[Literal["images", "diffusion"]]
    """Samples with two or three axes of space; or with ``gradients``, of any number of axes."""

    def plant(self, host: Host, generator: Generator) -> Planted:
        """Return each sample with an anomaly of its own; the samples given stay as they are.

        Args:
            host: The samples.
            generator: On their device; the same state gives the same anomalies.

        Raises:
            SettingsError: The samples are of another kind (``anomalies.kind``).
        """

    def describe(self) -> Prior:
        """Return what is planted, in words and numbers."""


def planted(host: Host, images: Tensor, profile: Tensor, truth: Tensor | None = None) -> Planted:
    """Return changed images where there is a profile and the samples' own elsewhere.

    Args:
        host: The samples.
        images: ``(B, C, *space)``, changed; what they show where the profile is 0 does not matter.
        profile: ``(B, *space)``.
        truth: ``(B, *space)`` bool; None: where the profile is above a half.
    """
    profile = (profile * host.mask).clamp(0, 1)
    made = torch.where((profile > 0)[:, None], images.to(host.images.dtype), host.images)
    return Planted(made, profile, profile > 0.5 if truth is None else truth & host.mask)


def refuse_kind(family: Anomaly, host: Host) -> None:
    """Raise where samples are not of the kind that a family needs.

    Raises:
        SettingsError: They are not (``anomalies.kind``).
    """
    needs, name = family.needs, type(family).__name__
    if needs == "images" and len(host.space) not in (2, 3):
        raise SettingsError(
            f"anomalies {name}: are planted in slices, windows and volumes, not in samples of "
            f"{len(host.space)} axes of space", code="anomalies.kind",
        )  # fmt: skip
    if needs == "diffusion" and host.gradients is None:
        raise SettingsError(
            f"anomalies {name}: are planted in diffusion samples whose b-values are known; these have none",
            code="anomalies.kind",
        )


def check_range(name: str, pair: tuple[float, float], lowest: float = 0.0, highest: float = math.inf) -> None:
    """Raise unless a pair is a range within bounds.

    Raises:
        SettingsError: It is not.
    """
    low, high = pair
    if not lowest <= low <= high <= highest or not math.isfinite(high):
        most = "" if highest == math.inf else f" to {highest:g}"
        raise SettingsError(f"{name} must be two rising numbers from {lowest:g}{most}, got {low} and {high}")


def moments(host: Host) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel in the mask, ``(B, C, 1...)`` each; 0 of none."""
    weights = host.mask[:, None].flatten(2).float()
    count = weights.sum(2, keepdim=True).clamp_min(1)
    values = host.images.float().flatten(2)
    mean = (weights * values).sum(2, keepdim=True) / count
    spread = ((weights * (values - mean).square()).sum(2, keepdim=True) / count).sqrt()
    shape = (*host.images.shape[:2], *[1] * len(host.space))
    return mean.reshape(shape), spread.reshape(shape)


def _shape(values: Tensor | None) -> Any:
    return None if values is None else tuple(values.shape)


__all__ = [
    "Anomaly",
    "Gradients",
    "Host",
    "Planted",
    "Prior",
    "check_range",
    "moments",
    "planted",
    "refuse_kind",
]
