"""Settings of FCDD: fully convolutional data description.

Constants are those of Ruff, "Deep One-Class Learning", 2021, appendix B.2, and of its released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mednovelty.errors import SettingsError
from mednovelty.methods.hypersphere_settings import MOST_LAYERS, MOST_UNITS, check_between, check_choice
from mednovelty.nn.fully_convolutional import LAYOUTS, layout_for


@dataclass(frozen=True)
class FCDDSettings:
    """Network, loss and anomalies.

    Args:
        network: One of ``nn.fully_convolutional``, or ``auto``: the one made for images of about that size.
        filters: Of its convolutions but the last; none: the network's own, of windows a quarter of them.
        weights: File of VGG-11 with batch norms as trained on ImageNet, see ``nn.pretrained``; the network is
            then ``vgg11``, for slices of one or three contrasts, and its layers up to the third pooling stay
            as they are. Only read when fitting. None: nothing is read.
        sigma: Of the Gaussian by which an output spreads over the image, in pixels; None: the network's own.
        loss: ``image``: of the mean of the map, Eq. (3.1); ``pixel``: of the map drawn back onto the image,
            against where the anomalies are.
        anomalies: What is planted in training samples: ``confetti``, ``lesions`` (see
            ``nn.planted_anomalies``) or ``none``; then labelled anomalies are needed.
        share: Of a batch, how many are to be anomalies: with this probability one is planted in a sample,
            anew each time it is seen; labelled anomalies and outliers of the batch count.
        truth: Where planted anomalies are, for the pixel loss: ``region``, in their squares or blobs;
            ``whole``, in all of the image, as in the released code.
        eta: Weight of a labelled or planted sample beside an unlabelled one.
        background: What samples show outside of the scan; lesions are not planted there. None: the view's
            ``background``.
        weight_decay: Of Adam.
    """

    network: Literal["auto", "cnn28", "cnn32", "cnn128", "vgg11"] = "auto"
    filters: tuple[int, ...] = ()
    weights: str = ""
    sigma: float | None = None
    loss: Literal["image", "pixel"] = "image"
    anomalies: Literal["confetti", "lesions", "none"] = "confetti"
    share: float = 0.5
    truth: Literal["region", "whole"] = "region"
    eta: float = 1.0
    background: float | None = None
    weight_decay: float = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "filters", tuple(self.filters))
        check_choice(self, "network", ("auto", *LAYOUTS))
        check_choice(self, "loss", ("image", "pixel"))
        check_choice(self, "anomalies", ("confetti", "lesions", "none"))
        check_choice(self, "truth", ("region", "whole"))
        if len(self.filters) > MOST_LAYERS or not all(1 <= n <= MOST_UNITS for n in self.filters):
            raise SettingsError(
                f"filters={self.filters}: at most {MOST_LAYERS} layers of 1 to {MOST_UNITS} filters are taken"
            )
        if self.weights and (self.filters or self.network not in ("auto", "vgg11")):
            raise SettingsError(
                f"weights={self.weights!r} are those of vgg11 with its own filters; leave out "
                f"network={self.network!r} and filters"
            )
        if self.sigma is not None:
            check_between(self, "sigma", 0.01, 1e4)
        if not 0 < self.share < 1:
            raise SettingsError(
                f"share={self.share}: must lie between 0 and 1, both left out; a training on normal samples "
                "alone or on anomalies alone learns a constant"
            )
        check_between(self, "eta", 1e-6, 1e6)
        if self.background is not None:
            check_between(self, "background", -1e15, 1e15)
        check_between(self, "weight_decay", 0, 1)

    def network_for(self, shape: Sequence[int]) -> str:
        """Return which network samples of a shape, ``(C, *space)``, get."""
        if self.weights:
            return "vgg11"
        return layout_for(shape[1:] or (1,)) if self.network == "auto" else self.network

    def sigma_for(self, shape: Sequence[int]) -> float:
        """Return sigma for samples of a shape, in pixels."""
        return LAYOUTS[self.network_for(shape)].sigma if self.sigma is None else self.sigma


def defaults(*, images: bool) -> dict[str, Any]:
    """Return settings of fitting, as a tree, where those of FCDD are not everybody's.

    The thesis trains for 400 epochs and more at a rate of 1e-3 that falls. Here the rate falls, and training
    ends, by the loss of held-out samples with and without anomalies planted in them, a number around 1.

    Args:
        images: Whether samples have voxels within; where they do not, FCDD refuses them.
    """
    training = {
        "learning_rate": 1e-3,
        "max_epochs": 200,
        "patience": 15,
        "plateau_patience": 6,
        "plateau_factor": 0.3,
        "min_learning_rate": 1e-6,
        "min_improvement": 1e-3,
    }
    return {"scores": ["fcdd_map", "fcdd"], "train": training}


__all__ = ["FCDDSettings", "defaults"]
