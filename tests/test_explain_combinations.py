"""``explain`` of combinations: its scores' maps are found, in whichever folder, and drive the page."""

import hashlib
import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest
from cohorts import tiny_cohort, tiny_detector
from typer.testing import CliRunner
from without_pages import typed

from mednovelty.cli import app

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
STEM = "sub-p01/dwi/sub-p01_desc-"
AT = (6, 12, 5)
"""Index of the peak of the combination's only cluster."""


def run(*words):
    return CliRunner().invoke(app, typed(words), env=ENVIRONMENT)


def told(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def edit(path, change):
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


def with_p(folder, score):
    """Write p-values beside a map as calibration does: by rank, of 999 healthy voxels."""
    start = folder / f"{STEM}{score}"
    found = nib.load(f"{start}_novelty.nii.gz")
    data = np.asarray(found.dataobj)
    p = (1 + np.floor(999 * (data[..., None] < np.sort(data.ravel())[::50]).mean(-1))) / 1000
    path = folder / f"{STEM}{score}_pvalue.nii.gz"
    nib.save(nib.Nifti1Image(-np.log10(p).astype(np.float32), found.affine), path)
    about = {"Sha256": "1" * 64, "Regions": "one", "Voxels": 999, "Files": {"pvalue": sha256(path)}}
    edit(folder / f"{STEM}{score}_novelty.json", lambda facts: facts.update(Calibration=about))
    return path


def combine(folder, of):
    """Write a map that is called fisher, of maps of p-values, as ``combine`` does."""
    (folder / STEM).parent.mkdir(parents=True, exist_ok=True)
    first = nib.load(of[0])
    image = folder / f"{STEM}fisher_novelty.nii.gz"
    data = sum(np.asarray(nib.load(path).dataobj) for path in of)
    nib.save(nib.Nifti1Image(data.astype(np.float32), first.affine), image)
    sidecars = [path.with_name(path.name.replace("_pvalue.nii.gz", "_novelty.json")) for path in of]
    members = [json.loads(path.read_text()) for path in sidecars]
    facts = {
        "ScanId": "sub-p01",
        "Sources": [os.path.relpath(path, image.parent) for path in of],
        "Score": {"name": "fisher", "description": "Fisher's sum", "combination": []},
        "Combination": {
            "By": "fisher",
            "Of": [
                {
                    "Score": one["Score"]["name"],
                    "DetectorSha256": one["DetectorSha256"],
                    "PvalueSha256": one["Calibration"]["Files"]["pvalue"],
                }
                for one in members
            ],
        },
        "MapSha256": sha256(image),
    }
    (folder / f"{STEM}fisher_novelty.json").write_text(json.dumps(facts))
    place = (first.affine @ [*AT, 1])[:3]
    row = "\t".join(map(str, [1, 99.0, *place]))
    names = "cluster\tvolume_mm3\tpeak_x_mm\tpeak_y_mm\tpeak_z_mm"
    (folder / f"{STEM}fisher_clusters.tsv").write_text(f"{names}\n{row}\n")
    brain = folder / f"{STEM}brain_mask.nii.gz"
    if not brain.exists():
        shutil.copy(sidecars[0].with_name(brain.name), brain)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Maps of one detector, of another, and combinations beside the first and in a folder of their own."""
    home = tmp_path_factory.mktemp("combinations")
    detector, model = tiny_detector()
    other = detector.with_draws(3)
    other.save(home / "other")
    names = "nearest_normal,reconstruction_error"
    for path, out in ((model, home / "out"), (home / "other", home / "out2")):
        result = run("score", path, tiny_cohort().patients / "sub-p01", "-o", out, "--scores", names)
        assert result.exit_code == 0, result.output
    own = [with_p(home / "out", name) for name in names.split(",")]
    strange = with_p(home / "out2", "reconstruction_error")
    combine(home / "out", own)
    combine(home / "one", own)
    combine(home / "several", [*own, strange])
    return home


def test_a_combination_beside_its_scores(folders):
    (one,) = told(run("explain", folders / "out" / "sub-p01", "--score", "fisher", "--json"))
    assert one["Voxel"] == list(AT)
    first, *members = one["Scores"][:3]
    data = nib.load(folders / "out" / f"{STEM}fisher_novelty.nii.gz").dataobj
    assert first["Value"] == pytest.approx(float(data[AT]))
    assert first["CombinationOf"] == ["nearest_normal", "reconstruction_error"]
    assert first["Drivers"] == []
    assert {member["Score"] for member in members} == set(first["CombinationOf"])
    for member in members:
        surprise = nib.load(folders / "out" / f"{STEM}{member['Score']}_pvalue.nii.gz").dataobj[AT]
        assert member["PValue"] == pytest.approx(10 ** -float(surprise), rel=1e-5)
        assert member["Drivers"]
    text = " ".join(one["Text"])
    assert "fisher is a combination of what its scores are here: " in text
    assert any(f"{name} would be" in text or f"drives {name}" in text for name in first["CombinationOf"])


def test_a_folder_of_combinations_leads_to_maps_detector_and_scan(folders):
    (one,) = told(run("explain", folders / "one" / "sub-p01", "--json"))
    assert one["Voxel"] == list(AT)
    assert one["Scores"][0]["Score"] == "fisher"
    assert one["Detector"]["Sha256"] == tiny_detector()[0].sha256
    assert one["NearestNormals"]["Normals"]
    (page,) = (folders / "one" / "sub-p01" / "dwi").glob("*_explained.png")
    assert "Detector" not in page.name


def test_of_several_detectors_each_has_a_page_that_tells_all_scores(folders):
    pages = told(run("explain", folders / "several" / "sub-p01", "--json"))
    assert len(pages) == 2
    model = tiny_detector()[1].name
    assert [[score["Score"] for score in page["Scores"]] for page in pages] == [
        ["fisher", "nearest_normal", "reconstruction_error", "reconstruction_error of other"],
        ["fisher", "reconstruction_error", f"nearest_normal of {model}", f"reconstruction_error of {model}"],
    ]
    assert all(score["PValue"] is not None for score in pages[0]["Scores"][1:])
    assert pages[0]["Scores"][3]["Value"] == pages[1]["Scores"][1]["Value"]
    assert pages[0]["Scores"][3]["Drivers"] == []
    assert pages[0]["Detector"]["Sha256"] != pages[1]["Detector"]["Sha256"]
    names = sorted(path.name for path in (folders / "several" / "sub-p01" / "dwi").glob("*_explained.png"))
    assert [name.rpartition("Detector")[2] for name in names] == ["1_explained.png", "2_explained.png"]


def test_one_of_several_detectors_can_be_named(folders):
    words = ("explain", folders / "several" / "sub-p01", "--json", "--detector")
    (one,) = told(run(*words, folders / "other"))
    assert one["Scores"][1]["Score"] == "reconstruction_error"
    assert one["Scores"][1]["Drivers"]
    tiny_detector()[0].with_draws(5).save(folders / "third")
    refused = run(*words, folders / "third")
    assert refused.exit_code == 4
    assert "sub-p01: its maps were made by another detector (" in refused.output


def test_maps_that_are_gone_or_made_anew_are_told(folders, tmp_path):
    # A copy elsewhere: what its sidecar tells of leads nowhere.
    shutil.copytree(folders / "one", tmp_path / "moved")
    refused = run("explain", tmp_path / "moved" / "sub-p01", "--detector", tiny_detector()[1])
    assert refused.exit_code == 3
    message = " ".join(refused.output.split())
    assert "sub-p01_desc-nearest_normal_novelty.nii.gz: is not there, and fisher is a combination" in message
    assert "explain the folder that score wrote, or combine again" in message
    again = shutil.copytree(folders / "out", folders / "again")
    combined = combine(folders / "anew", [again / f"{STEM}{n}_pvalue.nii.gz" for n in
                                          ("nearest_normal", "reconstruction_error")])  # fmt: skip
    change = lambda facts: facts["Calibration"]["Files"].update(pvalue="0" * 64)  # noqa: E731
    edit(again / f"{STEM}nearest_normal_novelty.json", change)
    refused = run("explain", combined / "sub-p01")
    assert refused.exit_code == 3
    assert "was scored or calibrated again since fisher was made of it" in " ".join(refused.output.split())
