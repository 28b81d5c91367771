"""The physics of the simulated cohort, worked out by hand and against dipy."""

import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.sims.voxel import multi_tensor
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.testing.anatomy import DYAD
from mednovelty.testing.files import fsl_bvecs
from mednovelty.testing.signals import (
    Gradients,
    Tissues,
    gradient_scheme,
    head_signal,
    isotropic_attenuation,
    rician,
    tensor_attenuation,
    with_lesion,
)

AXES = Gradients(np.array([0.0, 1200, 1200, 1200]), np.vstack([np.zeros(3), np.eye(3)]))


def dyad(direction) -> np.ndarray:
    d = np.array(direction, float) / np.linalg.norm(direction)
    return np.array([d[a] * d[b] for a, b in DYAD])


def voxel(grey=0.0, fluid=0.0, scalp=0.0, first=None, second=None) -> np.ndarray:
    """Return ``(16, 1)`` fields of one voxel; fibres as (share, direction)."""
    parts = [share * dyad(direction) if share else np.zeros(6) for share, direction in (first, second)]
    return np.concatenate([[grey, fluid, scalp, 1.0], *parts])[:, None]


NO_FIBRE = (0.0, (1, 0, 0))
HEALTHY = (np.ones(1), np.zeros(1))


class TestSignal:
    def test_isotropic_compartment_is_exp_minus_b_d(self):
        # b D = 1200 * 0.7e-3 = 0.84; exp(-0.84) = 0.431711
        attenuation = isotropic_attenuation(0.7e-3, AXES)
        np.testing.assert_allclose(attenuation, [[1, 0.431711, 0.431711, 0.431711]], atol=1e-6)

    def test_tensor_along_x_attenuates_most_along_x(self):
        # along: exp(-1200 * 1.7e-3) = exp(-2.04) = 0.130029; across: exp(-1200 * 0.3e-3) = 0.697676
        attenuation = tensor_attenuation(dyad((1, 0, 0))[:, None], 1.7e-3, 0.3e-3, AXES)
        np.testing.assert_allclose(attenuation, [[1, 0.130029, 0.697676, 0.697676]], atol=1e-6)

    @pytest.mark.parametrize("direction", [(1, 2, 0), (2, 0, -1), (0, 1, 3)])
    def test_oblique_tensor_is_fastest_along_itself_and_slowest_across(self, direction):
        d = np.array(direction) / np.linalg.norm(direction)
        across = np.cross(d, (0.3, 0.5, 0.7))
        gradients = Gradients(np.full(2, 900.0), np.stack([d, across / np.linalg.norm(across)]))
        attenuation = tensor_attenuation(dyad(direction)[:, None], 1.7e-3, 0.3e-3, gradients)
        np.testing.assert_allclose(attenuation[0], np.exp([-900 * 1.7e-3, -900 * 0.3e-3]))

    @given(st.floats(0.1, 0.9), st.floats(0.2, 1.5))
    def test_two_fibres_cross_as_in_dipy(self, share, angle):
        scheme, tissues = gradient_scheme(2, 15, 1300.0), Tissues()
        d1, d2 = np.array([0.48, 0.6, 0.64]), np.array([np.cos(angle), 0.0, np.sin(angle)])
        ours = head_signal(voxel(first=(share, d1), second=(1 - share, d2)), tissues, scheme, *HEALTHY)
        table = gradient_table(scheme.bvals, bvecs=scheme.bvecs)
        values = [[tissues.white_axial, tissues.white_radial, tissues.white_radial]] * 2
        theirs, _ = multi_tensor(
            table, values, S0=1.0, angles=[d1, d2], fractions=[100 * share, 100 - 100 * share], snr=None
        )
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-6)

    def test_partial_volume_is_a_sum_over_tissues(self):
        fields = voxel(grey=0.5, fluid=0.2, scalp=0.1, first=(0.2, (0, 0, 1)), second=NO_FIBRE)
        tissues = Tissues(1.6e-3, 0.4e-3, 0.8e-3, 3e-3, 0.1e-3, grey_b0=1.2, fluid_b0=2.5, scalp_b0=0.3)
        # b=0: 1.2 * 0.5 + 2.5 * 0.2 + 0.3 * 0.1 + 0.2 = 1.33
        # x: 0.6 exp(-0.96) + 0.5 exp(-3.6) + 0.03 exp(-0.12) + 0.2 exp(-0.48) = 0.393762;
        # z: the last term becomes 0.2 exp(-1.92)
        signal = head_signal(fields, tissues, AXES, *HEALTHY)
        np.testing.assert_allclose(signal, [[1.33, 0.393762, 0.393762, 0.299327]], atol=1e-6)

    def test_speed_multiplies_the_diffusivity_of_tissue_but_not_of_water(self):
        tissues = Tissues(grey=0.8e-3, fluid=3e-3, grey_b0=1.0, fluid_b0=1.0)
        fields = voxel(grey=0.6, fluid=0.4, first=NO_FIBRE, second=NO_FIBRE)
        signal = head_signal(fields, tissues, AXES, np.array([1.25]), np.zeros(1))
        # 0.6 exp(-1200 * 0.8e-3 * 1.25) + 0.4 exp(-3.6) = 0.6 exp(-1.2) + 0.4 exp(-3.6) = 0.191646
        np.testing.assert_allclose(signal[0, 1:], 0.191646, atol=1e-6)

    def test_lesion_exchanges_a_share_for_free_diffusion_and_raises_b0(self):
        # w = 0.4: (1 + 0.2) (0.6 * 0.5 + 0.4 * 2 * exp(-1200 * 1.5e-3)) = 1.2 * 0.432239 = 0.518687
        signal = np.array([[2.0, 0.5, 0.5, 0.5]])
        ill = with_lesion(signal, np.array([2.0]), np.array([0.4]), AXES)
        np.testing.assert_allclose(ill, [[2.4, 0.518687, 0.518687, 0.518687]], atol=1e-6)

    def test_lesion_leaves_free_water_alone(self):
        fields = voxel(fluid=1.0, first=NO_FIBRE, second=NO_FIBRE)
        ill = head_signal(fields, Tissues(), AXES, np.ones(1), np.array([0.7]))
        np.testing.assert_array_equal(ill, head_signal(fields, Tissues(), AXES, *HEALTHY))


