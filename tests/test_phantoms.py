"""The simulated cohort: people, lesions, geometry, files, and whether it is hard enough."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import faiss
import nibabel as nib
import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.io.gradients import read_bvals_bvecs
from dipy.reconst.dti import TensorModel
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mednovelty.errors import OutputError, SettingsError
from mednovelty.testing.anatomy import CENTRE_MM, FRACTIONS, Anatomy, ellipsoid_anatomy
from mednovelty.testing.files import write_scan
from mednovelty.testing.people import Person, SmoothField, Variety, rotation
from mednovelty.testing.phantoms import (
    PhantomScan,
    PhantomSettings,
    _anatomy,
    acquire,
    make_cohort,
    make_scan,
    tiny_settings,
)
from mednovelty.testing.signals import (
    Gradients,
    Tissues,
    gradient_scheme,
)

NOBODY_DIFFERS = Variety(0, 0, 0, 0, 0, 0, 0, 0, 0)
AXES = Gradients(np.array([0.0, 1200, 1200, 1200]), np.vstack([np.zeros(3), np.eye(3)]))


def around_middle(*offset_mm: float) -> np.ndarray:
    return CENTRE_MM[None] + np.array([offset_mm])


@pytest.fixture(scope="module")
def mni() -> Anatomy:
    """Return the MNI head, loaded while nothing can reach the network."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("the anatomy asked for the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        return _anatomy("mni")


class TestGradients:
    @pytest.mark.parametrize("orientation", ["RAS", "LAS-oblique"])
    def test_gradients_stay_in_the_scanner_while_the_head_turns(self, orientation, tmp_path):
        # Fibres along the template's x; the head is turned by 90 degrees about z, then 30 about x:
        # x -> y -> (0, cos 30, sin 30) in the world.
        turn = rotation(30, 0, 0) @ rotation(0, 0, 90)
        settings = replace(tiny_settings(), snr=np.inf, variety=NOBODY_DIFFERS, orientation=orientation)
        person = replace(Person.draw(np.random.default_rng(0), NOBODY_DIFFERS), rotation=turn)
        scheme = gradient_scheme(3, 12, 1200.0)
        signal, brain, _ = acquire(person, _block_of_fibres(), scheme, settings)
        scan = make_scan(settings)
        shape = scan.brain.shape
        scan = PhantomScan(signal.reshape(-1, *shape), scan.affine, scheme.bvals, scheme.bvecs, brain, None)
        middle = tuple(n // 2 for n in shape)
        fit = TensorModel(gradient_table(scan.bvals, bvecs=scan.bvecs)).fit(scan.signal[:, *middle])
        assert abs(fit.evecs[:, 0] @ [0, np.cos(np.pi / 6), 0.5]) == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(fit.evals, [1.65e-3, 0.42e-3, 0.42e-3], rtol=1e-5)
        # And once more from the files, by the definition of FSL's axes.
        write_scan(tmp_path / "sub", "sub", scan)
        _, bvecs = read_bvals_bvecs(str(tmp_path / "sub/sub_dwi.bval"), str(tmp_path / "sub/sub_dwi.bvec"))
        image = nib.load(tmp_path / "sub/sub_dwi.nii.gz")
        if np.linalg.det(image.affine) > 0:
            bvecs = bvecs * [-1, 1, 1]
        world = bvecs @ (image.affine[:3, :3] / nib.affines.voxel_sizes(image.affine)).T
        strongest = world[3:][np.argmin(image.dataobj[middle][3:])]
        weakest = world[3:][np.argmax(image.dataobj[middle][3:])]
        assert (
            abs(strongest @ [0, np.cos(np.pi / 6), 0.5])
            > 0.9
            > 0.35
            > abs(weakest @ [0, np.cos(np.pi / 6), 0.5])
        )


def _block_of_fibres() -> Anatomy:
    """Return a head that is white matter everywhere, all fibres along x."""
    fields = np.zeros((16, 31, 33, 29), np.float32)
    fields[3] = fields[4] = 1
    affine = np.diag([8.0, 8, 8, 1])
    affine[:3, 3] = CENTRE_MM - 4.0 * np.array([30, 32, 28])
    return Anatomy(fields, np.ones(fields.shape[1:], np.uint8), affine)


class TestPeople:
    def test_twins_without_variety_are_the_template(self):
        person = Person.draw(np.random.default_rng(3), NOBODY_DIFFERS)
        points = np.array([[12.0, -30, 44], [-50, 9, 0]])
        np.testing.assert_allclose(person.to_template(points), points)
        assert person.gain == 500
        assert person.tissues == Tissues()

    def test_a_head_turned_by_90_degrees_about_z(self):
        person = Person.draw(np.random.default_rng(3), NOBODY_DIFFERS)
        person = replace(person, rotation=rotation(0, 0, 90), shift_mm=np.array([1.0, 2, 3]))
        # What lies 10 mm to the template's right lies, turned and shifted, 10 mm to the front in the world.
        found = person.to_template(around_middle(1, 12, 3))
        np.testing.assert_allclose(found, around_middle(10, 0, 0), atol=1e-12)

    def test_a_larger_head_has_the_same_template_point_further_out(self):
        person = replace(Person.draw(np.random.default_rng(3), NOBODY_DIFFERS), size=np.array([1.25, 1, 1]))
        found = person.to_template(around_middle(50, 7, 0))
        np.testing.assert_allclose(found, around_middle(40, 7, 0))

    def test_smooth_fields_are_smooth_bounded_and_centred(self):
        smooth = SmoothField.draw(np.random.default_rng(8), 3, 30.0)
        points = CENTRE_MM + np.random.default_rng(9).uniform(-90, 90, (4000, 3))
        values, beside = smooth.at(points), smooth.at(points + np.array([0.1, 0, 0]))
        assert np.abs(values).max() < 1.3
        assert values.std(axis=1).min() > 0.1
        assert np.abs(values - beside).max() < 0.02

    @given(st.floats(-80, 80), st.floats(-80, 80), st.floats(-80, 80))
    def test_rotations_keep_lengths_and_hands(self, x, y, z):
        turn = rotation(x, y, z)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)

    def test_healthy_people_differ(self):
        one, other = (make_scan(replace(tiny_settings(), snr=np.inf), seed=s) for s in (1, 2))
        assert (one.brain != other.brain).mean() > 0.01
        assert np.abs(one.signal / one.signal.mean() - other.signal / other.signal.mean()).mean() > 0.05


