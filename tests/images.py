"""Scans on disk for tests, written by nibabel and numpy alone: never by the writer under test."""

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (6, 9, 7)
BVALS = np.array([0, 1000, 1000, 5, 2000])
N_VOLUMES = 5
WORLD = np.array([[0, 0, 0], [1, 0, 0], [0, 0.6, 0.8], [0, 0, 0], [0.48, 0.6, -0.64]])

# Voxel axes run to the left, forward and up, turned by 20 degrees about x; 1.5 x 2 x 3 mm.
_C, _S = np.cos(np.deg2rad(20)), np.sin(np.deg2rad(20))
LAS = np.array([[-1.5, 0, 0, 31], [0, 2 * _C, -3 * _S, -42], [0, 2 * _S, 3 * _C, 13], [0, 0, 0, 1]])
RAS = LAS @ np.diag([-1, 1, 1, 1.0])


def header_field(path, offset, kind, *values):
    """Overwrite a field of a NIfTI-1 header in place, gzipped or not."""
    raw = bytearray(read(path))
    struct.pack_into("<" + kind, raw, offset, *values)
    write(path, bytes(raw))


def read(path):
    content = Path(path).read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def write(path, raw):
    Path(path).write_bytes(gzip.compress(raw, mtime=0) if str(path).endswith(".gz") else raw)


def signal(shape=SHAPE, n=N_VOLUMES, seed=0, dtype=np.int16):
    """A bright ball on a dark ground, different in every volume, ``(*shape, n)``."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, m) for m in shape], indexing="ij")
    ball = sum(x * x for x in axes) < 0.7
    volumes = [ball * (900 if c == 0 else 300 + 20 * c) + rng.integers(0, 30, shape) for c in range(n)]
    return np.stack(volumes, -1).astype(dtype)


def save(path, data, affine=LAS, kind=nib.Nifti1Image, codes=(1, 1), endianness="<"):
    """Write an image with nibabel; return its path."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    header = kind.header_class(endianness=endianness)
    header.set_data_dtype(data.dtype)
    image = kind(data, affine, header)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    nib.save(image, path)
    return Path(path)


def fsl_directions(world=WORLD, affine=LAS):
    """Directions along the voxel axes, x mirrored for right-handed voxels, ``(3, N)``."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    along = world @ axes
    if np.linalg.det(axes) > 0:
        along = along * [-1, 1, 1]
    return along.T


def save_gradients(stem, bvals=BVALS, world=WORLD, affine=LAS):
    """Write ``.bval`` and ``.bvec`` beside an image."""
    np.savetxt(f"{stem}.bval", np.asarray(bvals)[None], fmt="%g")
    np.savetxt(f"{stem}.bvec", fsl_directions(world, affine), fmt="%.8f")


def save_scan(folder, name="sub-01_dwi", data=None, affine=LAS, suffix=".nii.gz"):
    """Write an image with its gradients; return the image's path."""
    data = signal() if data is None else data
    path = save(Path(folder) / f"{name}{suffix}", data, affine)
    save_gradients(Path(folder) / name, affine=affine)
    return path
