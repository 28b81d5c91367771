"""Pages of folders that hold more, less or other things than ``score`` left there."""

import html
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
from calibrated_models import run
from PIL import Image
from scored_folders import AFFINES, RAS, SHAPE, write_clusters, write_scan

from mednovelty.errors import ScanError
from mednovelty.evaluation.files import find_maps
from mednovelty.report.folder import report_folder
from mednovelty.report.scan_facts import ScanFacts
from mednovelty.report.scan_images import read_scan_images
from mednovelty.viewers.slicer import write_scenes


def statuses(made):
    return [(page.id, page.status) for page in made]


def test_every_scan_is_in_the_table_before_a_score_is_chosen(tmp_path):
    for id, score in (("sub-01", "elbo"), ("sub-02", "other")):
        folder = write_scan(tmp_path, id, scores={score: np.ones(SHAPE)})
        write_clusters(folder, id, score, [(0, 0, 0)])
    report_folder(tmp_path)
    index = (tmp_path / "index.html").read_text()
    chooser = re.search(r'<select id="score-filter".*?</select>', index, re.DOTALL)[0]
    assert re.findall('<option value="(.*?)"', chooser) == ["", "elbo", "other"]
    assert "selected" not in chooser  # so that the first one, all, is
    assert re.findall('<tr data-mark="(.*?)"', index) == ["elbo", "other"]


@pytest.mark.parametrize("content", ["{broken", '{"ScanId": "sub-01", "Score": []}'])
def test_a_sidecar_that_cannot_be_used_stops_no_other_scan(tmp_path, content):
    for id in ("sub-01", "sub-02"):
        write_scan(tmp_path, id)
    name = "sub-01_desc-elbo_novelty.json"
    (tmp_path / "sub-01" / "dwi" / name).write_text(content)
    made = report_folder(tmp_path)
    assert statuses(made) == [(name, "failed"), ("sub-02", "done"), ("", "done")]
    assert "no usable sidecar" in made[0].message
    index = (tmp_path / "index.html").read_text()
    assert f"<dt>{name}</dt>" in index[index.index('id="failures"') :]
    assert [(one.id, one.status) for one in write_scenes(tmp_path)] == [(name, "failed"), ("sub-02", "done")]


@pytest.mark.parametrize("content", ["{}", '{"Calibrations": {"abc": {"Sco'])
def test_a_damaged_calibration_leaves_out_only_what_is_drawn_from_it(tmp_path, content):
    write_scan(tmp_path)
    (tmp_path / "calibration.json").write_text(content)
    assert statuses(report_folder(tmp_path)) == [("sub-01", "done"), ("", "done")]
    index = (tmp_path / "index.html").read_text()
    assert "<p>calibration.json: damaged; score the scans again" in index
    assert ">sub-01</a>" in index


def test_of_maps_without_calibration_the_table_has_the_highest_and_the_page_says_what_is_missing(tmp_path):
    values = np.indices(SHAPE)[2].astype(float)
    values[5, 15, 8] = 47.25
    values[0, 0, 0] = 99.0  # Outside the mask: write_scan sets it to 0, so it is put back.
    folder = write_scan(tmp_path, scores={"elbo": values})
    path = folder / "sub-01_desc-elbo_novelty.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(values.astype(np.float32), image.affine), path)
    report_folder(tmp_path)
    index = (tmp_path / "index.html").read_text()
    assert '<td class="number" data-key="47.25">47.25</td>' in index
    assert "Not calibrated, so no p and no plot against controls; see mednovelty calibrate." in index


