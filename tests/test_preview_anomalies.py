"""``preview-anomalies``: panels of planted anomalies on one's own scans."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from cohorts import tiny_cohort
from matplotlib.image import imread
from typer.testing import CliRunner

from mednovelty.anomalies.host import Gradients, Host, Planted
from mednovelty.cli import app
from mednovelty.errors import SettingsError
from mednovelty.preview_command import Sample, _pair
from mednovelty.report.anomaly_panels import Family, Pair, anomalies_figure


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"NO_COLOR": "1", "COLUMNS": "200"})


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Two subjects' FLAIR and T1w, 24 x 28 x 10 voxels, and a folder with a lesion mask."""
    root = tmp_path_factory.mktemp("heads")
    rng = np.random.default_rng(0)
    affine = np.diag([-5.0, 5.0, 6.0, 1.0])
    inside = np.zeros((24, 28, 10), bool)
    inside[3:21, 4:25, 1:9] = True
    for subject in ("sub-01", "sub-02"):
        for contrast in ("FLAIR", "T1w"):
            data = np.where(inside, rng.integers(300, 500, inside.shape), 0).astype(np.int16)
            path = root / "scans" / subject / "anat" / f"{subject}_{contrast}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, affine), path)
    lesion = np.zeros((12, 11, 10), np.uint8)
    lesion[3:8, 3:7, 2:7] = 1
    (root / "shapes").mkdir()
    nib.save(nib.Nifti1Image(lesion, np.diag([2.0, 2.0, 3.0, 1.0])), root / "shapes" / "a_lesion.nii.gz")
    return root


def test_slices_of_two_contrasts_are_drawn_the_same_again(heads, tmp_path):
    words = ["preview-anomalies", heads / "scans", "--anomalies", "hyperintense,deformation", "--contrasts",
             "FLAIR,T1w", "--set", "hyperintense.strength_sd=[2,3]", "--rows", 2, "--size", 24]  # fmt: skip
    outputs = [tmp_path / name for name in ("one.png", "two.png", "three.png")]
    for output, seed in zip(outputs, (1, 1, 2), strict=True):
        result = run(*words, "-o", output, "--seed", seed, "--json")
        assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["anomalies"]["hyperintense"]["ranges"]["strength_sd"] == [2.0, 3.0]
    assert "2 to 3 standard deviations of the tissue brighter" in told["anomalies"]["hyperintense"]["words"]
    assert told["seed"] == 2
    assert outputs[0].read_bytes() == outputs[1].read_bytes() != outputs[2].read_bytes()
    assert imread(outputs[0]).shape[1] == 880


def test_windows_with_outlines_of_real_lesions(heads, tmp_path):
    words = ["--recipe", "patches", "--size", 12, "--contrasts", "FLAIR", "--rows", 1]
    result = run("preview-anomalies", heads / "scans", "--anomalies", "noise", *words, "--lesion-shapes",
                 heads / "shapes", "-o", tmp_path / "panel.png")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "1 outlines of 13 to 13 mm" in result.stderr
    assert "outlines of real lesions" in result.stderr
    assert (tmp_path / "panel.png").is_file()


def test_diffusion_scans(tmp_path):
    words = ["--recipe", "qspace", "--brain-masks", tiny_cohort().brains, "--rows", 1]
    result = run("preview-anomalies", tiny_cohort().controls, "--anomalies", "exchange,fibre-loss", *words,
                 "-o", tmp_path / "q.png")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert imread(tmp_path / "q.png").shape[0] > 300


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--anomalies", "hyperintens"], 2, "did you mean 'hyperintense'"),
        (["--anomalies", "exchange"], 2, "exchange are of diffusion, and --recipe slices is of images"),
        (["--anomalies", "noise", "--recipe", "slabs"], 2, "no recipe is called 'slabs'"),
        (["--anomalies", "noise", "--rows", "0"], 2, "--rows must lie between 1 and 20, got 0"),
        (["--anomalies", "noise", "--set", "blur.sigma_mm=[1,2]"], 2, "NAME.setting=value, NAME one of"),
        (["--anomalies", "noise", "--lesion-shapes", "{heads}/none"], 3, "none"),
        (["--anomalies", "confetti", "--lesion-shapes", "{heads}/shapes"], 2, "confetti would not take them"),
        (["--anomalies", "noise", "--lesion-shapes", "{heads}/scans"], 3, "a lesion mask holds 0, and 1 or"),
        (["--anomalies", "noise"], 2, "several contrasts"),
    ],
)  # fmt: skip
def test_exit_codes_and_words(words, code, said, heads, tmp_path):
    words = [word.format(heads=heads) for word in words]
    result = run("preview-anomalies", heads / "scans", "-o", tmp_path / "panel.png", *words)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert not (tmp_path / "panel.png").exists()


def test_a_panel_is_a_png_and_not_replaced_unasked(heads, tmp_path):
    assert "end its name in .png" in run("preview-anomalies", heads, "--anomalies", "noise", "-o",
                                         tmp_path / "panel.jpg").stderr  # fmt: skip
    shutil.copy(heads / "shapes" / "a_lesion.nii.gz", tmp_path / "panel.png")
    result = run("preview-anomalies", heads, "--anomalies", "noise", "-o", tmp_path / "panel.png")
    assert result.exit_code == 5
    assert "is there already; choose another name or pass --overwrite" in result.stderr


def test_a_picture_is_the_slice_with_most_truth_of_what_changed_most():
    images = torch.randn(1, 2, 5, 6, 4)
    mask = torch.ones(1, 5, 6, 4, dtype=torch.bool)
    truth, after = torch.zeros_like(mask), images.clone()
    truth[0, 1:3, 2, 3] = truth[0, 4, 4, 1] = True
    after[0, 1, 1:3, 2, 3] += 9
    host = Host(images, mask, (2.0, 3.0, 1.0))
    pair = _pair(host, Planted(after, truth.float(), truth), 0, Sample("sub-7", ("FLAIR", "T1w")))
    assert pair.title == "sub-7 T1w"
    assert np.array_equal(pair.before, images[0, 1, :, :, 3])
    assert np.array_equal(pair.after, after[0, 1, :, :, 3])
    assert pair.truth.sum() == 2
    assert pair.aspect == 1.5


def test_of_diffusion_the_map_that_changed_most_is_shown():
    scheme = Gradients(torch.tensor([0.0, 1000, 1000, 1000]), torch.eye(4)[:, :3])
    images = 50 + 5 * torch.rand(1, 4, 6, 5, 3)
    mask = torch.ones(1, 6, 5, 3, dtype=torch.bool)
    after = images.clone()
    after[:, 0, 2:4, 2, 1] += 40
    truth = after[:, 0] != images[:, 0]
    pair = _pair(Host(images, mask, (2.0, 2.0, 2.0), scheme), Planted(after, truth.float(), truth), 0,
                 Sample("sub-1", ()))  # fmt: skip
    assert pair.title == "sub-1 mean b=0"


def test_the_front_is_on_top_and_the_right_on_the_left():
    before = np.zeros((6, 8))
    before[5, 7] = 1  # The patient's right, at the front.
    pair = Pair("a", before, before, before > 0, np.ones((6, 8), bool), 2.0)
    axes = anomalies_figure([Family("nothing", [pair])], "title").axes
    assert len(axes) == 4
    shown = axes[0].images[0].get_array()
    assert shown.shape == (8, 6)
    assert shown[0, 0] == 1
    assert not axes[2].images[0].get_array().any()
    with pytest.raises(SettingsError, match="no sample to plant anomalies in"):
        anomalies_figure([Family("nothing", [])], "title")
