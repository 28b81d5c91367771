"""Every protocol in a cut-down form, by the command line, with one worker and with two: the same bits."""

import csv
import os

import pytest
from image_folders import image_sets  # noqa: F401 - a fixture
from test_bench_sets import SETS
from typer.testing import CliRunner

from mednovelty.cli import app
from mednovelty.plugins import names

pytestmark = pytest.mark.slow
CUT_DOWN = {
    "mnist-novel-digit": [
        "--methods",
        "all",
        "--set",
        "epochs=1",
        "--set",
        "latent=4",
        "--set",
        "compared=30",
    ],
    "miso": ["--methods", "ae,vae,ae_con,pca", "--set", "epochs=1", "--set", "latent=4"],
    "simo": ["--methods", "ae,aae,ae_res", "--datasets", "mnist,cifar10", "--set", "epochs=1"],
    "leave-one-class-out": ["--methods", "log_c,scalings", "--set", "epochs=1"],
    "one-vs-rest": [
        *("--oracle", "--datasets", "fashion_mnist"),
        *("--set", "epochs=1", "--set", "pretrain_epochs=1", "--set", "filters=5"),
    ],
    "ood": ["--in", "fashion_mnist", "--set", "epochs=1", "--set", "network=dense", "--set", "latent=8"],
    "mnist-c": ["--set", "epochs=1", "--set", "images=60", "--set", "explained=5"],
}


def run(*words):
    environment = {**os.environ, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    return CliRunner().invoke(app, ["bench", *map(str, words)], env=environment)


def numbers(out):
    rows = csv.DictReader((out / "results.csv").open())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_all_are_here():
    assert set(CUT_DOWN) | set(SETS) == set(names("benchmarks"))


@pytest.mark.parametrize("name", CUT_DOWN)
def test_two_workers_give_the_bits_of_one(image_sets, tmp_path, name):  # noqa: F811
    classes = {"mnist-c": "scale,stripe", "ood": "mnist,3"}.get(name, "1,3")
    outs = []
    for workers in (1, 2):
        outs.append(tmp_path / f"out{workers}")
        words = (name, "--data", image_sets, "--classes", classes, "--seeds", 1, *CUT_DOWN[name])
        result = run(*words, "--workers", workers, "-o", outs[-1])
        assert result.exit_code == 0, result.output
    one, two = (numbers(out) for out in outs)
    assert one
    assert one == two
    assert (outs[0] / "results.md").read_bytes() == (outs[1] / "results.md").read_bytes()
    labels = {row["class"] for row in one}
    assert labels == set(classes.split(","))
