"""Methods that learn from anomalies: what each is shown, and by which words it is asked for."""

import json

import numpy as np
import pytest
import torch
from image_folders import folder, image_sets, task_of  # noqa: F401 - fixtures among them
from test_bench import bench, numbers

from mednovelty.benchmarks import one_vs_rest_labelled
from mednovelty.benchmarks.image_sets import image_set
from mednovelty.benchmarks.one_class_images import Scale, one_class
from mednovelty.benchmarks.one_vs_rest import DETECTORS, Run
from mednovelty.benchmarks.one_vs_rest_labelled import (
    EXPOSED,
    ClassifierMethod,
    exposed_tables,
    method_named,
)
from mednovelty.benchmarks.variants import sweep_of
from mednovelty.errors import SettingsError
from mednovelty.metrics import Ranking, auroc
from mednovelty.seeds import generator

SMALL = {"epochs": 2, "pretrain_epochs": 1, "batch": 10, "learning_rate": 1e-3, "contrast": False}


def run_of(folder, beside=(), **more):  # noqa: F811
    _, settings = task_of("one-vs-rest", folder, "one_class", **SMALL | more)
    images = one_class(image_set("mnist", folder), 5, seed=0, scenario=settings.scenario(),
                       contrast=settings.contrast)  # fmt: skip
    return Run(images, settings, beside=beside)


def test_deep_sad_without_anomalies_is_deep_svdd(folder):  # noqa: F811
    run = run_of(folder)
    np.testing.assert_array_equal(DETECTORS["deep_sad"](run)[0], DETECTORS["one_class"](run)[0])


def test_what_is_trained_on_ends_with_labels(folder, monkeypatch):  # noqa: F811
    run, seen = run_of(folder, labelled=0.25, pollution=0.1), []
    train = one_vs_rest_labelled.train
    monkeypatch.setattr(one_vs_rest_labelled, "train", lambda *a, **k: seen.append(a) or train(*a, **k))
    scores, _ = DETECTORS["deep_sad"](run)
    method, model, training, held_out, _ = seen[0]
    # 33 unlabelled of 30 normal ones, and 11 known anomalies; 2 and 1 are held out.
    assert [
        np.unique(table.array()[:, -1], return_counts=True)[1].tolist() for table in (training, held_out)
    ] == [
        [10, 31],
        [1, 2],
    ]
    assert method.can_choose(model, training, held_out)
    rows = torch.from_numpy(training.array())
    bright = rows[:, :-1].view(-1, 28, 28).mean(2).argmax(1)
    assert (bright[rows[:, -1] < 0] == 0).all()
    assert not np.array_equal(scores, DETECTORS["one_class"](run)[0])
    assert run.told["known_anomalies"] == {"images": 11, "classes": [0]}


@pytest.mark.parametrize("name", ["deep_sad", "hsc", "classifier"])
def test_known_anomalies_become_the_most_novel(folder, name):  # noqa: F811
    run = run_of(folder, labelled=0.3, epochs=12, learning_rate=1e-2)
    scores, _ = DETECTORS[name](run)
    labels = np.arange(100) % 10  # As ``write_idx`` has them; class 0 is known.
    some = (labels == 5) | (labels == 0)
    assert auroc(Ranking.of(scores[some], labels[some] == 0)) == 1


def test_the_classifier_is_cross_entropy():
    method = ClassifierMethod()
    logits, labels = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([0.0, 1.0, -1.0])
    p = 1 / (1 + np.exp(-logits.numpy().astype(np.float64)))
    expected = -np.log([1 - p[0], 1 - p[1], p[2]])
    np.testing.assert_allclose(method.losses(None, logits, labels), expected, rtol=1e-5)
    np.testing.assert_allclose(method.losses(None, logits, None), -np.log(1 - p), rtol=1e-5)


def test_eta_weighs_what_is_labelled(folder):  # noqa: F811
    logits, labels = torch.tensor([0.3, 2.0]), torch.tensor([0.0, -1.0])
    for name in ("deep_sad", "hsc"):
        one, three = (
            method_named(name, run_of(folder, eta=eta), start=False).losses(None, logits, labels)
            for eta in (1.0, 3.0)
        )
        torch.testing.assert_close(three / one, torch.tensor([1.0, 3.0]))


