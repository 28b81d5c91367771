"""What the command lines of benchmarks share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows a module's docstring as it stands."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_options(parser: argparse.ArgumentParser, default: Any, names: Iterable[str]) -> None:
    """Add an option for each of some fields of a dataclass, of the type and with the value it has there.

    Examples:
        >>> parser = parser_of("Times something.")
        >>> add_options(parser, argparse.Namespace(first_seed=3), ["first_seed"])
        >>> parser.parse_args(["--first-seed", "5"]).first_seed, parser.parse_args([]).first_seed
        (5, 3)
    """
    for name in names:
        value = getattr(default, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)


def add_classes(parser: argparse.ArgumentParser, default: Iterable[int]) -> None:
    """Add ``--classes``, of ten."""
    parser.add_argument("--classes", type=int, nargs="+", choices=range(10), default=list(default))


def runs_of(measure: Callable[..., dict[str, Any]], folder: Path, options: Any) -> list[dict[str, Any]]:
    """Measure each of ``options.methods`` on each of ``options.classes``, telling each run on stderr."""
    runs = []
    for name in options.methods:
        for label in options.classes:
            runs.append(measure(folder, name, label, options))
            print(json.dumps(runs[-1]), file=sys.stderr)
    return runs


__all__ = ["add_classes", "add_options", "parser_of", "runs_of"]
