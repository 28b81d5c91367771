"""Settings of a detector that learns to find lesions that were never there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mednovelty.anomalies.mixture import Split, refuse_unused_outlines, spelled, split
from mednovelty.errors import SettingsError
from mednovelty.methods.hypersphere_settings import MOST_LAYERS, MOST_UNITS, check_between, check_choice
from mednovelty.nn.augmentation import Augmentation
from mednovelty.plugins import names as plugin_names
from mednovelty.plugins import plugin

Needs = Literal["images", "diffusion"]
USUAL: Mapping[Needs, tuple[str, ...]] = {
    "images": ("contrast",),
    "diffusion": ("exchange",),
}
"""What is trained on where nothing is said."""
COUNTERPARTS = {
    "hyperintense": "lesions",
    "hypointense": "lesions",
    "contrast": "lesions",
    "confetti": "lesions",
    "lesions": "contrast",
    "texture": "noise",
    "noise": "texture",
    "blur": "deformation",
    "deformation": "blur",
    "inversion": "foreign",
    "foreign": "poisson",
    "poisson": "foreign",
    "exchange": "diffusivity",
    "free_water": "diffusivity",
    "fibre_loss": "anisotropy_loss",
    "anisotropy_loss": "diffusivity",
    "diffusivity": "anisotropy_loss",
    "s0": "diffusivity",
}
"""Which family says whether what was learnt of one carries further.

