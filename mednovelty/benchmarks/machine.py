"""The machine that numbers were measured on, in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine_words() -> str:
    """Return processor, cores, memory, system and Python, as far as the system tells."""
    model = _line(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine()
    total = _line(Path("/proc/meminfo"), "MemTotal").split(" ")[0]
    memory = f", {int(total) / 2**20:.0f} GiB" if total.isdigit() else ""
    return f"{model}, {os.cpu_count()} cores{memory}, {platform.system()}, Python {platform.python_version()}"


def _line(path: Path, name: str) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


__all__ = ["machine_words"]
