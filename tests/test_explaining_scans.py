"""Relevance of scans: maps in their voxels, tables of gradients and shells, files."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from cohorts import tiny_cohort, tiny_detector
from small_images import detector_of, scan_of

from mednovelty.detector import Detector
from mednovelty.errors import DetectorError, GeometryError, OutputError, ScanError, SettingsError
from mednovelty.explaining import explain
from mednovelty.explaining.files import write_relevance
from mednovelty.explaining.scans import explain_scan, most_novel
from mednovelty.explaining.tables import GradientRelevance, of_shells
from mednovelty.fitting import FitSettings
from mednovelty.io.read_scan import read_scan
from mednovelty.io.scan_folder import scan_folder
from mednovelty.model_folder import fit_settings
from mednovelty.voxel_fitting import fit_voxels

SCORE = "reconstruction_error"


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()[0]


@pytest.fixture(scope="module")
def scan():
    return read_scan(tiny_cohort().patients / "sub-p01" / "dwi" / "sub-p01_dwi.nii.gz")


@pytest.fixture(scope="module")
def found(detector, scan):
    return explain_scan(detector, scan, SCORE)


def by_hand(detector, scan, method="auto"):
    """Return ``(n, C)`` relevance in the mask's order."""
    samples = detector.prepare(scan)[0].voxels()
    return explain(detector, samples, SCORE, method).values.double().numpy()


def in_mask(volume, scan):
    return volume.data[0].ravel(order="F")[scan.mask.ravel(order="F")]


def test_a_map_of_a_rule_that_conserves_is_the_score(detector, scan, found):
    expected = detector.score(scan, SCORE)[SCORE].data
    np.testing.assert_allclose(found.volume.data[0], expected, rtol=1e-4, atol=1e-6)
    assert found.conserves
    assert found.unassigned < 1e-5
    assert found.rule == "lrp: squared error of each input"


def test_gradients_are_means_over_voxels(detector, scan, found):
    values = by_hand(detector, scan)
    np.testing.assert_allclose([row.mean_relevance for row in found.gradients], values.mean(0), rtol=1e-5)
    top = np.argsort(values.sum(1))[-int(np.ceil(len(values) / 100)) :]
    highest = [row.mean_relevance_most_novel for row in found.gradients]
    np.testing.assert_allclose(highest, values[top].mean(0), rtol=1e-4)
    assert sum(highest) > 2 * values.sum(1).mean()
    scheme = detector.scheme
    assert [row.bvalue_s_per_mm2 for row in found.gradients] == list(scheme.bvalues_s_per_mm2)
    assert [(row.x, row.y, row.z) for row in found.gradients] == list(scheme.directions)


def test_a_region_is_what_tables_tell_of(detector, scan, found):
    region = np.zeros(scan.mask.shape, bool)
    region[3:7, :, 2:5] = True
    told = explain_scan(detector, scan, SCORE, region=region)
    inside = region.ravel(order="F")[scan.mask.ravel(order="F")]
    values = by_hand(detector, scan)[inside]
    assert 0 < len(values) < scan.n_voxels / 2
    np.testing.assert_allclose([row.mean_relevance for row in told.gradients], values.mean(0), rtol=1e-5)
    np.testing.assert_array_equal(told.volume.data, found.volume.data)


def test_a_change_in_one_gradient_is_told_by_it(detector, scan):
    number = next(i for i, b in enumerate(detector.scheme.bvalues_s_per_mm2) if b > 500)
    order = detector.scheme.order_of(scan.gradients, scan.id)
    changed = scan.scaled(np.where(np.arange(scan.n_channels) == order[number], 6.0, 1.0))
    told = explain_scan(detector, changed, SCORE)
    assert max(told.gradients, key=lambda row: row.mean_relevance).gradient == number


