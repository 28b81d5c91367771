"""A detector on disk: one JSON file, three or four of tensors, every byte accounted for.

``detector.json``          ``DetectorRecord``: settings, preprocessing, scheme, training scans, versions
``weights.safetensors``    the network
``reference.safetensors``  the normals as the network sees them
``searches.safetensors``   what approximate searches among them need, ``kind/place/name``
``places.safetensors``     which scan each normal is of, and where in it (mm); detectors of before have none

Reading never runs anything from the files: JSON is checked against the schema, tensors are checked for
names, shapes and finite values, and both against the hashes in the record. What the record says is held
against itself in ``mednovelty.record_checks``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from mednovelty.errors import DetectorError, MedNoveltyError, OutputError
from mednovelty.io.atomic import write_bytes_atomic, write_text_atomic

SCHEMA_VERSION = 2
RECORD, WEIGHTS, REFERENCE = "detector.json", "weights.safetensors", "reference.safetensors"
SEARCHES, PLACES = "searches.safetensors", "places.safetensors"
LARGEST_RECORD_BYTES = 64 << 20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StepRecord(_Strict):
    """One preprocessing step: a plug-in's name and the state that makes it again."""

    name: str
    state: dict[str, Any]


class ScanRecord(_Strict):
    """One scan that the detector has seen."""

    id: str
    sha256: str
    n_voxels: int = Field(ge=0)
    role: Literal["training", "validation"]
    annotation: str = Field(default="", description="what was known of it: labels, lesion voxels")


class OriginRecord(_Strict):
    """The detector whose weights the training started from."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scans: list[ScanRecord] = Field(description="that it had seen, and the one that it started from, ...")


class QualityRecord(_Strict):
    """What was measured of an approximate search on held-out voxels."""

    recall: float = Field(ge=0, le=1)
    sample: int = Field(gt=0)
    share_compared: float = Field(ge=0)
    cost: float = Field(ge=0)
    k: int = Field(default=1, ge=1, description="how many nearest were asked for")
    mean_error_nats: float | None = Field(default=None, ge=0)
    max_error_nats: float | None = Field(default=None, ge=0)


class SearchRecord(_Strict):
    """How one search among the normals is answered: what was chosen, why, and how good it is."""

    place: str = Field(description="the part or space that is searched")
    kind: str
    name: str
    asked: str
    target: float = Field(gt=0, le=1)
    why: str
    settings: dict[str, Any]
    quality: QualityRecord | None


class ReferenceRecord(_Strict):
    """How the reference was drawn."""

    n_voxels: int = Field(ge=0)
    drawn_from: int = Field(ge=0)
    n_bytes: int = Field(ge=0)
    neighbours: str
    parts: list[str]
    searches: list[SearchRecord]


class ScaleRecord(_Strict):
    """How a term of a score is normalised: ``(t - mean) / spread``."""

    mean: float
    spread: float = Field(gt=0)


class EpochRecord(_Strict):
    """One epoch of the training curve; what it took in time is in ``training.csv`` alone."""

    epoch: int = Field(ge=0)
    train_loss: float | None
    learning_rate: float
    validation: dict[str, float | None]
    judged: bool = True


class DetectorRecord(_Strict):
    """All of a detector but its tensors; two fits that agree in every bit have the same record."""

    schema_version: Literal[2] = 2
    recipe: str
    method: str
    settings: dict[str, Any]
    shape: list[Annotated[int, Field(gt=0)]] = Field(
        min_length=1, max_length=4, description="(C,) of voxels, or (contrasts, *space)"
    )
    contrasts: list[str] = Field(description="of structural scans, in the order of their channels")
    preprocessing: list[StepRecord]
    view: str
    seed: int
    reference: ReferenceRecord
    scans: list[ScanRecord]
    origin: OriginRecord | None = None
    notes: list[str]
    summary: dict[str, Any] = Field(description="what the method says of its model on held-out voxels")
    curve: list[EpochRecord] = Field(min_length=1)
    constants: dict[str, dict[str, ScaleRecord]] = Field(
        default_factory=dict, description="by score and term, measured on held-out voxels"
    )
    constants_by_k: dict[str, dict[str, dict[str, ScaleRecord]]] = Field(
        default_factory=dict,
        description="the same for numbers of neighbours other than nln.k, by that number",
    )
    versions: dict[str, str]
    files: dict[str, str] = Field(default_factory=dict, description="sha256 of each tensor file")

    @property
    def channels(self) -> int:
        """Values a sample."""
        return math.prod(self.shape)


def write(folder: Path, record: Any, files: Mapping[str, Mapping[str, Tensor]], name: str = RECORD) -> str:
    """Write a detector; ``detector.json`` comes last, so that a folder with it is whole.

    Args:
        folder: Made if absent.
        record: All but the tensors, such as a ``DetectorRecord``.
        files: ``WEIGHTS``, ``REFERENCE``, ``SEARCHES`` and ``PLACES``: tensors by name.
        name: Of the record's file.

    Returns:
        The detector's sha256: that of its ``detector.json``, which holds those of the other files.

    Raises:
        OutputError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
    hashes = {}
    for file, tensors in files.items():
        data = _packed(tensors)
        write_bytes_atomic(folder / file, data)
        hashes[file] = hashlib.sha256(data).hexdigest()
    text = _text(record, hashes)
    write_text_atomic(folder / name, text)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of(record: Any, files: Mapping[str, Mapping[str, Tensor]]) -> str:
    """Return the sha256 that ``write`` would return, without writing; arguments as there."""
    hashes = {file: hashlib.sha256(_packed(tensors)).hexdigest() for file, tensors in files.items()}
    return hashlib.sha256(_text(record, hashes).encode()).hexdigest()