class TestNoise:
    def test_where_there_is_no_signal_it_is_rayleigh(self):
        noise = rician(np.zeros((40, 5000), np.float32), 3.7, np.random.default_rng(5))
        assert noise.mean() == pytest.approx(3.7 * np.sqrt(np.pi / 2), rel=0.01)
        assert (noise.astype(float) ** 2).mean() == pytest.approx(2 * 3.7**2, rel=0.01)

    def test_where_signal_is_strong_it_is_gaussian(self):
        noise = rician(np.full((40, 5000), 500, np.float32), 3.7, np.random.default_rng(6)) - 500
        # E |s + n| is about s + sigma^2 / 2s = 500.0137
        assert noise.mean() == pytest.approx(3.7**2 / 1000, abs=0.04)
        assert noise.std() == pytest.approx(3.7, rel=0.01)


class TestGradients:
    def test_scheme_has_b0_first_and_directions_spread_over_the_half_sphere(self):
        scheme = gradient_scheme(6, 40, 1200.0)
        assert scheme.bvals.tolist() == [0.0] * 6 + [1200.0] * 40
        assert not scheme.bvecs[:6].any()
        directions = scheme.bvecs[6:]
        np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
        angles = np.degrees(np.arccos(np.abs(directions @ directions.T) - 1e-9)[np.triu_indices(40, 1)])
        # 40 axes packed as well as possible are some 23 degrees apart.
        assert angles.min() > 20

    def test_fsl_axes_of_turned_right_handed_voxels(self):
        # I runs to the back, J to the left, K down: right-handed, determinant 2 * 3 * 1.5.
        affine = np.array([[0, -3.0, 0, 7], [-2.0, 0, 0, 5], [0, 0, -1.5, 3], [0, 0, 0, 1]])
        assert np.linalg.det(affine) > 0
        # world x = -J, world y = -I (flipped: +I), world z = -K
        np.testing.assert_allclose(fsl_bvecs(np.eye(3), affine), [[0, -1, 0], [1, 0, 0], [0, 0, -1]])

    def test_fsl_axes_of_left_handed_voxels(self):
        affine = np.array([[0, 3.0, 0, 7], [2.0, 0, 0, 5], [0, 0, 1.5, 3], [0, 0, 0, 1]])
        assert np.linalg.det(affine) < 0
        np.testing.assert_allclose(fsl_bvecs(np.eye(3), affine), [[0, 1, 0], [1, 0, 0], [0, 0, 1]])
