"""Where a NIfTI file says its voxels are; refused where two readers would put them in two places.

Of two disagreeing forms nibabel takes the sform and ITK, by their codes, now one and now the other.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from mednovelty.errors import GeometryError

_KNOWN_CODES = range(6)
_SHEAR_TOLERANCE = 1e-3
_FARTHEST_MM = 1e4
_SPACINGS_MM = (1e-3, 1e2)


def orientation(
    header: Any, shape: tuple[int, ...], name: str, allow_unknown: bool = False
) -> tuple[np.ndarray, list[str]]:
    """Return the ``(4, 4)`` affine, voxel indices to RAS+ mm, and warnings.

    Args:
        header: nibabel's header.
        shape: ``(I, J, K, ...)``, checked.
        name: What messages call the file.
        allow_unknown: Take nibabel's guess where the file gives no orientation.

    Raises:
        GeometryError: No orientation, shear, a singular or absurd matrix, or two forms that disagree
            by more than half a voxel.
    """
    warnings: list[str] = []
    codes = {form: int(header[f"{form}_code"]) for form in ("sform", "qform")}
    for form, code in codes.items():
        if code not in _KNOWN_CODES:
            warnings.append(f"{name}: {form}_code {code} is unknown to the standard; taken as 1, scanner")
    if not any(codes.values()):
        affine = _unknown(header, shape, name, allow_unknown)
        return affine, [f"{name}: no orientation in the file; left and right are a guess"]
    if not codes["sform"]:
        affine = _qform(header, name, warnings)
        check_affine(affine, name)
        return affine, warnings
    affine = header.get_sform()
    check_affine(affine, name)
    if codes["qform"]:
        _compare(affine, header, shape, name, warnings)
    return affine, warnings


def _unknown(header: Any, shape: tuple[int, ...], name: str, allow: bool) -> np.ndarray:
    if not allow:
        raise GeometryError(
            f"{name}: no orientation in the file (sform_code and qform_code are 0), so left and right cannot "
            "be told; convert the original images again, or allow unknown orientation",
            code="geometry.unknown",
        )
    header = copy.deepcopy(header)
    header.set_data_shape(shape)
    affine = np.asarray(header.get_base_affine(), float)
    check_affine(affine, name)
    return affine


def _qform(header: Any, name: str, warnings: list[str]) -> np.ndarray:
    sizes = np.asarray(header["pixdim"][1:4], float)
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise GeometryError(f"{name}: voxel sizes {_numbers(sizes)} in pixdim; each must be above 0",
                            code="geometry.spacing")  # fmt: skip
    qfac = float(header["pixdim"][0])
    if qfac not in (1, -1):
        warnings.append(f"{name}: pixdim[0], the handedness, is {qfac:g}; taken as 1")
        header = copy.deepcopy(header)
        header["pixdim"][0] = 1
    try:
        return np.asarray(header.get_qform(), float)
    except ValueError as error:
        quaternion = [float(header[f"quatern_{x}"]) for x in "bcd"]
        raise GeometryError(f"{name}: quaternion {_numbers(quaternion)} is no rotation",
                            code="geometry.quaternion") from error  # fmt: skip


def check_affine(affine: np.ndarray, name: str) -> None:
    """Raise ``GeometryError`` unless the matrix is finite, invertible, without shear, and near the body."""
    if not np.isfinite(affine).all():
        raise GeometryError(f"{name}: the affine is not finite", code="geometry.affine")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() == 0 or abs(np.linalg.det(affine[:3, :3] / spacing)) < _SHEAR_TOLERANCE:
        raise GeometryError(f"{name}: the affine is singular: it puts many voxels in one place",
                            code="geometry.singular")  # fmt: skip
    if not _SPACINGS_MM[0] <= spacing.min() <= spacing.max() <= _SPACINGS_MM[1]:
        what = f"voxel sizes {_numbers(spacing)} mm are not within {_SPACINGS_MM[0]:g} to {_SPACINGS_MM[1]:g}"
        raise GeometryError(f"{name}: {what}", code="geometry.spacing")
    if np.abs(affine[:3, 3]).max() > _FARTHEST_MM:
        what = f"the origin {_numbers(affine[:3, 3])} mm is absurd, more than {_FARTHEST_MM:g} mm away"
        raise GeometryError(f"{name}: {what}", code="geometry.origin")
    axes = affine[:3, :3] / spacing
    cosines = np.abs(axes.T @ axes - np.eye(3)).max()
    if cosines > _SHEAR_TOLERANCE:
        degrees = np.degrees(np.arcsin(min(cosines, 1)))
        raise GeometryError(
            f"{name}: the affine is sheared: two voxel axes are {degrees:.2g} degrees off a right angle, "
            "which ITK and 3D Slicer cannot show; resample the scan first",
            code="geometry.sheared",
        )


def _compare(sform: np.ndarray, header: Any, shape: tuple[int, ...], name: str, warnings: list[str]) -> None:
    """Check the sform, which is used, against what a reader that prefers the qform would see."""
    spacing = np.linalg.norm(sform[:3, :3], axis=0)
    sizes = np.asarray(header["pixdim"][1:4], float)
    if not np.allclose(sizes, spacing, rtol=0.01):
        # Rotation and origin of the qform can still be right: compare them without the sizes.
        both = f"{_numbers(sizes)} mm in pixdim, {_numbers(spacing)} mm in the sform"
        warnings.append(f"{name}: voxel sizes {both}; used the sform")
        header = copy.deepcopy(header)
        header["pixdim"][1:4] = spacing
    try:
        qform = _qform(header, name, warnings)
    except GeometryError as error:
        warnings.append(f"{error}; used the sform")
        return
    corners = np.array(np.meshgrid(*[[0, n - 1] for n in shape[:3]], [1])).reshape(4, -1)
    apart = np.linalg.norm(((sform - qform) @ corners)[:3], axis=0).max()
    if not apart <= 0.5 * spacing.min():
        flipped = np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0
        raise GeometryError(
            f"{name}: sform and qform put voxels up to {apart:.3g} mm apart"
            + (", left and right among them" if flipped else "")
            + "; programs will disagree on where they are; correct the header first",
            code="geometry.forms_disagree",
        )
    if apart > 0.05 * spacing.min():
        warnings.append(f"{name}: sform and qform put voxels up to {apart:.3g} mm apart; used the sform")


def _numbers(values: Any) -> str:
    return " x ".join(f"{float(v):.4g}" for v in values)
