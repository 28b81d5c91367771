"""Finding plug-ins by name. The only module that imports by string."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any

from mednovelty.errors import UnknownPluginError

GROUPS = (
    "methods",
    "scorers",
    "scan_scorers",
    "preprocessors",
    "views",
    "neighbours",
    "readers",
    "anomalies",
    "benchmarks",
)
SINGULAR = {"anomalies": "family of anomalies"}


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One plug-in as its distribution declares it; nothing of it is imported."""

    group: str
    name: str
    address: str
    distribution: str


def available(group: str) -> list[PluginInfo]:
    """Return what a group offers, sorted by name, importing none of it.

    Raises:
        UnknownPluginError: There is no such group.
    """
    return [
        PluginInfo(group, point.name, point.value, _name_of(point.dist) if point.dist else "")
        for point in sorted(_points(group), key=lambda point: point.name)
    ]


def names(group: str) -> list[str]:
    """Return the sorted names in a plug-in group, importing none of them."""
    return sorted(point.name for point in _points(group))


def plugin(group: str, name: str) -> Any:
    """Import and return one plug-in of a group.

    Args:
        group: One of ``GROUPS``.
        name: The name given in an installed distribution's entry points.

    Raises:
        UnknownPluginError: No installed distribution offers that name, or there is no such group.
    """
    for point in _points(group):
        if point.name == name:
            return point.load()
    known = names(group)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    one = SINGULAR.get(group, group.removesuffix("s"))
    raise UnknownPluginError(f"no {one} is called {name!r}; {hint}")


def import_all() -> None:
    """Import every module of the library and every installed plug-in, so that all equations are known."""
    package = importlib.import_module("mednovelty")
    for module in pkgutil.walk_packages(package.__path__, "mednovelty."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for group in GROUPS:
        for point in _points(group):
            point.load()


def _points(group: str) -> list[EntryPoint]:
    if group not in GROUPS:
        near = get_close_matches(group, GROUPS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(GROUPS)}"
        raise UnknownPluginError(f"no plug-in group is called {group!r}; {hint}")
    return list(_found(group, _where_packages_are()))


@lru_cache(maxsize=4 * len(GROUPS))
def _found(group: str, where: tuple[object, ...]) -> tuple[EntryPoint, ...]:
    """Read the entry points of all installed packages, which takes milliseconds; scoring a scan asks often.

    Args:
        group: One of ``GROUPS``.
        where: What ``_where_packages_are`` says now: when that changes, all are read again.
    """
    # One distribution can be found twice (an egg-info beside an installed copy): the first wins.
    unique = {point.name: point for point in reversed(list(entry_points(group=f"mednovelty.{group}")))}
    return tuple(unique.values())


@lru_cache(maxsize=256)
def _name_of(distribution: Distribution) -> str:
    # Its name is read from its file every time that it is asked for.
    return distribution.name


def _where_packages_are() -> tuple[object, ...]:
    """Return what changes when a package is installed, updated or removed: the folders and their times."""
    return tuple((folder, _changed(folder)) for folder in sys.path)


def _changed(folder: str) -> tuple[int, int] | None:
    try:
        found = os.stat(folder or ".")
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns
