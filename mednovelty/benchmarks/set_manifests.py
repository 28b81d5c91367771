"""Where the manifests of data sets lie: our own, and those of benchmarks that others have installed.

``manifests/NAME.toml`` here, or in a folder ``manifests`` beside the module of a benchmark that is installed.
Also what sets of images, scans and defects share: how a missing one is told, and a hash of many files.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from mednovelty.errors import ScanError
from mednovelty.io.guard import sha256_of_file
from mednovelty.plugins import available

GROUP = "benchmarks"
OWN = Path(__file__).with_name("manifests")


def manifest_path(name: str) -> Path:
    """Return the manifest of a data set; where there is none, a path where nothing is."""
    places = [folder / f"{name}.toml" for folder in _folders()]
    return next((path for path in places if path.is_file()), places[0])


def manifest_names() -> list[str]:
    """Return the names of all data sets that have one, sorted."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("*.toml")})


def missing_set(
    what: str, looked_in: Iterable[Path], *, fetch: str, licence: str, source: str, code: str
) -> ScanError:
    """Return the error of a set that is not there: where it was looked for, and what to fetch.

    Args:
        what: The set's name, and what of it was not found.
        looked_in: Folders.
        fetch: What to do to have it; with ``licence`` and ``source`` of the manifest.
        licence: Likewise.
        source: Likewise.
        code: Of the error.
    """
    looked = ", ".join(map(str, looked_in)) or "nowhere: give --data, or set MEDNOVELTY_DATA"
    return ScanError(
        f"{what}; looked in: {looked}. Nothing is downloaded: {fetch} Licence: {licence}. Source: {source}",
        code=code,
    )


def files_sha256(root: Path, paths: Iterable[Path]) -> str:
    """Return a hash of the contents of files and of their paths below a folder, in their order.

    Raises:
        ScanError: One cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{sha256_of_file(path)}  {path.relative_to(root).as_posix()}\n".encode())
    return digest.hexdigest()


def _folders() -> Iterator[Path]:
    """Yield our own folder, then those of others."""
    yield OWN
    for info in available(GROUP):
        module = info.address.partition(":")[0]
        if not module.startswith("mednovelty."):
            spec = importlib.util.find_spec(module)
            if spec is not None and spec.origin is not None:
                yield Path(spec.origin).with_name("manifests")


__all__ = ["files_sha256", "manifest_names", "manifest_path", "missing_set"]
