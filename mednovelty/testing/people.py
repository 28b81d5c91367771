"""What makes one simulated person another: shape, pose, tissue, lesions, and the coil around the head.

Everything lives in millimetres, none of it in voxels: the same person on two grids is the same person.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

from mednovelty.testing.anatomy import CENTRE_MM, Anatomy
from mednovelty.testing.signals import Tissues

REACH_MM = 160.0


@dataclass(frozen=True, slots=True)
class Variety:
    """How far people differ; 0 makes them twins.

    Attributes:
        turn_deg: Largest rotation of the head about each axis.
        shift_mm: Largest shift of the head along each axis.
        size: Standard deviation of the head's size along each axis, as a factor.
        warp_mm: Largest displacement of the smooth deformation along each axis.
        bias: Largest logarithm of the coil's smooth sensitivity.
        gain: Largest logarithm of the image's scale, which differs from scan to scan.
        tissue: Standard deviation of each diffusivity and b=0 signal, as a factor.
        speed: Standard deviation of the diffusivity of the whole brain, as a factor.
        region: Largest logarithm of the smooth variation of diffusivity over the brain.
    """

    turn_deg: float = 8.0
    shift_mm: float = 4.0
    size: float = 0.03
    warp_mm: float = 4.0
    bias: float = 0.15
    gain: float = 0.35
    tissue: float = 0.03
    speed: float = 0.03
    region: float = 0.08


@dataclass(frozen=True, slots=True, eq=False)
class SmoothField:
    """A smooth random function of position: cubic splines through random numbers on a cubic lattice.

    Attributes:
        knots: ``(F, n, n, n)`` spline coefficients; the lattice is centred on the head.
        step_mm: Distance between knots.
    """

    knots: np.ndarray
    step_mm: float

    @classmethod
    def draw(cls, rng: np.random.Generator, parts: int, step_mm: float) -> SmoothField:
        """Return ``parts`` functions whose largest magnitude on the lattice is 1 each."""
        n = 2 * int(np.ceil(REACH_MM / step_mm)) + 1
        values = gaussian_filter(rng.standard_normal((parts, n, n, n)), (0, 0.7, 0.7, 0.7))
        values /= np.abs(values).max(axis=(1, 2, 3), keepdims=True)
        return cls(np.stack([spline_filter(part, order=3, mode="mirror") for part in values]), step_mm)

    def at(self, points_mm: np.ndarray) -> np.ndarray:
        """Return ``(F, n)`` values at ``(n, 3)`` points."""
        index = ((points_mm - CENTRE_MM) / self.step_mm + (self.knots.shape[1] - 1) / 2).T
        return np.stack(
            [map_coordinates(part, index, order=3, mode="mirror", prefilter=False) for part in self.knots]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Lesion:
    """A soft, crooked ellipsoid in template millimetres.

    Attributes:
        centre_mm: ``(3,)``.
        inverse_mm: ``(3, 3)``, takes an offset in millimetres to the unit ball.
        radius_mm: Its mean radius.
        strength: Factor on the settings' severity.
    """

    centre_mm: np.ndarray
    inverse_mm: np.ndarray
    radius_mm: float
    strength: float

    def inside(self, points_mm: np.ndarray, crook: np.ndarray, softness_mm: float) -> np.ndarray:
        """Return ``(n,)`` from 1 inside to 0 outside, 0.5 on the outline.

        Args:
            points_mm: ``(n, 3)`` template millimetres.
            crook: ``(n,)`` smooth noise that pushes the outline in and out.
            softness_mm: Over which the edge falls off.
        """
        distance = np.linalg.norm((points_mm - self.centre_mm) @ self.inverse_mm.T, axis=-1)
        depth_mm = (np.exp(0.45 * crook) - distance) * self.radius_mm
        return 0.5 * (1.0 + np.tanh(depth_mm / softness_mm))


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One head in the scanner.

    Attributes:
        rotation: ``(3, 3)``, template directions to world directions.
        shift_mm: ``(3,)``, of the head's middle.
        size: ``(3,)`` factors.
        shape: Smooth deformation, three parts, scaled by ``warp_mm``.
        warp_mm: Size of the deformation.
        tissues: Diffusivities and b=0 signals.
        speed: Factor on every diffusivity of tissue.
        region: Smooth variation of diffusivity; one part, scaled by ``region_log``.
        region_log: Size of that variation.
        bias: The coil's smooth sensitivity in the world; one part, scaled by ``bias_log``.
        bias_log: Size of the sensitivity's variation.
        gain: Signal of white matter at b=0 in the units of the image.
        lesions: None for the healthy.
        crook: Smooth noise on the lesions' outlines.
    """

    rotation: np.ndarray
    shift_mm: np.ndarray
    size: np.ndarray
    shape: SmoothField
    warp_mm: float
    tissues: Tissues
    speed: float
    region: SmoothField
    region_log: float
    bias: SmoothField
    bias_log: float
    gain: float
    lesions: tuple[Lesion, ...] = ()
    crook: SmoothField | None = None

    @classmethod
    def draw(cls, rng: np.random.Generator, variety: Variety) -> Person:
        """Return somebody healthy."""
        return cls(
            rotation=rotation(*rng.uniform(-variety.turn_deg, variety.turn_deg, 3)),
            shift_mm=rng.uniform(-variety.shift_mm, variety.shift_mm, 3),
            size=np.exp(variety.size * rng.standard_normal(3)),
            shape=SmoothField.draw(rng, 3, 30.0),
            warp_mm=variety.warp_mm,
            tissues=_own_tissues(rng, variety.tissue),
            speed=float(np.exp(variety.speed * rng.standard_normal())),
            region=SmoothField.draw(rng, 1, 25.0),
            region_log=variety.region,
            bias=SmoothField.draw(rng, 1, 60.0),
            bias_log=variety.bias,
            gain=float(500.0 * np.exp(rng.uniform(-variety.gain, variety.gain))),
        )

    def with_lesions(
        self,
        rng: np.random.Generator,
        anatomy: Anatomy,
        count: tuple[int, int],
        radius_mm: tuple[float, float],
    ) -> Person:
        """Return the same person with lesions, most of them in deep white matter.

        Args:
            rng: Decides on everything about them.
            anatomy: Says where white matter is.
            count: Fewest and most lesions.
            radius_mm: Smallest and largest mean radius.
        """
        n = int(rng.integers(count[0], count[1] + 1))
        deep = anatomy.white * gaussian_filter(anatomy.white, 4.0 / anatomy.affine[0, 0]) ** 3
        chance = np.cumsum(deep.ravel(), dtype=np.float64)
        chosen = np.searchsorted(chance, rng.uniform(0, chance[-1], n))
        centres = anatomy.world(np.stack(np.unravel_index(chosen, deep.shape), -1).astype(np.float64))
        lesions = tuple(_draw_lesion(rng, centre, radius_mm) for centre in centres)
        return replace(self, lesions=lesions, crook=SmoothField.draw(rng, 1, 9.0))

    def to_template(self, points_mm: np.ndarray) -> np.ndarray:
        """Return where in the template the ``(n, 3)`` points of the world are."""
        points = (points_mm - CENTRE_MM - self.shift_mm) @ self.rotation / self.size + CENTRE_MM
        return points + self.warp_mm * self.shape.at(points).T

    def lesion_at(self, template_mm: np.ndarray, softness_mm: float) -> np.ndarray:
        """Return ``(2, n)``: how far inside a lesion points are, 0 to 1, and that times its strength."""
        inside, strength = np.zeros((2, len(template_mm)))
        if self.crook is None:
            return np.stack([inside, strength])
        crook = self.crook.at(template_mm)[0]
        for lesion in self.lesions:
            here = lesion.inside(template_mm, crook, softness_mm)
            inside, strength = np.maximum(inside, here), np.maximum(strength, lesion.strength * here)
        return np.stack([inside, strength])


def rotation(x_deg: float, y_deg: float, z_deg: float) -> np.ndarray:
    """Return the ``(3, 3)`` rotation about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = (
        np.cos(np.deg2rad([x_deg, y_deg, z_deg])),
        np.sin(np.deg2rad([x_deg, y_deg, z_deg])),
    )
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _own_tissues(rng: np.random.Generator, spread: float) -> Tissues:
    """Return tissues that differ from the textbook's; water and fat are the same in everyone."""
    names = ("white_axial", "white_radial", "grey", "grey_b0", "fluid_b0")
    factors = np.exp(spread * rng.standard_normal(len(names)))
    usual = Tissues()
    return replace(
        usual, **{name: getattr(usual, name) * float(f) for name, f in zip(names, factors, strict=True)}
    )


def _draw_lesion(rng: np.random.Generator, centre_mm: np.ndarray, between_mm: tuple[float, float]) -> Lesion:
    radius_mm = float(rng.uniform(*between_mm))
    stretch = np.exp(rng.uniform(-0.35, 0.35, 3))
    turn = rotation(*rng.uniform(-90, 90, 3))
    return Lesion(centre_mm, turn.T / (radius_mm * stretch)[:, None], radius_mm, float(rng.uniform(0.7, 1.3)))