def test_derivatives_need_not_add_up(detector, scan):
    told = explain_scan(detector, scan, SCORE, "gradient_x_input")
    assert not told.conserves
    assert told.unassigned > 0.01
    values = by_hand(detector, scan, "gradient_x_input")
    np.testing.assert_allclose(in_mask(told.volume, scan), values.sum(1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("recipe", ["slices", "patches"])
def test_maps_of_images_are_their_scores(recipe):
    detector, scan = detector_of(recipe), scan_of(5, order=(2, 0, 1))
    told = explain_scan(detector, scan, "rec_error")
    expected = detector.score(scan, "rec_error")["rec_error"].data
    assert expected.max() > 0
    np.testing.assert_allclose(told.volume.data[0], expected, rtol=1e-4, atol=1e-5)
    assert told.gradients == told.shells == ()


def test_shells_are_sums_over_their_gradients():
    rows = [GradientRelevance(i, 3 - i, b, 0, 0, 0, s, m, h) for i, (b, s, m, h) in enumerate(
        [(5, 0, 1.0, 0.0), (995, 1000, 2.0, -3.0), (1003, 1000, 4.0, 1.0), (2000, 2000, -3.0, 0.0)]
    )]  # fmt: skip
    none, one, two = of_shells(rows)
    assert (none.shell_s_per_mm2, none.gradients, none.mean_relevance, none.share) == (0, 1, 1, 0.1)
    assert (one.gradients, one.mean_relevance, one.share, one.share_most_novel) == (2, 3, 0.6, 1)
    assert (two.mean_relevance, two.share) == (-3, 0.3)
    assert one.mean_relevance_most_novel == -1
    assert of_shells(()) == ()


def test_the_most_novel_are_among_those_chosen():
    scores = np.arange(500.0)[::-1]
    chosen = np.arange(500) >= 200
    assert most_novel(scores, chosen).tolist() == [200, 201, 202]
    assert most_novel(scores, np.arange(500) == 321).tolist() == [321]


def test_files_say_what_was_found(detector, scan, found, tmp_path):
    image, volumes, gradients, shells, about = write_relevance(found, tmp_path)
    start = "sub-p01_desc-reconstruction_error_relevance"
    written = [path.name.removeprefix(start) for path in (image, volumes, gradients, shells, about)]
    assert written == [".nii.gz", "-gradients.nii.gz", "-gradients.tsv", "-shells.tsv", ".json"]
    read = nib.load(image)
    np.testing.assert_array_equal(np.asarray(read.dataobj), found.volume.data[0])
    np.testing.assert_allclose(read.affine, scan.grid.affine, atol=1e-5)
    rows = list(csv.DictReader(gradients.open(), delimiter="\t"))
    assert len(rows) == scan.n_channels
    total = sum(float(row["mean_relevance"]) for row in rows)
    assert total == pytest.approx(in_mask(found.volume, scan).astype(float).mean(), rel=1e-4)
    assert {row["shell_s_per_mm2"] for row in rows} == {str(row.shell_s_per_mm2) for row in found.shells}
    shell_rows = list(csv.DictReader(shells.open(), delimiter="\t"))
    assert sum(float(row["share"]) for row in shell_rows) == pytest.approx(1)
    assert sum(int(row["gradients"]) for row in shell_rows) == scan.n_channels
    whole = json.loads(about.read_text())
    assert whole["ScanId"] == scan.id
    told = whole["Relevance"]
    assert told["rule"] == found.rule
    assert told["score"] == SCORE
    assert told["conserves"] is True
    assert told["constant"] == 0
    assert told["mean_score"] == pytest.approx(by_hand(detector, scan).sum(1).mean(), rel=1e-5)
    assert told["mean_relevance"] == pytest.approx(told["mean_score"], rel=1e-5)


def test_volumes_are_the_scans_own_in_the_order_of_its_file(detector, scan, found, tmp_path):
    values = by_hand(detector, scan)
    order = np.random.default_rng(4).permutation(scan.n_channels)
    # Which b=0 is which is told by their order alone.
    without = scan.gradients.bvals[order] < 50
    order[without] = np.sort(order[without])
    turned = scan.take(order, gradients_in(scan, order))
    told = explain_scan(detector, turned, SCORE)
    # Channel i of the turned scan is gradient order[i] of the scan.
    assert len(told.by_gradient) == scan.n_channels
    own = detector.scheme.order_of(scan.gradients, scan.id)
    for volume, source in enumerate(order):
        column = int(np.flatnonzero(own == source)[0])
        assert next(row for row in told.gradients if row.volume == volume).gradient == column
        np.testing.assert_allclose(
            in_mask(told.by_gradient[volume], scan), values[:, column], rtol=1e-4, atol=1e-6
        )
    path = next(path for path in write_relevance(told, tmp_path) if "gradients.nii" in path.name)
    read = nib.load(path)
    assert read.shape == (*scan.mask.shape, scan.n_channels)
    np.testing.assert_allclose(read.affine, scan.grid.affine, atol=1e-5)
    written = np.asarray(read.dataobj)
    np.testing.assert_array_equal(written[..., 3], told.by_gradient[3].data[0])
    np.testing.assert_allclose(written.sum(-1), told.volume.data[0], rtol=1e-4, atol=1e-5)
    assert not written[~scan.mask].any()


def test_what_no_input_has_to_do_with_is_told(scan, tmp_path):
    controls = scan_folder(tiny_cohort().controls, brain_masks=tiny_cohort().brains)
    tree = {"method": "kde", "method_settings": {"samples": 50, "bandwidth": 0.4}, "train": {"max_epochs": 0}}
    detector = Detector.fit(controls, settings=fit_settings(tree, where="test"))
    found = explain_scan(detector, scan, "outlier_score")
    told = json.loads(write_relevance(found, tmp_path)[-1].read_text())["Relevance"]
    # The height of a kernel, -log of its density at its centre.
    height = scan.n_channels * (np.log(0.4) + 0.5 * np.log(2 * np.pi))
    assert told["constant"] == pytest.approx(height, rel=1e-5)
    mean = detector.score(scan, "outlier_score")["outlier_score"].data[scan.mask].astype(float).mean()
    assert told["mean_score"] == pytest.approx(mean, rel=1e-4)
    assert told["mean_relevance"] == pytest.approx(mean - height, rel=1e-4)
    assert abs(told["lost"]) < 1e-3 * abs(mean)


def gradients_in(scan, order):
    from dipy.core.gradients import gradient_table

    return gradient_table(scan.gradients.bvals[order], bvecs=scan.gradients.bvecs[order])


def test_what_cannot_be_done_is_said(detector, scan, found, tmp_path):
    with pytest.raises(SettingsError, match="kl_gradient: cannot be explained: it is made of derivatives"):
        explain_scan(detector_of("slices"), scan_of(5), "kl_gradient")
    with pytest.raises(GeometryError, match=r"region of .*: shape \(2, 3, 4\) does not fit the scan's"):
        explain_scan(detector, scan, SCORE, region=np.ones((2, 3, 4), bool))
    with pytest.raises(GeometryError, match="none of its 0 voxels lies in the brain mask"):
        explain_scan(detector, scan, SCORE, region=np.zeros(scan.mask.shape, bool))
    with pytest.raises(OutputError, match="its folder does not exist"):
        write_relevance(found, tmp_path / "nowhere")
    with pytest.raises(ScanError, match=r"has no gradients|contrasts"):
        explain_scan(detector, scan_of(5), SCORE)


def test_a_detector_of_arrays_knows_no_scans(scan):
    rows = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)).numpy()
    detector = fit_voxels(rows, settings=FitSettings(method="pca", scores=("outlier_score",)))
    with pytest.raises(DetectorError, match="was fitted on arrays and knows no scans; use explain"):
        explain_scan(detector, scan, SCORE)
    found = explain(detector, rows[:7], "outlier_score")
    np.testing.assert_allclose(
        found.values.sum(1), detector.score_voxels(rows[:7])["outlier_score"], rtol=1e-4
    )
