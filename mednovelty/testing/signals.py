"""What a scanner measures of tissue: tensors, free water, lesions, and the noise of a magnitude image.

A voxel's signal along gradient g at b-value b is a sum over compartments,

    S(b, g) = sum_i S0_i exp(-b g^T D_i g)

(Stejskal and Tanner 1965), white matter with up to two axially symmetric tensors,
``g^T D g = radial + (axial - radial) (g . d)^2``. It is ``dipy.sims.voxel.multi_tensor`` for all
voxels at once: dipy's goes voxel by voxel and direction by direction, hundreds of times slower.

Lesions follow the chronic white-matter lesion: a share w of the tissue's signal is exchanged for that
of free isotropic diffusion and its b=0 signal rises by w / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LESION_DIFFUSIVITY_MM2_PER_S = 1.5e-3
LESION_B0_RISE = 0.5


@dataclass(frozen=True, slots=True)
class Tissues:
    """Diffusivities in mm2/s and b=0 signals relative to white matter, at 3 T and an echo time of 90 ms."""

    white_axial: float = 1.65e-3
    white_radial: float = 0.42e-3
    grey: float = 0.85e-3
    fluid: float = 3.0e-3
    scalp: float = 0.05e-3
    grey_b0: float = 1.3
    fluid_b0: float = 3.0
    scalp_b0: float = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """b-values ``(C,)`` in s/mm2 and unit directions ``(C, 3)``, zero where b is 0."""

    bvals: np.ndarray
    bvecs: np.ndarray


def gradient_scheme(n_b0: int, n_directions: int, bvalue_s_per_mm2: float) -> Gradients:
    """Return b=0 volumes first, then directions spread evenly over the half sphere.

    A Fibonacci spiral is a good start; dipy then moves its points apart as if they were charges.
    """
    from dipy.core.sphere import HemiSphere, disperse_charges

    rank = np.arange(n_directions) + 0.5
    z, turn = 1.0 - rank / n_directions, np.pi * (1 + 5**0.5) * rank
    ring = np.sqrt(1.0 - z**2)
    start = HemiSphere(xyz=np.stack([ring * np.cos(turn), ring * np.sin(turn), z], -1))
    directions = disperse_charges(start, 200)[0].vertices if n_directions > 1 else start.vertices
    bvals = np.r_[np.zeros(n_b0), np.full(n_directions, float(bvalue_s_per_mm2))]
    return Gradients(bvals, np.vstack([np.zeros((n_b0, 3)), directions]))


def tensor_attenuation(
    dyads: np.ndarray, axial: np.ndarray, radial: np.ndarray, gradients: Gradients
) -> np.ndarray:
    """Return ``(n, C)`` attenuation exp(-b g^T D g) of axially symmetric tensors.

    Args:
        dyads: ``(6, n)`` entries xx yy zz xy xz yz of d d^T, in the axes of the gradients.
        axial: ``(n,)`` or a number, diffusivity along d in mm2/s.
        radial: ``(n,)`` or a number, diffusivity across d in mm2/s.
        gradients: The scheme.
    """
    x, y, z = gradients.bvecs.T
    along = dyads.T @ np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z])
    radial = np.broadcast_to(radial, dyads.shape[1:])[:, None]
    axial = np.broadcast_to(axial, dyads.shape[1:])[:, None]
    return np.exp(-gradients.bvals * (radial + (axial - radial) * along))


def isotropic_attenuation(diffusivity: np.ndarray | float, gradients: Gradients) -> np.ndarray:
    """Return ``(n, C)`` attenuation exp(-b D) for ``(n,)`` diffusivities in mm2/s, or ``(1, C)`` for one."""
    return np.exp(-np.atleast_1d(diffusivity)[:, None] * gradients.bvals)


def head_signal(
    fields: np.ndarray, tissues: Tissues, gradients: Gradients, speed: np.ndarray, lesion: np.ndarray
) -> np.ndarray:
    """Return the signal without noise, 1 in healthy white matter at b=0.

    Args:
        fields: ``(16, n)`` as ``Anatomy.at`` gives them.
        tissues: Diffusivities and b=0 signals.
        gradients: The scheme, directions in the axes of the template.
        speed: ``(n,)`` factor on every diffusivity of tissue.
        lesion: ``(n,)`` share of the tissue's signal that is exchanged for free diffusion.

    Returns:
        ``(n, C)``.
    """
    grey, fluid, scalp = fields[:3]
    b0 = tissues.grey_b0 * grey
    signal = b0[:, None] * isotropic_attenuation(tissues.grey * speed, gradients)
    for population in (fields[4:10], fields[10:16]):
        share = population[:3].sum(0)
        dyads = population / np.maximum(share, 1e-6)
        axial, radial = tissues.white_axial * speed, tissues.white_radial * speed
        signal += share[:, None] * tensor_attenuation(dyads, axial, radial, gradients)
        b0 = b0 + share
    signal = with_lesion(signal, b0, lesion, gradients)
    signal += tissues.fluid_b0 * fluid[:, None] * isotropic_attenuation(tissues.fluid, gradients)
    signal += tissues.scalp_b0 * scalp[:, None] * isotropic_attenuation(tissues.scalp, gradients)
    return signal


def with_lesion(signal: np.ndarray, b0: np.ndarray, share: np.ndarray, gradients: Gradients) -> np.ndarray:
    """Return ``(1 + w / 2) ((1 - w) S + w S0 exp(-b D))`` with D = 1.5e-3 mm2/s.

    Args:
        signal: ``(n, C)`` of the tissue, S.
        b0: ``(n,)`` of the tissue, S0.
        share: ``(n,)`` w, 0 healthy, 1 free diffusion alone.
        gradients: The scheme.
    """
    free = b0[:, None] * isotropic_attenuation(LESION_DIFFUSIVITY_MM2_PER_S, gradients)
    w = share[:, None]
    return (1.0 + LESION_B0_RISE * w) * ((1.0 - w) * signal + w * free)


def rician(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return the magnitude of ``signal`` plus complex Gaussian noise, ``sigma`` in each part, float32."""
    real, imaginary = rng.standard_normal((2, *signal.shape), np.float32)
    return np.hypot(signal + np.float32(sigma) * real, np.float32(sigma) * imaginary).astype(np.float32)
