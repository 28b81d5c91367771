"""What maps and detectors show of themselves: true, escaped, and nothing of who was scanned."""

import gzip
import importlib.util
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mednovelty.errors import GeometryError, SettingsError
from mednovelty.maps import NoveltyMap
from mednovelty.notebook import Ends
from mednovelty.scan import Scan, Volume

SHAPE = (20, 24, 14)
MASK = np.zeros(SHAPE, bool)
MASK[3:17, 4:20, 2:12] = True
PEAK = (5, 17, 9)
needs_niivue = pytest.mark.skipif(
    importlib.util.find_spec("ipyniivue") is None, reason="ipyniivue is not installed: extra [notebook]"
)


def affine(kind):
    """Return an affine: stored to the right or to the left, or turned, with sides of 2, 2.5 and 3 mm."""
    found = np.eye(4)
    turned = (
        Rotation.from_euler("xyz", [8, -5, 12], degrees=True).as_matrix() if kind == "oblique" else np.eye(3)
    )
    found[:3, :3] = turned @ np.diag([2.0 if kind == "RAS" else -2.0, 2.5, 3.0])
    found[:3, 3] = [20, -30, -20]
    return found


def novelty(kind="oblique", offset=0.0, **about):
    rng = np.random.default_rng(0)
    data = rng.normal(offset, 1.0, (1, *SHAPE)).astype(np.float32)
    data[(0, *PEAK)] = offset + 40.0
    data[0][~MASK] = 0
    told = {"unit": "nats", "description": "How strange."} | about
    return NoveltyMap("kl_gradient", Volume(data, affine(kind), "sub-secret"), MASK, told)


def background():
    return np.random.default_rng(1).uniform(10, 100, SHAPE).astype(np.float32)


# Tables.


def test_a_map_tells_numbers_and_not_whose_it_is():
    shown = novelty()._repr_html_()
    assert "20 x 24 x 14 of 2 x 2.5 x 3 mm, 2,240 scored" in shown
    assert "sub-secret" not in shown
    assert "<img" not in shown
    assert 'aria-label="Histogram of kl_gradient: 2,240 voxels from' in shown
    assert "sub-secret" not in repr(novelty())


def test_hostile_words_are_words():
    shown = novelty(unit="<script>x</script>", description="\x1b[31m</table>")._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "\\x1b[31m&lt;/table&gt;" in shown


def test_a_map_without_voxels_is_shown_too():
    empty = NoveltyMap("x", Volume(np.zeros((1, *SHAPE), np.float32), np.eye(4), "x"), np.zeros(SHAPE, bool))
    assert "0 scored" in empty._repr_html_()


def test_a_detector_tells_what_it_knows_and_not_of_whom():
    from cohorts import tiny_detector

    detector, folder = tiny_detector()
    shown = detector._repr_html_()
    assert "2 to train on, 1 held out" in shown
    assert detector.sha256[:12] in shown
    assert 'aria-label="Loss of held-out voxels over epochs' in shown
    assert not any(scan.id in shown for scan in detector.scans)
    assert str(folder) not in shown


# The mosaic.


def test_a_mosaic_shows_itself_in_a_notebook(monkeypatch):
    figure = novelty().plot(background(), title="mine")
    assert figure._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"
    assert figure.axes[0].get_title(loc="left").startswith("mine\n")
    bar = figure.axes[1].get_ylabel()
    assert bar == "kl_gradient, nats; shown from percentile 90 of the mask"


def test_a_threshold_is_kept_to_the_number():
    figure = novelty().plot(threshold=5.0)
    image = figure.axes[0].get_images()[1]
    shown = np.asarray(image.get_alpha()) > 0
    assert (np.asarray(image.get_array())[shown] >= 5.0).all()
    assert shown.sum() == 1
    assert "shown from 5" in figure.axes[1].get_ylabel()


def test_without_a_background_the_mask_is_seen_in_dark_grey():
    image = novelty().plot().axes[0].get_images()[0]
    grey = np.asarray(image.norm(np.asarray(image.get_array())))
    assert sorted(np.unique(grey.round(6))) == [0.0, 0.25]


def test_a_background_that_lies_elsewhere_is_refused():
    far = Volume(background()[None], affine("RAS"), "far.nii.gz")
    with pytest.raises(GeometryError, match="background: its voxels lie up to"):
        novelty("LAS").plot(far)
    with pytest.raises(
        GeometryError, match=r"background: shape \(2, 2, 2\) does not fit the map kl_gradient"
    ):
        novelty().plot(np.zeros((2, 2, 2)))
    two = Volume(np.zeros((2, *SHAPE)), affine("oblique"), "two.nii.gz")
    with pytest.raises(GeometryError, match=r"background: two\.nii\.gz has 2 channels; give one of them"):
        novelty().plot(two)


def test_backgrounds_come_as_scans_volumes_arrays_and_files(tmp_path):
    nib.save(nib.Nifti1Image(background(), affine("oblique")), tmp_path / "b.nii.gz")
    volume = Volume(background()[None], affine("oblique"), "b")
    for given in (
        tmp_path / "b.nii.gz",
        str(tmp_path / "b.nii.gz"),
        volume,
        background(),
        Scan.of(volume, MASK),
    ):
        image = novelty().plot(given).axes[0].get_images()[0]
        assert np.asarray(image.get_array()).max() > 90


