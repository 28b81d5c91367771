"""b-values and directions: FSL's two files or MRtrix's one, to dipy's gradient table in world axes.

FSL writes directions along the voxel axes, with x mirrored when the voxel axes are right-handed
(``det(affine) > 0``); MRtrix writes them in scanner axes. Only in world (RAS+) axes can the directions of
an oblique scan, or of a LAS and a RAS copy of one scan, be compared, so that is what the table holds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mednovelty.errors import GradientError, ScanError
from mednovelty.io.guard import read_text, shown

if TYPE_CHECKING:
    from dipy.core.gradients import GradientTable

B0_THRESHOLD_S_PER_MM2 = 50.0
LARGEST_B_S_PER_MM2 = 20_000.0

_QUIET_NORM = 0.01
_LOUDEST_NORM = 0.1


def read_gradients(
    *,
    bval: Path | None = None,
    bvec: Path | None = None,
    grad_b: Path | None = None,
    affine: np.ndarray,
    n_volumes: int,
) -> tuple[GradientTable, list[str]]:
    """Read the gradients of a scan.

    Args:
        bval: FSL's b-values in s/mm2, on one line or one a line.
        bvec: FSL's directions, 3 x N or N x 3; 3 x 3 is read as FSL's three rows.
        grad_b: MRtrix's table, N rows of ``x y z b`` in scanner axes, instead of the two.
        affine: ``(4, 4)`` of the image, voxel indices to RAS+ mm.
        n_volumes: How many volumes the image has.

    Returns:
        dipy's table and warnings: N unit directions in world axes. b-values up to 50 count as b=0 and
        become 0, their directions 0 0 0.

    Raises:
        GradientError: Numbers that do not fit the volumes or each other, or that no scanner makes.
    """
    warnings: list[str] = []
    if grad_b is not None:
        bvals, directions = _read_mrtrix(grad_b, n_volumes, warnings)
        check_bvals(bvals, shown(grad_b))
        name = shown(grad_b)
    elif bval is not None and bvec is not None:
        bvals = _read_bvals(bval, n_volumes, warnings)
        check_bvals(bvals, shown(bval))
        directions = _read_bvecs(bvec, n_volumes, warnings) @ fsl_to_world(affine).T
        name = shown(bvec)
    else:
        raise GradientError("b-values and directions are needed: a .bval with a .bvec, or a .b file",
                            code="gradients.absent")  # fmt: skip
    return _table(bvals, _unit(directions, bvals, name, warnings)), warnings


def fsl_to_world(affine: np.ndarray) -> np.ndarray:
    """Return the ``(3, 3)`` matrix that turns FSL's directions into world (RAS+) ones.

    Examples:
        >>> fsl_to_world(np.diag([2.0, 2, 2, 1]))[0]  # right-handed: FSL mirrors x
        array([-1.,  0.,  0.])
        >>> fsl_to_world(np.diag([-2.0, 2, 2, 1]))[0]  # LAS: voxel x itself runs to the left
        array([-1.,  0.,  0.])
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    mirror = np.diag([-1.0 if np.linalg.det(axes) > 0 else 1.0, 1.0, 1.0])
    return axes @ mirror + 0.0  # no -0.


