"""What a detector takes to be abnormal, and who told it: sidecars, card, every table and picture."""

import csv
import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from cohorts import tiny_cohort, tiny_detector
from lesion_study import make_study
from test_together import FAST, A, B, tell

import mednovelty as mn
from mednovelty.abnormality import (
    annotation_of,
    found_section,
    is_own,
    is_semi_supervised,
    prior_section,
    told_of_score,
)
from mednovelty.evaluation import evaluate
from mednovelty.evaluation.listing import lesions_tsv, slices_tsv
from mednovelty.model_card import model_card
from mednovelty.outputs import OutputNames, sidecar_of
from mednovelty.report import figures
from mednovelty.report.panels import panels_figure, read_row

PRIOR = {
    "words": "bright blobs of 4 to 40 mm",
    "ranges": {"diameter_mm": [4, 40], "contrast": [0.5, 2.5], "colour|s": "bright"},
    "held_out": {"words": "dark ellipsoids", "ranges": {"shift": {"T1w": [-2, -1]}}},
}
FOUND = [
    {"family": "blobs", "trained_on": True, "auroc": 0.98, "ap": 0.71},
    {"family": "texture|s", "trained_on": False, "auroc": 0.512, "ap": float("nan")},
]


def detector_like(offers=("heatmap",), semi=(-1, 0, 1), annotations=(), **summary):
    """Return a detector whose method offers what is said, with scans annotated so."""
    detector = tiny_detector()[0]
    scans = list(detector.scans)
    for i, words in enumerate(annotations):
        scans[i] = replace(scans[i], annotation=words)
    method = SimpleNamespace(offers=offers, lacks=("encode", "decode"), semi_labels=semi)
    fitted = replace(detector.fitted, method=method, summary={**detector.fitted.summary, **summary})
    return replace(detector, fitted=fitted, scans=tuple(scans))


def about(name, trivial=False):
    return {"name": name, "trivial": trivial}


def test_only_scores_of_the_methods_own_making_have_its_prior():
    detector = detector_like(prior=PRIOR)
    assert told_of_score(detector, about("fcdd_map")) == {"semi_supervised": False, "prior": PRIOR}
    # It asks for distributions, which many models offer; a contrast's intensity asks for nothing.
    for name in ("latent_euclidean", "raw_b0", "raw_FLAIR"):
        assert not is_own(detector, name)
        assert "prior" not in told_of_score(detector, about(name))
    assert not is_own(replace(detector, fitted=tiny_detector()[0].fitted), "latent_euclidean")
    assert "prior" not in told_of_score(detector_like(), about("fcdd_map"))


def test_who_was_shown_what_is_abnormal_is_semi_supervised():
    two = detector_like(annotations=("5 voxels of its lesion are labelled as abnormal", "normal"))
    told = told_of_score(two, about("fcdd_map"))
    assert told == {"semi_supervised": True, "annotated_scans": 2, "outliers": 0}
    # A trivial baseline looks at no model: nobody taught it.
    assert told_of_score(two, about("raw_FLAIR", trivial=True)) == {"semi_supervised": False}
    assert told_of_score(detector_like(outliers=130), about("fcdd_map"))["outliers"] == 130
    assert not is_semi_supervised(detector_like())
    assert not is_semi_supervised(detector_like(outliers=0))
    # Classes of normal scans, of a method without labels of anomalies, say nothing of what is abnormal.
    assert not is_semi_supervised(detector_like(semi=(), annotations=("labelled as old",)))


def test_sidecars_tell_it_of_each_score_and_of_the_very_scan(tmp_path):
    files = mn.scan_folder(tiny_cohort().controls)[0]
    detector = detector_like(annotations=("3 of its samples",), prior=PRIOR)
    scan = mn.read_scan(files)
    annotated = next(one for one in detector.scans if one.annotation)
    place = OutputNames(tmp_path, "sub")
    novelty = SimpleNamespace(score="fcdd_map", about=about("fcdd_map"), fallbacks=())
    told = sidecar_of(detector, replace(scan, id=annotated.id, sha256=""), novelty, place, {})
    assert told["Score"] == {"name": "fcdd_map", "trivial": False, "semi_supervised": True,
                             "annotated_scans": 1, "outliers": 0, "prior": PRIOR}  # fmt: skip
    assert told["AnnotatedInTraining"] == "3 of its samples"
    assert novelty.about == about("fcdd_map")
    # Renamed, it is still known by its bytes; another scan is not.
    assert annotation_of(detector, replace(scan, id="renamed", sha256=annotated.sha256)) == "3 of its samples"
    assert annotation_of(detector, replace(scan, id="other", sha256="f" * 64)) is None
    assert annotation_of(detector, replace(scan, id="other", sha256="")) is None


