"""Where the manifests of data sets lie: our own, and those of benchmarks that others have installed.

``manifests/NAME.toml`` here, or in a folder ``manifests`` beside the module of a benchmark that is installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

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


def _folders() -> Iterator[Path]:
    """Yield our own folder, then those of others."""
    yield OWN
    for info in available(GROUP):
        module = info.address.partition(":")[0]
        if not module.startswith("mednovelty."):
            spec = importlib.util.find_spec(module)
            if spec is not None and spec.origin is not None:
                yield Path(spec.origin).with_name("manifests")


__all__ = ["manifest_names", "manifest_path"]
