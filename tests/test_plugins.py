"""Plug-ins and equations by name; the errors' words."""

import re

import pytest

from mednovelty import papers
from mednovelty.errors import SettingsError, UnknownPluginError
from mednovelty.plugins import GROUPS, available, import_all, names, plugin


def test_every_group_has_built_ins():
    assert {group: bool(names(group)) for group in GROUPS} == dict.fromkeys(GROUPS, True)


def test_every_plug_in_can_be_loaded_and_is_documented():
    for group in GROUPS:
        for info in available(group):
            kind = plugin(group, info.name)
            assert kind.__doc__, info
            assert info.address == f"{kind.__module__}:{kind.__qualname__}"


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(
        UnknownPluginError, match="no scorer is called 'latent_euclidian'; did you mean 'latent_euc"
    ):
        plugin("scorers", "latent_euclidian")
    with pytest.raises(UnknownPluginError, match="no view is called 'xyz'; known: voxel"):
        plugin("views", "xyz")
    with pytest.raises(
        UnknownPluginError, match="no plug-in group is called 'scores'; did you mean 'scorers'"
    ):
        names("scores")


def test_one_equation_has_one_home():
    def first(): ...
    def second(): ...

    mark = papers.equation("vasilev2018", "Eq. (test)")
    try:
        assert mark(first) is first
        assert mark(first) is first
        with pytest.raises(ValueError, match=r"already lives at .*first, so not at .*second"):
            mark(second)
        assert papers.where("vasilev2018", "Eq. (test)").endswith("first")
    finally:
        papers._HOMES.pop(("vasilev2018", "Eq. (test)"))
    with pytest.raises(KeyError, match="add it there first"):
        papers.equation("nobody1900", "Eq. (1)")


def test_where_suggests():
    import_all()
    with pytest.raises(
        SettingsError, match=re.escape("no code carries vasilev2018 'Eq.(3)'; did you mean 'Eq. (3)'")
    ):
        papers.where("vasilev2018", "Eq.(3)")
    with pytest.raises(SettingsError, match="no paper is called 'vasilev'; did you mean 'vasilev2018'"):
        papers.where("vasilev", "Eq. (3)")