# Viewers.


def test_ends_follow_the_threshold():
    values = novelty().values
    ends = Ends.of(novelty(), None)
    assert (ends.low, ends.high) == pytest.approx(np.percentile(values, [90, 99.9]))
    # A threshold that only the peak exceeds: colours end there.
    assert (Ends.of(novelty(), 5.0).low, Ends.of(novelty(), 5.0).high) == (5.0, 40.0)
    assert Ends.of(novelty(), 1000.0).high > 1000.0
    with pytest.raises(SettingsError, match="kl_gradient: a threshold of nan shows nothing"):
        Ends.of(novelty(), float("nan"))


@needs_niivue
@pytest.mark.parametrize("kind", ["RAS", "LAS", "oblique"])
def test_niivue_holds_both_images_where_they_are(kind):
    widget = novelty(kind).view(background(), threshold=2.0)
    below, above = (nib.Nifti1Image.from_bytes(gzip.decompress(volume.data)) for volume in widget.volumes)
    np.testing.assert_allclose(above.affine, affine(kind), atol=1e-5)
    np.testing.assert_allclose(below.affine, affine(kind), atol=1e-5)
    np.testing.assert_array_equal(below.get_fdata(), background())
    np.testing.assert_array_equal(above.get_fdata()[MASK], novelty(kind).values)
    world = affine(kind) @ [*PEAK, 1]
    assert above.get_fdata()[tuple((np.linalg.inv(above.affine) @ world)[:3].round().astype(int))] == 40.0
    grey, shown = widget.volumes
    assert (grey.colormap, shown.colormap, shown.opacity) == ("gray", "inferno", 0.7)
    assert shown.cal_min == 2.0
    assert shown.cal_max == pytest.approx(np.percentile(novelty(kind).values, 99.9))
    assert shown.name == "kl_gradient.nii.gz"
    assert widget.opts.is_radiological_convention
    assert "sub-secret" not in (shown.name, grey.name)
    assert b"sub-secret" not in gzip.decompress(shown.data)[:352]


@needs_niivue
def test_outside_the_mask_a_map_of_negative_scores_is_not_shown():
    widget = novelty(offset=-30.0).view()
    shown = widget.volumes[1]
    image = nib.Nifti1Image.from_bytes(gzip.decompress(shown.data)).get_fdata()
    assert (image[~MASK] <= shown.cal_min).all()
    assert widget.volumes[0].cal_max == 3.0


def nilearns(monkeypatch, *given, **how):
    import sys

    monkeypatch.setitem(sys.modules, "ipyniivue", None)
    return novelty(offset=how.pop("offset", 0.0)).view(*given, **how)


def test_without_ipyniivue_nilearns_viewer_is_told_and_shown(monkeypatch, caplog):
    view = nilearns(monkeypatch, background(), threshold=3.0)
    assert "ipyniivue is not installed: this is nilearn's viewer" in caplog.text
    assert "pip install 'mednovelty[notebook]'" in caplog.text
    page = view.html
    told = json.loads(re.search(r'"title":\s*("(?:[^"\\]|\\.)*")', page)[1])
    assert told.startswith("kl_gradient, nats: dark 3 to bright ")
    assert "sub-secret" not in page


def test_of_negative_scores_nilearns_viewer_shows_the_highest(monkeypatch):
    import nilearn.plotting

    given = {}
    monkeypatch.setattr(nilearn.plotting, "view_img", lambda image, **how: given.update(image=image, **how))
    nilearns(monkeypatch, offset=-30.0)
    shown = given["image"].get_fdata()
    assert shown[PEAK] == shown.max() > 0
    assert (shown[~MASK] == 0).all()
    assert (shown > 0).sum() == pytest.approx(0.1 * MASK.sum(), abs=2)
    np.testing.assert_allclose(given["image"].affine, affine("oblique"))


# The notebook in docs.

NOTEBOOK = Path(__file__).parents[1] / "docs" / "looking.ipynb"


def cells():
    return json.loads(NOTEBOOK.read_text())["cells"]


def test_the_notebook_has_ten_cells_of_code_and_keeps_no_output():
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert len(code) == 10
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_the_notebook_runs_from_folder_to_widget(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    last = None
    for cell in cells():
        if cell["cell_type"] == "code":
            *before, final = "".join(cell["source"]).rstrip().split("\n")
            exec("\n".join(before), names)
            try:
                last = eval(final, names)
            except SyntaxError:
                exec(final, names)
    assert hasattr(last, "_repr_mimebundle_") or hasattr(last, "_repr_html_")


def test_the_notebook_shows_a_picture_before_it_is_run():
    texts = ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"]
             if cell["cell_type"] == "markdown"]  # fmt: skip
    pictures = re.findall(r"!\[[^]]+\]\((.*?)\)", "\n".join(texts))
    assert pictures
    for name in pictures:
        assert (NOTEBOOK.parent / name).read_bytes().startswith(b"\x89PNG")
