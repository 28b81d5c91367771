"""Evaluation of a score run against lesion masks; all images are written by nibabel alone."""

import csv
import hashlib
import json
import math

import nibabel as nib
import numpy as np
import pytest
from lesion_study import (
    AFFINE,
    SHAPE,
    add_scan,
    brain_of,
    lesion_of,
    make_study,
    noisy,
    read,
    scores_of,
    write,
)
from rich.console import Console
from sklearn.metrics import roc_auc_score

from mednovelty.errors import GeometryError, OutputError, ScanError, SettingsError
from mednovelty.evaluation import EvaluateSettings, Evaluation, evaluate
from mednovelty.metrics import Ranking, best_dice, dice_at, draw_fifth, summary


@pytest.fixture
def study(tmp_path):
    return lambda n: make_study(tmp_path, n)


def test_numbers_are_those_of_the_voxels_in_the_brain_mask(study):
    out, masks = study(3)
    found = evaluate(out, masks)
    for id, rows in found.scans.items():
        assert list(rows) == ["latent_euclidean", "raw_b0", "raw_dwi", "vae_regularizer"]
        for score, row in rows.items():
            values, labels = scores_of(out, masks, id, score)
            assert row["auroc"] == pytest.approx(roc_auc_score(labels, values))
            assert {k: row[k] for k in summary(Ranking.of(values, labels))} == summary(
                Ranking.of(values, labels)
            )
            assert (row["lesion_voxels"], row["brain_voxels"]) == (30, 5 * 5 * 5)
            assert row["prevalence"] == 30 / 125
    three = [found.scans[id]["raw_b0"]["auroc"] for id in ("sub-01", "sub-02", "sub-03")]
    assert found.mean["raw_b0"]["auroc"] == pytest.approx(np.mean(three))
    assert found.mean["raw_b0"]["scans"] == 3
    low, high = found.mean["raw_b0"]["auroc_interval"]
    assert min(three) <= low < np.mean(three) < high <= max(three)


def test_lesion_voxels_outside_the_brain_are_counted_and_left_out(study):
    out, masks = study(2)
    lesion = lesion_of(1)
    lesion[0, :3, 2] = 1  # outside brain_of()
    write(masks / "sub-01_mask.nii.gz", lesion)
    found = evaluate(out, masks)
    assert found.scans["sub-01"]["raw_b0"]["lesion_voxels"] == 30
    assert found.scans["sub-01"]["raw_b0"]["lesion_voxels_outside_brain"] == 3
    assert found.scans["sub-02"]["raw_b0"]["lesion_voxels_outside_brain"] == 0
    assert "sub-01: 3 of 33 lesion voxels lie outside the brain mask and are not evaluated" in found.warnings


def test_the_threshold_comes_from_a_fifth_of_the_patients_and_is_tried_on_the_others(study):
    out, masks = study(11)
    found = evaluate(out, masks, settings=EvaluateSettings(seed=3))
    assert found.fifth["drawn_from"] == "patients"
    drawn = found.fifth["scans"]
    assert found.fifth["patients"] == drawn
    assert drawn == [f"sub-{n + 1:02d}" for n in np.flatnonzero(draw_fifth(11, 3))]
    assert len(drawn) == 2
    for score in ("raw_b0", "vae_regularizer"):
        pooled = [
            np.concatenate(part)
            for part in zip(*(scores_of(out, masks, id, score) for id in drawn), strict=True)
        ]
        threshold = best_dice(Ranking.of(*pooled))[1]
        for id, rows in found.scans.items():
            if id in drawn:
                assert "dice_fifth" not in rows[score]
                continue
            values, labels = scores_of(out, masks, id, score)
            assert rows[score]["dice_fifth_threshold"] == threshold
            assert rows[score]["dice_fifth"] == dice_at(Ranking.of(values, labels), threshold)
        kept = [rows[score]["dice_fifth"] for id, rows in found.scans.items() if id not in drawn]
        assert found.mean[score]["dice_fifth"] == pytest.approx(np.mean(kept))
    assert evaluate(out, masks, settings=EvaluateSettings(seed=4)).fifth["scans"] != drawn


