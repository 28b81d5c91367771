"""Which scores were asked for: names, groups, all of them."""

import pytest

from mednovelty import plugins
from mednovelty.capabilities import WORDS
from mednovelty.errors import UnknownPluginError
from mednovelty.plugins import names
from mednovelty.scoring import (
    LOCALISATION,
    describe_score,
    needs_signal,
    reference_parts,
    resolve_names,
    score_groups,
)

LATENT = ["vae_regularizer", "latent_euclidean", "latent_bhattacharyya", "latent_density"]
# Table 1 of the paper, in the order of its equations; 18 and 19 optimise for every sample.
FAST = [
    "nearest_normal", *LATENT, "reconstruction_error", "reconstruction_likelihood",
    "encoder_stochastic_error", "encoder_stochastic_error_min",
    "encoder_stochastic_likelihood", "encoder_stochastic_likelihood_min",
    "decoder_stochastic_error", "decoder_stochastic_error_min",
    "fully_stochastic_error", "fully_stochastic_error_min",
    "reconstruction_euclidean", "reconstruction_bhattacharyya", "reconstruction_density",
    "input_to_reconstruction_euclidean", "input_density", "reconstruction_to_input_euclidean",
    "negative_elbo", "negative_elbo_min",
]  # fmt: skip


class Generated:
    """Optimises for every sample."""

    group, unit, needs, reference_parts = "generated", "nats", ("model",), ()


class Groupless:
    needs, unit, reference_parts = ("model",), "nats", ()


class NamedLikeAScore:
    """Has a group that is called like a score."""

    group, unit, needs, reference_parts = "nearest_normal", "nats", ("model",), ()


def offer(monkeypatch, **kinds):
    """Offer scorers as an installed distribution would."""

    class Point:
        dist = None

        def __init__(self, name, kind):
            self.name, self.value, self.load = name, "stranger:Kind", lambda: kind

    real, more = plugins._points, [Point(name, kind) for name, kind in kinds.items()]
    monkeypatch.setattr(plugins, "_points", lambda group: real(group) + (more if group == "scorers" else []))


def test_fast_are_the_scores_of_the_papers_in_their_order():
    assert resolve_names(["fast"]) == [*FAST, "nearest_latent_neighbours", "hyperspherical_knn"]


def test_all_are_the_fast_and_those_that_optimise(monkeypatch):
    offer(monkeypatch, closest=Generated, groupless=Groupless)
    everything = resolve_names(["all"])
    assert set(everything) - {"closest"} >= {*FAST, "groupless"}
    assert "closest" in everything
    assert "closest" not in resolve_names(["fast"])
    assert "closest" in resolve_names(["generated"])
    assert not {name for name in everything if name.startswith("raw_")}
    assert everything[0] == "nearest_normal"
    assert describe_score("groupless")["description"] == ""


def test_every_installed_score_is_in_one_group():
    everything = tuple(WORDS)
    groups = score_groups(offers=everything)
    rest = [name for group, members in groups.items() if group not in ("all", "fast") for name in members]
    assert sorted(rest) == names("scorers")
    where = {name for group in LOCALISATION for name in groups[group]}
    assert sorted(groups["all"]) == sorted(set(rest) - set(groups["raw"]) - where)
    of_images = score_groups(images=True, offers=everything)
    assert sorted(of_images["all"]) == sorted(set(rest) - set(groups["raw"]))
    assert set(of_images["fast"]) == set(of_images["all"]) - set(groups["generated"])
    assert {name: of_images[name] for name in groups.keys() - {"all", "fast"}} == {
        name: groups[name] for name in groups.keys() - {"all", "fast"}
    }
    assert not set(groups) & set(names("scorers")), "a group and a score of one name"


def test_groups_and_names_may_be_mixed_and_keep_their_order():
    asked = ["negative_elbo", "raw_b0", "latent", "latent_density", "elbo", "negative_elbo"]
    assert resolve_names(asked) == ["negative_elbo", "raw_b0", *LATENT, "negative_elbo_min"]
    assert resolve_names(["latent_density", "vae_regularizer", "latent_density"]) == [
        "latent_density",
        "vae_regularizer",
    ]
    assert resolve_names([]) == []
    assert resolve_names(["raw"]) == ["raw_attenuation", "raw_b0", "raw_dwi"]


def test_a_score_goes_before_a_group_of_its_name(monkeypatch):
    offer(monkeypatch, odd=NamedLikeAScore)
    assert resolve_names(["nearest_normal", "elbo"]) == [
        "nearest_normal",
        "negative_elbo",
        "negative_elbo_min",
    ]
    assert "odd" in resolve_names(["all"])


def test_unknown_names_suggest_scores_and_groups():
    with pytest.raises(UnknownPluginError, match="no scorer is called 'latnt'; did you mean 'latent'"):
        resolve_names(["nearest_normal", "latnt"])
    with pytest.raises(UnknownPluginError, match="did you mean 'input_density'"):
        resolve_names(["inputdensity", "elbo"])
    with pytest.raises(UnknownPluginError, match=r"'zzz'; groups: all, fast, .*; known: .*input_density"):
        resolve_names(["zzz"])


def test_what_scores_need_is_known_before_they_are_made():
    assert reference_parts(["reconstruction_error", "negative_elbo_min"]) == set()
    assert reference_parts(["latent_density", "nearest_normal"]) == {"input", "latent_mean", "latent_sigma"}
    assert reference_parts(["input_density"]) == {"reconstruction_mean", "reconstruction_sigma"}
    assert not needs_signal(resolve_names(["all"]))
    assert needs_signal(["input_density", "raw_b0"])


def test_sidecars_tell_the_equation():
    told = describe_score("fully_stochastic_error_min")
    assert (told["paper"], told["equation"]) == ("vasilev2018", "Eq. (11), min")
    assert told["description"].startswith("Squared distance to the nearest of the draws")
