"""Slices and windows from files to maps: what is trained on, what is left out, where maps lie."""

import json
import os
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from pipeline_runs import run_pipeline
from typer.testing import CliRunner
from without_pages import typed

import mednovelty as mn
from mednovelty.annotations import Annotations
from mednovelty.cli import app
from mednovelty.errors import DetectorError, ScanError, SettingsError
from mednovelty.evaluation.files import find_maps
from mednovelty.image_gathering import gather_images
from mednovelty.io.structural import read_structural
from mednovelty.lesion_masks import lesions_in
from mednovelty.model_folder import fit_settings

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
SHAPE, SPACING = (20, 24, 14), (2.0, 1.5, 3.0)
TINY = """
batch_voxels = 8
[method_settings]
widths = [4, 8]
latent = 5
[train]
max_epochs = 2
batch_size = 16
"""
SLICES = TINY + "[view_settings]\nsize = [16, 16]\n"
PATCHES = TINY + "[view_settings]\nsize = [8, 8, 8]\n"
FLIPPED = np.diag([-SPACING[0], SPACING[1], SPACING[2], 1.0])
FLIPPED[:3, 3] = 31, -12, 7


def head(seed):
    """Return two contrasts, brain and lesion of one subject."""
    rng = np.random.default_rng(seed)
    i, j, k = np.indices(SHAPE)
    brain = ((i - 9.5) / 8) ** 2 + ((j - 11.5) / 10) ** 2 + ((k - 6.5) / 6) ** 2 < 1
    flair = 100 + 20 * np.sin(i / 3 + seed) + 10 * np.cos(j / 4) + rng.normal(0, 3, SHAPE)
    t1 = 300 - flair + rng.normal(0, 3, SHAPE)
    lesion = (np.abs(i - 6) < 3) & (np.abs(j - 12) < 3) & (np.abs(k - 8) < 2) & brain
    return np.where(brain, flair + 90 * lesion, 0), np.where(brain, t1, 0), brain, lesion


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("structural")
    for number in range(1, 6):
        flair, t1, brain, lesion = head(number)
        if number < 4:  # Two of the others have nothing wrong with them.
            lesion = lesion & (number < 3)
            flair = flair - 90 * (head(number)[3] & ~lesion)
        for name, data in (("FLAIR", flair), ("T1w", t1)):
            path = root / "scans" / f"sub-{number}" / "anat" / f"sub-{number}_{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = nib.Nifti1Image(data.astype(np.float32), FLIPPED)
            image.set_qform(FLIPPED, 1), image.set_sform(FLIPPED, 1)
            image.header.set_xyzt_units("mm")
            image.to_filename(path)
        for folder, data in (("masks", lesion), ("brains", brain)):
            (root / folder).mkdir(exist_ok=True)
            nib.Nifti1Image(data.astype(np.uint8), FLIPPED).to_filename(
                root / folder / f"sub-{number}_mask.nii.gz"
            )
    (root / "slices.toml").write_text(SLICES)
    (root / "patches.toml").write_text(PATCHES)
    return root


def run(*words):
    return CliRunner().invoke(app, typed(words), env=ENVIRONMENT)


@pytest.fixture(scope="module", params=["slices", "patches"])
def study(request, cohort, tmp_path_factory):
    out, recipe = tmp_path_factory.mktemp(request.param), request.param
    fitted = run(
        "fit", cohort / "scans", "-o", out / "model", "--recipe", recipe, "--contrasts", "FLAIR,T1w",
        "--masks", cohort / "masks", "--brain-masks", cohort / "brains",
        "--settings", cohort / f"{recipe}.toml", "--set", "maps.smoothing.sigma=4",
        "--set", "maps.smoothing.unit=mm", "--set", "maps.median_px=3",
    )  # fmt: skip
    assert fitted.exit_code == 0, fitted.output
    scored = run(
        "score", out / "model", cohort / "scans", "-o", out / "maps", "--brain-masks", cohort / "brains"
    )
    assert scored.exit_code == 0, scored.output
    return recipe, out


