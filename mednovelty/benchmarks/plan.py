"""A protocol's TOML file: which cells there are, fixed hyperparameters, and the paper's numbers.

.. code-block:: toml

    [protocol]
    title = "One digit is novel, nine are normal"
    paper = "vasilev2018"
    tables = "Table 3"
    datasets = ["mnist"]               # the first is taken where none is asked for
    classes = ["0", "1"]               # in the order of the tables
    seeds = 1                          # the paper's
    any_method = true                  # methods that are installed and not named below run too
    train_once = true                  # one training is for all classes
    peeking = ["oc_svm"]               # methods that look at labels of the test by themselves
    note = "What to know of the paper's numbers."      # stands above the tables
    outside = true                     # classes are other sets, of any name, or numbers: left out

    [settings]                         # all there are
    epochs = 6

    [datasets.cifar10]                 # of one data set
    [methods.vae_z24]                  # of one method; all methods of the protocol have such a table
    latent = 24

    [beside]                           # other data sets that methods need, as for outliers: the first at hand
    fcdd = ["cifar100", "cifar10"]     # but the one that is trained on; a setting outliers names another

    [in_the_paper]                     # what the paper has beside, by data set
    fashion_mnist = "CIFAR-100"

    [metrics.fpr95_in_positive]        # those that need a word
    words = "what it is"
    lower_is_better = true

    [groups]                           # names for several methods
    vae = ["vae_z24"]

    [oracle.vae_z24]                   # what --oracle tries, by method
    latent = [24, 48]

    [[published]]
    dataset = "mnist"
    method = "vae_z64"
    score = "latent_euclidean"
    name = "what the paper calls it"
    values = [0.922, 0.528]            # by class, or {0 = 0.922}; or mean, where the paper prints no more
    spread = [0.01, 0.02]
    percent = true                     # values are in percent

Settings of data sets replace those of all, those of a method these, and ``--set`` any of them.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mednovelty.benchmarks.published import Metric, Published, metrics_of, published_row
from mednovelty.errors import SettingsError, UnknownPluginError
from mednovelty.plugins import PluginInfo, available
from mednovelty.settings import overlaid, read_toml

GROUP = "benchmarks"
FREE = "method_settings"
"""The setting that has settings of methods in it, of any name."""
OUTLIERS = "outliers"
"""The setting that names the set beside, where a protocol has it."""
SHORT_NAMES = {"fashion": "fashion_mnist", "cifar": "cifar10"}
"""What data sets are called before a protocol's name: ``fashion-miso``."""


