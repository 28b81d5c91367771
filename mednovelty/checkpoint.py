"""The state of a training on disk: one safetensors file, replaced as a whole.

Tensors and the JSON that belongs to them lie in the same file, so that no crash can tear them
apart. A reader sees the old state or the new one, never a part of either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mednovelty.errors import DetectorError, OutputError
from mednovelty.io.atomic import write_bytes_atomic

FORMAT = 1


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and a JSON state to ``path`` atomically.

    Raises:
        OutputError: The file cannot be written; what was there before is unchanged.
    """
    state = {"format": FORMAT, **state}
    metadata = {"mednovelty": json.dumps(state, allow_nan=False, sort_keys=True)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    write_bytes_atomic(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors (on the CPU) and the JSON state.

    Raises:
        DetectorError: The file is damaged or no checkpoint of this version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})["mednovelty"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DetectorError(
            f"{path.name}: not a readable training checkpoint ({error}); delete it to train from the start"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise DetectorError(
            f"{path.name}: a training checkpoint of another version; delete it to train from the start"
        )
    return tensors, state


__all__ = ["read_checkpoint", "write_checkpoint"]
