"""Slices and lesions, one a row, for those who count for themselves: ``slices.tsv``, ``lesions.tsv``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from mednovelty.text import cell

if TYPE_CHECKING:
    from mednovelty.evaluation.result import Evaluation

SLICE_COLUMNS = ("scan", "axis", "slice", "brain_voxels", "lesion_voxels", "class", "score", "mean", "max",
                 "kind")  # fmt: skip
LESION_COLUMNS = ("scan", "lesion", "voxels", "volume_mm3", "x_mm", "y_mm", "z_mm", "score",
                  "threshold_from", "threshold", "share_flagged", "found", "kind")  # fmt: skip


def slices_tsv(found: Evaluation) -> str:
    """Return one row a slice with brain voxels and score; slices are counted from 0."""
    return _tsv(SLICE_COLUMNS, _slices(found))


def lesions_tsv(found: Evaluation) -> str:
    """Return one row a lesion, score and threshold, of the scans that thresholds are reported on.

    Lesions are counted from 0; where their centre is, is in RAS+ millimetres.
    """
    return _tsv(LESION_COLUMNS, _lesions(found))


def _slices(found: Evaluation) -> Iterator[Sequence[Any]]:
    for score, rated in found.rated.items():
        kind = "; ".join(found.kinds(score))
        for id, one in sorted(rated.slices.items()):
            classes = one.classes(found.settings.diseased_voxels)
            numbers = zip(one.index.tolist(), one.brain.tolist(), one.annotated.tolist(), classes,
                          one.mean.tolist(), one.max.tolist(), strict=True)  # fmt: skip
            for index, brain, annotated, name, mean, highest in numbers:
                yield id, "IJK"[one.axis], index, brain, annotated, name, score, mean, highest, kind


def _lesions(found: Evaluation) -> Iterator[Sequence[Any]]:
    for score, rated in found.rated.items():
        kind = "; ".join(found.kinds(score))
        for id, points in sorted(rated.detections.items()):
            for point, one in points.items():
                told = zip(found.lesions[id], one.shares.tolist(), one.found.tolist(), strict=True)
                for number, (facts, share, is_found) in enumerate(told):
                    yield (id, number, *facts.values(), score, point, one.threshold, share, int(is_found),
                           kind)  # fmt: skip


_cell = cache(cell)
"""The same ids and names stand in row after row."""


def _tsv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_shown(value) for value in row] for row in rows)
    return text.getvalue()


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return _cell(value)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.7g}"
    return value