def test_the_card_says_what_it_looks_for_and_what_it_is_blind_to():
    card = model_card(
        detector_like(annotations=("a lesion",), prior=PRIOR, found=FOUND, outliers=1), "0" * 64
    )
    lines = card.splitlines()
    assert "## What it takes to be abnormal" in lines
    assert "It was trained to find bright blobs of 4 to 40 mm; it is blind to what looks otherwise." in lines
    assert "* diameter mm: 4 to 40" in lines
    assert "* contrast: 0.5 to 2.5" in lines
    assert "* colour\\|s: bright" in lines
    assert "Judged, without labels, by anomalies that it was not trained on: dark ellipsoids." in lines
    assert "* shift: T1w -2 to -1" in lines
    assert "* Semi-supervised: trained with 1 annotated scan and 1 outlier" in lines
    start = lines.index("## What it finds, and what it is blind to")
    table = [line for line in lines[start:] if line.startswith("|")]
    assert table == ["| family | trained on | AUROC | AP |", "| --- | --- | ---: | ---: |",
                     "| blobs | yes | 0.980 | 0.710 |", "| texture\\|s | no | 0.512 | - |"]  # fmt: skip
    assert "'family'" not in card
    assert "prior:" not in card
    plain = model_card(tiny_detector()[0], "0" * 64)
    assert "abnormal" not in plain
    assert "Semi-supervised" not in plain
    assert prior_section({}) == found_section({"found": []}) == []


def taught(tmp_path, scans=5):
    """Return a study whose first score is of a semi-supervised detector that makes its own anomalies."""
    out, masks = make_study(tmp_path, scans)
    for number in range(1, scans + 1):
        for score in (A, B):
            trivial = score == B
            more = {} if trivial else {"Score__prior": PRIOR, "Score__annotated_scans": 2}
            tell(out, f"sub-{number:02d}", score, Score__semi_supervised=not trivial, Score__trivial=trivial,
                 Detector__Method="synthetic_lesions", **more)  # fmt: skip
    return out, masks


def test_every_table_names_a_semi_supervised_score_so(tmp_path):
    out, masks = taught(tmp_path)
    found = evaluate(out, masks, together=(A, B), settings=FAST)
    named = f"{A} (semi-supervised)"
    assert found.named(A) == named
    assert found.named(B) == B
    assert found.named(f"{A}+{B}") == f"{A}+{B} (combination, semi-supervised)"
    text = found.to_markdown()
    # Four tables have a row of each score.
    assert text.count(f"| `{A}` (semi-supervised) |") == 4
    assert text.count(f"| `{A}+{B}` (combination, semi-supervised) |") == 4
    assert f"Found by {named}, by {B}, by both as one" in text
    assert f"| both | only {named} | only {B} | only together |" in text
    assert f"against the better of both: AUROC {found.mean[f'{A}+{B}']['auroc']:.3f}, " in text
    assert f"above {named} (" in text or f"below {named} (" in text
    told = found.to_dict()
    assert told["semi_supervised"] == [A, f"{A}+{B}"]
    assert told["names"][A] == named
    assert told["against_trivial"][A].startswith(f"{named} beats raw_b0 in AUROC")
    assert f"is beaten by {named} by" in " ".join(told["verdicts"] + told["verdicts_pooled"])
    tables = [(found.to_csv(), ","), (lesions_tsv(found), "\t"), (slices_tsv(found), "\t")]
    for table, delimiter in tables:
        kinds = {row["score"]: row["kind"] for row in csv.DictReader(table.splitlines(), delimiter=delimiter)}
        assert (kinds[A], kinds[B]) == ("semi-supervised", "")
        assert kinds[f"{A}+{B}"] == "combination; semi-supervised"


def test_the_terminal_names_it_below_the_score(tmp_path):
    from rich.console import Console

    out, masks = taught(tmp_path)
    screen = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    screen.print(evaluate(out, masks, settings=FAST).table())
    shown = screen.export_text()
    assert shown.count("(semi-supervised)│") == 4
    flat = " ".join(shown.split())
    assert (
        f"synthetic_lesions ({A} (semi-supervised)) was trained to find: bright blobs of 4 to 40 mm; it "
        "is blind to what looks otherwise." in flat
    )


def test_what_was_looked_for_stands_below_the_table_once_for_all_scores_of_a_method(tmp_path):
    out, masks = taught(tmp_path)
    for number in range(1, 6):
        tell(out, f"sub-{number:02d}", "vae_regularizer", Detector__Method="synthetic_lesions",
             Score__prior={"words": PRIOR["words"]} if number < 5 else {"words": "dark blobs."})  # fmt: skip
    found = evaluate(out, masks, settings=FAST)
    lines = [line for line in found.to_markdown().splitlines() if "was trained to find" in line]
    assert lines == [
        f"* synthetic_lesions ({A} (semi-supervised), vae_regularizer) was trained to find: bright blobs of "
        "4 to 40 mm; it is blind to what looks otherwise.",
        "* synthetic_lesions (vae_regularizer) was trained to find: dark blobs; it is blind to what looks "
        "otherwise.",
    ]
    assert found.to_dict()["trained_to_find"][1]["words"] == "dark blobs."


