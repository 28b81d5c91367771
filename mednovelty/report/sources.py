"""The scans that maps were made of, looked up again for what a report tells of their quality.

Since maps are written with ``_quality.json`` beside them, only those of before need it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mednovelty.errors import ScanError, SettingsError
from mednovelty.io.read_scan import read_scan, scan_files
from mednovelty.io.scan_files import ScanFiles
from mednovelty.outputs import told
from mednovelty.preprocess.qspace import GradientScheme
from mednovelty.quality import ENDING, Quality
from mednovelty.report.scan_facts import ScanFacts, as_dict, as_list, stem_of
from mednovelty.store import RECORD


def look_up_quality(facts: ScanFacts, given: Mapping[str, ScanFiles] | None = None) -> ScanFacts:
    """Return what is told of a scan, with its quality, which is written beside its maps.

    Args:
        facts: Without quality.
        given: Scans by id, where they are not where the sidecar says.

    Raises:
        ScanError: The scan is gone, cannot be read, or is not the one that was scored.
        OutputError: The quality cannot be written.
    """
    files = (given or {}).get(facts.id) or _where_it_was(facts)
    scan = read_scan(replace(files, id=facts.id, mask=facts.scored.brain))
    known = facts.sidecar.get("InputSha256")
    if known != scan.sha256:
        raise ScanError(
            f"{files.image}: is not the image that {facts.id} was scored from: its sha256 is "
            f"{scan.sha256[:12]}, that of the maps {str(known)[:12]}",
            code="maps.changed",
        )
    found = Quality.of(scan, _scheme(facts))
    found.write(facts.scored.brain.parent / f"{stem_of(facts.scored)}{ENDING}")
    return replace(facts, quality=found)


def _where_it_was(facts: ScanFacts) -> ScanFiles:
    paths = facts.sources
    gone = [path for path in paths if not path.is_file()]
    if not paths or gone:
        where = f"{gone[0].name} is not where it was" if gone else "its sidecar does not tell its scan"
        raise ScanError(f"{facts.id}: {where}; pass the folder of the scans with --scans", code="file.absent")
    if as_dict(facts.sidecar.get("Gradients")):
        return scan_files(paths[0])
    names = [str(name) for name in as_list(_record(facts).get("contrasts"))]
    if len(names) != len(paths):
        names = [path.name.partition(".")[0].removeprefix(f"{facts.id}_") for path in paths]
    return ScanFiles(facts.id, paths[0], contrasts=tuple(zip(names, paths, strict=True)))


def _scheme(facts: ScanFacts) -> GradientScheme | None:
    """Return the gradients that the detector knows, where it still lies where the sidecar says."""
    for step in as_list(_record(facts).get("preprocessing")):
        if as_dict(step).get("name") == "gradient_scheme":
            try:
                return GradientScheme(**as_dict(step.get("state")))
            except (TypeError, ValueError, SettingsError):
                return None
    return None


def _record(facts: ScanFacts) -> Mapping[str, object]:
    folder = as_dict(facts.sidecar.get("Detector")).get("Folder")
    if not isinstance(folder, str):
        return {}
    return told(Path(os.path.normpath(facts.scored.brain.parent / folder)) / RECORD) or {}


__all__ = ["look_up_quality"]
