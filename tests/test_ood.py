"""One set is trained on, another is novel: what is trained on, both FPR95, and who is told classes."""

import json

import numpy as np
import pytest
import torch
from image_folders import image_sets, run, task_of  # noqa: F401 - a fixture among them
from PIL import Image
from test_bench import bench, numbers

from mednovelty.benchmarks import ood
from mednovelty.benchmarks.comparison import SPREAD, markdown
from mednovelty.benchmarks.image_sets import image_set
from mednovelty.benchmarks.ood import METRICS, OWN
from mednovelty.benchmarks.ood_images import labelled, split_of
from mednovelty.benchmarks.plan import plan_named
from mednovelty.errors import SettingsError
from mednovelty.metrics import Ranking, auroc

SMALL = {"epochs": 1, "batch": 50, "network": "dense", "latent": 12, "hidden": (20,)}
FAR, NEAR = "fpr95_in_positive", "fpr95_out_positive"


def settings_of(folder, **over):
    return task_of("ood", folder, "vae", "mnist", dataset="fashion_mnist", **SMALL | over)[1]


def found(folder, method, label, **over):
    """Return what a cell finds, trained on clothes."""
    beside = () if label.isdigit() else (label, str(folder / label))
    return run("ood", folder / "fashion_mnist", method, label, dataset="fashion_mnist", beside=beside,
               **SMALL | over)  # fmt: skip


def test_both_conventions_by_hand():
    # 20 in distribution, 0 to 19; out 17.5 and 40. 95 % of the first are accepted up to 18, and 17.5 with
    # them: one of two. Both of the others are flagged from 17.5 on, which 18 and 19 are too: 2 of 20.
    ranking = Ranking.of(np.array([*range(20), 17.5, 40.0]), np.arange(22) >= 20)
    assert METRICS[FAR](ranking) == 0.5
    assert METRICS[NEAR](ranking) == pytest.approx(2 / 20)
    assert METRICS["auroc"](ranking) == pytest.approx((18 + 20) / 40)


