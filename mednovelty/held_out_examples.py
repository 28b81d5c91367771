"""A few held-out samples that lie beside a detector, so that its page can show what it makes of them.

``MODEL/examples.safetensors`` holds ``samples``, ``(n, C)`` float32 as the network sees them, and the sha256
of the detector that they are of. It is no part of the detector: nothing is scored by it, its hash is in no
record, and who passes the detector on without any picture of a scan removes it, with ``index.html``.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from mednovelty.capabilities import BOTH_WAYS, offered_by
from mednovelty.errors import OutputError
from mednovelty.io.atomic import write_bytes_atomic

log = logging.getLogger("mednovelty")

EXAMPLES = "examples.safetensors"
MOST_VOXELS, MOST_IMAGES = 64, 8
MOST_BYTES = 16 << 20
"""Of all of them; windows of diffusion are megabytes each."""


def examples_of(sample: Tensor, method: object, shape: tuple[int, ...]) -> Tensor | None:
    """Return a few of some held-out samples, evenly; None where the model does not reconstruct.

    Args:
        sample: ``(n, C)``.
        method: Of the model.
        shape: Of a sample.
    """
    if not set(BOTH_WAYS) <= set(offered_by(method)):
        return None
    most = MOST_VOXELS if len(shape) == 1 else MOST_IMAGES
    count = min(len(sample), most, max(1, MOST_BYTES // (4 * math.prod(shape))))
    rows = np.unique(np.linspace(0, len(sample) - 1, count).round().astype(np.int64))
    return sample[torch.from_numpy(rows).to(sample.device)].detach().cpu()


def write_examples(folder: Path, examples: Tensor | None, sha256: str) -> None:
    """Write the examples of a detector, or remove those of another.

    Raises:
        OutputError: The folder cannot be written.
    """
    path = folder / EXAMPLES
    if examples is not None:
        mark = np.frombuffer(bytes.fromhex(sha256), np.uint8)
        write_bytes_atomic(path, save({"samples": examples.numpy().astype(np.float32), "detector": mark}))
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: of another detector, cannot be removed: {error.strerror}") from error


def read_examples(folder: Path, sha256: str, channels: int) -> Tensor | None:
    """Return the examples of a detector, ``(n, C)``; None where there are none.

    A detector is whole without them: what is damaged, or of another detector, is told and left aside.
    """
    path = folder / EXAMPLES
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > 2 * MOST_BYTES:
            raise ValueError("too large")
        found = load(path.read_bytes())
        samples, mark = found["samples"], found["detector"].tobytes().hex()
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        log.warning("%s: cannot be read and is left aside: %s", path, error)
        return None
    fits = samples.ndim == 2 and samples.shape[1] == channels and samples.dtype == np.float32
    if mark != sha256 or not fits or not len(samples) or not np.isfinite(samples).all():
        log.warning("%s: not of this detector; it is left aside", path)
        return None
    return torch.from_numpy(samples.copy())


__all__ = ["EXAMPLES", "examples_of", "read_examples", "write_examples"]