@pytest.mark.parametrize("damage", ["cut", "not finite", "other voxels", "other p"])
def test_one_map_that_cannot_be_used_is_left_out_and_named(tmp_path, damage):
    scores = {"a": np.indices(SHAPE)[0] + 1.0, "b": np.indices(SHAPE)[1] + 1.0}
    folder = write_scan(tmp_path, scores=scores, facts={"Calibration": {"Scans": 2}})
    # The first one's voxels are held against the mask's, and the others' with them.
    bad, good = ("b", "a") if damage == "other voxels" else ("a", "b")
    path = folder / f"sub-01_desc-{bad}_novelty.nii.gz"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "other voxels":
        image = nib.load(path)
        nib.save(
            nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine + np.diag([0, 0, 1, 0])), path
        )
    else:
        path = path if damage == "not finite" else folder / "sub-01_desc-a_pvalue.nii.gz"
        nib.save(nib.Nifti1Image(np.full(SHAPE, np.nan, np.float32), RAS), path)
    made = report_folder(tmp_path)
    assert statuses(made) == [("sub-01", "done"), ("", "done")]
    assert made[0].message.startswith(f"{bad} is left out: ")
    assert path.name in made[0].message
    page = (folder / "sub-01.html").read_text()
    assert f"<li>{made[0].message}</li>" in page
    viewed = json.loads(re.search(r'id="viewer-facts">(.*?)</script>', page)[1])["scores"]
    assert [one["name"] for one in viewed] == [good]
    assert f"<li>sub-01: {made[0].message}</li>" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize("damage", ["cut", "not finite"])
def test_where_the_background_cannot_be_used_the_mask_stands_for_it(tmp_path, damage):
    folder = write_scan(tmp_path)
    path = folder / "sub-01_desc-background.nii.gz"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    else:
        nib.save(nib.Nifti1Image(np.full(SHAPE, np.nan, np.float32), RAS), path)
    assert statuses(report_folder(tmp_path)) == [("sub-01", "done"), ("", "done")]
    page = (folder / "sub-01.html").read_text()
    assert f"<li>the mask stands for the background, the lighter the deeper inside: {path.name}" in page


@pytest.mark.parametrize("name", ["anisotropic", "oblique"])
def test_the_mask_that_stands_for_a_background_can_be_seen(tmp_path, name):
    inside = np.zeros((9, 11, 7), bool)
    inside[1:8, 0:10, 1:6] = True  # At the border of the image along one axis.
    write_scan(tmp_path, affine=AFFINES[name], mask=inside)
    (tmp_path / "sub-01" / "dwi" / "sub-01_desc-background.nii.gz").unlink()
    [scored] = find_maps(tmp_path)[0].values()
    read = read_scan_images(ScanFacts.of(scored))
    assert not read.left_out
    assert not read.background[~inside].any()
    spacing = nib.affines.voxel_sizes(AFFINES[name])
    assert read.background[4, 0, 3] == pytest.approx(spacing[1])
    assert read.background[1, 5, 3] == pytest.approx(spacing[0])
    assert read.background[4, 5, 3] == pytest.approx(min(spacing * (4, 5, 3)))


def test_the_sources_of_method_and_mask_are_cited_where_the_score_has_none(tmp_path):
    facts = {
        "Score": {"name": "elbo", "paper": ""},
        "Detector": {"Method": "synthetic_lesions"},
        "Mask": {"Source": "dipy median_otsu on the mean b=0", "Voxels": 5},
    }
    folder = write_scan(tmp_path, facts=facts)
    report_folder(tmp_path)
    page = html.unescape((folder / "sub-01.html").read_text())
    assert (
        "of the method synthetic_lesions (Tan et al. 2022; Ruff 2021; the families of anomalies "
        "that it plants are mednovelty's own), trained on"
    ) in page
    cited = re.findall("<li>(.*?)</li>", page[page.index("<h3>References</h3>") :])
    assert [text.partition(".")[0] for text in cited] == ["Tan et al", "Ruff", "Garyfallidis et al"]
    assert cited[0].endswith("Detecting Outliers with Foreign Patch Interpolation. 2022. arXiv:2011.04197")


def evaluated(out, **told):
    """Write an evaluation of one score, as ``evaluate`` would."""
    (out / "evaluation").mkdir()
    facts = {"scans": {"sub-01": {}}, "mean": {"elbo": {"auroc": 0.75}}, "pooled": {}, **told}
    (out / "evaluation" / "evaluation.json").write_text(json.dumps(facts))


