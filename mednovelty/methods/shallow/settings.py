"""Settings of the shallow baselines, and what they ask of a fit.

Where Ruff (2021) tells a constant it is the default: PCA at 95 % of the variance, bandwidths from 2^0.5 to
2^5 compared by held-out likelihood, 100 trees of 256 samples, an ellipsoid around 90 % of the samples. What
is chosen there on a share of the test set, the kernel width of the one-class SVM, is here what the training
samples' variance says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mednovelty.errors import SettingsError

MOST = {
    "samples": 1_000_000,
    "components": 4096,
    "bandwidths": 256,
    "trees": 10_000,
    "tree_samples": 1 << 14,
    "gaussians": 256,
    "neighbours": 1000,
}
"""Above these a setting is a slip of the pen, or a file that wants all our memory."""
IMAGE_SAMPLES = 2000
TRAINING = {"max_epochs": 0, "validation_voxels": 4096}
"""There are no steps to take; the mean score of as many held-out samples is told."""


@dataclass(frozen=True)
class ShallowSettings:
    """On what a shallow model is fitted.

    Args:
        samples: Most training samples that it is fitted on, drawn evenly over scans.
        standardise: Subtract each value's mean over all training samples and divide by its standard
            deviation, 1 for a value that never changes.
    """

    samples: int = 10_000
    standardise: bool = True

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value = getattr(self, name, 1)
            if not 1 <= value <= most:
                raise SettingsError(f"{name} must be from 1 to {most:,}, got {value}")
        for name in ("reduce", "variance", "nu", "support"):
            value = getattr(self, name, None)
            if value is not None and not 0 < value <= 1:
                raise SettingsError(f"{name} must be above 0 and at most 1, got {value}")


@dataclass(frozen=True)
class ReducedSettings(ShallowSettings):
    """A model that may see principal components instead of the values.

    Args:
        reduce: Share of the variance that they keep; None: the values themselves.
        components: But at most as many.
    """

    reduce: float | None = None
    components: int = 256

    def width_for(self, values: int) -> int:
        """Return how many numbers the model has room for, of samples of so many values."""
        return values if self.reduce is None else min(values, self.samples, self.components)


@dataclass(frozen=True)
class PCASettings(ShallowSettings):
    """Principal component analysis.

    Args:
        variance: Share of the variance that is kept; None: as many components as there may be.
        components: At most as many.
    """

    samples: int = 100_000
    variance: float | None = 0.95
    components: int = 256


@dataclass(frozen=True)
class KernelSettings(ReducedSettings):
    """What compares samples by ``exp(-gamma ||x - y||^2)``.

    Args:
        gamma: A number, or ``scale``: 1 over the summed variance of the training samples' values.
    """

    samples: int = 5000
    gamma: float | Literal["scale"] = "scale"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma != "scale" and not (isinstance(self.gamma, int | float) and 0 < self.gamma < math.inf):
            raise SettingsError(f"gamma must be a finite number above 0, or 'scale', got {self.gamma!r}")


@dataclass(frozen=True)
class KernelPCASettings(KernelSettings):
    """Kernel principal component analysis.

    Args:
        variance: Share of the variance in feature space that is kept; None: as many components as there
            may be.
        kernel_components: At most as many.
    """

    samples: int = 2000
    variance: float | None = 0.95
    kernel_components: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.kernel_components <= MOST["components"]:
            raise SettingsError(
                f"kernel_components must be from 1 to {MOST['components']:,}, got {self.kernel_components}"
            )


@dataclass(frozen=True)
class OneClassSVMSettings(KernelSettings):
    """One-class support vector machine.

    Args:
        nu: At most this share of the training samples is outside, and at least it are support vectors.
    """

    nu: float = 0.1


@dataclass(frozen=True)
class KDESettings(ReducedSettings):
    """Kernel density estimate.

    Args:
        bandwidth: Of the Gaussian kernel; None: of those below the one with the highest likelihood of
            samples left out.
        lowest_log2: Binary logarithm of the least bandwidth compared.
        highest_log2: Of the largest.
        bandwidths: How many are compared, evenly on a logarithmic scale.
        folds: Parts of the samples that are left out in turn.
    """

    samples: int = 5000
    bandwidth: float | None = None
    lowest_log2: float = 0.5
    highest_log2: float = 5.0
    bandwidths: int = 10
    folds: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bandwidth is not None and not 0 < self.bandwidth < math.inf:
            raise SettingsError(f"bandwidth must be a finite number above 0, got {self.bandwidth}")
        if not -32 <= self.lowest_log2 <= self.highest_log2 <= 32:
            raise SettingsError(
                "lowest_log2 must be at most highest_log2, both from -32 to 32, got "
                f"{self.lowest_log2} and {self.highest_log2}"
            )
        if not 2 <= self.folds <= 100:
            raise SettingsError(f"folds must be from 2 to 100, got {self.folds}")

    @property
    def grid(self) -> list[float]:
        """Return the bandwidths compared, ascending."""
        step = (self.highest_log2 - self.lowest_log2) / max(self.bandwidths - 1, 1)
        return [2 ** (self.lowest_log2 + i * step) for i in range(self.bandwidths)]


@dataclass(frozen=True)
class ForestSettings(ShallowSettings):
    """Isolation forest.

    Args:
        trees: How many.
        tree_samples: Samples each tree is grown on.
    """

    samples: int = 100_000
    trees: int = 100
    tree_samples: int = 256


@dataclass(frozen=True)
class GaussianSettings(ReducedSettings):
    """One Gaussian.

    Args:
        covariance: ``empirical``, or ``ledoit_wolf``: shrunk towards a sphere, which never is singular.
    """

    samples: int = 100_000
    covariance: Literal["empirical", "ledoit_wolf"] = "empirical"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.covariance not in ("empirical", "ledoit_wolf"):
            raise SettingsError(f"covariance={self.covariance!r} is neither 'empirical' nor 'ledoit_wolf'")


@dataclass(frozen=True)
class MixtureSettings(ReducedSettings):
    """A mixture of Gaussians.

    Args:
        gaussians: How many.
        regularisation: Added to each variance.
    """

    samples: int = 20_000
    gaussians: int = 8
    regularisation: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.regularisation < math.inf:
            raise SettingsError(f"regularisation must be finite and not below 0, got {self.regularisation}")


@dataclass(frozen=True)
class EllipsoidSettings(ReducedSettings):
    """The least ellipsoid around most of the samples.

    Args:
        support: Share of the samples that it is to enclose.
    """

    samples: int = 5000
    support: float = 0.9


@dataclass(frozen=True)
class LOFSettings(ReducedSettings):
    """Local outlier factor.

    Args:
        neighbours: How many nearest samples are a sample's surroundings.
    """

    neighbours: int = 20


def defaults(settings: type, scores: Sequence[str], *, images: bool) -> dict[str, Any]:
    """Return what a method asks of a fit, as a tree.

    Args:
        settings: Its class of settings.
        scores: What is computed when nothing else is asked for.
        images: Samples are slices or windows: of their values, which have one unit and of which some never
            change outside of the head, none is standardised, and where a model needs few numbers it gets
            principal components.
    """
    own: dict[str, Any] = {"samples": IMAGE_SAMPLES, "standardise": False} if images else {}
    if images and issubclass(settings, ReducedSettings):
        own["reduce"] = 0.95
    if not images and settings is KDESettings:
        # A voxel's channels move together: samples lie closer than the images that the range is for.
        own |= {"lowest_log2": -4.0, "bandwidths": 19}
    return {"scores": list(scores), "train": dict(TRAINING), "method_settings": own}
