"""In which range the numbers of protocols' settings lie: the same for all protocols, by the setting's name.

Settings check themselves when they are made, and they are made for all cells before the first one is run: a
wrong number is an error of the command, and not one of each cell after its training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from mednovelty.errors import SettingsError
from mednovelty.neighbours.latent_settings import MOST_NEIGHBOURS


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, the lower end left out where ``above``."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        inside = self.low < value if self.above else self.low <= value
        return math.isfinite(value) and inside and value <= self.high

    @property
    def words(self) -> str:
        """What a number must be."""
        if self.low == -math.inf:
            return "must be a finite number"
        if self.high == math.inf:
            return f"must be {'above' if self.above else 'at least'} {self.low:g}"
        if self.above:
            return f"must be above {self.low:g} and at most {self.high:g}"
        return f"must lie between {self.low:g} and {self.high:g}"


COUNT, MOST, POSITIVE, SHARE, FINITE = Range(1), Range(0), Range(0, above=True), Range(0, 1), Range()
"""At least one; at most as many, where 0 is all or none; above 0; from 0 to 1; any number."""
RANGES: Mapping[str, Range] = {
    **dict.fromkeys(("epochs", "batch", "latent", "hidden", "draws", "scaling"), COUNT),
    **dict.fromkeys(
        ("images", "test_images", "pictures", "patients", "compared", "explained", "generated"), MOST
    ),
    **dict.fromkeys(("pretrain_epochs", "warm_up", "tile", "median_px", "patience"), MOST),
    **dict.fromkeys(("learning_rate", "filters", "eta"), POSITIVE),
    **dict.fromkeys(("log_c", "log_sigma_floor", "signs"), FINITE),
    "k": Range(1, MOST_NEIGHBOURS),
    "alpha": SHARE,
    "nu": Range(0, 1, above=True),
    "slope": Range(0, 0.99),
    "share": Range(0, 0.99, above=True),
    "side": Range(8),
    "size": Range(8),
}


def check_numbers(settings: Any, **own: Range) -> None:
    """Refuse a number out of its range; who has none in ``RANGES`` or ``own`` is not looked at.

    Args:
        settings: A dataclass.
        own: Ranges of this one, by the setting's name, where they are not everybody's.

    Raises:
        SettingsError: Which setting, its value, and what it must be.
    """
    ranges = {**RANGES, **own}
    for each in fields(settings):
        given = getattr(settings, each.name)
        if each.name not in ranges:
            continue
        for value in _numbers(given):
            if value not in ranges[each.name]:
                raise SettingsError(f"{each.name}={given}: {ranges[each.name].words}")


def _numbers(given: Any) -> Iterator[float]:
    """Yield the numbers of a setting: itself, or those in it."""
    if isinstance(given, Mapping):
        yield from given.values()
    elif isinstance(given, list | tuple):
        yield from given
    else:
        yield given


__all__ = ["COUNT", "FINITE", "MOST", "POSITIVE", "RANGES", "SHARE", "Range", "check_numbers"]