@pytest.mark.parametrize("method", ["vae", "ae_con", "hyperspherical", "deep_svdd", "gaussian"])
def test_methods_of_voxels_take_contrasts_of_voxels(method, cohort, tmp_path):
    words = ("--recipe", "contrasts", "--method", method, "--set", "train.max_epochs=2")
    fitted = run("fit", cohort / "scans", "-o", tmp_path / "model", *words, "--contrasts", "FLAIR,T1w",
                 "--masks", cohort / "masks", "--brain-masks", cohort / "brains")  # fmt: skip
    assert fitted.exit_code == 0, fitted.output
    detector = mn.Detector.load(tmp_path / "model")
    assert (detector.recipe, detector.shape, detector.contrasts) == ("contrasts", (2,), ("FLAIR", "T1w"))
    one = tmp_path / "one" / "sub-4" / "anat"
    one.mkdir(parents=True)
    for name in ("FLAIR", "T1w"):
        os.link(cohort / "scans/sub-4/anat" / f"sub-4_{name}.nii.gz", one / f"sub-4_{name}.nii.gz")
    scored = run("score", tmp_path / "model", tmp_path / "one", "-o", tmp_path / "maps",
                 "--brain-masks", cohort / "brains")  # fmt: skip
    assert scored.exit_code == 0, scored.output
    brain, lesion = head(4)[2:]
    for name in (*detector.settings.scores, "raw_FLAIR", "raw_T1w"):
        image = nib.load(tmp_path / "maps/sub-4/anat" / f"sub-4_desc-{name}_novelty.nii.gz")
        np.testing.assert_allclose(image.affine, FLIPPED, atol=1e-5)
        values = np.asarray(image.dataobj)
        assert not values[~brain].any()
        if name == "outlier_score":  # FLAIR is up where T1 is not down: no healthy voxel is like that.
            assert values[lesion].mean() > 3 * values[brain & ~lesion].mean()


def test_contrasts_have_no_diffusion_to_plant(cohort, tmp_path):
    fitted = run("fit", cohort / "scans", "-o", tmp_path / "model", "--recipe", "contrasts",
                 "--contrasts", "FLAIR", "--method", "hsc", "--brain-masks", cohort / "brains")  # fmt: skip
    assert fitted.exit_code == 2
    assert "diffusion needs gradients, which these scans have not" in fitted.output


def test_maps_lie_on_the_scans_own_voxels(study, cohort):
    _, out = study
    brain = head(4)[2]
    maps = sorted((out / "maps" / "sub-4" / "anat").glob("*_novelty.nii.gz"))
    names = {path.name.split("_desc-")[1].removesuffix("_novelty.nii.gz") for path in maps}
    assert {"kl_gradient", "combi", "rec_error", "vae_regularizer", "raw_FLAIR", "raw_T1w"} <= names
    for path in maps:
        image = nib.load(path)
        values = np.asarray(image.dataobj)
        np.testing.assert_allclose(image.affine, FLIPPED, atol=1e-5)
        assert values.shape == SHAPE
        assert not values[~brain].any()
        assert values[brain].std() > 0


def test_raw_contrasts_are_the_measured_signal_and_are_told_to_be_trivial(study):
    _, out = study
    folder = out / "maps" / "sub-5" / "anat"
    flair, t1, brain, _ = head(5)
    for name, data in (("FLAIR", flair), ("T1w", t1)):
        values = nib.load(folder / f"sub-5_desc-raw_{name}_novelty.nii.gz").get_fdata()
        np.testing.assert_allclose(values, np.where(brain, data, 0), rtol=1e-5)
        told = json.loads((folder / f"sub-5_desc-raw_{name}_novelty.json").read_text())
        assert told["Score"]["trivial"] is True
    told = json.loads((folder / "sub-5_desc-combi_novelty.json").read_text())
    assert told["Score"]["trivial"] is False
    assert told["Score"]["paper"] == "zimmerer2019"


def test_sidecars_tell_every_source_and_the_axis_of_slices(study, cohort):
    recipe, out = study
    folder = out / "maps" / "sub-4" / "anat"
    for score in ("combi", "vae_regularizer", "raw_T1w"):
        told = json.loads((folder / f"sub-4_desc-{score}_novelty.json").read_text())
        sources = [(folder / path).resolve() for path in told["Sources"]]
        anat = (cohort / "scans" / "sub-4" / "anat").resolve()
        assert sources == [anat / "sub-4_FLAIR.nii.gz", anat / "sub-4_T1w.nii.gz"]
        assert told["SliceAxis"] == ("K" if recipe == "slices" else None)
        assert told["Fallbacks"] == []
        values = nib.load(folder / f"sub-4_desc-{score}_novelty.nii.gz").get_fdata()
        assert told["UnscoredVoxels"] == np.count_nonzero(head(4)[2] & (values == 0))
        smoothed = {"smoothing": {"sigma": 4.0, "unit": "mm", "truncate": 1.0}, "median_px": 3}
        assert told["Score"].get("settings", {}) == (smoothed if score == "combi" else {})
        assert (told["Environment"]["Device"], told["Environment"]["Dtype"]) == ("cpu", "float32")
    made = find_maps(out / "maps")[0]["sub-4"].made["combi"]
    assert made.slice_axis == (2 if recipe == "slices" else None)


