"""The first layers of VGG-11 with batch norms, as trained on ImageNet, from a file that the user has.

The file has the names of torchvision's ``vgg11_bn``, ``features.0.weight`` and so on, as safetensors; nothing
is downloaded, and torchvision is not needed. Images go in as there: three channels, a grey one three times,
from 0 to 1, less the mean of ImageNet's, by their standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mednovelty.errors import SettingsError

CHANNELS = 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, from 0 to 1."""
FROZEN = 15
"""Layers up to the third pooling; Ruff 2021, appendix B.2, keeps these as they are."""
SHARE_OF = ("weight", "bias", "running_mean", "running_var")
_CONVERT = (
    "convert torchvision's file once, where you trust it, with save_file of safetensors.torch: see "
    "fcdd in the README"
)


def check_file(path: str | Path, layers: nn.Sequential) -> None:
    """Refuse a file that does not hold the weights of some layers, without reading them.

    Args:
        path: Of safetensors.
        layers: Convolutions and batch norms in torchvision's places; those without one in VGG-11 come last.

    Raises:
        SettingsError: No such file, of another kind or of other networks; names what does not fit.
    """
    with _opened(path) as file:
        there = set(file.keys())
        for name, own in _wanted(layers):
            if name not in there:
                raise SettingsError(f"{path}: is not VGG-11 with batch norms: it has no {name}; {_CONVERT}")
            shape = tuple(file.get_slice(name).get_shape())
            if shape != tuple(own.shape):
                raise SettingsError(
                    f"{path}: is not VGG-11 with batch norms: its {name} has shape {shape}, not "
                    f"{tuple(own.shape)}"
                )


@torch.no_grad()
def read_into(path: str | Path, layers: nn.Sequential) -> None:
    """Set the weights of layers, and what their batch norms have seen, from a file; see ``check_file``.

    Raises:
        SettingsError: It does not fit, or has numbers that are not finite or variances below 0.
    """
    check_file(path, layers)
    with _opened(path) as file:
        for name, own in _wanted(layers):
            tensor = file.get_tensor(name)
            if not torch.isfinite(tensor).all() or (name.endswith("running_var") and (tensor < 0).any()):
                raise SettingsError(f"{path}: {name} has numbers that are not finite, or variances below 0")
            own.copy_(tensor)


def as_imagenet(images: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return ``(B, 3, H, W)`` as VGG was trained on for ``(B, C, H, W)``, C 1 or 3.

    Args:
        images: In any unit.
        low: ``(C,)``: what is 0, black.
        high: ``(C,)``: what is 1, white.
    """
    low, high = (ends.view(-1, 1, 1) for ends in (low, high))
    shares = ((images - low) / (high - low)).expand(-1, CHANNELS, -1, -1)
    mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return (shares - mean) / std


def _wanted(layers: nn.Sequential) -> Iterator[tuple[str, Tensor]]:
    """Yield name in the file and tensor of all layers but the last, which is not VGG's."""
    for number, layer in enumerate(list(layers)[:-1]):
        for part, tensor in layer.state_dict(keep_vars=True).items():
            if part in SHARE_OF:
                yield f"features.{number}.{part}", tensor


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """Open a file of safetensors; what is wrong with it is a ``SettingsError``."""
    path = Path(path)
    if path.suffix in (".pth", ".pt"):
        raise SettingsError(f"{path}: such files may run code when they are read; {_CONVERT}")
    try:
        # Safetensors has no words of the system's for a file that is not there.
        with path.open("rb"), safe_open(path, framework="pt") as file:
            yield file
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise SettingsError(f"{path}: is no file of safetensors ({error}); {_CONVERT}") from error


__all__ = ["CHANNELS", "FROZEN", "as_imagenet", "check_file", "read_into"]
