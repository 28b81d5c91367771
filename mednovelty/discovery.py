"""What is here: plug-ins, equations, versions, devices."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from mednovelty.plugins import available, import_all

CORE = ("torch", "numpy", "scipy", "scikit-learn", "safetensors")


def listing(group: str) -> list[dict[str, Any]]:
    """Return the plug-ins of a group as rows; nothing is imported."""
    return [asdict(info) for info in available(group)]


def location(paper: str, label: str) -> dict[str, Any]:
    """Return where an equation lives: module, name, file and line.

    Raises:
        SettingsError: Unknown paper or label; the nearest is suggested.
    """
    import inspect

    from mednovelty.papers import PAPERS, where

    import_all()
    module, _, name = where(paper, label).partition(":")
    home: Any = sys.modules[module]
    for part in name.split("."):
        home = getattr(home, part)
    home = inspect.unwrap(home)
    source = inspect.getsourcefile(home)
    return {
        "paper": asdict(PAPERS[paper]),
        "label": label,
        "module": module,
        "name": name,
        "file": os.path.relpath(source) if source else "",
        "line": inspect.getsourcelines(home)[1],
        "summary": (inspect.getdoc(home) or "").split("\n")[0],
    }


def doctor() -> dict[str, Any]:
    """Return versions, devices, thread counts, and what is missing."""
    packages = {name: _version(name) for name in _required()}
    missing = sorted(name for name, found in packages.items() if found is None)
    return {
        "mednovelty": version("mednovelty"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "packages": packages,
        "missing": missing,
        "core_only": all(packages.get(name) for name in CORE) and bool(missing),
        "torch": _torch(),
    }


def _required() -> list[str]:
    lines = [line for line in requires("mednovelty") or [] if "extra ==" not in line]
    return sorted({line.split(">")[0].split("=")[0].split("<")[0].strip() for line in lines}, key=str.lower)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _torch() -> dict[str, Any] | None:
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"threads": torch.get_num_threads(), "cuda": torch.version.cuda, "gpus": gpus}