def test_pictures_name_it_in_legends_titles_and_panels(tmp_path, monkeypatch):
    out, masks = taught(tmp_path)
    found = evaluate(out, masks, together=(A, B), settings=FAST)
    drawn = {}
    monkeypatch.setattr(
        figures, "plot_roc", lambda lines, path, title: drawn.update({path.name: (lines, title)})
    )
    monkeypatch.setattr(
        figures, "plot_histograms", lambda curves, path, title, at: drawn.update({path.name: title})
    )
    figures.draw_evaluation(found, tmp_path)
    labels = [line.label.partition(" (0.")[0] for line in drawn["roc.png"][0]]
    assert set(labels) >= {f"{A} (semi-supervised)", B, f"{A}+{B} (combination, semi-supervised)"}
    assert drawn[f"roc_{A}.png"][1] == f"{A} (semi-supervised): ROC by voxel"
    assert drawn[f"histogram_{A}.png"] == f"{A} (semi-supervised): lesion and other voxels"
    row = read_row(*found.sources["sub-01"], [A, B, f"{A}+{B}"])
    titles = [axes.get_title() for axes in panels_figure([row], [A, B, f"{A}+{B}"]).axes[1:]]
    rows = found.scans["sub-01"]
    assert titles == [
        f"{A}, AP {rows[A]['ap']:.3f}\n(semi-supervised)",
        f"{B}, AP {rows[B]['ap']:.3f}",
        f"{A}\n+{B}, AP {rows[f'{A}+{B}']['ap']:.3f}\n(combination, semi-supervised)",
    ]


def test_a_scan_that_its_detector_was_told_of_is_no_test(tmp_path):
    out, masks = taught(tmp_path, 3)
    tell(out, "sub-02", A, AnnotatedInTraining="7 voxels of its lesion are labelled as abnormal")
    warnings = evaluate(out, masks, settings=FAST).warnings
    assert (
        f"sub-02: the detector of {A} was trained with annotations of this very scan (7 voxels of its lesion "
        "are labelled as abnormal); its maps of this scan are no test" in warnings
    )
    assert sum("this very scan" in warning for warning in warnings) == 1


def test_scans_whose_outlines_were_planted_are_no_test(tmp_path):
    """In any family of a mixture; by the mask's own bytes."""
    out, masks = taught(tmp_path, 3)
    own = hashlib.sha256(next(masks.rglob("*sub-02*.nii.gz")).read_bytes()).hexdigest()
    ranges = {"hyperintense": {"outlines": {"masks": ["0" * 64, own]}}, "texture": {"sigma": [1, 2]}}
    for id in ("sub-01", "sub-02", "sub-03"):
        tell(out, id, A, Score__prior={"words": "bright blobs", "ranges": ranges})
    assert [warning for warning in evaluate(out, masks, settings=FAST).warnings if "outlines" in warning] == [
        f"{A}: the outlines of the lesions of sub-02 were planted when its detector was trained "
        "(--lesion-shapes); it may know their shapes, so leave those scans out of a test"
    ]


def test_one_semi_supervised_map_names_them_all_and_is_told(tmp_path):
    out, masks = taught(tmp_path, 3)
    tell(out, "sub-02", A, Score__semi_supervised=False)
    found = evaluate(out, masks, settings=FAST)
    assert found.named(A) == f"{A} (semi-supervised)"
    assert (
        f"{A}: 2 of its 3 maps are of detectors that were shown annotated scans, the others not; all of it "
        "counts as semi-supervised" in found.warnings
    )


@pytest.mark.parametrize("odd", ["yes", 1, None, []])
def test_sidecars_that_say_nothing_or_nonsense_change_no_name(tmp_path, odd):
    out, masks = make_study(tmp_path, 2)
    expected = evaluate(out, masks, settings=FAST)
    tell(out, "sub-01", A, Score__semi_supervised=odd, Score__prior=odd, AnnotatedInTraining=odd,
         Detector__Method=odd)  # fmt: skip
    found = evaluate(out, masks, settings=FAST)
    assert found.named(A) == A
    assert found.to_markdown() == expected.to_markdown()
    assert json.loads(found.to_json())["trained_to_find"] == []
    assert np.isclose(found.mean[A]["auroc"], expected.mean[A]["auroc"])
