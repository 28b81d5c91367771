"""Which page a path stands for, and the command as it is typed."""

import json
import signal
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from mednovelty.errors import ScanError, SettingsError
from mednovelty.output_folder import write_folder_facts
from mednovelty.view_command import pages_at

RUN = json.dumps({"Command": "mednovelty score", "DetectorSha256": "d" * 64, "Scans": []})
DETECTOR = json.dumps({"schema_version": 2, "recipe": "qspace", "method": "vae"})


@pytest.fixture
def out(tmp_path):
    """A folder of maps: one scan with a page and an explanation beside it, one with two sessions."""
    out = tmp_path / "out"
    for stem, folder in (("sub-01", "sub-01/dwi"), ("sub-02_ses-1", "sub-02/ses-1/dwi"),
                         ("sub-02_ses-2", "sub-02/ses-2/dwi"), ("sub-[3]", "sub-[3]/dwi")):  # fmt: skip
        (out / folder).mkdir(parents=True)
        (out / folder / f"{stem}.html").write_text(stem)
        (out / folder / f"{stem}_desc-vae_regularizer_novelty.json").write_text("{}")
    (out / "sub-01/dwi/sub-01_voxel-1.html").write_text("why")
    (out / "run.json").write_text(RUN)
    (out / "index.html").write_text("cohort")
    return out


@pytest.mark.parametrize(
    ("asked", "page"),
    [("", "index.html"), ("sub-01", "sub-01/dwi/sub-01.html"), ("sub-01/dwi", "sub-01/dwi/sub-01.html"),
     ("sub-02/ses-2", "sub-02/ses-2/dwi/sub-02_ses-2.html"), ("sub-[3]", "sub-[3]/dwi/sub-[3].html"),
     ("sub-01/dwi/sub-01_voxel-1.html", "sub-01/dwi/sub-01_voxel-1.html")],
)  # fmt: skip
def test_a_path_stands_for_a_page(out, asked, page):
    pages = pages_at(out / asked)
    assert pages.root == out.resolve()
    assert str(pages.page) == page


def test_a_way_without_its_beginning_is_understood(out, monkeypatch):
    monkeypatch.chdir(out / "sub-01")
    assert str(pages_at(Path(".")).page) == "sub-01/dwi/sub-01.html"
    assert pages_at(Path("dwi")).root == out.resolve()


def test_a_detector_has_a_page_too(tmp_path):
    (tmp_path / "detector.json").write_text(DETECTOR)
    with pytest.raises(ScanError, match=r"index\.html: is not there; make it with: mednovelty report .*"):
        pages_at(tmp_path)
    (tmp_path / "index.html").write_text("detector")
    assert str(pages_at(tmp_path).page) == "index.html"


def test_of_several_pages_one_is_to_be_named(out):
    with pytest.raises(
        SettingsError, match=r"sub-02: holds the pages of 2 scans; name one of .*ses-1\.html, "
    ):
        pages_at(out / "sub-02")


def test_what_is_not_ours_is_not_served(tmp_path, out):
    (tmp_path / "page.html").write_text("x")
    with pytest.raises(SettingsError, match=r"is in no folder that score or fit has written \(run\.json or"):
        pages_at(tmp_path / "page.html")
    with pytest.raises(ScanError, match="nothing: is not there; name a folder"):
        pages_at(tmp_path / "nothing")
    with pytest.raises(ScanError, match=r"run\.json: is no page; name a folder, or a page"):
        pages_at(out / "run.json")
    (out / "sub-01/dwi/sub-01.html").unlink()
    with pytest.raises(
        ScanError, match=r"sub-01: no page of a scan is here; make it with: mednovelty report"
    ):
        pages_at(out / "sub-01")


@pytest.mark.parametrize(
    ("name", "content"),
    [("run.json", "{}"), ("run.json", '{"tool": "another", "Command": "x"}'), ("run.json", "{broken"),
     ("run.json", "[]"), ("detector.json", "{}"), ("detector.json", '{"method": "lidar"}'),
     ("dataset_description.json", '{"DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]}')],
)  # fmt: skip
def test_what_another_tool_has_left_above_does_not_have_all_of_it_served(tmp_path, name, content):
    home, folder = tmp_path / "home", tmp_path / "home" / "pages"
    folder.mkdir(parents=True)
    (folder / "page.html").write_text("x")
    (home / name).write_text(content)
    for path in (folder / "page.html", folder, home):
        with pytest.raises(
            SettingsError, match=r"or detector\.json of mednovelty, there or at most 3 folders"
        ):
            pages_at(path)


def test_only_so_far_above_as_a_cohort_lies_above_its_scans(out, monkeypatch):
    session = out / "sub-02/ses-2/dwi"
    assert pages_at(session).root == out.resolve()
    monkeypatch.chdir(session)
    assert pages_at(Path("../dwi")).root == out.resolve()
    deeper = session / "deeper"
    deeper.mkdir()
    (deeper / "page.html").write_text("x")
    with pytest.raises(SettingsError, match="nothing else is served"):
        pages_at(deeper / "page.html")


def test_a_folder_whose_record_is_damaged_is_still_ours(out):
    (out / "run.json").write_text("{broken")
    with pytest.raises(SettingsError):
        pages_at(out)
    write_folder_facts(out)
    assert pages_at(out / "sub-01").root == out.resolve()


@pytest.mark.parametrize("annex", ["out/.git", ".git"])
@pytest.mark.parametrize("asked", ["", "sub-01", "sub-01/dwi/sub-01.html"])
def test_pages_that_git_annex_keeps_are_refused_before_a_browser_finds_nothing(out, annex, asked):
    objects = out.parent / annex / "annex/objects"
    objects.mkdir(parents=True)
    for page in (out / "index.html", out / "sub-01/dwi/sub-01.html"):
        page.symlink_to(page.rename(objects / f"MD5E-s6--{page.name}"))
    with pytest.raises(ScanError, match=r"is kept at .*MD5E.*unlock its pages first: datalad unlock .*html$"):
        pages_at(out / asked)
    page = out / "sub-02/ses-1/dwi/sub-02_ses-1.html"
    assert pages_at(page).page == page.relative_to(out)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_its_code(out, number, code):
    command = [sys.executable, "-m", "mednovelty", "view", out / "sub-01", "--no-browser", "--json"]
    # Jobs in the background of a shell may ignore interrupts, and so would what they start.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    )
    try:
        lines = [process.stdout.readline()]
        while not lines[-1].startswith("}"):
            lines.append(process.stdout.readline())
            assert lines[-1], process.stderr.read()
        told = json.loads("".join(lines))
        with urllib.request.urlopen(told["url"], timeout=10) as answer:
            assert answer.read() == b"sub-01"
        process.send_signal(number)
        _, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code
    assert error == "mednovelty: no longer served\n"


def test_the_address_is_told_even_when_quiet(out):
    command = [sys.executable, "-m", "mednovelty", "-q", "view", out, "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = process.stderr.readline().strip()
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.read() == b"cohort"
    finally:
        process.kill()
    assert process.communicate()[0] == ""