@dataclass(frozen=True)
class Plan:
    """What the TOML file says; names as there.

    Attributes:
        name: Of the benchmark.
        methods: Own settings by method.
    """

    name: str
    title: str
    paper: str
    tables: str
    datasets: tuple[str, ...]
    classes: tuple[str, ...]
    settings: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    seeds: int = 1
    any_method: bool = False
    train_once: bool = False
    peeking: tuple[str, ...] = ()
    note: str = ""
    dataset_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    oracle: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    beside: Mapping[str, Sequence[str]] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    outside: bool = False
    in_the_paper: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    def opened(self, datasets: Iterable[str], classes: Iterable[str]) -> Plan:
        """Return the plan with data sets and classes of other names, where any name is one."""
        if not self.outside:
            return self
        sets, labels = ([SHORT_NAMES.get(_spelled(name), _spelled(name)) for name in some]
                        for some in (datasets, classes))  # fmt: skip
        return replace(
            self,
            datasets=tuple(dict.fromkeys((*self.datasets, *sets))),
            classes=tuple(dict.fromkeys((*self.classes, *labels))),
        )

    def beside_for(self, method: str, label: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the other data sets of which a cell needs one, the best first; none: it needs none.

        Args:
            method: Which.
            label: Its class.
            settings: Of the cell; ``outliers`` among them names the set, where it is not empty.
        """
        if self.outside:
            return () if label.isdigit() else (label,)
        if method not in self.beside:
            return ()
        return (settings[OUTLIERS],) if settings.get(OUTLIERS) else tuple(self.beside[method])

    def settings_for(
        self, dataset: str, method: str, over: Mapping[str, Any], variant: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the settings of a method on a data set.

        Args:
            dataset: Which.
            method: Which.
            over: A tree of those to replace.
            variant: Of those that ``--oracle`` tries.

        Raises:
            SettingsError: There is no such setting.
        """
        tree, free = dict(self.settings), dict(self.settings.get(FREE, {}))
        parts = (
            (self.dataset_settings.get(dataset, {}), f"[datasets.{dataset}]"),
            (self.methods.get(method, {}), f"[methods.{method}]"),
            (variant or {}, "[oracle]"),
            (over, "--set"),
        )
        for part, where in parts:
            # Its names are those of whatever method it is for.
            free |= part.get(FREE, {})
            rest = {key: value for key, value in part.items() if key != FREE or FREE not in tree}
            tree = overlaid(tree, rest, where if where == "--set" else f"{self.name}.toml: {where}")
        return tree | ({FREE: free} if FREE in tree else {})

    def methods_for(self, asked: Iterable[str], installed: Sequence[str], *, oracle: bool) -> list[str]:
        """Return the methods that were asked for, groups spelled out, each once.

        Args:
            asked: Names, groups, or ``all``: those of the protocol.
            installed: Methods that are installed.
            oracle: Whether such may run that look at labels of the test.

        Raises:
            SettingsError: There is no such method, or it looks at labels.
        """
        known = [*self.methods, *(installed if self.any_method else ())]
        whole = [name for name in self.methods if oracle or name not in self.peeking]
        found: list[str] = []
        for entry in asked:
            name = entry.replace("-", "_")
            if name not in known and name not in self.groups and name != "all":
                near = get_close_matches(name, [*self.methods, *self.groups, *known], n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(['all', *known])}"
                raise SettingsError(f"--methods: {self.name} has no method {entry!r}; {hint}")
            found += whole if name == "all" else self.groups.get(name, [name])
        peeking = [name for name in found if name in self.peeking]
        if peeking and not oracle:
            raise SettingsError(
                f"--methods: {peeking[0]} is chosen by labels of the test; ask with --oracle, which says so "
                "in the table"
            )
        return list(dict.fromkeys(found))

    def classes_for(self, asked: Iterable[str] | None) -> list[str]:
        """Return the classes that were asked for, in the order of the protocol; None: all, or all other sets.

        Raises:
            SettingsError: There is no such class.
        """
        if asked is None:
            return [name for name in self.classes if not (self.outside and name.isdigit())]
        wanted = [_spelled(name) for name in asked]
        wanted = [SHORT_NAMES.get(name, name) for name in wanted] if self.outside else wanted
        by_name = {_spelled(name): name for name in self.classes}
        for name in wanted:
            if name not in by_name:
                near = get_close_matches(name, by_name, n=1)
                hint = f"did you mean {by_name[near[0]]!r}?" if near else f"known: {', '.join(self.classes)}"
                raise SettingsError(f"--classes: {self.name} has no class {name!r}; {hint}")
        return [name for name in self.classes if _spelled(name) in wanted]

    def datasets_for(self, asked: Iterable[str] | None) -> list[str]:
        """Return the data sets that were asked for; None: the first.

        Raises:
            SettingsError: The protocol is not for such.
        """
        if asked is None:
            return list(self.datasets[:1])
        found = [SHORT_NAMES.get(_spelled(name), _spelled(name)) for name in asked]
        for name in found:
            if name not in self.datasets:
                near = get_close_matches(name, self.datasets, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.datasets)}"
                raise SettingsError(f"--datasets: {self.name} is not for {name!r}; {hint}")
        return list(dict.fromkeys(found))

    def variants(self, method: str, *, oracle: bool, fixed: Iterable[str] = ()) -> list[dict[str, Any]]:
        """Return the settings that are tried: one that replaces nothing, or all that the oracle may take.

        Args:
            method: Which.
            oracle: Whether labels choose.
            fixed: Settings that ``--set`` has: they are no longer chosen, and no label tells them.
        """
        grid = {} if not oracle else {
            name: values for name, values in self.oracle.get(method, {}).items() if name not in fixed
        }  # fmt: skip
        return [dict(zip(grid, each, strict=True)) for each in itertools.product(*grid.values())]

    def check_oracle(self, methods: Iterable[str], fixed: Iterable[str] = ()) -> None:
        """Refuse to choose by labels where there is nothing to choose from.

        Raises:
            SettingsError: None of the methods has anything, or ``--set`` fixes all of it.
        """
        known = list(dict.fromkeys((*self.oracle, *self.peeking)))
        if not set(known) & set(methods):
            hint = f"only for {', '.join(known)}" if known else "for no method of this protocol"
            raise SettingsError(f"--oracle: there is something to choose {hint}")
        grids = [self.oracle.get(method, {}) for method in methods]
        if not set(self.peeking) & set(methods) and not any(set(grid) - set(fixed) for grid in grids):
            told = ", ".join(dict.fromkeys(name for grid in grids for name in grid))
            raise SettingsError(
                f"--oracle: --set fixes {told}, and there is nothing else to choose; leave one of the two out"
            )


