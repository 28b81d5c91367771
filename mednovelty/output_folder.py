"""The folder that maps go to: what must not be mistaken for one, who writes there, what it says of itself."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from mednovelty.errors import OutputError, ScanError
from mednovelty.io.atomic import write_text_atomic
from mednovelty.io.guard import read_text
from mednovelty.outputs import OutputNames
from mednovelty.store import RECORD

if TYPE_CHECKING:
    from mednovelty.io.scan_folder import ScanFiles, ScanList

log = logging.getLogger("mednovelty")

DESCRIPTION, IGNORED = "dataset_description.json", ".bidsignore"
BIDSIGNORE = (
    "*_novelty.nii.gz\n*_novelty.json\n*_pvalue.nii.gz\n*_z.nii.gz\n*_relevance*\n*_explained.*\n*_why.nii.gz\n"
    "*_desc-background.nii.gz\n*_desc-*_mask.nii.gz\n*_mask.json\n*_dseg.nii.gz\n*_clusters.tsv\nrun.json\n"
    "failures.tsv\ncohort.tsv\ncalibration.json\nsegmentation.json\nexplain.json\nexplain-failures.tsv\n"
    "logs\nevaluation\n*_scene.mrml\n*_novelty.ctbl\n*_dseg.seg.nrrd\n*.html\n*_quality.json\n"
)


def refuse_traps(out: Path, scans: ScanList) -> None:
    """Raise where maps would lie among files that are not ours; nothing is written.

    Raises:
        OutputError: Scans are read from the folder, or from one that maps would go to; it is a detector's;
            or it is somebody else's data set.
    """
    inputs = {folder for files in scans for folder in _folders_of(files, scans.root)}
    for folder in (out, *(OutputNames.of(files, out).folder for files in scans)):
        if os.path.realpath(folder) in inputs:
            where = "" if folder == out else f" than {out}"
            raise OutputError(
                f"{folder}: is a folder that scans are read from; choose another{where} for the maps"
            )
    if os.path.lexists(out / RECORD):
        raise OutputError(f"{out}: is a detector's folder, it holds {RECORD}; choose another for the maps")
    described = os.path.lexists(out / DESCRIPTION)
    if described and not described_by_us(out / DESCRIPTION):
        raise OutputError(
            f"{out / DESCRIPTION}: was not written by mednovelty; choose a folder of its own for the maps"
        )
    if os.path.lexists(out / IGNORED) and not described:
        raise OutputError(
            f"{out / IGNORED}: was not written by mednovelty; choose a folder of its own for the maps"
        )


def write_folder_facts(out: Path) -> None:
    """Write ``dataset_description.json``, and ``.bidsignore``, of which lines that were added stay.

    Raises:
        OutputError: One of them cannot be written.
    """
    generated = {"Name": "mednovelty", "Version": version("mednovelty")}
    described = {
        "Name": "Novelty maps",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [generated],
    }
    write_text_atomic(out / DESCRIPTION, json.dumps(described, indent=2) + "\n")
    own, standing = BIDSIGNORE.splitlines(), (_text(out / IGNORED) or "").splitlines()
    added = [line for line in standing if line not in own]
    write_text_atomic(out / IGNORED, "".join(line + "\n" for line in [*own, *added]))


@contextlib.contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Make the folder, and keep other runs out of it for as long as this one lasts.

    Raises:
        OutputError: It cannot be written, or another run is writing there.
    """
    lock = out / ".mednovelty.lock"
    try:
        (out / "logs").mkdir(parents=True, exist_ok=True)
        handle = lock.open("a")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{out}: another run is writing here; wait for it to end") from error
        except OSError as error:
            # Some network file systems keep no locks; nobody should be unable to write there for that.
            log.warning("%s: cannot be locked (%s); see that no other run writes here", out, error.strerror)
        yield


def _folders_of(files: ScanFiles, root: Path) -> Iterator[str]:
    """Yield the folders that a scan's files lie in, and those on the way there from the root."""
    contrasts = (path for _, path in files.contrasts)
    paths = (files.image, files.bval, files.bvec, files.grad_b, files.mask, files.sidecar, *contrasts)
    yield from (os.path.dirname(os.path.realpath(path)) for path in paths if path is not None)
    for folder in {path.parent for path in paths if path is not None}:
        yield os.path.realpath(folder)
        yield from (os.path.realpath(above) for above in folder.parents if above.is_relative_to(root))


def described_by_us(path: Path) -> bool:
    """Return whether a ``dataset_description.json`` says that all of its folder is ours."""
    try:
        told = json.loads(_text(path) or "")
        return told["DatasetType"] == "derivative" and {by["Name"] for by in told["GeneratedBy"]} == {
            "mednovelty"
        }
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _text(path: Path) -> str | None:
    """Return the text of a small regular file; None where there is none that can be read."""
    try:
        return read_text(path)
    except ScanError:
        return None
