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
    learn_from_anomalies = ["hsc"]     # methods that use known anomalies, where there are any
    learn_from_classes = ["vmf"]       # methods that use the classes of training images, where they are told
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
    percent = true                     # the metric itself is in percent

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
    mean_spread = 0.004                # of the mean, where the paper prints it
    percent = true                     # values are in percent, of a metric that is a share
    unsure = true                      # it is not known that it is of this metric: nothing falls short of it
    shown = "outliers"                 # what only the paper's method was shown, or one that is not here

Settings of data sets replace those of all, those of a method these, and ``--set`` any of them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mednovelty.benchmarks.protocol import SHORT_NAMES, Plan
from mednovelty.benchmarks.published import metrics_of, published_row
from mednovelty.errors import SettingsError, UnknownPluginError
from mednovelty.plugins import PluginInfo, available
from mednovelty.settings import overlaid, read_toml

GROUP = "benchmarks"


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
             "peeking", "learn_from_anomalies", "learn_from_classes", "note", "outside")  # fmt: skip
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
        learn_from_anomalies=tuple(head["learn_from_anomalies"] or ()),
        learn_from_classes=tuple(head["learn_from_classes"] or ()),
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


__all__ = ["GROUP", "Plan", "plan_from", "plan_named", "plans", "variant_words"]
