"""What the Python API takes, in every shape that people hand it, and what it refuses in words."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import strangers
import torch
from cohorts import FAST, tiny_cohort, tiny_detector

from mednovelty.detector import Detector
from mednovelty.errors import DetectorError, ScanError, SettingsError, UnknownPluginError
from mednovelty.fitting import FitSettings
from mednovelty.io.read_scan import read_scan
from mednovelty.io.scan_folder import scan_folder
from mednovelty.scan import Scan, Volume
from mednovelty.testing.models import tiny_scan
from mednovelty.voxel_fitting import fit_voxels

QUICK = replace(FAST, train=replace(FAST.train, max_epochs=1), scores=("vae_regularizer", "negative_elbo"))
CHANNELS = 5


def voxels(n=400, channels=CHANNELS):
    rng = np.random.default_rng(0)
    return 2 + rng.normal(size=(n, 3)) @ rng.normal(size=(3, channels)) + rng.normal(size=(n, channels))


@pytest.fixture(scope="module")
def detector():
    return fit_voxels(voxels(), scans=np.arange(400) // 100, seed=3, settings=QUICK)


def ids(detector):
    return sorted(scan.id for scan in detector.scans)


class TestScans:
    """``Detector.fit`` takes scans in whatever form they are at hand."""

    CONTROLS = ("sub-c01", "sub-c02", "sub-c03")

    @property
    def folder(self):
        return tiny_cohort().controls

    @pytest.mark.parametrize("kind", [str, Path])
    def test_a_folder(self, kind):
        found = Detector.fit(kind(self.folder), settings=QUICK, seed=2)
        listed = Detector.fit(scan_folder(self.folder), settings=QUICK, seed=2)
        assert ids(found) == list(self.CONTROLS)
        x = listed.prepare(read_scan(scan_folder(self.folder)[0]))[0].voxels(0, 20)
        one, other = (d.model.encode(torch.tensor(x)).mean for d in (found, listed))
        assert torch.equal(one, other)

    def test_a_folder_that_is_not_there(self):
        with pytest.raises(ScanError, match="no such file in no/such"):
            Detector.fit("no/such/folder", settings=QUICK)

    def test_images(self):
        images = sorted(self.folder.rglob("*_dwi.nii.gz"))
        found = Detector.fit([str(images[0]), *images[1:]], settings=QUICK)
        assert ids(found) == list(self.CONTROLS)

    def test_one_image(self):
        image = min(self.folder.rglob("*_dwi.nii.gz"))
        for given in (str(image), [image], scan_folder(image)[0], read_scan(image), iter([image])):
            assert ids(Detector.fit(given, settings=QUICK)) == ["sub-c01"]

    def test_scans_in_memory(self):
        found = []
        for files in scan_folder(self.folder):
            scan = read_scan(files)
            data = scan.voxels().T[..., None, None].copy()
            volume = Volume(data, np.diag([2.0, 3, 4, 1]), files.id)
            found.append(Scan.of(volume, np.ones(data.shape[1:], bool), scan.gradients))
        fitted = Detector.fit(found, settings=QUICK)
        assert ids(fitted) == list(self.CONTROLS)
        assert set(fitted.score(found[0])) == set(QUICK.scores)

    def test_scans_that_a_manifest_keeps_for_tests_are_not_trained_on(self, tmp_path):
        manifest = tmp_path / "small.toml"
        manifest.write_text(
            f'[dataset]\nname = "small"\nlicence = "CC0"\n[files]\nroot = "{self.folder.parent}"\n'
            'dwi = ["*/*/dwi/*_dwi.nii.gz"]\n'
            '[roles]\nnormal = "sub-c0[12]"\nvalidation = "sub-c03"\ntest = "sub-p*"\n'
        )
        assert len(scan_folder(manifest)) == 5
        for given in (manifest, scan_folder(manifest)):
            fitted = Detector.fit(given, settings=QUICK)
            roles = {scan.id: scan.role for scan in fitted.scans}
            assert roles == dict(zip(self.CONTROLS, ["training", "training", "validation"], strict=True))

    def test_what_has_no_gradients(self):
        with pytest.raises(ScanError, match=r"no scan can be used for training: .*has no gradients"):
            Detector.fit([tiny_scan()], settings=QUICK)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"view": "voxle"},
            {"scores": ("negative_elb",)},
            {"neighbours": "exat"},
            {"preprocessors": ("means",)},
        ],
    )
    def test_unknown_names_are_found_before_anything_is_read(self, wrong):
        def on_scan(scan_id, message):
            raise AssertionError(f"{scan_id} was read")

        with pytest.raises(UnknownPluginError, match=r"^no \w+ is called "):
            Detector.fit(self.folder, settings=replace(QUICK, **wrong), on_scan=on_scan)


class TestView:
    """How a scan is cut into samples is a setting."""

    def test_it_is_used_and_kept(self, monkeypatch, tmp_path):
        strangers.install(monkeypatch)
        usual = tiny_detector()[0]
        turned = replace(usual, settings=replace(usual.settings, view="upside_down")).save(tmp_path)
        record = json.loads((tmp_path / "detector.json").read_text())
        assert record["view"] == record["settings"]["view"] == "upside_down"
        scan = read_scan(scan_folder(tiny_cohort().patients)[0])
        expected = -usual.score(scan, "vae_regularizer")["vae_regularizer"].data
        for detector in (turned, Detector.load(tmp_path)):
            np.testing.assert_array_equal(
                detector.score(scan, "vae_regularizer")["vae_regularizer"].data, expected
            )
        monkeypatch.undo()
        with pytest.raises(
            DetectorError, match="no view is called 'upside_down'; known: patch, slice, voxel"
        ):
            Detector.load(tmp_path)

    def test_an_unknown_one_is_named(self):
        with pytest.raises(UnknownPluginError, match="no view is called 'voxle'; did you mean 'voxel'"):
            fit_voxels(voxels(), settings=replace(QUICK, view="voxle"))


BAD = [
    (np.array([[1.0, None], [2, 3]] * 9), "voxels.dtype", "got dtype object; convert"),
    (voxels() + 1j, "voxels.dtype", "got dtype complex128"),
    (voxels().astype(str), "voxels.dtype", "got dtype <U"),
    ([[1, 2], [3]], "voxels.dtype", "must be an array of numbers: .*inhomogeneous"),
    (torch.ones(9, CHANNELS, requires_grad=True), "voxels.dtype", "must be an array of numbers: .*grad"),
    (np.where(np.arange(400)[:, None] < 2, np.nan, voxels()), "voxels.not_finite", "2 of 400 voxels are not"),
    (
        np.where(np.arange(400)[:, None] < 3, -np.inf, voxels()),
        "voxels.not_finite",
        "3 of 400 voxels are not",
    ),
    (np.full((70_000, CHANNELS), np.nan, "f4"), "voxels.not_finite", "70000 of 70000 voxels"),
    (voxels() * 1e300, "voxels.too_large", r"magnitude \d.*e\+30\d, above 1e\+15"),
    (-np.abs(voxels()) * 1e20, "voxels.too_large", "above"),
    (np.full((9, CHANNELS), -(2**63)), "voxels.too_large", r"magnitude 9.22e\+18"),
]


class TestArrays:
    """``fit_voxels`` and ``score_voxels`` refuse what float32 cannot hold, with a code."""

    @pytest.mark.parametrize(("x", "code", "words"), BAD)
    def test_refused_alike_to_fit_and_to_score(self, detector, x, code, words):
        if len(x[0]) != CHANNELS:  # It cannot be scored for another reason.
            calls = [lambda: fit_voxels(x, settings=QUICK)]
        else:
            calls = [lambda: fit_voxels(x, settings=QUICK), lambda: detector.score_voxels(x)]
        for call in calls:
            with pytest.raises(ScanError, match=words) as caught:
                call()
            assert caught.value.code == code

    @pytest.mark.parametrize(
        ("x", "code", "words"),
        [
            (np.empty((0, CHANNELS)), "voxels.empty", r"no voxel to learn from: the array is \(0, 5\)"),
            ([], "voxels.shape", r"\(n, C\) with C at least 1, got \(0,\)"),
            (np.ones(7), "voxels.shape", r"got \(7,\)"),
            (np.ones((7, 0)), "voxels.shape", r"got \(7, 0\)"),
            (np.ones((7, 3, 2)), "voxels.shape", r"got \(7, 3, 2\)"),
            (3.0, "voxels.shape", r"got \(\)"),
        ],
    )
    def test_shapes_to_fit(self, x, code, words):
        with pytest.raises(ScanError, match=words) as caught:
            fit_voxels(x, settings=QUICK)
        assert caught.value.code == code

    @pytest.mark.parametrize("x", [np.ones(CHANNELS), np.ones((4, CHANNELS + 1)), np.ones((2, 2, CHANNELS))])
    def test_shapes_to_score(self, detector, x):
        with pytest.raises(ScanError, match=r"voxels must be \(m, 5\), got ") as caught:
            detector.score_voxels(x)
        assert caught.value.code == "voxels.channels"

    def test_no_voxels_have_no_scores(self, detector):
        assert {s.shape for s in detector.score_voxels(np.empty((0, CHANNELS))).values()} == {(0,)}

    @pytest.mark.parametrize("dtype", ["f2", "f8", ">f4", "i4", "u1", "?"])
    def test_any_real_dtype_will_do(self, detector, dtype):
        x = np.abs(voxels(30)).astype(dtype)
        expected = detector.score_voxels(x.astype("f4"))
        for given in (x, x.tolist(), x[:, ::-1][:, ::-1]):
            for name, scores in detector.score_voxels(given).items():
                np.testing.assert_allclose(scores, expected[name], rtol=1e-5, err_msg=name)

    def test_an_integer_fit_is_that_of_its_values(self):
        x = np.round(10 * voxels()).astype("i2")
        one, other = (fit_voxels(array, settings=QUICK).score_voxels(x[:9]) for array in (x, x.astype("f4")))
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])

    @pytest.mark.parametrize("channels", [1, 2, 3])
    def test_few_channels(self, channels):
        x = voxels(channels=channels)
        fitted = fit_voxels(
            x, scans=np.arange(400) // 100, settings=replace(QUICK, scores=FitSettings().scores)
        )
        summary = fitted.fitted.summary
        assert summary["components"] == channels - 1
        words = f"probabilistic PCA with {channels - 1} comp" if channels > 1 else "a Gaussian"
        assert words in summary["verdict"]
        assert all(np.isfinite(scores).all() for scores in fitted.score_voxels(x).values())


class TestScores:
    """Names of scores, one or several."""

    def test_a_text_is_one_name(self, detector):
        assert list(detector.score_voxels(voxels(), "negative_elbo")) == ["negative_elbo"]
        scan = read_scan(scan_folder(tiny_cohort().patients)[0])
        assert list(tiny_detector()[0].score(scan, "negative_elbo")) == ["negative_elbo"]
        assert FitSettings(scores="negative_elbo").scores == ("negative_elbo",)
        assert FitSettings(preprocessors="mean_intensity").preprocessors == ("mean_intensity",)

    def test_a_name_given_twice_is_scored_once(self, detector):
        assert list(detector.score_voxels(voxels(), ["negative_elbo"] * 2)) == ["negative_elbo"]
        scan = read_scan(scan_folder(tiny_cohort().patients)[0])
        assert list(tiny_detector()[0].score(scan, ("raw_b0", "raw_b0"))) == ["raw_b0"]


class TestSeeds:
    """A seed is its value."""

    def test_numpys_integers_are_kept_as_what_they_are(self, tmp_path):
        x = voxels()
        saved = fit_voxels(x, seed=np.int64(3), settings=QUICK).save(tmp_path)
        again = Detector.load(tmp_path)
        plain = fit_voxels(x, seed=3, settings=QUICK)
        for name, scores in saved.score_voxels(x[:9]).items():
            np.testing.assert_array_equal(scores, again.score_voxels(x[:9])[name], err_msg=name)
            np.testing.assert_array_equal(scores, plain.score_voxels(x[:9])[name], err_msg=name)

    def test_other_seeds_are_refused(self):
        with pytest.raises(SettingsError, match=r"a seed is a whole number, not 1\.5"):
            fit_voxels(voxels(), seed=1.5, settings=QUICK)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"draws": 10_001}, "draws must be at most 10000, got 10001"),
        ({"batch_voxels": 1 << 23}, "batch_voxels must be at most 4194304, got 8388608"),
        ({"draws": float("nan")}, "draws must be at least 1, got nan"),
        ({"bvalue_tolerance": -0.1}, "bvalue_tolerance must lie between 0 and 1, got -0.1"),
        ({"angle_tolerance_deg": float("nan")}, "angle_tolerance_deg must lie between 0 and 90, got nan"),
    ],
)
def test_settings_have_bounds(wrong, words):
    with pytest.raises(SettingsError, match=words):
        replace(FAST, **wrong)
