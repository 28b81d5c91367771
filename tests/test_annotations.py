"""What is known of scans: who takes which labels, which voxels, slices and windows are labelled."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_gathering import FAST, lesion_in, people
from test_image_recipes import cohort, head  # noqa: F401 - a fixture

from mednovelty.annotation_settings import AnnotationSettings
from mednovelty.annotations import Annotations, Labels, labels_in, with_what_is_known
from mednovelty.errors import ScanError, SettingsError
from mednovelty.gathering import gather_scans
from mednovelty.image_gathering import gather_images
from mednovelty.io.label_table import Entry
from mednovelty.io.scan_folder import scan_folder
from mednovelty.lesion_masks import lesions_in
from mednovelty.methods.fcdd import FCDDMethod
from mednovelty.methods.hyperspherical import HypersphericalSettings
from mednovelty.model_folder import fit_settings

SAD = replace(FAST, method="deep_sad", method_settings=None)
HYPERSPHERICAL = replace(FAST, method="hyperspherical", method_settings=HypersphericalSettings())


def entries(**labels):
    return {name: Entry(label, line) for line, (name, label) in enumerate(labels.items(), 2)}


def test_semi_labels_are_plus_one_minus_one_and_none():
    found = labels_in(
        entries(a="normal", b="Anomalous", c="unlabelled", d=""), ["a", "b", "c", "e"], SAD, "t.tsv"
    )
    assert found == Labels({"a": 1, "b": -1, "c": 0})


def test_classes_are_numbered_by_name():
    found = labels_in(entries(a="young", b="old", c="young"), ["a", "b", "c"], HYPERSPHERICAL, "t.tsv")
    assert found == Labels({"a": 1, "b": 0, "c": 1}, ("old", "young"))
    known = Annotations.of(HYPERSPHERICAL, 0, labels=found)
    assert (
        with_what_is_known(HYPERSPHERICAL, known, images=False, gradients=True).method_settings.classes == 2
    )


@pytest.mark.parametrize(
    ("settings", "labels", "kind", "code", "said"),
    [
        (FAST, {"a": "normal"}, SettingsError, "labels.method",
         "t.tsv: the method vae takes no labels: .* deep_sad, hsc, fcdd and synthetic_lesions learn from"),
        (replace(FAST, method="deep_svdd", method_settings=None), {"a": "normal"}, SettingsError,
         "labels.method", "method deep_svdd takes no labels"),
        (SAD, {"a": "normal", "b": "odd"}, ScanError, "labels.value",
         "t.tsv, line 3: b is 'odd'; the method deep_sad takes normal, anomalous, unlabelled"),
        (HYPERSPHERICAL, {"a": "x"}, ScanError, "labels.missing", "t.tsv: b has no class"),
        (HYPERSPHERICAL, {"a": "x", "b": "x"}, SettingsError, "labels.classes", r"1 classes \(x\)"),
        (replace(HYPERSPHERICAL, method_settings=HypersphericalSettings(classes=3)), {"a": "x", "b": "y"},
         SettingsError, "labels.classes", r"2 classes \(x, y\); method_settings.classes is 3"),
    ],
)  # fmt: skip
def test_labels_that_a_method_does_not_take_are_refused(settings, labels, kind, code, said):
    with pytest.raises(kind, match=said) as caught:
        labels_in(entries(**labels), ["a", "b"], settings, "t.tsv")
    assert caught.value.code == code
    assert caught.value.exit_code == (2 if kind is SettingsError else 3)


def test_the_api_refuses_what_the_command_refuses():
    for settings, labels in (
        (FAST, Labels({"a": 1})),
        (SAD, Labels({"a": 0}, ("x", "y"))),
        (HYPERSPHERICAL, Labels({"a": 1})),
    ):
        known = Annotations.of(settings, 0, labels=labels)
        with pytest.raises(SettingsError, match="takes no such labels") as caught:
            with_what_is_known(settings, known, images=False, gradients=True)
        assert caught.value.code == "labels.method"
    three = replace(HYPERSPHERICAL, method_settings=HypersphericalSettings(classes=3))
    with pytest.raises(SettingsError, match=r"classes=3, and no scan's class was given"):
        with_what_is_known(three, Annotations.of(three, 0), images=False, gradients=True)


def gathered(scans, settings=SAD, seed=0, **known):
    return gather_scans(scans, settings, seed, known=Annotations.of(settings, seed, **known))


def rows_of(voxels, scan):
    return voxels.table.array()[voxels.table.scans[scan]]


def all_rows_of(voxels, scan):
    """Return the rows of the only annotated scan, those that are held out last."""
    return np.concatenate([rows_of(voxels, scan), rows_of(voxels, f"held out of {scan}")])


def test_labels_of_scans_reach_their_voxels():
    scans = people(5)
    labels = Labels({"sub-0": 1, "sub-3": 0})
    with gathered(scans, labels=labels) as voxels:
        for scan in scans:
            assert (rows_of(voxels, scan.id)[:, -1] == labels.of.get(scan.id, 0)).all()
        told = {scan.id: scan.annotation for scan in voxels.scans}
        assert told == {"sub-0": "normal", "sub-1": "", "sub-2": "", "sub-3": "", "sub-4": ""}
    classes = Labels({scan.id: n % 2 for n, scan in enumerate(scans)}, ("x", "y"))
    with gathered(scans, HYPERSPHERICAL, labels=classes) as voxels:
        assert voxels.table.channels == scans[0].n_channels + 1
        assert (rows_of(voxels, "sub-1")[:, -1] == 1).all()
        assert (rows_of(voxels, "sub-4")[:, -1] == 0).all()
        assert {scan.id: scan.annotation for scan in voxels.scans}["sub-1"] == "y"


def test_only_so_many_voxels_of_a_lesion_are_labelled_and_the_others_left_out():
    few = replace(SAD, annotations=AnnotationSettings(labelled_voxels=11))
    scans, chosen = people(4), []

    def lesion_of(scan):
        return lesion_in(scan) if scan.id == "sub-2" else None

    for seed in (0, 0, 1):
        with gathered(scans, seed=seed, lesion_of=lesion_of) as voxels:
            every = all_rows_of(voxels, "sub-2")
        with gathered(scans, few, seed, lesion_of=lesion_of) as voxels:
            rows = all_rows_of(voxels, "sub-2")
            assert (rows[:, -1] == -1).sum() == 11
            assert len(rows) == len(every) - 40 + 11
            assert "sub-2: 11 voxels of its lesion are labelled as abnormal, 29 left out" in voxels.notes
            inside = np.flatnonzero(every[:, -1] == -1)
            first = rows[rows[:, -1] == -1][:, :-1]
            chosen.append(
                [
                    int(np.flatnonzero(np.isclose(every[inside, :-1], row, rtol=1e-4).all(1))[0])
                    for row in first
                ]
            )
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(set(chosen[0])) == 11


def test_lesions_of_scans_that_are_not_called_anomalous_are_left_out():
    scans = people(4)

    def lesion_of(scan):
        return lesion_in(scan) if scan.id in ("sub-1", "sub-2") else None

    with gathered(scans, lesion_of=lesion_of, labels=Labels({"sub-2": -1})) as voxels:
        assert (all_rows_of(voxels, "sub-2")[:, -1] == -1).sum() == 40
        assert len(rows_of(voxels, "sub-1")) == scans[1].n_voxels - 40
        assert (rows_of(voxels, "sub-1")[:, -1] == 0).all()
        assert {scan.id: scan.role for scan in voxels.scans}["sub-2"] == "training"
    apart = replace(SAD, annotations=AnnotationSettings(lesions="leave_out"))
    with gathered(scans, apart, lesion_of=lesion_of) as voxels:
        assert voxels.table.channels == scans[0].n_channels
        assert len(rows_of(voxels, "sub-2")) == scans[2].n_voxels - 40


def test_labels_that_contradict_masks_are_told():
    scans = people(4)
    labels = Labels({"sub-0": 1, "sub-1": -1, "sub-2": -1})

    def lesion_of(scan):
        empty = np.zeros(scan.mask.shape, bool)
        return {"sub-0": lesion_in(scan), "sub-1": empty}.get(scan.id)

    with gathered(scans, lesion_of=lesion_of, labels=labels) as voxels:
        assert list(voxels.table.scans) == ["sub-3"]
        told = " ".join(voxels.notes)
    assert "sub-0: is labelled as normal, and its mask has a lesion" in told
    assert "sub-1: is labelled as anomalous, and its mask has no lesion" in told
    assert "sub-2: is labelled as anomalous, and no mask says where" in told
    with pytest.raises(ScanError, match="sub-1: is labelled as anomalous, but most of its voxels") as caught:
        gathered(scans, labels=labels)
    assert caught.value.code == "labels.where"


def structural(cohort):  # noqa: F811
    return scan_folder(
        cohort / "scans", kind="structural", contrasts=("FLAIR", "T1w"), brain_masks=cohort / "brains"
    )


def image_settings(recipe, method, **tree):
    size = [24, 24] if recipe == "slices" else [16, 16, 8]
    return fit_settings({"method": method, "view_settings": {"size": size}, **tree}, where="t", recipe=recipe)


def images_of(cohort, tmp_path, settings, seed=0, **known):  # noqa: F811
    scans = structural(cohort)
    lesions = lesions_in(cohort / "masks", [files.id for files in scans], tmp_path, each=False)
    return gather_images(
        scans, settings, seed, known=Annotations.of(settings, seed, lesion_of=lesions, **known)
    )


@pytest.mark.parametrize("method", ["deep_sad", "hsc", "fcdd"])
def test_slices_with_enough_of_a_lesion_are_abnormal(cohort, tmp_path, method):  # noqa: F811
    settings = image_settings("slices", method)
    with images_of(cohort, tmp_path, settings) as images:
        assert images.table.channels == 2 * 24 * 24 + 1
        counts = {scan: (rows_of(images, scan)[:, -1] == -1).sum() for scan in images.table.scans}
        # Lesions are in slices k = 7, 8, 9 of 1 and 2; of 3 the mask is empty.
        assert (counts["sub-1"], counts["sub-2"], counts["sub-3"]) == (3, 3, 0)
        told = {scan.id: scan.annotation for scan in images.scans}
        assert "3 of its " in told["sub-1"]
        assert told["sub-3"] == ""
    strict = replace(settings, annotations=AnnotationSettings(abnormal_share=0.5))
    with images_of(cohort, tmp_path, strict) as images:
        # Too little for the label, too much for a normal: left out.
        assert (images.table.array()[:, -1] == 0).all()
        fewer = len(rows_of(images, "sub-1"))
    with images_of(cohort, tmp_path, settings) as images:
        assert len(rows_of(images, "sub-1")) == fewer + 3


@pytest.mark.parametrize("recipe", ["slices", "patches"])
def test_the_pixel_loss_is_told_where_lesions_are(cohort, tmp_path, recipe):  # noqa: F811
    settings = image_settings(recipe, "fcdd", method_settings={"loss": "pixel"})
    shape = (2, *settings.view_settings.size)
    with images_of(cohort, tmp_path, settings) as images:
        rows = images.table.array()
        model = FCDDMethod(settings.method_settings).build(shape)
        found = model.split(torch.from_numpy(rows))
        truth = found.truth.numpy().astype(bool)
        assert set(np.unique(found.truth)) == {0.0, 1.0}
        np.testing.assert_array_equal(truth.reshape(len(rows), -1).any(1), rows[:, -1] == -1)
        # The FLAIR of lesions is 90 brighter than that of anything else in these heads.
        flair = rows[:, : shape[1] * shape[2] * (shape[3] if len(shape) > 3 else 1)].reshape(truth.shape)
        own = rows[:, -1] == -1
        assert flair[own][truth[own]].mean() > 1.5
        assert flair[own][~truth[own] & (flair[own] != 0)].mean() < 0.7
        if recipe == "slices":
            lesion = head(1)[3][:, :, 8]
            first = truth[images.table.scans["sub-1"]][rows[images.table.scans["sub-1"], -1] == -1]
            # Square pixels of voxels of 2 x 1.5 mm: the area is the same.
            pixel_mm = max(20 * 2 / 24, 24 * 1.5 / 24)
            assert first[1].sum() * pixel_mm**2 == pytest.approx(lesion.sum() * 3.0, rel=0.25)


def test_a_scan_that_is_anomalous_without_a_mask_is_so_in_all_its_slices(cohort):  # noqa: F811
    settings = image_settings("slices", "deep_sad")
    known = Annotations.of(settings, 0, labels=Labels({"sub-4": -1, "sub-5": 1}))
    with gather_images(structural(cohort), settings, 0, known=known) as images:
        assert (rows_of(images, "sub-4")[:, -1] == -1).all()
        assert (rows_of(images, "sub-5")[:, -1] == 1).all()
        assert (rows_of(images, "sub-1")[:, -1] == 0).all()
        assert {scan.id: scan.role for scan in images.scans}["sub-4"] == "training"
        assert "sub-4: labelled as anomalous: each of its samples, since no mask says which" in images.notes


def test_an_anomalous_scan_without_a_mask_is_refused_once_masks_are_given(cohort, tmp_path):  # noqa: F811
    settings, labels = image_settings("slices", "hsc"), Labels({"sub-1": -1, "sub-2": -1})
    masks = tmp_path / "masks"
    masks.mkdir()
    shutil.copy(cohort / "masks/sub-1_mask.nii.gz", masks)
    lesions = lesions_in(masks, ["sub-1", "sub-2"], tmp_path / "x", each=False)
    known = Annotations.of(settings, 0, lesion_of=lesions, labels=labels)
    with gather_images(structural(cohort), settings, 0, known=known) as images:
        assert "sub-2" not in images.table.scans
        assert any("sub-2: is labelled as anomalous, and no mask says where" in n for n in images.notes)
        assert (images.table.array()[:, -1] < 0).sum() == 3


def test_synthetic_anomalies_stand_in_where_nothing_is_known():
    hsc = replace(FAST, method="hsc", method_settings=None)
    shown = Annotations.of(hsc, 0, outliers=("x",))
    bare = Annotations.of(hsc, 0)
    for known, images, kind in ((shown, True, "none"), (bare, True, "confetti"), (bare, False, "diffusion")):
        assert (
            with_what_is_known(hsc, known, images=images, gradients=not images).method_settings.anomalies
            == kind
        )
    for kind, images, said in (
        ("diffusion", True, "is of q-space voxels"),
        ("lesions", False, "is of slices and"),
    ):
        settings = fit_settings({"method": "deep_sad", "method_settings": {"anomalies": kind}}, where="t")
        with pytest.raises(SettingsError, match=said) as caught:
            with_what_is_known(settings, Annotations.of(settings, 0), images=images, gradients=not images)
        assert caught.value.code == "anomalies.kind"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lesions": "show"}, "annotations.lesions='show' is neither"),
        ({"labelled_voxels": 0}, "labelled_voxels must be at least 1, got 0; to label none"),
        ({"abnormal_share": 0.0}, "annotations.abnormal_share must lie between 0 and 1"),
        ({"labelled_share": -0.1}, "annotations.labelled_share must be at least 0 and below 1, got -0.1"),
        ({"outlier_share": 1.0}, "annotations.outlier_share must lie between 0 and 1"),
    ],
)
def test_wrong_settings_are_named(wrong, said):
    with pytest.raises(SettingsError, match=said):
        AnnotationSettings(**wrong)


@pytest.mark.parametrize("method", ["fcdd", "hsc", "deep_sad"])
def test_lesions_are_planted_where_the_view_shows_no_background(method):
    view = {"size": [24, 24], "background": -3.0}
    settings = image_settings("slices", method, method_settings={"anomalies": "lesions"}, view_settings=view)
    settings = with_what_is_known(settings, Annotations.of(settings, 0), images=True, gradients=False)
    assert settings.method_settings.background == -3
    tree = {"anomalies": "lesions", "background": 0.0}
    other = image_settings("slices", method, method_settings=tree, view_settings=view)
    with pytest.raises(
        SettingsError, match=r"method_settings\.background=0 and view_settings\.background=-3"
    ):
        with_what_is_known(other, Annotations.of(other, 0), images=True, gradients=False)


def test_planted_lesions_leave_the_background_as_it_is():
    view = {"size": [24, 24], "background": -3.0}
    tree = {"anomalies": "lesions"}
    settings = image_settings("slices", "fcdd", method_settings=tree, view_settings=view)
    settings = with_what_is_known(settings, Annotations.of(settings, 0), images=True, gradients=False)
    method = FCDDMethod(settings.method_settings)
    model = method.build((2, 24, 24))
    images = torch.full((6, 2, 24, 24), -3.0)
    images[..., 6:18, 6:18] = torch.randn(6, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    rows, found = images.flatten(1), torch.Generator().manual_seed(1)
    made = method.with_planted(model, model.split(rows), torch.ones(6, dtype=torch.bool), found)
    outside = (images == -3).all(1)
    assert not made.truth.bool()[outside].any()
    assert made.truth.bool().any()