class TestLesions:
    def twins(self, **changes):
        settings = replace(tiny_settings(), snr=np.inf, **changes)
        return make_scan(settings, seed=7), make_scan(settings, seed=7, lesions=True)

    def test_lesions_attenuate_more_than_their_healthy_twin(self):
        healthy, ill = self.twins()
        assert healthy.lesion is None
        assert ill.lesion.sum() > 10
        weighted = ill.bvals > 0
        attenuation = [
            s.signal[weighted][:, ill.lesion].mean(0) / s.signal[~weighted][:, ill.lesion].mean(0)
            for s in (healthy, ill)
        ]
        assert (attenuation[1] < attenuation[0]).all()
        assert np.median(attenuation[1]) < np.median(attenuation[0]) - 0.08
        rise = ill.signal[0][ill.lesion] / healthy.signal[0][ill.lesion]
        assert rise.min() > 1
        assert 1.1 < np.median(rise) < 1.4

    def test_elsewhere_the_twins_are_the_same(self):
        healthy, ill = self.twins()
        np.testing.assert_array_equal(healthy.brain, ill.brain)
        change = np.abs(healthy.signal - ill.signal).max(0)
        assert change[ill.lesion].min() > 5
        assert np.median(change[ill.brain & ~ill.lesion]) < 0.5
        assert np.percentile(change[~ill.brain], 99) < 0.5

    def test_severity_nought_is_health_and_more_is_worse(self):
        healthy, ill = self.twins(severity=0.0)
        np.testing.assert_array_equal(healthy.signal, ill.signal)
        change = [np.abs(np.subtract(*(s.signal for s in self.twins(severity=w)))).mean() for w in (0.2, 0.4)]
        assert change[1] > 1.7 * change[0]

    def test_edges_are_soft(self):
        healthy, ill = self.twins()
        change = np.abs(ill.signal - healthy.signal).sum(0)[ill.brain & ~ill.lesion]
        inside = np.abs(ill.signal - healthy.signal).sum(0)[ill.lesion]
        between = (change > 0.05 * np.median(inside)) & (change < np.median(inside))
        assert between.sum() > ill.lesion.sum() / 2

    def test_lesions_lie_in_white_matter_and_are_not_round(self, mni):
        person = Person.draw(np.random.default_rng(0), NOBODY_DIFFERS)
        person = person.with_lesions(np.random.default_rng(1), mni, (30, 30), (6.0, 6.0))
        centres = np.stack([lesion.centre_mm for lesion in person.lesions])
        fields = mni.at(centres)
        assert len(centres) == 30
        white = fields[4:7].sum(0) + fields[10:13].sum(0)
        assert white.mean() > 0.8
        assert mni.white[mni.fields[3] > 0.5].mean() < 0.5
        grid = np.stack(np.meshgrid(*[np.linspace(-15, 15, 31)] * 3, indexing="ij"), -1).reshape(-1, 3)
        inside = person.lesion_at(person.lesions[0].centre_mm + grid, 1.0)[0] > 0.5
        spread = np.linalg.eigvalsh(np.cov(grid[inside].T))
        assert spread[2] > 1.2 * spread[0]


