"""Families of anomalies of images: a shape and what changes in it.

With x the image, p the profile of a shape, m and s mean and standard deviation of the tissue (the channel in
the mask) and what else is drawn for each sample:

=============== ==================================================================================
``hyperintense`` x + a s p, a the strength
``hypointense``  x - a s p
``texture``      x + a s p n, n a random field of mean 0 in the shape and standard deviation 1
``noise``        x + a s p w, w white noise
``blur``         x + p (blur(x) - x), the blur over tissue alone
``inversion``    x + p ((2 m - x) - x): dark becomes bright, at the same distance from the mean
=============== ==================================================================================

Foreign tissue is in ``foreign``, deformations in ``deformation``, changes of diffusion in ``diffusion``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from mednovelty.anomalies.geometry import columns, log_uniform, signs, smooth_fields, uniform
from mednovelty.anomalies.host import Host, Planted, Prior, check_range, moments, planted, refuse_kind
from mednovelty.anomalies.shapes import Shapes
from mednovelty.errors import SettingsError
from mednovelty.nn import planted_anomalies
from mednovelty.nn.smoothing import Blur

Channels = Literal["together", "independent"]


@dataclass(frozen=True)
class Shaped:
    """What the families of this module share: one shape a sample, and a change within it.

    Attributes:
        shapes: Where.
    """

    shapes: Shapes = field(default_factory=Shapes)

    needs: ClassVar[Literal["images", "diffusion"]] = "images"

    def plant(self, host: Host, generator: Generator) -> Planted:
        """Return each sample with an anomaly of its own; see ``host.Anomaly``."""
        refuse_kind(self, host)
        profile = self.shapes.draw(host, generator)
        return planted(host, self.change(host, profile, generator), profile)

    def change(self, host: Host, profile: Tensor, generator: Generator) -> Tensor:
        """Return ``(B, C, *space)`` changed images; what they are where the profile is 0 does not matter."""
        raise TypeError(f"{type(self).__name__} does not say what changes")

    def words(self) -> str:
        """Return what changes, in words."""
        return ""

    def describe(self) -> Prior:
        """Return what is planted, in words and numbers."""
        return Prior(f"{self.shapes.describe()}: {self.words()}", asdict(self))


@dataclass(frozen=True)
class Hyperintense(Shaped):
    """Regions brighter than the tissue was.

    Attributes:
        shapes: Where.
        strength_sd: Weakest and strongest change, in standard deviations of the tissue of a sample.
        channels: ``together``: one strength for all channels of a sample; ``independent``: one each.
        signs: For each channel a number from -1 to 1: times the strength, so that ``(1, -0.5)`` is brighter
            in the first contrast and half as much darker in the second, as lesions are on FLAIR and T1.
            Empty: 1 for all.
    """

    strength_sd: tuple[float, float] = (0.5, 3.0)
    channels: Channels = "together"
    signs: tuple[float, ...] = ()

    direction: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("strength_sd", self.strength_sd, 0.01, 100)
        object.__setattr__(self, "signs", _checked_signs(self.signs))

    def change(self, host: Host, profile: Tensor, generator: Generator) -> Tensor:
        """Return images with the contrast of the tissue raised."""
        n, channels = host.images.shape[:2]
        if self.signs and len(self.signs) != channels:
            raise SettingsError(
                f"signs={self.signs} is for {len(self.signs)} channels; the samples have {channels}"
            )
        strength = _strengths((n, channels), self.strength_sd, self.channels, generator)
        strength = strength * torch.tensor(self.signs or (1.0,) * channels, device=host.images.device)
        strength = strength * self.draw_direction((n, channels), generator)
        _, spread = moments(host)
        return host.images + columns(strength, len(host.space)) * spread * profile[:, None]

    def draw_direction(self, shape: tuple[int, int], generator: Generator) -> Tensor | int:
        """Return 1 where strengths are brighter, -1 where they are darker."""
        return self.direction

    def words(self) -> str:
        """Return strengths and directions in words."""
        told = {1: "brighter", -1: "darker", 0: "brighter or darker"}[self.direction]
        if self.signs:
            parts = [_told(sign, self.direction) for sign in self.signs]
            told = "; ".join(f"channel {i}: {part}" for i, part in enumerate(parts))
        return (
            f"{_range(self.strength_sd)} standard deviations of the tissue {told}, channels {self.channels}"
        )


@dataclass(frozen=True)
class Hypointense(Hyperintense):
    """Regions darker than the tissue was."""

    direction: ClassVar[int] = -1


@dataclass(frozen=True)
class Contrast(Hyperintense):
    """Regions brighter or darker than the tissue was, of independent channels each its own way."""

    direction: ClassVar[int] = 0

    def draw_direction(self, shape: tuple[int, int], generator: Generator) -> Tensor | int:
        """Return signs: of a sample, or of each of its channels."""
        return signs((shape[0], 1 if self.channels == "together" else shape[1]), generator)


@dataclass(frozen=True)
class Texture(Shaped):
    """Regions with a grain of their own, neither brighter nor darker on average.

    Attributes:
        shapes: Where.
        strength_sd: Standard deviation of the grain, in those of the tissue.
        grain_mm: Finest and coarsest: standard deviation of the Gaussian that makes noise into grain.
    """

    strength_sd: tuple[float, float] = (0.5, 2.0)
    grain_mm: tuple[float, float] = (0.5, 2.0)

    def __post_init__(self) -> None:
        check_range("strength_sd", self.strength_sd, 0.01, 100)
        check_range("grain_mm", self.grain_mm, 0.01, 100)

    def change(self, host: Host, profile: Tensor, generator: Generator) -> Tensor:
        """Return images with grain; the same in all channels."""
        n, axes = len(host.images), len(host.space)
        sigma = log_uniform((n,), *self.grain_mm, generator)
        grain = smooth_fields(host.space, host.spacings_mm, sigma, generator)
        weight = columns(profile.flatten(1).sum(1).clamp_min(1e-12), axes)
        grain = grain - columns((grain * profile).flatten(1).sum(1), axes) / weight
        strength = columns(uniform((n,), *self.strength_sd, generator), axes + 1)
        return host.images + strength * moments(host)[1] * (profile * grain)[:, None]

    def words(self) -> str:
        """Return strength and grain in words."""
        return (
            f"a grain of {_range(self.grain_mm)} mm with {_range(self.strength_sd)} standard deviations of "
            "the tissue"
        )


@dataclass(frozen=True)
class Noise(Shaped):
    """Regions with more noise, of each voxel its own.

    Attributes:
        shapes: Where.
        strength_sd: Standard deviation of the noise, in those of the tissue.
    """

    strength_sd: tuple[float, float] = (0.3, 1.5)

    def __post_init__(self) -> None:
        check_range("strength_sd", self.strength_sd, 0.01, 100)

    def change(self, host: Host, profile: Tensor, generator: Generator) -> Tensor:
        """Return images with noise, of each channel its own."""
        strength = uniform((len(host.images),), *self.strength_sd, generator)
        noise = torch.randn(host.images.shape, generator=generator, device=generator.device)
        return (
            host.images + columns(strength, len(host.space) + 1) * moments(host)[1] * profile[:, None] * noise
        )

    def words(self) -> str:
        """Return the strength in words."""
        return f"white noise of {_range(self.strength_sd)} standard deviations of the tissue"


@dataclass(frozen=True)
class LocalBlur(Shaped):
    """Regions that are blurred.

    Attributes:
        shapes: Where.
        sigma_mm: Of the Gaussian.
    """

    sigma_mm: tuple[float, float] = (2.0, 6.0)

    def __post_init__(self) -> None:
        check_range("sigma_mm", self.sigma_mm, 0.01, 100)

    def change(self, host: Host, profile: Tensor, generator: Generator) -> Tensor:
        """Return images blurred over their tissue: nothing of the background comes in."""
        sigmas = uniform((len(host.images),), *self.sigma_mm, generator)
        blurred = torch.empty_like(host.images, dtype=torch.float32)
        for i, sigma in enumerate(sigmas):
            blur = Blur(tuple((sigma / host.spacings_mm[i]).tolist()), truncate=3.0)
            tissue = host.mask[i : i + 1].float()
            blurred[i] = blur(host.images[i].float() * tissue) / blur(tissue).clamp_min(1e-6)
        return host.images + profile[:, None] * (blurred - host.images)

    def words(self) -> str:
        """Return how strongly in words."""
        return f"blurred by a Gaussian of {_range(self.sigma_mm)} mm (standard deviation)"


@dataclass(frozen=True)
class Inversion(Shaped):
    """Regions whose contrast is turned round: what is brighter than the tissue's mean becomes darker."""

    def change(self, host: Host, profile: Tensor, generator: Generator) -> Tensor:
        """Return images mirrored at the mean of each channel."""
        return host.images + 2 * profile[:, None] * (moments(host)[0] - host.images)

    def words(self) -> str:
        """Return it in words."""
        return "contrast inverted about the mean of the tissue"


