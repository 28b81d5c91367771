"""The tables of ``bench`` by hand: which cells make a row, what was changed, and who was shown labels."""

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mednovelty.bench_command import BenchRequest
from mednovelty.benchmarks.benchmark import Cell, Measured
from mednovelty.benchmarks.beside_table import beside
from mednovelty.benchmarks.cell_files import COLUMNS, Record, read_cell, write_results
from mednovelty.benchmarks.comparison import UNSURE, Entry, markdown, rows_of
from mednovelty.benchmarks.image_sets import image_manifest, published_words
from mednovelty.benchmarks.paper_tables import RunSettings, TableSettings
from mednovelty.benchmarks.plan import plan_from, plan_named
from mednovelty.benchmarks.run_facts import choices_of, run_facts
from mednovelty.benchmarks.summary import MadeRun, MadeTable, summary, summary_rows

SETTINGS = {"epochs": 6, "images": 0, "method_settings": {"samples": 100}}
TREE = {
    "protocol": {"title": "Toys", "paper": "vasilev2018", "tables": "Table 0", "datasets": ["mnist"],
                 "classes": ["0", "1", "2"], "seeds": 2},
    "settings": SETTINGS,
    "methods": {"vae": {}, "long": {"epochs": 12}},
    "published": [
        {"dataset": "mnist", "method": "vae", "score": "s", "name": "N_q", "values": [0.5, 0.6, 0.7]},
    ],
}  # fmt: skip
PLAN = plan_from(TREE, "toys")
LABELS = ("0", "1", "2")


def record(label="0", seed=0, method="vae", variant="", metric="auroc", told=None, over=None, **values):
    rows = tuple(Measured(score, value, metric) for score, value in values.items())
    own = SETTINGS | ({"epochs": 12} if method == "long" else {}) | (over or {})
    cell = Cell("mnist", label, seed, method, variant)
    return Record("toys", cell, "0" * 64, rows, told or {}, own, {}, "cpu", 1.0)


def every(seeds=(0, 1), **more):
    """Return a record for each class and seed."""
    return [record(label, seed, **more) for label in LABELS for seed in seeds]


def table(records, plan=PLAN, **more):
    """Return the lines of the tables of ``bench``."""
    return markdown(plan, records, oracle=False, **more).splitlines()


def made(*runs, plan=PLAN, **more):
    """Return a table of the summary, of runs of the pipeline."""
    settings = TableSettings("toys", "toys", (RunSettings("all"),), **more)
    told = tuple(MadeRun("mednovelty bench toys", tuple(run), len(run)) for run in runs)
    return MadeTable(settings, plan, told)


class TestSettingsAreNoSeeds:
    def test_runs_with_other_settings_are_other_rows(self):
        short, whole = every(over={"epochs": 1}, s=0.5), every(s=0.9)
        rows = rows_of(PLAN, [*short, *whole])
        assert [row.entries["mean"].ours for row in rows] == pytest.approx([0.5, 0.9])
        lines = table([*short, *whole])
        assert any(line.startswith("| `vae` (epochs=1 (6)) † | `s`, N_q | .500 ±") for line in lines)
        assert any(line.startswith("| `vae` (as the protocol has it) | `s`, N_q | .900 ±") for line in lines)
        # .5 of one and .9 of the other must not be told as .7.
        assert not any(".700 ±" in line for line in lines)

    def test_the_summary_takes_them_apart_too(self):
        (row,) = summary_rows(made(every(over={"epochs": 1}, s=0.5), every(s=0.9)))
        assert "| `vae` (as the protocol has it) `s` | .900 ± .000 |" in row
        (row,) = summary_rows(made(every(over={"epochs": 1}, s=0.5)))
        assert "| `vae` † `s` | .500 ± .000 |" in row

    def test_a_cell_that_two_runs_have_is_one_seed(self):
        (row,) = rows_of(PLAN, [*every((0,), s=0.5), *every((0,), s=0.5, t=0.1)][:-1])[:1]
        assert row.seeds == 1
        assert row.entries["0"].spread is None
        (line,) = [line for line in table(every((0,), s=0.5) * 2) if line.startswith("| `vae`")]
        assert "±" not in line
        assert "±" in table(every((0, 1), s=0.5))[-1]

    def test_seeds_of_means_are_the_same_seeds(self):
        # Class 0 of seeds 0 and 1, class 1 of seeds 1 and 2: no mean over classes is of one seed for all.
        records = [record("0", 0, s=0.5), record("0", 1, s=0.6), record("1", 1, s=0.5), record("1", 2, s=0.6)]
        (row,) = rows_of(PLAN, records)
        assert row.entries["mean"].spread is None
        (row,) = rows_of(PLAN, [record("0", 1, s=0.4), record("0", 0, s=0.2), *every((0, 1), s=0.2)[2:]])
        # Seed 0: .2; seed 1: (.4 + .2 + .2) / 3 = .2667; half the difference times the root of 2.
        assert row.entries["mean"].spread == pytest.approx(0.0667 / 2**0.5, abs=1e-4)

    def test_seconds_beside_other_libraries_are_of_the_rows_own_cells(self):
        fast = [replace(one, seconds=10.0) for one in every(over={"epochs": 1}, s=0.5)]
        slow = [replace(one, seconds=60.0) for one in every(s=0.9)]
        other = every(method="pyod_knn", told={"library": "pyod"}, score=0.3)
        lines = beside(PLAN, [*fast, *slow, *other]).splitlines()
        assert any("`vae` (epochs=1 (6)) †" in line and "| 10.0 |" in line for line in lines)
        assert any("`vae` (as the protocol has it) |" in line and "| 60.0 |" in line for line in lines)


