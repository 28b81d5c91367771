"""The page of a detector: it needs nothing else, says what is so, and leaves the detector as it was."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from calibrated_models import calibrated_model, run
from cohorts import FAST_TOML, tiny_cohort, tiny_detector
from small_images import detector_of
from test_live_curve import record

from mednovelty.calibrate.null import Null
from mednovelty.detector import Detector
from mednovelty.errors import DetectorError, OutputError
from mednovelty.held_out_examples import EXAMPLES, read_examples
from mednovelty.model_folder import fit_settings
from mednovelty.report.detector_page import PAGE, TrainingPage, try_detector_page, write_detector_page
from mednovelty.report.latent_space import Axes, latent_space_of
from mednovelty.report.null_charts import reached
from mednovelty.report.page import MARK
from mednovelty.report.reconstructions import reconstructed, reconstructions_of
from mednovelty.report.training_curve import curve_chart
from mednovelty.store import RECORD
from mednovelty.voxel_fitting import fit_voxels


def copy_of_tiny(tmp_path):
    return shutil.copytree(tiny_detector()[1], tmp_path / "model")


def check_stands_alone(text):
    """A page asks for nothing, and each of its pictures says what it shows."""
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)[^"']*["']""", text)
    assert not re.search(r"https?://|//[a-z]+\.", re.sub(r"http://www\.w3\.org/\S+", "", text))
    assert "@import" not in text
    pictures = re.findall(r"<(?:svg|img)\b[^>]*>", text)
    assert pictures
    assert all(re.search(r'(?:aria-label|alt)="[^"]{20,}"', one) for one in pictures)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    return calibrated_model(tmp_path_factory.mktemp("page"))


def test_a_calibrated_detector_of_voxels(calibrated):
    text = write_detector_page(calibrated).read_text()
    check_stands_alone(text)
    assert len(text) < 1_000_000
    detector = Detector.load(calibrated)
    for words in ("Loss over 3 epochs", "held-out voxels, from the one that is", "64 held out",
                  "latents on the two axes", "share of", "What it is blind to", "sees each voxel alone",
                  detector.sha256[:12], f'content="{MARK}"'):  # fmt: skip
        assert words in text, words
    # Two scores are calibrated, four samples are shown, and a curve and a cloud.
    assert text.count("<svg") == 2 + 4 + 1 + 1
    assert "setTimeout" not in text


def test_calibrate_itself_makes_the_page_again(calibrated):
    assert "healthy scan (held-out scans)" in (calibrated / PAGE).read_text()


def test_the_detector_is_what_it_was(tmp_path):
    model = copy_of_tiny(tmp_path)
    before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    path = write_detector_page(model)
    assert path == model / "index.html"
    after = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {PAGE}
    assert Detector.load(model).sha256 == tiny_detector()[0].sha256
    assert write_detector_page(model).read_text() == after[PAGE].decode()


