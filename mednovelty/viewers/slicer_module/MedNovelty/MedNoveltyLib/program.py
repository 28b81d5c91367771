"""The program ``mednovelty``: where it is, how it is called, and what it says while it runs."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

NAME = "mednovelty"


class RequestError(ValueError):
    """What was asked for cannot be run; says why, and what to do."""


@dataclass(frozen=True)
class Detector:
    """What is to be known of a detector's folder before scans are chosen.

    Attributes:
        folder: Where it lies.
        contrasts: Of structural scans; none: it is of diffusion scans.
        calibrated: Its scores that have p-values.
    """

    folder: Path
    contrasts: tuple[str, ...]
    calibrated: tuple[str, ...]

    @classmethod
    def read(cls, folder: str | Path) -> Detector:
        """Return what its records tell.

        Raises:
            RequestError: It is no detector's folder.
        """
        folder = Path(folder)
        record = _json(folder / "detector.json")
        if record is None:
            raise RequestError(
                f"{folder}: holds no detector.json; choose a folder that `mednovelty fit` wrote"
            )
        scores = (_json(folder / "calibration.json") or {}).get("scores")
        return cls(folder, tuple(record.get("contrasts") or ()), tuple(scores or ()))


@dataclass(frozen=True)
class Request:
    """What is to be scored, and how it is segmented.

    Attributes:
        program: Path of ``mednovelty``.
        model: The detector's folder.
        scan: An image, or a folder of scans.
        output: Where maps go.
        scores: Names or groups with commas; empty: the detector's own.
        rule: ``fdr`` or ``p``; empty: as the program does by default, or as the folder was segmented before.
        level: Of the rule.
        overwrite: Whether maps that another detector made are replaced.
    """

    program: str
    model: str
    scan: str
    output: str
    scores: str = ""
    rule: str = ""
    level: float = 0.05
    overwrite: bool = False

    def commands(self) -> list[list[str]]:
        """Return the commands to run, one after another; the second only where a threshold is asked for.

        Raises:
            RequestError: Something is missing or contradicts itself.
        """
        for what, value in (
            ("a detector", self.model),
            ("a scan", self.scan),
            ("an output folder", self.output),
        ):
            if not value.strip():
                raise RequestError(f"choose {what} first")
        if self.rule not in ("", "fdr", "p"):
            raise RequestError(f"there is no threshold {self.rule!r}; fdr and p are known")
        if self.rule and not 0 < self.level < 0.5:
            raise RequestError(f"a threshold lies between 0 and 0.5, got {self.level:g}")
        if not os.path.exists(self.scan):
            raise RequestError(f"{self.scan}: there is no such file or folder")
        # -v: it says every two seconds how far it is.
        score = [self.program, "-v", "score", self.model, self.scan, "-o", self.output]
        score += ["--scores", self.scores.replace(" ", "")] if self.scores.strip() else []
        score += ["--overwrite"] if self.overwrite else []
        if not self.rule:
            return [score]
        # Segmented once, by the second command.
        score.append("--no-segment")
        return [score, [self.program, "threshold", self.output, f"--{self.rule}", f"{self.level:g}"]]


def find_program(setting: str = "", path: str | None = None) -> str:
    """Return the path of the program: the setting's, or what is found on a search path.

    Raises:
        RequestError: It is not there, or cannot be run; nothing is ever installed for it.
    """
    if setting.strip():
        found = shutil.which(setting.strip())
        if found is None:
            raise RequestError(f"{setting.strip()}: is no program that can be run; choose the path of {NAME}")
        return found
    found = shutil.which(NAME, path=path)
    if found is None:
        raise RequestError(
            f"the program {NAME} was not found; install it apart from 3D Slicer, in an environment of its "
            "own, and choose its path under Program"
        )
    return found


def file_to_score(detector: Detector, name: str, folder: str | Path) -> Path:
    """Return where a volume that 3D Slicer holds is saved: its name tells the detector its contrast.

    Raises:
        RequestError: A loaded volume is not all that the detector needs.
    """
    if not detector.contrasts:
        raise RequestError(
            "the detector is of diffusion scans: choose the 4-D file, with .bval and .bvec beside it, "
            "instead of a loaded volume"
        )
    if len(detector.contrasts) > 1:
        raise RequestError(
            f"the detector needs {', '.join(detector.contrasts)} of a subject: choose the folder of the "
            "files instead of a loaded volume"
        )
    contrast = detector.contrasts[0]
    clean = re.sub(r"[^A-Za-z0-9]+", "", name) or "volume"
    return Path(folder) / f"sub-{clean}" / "anat" / f"sub-{clean}_{contrast}.nii.gz"


class Progress:
    """How far a run is, from what it says.

    Attributes:
        fraction: 0 to 1; None until it is known.
        message: What to show.
        problems: What went wrong, as it was said.
    """

    _SAMPLES = re.compile(r"^(.+): ([\d,]+) of ([\d,]+) samples scored$")
    _ENDED = re.compile(r"^(\S+): (done|up to date|failed)\b")
    _WRONG = re.compile(r"^(?:mednovelty|failed|not segmented|no scenes? for 3D Slicer): (.+)$")

    def __init__(self, scans: int | None = 1) -> None:
        """Begin; ``scans`` is how many are scored, None where that is not known: then no fraction is."""
        self.fraction: float | None = None
        self.message = ""
        self.problems: list[str] = []
        self._scans, self._ended = scans, 0

    def take(self, line: str) -> None:
        """Take in a line of the program's stderr."""
        line = line.strip()
        if not line:
            return
        self.message = line
        samples, ended, wrong = (p.match(line) for p in (self._SAMPLES, self._ENDED, self._WRONG))
        if wrong:
            self.problems.append(wrong[1])
        elif samples:
            done, total = (int(samples[n].replace(",", "")) for n in (2, 3))
            self._at(self._ended + min(done / max(total, 1), 1.0))
        elif ended:
            self._ended += 1
            self._at(self._ended)

    def _at(self, scans: float) -> None:
        if not self._scans:
            return
        # It never goes back, and is whole only when the program has ended.
        reached = min(scans / self._scans, 0.99)
        self.fraction = reached if self.fraction is None else max(self.fraction, reached)


_CODES = {
    0: "done",
    2: "wrong use or settings",
    3: "the scan cannot be used",
    4: "the detector cannot be used",
    5: "cannot write",
    6: "some scans failed, see failures.tsv",
    130: "stopped",
    143: "stopped",
}


def ending(code: int, problems: list[str]) -> str:
    """Return what to tell of a run that has ended."""
    if code < 0:
        return "stopped" if code in (-2, -15) else f"ended by signal {-code}; is there enough memory?"
    told = _CODES.get(code, f"ended with code {code}; see the log")
    return f"{told}: {problems[-1]}" if code and problems else told


def _json(path: Path) -> dict | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
