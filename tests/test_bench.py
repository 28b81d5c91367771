"""``bench``: which cells there are, that they are run once and by whom does not matter, and the tables."""

import csv
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
from image_folders import image_sets, task_of, write_idx  # noqa: F401 - a fixture among them
from typer.testing import CliRunner

from mednovelty.benchmarks import grid, run_tables
from mednovelty.benchmarks.benchmark import Benchmark, Cell, Measured, Task
from mednovelty.benchmarks.cell_files import Record, begin, read_cell, task_sha256
from mednovelty.benchmarks.comparison import ORACLE, Entry, markdown, rows_of
from mednovelty.benchmarks.grid import Outcome, run_cells
from mednovelty.benchmarks.image_sets import file_hashes, found_folder, image_manifest, image_set
from mednovelty.benchmarks.plan import plan_from, plan_named, plans
from mednovelty.benchmarks.scan_sets import is_scan_set
from mednovelty.cli import app
from mednovelty.errors import OutputError, ScanError, SettingsError, StoppedError, UnknownPluginError
from mednovelty.output_folder import sole_writer
from mednovelty.plugins import names, plugin
from mednovelty.settings import checked

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
NOT_HERE = {
    "mnist-c": ("anogan", "deep_svdd_features"),
    "brats": ("alpha_gan", "vae_rec"),
    "isles": ("alpha_gan", "vae_rec"),
    "miso": ("ganomaly", "skip_gan", "oc_gan", "vae_compared", "anogan", "egbad", "dknn"),
    "simo": ("ganomaly", "oc_gan", "anogan", "lfd", "cavga_du", "dknn"),
    "one-vs-rest": ("svdd", "anogan", "gt", "gt_plus", "gt_plus_exposed", "focal_exposed"),
    "ood": (
        *("msp", "energy", "odin", "godin", "mahalanobis", "react", "gradnorm", "logitnorm", "dice", "snn"),
        *("knn_classifier", "knn_star"),
        *("ce_simclr", "csi", "ssd", "proxy_anchor", "knn_contrastive", "cider"),
    ),
}
"""Methods of papers' tables that nobody has here: their rows are named, and not run."""
TOY = '''
"""A benchmark of strangers: what it finds is made of the cell alone."""

import os, signal, time
from dataclasses import dataclass
from mednovelty.benchmarks.benchmark import Findings, Measured
from mednovelty.errors import SettingsError

@dataclass(frozen=True)
class Settings:
    offset: float
    wait_s: float

class Toy:
    """Finds what it is told to find."""

    Settings = Settings

    def scores(self, method, asked):
        return ("one", "two") if "all" in asked else tuple(n for n in ("one", "two") if n in asked)

    def run(self, task, settings):
        cell = task.cell
        time.sleep(settings.wait_s)
        if cell.method == "bad" and cell.label == "1":
            raise SettingsError("toy: class 1 cannot be told")
        if cell.method == "dead" and cell.label == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        value = settings.offset + int(cell.label) / 10 + cell.seed / 100
        found = {"one": value, "two": value / 2}
        rows = tuple(Measured(name, found[name]) for name in task.scores)
        return Findings(rows, {"threads": task.threads, "pid_is": "not told"})
'''
TOY_PLAN = """
[protocol]
title = "Toys"
paper = "vasilev2018"
tables = "Table 0"
datasets = ["mnist", "fashion_mnist"]
classes = ["0", "1", "2"]
seeds = 2
peeking = ["bad"]

[settings]
offset = 0.25
wait_s = 0.0

[datasets.fashion_mnist]
offset = 0.5

[methods.good]
[methods.high]
offset = 0.5
[methods.bad]
[methods.dead]

[groups]
both = ["good", "high"]

[oracle.good]
offset = [0.0, 0.5, 0.25]

[[published]]
dataset = "mnist"
method = "good"
score = "one"
name = "the paper's own"
values = [20.0, 40.0, 50.0]
spread = [1.0, 1.0, 1.0]
percent = true
"""

STAMPS = """
[dataset]
name = "stamps"
source = "an album"
licence = "CC0"
citation = "none"
fetch = "buy the album."
[files]
root = "$MEDNOVELTY_DATA/stamps"
format = "idx"
[checksums]
train-images-idx3-ubyte = ""
train-labels-idx1-ubyte = ""
t10k-images-idx3-ubyte = ""
t10k-labels-idx1-ubyte = ""
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Install a benchmark of strangers, and return a folder of images for it."""
    place = tmp_path / "site"
    info = place / "toys-1.0.dist-info"
    info.mkdir(parents=True)
    (place / "toy_benchmark.py").write_text(TOY)
    (place / "toy.toml").write_text(TOY_PLAN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mednovelty.benchmarks]\ntoy = toy_benchmark:Toy\n")
    monkeypatch.syspath_prepend(str(place))
    for name in ("mnist", "fashion_mnist"):
        write_idx(tmp_path / "images" / name, 20, 20)
    yield tmp_path / "images"
    sys.modules.pop("toy_benchmark", None)


