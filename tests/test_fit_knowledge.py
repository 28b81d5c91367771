"""``fit --labels``, ``--masks`` and ``--outliers`` from files to maps; what is refused, with which code."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from cohorts import FAST_TOML, tiny_cohort
from test_image_recipes import SLICES, cohort, run  # noqa: F401 - a fixture
from test_outlier_exposure import colours, save

import mednovelty as mn
from mednovelty.abnormality import is_semi_supervised, told_of_score

SETTINGS = FAST_TOML.replace("[method_settings]\nhidden = [24, 16]\nlatent = 4\n", "")
SMALL = ("--set", "method_settings.hidden=[8]", "--set", "method_settings.latent=3",
         "--set", "method_settings.pretrain_epochs=1")  # fmt: skip


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory):
    """Return a folder with three controls and the first patient, and one with that patient's mask alone."""
    root, made = tmp_path_factory.mktemp("annotated"), tiny_cohort()
    shutil.copytree(made.controls, root / "train")
    shutil.copytree(made.patients / "sub-p01", root / "train" / "sub-p01")
    shutil.copytree(made.patients / "sub-p02", root / "strange" / "sub-p02")
    (root / "masks").mkdir()
    (mask,) = made.lesions.glob("sub-p01*")
    shutil.copy(mask, root / "masks")
    (root / "fast.toml").write_text(SETTINGS)
    return root, mask


def fit(root, out, *words):
    return run("fit", root / "train", "-o", out, "--settings", root / "fast.toml", *SMALL, *words)


def record(folder):
    return json.loads((folder / "detector.json").read_text())


def test_a_handful_of_lesion_voxels_of_one_patient(diffusion, tmp_path):
    root, mask = diffusion
    result = fit(root, tmp_path / "model", "--method", "deep-sad", "--masks", root / "masks",
                 "--set", "annotations.labelled_voxels=5")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert record(tmp_path / "model")["summary"]["labelled_anomalies"] == 4  # One is held out.
    card = (tmp_path / "model" / "README.md").read_text()
    assert "* Annotated: sub-p01: 5 voxels of its lesion are labelled as abnormal" in card
    assert "maps of these scans say nothing of how well it does" in card
    scored = run("score", tmp_path / "model", root / "strange", "-o", tmp_path / "maps")
    assert scored.exit_code == 0, scored.output
    told = json.loads((tmp_path / "maps" / "run.json").read_text())["AnnotatedInTraining"]
    assert list(told) == ["sub-p01"]
    sidecars = {
        path.name.split("_desc-")[1].removesuffix("_novelty.json"): json.loads(path.read_text())
        for path in (tmp_path / "maps").rglob("*_novelty.json")
    }
    assert sidecars["hypersphere"]["Score"]["semi_supervised"] is True
    assert sidecars["hypersphere"]["Score"]["annotated_scans"] == 1
    assert sidecars["raw_b0"]["Score"]["semi_supervised"] is False
    assert {one["AnnotatedInTraining"] for one in sidecars.values()} == {None}
    assert "* Semi-supervised: trained with 1 annotated scan" in card
    lesion = np.asarray(nib.load(mask).dataobj) > 0
    assert lesion.sum() > 5


def test_scans_as_outliers_and_labels_of_subjects(diffusion, tmp_path):
    root, _ = diffusion
    (tmp_path / "labels.tsv").write_text("subject\tlabel\nsub-c01\tnormal\nsub-p01\tunlabelled\n")
    result = fit(root, tmp_path / "model", "--method", "hsc", "--outliers", root / "strange",
                 "--labels", tmp_path / "labels.tsv")  # fmt: skip
    assert result.exit_code == 0, result.output
    found = record(tmp_path / "model")
    assert found["summary"]["outliers"] > 100
    # A single outlier scan is trained on: normals alone choose no epoch.
    assert "so the last epoch was kept" in found["summary"]["verdict"]
    assert mn.Detector.load(tmp_path / "model").fitted.record.best_epoch == len(found["curve"]) - 1
    assert found["settings"]["method_settings"]["anomalies"] == "none"
    assert {scan["id"]: scan["annotation"] for scan in found["scans"]}["sub-c01"] == "normal"
    assert any("outliers to train on, 0 held out; 50% of each batch" in note for note in found["notes"])
    detector = mn.Detector.load(tmp_path / "model")
    scan = mn.scan_folder(root / "strange")[0]
    assert np.isfinite(detector.score(mn.read_scan(scan))["hypersphere"].data).all()
    told = told_of_score(detector, {"name": "hypersphere", "trivial": False})
    assert told == {"semi_supervised": True, "annotated_scans": 1, "outliers": found["summary"]["outliers"]}


