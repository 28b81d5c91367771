"""In which regions of an atlas a cluster lies, by the region nearest to the centre of each of its voxels.

An atlas is an image of whole numbers, one a region, 0 for none, and it may lie on other voxels than the scan:
what counts is where both are in the world. That the two are aligned is up to who gives it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.io.guard import GuardedFile, sha256_of_file, shown
from mednovelty.io.names import is_image, stem
from mednovelty.segment.clusters import Cluster, in_mm
from mednovelty.text import printable

OUTSIDE = "outside"
"""Of voxels that the atlas has no region for."""
LARGEST_TABLE_BYTES = 16 << 20
_TABLES = (".tsv", ".txt", ".csv", ".lut")
_ENDING = re.compile(
    r"(?:(?:desc|space|res|label|atlas|seg)-[A-Za-z0-9+]+_)*(?:dseg|atlas|labels?|parc|aparc)"
)


@dataclass(frozen=True, eq=False)
class Atlas:
    """Regions in the world.

    Attributes:
        labels: ``(I, J, K)`` of whole numbers, 0 for no region.
        affine: ``(4, 4)``, voxel indices to RAS+ mm.
        names: Of regions; others are called by their number.
        source: What messages call it.
    """

    labels: np.ndarray
    affine: np.ndarray
    names: Mapping[int, str]
    source: str = "atlas"

    def at(self, points_mm: np.ndarray) -> np.ndarray:
        """Return ``(m,)`` int64 region of each of ``(m, 3)`` RAS+ mm: the nearest voxel's; 0 outside."""
        places = np.rint(in_mm(points_mm, np.linalg.inv(self.affine))).astype(np.int64)
        inside = ((places >= 0) & (places < self.labels.shape)).all(axis=1)
        found = np.zeros(len(places), dtype=np.int64)
        found[inside] = self.labels[tuple(places[inside].T)]
        return found

    def name_of(self, region: int) -> str:
        """Return a region's name, or its number where it has none."""
        return OUTSIDE if region == 0 else self.names.get(region, str(region))


def with_regions(
    clusters: Sequence[Cluster], labels: np.ndarray, affine: np.ndarray, atlas: Atlas
) -> list[Cluster]:
    """Return clusters with the regions that they lie in.

    Args:
        clusters: Whose numbers the labels have.
        labels: ``(I, J, K)`` on the scan's voxels.
        affine: ``(4, 4)`` of the scan.
        atlas: Regions.
    """
    places = np.argwhere(labels)
    of_voxel, regions = labels[tuple(places.T)], atlas.at(in_mm(places, affine))
    return [replace(one, regions=_shares(regions[of_voxel == one.label], atlas)) for one in clusters]