def bench(*words, code=0):
    result = CliRunner().invoke(app, ["bench", *map(str, words)], env=ENVIRONMENT)
    assert result.exit_code == code, result.output + str(result.exception)
    return result


def numbers(out):
    """Return what was found, by everything but when and where."""
    rows = list(csv.DictReader((out / "results.csv").open()))
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


class TestGrid:
    def test_a_row_a_cell_and_number(self, toy, tmp_path):
        out = tmp_path / "out"
        bench("toy", "--data", toy, "--methods", "both", "--classes", "2,0", "--seeds", 2, "-o", out,
              "--workers", 0)  # fmt: skip
        rows = numbers(out)
        assert len(rows) == 2 * 2 * 2 * 2
        found = {(r["method"], r["class"], r["seed"], r["score"]): float(r["value"]) for r in rows}
        assert found["good", "2", "1", "one"] == pytest.approx(0.25 + 0.2 + 0.01)
        assert found["high", "0", "0", "two"] == pytest.approx(0.25)
        assert {r["protocol"] for r in rows} == {"toy"}
        assert {r["published_data"] for r in rows} == {"no"}
        assert len({(r["method"], r["settings_alone_sha256"]) for r in rows}) == 2
        assert all(re.fullmatch("[0-9a-f]{64}", r["settings_sha256"]) for r in rows)
        assert all("torch=" in r["versions"] and r["device"] == "cpu, 1 threads" for r in rows)
        assert (out / "failures.tsv").read_text() == "cell\tmessage\n"

    def test_what_fails_is_its_cell_alone_and_so_is_what_dies(self, toy, tmp_path):
        out = tmp_path / "out"
        words = ("toy", "--data", toy, "--oracle", "--seeds", 1, "--methods", "bad,dead", "-o", out)
        result = bench(*words, "--workers", 2, code=6)
        lines = (out / "failures.tsv").read_text().splitlines()
        assert sorted(lines[1:]) == [
            "mnist-1-0-bad\ttoy: class 1 cannot be told",
            "mnist-1-0-dead\tits process was killed by SIGKILL; perhaps the memory did not suffice: try "
            "fewer workers",
        ]
        assert {(r["method"], r["class"]) for r in numbers(out)} == {
            (method, label) for method in ("bad", "dead") for label in "02"
        }
        assert "failed: mnist-1-0-bad: toy: class 1 cannot be told" in result.stderr
        told = json.loads((out / "run.json").read_text())
        assert told["exit_code"] == 6
        assert len(told["failures"]) == 2

    def test_who_stops_a_cell_stops_the_grid(self, toy, tmp_path, monkeypatch):
        from toy_benchmark import Toy

        def stopped(self, task, settings):
            raise StoppedError("stopped by SIGTERM")

        monkeypatch.setattr(Toy, "run", stopped)
        words = ("toy", "--data", toy, "--methods", "good", "--seeds", 1, "-o", tmp_path / "out")
        result = CliRunner().invoke(app, ["bench", *map(str, words), "--workers", "0"], env=ENVIRONMENT)
        assert result.exit_code in (130, 143)
        assert "failed" not in result.stderr

    def test_workers_change_nothing(self, toy, tmp_path):
        outs = []
        for workers in (0, 1, 2):
            outs.append(tmp_path / f"out{workers}")
            bench("toy", "--data", toy, "--methods", "both", "-o", outs[-1], "--workers", workers)
        assert numbers(outs[0]) == numbers(outs[1]) == numbers(outs[2])
        assert len(numbers(outs[0])) == 2 * 3 * 2 * 2
        assert (outs[0] / "results.md").read_bytes() == (outs[2] / "results.md").read_bytes()

    def test_resume_runs_what_is_missing_and_nothing_else(self, toy, tmp_path):
        out = tmp_path / "out"
        words = ("toy", "--data", toy, "--methods", "good", "--seeds", 1, "-o", out, "--workers", 0)
        bench(*words)
        before = numbers(out)
        stamps = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
        (out / "cells" / "mnist-1-0-good.json").unlink()
        (out / "cells" / "mnist-2-0-good.json").write_text("{cut sho")
        result = bench(*words, "--resume")
        assert "3 cells, 1 done already" in result.stderr
        assert numbers(out) == before
        assert (out / "cells" / "mnist-0-0-good.json").stat().st_mtime_ns == stamps["mnist-0-0-good.json"]

    @pytest.mark.parametrize(
        ("more", "images", "told"),
        [
            (("--set", "offset=0.125"), 20, "offset is 0.25 there and 0.125 here"),
            (("--scores", "two"), 20, "scores are one, two there and two here"),
            ((), 30, "data differ: t10k-images-idx3-ubyte, "),
        ],
    )
    def test_what_was_done_otherwise_is_not_replaced_by_going_on(self, toy, tmp_path, more, images, told):
        out = tmp_path / "out"
        words = ("toy", "--data", toy, "--methods", "good", "--seeds", 1, "-o", out, "--workers", 0)
        bench(*words)
        before = {path: path.read_bytes() for path in out.rglob("*") if path.parent.name != "logs"
                  and path.is_file()}  # fmt: skip
        write_idx(toy / "mnist", images, 20)
        refused = bench(*words, "--resume", *more, code=5)
        first = f"{out / 'cells' / 'mnist-0-0-good.json'} (and 2 more cells like it) was done otherwise: "
        assert f"{first}{told}" in refused.stderr
        kept = "It is kept: --overwrite replaces it, with all 3 results there, or choose another folder"
        assert kept in refused.stderr
        assert {path: path.read_bytes() for path in before} == before
        assert "3 cells, 0 done already" in bench(*words, "--overwrite", *more).stderr

    def test_records_of_before_and_of_other_versions_are_not_replaced(self, toy, tmp_path):
        out = tmp_path / "out"
        words = ("toy", "--data", toy, "--methods", "good", "--classes", 0, "--seeds", 1, "-o", out,
                 "--workers", 0)  # fmt: skip
        bench(*words)
        path = out / "cells" / "mnist-0-0-good.json"
        tree = json.loads(path.read_text())
        tree.pop("scores"), tree.pop("data")
        path.write_text(json.dumps(tree | {"told_later": 1}))
        assert "1 cells, 1 done already" in bench(*words, "--resume").stderr
        told = bench(*words, "--resume", "--scores", "two", code=5).stderr
        assert "was done otherwise: scores or data, which its record does not tell. It is kept" in told
        version = tree["versions"]["mednovelty"]
        other = {"versions": tree["versions"] | {"mednovelty": "0.0.1"}, "settings_sha256": "0" * 64}
        path.write_text(json.dumps(tree | other))
        told = bench(*words, "--resume", code=5).stderr
        assert f"was done otherwise: mednovelty was 0.0.1 there and is {version} here. It is kept" in told

    def test_other_cells_of_the_folder_stay_and_are_counted(self, toy, tmp_path):
        out = tmp_path / "out"
        words = ("toy", "--data", toy, "--methods", "good", "--seeds", 2, "-o", out, "--workers", 0)
        bench(*words)
        told = bench(*words, "--resume", "--classes", "2").stderr
        assert "2 cells, 2 done already" in told
        assert f"4 other cells lie in {out}; they stay, and tables do not show them" in told
        assert {row["class"] for row in numbers(out)} == {"2"}
        assert len(list((out / "cells").iterdir())) == 6
        assert "other cells" not in bench(*words, "--resume").stderr
        assert len(numbers(out)) == 12

    def test_results_are_not_replaced_unasked(self, toy, tmp_path):
        out = tmp_path / "out"
        words = ("toy", "--data", toy, "--methods", "good", "--seeds", 1, "-o", out, "--workers", 0)
        bench(*words)
        refused = bench(*words, "--json", code=5)
        assert "holds 3 results already; go on with --resume, begin anew with --overwrite" in refused.stderr
        assert json.loads(refused.stdout)["kind"] == "OutputError"
        assert "3 cells, 0 done already" in bench(*words, "--overwrite").stderr
        assert "give one of the two" in bench(*words, "--overwrite", "--resume", code=2).stderr

    def test_a_stranger_brings_a_data_set(self, toy, tmp_path):
        site, out = tmp_path / "site", tmp_path / "out"
        plan = (site / "toy.toml").read_text()
        (site / "toy.toml").write_text(plan.replace('datasets = ["mnist"', 'datasets = ["stamps", "mnist"'))
        words = ("toy", "--data", toy, "--methods", "good", "--seeds", 1, "--datasets", "stamps", "-o", out)
        assert "no image set is called 'stamps'" in bench(*words, code=3).stderr
        (site / "manifests").mkdir()
        (site / "manifests" / "stamps.toml").write_text(STAMPS)
        assert "Nothing is downloaded: buy the album. Licence: CC0" in bench(*words, code=3).stderr
        write_idx(toy / "stamps", 20, 20)
        assert "3 cells, 0 done already" in bench(*words, "--workers", 0).stderr
        assert {row["dataset"] for row in numbers(out)} == {"stamps"}

    def test_two_grids_do_not_write_into_one_folder(self, toy, tmp_path):
        out = tmp_path / "out"
        words = ("toy", "--data", toy, "--methods", "good", "--seeds", 1, "-o", out, "--workers", 0)
        with sole_writer(out):
            refused = bench(*words, code=5)
        assert "another run is writing here; wait for it to end" in refused.stderr
        assert not (out / "cells").exists()
        assert "3 cells, 0 done already" in bench(*words).stderr

    def test_a_killed_grid_goes_on(self, toy, tmp_path):
        out = tmp_path / "out"
        words = ["bench", "toy", "--data", str(toy), "--methods", "good", "--seeds", "4", "-o", str(out)]
        command = [sys.executable, "-m", "mednovelty", *words, "--set", "wait_s=0.3"]
        path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(command, env={**ENVIRONMENT, "PYTHONPATH": path}, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while len(list((out / "cells").glob("*.json"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kept = {path: path.read_bytes() for path in (out / "cells").glob("*.json")}
        assert 2 <= len(kept) < 12
        assert all(read_cell(path) is not None for path in kept)
        result = bench(*words[1:], "--set", "wait_s=0.3", "--resume", "--workers", 0)
        assert f"12 cells, {len(kept)} done already" in result.stderr
        # A worker that nobody listens to any more may have ended its cell.
        assert all(path.read_bytes() == content for path, content in kept.items())
        assert len(numbers(out)) == 24

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    def test_a_stopped_grid_says_so_and_leaves_tables(self, toy, tmp_path, number, code):
        out = tmp_path / "out"
        words = ["bench", "toy", "--data", str(toy), "--methods", "good", "--set", "wait_s=1", "-o", str(out)]
        path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
        # A shell's background jobs ignore interrupts, and what they start does.
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen([sys.executable, "-m", "mednovelty", *words], stderr=subprocess.PIPE,
                                   env={**ENVIRONMENT, "PYTHONPATH": path}, text=True,
                                   preexec_fn=heed)  # fmt: skip
        assert process.stderr is not None
        assert any("6 cells, 0 done already" in process.stderr.readline() for _ in range(2))
        assert "1 of 6, mnist-0-0-good: done" in process.stderr.readline()
        process.send_signal(number)  # While the line is still being logged, as likely as not.
        told = process.communicate(timeout=60)[1]
        assert "what is done is kept" in told
        assert process.returncode == code
        kept = sorted(path.stem for path in (out / "cells").glob("*.json"))
        assert f"{len(kept)} of 6 cells are done; {out / 'results.md'}" in told
        assert 1 <= len(kept) < 6
        assert len(numbers(out)) == 2 * len(kept)
        facts = json.loads((out / "run.json").read_text())
        assert (facts["exit_code"], facts["waiting"], sorted(facts["cells"])) == (code, 6 - len(kept), kept)
        assert (
            f"**{6 - len(kept)} of 6 cells are not done yet: --resume goes on.**"
            in (out / "results.md").read_text()
        )
        assert (out / "failures.tsv").read_text() == "cell\tmessage\n"

    def test_tables_are_there_while_it_runs(self, toy, tmp_path, monkeypatch):
        out, seen = tmp_path / "out", []
        monkeypatch.setattr(run_tables, "REST_S", 0.0)
        monkeypatch.setattr(run_tables, "SHARE", float("inf"))
        write = run_tables.write_tables

        def watched(ran):
            write(ran)
            facts = json.loads((out / "run.json").read_text())
            seen.append((len(ran.records), len(numbers(out)), facts["exit_code"], facts["waiting"]))

        monkeypatch.setattr(run_tables, "write_tables", watched)
        words = ("toy", "--data", toy, "--oracle", "--methods", "bad", "--seeds", 1, "-o", out)
        bench(*words, "--workers", 0, code=6)
        # Of three the second fails; the last table is of the command.
        assert seen[:2] == [(1, 2, None, 2), (1, 2, None, 1)]
        assert "not done yet" not in (out / "results.md").read_text()
        facts = json.loads((out / "run.json").read_text())
        assert (facts["exit_code"], facts["waiting"]) == (6, 0)

    def test_tables_cost_little(self, toy, tmp_path, monkeypatch):
        clock, written = [0.0], []
        plan = plan_named("toy")[0]
        cells = [Cell("mnist", "0", seed, "good") for seed in range(40)]
        tasks = tuple(Task("toy", cell, {}, ("one",), tmp_path) for cell in cells)

        def write(ran):
            written.append(clock[0])
            clock[0] += 1.0  # Fifty times that passes until the next one.

        monkeypatch.setattr(run_tables, "write_tables", write)
        progress = run_tables.Progress(run_tables.Ran(plan, tasks, (), (), (), tmp_path), lambda: clock[0])
        for cell in cells:
            clock[0] += 4
            progress.told(Outcome(cell, "failed"))
        assert written == [12.0, 65.0, 118.0]
        assert len(progress.failures) == 40

    @pytest.mark.parametrize("error", [StoppedError("stopped"), KeyboardInterrupt()])
    def test_a_worker_that_is_stopped_ends_without_a_word(self, monkeypatch, error):
        def stopped(*_):
            raise error

        ours, theirs = multiprocessing.Pipe()
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        monkeypatch.setattr(grid, "attempt", stopped)
        task = Task("toy", Cell("mnist", "0", 0, "good"), {}, ("one",), Path("images"))
        ours.send_bytes(json.dumps(asdict(task) | {"folder": "images", "out": "out"}).encode())
        grid._work(theirs)
        assert not ours.poll()


class TestWords:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("toi",), "no benchmark is called 'toi'; did you mean 'toy'?"),
            (
                ("hcp",),
                "no benchmark is called 'hcp': it is a data set that brats and isles train on, beside their "
                "own; have both in one folder, and run mednovelty bench brats --data FOLDER",
            ),
            (
                ("lgg", "--methods", "trivial"),
                "lgg: hands out no images, so that pixel_mean, pixel_nearest cannot be run beside it; its "
                "trivial baselines are raw_signed and the intensity of each contrast (raw_FLAIR and such), "
                "which stand beside the scores of every method: leave --methods out, or name one",
            ),
            (
                ("isles", "--against", "pyod"),
                "isles: hands out no images, so that pyod cannot be run beside it; its trivial baselines are",
            ),
            (
                ("mvtec", "--methods", "pixel_mean"),
                "its trivial baselines are deviation: ask with --methods trivial, or leave --methods out",
            ),
            (("cifar-toy",), "no benchmark is called 'cifar-toy'; known: brats, isles, leave-one-class-out"),
            (("toy", "--methods", "goood"), "--methods: toy has no method 'goood'; did you mean 'good'?"),
            (("toy", "--methods", "zzz"), "--methods: toy has no method 'zzz'; known: all, good, high, bad"),
            (("toy", "--methods", " , "), "--methods ' , ' names nothing"),
            (
                ("toy", "--methods", "bad"),
                "--methods: bad is chosen by labels of the test; ask with --oracle",
            ),
            (("toy", "--classes", "7"), "--classes: toy has no class '7'; known: 0, 1, 2"),
            (("toy", "--datasets", "mnits"), "--datasets: toy is not for 'mnits'; did you mean 'mnist'?"),
            (("fashion-toy", "--datasets", "mnist"), "'fashion-toy' names the data set already"),
            (("toy", "--scores", "three"), "--scores three: none of good, high, dead has any of them"),
            (("toy", "--set", "ofset=1"), "--set: no setting is called 'ofset'; did you mean 'offset'?"),
            (("toy", "--set", "offset=much"), "toy: offset: Input should be a valid number"),
            (
                ("toy", "--methods", "high", "--oracle"),
                "--oracle: there is something to choose only for good",
            ),
        ],
    )
    def test_unknown_words_are_errors(self, toy, tmp_path, words, message):
        result = bench(*words, "--data", toy, "-o", tmp_path / "out", code=2)
        assert message in result.stderr
        assert not (tmp_path / "out").exists()

    def test_a_set_that_is_not_there_says_what_to_fetch(self, toy, tmp_path):
        result = bench("toy", "--data", tmp_path / "none", "-o", tmp_path / "out", code=3)
        told = ("mnist: train-images-idx3-ubyte", "looked in:", "Nothing is downloaded: get the four IDX")
        for words in (*told, "Licence: none stated", "ossci-datasets"):
            assert words in result.stderr

    def test_a_data_set_before_the_name(self, toy, tmp_path):
        out = tmp_path / "out"
        words = ("--methods", "good", "--classes", 0, "--seeds", 1, "-o", out, "--workers", 0, "--json")
        told = json.loads(bench("fashion-toy", "--data", toy, *words).stdout)
        (row,) = [row for row in told["rows"] if row["score"] == "one"]
        assert (row["dataset"], row["entries"]["mean"]["ours"]) == ("fashion_mnist", 0.5)

    def test_other_images_are_told(self, toy, tmp_path):
        words = ("--methods", "good", "--classes", 0, "--seeds", 1, "-o", tmp_path / "o", "--workers", 0)
        result = bench("toy", "--data", toy, *words)
        assert "**The images of mnist are not those that were published.**" in result.stdout
        assert "not what was published" in result.stderr

    def test_listing(self, toy):
        found = {row["name"]: row for row in json.loads(bench("list", "--json").stdout)}
        assert set(found) == set(names("benchmarks"))
        assert found["toy"]["distribution"] == "toys"
        assert found["miso"]["datasets"] == ["mnist", "fashion_mnist", "cifar10"]
        assert "one-vs-rest" in bench("list").stdout
        code = (
            "import sys; from mednovelty.bench_command import list_benchmarks; list_benchmarks(True); "
            "print({'torch', 'numpy', 'scipy', 'pydantic'} & set(sys.modules), file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "set()"


def record(label="0", seed=0, method="good", variant="", metric="auroc", **values):
    rows = tuple(Measured(score, value, metric) for score, value in values.items())
    cell = Cell("mnist", label, seed, method, variant)
    return Record("toy", cell, "0" * 64, rows, {}, {}, {}, "cpu", 1.0)


class TestTables:
    @pytest.fixture
    def plan(self, toy):
        return plan_named("toy")[0]

    def test_by_hand(self, plan):
        # Class 0: .20 and .26: mean .23, standard deviation .0424; the paper has .20; class 1 .35 of .40.
        records = [record("0", 0, one=0.20, two=0.9), record("0", 1, one=0.26, two=0.9),
                   record("1", 0, one=0.30, two=0.5), record("1", 1, one=0.40, two=0.5)]  # fmt: skip
        lines = markdown(plan, records, oracle=False).splitlines()
        row = "| `good` | `one`, the paper's own | .230 ± .042 (.200, +.030) | .350 ± .071 (.400, -.050) | "
        assert row + ".290 ± .057 (.300, -.010) |" in lines
        assert "| `good` | `two` | .900 ± .000 | .500 ± .000 | .700 ± .000 |" in lines
        assert "| method | score | 0 | 1 | mean |" in lines
        assert not any(line.startswith("Below the paper") for line in lines)
        assert ORACLE not in lines

    def test_what_falls_short_is_listed(self, plan):
        text = markdown(plan, [record("0", one=0.18), record("1", one=0.395), record("2", one=0.48)],
                        oracle=False)  # fmt: skip
        short = text[text.index("Below the paper") :].splitlines()[2:]
        # .395 is within the paper's spread of .01.
        assert short == [
            "- mnist, `good` by `one`, 0: .180 (.200, -.020)",
            "- mnist, `good` by `one`, 2: .480 (.500, -.020)",
            "- mnist, `good` by `one`, mean: .352 (.367, -.015)",
        ]

    def test_the_oracle_takes_the_best_mean_and_says_so(self, plan):
        records = [record("0", variant=f"offset={v}", one=a) for v, a in (("0", 0.5), ("1", 0.75))]
        records += [record("1", variant=f"offset={v}", one=a) for v, a in (("0", 0.875), ("1", 0.5))]
        (row,) = rows_of(plan, records)
        assert (row.variant, row.entries["0"].ours, row.entries["mean"].ours) == ("offset=0", 0.5, 0.6875)
        text = markdown(plan, records, oracle=True)
        assert ORACLE in text
        assert "`good` (offset=0)" in text

    def test_oracle_runs_all_variants(self, toy, tmp_path):
        out = tmp_path / "out"
        words = ("--methods", "good", "--seeds", 1, "--classes", 0, "--oracle", "--workers", 0, "-o", out)
        text = bench("toy", "--data", toy, *words).stdout
        assert {row["variant"] for row in numbers(out)} == {"offset=0.0", "offset=0.5", "offset=0.25"}
        assert "`good` (offset=0.5)" in text
        assert ORACLE in text

    def test_what_is_set_is_not_chosen_and_no_label_tells_it(self, toy, tmp_path):
        plan = plan_named("miso")[0]
        tried = plan.variants("ae", oracle=True, fixed={"k": 5, "latent": 16})
        assert tried == [{"alpha": alpha} for alpha in (0.5, 0.6, 0.75, 0.8, 0.9, 1.0)]
        assert len(plan.variants("ae", oracle=True)) == 3 * 4 * 6
        out = tmp_path / "out"
        words = ("toy", "--data", toy, "--classes", 0, "--seeds", 1, "--workers", 0, "-o", out)
        refused = bench(*words, "--methods", "good", "--oracle", "--set", "offset=0.5", code=2)
        assert "--oracle: --set fixes offset, and there is nothing else to choose" in refused.stderr
        # What has another reason to be asked for by --oracle runs as it is set.
        bench(*words, "--methods", "good,bad", "--oracle", "--set", "offset=0.5")
        assert {(row["method"], row["variant"]) for row in numbers(out)} == {("good", ""), ("bad", "")}
        assert {float(row["value"]) for row in numbers(out) if row["score"] == "one"} == {0.5}

    def test_what_is_swept_is_not_set(self, toy, tmp_path):
        words = ("toy", "--data", toy, "--methods", "good", "-o", tmp_path / "out")
        refused = bench(*words, "--sweep", "offset=0,1", "--set", "offset=0.5", code=2)
        assert "--set offset: --sweep gives it values already; give one of the two" in refused.stderr

    def test_rows_that_were_not_run_are_named(self, plan):
        text = markdown(plan, [record("0", method="high", one=0.5)], oracle=False)
        assert "In the paper and not run: the paper's own (`good`, mean .200)." in text

    def test_a_difference_needs_a_spread(self):
        assert Entry(0.5, None, 0.52, None).short
        assert not Entry(0.5, None, 0.504, None).short
        assert not Entry(0.5, 0.03, 0.52, None).short
        assert not Entry(0.5, None, None, None).short


class TestPlans:
    def test_every_plan_is_that_of_its_class(self):
        for info, plan in plans():
            kind = plugin("benchmarks", info.name)
            assert isinstance(kind(), Benchmark)
            for dataset in plan.datasets:
                assert is_scan_set(dataset) or image_manifest(dataset)
                for method in plan.methods:
                    for variant in (*plan.variants(method, oracle=True)[::30], {}):
                        checked(kind.Settings, plan.settings_for(dataset, method, {}, variant), plan.name)
            assert set(plan.settings) == set(kind.Settings.__dataclass_fields__)
            for members in plan.groups.values():
                assert set(members) <= set(plan.methods)
            assert set(plan.oracle) | set(plan.peeking) | set(plan.beside) <= set(plan.methods)
            known = {name for method in plan.methods for name in kind().scores(method, ["all"])}
            for row in plan.published:
                assert row.dataset in plan.datasets
                assert row.method in plan.methods or row.method in NOT_HERE.get(info.name, ())
                assert row.score in known, row

    @pytest.mark.parametrize(
        ("name", "dataset", "method", "score", "label", "value"),
        [
            ("mnist-novel-digit", "mnist", "vae_z64", "latent_euclidean", "2", 0.965),
            ("mnist-novel-digit", "mnist", "vae_z64", "latent_bhattacharyya", "9", 0.641),
            ("mnist-novel-digit", "mnist", "an_cho", "encoder_stochastic_likelihood", "1", 0.136),
            ("mnist-novel-digit", "mnist", "vae_z24", "reconstruction_error", "4", 0.559),
            ("one-vs-rest", "mnist", "one_class", "score", "8", 0.939),
            ("one-vs-rest", "mnist", "kde", "score", "5", 0.738),
            ("one-vs-rest", "cifar10", "soft_boundary", "score", "9", 0.710),
            ("one-vs-rest", "cifar10", "isolation_forest", "score", "6", 0.429),
            ("one-vs-rest", "fashion_mnist", "fcdd", "score", "6", 0.75),
            ("leave-one-class-out", "fashion_mnist", "vae_logc_1p4", "kl", "5", 0.82),
        ],
    )
    def test_numbers_are_the_papers(self, name, dataset, method, score, label, value):
        plan, _ = plan_named(name)
        (row,) = [
            row for row in plan.published if (row.dataset, row.method, row.score) == (dataset, method, score)
        ]
        assert row.values[label] == pytest.approx(value)

    def test_means_are_the_papers(self):
        means = {(row.method, row.score): row.mean for row in plan_named("mnist-novel-digit")[0].published}
        # The issue's: 0.812 and 0.810.
        assert means["vae_z64", "latent_euclidean"] == pytest.approx(0.812, abs=5e-4)
        assert means["vae_z64", "latent_bhattacharyya"] == pytest.approx(0.810, abs=5e-4)
        thesis = {row.method: row for row in plan_named("one-vs-rest")[0].published if row.dataset == "mnist"}
        assert thesis["one_class"].mean == pytest.approx(0.948, abs=5e-4)
        assert thesis["one_class"].spreads["2"] == pytest.approx(0.008)
        nln = {(row.dataset, row.method, row.metric): row.mean for row in plan_named("simo")[0].published}
        assert nln["cifar10", "aae", "change_as_printed"] == 8.81
        assert nln["fashion_mnist", "vae", "auroc"] == 0.941

    @pytest.mark.parametrize(
        ("name", "dataset", "method", "mean"),
        [
            ("miso", "mnist", "dknn", 0.791),
            ("miso", "cifar10", "skip_gan", 0.629),
            ("miso", "fashion_mnist", "vae_compared", 0.521),
            ("simo", "mnist", "cavga_du", 0.986),
            ("simo", "fashion_mnist", "lfd", 0.927),
            ("simo", "cifar10", "dknn", 0.890),
            # The thesis prints 58.8 as the mean of the column.
            ("one-vs-rest", "cifar10", "svdd", 0.588),
            ("one-vs-rest", "fashion_mnist", "gt", 0.94),
            ("mnist-c", "mnist", "anogan", 0.9593),
            ("mnist-c", "mnist", "deep_svdd_features", 0.6916),
        ],
    )
    def test_rivals_that_nobody_runs_are_in_the_tables(self, name, dataset, method, mean):
        plan = plan_named(name)[0]
        (row,) = [
            row for row in plan.published
            if (row.dataset, row.method, row.metric) == (dataset, method, "auroc")
        ]  # fmt: skip
        assert row.mean == pytest.approx(mean, abs=5e-4)
        assert method in NOT_HERE[name]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"protocol": {"titel": "x"}}, "no setting is called 'titel'; did you mean 'title'?"),
            ({"setings": {}}, "no setting is called 'setings'; did you mean 'settings'?"),
            ({"protocol": {"title": "x"}}, "t.toml: protocol.paper is missing"),
        ],
    )
    def test_a_wrong_plan_is_refused(self, change, message):
        with pytest.raises(SettingsError, match=re.escape(message)):
            plan_from(change, "t")

    def test_a_row_needs_a_number_for_each_class(self):
        head = {"title": "x", "paper": "p", "tables": "t", "datasets": ["mnist"], "classes": ["0", "1"]}
        row = {"dataset": "mnist", "method": "m", "score": "s", "name": "n"}
        with pytest.raises(SettingsError, match="values of 'n' are 3 numbers for 2 classes"):
            plan_from({"protocol": head, "published": [row | {"values": [1, 2, 3]}]}, "t")
        with pytest.raises(SettingsError, match="'n' has neither values nor mean"):
            plan_from({"protocol": head, "published": [row]}, "t")
        plan = plan_from({"protocol": head, "published": [row | {"values": {"1": 0.5}}]}, "t")
        assert (plan.published[0].values, plan.published[0].mean) == ({"1": 0.5}, None)

    def test_unknown_names(self):
        with pytest.raises(UnknownPluginError, match="did you mean 'miso'"):
            plan_named("misso")

    def test_a_wheel_holds_plans_and_manifests(self, tmp_path):
        root = Path(__file__).resolve().parents[1]
        code = "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])"
        copy = tmp_path / "copy"
        ignored = ("data_manifests", ".git", ".venv", "build", "tests", "*.egg-info", "__pycache__")
        import shutil

        shutil.copytree(root, copy, ignore=shutil.ignore_patterns(*ignored), symlinks=True)
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=copy, check=True, capture_output=True)
        (wheel,) = tmp_path.glob("*.whl")
        held = set(zipfile.ZipFile(wheel).namelist())
        for info in names("benchmarks"):
            assert f"mednovelty/benchmarks/{info}.toml" in held
        for path in (root / "mednovelty" / "benchmarks" / "manifests").glob("*.toml"):
            assert f"mednovelty/benchmarks/manifests/{path.name}" in held


