"""The numbers of a paper's table, as a protocol's TOML file has them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mednovelty.errors import SettingsError
from mednovelty.settings import overlaid


@dataclass(frozen=True, slots=True)
class Metric:
    """What a number is.

    Attributes:
        words: A sentence that stands above its table; empty: it needs none.
        lower_is_better: So that above the paper's falls short of it.
        percent: Whether it is in percent, as here; else it is a share.
    """

    words: str = ""
    lower_is_better: bool = False
    percent: bool = False

    @property
    def least(self) -> float:
        """A difference that is none: half a percent."""
        return 0.5 if self.percent else 0.005


def metrics_of(tree: Mapping[str, Any], where: str) -> dict[str, Metric]:
    """Return metrics by name from the tree of a TOML file.

    Raises:
        SettingsError: A key is unknown.
    """
    known: dict[str, Any] = {"words": "", "lower_is_better": False, "percent": False}
    return {name: Metric(**overlaid(known, entry, f"{where}.{name}")) for name, entry in tree.items()}


@dataclass(frozen=True, slots=True)
class Published:
    """A row of the paper's table, as shares.

    Attributes:
        dataset: Which.
        method: As here.
        score: As here.
        metric: As here.
        name: As in the paper.
        values: By class.
        spreads: Standard deviations over seeds, by class, where the paper has them.
        mean: Over all classes; None where the paper has but some of them.
        mean_spread: Its standard deviation over seeds, where the paper has it.
        unsure: Whether it is not known that the paper's number is of this metric, as of a convention that the
            paper does not tell: nothing falls short of it.
        shown: What the paper's method was shown, as outliers; empty: nothing, or as ours.
    """

    dataset: str
    method: str
    score: str
    metric: str
    name: str
    values: Mapping[str, float]
    spreads: Mapping[str, float]
    mean: float | None
    mean_spread: float | None = None
    unsure: bool = False
    shown: str = ""


def published_row(row: Mapping[str, Any], classes: Sequence[str], where: str) -> Published:
    """Return a row from the tree of a TOML file.

    Args:
        row: ``values`` and ``spread`` are lists in the order of the classes, or tables by class.
        classes: Of the protocol.
        where: What messages call the place.

    Raises:
        SettingsError: A key is unknown, or there is no number, or not one a class.
    """
    known = dict.fromkeys(("dataset", "method", "score", "name", "values", "spread", "mean", "mean_spread"))
    row = overlaid(known | {"metric": "auroc", "percent": False, "unsure": False, "shown": ""}, row, where)
    factor = 0.01 if row["percent"] else 1.0
    values, spreads = (
        {name: factor * float(value) for name, value in _by_class(row, key, classes, where).items()}
        for key in ("values", "spread")
    )
    if row["mean"] is None and not values:
        raise SettingsError(f"{where}: {row['name']!r} has neither values nor mean")
    mean, mean_spread = (None if row[key] is None else factor * float(row[key])
                         for key in ("mean", "mean_spread"))  # fmt: skip
    if mean is None and len(values) == len(classes):
        mean = math.fsum(values.values()) / len(values)
    names = {key: str(row[key]) for key in ("dataset", "method", "score", "metric", "name", "shown")}
    return Published(**names, values=values, spreads=spreads, mean=mean, mean_spread=mean_spread,
                     unsure=bool(row["unsure"]))  # fmt: skip


def _by_class(row: Mapping[str, Any], key: str, classes: Sequence[str], where: str) -> Mapping[str, Any]:
    given = row[key] or {}
    if isinstance(given, Mapping):
        return overlaid(dict.fromkeys(classes), given, where) and given
    if len(given) != len(classes):
        raise SettingsError(
            f"{where}: {key} of {row['name']!r} are {len(given)} numbers for {len(classes)} classes"
        )
    return dict(zip(classes, given, strict=True))


__all__ = ["Metric", "Published", "metrics_of", "published_row"]
