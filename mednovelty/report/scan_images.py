"""The images of a scored scan, read and checked, from which its page is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.report.scan_facts import MapFacts, ScanFacts


@dataclass(frozen=True, eq=False)
class ReadScore:
    """One score as it was read.

    Attributes:
        facts: What is told of it.
        values: ``(I, J, K)``.
        inside: ``(n,)`` of them in the mask.
        minus_log10_p: ``(n,)`` in the mask; None where it is not calibrated.
        segmented: ``(I, J, K)`` bool; None where it is not segmented.
    """

    facts: MapFacts
    values: np.ndarray
    inside: np.ndarray
    minus_log10_p: np.ndarray | None
    segmented: np.ndarray | None

    @property
    def threshold(self) -> float | None:
        """The lowest score that is segmented; None where nothing is."""
        if self.segmented is None or not self.segmented.any():
            return None
        return float(self.values[self.segmented].min())


@dataclass(frozen=True, eq=False)
class ReadScan:
    """The images of a scan that its page is drawn from.

    Attributes:
        facts: What is told of it.
        background: ``(I, J, K)``.
        mask: ``(I, J, K)`` bool.
        affine: ``(4, 4)`` to RAS+ millimetres.
        scores: One for each of ``facts.maps``.
    """

    facts: ScanFacts
    background: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    scores: Sequence[ReadScore]


def read_scan_images(facts: ScanFacts) -> ReadScan:
    """Read what a page is drawn from.

    Raises:
        ScanError: An image cannot be read, or a map is not finite somewhere in the mask.
        GeometryError: Images do not lie on the same voxels.
    """
    background, mask, affine = facts.images()
    scores = []
    for one in facts.maps:
        values = one.values()
        if values.shape != mask.shape:
            raise ScanError(
                f"{one.novelty.name}: has {values.shape} voxels, the mask {mask.shape}; "
                f"score {facts.id} again",
                code="geometry.shape",
            )
        p = one.minus_log10_p()
        inside = values[mask]
        if not np.isfinite(inside).all():
            raise ScanError(
                f"{one.novelty.name}: {np.count_nonzero(~np.isfinite(inside))} voxels of the mask are not "
                f"finite; score {facts.id} again",
                code="maps.nan",
            )
        scores.append(ReadScore(one, values, inside, None if p is None else p[mask], one.segmented()))
    return ReadScan(facts, background, mask, affine, scores)


__all__ = ["ReadScan", "ReadScore", "read_scan_images"]