def test_with_four_scans_the_fifth_is_of_each_scans_voxels(study):
    out, masks = study(4)
    found = evaluate(out, masks, settings=EvaluateSettings(seed=2))
    assert found.fifth == {"drawn_from": "voxels", "patients": [], "scans": [], "rotations": []}
    pool, rest = [], {}
    for id in found.scans:
        values, labels = scores_of(out, masks, id, "raw_b0")
        part = draw_fifth(125, [2, *id.encode()])
        pool.append((values[part], labels[part]))
        rest[id] = Ranking.of(values[~part], labels[~part])
    assert {len(values) for values, _ in pool} == {25}
    threshold = best_dice(Ranking.of(*(np.concatenate(part) for part in zip(*pool, strict=True))))[1]
    for id, ranking in rest.items():
        assert found.scans[id]["raw_b0"]["dice_fifth"] == dice_at(ranking, threshold)
        assert found.scans[id]["raw_b0"]["dice_fifth_threshold"] == threshold


def test_a_map_of_the_opposite_sign_has_one_minus_auroc(study):
    out, masks = study(2)
    before = evaluate(out, masks).mean["latent_euclidean"]["auroc"]
    for path in out.rglob("*desc-latenteuclidean_novelty.nii.gz"):
        write(path, -read(path))
    assert evaluate(out, masks).mean["latent_euclidean"]["auroc"] == pytest.approx(1 - before)


def test_the_interval_is_over_scans_not_voxels(study):
    out, masks = study(2)
    once = evaluate(out, masks).mean["raw_b0"]["auroc_interval"]
    values = [row["raw_b0"]["auroc"] for row in evaluate(out, masks).scans.values()]
    # Two scans can be drawn as (a, a), (a, b), (b, b): the ends are the scans' own numbers.
    assert once == pytest.approx(sorted(values))


def test_one_scan_has_no_interval_and_says_so(study):
    found = evaluate(*study(1))
    assert found.mean["raw_b0"]["auroc_interval"] is None
    assert "fewer than 2 scans with a lesion: no bootstrap intervals, which are over scans" in found.warnings
    assert found.to_dict()["mean"]["raw_b0"]["auroc_interval"] is None


def test_json_has_the_promised_shape_and_no_nan(study):
    out, masks = study(5)
    write(masks / "sub-02_mask.nii.gz", np.zeros(SHAPE, np.uint8))
    found = evaluate(out, masks)
    parsed = json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert set(parsed["scans"]) == {f"sub-0{n}" for n in range(1, 6)}
    row = parsed["scans"]["sub-01"]["latent_euclidean"]
    metrics = {"auroc", "ap", "fpr_at_95_lesion_tpr", "fpr_at_95_healthy_tpr", "dice_best", "dice_fifth"}
    assert metrics <= set(row)
    assert all(isinstance(row[name], float) for name in metrics)
    mean = parsed["mean"]["latent_euclidean"]
    assert metrics <= set(mean)
    assert len(mean["auroc_interval"]) == 2
    assert mean["scans"] == 4
    assert parsed["scans"]["sub-02"]["raw_b0"]["auroc"] is None
    assert parsed["scans"]["sub-02"]["raw_b0"]["lesion_voxels"] == 0
    assert parsed["settings"] == {
        "seed": 0, "resamples": 2000, "level": 0.95, "slice_axis": "K", "diseased_voxels": 20,
        "found_share": 0.0,
    }  # fmt: skip
    assert parsed["pooled"]["latent_euclidean"]["ap_interval"][0] < parsed["pooled"]["latent_euclidean"]["ap"]
    assert parsed["trivial"] == ["raw_b0", "raw_dwi"]
    assert set(parsed["against_trivial"]) == {"latent_euclidean", "vae_regularizer"}
    assert set(parsed["thresholds"]["raw_b0"]) == set(parsed["threshold_points"])
    assert "sub-02: no lesion voxel in the brain mask, so its metrics are undefined" in parsed["warnings"]
    # The scan without a lesion does not count towards the five that a fifth of scans needs.
    assert parsed["dice_fifth"]["drawn_from"] == "voxels"