def check_bvals(bvals: np.ndarray, name: str) -> None:
    """Raise ``GradientError`` unless ``(N,)`` b-values are such as a diffusion scan can have."""
    for volume in np.flatnonzero(~np.isfinite(bvals)):
        raise GradientError(
            f"{name}: the b-value of volume {volume} is {bvals[volume]}", code="gradients.nan"
        )
    for volume in np.flatnonzero(bvals < 0):
        raise GradientError(f"{name}: the b-value of volume {volume} is negative: {bvals[volume]:g}",
                            code="gradients.negative")  # fmt: skip
    if bvals.max() > LARGEST_B_S_PER_MM2:
        raise GradientError(
            f"{name}: b-values up to {bvals.max():g} are out of 0..{LARGEST_B_S_PER_MM2:g} s/mm2; "
            "are they in s/m2?",
            code="gradients.unit",
        )
    if bvals.max() <= B0_THRESHOLD_S_PER_MM2:
        raise GradientError(
            f"{name}: every b-value is under {B0_THRESHOLD_S_PER_MM2:g} s/mm2, the largest is "
            f"{bvals.max():g}; are they in ms/um2?",
            code="gradients.unit",
        )
    if bvals.min() > B0_THRESHOLD_S_PER_MM2:
        raise GradientError(
            f"{name}: there is no b=0 volume: the smallest of {bvals.size} b-values is {bvals.min():g}, "
            f"over {B0_THRESHOLD_S_PER_MM2:g} s/mm2",
            code="gradients.no_b0",
        )


def shells(bvals: np.ndarray) -> list[tuple[int, int]]:
    """Group b-values that scanners wrote a little apart.

    A new shell begins where the next larger b-value is more than 25 s/mm2, and more than 3 %, away.

    Returns:
        ``(b, count)`` a shell, ascending; b is the mean rounded to 5, and 0 for all up to 50.

    Examples:
        >>> shells(np.array([5, 995, 1000, 1005, 2000, 0]))
        [(0, 2), (1000, 3), (2000, 1)]
    """
    bvals = np.sort(np.asarray(bvals, float))
    weighted = bvals[bvals > B0_THRESHOLD_S_PER_MM2]
    found = [(0, bvals.size - weighted.size)] if weighted.size < bvals.size else []
    if weighted.size:
        begins = np.diff(weighted) > np.maximum(25.0, 0.03 * weighted[:-1])
        groups = np.split(weighted, np.flatnonzero(begins) + 1)
        found += [(5 * round(float(group.mean()) / 5), group.size) for group in groups]
    return found


def _table(bvals: np.ndarray, directions: np.ndarray) -> GradientTable:
    from dipy.core.gradients import gradient_table

    # dipy computes b-values back from b times direction, so those of volumes without one become 0. Said
    # here, so that b=0 and b=5 are one thing with every version of dipy.
    bvals = np.where(bvals > B0_THRESHOLD_S_PER_MM2, bvals, 0.0)
    return gradient_table(bvals, bvecs=directions, b0_threshold=B0_THRESHOLD_S_PER_MM2)


def _unit(directions: np.ndarray, bvals: np.ndarray, name: str, warnings: list[str]) -> np.ndarray:
    """Return directions of length 1 for weighted volumes and 0 0 0 for b=0."""
    weighted = bvals > B0_THRESHOLD_S_PER_MM2
    if not np.isfinite(directions[~weighted]).all():
        warnings.append(f"{name}: directions of b=0 volumes are not finite; taken as 0 0 0")
    norms = np.linalg.norm(directions, axis=1)
    for volume in np.flatnonzero(weighted & ~np.isfinite(norms)):
        what = f"volume {volume} has b={bvals[volume]:g} and a direction that is not finite"
        raise GradientError(f"{name}: {what}", code="gradients.nan")
    for volume in np.flatnonzero(weighted & (norms == 0)):
        what = f"volume {volume} has b={bvals[volume]:g} but the direction 0 0 0"
        hint = "; 3 x 3 numbers are read as FSL's three rows" if len(bvals) == 3 else ""
        raise GradientError(f"{name}: {what}{hint}", code="gradients.zero")
    _check_lengths(norms[weighted], np.flatnonzero(weighted), name, warnings)
    return np.where(weighted[:, None], directions / np.where(weighted, norms, 1)[:, None], 0.0)


