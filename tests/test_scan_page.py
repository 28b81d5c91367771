"""What the page of one scan says of its pictures, from maps that nibabel wrote."""

import html
import json
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scored_folders import RAS, SHAPE, ball, write_clusters, write_map, write_scan

from mednovelty.explaining.places import short
from mednovelty.report.folder import report_folder
from mednovelty.report.scan_parts import placed


def facts_of(page):
    return json.loads(re.search(r'id="viewer-facts">(.*?)</script>', page, re.DOTALL)[1])


def test_where_nothing_is_flagged_it_is_said_over_the_pictures(tmp_path):
    values = np.random.default_rng(0).gamma(2, 1, SHAPE)
    folder = write_scan(tmp_path / "out", scores=dict.fromkeys(("found", "none", "raw"), values))
    write_clusters(folder, "sub-01", "found", [(0, 0, 0)])
    write_clusters(folder, "sub-01", "none", [])
    flagged = (values > np.quantile(values[ball()], 0.99)) & ball()
    for score, mask in (("found", flagged), ("none", np.zeros(SHAPE))):
        write_map(folder / f"sub-01_desc-{score}_mask.nii.gz", mask.astype(np.uint8), RAS)
    report_folder(tmp_path / "out")
    page = (folder / "sub-01.html").read_text()
    rest = "; shown: the highest 3 % of the mask's scores, which every scan has."
    expected = {"found": "", "none": f"Nothing is flagged{rest}", "raw": f"Nothing was segmented{rest}"}
    assert {one["name"]: one["words"] for one in facts_of(page)["scores"]} == expected
    parts = re.findall(r'<summary>(\w+)</summary>\s*(?:<p class="instead">(.*?)</p>)?', page)
    assert {name: html.unescape(said) for name, said in parts if name in expected} == expected
    # What is said of the first score stands there without a script, too.
    assert '<p id="viewer-words" class="instead"></p>' in page


def write_explained(folder, place, score=None, number=""):
    start = folder / f"sub-01_desc-{place}{number}_explained"
    Image.new("L", (40, 30), 90).save(start.with_suffix(".png"))
    if score:
        start.with_suffix(".json").write_text(json.dumps({"Scores": [{"Score": score}, {"Score": "other"}]}))


def test_explained_voxels_are_called_by_place_and_cluster(tmp_path):
    scores = dict.fromkeys(("elbo", "other"), np.random.default_rng(0).gamma(2, 1, SHAPE))
    folder = write_scan(tmp_path / "out", scores=scores)
    write_clusters(folder, "sub-01", "elbo", [(0, 4, 2), (10.25, -32, 24.04)])
    write_clusters(folder, "sub-01", "other", [(0, 4, 2)])
    write_explained(folder, "R10d2P32S24", "elbo")
    write_explained(folder, "L4A4S2", "other")
    write_explained(folder, "R0A4S2", "other", "Detector2")
    write_explained(folder, "R0A4S2")
    report_folder(tmp_path / "out")
    page = html.unescape((folder / "sub-01.html").read_text())
    why = page[page.index('<h2 id="explained"') : page.index('<h2 id="quality"')]
    # In the order of the files' names.
    assert re.findall("<summary>(.*)</summary>", why) == [
        "x -4, y 4, z 2 mm: other",
        "x 0, y 4, z 2 mm: peak of cluster 1 of other, detector 2",
        "x 0, y 4, z 2 mm: peak of cluster 1 of elbo, peak of cluster 1 of other",
        "x 10.2, y -32, z 24 mm: peak of cluster 2 of elbo",
    ]
    marks = ["other;-4;4;2", "other;0;4;2", "elbo;0;4;2", "elbo;10.2;-32;24"]
    assert re.findall(r'<button type="button" data-mark="(.*?)"', why) == marks


@given(st.tuples(*[st.floats(-400, 400)] * 3), st.sampled_from(["", "Detector3"]))
def test_a_place_is_read_from_a_name_as_it_was_written(mm, number):
    place, detector = placed(f"sub-01_desc-{short(mm)}{number}_explained.png")
    assert np.abs(np.subtract(place, mm)).max() <= 0.0501
    assert detector == number.removeprefix("Detector")


def test_names_that_tell_no_place_tell_none():
    for name in ("sub-01_desc-RdPdSd_explained.png", "a_desc-R1P2_explained.png", "R1P2S3_explained.png"):
        assert placed(name) is None