class TestGeometry:
    def test_snr_is_b0_of_white_matter_over_sigma(self):
        settings = replace(tiny_settings(), snr=16.0, variety=NOBODY_DIFFERS)
        corner = make_scan(settings, seed=4).signal[:, :2, :2]
        # Nobody differs: the gain is 500, so sigma = 500 / 16 = 31.25.
        assert corner.mean() == pytest.approx(31.25 * np.sqrt(np.pi / 2), rel=0.05)

    def test_oblique_left_handed_grid_holds_the_same_head_and_lesions(self):
        ras = replace(tiny_settings(), n_lesions=(2, 2), lesion_radius_mm=(15.0, 15.0))
        las = replace(ras, orientation="LAS-oblique", spacing_mm=(7.0, 6.0, 9.0))
        one, other = (make_scan(settings, seed=3, lesions=True) for settings in (ras, las))
        assert nib.aff2axcodes(one.affine) == ("R", "A", "S")
        assert nib.aff2axcodes(other.affine) == ("L", "A", "S")
        assert np.linalg.det(other.affine) < 0
        assert np.abs(other.affine[:3, :3]).min() > 0.5
        np.testing.assert_allclose(nib.affines.voxel_sizes(other.affine), [7, 6, 9])
        for name in ("brain", "lesion"):
            centres = [_centre_mm(getattr(s, name), s.affine) for s in (one, other)]
            np.testing.assert_allclose(centres[0], centres[1], atol=2.0)
            volumes = [getattr(s, name).sum() * abs(np.linalg.det(s.affine)) for s in (one, other)]
            assert volumes[0] == pytest.approx(volumes[1], rel=0.2)
        np.testing.assert_array_equal(one.bvecs, other.bvecs)

    def test_scan_grid(self):
        scan = make_scan(tiny_settings())
        assert scan.signal.shape == (15, 19, 23, 11)
        assert scan.signal.dtype == np.float32
        np.testing.assert_allclose(scan.affine[:3, :3], np.diag([8, 8, 10]))
        np.testing.assert_allclose(scan.affine @ [9, 11, 5, 1], [*CENTRE_MM, 1])

    def test_a_uniform_head_has_the_gain_as_its_b0_whatever_the_oversampling(self):
        person = Person.draw(np.random.default_rng(0), NOBODY_DIFFERS)
        for oversampling in (2, 3):
            settings = replace(tiny_settings(), oversampling=oversampling)
            signal, brain, _ = acquire(person, _block_of_fibres(), AXES, settings)
            np.testing.assert_allclose(signal[0], 500, rtol=1e-5)
            assert brain.all()

    def test_partial_volume_is_the_mean_over_smaller_voxels(self):
        coarse = replace(
            tiny_settings(), snr=np.inf, oversampling=2, variety=replace(Variety(), bias=0.0),
            spacing_mm=(10.0, 8.0, 12.0), field_of_view_mm=(150.0, 184.0, 120.0),
        )  # fmt: skip
        fine = replace(coarse, oversampling=1, spacing_mm=(5.0, 4.0, 6.0))
        signal = make_scan(fine, seed=5, lesions=True).signal
        c, i, j, k = (n // m for n, m in zip(signal.shape, (1, 2, 2, 2), strict=True))
        mean = signal.reshape(c, i, 2, j, 2, k, 2).mean((2, 4, 6))
        np.testing.assert_allclose(make_scan(coarse, seed=5, lesions=True).signal, mean, rtol=1e-4, atol=1e-2)


def _centre_mm(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return affine[:3, :3] @ np.argwhere(mask).mean(0) + affine[:3, 3]


class TestAnatomy:
    def test_it_needs_no_network_and_has_an_adults_white_matter(self, mni):
        assert 4e5 < mni.white.sum() * 8 < 8e5  # mm3

    # Textbook places in MNI millimetres, and the axis along which fibres run there.
    @pytest.mark.parametrize(
        ("place", "axis"),
        [((0, 25, 4), 0), ((0, -38, 14), 0), ((-22, -14, 14), 2), ((22, -14, 14), 2), ((38, -30, 28), 1)],
    )
    def test_fibres_of_callosum_capsule_and_long_association(self, mni, place, axis):
        near = np.array(place) + np.stack(np.meshgrid(*[[-3, 0, 3]] * 3), -1).reshape(-1, 3)
        dyads = (mni.at(near.astype(float))[4:7] + mni.at(near.astype(float))[10:13]).mean(1)
        assert np.argmax(dyads) == axis
        assert dyads[axis] > 0.5 * dyads.sum() > 0.2

    def test_tissues_are_where_they_belong(self, mni):
        def fraction(name, place):
            fields = mni.at(np.array([place], float))[:, 0]
            return (
                fields[4:7].sum() + fields[10:13].sum() if name == "white" else fields[FRACTIONS.index(name)]
            )

        assert fraction("white", (28, -20, 32)) > 0.9
        assert fraction("grey", (12, 10, 10)) > 0.7  # caudate nucleus
        assert (
            fraction("fluid", (-8, -6, 24)) > 0.5 or fraction("fluid", (-5, 4, 12)) > 0.5
        )  # lateral ventricle
        assert fraction("brain", (0, 0, 110)) == 0

    @pytest.mark.parametrize("name", ["mni", "ellipsoid"])
    def test_fractions_fill_the_brain(self, name, mni):
        anatomy = mni if name == "mni" else ellipsoid_anatomy()
        assert anatomy.fields.shape[0] == 16
        assert anatomy.fields[:4].min() >= 0
        together = anatomy.white + anatomy.fields[0] + anatomy.fields[1]
        assert np.abs(together - anatomy.fields[3]).max() < 2e-3
        assert not anatomy.fields.flags.writeable

    def test_no_tissue_is_missed_by_the_shortcut(self):
        anatomy = ellipsoid_anatomy()
        points = CENTRE_MM + np.random.default_rng(2).uniform(-100, 100, (20000, 3))
        far = points[~anatomy.near(points)]
        assert 1000 < len(far) < 19000
        assert anatomy.at(far).max() < 1e-3

    def test_white_matter_has_single_and_crossing_fibres(self, mni):
        white = mni.white > 0.95
        second = mni.fields[10:13].sum(0)[white]
        assert (second < 0.15).mean() > 0.1
        assert (second > 0.3).mean() > 0.15
        assert second.max() <= 0.5 + 1e-3


class TestFiles:
    @pytest.fixture(scope="class")
    @classmethod
    def cohort(cls, tmp_path_factory):
        return make_cohort(
            tmp_path_factory.mktemp("c"), controls=3, patients=2, settings=tiny_settings(), seed=11
        )

    def test_layout(self, cohort):
        root = cohort.controls.parent
        names = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}
        scans = [("controls", f"sub-c0{n}") for n in (1, 2, 3)] + [("patients", f"sub-p0{n}") for n in (1, 2)]
        ends = ("nii.gz", "bval", "bvec", "json")
        expected = {f"{role}/{sub}/dwi/{sub}_dwi.{end}" for role, sub in scans for end in ends}
        expected |= {f"brains/{sub}_mask.nii.gz" for _, sub in scans}
        expected |= {f"lesions/sub-p0{n}_mask.nii.gz" for n in (1, 2)}
        assert names == expected

    def test_images_are_what_nibabel_and_dipy_expect(self, cohort):
        base = cohort.patients / "sub-p02" / "dwi" / "sub-p02_dwi"
        image = nib.load(f"{base}.nii.gz")
        scan = make_scan(tiny_settings(), seed=(11, 1, 1), lesions=True)
        assert image.shape == (19, 23, 11, 15)
        assert image.get_data_dtype() == np.int16
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
        np.testing.assert_allclose(image.get_sform(), image.get_qform(), atol=1e-4)
        assert image.header.get_xyzt_units() == ("mm", "sec")
        np.testing.assert_allclose(np.moveaxis(image.get_fdata(), -1, 0), scan.signal, atol=0.5001)
        bvals, bvecs = read_bvals_bvecs(f"{base}.bval", f"{base}.bvec")
        np.testing.assert_array_equal(bvals, [0] * 3 + [1200] * 12)
        np.testing.assert_allclose(bvecs * [-1, 1, 1], scan.bvecs, atol=1e-6)
        assert json.loads(Path(f"{base}.json").read_text())["Phantom"] is True
        for path, mask in (
            (cohort.lesions / "sub-p02_mask.nii.gz", scan.lesion),
            (cohort.brains / "sub-p02_mask.nii.gz", scan.brain),
        ):
            written = nib.load(path)
            np.testing.assert_array_equal(written.get_fdata(), mask)
            np.testing.assert_allclose(written.affine, image.affine)

    def test_oblique_files_keep_their_affine(self, tmp_path):
        settings = replace(tiny_settings(), orientation="LAS-oblique")
        make_cohort(tmp_path / "new", controls=1, patients=0, settings=settings)
        image = nib.load(tmp_path / "new/controls/sub-c01/dwi/sub-c01_dwi.nii.gz")
        np.testing.assert_allclose(image.get_qform(), make_scan(settings).affine, atol=1e-3)
        np.testing.assert_allclose(image.get_sform(), make_scan(settings).affine, atol=1e-5)

    def test_same_seed_same_bytes(self, cohort, tmp_path):
        again = make_cohort(tmp_path / "again", controls=3, patients=2, settings=tiny_settings(), seed=11)
        root, other = cohort.controls.parent, again.controls.parent
        files = [p for p in root.rglob("*") if p.is_file()]
        assert all(p.read_bytes() == (other / p.relative_to(root)).read_bytes() for p in files)

    def test_other_seed_and_other_people_are_other_scans(self):
        seeds = [11, (11, 0), (11, 1), 12]
        first = [make_scan(tiny_settings(), seed=seed).signal.tobytes() for seed in seeds]
        assert len(set(first)) == 4

    def test_folder_in_use_is_refused(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(OutputError, match="is not an empty folder; name a new one for the cohort"):
            make_cohort(tmp_path, controls=1, patients=0, settings=tiny_settings())
        with pytest.raises(OutputError, match=r"notes\.txt: is not an empty folder"):
            make_cohort(tmp_path / "notes.txt", controls=1, patients=0, settings=tiny_settings())
        assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"anatomy": "mouse"}, "anatomy must be one of mni, ellipsoid, got 'mouse'"),
        ({"orientation": "LPS"}, "orientation must be RAS or LAS-oblique, got 'LPS'"),
        ({"spacing_mm": (5.0, 0.0, 5.0)}, r"must be above 0, got \(5\.0, 0\.0, 5\.0\)"),
        ({"n_b0": 0}, "must be at least 1, got 0, 40 and 2"),
        ({"severity": 0.9}, "severity must lie in 0 to 0.75 and snr above 0, got 0.9 and 22"),
        ({"snr": -3.0}, "got 0.5 and -3"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, words):
    with pytest.raises(SettingsError, match=words):
        PhantomSettings(**change)