def test_without_any_anomaly_hsc_plants_diffusion(diffusion, tmp_path):
    root, _ = diffusion
    result = fit(root, tmp_path / "model", "--method", "hsc")
    assert result.exit_code == 0, result.output
    found = record(tmp_path / "model")
    assert found["settings"]["method_settings"]["anomalies"] == "diffusion"
    assert 0 <= found["summary"]["auroc"] <= 1
    detector = mn.Detector.load(tmp_path / "model")
    np.testing.assert_allclose(detector.model.bvalues, detector.scheme.bvalues_s_per_mm2)
    means = dict(detector.preprocessing)["channel_mean"].means
    np.testing.assert_allclose(detector.model.divisors, means, rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "table", "exit_code", "code", "said"),
    [
        (["--method", "vae", "--labels", "{tsv}"], "sub-c01\tnormal", 2, "labels.method", "takes no labels"),
        (["--method", "deep-sad", "--labels", "{tsv}"], "sub-c9\tnormal", 3, "labels.unknown_scan",
         "labels.tsv, line 2: no scan and no subject is called 'sub-c9'"),
        (["--method", "deep-sad", "--labels", "{tsv}"], "sub-c01\tanomalous", 3, "labels.where",
         "most of its voxels are not"),
        (["--method", "vae", "--outliers", "{strange}"], "", 2, "outliers.method", "learns from normal"),
        (["--method", "deep-sad", "--outliers", "{train}"], "", 3, "outliers.overlap",
         "is an outlier, and trained on as the scan"),
        (["--method", "deep-sad", "--outliers", "{none}"], "", 3, "outliers.folder", "not a folder"),
    ],
)  # fmt: skip
def test_what_is_refused_has_its_code_and_exit_code(diffusion, tmp_path, words, table, exit_code, code, said):
    root, _ = diffusion
    (tmp_path / "labels.tsv").write_text(f"subject\tlabel\n{table}\n")
    places = {"{tsv}": tmp_path / "labels.tsv", "{strange}": root / "strange", "{train}": root / "train",
              "{none}": tmp_path / "none"}  # fmt: skip
    result = run(
        "fit", root / "train", "-o", tmp_path / "model", "--json", *(places.get(word, word) for word in words)
    )
    assert result.exit_code == exit_code, result.output
    told = json.loads(result.stdout)
    assert told["code"] == code
    assert said in told["error"]
    assert not (tmp_path / "model" / "detector.json").exists()


def images(cohort, out, *words):  # noqa: F811
    tiny = SLICES.replace("[method_settings]\nwidths = [4, 8]\nlatent = 5\n", "")
    (out / "tiny.toml").write_text(tiny)
    return run(
        "fit", cohort / "scans", "-o", out / "model", "--recipe", "slices", "--contrasts", "FLAIR,T1w",
        "--brain-masks", cohort / "brains", "--settings", out / "tiny.toml", *words
    )  # fmt: skip


def test_one_annotated_patient_for_the_pixel_loss(cohort, tmp_path):  # noqa: F811
    (tmp_path / "one.tsv").write_text("subject\tlabel\nsub-2\tanomalous\n")
    result = images(cohort, tmp_path, "--method", "fcdd", "--masks", cohort / "masks",
                    "--labels", tmp_path / "one.tsv", "--set", "method_settings.loss=pixel",
                    "--set", "method_settings.filters=[4,8]")  # fmt: skip
    assert result.exit_code == 0, result.output
    found = record(tmp_path / "model")
    assert found["summary"]["labelled_anomalies"] == 3
    told = {scan["id"]: (scan["role"], scan["annotation"]) for scan in found["scans"]}
    assert told["sub-2"][0] == "training"
    assert told["sub-2"][1].startswith("3 of its ")
    assert told["sub-1"][1] == ""  # Its lesion was left out, for it is not called anomalous.


def test_pictures_are_outliers_for_slices_from_the_command(cohort, tmp_path):  # noqa: F811
    for n in range(6):
        save(tmp_path / "pictures" / f"{n}.png", colours(n))
    result = images(cohort, tmp_path, "--method", "hsc", "--outliers", tmp_path / "pictures", "--set",
                    "method_settings.filters=[4,8]", "--set", "method_settings.latent=4")  # fmt: skip
    assert result.exit_code == 0, result.output
    found = record(tmp_path / "model")
    assert found["summary"]["outliers"] == 5
    assert found["summary"]["auroc"] is not None


def test_classes_get_poles_of_their_own(cohort, tmp_path):  # noqa: F811
    table = "".join(f"sub-{n}\t{'old' if n % 2 else 'young'}\n" for n in range(1, 6))
    (tmp_path / "ages.tsv").write_text(f"subject\tlabel\n{table}")
    result = images(cohort, tmp_path, "--method", "hyperspherical", "--labels", tmp_path / "ages.tsv",
                    "--set", "method_settings.network=dense")  # fmt: skip
    assert result.exit_code == 0, result.output
    found = record(tmp_path / "model")
    assert found["settings"]["method_settings"]["classes"] == 2
    assert {scan["annotation"] for scan in found["scans"]} == {"labelled as old", "labelled as young"}
    # Classes of normal scans: nobody said what is abnormal.
    assert not is_semi_supervised(mn.Detector.load(tmp_path / "model"))
