"""Data manifests: one TOML a data set says where it comes from, which files it has and who plays which role.

.. code-block:: toml

    [dataset]
    name = "twins"                        # required, as is licence
    source = "..."
    licence = "..."
    citation = "..."
    fetch = "..."                         # what to do to have it, told where it is asked for and not there

    [files]
    root = "$MEDNOVELTY_TWINS"            # relative to this file, or beginning with an environment variable
    dwi = ["controls/*/dwi/*_dwi.nii.gz"] # diffusion scans; or contrasts, of structural ones
    masks = "lesions/{id}_mask.nii.gz"    # of lesions; * and ? allowed, as in all patterns
    brain_masks = "masks/{id}_mask.nii.gz"  # of structural scans no others are looked for

    [files.contrasts]                     # instead of dwi: one image a contrast, {id} the scan's
    FLAIR = "{id}/anat/{id}_FLAIR.nii.gz"
    T1w = "{id}/anat/{id}_T1w.nii.gz"

    [roles]                               # by scan id, * and ? allowed; a scan has one role
    normal = ["sub-c0[1-7]*"]
    validation = ["sub-c08*"]
    test = ["sub-p*"]

    [folds]                               # instead of roles: cross-validation by subject
    count = 5                             # dealt out by the hash of seed and subject; or
    seed = 0                              # patterns = [["patient07"], ["patient19"]], a list a fold

    [checksums]                           # sha256 by path below root
    "controls/sub-c01/dwi/sub-c01_dwi.nii.gz" = "..."

Of folds the first is tested unless ``with_fold`` says otherwise: whoever fits and scores with one manifest
never tests on a subject that was trained on.
"""

from __future__ import annotations

import glob
import os
import re
import tomllib
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any

from mednovelty.errors import ScanError, SettingsError
from mednovelty.io.folds import Folds
from mednovelty.io.guard import read_text, shown
from mednovelty.io.patterns import ID, as_glob, id_in

ROLES = ("normal", "validation", "test")

_TABLES = {
    "dataset": ("name", "source", "licence", "citation", "fetch"),
    "files": ("root", "dwi", "contrasts", "masks", "brain_masks"),
    "roles": ROLES,
    "folds": ("count", "seed", "patterns"),
}
_CONTRAST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a data manifest says.

    Attributes:
        path: The manifest itself.
        name: Of the data set.
        licence: In words.
        source: Where it comes from.
        citation: What to cite.
        fetch: What to do to have it, in words.
        root: Folder that all patterns are relative to.
        dwi: Patterns of diffusion images; none in a manifest of structural scans.
        contrasts: Contrast -> patterns of its images, in the order of the channels.
        masks: Pattern of lesion masks with ``{id}``; empty when there are none.
        brain_masks: Pattern of brain masks with ``{id}``; empty when there are none.
        roles: Role -> patterns of scan ids.
        folds: How subjects are split for cross-validation; None where nothing is said of it.
        checksums: Path below ``root`` -> sha256.
    """

    path: Path
    name: str
    licence: str
    root: Path
    dwi: tuple[str, ...] = ()
    source: str = ""
    citation: str = ""
    fetch: str = ""
    masks: str = ""
    brain_masks: str = ""
    contrasts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    roles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    folds: Folds | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def images(self) -> list[Path]:
        """Return the diffusion images that match, sorted, each once.

        Raises:
            SettingsError: A pattern matches nothing.
        """
        found = {path for pattern in self.dwi for path in self.matches(pattern)}
        return sorted(found, key=lambda path: path.relative_to(self.root).parts)

    def matches(self, pattern: str, *, required: bool = True) -> dict[Path, str]:
        """Return the files that match a pattern, sorted, and what ``{id}`` is in each; empty without it.

        Raises:
            SettingsError: Nothing matches what is required.
        """
        found = {}
        for path in sorted(self.root.glob(as_glob(pattern))):
            scan = id_in(pattern, path.relative_to(self.root).as_posix()) if ID in pattern else ""
            if scan is not None:
                found[path] = scan
        if required and not found:
            raise SettingsError(f"{shown(self.path)}: no file matches {pattern!r} in {self.root}")
        return found

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
        """Return the lesion mask of a scan, if there: the file of that very name, or that fits the pattern.

        Raises:
            ScanError: Two files fit the pattern; code ``masks.ambiguous``.
        """
        if not self.masks:
            return None
        if (written := self.root / self.masks.replace(ID, scan_id)).is_file():
            return written
        found = sorted(self.root.glob(self.masks.replace(ID, glob.escape(scan_id))))
        found = [path for path in found if path.is_file()]
        if len(found) > 1:
            raise ScanError(
                f"{shown(self.path)}: {scan_id} has two lesion masks, {found[0]} and {found[1]}; keep one",
                code="masks.ambiguous",
            )
        return found[0] if found else None

    def lesion_masks(self) -> set[Path]:
        """Return every file that can be a lesion mask: as the name is written, or where the pattern fits."""
        patterns = {as_glob(self.masks), as_glob(self.masks, literal=True)} if self.masks else ()
        found = {path for pattern in patterns for path in self.root.glob(pattern)}
        return {path for path in found if path.is_file()}

    def brain_mask_of(self, scan_id: str) -> Path | None:
        """Return where the brain mask of a scan must be; None when the manifest says nothing of them."""
        return self.root / self.brain_masks.replace("{id}", scan_id) if self.brain_masks else None


def read_manifest(path: str | Path, root: Path | None = None) -> Manifest:
    """Read a data manifest.

    Args:
        path: Of the manifest.
        root: Where the data are, instead of where it says; must be there.

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
    dwi, contrasts = _images(files, name)
    for pattern in (*dwi, *sum(contrasts.values(), ()), text["masks"], text["brain_masks"]):
        _check_inside(pattern, name)
    told = text.pop("root")
    root = _root(told if root is None else str(root.absolute()), path)
    roles = {role: _texts(tables["roles"], role, name) for role in tables["roles"]}
    folds = _folds(tables["folds"], name) if "folds" in content else None
    if roles and folds:
        raise SettingsError(f"{name}: has [roles] and [folds]; who trains and who is tested follows from one")
    checksums = {key: _text(tables["checksums"], key, name) for key in tables["checksums"]}
    return Manifest(
        path=path,
        root=root,
        dwi=dwi,
        contrasts=contrasts,
        roles=roles,
        folds=folds,
        checksums=checksums,
        **text,
    )


