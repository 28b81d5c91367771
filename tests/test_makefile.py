"""What `make` would run: `make slow` brings what its tests need, and tells what it passed over."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    venv = tmp_path_factory.mktemp("venv")
    said = subprocess.run(
        [make, "--dry-run", "--no-print-directory", "slow", f"VENV={venv}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return said.stdout


def extras():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_slow_tests_have_what_they_need(slow):
    (wanted,) = re.findall(r"for extra in (.*?);", slow)
    assert '--constraint constraints.txt --editable ".[test,$extra]"' in slow
    # Of every extra that a test is skipped for.
    asked = {
        name
        for path in (ROOT / "tests").glob("test_*.py")
        for name in re.findall(r"(?:extra |mednovelty)\[([\w-]+)\]", path.read_text())
    }
    assert {"browser-test", "slicer-test", "notebook"} <= set(wanted.split()) <= set(extras())
    assert asked & set(extras()) <= set(wanted.split())
    assert slow.index("pip install") < slow.index("-m slow")
    pinned = (ROOT / "constraints.txt").read_text().lower()
    for extra in wanted.split():
        for requirement in extras()[extra]:
            package = re.match(r"[\w-]+", requirement)[0].lower()
            assert f"\n{package}==" in pinned, requirement


def test_what_was_skipped_is_told_at_the_end(slow):
    assert re.search(r"pytest -m slow .*-rs", slow)
