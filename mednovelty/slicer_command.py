"""What commands do for 3D Slicer: scenes of scored scans, and the module that 3D Slicer loads."""

from __future__ import annotations

import logging
from pathlib import Path

from mednovelty import console
from mednovelty.errors import ScanError

log = logging.getLogger("mednovelty")


def show_scored(output: Path) -> int:
    """Write the scenes of a folder of maps; return the exit code.

    A folder without maps is left as it is. What else is wrong is told, and does not keep the caller from
    telling of the maps.
    """
    from mednovelty.output_folder import sole_writer
    from mednovelty.viewers.slicer import write_scenes

    try:
        with sole_writer(output):
            found = write_scenes(output)
    except ScanError as error:
        if error.code == "maps.none":
            return 0
        log.error("no scenes for 3D Slicer: %s", error)
        return error.exit_code
    done = [one.status for one in found]
    if "done" in done:
        log.info("scenes for 3D Slicer: %d written, %d up to date; *_scene.mrml beside the maps",
                 done.count("done"), done.count("up to date"))  # fmt: skip
    for one in found:
        if one.status == "changed":
            log.warning("%s: was saved by another program since, and stays as it is; remove it to have it "
                        "written again", one.path)  # fmt: skip
        if one.status == "failed":
            log.error("no scene for 3D Slicer: %s: %s", one.id, one.message)
        elif one.message:
            log.error("scene for 3D Slicer of %s: %s", one.id, one.message)
    failed = done.count("failed")
    if not failed:
        return 6 if any(one.message for one in found) else 0
    return ScanError.exit_code if failed == len(found) else 6


def copy_module(folder: Path, overwrite: bool, as_json: bool) -> int:
    """Copy the module for 3D Slicer into a folder, and say how it is loaded."""
    from mednovelty.viewers.module_files import copy_slicer_module

    # 3D Slicer starts elsewhere.
    module = copy_slicer_module(folder.absolute(), overwrite=overwrite)
    if as_json:
        console.print_json({"exit_code": 0, "module": str(module)})
        return 0
    log.info("in 3D Slicer, Edit, Application Settings, Modules, Additional module paths: add %s, and start "
             "it again; the module is called MedNovelty", module.parent)  # fmt: skip
    return 0


__all__ = ["copy_module", "show_scored"]