def test_csv_is_long_and_quotes_formulas_but_no_negative_numbers(tmp_path):
    row = {"auroc": 0.5, "ap": math.nan, "dice_best_threshold": -3.25, "lesion_voxels": 4}
    scans = {"=cmd()": {"+sum": row, "-1.5": row, "@x": row, "-a": row, "plain\nname": row}}
    found = Evaluation(scans, {}, EvaluateSettings(), {"drawn_from": "voxels", "scans": []})
    table = found.write(tmp_path / "new" / "folder")[1]
    assert table.name == "evaluation.csv"
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(r["scan"], r["score"]) for r in rows] == [
        ("'=cmd()", "'+sum"), ("'=cmd()", "-1.5"), ("'=cmd()", "'@x"), ("'=cmd()", "'-a"),
        ("'=cmd()", r"plain\x0aname"),
    ]  # fmt: skip
    assert {(r["auroc"], r["ap"], r["dice_best_threshold"], r["lesion_voxels"]) for r in rows} == {
        ("0.5", "", "-3.25", "4")
    }


def test_write_gives_all_files_and_refuses_where_it_cannot(study, tmp_path):
    found = evaluate(*study(2))
    written = found.write(tmp_path / "evaluation")
    assert [path.name for path in written] == [
        "evaluation.json", "evaluation.csv", "evaluation.md", "slices.tsv", "lesions.tsv",
    ]  # fmt: skip
    assert json.loads(written[0].read_text()) == found.to_dict()
    assert len(written[1].read_text().splitlines()) == 1 + 2 * 4
    (tmp_path / "file").write_text("here")
    with pytest.raises(OutputError, match="cannot be made"):
        found.write(tmp_path / "file" / "evaluation")


def test_verdicts_name_what_beats_the_best_baseline_and_what_loses_to_it(study):
    found = evaluate(*study(3))
    scores, baselines = found.ranked()
    assert scores == ["latent_euclidean", "vae_regularizer"]
    assert baselines == ["raw_b0", "raw_dwi"]
    auroc, ap = found.verdicts()
    means = {score: row["auroc"] for score, row in found.mean.items()}
    ahead = means["latent_euclidean"] - means["raw_b0"]
    by = {id: row["latent_euclidean"]["auroc"] - row["raw_b0"]["auroc"] for id, row in found.scans.items()}
    low, high = found.interval(by)
    assert auroc == (
        f"AUROC: the best trivial baseline, raw_b0 ({means['raw_b0']:.3f}), is beaten by latent_euclidean by "
        f"{ahead:.3f} [{low:.3f}, {high:.3f}]. 1 of 2 lose to it, by "
        f"{means['raw_b0'] - means['vae_regularizer']:.3f}: vae_regularizer."
    )
    assert ap.startswith("AP: the best trivial baseline, raw_b0 (")
    told = found.to_dict()["gaps_to_trivial"]["mean"]["auroc"]
    assert (told["best"], told["value"]) == ("raw_b0", means["raw_b0"])
    assert told["scores"]["latent_euclidean"] == {"ahead": pytest.approx(ahead), "interval": [low, high]}
    assert list(told["scores"]) == ["latent_euclidean", "vae_regularizer"]
    pooled = found.to_dict()["gaps_to_trivial"]["pooled"]["ap"]["scores"]["vae_regularizer"]
    gap = found.pooled["vae_regularizer"]["ap"] - found.pooled["raw_b0"]["ap"]
    assert pooled == {"ahead": pytest.approx(gap), "interval": None}


def test_a_dozen_scores_are_judged_in_one_sentence_a_metric_that_names_the_baseline_once():
    rows = {f"s{n}": {"auroc": 0.5 + n / 32, "ap": 0.25} for n in range(12)}
    rows |= {"raw_a": {"auroc": 0.75, "ap": 0.25}, "raw_b": {"auroc": 0.6, "ap": 0.1}}
    found = Evaluation({"x": {name: row | {"lesion_voxels": 9} for name, row in rows.items()}}, {},
                       EvaluateSettings(), {})  # fmt: skip
    auroc, ap = found.verdicts()
    assert auroc == (
        "AUROC: the best trivial baseline, raw_a (0.750), is beaten by s11 by 0.094, s10 by 0.062, s9 by "
        "0.031. s8 equals it. 8 of 12 lose to it, by 0.031 to 0.250: s7, s6, s5, s4, s3, s2, s1, s0."
    )
    assert ap.startswith("AP: the best trivial baseline, raw_a (0.250), is beaten by no score. s11, s10, s9,")
    assert ap.endswith("s1, s0 equal it.")


