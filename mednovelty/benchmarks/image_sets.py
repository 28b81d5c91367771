"""The image sets of the papers: where they come from, whether they are here and whole, and their pixels.

A manifest a set, ``manifests/<name>.toml``, here or beside the module of a benchmark that is installed:

.. code-block:: toml

    [dataset]
    name = "mnist"
    source = "..."
    licence = "..."
    citation = "..."
    fetch = "what to do to have it"

    [files]
    root = "$MEDNOVELTY_DATA/images/mnist"   # where it is looked for when no folder is given
    format = "idx"                           # or cifar, cifar100, pictures

    [checksums]                              # sha256 by file, of the content, whether it is gzipped or not
    "train-images-idx3-ubyte" = "..."        # empty where nobody has noted it

A set of pictures, ``picture_sets``, needs no manifest: any folder of them under its name is one.

Nothing is downloaded. Files that are not what was published are read all the same, with a warning, and told
in the results: made-up ones are what tests use.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from mednovelty.benchmarks.cifar import LAYOUTS, labelled_colours
from mednovelty.benchmarks.idx import labelled_images
from mednovelty.benchmarks.picture_sets import has_pictures, picture_set, pictures_sha256
from mednovelty.benchmarks.set_manifests import manifest_names, manifest_path, missing_set
from mednovelty.errors import ScanError, SettingsError
from mednovelty.settings import overlaid, read_toml

log = logging.getLogger("mednovelty")
LARGEST_BYTES = 1 << 30
PICTURES = "pictures"
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """What is known of an image set; attributes as in its file."""

    name: str
    source: str
    licence: str
    citation: str
    fetch: str
    root: str
    format: str
    checksums: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of 8 bits, official training and test.

    Attributes:
        training: ``(n, C, rows, columns)`` uint8.
        labels: ``(n,)`` uint8.
        test: ``(m, C, rows, columns)`` uint8.
        truth: ``(m,)`` uint8, the labels of the test.
    """

    training: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    truth: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, rows, columns)``."""
        return self.training.shape[1:]


def image_manifest(name: str) -> ImageManifest:
    """Return the manifest of an image set.

    Raises:
        SettingsError: There is none, or it is not as it should be.
    """
    path = manifest_path(name)
    if not path.is_file():
        raise SettingsError(f"no image set is called {name!r}; known: {', '.join(known_sets())}")
    head = dict.fromkeys(("name", "source", "licence", "citation", "fetch"), "")
    base = {"dataset": head, "files": {"root": "", "format": ""}, "checksums": {}}
    tree = overlaid(base, read_toml(path), path.name)
    return ImageManifest(**tree["dataset"], **tree["files"], checksums=tree["checksums"])


def known_sets() -> list[str]:
    """Return the names of the sets that have a manifest, sorted."""
    return manifest_names()


def manifest_or_folder(name: str) -> ImageManifest:
    """Return the manifest of an image set; of one that has none, that of a folder of pictures."""
    if name in known_sets():
        return image_manifest(name)
    near = get_close_matches(name, known_sets(), n=1)
    fetch = (
        f"no image set is called {name!r}; "
        + (f"did you mean {near[0]!r}? Else " if near else f"known: {', '.join(known_sets())}. Else ")
        + f"put pictures into a folder named {name}, those to train on in {name}/train."
    )
    words = ("not known here",) * 3
    return ImageManifest(name, *words, fetch, f"$MEDNOVELTY_DATA/images/{name}", PICTURES, {})


def found_folder(name: str, data: Path | None) -> Path:
    """Return where an image set is.

    Args:
        name: Of the set.
        data: A folder that holds it, or a folder of that name which does; None: where the manifest says.

    Raises:
        ScanError: It is not there: what to fetch, and where to put it; code ``images.missing``.
    """
    manifest = manifest_or_folder(name)
    places = [data / name, data / name.replace("_", "-")] if data is not None else _rooted(manifest)
    # A folder of pictures may be full of other sets: it is one by its name alone.
    if data is not None and (manifest.format != PICTURES or data.name.replace("-", "_") == name):
        places.append(data)
    for place in places:
        if manifest.format == PICTURES:
            if has_pictures(place):
                return place
        elif all(_file(place, file) is not None for file in manifest.checksums):
            return place
    files = f"{', '.join(manifest.checksums)} (or with .gz) are not all in one folder"
    what = "there is no folder of its pictures" if manifest.format == PICTURES else files
    raise missing_set(f"{name}: {what}", places, fetch=manifest.fetch, licence=manifest.licence,
                      source=manifest.source, code="images.missing")  # fmt: skip


def file_hashes(name: str, folder: Path) -> dict[str, str]:
    """Return the sha256 of the content of each file of a set, and warn of those that are not as published.

    Raises:
        ScanError: One is damaged; code ``images.damaged``.
    """
    manifest = manifest_or_folder(name)
    if manifest.format == PICTURES:
        return {PICTURES: pictures_sha256(folder)}
    found = {file: _content_sha256(cast(Path, _file(folder, file))) for file in manifest.checksums}
    other = [file for file, sha256 in found.items() if manifest.checksums[file] not in ("", sha256)]
    if other:
        log.warning("%s: %s in %s: not what was published; results are told to be of other images",
                    name, ", ".join(other), folder)  # fmt: skip
    return found


def as_published(name: str, hashes: Mapping[str, str]) -> bool:
    """Return whether files with these hashes are those that were published, as far as that is known."""
    known = manifest_or_folder(name).checksums
    return all(sha256 in ("", hashes.get(file)) for file, sha256 in known.items())


def published_words(name: str, hashes: Mapping[str, str]) -> str:
    """Return whether a cell's images, and those beside, are as published: ``yes``, ``no`` or, unknown, empty.

    Args:
        name: Of the data set.
        hashes: Of its files, and by ``other/file`` of those of another set beside it; empty where not told.
    """
    by_set: dict[str, dict[str, str]] = {}
    for file, sha256 in hashes.items():
        other, slash, inner = file.partition("/")
        by_set.setdefault(other if slash else name, {})[inner if slash else file] = sha256
    found = []
    for each, files in by_set.items():
        # Scans and defects have one hash of all that there is, and nothing to hold it against.
        known = {} if "content" in files else manifest_or_folder(each).checksums
        told = bool(known) and all(known.values()) and set(files) == set(known)
        found.append(("yes" if as_published(each, files) else "no") if told else "")
    return next((words for words in ("no", "") if words in found), "yes") if found else ""


@lru_cache(maxsize=2)
def image_set(name: str, folder: Path, sides: tuple[int, int] | None = None) -> ImageSet:
    """Return the images of a set; the last two are kept, since one cell after the other asks for them.

    Args:
        name: Of the set.
        folder: Where it is.
        sides: Rows and columns that pictures of any size are brought to; other sets are as they are.

    Raises:
        ScanError: A file is missing or damaged; see ``idx``, ``cifar`` and ``picture_sets``.
    """
    form = manifest_or_folder(name).format
    if form == PICTURES:
        return ImageSet(*picture_set(folder, sides))
    if form in LAYOUTS:
        layout = LAYOUTS[form]
        parts = (labelled_colours(folder, split, layout) for split in ("training", "test"))
        return ImageSet(*(array for part in parts for array in part))
    training, labels = labelled_images(folder, "train")
    test, truth = labelled_images(folder, "t10k")
    return ImageSet(training[:, None], labels, test[:, None], truth)


def _rooted(manifest: ImageManifest) -> list[Path]:
    text = os.path.expandvars(manifest.root)
    return [] if "$" in text else [Path(text)]


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _content_sha256(path: Path) -> str:
    digest, read = hashlib.sha256(), 0
    try:
        with path.open("rb") as raw:
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
                read += len(block)
                if read > LARGEST_BYTES:
                    raise OSError(f"unpacks to more than {LARGEST_BYTES} bytes")
    except (OSError, EOFError, zlib.error) as error:
        raise ScanError(f"{path}: cannot be read ({error}); get it again", code="images.damaged") from error
    return digest.hexdigest()


__all__ = [
    "ImageManifest",
    "ImageSet",
    "as_published",
    "file_hashes",
    "found_folder",
    "image_manifest",
    "image_set",
    "known_sets",
    "manifest_or_folder",
    "published_words",
]
