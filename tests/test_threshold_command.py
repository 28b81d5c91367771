"""``threshold`` as a user meets it: from maps that nibabel wrote to masks and tables that it reads."""

import csv
import json
import logging
import os
import shutil

import nibabel as nib
import numpy as np
import pytest
from lesion_study import AFFINE, SHAPE, brain_of, make_study, read, write
from scipy import ndimage, stats
from typer.testing import CliRunner
from without_pages import typed

from mednovelty import segment_files
from mednovelty.cli import app
from mednovelty.evaluation import EvaluateSettings, evaluate
from mednovelty.told_calibrations import ToldCalibrations, tell_calibration

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
SCORES = ("latent_euclidean", "vae_regularizer")
VOXEL_MM3 = 2 * 2.2 * 3  # The norms of the affine's columns, which are orthogonal.
CALIBRATION = "c" * 64
GRID = np.logspace(-0.3, -6, 60)


def run(*words):
    return CliRunner().invoke(app, typed(words), env=ENVIRONMENT)


def files(out, id, score=SCORES[0]):
    kinds = ("novelty.nii.gz", "novelty.json", "pvalue.nii.gz", "mask.nii.gz", "dseg.nii.gz", "clusters.tsv",
             "mask.json")  # fmt: skip
    start = out / id / "dwi" / f"{id}_desc-{score.replace('_', '')}"
    return {kind: start.with_name(f"{start.name}_{kind}") for kind in kinds}


def calibration(largest_voxels=1, scans=9):
    """Return what a calibration tells: controls with the same clusters of so many voxels at every p."""
    rows = np.ones((scans, GRID.size))
    numbers = {
        "LargestMm3": (np.ones((scans, 3, GRID.size)) * largest_voxels * VOXEL_MM3).tolist(),
        "NovelMm3": (rows * VOXEL_MM3 * np.arange(scans)[:, None]).tolist(),
        "Share": (rows * np.arange(scans)[:, None] / 150).tolist(),
        "MaxScore": np.linspace(2, 4, scans).tolist(),
        "SmallestP": 1e-6,
    }
    return {
        "Sha256": CALIBRATION,
        "Scans": [f"sub-c{n}" for n in range(scans)],
        "ThresholdsP": GRID.tolist(),
        "Connectivities": [6, 18, 26],
        "Scores": dict.fromkeys(SCORES, numbers),
    }


def name_calibration(out, id, score, sha256):
    """Let a map's sidecar name its calibration."""
    path = files(out, id, score)["novelty.json"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"Calibration": {"Sha256": sha256}}))


def p_of(out, id, score):
    return np.maximum(stats.norm.sf(read(files(out, id, score)["novelty.nii.gz"])), 1e-6)


@pytest.fixture
def study(tmp_path):
    """Return maps of six scans, two of their four scores with p-values, and their lesion masks."""
    out, masks = make_study(tmp_path, 6)
    for id in sorted(path.name for path in out.iterdir()):
        for score in SCORES:
            p = np.where(brain_of() > 0, p_of(out, id, score), 1)
            write(files(out, id, score)["pvalue.nii.gz"], (-np.log10(p)).astype(np.float32))
            name_calibration(out, id, score, CALIBRATION)
    tell_calibration(out, calibration())
    return out, masks


def rows_of(path):
    return list(csv.DictReader(path.open(), delimiter="\t"))


def by_hand(out, id, score, bound, smallest=1, structure=None):
    """Return the flagged voxels in clusters of so many voxels, worked out from the maps alone."""
    flagged = (p_of(out, id, score) <= bound) & (brain_of() > 0)
    labels, n = ndimage.label(flagged, np.ones((3, 3, 3)) if structure is None else structure)
    large = [number for number in range(1, n + 1) if (labels == number).sum() >= smallest]
    return np.isin(labels, large)


