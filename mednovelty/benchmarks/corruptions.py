"""The fifteen corruptions of MNIST-C (Mu and Gilmer 2019), made here with scipy and scikit-image.

Each is as strong as in the released code of the published set (github.com/google-research/mnist-c), which is
not at hand; they are not the same images. What changes by chance is drawn for each image by itself, in the
order of the images, so that a prefix of a set is corrupted as the whole set is.

``(n, rows, columns)`` float32 between 0 and 1 go in and come out. Lengths are for 28 pixels, and scale with
the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage
from skimage.feature import canny
from skimage.transform import AffineTransform, warp

from mednovelty.seeds import numpy_generator

Random = np.random.Generator
Corruption = Callable[[np.ndarray, Random], np.ndarray]
"""Of one ``(rows, columns)`` image."""
LINE = 2.3
"""From the middle of a line, downwards, to where it ends, in pixels."""
FOG, FOG_DECAY = 3.0, 1.4
MUD = 63 / 255


def corrupted(images: np.ndarray, name: str, seed: int) -> np.ndarray:
    """Return ``(n, rows, columns)`` images, each corrupted.

    Args:
        images: Float32 between 0 and 1.
        name: Of ``CORRUPTIONS``.
        seed: Of what changes by chance.
    """
    corrupt = CORRUPTIONS[name]
    made = [corrupt(image, numpy_generator(seed, name, number)) for number, image in enumerate(images)]
    return np.clip(np.stack(made), 0, 1).astype(np.float32)


def brightness(image: np.ndarray, random: Random) -> np.ndarray:
    """Add a half to everything, so that the background is grey."""
    return image + 0.5


def canny_edges(image: np.ndarray, random: Random) -> np.ndarray:
    """Leave the edges alone."""
    return canny(image, sigma=1.0).astype(np.float32)


def dotted_line(image: np.ndarray, random: Random) -> np.ndarray:
    """Draw a straight line of dots from one side to the other, two columns on and two off."""
    rows, columns = image.shape
    ends = random.integers(0, rows - 1, 2)
    line = _line(image.shape, (0, ends[0]), (columns - 1, ends[1]))
    return image + line * (np.arange(columns) // max(round(2 * columns / 28), 1) % 2 == 1)


def fog(image: np.ndarray, random: Random) -> np.ndarray:
    """Lay a cloud of all sizes over the image, three times as bright, and darken both."""
    bright = image.max()
    return (image + FOG * _cloud(image.shape, random)) * bright / (bright + FOG)


def glass_blur(image: np.ndarray, random: Random) -> np.ndarray:
    """Blur, let every other pixel change places with one above or left of it, twice, and blur again.

    Down the columns alone: in the released code columns count as channels, and are not mixed.
    """
    sigma, (rows, columns) = 0.7 * len(image) / 28, image.shape
    made = ndimage.gaussian_filter1d(image, sigma, axis=0, mode="nearest").tolist()
    for _ in range(2):
        moves = random.random(image.shape) < 0.5
        down, across = -random.integers(0, 2, (2, *image.shape))
        for i in range(rows - 1, 1, -1):
            for j in range(columns - 1, 1, -1):
                if moves[i, j]:
                    k, m = i + down[i, j], j + across[i, j]
                    made[i][j], made[k][m] = made[k][m], made[i][j]
    return ndimage.gaussian_filter1d(np.array(made), sigma, axis=0, mode="nearest")


def impulse_noise(image: np.ndarray, random: Random) -> np.ndarray:
    """Make 17 % of the pixels black or white."""
    drawn = random.random(image.shape)
    return np.where(drawn < 0.085, 0.0, np.where(drawn > 1 - 0.085, 1.0, image))


def motion_blur(image: np.ndarray, random: Random) -> np.ndarray:
    """Smear it along a straight way: half a Gaussian of three pixels, to one side."""
    angle, sigma = np.deg2rad(random.uniform(-45, 45)), 3 * len(image) / 28
    reach = round(4 * sigma)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for step in range(reach + 1):
        at = reach + round(step * np.sin(angle)), reach + round(step * np.cos(angle))
        kernel[at] += np.exp(-(step**2) / (2 * sigma**2))
    return ndimage.correlate(image, kernel / kernel.sum(), mode="nearest")


def rotate(image: np.ndarray, random: Random) -> np.ndarray:
    """Turn by 0.4 rad, 23 degrees, to either side."""
    angle = 0.4 * random.choice([-1, 1])
    return _moved(image, [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def scale(image: np.ndarray, random: Random) -> np.ndarray:
    """Make it smaller, to 70 % of its size."""
    return _moved(image, [[1 / 0.7, 0], [0, 1 / 0.7]])


def shear(image: np.ndarray, random: Random) -> np.ndarray:
    """Lean it by 0.4 rad to either side; along the lean, lengths stay."""
    angle = 0.4 * random.choice([-1, 1])
    return _moved(image, [[1, -np.sin(angle)], [0, np.cos(angle)]])


def shot_noise(image: np.ndarray, random: Random) -> np.ndarray:
    """Count photons, three on average where it is white."""
    return random.poisson(3 * image) / 3


def spatter(image: np.ndarray, random: Random) -> np.ndarray:
    """Let dark mud fall on it: where a smooth random field is high around."""
    pixel = len(image) / 28
    field = ndimage.gaussian_filter(random.normal(0.65, 0.3, image.shape), pixel, mode="nearest")
    mud = ndimage.gaussian_filter((field > 0.65).astype(float), 1.5 * pixel, mode="nearest")
    mud[mud < 0.8] = 0
    return image * (1 - mud) + MUD * mud


def stripe(image: np.ndarray, random: Random) -> np.ndarray:
    """Invert a quarter of the columns on the left and on the right."""
    made, quarter = image.copy(), image.shape[1] // 4
    made[:, :quarter] = 1 - made[:, :quarter]
    made[:, -quarter:] = 1 - made[:, -quarter:]
    return made


def translate(image: np.ndarray, random: Random) -> np.ndarray:
    """Move it by 3 pixels along each axis."""
    return _moved(image, np.eye(2), 3 * len(image) / 28 * random.choice([-1, 1], 2))


def zigzag(image: np.ndarray, random: Random) -> np.ndarray:
    """Draw a zigzag of two pixels up and two down, nearly from one side to the other."""
    pixel, made = len(image) / 28, image.copy()
    left, right = 2 * pixel, 25 * pixel
    start = random.integers(0, len(image) - 1)
    slope = np.arctan2(random.integers(-5, 5) * pixel, right - left)
    length = (right - left) / np.cos(slope)
    along = np.concatenate([[0], np.arange(2 * pixel, length, 4 * pixel), [length]])
    aside = 2 * pixel * (-1.0) ** np.arange(-1, len(along) - 1)
    aside[[0, -1]] = 0
    across = left + along * np.cos(slope) - aside * np.sin(slope)
    down = start + along * np.sin(slope) + aside * np.cos(slope)
    points = list(zip(across, down, strict=True))
    for first, second in pairwise(points):
        made = np.minimum(made + _line(image.shape, first, second), 1)
    return made


CORRUPTIONS: dict[str, Corruption] = {
    each.__name__: each
    for each in (
        brightness, canny_edges, dotted_line, fog, glass_blur, impulse_noise, motion_blur, rotate, scale,
        shear, shot_noise, spatter, stripe, translate, zigzag,
    )
}  # fmt: skip


def _line(shape: Sequence[int], first: Sequence[float], second: Sequence[float]) -> np.ndarray:
    """Return a line from one (column, row) to another on its right, 1 in the middle and soft downwards."""
    rows, columns = np.indices(tuple(shape))
    steep = (second[1] - first[1]) / (second[0] - first[0])
    away = np.abs(rows - first[1] - steep * (columns - first[0])) / (LINE * shape[0] / 28)
    soft = np.clip(1 + np.log1p(-np.minimum(away, 1 - 1e-9)), 0, 1)
    return np.where((columns >= np.floor(first[0])) & (columns < np.ceil(second[0])), soft, 0)


def _cloud(shape: Sequence[int], random: Random) -> np.ndarray:
    """Return a corner of a landscape nine times as wide, by midpoint displacement, between 0 and 1."""
    field, height = np.zeros((1, 1)), 1.0
    while len(field) < 9 * max(shape):
        down = (field + np.roll(field, -1, 0)) / 2
        wide = np.empty((2 * len(field), 2 * len(field)))
        wide[::2, ::2], wide[1::2, ::2] = field, down
        wide[::2, 1::2] = (field + np.roll(field, -1, 1)) / 2
        wide[1::2, 1::2] = (down + np.roll(down, -1, 1)) / 2
        moved = random.uniform(-height, height, wide.shape)
        moved[::2, ::2] = 0
        field, height = wide + moved, height / FOG_DECAY**2
    corner = field[: shape[0], : shape[1]]
    return (corner - field.min()) / np.ptp(field)


def _moved(image: np.ndarray, matrix: ArrayLike, shift: ArrayLike = (0, 0)) -> np.ndarray:
    """Return an image of which (x, y) about the middle was at ``matrix (x, y) + shift``; outside is black."""
    middle = (np.array(image.shape[::-1]) - 1) / 2
    whole = np.eye(3)
    whole[:2, :2] = np.asarray(matrix)
    whole[:2, 2] = middle - whole[:2, :2] @ middle + np.asarray(shift)
    return warp(image, AffineTransform(whole), order=1)


__all__ = ["CORRUPTIONS", "corrupted"]
