"""Several families of anomalies by weight; and those that a detector is validated on, never trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Generator

from mednovelty.anomalies.host import Anomaly, Host, Planted, Prior
from mednovelty.errors import SettingsError
from mednovelty.plugins import plugin
from mednovelty.settings import checked, overlaid, tree_of

if TYPE_CHECKING:
    from mednovelty.anomalies.outlines import Outlines
    from mednovelty.anomalies.shapes import Shapes


@dataclass(frozen=True, eq=False)
class Mixture:
    """Families of anomalies; each sample gets one of them.

    Attributes:
        families: By name, at least one, all for one kind of samples.
        weights: How often each comes, in any unit; a family without one has 1.

    Examples:
        >>> Mixture.of("texture,noise", weights={"noise": 3}).shares
        {'texture': 0.25, 'noise': 0.75}
    """

    families: Mapping[str, Anomaly]
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.families:
            raise SettingsError("no family of anomalies is named; see mednovelty list anomalies")
        unknown = [name for name in self.weights if name not in self.families]
        if unknown:
            raise SettingsError(
                f"a weight is given to {unknown[0]}, which is not among {', '.join(self.families)}"
            )
        wrong = {name: weight for name, weight in self.weights.items() if not 0 < weight < float("inf")}
        if wrong:
            raise SettingsError(f"weights of families must be above 0, got {dict(wrong)}")
        kinds = {family.needs for family in self.families.values()}
        if len(kinds) > 1:
            listed = ", ".join(f"{name} ({family.needs})" for name, family in self.families.items())
            raise SettingsError(f"families of two kinds of samples cannot be mixed: {listed}")

    @classmethod
    def of(
        cls,
        names: str | Sequence[str],
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Mixture:
        """Return a mixture of plug-ins.

        Args:
            names: ``"texture,noise"``, or a sequence; hyphens are underscores.
            settings: By name, as trees, where they are not the defaults, such as
                ``{"noise": {"shapes": {"most": 1}}}``.
            weights: By name.

        Raises:
            UnknownPluginError: No family is called so; the nearest is suggested.
            SettingsError: One twice, or settings or weights that do not fit.
        """
        listed, trees = spelled(names), {_plain(key): tree for key, tree in (settings or {}).items()}
        others = [name for name in trees if name not in listed]
        if others:
            raise SettingsError(f"there are settings of {others[0]}, which is not among {', '.join(listed)}")
        families = {name: _family(name, trees.get(name, {})) for name in listed}
        return cls(families, {_plain(key): float(weight) for key, weight in (weights or {}).items()})

    @property
    def needs(self) -> Literal["images", "diffusion"]:
        """Which kind of samples."""
        return next(iter(self.families.values())).needs

    @property
    def shares(self) -> dict[str, float]:
        """How often each family comes, 1 in all."""
        weights = {name: self.weights.get(name, 1.0) for name in self.families}
        return {name: weight / sum(weights.values()) for name, weight in weights.items()}

    def plant(self, host: Host, generator: Generator) -> Planted:
        """Return each sample with an anomaly of one family; see ``host.Anomaly``."""
        n, device = len(host.images), host.images.device
        if len(self.families) == 1:
            return next(iter(self.families.values())).plant(host, generator)
        shares = torch.tensor(list(self.shares.values()), device=generator.device)
        which = (
            torch.multinomial(shares, n, replacement=True, generator=generator) if n else shares[:0].long()
        )
        images, profile = host.images.clone(), torch.zeros(host.mask.shape, device=device)
        truth = torch.zeros_like(host.mask)
        for number, family in enumerate(self.families.values()):
            chosen = (which == number).nonzero()[:, 0].to(device)
            if len(chosen):
                made = family.plant(host.take(chosen), generator)
                images[chosen], profile[chosen], truth[chosen] = made.images, made.profile, made.truth
        return Planted(images, profile, truth)

    def describe(self, outlines: Outlines | None = None) -> Prior:
        """Return what is planted, family by family, in words and numbers.

        Args:
            outlines: Of real lesions, where there are: families that take them have sizes they allow.

        Raises:
            SettingsError: They allow none of those that a family asks for.
        """
        priors = {name: prior_of(family, outlines) for name, family in self.families.items()}
        words = "; ".join(
            f"{name}{_often(self.shares[name])}: {prior.words}" for name, prior in priors.items()
        )
        ranges = {name: {"share": self.shares[name], **prior.ranges} for name, prior in priors.items()}
        return Prior(words, ranges)


def takes_outlines(family: Anomaly) -> bool:
    """Return whether a family plants shapes of real lesions."""
    return "outline" in getattr(getattr(family, "shapes", None), "kinds", ())


def prior_of(family: Anomaly, outlines: Outlines | None = None) -> Prior:
    """Return what a family plants; where it takes outlines, whose, and of which sizes.

    Args:
        family: Any.
        outlines: Of real lesions, where there are.

    Raises:
        SettingsError: They have none of the sizes that it asks for.
    """
    if outlines is None or not takes_outlines(family):
        return family.describe()
    shapes: Shapes = family.shapes  # type: ignore[attr-defined]
    low, high = (round(size, 1) for size in outlines.attainable_mm(shapes.diameter_mm))
    if shapes.kinds == ("outline",):
        shapes = replace(shapes, diameter_mm=(low, high))
        family = replace(family, shapes=shapes)  # type: ignore[type-var]
    prior = family.describe()
    words = f"{prior.words}; lesions are {outlines.describe()}, {low:g} to {high:g} mm where planted"
    planted_mm = {"planted_diameter_mm": [low, high]}
    return Prior(words, {**prior.ranges, "outlines": outlines.ranges() | planted_mm})


def refuse_unused_outlines(families: Mapping[str, Anomaly]) -> None:
    """Raise where outlines of real lesions were given and no family would take them.

    Raises:
        SettingsError: None would (``anomalies.unused_outlines``).
    """
    if not any(map(takes_outlines, families.values())):
        raise SettingsError(
            f"lesion shapes were given, and {', '.join(families)} would not take them: leave --lesion-shapes "
            "out, or choose a family that has shapes, such as hyperintense, and leave shapes.kinds to it",
            code="anomalies.unused_outlines",
        )


class Split(NamedTuple):
    """What a detector is trained on, and what it is validated on."""

    training: Mixture
    validation: Mixture


def split(
    training: str | Sequence[str],
    held_out: str | Sequence[str],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    weights: Mapping[str, float] | None = None,
) -> Split:
    """Return families to train on and others to validate on.

    Args:
        training: Names.
        held_out: Names of the others.
        settings: By name, of both.
        weights: By name, of those trained on.

    Raises:
        SettingsError: A family is in both, or they are for different samples (``anomalies.held_out``).
        UnknownPluginError: No family is called so.
    """
    mine, others = spelled(training), spelled(held_out)
    both = [name for name in mine if name in others]
    if both:
        raise SettingsError(
            f"{both[0]} is both trained on and held out for validation; a family that was trained on says "
            "nothing of what was not: name another", code="anomalies.held_out",
        )  # fmt: skip
    trees = {_plain(key): tree for key, tree in (settings or {}).items()}
    unknown = [name for name in trees if name not in (*mine, *others)]
    if unknown:
        raise SettingsError(f"there are settings of {unknown[0]}, which is neither trained on nor held out")
    first, second = (
        Mixture.of(names, {name: tree for name, tree in trees.items() if name in names}, given)
        for names, given in ((mine, weights), (others, None))
    )
    if first.needs != second.needs:
        raise SettingsError(
            f"{', '.join(mine)} are of {first.needs}, {', '.join(others)} of {second.needs}: the held-out "
            "family must be of the same samples", code="anomalies.held_out",
        )  # fmt: skip
    return Split(first, second)


def spelled(names: str | Sequence[str]) -> list[str]:
    """Return the names in ``"anisotropy-loss, s0"``, each once and as plug-ins are called.

    Raises:
        SettingsError: None, or one twice.

    Examples:
        >>> spelled("anisotropy-loss, s0")
        ['anisotropy_loss', 's0']
    """
    listed = [
        _plain(name) for name in (names.split(",") if isinstance(names, str) else names) if name.strip()
    ]
    if not listed:
        raise SettingsError("no family of anomalies is named; see mednovelty list anomalies")
    twice = [name for name in listed if listed.count(name) > 1]
    if twice:
        raise SettingsError(f"anomalies {twice[0]} is named twice; give it a weight instead")
    return listed


def _family(name: str, tree: Mapping[str, Any]) -> Anomaly:
    kind = plugin("anomalies", name)
    # Without settings pydantic, which checks them, is not needed.
    return checked(kind, overlaid(tree_of(kind()), tree, name), name) if tree else kind()


def _plain(name: str) -> str:
    return name.strip().replace("-", "_").lower()


def _often(share: float) -> str:
    return "" if share == 1 else f" ({100 * share:.0f} %)"


__all__ = [
    "Mixture",
    "Split",
    "prior_of",
    "refuse_unused_outlines",
    "spelled",
    "split",
    "takes_outlines",
]