def manifest_or_folder(path: str | Path | Manifest) -> Manifest | Path:
    """Return a manifest, read where a path is one's; any other path as it is.

    Raises:
        SettingsError: See ``read_manifest``.
    """
    if isinstance(path, Manifest):
        return path
    path = Path(path)
    return read_manifest(path) if path.suffix == ".toml" and not path.is_dir() else path


def _images(files: dict[str, Any], name: str) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Return the patterns of diffusion images, or of each contrast: a manifest has one of the two."""
    table = _table(files, "contrasts", name)
    dwi = _texts(files, "dwi", name)
    contrasts = {contrast: _texts(table, contrast, name) for contrast in table}
    for contrast, patterns in contrasts.items():
        if not _CONTRAST.fullmatch(contrast):
            raise SettingsError(f"{name}: files.contrasts: {contrast!r} cannot be a contrast's name")
        if not patterns:
            raise SettingsError(f"{name}: files.contrasts.{contrast}, the pattern of its images, is empty")
    if dwi and contrasts:
        raise SettingsError(f"{name}: has files.dwi and files.contrasts; give each a manifest of its own")
    if not dwi and not contrasts:
        what = "files.dwi, the patterns of the images, is missing; or files.contrasts, of structural ones"
        raise SettingsError(f"{name}: {what}")
    return dwi, contrasts


def _folds(table: dict[str, Any], name: str) -> Folds:
    numbers = {key: table[key] for key in ("count", "seed") if key in table}
    for key, value in numbers.items():
        if type(value) is not int or value < 0:
            raise SettingsError(f"{name}: folds.{key} must be a whole number, found {value!r}")
    listed = table.get("patterns", [])
    if not isinstance(listed, list):
        raise SettingsError(f"{name}: folds.patterns must be a list with an entry a fold, found {listed!r}")
    if ("patterns" in table) == ("count" in table) or ("patterns" in table and "seed" in table):
        raise SettingsError(f"{name}: [folds] needs either count, and a seed if need be, or patterns")
    patterns = tuple(_texts({"patterns": ids}, "patterns", name) for ids in listed)
    try:
        return Folds(len(patterns), patterns=patterns) if "patterns" in table else Folds(**numbers)
    except SettingsError as error:
        raise SettingsError(f"{name}: [folds]: {error}") from error


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
