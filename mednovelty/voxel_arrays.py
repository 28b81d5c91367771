"""Arrays of voxels from outside, looked at before anything is made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from mednovelty.errors import ScanError, SettingsError

LARGEST_VALUE = 1e15
"""Beyond this magnitude the squares that scores are made of leave the range of float32."""
ROWS = 1 << 16


def checked_voxels(x: Any, channels: int | None = None) -> np.ndarray:
    """Return an array as it was given, once it is clear that float32 can hold all of it.

    Args:
        x: ``(n, C)`` real numbers of any dtype, or what NumPy makes such an array of.
        channels: What C must be, for voxels to score; None: anything from 1, and at least one voxel.

    Raises:
        ScanError: Says what is wrong, with a code ``voxels.dtype``, ``voxels.shape``, ``voxels.empty``,
            ``voxels.channels``, ``voxels.not_finite`` or ``voxels.too_large``.

    Examples:
        >>> checked_voxels([[1, 2, 3]]).shape
        (1, 3)
    """
    try:
        array = np.asarray(x)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ScanError(f"voxels must be an array of numbers: {error}", code="voxels.dtype") from error
    if array.dtype.kind not in "biuf":
        raise ScanError(
            f"voxels must be real numbers, got dtype {array.dtype}; convert them to float32",
            code="voxels.dtype",
        )
    _check_shape(array, channels)
    _check_values(array)
    return array


def checked_labels(labels: Any, count: int, method: Any, name: str) -> np.ndarray | None:
    """Return ``(n,)`` labels as they were given, once it is clear that the method takes them.

    Args:
        labels: Whole numbers, or None: classes from 0 where the method's settings have ``classes``; else one
            of its ``semi_labels``, such as -1 for anomalies, 0 for no label, 1 for normals.
        count: n.
        method: With its settings.
        name: Its name, for messages.

    Raises:
        SettingsError: Labels for a method that takes none, or classes without labels.
        ScanError: Not one a voxel (``labels.shape``), or no label (``labels.value``).
    """
    classes, semi = getattr(method.settings, "classes", 0), tuple(getattr(method, "semi_labels", ()))
    if classes and labels is None:
        raise SettingsError(f"method_settings.classes={classes}, and no voxel's class was given; pass labels")
    if labels is None:
        return None
    if not classes and not semi:
        raise SettingsError(
            f"labels were given, and the method {name} has no classes; set method_settings.classes, which "
            "hyperspherical takes, or choose deep_sad or hsc, which take labelled anomalies"
        )
    found = np.asarray(labels)
    if found.shape != (count,):
        raise ScanError(f"labels must be ({count},), one a voxel, got {found.shape}", code="labels.shape")
    allowed = range(classes) if classes else semi
    if found.dtype.kind not in "iu" or not np.isin(found, allowed).all():
        told = (
            f"{found.dtype} from {found.min()} to {found.max()}"
            if found.dtype.kind in "biuf"
            else found.dtype
        )
        meant = f"whole numbers from 0 to {classes - 1}"
        if not classes:
            meant = "-1 (anomaly), 0 (no label) or 1 (normal)"
        raise ScanError(f"labels must be {meant}, got {told}", code="labels.value")
    return found


def _check_shape(array: np.ndarray, channels: int | None) -> None:
    if channels is None:
        if array.ndim != 2 or not array.shape[1]:
            raise ScanError(
                f"voxels must be (n, C) with C at least 1, got {array.shape}", code="voxels.shape"
            )
        if not len(array):
            raise ScanError(
                f"there is no voxel to learn from: the array is {array.shape}", code="voxels.empty"
            )
    elif array.ndim != 2 or array.shape[1] != channels:
        raise ScanError(f"voxels must be (m, {channels}), got {array.shape}", code="voxels.channels")


def _check_values(array: np.ndarray) -> None:
    bad, largest = 0, 0.0
    for start in range(0, len(array), ROWS):
        rows = array[start : start + ROWS]
        finite = np.isfinite(rows).all(1)
        bad += int((~finite).sum())
        # Not abs(): the smallest integer of a dtype has no positive counterpart.
        largest = max(largest, float(rows[finite].max(initial=0)), -float(rows[finite].min(initial=0)))
    if bad:
        raise ScanError(
            f"{bad} of {len(array)} voxels are not finite; repair them or leave them out",
            code="voxels.not_finite",
        )
    if largest > LARGEST_VALUE:
        raise ScanError(
            f"a voxel has the magnitude {largest:.3g}, above {LARGEST_VALUE:g}: scores square it "
            "in float32; bring the voxels to a scale around 1",
            code="voxels.too_large",
        )