class TestExposure:
    def test_half_of_a_batch_is_of_another_set(self, image_sets):  # noqa: F811
        run = run_of(image_sets / "mnist", ("cifar10", str(image_sets / "cifar10")))
        training, held_out = exposed_tables(run, run.outliers("hsc_exposed"))
        batches = [rows[:, -1] for rows in training.batches(10, generator(0, "x"))]
        counts = [(int((labels < 0).sum()), int((labels == 0).sum())) for labels in batches]
        assert all(abs(strange - normal) <= 1 for strange, normal in counts)
        assert [sum(numbers) for numbers in zip(*counts, strict=True)] == [28, 28]
        labels = held_out.array()[:, -1]
        assert np.unique(labels, return_counts=True)[1].tolist() == [2, 2]
        # None is in both.
        outliers = training.outliers.array()[:, :-1]
        assert len(outliers) == 95
        unseen = held_out.array()[labels < 0, :-1]
        assert not (unseen[:, None] == outliers[None]).all(2).any()
        assert outliers.max() <= 1

    @pytest.mark.parametrize("name", EXPOSED)
    def test_it_learns_from_them(self, image_sets, name):  # noqa: F811
        beside = ("cifar10", str(image_sets / "cifar10"))
        run = run_of(image_sets / "mnist", beside, epochs=6, learning_rate=1e-2, contrast=True)
        scores, told = DETECTORS[name](run)
        assert told["outliers_auroc"] > 0.9
        assert scores.shape == (100,)
        assert run.told == {"outliers": "cifar10"}

    def test_images_move_in_training_alone_and_are_normalised_after_that(self, folder):  # noqa: F811
        run = run_of(folder, contrast=True)
        method = method_named("hsc", run, start=False)
        method.scale = run.images.scale
        model, seen = method.build(run.images.shape), []
        method.start(model, run.training, generator(0, "start"))
        model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
        rows = torch.cat([run.images.training[:6], torch.zeros(6, 1)], dim=1)
        method.loss(model.train(), rows, 1, generator(0, "noise"))
        method.validate(model.eval(), [rows], generator(0, "noise"))
        moved, still = seen
        torch.testing.assert_close(still, run.images.scale(rows[:, :-1]))
        assert not torch.allclose(moved, still)
        # The bright row is two rows away at most, and as bright after normalising.
        for image in moved.view(-1, 28, 28):
            assert 8 <= image.mean(1).argmax() <= 12
        assert isinstance(model.scale, Scale)


