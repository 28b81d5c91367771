"""Which null a voxel is held against: one for all, one a label, or one a class of tissue.

A score that is normal at the border of a ventricle is not in deep white matter. ``classes`` are found in the
normals: thirds by mean diffusivity times thirds by anisotropy of diffusion scans, thirds by intensity of
structural ones. They are seen in the voxel itself, so that a lesion that looks like another tissue is held
against that tissue; ``labels``, of an atlas that was brought onto each scan, does not have that weakness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.io.mask import read_on_grid
from mednovelty.io.names import is_image, stem
from mednovelty.preprocess.qspace import B0_THRESHOLD_S_PER_MM2
from mednovelty.scan import Scan

Kind = Literal["one", "classes", "labels"]
DIFFUSION: tuple[str, ...] = ("diffusivity", "anisotropy")
INTENSITY: tuple[str, ...] = ("intensity",)
LEVELS = ("low", "middle", "high")
ENDINGS = ("_dseg", "_labels", "_regions", "_desc-regions_dseg", "")
"""What follows a scan's id in the name of its label image."""
MOST_LABELS = 1_000
_ROWS = 1 << 16


@dataclass(frozen=True)
class Regions:
    """How voxels are told apart.

    Attributes:
        kind: ``one``, ``classes`` or ``labels``.
        features: Of classes, what is looked at.
        cuts: Of classes, for each feature the two bounds between low, middle and high.
    """

    kind: Kind = "one"
    features: tuple[str, ...] = ()
    cuts: tuple[tuple[float, float], ...] = ()

    @classmethod
    def found_in(cls, features: Sequence[np.ndarray], names: Sequence[str]) -> Regions:
        """Return classes with bounds that make thirds of the voxels of normals.

        Args:
            features: ``(F, n)`` of each scan.
            names: Of the F features.
        """
        whole = np.concatenate(list(features), axis=1)
        cuts = [tuple(float(cut) for cut in np.quantile(row, [1 / 3, 2 / 3])) for row in whole]
        return cls("classes", tuple(names), tuple((low, high) for low, high in cuts))

    def classes_of(self, features: np.ndarray) -> np.ndarray:
        """Return ``(n,)`` int32 classes from 1 of ``(F, n)`` features.

        Examples:
            >>> regions = Regions("classes", ("intensity",), ((1.0, 2.0),))
            >>> regions.classes_of(np.array([[0.5, 1.0, 1.5, 9.0]])).tolist()
            [1, 1, 2, 3]
        """
        found = np.zeros(features.shape[1], np.int64)
        for row, cuts in zip(features, self.cuts, strict=True):
            found = found * len(LEVELS) + np.searchsorted(np.array(cuts), row, "left")
        return (found + 1).astype(np.int32)

    def name_of(self, region: int) -> str:
        """Return a region in words.

        Examples:
            >>> Regions("classes", ("diffusivity", "anisotropy"), ((0, 1), (0, 1))).name_of(6)
            'diffusivity middle, anisotropy high'
        """
        if self.kind != "classes":
            return f"label {region}"
        levels, rest = [], region - 1
        for _ in self.features:
            rest, level = divmod(rest, len(LEVELS))
            levels.append(LEVELS[level])
        return ", ".join(f"{name} {level}" for name, level in zip(self.features, levels[::-1], strict=True))


def features_of(scan: Scan, inside: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return ``(F, n)`` float32 features of a scan's voxels as measured, and their names.

    Of diffusion scans mean diffusivity, in mm2/s, and its coefficient of variation over the directions of
    each shell; of structural ones the first contrast over its median in the mask.

    Args:
        scan: As read.
        inside: ``(I, J, K)`` bool, the n voxels, all of them in its mask.
    """
    if scan.gradients is None:
        found, names = _intensity(scan), INTENSITY
    else:
        found, names = _diffusion(scan, np.asarray(scan.gradients.bvals)), DIFFUSION
    return np.stack([scan.assemble(row, scan.id).data[0][inside] for row in found]), names


def _intensity(scan: Scan) -> np.ndarray:
    first = np.concatenate([scan.voxels(start, start + _ROWS)[:, 0] for start in _starts(scan)])
    middle = float(np.median(np.abs(first)))
    return (first / (middle if middle > 0 else 1.0))[None]


def _diffusion(scan: Scan, bvalues: np.ndarray) -> np.ndarray:
    weighted = bvalues > B0_THRESHOLD_S_PER_MM2
    shells = np.rint(bvalues[weighted] / 100)
    rows = []
    for start in _starts(scan):
        signal = scan.voxels(start, start + _ROWS)
        b0 = signal[:, ~weighted].mean(1) if (~weighted).any() else signal.max(1)
        # Not below a thousandth of b=0, nor a b=0 of nothing: logarithms must be finite.
        b0 = np.maximum(b0, np.finfo(np.float32).tiny * 1e6)
        share = np.maximum(signal[:, weighted] / b0[:, None], 1e-3)
        diffusivity = -np.log(share) / bvalues[weighted]
        spread = [
            _relative_spread(diffusivity[:, shells == shell])
            for shell in np.unique(shells)
            if (shells == shell).sum() > 1
        ]
        anisotropy = np.mean(spread, axis=0) if spread else np.zeros(len(signal))
        rows.append(np.stack([diffusivity.mean(1), anisotropy]))
    return np.concatenate(rows, axis=1).astype(np.float32)


def _relative_spread(diffusivity: np.ndarray) -> np.ndarray:
    """Return ``(n,)`` standard deviation over mean of ``(n, directions)``, at most 10."""
    mean = np.maximum(diffusivity.mean(1), 1e-6)
    return np.minimum(diffusivity.std(1) / mean, 10.0)


def _starts(scan: Scan) -> range:
    return range(0, scan.n_voxels, _ROWS)


def label_image(folder: Path, scan_id: str) -> Path:
    """Return the label image of a scan in a folder: ``<id>_dseg.nii.gz``, or ``_labels``, ``_regions``, none.

    Raises:
        ScanError: None is there, or several are.
    """
    names = [scan_id + ending for ending in ENDINGS]
    found = [path for path in sorted(folder.rglob("*")) if is_image(path) and stem(path) in names]
    if len(found) != 1:
        what = "no label image" if not found else f"{len(found)} label images"
        raise ScanError(f"{scan_id}: {what} in {folder}; call it {scan_id}_dseg.nii.gz",
                        code="regions.missing" if not found else "regions.several")  # fmt: skip
    return found[0]


def labels_of(path: Path, scan: Scan, inside: np.ndarray) -> np.ndarray:
    """Return ``(n,)`` int32 labels of some voxels of a scan, from a label image on its grid.

    Raises:
        GeometryError: The image is on other voxels.
        ScanError: It cannot be read, or its values are no whole numbers from 0.
    """
    values, _ = read_on_grid(path, scan.grid, scan.id)
    found = values[inside]
    if not np.isfinite(found).all() or (found < 0).any() or (found != np.rint(found)).any():
        raise ScanError(f"{path.name}: labels must be whole numbers from 0", code="regions.values")
    if found.size and found.max() > np.iinfo(np.int32).max:
        raise ScanError(f"{path.name}: labels up to {found.max():g} are too large", code="regions.values")
    labels = found.astype(np.int32)
    if len(np.unique(labels)) > MOST_LABELS:
        raise ScanError(
            f"{path.name}: {len(np.unique(labels))} labels are too many for a null each; at most "
            f"{MOST_LABELS}, or is it no label image?",
            code="regions.many",
        )
    return labels


__all__ = ["Kind", "Regions", "features_of", "label_image", "labels_of"]