def test_a_damaged_picture_of_an_evaluation_is_named_in_its_place(tmp_path):
    write_scan(tmp_path)
    evaluated(tmp_path)
    (tmp_path / "evaluation" / "roc.png").write_text("hello")
    Image.new("RGB", (60, 60), (9, 8, 7)).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "evaluation" / "panels.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "evaluation" / "histogram_elbo.png").write_bytes(content)
    assert statuses(report_folder(tmp_path)) == [("sub-01", "done"), ("", "done")]
    index = (tmp_path / "index.html").read_text()
    for name in ("roc.png", "panels.png"):
        assert f"<p>{name}: is no picture; remove it, and make it again with mednovelty evaluate</p>" in index
    assert index.count("data:image/png") == 1
    assert ">0.750</td>" in index


def test_an_evaluation_of_other_maps_says_so(tmp_path):
    for id in ("sub-01", "sub-02", "sub-03"):
        write_scan(tmp_path, id)
    index = tmp_path / "index.html"
    sidecar = tmp_path / "sub-01" / "dwi" / "sub-01_desc-elbo_novelty.json"
    facts = json.loads(sidecar.read_text())
    maps = {"elbo": facts["MapSha256"]}
    scans = {"sub-01": {"elbo": {}, "elbo+other": {}}, "sub-02": {"elbo": {}}}
    evaluated(tmp_path, scans=scans, maps=dict.fromkeys(scans, maps), scans_without_mask=["sub-03"])
    report_folder(tmp_path, only=())
    assert "Evaluation against" in index.read_text()
    assert "is outdated" not in index.read_text()
    sidecar.write_text(json.dumps(facts | {"MapSha256": "0" * 64}))
    (tmp_path / "sub-02").rename(tmp_path / "gone")
    for path in (tmp_path / "gone").rglob("*_novelty.*"):
        path.unlink()
    report_folder(tmp_path, only=())
    assert (
        "The evaluation is outdated: of scans that are not here: sub-02; of other maps: sub-01. "
        "Run mednovelty evaluate again."
    ) in index.read_text()


def test_an_evaluation_of_before_hashes_were_told_still_lacks_scans(tmp_path):
    write_scan(tmp_path)
    evaluated(tmp_path, scans={f"sub-{n:02}": {"elbo": {}} for n in range(1, 9)})
    report_folder(tmp_path, only=())
    said = "of scans that are not here: sub-02, sub-03, sub-04, sub-05, sub-06 and 2 more. Run mednovelty"
    assert said in (tmp_path / "index.html").read_text()


def test_where_no_page_is_left_none_is_to_be_opened(tmp_path, monkeypatch):
    write_scan(tmp_path)
    assert f"open {tmp_path / 'index.html'}" in run("report", tmp_path, pages=True).output.replace("\n", "")

    def broken(*_):
        raise ScanError("all is lost")

    monkeypatch.setattr("mednovelty.report.folder.cohort_page", broken)
    result = run("report", tmp_path, code=6, pages=True)
    assert not (tmp_path / "index.html").exists()
    assert "there is no page of the cohort" in result.output
    assert "open" not in result.output


def test_a_folder_where_no_sidecar_can_be_used_is_refused_with_why(tmp_path):
    (write_scan(tmp_path) / "sub-01_desc-elbo_novelty.json").write_text("{broken")
    with pytest.raises(ScanError, match="no usable sidecar"):
        report_folder(tmp_path)


@pytest.mark.parametrize("foreign", ["index.html", "sub-01/dwi/sub-01.html"])
def test_a_file_of_somebody_else_stays_and_stops_no_other_page(tmp_path, foreign):
    for id in ("sub-01", "sub-02"):
        write_scan(tmp_path, id)
    (tmp_path / foreign).write_text("mine")
    result = run("report", tmp_path, "--json", code=6, pages=True)
    told = json.loads(result.stdout)
    assert told["exit_code"] == 6
    failed = [page for page in told["pages"] if page["status"] == "failed"]
    assert [page["path"] for page in failed] == [str(tmp_path / foreign)]
    assert "was not written by mednovelty; move it away and run mednovelty report" in failed[0]["message"]
    assert (tmp_path / foreign).read_text() == "mine"
    assert len(list(tmp_path.rglob("*.html"))) == 3


