"""The scores of one calibration scan, kept compactly: numbers of the voxels that were scored, and no others.

One safetensors file a scan: ``mask`` as bits, ``affine``, ``score/<name>`` as float32, and what regions are
made of, ``labels`` or ``features``. Values are in the order of ``volume[mask]``. Of a score with one value
for each slice or window also ``samples/<name>``: what of it counts in a null, see ``samples``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mednovelty.errors import DetectorError
from mednovelty.io.atomic import write_bytes_atomic
from mednovelty.io.guard import sha256_of_file
from mednovelty.store import one_line

SCORE, SAMPLES = "score/", "samples/"


@dataclass(frozen=True, eq=False)
class ScanMaps:
    """The maps of a calibration scan; scores are read from its file when they are asked for.

    Attributes:
        id: Of the scan.
        mask: ``(I, J, K)`` bool, the n voxels that were scored.
        affine: ``(4, 4)``, voxel indices to RAS+ millimetres.
        scores: Which are there.
        of_samples: Which of them have one value for each slice or window.
        path: The file.
    """

    id: str
    mask: np.ndarray
    affine: np.ndarray
    scores: tuple[str, ...]
    path: Path
    of_samples: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path, id: str, sha256: str) -> ScanMaps:
        """Return the maps of a file.

        Raises:
            DetectorError: It is missing, damaged, or no such file.
        """
        try:
            if sha256_of_file(path) != sha256:
                raise DetectorError(f"{path}: damaged: its sha256 is not the one in the calibration's record")
            with safe_open(path, framework="numpy") as file:
                names, sampled = (
                    tuple(sorted(name.removeprefix(kind) for name in file.keys() if name.startswith(kind)))  # noqa: SIM118
                    for kind in (SCORE, SAMPLES)
                )
                shape = tuple(int(n) for n in file.get_tensor("shape"))
                bits, affine = file.get_tensor("mask"), file.get_tensor("affine")
            mask = np.unpackbits(bits, count=int(np.prod(shape))).astype(bool).reshape(shape)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise DetectorError(f"{path}: cannot be read: {one_line(error)}") from error
        return cls(id, mask, affine, names, path, sampled)

    def values(self, score: str) -> np.ndarray:
        """Return ``(n,)`` float32 scores."""
        return self._tensor(SCORE + score)

    def counted(self, score: str) -> np.ndarray:
        """Return ``(m,)`` float32, what counts in a null: a value a sample, or those of the voxels."""
        return self._read(SAMPLES + score) if score in self.of_samples else self.values(score)

    @property
    def labels(self) -> np.ndarray:
        """``(n,)`` int32: of a label image."""
        return self._tensor("labels")

    @property
    def features(self) -> np.ndarray:
        """``(F, n)`` float32: what classes are made of; see ``regions``."""
        return self._tensor("features")

    @property
    def n_voxels(self) -> int:
        """How many voxels were scored."""
        return int(np.count_nonzero(self.mask))

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def volume(self, values: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """Return ``(I, J, K)`` with values in the voxels of the mask."""
        out = np.full(self.mask.shape, fill, values.dtype)
        out[self.mask] = values
        return out

    def _tensor(self, name: str) -> np.ndarray:
        found = self._read(name)
        if found.shape[-1:] != (self.n_voxels,):
            raise DetectorError(f"{self.path}: {name} has shape {found.shape} in {self.n_voxels} voxels")
        return found

    def _read(self, name: str) -> np.ndarray:
        try:
            with safe_open(self.path, framework="numpy") as file:
                return np.asarray(file.get_tensor(name))
        except (OSError, SafetensorError) as error:
            raise DetectorError(f"{self.path}: cannot be read: {one_line(error)}") from error


def write_scan_maps(  # noqa: PLR0913 - all but the first two are by keyword
    folder: Path,
    number: int,
    *,
    mask: np.ndarray,
    affine: np.ndarray,
    values: Mapping[str, np.ndarray],
    samples: Mapping[str, np.ndarray] | None = None,
    labels: np.ndarray | None = None,
    features: np.ndarray | None = None,
) -> tuple[str, str]:
    """Write the maps of a scan; return the file's name, of which its content is part, and its sha256.

    Args:
        folder: Must exist.
        number: Of the scan, from 0.
        mask: ``(I, J, K)`` bool.
        affine: ``(4, 4)``.
        values: ``(n,)`` by score.
        samples: ``(m,)`` by score, of those with one value a sample: what counts in a null.
        labels: ``(n,)`` whole numbers, of a label image.
        features: ``(F, n)``, of classes.

    Raises:
        OutputError: It cannot be written.
    """
    tensors: dict[str, np.ndarray] = {
        "mask": np.packbits(mask),
        "shape": np.array(mask.shape, np.int64),
        "affine": np.asarray(affine, np.float64),
    }
    tensors |= {SCORE + name: np.ascontiguousarray(one, np.float32) for name, one in values.items()}
    tensors |= {
        SAMPLES + name: np.ascontiguousarray(one, np.float32) for name, one in (samples or {}).items()
    }
    if labels is not None:
        tensors["labels"] = np.ascontiguousarray(labels, np.int32)
    if features is not None:
        tensors["features"] = np.ascontiguousarray(features, np.float32)
    content = save(tensors)
    sha256 = hashlib.sha256(content).hexdigest()
    # A name that no other content has: files of a calibration that stands are never written over.
    name = f"scan-{number + 1:03d}-{sha256[:12]}.safetensors"
    write_bytes_atomic(folder / name, content)
    return name, sha256


__all__ = ["ScanMaps", "write_scan_maps"]