def plans() -> list[tuple[PluginInfo, Plan]]:
    """Return the plans of all benchmarks that are installed, importing none of them."""
    return [(info, _plan_of(info)) for info in available(GROUP)]


def plan_named(name: str) -> tuple[Plan, str | None]:
    """Return a benchmark's plan, and the data set that the name says, if it says one.

    Args:
        name: ``miso``, or with a data set before it, ``fashion-miso``.

    Raises:
        UnknownPluginError: There is no such benchmark.
    """
    by_name = {info.name: info for info in available(GROUP)}
    if name in by_name:
        return _plan_of(by_name[name]), None
    first, _, rest = name.partition("-")
    if rest in by_name:
        plan = _plan_of(by_name[rest])
        dataset = SHORT_NAMES.get(first, first)
        if dataset in plan.datasets:
            return plan, dataset
    if not (users := _users_of(name)):
        near = get_close_matches(name, by_name, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(by_name)}"
        raise UnknownPluginError(f"no benchmark is called {name!r}; {hint}")
    raise UnknownPluginError(
        f"no benchmark is called {name!r}: it is a data set that {' and '.join(users)} train on, beside "
        f"their own; have both in one folder, and run mednovelty bench {users[0]} --data FOLDER"
    )


def _users_of(dataset: str) -> list[str]:
    """Return the benchmarks whose methods all need another data set, and this is it."""
    every = [plan for _, plan in plans() if plan.beside]
    return [plan.name for plan in every if all(dataset in plan.beside.get(name, ()) for name in plan.methods)]


def variant_words(variant: Mapping[str, Any]) -> str:
    """Return settings that are tried as words.

    Examples:
        >>> variant_words({"latent": 24, "k": 2})
        'latent=24,k=2'
    """
    return ",".join(f"{name}={value}" for name, value in variant.items())


def _plan_of(info: PluginInfo) -> Plan:
    spec = importlib.util.find_spec(info.address.partition(":")[0])
    if spec is None or spec.origin is None:
        raise SettingsError(f"{info.name}: its module {info.address} is not there; install it again")
    return plan_from(read_toml(Path(spec.origin).with_name(f"{info.name}.toml")), info.name)


def plan_from(tree: Mapping[str, Any], name: str) -> Plan:
    """Return a plan from the tree of a TOML file.

    Raises:
        SettingsError: A table or key is unknown or missing.
    """
    file = f"{name}.toml"
    tables = ("protocol", "settings", "methods", "datasets", "groups", "oracle", "beside", "in_the_paper",
              "metrics", "published")  # fmt: skip
    tree = overlaid({key: {} for key in tables} | {"published": []}, tree, file)
    known = ("title", "paper", "tables", "datasets", "classes", "seeds", "any_method", "train_once",
             "peeking", "note", "outside")  # fmt: skip
    head = overlaid(dict.fromkeys(known), tree["protocol"], f"{file}: [protocol]")
    for key in known[:5]:
        if not head[key]:
            raise SettingsError(f"{file}: protocol.{key} is missing")
    classes = tuple(map(str, head["classes"]))
    return Plan(
        name=name,
        title=head["title"],
        paper=head["paper"],
        tables=head["tables"],
        datasets=tuple(head["datasets"]),
        classes=classes,
        settings=tree["settings"],
        methods=tree["methods"],
        seeds=head["seeds"] or 1,
        any_method=bool(head["any_method"]),
        train_once=bool(head["train_once"]),
        peeking=tuple(head["peeking"] or ()),
        note=head["note"] or "",
        dataset_settings=tree["datasets"],
        groups=tree["groups"],
        oracle=tree["oracle"],
        beside={key: (one,) if isinstance(one, str) else tuple(one) for key, one in tree["beside"].items()},
        outside=bool(head["outside"]),
        in_the_paper=tree["in_the_paper"],
        metrics=metrics_of(tree["metrics"], f"{file}: metrics"),
        published=tuple(published_row(row, classes, f"{file}: [[published]]") for row in tree["published"]),
    )


def _spelled(name: str) -> str:
    return name.strip().replace("-", "_").replace(" ", "_")


__all__ = ["GROUP", "Plan", "plan_from", "plan_named", "plans", "variant_words"]
