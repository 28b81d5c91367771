"""Two scores' maps rated as one: against closed forms, scipy, and lesions planted for either alone."""

import csv
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from lesion_study import add_scan, brain_of, lesion_of, make_study, noisy, read, scores_of, write
from scipy.stats import combine_pvalues, rankdata
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner

from mednovelty.cli import app
from mednovelty.errors import SettingsError
from mednovelty.evaluation import EvaluateSettings, evaluate
from mednovelty.evaluation.files import find_maps
from mednovelty.evaluation.listing import lesions_tsv, slices_tsv
from mednovelty.evaluation.together import SharedLesions, shared_lesions, surprise
from mednovelty.io.guard import sha256_of_file

A, B = "latent_euclidean", "raw_b0"
FAST = EvaluateSettings(resamples=50)


def tell(out, id, score, **more):
    """Add to what a sidecar tells; ``Score__x`` goes into its ``Score``."""
    path = out.joinpath(*id.split("_")) / "dwi" / f"{id}_desc-{score.replace('_', '')}_novelty.json"
    told = json.loads(path.read_text())
    for key, value in more.items():
        part, _, inner = key.partition("__")
        if inner:
            told.setdefault(part, {})[inner] = value
        else:
            told[part] = value
    path.write_text(json.dumps(told))


def test_ranks_are_shared_by_equals_and_become_tail_probabilities():
    # Ranks 4, 1, 2.5, 2.5 of m = 4: 1 - r = (m - rank + 1/2) / m = 1/8, 7/8, 1/2, 1/2.
    scores, seen = np.array([3.0, -9.0, 2.0, 2.0, 7.0]), np.array([True, True, True, True, False])
    expected = [math.log(8), math.log(8 / 7), math.log(2), math.log(2), 0.0]
    np.testing.assert_allclose(surprise(scores, seen), expected, rtol=1e-15)
    # Only the order counts, and infinities have a place in it.
    stretched = np.array([np.inf, -np.inf, 2e9, 2e9, np.inf])
    np.testing.assert_allclose(surprise(stretched, seen), expected, rtol=1e-15)
    assert not surprise(scores, np.zeros(5, bool)).any()


def test_the_combination_is_half_of_fishers_statistic_in_every_voxel(tmp_path):
    out, masks = make_study(tmp_path, 3)
    found = evaluate(out, masks, together=(A, B), settings=FAST)
    name = f"{A}+{B}"
    for id in ("sub-01", "sub-02", "sub-03"):
        (a, labels), (b, _) = (scores_of(out, masks, id, score) for score in (A, B))
        p = [1 - (rankdata(values) - 0.5) / values.size for values in (a, b)]
        fisher = np.array([combine_pvalues(pair, "fisher").statistic for pair in np.transpose(p)]) / 2
        row = found.scans[id][name]
        assert row["auroc"] == pytest.approx(roc_auc_score(labels, fisher), abs=1e-12)
        assert row["ap"] == pytest.approx(average_precision_score(labels, fisher), abs=1e-12)
        assert np.abs(fisher[labels] - row["dice_best_threshold"]).min() < 1e-9
    assert found.pooled[name]["scans"] == 3
    # Nothing is written for it.
    assert not list(out.rglob("*+*"))