def _shares(regions: np.ndarray, atlas: Atlas) -> tuple[tuple[str, float], ...]:
    numbers, counts = np.unique(regions, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple((atlas.name_of(int(numbers[n])), float(counts[n] / regions.size)) for n in order)


def read_atlas(path: Path) -> Atlas:
    """Read a label image, and the table of names beside it if there is one.

    The table is called as the image is, with ``.tsv``, ``.txt``, ``.csv`` or ``.lut``; or it is the only such
    file in the folder of which every line begins with a number.

    Raises:
        ScanError: It cannot be read, or holds something else than whole numbers from 0 on.
    """
    from mednovelty.io.nifti import read_volume

    volume = read_volume(path)
    values = volume.data[0]
    whole = np.isfinite(values).all() and (values == np.rint(values)).all() and values.min() >= 0
    if not whole:
        raise ScanError(
            f"{shown(path)}: an atlas has a whole number from 0 on in each voxel; found {values.min():g} to "
            f"{values.max():g}",
            code="atlas.values",
        )
    return Atlas(values.astype(np.int64), volume.affine, _names_beside(path), shown(path))


class Atlases:
    """The atlas of each scan: one image for all, or one for each in a folder, by scan id.

    In a folder, that of ``sub-01`` is ``sub-01.nii.gz``, or ``sub-01_`` and then ``dseg``, ``atlas``,
    ``labels`` or ``parc``, with BIDS entities before that if need be, anywhere below it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hashes: dict[Path, str] = {}
        if path.is_dir():
            self._images = [found for found in sorted(path.rglob("*")) if is_image(found) and found.is_file()]
            if not self._images:
                raise ScanError(f"{path}: no image is there that could be an atlas", code="atlas.none")
        else:
            self._images, self._one = [], read_atlas(path)

    def of(self, id: str) -> Atlas | None:
        """Return the atlas of a scan; None where the folder has none for it.

        Raises:
            ScanError: The folder has two, or it cannot be read.
        """
        path = self._path_of(id)
        return self._one if path == self.path else None if path is None else read_atlas(path)

    def sha256_of(self, id: str) -> str | None:
        """Return the hash of a scan's atlas and of the names beside it; None where it has none.

        Raises:
            ScanError: As ``of``.
        """
        path = self._path_of(id)
        if path is None:
            return None
        names = sorted(_names_beside(path).items()) if path != self.path else sorted(self._one.names.items())
        if path not in self._hashes:
            self._hashes[path] = sha256_of_file(path)
        return hashlib.sha256(f"{self._hashes[path]} {names}".encode()).hexdigest()

    def _path_of(self, id: str) -> Path | None:
        if not self._images:
            return self.path
        found = [path for path in self._images if _belongs(stem(path), id)]
        if len(found) > 1:
            raise ScanError(
                f"{shown(found[0])}: {id} has two atlases, {found[0]} and {found[1]}; keep one",
                code="atlas.ambiguous",
            )
        return found[0] if found else None


def _belongs(name: str, id: str) -> bool:
    rest = name.removeprefix(id + "_")
    return name == id or (rest != name and _ENDING.fullmatch(rest) is not None)


def _names_beside(image: Path) -> dict[int, str]:
    own = [found for ending in _TABLES if (found := image.with_name(stem(image) + ending)).is_file()]
    if own:
        return read_names(own[0])
    others = [path for path in sorted(image.parent.iterdir()) if path.suffix.lower() in _TABLES]
    readable = [names for path in others if path.is_file() and (names := _tried(path))]
    return readable[0] if len(readable) == 1 else {}


def _tried(path: Path) -> dict[int, str]:
    try:
        return read_names(path)
    except ScanError:
        return {}


def read_names(path: Path) -> dict[int, str]:
    r"""Read names of regions: a number, then a name, a line each.

    As BIDS has it (tabs; a header with ``index`` and ``name``), as FreeSurfer (blanks; number, name,
    colour), as ITK-SNAP (number, colour, ..., "name" in quotes), or ``number,name``. Lines with ``#`` are
    passed over.

    Raises:
        ScanError: It cannot be read, or a line begins with no number (``atlas.names``).
    """
    names: dict[int, str] = {}
    columns = (0, 1)
    for number, line in enumerate(_lines(path)):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = _fields(line)
        lower = [field.lower() for field in fields]
        if not names and "index" in lower and "name" in lower:
            columns = (lower.index("index"), lower.index("name"))
            continue
        try:
            names[int(fields[columns[0]])] = printable(_name_in(fields, columns[1]))
        except (ValueError, IndexError) as error:
            raise ScanError(
                f"{shown(path)}, line {number + 1}: needs a region's number and its name, as 17 Hippocampus",
                code="atlas.names",
            ) from error
    return names


def _fields(line: str) -> list[str]:
    for separator in ("\t", ","):
        if separator in line:
            return [field.strip() for field in line.split(separator)]
    return re.findall(r'"[^"]*"|\S+', line)


def _name_in(fields: list[str], column: int) -> str:
    quoted = [field for field in fields if field.startswith('"')]
    return quoted[-1].strip('"') if quoted else fields[column]


def _lines(path: Path) -> list[str]:
    with GuardedFile(path) as file:
        if file.size > LARGEST_TABLE_BYTES:
            raise ScanError(f"{file.name}: {file.size} bytes are too many for names", code="atlas.names")
        content = b"".join(iter(lambda: file.read(1 << 20), b""))
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ScanError(f"{shown(path)}: not UTF-8 text: {error}", code="atlas.names") from error


__all__ = ["Atlas", "Atlases", "OUTSIDE", "read_atlas", "read_names", "with_regions"]