class TestWhatIsNotTheProtocolsOwn:
    def test_nothing_is_said_of_the_protocols_own(self):
        lines = table(every(s=0.5) + every(method="long", s=0.5))
        assert not any("Not the protocol's own" in line or "†" in line for line in lines)

    def test_settings_classes_and_seeds(self):
        over = {"epochs": 1, "images": 500, "method_settings": {"samples": 7}}
        lines = table([record("1", over=over, s=0.5)])
        told = ("†: Not the protocol's own: epochs=1 (6), images=500 (all), method_settings.samples=7 (100); "
                "classes 1 of 3; seeds 1 (2).")  # fmt: skip
        assert lines.index(told) < lines.index("| method | score | 1 | mean |")
        assert any(line.startswith("| `vae` † | `s`") for line in lines)

    def test_whose_settings(self):
        lines = table([*every(over={"epochs": 1}, s=0.5), *every(method="long", over={"epochs": 1}, s=0.5),
                       *every((0,), method="new", s=0.4)])  # fmt: skip
        told = ("†: Not the protocol's own: epochs=1 (6) of `vae`; epochs=1 (12) of `long`; "
                "seeds 1 to 2 (2).")  # fmt: skip
        assert told in lines
        assert any(line.startswith("| `new` | `s`") for line in lines)

    def test_what_an_oracle_varies_is_its_variant(self):
        records = [record(label, seed, variant="epochs=1", over={"epochs": 1}, s=0.5)
                   for label in LABELS for seed in (0, 1)]  # fmt: skip
        lines = table(records)
        assert not any("Not the protocol's own" in line for line in lines)
        assert any(line.startswith("| `vae` (epochs=1) | `s`") for line in lines)

    def test_the_summary_says_it_too(self):
        text = summary([made(every((0,), over={"epochs": 1}, s=0.5))], "a machine")
        assert "†: Not the protocol's own: epochs=1 (6); seeds 1 (2)." in text
        assert "†: with settings that are not the protocol's own" in text

    def test_run_json_holds_settings_and_choices(self):
        request = BenchRequest("toys", Path("images"), assignments=("epochs=1",), seeds=1, as_json=True)
        records = [*every((0,), over={"epochs": 1}, s=0.5), record(method="long", s=0.5)]
        told = run_facts(PLAN, False, records, [], 0, choices=choices_of(request))
        vae, long = told["settings"]
        assert (vae["method"], vae["cells"], vae["settings"]["epochs"]) == ("vae", 3, 1)
        assert vae["changed"] == {"epochs": {"ours": 1, "protocol": 6}}
        assert (long["method"], long["cells"], long["changed"]) == ("long", 1, {})
        assert told["rows"][0]["changed"] == vae["changed"]
        assert (told["choices"]["assignments"], told["choices"]["seeds"]) == (["epochs=1"], 1)
        # Where images are, and what is printed, is nobody's business.
        assert not {"data", "output", "as_json"} & set(told["choices"])


ANOMALIES = {"known_anomalies": {"images": 5, "classes": [1]}}


