"""A detector's record, damaged or edited by hand: refused in one line that names it, or the same detector."""

import functools
import json
import shutil

import numpy as np
import pytest
import torch
from cohorts import FAST, tiny_cohort, tiny_detector

from mednovelty.detector import Detector
from mednovelty.errors import DetectorError, MedNoveltyError, StoppedError
from mednovelty.io.read_scan import read_scan
from mednovelty.io.scan_folder import scan_folder
from mednovelty.methods.vae import VAE, VAEMethod
from mednovelty.voxel_fitting import fit_voxels

DELETED = object()
SCHEME, MEANS = ("preprocessing", 0, "state"), ("preprocessing", 2, "state", "means")
NET = ("settings", "method_settings")
DAMAGES = {
    "deleted": DELETED, "null": None, "NaN": "nan", "word": "x", "huge": 10**30, "huge float": 1e300,
    "negative": -1, "true": True, "list": [], "table": {}, "half": 0.5,
}  # fmt: skip
# What may be chosen freely and decides scores, so that another value is another detector.
FREE = {("seed",), ("settings", "draws"), ("settings", "batch_voxels"),
        ("settings", "method_settings", "log_sigma_floor"),
        ("settings", "method_settings", "log_sigma_ceiling")}  # fmt: skip


def voxels(n=600, channels=6):
    rng = np.random.default_rng(0)
    return (
        2 + rng.normal(size=(n, 3)) @ rng.normal(size=(3, channels)) + rng.normal(size=(n, channels))
    ).astype("f4")