It differs in what changes, in its outlines, or in both. Of bright lesions others are bright, too, so that
there only outlines and sizes are others. Families that exchange no water are validated by such.
"""


@dataclass(frozen=True)
class SyntheticLesionsSettings:
    """Network, loss and anomalies.

    Args:
        network: ``unet``: MONAI's, for slices and windows; ``fcdd``: the fully convolutional network of
            ``fcdd`` for images of that size, with its pixel loss; ``mlp``: for voxels; ``auto``: the first or
            the last.
        width: Of the U-Net's first level.
        hidden: Of the multilayer perceptron.
        inputs: What the network sees of diffusion: ``signals``: all, as normalised; ``maps``: five maps of
            them, see ``nn.qspace_maps``; ``auto``: maps of windows, signals of voxels. Anomalies are planted
            in the signals either way.
        loss: ``cross_entropy``: of the log-odds that the network gives; ``hypersphere``: the same of
            ``log(exp(h) - 1)``, h the pseudo-Huber norm of ``outputs`` numbers: then normals are brought to
            the origin, as by hypersphere classification (``hsc``).
        outputs: Numbers a voxel, with ``loss=hypersphere``.
        anomalies: Families to train on, names as ``mednovelty list anomalies`` tells them; none: those of
            ``USUAL``.
        held_out: Families to validate on, which are not trained on; none: the counterpart of the first.
        anomaly_settings: Of families, by name.
        weights: How often families come, by name; 1 where nothing is said.
        lesion_shapes: Folder of lesion masks whose outlines families with shapes take, one of them at
            least. Only read when fitting.
        clean: Of normal samples, how many get no anomaly; each is drawn anew at each pass.
        weight: Of voxels with an anomaly beside others in the cross entropy. Log-odds are told without it.
            None: 4, in windows, of which an anomaly fills far less, 100.
        training_precision: In what the network computes while it learns, weights and losses being float32:
            ``bfloat16`` takes two thirds of the time on processors that have it (``avx512_bf16``, ``amx``)
            and GPUs, and several times longer on others; slices alone. Maps and the choice of the epoch are
            in float32.
        augmentation: How training samples are changed besides; of diffusion they are mirrored alone.
        mirrored: Whether maps are means of the log-odds of a sample and of its mirror images, along the axes
            that training mirrors (``augmentation.mirror_axes``); scoring takes as many times longer.
        background: What samples show outside of the scan; nothing is planted there. None: the view's.
        weight_decay: Of Adam.
    """

    network: Literal["auto", "unet", "fcdd", "mlp"] = "auto"
    width: int = 24
    hidden: tuple[int, ...] = (128, 128, 128)
    inputs: Literal["auto", "signals", "maps"] = "auto"
    loss: Literal["cross_entropy", "hypersphere"] = "cross_entropy"
    outputs: int = 16
    anomalies: tuple[str, ...] | str = ()
    held_out: tuple[str, ...] | str = ()
    anomaly_settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    lesion_shapes: str = ""
    clean: float = 0.5
    weight: float | None = None
    training_precision: Literal["float32", "bfloat16"] = "float32"
    augmentation: Augmentation = field(default_factory=Augmentation)
    mirrored: bool = True
    background: float | None = None
    weight_decay: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("anomalies", "held_out"):
            given = getattr(self, name)
            object.__setattr__(self, name, tuple(spelled(given)) if given else ())
        object.__setattr__(self, "hidden", tuple(self.hidden))
        check_choice(self, "network", ("auto", "unet", "fcdd", "mlp"))
        check_choice(self, "inputs", ("auto", "signals", "maps"))
        check_choice(self, "training_precision", ("float32", "bfloat16"))
        check_choice(self, "loss", ("cross_entropy", "hypersphere"))
        check_between(self, "width", 1, 1024)
        check_between(self, "outputs", 1, 1024)
        if not 1 <= len(self.hidden) <= MOST_LAYERS or not all(1 <= n <= MOST_UNITS for n in self.hidden):
            raise SettingsError(
                f"hidden={self.hidden}: 1 to {MOST_LAYERS} layers of 1 to {MOST_UNITS} units are taken"
            )
        if not 0 <= self.clean < 1:
            raise SettingsError(
                f"clean={self.clean}: must be at least 0 and below 1, where nothing would be planted"
            )
        if self.weight is not None:
            check_between(self, "weight", 1e-3, 1e6)
        check_between(self, "weight_decay", 0, 1)
        if self.background is not None:
            check_between(self, "background", -1e15, 1e15)

    def resolved(self, *, images: bool, gradients: bool) -> SyntheticLesionsSettings:
        """Return settings that name their network, inputs and families.

        Args:
            images: Whether samples have voxels within.
            gradients: Whether they are of diffusion.

        Raises:
            SettingsError: What is named is not of such samples (``anomalies.kind``), the one of a family
                trained on is held out, too (``anomalies.held_out``), or nothing would take the lesion shapes
                (``anomalies.unused_outlines``).
            UnknownPluginError: No family is called so; the nearest is suggested.
        """
        network = self.network if self.network != "auto" else "unet" if images else "mlp"
        if (network == "mlp") == images:
            raise SettingsError(
                f"network={network}: voxels have an mlp, slices and windows unet or fcdd; choose one of these"
            )
        inputs = self.inputs if self.inputs != "auto" else "maps" if images and gradients else "signals"
        if inputs == "maps" and not gradients:
            raise SettingsError("inputs=maps: are maps of diffusion signals, which these samples are not")
        needs: Needs = "diffusion" if gradients else "images"
        if not (images or gradients):
            raise SettingsError(
                "synthetic_lesions: samples are voxels without gradients, in which nothing can be planted; "
                "choose --recipe slices or patches, or another method", code="anomalies.kind",
            )  # fmt: skip
        anomalies = self.anomalies or USUAL[needs]
        held_out = self.held_out or (counterpart(anomalies, needs),)
        found = replace(self, network=network, inputs=inputs, anomalies=anomalies, held_out=held_out)
        made = found.split()
        if made.training.needs != needs:
            raise SettingsError(
                f"anomalies {', '.join(anomalies)} are of {made.training.needs}, and these samples are of "
                f"{needs}; see mednovelty list anomalies", code="anomalies.kind",
            )  # fmt: skip
        if self.lesion_shapes:
            if not images:
                raise SettingsError(
                    "lesion shapes were given, and samples are single voxels, which have none: leave "
                    "--lesion-shapes out, or choose a recipe of windows, such as qspace-volumes",
                    code="anomalies.unused_outlines",
                )
            refuse_unused_outlines(made.training.families)
        return found

    def split(self) -> Split:
        """Return what to train on and what to validate on, of settings that are resolved."""
        trees = {name: dict(tree) for name, tree in self.anomaly_settings.items()}
        trees = {name.replace("-", "_").lower(): tree for name, tree in trees.items()}
        for name in (*self.anomalies, *self.held_out):
            if (
                self.lesion_shapes
                and name in self.anomalies
                and hasattr(plugin("anomalies", name)(), "shapes")
            ):
                trees.setdefault(name, {}).setdefault("shapes", {}).setdefault("kinds", ["outline"])
        if "lesions" in self.held_out and (signs := self._signs(trees)):
            trees.setdefault("lesions", {}).setdefault("signs", signs)
        return split(self.anomalies, self.held_out, trees, self.weights)

    def _signs(self, trees: Mapping[str, Mapping[str, Any]]) -> list[float]:
        """Return which way the first family changes contrasts, that those held out go the same; none: any."""
        way = {"hyperintense": 1, "hypointense": -1}.get(self.anomalies[0])
        if way is None or len(self.anomalies) > 1:
            return []
        return [way * sign for sign in trees.get(self.anomalies[0], {}).get("signs") or [1]]


def counterpart(anomalies: tuple[str, ...] | str, needs: Needs) -> str:
    """Return a family to hold out where some are trained on.

    Raises:
        SettingsError: All there are of the kind are trained on (``anomalies.held_out``).
    """
    wanted = [COUNTERPARTS[name] for name in anomalies if name in COUNTERPARTS]
    others = [name for name in plugin_names("anomalies") if plugin("anomalies", name).needs == needs]
    for name in (*wanted, *others):
        if name not in anomalies:
            return name
    raise SettingsError(
        f"all families of {needs} are trained on, and none is left to validate on; leave one out, or name "
        "one of your own", code="anomalies.held_out",
    )  # fmt: skip


def defaults(*, images: bool) -> dict[str, Any]:
    """Return settings of fitting, as a tree, where those of this method are not everybody's.

    Training ends by one minus the average precision on the held-out family, a number between 0 and 1.

    Args:
        images: Whether samples have voxels within.
    """
    training: dict[str, Any] = {
        "learning_rate": 1e-3,
        "max_epochs": 60,
        "patience": 12,
        "plateau_patience": 5,
        "plateau_factor": 0.3,
        "min_learning_rate": 1e-5,
        "min_improvement": 1e-3,
        "gradient_clip": 10.0,
        "average": 0.97,
    }
    if not images:
        return {
            "scores": ["synthetic_lesions"],
            "train": training | {"epoch_voxels": 500_000, "batch_size": 4096},
        }
    training |= {"validation_voxels": 512, "min_steps": 50}
    return {"scores": ["synthetic_lesions_map", "synthetic_lesions"], "train": training}


__all__ = ["COUNTERPARTS", "USUAL", "SyntheticLesionsSettings", "counterpart", "defaults"]
