"""Which lesions a score finds, by their volume: a threshold that finds large ones may find no small one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mednovelty.evaluation.result import Evaluation

EDGES_MM3 = (10.0, 100.0, 1_000.0, 10_000.0)
"""Between the classes of volume; a ball of 10 mm3 has a diameter of 2.7 mm, one of 10,000 of 27 mm."""
POINT = "fpr_1_in_100"
"""At which threshold lesions are counted: the same share of healthy voxels is flagged by all scores."""


@dataclass(frozen=True, slots=True)
class FoundOf:
    """How many of some lesions were found."""

    found: int
    lesions: int

    @property
    def share(self) -> str:
        """The share that was found, in words."""
        return f"{self.found / self.lesions:.0%}" if self.lesions else "-"


def found_by_size(found: Evaluation, point: str = POINT) -> dict[str, dict[str, FoundOf]]:
    """Return by score, and by class of volume in ascending order, how many lesions were found.

    Classes without a lesion are left out; so are scores without that threshold.

    Args:
        found: Of scans with lesions.
        point: One of ``lesions.POINTS``.
    """
    counted: dict[str, np.ndarray] = {}
    for score, rated in found.rated.items():
        table = np.zeros((len(EDGES_MM3) + 1, 2), np.int64)
        for id, points in rated.detections.items():
            if point in points:
                sizes = np.array([facts["volume_mm3"] for facts in found.lesions[id]], np.float64)
                np.add.at(table, np.digitize(sizes, EDGES_MM3), np.stack([points[point].found, sizes > 0], 1))
        if table.any():
            counted[score] = table
    there = np.any([table[:, 1] > 0 for table in counted.values()], axis=0) if counted else []
    return {
        score: {
            name: FoundOf(*map(int, row))
            for name, row, is_there in zip(class_names(), table, there, strict=True)
            if is_there
        }
        for score, table in counted.items()
    }


def class_names() -> list[str]:
    """Return what the classes of volume are called.

    Examples:
        >>> class_names()[:2], class_names()[-1]
        (['below 10 mm3', '10 to 100 mm3'], 'from 10,000 mm3')
    """
    inner = [f"{low:,.0f} to {high:,.0f} mm3" for low, high in pairwise(EDGES_MM3)]
    return [f"below {EDGES_MM3[0]:,.0f} mm3", *inner, f"from {EDGES_MM3[-1]:,.0f} mm3"]


def as_json(table: Mapping[str, Mapping[str, FoundOf]]) -> dict[str, dict[str, dict[str, int]]]:
    """Return the table as JSON types."""
    return {
        score: {name: {"found": one.found, "lesions": one.lesions} for name, one in row.items()}
        for score, row in table.items()
    }


__all__ = ["EDGES_MM3", "POINT", "FoundOf", "as_json", "class_names", "found_by_size"]
