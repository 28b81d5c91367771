"""What the parts ask of each other. No modules here, only promises."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import Generator, Tensor
from torch.distributions import Independent

from mednovelty.scan import Grid, Scan, Volume
from mednovelty.types import Latents, Samples

if TYPE_CHECKING:
    from mednovelty.batch import Batch


@runtime_checkable
class Autoencoder(Protocol):
    """Two maps between spaces, as the scorers see them.

    Both return something with a ``mean``: a distribution, or of a deterministic network a ``nn.point.Point``,
    which has nothing else. What a model offers besides is in ``mednovelty.capabilities``; so is how a score
    says that it asks for it.
    """

    channels: int
    """C."""

    def encode(self, x: Samples) -> Any:
        """Return latents of batch ``(B,)``, event ``(Z,)``."""

    def decode(self, z: Latents) -> Any:
        """Return samples of batch ``(B,)``, event ``(C,)``, in the units of x."""


@runtime_checkable
class ProbabilisticAutoencoder(Autoencoder, Protocol):
    """A VAE: both maps return distributions, and there is a prior."""

    @property
    def prior(self) -> Independent:
        """p(z), event shape ``(Z,)``."""

    def encode(self, x: Samples) -> Independent:
        """Return the posterior q(z|x), batch ``(B,)``, event ``(Z,)``."""

    def decode(self, z: Latents) -> Independent:
        """Return the likelihood p(x|z), batch ``(B,)``, event ``(C,)``, in the units of x."""


class Linearised(Protocol):
    """Gaussians p(x|z) at some latents, in the units of x, with their derivatives by the latents."""

    @property
    def mean(self) -> Tensor:
        """Return ``(B, C)`` means."""

    @property
    def log_sigma(self) -> Tensor:
        """Return ``(B, C)`` log standard deviations."""

    def pull(self, by_mean: Tensor, by_log_sigma: Tensor | None = None) -> Latents:
        """Return the gradient by z, ``(B, Z)``, of what has these ``(B, C)`` derivatives by both."""

    def slopes(self, *, mean_only: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return d mean_c / d z and d log_sigma_c / d z at ``[b, z, c]``, ``(B, Z, C)`` each.

        Args:
            mean_only: Give None for the second.
        """


@runtime_checkable
class SmoothedDecoder(Protocol):
    """What an autoencoder may offer beside ``decode``, to make optimising scores faster and better.

    Without it they differentiate ``decode`` automatically, kinks and all.
    """

    def decode_smoothed(self, z: Latents, smoothing: float) -> Linearised:
        """Return p(x|z) of a decoder whose kinks, as those of ReLUs, are rounded off.

        Args:
            z: ``(B, Z)``.
            smoothing: How widely, above 0; towards 0 the result becomes that of ``decode``.
        """


class Method(Protocol):
    """What is trained: an architecture, a start, a loss. The loop itself is ``mednovelty.train``.

    A method may also have ``offers`` and ``lacks`` (see ``build``); ``semi_labels``, which numbers training
    rows may end with (-1: labelled anomalies, 0: no label, 1: labelled normals), and ``needs_anomalies``,
    True where it cannot do without the first; ``defaults(images=...)``, settings of fitting that it asks for,
    as a tree; and ``parameter_groups(model)``, as of torch's optimisers, where ``rate`` multiplies the
    learning rate of some weights: for opponents, whose losses are added up after what one of them must not
    move was held fixed (``methods.adversarial_autoencoders``); ``keeps_own``, beginnings of names of buffers
    that describe the training samples, such as what their channels were divided by, and that a training which
    starts from another detector's weights does not take over; and ``finish(model, training, validation,
    seed)``, which adds to a trained model what needs whole scans.

    ``mednovelty.testing.contracts.METHOD_CHECKS`` holds a method to what is written here.
    """

    Settings: ClassVar[type]
    """A frozen dataclass whose defaults work; ``Method(settings)`` makes the method."""
    settings: Any

    def build(self, shape: tuple[int, ...]) -> Any:
        """Return the ``nn.Module`` for samples of a shape; ``start`` or a file sets its weights.

        The shape is ``(C,)`` for voxels and ``(C, *space)`` for slices and windows, whose values come laid
        flat, in that order. The module is an ``Autoencoder``: a ``ProbabilisticAutoencoder``, or else the
        method tells in ``offers`` what it has instead (``mednovelty.capabilities``), and the module has
        ``latents``, Z. One that does not encode or decode says so in ``lacks``, and its latents are 0. Under
        ``torch.device("meta")`` nothing of it is allocated: that is how the shapes in a file are checked
        before memory is taken.
        """

    def start(self, model: Any, normals: Any, generator: Generator) -> None:
        """Set the weights before training, from the training voxels (a ``VoxelCache``).

        A model without weights, but with buffers, is fitted here, and no step of training is taken.
        """

    def loss(self, model: Any, x: Samples, epoch: int, generator: Generator) -> Mapping[str, Tensor]:
        """Return ``loss`` and the named terms it is made of, each a mean over the batch."""

    def validate(self, model: Any, batches: Iterable[Samples], generator: Generator) -> Mapping[str, float]:
        """Return means over all samples; lower ``loss`` is better."""

    def assess(self, model: Any, training: Any, validation: Any, generator: Generator) -> Mapping[str, Any]:
        """Say how well a trained model describes voxels that it was not trained on.

        Args:
            model: Trained, in evaluation mode.
            training: The ``VoxelCache`` it was trained on.
            validation: A ``VoxelCache`` of voxels held out, ``(n, C)`` of the same channels.
            generator: Of whatever is random, on the CPU; same state, same answer.

        Returns:
            JSON types by name, kept in the detector's record and shown on its card. ``verdict`` (str) is
            one sentence for the user; ``collapsed`` (bool) says that the scores are not to be relied on,
            and the verdict then says what to do. Log likelihoods are in nats per voxel.
        """


