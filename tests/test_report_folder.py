"""All pages of a folder: one a scan and the cohort's, from maps that nibabel wrote, and from ``score``."""

import html
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
from calibrated_models import SCORES, calibrated_model
from calibrated_models import run as run_command
from calibrated_models import score as score_command
from cohorts import tiny_cohort
from scored_folders import AFFINES, SHAPE, ball, write_clusters, write_scan

from mednovelty.quality import Quality
from mednovelty.report.folder import report_folder

HOSTILE = "</script><script>alert(1)</script>\"' onload=x"


def run(*words, code=0):
    return run_command(*words, code=code, pages=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return calibrated_model(tmp_path_factory.mktemp("calibrated"))


@pytest.fixture(scope="module")
def scored(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("scored") / "out"
    score(model, out)
    return out


@pytest.fixture
def out(scored, tmp_path):
    return shutil.copytree(scored, tmp_path / "out")


def score(model, out, *words, code=0):
    return score_command(model, out, *words, code=code, pages=True)


def page_of(out, id="sub-p01"):
    return (out / id / "dwi" / f"{id}.html").read_text()


def facts_of(page):
    return json.loads(re.search(r'id="viewer-facts">(.*?)</script>', page, re.DOTALL)[1])


def statuses(made):
    return [(page.id, page.status) for page in made]


def test_score_leaves_a_page_a_scan_and_one_of_the_cohort(scored):
    index = (scored / "index.html").read_text()
    for id in ("sub-p01", "sub-p02"):
        assert f'<a href="{id}/dwi/{id}.html">{id}</a>' in index
        page = page_of(scored, id)
        assert '<a href="../../index.html">' in page
        assert [one["name"] for one in facts_of(page)["scores"]][:2] == sorted(SCORES)
        assert "Vasilev et al." in page
        assert "arXiv:1806.02997" in page
        assert "held-out normals" in page  # the null is drawn
        assert "Gradient directions on the upper half of the sphere" in page
        assert "no volume is an outlier" in page.lower()
        # A page is for looking at, not for downloading.
        assert len(page) < 1_500_000
    assert "calibration scans from" in index
    assert "novel ml" in index


def test_no_page_leads_anywhere_else_nor_tells_of_files_beyond_the_folder(scored):
    for path in [scored / "index.html", *scored.rglob("sub-*.html")]:
        text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", path.read_text())
        addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
        assert addresses
        assert not [a for a in addresses if a.startswith(("http", "//", "/", "file:"))]
        assert not re.findall(r"https?://", text)
        assert "Content-Security-Policy" in text[:600]
        # Every picture says what it shows.
        for tag in re.findall(r"<img [^>]*>", text):
            assert len(re.search(r'alt="([^"]*)"', tag)[1]) > 5, tag
        for label in re.findall(r'<svg [^>]*aria-label="([^"]*)"', text):
            assert re.search(r"\d", label)


def test_what_is_current_is_left_alone(model, out):
    before = {path: path.stat().st_mtime_ns for path in out.rglob("sub-*.html")}
    score(model, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("sub-*.html")} == before
    assert statuses(report_folder(out)) == [
        ("sub-p01", "up to date"),
        ("sub-p02", "up to date"),
        ("", "done"),
    ]
    run("report", out)
    assert all(path.stat().st_mtime_ns != before[path] for path in before)


def test_the_same_maps_make_the_same_page(out):
    first = page_of(out)
    report_folder(out, again=True)
    assert page_of(out) == first


def test_another_threshold_makes_other_pages(out):
    assert "p &lt;= 0.3" not in page_of(out)
    run("threshold", out, "--p", "0.3", "--no-cluster-size", "--scores", SCORES[0])
    page = page_of(out)
    assert "p &lt;= 0.3" in page
    row = re.search(rf'data-mark="{SCORES[0]};([-0-9.;]+)"', page)
    path = out / "sub-p01" / "dwi" / f"sub-p01_desc-{SCORES[0]}_novelty.nii.gz"
    image, mask = nib.load(path), nib.load(str(path).replace("novelty", "mask"))
    mm = [float(value) for value in row[1].split(";")]
    voxel = tuple(np.rint(np.linalg.inv(image.affine) @ [*mm, 1])[:3].astype(int))
    assert np.asarray(mask.dataobj)[voxel] == 1
    assert facts_of(page)["scores"][0]["name"] == SCORES[0]
    segmented = np.asarray(image.dataobj)[np.asarray(mask.dataobj) == 1]
    assert facts_of(page)["scores"][0]["threshold"] == pytest.approx(segmented.min())


def test_combining_makes_the_pages_again(out):
    run("combine", out)
    assert "fisher" in [one["name"] for one in facts_of(page_of(out))["scores"]]
    assert ">fisher<" in (out / "index.html").read_text()


def test_an_evaluation_stands_on_the_cohorts_page(out):
    assert "Evaluation against" not in (out / "index.html").read_text()
    before = page_of(out)
    run("evaluate", out, "--masks", tiny_cohort().lesions)
    index = (out / "index.html").read_text()
    assert "Evaluation against lesion masks" in index
    told = json.loads((out / "evaluation" / "evaluation.json").read_text())
    assert f"{told['mean'][SCORES[0]]['auroc']:.3f} (" in index
    assert f"{SCORES[0]} {told['mean'][SCORES[0]]['auroc']:.3f}" in index  # of the ROC picture's alt text
    assert page_of(out) == before


@pytest.mark.usefixtures("unpictured")
def test_no_report_leaves_no_page(model, tmp_path):
    out = tmp_path / "out"
    score(model, out, "--no-report")
    for command in (("threshold", out, "--p", "0.01"), ("combine", out),
                    ("evaluate", out, "--masks", tiny_cohort().lesions)):  # fmt: skip
        run(*command, "--no-report")
    assert not list(out.rglob("*.html"))


def test_bids_validators_are_told_to_pass_over_pages(scored):
    assert {"*.html", "*_quality.json"} <= set((scored / ".bidsignore").read_text().splitlines())


def test_failed_scans_stand_on_the_cohorts_page_with_why(model, tmp_path):
    patients = shutil.copytree(tiny_cohort().patients, tmp_path / "patients")
    bvals = next(patients.rglob("sub-p02*.bval"))
    bvals.write_text(" ".join("4000" if float(b) > 50 else b for b in bvals.read_text().split()))
    run("score", model, patients, "-o", tmp_path / "out", "--scores", SCORES[0], code=6)
    index = (tmp_path / "out" / "index.html").read_text()
    assert "1 scan failed" in index
    assert "acquired with" in index[index.index('id="failures"') :]


def test_a_map_that_is_damaged_costs_its_own_part_of_the_page(out):
    path = out / "sub-p01" / "dwi" / f"sub-p01_desc-{SCORES[0]}_novelty.nii.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    result = run("report", out, code=6)
    assert f"page of sub-p01: {SCORES[0]} is left out: " in result.output
    page = page_of(out)
    assert (
        f"{SCORES[0]} is left out: {path.name}" in page[page.index('class="warnings"') : page.index("<main>")]
    )
    assert SCORES[0] not in [one["name"] for one in facts_of(page)["scores"]]
    assert SCORES[1] in [one["name"] for one in facts_of(page)["scores"]]
    index = (out / "index.html").read_text()
    assert f"sub-p01: {SCORES[0]} is left out: " in index[index.index("<h2>Warnings") :]
    assert 'href="sub-p01' in index
    # Nor is what is not whole ever up to date, so that it is told of again.
    assert [page.status for page in report_folder(out)] == ["done", "up to date", "done"]


def test_a_scan_without_any_map_that_can_be_read_has_no_page_and_stops_no_other(out):
    for path in (out / "sub-p01").rglob("*_novelty.nii.gz"):
        path.write_bytes(path.read_bytes()[:400])
    result = run("report", out, code=6)
    assert "no page of sub-p01" in result.output
    assert not (out / "sub-p01" / "dwi" / "sub-p01.html").exists()  # an outdated one would mislead
    assert page_of(out, "sub-p02")
    index = (out / "index.html").read_text()
    assert "Pages that could not be made" in index
    assert 'href="sub-p01' not in index


def test_hostile_texts_of_sidecars_and_tables_are_shown_not_run(tmp_path):
    out = tmp_path / "out"
    facts = {
        "Warnings": [HOSTILE],
        "Score": {"name": "elbo", "unit": HOSTILE, "description": HOSTILE, "settings": {HOSTILE: HOSTILE}},
        "Mask": {"Source": HOSTILE, "Voxels": 5},
        "GeneratedBy": {"CommandLine": HOSTILE},
        "Environment": {"Python": HOSTILE},
    }
    folder = write_scan(out, facts=facts)
    write_clusters(folder, "sub-01", "elbo", [(0, 0, 0)])
    table = folder / "sub-01_desc-elbo_clusters.tsv"
    table.write_text(table.read_text().replace("9.5", HOSTILE))
    (out / "run.json").write_text(json.dumps({
        "Command": HOSTILE, "EndedBy": {"Kind": HOSTILE, "Message": HOSTILE}, "NotReached": [HOSTILE],
        "Scans": [{"id": HOSTILE, "status": "failed", "code": HOSTILE, "message": HOSTILE}],
        "Skipped": [{"path": HOSTILE, "why": HOSTILE}],
    }))  # fmt: skip
    (folder / "sub-01_desc-R0A0S0_explained.txt").write_text(HOSTILE)
    shutil.copy(tiny_png(tmp_path), folder / "sub-01_desc-R0A0S0_explained.png")
    assert {page.status for page in report_folder(out)} == {"done"}
    for path in (out / "index.html", folder / "sub-01.html"):
        text = path.read_text()
        assert "alert(1)</script>" not in text
        assert text.count("alert(1)&lt;/script&gt;") >= 5
        assert "\"' onload=x" not in text  # which would end an attribute


def tiny_png(folder):
    from PIL import Image

    Image.new("RGB", (1400, 30), (10, 20, 30)).save(folder / "x.png")
    return folder / "x.png"


def test_explained_voxels_are_in_the_page_and_else_how_to_have_them(tmp_path):
    out = tmp_path / "out"
    folder = write_scan(out)
    report_folder(out)
    assert "mednovelty explain out/sub-01<" in (folder / "sub-01.html").read_text()
    shutil.copy(tiny_png(tmp_path), folder / "sub-01_desc-R1P2S3_explained.png")
    (folder / "sub-01_desc-R1P2S3_explained.txt").write_text("It is far from normal.\n")
    assert statuses(report_folder(out)) == [("sub-01", "done"), ("", "done")]
    page = (folder / "sub-01.html").read_text()
    assert "It is far from normal." in page
    assert "mednovelty explain out" not in page
    (folder / "sub-01_desc-R1P2S3_explained.txt").write_text("It is near, after all.\n")
    assert statuses(report_folder(out)) == [("sub-01", "done"), ("", "done")]
    assert "It is near, after all." in (folder / "sub-01.html").read_text()


def test_the_cohorts_charts_say_what_maps_and_calibration_hold(scored):
    index = html.unescape((scored / "index.html").read_text())
    told = json.loads((scored / "calibration.json").read_text())
    [controls] = told["Calibrations"].values()
    for name in SCORES:
        table = controls["Scores"][name]
        masks = {path: nib.load(path).get_fdata() > 0 for path in scored.rglob("*_desc-brain_mask.nii.gz")}
        highest, shares = [], []
        grid = np.array(controls["ThresholdsP"])
        p = grid[np.abs(np.log10(grid) + 3).argmin()]
        for path, mask in masks.items():
            start = str(path).replace("brain_mask", name).replace(".nii.gz", "")
            highest.append(nib.load(f"{start}_novelty.nii.gz").get_fdata()[mask].max())
            surprise = nib.load(f"{start}_pvalue.nii.gz").get_fdata()[mask]
            shares.append((surprise >= -np.log10(p) - 1e-6).mean())
        above = sum(value > max(table["MaxScore"]) for value in highest)
        assert re.search(rf"Highest {name} of each scan: 2 scans .*?; {above} scans lie above all", index)
        said = rf"each p of {name}\. At p = .*?, scans {min(shares):.2g} to {max(shares):.2g}\."
        assert re.search(said, index), said


@pytest.mark.parametrize("name", AFFINES)
def test_a_cluster_is_where_the_scan_says_in_table_viewer_and_mosaic(tmp_path, name):
    affine, out = AFFINES[name], tmp_path / "out"
    values = np.zeros(SHAPE)
    values[5, 15, 8] = 50.0  # In no slice of those that are spread evenly.
    mm = (affine @ [5, 15, 8, 1.0])[:3]
    folder = write_scan(out, affine=affine, scores={"elbo": values})
    write_clusters(folder, "sub-01", "elbo", [mm])
    report_folder(out)
    page = (folder / "sub-01.html").read_text()
    assert f'data-mark="elbo;{mm[0]:.4f};{mm[1]:.4f};{mm[2]:.4f}"' in page
    assert facts_of(page)["at_mm"] == pytest.approx(mm)
    assert "One slice of each plane goes through the peak" in page
    if name != "oblique":  # There slices are named by where they lie in their middle.
        drawn = re.search(r"axial at z = (.*?) mm; coronal at y = (.*?) mm; sagittal at x = (.*?) mm", page)
        for places, at in zip(drawn.groups(), mm[::-1], strict=True):
            assert f"{at:+.0f}" in places.split(", ")


def test_the_quality_of_older_maps_is_looked_up_where_the_scans_are(out, tmp_path):
    for path in out.rglob("*_quality.json"):
        path.unlink()
    (out / "run.json").unlink()  # Which tells where the scans are, wherever the maps are.
    shutil.copytree(out, tmp_path / "elsewhere" / "deep" / "out")
    moved = tmp_path / "elsewhere" / "deep" / "out"
    result = run("report", moved)
    assert result.output.count("the quality of 2 scans is not known: sub-p01: ") == 1
    assert "sub-p02: " not in result.output
    assert "pass the folder of the scans with --scans" in result.output
    assert "Signal of each volume and gradients are not known" in page_of(moved)
    run("report", moved, "--scans", tiny_cohort().patients)
    assert "Mean signal in the mask of" in page_of(moved)
    assert Quality.read(moved / "sub-p01" / "dwi" / "sub-p01_quality.json") is not None


def test_the_scans_of_a_folder_that_was_moved_are_where_its_run_says(out, tmp_path):
    for path in out.rglob("*_quality.json"):
        path.unlink()
    moved = shutil.copytree(out, tmp_path / "elsewhere" / "deep" / "out")
    result = run("report", moved)
    assert "is not known" not in result.output
    assert "Mean signal in the mask of" in page_of(moved)


def test_another_scan_of_the_same_name_is_not_taken_for_it(out, tmp_path):
    for path in out.rglob("*_quality.json"):
        path.unlink()
    patients = shutil.copytree(tiny_cohort().patients, tmp_path / "patients")
    shutil.copy(next(patients.rglob("sub-p02*_dwi.nii.gz")), next(patients.rglob("sub-p01*_dwi.nii.gz")))
    result = run("report", out, "--scans", patients)
    assert "is not the image that sub-p01 was scored from" in result.output


def test_report_makes_missing_scenes_too_and_tells_where_that_fails(tmp_path, monkeypatch):
    write_scan(tmp_path, "sub-01")
    scene = tmp_path / "sub-01/dwi/sub-01_scene.mrml"
    run("report", tmp_path)
    assert scene.is_file()
    written = scene.stat().st_mtime_ns
    run("report", tmp_path)
    assert scene.stat().st_mtime_ns == written
    monkeypatch.setattr("mednovelty.slicer_command.show_scored", lambda out: 6)
    told = json.loads(run("report", tmp_path, "--json", code=6).stdout)
    assert (told["exit_code"], len(told["pages"])) == (6, 2)


def test_what_is_no_folder_of_maps_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no finished novelty map" in run("report", tmp_path / "empty", code=3).output
    assert not list((tmp_path / "empty").iterdir())
    assert "no such folder" in run("report", tmp_path / "absent", code=3).output


def test_what_several_scores_warn_of_stands_once(tmp_path):
    facts = {"Calibration": {"Warnings": ["too few scans"]}, "UnscoredVoxels": 3, "Warnings": ["odd header"]}
    folder = write_scan(tmp_path / "out", scores={"a": np.ones(SHAPE), "b": np.ones(SHAPE)}, facts=facts)
    report_folder(tmp_path / "out")
    page = (folder / "sub-01.html").read_text()
    warned = re.findall("<li>(.*?)</li>", page[page.index('class="warnings"') : page.index("<main>")])
    assert warned == [
        "odd header",
        "a, b: too few scans",
        "a, b: 3 voxels of the mask were not scored; the map is 0 there",
    ]


def test_many_scores_stay_below_the_limit(tmp_path):
    shape = (60, 70, 60)
    generator = np.random.default_rng(0)
    scores = {f"score{n:02}": generator.gamma(2, 1, shape) for n in range(24)}
    folder = write_scan(tmp_path / "out", mask=ball(shape), scores=scores)
    report_folder(tmp_path / "out")
    page = folder / "sub-01.html"
    assert page.stat().st_size < 5_000_000
    assert len(facts_of(page.read_text())["scores"]) == 12
    assert "Not in the viewer, for the size of the page: score12" in page.read_text()
