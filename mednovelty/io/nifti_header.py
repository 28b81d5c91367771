"""What a NIfTI header says, believed only after checking.

nibabel knows where each field lies, in NIfTI-1 and NIfTI-2 and in either byte order; the checks are
ours: nibabel computes with the values it finds.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from mednovelty.errors import ScanError

LONGEST_HEADER = 540

_DATATYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_REFUSED_DATATYPES = {
    1: "one bit a voxel is not supported",
    32: "complex data is not supported; take the magnitude first",
    1792: "complex data is not supported; take the magnitude first",
    2048: "complex data is not supported; take the magnitude first",
    128: "colour data is not a scan",
    2304: "colour data is not a scan",
    1536: "128-bit floats are not supported; convert to float32",
}
_UNITS = {0: None, 1: "metres", 2: "mm", 3: "micrometres"}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the voxels are in the file and how to read them.

    Attributes:
        shape: Of all dimensions that are not a trailing 1, at least three.
        dtype: As stored, byte order included.
        offset: Of the first voxel, in bytes of the (inflated) file.
        slope: Multiplied onto what is stored.
        inter: Added after it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float

    @property
    def n_bytes(self) -> int:
        """Of all voxels; computed in integers without bounds."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def volume_bytes(self) -> int:
        """Of one 3-D volume."""
        return math.prod(self.shape[:3]) * self.dtype.itemsize


def parse(block: bytes, name: str) -> Any:
    """Return nibabel's header of a single-file NIfTI's first 540 bytes, none of its values checked.

    Raises:
        ScanError: It is something else; says what, where that can be told.
    """
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    order = next(
        (o for o in "<>" if len(block) >= 348 and struct.unpack(o + "i", block[:4])[0] in (348, 540)), None
    )
    if order is None:
        raise ScanError(f"{name}: not a NIfTI file: {_guess(block)}", code="file.not_nifti")
    if struct.unpack(order + "i", block[:4])[0] == 540:
        _check_magic2(block[4:12], len(block), name)
        return Nifti2Header(block[:540], endianness=order, check=False)
    magic = block[344:348]
    if magic[:3] == b"n+1":
        return Nifti1Header(block[:348], endianness=order, check=False)
    if magic[:3] == b"ni1":
        raise ScanError(
            f"{name}: header and voxels lie in two files (.hdr, .img), which is not read; convert to .nii.gz",
            code="file.pair",
        )
    if not magic.strip(b"\0"):
        raise ScanError(
            f"{name}: not a NIfTI file but Analyze 7.5, which cannot tell left from right; "
            "convert the original images to NIfTI",
            code="file.analyze",
        )
    raise ScanError(f"{name}: not a NIfTI file: its magic bytes are {magic!r}", code="file.not_nifti")


def _check_magic2(magic: bytes, available: int, name: str) -> None:
    if magic == b"n+2\0\r\n\x1a\n" and available >= LONGEST_HEADER:
        return
    if magic == b"n+2\0\r\n\x1a\n":
        raise ScanError(f"{name}: cut short inside its header ({available} bytes)", code="file.cut_short")
    if magic[:3] == b"ni2":
        raise ScanError(f"{name}: header and voxels lie in two files, which is not read; convert to .nii.gz",
                        code="file.pair")  # fmt: skip
    if magic[:3] == b"n+2":
        what = "changed by a text-mode transfer, which converted line ends"
        raise ScanError(f"{name}: {what}; transfer it again as binary", code="file.text_mode")
    raise ScanError(f"{name}: not a NIfTI file: its magic bytes are {magic!r}", code="file.not_nifti")


