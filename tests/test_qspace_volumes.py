"""Windows of diffusion volumes: how they are gathered, and from files to maps."""

import json
import shutil
from dataclasses import replace
from functools import cache

import nibabel as nib
import numpy as np
import pytest
import torch
from cohorts import tiny_cohort, tiny_detector
from matplotlib.image import imread
from test_gathering import other_b, people, roles
from typer.testing import CliRunner
from without_pages import typed

from mednovelty.annotations import Annotations, Labels
from mednovelty.cli import app
from mednovelty.detector import Detector, checked_settings
from mednovelty.errors import DetectorError, ScanError, SettingsError
from mednovelty.image_gathering import gather_images
from mednovelty.io.read_scan import read_scan
from mednovelty.io.scan_folder import scan_folder
from mednovelty.model_folder import fit_settings
from mednovelty.nn.qspace_maps import QspaceMaps
from mednovelty.plugins import plugin
from mednovelty.report.anomaly_panels import DPI

SIZE = (8, 12, 4)
RAW = ("raw_b0", "raw_dwi", "raw_attenuation")
TINY = f"""
batch_voxels = 3
[view_settings]
size = {list(SIZE)}
[method_settings]
filters = [4, 3]
[train]
max_epochs = 2
batch_size = 8
min_steps = 3
"""


def settings_of(method="fcdd", **tree):
    layer = {"method": method, "view_settings": {"size": list(SIZE)}, **tree}
    return fit_settings(layer, where="test", recipe="qspace-volumes")


def gathered(scans, settings=None, seed=0, known=None, **rest):
    settings = settings or settings_of()
    return gather_images(scans, settings, seed, known=known, diffusion=True, **rest)


def turned(people):
    """Return scans whose first voxel axis runs to the left, as their affine says."""
    flip = np.diag([-1.0, 1, 1, 1])
    return [replace(scan, grid=replace(scan.grid, affine=flip @ scan.grid.affine)) for scan in people]


def normalised(scan):
    """Return ``(C, I, J, K)`` with mean 1 over the mask, 0 outside."""
    dense = scan.dense()
    return dense / dense[:, scan.mask].mean(dtype=np.float64)


def lesion_of(scan, corner=(4, 11, 5)):
    """Return a box of a scan as its lesion."""
    lesion = np.zeros(scan.mask.shape, bool)
    lesion[tuple(slice(at, at + 2) for at in corner)] = True
    return lesion & scan.mask


def test_rows_are_windows_of_all_channels_divided_by_the_means_of_training_scans():
    scans = turned(people(4))
    with gathered(scans) as volumes:
        training = [scan for scan in scans if roles(volumes)[scan.id] == "training"]
        assert len(training) == 3
        voxels = np.concatenate([normalised(scan)[:, scan.mask].T for scan in training])
        means = voxels.mean(0, dtype=np.float64)
        assert means.mean() == pytest.approx(1)
        assert means.std() > 0.1
        step = dict(volumes.preprocessing)["channel_mean"]
        assert step.means == pytest.approx(means, rel=1e-5)
        assert volumes.table.shape == (15, *SIZE)
        view = plugin("views", "patch")(settings_of().view_settings)
        for scan in scans:
            rows = volumes.table.array()[volumes.table.scans[scan.id]].reshape(-1, 15, *SIZE)
            assert len(rows) == view.count(scan) > 4
            # Windows run to the right.
            whole = normalised(scan)[:, ::-1] / np.array(step.means)[:, None, None, None]
            # Where a window is, its middle voxel tells: no two voxels of these scans are alike.
            for window in rows:
                middle = window[:, 4, 6, 2]
                if not middle.any():
                    continue
                (place,) = np.argwhere(np.isclose(whole, middle[:, None, None, None], rtol=1e-4).all(0))
                low = place - (4, 6, 2)
                for at in ((0, 0, 0), (7, 0, 3), (2, 9, 1)):
                    there = low + at
                    inside = (there >= 0).all() and (there < whole.shape[1:]).all()
                    wanted = whole[(slice(None), *there)] if inside else np.zeros(15)
                    assert window[(slice(None), *at)] == pytest.approx(wanted, rel=1e-4)
        assert volumes.contrasts == ()