def _nearest_normal(settings: PhantomSettings, seed: int) -> tuple[list[float], list[list[float]]]:
    """Return the baseline's AUROC for 3 patients, and that of raw b=0, raw DWI and raw attenuation."""
    controls = [make_scan(settings, seed=(seed, 0, n)) for n in range(8)]
    normals = [s.signal[:, s.brain].T / s.signal[:, s.brain].mean() for s in controls]
    mean = np.concatenate(normals).mean(0)
    neighbours = faiss.IndexFlatL2(len(mean))
    neighbours.add(np.concatenate(normals) / mean)
    scores, trivial = [], []
    for n in range(3):
        scan = make_scan(settings, seed=(seed, 1, n), lesions=True)
        x, truth = scan.signal[:, scan.brain].T / scan.signal[:, scan.brain].mean(), scan.lesion[scan.brain]
        scores.append(roc_auc_score(truth, neighbours.search(x / mean, 1)[0][:, 0]))
        b0, weighted = x[:, scan.bvals == 0].mean(1), np.maximum(x[:, scan.bvals > 0], 1e-6)
        raw = b0, weighted.mean(1), -np.log(weighted / b0[:, None]).mean(1)
        trivial.append([roc_auc_score(truth, score) for score in raw])
    return scores, trivial


def test_tiny_cohort_is_neither_trivial_nor_hopeless():
    scores, trivial = _nearest_normal(tiny_settings(), seed=0)
    assert 0.8 < min(scores) <= max(scores) < 0.95
    assert np.mean(trivial, axis=0).max() < np.mean(scores) - 0.1


@pytest.mark.slow
def test_demo_cohort_is_hard_enough_to_be_honest():
    scores, trivial = _nearest_normal(PhantomSettings(), seed=0)
    assert 0.8 < min(scores) <= max(scores) < 0.95
    assert np.max(trivial) < 0.75


def test_demo_scan_has_the_papers_scheme_and_a_brain_of_the_right_size(mni):
    scan = make_scan(seed=2, lesions=True)
    assert (scan.bvals == 0).sum() == 6
    assert (scan.bvals == 1200).sum() == 40
    assert 8_000 < scan.brain.sum() < 25_000
    assert 1.2e6 < scan.brain.sum() * 125 < 2.3e6  # mm3
    assert 50 < scan.lesion.sum() < 0.03 * scan.brain.sum()