def test_hostile_words_are_words(tmp_path):
    model = copy_of_tiny(tmp_path)
    (model / "README.md").write_text("# <script>alert(1)</script>\n\n* `</main>` & \x1b[31m\n\n| <b> |\n")
    text = write_detector_page(model).read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<code>&lt;/main&gt;</code> &amp; \\x1b[31m" in text


def test_a_page_of_somebody_else_is_left_alone(tmp_path, caplog):
    model = copy_of_tiny(tmp_path)
    (model / PAGE).write_text("mine")
    with pytest.raises(OutputError, match=r"index\.html: was not written by mednovelty; move it away"):
        write_detector_page(model)
    assert try_detector_page(model) is None
    assert "index.html: the page could not be made: OutputError" in caplog.text
    assert (model / PAGE).read_text() == "mine"


def test_report_makes_the_page_of_a_detector_again(calibrated, tmp_path):
    model = shutil.copytree(calibrated, tmp_path / "model")
    (model / PAGE).unlink()
    ended = run("report", model, "--json")
    assert ended.exit_code == 0, ended.output
    assert [page["path"] for page in json.loads(ended.stdout)["pages"]] == [str(model / PAGE)]
    check_stands_alone((model / PAGE).read_text())


def test_without_a_detector_there_is_no_page(tmp_path):
    with pytest.raises(DetectorError, match="no detector here"):
        write_detector_page(tmp_path)


def test_a_calibration_of_another_detector_is_not_shown(calibrated, tmp_path):
    model = shutil.copytree(calibrated, tmp_path / "model")
    text = (model / RECORD).read_text()
    (model / RECORD).write_text(text.replace('"seed": 1', '"seed": 2'))
    (model / EXAMPLES).unlink()
    assert "It is not calibrated" in write_detector_page(model).read_text()


def test_fit_leaves_the_page_of_the_detector(tmp_path):
    cohort, settings = tiny_cohort(), tmp_path / "fast.toml"
    settings.write_text(FAST_TOML)
    run("fit", cohort.controls, "-o", tmp_path / "model", "--brain-masks", cohort.brains, "--settings",
        settings)  # fmt: skip
    text = (tmp_path / "model" / PAGE).read_text()
    assert "A novelty detector in training" not in text
    assert "What it makes of normal samples" in text


# What is beside it: held-out samples.


def test_held_out_samples_are_kept_beside_the_detector_and_come_back():
    detector, folder = tiny_detector()
    kept = Detector.load(folder).fitted.examples
    assert kept.shape == (64, detector.model.channels)
    assert torch.equal(kept, detector.fitted.examples)
    # No training voxel is among them.
    reference = detector.reference.parts["input"]
    assert torch.cdist(kept.double(), reference.double()).min() > 0


def test_they_are_no_part_of_the_detector(tmp_path, caplog):
    model = copy_of_tiny(tmp_path)
    channels = Detector.load(model).model.channels
    (model / EXAMPLES).write_bytes(b"damaged")
    assert Detector.load(model).fitted.examples is None
    assert "examples.safetensors: cannot be read and is left aside" in caplog.text
    text = write_detector_page(model).read_text()
    assert "that it was trained on (this detector kept none that were held out)" in text
    shutil.copy(tiny_detector()[1] / EXAMPLES, model)
    caplog.clear()
    assert read_examples(model, "0" * 64, channels) is None
    assert read_examples(model, tiny_detector()[0].sha256, channels + 1) is None
    assert caplog.text.count("not of this detector; it is left aside") == 2
    (model / EXAMPLES).unlink()
    assert read_examples(model, "0" * 64, channels) is None


def test_samples_of_an_earlier_detector_are_removed(tmp_path):
    model = copy_of_tiny(tmp_path)
    detector = Detector.load(model)
    replace(detector, fitted=replace(detector.fitted, examples=None)).save(model)
    assert not (model / EXAMPLES).exists()


# What it makes of them.


def test_reconstructions_are_those_of_the_model_by_hand():
    detector, _ = tiny_detector()
    samples = detector.fitted.examples
    with torch.no_grad():
        by_hand = torch.stack(
            [detector.model.decode(detector.model.encode(x[None]).mean).mean[0] for x in samples]
        )
    np.testing.assert_allclose(reconstructed(detector, samples), by_hand, rtol=1e-5, atol=1e-6)
    shown = reconstructions_of(detector)
    errors = (samples - by_hand).square().mean(1).sqrt()
    assert len(shown.charts) == 4
    assert shown.charts[0][1] == f"number 1 of 64: root mean squared difference {errors.min():.3g}"
    assert shown.charts[-1][1] == f"number 64 of 64: root mean squared difference {errors.max():.3g}"


def test_samples_without_a_signal_are_not_shown_as_the_best_that_it_makes():
    detector, _ = tiny_detector()
    samples = detector.fitted.examples.clone()
    samples[5], samples[9] = 0, 0
    shown = reconstructions_of(replace(detector, fitted=replace(detector.fitted, examples=samples)))
    assert "4 of 62 held-out voxels" in shown.words
    assert shown.words.endswith(" 2 without any signal, which is no work to reconstruct, are left out.")
    best, worst = (words.partition(":")[0] for _, words in shown.charts[::3])
    assert (best, worst) == ("number 1 of 62", "number 62 of 62")
    assert not any("signals from 0 to 0" in str(chart) for chart, _ in shown.charts)
    # What has nothing else is shown all the same.
    empty = replace(detector, fitted=replace(detector.fitted, examples=torch.zeros_like(samples)))
    assert "4 of 64" in reconstructions_of(empty).words


def test_a_picture_that_is_the_same_all_over_is_empty_whatever_its_grey():
    detector = detector_of("slices")
    samples = detector.fitted.examples.clone()
    pictures = samples.reshape(len(samples), *detector.shape)
    pictures[1] = torch.tensor([-1.5, 0.25])[:, None, None]  # background after z-scores
    pictures[2, 0] = 0.0  # one contrast alone has nothing
    shown = reconstructions_of(replace(detector, fitted=replace(detector.fitted, examples=samples)))
    assert " 1 without any signal, which is no work to reconstruct, is left out." in shown.words
    assert f"of {len(samples) - 1} " in shown.words


@pytest.mark.parametrize("recipe", ["slices", "patches"])
def test_slices_and_windows_are_shown_as_pictures(recipe):
    from io import BytesIO

    from PIL import Image

    detector = detector_of(recipe)
    shown = reconstructions_of(detector)
    assert len(shown.pictures) == 4
    assert "FLAIR / T1w" in shown.pictures[0].caption
    height, width = detector.shape[2], detector.shape[1]
    picture = np.asarray(Image.open(BytesIO(shown.pictures[0].png)).convert("RGB"))
    assert picture.shape == (2 * height, 3 * width, 3)
    # The first tile is the sample itself, turned so that the front is on top and right is on the left.
    errors = (detector.fitted.examples - reconstructed(detector, detector.fitted.examples)).square().mean(1)
    sample = detector.fitted.examples[errors.argmin()].numpy().reshape(detector.shape)
    plane = sample[0] if recipe == "slices" else sample[0, :, :, detector.shape[3] // 2]
    x, y = np.unravel_index(plane.argmax(), plane.shape)
    tile = picture[:height, :width, 0]
    assert tile[height - 1 - y, width - 1 - x] == tile.max() == 255


def voxels(n=300, channels=6):
    rng = np.random.default_rng(0)
    return (
        2 + rng.normal(size=(n, 3)) @ rng.normal(size=(3, channels)) + rng.normal(size=(n, channels))
    ).astype("f4")


@pytest.mark.parametrize(
    ("method", "scores", "said"),
    [
        ("kde", ["outlier_score"], "The method kde judges samples without reconstructing them"),
        ("pca", ["outlier_score"], "The reference holds neither latents nor samples"),
        ("hyperspherical", ["hyperspherical_knn"], "latents as points on a sphere"),
    ],
)
def test_what_a_method_has_not_is_said(tmp_path, method, scores, said):
    settings = fit_settings({"method": method, "scores": scores, "train": {"max_epochs": 2}}, where="test")
    fit_voxels(voxels(), seed=0, settings=settings).save(tmp_path)
    text = write_detector_page(tmp_path).read_text()
    check_stands_alone(text)
    assert said in text


# Numbers behind the pictures.


def test_axes_are_those_of_largest_variance_by_hand():
    # Spread 3 along (0.6, 0.8, 0) and 1 along the third axis: variances 9 and 1 of 10.
    along = np.array([[3.0, 0], [-3.0, 0], [0, 1.0], [0, -1.0]])
    latents = along @ np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]) + [5.0, 6.0, 7.0]
    axes = Axes.of(latents)
    np.testing.assert_allclose(axes.shares, [0.9, 0.1])
    np.testing.assert_allclose(axes.directions, [[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]], atol=1e-12)
    np.testing.assert_allclose(axes.place(latents), along, atol=1e-12)