def test_a_detector_read_back_scores_to_the_bit(study, cohort):
    recipe, out = study
    detector = mn.Detector.load(out / "model")
    assert (detector.recipe, detector.contrasts) == (recipe, ("FLAIR", "T1w"))
    files = mn.scan_folder(
        cohort / "scans", kind="structural", contrasts=["FLAIR", "T1w"], brain_masks=cohort / "brains"
    )
    scan = read_structural(files[1])
    for name, novelty in detector.score(scan, ["kl_gradient", "rec_error"]).items():
        written = nib.load(out / "maps" / "sub-2" / "anat" / f"sub-2_desc-{name}_novelty.nii.gz")
        np.testing.assert_array_equal(np.asarray(written.dataobj), novelty.data)


def test_scoring_again_is_up_to_date_until_any_image_changes(study, cohort, tmp_path):
    _, out = study
    words = ["score", out / "model", cohort / "scans", "-o", out / "maps", "--brain-masks", cohort / "brains"]
    assert "0 scored, 5 up to date" in run(*words).stderr


def scans_of(cohort, contrasts=("FLAIR", "T1w")):
    return mn.scan_folder(
        cohort / "scans", kind="structural", contrasts=contrasts, brain_masks=cohort / "brains"
    )


@pytest.mark.parametrize("recipe", ["slices", "patches"])
def test_what_touches_a_lesion_is_not_trained_on(cohort, tmp_path, recipe):
    import tomllib

    tree = tomllib.loads((cohort / f"{recipe}.toml").read_text())
    settings = fit_settings(tree, where="test", recipe=recipe)
    scans = scans_of(cohort)
    lesions = lesions_in(cohort / "masks", [files.id for files in scans], tmp_path)
    with gather_images(scans, settings, 0) as every:
        all_of = {seen.id: seen.n_voxels for seen in every.scans}
    with gather_images(scans, settings, 0, known=Annotations(lesions)) as healthy:
        left = {seen.id: seen.n_voxels for seen in healthy.scans}
        highest = {
            name: float(healthy.table.array()[rows].max()) for name, rows in healthy.table.scans.items()
        }
    assert left["sub-3"] == all_of["sub-3"] > 0
    assert 0 < left["sub-1"] < all_of["sub-1"]
    if recipe == "slices":  # The lesion is in three slices, k = 7, 8, 9.
        assert all_of["sub-1"] - left["sub-1"] == 3
    # 90 above its surroundings it would stick out of what is left, at four standard deviations.
    assert max(highest.values()) < 3.5
    some = tmp_path / "some"
    some.mkdir()
    os.link(cohort / "masks/sub-2_mask.nii.gz", some / "sub-2_mask.nii.gz")
    with pytest.raises(ScanError, match=r"sub-1: no lesion mask in .*give a healthy scan one of zeros"):
        lesions_in(some, ["sub-1", "sub-2"], tmp_path / "x")(read_structural(scans[0]))


@pytest.mark.parametrize("recipe", ["slices", "patches"])
@pytest.mark.parametrize("spacing_mm", [1.0, 2.5])
def test_lesions_are_left_out_on_other_voxels_too(cohort, tmp_path, recipe, spacing_mm):
    steps = {"preprocessors": ["resample", "zscore", "clip"],
             "preprocessor_settings": {"resample": {"spacing_mm": spacing_mm}},
             "view_settings": {"size": [8, 8, 8] if recipe == "patches" else [16, 16]}}  # fmt: skip
    settings = fit_settings(steps, where="test", recipe=recipe)
    scans = scans_of(cohort)
    lesions = lesions_in(cohort / "masks", [files.id for files in scans], tmp_path)
    with gather_images(scans, settings, 0, known=Annotations(lesions)) as healthy:
        assert {"sub-1", "sub-2", "sub-3"} <= {seen.id for seen in healthy.scans}
        assert float(healthy.table.array().max()) < 3.5


