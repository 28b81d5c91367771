"""Brain masks from files: on the scan's voxels or refused, and one rule for what is inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mednovelty.errors import GeometryError, ScanError
from mednovelty.io.guard import shown
from mednovelty.io.nifti_source import DEFAULTS, NiftiSettings
from mednovelty.io.readers import open_image
from mednovelty.scan import Grid

if TYPE_CHECKING:
    from mednovelty.protocols import VolumeSource

PROBABILITY_THRESHOLD = 0.5


def read_mask(
    path: Path, grid: Grid, image_name: str, settings: NiftiSettings = DEFAULTS
) -> tuple[np.ndarray, list[str]]:
    """Return a mask on the voxels of an image, and warnings.

    Inside is what is not 0; of fractions between 0 and 1, what exceeds 0.5. A mask whose voxels are the
    image's, but stored along other axes, is turned to fit.

    Args:
        path: A 3-D image.
        grid: Where the image's voxels are.
        image_name: What messages call the image.
        settings: How files are read.

    Returns:
        ``(I, J, K)`` bool with at least one voxel inside, and warnings.

    Raises:
        GeometryError: Its voxels are not the image's.
        ScanError: It is 4-D, empty, not finite, negative, or cannot be read.
    """
    values, warnings = read_on_grid(path, grid, image_name, settings)
    inside, more = _inside(values, shown(path))
    return np.asfortranarray(inside), warnings + more


def read_lesion(
    path: Path, grid: Grid, image_name: str, settings: NiftiSettings = DEFAULTS
) -> tuple[np.ndarray, list[str]]:
    """Return a lesion mask on the voxels of an image, and warnings.

    Inside is what exceeds 0.5. Unlike a brain's, a lesion's mask may be all zeros: a healthy scan has none.
    Arguments and errors are those of ``read_mask``.

    Returns:
        ``(I, J, K)`` bool, and warnings.

    Raises:
        ScanError: Besides, something is marked, but with nothing above 0.5 (``mask.faint``): to take such a
            mask for one of zeros would make its lesion healthy.
    """
    values, warnings = read_on_grid(path, grid, image_name, settings)
    name = shown(path)
    _refuse_values(values, name)
    inside = values > PROBABILITY_THRESHOLD
    marked = np.count_nonzero(values)
    if marked and not inside.any():
        raise ScanError(
            f"{name}: marks {marked} voxels with at most {values.max():.3g}, and more than "
            f"{PROBABILITY_THRESHOLD:g} is lesion; store 1 in the lesion, or zeros alone where there is none",
            code="mask.faint",
        )
    if soft := np.count_nonzero((values > 0) & (values < 1)):
        warnings.append(f"{name}: {soft} voxels between 0 and 1; more than 0.5 counts as lesion")
    return inside, warnings


def read_on_grid(
    path: Path, grid: Grid, image_name: str, settings: NiftiSettings = DEFAULTS
) -> tuple[np.ndarray, list[str]]:
    """Return a mask's values on the voxels of an image, scaled but not judged, and warnings.

    Arguments and errors are those of ``read_mask``; values may be anything here.

    Returns:
        ``(I, J, K)``, as stored where the header does not scale it; and warnings.
    """
    source, turned = _open(path, grid, image_name, settings)
    (stored,) = source.volumes()
    values = stored if (source.slope, source.inter) == (1, 0) else stored * source.slope + source.inter
    # The remark about missing units says nothing where the grid was found to be the image's.
    warnings = [w for w in source.warnings if "taken as mm" not in w]
    if turned is not None:
        axes, flips = turned
        values = np.flip(values.transpose(axes), flips)
        warnings.append(
            f"{source.name}: stored along other axes than {image_name}; turned to fit in world space"
        )
    return values, warnings


def check_mask(path: Path, grid: Grid, image_name: str, settings: NiftiSettings = DEFAULTS) -> None:
    """Raise what ``read_mask`` would raise of a mask's header; no voxel is read."""
    _open(path, grid, image_name, settings)


def _open(
    path: Path, grid: Grid, image_name: str, settings: NiftiSettings
) -> tuple[VolumeSource, tuple[tuple[int, ...], tuple[int, ...]] | None]:
    """Return the mask's file and how its axes have to be turned, None for not at all."""
    source = open_image(path, settings)
    if source.ndim != 3:
        what = f"a mask must be 3-D, found 4-D with {source.n_channels} volumes"
        raise ScanError(f"{source.name}: {what}", code="mask.dims")
    turned = _turn(source.grid, grid)
    if turned is None:
        source.grid.check_same(grid, source.name, image_name)
    return source, turned


def _inside(values: np.ndarray, name: str) -> tuple[np.ndarray, list[str]]:
    """Return which voxels are inside, and warnings where that had to be decided."""
    _refuse_values(values, name)
    high = values.max()
    inside, warnings = values > 0, []
    if inside.any() and values[inside].min() < high:
        if high <= 1:
            inside, rule = values > PROBABILITY_THRESHOLD, "fractions"
        else:
            rule = f"labels up to {high:g}"
    else:
        rule = "fractions" if 0 < high < 1 else ""
        inside = values > PROBABILITY_THRESHOLD if rule else inside
    if rule:
        taken = f"above {PROBABILITY_THRESHOLD:g}" if rule == "fractions" else "not 0"
        warnings.append(f"{name}: the mask holds {rule}; inside is what is {taken}")
    if not inside.any():
        raise ScanError(f"{name}: the mask is empty", code="mask.empty")
    return inside, warnings


def _refuse_values(values: np.ndarray, name: str) -> None:
    """Refuse values that no mask has."""
    if not np.isfinite(values).all():
        raise ScanError(f"{name}: {np.count_nonzero(~np.isfinite(values))} voxels of the mask are not finite",
                        code="mask.not_finite")  # fmt: skip
    if (low := values.min()) < 0:
        raise ScanError(f"{name}: a mask cannot be negative, found {low:g}", code="mask.negative")


def _turn(own: Grid, image: Grid) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the axes to transpose and then flip when only the order of storage differs; else None."""
    turn = np.linalg.solve(image.affine, own.affine)[:3, :3]
    steps = np.rint(turn)
    is_permutation = (np.abs(steps).sum(0) == 1).all() and (np.abs(steps).sum(1) == 1).all()
    if not is_permutation or np.array_equal(steps, np.eye(3)):
        return None
    axes = tuple(int(np.flatnonzero(row)[0]) for row in steps)
    flips = tuple(int(i) for i in range(3) if steps[i, axes[i]] < 0)
    if tuple(own.shape[a] for a in axes) != image.shape:
        return None
    # Where the image's first voxel lies in the mask's indices: at the far end of each flipped axis.
    moved = np.eye(4)
    moved[:3, :3] = steps.T
    moved[:3, 3] = [0 if steps[axes.index(a), a] > 0 else own.shape[a] - 1 for a in range(3)]
    turned = Grid(image.shape, own.affine @ moved)
    try:
        turned.check_same(image, "mask", "image")
    except GeometryError:
        return None
    return axes, flips