def test_a_class_that_is_left_out_is_not_trained_on(image_sets):  # noqa: F811
    images = image_set("fashion_mnist", image_sets / "fashion_mnist")
    split, classes = split_of(images, 3, 0)
    assert len(split.training) + len(split.held_out) == 270
    assert split.novel.tolist() == (images.truth == 3).tolist()
    # Class k is bright in row 2 k; classes behind the one that is left out move up.
    for rows, labels in ((split.training, classes[0]), (split.held_out, classes[1])):
        bright = rows.view(-1, 28, 28).mean(2).argmax(1) // 2
        assert 3 not in bright
        assert torch.equal(labels, torch.where(bright > 3, bright - 1, bright))
    whole, classes = split_of(images, None, 0, test_images=7)
    assert (len(whole.training) + len(whole.held_out), len(whole.test), whole.novel.any()) == (300, 7, False)
    rows = labelled(whole, classes)
    assert torch.equal(rows.training[:, -1].long(), whole.training.view(-1, 28, 28).mean(2).argmax(1) // 2)
    some, few = split_of(images, None, 0, most=40)
    assert (len(some.training), len(some.held_out), len(few[0]), len(few[1])) == (38, 2, 38, 2)
    with pytest.raises(SettingsError, match="class 11 is not among those of the set: 0, 1, 2"):
        split_of(images, 11, 0)


def test_pixels_are_compared_with_training_images(image_sets):  # noqa: F811
    sets = {name: image_set(name, image_sets / name) for name in ("fashion_mnist", "mnist")}
    split, _ = split_of(sets["fashion_mnist"], None, 0)
    strange = torch.from_numpy(sets["mnist"].test.reshape(100, 784) / 255).float()
    both = torch.cat([split.test, strange])
    nearest = torch.cdist(both, split.training).sort(1).values[:, :3].mean(1)
    ranking = Ranking.of(nearest.numpy(), np.arange(200) >= 100)
    by_metric = {
        row.metric: row.value for row in found(image_sets, "pixels", "mnist", scores=("knn",)).measured
    }
    assert by_metric == pytest.approx({name: metric(ranking) for name, metric in METRICS.items()}, abs=0.011)


@pytest.mark.parametrize("method", OWN)
def test_every_method_has_its_scores_in_all_metrics(image_sets, method):  # noqa: F811
    rows = found(image_sets, method, "cifar10").measured
    assert [(row.score, row.metric) for row in rows] == [
        (score, metric) for score in OWN[method] for metric in METRICS
    ]
    value = {(row.score, row.metric): row.value for row in rows}
    # Waves have nothing of a bright row in the dark.
    assert value["knn", "auroc"] > 0.9


def test_one_training_is_for_all_sets_and_a_class_left_out_is_another(image_sets, monkeypatch):  # noqa: F811
    ood._fitted.cache_clear()
    count, trained = [], ood.trained
    monkeypatch.setattr(ood, "trained", lambda *a, **k: count.append(a[1]) or trained(*a, **k))
    over = {"scores": ("knn", "mse")}
    first, second = (found(image_sets, "vae", name, **over).measured for name in ("mnist", "cifar10"))
    assert len(count) == 1
    assert first != second
    found(image_sets, "vae", "4", **over)
    found(image_sets, "vae", "4", seed=1, **over)
    assert len(count) == 3


def test_classes_are_told_to_those_that_have_poles(image_sets, monkeypatch):  # noqa: F811
    ood._fitted.cache_clear()
    seen, trained = {}, ood.trained

    def listening(method, split, *more, **named):
        seen[name] = (method.settings, split.training.shape[1])
        return trained(method, split, *more, **named)

    monkeypatch.setattr(ood, "trained", listening)
    for name in ("vae", "vmf", "compressed"):
        findings = found(image_sets, name, "4", scores=("knn",), labels=True, latent=93)
        assert len(findings.measured) == len(METRICS)
    assert [seen[name][0].coordinates for name in seen] == ["cartesian", "hyperspherical", "hyperspherical"]
    assert [seen[name][0].compressed for name in seen] == [None, 1, None]
    assert [(seen[name][0].classes, seen[name][1]) for name in seen] == [(0, 784), (9, 785), (9, 785)]
    same = {(one.latent, one.output, one.network, one.hidden) for one, _ in seen.values()}
    assert same == {(93, "sigmoid", "dense", (20,))}
    name = "vmf"
    found(image_sets, "vmf", "4", scores=("knn",))
    assert (seen["vmf"][0].classes, seen["vmf"][1]) == (0, 784)


def test_mirroring_mirrors_left_and_right_and_nothing_else(image_sets):  # noqa: F811
    how = settings_of(image_sets / "fashion_mnist", mirrored=True).method("vae", 0).settings.augmentation
    images = torch.rand(40, 1, 5, 7, generator=torch.Generator().manual_seed(0))
    from mednovelty.nn.augmentation import augmented

    changed = augmented(images, how, torch.Generator().manual_seed(1))
    turned = torch.tensor([not torch.allclose(a, b, atol=1e-5) for a, b in zip(changed, images, strict=True)])
    assert 5 < turned.sum() < 35
    torch.testing.assert_close(changed[turned], images[turned].flip(3), atol=1e-5, rtol=0)
    assert settings_of(image_sets / "fashion_mnist").method("vae", 0).settings.augmentation is None


def test_other_methods_have_their_own_scores(image_sets):  # noqa: F811
    more = {"scores": ("outlier_score",), "method_settings": {"variance": 0.8}}
    rows = found(image_sets, "pca", "mnist", **more).measured
    assert [row.score for row in rows] == ["outlier_score"] * len(METRICS)
    task, _ = task_of("ood", image_sets / "fashion_mnist", "vae", "mnist", dataset="fashion_mnist",
                      scores=("knn", "negative_elbo"))  # fmt: skip
    assert task.scores[0] == "knn"
    assert ood.OutOfDistribution().scores("pca", ("knn",)) == ()
    for method in ("pixels", "vae", "pca"):
        with pytest.raises(ValueError, match="knnn"):
            ood.OutOfDistribution().scores(method, ("knnn",))


class TestCommand:
    def words(self, image_sets, tmp_path, *more):  # noqa: F811
        return ("ood", "--data", image_sets, "--methods", "pixels", "--scores", "knn", "--workers", 0,
                "-o", tmp_path / "out", *more)  # fmt: skip

    def test_sets_and_classes_side_by_side(self, image_sets, tmp_path):  # noqa: F811
        for i in range(4):
            pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
            (image_sets / "my-noise").mkdir(exist_ok=True)
            Image.fromarray(pixels).save(image_sets / "my-noise" / f"{i}.png")
        words = self.words(image_sets, tmp_path, "--in", "fashion", "--ood", "7,my-noise,mnist")
        text = bench(*words).stdout
        assert "### fashion_mnist, fpr95_in_positive" in text
        assert (
            "share of images out of distribution that are accepted where 95 % of those in distribution"
            in text
        )
        assert (
            "share of images in distribution that are flagged where 95 % of those out of distribution" in text
        )
        assert "| method | score | mnist | 7 | my_noise | mean |" in text
        assert {row["class"] for row in numbers(tmp_path / "out")} == {"mnist", "7", "my_noise"}
        told = json.loads((tmp_path / "out" / "run.json").read_text())["cells"]
        assert told["fashion_mnist-my_noise-0-pixels"]["out"] == {"images": 4, "shape": [3, 28, 28]}
        again = bench(*words, "--resume").stderr
        assert "3 cells, 3 done already" in again
        (image_sets / "my-noise" / "3.png").unlink()
        # Other pictures, other results: what is there is not replaced by going on.
        refused = bench(*words, "--resume", code=5).stderr
        assert "fashion_mnist-my_noise-0-pixels.json was done otherwise: data differ: my_noise/" in refused

    def test_trivial_methods_see_the_same_images(self, image_sets, tmp_path):  # noqa: F811
        words = self.words(image_sets, tmp_path, "--in", "fashion_mnist", "--methods", "pixel-nearest")
        result = bench(*words)
        assert "svhn on fashion_mnist is left out: svhn: there is no folder of its pictures" in result.stderr
        measured = {row["class"]: float(row["value"]) for row in numbers(tmp_path / "out")}
        assert set(measured) == {"mnist", "cifar10"}
        sets = {name: image_set(name, image_sets / name) for name in ("fashion_mnist", "mnist")}
        split, _ = split_of(sets["fashion_mnist"], None, 0)
        strange = torch.from_numpy(sets["mnist"].test.reshape(100, 784) / 255).float()
        normals = torch.cat([split.training, split.held_out])
        nearest = torch.cdist(torch.cat([split.test, strange]), normals).amin(1)
        assert measured["mnist"] == pytest.approx(auroc(Ranking.of(nearest.numpy(), np.arange(200) >= 100)))
        assert measured["cifar10"] > 0.9  # Waves have nothing of a bright row in the dark.
        bench(*words[:-1], "pixel-mean", "--ood", "4", "--resume")
        assert [row["class"] for row in numbers(tmp_path / "out")] == ["4"]

    def test_what_is_at_hand_where_nothing_is_asked_for(self, image_sets, tmp_path):  # noqa: F811
        result = bench(*self.words(image_sets, tmp_path, "--in", "fashion_mnist"))
        assert {row["class"] for row in numbers(tmp_path / "out")} == {"mnist", "cifar10"}
        assert "svhn on fashion_mnist is left out: svhn: there is no folder of its pictures" in result.stderr

    @pytest.mark.parametrize(
        ("more", "code", "message"),
        [
            (("--ood", "svhn"), 3, "get test_32x32.mat and save its images as PNG files"),
            (
                ("--ood", "mnits"),
                3,
                "no image set is called 'mnits'; did you mean 'mnist'? Else put pictures",
            ),
            (
                ("--in", "nowhere"),
                3,
                "put pictures into a folder named nowhere, those to train on in nowhere/",
            ),
            (("--ood", "cifar10"), 2, "ood: nothing is left to run of pixels on cifar10"),
            (("--ood", "mnist", "--set", "epoch=1"), 2, "did you mean 'epochs'?"),
            (("--ood", " "), 2, "--classes ' ' names nothing"),
        ],
    )
    def test_errors(self, image_sets, tmp_path, more, code, message):  # noqa: F811
        more = more if "--in" in more else ("--in", "cifar10", *more)
        assert message in bench(*self.words(image_sets, tmp_path, *more), code=code).stderr


class TestPublished:
    def test_numbers_are_the_papers_each_in_its_convention(self):
        plan, _ = plan_named("ood")
        rows = {(row.dataset, row.method, row.score, row.metric): row.values for row in plan.published}
        # The headline, 23.2, is of images out of distribution as positives; by the text's words it is 76.2.
        assert rows["cifar10", "compressed", "knn", NEAR]["cifar100"] == pytest.approx(0.232)
        assert rows["cifar10", "compressed", "knn", FAR]["cifar100"] == pytest.approx(0.7621)
        assert rows["cifar10", "snn", "knn", FAR] == {"cifar100": pytest.approx(0.501)}
        assert rows["cifar10", "compressed", "knn", "auroc"]["textures"] == pytest.approx(0.869)
        assert rows["cifar10", "cider", "knn", FAR]["isun"] == pytest.approx(0.2021)
        assert rows["galaxy", "ae", "isolation_forest", FAR]["galaxy_odd"] == pytest.approx(0.82)
        assert rows["mars", "compressed", "knn", "auroc"]["mars_novel"] == pytest.approx(0.764)
        far = [rows["cifar10", "compressed", "knn", NEAR][name]
               for name in ("svhn", "places365", "lsun", "isun", "textures")]  # fmt: skip
        assert np.mean(far) == pytest.approx(0.202, abs=5e-4)

    def test_higher_falls_short_where_lower_is_better(self):
        from test_bench import record

        plan, _ = plan_named("ood")
        cell = {"method": "compressed", "variant": ""}
        records = [record("cifar100", metric=NEAR, knn=0.4, **cell), record("cifar100", knn=0.95, **cell)]
        records = [each.__class__(**{**each.__dict__, "cell": each.cell.__class__("cifar10", "cifar100", 0,
                   "compressed")}) for each in records]  # fmt: skip
        text = markdown(plan, records, oracle=False)
        assert ".400 (.232, +.168)" in text
        assert f"Above the paper by more than {SPREAD}, where lower is better:" in text
        assert "- cifar10, `compressed` by `knn`, fpr95_out_positive, cifar100: .400 (.232, +.168)" in text
        assert "Below the paper" not in text
