"""Networks of convolutions and pooling alone, from an image to a small map of one channel.

======= ===================================================== ===== ====== ================
network layers                                                field stride made for
======= ===================================================== ===== ====== ================
cnn28   128 (5), pool, 128 (5) plain, pool                       16      4 28 pixels
cnn32   128, pool, 256, 256, pool, 128 plain                     22      4 32 pixels
cnn128  32, pool, 64, pool, 128, 128, 128                        34      4 about 128 pixels
vgg11   64, pool, 128, pool, 256, 256, pool, 512, 512            62      8 224 pixels
======= ===================================================== ===== ====== ================

Numbers are filters of a convolution 3, or 5 where that stands beside, with a batch norm and a leaky ReLU, or
none of both where it says plain; a convolution 1 to one channel comes last. ``cnn28``, ``cnn32`` and
``vgg11`` are those of Ruff, "Deep One-Class Learning", 2021, appendix B.2; ``cnn128`` is in between and our
own, with a field that is about as large a share of the image, and fine maps. All take images of any size, and
windows, for which each layer has a quarter of its filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Generator, Tensor, nn

from mednovelty.errors import SettingsError
from mednovelty.nn.layers import CONVOLUTIONS, draw_layers, neutral_norm, pixelwise, zeroed
from mednovelty.nn.receptive_field import output_sides, receptive_fields

_POOLS: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
FEWER_IN_WINDOWS = 4


class Convolution(NamedTuple):
    """One convolution.

    Attributes:
        filters: Channels it gives.
        kernel: Its width.
        plain: Without batch norm and activation.
    """

    filters: int
    kernel: int = 3
    plain: bool = False


class Layout(NamedTuple):
    """A network's layers.

    Attributes:
        layers: Convolutions, and None for a max pooling 2.
        sigma: With which its maps are drawn back onto images, in pixels; the thesis', of ``cnn128`` its
            stride.
        slope: Of the leaky ReLU; 0: a ReLU.
        eps: Of batch norms.
    """

    layers: tuple[Convolution | None, ...]
    sigma: float
    slope: float
    eps: float


_VGG = (Convolution(64), None, Convolution(128), None, *(Convolution(256),) * 2)

LAYOUTS = {
    "cnn28": Layout((Convolution(128, 5), None, Convolution(128, 5, plain=True), None), 1.2, 0.01, 1e-4),
    "cnn32": Layout(
        (Convolution(128), None, *(Convolution(256),) * 2, None, Convolution(128, plain=True)),
        1.2,
        0.01,
        1e-4,
    ),
    "cnn128": Layout(
        (Convolution(32), None, Convolution(64), None, *(Convolution(128),) * 3), 4.0, 0.01, 1e-4
    ),
    "vgg11": Layout((*_VGG, None, *(Convolution(512),) * 2), 12.0, 0.0, 1e-5),
}


def layout_for(space: Sequence[int]) -> str:
    """Return the network for images with these sides, by the largest.

    Examples:
        >>> [layout_for((side, 20)) for side in (28, 32, 64, 128, 224)]
        ['cnn28', 'cnn32', 'cnn32', 'cnn128', 'vgg11']
    """
    side = max(space)
    return next(
        (name for most, name in ((28, "cnn28"), (64, "cnn32"), (176, "cnn128")) if side <= most), "vgg11"
    )


def filters_of(name: str) -> list[int]:
    """Return the filters of a network's convolutions but the last, for slices."""
    return [layer.filters for layer in LAYOUTS[name].layers if layer is not None]


class FullyConvolutional(nn.Module):
    """From ``(B, C, *space)`` images to ``(B, *sides)`` maps. Weights are zero until they are drawn or read.

    Args:
        shape: ``(C, *space)``.
        name: Of the layout.
        filters: Of its convolutions but the last; none: the layout's, of windows a quarter of them.
        frozen: How many of the first layers stay as they are, whatever is trained; their batch norms, too.

    Attributes:
        sides: Of the maps.
        fields: What of the image an output sees, along each axis.

    Raises:
        SettingsError: Not two or three axes of space, an image too small for any output, or filters for
            another number of layers.
    """

    def __init__(self, shape: Sequence[int], name: str, filters: Sequence[int] = (), frozen: int = 0) -> None:
        super().__init__()
        axes, layout = len(shape) - 1, LAYOUTS[name]
        if axes not in CONVOLUTIONS:
            raise SettingsError(
                f"fcdd takes slices (C, I, J) or windows (C, I, J, K), which have somewhere to look at, not "
                f"{axes} axes of space; choose deep_svdd or hsc for voxels"
            )
        standard = [max(n // (FEWER_IN_WINDOWS if axes == 3 else 1), 1) for n in filters_of(name)]
        if filters and len(filters) != len(standard):
            raise SettingsError(
                f"filters={tuple(filters)}: the network {name} has {len(standard)} convolutions before "
                "its last"
            )
        self.slope, self.frozen = layout.slope, frozen
        self.layers = nn.Sequential(*_layers(shape[0], axes, layout, list(filters or standard)))
        self.fields = receptive_fields(self.layers, axes)
        self.sides = output_sides(self.layers, shape[1:])
        if min(self.sides) < 1:
            raise SettingsError(
                f"an image of {' x '.join(map(str, shape[1:]))} is too small for the network {name}, which "
                f"divides sides by {self.fields[0].stride}; cut larger images"
            )

        self.layers[:frozen].requires_grad_(False)

    def train(self, mode: bool = True) -> FullyConvolutional:
        """Set the mode; frozen layers stay in evaluation mode: in the released code their norms do not."""
        super().train(mode)
        self.layers[: self.frozen].eval()
        return self

    def initialise(self, generator: Generator) -> None:
        """Draw all weights; batch norms forget what they have seen. The generator is on the CPU."""
        draw_layers(self, generator, self.slope)
        for layer in self.layers:
            if hasattr(layer, "reset_running_stats"):
                layer.reset_parameters()  # type: ignore[operator]

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(B, *sides)`` for ``(B, C, *space)``."""
        return self.layers(pixelwise(images)).squeeze(1)


def _layers(channels: int, axes: int, layout: Layout, filters: list[int]) -> list[nn.Module]:
    made: list[nn.Module] = []
    convolution, widths = CONVOLUTIONS[axes], iter(filters)
    for layer in layout.layers:
        if layer is None:
            made.append(_POOLS[axes](2))
            continue
        width = next(widths)
        made.append(zeroed(convolution, channels, width, layer.kernel, padding=layer.kernel // 2))
        if not layer.plain:
            made += [neutral_norm(axes, width, eps=layout.eps), nn.LeakyReLU(layout.slope)]
        channels = width
    return [*made, zeroed(convolution, channels, 1, 1)]


__all__ = ["LAYOUTS", "Convolution", "FullyConvolutional", "Layout", "filters_of", "layout_for"]
