"""Slice by slice: is there a lesion in this slice, asked of the mean and of the highest score of its voxels.

After zimmerer2019: a slice without any annotated voxel is healthy, one with at least 20 is diseased, and what
lies between is left out. Slices without brain voxels have no score and are left out, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mednovelty.metrics import Ranking

REDUCTIONS = ("mean", "max")


@dataclass(frozen=True, slots=True, eq=False)
class SliceCounts:
    """How many voxels of what each slice of a scan has, along one axis.

    Attributes:
        brain: ``(s,)`` voxels in the brain mask.
        annotated: ``(s,)`` voxels in the lesion mask, also those outside the brain mask.
    """

    brain: np.ndarray
    annotated: np.ndarray

    @classmethod
    def along(cls, axis: int, brain: np.ndarray, annotated: np.ndarray) -> SliceCounts:
        """Count ``(I, J, K)`` bool masks in the slices along an axis."""
        others = tuple(other for other in range(3) if other != axis)
        return cls(np.count_nonzero(brain, axis=others), np.count_nonzero(annotated, axis=others))


@dataclass(frozen=True, slots=True, eq=False)
class SliceScores:
    """The scores of one scan's slices that have brain voxels.

    Attributes:
        axis: 0, 1 or 2: along which they are cut.
        index: ``(s,)`` which slice, from 0.
        brain: ``(s,)`` voxels in the brain mask.
        annotated: ``(s,)`` voxels in the lesion mask.
        mean: ``(s,)`` float64, over the brain voxels.
        max: ``(s,)`` float64, over the brain voxels.
    """

    axis: int
    index: np.ndarray
    brain: np.ndarray
    annotated: np.ndarray
    mean: np.ndarray
    max: np.ndarray

    @classmethod
    def of(cls, axis: int, scores: np.ndarray, brain: np.ndarray, counts: SliceCounts) -> SliceScores:
        """Reduce a map to a number a slice.

        Args:
            axis: Along which the slices are cut.
            scores: ``(n,)`` in the row-major order of the brain's voxels.
            brain: ``(I, J, K)`` bool.
            counts: Of the same axis.
        """
        others = tuple(other for other in range(3) if other != axis)
        # Maps of other programs may hold whole numbers, which know no infinity.
        volume = np.zeros(brain.shape, dtype=np.result_type(scores, np.float32))
        volume[brain] = scores
        sums = volume.sum(axis=others, dtype=np.float64)
        volume[~brain] = -np.inf
        index = np.flatnonzero(counts.brain)
        return cls(axis, index, counts.brain[index], counts.annotated[index],
                   sums[index] / counts.brain[index],
                   volume.max(axis=others)[index].astype(np.float64))  # fmt: skip

    def classes(self, diseased_voxels: int) -> list[str]:
        """Return ``healthy``, ``diseased`` or ``dropped`` for each slice."""
        return [
            "healthy" if not n else "diseased" if n >= diseased_voxels else "dropped" for n in self.annotated
        ]

    def ranking(self, reduction: str, diseased_voxels: int) -> Ranking:
        """Return the slices' scores as a ranking: the diseased are its lesions; the dropped are not in it."""
        values = getattr(self, reduction)
        return Ranking(
            np.sort(values[self.annotated >= diseased_voxels]), np.sort(values[self.annotated == 0])
        )