def test_a_single_latent_has_a_second_axis_of_nothing():
    axes = Axes.of(np.array([[1.0], [3.0]]))
    assert axes.shares.tolist() == [1.0, 0.0]
    assert axes.place(np.array([[4.0]])).tolist() == [[2.0, 0.0]]


def test_the_latent_space_shows_normals_and_what_was_held_out():
    space = latent_space_of(tiny_detector()[0])
    assert (
        str(space.chart).count("<circle") >= 64 + len(tiny_detector()[0].reference.parts["input"][:1000]) // 2
    )
    assert space.words.startswith("4 latents on the two axes")


def test_a_share_is_reached_at_the_smallest_score_that_no_more_reach():
    null = Null.of(np.arange(1.0, 1001.0))
    # 10 of 1,000 are at least 991.
    assert reached(null, 0.01) == 991.0
    assert reached(null, 1.0) == 1.0
    assert np.isnan(reached(null, 1e-4))


def test_the_curve_marks_the_kept_epoch_and_the_linear_model():
    chart = str(curve_chart(record([9.0, 4.0, 2.5, 3.0])))
    assert "9 at the start, 2.5 in epoch 2, which was kept, 3 at the end" in chart
    assert chart.count("<circle") == 2  # One in the picture, one in the legend.
    assert "PCA" not in chart
    rows = record([-30.0, -35.0])
    for row in rows.rows:
        row.validation["elbo"] = -row.validation["loss"]
    chart = str(curve_chart(rows, {"pca": 33.0}))
    assert "probabilistic PCA" in chart
    assert "loss (nats)" in chart