def test_verdicts_when_nothing_loses_and_when_there_is_no_baseline():
    def of(numbers):
        scans = {"s": {score: {"auroc": n, "ap": n, "lesion_voxels": 9} for score, n in numbers.items()}}
        return Evaluation(scans, {}, EvaluateSettings(), {}).verdicts()

    assert (
        of({"a": 0.9, "raw_b0": 0.9})[0]
        == "AUROC: the best trivial baseline, raw_b0 (0.900), is beaten by no score. a equals it."
    )
    assert of({"a": 0.9}) == [
        "No trivial baseline (raw_*) among the maps: whether these scores beat plain intensity is unknown."
    ]
    assert of({"a": 0.8, "raw_b0": 0.7, "raw_dwi": 0.1})[2] == (
        "raw_dwi is low in lesions: turned round it would reach AUROC 0.900, more than any trivial baseline "
        "as it stands."
    )
    assert len(of({"a": 0.8, "raw_b0": 0.7, "raw_dwi": 0.4})) == 2


def test_a_score_is_judged_on_the_scans_it_shares_with_the_baseline():
    rows = {
        "easy": {"a": {"auroc": 0.9, "ap": 0.5}, "raw_b0": {"auroc": 0.95, "ap": 0.4}},
        "hard": {"raw_b0": {"auroc": 0.55, "ap": 0.1}},
    }
    verdicts = Evaluation(rows, {}, EvaluateSettings(), {}).verdicts()
    # Mean AUROC 0.9 against 0.75, but on the one scan both have the baseline is ahead.
    assert verdicts[0].endswith("is beaten by no score. 1 of 1 lose to it, by 0.050: a.")
    assert verdicts[1].endswith("is beaten by a by 0.100.")


def test_the_table_is_sorted_and_sets_the_baselines_apart(study):
    found = evaluate(*study(3))
    console = Console(width=120, record=True)
    with console.capture() as capture:
        console.print(found.table())
    text = capture.get()
    places = [text.index(name) for name in ("latent_euclidean", "vae_regularizer", "raw_b0", "raw_dwi")]
    assert places == sorted(places)
    assert text.count("├") == 4  # in each table one line between scores and baselines
    assert text.count("the best trivial baseline, raw_b0") == 4  # by mean and pooled, AUROC and AP
    assert f"{found.mean['raw_dwi']['auroc']:.3f}" in text
    assert "3 scans with a lesion mask, 90 lesion voxels" in text


def test_at_a_hundred_columns_no_cell_is_cut(study):
    out, masks = study(3)
    for number in (1, 2, 3):
        add_scan(out, f"sub-0{number}", {"negative_elbo_of_map": noisy(lesion_of(number), number, 1.0)})
    found = evaluate(out, masks)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(found.table())
    text = capture.get()
    assert "…" not in text
    assert all(line.rstrip()[-1] in "┓┃┩│┤┘" for line in text.splitlines() if line[0] in "┏┃┡│├└")
    assert text.count("│ negative_elbo_of_map│") == 4
    for score in found.mean:
        low, high = found.pooled[score]["slice_max_ap_interval"] or (0, 0)
        assert f"{low:.2f}-{high:.2f}" in text or not high
        assert f"{found.mean[score]['dice_best_interval'][0]:.2f}-" in text


def test_a_mask_on_another_grid_is_refused_with_both_shapes(study):
    out, masks = study(1)
    write(masks / "sub-01_mask.nii.gz", np.ones((6, 7, 4), np.uint8))
    with pytest.raises(GeometryError, match=r"sub-01_mask.nii.gz: shape \(6, 7, 4\) .*\(6, 7, 5\)") as caught:
        evaluate(out, masks)
    assert caught.value.code == "geometry.shape"


