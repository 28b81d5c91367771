"""What coordinates cost is printed for both kinds."""

import json

from mednovelty.benchmarks.coordinate_cost import main


def test_as_a_program(capsys):
    result = main(["--latent", "6", "--steps", "1", "--network", "dense"])
    assert json.loads(capsys.readouterr().out) == result
    medians = result["seconds_a_step"]
    assert set(medians) == {"cartesian", "hyperspherical"}
    assert min(medians.values()) > 0
    assert result["paper"] == {"latent": 200, "coordinates_cost_percent": 32}