def test_the_acquisition_says_what_windows_were_divided_by():
    scans = people(3)
    with gathered(scans) as volumes:
        known = volumes.training.acquisition
        assert known == volumes.validation.acquisition
        assert known.bvalues_s_per_mm2 == pytest.approx(tuple(scans[0].gradients.bvals))
        assert np.linalg.norm(known.directions, axis=1) == pytest.approx([0] * 3 + [1] * 12)
        windows = torch.tensor(volumes.training.take(np.arange(3))).unflatten(1, volumes.training.shape)
        maps = QspaceMaps(15)
        maps.learn(known)
        shown = maps(windows)
        signals = (windows * torch.tensor(known.divisors)[:, None, None, None]).float()
        torch.testing.assert_close(shown[:, 0], signals[:, :3].mean(1))
        torch.testing.assert_close(shown[:, 1], signals[:, 3:].mean(1))
    with gathered(scans, settings_of(preprocessors=["clip"])) as volumes:
        assert volumes.training.acquisition is None


def test_a_table_on_disk_is_that_in_memory(tmp_path):
    with (
        gathered(people(3)) as inner,
        gathered(people(3), settings_of(cache_bytes=100_000), folder=tmp_path) as outer,
    ):
        assert outer.table.on_disk
        assert not inner.table.on_disk
        assert np.array_equal(outer.table.array(), inner.table.array())
        assert outer.training.acquisition == inner.training.acquisition


def test_few_windows_are_cut_at_a_time(monkeypatch):
    with gathered(people(3)) as volumes:
        whole = volumes.table.array().copy()
    monkeypatch.setattr("mednovelty.image_gathering.BLOCK_BYTES", 3 * 4 * 15 * 384 + 1)
    with gathered(people(3)) as volumes:
        assert np.array_equal(volumes.table.array(), whole)


def test_scans_of_another_acquisition_or_none_are_left_out():
    scans = people(5)
    listed = [other_b(scans[0]), replace(scans[1], gradients=None), *scans[2:]]
    with gathered(listed) as volumes:
        assert sorted(roles(volumes)) == ["sub-2", "sub-3", "sub-4"]
        told = " ".join(volumes.notes)
    assert "left out: sub-0: acquired with" in told
    assert "left out: sub-1: has no gradients" in told
    with pytest.raises(ScanError, match="no scan can be used for training: left out: sub-1"):
        gathered([listed[1]])


@cache
def masks():
    return {scan.id: lesion_of(scan) for scan in people(4)[1:3]}


def marked(scan):
    """Return a scan whose signal in its lesion is so high that nobody overlooks it."""
    if scan.id not in masks():
        return scan
    at = lesion_of(scan).ravel(order="F")[scan.mask.ravel(order="F")]
    stored = scan.stored.astype(np.float32)
    stored[:, at] = 30 * stored.max()
    return replace(scan, stored=stored)


def healthy_means(volumes, scans, *, within_healthy):
    """Return ``(C,)`` means of healthy voxels of training scans, each over its mean, of these or all."""
    voxels = []
    for scan in scans:
        if roles(volumes)[scan.id] == "training":
            healthy = scan.mask & ~masks().get(scan.id, np.zeros(scan.mask.shape, bool))
            dense = scan.dense()
            voxels.append(dense[:, healthy] / dense[:, healthy if within_healthy else scan.mask].mean())
    return np.concatenate(voxels, 1).mean(1)


def test_windows_that_touch_a_lesion_are_left_out_and_it_has_no_part_in_means():
    scans = [marked(scan) for scan in people(4)]
    settings = settings_of("image_vae")
    known = Annotations.of(settings, 0, lesion_of=lambda scan: masks().get(scan.id))
    with gathered(scans, settings, known=known) as some, gathered(people(4), settings) as every:
        assert some.table.channels == 15 * 384
        assert some.table.array().max() < 10
        for id in masks():
            kept, whole = (len(v.table.array()[v.table.scans[id]]) for v in (some, every))
            assert 0 < kept < whole
        means = dict(some.preprocessing)["channel_mean"].means
        assert means == pytest.approx(healthy_means(some, scans, within_healthy=True), rel=1e-4)
        assert np.mean(means) == pytest.approx(1, abs=1e-6)
        assert [scan.annotation for scan in some.scans] == [""] * 4


