"""Detectors of other libraries on the same images, each library in a Python of its own.

What they need would not go together with what is needed here, so ``library_runner`` is run by a Python that
has the library: that of ``--against-python pyod=PATH``, of ``$MEDNOVELTY_PYOD_PYTHON``, or this one. Images
go there as ``.npz``, without a label; scores come back likewise, and the AUROC is computed here.

An environment is made so::

    python3 -m venv envs/pyod && envs/pyod/bin/pip install pyod torch
    python3 -m venv envs/anomalib && envs/anomalib/bin/pip install 'anomalib[cpu]'

Both libraries see all normal images of a cell: those trained on here and those held out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from mednovelty.errors import SettingsError
from mednovelty.text import printable

RUNNER = Path(__file__).with_name("library_runner.py")
ANSWERS_IN_S = 120.0


@dataclass(frozen=True, slots=True)
class Library:
    """A library beside which a protocol can be run.

    Attributes:
        name: As it is imported and installed.
        detectors: Of it.
        install: What pip is told.
        needs: Packages whose versions are told, beside its own.
    """

    name: str
    detectors: tuple[str, ...]
    install: str
    needs: tuple[str, ...]

    @property
    def variable(self) -> str:
        """The environment variable that names its Python."""
        return f"MEDNOVELTY_{self.name.upper()}_PYTHON"


LIBRARIES = {
    library.name: library
    for library in (
        Library("pyod", ("knn", "deepsvdd", "vae", "ecod"), "pyod torch",
                ("torch", "numpy", "scikit-learn")),
        Library("anomalib", ("padim", "patchcore"), "'anomalib[cpu]'", ("torch", "numpy", "timm")),
    )
}  # fmt: skip


def detectors_of(asked: Iterable[str]) -> list[tuple[Library, str]]:
    """Return library and detector of names such as ``pyod``, for all of it, or ``pyod_knn``; each once.

    Raises:
        SettingsError: There is no such library or detector.
    """
    by_name = {f"{library.name}_{name}": (library, name) for library in LIBRARIES.values()
               for name in library.detectors}  # fmt: skip
    found: dict[str, tuple[Library, str]] = {}
    for entry in asked:
        name = entry.lower().replace("-", "_")
        whole = LIBRARIES.get(name)
        names = [f"{name}_{detector}" for detector in whole.detectors] if whole else [name]
        if names[0] not in by_name:
            known = [*LIBRARIES, *by_name]
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise SettingsError(f"--against: no library or detector is called {entry!r}; {hint}")
        found |= {each: by_name[each] for each in names}
    return list(found.values())


def pythons(assignments: Sequence[str], libraries: Iterable[Library]) -> dict[str, str]:
    """Return the Python of each library, by its name.

    Args:
        assignments: As ``pyod=/envs/pyod/bin/python``.
        libraries: Those that are asked for.

    Raises:
        SettingsError: An assignment is none, or of a library that is not asked for.
    """
    wanted = {library.name: library for library in libraries}
    given: dict[str, str] = {}
    for assignment in assignments:
        name, equals, path = assignment.partition("=")
        if not equals or not path.strip():
            raise SettingsError(
                f"--against-python {assignment!r}: write LIBRARY=PYTHON, such as pyod=envs/pyod/bin/python"
            )
        if name.strip() not in wanted:
            asked = f"--against asks for {', '.join(wanted)}" if wanted else "give --against as well"
            raise SettingsError(f"--against-python {assignment!r}: {name.strip()!r} is not compared; {asked}")
        given[name.strip()] = path.strip()
    return {
        name: given.get(name) or os.environ.get(library.variable) or sys.executable
        for name, library in wanted.items()
    }


@lru_cache(maxsize=8)
def installed_there(name: str, python: str) -> Mapping[str, str]:
    """Return versions by package, in a Python, of a library and of what it needs.

    Raises:
        SettingsError: The Python does not run, or does not have the library: what to install.
    """
    library = LIBRARIES[name]
    words = [python, "-I", str(RUNNER), "versions", name, *library.needs]
    how = (
        f"make an environment (python3 -m venv envs/{name} && envs/{name}/bin/pip install {library.install}) "
        f"and give --against-python {name}=envs/{name}/bin/python, or set {library.variable}"
    )
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=ANSWERS_IN_S, check=True)
        found = {str(key): str(value) for key, value in json.loads(done.stdout).items()}
    except (OSError, subprocess.SubprocessError, ValueError, AttributeError) as error:
        raise SettingsError(
            f"{name}: {python} cannot be asked for its versions ({printable(str(error))}); {how}"
        ) from error
    if name not in found:
        raise SettingsError(f"{name}: is not installed in {python}; {how}")
    return found


__all__ = ["LIBRARIES", "RUNNER", "Library", "detectors_of", "installed_there", "pythons"]
