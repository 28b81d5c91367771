"""A small cohort from physics: healthy heads and heads with lesions, as scans on disk or in memory.

    make_scan(settings, seed=0)                 one scan in memory
    make_cohort(folder, settings=settings)      controls, patients and lesion masks as NIfTI
    tiny_settings()                             an egg for a head, milliseconds a scan: for tests

Anatomy is in ``anatomy.py``, what distinguishes people in ``people.py``, the signal in ``signals.py``.
``files.py`` writes them with nibabel alone, so that no test reads back what our own writer made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from mednovelty.errors import OutputError, SettingsError
from mednovelty.testing.anatomy import CENTRE_MM, FRACTIONS, Anatomy, ellipsoid_anatomy, mni_anatomy
from mednovelty.testing.files import write_mask, write_scan
from mednovelty.testing.people import Person, Variety, rotation
from mednovelty.testing.signals import Gradients, gradient_scheme, head_signal, rician

ANATOMIES = {"mni": mni_anatomy, "ellipsoid": ellipsoid_anatomy}
_BLOCK = 32_768
"""Points whose signal is worked out at once; 46 channels of float64 are then 12 MiB an array."""


@dataclass(frozen=True, slots=True)
class PhantomSettings:
    """How a phantom is acquired, how far people differ and how ill patients are.

    Attributes:
        anatomy: ``mni`` or ``ellipsoid``.
        spacing_mm: Distance between voxels along I, J and K.
        field_of_view_mm: Extent of the grid along I, J and K, rounded up to whole voxels.
        orientation: ``RAS``: axes along the world's. ``LAS-oblique``: I runs to the left, all axes tilted.
        oversampling: Points a voxel and axis at which tissue is looked up: partial volume.
        n_b0: Volumes without diffusion weighting; they come first.
        n_directions: Diffusion-weighted volumes.
        bvalue_s_per_mm2: Their b-value.
        snr: b=0 signal of white matter over the noise of the real or the imaginary part; ``inf``: no noise.
        severity: Share of a lesion's signal exchanged for free diffusion of 1.5e-3 mm2/s, on average over
            lesions (single ones differ by up to 30 %); its b=0 signal rises by half of that share.
        n_lesions: Fewest and most lesions a patient has.
        lesion_radius_mm: Smallest and largest mean radius of a lesion.
        edge_mm: Over which a lesion's edge falls off.
        variety: How far people differ.
    """

    anatomy: Literal["mni", "ellipsoid"] = "mni"
    spacing_mm: tuple[float, float, float] = (5.0, 5.0, 5.0)
    field_of_view_mm: tuple[float, float, float] = (190.0, 225.0, 185.0)
    orientation: Literal["RAS", "LAS-oblique"] = "RAS"
    oversampling: int = 2
    n_b0: int = 6
    n_directions: int = 40
    bvalue_s_per_mm2: float = 1200.0
    snr: float = 22.0
    severity: float = 0.5
    n_lesions: tuple[int, int] = (8, 12)
    lesion_radius_mm: tuple[float, float] = (5.0, 11.0)
    edge_mm: float = 2.0
    variety: Variety = field(default_factory=Variety)

    def __post_init__(self) -> None:
        if self.anatomy not in ANATOMIES:
            raise SettingsError(f"anatomy must be one of {', '.join(ANATOMIES)}, got {self.anatomy!r}")
        if self.orientation not in ("RAS", "LAS-oblique"):
            raise SettingsError(f"orientation must be RAS or LAS-oblique, got {self.orientation!r}")
        if min(self.spacing_mm) <= 0 or min(self.field_of_view_mm) <= 0:
            raise SettingsError(
                "spacing_mm and field_of_view_mm must be above 0, got "
                f"{self.spacing_mm} and {self.field_of_view_mm}"
            )
        if min(self.n_b0, self.n_directions, self.oversampling) < 1:
            raise SettingsError(
                "n_b0, n_directions and oversampling must be at least 1, got "
                f"{self.n_b0}, {self.n_directions} and {self.oversampling}"
            )
        if not (0 <= self.severity <= 0.75 and self.snr > 0):
            raise SettingsError(
                f"severity must lie in 0 to 0.75 and snr above 0, got {self.severity} and {self.snr}"
            )


def tiny_settings() -> PhantomSettings:
    """Return settings for tests: an egg on ``(19, 23, 11)`` voxels, 3 b=0 and 12 directions."""
    return PhantomSettings(
        anatomy="ellipsoid",
        spacing_mm=(8.0, 8.0, 10.0),
        field_of_view_mm=(152.0, 184.0, 110.0),
        oversampling=1,
        n_b0=3,
        n_directions=12,
        severity=0.6,
        n_lesions=(4, 5),
        lesion_radius_mm=(9.0, 14.0),
    )


@dataclass(frozen=True, slots=True, eq=False)
class PhantomScan:
    """One simulated scan.

    Attributes:
        signal: ``(C, I, J, K)`` float32.
        affine: ``(4, 4)`` voxels to RAS+ millimetres.
        bvals: ``(C,)`` in s/mm2.
        bvecs: ``(C, 3)`` unit directions in **world** (RAS+) axes; zero where the b-value is 0.
        brain: ``(I, J, K)`` bool, more than half brain.
        lesion: ``(I, J, K)`` bool, more than half lesion; None for the healthy.
    """

    signal: np.ndarray
    affine: np.ndarray
    bvals: np.ndarray
    bvecs: np.ndarray
    brain: np.ndarray
    lesion: np.ndarray | None


@dataclass(frozen=True, slots=True)
class CohortFolder:
    """Where a cohort lies.

    Attributes:
        controls: ``sub-c01/dwi/sub-c01_dwi.{nii.gz,bval,bvec,json}`` and so on.
        patients: The same from ``sub-p01``.
        lesions: ``sub-p01_mask.nii.gz`` and so on.
        brains: The true brain of everybody, ``sub-c01_mask.nii.gz`` and so on.
    """

    controls: Path
    patients: Path
    lesions: Path
    brains: Path


def make_scan(
    settings: PhantomSettings | None = None, *, seed: int | Sequence[int] = 0, lesions: bool = False
) -> PhantomScan:
    """Return one person's scan.

    The seed fixes the person, the lesions and the noise independently of each other and of the grid:
    with and without lesions it is the same person under the same noise, on another grid the same head
    and the same lesions at the same places in the world.

    Args:
        settings: Acquisition, variety and severity; by default the demo's.
        seed: One number or several.
        lesions: Whether the person is a patient.
    """
    settings = settings or PhantomSettings()
    numbers = np.atleast_1d(seed).tolist()
    anatomy = _anatomy(settings.anatomy)
    gradients = _gradients(settings.n_b0, settings.n_directions, settings.bvalue_s_per_mm2)
    person = Person.draw(np.random.default_rng([*numbers, 0]), settings.variety)
    if lesions:
        rng = np.random.default_rng([*numbers, 1])
        person = person.with_lesions(rng, anatomy, settings.n_lesions, settings.lesion_radius_mm)
    shape, affine = _grid(settings)
    signal, brain, lesion = acquire(person, anatomy, gradients, settings)
    noisy = rician(signal, person.gain / settings.snr, np.random.default_rng([*numbers, 2]))
    return PhantomScan(
        signal=noisy.reshape(-1, *shape),
        affine=affine,
        bvals=gradients.bvals.copy(),
        bvecs=gradients.bvecs.copy(),
        brain=brain.reshape(shape),
        lesion=lesion.reshape(shape) if lesions else None,
    )


def make_cohort(
    folder: str | Path,
    *,
    controls: int = 8,
    patients: int = 3,
    settings: PhantomSettings | None = None,
    seed: int = 0,
) -> CohortFolder:
    """Write a cohort as int16 NIfTI with FSL gradients and return where it lies.

    The same arguments give the same bytes.

    Raises:
        OutputError: There is something already.
    """
    root = Path(folder)
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise OutputError(f"{root}: is not an empty folder; name a new one for the cohort")
    settings = settings or PhantomSettings()
    cohort = CohortFolder(root / "controls", root / "patients", root / "lesions", root / "brains")
    for home in (cohort.controls, cohort.patients, cohort.lesions, cohort.brains):
        home.mkdir(parents=True)
    for role, home, count in ((0, cohort.controls, controls), (1, cohort.patients, patients)):
        for number in range(count):
            scan = make_scan(settings, seed=(seed, role, number), lesions=role == 1)
            name = f"sub-{'cp'[role]}{number + 1:02d}"
            write_scan(home / name / "dwi", name, scan)
            write_mask(cohort.brains / f"{name}_mask.nii.gz", scan.brain, scan.affine)
            if scan.lesion is not None:
                write_mask(cohort.lesions / f"{name}_mask.nii.gz", scan.lesion, scan.affine)
    return cohort


def acquire(
    person: Person, anatomy: Anatomy, gradients: Gradients, settings: PhantomSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``(C, n)`` float32 signal without noise, ``(n,)`` brain and ``(n,)`` lesion of all n voxels.

    Args:
        person: Whose head it is.
        anatomy: The template of all heads.
        gradients: The scheme, directions in world axes.
        settings: Grid, oversampling and severity.
    """
    shape, affine = _grid(settings)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    centres = index @ affine[:3, :3].T + affine[:3, 3]
    ticks = (np.arange(settings.oversampling) + 0.5) / settings.oversampling - 0.5
    within = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), -1).reshape(-1, 3) @ affine[:3, :3].T
    # Fibres turn with the head, gradients do not: seen from the head, they turn the other way.
    seen = Gradients(gradients.bvals, gradients.bvecs @ person.rotation)
    signal = np.zeros((len(gradients.bvals), len(index)), np.float32)
    brain, lesion = np.zeros((2, len(index)), bool)
    block = max(1, _BLOCK // len(within))
    for start in range(0, len(index), block):
        here = slice(start, start + block)
        points = centres[here, None] + within
        values, brain[here], lesion[here] = _measure(person, anatomy, seen, settings, points)
        bias = np.exp(person.bias_log * person.bias.at(centres[here])[0])
        signal[:, here] = values.T * (person.gain * bias)
    return signal, brain, lesion


@lru_cache(maxsize=2)
def _anatomy(name: str) -> Anatomy:
    return ANATOMIES[name]()


@lru_cache(maxsize=8)
def _gradients(n_b0: int, n_directions: int, bvalue_s_per_mm2: float) -> Gradients:
    return gradient_scheme(n_b0, n_directions, bvalue_s_per_mm2)


def _grid(settings: PhantomSettings) -> tuple[tuple[int, int, int], np.ndarray]:
    """Return the shape and the affine of a grid around the middle of the head."""
    spacing = np.array(settings.spacing_mm)
    i, j, k = (int(n) for n in np.ceil(np.array(settings.field_of_view_mm) / spacing - 1e-9))
    axes = np.eye(3) if settings.orientation == "RAS" else rotation(9, -6, 12) @ np.diag([-1.0, 1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = CENTRE_MM - affine[:3, :3] @ ((np.array([i, j, k]) - 1) / 2)
    return (i, j, k), affine


def _measure(
    person: Person,
    anatomy: Anatomy,
    gradients: Gradients,
    settings: PhantomSettings,
    points_mm: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return signal ``(n, C)``, brain ``(n,)`` and lesion ``(n,)`` of voxels of p points, ``(n, p, 3)``."""
    template = person.to_template(points_mm.reshape(-1, 3))
    head = np.flatnonzero(anatomy.near(template))
    template, fields = template[head], anatomy.at(template[head])
    inside, strength = person.lesion_at(template, settings.edge_mm) * _mostly_white(fields)
    speed = person.speed * np.exp(person.region_log * person.region.at(template)[0])
    out = np.zeros((points_mm.shape[0] * points_mm.shape[1], 2 + len(gradients.bvals)), np.float32)
    out[head, 0] = fields[FRACTIONS.index("brain")]
    out[head, 1] = inside
    out[head, 2:] = head_signal(fields, person.tissues, gradients, speed, settings.severity * strength)
    mean = out.reshape(*points_mm.shape[:2], -1).mean(1)
    brain = mean[:, 0] > 0.5
    return mean[:, 2:], brain, brain & (mean[:, 1] > 0.5)


def _mostly_white(fields: np.ndarray) -> np.ndarray:
    """Return ``(n,)`` 1 in white matter to 0 elsewhere: lesions fade where they leave it."""
    white = fields[4:7].sum(0) + fields[10:13].sum(0)
    return 0.5 * (1.0 + np.tanh((white - 0.4) / 0.15))
