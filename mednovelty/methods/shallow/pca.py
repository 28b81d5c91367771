"""Principal component analysis: what lies beside the plane that the normals lie in.

    s(x) = || x - xbar - A A' (x - xbar) ||^2

with the orthonormal axes A that keep a share of the variance, in units of the standardised values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from torch import Tensor

from mednovelty.methods.shallow.base import ShallowMethod, ShallowModel
from mednovelty.methods.shallow.preparing import Preparation, PrincipalAxes
from mednovelty.methods.shallow.settings import PCASettings, defaults
from mednovelty.nn.point import Point
from mednovelty.types import Latents, Samples, SampleScores


class PCA(ShallowModel):
    """Axes through the mean sample; see the module's docstring.

    Attributes:
        latents: Z, the most axes there may be; coordinates along those that are not used are 0.
    """

    def prepared_by(self, settings: PCASettings) -> Preparation:
        """Return what prepares samples; the axes are the model itself."""
        self.latents = min(self.channels, settings.samples, settings.components)
        return Preparation(self.channels, standardise=settings.standardise, room=self.latents)

    @property
    def axes(self) -> PrincipalAxes:
        """The directions in which normals vary."""
        return cast(PrincipalAxes, self.preparation.reduction)

    def encode(self, x: Samples) -> Point:
        """Return coordinates along the axes, ``(B, Z)``, of ``(B, D)`` samples."""
        return Point(self.axes.project(self.preparation.standardised(x)))

    def decode(self, z: Latents) -> Point:
        """Return the samples in the plane, ``(B, D)``, in the units of x, of ``(B, Z)`` coordinates."""
        return Point(self.preparation.restored(z))

    def novelty(self, x: Samples) -> SampleScores:
        """Return ``(B,)`` squared distances to the plane, in squared standardised units."""
        x = self.preparation.standardised(x)
        return (x - self.axes.back(self.axes.project(x))).square().sum(1)

    def reserve(self, width: int) -> None:
        """There is nothing besides the axes."""

    def estimator(self, rows: Any, seed: int) -> None:
        """The axes have been fitted when samples were prepared."""

    def take(self, fitted: Any, rows: Any) -> None:
        """There is nothing to take."""

    def of(self, z: Tensor) -> SampleScores:
        """Return what coordinates alone say of distances to the plane: nothing."""
        return z.new_zeros(len(z))

    def facts(self) -> dict[str, Any]:
        """Return how many components there are, and the share of the variance along them."""
        return {"components": int(self.axes.used), "explained": float(self.axes.kept)}

    def words(self) -> str:
        """Return the same in words."""
        return (
            f"{int(self.axes.used)} principal components explain {float(self.axes.kept):.1%} of the variance"
        )


class PCAMethod(ShallowMethod):
    """Principal component analysis; novel is what lies beside the plane of the components."""

    Settings: ClassVar[type] = PCASettings
    Model: ClassVar[type[ShallowModel]] = PCA
    offers: ClassVar[tuple[str, ...]] = ("novelty",)
    lacks: ClassVar[tuple[str, ...]] = ()
    name: ClassVar[str] = "pca"

    @classmethod
    def defaults(cls, *, images: bool) -> dict[str, Any]:
        """Return settings of fitting, as a tree, where they are not everybody's."""
        more: Sequence[str] = ["rec_error"] if images else ["reconstruction_error"]
        return defaults(cls.Settings, ["outlier_score", *more], images=images)


__all__ = ["PCA", "PCAMethod"]
