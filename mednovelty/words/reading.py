"""Reports, as plain text files, and the words in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mednovelty.errors import ScanError
from mednovelty.io.guard import GuardedFile, shown

LARGEST_BYTES = 16 << 20
"""No report is longer; a file that is, is something else."""
WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")


@dataclass(frozen=True, slots=True)
class Report:
    """One report.

    Attributes:
        id: Its file's name without ``.txt``.
        words: In order, lower case.
        sha256: Of the file's bytes.
    """

    id: str
    words: tuple[str, ...]
    sha256: str = ""


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a text in order, lower case; numbers and punctuation are none.

    Examples:
        >>> words_of("No T2-bright lesion; 3 mm, patient's left.")
        ('no', 't', 'bright', 'lesion', 'mm', "patient's", 'left')
    """
    return tuple(word.lower().replace("\u2019", "'") for word in WORD.findall(text))


def read_report(path: Path) -> Report:
    """Return the report in a file.

    Raises:
        ScanError: It cannot be read, is too large, is not UTF-8 or has no word.
    """
    with GuardedFile(path, hashed=True) as file:
        if file.size > LARGEST_BYTES:
            raise ScanError(f"{file.name}: {file.size} bytes are too many for a report; the limit is "
                            f"{LARGEST_BYTES}", code="report.size")  # fmt: skip
        data = b"".join(iter(lambda: file.read(1 << 20), b""))
        file.check_unchanged()
        sha256 = file.sha256
    try:
        words = words_of(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ScanError(f"{shown(path)}: not UTF-8 text: {error.reason} at byte {error.start}; save it "
                        "as UTF-8", code="report.encoding") from error  # fmt: skip
    if not words:
        raise ScanError(f"{shown(path)}: there is no word in it", code="report.empty")
    return Report(path.name.removesuffix(".txt"), words, sha256)


def report_files(paths: Sequence[Path]) -> list[Path]:
    """Return the text files among paths, those in folders too, in order; none where these are no reports.

    Reports are files called ``*.txt``, or a folder in which there are such and no image.
    """
    found = [path for path in paths if path.suffix == ".txt" and not path.is_dir()]
    folders = [path for path in paths if path.is_dir()]
    if len(found) + len(folders) < len(paths):
        return []
    for folder in folders:
        texts = sorted(folder.rglob("*.txt"))
        if not texts or any(_images(folder)):
            return []
        found += texts
    return found


def _images(folder: Path) -> Iterable[Path]:
    return (
        path for path in folder.rglob("*") if path.name.endswith((".nii", ".nii.gz", ".nrrd", ".mha", ".dcm"))
    )


__all__ = ["Report", "read_report", "report_files", "words_of"]
