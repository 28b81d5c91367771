"""Relevance in numbers: of which gradient of a diffusion scan there is how much, and of which shell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from mednovelty.preprocess.qspace import B0_THRESHOLD_S_PER_MM2

MOST_NOVEL = 0.01
"""Share of voxels that a table's last column is about."""


@dataclass(frozen=True, slots=True)
class GradientRelevance:
    """One gradient's relevance.

    Attributes:
        gradient: From 0, in the detector's order.
        volume: Which of the scan's file it is, from 0.
        bvalue_s_per_mm2: Of the detector's scheme.
        x: Of the direction, in world (RAS+) axes; 0 where b=0.
        y: The same.
        z: The same.
        shell_s_per_mm2: The b-value to the next hundred, 0 where b=0.
        mean_relevance: Over voxels.
        mean_relevance_most_novel: Over those with the highest scores.
    """

    gradient: int
    volume: int
    bvalue_s_per_mm2: float
    x: float
    y: float
    z: float
    shell_s_per_mm2: int
    mean_relevance: float
    mean_relevance_most_novel: float


@dataclass(frozen=True, slots=True)
class ShellRelevance:
    """One shell's relevance.

    Attributes:
        shell_s_per_mm2: As in ``GradientRelevance``.
        gradients: How many it has.
        mean_relevance: Over its gradients and voxels.
        mean_relevance_most_novel: Over its gradients and the voxels with the highest scores.
        share: Of the relevance of all shells, as sums of moduli.
        share_most_novel: The same of the voxels with the highest scores.
    """

    shell_s_per_mm2: int
    gradients: int
    mean_relevance: float
    mean_relevance_most_novel: float
    share: float
    share_most_novel: float


def table_of(rows: Sequence[Any]) -> str:
    """Return dataclasses of numbers as a table of tab-separated values with a head."""
    head = "\t".join(field.name for field in fields(rows[0]))
    lines = ["\t".join(f"{value:.8g}" for value in astuple(row)) for row in rows]
    return "\n".join([head, *lines]) + "\n"


def of_shells(gradients: Sequence[GradientRelevance]) -> tuple[ShellRelevance, ...]:
    """Return the relevance of shells, from that of gradients, by rising b-value."""
    rows = []
    columns = ("mean_relevance", "mean_relevance_most_novel")
    totals = [math.fsum(abs(getattr(row, column)) for row in gradients) for column in columns]
    for shell in sorted({row.shell_s_per_mm2 for row in gradients}):
        own = [row for row in gradients if row.shell_s_per_mm2 == shell]
        values = [[getattr(row, column) for row in own] for column in columns]
        means = [math.fsum(each) / len(own) for each in values]
        shares = [
            math.fsum(map(abs, each)) / total if total else 0.0
            for each, total in zip(values, totals, strict=True)
        ]
        rows.append(ShellRelevance(shell, len(own), *means, *shares))
    return tuple(rows)


def shell_of(bvalue_s_per_mm2: float) -> int:
    """Return a b-value to the next hundred, 0 where it counts as b=0."""
    return 0 if bvalue_s_per_mm2 <= B0_THRESHOLD_S_PER_MM2 else round(bvalue_s_per_mm2 / 100) * 100


__all__ = ["MOST_NOVEL", "GradientRelevance", "ShellRelevance", "of_shells", "shell_of", "table_of"]
