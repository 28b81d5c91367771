"""The images of a scored scan, read and checked, from which its page is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.io.guard import shown
from mednovelty.io.mask import read_mask
from mednovelty.io.nifti import read_volume
from mednovelty.report.scan_facts import MapFacts, ScanFacts
from mednovelty.scan import Volume

INSTEAD = "the mask stands for the background, the lighter the deeper inside"


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
        facts: What is told of it, without maps that cannot be used.
        background: ``(I, J, K)``.
        mask: ``(I, J, K)`` bool.
        affine: ``(4, 4)`` to RAS+ millimetres.
        scores: One for each of ``facts.maps``.
        left_out: What of the scan's images cannot be used, and is none of these: which, and why.
    """

    facts: ScanFacts
    background: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    scores: Sequence[ReadScore]
    left_out: Sequence[str] = ()


def read_scan_images(facts: ScanFacts) -> ReadScan:
    """Read what a page is drawn from; a map that cannot be used costs the scan no more than its own part.

    Raises:
        ScanError: The mask, or every map, cannot be used.
        GeometryError: No map lies on the voxels of the mask.
    """
    mask: Volume | None = None
    scores: list[ReadScore] = []
    left_out: dict[str, str] = {}
    errors: list[ScanError] = []
    for one in facts.maps:
        try:
            mask = mask or _mask_of(facts, one)
            scores.append(_score(facts, one, mask))
        except ScanError as error:
            errors.append(error)
            left_out[one.name] = f"{one.name} is left out: {error}"
    if mask is None or not scores:
        raise errors[0]
    background, why = _background(facts, mask)
    if why:
        left_out["background"] = why
    kept = replace(facts, maps=tuple(score.facts for score in scores))
    return ReadScan(kept, background, mask.data[0], mask.affine, scores, list(left_out.values()))


def _mask_of(facts: ScanFacts, one: MapFacts) -> Volume:
    """Return the mask on a map's voxels."""
    first = read_volume(one.novelty)
    mask, _ = read_mask(facts.scored.brain, first.grid, first.name)
    if not mask.any():
        raise ScanError(f"{shown(facts.scored.brain)}: is empty; score {facts.id} again", code="mask.empty")
    return Volume(mask[None], first.affine, facts.scored.brain.name)


def _score(facts: ScanFacts, one: MapFacts, mask: Volume) -> ReadScore:
    inside = mask.data[0]
    values = _on(mask, read_volume(one.novelty), facts)[0]
    p = read_volume(one.names.pvalue) if one.is_calibrated else None
    found = read_volume(one.names.mask) if one.names.mask.is_file() else None
    return ReadScore(
        one,
        values,
        _finite(facts, one.novelty.name, values[inside]),
        None if p is None else _finite(facts, p.name, _on(mask, p, facts)[0][inside]),
        None if found is None else _on(mask, found, facts)[0] > 0,
    )


def _on(mask: Volume, image: Volume, facts: ScanFacts) -> np.ndarray:
    if image.data.shape != mask.data.shape:
        raise ScanError(
            f"{image.name}: has {image.data.shape[1:]} voxels, the mask {mask.data.shape[1:]}; "
            f"score {facts.id} again",
            code="geometry.shape",
        )
    image.grid.check_same(mask.grid, image.name, mask.name)
    return image.data


def _finite(facts: ScanFacts, name: str, inside: np.ndarray) -> np.ndarray:
    if not np.isfinite(inside).all():
        raise ScanError(
            f"{name}: {np.count_nonzero(~np.isfinite(inside))} voxels of the mask are not "
            f"finite; score {facts.id} again",
            code="maps.nan",
        )
    return inside


def _background(facts: ScanFacts, mask: Volume) -> tuple[np.ndarray, str]:
    """Return the background, and why the mask stands for it; empty where it does not, or there is none."""
    instead, path = _depth(mask), facts.background_path
    if not path.is_file():
        return instead, ""
    try:
        found = _on(mask, read_volume(path), facts)[0]
    except ScanError as error:
        return instead, f"{INSTEAD}: {error}"
    if not np.isfinite(found[mask.data[0]]).any():
        return instead, f"{INSTEAD}: {path.name}: no voxel of the mask is finite"
    return found, ""


def _depth(mask: Volume) -> np.ndarray:
    """Return how deep voxels lie in the mask, in mm: one grey would be black in a window of its quantiles."""
    from scipy.ndimage import distance_transform_edt

    spacing_mm = np.linalg.norm(mask.affine[:3, :3], axis=0)
    # What lies at the border of the image is not deep, either.
    depth: np.ndarray = distance_transform_edt(np.pad(mask.data[0], 1), sampling=spacing_mm)
    return depth[1:-1, 1:-1, 1:-1].astype(np.float32)


__all__ = ["ReadScan", "ReadScore", "read_scan_images"]