@dataclass(frozen=True)
class Confetti:
    """Squares of random shades, as planted for FCDD (Ruff 2021, 3.1.2); sizes are shares of the image."""

    needs: ClassVar[Literal["images", "diffusion"]] = "images"

    def plant(self, host: Host, generator: Generator) -> Planted:
        """Return each sample with squares, cut off at the mask; see ``nn.planted_anomalies.confetti``."""
        refuse_kind(self, host)
        made = planted_anomalies.confetti(host.images, generator)
        return planted(host, made.images, made.profile, made.where)

    def describe(self) -> Prior:
        """Return what is planted, in words and numbers."""
        low, high = (size / planted_anomalies.SIDE_PX for size in planted_anomalies.SQUARES_PX)
        ranges: dict[str, Any] = {"side_share": [low, high]}
        words = (
            f"squares of {100 * low:.1f} to {100 * high:.0f} % of the image's side, shades up to its range"
        )
        return Prior(words, ranges)


@dataclass(frozen=True)
class Lesions:
    """Uneven ellipsoids, each contrast brighter or darker; sizes are shares of the image.

    Attributes:
        signs: For each channel, or one for all, 1: brighter, -1: darker, 0: unchanged, or a share between.
            Empty: either way.
        radius_share: Smallest and largest radius, shares of the image's shortest side; at least a pixel.
    """

    signs: tuple[float, ...] = ()
    radius_share: tuple[float, float] = planted_anomalies.RADII

    needs: ClassVar[Literal["images", "diffusion"]] = "images"

    def __post_init__(self) -> None:
        check_range("radius_share", self.radius_share, 1e-3, 0.5)
        object.__setattr__(self, "signs", _checked_signs(self.signs))

    def plant(self, host: Host, generator: Generator) -> Planted:
        """Return each sample with one to three of them; see ``nn.planted_anomalies.lesions``."""
        refuse_kind(self, host)
        channels = host.images.shape[1]
        if len(self.signs) not in (0, 1, channels):
            raise SettingsError(
                f"signs={self.signs} is for {len(self.signs)} channels; the samples have {channels}"
            )
        made = planted_anomalies.lesions(
            host.images, generator, tissue=host.mask, signs=self.signs, radii=self.radius_share
        )
        return planted(host, made.images, made.profile, made.where)

    def describe(self) -> Prior:
        """Return what is planted, in words and numbers."""
        (low, high), strength = self.radius_share, planted_anomalies.STRENGTH
        by_contrast = f"times {', '.join(f'{sign:g}' for sign in self.signs)} by contrast"
        way = {(): "brighter or darker, each contrast its own way", (1.0,): "brighter", (-1.0,): "darker"}
        words = (
            f"1 to {planted_anomalies.MOST_LESIONS} uneven ellipsoids with radii of {100 * low:g} to "
            f"{100 * high:g} % of the image's shortest side: {_range(strength)} standard deviations "
            f"{way.get(self.signs, by_contrast)}"
        )
        ranges = {"radius_share": [low, high], "strength_sd": list(strength), "signs": list(self.signs)}
        return Prior(words, ranges)


def _checked_signs(signs: tuple[float, ...]) -> tuple[float, ...]:
    if not all(-1 <= sign <= 1 for sign in signs) or (signs and not any(signs)):
        raise SettingsError(f"signs must be from -1 to 1, one a channel and not all 0, got {tuple(signs)}")
    return tuple(signs)


def _strengths(
    shape: tuple[int, int], span: tuple[float, float], channels: Channels, generator: Generator
) -> Tensor:
    n, count = shape
    return uniform((n, 1 if channels == "together" else count), *span, generator).expand(n, count)


def _range(pair: tuple[float, float]) -> str:
    return f"{pair[0]:g} to {pair[1]:g}"


def _told(sign: float, direction: int) -> str:
    if not sign:
        return "unchanged"
    way = direction * (1 if sign > 0 else -1)
    told = {1: "brighter", -1: "darker", 0: "either way" if sign > 0 else "the other way"}[way]
    return told if abs(sign) == 1 else f"{told} by {abs(sign):g} of it"


__all__ = [
    "Confetti",
    "Contrast",
    "Hyperintense",
    "Hypointense",
    "Inversion",
    "Lesions",
    "LocalBlur",
    "Noise",
    "Shaped",
    "Texture",
]