def test_lesions_are_shown_as_maps_and_rows_tell_the_spacing():
    scans = [marked(scan) for scan in people(4)]
    settings = settings_of(method_settings={"loss": "pixel"})
    known = Annotations.of(settings, 0, lesion_of=lambda scan: masks().get(scan.id))
    assert known.maps
    with gathered(scans, settings, known=replace(known, spaced=True)) as volumes:
        assert volumes.table.channels == 15 * 384 + 3 + 384 + 1
        rows = volumes.table.array()
        windows, rest = np.split(rows, [15 * 384], axis=1)
        assert rest[:, :3].tolist() == [[8.0, 8.0, 10.0]] * len(rows)
        truth, labels = rest[:, 3:-1], rest[:, -1]
        assert set(np.unique(truth)) == {0, 1}
        assert ((labels == -1) == truth.any(1)).all()
        assert 0 < (labels == -1).sum() < len(rows)
        # The lesion lies where the map says.
        bright = windows.reshape(len(rows), 15, 384).min(1) > 5
        assert (bright == (truth == 1)).all()
        told = {scan.id: scan.annotation for scan in volumes.scans}
        assert "samples are labelled as abnormal, by its lesion" in told["sub-1"]
        assert told["sub-0"] == ""
        means = dict(volumes.preprocessing)["channel_mean"].means
        assert means == pytest.approx(healthy_means(volumes, scans, within_healthy=False), rel=1e-4)


def test_labels_of_scans_and_outliers_are_those_of_all_their_windows():
    scans, settings = people(5), settings_of()
    labels = Labels({"sub-0": 1, "sub-3": -1})
    known = Annotations.of(settings, 0, labels=labels, outliers=[replace(people(6)[5], id="sub-x")])
    with gathered(scans, settings, known=known) as volumes:
        rows = volumes.table.array()
        for id, label in (("sub-0", 1), ("sub-1", 0), ("sub-3", -1), ("outliers: sub-x", -1)):
            assert (rows[volumes.table.scans[id], -1] == label).all()
        assert volumes.training.n_outliers == len(rows[volumes.table.scans["outliers: sub-x"]])
        # They were divided by the means of the channels, too.
        assert rows[volumes.table.scans["outliers: sub-x"], :-1].max() < 10


@pytest.mark.parametrize(
    ("recipe", "tree", "said"),
    [
        ("qspace", {"view": "patch"}, "view='patch': the recipe qspace has single voxels of diffusion scans"),
        (
            "qspace-volumes",
            {"view": "voxel"},
            "has windows of diffusion scans; choose another view, or the rec",
        ),
        ("qspace-volumes", {"view_settings": {"background": -1}}, "outside of a diffusion scan there is no"),
        ("qspace-volumes", {"method": "cvdd"}, "cvdd"),
    ],
)
def test_views_and_methods_that_do_not_fit_are_refused(recipe, tree, said):
    with pytest.raises(SettingsError, match=said):
        Detector.fit(people(3), recipe=recipe, settings=fit_settings(tree, where="test", recipe=recipe))


def test_defaults_of_the_recipe():
    settings = checked_settings(None, "qspace-volumes")
    assert (settings.view, settings.view_settings.size, settings.view_settings.overlap) == (
        "patch", (32, 32, 32), 0.5,
    )  # fmt: skip
    assert (settings.preprocessors, settings.batch_voxels) == ((), 4)
    assert settings.scores == ("synthetic_lesions_map", "synthetic_lesions")