class TestWhoWasShownLabels:
    PLAN = plan_from(
        {
            **TREE,
            "protocol": TREE["protocol"] | {"peeking": ["peeks"], "learn_from_anomalies": ["sad"],
                                            "learn_from_classes": ["vmf"]},
            "settings": SETTINGS | {"labels": False},
            "beside": {"exposed": "cifar10"},
            "published": [
                *TREE["published"],
                {"dataset": "mnist", "method": "exposed", "score": "s", "name": "OE", "mean": 0.99},
                {"dataset": "mnist", "method": "gt", "score": "s", "name": "GT", "mean": 0.98,
                 "shown": "outliers"},
            ],
        },
        "toys",
    )  # fmt: skip

    def lines(self, records):
        return table(records, self.PLAN)

    @pytest.mark.parametrize(
        ("method", "told", "over", "name"),
        [
            ("sad", ANOMALIES, {}, "`sad` (semi-supervised) |"),
            # Without anomalies it learns from none; and who cannot use them was not shown any.
            ("sad", {}, {}, "`sad` |"),
            ("vae", ANOMALIES, {}, "`vae` |"),
            ("exposed", {"outliers": "cifar10"}, {}, "`exposed` (outliers) |"),
            ("sad", ANOMALIES | {"outliers": "cifar10"}, {}, "`sad` (semi-supervised, outliers) |"),
            ("vmf", {}, {"labels": True}, "`vmf` (class labels) † |"),
            ("vae", {}, {"labels": True}, "`vae` † |"),
            ("peeks", {}, {}, "`peeks` (labels of the test) |"),
        ],
    )
    def test_rows_are_marked_and_are_no_score_of_ours(self, method, told, over, name):
        records = every(method=method, told=told, over=over, s=0.95)
        assert any(line.startswith(f"| {name} `s`") for line in self.lines(records))
        (row,) = summary_rows(made(records, plan=self.PLAN))
        assert ("| none |" in row.replace("| none |\n", "")) or "(" not in name
        assert ("`s` | .950" in row) == ("(" not in name)

    def test_the_papers_best_is_label_free_too(self):
        (row,) = summary_rows(made(every(method="new", s=0.5), plan=self.PLAN))
        assert "| .600 (N_q) |" in row

    def test_the_protocol_names_all_methods_that_learn_from_anomalies(self):
        from mednovelty.benchmarks.one_vs_rest_labelled import EXPOSED
        from mednovelty.benchmarks.one_vs_rest_labelled import KNOWN as LEARNS

        plan = plan_named("one-vs-rest")[0]
        assert set(plan.learn_from_anomalies) == {*LEARNS, *EXPOSED}
        assert all(row.shown for row in plan.published if row.method.endswith("_exposed")
                   and row.method not in plan.methods)  # fmt: skip


class TestOracle:
    def variant(self, name, values, metric="auroc", seeds=(0,)):
        """Return records of a variant, a value a class."""
        return [record(label, seed, variant=name, metric=metric, s=value)
                for label, value in values.items() for seed in seeds]  # fmt: skip

    def row(self, records, metric="auroc"):
        (row,) = [row for row in rows_of(PLAN, records) if row.key[1] == metric]
        return row

    def test_one_easy_class_does_not_choose(self):
        whole = self.variant("k=1", {"0": 0.9, "1": 0.5, "2": 0.5})
        worse = self.variant("k=2", {"0": 0.8, "1": 0.5, "2": 0.5})
        easy = self.variant("k=3", {"0": 0.99})
        row = self.row([*easy, *worse, *whole])
        assert (row.variant, row.incomplete) == ("k=1", False)
        assert "no variant" not in row.method_words

    def test_one_easy_seed_does_not_either(self):
        whole = self.variant("k=1", {"0": 0.5, "1": 0.5}, seeds=(0, 1))
        assert self.row([*whole, *self.variant("k=2", {"0": 0.9, "1": 0.9})]).variant == "k=1"

    def test_it_says_so_if_no_variant_has_all(self):
        first, second = self.variant("k=1", {"0": 0.9}), self.variant("k=2", {"1": 0.6, "2": 0.6})
        row = self.row([*first, *second])
        assert row.variant == "k=2"
        assert "`vae` (k=2; no variant has all classes and seeds) |" in "\n".join(table([*first, *second]))

    def test_other_metrics_follow_the_variant_of_the_auroc(self):
        values = {"k=1": (0.9, 2.0), "k=2": (0.8, 30.0)}
        records = []
        for name, (auroc, change) in values.items():
            for label in LABELS:
                one = record(label, variant=name, s=auroc)
                more = Measured("s", change, "change"), Measured("t", change, "change")
                records.append(replace(one, measured=(*one.measured, *more)))
        assert (self.row(records).variant, self.row(records[::-1]).variant) == ("k=1", "k=1")
        found = {row.key[3]: row for row in rows_of(PLAN, records) if row.key[1] == "change"}
        assert (found["s"].variant, found["s"].entries["mean"].ours) == ("k=1", 2.0)
        # Of a score without one it is chosen by itself.
        assert found["t"].variant == "k=2"