def _guess(block: bytes) -> str:
    """Say what a file is that is no NIfTI, printing none of its content."""
    start = block[:200].lstrip()
    if start.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, its content was not fetched (git lfs pull)"
    if b"annex/objects/" in start:
        return "it is a git-annex pointer, its content is absent (datalad get)"
    if start[:1] == b"<":
        return "it is a web page or XML"
    if start.startswith((b"BZh", b"\xfd7zXZ", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")):
        return "it is compressed in a way that is not read; use .nii.gz"
    if block[128:132] == b"DICM":
        return "it is DICOM; convert it with dcm2niix"
    return f"it does not begin as one ({len(block)} bytes looked at)"


def check(header: Any, name: str) -> tuple[Layout, list[str]]:
    """Return the layout a header describes, and warnings.

    Raises:
        ScanError: A value that no usable scan has, with the value in the message.
    """
    warnings: list[str] = []
    shape = _shape(header, name)
    dtype = _dtype(header, name, warnings)
    slope, inter = _scaling(header, name, warnings)
    _check_units(header, name, warnings)
    return Layout(shape, dtype, _offset(header, name), slope, inter), warnings


def _shape(header: Any, name: str) -> tuple[int, ...]:
    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7:
        raise ScanError(
            f"{name}: dim[0], the number of dimensions, is {dims[0]}, out of 1..7", code="header.dims"
        )
    sizes = dims[1 : 1 + dims[0]]
    if min(sizes) < 1:
        axis = next(i for i, n in enumerate(sizes, 1) if n < 1)
        raise ScanError(f"{name}: dim[{axis}] = {sizes[axis - 1]} is not positive", code="header.dims")
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) < 3:
        raise ScanError(
            f"{name}: 4-D (or 3-D) is needed, found {len(sizes)}-D: {tuple(sizes)}", code="header.dims"
        )
    if len(sizes) > 4:
        what = f"{len(sizes)}-D images are not supported: {tuple(sizes)}"
        raise ScanError(f"{name}: {what}; split it into 4-D ones", code="header.dims")
    return tuple(sizes)


def _dtype(header: Any, name: str, warnings: list[str]) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code in _REFUSED_DATATYPES:
        raise ScanError(f"{name}: datatype {code}: {_REFUSED_DATATYPES[code]}", code="header.datatype")
    if code not in _DATATYPES:
        raise ScanError(f"{name}: datatype {code} is unknown", code="header.datatype")
    dtype = np.dtype(_DATATYPES[code]).newbyteorder(header.endianness)
    bits = int(header["bitpix"])
    if bits != 8 * dtype.itemsize:
        warnings.append(
            f"{name}: bitpix says {bits}, datatype {code} has {8 * dtype.itemsize}; went by the datatype"
        )
    return dtype


def _offset(header: Any, name: str) -> int:
    offset = float(header["vox_offset"])
    first = header.sizeof_hdr + 4
    if not (math.isfinite(offset) and offset >= first and offset == int(offset)):
        what = f"vox_offset {offset:g} is no place for voxels; they can begin at byte {first}"
        raise ScanError(f"{name}: {what}", code="header.vox_offset")
    return int(offset)


def _scaling(header: Any, name: str, warnings: list[str]) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0 or NaN means by the standard that nothing is scaled."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if math.isnan(slope):
        warnings.append(f"{name}: scl_slope is NaN; taken as unscaled")
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if not math.isfinite(slope) or not math.isfinite(inter):
        raise ScanError(
            f"{name}: scl_slope {slope:g} and scl_inter {inter:g} must be finite", code="header.scaling"
        )
    return slope, inter


def _check_units(header: Any, name: str, warnings: list[str]) -> None:
    code = int(header["xyzt_units"]) & 7
    if code not in _UNITS:
        raise ScanError(f"{name}: spatial unit {code} is unknown to the standard", code="header.units")
    if code in (1, 3):
        raise ScanError(
            f"{name}: voxel sizes in {_UNITS[code]}, which no brain scan has; correct xyzt_units to mm",
            code="header.units",
        )
    if code == 0:
        warnings.append(f"{name}: no unit of length; taken as mm")


def extension_warning(flag: bytes, area: bytes, order: str, name: str) -> str | None:
    """Return a warning when the header extensions between header and voxels are damaged.

    Nothing of them is used; walking them shows that something wrote over the header's end.

    Args:
        flag: The four bytes behind the header.
        area: What lies between them and the first voxel.
        order: Byte order, ``<`` or ``>``.
        name: What messages call the file.
    """
    at = 0
    while flag[:1] not in (b"", b"\0") and at + 8 <= len(area):
        (size,) = struct.unpack(order + "i", area[at : at + 4])
        if size < 8 or at + size > len(area):
            return (
                f"{name}: a header extension says it has {size} bytes of {len(area) - at}; extensions ignored"
            )
        at += size
    return None
