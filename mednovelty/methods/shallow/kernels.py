"""What compares samples by a kernel, ``k(x, y) = exp(-gamma ||x - y||^2)``.

``ocsvm``        s(x) = rho - sum_i alpha_i k(x, x_i); with this kernel the same as SVDD
``kernel_pca``   s(x) = || phi(x) - mean_i phi(x_i) ||^2 - sum_j f_j(x)^2 (Hoffmann 2007), f_j the coordinates
                 along the components: the error of reconstruction in feature space
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mednovelty.methods.shallow.base import ShallowMethod, ShallowModel
from mednovelty.methods.shallow.points import WithPoints, squared_distances
from mednovelty.methods.shallow.preparing import put, register_count
from mednovelty.methods.shallow.settings import KernelPCASettings, OneClassSVMSettings
from mednovelty.types import SampleScores


class _WithKernel(WithPoints):
    """A model that compares by ``exp(-gamma ||x - y||^2)``.

    Attributes:
        gamma: As settings or the samples say.
    """

    gamma: Tensor

    def reserve(self, width: int) -> None:
        """Register points and gamma."""
        super().reserve(width)
        self.register_buffer("gamma", torch.ones(()))

    def gamma_for(self, rows: np.ndarray) -> float:
        """Return gamma: that of the settings, or 1 over the summed variance, scikit-learn's ``scale``."""
        if self.settings.gamma != "scale":
            return float(self.settings.gamma)
        variance = rows.shape[1] * rows.var()
        return 1 / variance if variance > 0 else 1.0

    def kernel(self, z: Tensor) -> Tensor:
        """Return ``(B, n)`` values of the kernel."""
        return torch.exp(-self.gamma * squared_distances(z, self.normals()))


class OneClassSVM(_WithKernel):
    """How far outside of the boundary around most samples, in feature space.

    Attributes:
        weights: ``(n,)`` alpha of each support vector.
        offset: rho; on the boundary the score is 0.
    """

    weights: Tensor
    offset: Tensor

    def reserve(self, width: int) -> None:
        """Register support vectors and their weights."""
        super().reserve(width)
        self.register_buffer("weights", torch.zeros(self.settings.samples))
        self.register_buffer("offset", torch.zeros(()))

    def estimator(self, rows: np.ndarray, seed: int) -> Any:
        """Return the fitted machine."""
        from sklearn.svm import OneClassSVM as Machine

        return Machine(kernel="rbf", gamma=self.gamma_for(rows), nu=self.settings.nu).fit(rows)

    def take(self, fitted: Any, rows: np.ndarray) -> None:
        """Take the support vectors."""
        self.keep(fitted.support_vectors_)
        put(self.weights, fitted.dual_coef_[0])
        self.offset.fill_(fitted.offset_[0])
        self.gamma.fill_(fitted.gamma)

    def of(self, z: Tensor) -> SampleScores:
        """Return ``(B,)`` scores, above 0 outside of the boundary."""
        return self.offset - self.kernel(z) @ self.weights[: int(self.kept)]

    def facts(self) -> dict[str, Any]:
        """Return gamma and how many support vectors there are."""
        return {"gamma": float(self.gamma), "support_vectors": int(self.kept)}

    def words(self) -> str:
        """Return the same in words."""
        return f"a one-class SVM of {int(self.kept):,} support vectors, gamma {float(self.gamma):.4g}"


class OneClassSVMMethod(ShallowMethod):
    """One-class support vector machine; novel is what lies outside of its boundary."""

    Settings: ClassVar[type] = OneClassSVMSettings
    Model: ClassVar[type[ShallowModel]] = OneClassSVM
    name: ClassVar[str] = "ocsvm"


class KernelPCA(_WithKernel):
    """Squared error of reconstruction in feature space.

    Far from all samples it approaches a bound, 1 and the mean of the kernel over pairs of samples.

    Attributes:
        coordinates: ``(n, q)`` weights of the samples in each component.
        used: How many components there are.
        row_means: ``(n,)`` mean of the kernel over each sample's row.
        mean: Mean of those.
        explained: Share of the variance in feature space.
    """

    coordinates: Tensor
    used: Tensor
    row_means: Tensor
    mean: Tensor
    explained: Tensor

    def reserve(self, width: int) -> None:
        """Register points and components."""
        super().reserve(width)
        samples = self.settings.samples
        room = min(samples, self.settings.kernel_components)
        self.register_buffer("coordinates", torch.zeros(samples, room))
        self.register_buffer("row_means", torch.zeros(samples))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("explained", torch.zeros(()))
        register_count(self, "used", room)

    def estimator(self, rows: np.ndarray, seed: int) -> Any:
        """Return the fitted components, all of them."""
        from sklearn.decomposition import KernelPCA as Components

        return Components(kernel="rbf", gamma=self.gamma_for(rows), random_state=seed).fit(rows)

    def take(self, fitted: Any, rows: np.ndarray) -> None:
        """Take the components that keep a share of the variance."""
        self.keep(rows)
        self.gamma.fill_(fitted.gamma)
        points = torch.from_numpy(rows)
        every = torch.exp(-fitted.gamma * squared_distances(points, points))
        put(self.row_means, every.mean(1))
        self.mean.fill_(every.mean())
        values = np.maximum(fitted.eigenvalues_, 0)
        values = values[values > 1e-12 * max(values.max(initial=0), 1e-300)]
        along = np.cumsum(values) / max(values.sum(), 1e-300)
        most, share = min(len(values), self.coordinates.shape[1]), self.settings.variance
        count = most if share is None else min(int(np.searchsorted(along, share, side="right")) + 1, most)
        put(self.coordinates, fitted.eigenvectors_[:, :count] / np.sqrt(values[:count]))
        self.used.fill_(count)
        self.explained.fill_(min(float(along[count - 1]), 1.0) if count else 0.0)

    def of(self, z: Tensor) -> SampleScores:
        """Return ``(B,)`` squared errors, without a unit."""
        count = int(self.kept)
        kernel = self.kernel(z)
        means = kernel.mean(1)
        centred = kernel - means[:, None] - self.row_means[:count] + self.mean
        inside = (centred @ self.coordinates[:count, : int(self.used)]).square().sum(1)
        return 1 - 2 * means + self.mean - inside

    def facts(self) -> dict[str, Any]:
        """Return gamma, how many components there are, and the share of the variance along them."""
        return {
            "gamma": float(self.gamma),
            "components": int(self.used),
            "explained": float(self.explained),
        }

    def words(self) -> str:
        """Return the same in words."""
        return (
            f"{int(self.used)} kernel components, gamma {float(self.gamma):.4g}, explain "
            f"{float(self.explained):.1%} of the variance in feature space"
        )


class KernelPCAMethod(ShallowMethod):
    """Kernel principal component analysis; novel is what its components reconstruct badly."""

    Settings: ClassVar[type] = KernelPCASettings
    Model: ClassVar[type[ShallowModel]] = KernelPCA
    name: ClassVar[str] = "kernel_pca"


__all__ = ["KernelPCA", "KernelPCAMethod", "OneClassSVM", "OneClassSVMMethod"]