@runtime_checkable
class Scorer(Protocol):
    """Turns samples into novelty scores. Higher is more novel, always."""

    level: ClassVar[Literal["sample", "voxel"]]
    needs: ClassVar[tuple[str, ...]]
    """Of ``model``, ``reference`` and ``is_b0``: what its constructor takes, by those names.

    A scorer may also have ``options``, of ``blur`` and ``copies``: what its constructor takes by those names
    and has defaults for; ``asks``, see ``mednovelty.capabilities``; ``differentiates``, see
    ``methods.input_gradients.MapScorer``; and ``terms``, see ``mednovelty.calibration``.
    """
    reference_parts: ClassVar[tuple[str, ...]]
    """Which parts of the reference it compares with: ``input``, ``latent_mean``, ..."""
    unit: ClassVar[str]

    def score(self, batch: Batch) -> Tensor:
        """Return ``(B,)`` scores, or ``(B, *space)``; no sample's score depends on another's."""


class ScanJudgement(NamedTuple):
    """What a ``ScanScorer`` finds of one scan of n voxels."""

    scores: np.ndarray
    """``(n,)`` float32: what each voxel adds; their mean is the scan's own score."""
    images: Mapping[str, np.ndarray]
    """Further ``(n,)`` maps that say why, by name."""
    told: Mapping[str, Any]
    """The scan's own scores, JSON types: at least ``overall`` and ``p_value`` among normal scans."""


@runtime_checkable
class ScanScorer(Protocol):
    """Judges a scan as a whole. A voxel's part depends on all others: no ``Scorer`` could say it.

    ``asks`` and ``unit`` are as of a ``Scorer``; it is made from the model alone.
    """

    level: ClassVar[Literal["scan"]]
    asks: ClassVar[tuple[str, ...]]
    unit: ClassVar[str]

    def judge(self, blocks: Callable[[], Iterable[Samples]]) -> ScanJudgement:
        """Return what is found of a scan; ``blocks`` gives its ``(n, C)`` voxels whenever it is called."""


@runtime_checkable
class Preprocessor(Protocol):
    """Changes a scan in one way; fitted on normals, then frozen."""

    def __call__(self, scan: Scan) -> Scan:
        """Return the scan, changed; the scan given stays as it is."""

    def state(self) -> dict[str, Any]:
        """Return settings and fitted numbers as JSON types; ``Class(**state)`` makes it again."""


class View(Protocol):
    """Cuts a scan into samples and puts scores back where they came from.

    A view may also have ``spacing_mm(scan)``, of its samples' axes, for what is smoothed in mm;
    ``centres(scan, start, stop)``, ``(n, 3)``, the middles of samples in voxels, by which it is told later
    where a normal comes from; ``slice_axis(scan)``, the voxel axis along which its slices lie;
    ``covered(scan)``, which voxels of the mask its samples show; ``touches(scan, lesion, start, stop)``, for
    healthy parts of patients; and ``stitch``, with which it drives the scoring itself.
    """

    def shape(self, channels: int) -> tuple[int, ...]:
        """Return ``(C, *space)`` of a sample."""

    def cut(self, scan: Scan, start: int, stop: int) -> np.ndarray:
        """Return samples ``start`` to ``stop``, ``(stop - start, C, *space)`` float32."""

    def count(self, scan: Scan) -> int:
        """Return how many samples ``cut`` can give."""

    def assemble(self, scan: Scan, scores: np.ndarray, name: str) -> Volume:
        """Return the map ``(1, I, J, K)``, 0 outside the mask."""


@runtime_checkable
class Neighbours(Protocol):
    """Finds the nearest of N fixed vectors; built once, then asked."""

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return ``(B, k)`` squared Euclidean distances, ascending, and ``(B, k)`` int64 indices."""


class VolumeSource(Protocol):
    """An image file that is open for reading one volume after another."""

    path: Path
    name: str
    grid: Grid
    ndim: int
    n_channels: int
    dtype: np.dtype[Any]
    slope: float
    inter: float
    warnings: list[str]

    def volumes(self) -> abc.Generator[np.ndarray]:
        """Yield ``(I, J, K)`` arrays in the stored dtype; after the last the file is verified."""

    @property
    def sha256(self) -> str:
        """Of the file's bytes; known once ``volumes`` is exhausted."""


class Reader(Protocol):
    """Opens one kind of image file."""

    suffixes: ClassVar[tuple[str, ...]]

    @staticmethod
    def open(path: Path, settings: Any) -> VolumeSource:
        """Return the file, its header checked; raises ``ScanError`` naming the file.

        ``settings`` are ``NiftiSettings``: limits on sizes, and whether an unknown orientation is taken.
        """


__all__ = [
    "Autoencoder",
    "Linearised",
    "Method",
    "Neighbours",
    "Preprocessor",
    "ProbabilisticAutoencoder",
    "Reader",
    "ScanJudgement",
    "ScanScorer",
    "Scorer",
    "SmoothedDecoder",
    "View",
    "VolumeSource",
]
