"""One Gaussian, a mixture of them, and the least ellipsoid around most of the normals.

``gaussian``                     s(x) = (x - mu)' S^+ (x - mu), the squared Mahalanobis distance
``minimum_volume_ellipsoid``     the same with the robust mu and S of the fast minimum covariance determinant
                                 (Rousseeuw and Van Driessen 1999), corrected and reweighted
``gaussian_mixture``             s(x) = -log sum_k pi_k N(x; mu_k, S_k), in nats
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mednovelty.errors import SettingsError
from mednovelty.methods.shallow.base import ShallowMethod, ShallowModel
from mednovelty.methods.shallow.preparing import put, register_count
from mednovelty.methods.shallow.settings import EllipsoidSettings, GaussianSettings, MixtureSettings
from mednovelty.types import SampleScores

MOST_SQUARED = 1 << 26
"""Numbers in a matrix of covariances, 256 MiB."""


class Gaussian(ShallowModel):
    """Squared Mahalanobis distance to the mean sample.

    Along directions in which no training sample varies, and of which there are always some where there are
    fewer samples than values, the empirical covariance says nothing and the distance counts nothing.

    Attributes:
        mean: ``(W,)``.
        whitening: ``(W, W)`` L with ``L L' = S^+``, so that the distance is ``||(x - mu) L||^2``.
        rank: Directions that count.
    """

    mean: Tensor
    whitening: Tensor
    rank: Tensor

    def reserve(self, width: int) -> None:
        """Register mean and whitening."""
        refuse_width(width, 1)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("whitening", torch.zeros(width, width))
        register_count(self, "rank", width)

    def estimator(self, rows: np.ndarray, seed: int) -> Any:
        """Return the fitted covariance."""
        from sklearn.covariance import EmpiricalCovariance, LedoitWolf

        kind = LedoitWolf if self.settings.covariance == "ledoit_wolf" else EmpiricalCovariance
        return kind().fit(rows)

    def take(self, fitted: Any, rows: np.ndarray) -> None:
        """Take the mean, and a root of the precision."""
        values, vectors = np.linalg.eigh(np.atleast_2d(fitted.precision_))
        # A pseudo-inverse has zeros, and rounding makes some of them negative.
        kept = values > np.finfo(np.float64).eps * len(values) * max(values.max(), 0)
        put(self.mean, fitted.location_)
        put(self.whitening, vectors * np.sqrt(np.where(kept, values, 0)))
        self.rank.fill_(int(kept.sum()))

    def of(self, z: Tensor) -> SampleScores:
        """Return ``(B,)`` squared Mahalanobis distances, without a unit; W on average over a Gaussian."""
        width = z.shape[1]
        return ((z - self.mean[:width]) @ self.whitening[:width, :width]).square().sum(1)

    def facts(self) -> dict[str, Any]:
        """Return how many directions count."""
        return {"rank": int(self.rank)}

    def words(self) -> str:
        """Return the same in words."""
        return f"a Gaussian of rank {int(self.rank)} in {self.preparation.width} dimensions"


class GaussianMethod(ShallowMethod):
    """A Gaussian; novel is what is far from its mean, in its own standard deviations."""

    Settings: ClassVar[type] = GaussianSettings
    Model: ClassVar[type[ShallowModel]] = Gaussian
    name: ClassVar[str] = "gaussian"


class Ellipsoid(Gaussian):
    """Squared Mahalanobis distance to the centre of most of the samples, outliers left out."""

    def estimator(self, rows: np.ndarray, seed: int) -> Any:
        """Return the fitted robust covariance.

        Raises:
            SettingsError: Too few samples to enclose anything, or most of them are the same.
        """
        from sklearn.covariance import MinCovDet

        enclosed, width = int(self.settings.support * len(rows)), rows.shape[1]
        if enclosed <= width:
            raise SettingsError(
                f"minimum_volume_ellipsoid: {enclosed} of {len(rows)} samples span no ellipsoid in {width} "
                "dimensions; set method_settings.reduce or components to see fewer, or give more samples"
            )
        robust = MinCovDet(support_fraction=self.settings.support, random_state=seed)
        try:
            return robust.fit(rows)
        except ValueError as error:
            raise SettingsError(f"minimum_volume_ellipsoid: {' '.join(str(error).split())}") from error

    def words(self) -> str:
        """Return what was fitted, in words."""
        return (
            f"the ellipsoid of least volume around {self.settings.support:.0%} of the samples, of rank "
            f"{int(self.rank)} in {self.preparation.width} dimensions"
        )


class EllipsoidMethod(ShallowMethod):
    """The least ellipsoid around most normals; novel is what is far outside."""

    Settings: ClassVar[type] = EllipsoidSettings
    Model: ClassVar[type[ShallowModel]] = Ellipsoid
    name: ClassVar[str] = "minimum_volume_ellipsoid"


class Mixture(ShallowModel):
    """Negative log density under a mixture of Gaussians with full covariances.

    Attributes:
        used: K, how many there are; fewer than asked for where there are fewer samples.
        means: ``(K, W)``.
        whitenings: ``(K, W, W)`` L_k with ``L_k L_k' = S_k^-1``.
        heights: ``(K,)`` log of weight and of the determinant of L_k.
    """

    used: Tensor
    means: Tensor
    whitenings: Tensor
    heights: Tensor

    def reserve(self, width: int) -> None:
        """Register the Gaussians."""
        count = self.settings.gaussians
        refuse_width(width, count)
        register_count(self, "used", count)
        self.register_buffer("means", torch.zeros(count, width))
        self.register_buffer("whitenings", torch.zeros(count, width, width))
        self.register_buffer("heights", torch.zeros(count))

    def estimator(self, rows: np.ndarray, seed: int) -> Any:
        """Return the fitted mixture."""
        from sklearn.mixture import GaussianMixture

        count = min(self.settings.gaussians, len(rows))
        mixture = GaussianMixture(count, reg_covar=self.settings.regularisation, random_state=seed)
        try:
            return mixture.fit(rows)
        except ValueError as error:
            raise SettingsError(
                f"gaussian_mixture: {' '.join(str(error).split())}; raise method_settings.regularisation or "
                "set fewer gaussians"
            ) from error

    def take(self, fitted: Any, rows: np.ndarray) -> None:
        """Take weights, means and roots of the precisions."""
        roots = fitted.precisions_cholesky_
        put(self.means, fitted.means_)
        put(self.whitenings, roots)
        put(self.heights, np.log(fitted.weights_) + np.log(roots.diagonal(axis1=1, axis2=2)).sum(1))
        self.used.fill_(len(roots))

    def of(self, z: Tensor) -> SampleScores:
        """Return ``(B,)`` negative log densities, in nats."""
        width = z.shape[1]
        parts = []
        for mean, root, height in zip(
            self.means, self.whitenings, self.heights[: int(self.used)], strict=False
        ):
            squared = ((z - mean[:width]) @ root[:width, :width]).square().sum(1)
            parts.append(height - squared / 2)
        return width / 2 * math.log(2 * math.pi) - torch.stack(parts, dim=1).logsumexp(1)

    def facts(self) -> dict[str, Any]:
        """Return how many Gaussians there are."""
        return {"gaussians": int(self.used)}

    def words(self) -> str:
        """Return the same in words."""
        return f"a mixture of {int(self.used)} Gaussians in {self.preparation.width} dimensions"


class MixtureMethod(ShallowMethod):
    """A mixture of Gaussians; novel is what has little density."""

    Settings: ClassVar[type] = MixtureSettings
    Model: ClassVar[type[ShallowModel]] = Mixture
    name: ClassVar[str] = "gaussian_mixture"


def refuse_width(width: int, matrices: int) -> None:
    """Refuse samples of more numbers than covariances can be kept of."""
    if matrices * width**2 > MOST_SQUARED:
        raise SettingsError(
            f"covariances of {width:,} values are too many numbers; set method_settings.reduce, as 0.95, to "
            "see principal components instead"
        )


__all__ = [
    "Ellipsoid",
    "EllipsoidMethod",
    "Gaussian",
    "GaussianMethod",
    "Mixture",
    "MixtureMethod",
]