def test_default_is_a_false_discovery_rate_and_clusters_larger_than_those_of_controls(study):
    out, _ = study
    result = run("threshold", out)
    assert result.exit_code == 0, result.output
    assert "12 maps segmented, 0 up to date, 0 failed" in result.stderr
    n, found = int(brain_of().sum()), 0
    for id in ("sub-01", "sub-04"):
        for score in SCORES:
            p = np.sort(p_of(out, id, score)[brain_of() > 0])
            below = np.flatnonzero(p <= 0.05 * np.arange(1, n + 1) / n)
            bound = p[below[-1]] if below.size else 0
            expected = by_hand(out, id, score, bound, smallest=2)
            names = files(out, id, score)
            assert (read(names["mask.nii.gz"]) > 0).tolist() == expected.tolist()
            assert ((read(names["dseg.nii.gz"]) > 0) == expected).all()
            assert read(names["mask.nii.gz"]).dtype == np.uint8
            found += expected.sum()
            told = json.loads(names["mask.json"].read_text())
            assert told["Threshold"]["FlaggedP"] == pytest.approx(bound, rel=1e-5)
            assert told["Threshold"]["LimitMm3"] == (pytest.approx(VOXEL_MM3) if bound else None)
            assert json.loads(names["novelty.json"].read_text())["Threshold"] == told["Threshold"]
            assert "false discovery rate 0.05" in told["Threshold"]["Words"]
    assert found > 20
    assert not files(out, "sub-01", "raw_b0")["mask.nii.gz"].exists()


def test_clusters_are_told_where_they_are_in_the_world(study):
    out, _ = study
    assert run("threshold", out, "--p", "0.01", "--connectivity", "6").exit_code == 0
    names = files(out, "sub-02")
    image = nib.load(names["dseg.nii.gz"])
    assert np.allclose(image.affine, AFFINE, atol=1e-4)
    labels, score = np.asarray(image.dataobj), read(names["novelty.nii.gz"])
    faces = ndimage.generate_binary_structure(3, 1)
    assert ((labels > 0) == by_hand(out, "sub-02", SCORES[0], 0.01, 2, faces)).all()
    rows = rows_of(names["clusters.tsv"])
    assert len(rows) == labels.max() > 0
    for row in rows:
        inside = np.argwhere(labels == int(row["cluster"]))
        values = score[tuple(inside.T)]
        mm = inside @ AFFINE[:3, :3].T + AFFINE[:3, 3]
        assert int(row["voxels"]) == len(inside)
        assert float(row["volume_mm3"]) == pytest.approx(len(inside) * VOXEL_MM3, rel=1e-5)
        for axis, name in enumerate("xyz"):
            assert float(row[f"peak_{name}_mm"]) == pytest.approx(mm[values.argmax(), axis], abs=1e-3)
            assert float(row[f"centroid_{name}_mm"]) == pytest.approx(mm[:, axis].mean(), abs=1e-3)
        assert float(row["mean"]) == pytest.approx(values.mean(), rel=1e-5)
        assert float(row["max"]) == pytest.approx(values.max(), rel=1e-5)
        assert float(row["p_peak"]) == pytest.approx(max(stats.norm.sf(values.max()), 1e-6), rel=1e-3)
        assert float(row["p_cluster"]) == 0.1
    assert [int(row["voxels"]) for row in rows] == sorted((int(row["voxels"]) for row in rows), reverse=True)


def test_the_cohort_is_told_with_p_values_against_controls(study):
    out, _ = study
    assert (
        run("threshold", out, "--p", "0.001", "--no-cluster-size", "--scores", "latent_euclidean").exit_code
        == 0
    )
    rows = {row["id"]: row for row in rows_of(out / "cohort.tsv")}
    assert sorted(rows) == [f"sub-{n:02d}" for n in range(1, 7)]
    for id, row in rows.items():
        score = read(files(out, id)["novelty.nii.gz"])[brain_of() > 0]
        flagged = by_hand(out, id, SCORES[0], 0.001).sum()
        assert row["score"] == "latent_euclidean"
        assert float(row["novel_mm3"]) == pytest.approx(flagged * VOXEL_MM3, rel=1e-5)
        assert float(row["novel_share"]) == pytest.approx(flagged / score.size, rel=1e-5)
        assert float(row["maximum"]) == pytest.approx(score.max(), rel=1e-5)
        assert float(row["p_maximum"]) == pytest.approx(
            (1 + (np.linspace(2, 4, 9) >= score.max()).sum()) / 10
        )
        # Controls have 0 to 8 voxels; the scan is counted at the next fixed p above.
        counted = by_hand(out, id, SCORES[0], GRID[GRID >= 0.001].min()).sum()
        assert float(row["p_volume"]) == pytest.approx((1 + (np.arange(9) >= counted).sum()) / 10)
        assert row["controls"] == "9"