class TestFallingShort:
    def test_by_more_than_the_larger_spread(self):
        # .05 below: not by more than .06, whosever; by more than .04 and .03, though not than their sum.
        assert not Entry(0.5, 0.06, 0.55, 0.01).short
        assert not Entry(0.5, 0.01, 0.55, 0.06).short
        assert Entry(0.5, 0.03, 0.55, 0.04).short
        text = "\n".join(table(every(s=0.3)))
        assert (
            "Below the paper by more than the larger of the two spreads (at least .005; of percentages .5):"
            in text
        )

    def test_what_is_in_percent_has_another_least(self):
        change = {
            "dataset": "mnist",
            "method": "vae",
            "score": "s",
            "metric": "change",
            "name": "n",
            "mean": 9.8,
        }
        plan = plan_from(TREE | {"metrics": {"change": {"percent": True}}, "published": [change]}, "toys")
        near, far = (rows_of(plan, every((0,), metric="change", s=value))[0] for value in (9.4, 9.2))
        assert (near.entries["mean"].short, far.entries["mean"].short) == (False, True)
        for name in ("miso", "simo"):
            metrics = plan_named(name)[0].metrics
            assert metrics["change"].least == metrics["change_as_printed"].least == 0.5
        assert plan_named("ood")[0].metrics["fpr95_in_positive"].least == 0.005

    def test_the_papers_spread_of_the_mean(self):
        row = {"dataset": "mnist", "method": "vae", "score": "s", "name": "n", "percent": True,
               "values": [90, 80, 70], "spread": [1, 2, 3]}  # fmt: skip
        for printed, told in ((row, None), (row | {"mean_spread": 1.5}, 0.015)):
            plan = plan_from(TREE | {"published": [printed]}, "toys")
            assert rows_of(plan, every(s=0.5))[0].entries["mean"].paper_spread == told
            # Of two classes the paper prints no mean, and of one its own.
            two = [record("0", s=0.5), record("1", s=0.5)]
            assert rows_of(plan, two)[0].entries["mean"].paper_spread is None
            assert rows_of(plan, two[1:])[0].entries["mean"].paper_spread == 0.02

    def test_nothing_falls_short_of_what_may_be_another_metric(self):
        row = {"dataset": "mnist", "method": "vae", "score": "s", "name": "n", "values": [0.9, 0.8, 0.7]}
        for unsure in (False, True):
            plan = plan_from(TREE | {"published": [row | {"unsure": unsure}]}, "toys")
            lines = table(every((0,), s=0.5), plan)
            assert any(line.startswith("Below the paper") for line in lines) != unsure
            assert (UNSURE in lines) == unsure
            other = table(every(method="new", s=0.5), plan)
            assert f"In the paper and not run: n (`vae`, mean .800{'?' if unsure else ''})." in other
            assert any((".500 (.900?, -.400)" if unsure else ".500 (.900, -.400)") in line for line in lines)

    def test_the_convention_of_table_1_is_not_known(self):
        rows = [row for row in plan_named("ood")[0].published if row.metric.startswith("fpr95")]
        # All of Table 1, where no code is released; of Tables 2 and 3 it is known.
        assert {row.dataset for row in rows if row.unsure} == {"mars", "galaxy"}
        assert all(row.unsure for row in rows if row.dataset in ("mars", "galaxy"))
        assert len([row for row in rows if row.unsure]) == 20


class TestResults:
    def column(self, tmp_path, records, name):
        write_results(tmp_path, records)
        rows = list(csv.DictReader((tmp_path / "results.csv").open()))
        assert tuple(rows[0]) == COLUMNS
        return [row[name] for row in rows]

    def test_a_hash_of_the_settings_alone(self, tmp_path):
        own, other = every(s=0.5), record(over={"epochs": 1}, s=0.5)
        hashes = self.column(tmp_path, [*own, other], "settings_alone_sha256")
        assert len(set(hashes[:-1])) == 1
        assert hashes[-1] not in hashes[:-1]
        assert len(hashes[0]) == 64

    def test_whether_the_data_are_the_published_ones(self, tmp_path):
        mnist, others = (dict(image_manifest(name).checksums) for name in ("mnist", "fashion_mnist"))
        beside = {f"fashion_mnist/{file}": sha256 for file, sha256 in others.items()}
        wrong = {**beside, next(iter(beside)): "0" * 64}
        found = [
            replace(record(s=0.5), data=data)
            for data in (mnist, mnist | beside, mnist | wrong, {**mnist, next(iter(mnist)): "0" * 64},
                         mnist | {"birds/pictures": "0" * 64}, wrong | {"birds/pictures": "0" * 64}, {})
        ]  # fmt: skip
        assert self.column(tmp_path, found, "published_data") == ["yes", "yes", "no", "no", "", "no", ""]
        # Scans and pictures have no checksums to be held against.
        assert published_words("lgg", {"content": "0" * 64}) == ""

    def test_records_of_older_versions_are_read(self, tmp_path):
        tree = asdict(record(s=0.5)) | {"measured": [Measured("s", 0.5)._asdict()]}
        (tmp_path / "new.json").write_text(json.dumps(tree | {"data": {"a": "b"}}))
        del tree["data"]
        (tmp_path / "old.json").write_text(json.dumps(tree))
        assert read_cell(tmp_path / "old.json") == record(s=0.5)
        assert read_cell(tmp_path / "new.json").data == {"a": "b"}