def test_a_mask_elsewhere_in_the_world_is_refused_with_the_distance(study):
    out, masks = study(1)
    shifted = AFFINE.copy()
    shifted[1, 3] += 2.5
    write(masks / "sub-01_mask.nii.gz", lesion_of(1), shifted)
    with pytest.raises(
        GeometryError, match=r"sub-01_mask.nii.gz: its voxels lie up to 2.5 mm away from those of"
    ):
        evaluate(out, masks)


def wrong_shape(path):
    write(path, np.ones((6, 7, 4), np.uint8))
    return r"shape (6, 7, 4) does not fit the voxels of sub-02_desc-brain_mask.nii.gz, (6, 7, 5)"


def damaged(path):
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    return "checksum or length is wrong"


def negative(path):
    write(path, -lesion_of(2).astype(np.int16))
    return "a lesion mask is 0 outside and positive inside; its least value is -1"


def not_a_number(path):
    write(path, np.full(SHAPE, np.nan, np.float32))
    return "a lesion mask is 0 outside and positive inside; its least value is nan"


@pytest.mark.parametrize("spoil", [wrong_shape, damaged, negative, not_a_number])
def test_a_lesion_mask_that_cannot_be_used_costs_its_own_scan_only(study, spoil):
    out, masks = study(3)
    before = evaluate(out, masks)
    words = spoil(masks / "sub-02_mask.nii.gz")
    found = evaluate(out, masks)
    assert list(found.scans) == ["sub-01", "sub-03"]
    assert list(found.curves["raw_b0"]) == ["sub-01", "sub-03"]
    assert found.scans["sub-03"]["raw_b0"]["auroc"] == before.scans["sub-03"]["raw_b0"]["auroc"]
    assert found.mean["raw_b0"]["scans"] == 2
    (told,) = [w for w in found.warnings if w.startswith("sub-02_mask.nii.gz: ")]
    assert words in told
    assert told.endswith("; sub-02 is left out")
    assert found.scans_without_mask == ()


def test_when_no_mask_can_be_used_all_reasons_are_told(study):
    out, masks = study(2)
    wrong_shape(masks / "sub-01_mask.nii.gz")
    negative(masks / "sub-02_mask.nii.gz")
    with pytest.raises(
        ScanError,
        match=r"no scan can be evaluated: sub-01_mask.nii.gz: shape .* sub-02_mask.*least value is -1",
    ) as caught:
        evaluate(out, masks)
    assert caught.value.code == "evaluation.none"


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SLA"])
def test_a_lesion_mask_stored_along_other_axes_is_turned_to_fit(study, codes):
    out, masks = study(2)
    before = evaluate(out, masks)
    path = masks / "sub-01_mask.nii.gz"
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(codes)
    )  # fmt: skip
    image = nib.load(path).as_reoriented(turn)
    write(path, np.asarray(image.dataobj), image.affine)
    found = evaluate(out, masks)
    assert found.scans == before.scans
    assert (
        "sub-01_mask.nii.gz: stored along other axes than sub-01_desc-brain_mask.nii.gz; turned to fit in "
        "world space"
    ) in found.warnings


def test_a_map_on_another_grid_is_left_out_with_both_shapes(study):
    out, masks = study(2)
    path = next(out.rglob("sub-01_desc-rawb0_novelty.nii.gz"))
    write(path, np.zeros((6, 5, 7), np.float32))
    found = evaluate(out, masks)
    assert list(found.scans["sub-01"]) == ["latent_euclidean", "raw_dwi", "vae_regularizer"]
    assert "raw_b0" in found.scans["sub-02"]
    (told,) = [w for w in found.warnings if w.startswith("sub-01_desc-rawb0_novelty.nii.gz: shape (6, 5, 7)")]
    assert told.endswith("; sub-01 is left out of raw_b0")


