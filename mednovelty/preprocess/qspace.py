"""The acquisition a detector knows, and putting a scan's channels into its order.

A q-space sample is a vector of signals, one a gradient; two scans can be compared only when their
vectors list the same gradients in the same order. Directions are compared in world (RAS+) axes, so
that the storage order of the voxels does not matter, and up to their sign, since diffusion has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from mednovelty.errors import SchemeError
from mednovelty.scan import Scan

if TYPE_CHECKING:
    from dipy.core.gradients import GradientTable

B0_THRESHOLD_S_PER_MM2 = 50.0
FAR = 1e6


@dataclass(frozen=True, slots=True)
class GradientScheme:
    """The gradients of the training scans, in order; refuses or reorders every other scan.

    Args:
        bvalues_s_per_mm2: ``(C,)``.
        directions: ``(C, 3)`` unit vectors in world (RAS+) axes; zeros where b=0.
        bvalue_tolerance: Relative difference of b-values that still counts as the same.
        angle_tolerance_deg: Angle between two directions that still counts as the same; heads are
            turned, and motion correction turns gradients with them.
    """

    bvalues_s_per_mm2: tuple[float, ...]
    directions: tuple[tuple[float, float, float], ...] = field(repr=False)
    bvalue_tolerance: float = 0.05
    angle_tolerance_deg: float = 5.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "bvalues_s_per_mm2", tuple(float(b) for b in self.bvalues_s_per_mm2))
        object.__setattr__(self, "directions", tuple(tuple(map(float, d)) for d in self.directions))

    @classmethod
    def of(cls, gradients: GradientTable, **tolerances: float) -> GradientScheme:
        """Return the scheme of a gradient table."""
        bvalues, directions = _cleaned(gradients)
        return cls(tuple(bvalues), tuple(map(tuple, directions)), **tolerances)

    @classmethod
    def usual(cls, tables: Sequence[GradientTable], **tolerances: float) -> GradientScheme:
        """Return the scheme that most of some gradient tables fit; of equals, the first one's."""
        schemes: list[GradientScheme] = []
        count: list[int] = []
        for table in tables:
            fits = (i for i, scheme in enumerate(schemes) if scheme.accepts(table))
            found = next(fits, len(schemes))
            if found == len(schemes):
                schemes.append(cls.of(table, **tolerances))
                count.append(0)
            count[found] += 1
        return schemes[int(np.argmax(count))]

    def accepts(self, gradients: GradientTable) -> bool:
        """Return whether a scan with these gradients can be put in order."""
        try:
            self.order_of(gradients, "")
        except SchemeError:
            return False
        return True

    def __call__(self, scan: Scan) -> Scan:
        """Return the scan with its channels in the detector's order.

        Raises:
            SchemeError: The scan was acquired differently; the message says what differs.
        """
        if scan.gradients is None:
            raise SchemeError(f"{scan.id}: has no gradients; the detector knows {self.describe()}")
        order = self.order_of(scan.gradients, scan.id)
        if np.array_equal(order, np.arange(len(order))):
            return scan
        return scan.take(order, self.table())

    def order_of(self, gradients: GradientTable, name: str) -> np.ndarray:
        """Return ``(C,)`` indices into the scan's channels, one for each gradient of the scheme."""
        bvalues, directions = _cleaned(gradients)
        own_b, own_d = np.array(self.bvalues_s_per_mm2), np.array(self.directions)
        if describe(bvalues) != describe(own_b) and len(bvalues) != len(own_b):
            raise self._refusal(name, bvalues)
        slack = np.maximum(B0_THRESHOLD_S_PER_MM2, self.bvalue_tolerance * own_b)
        same_b = np.abs(own_b[:, None] - bvalues) <= slack[:, None]
        same_b &= (own_b[:, None] > B0_THRESHOLD_S_PER_MM2) == (bvalues > B0_THRESHOLD_S_PER_MM2)
        angle = np.rad2deg(np.arccos(np.clip(np.abs(own_d @ directions.T), 0, 1)))
        angle[own_b <= B0_THRESHOLD_S_PER_MM2] = 0  # a b=0 has no direction
        if np.all(np.diag(same_b) & (np.diag(angle) <= self.angle_tolerance_deg)):
            return np.arange(len(own_b))
        # Ties, as among b=0 volumes, are broken by the order in the file.
        cost = np.where(same_b, angle, FAR) + 1e-6 * np.arange(len(bvalues))
        rows, order = linear_sum_assignment(cost)
        worst = int(np.argmax(cost[rows, order]))
        if cost[worst, order[worst]] >= FAR:
            raise self._refusal(name, bvalues)
        if angle[worst, order[worst]] > self.angle_tolerance_deg:
            raise SchemeError(
                f"{name}: no gradient lies within {self.angle_tolerance_deg:g} degrees of the detector's "
                f"gradient {worst} (b={own_b[worst]:.0f}, {np.round(own_d[worst], 3).tolist()}); the nearest "
                f"that is left is {angle[worst, order[worst]]:.1f} degrees away",
                code="scheme.directions",
            )
        return order

    def _refusal(self, name: str, bvalues: np.ndarray) -> SchemeError:
        return SchemeError(
            f"{name}: acquired with {describe(bvalues)}; the detector knows {self.describe()}. Train a "
            "detector on scans of this acquisition",
            code="scheme.shells",
        )

    def describe(self) -> str:
        """Return the scheme in words: volumes, number of b=0, shells."""
        return describe(np.array(self.bvalues_s_per_mm2))

    def table(self) -> GradientTable:
        """Return dipy's gradient table of the scheme."""
        from dipy.core.gradients import gradient_table

        return gradient_table(
            np.array(self.bvalues_s_per_mm2),
            bvecs=np.array(self.directions),
            b0_threshold=B0_THRESHOLD_S_PER_MM2,
        )

    def state(self) -> dict[str, Any]:
        """Return the gradients and tolerances."""
        return {
            "bvalues_s_per_mm2": list(self.bvalues_s_per_mm2),
            "directions": [list(direction) for direction in self.directions],
            "bvalue_tolerance": self.bvalue_tolerance,
            "angle_tolerance_deg": self.angle_tolerance_deg,
        }


def describe(bvalues_s_per_mm2: Sequence[float] | np.ndarray) -> str:
    """Return a scheme in words.

    Examples:
        >>> describe([0, 0, 1000, 995, 2000])
        '5 volumes: 2 at b=0, 2 at b=1000, 1 at b=2000'
    """
    bvalues = np.asarray(bvalues_s_per_mm2, dtype=float)
    rounded = np.where(bvalues <= B0_THRESHOLD_S_PER_MM2, 0, np.round(bvalues, -2)).astype(int)
    shells = ", ".join(
        f"{count} at b={b}" for b, count in zip(*np.unique(rounded, return_counts=True), strict=True)
    )
    return f"{len(bvalues)} volumes: {shells}"


def _cleaned(gradients: GradientTable) -> tuple[np.ndarray, np.ndarray]:
    """Return b-values and unit directions; directions of b=0 volumes are noise and become zero."""
    bvalues = np.asarray(gradients.bvals, dtype=float)
    directions = np.array(gradients.bvecs, dtype=float)
    directions[bvalues <= B0_THRESHOLD_S_PER_MM2] = 0
    return bvalues, directions
