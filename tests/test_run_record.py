"""A run tells what became of its scans however it ends."""

import json

import pytest
from cohorts import tiny_cohort, tiny_detector

from mednovelty import cohort, run_record
from mednovelty.cohort import CohortSettings, score_cohort
from mednovelty.console import Terminated
from mednovelty.errors import OutputError, StoppedError
from mednovelty.io.scan_folder import scan_folder
from mednovelty.run_record import CohortResult, Outcome


def score(out, advance=lambda scan_id, done, total: None):
    settings = CohortSettings("vae_regularizer", baselines=False)
    return score_cohort(
        tiny_detector()[0], scan_folder(tiny_cohort().patients), out, settings=settings, advance=advance
    )


def record(out):
    run = json.loads((out / "run.json").read_text())
    return run, [(scan["id"], scan["status"]) for scan in run["Scans"]]


@pytest.mark.parametrize(
    ("ending", "code"),
    [(Terminated("by SIGTERM"), 143), (StoppedError("by hand"), 130), (KeyboardInterrupt(), 130)],
)
def test_a_stopped_run_tells_how_far_it_came(tmp_path, ending, code):
    def stop(scan_id, done, total):
        if scan_id == "sub-p02":
            raise ending

    with pytest.raises(type(ending)):
        score(tmp_path / "out", stop)
    run, scans = record(tmp_path / "out")
    assert scans == [("sub-p01", "done")]
    assert run["NotReached"] == ["sub-p02"]
    assert run["ExitCode"] == code
    assert run["EndedBy"] == {"Kind": type(ending).__name__, "Message": str(ending)}
    assert (tmp_path / "out" / "failures.tsv").read_text() == "scan\tcode\tmessage\tfile\n"
    assert score(tmp_path / "out").exit_code == 0
    run, scans = record(tmp_path / "out")
    assert scans == [("sub-p01", "up to date"), ("sub-p02", "done")]
    assert (run["EndedBy"], run["NotReached"]) == (None, [])


def full(path, text):
    raise OutputError(f"{path.name}: the disk is full")


def test_a_disk_that_fails_is_told_where_it_still_takes_that(tmp_path, monkeypatch):
    monkeypatch.setattr(cohort, "write_text_atomic", full)
    with pytest.raises(OutputError, match=r"sub-p01_desc-vae_regularizer_novelty\.json: the disk is full"):
        score(tmp_path / "out")
    run, scans = record(tmp_path / "out")
    assert scans == []
    assert run["NotReached"] == ["sub-p01", "sub-p02"]
    assert (run["ExitCode"], run["EndedBy"]["Kind"]) == (5, "OutputError")


def test_a_second_failure_does_not_hide_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(cohort, "write_text_atomic", full)
    monkeypatch.setattr(run_record, "write_text_atomic", full)
    with pytest.raises(OutputError, match=r"novelty\.json: the disk is full"):
        score(tmp_path / "out")
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_record_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(run_record, "write_text_atomic", full)
    with pytest.raises(OutputError, match=r"failures\.tsv: the disk is full"):
        score(tmp_path / "out")


@pytest.mark.parametrize(
    ("codes", "exit_code"),
    [
        ([], 3),
        (["", ""], 0),
        (["", "file.empty"], 6),
        (["", "output.exists"], 6),
        (["file.empty", "file.link"], 3),
        (["output.exists", "output.exists"], 5),
        (["output.exists", "file.empty"], 3),
    ],
)
def test_exit_codes(codes, exit_code):
    outcomes = [Outcome(f"sub-{i}", "failed" if code else "done", code=code) for i, code in enumerate(codes)]
    assert CohortResult(tuple(outcomes)).exit_code == exit_code


def test_what_ended_a_run_decides_its_exit_code():
    outcomes = (Outcome("sub-1", "failed", code="file.empty"), Outcome("sub-2", "done"))
    assert CohortResult(outcomes, ended_by=OutputError("full")).exit_code == 5
    assert CohortResult(outcomes, ended_by=ZeroDivisionError()).exit_code == 1
