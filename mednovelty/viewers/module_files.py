"""The scripted module for 3D Slicer, copied out of the package; it runs there and imports nothing of ours."""

from __future__ import annotations

from pathlib import Path

from mednovelty.errors import OutputError
from mednovelty.io.atomic import write_bytes_atomic

SOURCE = Path(__file__).with_name("slicer_module")
NAME = "MedNovelty"


def copy_slicer_module(folder: Path, *, overwrite: bool = False) -> Path:
    """Copy the extension's folder, ``MedNovelty``, with the module of that name in it.

    Args:
        folder: Where it goes; made if absent.
        overwrite: Whether files of an earlier copy are replaced; others stay.

    Returns:
        The module's script, whose folder 3D Slicer is to be told.

    Raises:
        OutputError: It is there already, or cannot be written.
    """
    extension = folder / NAME
    if extension.exists() and not overwrite:
        raise OutputError(f"{extension}: is there already; pass --overwrite to replace its files")
    for source in module_files():
        place = extension / source.relative_to(SOURCE)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{place.parent}: cannot be made: {error.strerror}") from error
        write_bytes_atomic(place, source.read_bytes())
    return extension / NAME / f"{NAME}.py"


def module_files() -> list[Path]:
    """Return the files of the extension."""
    found = [path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    if not found:
        raise OutputError(f"{SOURCE}: the module's files are missing; install mednovelty again")
    return sorted(found)


__all__ = ["NAME", "SOURCE", "copy_slicer_module", "module_files"]