def test_a_second_time_nothing_is_done_unless_something_changed(study):
    out, _ = study
    words = ["threshold", out, "--fdr", "0.1", "--min-mm3", "20"]
    assert "12 maps segmented" in run(*words).stderr
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name[0] != "."}
    again = run(*words)
    assert "0 maps segmented, 12 up to date" in again.stderr
    assert {path: path.read_bytes() for path in before} == before
    files(out, "sub-01")["mask.nii.gz"].write_bytes(b"damaged")
    files(out, "sub-02")["dseg.nii.gz"].unlink()
    write(files(out, "sub-03")["pvalue.nii.gz"], np.zeros(SHAPE, np.float32))
    assert "3 maps segmented, 9 up to date" in run(*words).stderr
    assert rows_of(files(out, "sub-03")["clusters.tsv"]) == []
    assert "12 maps segmented, 0 up to date" in run(*words[:-1], 40).stderr
    tell_calibration(out, calibration(largest_voxels=3))
    assert "12 maps segmented, 0 up to date" in run(*words[:-1], 40).stderr


def test_labelled_scans_give_the_threshold_that_an_evaluation_finds(study):
    out, masks = study
    found = evaluate(out, masks, settings=EvaluateSettings(seed=4, resamples=1))
    # Controls that are one cluster at any p, as at a liberal threshold, leave nothing; they are not asked.
    tell_calibration(out, calibration(largest_voxels=200))
    result = run("threshold", out, "--masks", masks, "--seed", 4)
    assert result.exit_code == 0, result.output
    for score in (*SCORES, "raw_b0"):
        at = found.rated[score].thresholds["dice"]
        for id in ("sub-01", "sub-05"):
            names = files(out, id, score)
            expected = (read(names["novelty.nii.gz"]) >= np.float32(at)) & (brain_of() > 0)
            assert (read(names["mask.nii.gz"]) > 0).tolist() == expected.tolist()
            told = json.loads(names["mask.json"].read_text())
            assert told["Settings"]["Threshold"] == pytest.approx(at)
            assert f"best Dice on the patients {found.fifth['patients'][0]}" in told["Threshold"]["Words"]
            assert "clusters are not held against those of calibration scans" in told["Threshold"]["Words"]
            assert told["Settings"]["ClusterSizeRule"] is False
    p = json.loads(files(out, "sub-01")["mask.json"].read_text())["Settings"]["P"]
    assert p == pytest.approx(stats.norm.sf(found.rated[SCORES[0]].thresholds["dice"]), rel=0.2)
    assert rows_of(files(out, "sub-01", "raw_b0")["clusters.tsv"])[0]["p_peak"] == "n/a"
    assert run("threshold", out, "--masks", masks, "--seed", 4, "--cluster-size").exit_code == 0
    assert not read(files(out, "sub-01")["mask.nii.gz"]).any()


def test_an_atlas_names_the_regions(study, tmp_path):
    out, _ = study
    regions = np.ones(SHAPE, np.int16)
    regions[:, :, 3:] = 2
    write(tmp_path / "atlas.nii.gz", regions)
    (tmp_path / "atlas.tsv").write_text("index\tname\n1\tLower\n2\tUpper\n")
    assert run("threshold", out, "--p", "0.01", "--atlas", tmp_path / "atlas.nii.gz").exit_code == 0
    names = files(out, "sub-03")
    labels = read(names["dseg.nii.gz"])
    seen = set()
    for row in rows_of(names["clusters.tsv"]):
        where = regions[labels == int(row["cluster"])]
        most = "Lower" if (where == 1).mean() >= 0.5 else "Upper"
        assert row["region"] == most
        assert float(row["region_share"]) == pytest.approx(
            max((where == 1).mean(), (where == 2).mean()), rel=1e-5
        )
        seen.add(most)
    assert seen
    # Other names are another atlas.
    (tmp_path / "atlas.tsv").write_text("index\tname\n1\tBelow\n2\tAbove\n")
    words = ["threshold", out, "--p", "0.01", "--atlas", tmp_path / "atlas.nii.gz"]
    assert "12 maps segmented" in run(*words).stderr
    assert {row["region"] for row in rows_of(names["clusters.tsv"])} <= {"Below", "Above"}