def test_voxels_that_one_score_has_not_seen_count_by_the_other_alone(tmp_path):
    out, masks = make_study(tmp_path, 1)
    brain, folder = brain_of() > 0, out / "sub-01" / "dwi"
    path = folder / f"sub-01_desc-{A.replace('_', '')}_novelty.nii.gz"
    a = read(path).astype(np.float32)
    a[:, :, 1] = 0
    write(path, a)
    tell(out, "sub-01", A, UnscoredVoxels=int(brain[:, :, 1].sum()), SliceAxis="K")
    found = evaluate(out, masks, together=(A, B), settings=FAST)
    (a, labels), (b, _) = (scores_of(out, masks, "sub-01", score) for score in (A, B))
    unseen = np.nonzero(brain)[2] == 1
    of_a = np.zeros(a.size)
    of_a[~unseen] = -np.log(1 - (rankdata(a[~unseen]) - 0.5) / (~unseen).sum())
    both = of_a - np.log(1 - (rankdata(b) - 0.5) / b.size)
    row = found.scans["sub-01"][f"{A}+{B}"]
    assert row["auroc"] == pytest.approx(roc_auc_score(labels, both), abs=1e-12)
    assert row["unscored_voxels"] == 0  # One of the two has seen every voxel.
    assert found.scans["sub-01"][A]["unscored_voxels"] == unseen.sum() > 0
    # Seen by neither: told, and lowest of all.
    path = folder / f"sub-01_desc-{B.replace('_', '')}_novelty.nii.gz"
    b = read(path).astype(np.float32)
    b[:, :, 1] = 0
    write(path, b)
    tell(out, "sub-01", B, UnscoredVoxels=int(brain[:, :, 1].sum()), SliceAxis="K")
    row = evaluate(out, masks, together=(A, B), settings=FAST).scans["sub-01"][f"{A}+{B}"]
    assert row["unscored_voxels"] == unseen.sum()
    assert row["unscored_lesion_voxels"] == (unseen & labels).sum() > 0


def planted(root, patients=6):
    """Write patients with five lesions of a voxel: for A, for B, for both, for both together, for nobody."""
    shape = (12, 11, 9)
    places = [(1, 1, 1), (1, 5, 1), (1, 9, 1), (5, 1, 1), (5, 5, 1)]
    # Of the background, B falls where A rises: what is high in both stands out from it in both together.
    for number in range(patients):
        u = (np.random.default_rng(number).permutation(np.prod(shape)) + 0.5).reshape(shape) / np.prod(shape)
        a, b = u.copy(), 1 - u
        for place, in_a, in_b in zip(places, (2, 0.5, 2, 0.97, 0.5), (0.5, 2, 2, 0.97, 0.5), strict=True):
            a[place], b[place] = in_a, in_b
        lesion = np.zeros(shape, np.uint8)
        lesion[tuple(np.transpose(places))] = 1
        id = f"sub-{number}"
        add_scan(root / "out", id, {"a": a, "b": b}, np.ones(shape, np.uint8))
        write(root / "masks" / f"{id}_mask.nii.gz", lesion)
    return root / "out", root / "masks"


def test_lesions_are_counted_by_who_finds_them_at_each_scores_own_threshold(tmp_path):
    out, masks = planted(tmp_path)
    found = evaluate(out, masks, together=["a", "b"], settings=FAST)
    told = found.to_dict()["together"]["a+b"]
    assert told["scores"] == ["a", "b"]
    # One patient of six gives the thresholds, five are reported on. At 1 % of the background a score finds
    # what is above 0.99; -log(1 - r) of 0.97 twice is 7.0, and 1 % of -log(u (1 - u)) are above 5.3.
    shared = SharedLesions(**told["lesions"]["fpr_1_in_100"])
    assert (shared.both, shared.together, shared.none) == (5, 5, 5)
    assert (shared.first, shared.second, shared.lost, shared.lesions) == (5, 5, 0, 25)
    for point in told["lesions"].values():
        assert SharedLesions(**point).lesions == 25
    text = found.to_markdown()
    assert "| threshold | both | only a | only b | only together | none | lost together |" in text
    assert "| 1 % flagged | 5 | 5 | 5 | 5 | 5 | 0 |" in text
    assert "**Found by a, by b, by both as one: 25 lesions**" in text


