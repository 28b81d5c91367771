import json

import pytest

from mednovelty.benchmarks.training_throughput import Rounds, main


@pytest.mark.parametrize("where", [[], ["--on-disk"]])
def test_a_small_run_prints_its_figures(capsys, where):
    main(
        [
            "--voxels",
            "4096",
            "--channels",
            "9",
            "--latent",
            "8",
            "--batch-size",
            "1000",
            "--rounds",
            "2",
            *where,
        ]
    )
    figures = json.loads(capsys.readouterr().out)
    assert (figures["channels"], figures["rounds"], figures["on_disk"]) == (9, 2, bool(where))
    assert figures["ratio"] > 0
    assert figures["bare_voxels_per_second"] > 0


def test_each_epoch_is_compared_with_the_bare_rounds_around_it():
    rounds = Rounds(None, [], bare=[100, 300, 100], loop=[160, 100], loop_with_validation=[100, 50])
    # 160 / 200 and 100 / 200; with validation 100 / 200 and 50 / 200.
    figures = rounds.summary()
    assert (figures["ratio"], figures["lowest_ratio"], figures["ratio_with_validation"]) == (0.65, 0.5, 0.375)