def test_an_atlas_stays_each_scores_own_until_it_is_let_go(study, tmp_path):
    from mednovelty.threshold_command import segment_scored

    out, _ = study
    atlas = write(tmp_path / "atlas.nii.gz", np.ones(SHAPE, np.int16))

    def regions(score):
        rows = rows_of(files(out, "sub-03", score)["clusters.tsv"])
        assert rows
        return {row.get("region") for row in rows}

    assert run("threshold", out, "--p", "0.05", "--atlas", atlas, "--scores", SCORES[0]).exit_code == 0
    # Another threshold of the same score, and one of another, keep it.
    assert run("threshold", out, "--p", "0.04", "--no-cluster-size", "--scores", SCORES[0]).exit_code == 0
    assert (
        run(
            "threshold", out, "--p", "0.04", "--no-atlas", "--no-cluster-size", "--scores", SCORES[1]
        ).exit_code
        == 0
    )
    assert (regions(SCORES[0]), regions(SCORES[1])) == ({"1"}, {None})
    # So does scoring that finds nothing to do, also while the atlas is away.
    before = files(out, "sub-03")["mask.json"].read_bytes()
    assert segment_scored(out) == 0
    shutil.move(atlas, tmp_path / "away.nii.gz")
    assert segment_scored(out) == 0
    assert files(out, "sub-03")["mask.json"].read_bytes() == before
    assert "atlas.nii.gz: the atlas of the clusters is gone" in run("threshold", out, "--p", "0.05").stderr
    assert regions(SCORES[0]) == {None}
    shutil.move(tmp_path / "away.nii.gz", atlas)
    assert segment_scored(out) == 0
    assert (regions(SCORES[0]), regions(SCORES[1])) == ({"1"}, {None})
    assert run("threshold", out, "--p", "0.05", "--no-atlas").exit_code == 0
    assert segment_scored(out) == 0
    assert regions(SCORES[0]) == {None}


def test_the_atlas_of_all_scores_as_it_was_written_before_is_read(study, tmp_path):
    out, _ = study
    atlas = write(tmp_path / "atlas.nii.gz", np.ones(SHAPE, np.int16))
    assert run("threshold", out, "--p", "0.05", "--no-cluster-size").exit_code == 0
    told = json.loads((out / "segmentation.json").read_text())
    old = {
        score: {key: value for key, value in one.items() if key != "Atlas"}
        for score, one in told["Scores"].items()
    }
    (out / "segmentation.json").write_text(json.dumps({"Scores": old, "Atlas": os.path.relpath(atlas, out)}))
    assert run("threshold", out, "--p", "0.04").exit_code == 0
    assert all(one["Atlas"] for one in json.loads((out / "segmentation.json").read_text())["Scores"].values())


def test_one_bad_map_stops_no_other(study):
    out, _ = study
    bad = files(out, "sub-02")
    assert run("threshold", out).exit_code == 0
    bad["pvalue.nii.gz"].write_bytes(bad["pvalue.nii.gz"].read_bytes()[:-9])
    result = run("threshold", out, "--json")
    assert result.exit_code == 6
    told = json.loads(result.stdout)
    assert [one["id"] for one in told["maps"] if one["status"] == "failed"] == ["sub-02"]
    assert "failed: sub-02: sub-02_desc-latenteuclidean_pvalue.nii.gz" in result.stderr
    assert len([one for one in told["maps"] if one["status"] == "up to date"]) == 11


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda names: write(names["pvalue.nii.gz"], np.full((6, 7, 6), 1, np.float32)), "shape"),
        (lambda names: write(names["pvalue.nii.gz"], np.full(SHAPE, -1, np.float32)), "cannot be -1"),
        (lambda names: write(names["pvalue.nii.gz"], np.full(SHAPE, np.nan, np.float32)), "not finite"),
        (lambda names: write(names["novelty.nii.gz"], np.full(SHAPE, np.inf, np.float32)), "not finite"),
        (
            lambda names: names["novelty.json"].write_text(
                json.dumps({"ScanId": "sub-02", "Score": {"name": SCORES[0]}, "MapSha256": "0" * 64})
            ),
            "its sidecar says 000000",
        ),
    ],
)
def test_maps_that_cannot_be_right_are_refused_in_words(study, spoil, said):
    out, _ = study
    spoil(files(out, "sub-02"))
    result = run("threshold", out)
    assert result.exit_code == 6
    assert said in result.stderr
    assert not files(out, "sub-02")["mask.nii.gz"].exists()


def test_a_map_that_lost_its_p_values_loses_its_segmentation(study):
    out, _ = study
    assert run("threshold", out).exit_code == 0
    names = files(out, "sub-02")
    names["pvalue.nii.gz"].unlink()
    result = run("threshold", out)
    assert result.exit_code == 6
    assert "there are no p-values of this map" in result.stderr
    assert not any(
        names[kind].exists() for kind in ("mask.nii.gz", "mask.json", "dseg.nii.gz", "clusters.tsv")
    )