def run(*words):
    return CliRunner().invoke(app, typed(words), env={"NO_COLOR": "1", "COLUMNS": "200"})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A detector, and maps of two patients."""
    root, cohort = tmp_path_factory.mktemp("volumes"), tiny_cohort()
    (root / "tiny.toml").write_text(TINY)
    fitted = run("fit", cohort.controls, "-o", root / "model", "--recipe", "qspace-volumes",
                 "--method", "fcdd", "--settings", root / "tiny.toml",
                 "--brain-masks", cohort.brains)  # fmt: skip
    assert fitted.exit_code == 0, fitted.output
    scored = run(
        "score", root / "model", cohort.patients, "-o", root / "maps", "--brain-masks", cohort.brains
    )
    assert scored.exit_code == 0, scored.output
    return root


def patient():
    return next(iter(scan_folder(tiny_cohort().patients, brain_masks=tiny_cohort().brains)))


def test_maps_lie_on_the_scans_own_voxels_beside_the_baselines(study):
    files = patient()
    scan, own = read_scan(files), nib.load(files.image)
    folder = study / "maps" / "sub-p01" / "dwi"
    for name in ("fcdd_map", "fcdd", *RAW):
        image = nib.load(folder / f"{files.id}_desc-{name}_novelty.nii.gz")
        assert image.shape == own.shape[:3]
        np.testing.assert_allclose(image.affine, own.affine)
        values = np.asarray(image.dataobj)
        assert not values[~scan.mask].any()
        assert values[scan.mask].std() > 0
        told = json.loads((folder / f"{files.id}_desc-{name}_novelty.json").read_text())
        assert told["Gradients"] == {"Scheme": "15 volumes: 3 at b=0, 12 at b=1200"}
    again = run("score", study / "model", tiny_cohort().patients, "-o", study / "maps",
                "--brain-masks", tiny_cohort().brains)  # fmt: skip
    assert "2 up to date" in again.output


def test_baselines_are_those_of_single_voxels(study):
    scan = read_scan(patient())
    volumes, voxels = Detector.load(study / "model"), tiny_detector()[0]
    assert volumes.baselines == RAW
    assert volumes.shape == (15, *SIZE)
    assert [scan.role for scan in volumes.scans].count("validation") == 1
    wanted = voxels.score(scan, list(RAW))
    together = volumes.score(scan, [*RAW, "fcdd_map"])
    alone = volumes.score(scan, list(RAW))
    for name in RAW:
        assert np.array_equal(alone[name].volume.data, wanted[name].volume.data)
        assert np.array_equal(together[name].volume.data, wanted[name].volume.data)
    assert list(together) == [*RAW, "fcdd_map"]


def test_maps_are_blended_from_windows_normalised_as_those_of_the_training(study):
    detector, scan = Detector.load(study / "model"), read_scan(patient())
    whole = (
        normalised(scan) / np.array(dict(detector.preprocessing)["channel_mean"].means)[:, None, None, None]
    )
    prepared, _ = detector.prepare(scan)
    np.testing.assert_allclose(prepared.dense(), whole, rtol=1e-4, atol=1e-6)
    detector = replace(detector, settings=replace(detector.settings, view_settings=replace(
        detector.settings.view_settings, min_brain=0.0)))  # fmt: skip
    windows = torch.tensor(detector.view.cut(prepared, 0, detector.view.count(prepared)))
    with torch.no_grad():
        maps = detector.model.upsampled(detector.model.heatmap(windows.flatten(1))).numpy()
    blended = detector.view.assemble(prepared, maps, "by hand")
    found = detector.score(scan, "fcdd_map")["fcdd_map"].volume
    np.testing.assert_allclose(found.data, blended.data, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("unpictured")
def test_evaluation_and_relevance(study):
    evaluated = run("evaluate", study / "maps", "--masks", tiny_cohort().lesions)
    assert evaluated.exit_code == 0, evaluated.output
    assert all(name in evaluated.output for name in ("fcdd_map", *RAW))
    explained = run("explain", study / "model", tiny_cohort().patients, "-o", study / "why",
                    "--score", "fcdd", "--brain-masks", tiny_cohort().brains)  # fmt: skip
    assert explained.exit_code == 0, explained.output
    folder = study / "why" / "sub-p01" / "dwi"
    (sidecar,) = folder.glob("*_desc-fcdd_relevance.json")
    assert "summed over gradients" in json.loads(sidecar.read_text())["Description"]
    (image,) = folder.glob("*_desc-fcdd_relevance.nii.gz")
    assert nib.load(image).shape == read_scan(patient()).grid.shape
    baseline = run(
        "explain", study / "model", tiny_cohort().patients, "-o", study / "why", "--score", "raw_b0"
    )
    assert baseline.exit_code == 2
    assert "raw_b0: is of the signal as measured, which the model does not see" in baseline.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record.update(shape=[15]), r"shape: \[15\] is not that of the view 'patch'"),
        (lambda record: record.update(shape=[15, 8, 10, 5]), "is not that of the view 'patch'"),
        (
            lambda record: record.update(shape=[14, *SIZE]),
            "15 b-values and 15 directions of three numbers do not",
        ),
        (lambda record: record.update(recipe="qspace"), r"the recipe 'qspace' has voxels"),
        (lambda record: record.update(recipe="patches"), r"contrasts: \[\] do not fit the recipe 'patches'"),
        (
            lambda record: record["preprocessing"].pop(),
            "takes the steps gradient_scheme, mean_intensity, chann",
        ),
        (lambda record: record["preprocessing"][2]["state"]["means"].pop(), "14 means for 15 channels"),
    ],
)
def test_a_record_edited_by_hand_is_refused(study, tmp_path, change, said):
    folder = shutil.copytree(study / "model", tmp_path / "model")
    record = json.loads((folder / "detector.json").read_text())
    change(record)
    (folder / "detector.json").write_text(json.dumps(record))
    with pytest.raises(DetectorError, match=said):
        Detector.load(folder)


def test_a_loaded_detector_scores_as_the_one_that_was_saved(study, tmp_path):
    detector, scan = Detector.load(study / "model"), read_scan(patient())
    again = Detector.load(detector.save(tmp_path / "again") and tmp_path / "again")
    for name, found in detector.score(scan).items():
        assert np.array_equal(again.score(scan)[name].volume.data, found.volume.data)
    assert "15 volumes: 3 at b=0, 12 at b=1200" in (tmp_path / "again" / "README.md").read_text()


def test_a_structural_or_other_scan_is_refused_in_words(study):
    detector, scan = Detector.load(study / "model"), read_scan(patient())
    with pytest.raises(ScanError, match="has no gradients; the detector knows 15 volumes"):
        detector.score(replace(scan, gradients=None))
    with pytest.raises(ScanError, match="acquired with 15 volumes: 3 at b=0, 12 at b=2500"):
        detector.score(other_b(scan))


class Both:
    """A stranger's score of a model and of the signal as measured."""

    level, unit, group, reference_parts = "sample", "", "", ()
    needs, asks = ("model", "is_b0"), ()

    def __init__(self, model, is_b0):
        self.model = model


