"""Where to compute: named in words, refused in words."""

import pytest
import torch

from mednovelty.devices import chosen
from mednovelty.errors import SettingsError


def test_auto_is_the_card_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert chosen("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen("auto") == torch.device("cpu")


def test_a_card_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert chosen("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(SettingsError, match="cuda:1: torch sees 1 CUDA devices"):
        chosen("cuda:1")


@pytest.mark.parametrize(("name", "said"), [("gpu", "no device is called 'gpu'"), ("meta", "known to work")])
def test_other_names(name, said):
    with pytest.raises(SettingsError, match=said):
        chosen(name)
