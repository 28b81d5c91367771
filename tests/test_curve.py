import csv

import pytest

from mednovelty.curve import EpochRow, TrainingRecord, plot_curve, write_curve_csv
from mednovelty.errors import OutputError


def record():
    rows = [EpochRow(0, None, 0.001, 0.5, 0.0, {"loss": 7.0, "elbo": -7.0, "kl": 2.5})]
    for epoch, loss in enumerate((5.25, 3.5, 3.5, 4.0), start=1):
        rows.append(
            EpochRow(epoch, loss + 0.125, 0.001, 2.0, 300.0, {"loss": loss, "elbo": -loss, "kl": 2.0})
        )
    return TrainingRecord(tuple(rows))


def test_the_best_epoch_is_the_first_of_equals():
    assert record().best_epoch == 2
    assert record().best.train_loss == 3.625
    assert record().seconds == 8.5


def test_json_and_back():
    assert TrainingRecord.from_json(record().as_json()) == record()


def test_csv(tmp_path):
    write_curve_csv(record(), tmp_path / "curve.csv")
    with open(tmp_path / "curve.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert rows[0]["train_loss"] == ""
    assert rows[2] == {
        "epoch": "2", "train_loss": "3.625", "validation_loss": "3.5", "elbo": "-3.5", "kl": "2.0",
        "learning_rate": "0.001", "seconds": "2.0", "voxels_per_second": "300.0",
    }  # fmt: skip


def test_picture(tmp_path):
    plot_curve(record(), tmp_path / "curve.png", level=3.0, level_name="probabilistic PCA")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_picture_of_a_run_that_was_stopped_before_its_first_epoch(tmp_path):
    plot_curve(TrainingRecord(record().rows[:1]), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").exists()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"curve.csv: cannot be written"):
        write_curve_csv(record(), tmp_path / "file" / "curve.csv")