def test_a_score_that_lost_all_its_p_values_is_told(study):
    out, _ = study
    assert run("threshold", out).exit_code == 0
    for id in [f"sub-{number:02d}" for number in range(1, 7)]:
        files(out, id)["pvalue.nii.gz"].unlink()
    result = run("threshold", out)
    assert result.exit_code == 6
    assert result.stderr.count("there are no p-values of this map") == 6
    assert not files(out, "sub-01")["mask.nii.gz"].exists()
    assert {row["score"] for row in rows_of(out / "cohort.tsv")} == {SCORES[1]}


def test_stopped_in_the_middle_it_goes_on_from_there(study, monkeypatch):
    out, _ = study

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(segment_files, "_write_json", killed)
        with pytest.raises(Killed):
            CliRunner().invoke(app, ["threshold", str(out)], env=ENVIRONMENT, catch_exceptions=False)
    assert files(out, "sub-01")["mask.nii.gz"].exists()
    assert not files(out, "sub-01")["mask.json"].exists()
    assert "12 maps segmented" in run("threshold", out).stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--p", "0.01", "--fdr", "0.05"], 2, "--fdr and --p are different thresholds; give one of them"),
        (
            ["--median", "3", "--opening", "1"],
            2,
            "--median and --opening: are two ways of cleaning; give one",
        ),
        (["--atlas", "a.nii", "--no-atlas"], 2, "--atlas and --no-atlas contradict each other"),
        (["--fdr", "2"], 2, "--fdr must lie between 0 and 0.5, got 2"),
        (["--connectivity", "8"], 2, "connectivity must be 6, 18 or 26 neighbours, got 8"),
        (["--scores", "elbo"], 2, "there is no map of elbo; there are latent_euclidean, raw_b0"),
        (["--scores", "raw_b0"], 2, "there are no p-values of raw_b0; calibrate the detector"),
        (["--atlas", "nowhere.nii.gz"], 3, "nowhere.nii.gz: no such file"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_segmented(study, words, code, said):
    out, _ = study
    result = run("threshold", out, *words)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert not list(out.rglob("*_mask.json"))


def test_a_damaged_calibration_is_told(study):
    out, _ = study
    (out / "calibration.json").write_text("{")
    result = run("threshold", out, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["code"] == "calibration.damaged"


def test_maps_of_a_calibration_that_is_gone_are_refused_and_those_of_others_are_not(study):
    out, _ = study
    name_calibration(out, "sub-02", SCORES[0], "e" * 64)
    result = run("threshold", out, "--p", "0.01")
    assert result.exit_code == 6
    assert (
        f"failed: sub-02: {out}/calibration.json: knows nothing of the calibration eeeeeeeeeeee"
        in result.stderr
    )
    assert "11 maps segmented, 0 up to date, 1 failed" in result.stderr
    assert not files(out, "sub-02")["mask.nii.gz"].exists()
    (out / "calibration.json").unlink()
    result = run("threshold", out, "--p", "0.01")
    assert result.exit_code == 3
    assert result.stderr.count("knows nothing of the calibration cccccccccccc") == 11
    # Without controls only when that is asked for, and told.
    result = run("threshold", out, "--p", "0.01", "--no-cluster-size")
    assert result.exit_code == 0
    assert "sub-01: the scan as a whole gets no p-values" in result.stderr
    expected = by_hand(out, "sub-01", SCORES[0], 0.01)
    assert ((read(files(out, "sub-01")["mask.nii.gz"]) > 0) == expected).all()
    assert rows_of(out / "cohort.tsv")[0]["p_volume"] == "n/a"


def test_each_map_is_held_against_its_own_calibration(study):
    out, _ = study
    other = calibration(largest_voxels=4, scans=5) | {"Sha256": "e" * 64}
    tell_calibration(out, other)
    name_calibration(out, "sub-02", SCORES[0], "e" * 64)
    assert run("threshold", out, "--p", "0.02").exit_code == 0
    for id, smallest, controls in (("sub-01", 2, "9"), ("sub-02", 5, "5")):
        expected = by_hand(out, id, SCORES[0], 0.02, smallest)
        assert ((read(files(out, id)["mask.nii.gz"]) > 0) == expected).all()
        row = next(row for row in rows_of(out / "cohort.tsv") if (row["id"], row["score"]) == (id, SCORES[0]))
        assert row["controls"] == controls
    # Another calibration that comes to the folder changes nothing of those that are there.
    tell_calibration(out, other | {"Sha256": "f" * 64})
    assert "0 maps segmented, 12 up to date" in run("threshold", out, "--p", "0.02").stderr
    # A map whose sidecar names none is not held against just any.
    path = files(out, "sub-03")["novelty.json"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"Calibration": None}))
    assert "sidecar does not say of which calibration" in run("threshold", out, "--p", "0.02").stderr


