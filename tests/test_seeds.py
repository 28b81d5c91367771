"""One seed, many streams."""

import numpy as np
import pytest
import torch

from mednovelty.errors import SettingsError
from mednovelty.seeds import generator, numpy_generator, stream_seed


def test_other_purposes_get_other_numbers():
    seeds = {stream_seed(3, "order", epoch) for epoch in range(5)} | {stream_seed(4, "order", 0)}
    assert len(seeds) == 6


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), torch.tensor(3)])
def test_a_seed_is_its_value_whatever_its_type(seed):
    assert stream_seed(seed, "start") == stream_seed(3, "start")
    assert numpy_generator(seed, "start").random() == numpy_generator(3, "start").random()


@pytest.mark.parametrize("seed", [1.0, "1", None])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(SettingsError, match=r"a seed is a whole number, not "):
        stream_seed(seed)


def test_a_generator_lies_on_the_device_asked_for():
    for device in ("cpu", torch.device("cpu")):
        here = generator(3, "start", device=device)
        assert here.device == torch.device("cpu")
        assert here.initial_seed() == stream_seed(3, "start")
    with pytest.raises(RuntimeError, match="no_such_device"):
        generator(3, "start", device="no_such_device")