class TestImageSets:
    def test_images_are_found_by_name_or_in_the_folder_itself(self, image_sets):  # noqa: F811
        for name in ("mnist", "fashion_mnist", "cifar10"):
            folder = found_folder(name, image_sets)
            assert folder == image_sets / name
            assert found_folder(name, folder) == folder
            found = image_set(name, folder)
            assert found.training.ndim == 4
            assert len(found.training) == len(found.labels)
            assert len(found.test) == len(found.truth)
        assert found.shape == (3, 32, 32)
        assert (found.training[7, 0, 21] == 255).all()

    def test_hashes_are_of_the_content(self, image_sets, tmp_path):  # noqa: F811
        import gzip

        packed = file_hashes("mnist", image_sets / "mnist")
        for path in (image_sets / "mnist").glob("*.gz"):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
        assert file_hashes("mnist", image_sets / "mnist") == packed
        path = image_sets / "mnist" / "t10k-labels-idx1-ubyte"
        path.write_bytes(path.read_bytes()[:-1] + b"\x07")
        other = file_hashes("mnist", image_sets / "mnist")
        assert {name for name in other if other[name] != packed[name]} == {path.name}

    def test_a_damaged_file_is_refused(self, image_sets):  # noqa: F811
        path = image_sets / "mnist" / "t10k-labels-idx1-ubyte.gz"
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(ScanError, match=r"t10k-labels-idx1-ubyte.gz: cannot be read") as error:
            file_hashes("mnist", image_sets / "mnist")
        assert error.value.code == "images.damaged"

    def test_where_the_manifest_says(self, image_sets, monkeypatch):  # noqa: F811
        monkeypatch.setenv("MEDNOVELTY_DATA", str(image_sets.parent))
        assert found_folder("cifar10", None) == image_sets / "cifar10"
        monkeypatch.delenv("MEDNOVELTY_DATA")
        with pytest.raises(ScanError, match="nowhere: give --data, or set MEDNOVELTY_DATA") as error:
            found_folder("cifar10", None)
        assert error.value.code == "images.missing"

    @pytest.mark.data
    def test_mnist_is_what_was_published(self, real_data):
        found = file_hashes("mnist", real_data / "images" / "mnist")
        assert found == dict(image_manifest("mnist").checksums)


def test_a_hash_is_of_all_that_numbers_depend_on(image_sets):  # noqa: F811
    task, _ = task_of("mnist-novel-digit", image_sets / "mnist", "vae_z24")
    same = replace(task, device="cuda", threads=7)
    assert task_sha256(same) == task_sha256(task)
    others = [
        replace(task, settings={**task.settings, "latent": 25}),
        replace(task, scores=task.scores[:-1]),
        replace(task, data={"a": "b"}),
        replace(task, cell=replace(task.cell, seed=1)),
        replace(task, benchmark="miso"),
    ]
    assert len({task_sha256(each) for each in (task, *others)}) == 6


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made: Not a directory"):
        begin(tmp_path / "file" / "out", resume=False, overwrite=False)


def test_no_cells_no_processes(tmp_path):
    assert run_cells([], tmp_path, workers=3, told=print) == []
