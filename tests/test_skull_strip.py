"""The brain below the skull: on cylinders with scalp, bone and brain, and on real heads."""

import json
import os

import nibabel as nib
import numpy as np
import pytest
import structural_images as made
from test_image_recipes import SLICES
from test_structural_mask import SHAPE, SPACING, depth_mm, dice, head, stripped
from typer.testing import CliRunner
from without_pages import typed

from mednovelty.cli import app
from mednovelty.detector import Detector
from mednovelty.errors import ScanError, SettingsError
from mednovelty.fitting import FitSettings
from mednovelty.io.read_scan import ReadOptions
from mednovelty.preprocess.skull_strip import WORDS, strip_skull
from mednovelty.preprocess.structural_mask import structural_brain_mask

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
BRAIN = depth_mm() > 14


def brain_of(image, spacing=SPACING):
    return structural_brain_mask(image, spacing, "sub-01", "brain")


class TestBrain:
    def test_it_ends_at_the_bone(self):
        mask, words, warnings = brain_of(head())
        assert (words, warnings) == (WORDS, ())
        assert dice(mask, BRAIN) > 0.95
        assert mask[BRAIN].all()
        assert not mask[depth_mm() < 9].any()

    @pytest.mark.parametrize("gain", [1e-6, 1e5])
    def test_the_unit_of_the_signal_does_not_matter(self, gain):
        assert dice(brain_of(head() * np.float32(gain))[0], brain_of(head())[0]) > 0.999

    def test_nominal_spacings_do_not_matter(self):
        expected = brain_of(head())[0]
        assert dice(brain_of(head(), np.multiply(SPACING, (1.5, 1.5, 1)))[0], expected) > 0.97

    @pytest.mark.parametrize("signal", [220.0, 800.0])
    def test_lesions_and_ventricles_stay_within(self, signal):
        image, depth = head(), depth_mm()
        i = np.indices(SHAPE)[0]
        lesion = (depth > 15) & (depth < 40) & (i > 40)
        image[lesion] = signal
        image[depth > 70] = 10
        mask = brain_of(image)[0]
        assert mask[depth > 70].all()
        assert mask[lesion].mean() > 0.98

    def test_a_head_that_the_image_cuts_off_goes_on_beyond(self):
        cut = np.ascontiguousarray(head()[12:48])
        assert dice(brain_of(cut)[0], BRAIN[12:48]) > 0.93

    def test_slices_lie_across_the_longest_spacing(self):
        turned = np.ascontiguousarray(head().transpose(2, 0, 1))
        mask = brain_of(turned, (5.0, 3.0, 3.0))[0]
        np.testing.assert_array_equal(mask, brain_of(head())[0].transpose(2, 0, 1))

    def test_a_stripped_image_is_left_alone(self):
        image = stripped()
        for maker in ("head", "brain"):
            mask, words, _ = structural_brain_mask(image, SPACING, "sub-01", maker)
            np.testing.assert_array_equal(mask, BRAIN)
            assert "constant background" in words

    def test_a_head_on_a_cleared_background_is_stripped(self):
        assert dice(brain_of(np.where(depth_mm() > 0, head(), 0))[0], BRAIN) > 0.95

    def test_a_skull_that_stays_is_told(self, monkeypatch):
        monkeypatch.setattr(
            "mednovelty.preprocess.structural_mask.strip_skull", lambda volume, mask, *_: mask
        )
        (warning,) = brain_of(head())[2]
        assert warning.startswith("sub-01: the mask made of it seems to have some skull still (a bright rim")

    def test_an_empty_head_is_refused(self):
        with pytest.raises(ScanError, match=r"^sub-07: no brain is found below the skull; give a") as caught:
            strip_skull(np.zeros(SHAPE), depth_mm() > 0, SPACING, "sub-07")
        assert caught.value.code == "mask.none_found"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Fit on heads whose masks are made of the brain; return the folder."""
    root = tmp_path_factory.mktemp("strip")
    for i in range(1, 4):
        path = root / "data" / f"sub-{i}" / "anat" / f"sub-{i}_T1w.nii.gz"
        made.save(path, head(seed=i), np.diag([*SPACING, 1.0]))
    (root / "slices.toml").write_text(SLICES)
    words = ["-o", root / "model", "--recipe", "slices", "--settings", root / "slices.toml"]
    result = run("fit", root / "data", *words, "--mask-maker", "brain")
    assert result.exit_code == 0, result.output
    assert "skull" not in result.stderr
    return root


def run(*words):
    return CliRunner().invoke(app, typed(words), env=ENVIRONMENT)


def mask_of(out):
    told = json.loads((out / "sub-2" / "anat" / "sub-2_desc-rec_error_novelty.json").read_text())
    return told["Mask"]["Source"], nib.load(out / "sub-2" / "anat" / "sub-2_desc-brain_mask.nii.gz")


def test_score_masks_as_fit_did_unless_told_otherwise(study):
    assert Detector.load(study / "model").reading == ReadOptions(structural_mask="brain")
    words = ["score", study / "model", study / "data", "--scores", "rec_error", "-o"]
    assert run(*words, study / "out").exit_code == 0
    source, mask = mask_of(study / "out")
    assert source == WORDS
    assert dice(mask.get_fdata() > 0, BRAIN) > 0.95
    assert run(*words, study / "head", "--mask-maker", "head").exit_code == 0
    source, mask = mask_of(study / "head")
    assert "half way from air to Otsu's threshold" in source
    assert dice(mask.get_fdata() > 0, depth_mm() > 0) > 0.97
    # Maps of other masks are not taken for done.
    again = run(*words, study / "out", "--mask-maker", "head")
    assert (again.exit_code, "with other settings" in again.stderr) == (5, True)


def test_a_detector_that_says_nothing_of_it_takes_the_head(study, tmp_path):
    for path in (study / "model").glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    told = json.loads((tmp_path / "detector.json").read_text())
    assert told["settings"].pop("structural_mask") == "brain"
    (tmp_path / "detector.json").write_text(json.dumps(told))
    assert Detector.load(tmp_path).reading == ReadOptions()


def test_how_scans_were_read_is_what_the_detector_records(study):
    from mednovelty.io.scan_folder import scan_folder
    from mednovelty.model_folder import fit_settings

    settings = fit_settings({"train": {"max_epochs": 1}, "view_settings": {"size": [16, 16]}},
                            {"method_settings": {"widths": [4, 8], "latent": 5}}, where="test",
                            recipe="slices")  # fmt: skip
    scans = scan_folder(study / "data", kind="structural")
    options = ReadOptions(structural_mask="brain")
    detector = Detector.fit(scans, recipe="slices", settings=settings, options=options)
    assert detector.settings.structural_mask == "brain"


def test_check_makes_the_mask_that_is_asked_for(study):
    words = ["check", study / "data", "--deep", "--json"]
    codes = [
        {finding["code"] for finding in json.loads(run(*words, *more).stdout)["findings"]}
        for more in ([], ["--mask-maker", "brain"])
    ]
    assert codes == [{"voxels.odd", "mask.absent"}, {"mask.absent"}]


@pytest.mark.parametrize("command", ["check", "fit", "score"])
def test_another_maker_is_refused(study, tmp_path, command):
    model = [study / "model"] if command == "score" else []
    output = [] if command == "check" else ["-o", tmp_path / "out"]
    recipe = ["--recipe", "slices"] if command == "fit" else []
    result = run(command, *model, study / "data", *output, *recipe, "--mask-maker", "skull")
    assert result.exit_code == 2, result.output
    assert "head" in result.stderr
    assert not (tmp_path / "out").exists()


def test_another_maker_is_refused_in_python():
    for kind in (ReadOptions, FitSettings):
        with pytest.raises(SettingsError, match="structural_mask='skull' is neither 'head' nor 'brain'"):
            kind(structural_mask="skull")


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("contrast", ["FLAIR", "T1w"])
def test_on_real_heads(real_data, contrast):
    warned, lost = 0, []
    for number in range(2, 81, 8):
        who = f"sub-{number:03d}"
        image = nib.load(real_data / "lgg" / who / "anat" / f"{who}_{contrast}.nii.gz")
        lesion = nib.load(real_data / "lgg" / "derivatives" / "masks" / f"{who}_mask.nii.gz").get_fdata() > 0
        mask, _, warnings = brain_of(image.get_fdata(), image.header.get_zooms())
        warned += bool(warnings)
        lost.append(np.count_nonzero(lesion & ~mask) / np.count_nonzero(lesion))
    assert warned <= 1
    assert np.median(lost) < 0.001