# While it is trained.


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def page_at(folder, clock):
    return TrainingPage(folder, {"method": "vae"}, 60, clock)


def test_a_training_writes_its_page_at_once_and_then_every_few_seconds(tmp_path):
    clock = Clock()
    page = page_at(tmp_path, clock)
    page.epoch(record([9.0]))
    text = (tmp_path / PAGE).read_text()
    check_stands_alone(text)
    assert "training: epoch 0 of at most 60" in text
    assert "setTimeout(() => location.reload(), 10000)" in text
    clock.now += 4.9
    page.epoch(record([9.0, 4.0]))
    assert (tmp_path / PAGE).read_text() == text
    clock.now += 0.2
    page.epoch(record([9.0, 4.0, 2.5]))
    assert "epoch 2 of at most 60" in (tmp_path / PAGE).read_text()
    page.epoch(record([9.0, 4.0, 2.5, 3.0]))
    page.stopped()
    text = (tmp_path / PAGE).read_text()
    assert "stopped before its end: epoch 3 of at most 60" in text
    assert "location.reload" not in text
    assert "Epoch 2, with the lowest held-out loss (2.5), is the best so far" in text


def test_a_page_that_fails_stops_no_training_and_is_told_once(tmp_path, caplog):
    clock = Clock()
    (tmp_path / PAGE).mkdir()
    page = page_at(tmp_path, clock)
    for _ in range(3):
        page.epoch(record([9.0, 4.0]))
        clock.now += 10
    page.stopped()
    assert caplog.text.count("the page could not be made") == 1


def test_a_stopped_training_says_so_on_its_page(tmp_path):
    from mednovelty.errors import StoppedError
    from mednovelty.fit_command import FitRequest, page_of

    settings = fit_settings(where="test")

    def train():
        with page_of(FitRequest(tmp_path, tmp_path), settings) as page:
            page.epoch(record([9.0, 4.0]))
            raise StoppedError("Ctrl-C")

    with pytest.raises(StoppedError):
        train()
    assert "stopped before its end: epoch 1" in (tmp_path / PAGE).read_text()
