"""Settings and data shared by every test."""

import os
from functools import cache
from pathlib import Path

import pytest
import typer.testing
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Threads of several workers wait for each other: up to five times the time of the processor.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("mednovelty", deadline=None, derandomize=True)
settings.load_profile("mednovelty")

# A program that tests run in 3D Slicer's libraries, which are not always here.
collect_ignore = ["slicer_probe.py"]
ROOT = Path(__file__).resolve().parents[1]


# Every call of ``CliRunner.invoke`` would build all commands anew, as no process does.
typer.testing._get_command = cache(typer.testing._get_command)


def pytest_sessionfinish() -> None:
    """Leave nothing behind in the machine's temporary folder."""
    from cohorts import remove_made

    remove_made()


@pytest.fixture
def unpictured():
    """Evaluate without pictures, where a test looks at none."""
    from without_pages import no_pictures

    with no_pictures():
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real scans, or skip."""
    folder = Path(os.environ.get("MEDNOVELTY_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder}; set MEDNOVELTY_DATA to their folder")
    return folder
