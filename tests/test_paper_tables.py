"""``pipelines/paper_tables.py``: its settings, the summary by hand, and a run on tiny made-up images."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from image_folders import image_sets  # noqa: F401 - a fixture

from mednovelty.benchmarks.benchmark import Cell, Measured
from mednovelty.benchmarks.cell_files import Record
from mednovelty.benchmarks.comparison import SPREAD
from mednovelty.benchmarks.machine import machine_words
from mednovelty.benchmarks.paper_tables import RunSettings, TableSettings, chosen_tables, tables_from
from mednovelty.benchmarks.plan import plan_from, plan_named
from mednovelty.benchmarks.summary import MadeRun, MadeTable, shortfalls, summary, summary_rows
from mednovelty.errors import SettingsError
from mednovelty.plugins import names, plugin
from mednovelty.settings import checked, parse_assignments, read_toml

PROGRAM = Path(__file__).resolve().parents[1] / "pipelines" / "paper_tables.py"
PLAN = {
    "protocol": {"title": "Toys", "paper": "vasilev2018", "tables": "Table 0", "datasets": ["mnist"],
                 "classes": ["0", "1"], "peeking": ["peeks"]},
    "methods": {"good": {}, "plain": {}, "shown": {}, "peeks": {}},
    "published": [
        {"dataset": "mnist", "method": "good", "score": "s", "name": "N_q", "values": [0.9, 0.8]},
        {"dataset": "mnist", "method": "plain", "score": "s", "name": "N_p", "values": [0.95, 0.85]},
        {"dataset": "mnist", "method": "peeks", "score": "s", "name": "by labels", "values": [0.99, 0.99]},
        {"dataset": "mnist", "method": "shown", "score": "s", "name": "shown", "values": [0.98, 0.98]},
    ],
}  # fmt: skip


def record(method, first, second=None, score="s", **told):
    found = []
    for label, value in (("0", first), ("1", second)):
        if value is not None:
            cell = Cell("mnist", label, 0, method)
            rows = (Measured(score, value),)
            found.append(Record("toys", cell, "0" * 64, rows, told, {}, {}, "cpu, 1 threads", 2.5))
    return found


def made(*records, **more):
    table = TableSettings("toys", "toys", (RunSettings("all"),), trivial=("pixel_mean", "good:easy"),
                          not_label_free=("shown",), **more)  # fmt: skip
    flat = tuple(each for group in records for each in group)
    run = MadeRun("mednovelty bench toys", flat, len(flat) + 1)
    return MadeTable(table, plan_from(PLAN, "toys"), (run,))


class TestSummary:
    def test_a_row_by_hand(self):
        # Ours of `good`: (.92 + .70) / 2 = .81; its paper's .85, and the paper's best without labels .90.
        # `pixel_mean` .75 beats `good` by `easy`, .6; `peeks`, `shown` and `pyod_knn` must not count as ours.
        table = made(
            record("good", 0.92, 0.70),
            record("plain", 0.80, 0.80),
            record("pixel_mean", 0.80, 0.70, "score"),
            record("good", 0.60, 0.60, "easy"),
            record("peeks", 0.99, 0.99),
            record("shown", 0.98, 0.98),
            record("pyod_knn", 0.97, 0.97, "score"),
        )
        assert summary_rows(table) == [
            "| toys (vasilev2018, Table 0) | mnist | `good` `s` | .810 | .850; its best .900 (N_p) | -.040 | "
            ".750 (`pixel_mean` `score`) |"
        ]

    def test_what_the_paper_lacks_is_held_against_its_best(self):
        (row,) = summary_rows(made(record("new", 0.96, 0.96)))
        assert row.split(" | ")[2:] == ["`new` `s`", ".960", ".900 (N_p)", "+.060", "none |"]

    def test_of_some_classes_only_these_are_compared(self):
        (row,) = summary_rows(made(record("good", 0.92)))
        assert row.split(" | ")[1:6] == [
            "mnist, 1 of 2 classes", "`good` `s`", ".920", ".900; its best .950 (N_p)", "+.020"
        ]  # fmt: skip

    def test_a_grid_that_is_not_done_yet(self):
        # `plain` has class 0 alone and cannot be the best; the trivial mean is over what the best has.
        (row,) = summary_rows(made(record("good", 0.7, 0.7), record("plain", 0.99)))
        assert "`good` `s` | .700" in row
        (row,) = summary_rows(made(record("good", 0.92), record("pixel_mean", 0.5, 0.9, "score")))
        assert row.endswith("| .500 (`pixel_mean` `score`) |")
        (row,) = summary_rows(made(record("good", 0.92, 0.92), record("pixel_mean", 0.5, None, "score")))
        assert row.endswith("| none |")

    def test_lower_can_be_better(self):
        rows = (record("good", 0.9, 0.9), record("plain", 0.2, 0.2), record("pixel_mean", 0.7, 0.7, "score"))
        (row,) = summary_rows(made(*rows, lower_is_better=True))
        assert "`plain` `s` | .200" in row

    def test_nothing_but_labels_is_no_score_of_ours(self):
        (row,) = summary_rows(made(record("peeks", 0.99, 0.99)))
        assert row.split(" | ")[2:4] == ["none", ""]

    def test_shortfalls_and_their_sentences(self):
        why = {"good": "Fewer epochs.", "good:s": "Six epochs.", "plain:s": "Never mind."}
        lines = shortfalls(made(record("good", 0.92, 0.70), record("shown", 0.5, 0.99), why=why))
        assert lines == [
            "",
            f"Worse than the paper by more than {SPREAD}:",
            "",
            "- mnist, auroc, `good` by `s`. 1: .700 (.800, -.100); mean: .810 (.850, -.040). Six epochs.",
            "- mnist, auroc, `shown` by `s`. 0: .500 (.980, -.480); mean: .745 (.980, -.235). "
            "**No sentence says why.**",
            "",
            "There are sentences for what does not fall short, or was not run: `good`, `plain:s`.",
        ]

    def test_commands_seconds_and_what_failed_are_told(self):
        table = made(record("good", 0.92, 0.70))
        table = MadeTable(table.settings, table.plan, table.runs, ("z64: no images",))
        text = summary([table, MadeTable(TableSettings("none", "toys", ()))], "a machine, 2 cores")
        assert "Machine: a machine, 2 cores." in text
        assert "    mednovelty bench toys" in text
        assert "2 of 3 cells, 5 s by the clock, on cpu, 1 threads." in text
        assert "- not run: z64: no images" in text
        assert "| none | | not run |" in text
        assert "### mnist, auroc" in text


class TestSettings:
    def test_every_table_of_the_file_can_be_run(self):
        for table in tables_from(read_toml(PROGRAM.with_suffix(".toml")), "paper_tables.toml"):
            plan, dataset = plan_named(table.benchmark)
            kind = plugin("benchmarks", plan.name)
            for run in table.run:
                own = [name for name in run.methods if name != "trivial"]
                methods = plan.methods_for(own, names("methods"), oracle=run.oracle)
                assert plan.classes_for(run.classes or None)
                for name in methods:
                    assert kind().scores(name, run.scores)
                    over = parse_assignments(run.assignments)
                    tree = plan.settings_for(dataset or plan.datasets[0], name, over)
                    checked(kind.Settings, tree, table.name)

    def test_settings_become_assignments(self):
        tree = {"epochs": 2, "rate": 1e-3, "own": {"reduce": "none", "deep": {"on": True}}, "hidden": [4, 5]}
        words = RunSettings("x", settings=tree).assignments
        assert parse_assignments(words) == tree

    @pytest.mark.parametrize(
        ("tree", "message"),
        [
            ({"tables": []}, "t.toml: no setting is called 'tables'; known: [[table]]"),
            ({}, "t.toml: has no [[table]]"),
            ({"table": [{"name": "a", "benchmark": "miso"}]}, "run"),
            ({"table": [{"name": "a", "benchmark": "miso", "run": []}]}, "[[table]] a: has no [[table.run]]"),
            (
                {"table": [{"name": "a", "benchmark": "miso", "run": [{"name": "x", "metods": []}]}]},
                "[[table.run]]: no setting is called 'metods'; known: name, methods",
            ),
            (
                {"table": [{"name": "a", "benchmark": "miso", "run": [{"name": "../x"}]}]},
                "'../x' cannot be a folder; use letters, digits and - _ .",
            ),
            (
                {"table": [{"name": "a", "benchmark": "miso", "run": [{"name": "x"}, {"name": "x"}]}]},
                "two are called 'x'",
            ),
        ],
    )
    def test_what_is_wrong_is_refused(self, tree, message):
        with pytest.raises(SettingsError, match=re.escape(message)):
            tables_from(tree, "t.toml")

    def test_only_some(self):
        tables = [TableSettings(name, "miso", (RunSettings("x"),)) for name in ("a", "b", "c")]
        assert [table.name for table in chosen_tables(tables, "c, a")] == ["a", "c"]
        with pytest.raises(SettingsError, match="--only d: known tables: a, b, c"):
            chosen_tables(tables, "d")


def test_the_machine_is_told():
    assert f"{os.cpu_count()} cores" in machine_words()
    assert "Python 3." in machine_words()


def test_a_run_is_told_as_it_can_be_typed(tmp_path):
    spec = importlib.util.spec_from_file_location("paper_tables_pipeline", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    run = RunSettings("x", ("ae", "pca"), classes=("1",), seeds=2, settings={"epochs": 1}, against=("pyod",))
    words = program.command_of(TableSettings("t", "miso", (run,)), run)
    assert words == (
        "mednovelty bench miso --data IMAGES --methods ae,pca --scores all --classes 1 --against pyod "
        "--seeds 2 --set epochs=1"
    )


TINY = """
[[table]]
name = "digits"
benchmark = "mnist-novel-digit"
trivial = ["pixel_mean", "pixel_nearest"]

