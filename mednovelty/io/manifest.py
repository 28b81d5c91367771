"""Data manifests: one TOML a data set says where it comes from, which files it has and who plays which role.

.. code-block:: toml

    [dataset]
    name = "twins"                        # required, as is licence
    source = "..."
    licence = "..."
    citation = "..."

    [files]
    root = "$MEDNOVELTY_TWINS"            # relative to this file, or beginning with an environment variable
    dwi = ["controls/*/dwi/*_dwi.nii.gz"] # required
    masks = "lesions/{id}_mask.nii.gz"    # of lesions
    brain_masks = "masks/{id}_mask.nii.gz"

    [roles]                               # by scan id, * and ? allowed; a scan has one role
    normal = ["sub-c0[1-7]*"]
    validation = ["sub-c08*"]
    test = ["sub-p*"]

    [checksums]                           # sha256 by path below root
    "controls/sub-c01/dwi/sub-c01_dwi.nii.gz" = "..."
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any

from mednovelty.errors import ScanError, SettingsError
from mednovelty.io.guard import read_text, shown

ROLES = ("normal", "validation", "test")

_TABLES = {
    "dataset": ("name", "source", "licence", "citation"),
    "files": ("root", "dwi", "masks", "brain_masks"),
    "roles": ROLES,
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a data manifest says.

    Attributes:
        path: The manifest itself.
        name: Of the data set.
        licence: In words.
        source: Where it comes from.
        citation: What to cite.
        root: Folder that all patterns are relative to.
        dwi: Patterns of diffusion images.
        masks: Pattern of lesion masks with ``{id}``; empty when there are none.
        brain_masks: Pattern of brain masks with ``{id}``; empty when there are none.
        roles: Role -> patterns of scan ids.
        checksums: Path below ``root`` -> sha256.
    """

    path: Path
    name: str
    licence: str
    root: Path
    dwi: tuple[str, ...]
    source: str = ""
    citation: str = ""
    masks: str = ""
    brain_masks: str = ""
    roles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)

    def images(self) -> list[Path]:
        """Return the images that match, sorted, each once.

        Raises:
            SettingsError: A pattern matches nothing.
        """
        found: set[Path] = set()
        for pattern in self.dwi:
            matches = set(self.root.glob(pattern))
            if not matches:
                raise SettingsError(f"{shown(self.path)}: no file matches {pattern!r} in {self.root}")
            found |= matches
        return sorted(found, key=lambda path: path.relative_to(self.root).parts)

    def role_of(self, scan_id: str) -> str | None:
        """Return the role of a scan; every scan is ``normal`` where the manifest has no roles.

        Raises:
            SettingsError: Two roles claim it.
        """
        if not self.roles:
            return "normal"
        roles = [role for role, ids in self.roles.items() if any(fnmatchcase(scan_id, p) for p in ids)]
        if len(roles) > 1:
            raise SettingsError(
                f"{shown(self.path)}: {scan_id} is both {roles[0]} and {roles[1]}; a scan has one role"
            )
        return roles[0] if roles else None

    @property
    def mask_folder(self) -> Path:
        """The folder below which the lesion masks lie: ``masks`` up to the part with ``{id}``."""
        return (self.root / (self.masks.partition("{")[0] + "x")).parent

    def lesion_mask_of(self, scan_id: str) -> Path | None:
        """Return the lesion mask of a scan, if it is there."""
        path = self.root / self.masks.replace("{id}", scan_id)
        return path if self.masks and path.is_file() else None

    def brain_mask_of(self, scan_id: str) -> Path | None:
        """Return where the brain mask of a scan must be; None when the manifest says nothing of them."""
        return self.root / self.brain_masks.replace("{id}", scan_id) if self.brain_masks else None


def read_manifest(path: str | Path) -> Manifest:
    """Read a data manifest.

    Raises:
        SettingsError: Not TOML, an unknown or missing key, a wrong type, a root that is not there or an
            environment variable that is not set, or a pattern that leaves the root.
    """
    path = Path(path)
    name = shown(path)
    try:
        content = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{name}: not TOML: {error}") from error
    except ScanError as error:
        raise SettingsError(str(error)) from error
    _check_keys(content, (*_TABLES, "checksums"), name, "")
    tables = {table: _table(content, table, name) for table in (*_TABLES, "checksums")}
    for table, known in _TABLES.items():
        _check_keys(tables[table], known, name, f"{table}.")
    dataset, files = tables["dataset"], tables["files"]
    text = {key: _text(dataset, key, name) for key in _TABLES["dataset"]}
    text |= {key: _text(files, key, name) for key in ("root", "masks", "brain_masks")}
    for key, table in (("name", "dataset"), ("licence", "dataset"), ("root", "files")):
        if not text[key]:
            raise SettingsError(f"{name}: {table}.{key} is missing")
    dwi = _texts(files, "dwi", name)
    if not dwi:
        raise SettingsError(f"{name}: files.dwi, the patterns of the images, is missing")
    for pattern in (*dwi, text["masks"], text["brain_masks"]):
        _check_inside(pattern, name)
    root = _root(text.pop("root"), path)
    roles = {role: _texts(tables["roles"], role, name) for role in tables["roles"]}
    checksums = {key: _text(tables["checksums"], key, name) for key in tables["checksums"]}
    return Manifest(path=path, root=root, dwi=dwi, roles=roles, checksums=checksums, **text)


def _root(text: str, manifest: Path) -> Path:
    variable = re.match(r"\$(?:\{(\w+)\}|(\w+))", text)
    if variable:
        name = variable[1] or variable[2]
        if not os.environ.get(name):
            what = f"files.root is {text!r}, but the environment variable {name} is not set"
            raise SettingsError(f"{shown(manifest)}: {what}; set it to the folder of the data")
        text = os.environ[name] + text[variable.end() :]
    root = manifest.parent / text
    if not root.is_dir():
        raise SettingsError(f"{shown(manifest)}: files.root {root} is not a folder")
    return root


def _check_inside(pattern: str, name: str) -> None:
    if PurePath(pattern).is_absolute() or ".." in PurePath(pattern).parts:
        raise SettingsError(f"{name}: pattern {pattern!r} leaves files.root")


def _check_keys(table: dict[str, Any], known: tuple[str, ...], name: str, prefix: str) -> None:
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(known)}"
            raise SettingsError(f"{name}: {prefix}{key} is unknown; {hint}")


def _table(content: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    table = content.get(key, {})
    if not isinstance(table, dict):
        raise SettingsError(f"{name}: {key} must be a table, [{key}]")
    return table


def _text(table: dict[str, Any], key: str, name: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise SettingsError(f"{name}: {key} must be text, found {value!r}")
    return value


def _texts(table: dict[str, Any], key: str, name: str) -> tuple[str, ...]:
    value = table.get(key, [])
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise SettingsError(f"{name}: {key} must be text or a list of texts, found {value!r}")
    return tuple(values)
