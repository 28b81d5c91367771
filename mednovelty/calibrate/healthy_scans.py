"""What healthy scans show at each of many thresholds of p, each held against the others.

A scan that helped to make a null looks too normal in it. So the p-values here are those that a scan has
among the other calibration scans.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from mednovelty.calibrate.largest_clusters import largest_clusters
from mednovelty.calibrate.scan_maps import ScanMaps
from mednovelty.segment.clusters import CONNECTIVITIES

THRESHOLDS_P = 10.0 ** np.linspace(-0.3, -6.0, 60)
"""From 0.5 down to 1e-6."""


@dataclass(frozen=True, eq=False)
class HealthyScans:
    """One score over S calibration scans at T thresholds of p, ``THRESHOLDS_P``.

    Attributes:
        largest_mm3: ``(S, 3, T)`` volume of the largest cluster by connectivity, ``CONNECTIVITIES``.
        novel_mm3: ``(S, T)`` volume of all voxels at or below a threshold.
        share: ``(S, T)`` the same as a share of the scan's voxels.
        max_score: ``(S,)`` highest score.
        min_p: ``(S,)`` lowest p-value.
    """

    largest_mm3: np.ndarray
    novel_mm3: np.ndarray
    share: np.ndarray
    max_score: np.ndarray
    min_p: np.ndarray

    def __post_init__(self) -> None:
        count, steps = len(self.max_score), len(THRESHOLDS_P)
        shapes = [(count, len(CONNECTIVITIES), steps), (count, steps), (count, steps), (count,), (count,)]
        for field, shape in zip(fields(self), shapes, strict=True):
            array = getattr(self, field.name)
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{field.name} must be {shape} finite numbers")

    @classmethod
    def measured(cls, scans: Iterable[tuple[ScanMaps, np.ndarray, np.ndarray]]) -> HealthyScans:
        """Return what scans show: of each its maps, ``(n,)`` scores and ``(n,)`` p-values."""
        rows = [_row(maps, values, p) for maps, values, p in scans]
        return cls(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})

    def largest_cluster_mm3(self, p: float, connectivity: int = 26) -> np.ndarray:
        """Return ``(S,)`` volumes of each scan's largest cluster at a threshold.

        At the next threshold above it that was looked at: clusters there are as large or larger.

        Raises:
            ValueError: Another connectivity than 6, 18 and 26.
        """
        if connectivity not in CONNECTIVITIES:
            raise ValueError(f"connectivity must be one of {CONNECTIVITIES}, got {connectivity}")
        return self.largest_mm3[:, CONNECTIVITIES.index(connectivity), step_of(p)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what the constructor takes."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> HealthyScans:
        """Return it from its arrays.

        Raises:
            KeyError: One is missing.
            ValueError: One has another shape, or values that are not finite.
        """
        return cls(**{field.name: np.asarray(arrays[field.name], np.float64) for field in fields(cls)})


def step_of(p: float) -> int:
    """Return which of ``THRESHOLDS_P`` stands for p: the lowest that is not below it, or the highest.

    Examples:
        >>> step_of(0.9), step_of(1e-9), THRESHOLDS_P[[step_of(0.05), step_of(0.05) + 1]].round(4).tolist()
        (0, 59, [0.0542, 0.0434])
    """
    return max(0, int(np.count_nonzero(p * (1 - 1e-9) <= THRESHOLDS_P)) - 1)


def _row(maps: ScanMaps, values: np.ndarray, p: np.ndarray) -> dict[str, np.ndarray]:
    novel = np.searchsorted(np.sort(p), THRESHOLDS_P, "right")
    largest = [largest_clusters(p, maps.mask, THRESHOLDS_P, kind) for kind in CONNECTIVITIES]
    return {
        "largest_mm3": np.stack(largest) * maps.voxel_mm3,
        "novel_mm3": novel * maps.voxel_mm3,
        "share": novel / len(p),
        "max_score": np.asarray(values.max(), np.float64),
        "min_p": np.asarray(p.min()),
    }


def left_out_p(
    values: Sequence[np.ndarray],
    regions: Sequence[np.ndarray | None],
    own: Sequence[int] = (),
    counted: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Return the conformal p-values of each scan among the others, exactly: of S scans S arrays ``(n,)``.

    Args:
        values: ``(n,)`` scores of each scan.
        regions: ``(n,)`` regions of each; None: all are one.
        own: The regions that have a null of their own; all other voxels are held against all voxels.
        counted: ``(m,)`` of each scan, what others are held against; None: the scores of all its voxels.
            Regions are of voxels: there can be none of their own then.

    A single scan has no others: its voxels are held against each other, themselves among them.

    Examples:
        >>> [p.tolist() for p in left_out_p([np.array([1.0, 5.0]), np.array([2.0, 3.0, 4.0])], [None, None])]
        [[1.0, 0.25], [0.6666666666666666, 0.6666666666666666, 0.6666666666666666]]
    """
    whole = values if counted is None else counted
    found = _against_others(whole, [np.ones(len(one), bool) for one in whole], values)
    for region in own:
        inside = [np.asarray(one) == region for one in regions]
        of_region = _against_others(values, inside, [one[at] for one, at in zip(values, inside, strict=True)])
        for p, at, better in zip(found, inside, of_region, strict=True):
            p[at] = better
    return found


def floor_p(voxels: Sequence[int]) -> float:
    """Return the smallest p-value that each of S scans can have among the others, by their counts of voxels.

    That of scan i is ``1 / (N - n_i + 1)``, see ``left_out_p``; so it is that of the largest scan.

    Examples:
        >>> floor_p([10, 70, 20]) == 1 / 31, floor_p([9]) == 2 / 10
        (True, True)
    """
    if len(voxels) == 1:
        return 2.0 / (voxels[0] + 1.0)
    return 1.0 / (sum(voxels) - max(voxels) + 1.0)


def _against_others(
    values: Sequence[np.ndarray], inside: Sequence[np.ndarray], asked: Sequence[np.ndarray]
) -> list[np.ndarray]:
    each = [np.sort(one[at]) for one, at in zip(values, inside, strict=True)]
    whole, alone = np.sort(np.concatenate(each)), len(each) == 1
    found = []
    for mine, scores in zip(each, asked, strict=True):
        count = len(whole) - np.searchsorted(whole, scores, "left")
        total = len(whole)
        if not alone:
            count -= len(mine) - np.searchsorted(mine, scores, "left")
            total -= len(mine)
        found.append((1.0 + count) / (total + 1.0))
    return found


__all__ = ["THRESHOLDS_P", "HealthyScans", "floor_p", "left_out_p", "step_of"]
