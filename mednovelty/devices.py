"""Where to compute."""

from __future__ import annotations

import torch

from mednovelty.errors import SettingsError


def chosen(device: str | torch.device = "auto") -> torch.device:
    """Return a device; ``auto`` is the graphics card where there is one, else the processor.

    Raises:
        SettingsError: There is no such device here.

    Examples:
        >>> chosen("cpu")
        device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise SettingsError(f"no device is called {str(device)!r}; try auto, cpu or cuda") from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type == "cuda" and (found.index or 0) >= count:
        raise SettingsError(f"device {found}: torch sees {count} CUDA devices on this machine")
    if found.type not in ("cpu", "cuda"):
        raise SettingsError(f"device {found}: the devices that are known to work are cpu and cuda")
    return found