[[table.run]]
name = "all"
methods = ["pca", "trivial"]
classes = ["1", "3"]

[table.why]
"pca:outlier_score" = "The images are made up."

[[table]]
name = "left-out"
benchmark = "leave-one-class-out"
trivial = ["vae:mean_image"]

[[table.run]]
name = "vae"
methods = ["vae"]
classes = ["5"]
seeds = 1
settings = { epochs = 1 }

[[table]]
name = "absent"
benchmark = "one-vs-rest"

[[table.run]]
name = "cifar"
methods = ["kde"]
datasets = ["cifar10"]
"""


@pytest.mark.slow
def test_tables_of_tiny_images(image_sets, tmp_path):  # noqa: F811
    import shutil

    shutil.rmtree(image_sets / "cifar10")
    (tmp_path / "tiny.toml").write_text(TINY)
    words = [sys.executable, str(PROGRAM), "--data", str(image_sets), "--out", str(tmp_path / "out"),
             "--settings", str(tmp_path / "tiny.toml")]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert first.returncode == 6, first.stderr
    text = (tmp_path / "out" / "summary.md").read_text()
    assert first.stdout == text + "\n"
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:5]
    assert rows[0].startswith(
        "| digits (vasilev2018, Table 3) | mnist, 2 of 10 classes | `pca` `outlier_score` |"
    )
    assert "`pixel_" in rows[0]
    assert rows[1].startswith(
        "| left-out (zimmerer2019, Fig. 1) | fashion_mnist, 1 of 10 classes | `vae` † `"
    )
    assert rows[1].endswith("(`vae` † `mean_image`) |")
    assert "†: Not the protocol's own: epochs=1 (" in text
    assert rows[2] == "| absent | | not run | | | | |"
    assert "- not run: cifar: cifar10: " in text
    assert "**The images of mnist are not those that were published.**" in text
    assert "--methods pca,trivial --scores all --classes 1,3" in text
    # Shown, nothing is run, and nothing is written but the summary.
    out = tmp_path / "out"
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "summary.md"
              and path != out}  # fmt: skip
    again = subprocess.run([*words, "--show"], capture_output=True, text=True, env=environment)
    assert again.returncode == 6, again.stderr
    assert "6 cells, 6 done already" in again.stderr
    assert again.stdout == first.stdout
    found = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "summary.md"}
    assert {path: found[path] for path in found if path != out} == stamps
    # Of those that are not chosen the summary shows what is there; what was done otherwise stays.
    (tmp_path / "tiny.toml").write_text(
        TINY.replace('["1", "3"]', '["1"]').replace("epochs = 1", "epochs = 2")
    )
    only = subprocess.run([*words, "--only", "digits"], capture_output=True, text=True, env=environment)
    assert only.returncode == 0, only.stderr
    shown = (out / "summary.md").read_text()
    assert only.stdout == shown + "\n"
    assert "| digits (vasilev2018, Table 3) | mnist, 1 of 10 classes |" in shown
    assert "| left-out |" in shown
    assert "| absent |" in shown
    assert "not shown: " in only.stderr
    other = subprocess.run([*words, "--only", "left-out"], capture_output=True, text=True, env=environment)
    assert other.returncode == 6
    assert "left-out, vae: " in other.stderr
    assert "was done otherwise: epochs is 1 there and 2 here. It is kept" in other.stderr
    assert "- not run: vae: " in (out / "summary.md").read_text()
    (cell,) = (out / "left-out" / "vae" / "cells").iterdir()
    assert stamps[cell] == cell.stat().st_mtime_ns