def tell(out, id, score, **facts):
    (path,) = out.rglob(f"{id}_desc-{score.replace('_', '')}_novelty.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    return path.with_suffix(".nii.gz")


def test_a_map_that_is_not_the_one_its_sidecar_tells_of_is_left_out(study):
    out, masks = study(2)
    for id in ("sub-01", "sub-02"):
        path = tell(out, id, "raw_b0")
        tell(out, id, "raw_b0", MapSha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert all("raw_b0" in rows for rows in evaluate(out, masks).scans.values())
    write(path, -read(path))
    found = evaluate(out, masks)
    first = json.loads(tell(out, "sub-01", "raw_b0").with_suffix("").with_suffix(".json").read_text())
    assert found.to_dict()["maps"] == {"sub-01": {"raw_b0": first["MapSha256"]}, "sub-02": {}}
    assert "raw_b0" in found.scans["sub-01"]
    assert "raw_b0" not in found.scans["sub-02"]
    own = hashlib.sha256(path.read_bytes()).hexdigest()
    (told,) = [w for w in found.warnings if w.startswith("sub-02_desc-rawb0_novelty.nii.gz: ")]
    assert f"its sha256 is {own}, its sidecar says " in told
    assert told.endswith("; score sub-02 again; sub-02 is left out of raw_b0")


def test_when_no_map_can_be_used_it_is_refused(study):
    out, masks = study(1)
    for score in ("raw_b0", "raw_dwi", "latent_euclidean", "vae_regularizer"):
        tell(out, "sub-01", score, MapSha256="0" * 64)
    with pytest.raises(ScanError, match=r"no scan can be evaluated: .*its sidecar says 000.* and 1 more"):
        evaluate(out, masks)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (
            {"DetectorSha256": "a1" * 32},
            {"DetectorSha256": "b2" * 32},
            "by different detectors: latent_euclidean (a1a1a1a1) against raw_b0, raw_dwi (b2b2b2b2);",
        ),
        (
            {"InputSha256": "c" * 64},
            {"InputSha256": "d" * 64},
            "from different images: latent_euclidean (cccccccc) against raw_b0, raw_dwi (dddddddd);",
        ),
        (
            {"BesideSha256": "c d e"},
            {"BesideSha256": "c d f"},
            "with different gradient or mask files: latent_euclidean against raw_b0, raw_dwi;",
        ),
        (
            {"Mask": {"Source": "x", "Voxels": 125}},
            {"Mask": {"Source": "x", "Voxels": 124}},
            "in different masks: latent_euclidean (125 voxels) against raw_b0, raw_dwi (124 voxels);",
        ),
    ],
)
def test_maps_of_one_scan_that_were_made_otherwise_are_told(study, one, other, words):
    out, masks = study(2)
    for id, facts in (("sub-01", one), ("sub-02", other)):
        # Between scans they may differ; vae_regularizer says nothing and is not compared.
        for score in ("latent_euclidean", "raw_b0", "raw_dwi"):
            tell(out, id, score, **facts)
    assert not any("its maps were made" in w for w in evaluate(out, masks).warnings)
    tell(out, "sub-02", "latent_euclidean", **one)
    (told,) = [w for w in evaluate(out, masks).warnings if "its maps were made" in w]
    assert told.startswith(f"sub-02: its maps were made {words}")


@pytest.mark.parametrize("facts", [{"Mask": None}, {"Mask": {"Voxels": "x"}}, {"DetectorSha256": [3]}])
def test_facts_of_another_type_are_not_compared(study, facts):
    out, masks = study(1)
    tell(out, "sub-01", "raw_b0", **facts)
    tell(out, "sub-01", "raw_dwi", DetectorSha256="a" * 64, Mask={"Voxels": 3})
    assert not any("its maps were made" in w for w in evaluate(out, masks).warnings)


def test_negative_and_soft_masks(study):
    out, masks = study(2)
    soft = lesion_of(1).astype(np.float32)
    soft[1, 1, 0], soft[1, 2, 0] = 0.25, 0.75
    write(masks / "sub-01_mask.nii.gz", soft)
    found = evaluate(out, masks)
    expected = int((soft > 0.5).sum())
    assert found.scans["sub-01"]["raw_b0"]["lesion_voxels"] == expected
    assert "sub-01_mask.nii.gz: 2 voxels between 0 and 1; more than 0.5 counts as lesion" in found.warnings
    soft[1, 1, 0] = -1
    write(masks / "sub-01_mask.nii.gz", soft)
    (masks / "sub-02_mask.nii.gz").unlink()
    with pytest.raises(
        ScanError, match=r"sub-01_mask.nii.gz: a lesion mask is 0 outside .* least value is -1"
    ):
        evaluate(out, masks)


