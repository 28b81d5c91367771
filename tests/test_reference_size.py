"""The benchmark of the reference's size measures what evaluation measures."""

import numpy as np
from cohorts import tiny_cohort, tiny_detector

from mednovelty.benchmarks.reference_size import SCORES, main
from mednovelty.io.mask import read_on_grid
from mednovelty.io.read_scan import read_scan
from mednovelty.io.scan_folder import scan_folder
from mednovelty.metrics import Ranking, auroc


def test_every_size_and_draw_is_measured_as_by_hand(capsys):
    cohort, (detector, folder) = tiny_cohort(), tiny_detector()
    words = [str(path) for path in (folder, cohort.controls, cohort.patients, cohort.lesions)]
    table = main([*words, "--sizes", "50", "--coreset", "50"])
    assert [(row["drawn"], row["voxels"]) for row in table[:1] + table[2:]] == [("even", 50), ("coreset", 50)]
    roles = {scan.id: scan.role for scan in detector.scans}
    normals = np.concatenate(
        [
            detector.prepare(read_scan(files))[0].voxels()
            for files in scan_folder(cohort.controls)
            if roles[files.id] == "training"
        ]
    )
    assert table[1]["voxels"] == len(normals)
    for files in scan_folder(cohort.patients):
        scan = read_scan(files)
        x = detector.prepare(scan)[0].voxels().astype(np.float64)
        nearest = np.array([np.square(normals - row).sum(1).min() for row in x])
        lesion, _ = read_on_grid(cohort.lesions / f"{files.id}_mask.nii.gz", scan.grid, scan.id)
        (flat,) = scan.assemble(nearest, "by hand").data
        expected = auroc(Ranking.of(flat[scan.mask], lesion[scan.mask] > 0.5))
        told = table[1]["auroc"][files.id]
        assert set(told) == set(SCORES)
        assert abs(told["nearest_normal"] - expected) < 1e-3
    assert capsys.readouterr().out.startswith("[")
