"""What is here: plug-ins, equations, versions, devices."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from mednovelty.plugins import available, import_all

TABLE_BEGIN = "<!-- equations: made by `python -m mednovelty.discovery README.md` -->"
TABLE_END = "<!-- end of equations -->"
CORE = ("torch", "numpy", "scipy", "scikit-learn", "safetensors")


def listing(group: str) -> list[dict[str, Any]]:
    """Return the plug-ins of a group as rows, with equation and summary; no plug-in is imported.

    Both are read in the plug-in's source; they are empty where there is none to be read.
    """
    return [asdict(info) | _in_source(info.address) for info in available(group)]


def _in_source(address: str) -> dict[str, str]:
    """Return paper, equation and first line of the class at ``module:name``."""
    import ast

    told = {"paper": "", "equation": "", "summary": ""}
    module, _, name = address.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return told
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    kind = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if kind is None:
        return told
    told["summary"] = (ast.get_docstring(kind) or "").partition("\n")[0]
    for mark in kind.decorator_list:
        if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "equation":
            told["paper"], told["equation"] = (str(ast.literal_eval(argument)) for argument in mark.args)
    return told


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
    home = home.fget if isinstance(home, property) else home
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


def equation_table() -> str:
    """Return a Markdown table: paper, equation, what it is, file and name; every equation there is."""
    from mednovelty.papers import PAPERS, homes

    import_all()
    rows = ["| paper | equation | what | where |", "| --- | --- | --- | --- |"]
    for paper, label in sorted(homes(), key=_by_number):
        found = location(paper, label)
        source = f"{found['module'].replace('.', '/')}.py"
        title = f"[{PAPERS[paper].authors} {PAPERS[paper].year}]({PAPERS[paper].url})"
        summary = found["summary"].rstrip(".").replace("``", "`").replace("|", "\\|")
        rows.append(f"| {title} | {label} | {summary} | [`{found['name']}`]({source}) |")
    return "\n".join(rows)


def with_table(text: str) -> str:
    """Return a README with the table between its two marks made anew."""
    before, begin, rest = text.partition(TABLE_BEGIN)
    _, end, after = rest.partition(TABLE_END)
    return f"{before}{begin}\n{equation_table()}\n{end}{after}"


def _by_number(home: tuple[str, str]) -> tuple[str, int, str]:
    paper, label = home
    digits = "".join(c for c in label if c.isdigit())
    return paper, int(digits) if digits and label.startswith("Eq") else 0, label


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_table(page.read_text()))