def test_labels_255_and_2_are_lesion(study):
    out, masks = study(2)
    write(masks / "sub-01_mask.nii.gz", lesion_of(1) * np.uint8(255))
    write(masks / "sub-02_mask.nii.gz", lesion_of(2) * np.uint8(2))
    found = evaluate(out, masks)
    assert [rows["raw_b0"]["lesion_voxels"] for rows in found.scans.values()] == [30, 30]


def test_an_empty_brain_mask_leaves_its_scan_out(study):
    out, masks = study(2)
    write(next(out.rglob("sub-02_desc-brain_mask.nii.gz")), np.zeros(SHAPE, np.uint8))
    found = evaluate(out, masks)
    assert list(found.scans) == ["sub-01"]
    assert any(w.startswith("sub-02_desc-brain_mask.nii.gz: the brain mask is empty") for w in found.warnings)
    (masks / "sub-01_mask.nii.gz").unlink()
    with pytest.raises(ScanError, match=r"sub-02_desc-brain_mask.nii.gz: the brain mask is empty"):
        evaluate(out, masks)


def test_scans_without_masks_and_masks_without_scans_are_listed(study):
    out, masks = study(3)
    (masks / "sub-03_mask.nii.gz").unlink()
    write(masks / "sub-77_lesion.nii.gz", lesion_of(7))
    found = evaluate(out, masks)
    assert list(found.scans) == ["sub-01", "sub-02"]
    assert found.scans_without_mask == ("sub-03",)
    assert found.masks_without_scan == ("sub-77_lesion.nii.gz",)
    assert "1 scans have no lesion mask and are not evaluated: sub-03" in found.warnings
    assert found.to_dict()["scans_without_mask"] == ["sub-03"]


def test_no_fitting_mask_says_what_there_is(study):
    out, masks = study(2)
    for path in masks.iterdir():
        path.rename(masks / path.name.replace("sub", "patient"))
    with pytest.raises(
        ScanError, match=r"scans sub-01, sub-02; masks patient-01_mask.nii.gz, .*<scan>_mask"
    ) as caught:
        evaluate(out, masks)
    assert caught.value.code == "masks.none"


def test_a_score_that_lacks_a_scan_is_told(study):
    out, masks = study(3)
    next(out.rglob("sub-02_desc-vaeregularizer_novelty.json")).unlink()
    found = evaluate(out, masks)
    assert "vae_regularizer" not in found.scans["sub-02"]
    assert found.mean["vae_regularizer"]["scans"] == 2
    assert "sub-02: no map of vae_regularizer; their means are over fewer scans" in found.warnings
    assert any(w.startswith("sub-02_desc-vaeregularizer_novelty.nii.gz: no sidecar") for w in found.warnings)


def test_a_fifth_without_lesion_leaves_its_dice_undefined_and_says_so(study):
    out, masks = study(1)
    one = np.zeros(SHAPE, np.uint8)
    one[2, 3, 1] = 1
    write(masks / "sub-01_mask.nii.gz", one)
    place = np.flatnonzero(one[brain_of() > 0])[0]
    seed = next(s for s in range(50) if not draw_fifth(125, [s, *b"sub-01"])[place])
    found = evaluate(out, masks, settings=EvaluateSettings(seed=seed))
    assert math.isnan(found.scans["sub-01"]["raw_b0"]["dice_fifth"])
    assert any(
        w.startswith("the fifth of the voxels has no lesion voxel or no other for latent_euc")
        for w in found.warnings
    )
    assert 0 < found.scans["sub-01"]["raw_b0"]["dice_best"] <= 1


def test_settings_are_checked():
    for wrong in ({"seed": -1}, {"resamples": 0}, {"level": 1.0}):
        with pytest.raises(
            SettingsError, match="evaluation needs seed >= 0, resamples >= 1 and 0 < level < 1"
        ):
            EvaluateSettings(**wrong)
    for wrong in ({"slice_axis": "x"}, {"diseased_voxels": 0}, {"found_share": 1.1}):
        (value,) = wrong.values()
        with pytest.raises(SettingsError, match=f"slice_axis I, J or K, diseased_voxels .*{value}"):
            EvaluateSettings(**wrong)
