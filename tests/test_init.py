"""Training that starts from another detector's weights: what is taken over, what is refused, what is told."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from cohorts import FAST, FAST_TOML, tiny_cohort, tiny_detector
from test_image_recipes import SLICES, cohort, run  # noqa: F401 - a fixture
from test_train import SETTINGS, Scripted, caches
from torch import nn

import mednovelty as mn
from mednovelty.detector import Detector
from mednovelty.errors import DetectorError, SettingsError, StoppedError
from mednovelty.gathering import SeenScan
from mednovelty.initial_weights import InitialWeights
from mednovelty.model_card import annotated, model_card
from mednovelty.origin import Origin
from mednovelty.train import TrainSettings, train

CHANNELS = 6
SCANS = np.arange(600) // 150
LEARNING = replace(FAST, train=TrainSettings(batch_size=64, max_epochs=12, learning_rate=3e-3, patience=99))
STILL = replace(FAST, train=replace(FAST.train, max_epochs=0))


def voxels(seed=0, n=600, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(3, CHANNELS))
    level = rng.uniform(-2, 2, (n, 3))
    noise = np.exp(level[:, :1]) * 0.1 * rng.normal(size=(n, CHANNELS))
    return (shift + np.sin(level) @ mixing + noise).astype("f4")


def fitted(x, settings=FAST, **options):
    return mn.fit_voxels(x, scans=SCANS[: len(x)], settings=settings, **options)


@pytest.fixture(scope="module")
def first():
    detector = fitted(voxels(), LEARNING)
    assert detector.fitted.record.best_epoch > 1
    return detector


@pytest.fixture(scope="module")
def saved(first, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "model"
    return first.save(folder), folder


def same_tensors(one, other):
    a, b = one.model.state_dict(), other.model.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class TestWhatIsTakenOver:
    def test_weights_and_what_the_inputs_are_standardised_with(self, first):
        other = voxels(seed=5, shift=3)
        again = fitted(other, STILL, init=first)
        assert same_tensors(first, again)
        assert not same_tensors(first, fitted(other, STILL))
        np.testing.assert_array_equal(
            first.score_voxels(other[:50], "negative_elbo")["negative_elbo"],
            again.score_voxels(other[:50], "negative_elbo")["negative_elbo"],
        )

    def test_epoch_0_is_the_start_and_is_kept_if_nothing_is_better(self, first):
        wild = replace(FAST, train=TrainSettings(batch_size=64, min_steps=1, max_epochs=2, learning_rate=0.5))
        again = fitted(voxels(), wild, init=first)
        record = again.fitted.record
        assert record.losses[0] == pytest.approx(first.fitted.record.best.validation["loss"], rel=1e-6)
        assert len(record.rows) == 3
        assert record.best_epoch == 0
        assert same_tensors(first, again)

    def test_training_goes_on_from_there(self, first):
        again = fitted(voxels(), LEARNING, init=first)
        assert min(again.fitted.record.losses) < first.fitted.record.best.validation["loss"]
        assert not same_tensors(first, again)
        assert not same_tensors(again, fitted(voxels(), LEARNING))

    def test_a_folder_is_as_good_as_what_it_holds(self, saved):
        detector, folder = saved
        found = [fitted(voxels(1), init=init) for init in (detector, folder, str(folder))]
        assert same_tensors(found[0], found[1])
        assert same_tensors(found[0], found[2])
        assert {each.origin for each in found} == {found[0].origin}

    def test_what_a_detector_measured_of_its_normals_is_its_own(self):
        class Measuring(Scripted):
            keeps_own = ("of_",)

            def build(self, shape):
                model = nn.Linear(1, 1, bias=False)
                model.register_buffer("of_normals", torch.zeros(2))
                model.register_buffer("learnt_of_old", torch.zeros(3))
                return model

            def start(self, model, normals, generator):
                super().start(model, normals, generator)
                model.of_normals.fill_(7)

        method = Measuring(1.0)
        model = method.build(5)
        tensors = {
            "weight": torch.full((1, 1), 4.0),
            "of_normals": torch.full((2,), 5.0),
            "learnt_of_old": torch.full((3,), 6.0),
        }
        init = InitialWeights("a" * 64, tensors)
        train(method, model, *caches(), replace(SETTINGS, max_epochs=0), init=init)
        assert (model.weight.item(), model.of_normals[0].item(), model.learnt_of_old[0].item()) == (4, 7, 6)

    def test_a_method_without_keeps_own_keeps_nothing(self):
        method = Scripted(1.0)
        model = method.build(5)
        init = InitialWeights("a" * 64, {"weight": torch.full((1, 1), 4.0)})
        train(method, model, *caches(), replace(SETTINGS, max_epochs=0), init=init)
        assert model.weight.item() == 4

    def test_the_average_starts_there(self, first):
        averaged = replace(FAST, train=replace(FAST.train, max_epochs=0, average=0.9))
        assert same_tensors(first, fitted(voxels(), averaged, init=first))

    def test_planted_diffusion_keeps_its_own_divisors(self, tmp_path):
        from mednovelty.model_folder import fit_settings

        own = {"hidden": [8], "latent": 3, "pretrain_epochs": 0, "anomalies": "diffusion"}
        tree = {"method": "hsc", "method_settings": own, "train": {"max_epochs": 1}}
        settings = fit_settings(tree, where="test")
        scans = list(mn.scan_folder(tiny_cohort().controls))
        one, other = (Detector.fit(scans[:n], settings=settings) for n in (2, 3))
        still = replace(settings, train=replace(settings.train, max_epochs=0))
        again = Detector.fit(scans, settings=still, init=one)
        assert not torch.equal(one.model.divisors, other.model.divisors)
        assert torch.equal(again.model.divisors, other.model.divisors)
        weights = [dict(each.model.encoder.named_parameters()) for each in (again, one)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


@dataclass
class Case:
    settings: object
    words: str
    code: str


class TestRefusals:
    @pytest.mark.parametrize(
        "case",
        [
            Case(replace(FAST, method="ae", method_settings=None, scores=("reconstruction_error",)),
                 r"the vae detector \w{12} has another method \(vae there, ae here\)", "init.method"),
            Case(replace(FAST, method_settings=replace(FAST.method_settings, hidden=(24, 15))),
                 r"another network than that: \S+ is \(16,[^)]*\) there and \(15,.*\) here", "init.network"),
            Case(replace(FAST, method_settings=replace(FAST.method_settings, hidden=(24, 16, 9))),
                 r"another network than that: \S+ is missing there and \(9, 16\) here", "init.network"),
            Case(replace(FAST, method_settings=replace(FAST.method_settings, hidden=(24,))),
                 r"another network than that: .* there and ", "init.network"),
            Case(replace(FAST, candidates=({"kl_weight": 0.5}, {"hidden": (9,)})),
                 r"another network than that of candidates\.1: ", "init.network"),
        ],
        ids=lambda case: case.code,
    )  # fmt: skip
    def test_other_methods_and_networks(self, first, case):
        with pytest.raises(SettingsError, match=r"^init: " + case.words if case.code == "init.method" else
                           r"^init: the vae detector \w{12} has " + case.words) as caught:  # fmt: skip
            fitted(voxels(), case.settings, init=first)
        assert caught.value.code == case.code
        assert caught.value.exit_code == 2

    def test_candidates_of_one_network_all_start_there(self, first):
        two = replace(STILL, candidates=({"kl_weight": 0.5}, {"kl_weight": 1.0}))
        assert same_tensors(first, fitted(voxels(), two, init=first))

    def test_another_shape(self, first):
        with pytest.raises(SettingsError, match=r"another shape \(6 there, 5 here\)") as caught:
            fitted(voxels()[:, :5], init=first)
        assert caught.value.code == "init.shape"

    def test_another_recipe(self):
        with pytest.raises(SettingsError, match=r"another recipe \(qspace there, voxels here\)"):
            fitted(voxels(), init=tiny_detector()[0])

    def test_what_has_no_trained_weights(self):
        from mednovelty.model_folder import fit_settings

        settings = fit_settings({"method": "gaussian", "method_settings": {"samples": 90}}, where="test")
        shallow = fitted(voxels(), settings)
        with pytest.raises(
            SettingsError, match="has no trained weights: its model is fitted at once"
        ) as caught:
            fitted(voxels(), settings, init=shallow)
        assert caught.value.code == "init.weights"

    def test_no_detector(self, tmp_path):
        with pytest.raises(DetectorError, match="no detector here"):
            fitted(voxels(), init=tmp_path)


class TestCheckpoints:
    def test_resuming_gives_the_bits_of_an_unbroken_run(self, first, tmp_path):
        def stop(record):
            if len(record.rows) == 3:
                raise KeyboardInterrupt

        unbroken = fitted(voxels(1), init=first)
        with pytest.raises(StoppedError):
            fitted(voxels(1), init=first, folder=tmp_path, on_epoch=stop)
        resumed = fitted(voxels(1), init=first, folder=tmp_path, resume=True)
        assert same_tensors(unbroken, resumed)
        assert resumed.fitted.record.losses == unbroken.fitted.record.losses

    def test_a_checkpoint_knows_where_it_started(self, first, tmp_path):
        fitted(voxels(1), init=first, folder=tmp_path)
        sha256 = Origin.of(first).sha256
        with pytest.raises(SettingsError, match=f"of another run .init: '{sha256}' there, None here"):
            fitted(voxels(1), folder=tmp_path, resume=True)
        with pytest.raises(
            SettingsError, match=f"of another run .init: '{sha256}' there, '[0-9a-f]{{64}}' here"
        ):
            fitted(voxels(1), folder=tmp_path, resume=True, init=fitted(voxels(2)))


class TestWhatIsTold:
    def test_one_that_was_never_saved_has_the_hash_of_saving_it(self, first, saved):
        assert first.sha256 == ""
        assert Origin.of(first).sha256 == saved[0].sha256 == Origin.of(Detector.load(saved[1])).sha256

    def test_in_notes_summary_card_and_record(self, saved, tmp_path):
        again = fitted(voxels(1), init=saved[1]).save(tmp_path)
        words = f"started from {saved[0].sha256}, which saw 4 scans, 3 to train on"
        assert words in again.notes
        assert again.fitted.summary["started_from"] == words
        card = (tmp_path / "README.md").read_text()
        assert f"* Weights: {words}\n" in card
        assert "started from: " not in card
        record = json.loads((tmp_path / "detector.json").read_text())
        assert record["origin"]["sha256"] == saved[0].sha256
        assert [scan["n_voxels"] for scan in record["origin"]["scans"]] == [150] * 4
        loaded = Detector.load(tmp_path)
        assert loaded.origin == again.origin
        assert len(loaded.seen) == 8

    def test_what_started_from_nothing_says_nothing(self, first, saved):
        assert first.origin is None
        assert "started_from" not in first.fitted.summary
        assert first.seen == first.scans
        assert "Weights" not in (saved[1] / "README.md").read_text()

    def test_annotated_scans_are_told_however_far_back(self, first):
        known = SeenScan("sub-p01", "b" * 64, 90, "training", "5 voxels of its lesion are labelled")
        semi = replace(first, scans=(*first.scans, known))
        second = fitted(voxels(1), init=semi)
        third = fitted(voxels(2), init=second)
        for detector in (second, third):
            assert "; annotated were sub-p01" in detector.fitted.summary["started_from"]
            assert annotated(detector) == [
                "sub-p01: 5 voxels of its lesion are labelled (seen by the detector it started from)"
            ]
            assert "maps of these scans say nothing of how well it does" in model_card(detector, "c" * 64)
        assert third.origin.sha256 != second.origin.sha256
        assert known in third.origin.scans

    def test_a_damaged_hash_is_refused(self, saved, tmp_path):
        fitted(voxels(1), init=saved[1]).save(tmp_path)
        path = tmp_path / "detector.json"
        path.write_text(path.read_text().replace(f'"sha256": "{saved[0].sha256}"', '"sha256": "none"'))
        with pytest.raises(DetectorError, match=r"origin\.sha256"):
            Detector.load(tmp_path)


class TestDiffusion:
    """Scans: their acquisition, and the order of its gradients."""

    def test_channels_are_in_the_order_that_the_weights_know(self):
        one = tiny_detector()[0]
        made = tiny_cohort()
        scans = [mn.read_scan(files) for files in mn.scan_folder(made.controls, brain_masks=made.brains)]
        order = np.random.default_rng(0).permutation(scans[0].n_channels)
        turned = [scan.take(order, _taken(scan.gradients, order)) for scan in scans]
        assert Detector.fit(turned, settings=STILL, seed=1).scheme != one.scheme
        again = Detector.fit(turned, settings=STILL, init=one, seed=1)
        assert again.scheme == one.scheme
        assert same_tensors(one, again)
        told = np.array(one.scheme.bvalues_s_per_mm2) > 50  # Volumes at b=0 stand for each other.
        x, y = (d.prepare(scan[0])[0].voxels(0, 40)[:, told] for d, scan in ((one, scans), (again, turned)))
        np.testing.assert_allclose(y, x, rtol=1e-5)

    def test_another_acquisition_is_refused_before_a_voxel_is_read(self, monkeypatch):
        from dipy.core.gradients import gradient_table

        scans = [mn.read_scan(files) for files in mn.scan_folder(tiny_cohort().controls)]
        bvals = np.where(scans[0].gradients.bvals > 50, 2500, 0)
        table = gradient_table(bvals, bvecs=scans[0].gradients.bvecs, b0_threshold=50)
        others = [replace(scan, gradients=table) for scan in scans]
        monkeypatch.setattr("mednovelty.gathering.scan_of", _unread)
        words = "init: another acquisition .* most scans here: acquired with .*b=2500; the detector knows"
        with pytest.raises(SettingsError, match=words) as caught:
            Detector.fit(others, settings=FAST, init=tiny_detector()[0])
        assert caught.value.code == "init.acquisition"

    def test_scans_held_out_here_that_it_was_trained_on(self):
        one = tiny_detector()[0]
        trained = {scan.id for scan in one.scans if scan.role == "training"}
        notes = {}
        for seed in range(4):
            again = Detector.fit(mn.scan_folder(tiny_cohort().controls), settings=STILL, seed=seed, init=one)
            (held_out,) = [scan.id for scan in again.scans if scan.role == "validation"]
            notes[held_out] = [note for note in again.notes if "is held out to validate on" in note]
        assert len(notes) > 1
        for held_out, found in notes.items():
            assert len(found) == (held_out in trained), held_out
            assert all(note.startswith(f"{held_out}: is held out to validate on, and ") for note in found)


def _taken(gradients, order):
    from dipy.core.gradients import gradient_table

    return gradient_table(gradients.bvals[order], bvecs=gradients.bvecs[order], b0_threshold=50)


def _unread(*_, **__):
    raise AssertionError("a scan was read")


class TestCommand:
    """``fit --init``."""

    def fit(self, tmp_path, *words):
        (tmp_path / "fast.toml").write_text(FAST_TOML)
        made = tiny_cohort()
        return run("fit", made.controls, "-o", tmp_path / "model", "--brain-masks", made.brains,
                   "--settings", tmp_path / "fast.toml", "--set", "train.max_epochs=1", *words)  # fmt: skip

    def test_it_starts_there_and_says_so(self, tmp_path):
        one, folder = tiny_detector()
        result = self.fit(tmp_path, "--init", folder, "--json")
        assert result.exit_code == 0, result.output
        told = json.loads(result.stdout)
        words = f"started from {one.sha256}, which saw 3 scans, 2 to train on"
        assert told["summary"]["started_from"] == words
        assert words in told["notes"]
        assert words in result.stderr
        detector = Detector.load(tmp_path / "model")
        scored = run("score", tmp_path / "model", tiny_cohort().patients, "-o", tmp_path / "maps", "--scores",
                     "vae_regularizer")  # fmt: skip
        assert scored.exit_code == 0, scored.output
        assert json.loads((tmp_path / "maps" / "run.json").read_text())["StartedFrom"] == one.sha256
        assert detector.origin.sha256 == one.sha256

    @pytest.mark.parametrize(
        ("words", "exit_code", "said"),
        [
            (["--set", "method_settings.latent=3"], 2, "has another network than that"),
            (["--method", "ae"], 2, "has another method (vae there, ae here)"),
            (["--recipe", "contrasts"], 2, "has another recipe (qspace there, contrasts here)"),
        ],
    )
    def test_refused_with_nothing_read(self, tmp_path, monkeypatch, words, exit_code, said, request):
        monkeypatch.setattr("mednovelty.gathering.scan_of", _unread)
        folder = tiny_detector()[1]
        if "contrasts" in words:
            images = request.getfixturevalue("cohort") / "scans"
            result = run(
                "fit", images, "-o", tmp_path / "model", *words, "--contrasts", "FLAIR", "--init", folder
            )
        elif "ae" in words:
            result = run("fit", tiny_cohort().controls, "-o", tmp_path / "model", *words, "--init", folder)
        else:
            result = self.fit(tmp_path, *words, "--init", folder)
        assert result.exit_code == exit_code, result.output
        assert said in result.stderr
        assert not (tmp_path / "model" / "detector.json").exists()

    def test_a_folder_without_a_detector(self, tmp_path):
        (tmp_path / "empty").mkdir()
        result = self.fit(tmp_path, "--init", tmp_path / "empty")
        assert result.exit_code == 4
        assert "no detector here" in result.stderr
        assert not (tmp_path / "model").exists()

    def test_reports_have_no_such_start(self, tmp_path):
        (tmp_path / "a.txt").write_text("nothing to report")
        result = run(
            "fit", tmp_path / "a.txt", "-o", tmp_path / "model", "--method", "cvdd", "--init", tmp_path
        )
        assert result.exit_code == 2
        assert "--init" in result.stderr

    def test_slices_with_other_contrasts_or_another_size(self, cohort, tmp_path):  # noqa: F811
        (tmp_path / "tiny.toml").write_text(SLICES)

        def fit(out, *words):
            return run("fit", cohort / "scans", "-o", tmp_path / out, "--recipe", "slices", "--brain-masks",
                       cohort / "brains", "--settings", tmp_path / "tiny.toml", *words)  # fmt: skip

        both = ("--contrasts", "FLAIR,T1w")
        assert fit("one", *both).exit_code == 0
        init = ("--init", tmp_path / "one")
        for words, said in (
            (("--contrasts", "T1w,FLAIR"), "another contrasts (FLAIR, T1w there, T1w, FLAIR here)"),
            (("--contrasts", "FLAIR"), "another contrasts (FLAIR, T1w there, FLAIR here)"),
            (
                (*both, "--set", "view_settings.size=[32,32]"),
                "another shape (2, 16, 16 there, 2, 32, 32 here)",
            ),
            ((*both, "--set", "method_settings.latent=4"), "another network"),
        ):
            result = fit("two", *words, *init)
            assert result.exit_code == 2, result.output
            assert said in result.stderr
        result = fit("two", *both, *init, "--set", 'preprocessors=["zscore"]', "--overwrite", "--json")
        assert result.exit_code == 0, result.output
        notes = json.loads(result.stdout)["notes"]
        assert any("has other preprocessors and preprocessor_settings: " in note for note in notes)
        again, one = Detector.load(tmp_path / "two"), Detector.load(tmp_path / "one")
        assert again.fitted.record.losses[0] != one.fitted.record.losses[0]