class TestCommand:
    WORDS = (
        *("--classes", "5", "--workers", 0, "--seeds", 1),
        *("--set", "epochs=1", "--set", "pretrain_epochs=1", "--set", "images=12"),
    )

    def test_a_sweep_has_a_row_for_each_setting(self, image_sets, tmp_path):  # noqa: F811
        out = tmp_path / "out"
        words = ("one-vs-rest", "--data", image_sets, "--methods", "kde,hsc", *self.WORDS, "-o", out)
        text = bench(*words, "--sweep", "labelled=0,0.25", "--sweep", "pollution=0,0.5").stdout
        found = {(row["method"], row["variant"]) for row in numbers(out)}
        every = {f"labelled={a},pollution={b}" for a in (0, 0.25) for b in (0, 0.5)}
        # What learns from anomalies is left out where there are none.
        assert found == {("kde", v) for v in every} | {("hsc", v) for v in every if "=0.25" in v}
        (usual,) = [line for line in text.splitlines() if "`kde` (labelled=0,pollution=0) † |" in line]
        assert "(.738," in usual
        # The paper has no such numbers of other settings.
        others = [line for line in text.splitlines() if "pollution=0.5" in line]
        assert len(others) == 3
        assert not any(".738" in line for line in others)
        # Known anomalies are of use to one of the two alone.
        assert "`kde` (labelled=0.25,pollution=0) † |" in text
        assert "`hsc` (labelled=0.25,pollution=0; semi-supervised) † |" in text
        told = json.loads((out / "run.json").read_text())
        assert {row["variant"] for row in told["rows"]} == every
        assert "6 cells, 6 done already" in bench(*words, "--sweep", "labelled=0,0.25", "--sweep",
                                                  "pollution=0,0.5", "--resume").stderr  # fmt: skip

    def test_outliers_are_named(self, image_sets, tmp_path):  # noqa: F811
        words = ("fashion-one-vs-rest", "--data", image_sets, "--methods", "hsc_exposed", *self.WORDS)
        text = bench(*words, "-o", tmp_path / "a").stdout
        said = (
            "`hsc_exposed` on fashion_mnist: outliers are images of {}; the paper's are of CIFAR-100 in grey"
        )
        assert said.format("cifar10") in text
        assert "`hsc_exposed` (outliers) † |" in text
        assert said.format("mnist") in bench(*words, "--set", "outliers=mnist", "-o", tmp_path / "b").stdout
        cells = [json.loads((tmp_path / name / "run.json").read_text())["cells"] for name in "ab"]
        assert [told["outliers"] for one in cells for told in one.values()] == ["cifar10", "mnist"]
        hashes = [told["settings_sha256"] for one in cells for told in one.values()]
        assert hashes[0] != hashes[1]

    @pytest.mark.parametrize(
        ("more", "code", "message"),
        [
            (
                ("--methods", "hsc", "--set", "labelled=0"),
                2,
                "hsc: learns from known anomalies; set labelled",
            ),
            (
                ("--methods", "kde", "--set", "pollution=1"),
                2,
                "pollution=1.0: a share, at least 0 and below 1",
            ),
            (("--methods", "kde", "--sweep", "polution=0,1"), 2, "did you mean 'pollution'?"),
            (("--methods", "kde", "--sweep", "pollution"), 2, "--sweep 'pollution': write name=a,b"),
            (("--methods", "oc_svm", "--sweep", "nu=1,2", "--oracle"), 2, "give one of the two"),
            (
                ("--methods", "fcdd", "--datasets", "cifar10"),
                3,
                "cifar100: train.bin, test.bin (or with .gz) are not all in one folder",
            ),
            (("--methods", "fcdd", "--set", "outliers=mnist"), 3, "mnist: is what is trained on"),
        ],
    )
    def test_errors(self, image_sets, tmp_path, more, code, message):  # noqa: F811
        result = bench("one-vs-rest", "--data", image_sets, "-o", tmp_path / "out", *more, code=code)
        assert message in result.stderr
        assert not (tmp_path / "out").exists()

    def test_the_papers_outliers_come_first(self, image_sets, tmp_path):  # noqa: F811
        from mednovelty.bench_command import BenchRequest, tasks_of
        from mednovelty.benchmarks.plan import plan_named

        plan, _ = plan_named("one-vs-rest")
        pixels = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
        (image_sets / "cifar100").mkdir()
        for name in ("train.bin", "test.bin"):
            (image_sets / "cifar100" / name).write_bytes(b"".join(b"\0\1" + row.tobytes() for row in pixels))
        for dataset in ("fashion_mnist", "cifar10"):
            request = BenchRequest("one-vs-rest", image_sets, methods="fcdd", datasets=dataset, classes="1")
            tasks, _ = tasks_of(plan, request, None)
            assert {task.beside[0] for task in tasks} == {"cifar100"}
            assert all("cifar100/train.bin" in task.data for task in tasks)


def test_sweeps_by_hand():
    assert sweep_of(["a=0,0.5", "b=x,true"]) == [
        {"a": 0, "b": "x"},
        {"a": 0, "b": True},
        {"a": 0.5, "b": "x"},
        {"a": 0.5, "b": True},
    ]
    assert sweep_of([]) == []
    for wrong in (["a"], ["=1"], ["a.b=1"], ["a=1", "a=2"]):
        with pytest.raises(SettingsError, match="write name=a,b"):
            sweep_of(wrong)
    with pytest.raises(SettingsError, match="names nothing"):
        sweep_of(["a="])
