"""``bench --against``: detectors of other libraries, each in its own Python, and trivial ones in pixels."""

import ast
import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import image_sets, task_of  # noqa: F401 - a fixture among them
from typer.testing import CliRunner

from mednovelty.benchmarks import libraries
from mednovelty.benchmarks.benchmark import Cell, HandsOut, Measured
from mednovelty.benchmarks.beside_table import beside
from mednovelty.benchmarks.cell_files import Record, task_sha256
from mednovelty.benchmarks.image_methods import Split
from mednovelty.benchmarks.image_sets import image_set
from mednovelty.benchmarks.libraries import LIBRARIES, RUNNER, detectors_of, installed_there, pythons
from mednovelty.benchmarks.library_cells import hand_over
from mednovelty.benchmarks.pixels import PIXELS, in_pixels, pixels_among
from mednovelty.benchmarks.plan import plan_named
from mednovelty.cli import app
from mednovelty.errors import SettingsError
from mednovelty.plugins import plugin

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
MADE_UP = '''
"""Stands for PyOD: squared distance to the mean of what it was fitted on, or some mistake."""

import os, time
import numpy as np


class Made:
    def __init__(self, **settings):
        self.settings = settings

    def fit(self, x):
        while os.environ.get("MADE_UP") == "wait":
            time.sleep(0.05)
        self.mean = x.mean(0)

    def decision_function(self, x):
        found = ((x - self.mean) ** 2).sum(1)
        mistake = os.environ.get("MADE_UP")
        if mistake == "raise":
            raise RuntimeError("too\\x1b[31m flat")
        if mistake == "nan":
            found[3] = np.nan
        return found[1:] if mistake == "short" else found
'''


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A Python of its own with something called pyod in it; return how to call that Python."""
    place = tmp_path_factory.mktemp("envs") / "pyod"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    models = site / "pyod" / "models"
    models.mkdir(parents=True)
    (site / "pyod" / "__init__.py").write_text("")
    (models / "__init__.py").write_text(MADE_UP)
    for module, name in (("knn", "KNN"), ("ecod", "ECOD")):
        (models / f"{module}.py").write_text(
            f"from pyod.models import Made\n\nclass {name}(Made):\n    pass\n"
        )
    info = site / "pyod-9.8.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pyod\nVersion: 9.8.7\n")
    (site / "base.pth").write_text(str(Path(np.__file__).parents[1]) + "\n")
    return place / "bin" / "python"


def bench(*words, code=0):
    result = CliRunner().invoke(app, ["bench", *map(str, words)], env=ENVIRONMENT)
    assert result.exit_code == code, result.output + str(result.exception)
    return result


def rows_in(out):
    return list(csv.DictReader((out / "results.csv").open()))


class TestAnotherPython:
    @pytest.fixture
    def words(self, image_sets, environment, tmp_path):  # noqa: F811
        own = ("--classes", "1,3", "--seeds", 2, "--methods", "pixel_mean", "-o", tmp_path / "out")
        python = ("--against-python", f"pyod={environment}")
        return ("one-vs-rest", "--data", image_sets, *own, *python, "--workers", 0)

    def test_it_sees_the_images_that_ours_see(self, words, tmp_path):
        # What is called KNN there is the distance to the mean: only other images could tell it from ours.
        result = bench(*words, "--against", "pyod_knn")
        found = {(r["method"], r["class"], r["seed"]): r for r in rows_in(tmp_path / "out")}
        assert len(found) == 2 * 2 * 2
        for label in "13":
            for seed in "01":
                ours, theirs = (found[name, label, seed] for name in ("pixel_mean", "pyod_knn"))
                assert float(theirs["value"]) == pytest.approx(float(ours["value"]), abs=1e-3)
                assert "pyod=9.8.7" in theirs["versions"]
                assert "pyod" not in ours["versions"]
        assert "### mnist, auroc and seconds" in result.stdout
        assert re.search(
            r"\| pyod 9\.8\.7 \| `pyod_knn` \| `score` \| \S+ ± \S+ \| [\d.]+ \| 0\.\d \|", result.stdout
        )
        assert "fitted on 30 images, on cpu" in result.stdout
        assert not list((tmp_path / "out" / "against").iterdir())
        told = json.loads((tmp_path / "out" / "cells" / "mnist-1-0-pyod_knn.json").read_text())["told"]
        assert (told["library"], told["version"]) == ("pyod", "9.8.7")

    def test_in_workers_it_is_the_same(self, words, tmp_path):
        bench(*words, "--against", "pyod_knn")
        first = [(r["method"], r["class"], r["value"]) for r in rows_in(tmp_path / "out")]
        bench(*words, "--against", "pyod_knn", "--overwrite", "--workers", 2)
        assert [(r["method"], r["class"], r["value"]) for r in rows_in(tmp_path / "out")] == first

    def test_what_is_done_is_done_until_the_version_differs(self, words, tmp_path, image_sets):  # noqa: F811
        bench(*words, "--against", "pyod_knn")
        assert "8 cells, 8 done already" in bench(*words, "--against", "pyod_knn", "--resume").stderr
        task, _ = task_of("one-vs-rest", image_sets / "mnist", "kde")
        outside = {"library": "pyod", "detector": "knn", "python": "a", "version": "1", "versions": {}}
        ours = replace(task, outside=outside)
        assert task_sha256(ours) != task_sha256(task)
        assert task_sha256(replace(task, outside={**outside, "python": "b"})) == task_sha256(ours)
        for key, value in (("version", "2"), ("detector", "ecod"), ("library", "anomalib")):
            assert task_sha256(replace(task, outside={**outside, key: value})) != task_sha256(ours)

    @pytest.mark.parametrize(
        ("mistake", "message"),
        [
            ("raise", "ended with exit code 1: RuntimeError: too\\x1b[31m flat"),
            ("nan", "pyod_ecod: 1 of 100 scores are not finite"),
            ("short", "pyod_ecod: left scores of shape (99,) for 100 images"),
        ],
    )
    def test_its_mistakes_are_its_cells_alone(self, words, tmp_path, monkeypatch, mistake, message):
        monkeypatch.setenv("MADE_UP", mistake)
        result = bench(*words, "--against", "pyod_ecod", code=6)
        assert message in result.stderr
        assert {r["method"] for r in rows_in(tmp_path / "out")} == {"pixel_mean"}
        assert not list((tmp_path / "out" / "against").iterdir())

    def test_what_a_detector_needs_is_told(self, words):
        result = bench(*words, "--against", "pyod_deepsvdd", code=6)
        assert (
            "No module named 'pyod.models.deep_svdd'; install what it needs there: pip install pyod torch"
            in (result.stderr)
        )

    def test_it_ends_with_who_started_it(self, environment, tmp_path):
        np.savez(tmp_path / "split.npz", training=np.zeros((3, 4), "f4"), test=np.zeros((2, 4), "f4"))
        task = {
            "library": "pyod",
            "detector": "knn",
            "seed": 0,
            "threads": 1,
            "device": "cpu",
            "shape": [1, 2, 2],
        }
        (tmp_path / "task.json").write_text(json.dumps(task))
        process = subprocess.Popen([str(environment), "-I", str(RUNNER), "run", str(tmp_path)],
                                   stdin=subprocess.PIPE, env={**ENVIRONMENT, "MADE_UP": "wait"})  # fmt: skip
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        process.stdin.close()
        assert process.wait(60) == 3
        assert not (tmp_path / "scores.npz").exists()


class TestWords:
    def test_names(self):
        found = detectors_of(["anomalib", "pyod-knn", "pyod"])
        assert [f"{library.name}_{name}" for library, name in found] == [
            "anomalib_padim", "anomalib_patchcore", "pyod_knn", "pyod_deepsvdd", "pyod_vae", "pyod_ecod"
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--against", "pyodd"), "no library or detector is called 'pyodd'; did you mean 'pyod'?"),
            (("--against", "pyod_knm"), "called 'pyod_knm'; did you mean 'pyod_knn'?"),
            (("--against", "x"), "called 'x'; known: pyod, anomalib, pyod_knn"),
            (("--against", ","), "--against ',' names nothing"),
            (("--against", "pyod", "--against-python", "pyod"), "write LIBRARY=PYTHON, such as pyod=envs"),
            (
                ("--against", "pyod", "--against-python", "anomalib=/x"),
                "'anomalib' is not compared; --against asks for pyod",
            ),
            (("--against-python", "pyod=/x"), "'pyod' is not compared; give --against as well"),
            (
                ("--methods", "pixel-meen"),
                "no trivial method is called 'pixel-meen'; did you mean 'pixel_mean'?",
            ),
        ],
    )
    def test_unknown_words_are_errors(self, image_sets, tmp_path, words, message):  # noqa: F811
        result = bench("one-vs-rest", "--data", image_sets, *words, "-o", tmp_path / "out", code=2)
        assert message in result.stderr
        assert not (tmp_path / "out").exists()

    def test_where_a_library_is_looked_for(self, monkeypatch):
        pyod, anomalib = LIBRARIES["pyod"], LIBRARIES["anomalib"]
        monkeypatch.setenv("MEDNOVELTY_PYOD_PYTHON", "/from/variable")
        assert pythons([], [pyod, anomalib]) == {"pyod": "/from/variable", "anomalib": sys.executable}
        assert pythons(["pyod=/given"], [pyod]) == {"pyod": "/given"}

    def test_a_library_that_is_not_there_says_what_to_install(self, image_sets, tmp_path):  # noqa: F811
        bare = tmp_path / "bare"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
        words = ("one-vs-rest", "--data", image_sets, "--against", "anomalib", "-o", tmp_path / "out")
        given = ("--against-python", f"anomalib={bare}/bin/python")
        # Its runner needs numpy, which is not there either: whoever asks gets the words all the same.
        result = bench(*words, *given, code=2)
        assert (
            "python3 -m venv envs/anomalib && envs/anomalib/bin/pip install 'anomalib[cpu]'" in result.stderr
        )
        assert (
            "--against-python anomalib=envs/anomalib/bin/python, or set MEDNOVELTY_ANOMALIB" in result.stderr
        )
        result = bench(*words, "--against-python", "anomalib=/no/such/python", code=2)
        assert "anomalib: /no/such/python cannot be asked for its versions" in result.stderr

    def test_a_python_without_it(self, environment):
        with pytest.raises(SettingsError, match=f"anomalib: is not installed in {environment}; make an env"):
            installed_there("anomalib", str(environment))
        assert installed_there("pyod", str(environment))["pyod"] == "9.8.7"

    def test_a_protocol_that_hands_out_nothing(self, image_sets, tmp_path, monkeypatch):  # noqa: F811
        kind = plugin("benchmarks", "miso")
        monkeypatch.delattr(kind.__mro__[1], "split")
        result = bench("miso", "--data", image_sets, "--methods", "trivial", "-o", tmp_path / "o", code=2)
        assert "miso: hands out no images, so that pixel_mean, pixel_nearest cannot be run" in result.stderr


class TestRunner:
    def test_it_needs_nothing_of_ours(self):
        known = {*sys.stdlib_module_names, "numpy", "torch", "pyod", "anomalib"}
        for node in ast.walk(ast.parse(RUNNER.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= known

    def test_no_label_leaves_the_house(self, image_sets, tmp_path):  # noqa: F811
        task, _ = task_of("one-vs-rest", image_sets / "mnist", "kde")
        parts = [torch.rand(n, 12) for n in (5, 2, 4)]
        split = Split(*parts, np.array([True, False, True, False]), (3, 2, 2))
        hand_over(replace(task, outside={"library": "pyod", "detector": "knn"}), split, tmp_path)
        with np.load(tmp_path / "split.npz", allow_pickle=False) as found:
            assert sorted(found) == ["test", "training"]
            assert np.array_equal(found["training"], torch.cat(parts[:2]).numpy())
            assert np.array_equal(found["test"], parts[2].numpy())
        told = json.loads((tmp_path / "task.json").read_text())
        assert told == {"library": "pyod", "detector": "knn", "seed": 0, "threads": 1, "device": "cpu",
                        "shape": [3, 2, 2]}  # fmt: skip


class TestSplits:
    @pytest.mark.parametrize(
        "name", ["mnist-novel-digit", "miso", "simo", "one-vs-rest", "leave-one-class-out", "mnist-c"]
    )
    def test_images_are_those_of_the_protocol(self, image_sets, name):  # noqa: F811
        label = "stripe" if name == "mnist-c" else "3"
        plan, _ = plan_named(name)
        task, settings = task_of(name, image_sets / "mnist", next(iter(plan.methods)), label)
        benchmark = plugin("benchmarks", name)()
        assert isinstance(benchmark, HandsOut)
        split = benchmark.split(task, settings)
        assert split.shape == (1, 28, 28)
        assert split.training.shape[1] == split.test.shape[1] == 784
        assert split.novel.shape == (len(split.test),)
        # Class k is bright in row 2 k, however it is scaled.
        rows = [part.view(-1, 28, 28).mean(2) for part in (split.training, split.held_out, split.test)]
        brightest = [part.argmax(1) // 2 for part in rows]
        seen = set(torch.cat(brightest[:2]).tolist())
        if name == "mnist-c":
            half = len(split.test) // 2
            assert split.novel.tolist() == [False] * half + [True] * half
            assert not torch.equal(split.test[:half], split.test[half:])
            clean = image_set("mnist", image_sets / "mnist").test.reshape(half, -1) / 255
            assert np.allclose(split.test[:half], clean, atol=1e-6)
        elif name in ("simo", "one-vs-rest"):
            assert seen == {3}
            assert np.array_equal(split.novel, (brightest[2] != 3).numpy())
        else:
            assert seen == set(range(10)) - {3}
            assert np.array_equal(split.novel, (brightest[2] == 3).numpy())


class TestPixels:
    def test_by_hand(self):
        # The mean of (0, 0), (0, 4) and the held-out (6, 2) is (2, 2).
        test, novel = torch.tensor([[2.0, 2], [6, 3], [0, 0]]), np.array([True, False, False])
        split = Split(torch.tensor([[0.0, 0], [0, 4]]), torch.tensor([[6.0, 2]]), test, novel, (1, 1, 2))
        normals = torch.cat([split.training, split.held_out])
        assert PIXELS["pixel_mean"](normals, split.test).tolist() == [0.0, 17.0, 8.0]
        assert PIXELS["pixel_nearest"](normals, split.test).tolist() == [8.0, 1.0, 0.0]
        assert in_pixels("pixel_mean", split, "cpu").measured == (Measured("score", 0.0),)
        assert in_pixels("pixel_nearest", split, "cpu").measured == (Measured("score", 1.0),)
        assert in_pixels("pixel_mean", split, "cpu").told == {"images": 3}

    def test_names(self):
        assert pixels_among(["pca", "trivial", "pixel-mean"]) == (["pixel_mean", "pixel_nearest"], ["pca"])
        assert pixels_among(["pixels", "pixel_mean"], ["pixels"]) == (["pixel_mean"], ["pixels"])


def test_the_table_by_hand():
    plan, _ = plan_named("one-vs-rest")

    def record(method, label, value, seconds, **told):
        rows = (Measured("score", value), Measured("score", 0.1, "ap"))
        versions = {"mednovelty": "1.2", **told.get("versions", {})}
        return Record("one-vs-rest", Cell("mnist", label, 0, method), "0" * 64, rows, told, {}, versions,
                      "cpu, 1 threads", seconds)  # fmt: skip

    theirs = {"library": "pyod", "versions": {"pyod": "9.8"}, "fit_seconds": 2.0, "score_seconds": 0.5,
              "fitted_on": 7, "where": "cpu"}  # fmt: skip
    records = [
        record("kde", "0", 0.9, 3),
        record("kde", "1", 0.8, 5),
        record("pyod_knn", "0", 0.95, 8, **theirs),
    ]
    lines = beside(plan, records).splitlines()
    first = lines.index("| --- | --- | --- | --- | --- | --- | --- |") + 1
    assert lines[first : first + 3] == [
        "| pyod 9.8 | `pyod_knn` | `score` | 0.950 | 8.0 | 2.0 | 0.5 |",
        "| mednovelty 1.2 | `kde` | `score` | 0.850 | 4.0 |  |  |",
        "",
    ]
    assert "- `pyod_knn`: fitted on 7 images, on cpu; pyod 9.8; cpu, 1 threads" in lines
    assert beside(plan, records[:2]) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARIES)
def test_the_real_one(image_sets, tmp_path, name):  # noqa: F811
    python = os.environ.get(LIBRARIES[name].variable) or sys.executable
    try:
        libraries.installed_there(name, python)
    except SettingsError as error:
        pytest.skip(str(error))
    # Colours matter to those who see images; to others they are more numbers.
    for dataset in ("mnist", "cifar10") if name == "anomalib" else ("mnist",):
        out = tmp_path / dataset
        own = ("--datasets", dataset, "--classes", 3, "--seeds", 1, "--methods", "trivial", "-o", out)
        words = ("--against", name, "--against-python", f"{name}={python}")
        bench("one-vs-rest", "--data", image_sets, *own, *words)
        found = {row["method"]: float(row["value"]) for row in rows_in(out)}
        assert set(found) == {*PIXELS, *(f"{name}_{each}" for each in LIBRARIES[name].detectors)}
        if dataset == "mnist":
            # A class is a bright row: only who had the sign wrong would be below a half.
            assert min(value for method, value in found.items() if method != "pyod_ecod") > 0.6, found