def test_every_way_to_be_found_is_counted_once():
    # The eight ways that A, B and A+B can find a lesion or not, each another number of times, in two scans.
    ways = (
        np.repeat([(i >> 2 & 1, i >> 1 & 1, i & 1) for i in range(8)], [1, 2, 3, 4, 5, 6, 7, 8], axis=0) > 0
    )
    halves = {"sub-1": ways[::2], "sub-2": ways[1::2], "sub-3": ways[:0]}
    rated = {
        score: SimpleNamespace(detections={id: {"dice": SimpleNamespace(found=half[:, column])}
                                           for id, half in halves.items()})
        for column, score in enumerate(("a", "b", "a+b"))
    }  # fmt: skip
    found = SimpleNamespace(together={"a+b": ("a", "b")}, rated=rated)
    expected = SharedLesions(both=15, first=11, second=7, together=2, none=1, lost=3 + 5 + 7)
    assert shared_lesions(found, "a+b", "dice") == expected
    assert expected.lesions == 36
    assert shared_lesions(found, "a+b", "fpr_1_in_100") is None


def test_gains_are_against_the_better_of_both_scan_by_scan(tmp_path):
    out, masks = make_study(tmp_path, 7)
    found = evaluate(out, masks, together=[(B, A), "vae_regularizer,raw_b0"], settings=FAST)
    assert list(found.together) == [f"{B}+{A}", f"vae_regularizer+{B}"]
    told = found.to_dict()["together"]
    for name, better in ((f"{B}+{A}", A), (f"vae_regularizer+{B}", B)):
        gain = told[name]["mean"]["ap"]
        by = [rows[name]["ap"] - rows[better]["ap"] for rows in found.scans.values()]
        assert gain["better"] == better
        assert gain["ahead"] == pytest.approx(np.mean(by))
        assert gain["interval"][0] < gain["ahead"] < gain["interval"][1]
        assert gain["value"] == pytest.approx(found.mean[better]["ap"])
        pooled = told[name]["pooled"]["auroc"]
        assert pooled["ahead"] == pytest.approx(found.pooled[name]["auroc"] - found.pooled[better]["auroc"])
    # Noise adds nothing to the better one: it is said to be below.
    text = found.to_markdown()
    assert told[f"vae_regularizer+{B}"]["mean"]["auroc"]["ahead"] < 0
    assert f"vae_regularizer+{B} (combination) against the better of both: AUROC 0." in text
    assert f"below {B} (0." in text


def test_scans_that_lack_one_of_the_maps_have_no_part_in_the_gain(tmp_path):
    out, masks = make_study(tmp_path, 5)
    for path in (out / "sub-02" / "dwi").glob(f"*desc-{A.replace('_', '')}_*"):
        path.unlink()
    found = evaluate(out, masks, together=(A, B), settings=FAST)
    name = f"{A}+{B}"
    assert "sub-02" not in found.rated[name].rows
    gain = found.to_dict()["together"][name]["mean"]["auroc"]
    common = [id for id in found.scans if id != "sub-02"]
    best = max((A, B), key=lambda score: np.mean([found.scans[id][score]["auroc"] for id in common]))
    by = [found.scans[id][name]["auroc"] - found.scans[id][best]["auroc"] for id in common]
    assert (gain["better"], gain["scans"]) == (best, 4)
    assert gain["ahead"] == pytest.approx(np.mean(by))
    # Pooled, B has a scan more: not comparable where that is the better one, and never guessed.
    assert found.to_dict()["together"][name]["pooled"]["auroc"]["ahead"] is None
    assert "AUROC cannot be compared" in found.to_markdown()