@pytest.fixture(scope="module")
def arrays_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays") / "model"
    fit_voxels(voxels(), scans=np.arange(600) // 200, seed=3, settings=FAST).save(folder)
    return folder


@pytest.fixture
def copy_of(tmp_path):
    def copied(folder):
        return shutil.copytree(folder, tmp_path / "model")

    return copied


def places(node, path=()):
    """Yield the path of everything in a record; of a long list the ends only."""
    if path:
        yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from places(value, (*path, key))
    elif isinstance(node, list):
        for i in sorted({0, len(node) - 1}) if node else []:
            yield from places(node[i], (*path, i))


def damaged(text, path, value):
    record = json.loads(text)
    *parents, last = path
    holder = functools.reduce(lambda node, key: node[key], parents, record)
    if value is DELETED:
        del holder[last]
    else:
        holder[last] = value
    return record


def survivors(folder, what_it_does):
    """Damage every place in every way; return what came out wrong, and how often loading was refused."""
    path = folder / "detector.json"
    text = path.read_text()
    expected, wrong, refused = what_it_does(Detector.load(folder)), [], 0
    for place in places(json.loads(text)):
        for name, value in DAMAGES.items():
            path.write_text(json.dumps(damaged(text, place, value)))
            try:
                detector = Detector.load(folder)
            except DetectorError as error:
                refused += 1
                if "\n" in str(error) or not str(error).startswith(str(folder)):
                    wrong.append(f"{place} {name}: words {error!s}")
                continue
            if place in FREE or place[:2] == ("settings", "scores"):
                what_it_does(detector)
            elif not all(np.array_equal(a, b) for a, b in zip(what_it_does(detector), expected, strict=True)):
                wrong.append(f"{place} {name}: another detector")
    path.write_text(text)
    return wrong, refused


@pytest.mark.slow  # The record of scans, below, has the same places but for a few.
def test_whatever_is_damaged_in_the_record_of_arrays(arrays_model, copy_of):
    x = voxels()[:7]

    def scores(detector):
        found = list(detector.score_voxels(x).values())
        assert all(np.isfinite(values).all() for values in found)
        return found

    wrong, refused = survivors(copy_of(arrays_model), scores)
    assert not wrong, "\n".join(wrong)
    assert refused > 700


def test_whatever_is_damaged_in_the_record_of_scans(copy_of):
    scan = read_scan(scan_folder(tiny_cohort().patients, brain_masks=tiny_cohort().brains)[0])

    def prepared(detector):
        return [detector.prepare(scan)[0].voxels(0, 50), detector.scoring().is_b0.numpy()]

    wrong, refused = survivors(copy_of(tiny_detector()[1]), prepared)
    assert not wrong, "\n".join(wrong)
    assert refused > 700


def edit(folder, *path, value):
    record = damaged((folder / "detector.json").read_text(), path, value)
    (folder / "detector.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("settings", "draws"), 10_001, "settings: draws must be at most 10000, got 10001$"),
        (("settings", "batch_voxels"), 1 << 40, "batch_voxels must be at most 4194304"),
        ((*NET, "hidden"), [1 << 17, 16], "at most 65536 units, not 2 layers and 131072"),
        ((*NET, "hidden"), [2] * 65, "at most 64 hidden layers .* not 65 layers"),
        ((*NET, "latent"), 1 << 17, "not 2 layers and 131072 units"),
        ((*NET, "log_sigma_floor"), 11.0, "the first must be the smaller"),
        ((*NET, "log_sigma_ceiling"), 400.0, "both within -40 and 40"),
        (("settings", "angle_tolerance_deg"), 91.0, "angle_tolerance_deg must lie between 0 and 90, got 91"),
        (("settings", "view"), "voxl", "no view is called 'voxl'; did you mean 'voxel'"),
        (("settings", "view"), "slice", "view is 'voxel', but the settings say 'slice'|view_settings"),
        (("settings", "draws"), DELETED, "settings.draws: missing"),
        (("settings", "draws"), "2", "settings.draws: '2' cannot stand there"),
        (("settings", "scores"), ["nearest_normals"], "no scorer is called 'nearest_normals'; did you"),
        (("settings", "neighbours"), "exactly", "no neighbour is called 'exactly'; did you mean 'exact'"),
        (("method",), "vea", "method is 'vea', but the settings say 'vae'"),
        (("recipe",), "qspce", "no recipe is called 'qspce'; known: qspace, qspace-volumes, slices, "),
        (("recipe",), "qspace", "takes the steps gradient_scheme, mean_intensity, channel_mean, not none"),
        (("summary", "verdict"), DELETED, "summary: without verdict"),
        (("curve", 1, "epoch"), 2, "curve.1: not epoch 1"),
        (("curve", 0, "validation", "loss"), DELETED, "curve.0: not epoch 0 with its validation loss"),
        (("scans", 0, "n_voxels"), 2**40, None),
        (("reference", "drawn_from"), 601, "voxels drawn from 601, where the scans have 600"),
        (("reference", "n_bytes"), 7, "reference.safetensors: holds input, latent_mean, .* which is not"),
        (("shape",), [7], r"tensor 'decoder\.heads\.bias' is \(12,\) float32, but .*\(14,\)"),
        (("shape", 0), True, r"not a detector's record: shape\.0: Input should be a valid integer"),
        (("shape",), [3, 2], "shape: \\[3, 2\\], where the recipe 'voxels' has voxels"),
        (("contrasts",), ["FLAIR"], "contrasts: .*FLAIR.* do not fit the recipe 'voxels'"),
    ],
)  # fmt: skip
def test_edits_are_told_in_words(arrays_model, copy_of, path, value, words):
    folder = copy_of(arrays_model)
    edit(folder, *path, value=value)
    if words is None:
        Detector.load(folder)
        return
    with pytest.raises(DetectorError, match=r"detector\.json: .*" + words) as caught:
        Detector.load(folder)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ((*SCHEME, "bvalues_s_per_mm2", 0), DELETED, "14 b-values and 15 dir.* not make 15 chan"),
        ((*SCHEME, "bvalues_s_per_mm2", 0), -5.0, "b-values lie between 0 and 1e.06 s/mm2, not -5"),
        ((*SCHEME, "directions", 11), [0.0, 0.5, 0.0], "direction of channel 11 .* length 0.5"),
        ((*SCHEME, "directions", 11), [0.0, 1.0], "three numbers do not make"),
        ((*SCHEME, "angle_tolerance_deg"), 80.0, "is 80.0, but the settings say 5.0"),
        ((*SCHEME, "directions"), DELETED, "TypeError|directions"),
        (("preprocessing", 1, "state", "within"), "whole-scan", "'whole-scan', but the settings say 'mask'"),
        ((*MEANS, 3), DELETED, "14 means for 15 channels"),
        ((*MEANS, 3), 1e20, "lies between 1e-09 and 1e.09, not at 1e.20"),
        ((*MEANS, 3), "1.0", "channel_mean.means.3: '1.0' cannot stand"),
        ((*MEANS, 3), 0.5, "the means average .*, not 1"),
        (("preprocessing", 1), DELETED, "not gradient_scheme, channel_mean"),
        (("recipe",), "voxels", "the recipe 'voxels' takes the steps none, not gradient_scheme"),
    ],
)  # fmt: skip
def test_edits_of_the_preprocessing_are_told_in_words(copy_of, path, value, words):
    folder = copy_of(tiny_detector()[1])
    edit(folder, *path, value=value)
    with pytest.raises(
        DetectorError, match=rf"detector\.json: cannot be put together: .*({words})"
    ) as caught:
        Detector.load(folder)
    assert "\n" not in str(caught.value)


