"""Scores by name: which there are, in which groups, what they need and what is told of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mednovelty.capabilities import BOTH_WAYS, PROBABILISTIC, asked_by
from mednovelty.errors import UnknownPluginError
from mednovelty.papers import PAPERS, homes
from mednovelty.plugins import names as plugin_names
from mednovelty.plugins import plugin

EVERY_VAE = (*PROBABILISTIC, *BOTH_WAYS)
LOCALISATION = ("localisation", "localisation_options")
"""Groups of scores that say where in a sample something is, and of their relatives."""


def resolve_names(
    asked: Sequence[str], *, images: bool = False, offers: Sequence[str] = EVERY_VAE
) -> list[str]:
    """Return the scores that were asked for, groups spelled out, each once, in the order of asking.

    Args:
        asked: Names of scores, of groups (``latent``: the scores whose ``group`` that is, in the order of
            their equations), ``all`` (every score but the group ``raw``, which looks at no model) or ``fast``
            (``all`` without the group ``generated``, which optimises for every sample).
        images: Samples have voxels within: ``all`` and ``fast`` are with the groups that say where.
        offers: What the model has, see ``mednovelty.capabilities``: groups are without the scores that ask
            for more.

    Raises:
        UnknownPluginError: There is no such score or group; the nearest is suggested.
    """
    known = plugin_names("scorers")
    if set(asked) <= set(known):  # Only a group needs to know, and import, every scorer.
        return list(dict.fromkeys(asked))
    groups = score_groups(images=images, offers=offers)
    for name in asked:
        if name not in known and name not in groups:
            near = get_close_matches(name, [*known, *groups], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"groups: {', '.join(groups)}; known: "
            raise UnknownPluginError(
                f"no scorer is called {name!r}; {hint}" + ("" if near else ", ".join(known))
            )
    return list(dict.fromkeys(name for entry in asked for name in groups.get(entry, [entry])))


def score_groups(*, images: bool = False, offers: Sequence[str] = EVERY_VAE) -> dict[str, list[str]]:
    """Return group -> scores in the order of their equations, ``all`` and ``fast`` among the groups.

    A score that is called like a group, or names none, is in no group but those two.

    Args:
        images: Whether these two have the groups of ``LOCALISATION``; of a sample that is one voxel they say
            little that other scores do not.
        offers: See ``resolve_names``.
    """
    kinds = {name: plugin("scorers", name) for name in plugin_names("scorers")}
    kinds = {name: kind for name, kind in kinds.items() if set(asked_by(kind)) <= set(offers)}
    group_of = {name: getattr(kind, "group", "") for name, kind in kinds.items()}
    ordered = sorted(kinds, key=lambda name: (*_place(name), name))
    left_out = {"raw"} if images else {"raw", *LOCALISATION}
    everything = [name for name in ordered if group_of[name] not in left_out]
    groups = {"all": everything, "fast": [name for name in everything if group_of[name] != "generated"]}
    for name in ordered:
        if group_of[name] and group_of[name] not in kinds:
            groups.setdefault(group_of[name], []).append(name)
    return groups


def _place(name: str) -> tuple[int, int]:
    """Return where a score stands: its paper's, and its equation's there; what is in no paper comes last."""
    told = describe_score(name)
    number = re.match(r"Eq\. \((\d+)", told["equation"])
    paper = list(PAPERS).index(told["paper"]) if told["paper"] else len(PAPERS)
    # What a paper only names, its baseline, comes first.
    return paper, int(number[1]) if number else 0


def needs_signal(names: Iterable[str]) -> bool:
    """Return whether any of these scores looks at the signal as measured."""
    return any("is_b0" in plugin("scorers", name).needs for name in names)


def reference_parts(names: Iterable[str]) -> set[str]:
    """Return which parts of a reference these scores compare with."""
    return {part for name in names for part in plugin("scorers", name).reference_parts}


def describe_score(name: str) -> Mapping[str, Any]:
    """Return name, equation, paper and unit of a score, as sidecars tell them."""
    kind = plugin("scan_scorers" if name in plugin_names("scan_scorers") else "scorers", name)
    address = f"{kind.__module__}:{kind.__qualname__}"
    paper, label = next((key for key, home in homes().items() if home == address), ("", ""))
    return {
        "name": name,
        "equation": label,
        "paper": paper,
        "unit": kind.unit,
        "direction": "higher is more novel",
        "trivial": getattr(kind, "trivial", getattr(kind, "group", "") == "raw"),
        "description": (kind.__doc__ or "").strip().partition("\n")[0],
    }


__all__ = [
    "LOCALISATION",
    "describe_score",
    "needs_signal",
    "reference_parts",
    "resolve_names",
    "score_groups",
]
