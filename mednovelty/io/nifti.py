"""NIfTI files: guarded reading, and writing maps that every viewer puts in the same place.

Nothing of an input's header reaches an output: descrip, aux_file, db_name and extensions carry
patients' names. The same map gives the same bytes, so that a hash tells whether it changed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from mednovelty.errors import OutputError, ScanError
from mednovelty.io.atomic import write_bytes_atomic
from mednovelty.io.guard import shown
from mednovelty.io.nifti_source import DEFAULTS, NiftiSettings, NiftiSource
from mednovelty.io.orientation import check_affine
from mednovelty.io.readers import open_image
from mednovelty.scan import AFFINE_TOLERANCE_MM, Volume

if TYPE_CHECKING:
    from mednovelty.protocols import VolumeSource

_SCANNER = 1
_LEVEL = 2
"""Of isal's 0..3; 3 takes twice the time for a few per cent."""


class NiftiReader:
    """Plug-in ``nifti`` of group ``readers``."""

    suffixes: ClassVar[tuple[str, ...]] = (".nii", ".nii.gz")

    @staticmethod
    def open(path: Path, settings: NiftiSettings = DEFAULTS) -> NiftiSource:
        """Return the file, its header checked.

        Raises:
            ScanError: Names the file and what is wrong with it.
        """
        return NiftiSource(Path(path), settings)


def read_volume(path: str | Path, settings: NiftiSettings = DEFAULTS) -> Volume:
    """Return a 3-D image, ``(1, I, J, K)``: as stored where its header does not scale it, else float32.

    Raises:
        ScanError: It is 4-D, or cannot be read.
    """
    return volume_of(open_image(Path(path), settings))


def volume_of(source: VolumeSource) -> Volume:
    """Return the only volume of an open 3-D image; see ``read_volume``. The source's hash is known then.

    Raises:
        ScanError: It is 4-D, or cannot be read.
    """
    if source.ndim != 3:
        raise ScanError(
            f"{source.name}: must be 3-D, found 4-D with {source.n_channels} volumes", code="header.dims"
        )
    (data,) = source.volumes()
    if (source.slope, source.inter) != (1.0, 0.0):
        data = (data * np.float64(source.slope) + source.inter).astype(np.float32)
    return Volume(data[None], source.grid.affine, source.name)


def write_map(
    path: str | Path,
    volume: Volume,
    *,
    dtype: DTypeLike = np.float32,
    cal_min: float | None = None,
    cal_max: float | None = None,
    description: str = "",
) -> None:
    """Write a volume as NIfTI-1 that nibabel, ITK and 3D Slicer put in the same place.

    Args:
        path: Ends in ``.nii.gz`` (compressed by isal) or ``.nii``.
        volume: ``(1, I, J, K)`` is written 3-D, more channels 4-D.
        dtype: Stored type: float32 for maps, uint8 for masks.
        cal_min: Lower end of the range that viewers show first.
        cal_max: Upper end of it.
        description: At most 79 ASCII characters, for the header's ``descrip``.

    Raises:
        OutputError: It cannot be written, does not fit ``dtype``, or does not read back the same.
    """
    path = Path(path)
    data = _as_stored(volume, np.dtype(dtype), path)
    header = _header(data.dtype, data.shape, volume.affine, description)
    header["cal_min"], header["cal_max"] = cal_min or 0.0, cal_max or 0.0
    content = header.binaryblock + bytes(4) + data.tobytes(order="F")
    if path.name.endswith(".gz"):
        from isal import igzip

        content = igzip.compress(content, _LEVEL, mtime=0)
    write_bytes_atomic(path, content, lambda written: _check_read_back(written, data, volume.affine, path))


def write_volumes(
    path: str | Path,
    volumes: Sequence[Volume],
    *,
    cal_min: float | None = None,
    cal_max: float | None = None,
    description: str = "",
) -> None:
    """Write 3-D volumes of one grid as a 4-D NIfTI-1 of float32, one in memory at a time; see ``write_map``.

    Args:
        path: Ends in ``.nii.gz``.
        volumes: Each ``(1, I, J, K)``; each is asked for twice or three times.
        cal_min: Lower end of the range that viewers show first.
        cal_max: Upper end of it.
        description: At most 79 ASCII characters, for the header's ``descrip``.

    Raises:
        OutputError: It cannot be written, or does not read back the same.
    """
    from isal import isal_zlib

    path, first = Path(path), volumes[0]
    header = _header(np.dtype("<f4"), (*first.grid.shape, len(volumes)), first.affine, description)
    header["cal_min"], header["cal_max"] = cal_min or 0.0, cal_max or 0.0
    sums: list[int] = []

    def parts() -> Iterator[bytes]:
        packing = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, 16 + isal_zlib.MAX_WBITS)
        yield packing.compress(header.binaryblock + bytes(4))
        for volume in volumes:
            stored = _as_stored(volume, np.dtype(np.float32), path).tobytes(order="F")
            sums.append(zlib.crc32(stored))
            yield packing.compress(stored)
        yield packing.flush()

    def check(written: Path) -> None:
        source = NiftiReader.open(written)
        same = source.grid.shape == first.grid.shape and source.n_channels == len(volumes)
        same = same and np.abs(source.grid.affine - first.affine).max() <= AFFINE_TOLERANCE_MM
        found = [zlib.crc32(volume.tobytes(order="F")) for volume in source.volumes()]
        if not same or found != sums:
            raise OutputError(_damaged(path))

    write_bytes_atomic(path, parts(), check)


def _as_stored(volume: Volume, dtype: np.dtype[Any], path: Path) -> np.ndarray:
    with np.errstate(all="ignore"):
        data = volume.data.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(data, volume.data):
        raise OutputError(f"{shown(path)}: values of {volume.name} do not fit {dtype}")
    data = data.astype(dtype.newbyteorder("<"), copy=False)
    return data[0] if data.shape[0] == 1 else np.moveaxis(data, 0, -1)


def _header(dtype: np.dtype[Any], shape: tuple[int, ...], affine: np.ndarray, description: str) -> Any:
    from nibabel.nifti1 import Nifti1Header

    check_affine(affine, "the affine to be written")
    header = Nifti1Header(endianness="<")
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_xyzt_units("mm", "sec" if len(shape) == 4 else None)
    header.set_sform(affine, _SCANNER)
    header.set_qform(affine, _SCANNER)
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["magic"], header["vox_offset"] = b"n+1", 352
    header["descrip"] = description.encode("ascii", "replace")[:79]
    return header


def _check_read_back(written: Path, data: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Open what was written as any other input: its checksum, its forms and its voxels must be right."""
    source = NiftiReader.open(written)
    voxels = data if data.ndim == 4 else data[..., None]
    same = source.grid.shape == data.shape[:3] and source.n_channels == voxels.shape[3]
    same = same and np.abs(source.grid.affine - affine).max() <= AFFINE_TOLERANCE_MM
    for channel, volume in enumerate(source.volumes()):
        # Compared as bytes: NaN is not equal to itself.
        same = same and volume.tobytes(order="F") == voxels[..., channel].tobytes(order="F")
    if not same:
        raise OutputError(_damaged(path))


def _damaged(path: Path) -> str:
    return f"{shown(path)}: what was read back is not what was written; is the disk damaged?"
