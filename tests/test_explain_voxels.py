"""``explain`` of scored scans as a user meets it: which voxels, which files, what is refused."""

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
from mednovelty.errors import SettingsError
from mednovelty.explain_command import place_in_mm

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
SCORES = "nearest_normal,reconstruction_error,raw_b0"
STEM = "sub-p01/dwi/sub-p01_desc-"


def run(*words):
    return CliRunner().invoke(app, typed(words), env=ENVIRONMENT)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    out = tmp_path_factory.mktemp("scored") / "out"
    result = run("score", tiny_detector()[1], tiny_cohort().patients, "-o", out, "--scores", SCORES)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def out(scored, tmp_path):
    # As deep as the original: sidecars tell where things lie relative to themselves.
    copy = shutil.copytree(scored, scored.parent / tmp_path.name)
    yield copy
    shutil.rmtree(copy)


def image(out, score="nearest_normal", kind="novelty"):
    return nib.load(out / f"{STEM}{score}_{kind}.nii.gz")


def highest(out, score="nearest_normal"):
    """Return index and place of the highest voxel of a map, by nibabel."""
    found = image(out, score)
    data = np.asarray(found.dataobj)
    voxel = np.unravel_index(data.argmax(), data.shape)
    return tuple(map(int, voxel)), (found.affine @ [*voxel, 1])[:3]


def explained(out):
    return sorted((out / "sub-p01" / "dwi").glob("*_explained.*"))