def test_a_calibration_scan_is_no_control_of_its_own(study):
    out, _ = study
    record = calibration() | {"ImagesSha256": [f"{n:064x}" for n in range(9)]}
    large = np.array(record["Scores"][SCORES[0]]["LargestMm3"])
    large[4] = 200 * VOXEL_MM3
    record["Scores"] = dict.fromkeys(SCORES, record["Scores"][SCORES[0]] | {"LargestMm3": large.tolist()})
    tell_calibration(out, record)
    path = files(out, "sub-02")["novelty.json"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"InputSha256": f"{4:064x}"}))
    assert run("threshold", out, "--p", "0.02", "--scores", SCORES[0]).exit_code == 0
    rows = {row["id"]: row for row in rows_of(out / "cohort.tsv")}
    assert (rows["sub-01"]["controls"], rows["sub-02"]["controls"]) == ("9", "8")
    assert not read(files(out, "sub-01")["mask.nii.gz"]).any()
    expected = by_hand(out, "sub-02", SCORES[0], 0.02, 2)
    assert expected.any()
    assert ((read(files(out, "sub-02")["mask.nii.gz"]) > 0) == expected).all()


def test_a_record_of_one_calibration_as_it_was_written_before_is_read(study):
    out, _ = study
    old = calibration()
    old["Scores"] = {SCORES[0]: old["Scores"][SCORES[0]], "fisher": {"Sha256": "f" * 64}}
    (out / "calibration.json").write_text(json.dumps(old))
    found = ToldCalibrations.read(out).records
    assert {sha256: set(one["Scores"]) for sha256, one in found.items()} == {
        CALIBRATION: {SCORES[0]},
        "f" * 64: {"fisher"},
    }
    assert run("threshold", out, "--scores", SCORES[0]).exit_code == 0
    # What comes stands beside it.
    tell_calibration(out, calibration() | {"Sha256": "e" * 64})
    assert set(ToldCalibrations.read(out).records) == {CALIBRATION, "e" * 64, "f" * 64}


def test_a_folder_that_is_none_is_said_to_be_none(tmp_path):
    result = run("threshold", tmp_path / "nowhere")
    assert (result.exit_code, "no such folder" in result.stderr) == (3, True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("of mine")
    assert run("threshold", tmp_path / "mine").exit_code == 3
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"]


def test_scans_that_come_later_are_segmented_as_the_others_were(study, tmp_path):
    from mednovelty.threshold_command import segment_scored

    out, _ = study
    kept = shutil.move(out / "sub-06", tmp_path / "sub-06")
    assert (
        run("threshold", out, "--p", "0.02", "--min-mm3", "30", "--scores", "latent_euclidean").exit_code == 0
    )
    shutil.move(kept, out / "sub-06")
    assert segment_scored(out) == 0
    told = json.loads(files(out, "sub-06")["mask.json"].read_text())["Settings"]
    assert (told["Rule"], told["P"], told["MinMm3"]) == ("p", 0.02, 30)
    # What was never segmented is so by default.
    other = json.loads(files(out, "sub-06", SCORES[1])["mask.json"].read_text())["Settings"]
    assert (other["Rule"], other["Q"], other["MinMm3"]) == ("fdr", 0.05, 0)


def test_scoring_tells_why_it_could_not_segment_and_goes_on(study, caplog):
    from mednovelty.threshold_command import segment_scored

    out, _ = study
    (out / "segmentation.json").write_text('{"Scores": {"latent_euclidean": {"Rule": "guess"}}}')
    with caplog.at_level("ERROR", logger="mednovelty"):
        logging.getLogger("mednovelty").propagate = True
        assert segment_scored(out) == 3
    assert "not segmented" in caplog.text
    assert "segmentation.json: damaged: no rule for a segmentation is called 'guess'" in caplog.text


def test_scoring_leaves_a_folder_without_p_values_alone(tmp_path):
    from mednovelty.threshold_command import segment_scored

    out, _ = make_study(tmp_path, 2)
    assert segment_scored(out) == 0
    assert not list(out.rglob("*_mask.json"))
    assert not (out / "cohort.tsv").exists()
