import pytest

from mednovelty.errors import SettingsError
from mednovelty.schedule import TrainSettings, exhausted, learning_rate


@pytest.mark.parametrize(
    ("voxels", "batch"), [(100, 256), (20_000, 312), (640_000, 10_000), (26_000_000, 32768)]
)
def test_small_cohorts_take_smaller_batches(voxels, batch):
    assert TrainSettings(min_steps=64).batch_for(voxels) == batch
    assert TrainSettings(min_steps=64, batch_size=99).batch_for(voxels) == 99


def test_learning_rate_by_hand():
    settings = TrainSettings(
        learning_rate=1.0, plateau_patience=2, plateau_factor=0.5, min_learning_rate=0.2, min_improvement=0.1
    )
    losses = [9, 8, 7.95, 7.93, 7.5, 7.5, 7.6, 7.5, 7.5, 7.5, 7.5, 7.5]
    #         -  -  1     2     0    1    2    1    2    1    2    1     epochs since the best or a drop
    rates = [learning_rate(losses[:i], settings) for i in range(1, 13)]
    assert rates == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2, 0.2]


def test_stopping_by_hand():
    settings = TrainSettings(max_epochs=5, patience=2, min_improvement=0.1)
    assert not exhausted([9, 8, 7.95], settings)
    assert exhausted([9, 8, 7.95, 7.91], settings)
    assert not exhausted([9, 8, 7.95, 7.9], settings)
    assert not exhausted([9, 8, 7, 6, 5], settings)
    assert exhausted([9, 8, 7, 6, 5, 4], settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch_size=0: must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"min_steps": -1}, "min_steps=-1"),
        ({"plateau_factor": 1.0}, "plateau_factor=1.0: must be less than 1"),
    ],
)
def test_settings_are_checked(settings, words):
    with pytest.raises(SettingsError, match=words):
        TrainSettings(**settings)