def test_the_size_is_refused_before_a_scan_is_read():
    settings = fit_settings({"view_settings": {"size": [30, 33]}}, where="test", recipe="slices")

    def scans():
        raise AssertionError("a scan was read")
        yield

    with pytest.raises(SettingsError, match=r"an image of 30 x 33 does not fit 4 strides of 2"):
        mn.Detector.fit(scans(), recipe="slices", settings=settings)


def test_contrasts_must_be_those_that_were_trained_on(study, cohort):
    detector = mn.Detector.load(study[1] / "model")
    scan = read_structural(scans_of(cohort, ("T1w", "FLAIR"))[0])
    with pytest.raises(ScanError, match="its contrasts are T1w, FLAIR, needed are FLAIR, T1w"):
        detector.score(scan, "rec_error")
    with pytest.raises(ScanError, match="its channels have no names"):
        detector.score(replace(scan, contrasts=()), "rec_error")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--recipe", "slice"], 2, "no recipe is called 'slice'; known: qspace, qspace-volumes, slices"),
        (["--recipe", "slices"], 2, "FLAIR"),
        (["--recipe", "qspace", "--contrasts", "FLAIR"], 2, "--contrasts is for structural scans"),
        (["--recipe", "slices", "--contrasts", "FLAIR", "--masks", "{tmp}/none"], 3, "none"),
        (["--recipe", "slices", "--contrasts", "FLAIR", "--set", "view_settings.size=[9,9]"], 2, "9"),
    ],
)
def test_what_cannot_be_fitted_is_said(cohort, tmp_path, words, code, said):
    words = [word.format(tmp=tmp_path) for word in words]
    result = run("fit", cohort / "scans", "-o", tmp_path / "m", *words)
    assert result.exit_code == code, result.output
    assert said in result.stderr


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("contrasts",), [], "contrasts"),
        (("contrasts",), ["FLAIR", "FLAIR"], "contrasts"),
        (("shape",), [2, 32, 8], "shape"),
        (("recipe",), "qspace", "contrasts|shape|preprocessing"),
    ],
)
def test_an_edited_record_is_refused(study, tmp_path, path, value, words):
    import shutil

    folder = shutil.copytree(study[1] / "model", tmp_path / "model")
    record = json.loads((folder / "detector.json").read_text())
    record[path[0]] = value
    (folder / "detector.json").write_text(json.dumps(record))
    with pytest.raises(DetectorError, match=words):
        mn.Detector.load(folder)


def test_lesion_voxels_are_left_out_of_diffusion_scans_too(cohort):
    scan = read_structural(scans_of(cohort)[0])
    lesion = head(1)[3]
    healthy = scan.without(lesion)
    assert healthy.n_voxels == scan.n_voxels - lesion.sum()
    np.testing.assert_array_equal(healthy.mask, scan.mask & ~lesion)
    inside = (~lesion).ravel(order="F")[np.flatnonzero(scan.mask.ravel(order="F"))]
    np.testing.assert_array_equal(healthy.voxels(), scan.voxels()[inside])
    with pytest.raises(ScanError, match="its lesion fills the whole mask"):
        scan.without(scan.mask)


@pytest.mark.parametrize(
    ("spacing_mm", "shape"), [(4.0, (10, 9, 11)), ([4.0, 4.0, 8.0], None)], ids=["one", "three"]
)
def test_maps_of_a_resampled_scan_lie_on_its_own_voxels(cohort, spacing_mm, shape, tmp_path):
    import tomllib

    tree = tomllib.loads((cohort / "slices.toml").read_text())
    tree |= {
        "preprocessors": ["resample", "zscore"],
        "preprocessor_settings": {"resample": {"spacing_mm": spacing_mm}},
    }
    settings = fit_settings(tree, where="test", recipe="slices")
    scans = scans_of(cohort)
    mn.Detector.fit(scans, recipe="slices", settings=settings).save(tmp_path / "model")
    detector = mn.Detector.load(tmp_path / "model")
    scan = read_structural(scans[3])
    grid = detector.prepare(scan)[0].grid
    assert shape is None or grid.shape == shape
    assert sorted(grid.spacing_mm) == pytest.approx(sorted(np.broadcast_to(spacing_mm, 3)))
    novelty = detector.score(scan, "rec_error")["rec_error"]
    assert novelty.data.shape == SHAPE
    np.testing.assert_allclose(novelty.affine, scan.grid.affine)
    assert not novelty.data[~scan.mask].any()
    # Where the lesion is there is the error, in the middle of it.
    where = np.argwhere(novelty.data > np.percentile(novelty.values, 99)).mean(0)
    assert np.abs((where - np.argwhere(head(4)[3]).mean(0)) * SPACING).max() < 8


