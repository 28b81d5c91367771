"""Probabilistic principal component analysis, fitted exactly and evaluated exactly.

Tipping and Bishop, "Probabilistic Principal Component Analysis", JRSS B 61(3), 1999.

    x = W z + mu + noise,   z ~ N(0, I_q),   noise ~ N(0, sigma^2 I_d)
    p(x) = N(mu, C),        C = W W' + sigma^2 I                                    Eq. (3), (4)
    p(z|x) = N(M^-1 W' (x - mu), sigma^2 M^-1),   M = W' W + sigma^2 I              Eq. (6)
    W = U_q (L_q - sigma^2 I)^(1/2)                                                 Eq. (7)
    sigma^2 = mean of the d - q smallest eigenvalues of the sample covariance       Eq. (8)

With the rotation R = I of Eq. (7) M is the diagonal matrix of the q largest eigenvalues, so the
posterior has a diagonal covariance: the family a VAE's encoder draws from. A VAE with a linear
decoder therefore has this model as its optimum, and its ELBO can reach, not pass, this likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mednovelty.errors import SettingsError
from mednovelty.papers import equation

_SMALLEST_NOISE = 1e-10
"""Least noise variance, as a share of the largest eigenvalue: repeated channels leave none at all."""


@dataclass(frozen=True, slots=True)
class ProbabilisticPCA:
    """The fitted model, in the basis in which the posterior's covariance is diagonal.

    Args:
        mean: ``(C,)`` float64, mu.
        axes: ``(C, q)`` float64, orthonormal eigenvectors, largest eigenvalue first.
        variances: ``(q,)`` float64, the eigenvalues (they include the noise).
        noise_variance: sigma^2, in squared units of x.
    """

    mean: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    noise_variance: float

    @classmethod
    @equation("tipping1999", "Eq. (8)")
    def fit(cls, mean: np.ndarray, covariance: np.ndarray, components: int) -> ProbabilisticPCA:
        """Return the maximum-likelihood model.

        Args:
            mean: ``(C,)`` mean of the samples.
            covariance: ``(C, C)`` covariance of the samples, divided by their number, not by one less.
            components: q, from 1 to C - 1.

        Raises:
            SettingsError: Too few or too many components, or moments that are not finite.
        """
        channels = len(mean)
        if not 1 <= components < channels:
            raise SettingsError(
                f"probabilistic PCA of {channels} channels takes 1 to {channels - 1} components, "
                f"not {components}"
            )
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise SettingsError("mean or covariance of the training voxels is not finite; check their values")
        values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
        values, vectors = values[::-1], vectors[:, ::-1]
        least = _SMALLEST_NOISE * max(values[0], np.finfo(np.float64).tiny)
        noise = max(float(values[components:].mean()), least)
        variances = np.maximum(values[:components], noise)
        return cls(np.asarray(mean, np.float64), _signed(vectors[:, :components]), variances, noise)

    @property
    @equation("tipping1999", "Eq. (7)")
    def loadings(self) -> np.ndarray:
        """Return W, ``(C, q)``, in units of x."""
        return self.axes * np.sqrt(self.variances - self.noise_variance)

    @equation("tipping1999", "Eq. (6)")
    def posterior(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean ``(B, q)`` and standard deviation ``(q,)`` of p(z|x) for ``(B, C)`` samples."""
        centred = np.asarray(x, np.float64) - self.mean
        scale = np.sqrt(self.variances - self.noise_variance) / self.variances
        return centred @ (self.axes * scale), np.sqrt(self.noise_variance / self.variances)

    @equation("tipping1999", "Eq. (4)")
    def log_likelihood(self, x: np.ndarray) -> np.ndarray:
        """Return log p(x), ``(B,)``, in nats, for ``(B, C)`` samples; ``-C/2 log(2 pi)`` included."""
        centred = np.asarray(x, np.float64) - self.mean
        inside = centred @ self.axes
        shrink = 1.0 - self.noise_variance / self.variances
        squared = ((centred**2).sum(1) - (inside**2 * shrink).sum(1)) / self.noise_variance
        channels, components = self.axes.shape
        log_det = np.log(self.variances).sum() + (channels - components) * math.log(self.noise_variance)
        return -0.5 * (channels * math.log(2 * math.pi) + log_det + squared)


def _signed(vectors: np.ndarray) -> np.ndarray:
    """Return the eigenvectors with their largest entry positive: LAPACK leaves the sign open."""
    largest = np.abs(vectors).argmax(0)
    return vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])


__all__ = ["ProbabilisticPCA"]
