"""Protocols on sets of scans and pictures, cut down, by the command line; on real scans where they are."""

import csv
import json
import os

import pytest
from made_up_sets import write_brats, write_hcp, write_isles, write_lgg, write_mvtec, write_open_ms
from typer.testing import CliRunner

from mednovelty.cli import app

pytestmark = pytest.mark.slow
VAE = ("--methods", "vae", "--set", "epochs=1", "--set", "method_settings={widths=[4,8],latent=5,c=0.5}")
SLICES = (*VAE, "--set", "size=16", "--set", "batch=16", "--scores", "rec_error,combi")
SETS = {
    "brats": (SLICES, "all"),
    "isles": (SLICES, "all"),
    "lgg": ((*SLICES, "--set", "mask=head"), "1,4"),
    "open-ms": (SLICES, "patient07,patient19"),
    "mvtec": (
        (
            "--methods",
            "deviation,ae",
            "--set",
            "side=32",
            "--set",
            "tile=16",
            "--set",
            "epochs=1",
            "--set",
            "batch=8",
        ),
        "bottle,grid",
    ),
}
WRITERS = {
    "brats": write_brats,
    "isles": write_isles,
    "lgg": write_lgg,
    "open_ms": write_open_ms,
    "hcp": write_hcp,
    "mvtec": write_mvtec,
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder with all of them, as ``--data`` takes it."""
    root = tmp_path_factory.mktemp("sets")
    for name, write in WRITERS.items():
        write(root / name)
    return root


def run(*words):
    environment = {**os.environ, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    return CliRunner().invoke(app, ["bench", *map(str, words)], env=environment)


def numbers(out):
    rows = csv.DictReader((out / "results.csv").open())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize("name", SETS)
def test_two_workers_give_the_bits_of_one(sets, tmp_path, name):
    words, classes = SETS[name]
    outs = [tmp_path / "one", tmp_path / "two"]
    for workers, out in enumerate(outs, start=1):
        result = run(name, "--data", sets, "--classes", classes, *words, "--workers", workers, "-o", out)
        assert result.exit_code == 0, result.output
    one, two = map(numbers, outs)
    assert one
    assert one == two
    told = (outs[0] / "results.md").read_text()
    assert told == (outs[1] / "results.md").read_text()
    assert {row["class"] for row in one} == set(classes.split(","))
    assert "There are no checksums of " in told
    trivial = "deviation" if name == "mvtec" else "raw_signed"
    assert trivial in {row["score"] for row in one}
    again = run(name, "--data", sets, "--classes", classes, *words, "--resume", "-o", outs[0])
    assert again.exit_code == 0, again.output
    assert numbers(outs[0]) == one


def test_a_set_that_is_not_there_is_told(sets, tmp_path):
    result = run("isles", "--data", tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert "hcp: no scan fits" in result.output
    assert "accept the data use terms" in result.output
    unknown = run("lgg", "--data", sets, "--set", "contrast=T1w", "-o", tmp_path / "out")
    assert unknown.exit_code == 2
    assert "did you mean 'contrasts'?" in unknown.output


@pytest.mark.data
@pytest.mark.parametrize(("name", "label"), [("lgg", "1"), ("open-ms", "patient19")])
def test_on_real_scans(real_data, tmp_path, name, label):
    found = real_data / {"lgg": "lgg", "open-ms": "ms"}[name]
    if not found.is_dir():
        pytest.skip(f"no {name} at {found}")
    words = (
        "--methods",
        "vae",
        "--scores",
        "rec_error,kl_gradient",
        "--set",
        "epochs=1",
        "--set",
        "patients=2",
    )
    out = tmp_path / "out"
    result = run(name, "--data", real_data, "--classes", label, *words, "--set", "size=64", "-o", out)
    assert result.exit_code == 0, result.output
    by = {(row["score"], row["metric"]): float(row["value"]) for row in numbers(out)}
    # Bright on FLAIR, as the description of the data has it.
    assert by["raw_FLAIR", "auroc"] > 0.85
    assert 0 < by["kl_gradient", "ap"] < by["raw_FLAIR", "ap"] < 1
    (cell,) = (out / "cells").glob("*.json")
    assert json.loads(cell.read_text())["told"]["left_out"] == []
