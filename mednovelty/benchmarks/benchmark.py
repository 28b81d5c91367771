"""What a benchmark is: a published protocol, cut into cells that are run each by itself.

A cell is one training: a method on one class of one data set with one seed. What it depends on is in its
``Task``, and in nothing else: cells can be run in any order, by any number of processes, or again.

A benchmark is a plug-in, a class of the promise below, with a TOML file of its own name beside its module:
see ``plan``. Listing benchmarks reads those files alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from mednovelty.benchmarks.image_methods import Split


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One training. In this order cells with the same images come one after the other.

    Attributes:
        dataset: Name of the data set's manifest.
        label: The class that is left out, or is normal; as the protocol has it.
        seed: Of everything random.
        method: By name.
        variant: Settings that ``--oracle`` tries, as ``latent=24``; empty without it.
    """

    dataset: str
    label: str
    seed: int
    method: str
    variant: str = ""

    @property
    def name(self) -> str:
        """What it is called, in messages and as a file."""
        parts = (self.dataset, self.label, str(self.seed), self.method, self.variant)
        text = "-".join(part for part in parts if part)
        return "".join(c if c.isalnum() or c in "-_.=," else "_" for c in text)


class Measured(NamedTuple):
    """One number of a cell."""

    score: str
    value: float
    metric: str = "auroc"


@dataclass(frozen=True)
class Findings:
    """What came of a cell.

    Attributes:
        measured: Numbers, for the table.
        told: What else there is to tell, JSON types: epochs, verdicts.
    """

    measured: tuple[Measured, ...]
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A cell and all that it depends on.

    Attributes:
        benchmark: Name of the plug-in.
        cell: Which.
        settings: A tree of JSON types, of the benchmark's ``Settings``.
        scores: Which of the method's.
        folder: Of the data set.
        device: Where networks are, as torch names it.
        threads: Of the processor.
        data: Hashes of the files of the data set, and of that beside it.
        beside: Name and folder of another data set that the method needs; empty of most.
        outside: Of a detector of another library: ``library``, ``detector``, ``python``, ``version`` and
            ``versions``; empty of all others.
    """

    benchmark: str
    cell: Cell
    settings: Mapping[str, Any]
    scores: tuple[str, ...]
    folder: Path
    device: str = "cpu"
    threads: int = 1
    data: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    outside: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Benchmark(Protocol):
    """A protocol of a paper."""

    Settings: ClassVar[type]
    """A frozen dataclass; its values stand in the TOML file, none here. One named ``epochs`` is usual."""

    def scores(self, method: str, asked: Sequence[str]) -> tuple[str, ...]:
        """Return which scores of those asked for a method has; ``all`` and groups are spelled out.

        Raises:
            SettingsError: There is no such score at all.
        """

    def run(self, task: Task, settings: Any) -> Findings:
        """Train and test one cell.

        Args:
            task: What, and where.
            settings: The same as its settings, as ``Settings``.
        """


@runtime_checkable
class HandsOut(Protocol):
    """A benchmark that gives its images to detectors that it does not know."""

    def split(self, task: Task, settings: Any) -> Split:
        """Return the images of a cell, as its own methods see them.

        Args:
            task: Data set, class and seed are used.
            settings: As for ``Benchmark.run``.
        """


__all__ = ["Benchmark", "Cell", "Findings", "HandsOut", "Measured", "Task"]
