"""Pages of folders that hold more, less or other things than ``score`` left there."""

import re

import numpy as np
from scored_folders import SHAPE, write_clusters, write_scan

from mednovelty.report.folder import report_folder


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
