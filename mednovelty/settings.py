"""Settings from several places become one checked value: defaults < file < ``a.b=c`` < flags."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mednovelty.errors import SettingsError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """Return a settings file as a tree of dictionaries.

    Raises:
        SettingsError: Not there, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Return ``["train.max_epochs=5"]`` as a tree; values are TOML, and text where they are not.

    Examples:
        >>> parse_assignments(["train.max_epochs=5", "neighbours=exact"])
        {'train': {'max_epochs': 5}, 'neighbours': 'exact'}
    """
    tree: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise SettingsError(
                f"{assignment!r} is no setting; write name=value, for example train.max_epochs=50"
            )
        *parents, last = key.strip().split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise SettingsError(f"{assignment!r}: {parent} has been given a value already")
        place[last] = _value(text.strip())
    return tree


def overlaid(base: Mapping[str, Any], over: Mapping[str, Any], where: str, path: str = "") -> dict[str, Any]:
    """Return a tree of settings with some replaced.

    Args:
        base: All settings there are, with their values.
        over: Those to replace.
        where: What messages call the place that ``over`` is from.
        path: The settings' place in a larger tree.

    Raises:
        SettingsError: There is no such setting; the nearest is suggested.
    """
    merged = dict(base)
    for key, value in over.items():
        if key not in base:
            near = get_close_matches(key, base, n=1)
            hint = f"did you mean {path + near[0]!r}?" if near else f"known: {', '.join(base)}"
            raise SettingsError(f"{where}: no setting is called {path + key!r}; {hint}")
        # Where nothing is named beforehand, as of a sign for each contrast, any name is one.
        if isinstance(base[key], Mapping) and base[key] and isinstance(value, Mapping):
            value = overlaid(base[key], value, where, f"{path}{key}.")
        merged[key] = value
    return merged


def checked(kind: type[T], tree: Mapping[str, Any], where: str) -> T:
    """Return a settings dataclass made from a tree, its types checked.

    Raises:
        SettingsError: A value is of the wrong type or out of its range.
    """
    from pydantic import ValidationError

    try:
        made = _adapter(cast(Any, kind)).validate_python(dict(tree))
    except ValidationError as error:
        first = error.errors()[0]
        own = first.get("ctx", {}).get("error")
        if isinstance(own, SettingsError):  # It says itself which setting is wrong.
            raise SettingsError(f"{where}: {own}") from error
        place = ".".join(map(str, first["loc"]))
        raise SettingsError(f"{where}: {place}: {first['msg']}, got {first['input']!r}") from error
    _refuse_flags(tree, made, where, "")
    return made


@lru_cache(maxsize=128)
def _adapter(kind: type) -> TypeAdapter[Any]:
    """Return what checks a dataclass; making it takes longer than reading a detector's record."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _refuse_flags(written: Any, read: Any, where: str, place: str) -> None:
    """Raise where a number was read from true or false, or one of those from a number.

    Python counts ``True`` as 1, so that ``nln.k=true`` would be one neighbour.
    """
    if isinstance(written, Mapping):
        for key, value in written.items():
            within = read.get(key) if isinstance(read, Mapping) else getattr(read, key, None)
            _refuse_flags(value, within, where, f"{place}.{key}" if place else str(key))
    elif isinstance(written, list | tuple) and isinstance(read, list | tuple):
        for i, (value, within) in enumerate(zip(written, read, strict=False)):
            _refuse_flags(value, within, where, f"{place}.{i}")
    elif isinstance(written, bool) and isinstance(read, int | float) and not isinstance(read, bool):
        raise SettingsError(f"{where}: {place}: must be a number, got {str(written).lower()}")
    elif isinstance(written, int | float) and not isinstance(written, bool) and isinstance(read, bool):
        raise SettingsError(f"{where}: {place}: must be true or false, got {written}")


def tree_of(settings: Any) -> dict[str, Any]:
    """Return a settings dataclass as a tree of dictionaries."""
    return asdict(settings)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