def test_a_combination_is_named_so_everywhere_and_is_trivial_only_where_both_are(tmp_path):
    out, masks = make_study(tmp_path, 5)
    found = evaluate(out, masks, together=[(B, A), (B, "raw_dwi")], settings=FAST)
    assert not found.is_trivial(f"{B}+{A}")
    assert found.is_trivial(f"{B}+raw_dwi")
    assert found.named(f"{B}+{A}") == f"{B}+{A} (combination)"
    assert found.named(B) == B
    assert f"| `{B}+{A}` (combination) |" in found.to_markdown()
    assert f"| `{B}+raw_dwi` (combination) (trivial) |" in found.to_markdown()
    tables = [found.to_csv().splitlines()]
    tables += [text(found).splitlines() for text in (lesions_tsv, slices_tsv)]
    for lines, delimiter in zip(tables, ",\t\t", strict=True):
        kinds = {row["score"]: row["kind"] for row in csv.DictReader(lines, delimiter=delimiter)}
        assert kinds[f"{B}+{A}"] == "combination"
        assert kinds[A] == kinds[B] == ""


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("raw_b0", "raw_bo"), "together: no map of 'raw_bo'; did you mean 'raw_b0'?"),
        (("raw_b0", "xyz"), "no map of 'xyz'; there are latent_euclidean, raw_b0, raw_dwi, vae_regularizer"),
        (("raw_b0", "raw_b0"), "together needs two different scores, as A,B; got 'raw_b0,raw_b0'"),
        (["raw_b0,raw_dwi,vae_regularizer"], "needs two different scores"),
        (["raw_b0,"], "needs two different scores"),
        (["raw_b0"], "needs two different scores"),
    ],
)
def test_what_cannot_be_combined_is_refused(tmp_path, asked, said):
    out, masks = make_study(tmp_path, 1)
    with pytest.raises(SettingsError) as error:
        evaluate(out, masks, together=asked)
    assert said in str(error.value)


def test_scores_of_different_scans_cannot_be_combined(tmp_path):
    for number, score in ((1, "a"), (2, "b")):
        add_scan(tmp_path / "out", f"sub-{number}", {score: noisy(lesion_of(number), number, 1.0)})
        write(tmp_path / "masks" / f"sub-{number}_mask.nii.gz", lesion_of(number))
    with pytest.raises(SettingsError, match="no scan has maps of both a and b"):
        evaluate(tmp_path / "out", tmp_path / "masks", together=("a", "b"))


def test_maps_of_two_detectors_side_by_side_share_their_baselines(tmp_path):
    """Each of two score runs has written the same baseline; only to combine are detectors mixed."""
    lesion = lesion_of(1)
    raw = noisy(lesion, 9, 1.0)
    for run, score in (("one", "a"), ("two", "b")):
        add_scan(
            tmp_path / "out" / run, "sub-1", {score: noisy(lesion, len(run + score), 1.5), "raw_b0": raw}
        )
        for name in (score, "raw_b0"):
            tell(tmp_path / "out" / run, "sub-1", name, DetectorSha256=run * 3)
    for run in ("one", "two"):
        path = tmp_path / "out" / run / "sub-1" / "dwi" / "sub-1_desc-rawb0_novelty.nii.gz"
        tell(tmp_path / "out" / run, "sub-1", "raw_b0", MapSha256=sha256_of_file(path))
    write(tmp_path / "masks" / "sub-1_mask.nii.gz", lesion)
    assert list(find_maps(tmp_path / "out")[0]["sub-1"].maps) == ["a", "raw_b0", "b"]
    alone = evaluate(tmp_path / "out", tmp_path / "masks", settings=FAST)
    assert any("by different detectors" in warning for warning in alone.warnings)
    both = evaluate(tmp_path / "out", tmp_path / "masks", together=("a", "b"), settings=FAST)
    assert not any("by different detectors" in warning for warning in both.warnings)
    assert both.mean["raw_b0"]["auroc"] == alone.mean["raw_b0"]["auroc"]


def test_the_command_takes_several_and_says_what_it_found(tmp_path):
    out, masks = make_study(tmp_path, 5)
    words = [
        "evaluate",
        str(out),
        "--masks",
        str(masks),
        "--together",
        f"{A},{B}",
        "--together",
        f"{B},raw_dwi",
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "only together" in result.output
    assert "(combination)" in result.output
    panels = out / "evaluation" / "panels.png"
    assert panels.is_file()
    assert (out / "evaluation" / f"roc_{A}-{B}.png").is_file()
    told = json.loads((out / "evaluation" / "evaluation.json").read_text())
    assert sorted(told["together"]) == [f"{A}+{B}", f"{B}+raw_dwi"]
    bad = CliRunner().invoke(app, [*words[:4], "--together", A, "--together", B])
    assert bad.exit_code == 2
