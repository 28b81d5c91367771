"""The fifteen corruptions of MNIST-C (Mu and Gilmer 2019), made here with scipy and scikit-image.

They are of the same kinds and about as strong as those of the published set, which is not at hand; they are
not the same images. What changes by chance is drawn for each image by itself, in the order of the images, so
that a prefix of a set is corrupted as the whole set is.

``(n, rows, columns)`` float32 between 0 and 1 go in and come out. Lengths are for 28 pixels, and scale with
the image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage
from skimage.draw import line_aa
from skimage.feature import canny
from skimage.transform import AffineTransform, warp

from mednovelty.seeds import numpy_generator

Random = np.random.Generator
Corruption = Callable[[np.ndarray, Random], np.ndarray]
"""Of one ``(rows, columns)`` image."""


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
    """Draw a straight line of dots from one side to the other."""
    rows, columns = image.shape
    ends = random.uniform(0.1, 0.9, 2) * (rows - 1)
    across = np.arange(0, columns, 2)
    places = np.round(ends[0] + (ends[1] - ends[0]) * across / (columns - 1)).astype(int)
    made = image.copy()
    made[places, across] = 1
    return made


def fog(image: np.ndarray, random: Random) -> np.ndarray:
    """Lay a cloud of all sizes over the image: random fields of halving grain."""
    cloud = np.zeros_like(image)
    for octave in range(1, 5):
        grain = random.random((2**octave + 1, 2**octave + 1))
        zoom = [side / len(grain) for side in image.shape]
        cloud += ndimage.zoom(grain, zoom, order=1)[: image.shape[0], : image.shape[1]] / 2**octave
    cloud = (cloud - cloud.min()) / np.ptp(cloud)
    return (image + 0.7 * cloud + 0.3) / 2 + 0.1


def glass_blur(image: np.ndarray, random: Random) -> np.ndarray:
    """Blur, take each pixel from one that is up to two away, twice, and blur again."""
    made = ndimage.gaussian_filter(image, 0.7)
    places = np.indices(image.shape)
    limits = np.array(image.shape)[:, None, None] - 1
    for _ in range(2):
        near = np.clip(places + random.integers(-2, 3, places.shape), 0, limits)
        made = made[near[0], near[1]]
    return ndimage.gaussian_filter(made, 0.7)


def impulse_noise(image: np.ndarray, random: Random) -> np.ndarray:
    """Make every sixth pixel black or white."""
    drawn = random.random(image.shape)
    return np.where(drawn < 1 / 12, 0.0, np.where(drawn > 11 / 12, 1.0, image))


def motion_blur(image: np.ndarray, random: Random) -> np.ndarray:
    """Average over a straight way of seven pixels."""
    angle = np.deg2rad(random.uniform(-45, 45))
    size = max(3, round(7 * len(image) / 28)) | 1
    kernel, half = np.zeros((size, size)), size // 2
    for step in np.linspace(-half, half, 4 * size):
        kernel[round(half + step * np.sin(angle)), round(half + step * np.cos(angle))] += 1
    return ndimage.convolve(image, kernel / kernel.sum(), mode="constant")


def rotate(image: np.ndarray, random: Random) -> np.ndarray:
    """Turn by 20 to 40 degrees to either side."""
    return _moved(image, rotation=np.deg2rad(_either(random, 20, 40)))


def scale(image: np.ndarray, random: Random) -> np.ndarray:
    """Make it smaller, to 50 to 70 % of its size."""
    return _moved(image, scale=random.uniform(0.5, 0.7))


def shear(image: np.ndarray, random: Random) -> np.ndarray:
    """Lean it by 20 to 35 degrees to either side."""
    return _moved(image, shear=np.deg2rad(_either(random, 20, 35)))


def shot_noise(image: np.ndarray, random: Random) -> np.ndarray:
    """Count photons, five at most where it is white; the dark has a hundredth of those."""
    return random.poisson(5 * np.maximum(image, 0.01)) / 5


def spatter(image: np.ndarray, random: Random) -> np.ndarray:
    """Let drops fall on it: where a smooth random field is high."""
    field = ndimage.gaussian_filter(random.normal(0.65, 0.3, image.shape), 1.0)
    drops = ndimage.gaussian_filter((field > 0.85).astype(float), 0.5)
    return np.maximum(image, drops)


def stripe(image: np.ndarray, random: Random) -> np.ndarray:
    """Invert a quarter of the columns on the left and on the right."""
    made, quarter = image.copy(), image.shape[1] // 4
    made[:, :quarter] = 1 - made[:, :quarter]
    made[:, -quarter:] = 1 - made[:, -quarter:]
    return made


def translate(image: np.ndarray, random: Random) -> np.ndarray:
    """Move it by 4 to 6 pixels along each axis."""
    pixel = len(image) / 28
    return _moved(image, translation=(_either(random, 4, 6) * pixel, _either(random, 4, 6) * pixel))


def zigzag(image: np.ndarray, random: Random) -> np.ndarray:
    """Draw a zigzag line from one side to the other."""
    rows, columns = image.shape
    across = np.round(np.linspace(0, columns - 1, 9)).astype(int)
    start, end = random.uniform(0.2, 0.8, 2) * (rows - 1)
    middle = np.linspace(start, end, 9) + 0.12 * rows * (-1.0) ** np.arange(9)
    places = np.clip(np.round(middle), 0, rows - 1).astype(int)
    made = image.copy()
    for k in range(8):
        at_row, at_column, value = line_aa(places[k], across[k], places[k + 1], across[k + 1])
        made[at_row, at_column] = np.maximum(made[at_row, at_column], value)
    return made


CORRUPTIONS: dict[str, Corruption] = {
    each.__name__: each
    for each in (
        brightness, canny_edges, dotted_line, fog, glass_blur, impulse_noise, motion_blur, rotate, scale,
        shear, shot_noise, spatter, stripe, translate, zigzag,
    )
}  # fmt: skip


def _either(random: Random, low: float, high: float) -> float:
    """Return a number between two, or its negative."""
    return float(random.uniform(low, high) * random.choice([-1, 1]))


def _moved(image: np.ndarray, **how: object) -> np.ndarray:
    """Return an image transformed about its middle; black comes in from outside."""
    middle = (np.array(image.shape[::-1]) - 1) / 2
    centred = (
        AffineTransform(translation=-middle) + AffineTransform(**how) + AffineTransform(translation=middle)
    )
    return warp(image, centred.inverse, order=1)


__all__ = ["CORRUPTIONS", "corrupted"]