def _packed(tensors: Mapping[str, Tensor]) -> bytes:
    return save_tensors({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})


def _text(record: Any, hashes: Mapping[str, str]) -> str:
    return str(record.model_copy(update={"files": hashes}).model_dump_json(indent=2)) + "\n"


def read(folder: Path) -> tuple[DetectorRecord, dict[str, dict[str, Tensor]], str]:
    """Return record, tensors by file and name, and sha256 of a detector.

    Raises:
        DetectorError: Nothing there, damaged, or written by a newer version.
    """
    path = folder / RECORD
    content, sha256 = read_json(path, "detector")
    record = _validated(path, content)
    # What the format's first detectors had none of.
    later = [name for name in (PLACES,) if name in record.files]
    names = (WEIGHTS, REFERENCE, SEARCHES, *later)
    files = {name: read_tensors(folder / name, record.files) for name in names}
    return record, files, sha256


def read_json(path: Path, what: str) -> tuple[Any, str]:
    """Return what a record's file says, and its sha256.

    Raises:
        DetectorError: It is not there, too large, or no JSON of finite numbers.
    """
    try:
        if not path.is_file():
            raise DetectorError(f"{path.parent}: no {what} here: {path.name} is missing")
        if path.stat().st_size > LARGEST_RECORD_BYTES:
            raise DetectorError(f"{path}: {path.stat().st_size} bytes are too many for a record of settings")
        text = path.read_bytes()
        content = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (OSError, ValueError, RecursionError) as error:
        raise DetectorError(f"{path}: not readable as JSON: {one_line(error)}") from error
    return content, hashlib.sha256(text).hexdigest()


def one_line(error: BaseException) -> str:
    r"""Return an error's words without line breaks; its kind where it has none.

    Examples:
        >>> one_line(RuntimeError("size\n\tmismatch")), one_line(KeyError("a")), one_line(ValueError())
        ('size mismatch', "KeyError: 'a'", 'ValueError')
    """
    words = " ".join(str(error).split())
    if isinstance(error, LookupError) and not isinstance(error, MedNoveltyError):
        return f"{type(error).__name__}: {words}"
    return words or type(error).__name__


def _finite(text: str) -> float:
    """Return a number as JSON spells it; NaN, infinities and what only they can hold are refused."""
    value = float(text)
    if not np.isfinite(value):
        raise ValueError(f"{text[:40]} is no finite number")
    return value


def _validated(path: Path, content: Any) -> DetectorRecord:
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise DetectorError(f"{path}: written in format {version}; this version reads up to {SCHEMA_VERSION}")
    if isinstance(version, int) and 0 < version < SCHEMA_VERSION:
        raise DetectorError(
            f"{path}: written in format {version}, which this version reads no more; fit the detector again"
        )
    try:
        return DetectorRecord.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        words = " ".join(f"{place}: {first['msg']}".split())
        raise DetectorError(f"{path}: not a detector's record: {words}") from error


def read_tensors(path: Path, hashes: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the tensors of a file by name.

    Args:
        path: The file.
        hashes: sha256 by file name, as the record tells them.

    Raises:
        DetectorError: Damaged, or with values that are not finite.
    """
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != hashes.get(path.name):
            raise DetectorError(f"{path}: damaged: its sha256 is not the one in {RECORD}")
        tensors = load_tensors(data)
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise DetectorError(f"{path}: cannot be read: {one_line(error)}") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise DetectorError(f"{path}: tensor {name!r} holds values that are not finite")
    return tensors


def json_types(value: Any) -> Any:
    """Return a value made of JSON types: tuples as lists, NumPy numbers as Python's, NaN as None.

    Examples:
        >>> json_types({"a": (1, np.float32(0.5)), "b": float("nan")})
        {'a': [1, 0.5], 'b': None}
    """
    if isinstance(value, dict):
        return {str(key): json_types(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_types(item) for item in value]
    if isinstance(value, np.ndarray):
        return json_types(value.tolist())
    if isinstance(value, np.generic):
        return json_types(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