def test_a_score_of_model_and_signal_is_refused(study, monkeypatch):
    detector, scan = Detector.load(study / "model"), read_scan(patient())
    known = {"both": Both}

    def found(group, name):
        return known[name] if group == "scorers" and name in known else plugin(group, name)

    for module in ("mapping", "scoring", "score_names", "detector"):
        monkeypatch.setattr(f"mednovelty.{module}.plugin", found)
    monkeypatch.setattr("mednovelty.score_names.plugin_names", lambda group: ["both", "fcdd_map"])
    with pytest.raises(SettingsError, match="both: looks at a model and at the signal as measured"):
        detector.score(scan, ["both", "fcdd_map"])


def test_other_methods_and_grids(tmp_path):
    """``image_vae`` with the scores that say where, on windows resampled to other voxels."""
    cohort = tiny_cohort()
    settings = settings_of(
        "image_vae", method_settings={"widths": [4, 6], "latent": 5}, preprocessors=["resample"],
        preprocessor_settings={"resample": {"spacing_mm": [12.0, 11.0, 13.0]}},
        scores=["rec_error", "kl_gradient", "combi", "rec_term"],
        train={"max_epochs": 2, "batch_size": 8, "min_steps": 2}, batch_voxels=5,
    )  # fmt: skip
    scans = scan_folder(cohort.controls, brain_masks=cohort.brains)
    detector = Detector.fit(scans, recipe="qspace-volumes", settings=settings).save(tmp_path / "model")
    detector, scan = Detector.load(tmp_path / "model"), read_scan(patient())
    maps = detector.score(scan, [*detector.settings.scores, *RAW])
    voxelwise = tiny_detector()[0].score(scan, list(RAW))
    for name, found in maps.items():
        assert found.volume.data.shape == (1, *scan.grid.shape)
        assert np.isfinite(found.volume.data).all()
        assert not found.volume.data[0][~scan.mask].any()
        assert found.volume.data.any()
        if name in RAW:
            assert np.array_equal(found.volume.data, voxelwise[name].volume.data)


def test_check_and_preview(tmp_path):
    cohort = tiny_cohort()
    checked = run("check", cohort.controls, "--recipe", "qspace-volumes", "--brain-masks", cohort.brains)
    assert checked.exit_code == 0, checked.output
    words = ["--recipe", "qspace-volumes", "--size", 8, "--brain-masks", cohort.brains, "--rows", 4]
    result = run("preview-anomalies", cohort.controls, "-o", tmp_path / "q.png", "--anomalies",
                 "exchange,anisotropy-loss", *words)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert imread(tmp_path / "q.png").shape[0] > 4 * DPI
    other = run(
        "preview-anomalies", cohort.controls, "-o", tmp_path / "n.png", "--anomalies", "noise", *words
    )
    assert other.exit_code == 2
    assert "--recipe qspace-volumes is of diffusion" in other.output
    wrong = run("fit", cohort.controls, "-o", tmp_path / "m", "--recipe", "qspace_volumes")
    assert wrong.exit_code == 2
    assert "known: qspace, qspace-volumes, slices" in wrong.output