def test_steps_in_another_order_are_refused(copy_of):
    folder = copy_of(tiny_detector()[1])
    steps = json.loads((folder / "detector.json").read_text())["preprocessing"]
    edit(folder, "preprocessing", value=steps[::-1])
    with pytest.raises(DetectorError, match="not channel_mean, mean_intensity, gradient_scheme"):
        Detector.load(folder)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-Infinity", "1" * 5000])
def test_numbers_that_are_none_are_refused(arrays_model, copy_of, number):
    folder = copy_of(arrays_model)
    text = (folder / "detector.json").read_text()
    (folder / "detector.json").write_text(text.replace('"gain": ', f'"more": {number}, "gain": '))
    with pytest.raises(DetectorError, match=r"detector\.json: not readable as JSON: "):
        Detector.load(folder)


def test_no_memory_is_taken_for_what_the_file_asks(arrays_model, copy_of, monkeypatch):
    folder, devices = copy_of(arrays_model), []

    def build(method, shape):
        devices.append(torch.get_default_device().type)
        return VAE(*shape, method.settings)

    monkeypatch.setattr(VAEMethod, "build", build)
    # 65,536 x 65,536 weights are 16 GiB; nobody needs them to see that the file does not hold them.
    edit(folder, "settings", "method_settings", "hidden", value=[1 << 16] * 3)
    with pytest.raises(
        DetectorError, match=r"'decoder\.heads\.weight' is \(12, 24\) float32, but .* \(12, 65536\)"
    ):
        Detector.load(folder)
    assert devices == ["meta"]


@pytest.mark.parametrize(
    "surprise", [KeyError("a"), IndexError("b"), AttributeError("c"), ZeroDivisionError()]
)
def test_any_error_of_a_plug_in_is_damage(arrays_model, copy_of, monkeypatch, surprise):
    def build(method, shape):
        raise surprise

    monkeypatch.setattr(VAEMethod, "build", build)
    with pytest.raises(DetectorError, match=r"detector\.json: cannot be put together: \w+") as caught:
        Detector.load(copy_of(arrays_model))
    assert caught.value.__cause__ is surprise


@pytest.mark.parametrize("signal", [StoppedError("stopped"), MemoryError()])
def test_a_stop_is_a_stop_and_no_damage(arrays_model, copy_of, monkeypatch, signal):
    def build(method, channels):
        raise signal

    monkeypatch.setattr(VAEMethod, "build", build)
    with pytest.raises(type(signal)):
        Detector.load(copy_of(arrays_model))
    assert not issubclass(MemoryError, MedNoveltyError)


def test_two_fits_alike_write_the_same_record(tmp_path):
    for name in ("first", "second"):
        fit_voxels(voxels(), scans=np.arange(600) // 200, seed=3, settings=FAST).save(tmp_path / name)
    first, second = tmp_path / "first", tmp_path / "second"
    for name in ("detector.json", "weights.safetensors", "reference.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert "seconds" in (first / "training.csv").read_text()
    assert "seconds" not in (first / "detector.json").read_text()


def test_two_fits_on_scans_alike_write_the_same_record(tmp_path):
    scans = scan_folder(tiny_cohort().controls, brain_masks=tiny_cohort().brains)
    Detector.fit(scans, settings=FAST, seed=1).save(tmp_path)
    assert (tmp_path / "detector.json").read_bytes() == (tiny_detector()[1] / "detector.json").read_bytes()


def test_a_card_without_times_tells_none(arrays_model, tmp_path):
    assert " s\n" in (arrays_model / "README.md").read_text()
    Detector.load(arrays_model).save(tmp_path)
    assert "the best was" in (tmp_path / "README.md").read_text()
    assert " s\n" not in (tmp_path / "README.md").read_text()