def _check_lengths(norms: np.ndarray, volumes: np.ndarray, name: str, warnings: list[str]) -> None:
    off = np.abs(norms - 1)
    worst = int(off.argmax())
    what = f"the direction of volume {volumes[worst]} has length {norms[worst]:.4g}, not 1"
    if off[worst] > _LOUDEST_NORM:
        others = (
            f"{np.count_nonzero(off > _LOUDEST_NORM)} of {norms.size} are off by more than {_LOUDEST_NORM:g}"
        )
        raise GradientError(f"{name}: {what} ({others})", code="gradients.norm")
    if off[worst] > _QUIET_NORM:
        warnings.append(f"{name}: {what}; all directions were normalised")


def _read_bvals(path: Path, n_volumes: int, warnings: list[str]) -> np.ndarray:
    rows = _rows(path, warnings)
    if len(rows) > 1 and any(len(row) > 1 for row in rows):
        what = f"{len(rows)} lines of up to {max(map(len, rows))} numbers"
        raise GradientError(f"{shown(path)}: {what}; b-values are one line, or one number a line",
                            code="gradients.rows")  # fmt: skip
    return _counted(np.array([value for row in rows for value in row]), path, "b-values", n_volumes)


def _read_bvecs(path: Path, n_volumes: int, warnings: list[str]) -> np.ndarray:
    rows = _rectangle(_rows(path, warnings), path)
    if rows.shape[0] == 3:
        rows = rows.T
    elif rows.shape[1] != 3:
        what = f"{rows.shape[0]} rows of {rows.shape[1]} numbers; 3 rows are needed, x, y and z"
        raise GradientError(f"{shown(path)}: {what}", code="gradients.rows")
    return _counted(rows, path, "directions", n_volumes)


def _read_mrtrix(path: Path, n_volumes: int, warnings: list[str]) -> tuple[np.ndarray, np.ndarray]:
    rows = _rectangle(_rows(path, warnings), path)
    if rows.shape[1] != 4:
        raise GradientError(f"{shown(path)}: rows of {rows.shape[1]} numbers; an MRtrix table has x y z b",
                            code="gradients.rows")  # fmt: skip
    rows = _counted(rows, path, "gradients", n_volumes)
    return rows[:, 3], rows[:, :3]


def _counted(values: np.ndarray, path: Path, what: str, n_volumes: int) -> np.ndarray:
    if len(values) != n_volumes:
        raise GradientError(
            f"{shown(path)}: {len(values)} {what} for {n_volumes} volumes", code="gradients.count"
        )
    return values


def _rectangle(rows: list[list[float]], path: Path) -> np.ndarray:
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise GradientError(
                f"{shown(path)}: row {number} has {len(row)} numbers, row 1 has {len(rows[0])}",
                code="gradients.rows",
            )
    return np.array(rows)


def _rows(path: Path, warnings: list[str]) -> list[list[float]]:
    """Return the numbers of each line that has some; ``#`` begins a comment."""
    try:
        text = read_text(path)
    except ScanError as error:
        raise GradientError(str(error), code=f"gradients.{error.code.partition('.')[2]}") from error
    lines = [(number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1)]
    rows = [[_number(word, number, path) for word in _words(line, path)] for number, line in lines if line]
    if not rows:
        raise GradientError(f"{shown(path)}: holds no number", code="gradients.empty")
    if "," in text:
        warnings.append(f"{shown(path)}: numbers are separated by commas; read so")
    return rows


def _words(line: str, path: Path) -> list[str]:
    """Split a line at white space, or at commas where nothing but commas separates."""
    if re.search(r"[^\s,],[^\s,]", line) and re.search(r"[^\s,]\s+[^\s,]", line):
        raise GradientError(
            f"{shown(path)}: commas inside numbers ({line[:20]!r}); write decimal points",
            code="gradients.text",
        )
    return line.replace(",", " ").split()


def _number(word: str, line: int, path: Path) -> float:
    try:
        return float(word)
    except ValueError:
        raise GradientError(f"{shown(path)}: {word[:20]!r} in line {line} is not a number",
                            code="gradients.text") from None  # fmt: skip
