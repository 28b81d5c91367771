"""Heads to simulate: how much of which tissue is where, and which way its fibres run.

``mni_anatomy``        the MNI152 (ICBM 2009a) grey- and white-matter maps inside nilearn; no network
``ellipsoid_anatomy``  an egg with a white core, a grey rind and two ventricles; milliseconds

Fibres are invented, after textbook bundles, in MNI millimetres. Each bundle adds ``w d d^T``, its
weight times the dyad of its direction, to a fibre tensor; where bundles overlap the tensor has two
large eigenvalues, and the white matter there two crossing fibre populations in that proportion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import (
    binary_dilation,
    binary_fill_holes,
    distance_transform_edt,
    gaussian_filter,
    map_coordinates,
)

FRACTIONS = ("grey", "fluid", "scalp", "brain")
DYAD = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""The six different entries of a dyad d d^T, in the order in which they are stored."""
CENTRE_MM = np.array([0.0, -18.0, 8.0])
"""Middle of the head in template millimetres."""


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """A head on a template grid.

    Attributes:
        fields: ``(16, I, J, K)`` float32: fractions of grey matter, of free water, of scalp, the brain
            (1 inside, 0 outside), then ``w d d^T`` of the first fibre population and of the second in
            the order of ``DYAD``; w is the population's share of the voxel, so that both traces
            together are the fraction of white matter.
        head: ``(I, J, K)`` uint8, 1 wherever there may be tissue.
        affine: ``(4, 4)`` template voxels to millimetres; axes parallel to the world's.
    """

    fields: np.ndarray
    head: np.ndarray
    affine: np.ndarray

    @property
    def white(self) -> np.ndarray:
        """``(I, J, K)`` fraction of white matter."""
        return self.fields[4:7].sum(0) + self.fields[10:13].sum(0)

    def near(self, points_mm: np.ndarray) -> np.ndarray:
        """Return ``(n,)`` bool: whether there may be tissue at ``(n, 3)`` points; no tissue is missed."""
        return map_coordinates(self.head, self._index(points_mm), order=0, mode="constant") > 0

    def at(self, points_mm: np.ndarray) -> np.ndarray:
        """Return ``(16, n)`` float32 fields, linearly between template voxels, at ``(n, 3)`` points."""
        index = self._index(points_mm)
        out = np.zeros((len(self.fields), len(points_mm)), np.float32)
        for row in range(4):
            out[row] = map_coordinates(self.fields[row], index, order=1, mode="constant")
        # Fibres cost most, and half of a head has none.
        white = np.flatnonzero(out[0] + out[1] < out[3])
        for row in range(4, len(self.fields)):
            out[row, white] = map_coordinates(self.fields[row], index[:, white], order=1, mode="constant")
        return out

    def world(self, index: np.ndarray) -> np.ndarray:
        """Return ``(n, 3)`` millimetres of ``(n, 3)`` voxel indices."""
        return index * np.diag(self.affine)[:3] + self.affine[:3, 3]

    def _index(self, points_mm: np.ndarray) -> np.ndarray:
        return ((points_mm - self.affine[:3, 3]) / np.diag(self.affine)[:3]).T


def mni_anatomy() -> Anatomy:
    """Return the MNI152 head on 2 mm voxels, from the files inside the nilearn package."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

    images = load_mni152_gm_template(resolution=1), load_mni152_wm_template(resolution=1)
    grey, white = (_halved(np.asarray(image.dataobj)) for image in images)
    # 24 mm of air all round, for the scalp; the template's own margin is here too wide, there too narrow.
    there = np.argwhere(grey + white > 0.01)
    low, high = there.min(0), there.max(0) + 1
    box = tuple(slice(*ends) for ends in zip(low, high, strict=True))
    grey, white = (np.pad(tissue[box], 12) for tissue in (grey, white))
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = images[0].affine[:3, 3] + 0.5 + (low - 12) * 2.0
    solid = _closed(grey + white > 0.3, radius=4)
    solid = np.stack([binary_fill_holes(plane) for plane in np.moveaxis(solid, 2, 0)], 2)
    # The template's skull was stripped along the cortex: give the water around it its 2 mm back.
    inside = gaussian_filter(binary_dilation(solid).astype(np.float32), 0.7)
    return _assemble(grey, white, inside, affine)


def ellipsoid_anatomy() -> Anatomy:
    """Return an egg-shaped head on 4 mm voxels: white core, grey rind, two ventricles, a coat of water."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = CENTRE_MM - 2.0 * (np.array([42, 50, 32]) - 1)
    index = np.stack(np.meshgrid(*map(np.arange, (42, 50, 32)), indexing="ij"), -1)
    offset = index * 4.0 + affine[:3, 3] - CENTRE_MM
    radius = np.linalg.norm(offset / [58.0, 72.0, 44.0], axis=-1)
    ventricle = np.stack([np.abs(offset[..., 0]) - 11.0, offset[..., 1], offset[..., 2] - 4.0], -1)
    water = _step(1.0 - np.linalg.norm(ventricle / [7.0, 24.0, 10.0], axis=-1), 0.2)
    core, solid, inside = (_step(edge - radius, 0.03) for edge in (0.72, 0.95, 1.0))
    white, grey = core * (1 - water), (solid - core) * (1 - water)
    return _assemble(grey, white, inside, affine)