def test_of_very_many_clusters_the_first_are_shown_and_where_the_others_are(tmp_path):
    folder = write_scan(tmp_path)
    write_clusters(folder, "sub-01", "elbo", [(0, 0, 0)] * 250)
    report_folder(tmp_path)
    page = (folder / "sub-01.html").read_text()
    assert page.count('<tr data-mark="elbo;') == 100
    assert "elbo: 250 clusters." in page
    assert "The first 100 are shown; the other 150 stand in sub-01_desc-elbo_clusters.tsv." in page


def test_a_quotation_mark_in_a_region_hides_no_cluster(tmp_path):
    folder = write_scan(tmp_path)
    write_clusters(folder, "sub-01", "elbo", [(0, 0, 0)] * 3)
    table = folder / "sub-01_desc-elbo_clusters.tsv"
    header, first, *others = table.read_text().splitlines()
    regions = ["region", '"left thalamus', "right thalamus", "n/a"]
    lines = [f"{line}\t{region}" for line, region in zip([header, first, *others], regions, strict=True)]
    table.write_text("\n".join(lines) + "\n")
    report_folder(tmp_path)
    page = (folder / "sub-01.html").read_text()
    assert page.count('<tr data-mark="elbo;') == 3
    assert "&#34;left thalamus" in page


@pytest.mark.parametrize("wrong", [(np.nan, 0, 0), (0, np.inf, 0)])
def test_a_cluster_without_a_place_is_shown_and_moves_nothing(tmp_path, wrong):
    folder = write_scan(tmp_path)
    write_clusters(folder, "sub-01", "elbo", [wrong, (2, 4, 6)])
    assert statuses(report_folder(tmp_path)) == [("sub-01", "done"), ("", "done")]
    page = (folder / "sub-01.html").read_text()
    assert "elbo: 2 clusters." in page
    assert re.findall('<tr data-mark="(.*?)"', page) == ["elbo", "elbo;2.0000;4.0000;6.0000"]
    assert json.loads(re.search(r'id="viewer-facts">(.*?)</script>', page)[1])["at_mm"] == [2, 4, 6]


