"""What the command lines of benchmarks share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
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


__all__ = ["add_options", "parser_of"]
