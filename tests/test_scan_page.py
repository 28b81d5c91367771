"""What the page of one scan says of its pictures, from maps that nibabel wrote."""

import html
import json
import re

import numpy as np
from scored_folders import RAS, SHAPE, ball, write_clusters, write_map, write_scan

from mednovelty.report.folder import report_folder


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