def test_recipes_have_their_own_defaults():
    slices, qspace = fit_settings(where="test", recipe="slices"), fit_settings(where="test")
    assert (slices.method, slices.view, slices.preprocessors) == ("image_vae", "slice", ("zscore", "clip"))
    assert (qspace.method, qspace.view, qspace.preprocessors) == ("vae", "voxel", ())
    assert slices.train.batch_size == 64
    changed = fit_settings({"preprocessor_settings": {"clip": {"limit": 2.0}}}, where="test", recipe="slices")
    assert changed.preprocessor_settings["clip"]["limit"] == 2.0
    with pytest.raises(SettingsError, match=r"preprocessor_settings\.clip\.limi"):
        fit_settings({"preprocessor_settings": {"clip": {"limi": 1}}}, where="test", recipe="slices")


def write_manifest(path, cohort, folds):
    """Write a manifest of the FLAIR of the cohort, in some folds."""
    path.write_text(f"""
[dataset]
name = "synthetic heads"
licence = "none"
[files]
root = {json.dumps(str(cohort))}
masks = "masks/{{id}}_mask.nii.gz"
[files.contrasts]
FLAIR = "scans/{{id}}/anat/{{id}}_FLAIR.nii.gz"
[folds]
count = {folds}
""")


def test_the_study_of_localisation_tests_every_patient_once(cohort, tmp_path):
    write_manifest(tmp_path / "cohort.toml", cohort, 3)
    fast = SLICES.replace("batch_voxels", 'scores = ["rec_error", "kl_gradient", "rec_signed"]\nbatch_voxels')
    for table in ("method_settings", "train", "view_settings"):
        fast = fast.replace(f"[{table}]", f"[fit.{table}]")
    (tmp_path / "settings.toml").write_text(f'recipe = "slices"\nseed = 0\n\n[fit]\n{fast}')
    done = run_pipeline(
        "lesion_localisation", "--manifest", tmp_path / "cohort.toml", "--out", tmp_path / "study",
        "--settings", tmp_path / "settings.toml", "--brain-masks", tmp_path / "brains",
        "--set", "maps.signs.FLAIR=1", "--set", "draws=3", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    # Two have nothing wrong with them, and nothing to be found; each of the five was scored once.
    assert set(table["scans"]) == {f"sub-{n}" for n in range(1, 6)}
    assert {"rec_error", "rec_signed", "raw_signed", "raw_FLAIR"} <= set(table["scans"]["sub-1"])
    study = tmp_path / "study"
    assert len(list((study / "models").glob("fold-*/detector.json"))) == 3
    assert not list((study / "models").glob("fold-*/checkpoint*"))
    assert json.loads((study / "models/fold-1/detector.json").read_text())["settings"]["draws"] == 3
    made = {path.name.partition("_")[0]: nib.load(path) for path in (tmp_path / "brains").iterdir()}
    assert set(made) == set(table["scans"])
    given = nib.load(cohort / "scans/sub-3/anat/sub-3_FLAIR.nii.gz")
    np.testing.assert_array_equal(made["sub-3"].get_fdata() > 0, head(3)[2])
    np.testing.assert_allclose(made["sub-3"].affine, given.affine)
    _check_choices(study, table["scans"])


def _check_choices(study, scans):
    """Each fold's choice is the best of its validation patients, and what it reaches is the table's."""
    chosen = json.loads((study / "choice.json").read_text())
    assert [fold["fold"] for fold in chosen["folds"]] == [1, 2, 3]
    reached = []
    for fold in chosen["folds"]:
        ours = {score: ap for score, ap in fold["validation_ap"].items() if not score.startswith("raw_")}
        assert fold["chosen"] == (max(ours, key=ours.get) if ours else None)
        tested = [path.name for path in (study / "maps" / f"fold-{fold['fold']}").glob("sub-*")]
        aps = [scans[id][fold["chosen"]]["ap"] for id in tested] if ours else []
        aps = [ap for ap in aps if ap is not None]
        assert fold["test_ap"] == (pytest.approx(np.mean(aps)) if aps else None)
        reached += aps
    assert reached  # Two patients have a lesion.
    assert (chosen["test_ap"], chosen["patients"]) == (pytest.approx(np.mean(reached)), len(reached))
