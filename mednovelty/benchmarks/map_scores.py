"""Which scores the models of a method can give, where protocols are about maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mednovelty.capabilities import WORDS, asked_by, offered_by
from mednovelty.plugins import plugin
from mednovelty.score_names import resolve_names


def scores_given(
    method: Any, asked: Sequence[str], default: Sequence[str], *, maps_only: bool = False
) -> tuple[str, ...]:
    """Return the scores that a method's models can give, of those asked for.

    Args:
        method: A plug-in's class.
        asked: Names and groups; ``all``: the default.
        default: What ``all`` is; none: what the method's detectors have unasked.
        maps_only: Whether those that say nothing of where are left out.

    Raises:
        UnknownPluginError: There is no such score or group.
    """
    own = method.defaults(images=True).get("scores", ()) if hasattr(method, "defaults") else ()
    offers, found = offered_by(method), list[str]()
    for name in asked:
        # Of all there are: that a method can give none of a group is no mistake of the name.
        found += (
            (default or own) if name == "all" else resolve_names([name], images=True, offers=tuple(WORDS))
        )
    kinds = {name: plugin("scorers", name) for name in dict.fromkeys(found)}
    return tuple(
        name
        for name, scorer in kinds.items()
        if set(asked_by(scorer)) <= set(offers)
        and "is_b0" not in scorer.needs
        and (scorer.level == "voxel" or not maps_only)
    )


__all__ = ["scores_given"]
