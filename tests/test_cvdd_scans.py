"""Whole scans judged by context vectors: fitted, kept, scored and told through the command line."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from cohorts import FAST_TOML, tiny_cohort, tiny_detector

import mednovelty as mn
from mednovelty.cli import app
from mednovelty.detector import Detector
from mednovelty.errors import SettingsError
from mednovelty.methods.cvdd_scans import CVDDMethod
from mednovelty.methods.cvdd_settings import ContextSettings, CVDDSettings
from mednovelty.methods.vae import VAEMethod
from mednovelty.methods.vae_settings import VAESettings
from mednovelty.plugins import plugin
from mednovelty.protocols import ScanScorer
from mednovelty.seeds import generator
from mednovelty.voxel_cache import VoxelCache

CHANNELS = 6
SETTINGS = CVDDSettings(
    latents=VAESettings(hidden=(8, 6), latent=3),
    contexts=ContextSettings(contexts=2, attention=5, epochs=15),
    bag=40,
    scans=4,
)


def run(*words):
    with pytest.raises(SystemExit) as ended:
        app([str(word) for word in words])
    return ended.value.code or 0


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cvdd")
    settings = FAST_TOML.replace("[method_settings]", "[method_settings.latents]")
    settings += "\n[method_settings]\nbag = 200\n"
    settings += "[method_settings.contexts]\ncontexts = 2\nattention = 9\nepochs = 20\n"
    (folder / "fast.toml").write_text(settings)
    fit = run("-q", "fit", tiny_cohort().controls, "-o", folder / "model", "--method", "cvdd",
              "--settings", folder / "fast.toml", "-d", "cpu")  # fmt: skip
    score = run("-q", "score", folder / "model", tiny_cohort().patients, "-o", folder / "out", "-d", "cpu")
    assert (fit, score) == (0, 0)
    return folder


def image(folder, name, scan="sub-p02"):
    return nib.load(folder / "out" / scan / "dwi" / f"{scan}_desc-{name}.nii.gz")


def sidecar(folder, scan="sub-p02"):
    return json.loads((folder / "out" / scan / "dwi" / f"{scan}_desc-cvdd_novelty.json").read_text())


def test_maps_tell_the_score_of_the_scan(scored):
    mask = image(scored, "brain_mask").get_fdata() > 0
    told = sidecar(scored)["Score"]
    assert (told["equation"], told["unit"]) == ("Eq. (3.13), of a scan", "cosine distance")
    novelty = image(scored, "cvdd_novelty")
    assert novelty.get_fdata()[mask].mean() == pytest.approx(told["scan"]["overall"], rel=1e-4)
    assert not novelty.get_fdata()[~mask].any()
    for name in ("attention-1", "attention-2"):
        attention = image(scored, f"cvdd_{name}_why")
        assert attention.get_fdata()[mask].mean() == pytest.approx(1, rel=1e-4)
        assert attention.get_fdata()[mask].min() >= 0
        np.testing.assert_array_equal(attention.affine, image(scored, "brain_mask").affine)
    assert set(sidecar(scored)["Images"]) == {"attention-1", "attention-2"}


def test_the_table_tells_every_scan(scored):
    rows = list(csv.DictReader((scored / "out" / "cohort.tsv").open(), delimiter="\t"))
    assert [row["id"] for row in rows] == ["sub-p01", "sub-p02"]
    told = sidecar(scored)["Score"]["scan"]
    assert float(rows[1]["overall"]) == pytest.approx(told["overall"], rel=1e-6)
    assert float(rows[1]["context_2"]) == pytest.approx(told["contexts"][1]["score"], rel=1e-6)
    # Three controls: no p-value is below a quarter.
    assert {row["normals"] for row in rows} == {"3"}
    assert all(float(row["p_value"]) >= 0.25 for row in rows)


def test_attention_lies_where_the_voxels_are(scored):
    # Worked out once more from latents and weights, without any of the code that makes maps.
    detector = Detector.load(scored / "model")
    file = tiny_cohort().patients / "sub-p02" / "dwi" / "sub-p02_dwi.nii.gz"
    scan = mn.read_scan(file)
    prepared, _ = detector.prepare(scan)
    latents = detector.model.encode(torch.from_numpy(prepared.voxels())).mean
    whole = detector.model.contexts.fitted().whole
    weights = whole.attention(latents[None], torch.ones(1, len(latents), dtype=torch.bool))[0]
    attention = image(scored, "cvdd_attention-2_why").get_fdata()
    places = np.argwhere(np.asarray(scan.mask).T)[:, ::-1]  # The mask's voxels, I fastest.
    found = np.array([attention[tuple(place)] for place in places])
    np.testing.assert_allclose(found, weights[:, 1].numpy() * len(latents), rtol=1e-3, atol=1e-5)


def test_scans_that_are_done_are_left_alone_unless_what_says_why_is_gone(scored, capsys):
    words = ("score", scored / "model", tiny_cohort().patients, "-o", scored / "out", "--json", "-d", "cpu")

    def outcomes():
        capsys.readouterr()
        assert run("-q", *words) == 0
        return [scan["status"] for scan in json.loads(capsys.readouterr().out)["Scans"]]

    assert outcomes() == ["up to date", "up to date"]
    path = scored / "out" / "sub-p01" / "dwi" / "sub-p01_desc-cvdd_attention-1_why.nii.gz"
    before = path.read_bytes()
    path.unlink()
    assert outcomes() == ["done", "up to date"]
    assert path.read_bytes() == before


def test_the_verdict_tells_what_p_values_rest_on(scored):
    summary = json.loads((scored / "model" / "detector.json").read_text())["summary"]
    assert "2 contexts learnt from at most 200 voxels a scan: 3 normal scans" in summary["verdict"]
    assert len(summary["normals_overall"]) == 3
    assert summary["smallest_p_value"] == 0.25


def test_the_score_can_be_asked_for_by_name(scored):
    detector = Detector.load(scored / "model")
    file = tiny_cohort().patients / "sub-p02" / "dwi" / "sub-p02_dwi.nii.gz"
    found = detector.score(mn.read_scan(file), "cvdd")
    assert list(found) == ["cvdd"]
    np.testing.assert_array_equal(found["cvdd"].data, image(scored, "cvdd_novelty").get_fdata())


def test_other_detectors_have_no_such_score():
    assert tiny_detector()[0].scan_scores == ()
    with pytest.raises(SettingsError, match="cvdd: needs context vectors over whole scans, which the method"):
        plugin("scan_scorers", "cvdd")(tiny_detector()[0].model)


def tables(scans=5, seed=0):
    random = np.random.default_rng(seed)
    made = []
    for names in (range(scans - 1), range(scans - 1, scans)):
        cache = VoxelCache(CHANNELS)
        for i in names:
            rows = random.normal(size=(60 + i, 2)) @ np.random.default_rng(9).normal(size=(2, CHANNELS))
            cache.append(f"sub-{i}", 3 + rows + 0.1 * random.normal(size=(60 + i, CHANNELS)))
        made.append(cache)
    return made


def finished(settings=SETTINGS, seed=0):
    training, validation = tables()
    method = CVDDMethod(settings)
    model = method.build((CHANNELS,)).eval().requires_grad_(False)
    method.start(model, training, generator(0, "start"))
    method.finish(model, training, validation, seed)
    return method, model, training, validation


def test_normals_are_judged_by_all_their_voxels_and_contexts_without_them():
    _, model, _, validation = finished()
    fitted = model.contexts.fitted()
    # Of five scans room is for four, spread evenly: the last, held out, is among them.
    assert len(fitted.normals) == 4
    last = torch.from_numpy(validation.array())
    part = fitted.parts[int(fitted.part_of[-1])]
    torch.testing.assert_close(fitted.normals[-1], part.judged(model.members([last])).contextual)
    assert isinstance(plugin("scan_scorers", "cvdd")(model), ScanScorer)
    again = finished()[1].contexts.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.contexts.state_dict().items())


def test_the_vae_is_trained_as_ever():
    training, _ = tables()
    method, plain = CVDDMethod(SETTINGS), VAEMethod(SETTINGS.latents)
    models = [m.build((CHANNELS,)) for m in (method, plain)]
    x = torch.from_numpy(training.take(np.arange(20)))
    losses = []
    for m, model in zip((method, plain), models, strict=True):
        m.start(model, training, generator(0, "start"))
        losses.append(m.loss(model, x, 1, generator(1, "loss"))["loss"])
    assert torch.equal(*losses)
    assert {name for name, _ in models[0].named_parameters()} == {n for n, _ in models[1].named_parameters()}


def test_slices_are_no_bags():
    with pytest.raises(SettingsError, match="the method cvdd sees a scan as a bag of voxels"):
        CVDDMethod().build((2, 16, 16))
