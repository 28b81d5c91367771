"""Outliers: balanced batches, pictures, scans that are outliers throughout; what is left of normal rows."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import tiny_cohort
from PIL import Image
from test_gathering import FAST, other_b, people
from test_image_recipes import cohort  # noqa: F401 - a fixture

from mednovelty.annotations import Annotations, with_what_is_known
from mednovelty.errors import ScanError, SettingsError
from mednovelty.fit_knowledge import outliers_of
from mednovelty.gathering import gather_scans
from mednovelty.image_gathering import gather_images
from mednovelty.io.pictures import picture_files, read_picture
from mednovelty.io.scan_folder import scan_folder
from mednovelty.model_folder import fit_settings
from mednovelty.outlier_exposure import Exposed, with_more_labelled
from mednovelty.outlier_sources import find_outliers, picture_samples, resized
from mednovelty.preprocess.zscore import ZScore
from mednovelty.recipes import recipe_of
from mednovelty.voxel_cache import VoxelCache


def exposed(normals=103, outliers=17, share=0.5):
    own = np.arange(3.0 * normals).reshape(normals, 3)
    other = -1 - np.arange(3.0 * outliers).reshape(outliers, 3)
    return Exposed(VoxelCache.from_array(own), VoxelCache.from_array(other), share)


@pytest.mark.parametrize(("share", "batch"), [(0.5, 20), (0.25, 20), (0.5, 7)])
def test_batches_are_balanced_and_every_normal_comes_once(share, batch):
    table = exposed(share=share)
    found = list(table.batches(batch, torch.Generator().manual_seed(0)))
    first = torch.cat(found)[:, 0]
    assert sorted(first[first >= 0].tolist()) == list(range(0, 309, 3))
    assert max(map(len, found)) <= batch
    counts = [(int((x[:, 0] < 0).sum()), len(x)) for x in found]
    assert all(abs(some - share * size) <= 1 for some, size in counts)
    seen = first[first < 0]
    # All outliers before any again.
    assert len(set(seen[:17].tolist())) == 17
    assert len(set(seen.tolist())) == 17


def test_two_epochs_have_other_orders_and_one_seed_the_same():
    table = exposed()
    one, again, other = (
        torch.cat(list(table.batches(20, torch.Generator().manual_seed(s)))) for s in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_everything_but_batches_is_that_of_the_normals():
    table = exposed()
    own = table.own
    assert len(table) == 103
    np.testing.assert_array_equal(table.array(), own.array())
    np.testing.assert_array_equal(table.moments().mean, own.moments().mean)
    assert table.fingerprint() != own.fingerprint()
    assert table.fingerprint()["outliers"] != exposed(outliers=16).fingerprint()["outliers"]
    with pytest.raises(SettingsError, match="outliers have 4 values a sample, and normals 3"):
        Exposed(own, VoxelCache.from_array(np.ones((2, 4))))


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def colours(seed=0, size=(30, 20)):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3)).astype(np.uint8)


def test_pictures_are_read_in_grey(tmp_path):
    rgb = colours()
    (found,) = read_picture(save(tmp_path / "a.png", rgb))
    np.testing.assert_allclose(found, rgb @ [0.299, 0.587, 0.114], atol=1e-3)
    deep = np.random.default_rng(1).integers(0, 60000, (7, 9)).astype(np.uint16)
    (found,) = read_picture(save(tmp_path / "b" / "C.TIFF", deep))
    np.testing.assert_array_equal(found, deep)
    frames = [Image.fromarray(colours(s, (8, 6))) for s in range(3)]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    assert [x.shape for x in read_picture(tmp_path / "stack.tif")] == [(8, 6)] * 3
    (tmp_path / "notes.txt").write_text("no picture")
    assert [p.name for p in picture_files(tmp_path)] == ["a.png", "C.TIFF", "stack.tif"]


def test_pictures_that_cannot_be_used_are_named(tmp_path):
    cut = save(tmp_path / "cut.png", colours())
    cut.write_bytes(cut.read_bytes()[:400])
    flat = save(tmp_path / "flat.png", np.full((5, 7), 40, np.uint8))
    for path, code, said in (
        (cut, "picture.damaged", "cut.png: cannot be read as a picture"),
        (flat, "picture.constant", "flat.png: shows nothing: every pixel is 40"),
    ):
        with pytest.raises(ScanError, match=said) as caught:
            read_picture(path)
        assert caught.value.code == code


def test_a_picture_becomes_a_sample_of_the_recipe(tmp_path):
    path = save(tmp_path / "a.png", colours())
    samples = picture_samples(path, ("FLAIR", "T1w"), [("zscore", ZScore())], (2, 10, 12))
    assert samples.shape == (1, 2, 10, 12)
    np.testing.assert_array_equal(samples[0, 0], samples[0, 1])
    (grey,) = read_picture(path)
    by_hand = resized(((grey - grey.mean()) / grey.std())[None], (10, 12))
    np.testing.assert_allclose(samples[0, :1], by_hand, atol=1e-4)
    # Halved sides are means of two pixels; a constant stays one, also where sides grow.
    ramp = np.arange(8.0)[None, :, None].repeat(6, 2)
    np.testing.assert_allclose(resized(ramp, (4, 3))[0, :, 0], [0.5, 2.5, 4.5, 6.5], atol=1e-5)
    np.testing.assert_allclose(resized(np.ones((1, 5, 7)), (11, 3)), 1, atol=1e-5)


@pytest.mark.parametrize("method", ["hsc", "fcdd"])
def test_pictures_are_shown_beside_slices(cohort, tmp_path, method):  # noqa: F811
    for n in range(10):
        save(tmp_path / "pictures" / f"{n}.png", colours(n))
    (tmp_path / "pictures" / "bad.jpg").write_bytes(b"no picture")
    tree = {"method": method, "view_settings": {"size": [16, 16]}}
    settings = fit_settings(tree, where="test", recipe="slices")
    scans = scan_folder(
        cohort / "scans", kind="structural", contrasts=("FLAIR", "T1w"), brain_masks=cohort / "brains"
    )
    found = find_outliers(tmp_path / "pictures", "structural", "slice", lambda folder: ())
    told = []
    known = Annotations.of(settings, 0, outliers=found)
    with gather_images(scans, settings, 0, known=known, on_scan=lambda *a: told.append(a)) as images:
        training, validation = images.training, images.validation
        assert isinstance(training, Exposed)
        held_out, kept = (table.array() for table in (validation, training.outliers))
        assert training.channels == 2 * 16 * 16 + 1
        assert (training.array()[:, -1] == 0).all()
        assert (kept[:, -1] == -1).all()
        # 11 files: two are held out, nine are trained on, and one of all is no picture.
        outside = (held_out[:, -1] == -1).sum()
        assert len(kept) + outside == 10
        assert outside in (1, 2)
        assert len(held_out) > outside
        assert any("bad.jpg: cannot be read" in message for _, message in told)
        assert any("50% of each batch are outliers" in note for note in images.notes)
        # What is centred and normalised knows nothing of them.
        everything = np.concatenate([held_out, kept])
        pictures = everything[everything[:, -1] == -1][:, :-1]
        np.testing.assert_array_equal(pictures[:, :256], pictures[:, 256:])
        assert not np.isin(training.take(np.arange(5))[:, 0], pictures[:, 0]).all()


def test_scans_of_the_same_gradients_are_outliers_for_voxels():
    settings = replace(FAST, method="deep_sad", method_settings=None)
    scans = people(6)
    strange = [
        replace(s, id=f"odd-{n}", sha256=f"{n + 99:064x}", stored=s.stored[::-1].copy())
        for n, s in enumerate(people(4))
    ]
    strange[0] = other_b(strange[0])
    known = Annotations.of(settings, 1, outliers=strange)
    with gather_scans(scans, settings, 1, known=known) as voxels:
        training, validation = voxels.training, voxels.validation
        means = np.array(voxels.preprocessing[-1][1].means)
        assert {scan.id for scan in voxels.scans} == {scan.id for scan in scans}
        assert sum("left out: odd-0" in note for note in voxels.notes) == 1
        names = {name.removeprefix("outliers: ") for name in training.outliers.scans}
        held = {n for n in validation.scans if n.startswith("outliers: ")}
        assert names <= {"odd-1", "odd-2", "odd-3"}
        assert len(names) + len(held) == 3
        one = next(s for s in strange if s.id in names)
        rows = training.outliers.array()[training.outliers.scans[f"outliers: {one.id}"]]
        np.testing.assert_allclose(rows[:, :-1], one.voxels() / one.voxels().mean() / means, rtol=1e-4)
        assert (rows[:, -1] == -1).all()
    plain = Annotations.of(settings, 1)
    with gather_scans(scans, settings, 1, known=plain) as voxels:
        np.testing.assert_allclose(means, voxels.preprocessing[-1][1].means, rtol=1e-6)


def test_where_no_outlier_can_be_used_nothing_is_trained():
    settings = replace(FAST, method="deep_sad", method_settings=None)
    strange = [replace(other_b(scan), id=f"odd-{n}") for n, scan in enumerate(people(2))]
    with pytest.raises(ScanError, match=r"no outlier can be used: .*odd-") as caught:
        gather_scans(people(3), settings, 0, known=Annotations.of(settings, 0, outliers=strange))
    assert caught.value.code == "outliers.none"


def test_a_copy_of_a_training_scan_is_no_outlier(tmp_path):
    settings = replace(FAST, method="deep_sad", method_settings=None)
    scans, odd = people(4), [replace(scan, id=f"odd-{n}", sha256=f"{n + 99:064x}")
                             for n, scan in enumerate(people(3))]  # fmt: skip
    for seed in range(4):  # The copy is held out for some.
        copies = [*odd[:2], replace(scans[1], id="copy")]
        with gather_scans(scans, settings, seed, known=Annotations.of(settings, seed, outliers=copies)) as v:
            names = set(v.table.scans)
            assert ("sub-1" in names) != ("outliers: copy" in names)
            assert any("the same file, byte for byte, as the" in note for note in v.notes)


def test_a_copied_file_is_refused_as_an_outlier(tmp_path):
    made = tiny_cohort()
    shutil.copytree(made.controls / "sub-c01", tmp_path / "strange" / "sub-x1")
    for path in (tmp_path / "strange").rglob("sub-c01*"):
        path.rename(path.with_name(path.name.replace("sub-c01", "sub-x1")))
    settings = replace(FAST, method="deep_sad", method_settings=None)
    with pytest.raises(
        ScanError, match="is an outlier, and the same file, byte for byte, as one of the scan sub-c01"
    ):
        outliers_of(
            tmp_path / "strange", recipe_of("qspace"), scan_folder(made.controls), settings, scan_folder
        )


def test_outliers_for_a_method_that_takes_none_are_refused():
    known = Annotations.of(FAST, 0, outliers=people(2))
    with pytest.raises(SettingsError, match="method vae learns from normal samples alone") as caught:
        with_what_is_known(FAST, known, images=False, gradients=True)
    assert caught.value.code == "outliers.method"


def test_pictures_are_for_slices_and_folders_hold_one_kind(tmp_path):
    save(tmp_path / "a.png", colours())
    with pytest.raises(SettingsError, match="outliers for slices alone; for diffusion scans give") as caught:
        find_outliers(tmp_path, "dwi", "voxel", lambda folder: ())
    assert caught.value.code == "outliers.pictures"
    with pytest.raises(ScanError, match="holds 1 pictures and 2 scans"):
        find_outliers(tmp_path, "structural", "slice", lambda folder: (1, 2))
    with pytest.raises(ScanError, match="not a folder"):
        find_outliers(tmp_path / "none", "structural", "slice", lambda folder: ())


def test_labelled_anomalies_are_repeated_until_they_are_a_share_of_each_batch():
    rows = np.column_stack([np.arange(400.0), np.where(np.arange(400) % 100 == 7, -1, 0)])
    table = with_more_labelled(VoxelCache.from_array(rows), 0.2)
    found = list(table.batches(50, torch.Generator().manual_seed(0)))
    assert all(abs(int((x[:, -1] < 0).sum()) - 10) <= 2 for x in found)
    normals = torch.cat([x[x[:, -1] == 0] for x in found])
    assert len(normals) == len(normals.unique(dim=0)) == 396
    assert table.n_outliers == 0
    plain = VoxelCache.from_array(rows[:7])
    assert with_more_labelled(plain, 0.2) is plain