def _assemble(grey: np.ndarray, white: np.ndarray, inside: np.ndarray, affine: np.ndarray) -> Anatomy:
    """Return the anatomy of tissue fractions: free water fills the head, a dim scalp goes round it."""
    total = np.maximum(grey + white, 1.0)
    grey, white = grey / total * inside, white / total * inside
    # Skull and scalp do not follow the lobes of the brain: close what is narrower than 60 mm.
    smooth = _closed(inside > 0.5, radius=round(30.0 / affine[0, 0]))
    away_mm = distance_transform_edt(~smooth) * affine[0, 0]
    scalp = _step(away_mm - 7.0, 0.8) * _step(13.0 - away_mm, 0.8)
    first, second = _fibres(white, affine)
    fractions = np.stack([grey, inside - grey - white, scalp, inside])
    fields = np.concatenate([fractions, first, second]).astype(np.float32)
    # Interpolation carries tissue one voxel further, along the diagonal.
    head = (away_mm < 15.0 + 1.8 * affine[0, 0]).astype(np.uint8)
    for array in (fields, head):
        array.flags.writeable = False
    return Anatomy(fields, head, affine)


def _fibres(white: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(6, I, J, K)`` weighted dyads of the first and of the second fibre population."""
    step_mm = affine[0, 0]
    index = np.argwhere(white > 1e-3)
    there = tuple(index.T)
    slope = np.stack([field[there] for field in np.gradient(gaussian_filter(white, 4.0 / step_mm))], -1)
    tensor = fibre_tensor(index * step_mm + affine[:3, 3], -slope / step_mm)
    values, vectors = np.linalg.eigh(tensor)
    share = values[:, 1:] / values[:, 1:].sum(-1, keepdims=True) * white[there][:, None]
    populations = []
    for which in (1, 0):
        d, out = vectors[:, :, 1 + which], np.zeros((6, *white.shape))
        for row, (a, b) in enumerate(DYAD):
            out[row][there] = share[:, which] * d[:, a] * d[:, b]
        populations.append(out)
    return populations[0], populations[1]


def fibre_tensor(points_mm: np.ndarray, outward: np.ndarray) -> np.ndarray:
    """Return the sum of ``w d d^T`` over textbook bundles.

    Args:
        points_mm: ``(n, 3)`` MNI millimetres: x to the right, y forwards, z up.
        outward: ``(n, 3)`` fall of white matter per millimetre, which points to the nearest cortex.

    Returns:
        ``(n, 3, 3)`` symmetric, positive definite.
    """
    x, y, z = points_mm.T
    zero, one, side = np.zeros_like(x), np.ones_like(x), np.tanh(x / 6.0)
    # Callosum: level at the midline, then upwards and, towards the poles, forwards or backwards.
    callosum = one, 0.035 * x * np.tanh((y + 10.0) / 30.0), 0.022 * x
    # Corona radiata: a fan that opens upwards from the brain stem.
    corona = x - 9.0 * side, 0.8 * (y + 22.0), np.hypot(z + 45.0, 25.0)
    # Long association fibres: round the side of the brain, from front to back.
    association = -(y + 18.0) / 75.0 * side, 0.15 + np.abs(x) / 55.0, 0.3 * np.tanh((y + 50.0) / 20.0)
    bundles = [
        (1.4 * _bump(x, 0, 24) * _bump(z, 22, 20), callosum),
        (1.2 * _bump(np.abs(x), 22, 10) * _step(z + 60, 10) + _bump(x, 0, 16) * _step(-12 - z, 6), corona),
        (1.0 * _bump(np.abs(x), 42, 9) * _bump(y, -20, 45), association),
        (0.8 * _bump(x, 0, 12) * _bump(y, -8, 60) * _bump(z, 38, 6), (zero, one, zero)),
        (0.9 * _bump(x, 0, 30) * _bump(y, -38, 16) * _bump(z, -36, 10), (one, 0.02 * x, zero)),
    ]
    tensor = 9.0 * outward[:, :, None] * outward[:, None, :] * _damped(outward)[:, None, None]
    for weight, direction in bundles:
        d = np.stack(direction, -1)
        d /= np.linalg.norm(d, axis=-1, keepdims=True)
        tensor += weight[:, None, None] * d[:, :, None] * d[:, None, :]
    return tensor + 1e-3 * np.diag([1.0, 1.1, 1.2])


def _damped(outward: np.ndarray) -> np.ndarray:
    """Return ``1 / |outward|`` where the fall is steep, so that its dyad grows linearly, not as a square."""
    return 1.0 / np.maximum(np.linalg.norm(outward, axis=-1), 1e-3)


def _bump(value: np.ndarray, middle: float, width: float) -> np.ndarray:
    return np.exp(-0.5 * ((value - middle) / width) ** 2)


def _step(value: np.ndarray, width: float) -> np.ndarray:
    """Return a smooth step, 0 far below zero and 1 far above."""
    return 0.5 * (1.0 + np.tanh(value / width))


def _halved(data: np.ndarray) -> np.ndarray:
    """Return means over blocks of ``(2, 2, 2)`` voxels, a last odd plane left out."""
    i, j, k = (n // 2 for n in data.shape)
    blocks = data[: 2 * i, : 2 * j, : 2 * k].reshape(i, 2, j, 2, k, 2)
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32)


def _closed(mask: np.ndarray, radius: int) -> np.ndarray:
    """Return the mask with its holes filled and every gap narrower than 2 ``radius`` voxels closed."""
    padded = np.pad(mask, radius + 1)
    grown = distance_transform_edt(~padded) <= radius
    closed = distance_transform_edt(binary_fill_holes(grown)) > radius
    inner = slice(radius + 1, -radius - 1)
    return closed[inner, inner, inner] | mask