def told(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_place_gives_a_page_its_numbers_and_its_text(out):
    voxel, mm = highest(out)
    result = run("explain", out / "sub-p01", "--at", ",".join(map(str, mm)))
    assert result.exit_code == 0, result.output
    found = explained(out)
    assert [path.suffix for path in found] == [".json", ".png", ".txt"]
    facts = json.loads(found[0].read_text())
    assert facts["Voxel"] == list(voxel)
    assert facts["PlaceMm"] == pytest.approx(mm.tolist(), abs=1e-3)
    assert facts["ScanId"] == "sub-p01"
    assert facts["Scores"][0]["Score"] == "nearest_normal"
    assert facts["Scores"][0]["Value"] == pytest.approx(float(np.asarray(image(out).dataobj)[voxel]))
    assert facts["Scores"][0]["AsHighOrHigher"]["Voxels"] == 1
    # Baselines come last, and nothing drives them but the signal itself.
    assert {s["Score"] for s in facts["Scores"][2:]} == {"raw_b0", "raw_dwi", "raw_attenuation"}
    assert all(s["Drivers"] == [] for s in facts["Scores"][2:])
    assert found[2].read_text() == "\n".join(facts["Text"]) + "\n"
    assert facts["Text"][1] in result.stdout
    assert found[1].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert facts["Detector"]["Sha256"] == tiny_detector()[0].sha256
    assert "*_explained.*" in (out / ".bidsignore").read_text().split()


def test_the_signal_told_is_that_of_the_file_at_the_place(out):
    voxel, mm = highest(out)
    (facts,) = told(run("explain", out / "sub-p01", "--at", ",".join(map(str, mm)), "--json"))
    scan = nib.load(tiny_cohort().patients / "sub-p01" / "dwi" / "sub-p01_dwi.nii.gz")
    own = np.asarray(scan.dataobj[voxel], float)
    ratio = np.array(facts["Diffusion"]["Signal"]) / own
    assert np.ptp(ratio) < 1e-4 * ratio.mean()


def test_a_nearest_normal_has_the_signal_of_its_place(out):
    """From the JSON alone: scan and millimetres lead to the voxel whose signal is told."""
    _, mm = highest(out)
    (facts,) = told(run("explain", out / "sub-p01", "--at", ",".join(map(str, mm)), "--nearest", 2, "--json"))
    assert len(facts["NearestNormals"]["Normals"]) == 2
    for normal, signal in zip(
        facts["NearestNormals"]["Normals"], facts["Diffusion"]["NearestNormals"], strict=True
    ):
        scan = nib.load(tiny_cohort().controls / normal["Scan"] / "dwi" / f"{normal['Scan']}_dwi.nii.gz")
        i, j, k = np.rint(np.linalg.solve(scan.affine, [*normal["PlaceMm"], 1])[:3]).astype(int)
        ratio = np.array(signal) / np.asarray(scan.dataobj[i, j, k], float)
        assert np.ptp(ratio) < 1e-4 * ratio.mean()


def test_without_a_place_the_highest_peaks(out):
    found = told(run("explain", out / "sub-p01", "--peaks", 2, "--score", "reconstruction_error", "--json"))
    voxel, _ = highest(out, "reconstruction_error")
    assert found[0]["Voxel"] == list(voxel)
    assert len(found) == 2
    assert {facts["Scores"][0]["Score"] for facts in found} == {"reconstruction_error"}
    places = np.array([facts["PlaceMm"] for facts in found])
    assert np.linalg.norm(places[0] - places[1]) >= 10


def test_a_table_of_clusters_says_which_voxels(out):
    found = image(out)
    inside = np.argwhere(np.asarray(image(out, "brain", "mask").dataobj) > 0)[[40, 500]]
    places = inside @ found.affine[:3, :3].T + found.affine[:3, 3]
    rows = ["cluster\tpeak_x_mm\tpeak_y_mm\tpeak_z_mm\tp_peak"]
    rows += ["\t".join([str(n), *map(str, place), "n/a"]) for n, place in enumerate(places, 1)]
    (out / f"{STEM}reconstruction_error_clusters.tsv").write_text("\n".join(rows) + "\n")
    facts = told(run("explain", out / "sub-p01", "--json"))
    assert [one["Voxel"] for one in facts] == inside.tolist()
    assert facts[0]["Scores"][0]["Score"] == "reconstruction_error"


def clusters(out, score, volumes):
    """Write a table of clusters of these volumes; return the index of each peak."""
    found = image(out)
    inside = np.argwhere(np.asarray(image(out, "brain", "mask").dataobj) > 0)[40::90][: len(volumes)]
    places = inside @ found.affine[:3, :3].T + found.affine[:3, 3]
    rows = ["cluster\tvolume_mm3\tpeak_x_mm\tpeak_y_mm\tpeak_z_mm"]
    for number, (volume, place) in enumerate(zip(volumes, places, strict=True), 1):
        rows.append("\t".join(map(str, [number, volume, *place])))
    (out / f"{STEM}{score}_clusters.tsv").write_text("\n".join(rows) + "\n")
    return inside.tolist()


def test_the_largest_clusters_are_explained_and_the_others_told(out):
    places = clusters(out, "reconstruction_error", [8.0, 4.0, 96.0, 16.0])
    result = run("explain", out / "sub-p01", "--peaks", 2, "--json")
    assert [one["Voxel"] for one in told(result)] == [places[2], places[3]]
    assert "peaks of 2 of 4 clusters" in result.stderr
    assert "2 smaller ones are left out, --peaks 4 explains all" in result.stderr
    assert "page 1 of 2" in result.stderr
    assert "page 2 of 2" in result.stderr


def test_a_table_without_clusters_leaves_the_peaks_of_the_map(out):
    clusters(out, "reconstruction_error", [])
    result = run("explain", out / "sub-p01", "--peaks", 1, "--json")
    assert [one["Voxel"] for one in told(result)] == [list(highest(out, "reconstruction_error")[0])]
    assert "no cluster in sub-p01_desc-reconstruction_error_clusters.tsv" in result.stderr


def test_several_scores_are_asked_for_at_once(out):
    names = "reconstruction_error,nearest_normal"
    both = told(run("explain", out / "sub-p01", "--score", names, "--peaks", 1, "--json"))
    places = [list(highest(out, name)[0]) for name in names.split(",")]
    assert places[0] != places[1]
    assert [one["Voxel"] for one in both] == places
    assert [one["Scores"][0]["Score"] for one in both] == names.split(",")
    _, mm = highest(out)
    (one,) = told(run("explain", out / "sub-p01", "--score", names, "--at", ",".join(map(str, mm)), "--json"))
    assert [score["Score"] for score in one["Scores"][:2]] == names.split(",")


def test_a_table_of_something_else_is_refused(out):
    (out / f"{STEM}nearest_normal_clusters.tsv").write_text("cluster\tpeak\n1\t2\n")
    result = run("explain", out / "sub-p01")
    assert result.exit_code == 3
    assert "nearest_normal_clusters.tsv: is no table of clusters" in result.output


def test_a_map_of_p_values_is_the_place_among_healthy_scans(out):
    voxel, mm = highest(out)
    found = image(out)
    surprise = np.full(found.shape, 0.5, np.float32)
    surprise[voxel] = 3.5
    path = out / f"{STEM}reconstruction_error_pvalue.nii.gz"
    nib.save(nib.Nifti1Image(surprise, found.affine), path)
    (facts,) = told(run("explain", out / "sub-p01", "--at", ",".join(map(str, mm)), "--json"))
    # What is calibrated comes first.
    assert facts["Scores"][0]["Score"] == "reconstruction_error"
    assert facts["Scores"][0]["PValue"] == pytest.approx(10**-3.5, rel=1e-5)
    assert facts["Scores"][1]["PValue"] is None
    assert "in healthy scans that were held out" in facts["Text"][1]


def sidecars(out):
    return sorted((out / "sub-p01" / "dwi").glob("*_novelty.json"))


def change(out, edit):
    for path in sidecars(out):
        facts = json.loads(path.read_text())
        edit(facts)
        path.write_text(json.dumps(facts))


def test_sidecars_tell_where_the_detector_lies(out):
    path = sidecars(out)[0]
    folder = json.loads(path.read_text())["Detector"]["Folder"]
    assert not os.path.isabs(folder)
    assert (path.parent / folder / "detector.json").samefile(tiny_detector()[1] / "detector.json")


def test_combinations_are_left_out_where_nobody_asks_for_them(out):
    folder = out / "sub-p01" / "dwi"
    for ending in ("novelty.nii.gz", "novelty.json"):
        shutil.copy(out / f"{STEM}nearest_normal_{ending}", out / f"{STEM}average_{ending}")
    sidecar = out / f"{STEM}average_novelty.json"
    facts = json.loads(sidecar.read_text())
    del facts["Detector"]
    facts |= {"Combination": {"By": "mean_z"}, "Score": facts["Score"] | {"name": "average"}}
    facts["MapSha256"] = hashlib.sha256((out / f"{STEM}average_novelty.nii.gz").read_bytes()).hexdigest()
    sidecar.write_text(json.dumps(facts))
    # By name it comes first, and knows neither a detector nor what drives it.
    assert min(path.name for path in folder.glob("*_novelty.json")) == sidecar.name
    found = told(run("explain", out / "sub-p01", "--peaks", "1", "--json"))
    assert "average" not in json.dumps(found)
    refused = run("explain", out / "sub-p01", "--score", "average")
    assert refused.exit_code == 3
    assert "does not tell which maps average is of; explain the folder that score wrote" in refused.output


def test_a_detector_can_be_given(out):
    change(out, lambda facts: facts["Detector"].pop("Folder"))
    _, mm = highest(out)
    place = ("--at", ",".join(map(str, mm)))
    result = run("explain", out / "sub-p01", *place)
    assert result.exit_code == 4
    assert "does not tell where its detector lies; pass --detector" in result.output
    assert run("explain", out / "sub-p01", *place, "--detector", tiny_detector()[1]).exit_code == 0


def test_a_detector_that_is_gone_or_another_is_refused(out, tmp_path):
    change(out, lambda facts: facts["Detector"].update(Folder="nowhere"))
    result = run("explain", out / "sub-p01")
    assert result.exit_code == 4
    assert "no detector is there any more" in result.output
    other = tiny_detector()[0].with_draws(3).save(tmp_path / "model")
    assert other.sha256 != tiny_detector()[0].sha256
    result = run("explain", out / "sub-p01", "--detector", tmp_path / "model")
    assert result.exit_code == 4
    assert "made by another detector" in result.output


def test_scans_that_moved_can_be_given(out, tmp_path):
    change(out, lambda facts: facts.update(Sources=["gone.nii.gz"]))
    _, mm = highest(out)
    place = ("--at", ",".join(map(str, mm)))
    result = run("explain", out / "sub-p01", *place)
    assert result.exit_code == 3
    assert "gone.nii.gz: is there no more; pass the folder of the scans with --scans" in result.output
    moved = shutil.copytree(tiny_cohort().patients, tmp_path / "moved")
    assert run("explain", out / "sub-p01", *place, "--scans", moved).exit_code == 0
    result = run("explain", out / "sub-p01", *place, "--scans", tiny_cohort().controls)
    assert result.exit_code == 2
    assert "has no scan sub-p01; there are sub-c01" in result.output


def test_the_scans_of_maps_that_moved_are_where_the_run_says(out, tmp_path):
    moved = shutil.copytree(out, tmp_path / "much" / "deeper" / "out")
    at = ("--at", ",".join(map(str, highest(moved)[1])))
    words = ("explain", moved / "sub-p01", *at, "--detector", tiny_detector()[1])
    result = run(*words)
    assert result.exit_code == 0, result.output
    (moved / "run.json").unlink()
    result = run(*words)
    assert result.exit_code == 3
    assert "is there no more; pass the folder of the scans with --scans" in result.output


def test_a_scan_that_changed_since_is_refused(out):
    change(out, lambda facts: facts.update(InputSha256="0" * 64))
    result = run("explain", out / "sub-p01")
    assert result.exit_code == 3
    assert "sub-p01: is not the image that was scored" in result.output


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--at", "900,0,0"), 3, "lies outside the scan, whose corners span"),
        (("--at", "1,2"), 2, "--at 1,2: must be X,Y,Z in mm"),
        (("--at", "1,2,nan"), 2, "--at 1,2,nan: must be three finite numbers"),
        (("--score", "kde"), 2, "has no map of 'kde'; it has"),
        (("-o", "elsewhere"), 2, "leave -o out"),
    ],
)
def test_what_is_refused(scored, words, code, message):
    result = run("explain", scored / "sub-p01", *words)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.output.split())


def test_a_place_is_in_one_scan(scored):
    result = run("explain", scored, "--at", "0,0,0")
    assert result.exit_code == 2
    assert "holds maps of 2 scans, and --at is a place in one" in result.output


def test_a_detector_alone_is_sent_on(scored):
    result = run("explain", tiny_detector()[1])
    assert result.exit_code == 2
    assert "is a detector; give a folder of scans and -o OUT after it" in result.output
    result = run("explain", tiny_detector()[1], tiny_cohort().patients)
    assert result.exit_code == 2
    assert "needs -o OUT" in result.output
    result = run("explain", tiny_detector()[1], tiny_cohort().patients, "-o", "x", "--at", "0,0,0")
    assert result.exit_code == 2
    assert "are for explain with a folder of maps alone" in result.output


def test_a_folder_without_maps_is_refused(tmp_path):
    result = run("explain", tmp_path)
    assert result.exit_code == 3
    assert "no finished novelty map" in result.output


def test_places_on_the_command_line():
    assert place_in_mm("-10,32, -24.5") == (-10.0, 32.0, -24.5)
    with pytest.raises(SettingsError, match=r"--at a,b,c: must be X,Y,Z"):
        place_in_mm("a,b,c")