def test_a_damaged_picture_of_an_explained_voxel_is_named_on_the_page(tmp_path):
    folder = write_scan(tmp_path)
    (folder / "sub-01_desc-R1P2S3_explained.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert statuses(report_folder(tmp_path)) == [("sub-01", "done"), ("", "done")]
    page = (folder / "sub-01.html").read_text()
    assert "sub-01_desc-R1P2S3_explained.png cannot be shown" in page
    assert "is no picture; remove it, and make it again" in page


def test_the_page_of_a_scan_without_maps_goes_and_others_stay(tmp_path):
    for id in ("sub-01", "sub-02"):
        folder = write_scan(tmp_path, id)
    report_folder(tmp_path)
    (folder / "notes.html").write_text('<meta name="made-of" content="' + "0" * 64 + '">mine')
    for path in folder.glob("*_novelty.*"):
        path.unlink()
    report_folder(tmp_path, only=())
    assert [path.name for path in sorted(tmp_path.rglob("*.html"))] == [
        "index.html",
        "sub-01.html",
        "notes.html",
    ]


def test_copies_of_pages_that_people_keep_are_never_removed(tmp_path):
    folder = write_scan(tmp_path)
    report_folder(tmp_path)
    copies = [
        tmp_path / "for Dr X sub-01.html",
        tmp_path / "kept" / "sub-01.html",
        folder / "sub-01 old.html",
    ]
    copies[1].parent.mkdir()
    for path in copies:
        shutil.copy(folder / "sub-01.html", path)
    report_folder(tmp_path)
    assert [path for path in copies if not path.is_file()] == []


def test_a_scan_in_two_folders_is_told_with_both_and_loses_no_page(tmp_path):
    folder = write_scan(tmp_path, "sub-08")
    report_folder(tmp_path)
    shutil.copytree(tmp_path / "sub-08", tmp_path / "old" / "sub-08")
    other = tmp_path / "old" / "sub-08" / "dwi"
    result = run("report", tmp_path, "--json", code=6, pages=True)
    [failed] = [page for page in json.loads(result.stdout)["pages"] if page["status"] == "failed"]
    assert failed["id"] == "sub-08"
    assert str(folder) in failed["message"]
    assert str(other) in failed["message"]
    assert (folder / "sub-08.html").is_file()
    assert (other / "sub-08.html").is_file()
    index = (tmp_path / "index.html").read_text()
    assert "<dt>sub-08</dt>" in index[index.index('id="failures"') :]
    assert ">sub-08</td>" in index  # in the table, without a link: to which page?


def test_maps_of_two_detectors_that_share_a_baseline_are_no_copies(tmp_path):
    baseline = np.indices(SHAPE)[0] + 1.0
    for out, score in (("a", "elbo"), ("b", "other")):
        write_scan(tmp_path / out, scores={score: np.indices(SHAPE)[1] + 1.0, "raw_b0": baseline})
        report_folder(tmp_path / out, only=())
    [scored] = find_maps(tmp_path)[0].values()
    assert [path.parent.parent.parent.name for path in scored.copies] == ["b"]
    assert statuses(report_folder(tmp_path)) == [("sub-01", "done"), ("", "done")]


def test_other_maps_of_a_scan_in_another_folder_are_told_and_both_pages_stay(tmp_path):
    folder = write_scan(tmp_path, "sub-08")
    report_folder(tmp_path)
    other = write_scan(tmp_path / "old", "sub-08", scores={"elbo": np.ones(SHAPE)})
    report_folder(tmp_path / "old")
    failed = [page for page in report_folder(tmp_path) if page.status == "failed"]
    assert "sub-08 has two maps of elbo" in failed[0].message
    assert str(folder) in failed[0].message
    assert str(other) in failed[0].message
    assert (folder / "sub-08.html").is_file()
    assert (other / "sub-08.html").is_file()


@pytest.mark.parametrize(
    ("told", "shown"), [({"Kind": "signal"}, "signal"), ({"Kind": "a", "Message": "b"}, "a: b")]
)
def test_a_run_record_without_its_message_loses_no_page(tmp_path, told, shown):
    write_scan(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"EndedBy": told, "Scans": [3], "Skipped": [None]}))
    assert statuses(report_folder(tmp_path)) == [("sub-01", "done"), ("", "done")]
    assert f"The last run ended early: {shown}</li>" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize("changed", ["a_novelty", "background", "brain_mask"])
def test_a_page_is_made_again_where_an_image_has_changed(tmp_path, changed):
    folder = write_scan(tmp_path, scores={"a": np.indices(SHAPE)[0] + 1.0})
    report_folder(tmp_path)
    assert statuses(report_folder(tmp_path))[0] == ("sub-01", "up to date")
    path = folder / f"sub-01_desc-{changed}.nii.gz"
    image = nib.load(path)
    values = image.get_fdata(dtype=np.float32).astype(image.get_data_dtype())
    values[tuple(np.argwhere(values)[0])] = 0
    nib.save(nib.Nifti1Image(values, image.affine, image.header), path)
    assert statuses(report_folder(tmp_path))[0] == ("sub-01", "done")


def test_a_page_is_made_again_where_the_background_has_gone(tmp_path):
    folder = write_scan(tmp_path)
    report_folder(tmp_path)
    (folder / "sub-01_desc-background.nii.gz").unlink()
    assert statuses(report_folder(tmp_path))[0] == ("sub-01", "done")


def test_a_page_of_very_many_scores_shows_the_first_and_names_the_files_of_others(tmp_path, monkeypatch):
    write_scan(tmp_path, scores={f"score{n}": np.indices(SHAPE)[0] + n for n in range(6)})
    [page, _] = report_folder(tmp_path)
    whole = page.path.read_text()
    assert "No picture, for the size of the page" not in whole
    one = whole.count("data:image/png;base64,")
    monkeypatch.setattr("mednovelty.report.score_parts.MOST_MOSAIC_BYTES", 1)
    report_folder(tmp_path, again=True)
    short = page.path.read_text()
    assert short.count("data:image/png;base64,") == one - 5
    assert short.count("No picture, for the size of the page; the map is sub-01_desc-score") == 5
    assert len(short) < len(whole)
