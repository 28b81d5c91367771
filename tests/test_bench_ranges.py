"""Numbers of protocols' settings: each has a range, and a wrong one is told before anything is done."""

import os
from dataclasses import fields
from typing import get_type_hints

import pytest
from image_folders import image_sets  # noqa: F401 - a fixture
from typer.testing import CliRunner

from mednovelty.benchmarks.plan import plans
from mednovelty.benchmarks.ranges import RANGES, Range
from mednovelty.cli import app
from mednovelty.errors import SettingsError
from mednovelty.plugins import plugin
from mednovelty.settings import checked

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
NUMBERS = (int, float, tuple[int, ...], dict[str, float])
CHECKED_ELSEWHERE = ("labelled", "pollution", "known_classes")
"""By ``Scenario``."""


@pytest.mark.parametrize("name", [info.name for info, _ in plans()])
def test_every_number_of_every_protocol_has_a_range(name):
    kind = plugin("benchmarks", name).Settings
    (plan,) = [plan for info, plan in plans() if info.name == name]
    dataset, method = plan.datasets[0], next(iter(plan.methods))
    whole, hints = plan.settings_for(dataset, method, {}), get_type_hints(kind)
    asked = [each.name for each in fields(kind) if hints[each.name] in NUMBERS]
    assert len(asked) >= 5
    for setting in asked:
        if setting not in CHECKED_ELSEWHERE:
            assert setting in RANGES, setting
        wrong = -1 if hints[setting] in (int, tuple[int, ...]) else float("nan")
        value = {"FLAIR": wrong} if isinstance(whole[setting], dict) else wrong
        value = [value] if hints[setting] == tuple[int, ...] else value
        with pytest.raises(SettingsError, match=rf"^{name}: {setting}="):
            checked(kind, whole | {setting: value}, name)


@pytest.mark.parametrize(
    ("range_", "inside", "outside", "words"),
    [
        (Range(1), (1, 1e9), (0, 0.99, float("inf")), "must be at least 1"),
        (Range(0, above=True), (1e-9,), (0, -1), "must be above 0"),
        (Range(0, 1), (0, 1), (-0.01, 1.01), "must lie between 0 and 1"),
        (Range(0, 1, above=True), (0.01, 1), (0, 1.01), "must be above 0 and at most 1"),
        (Range(), (-1e9,), (float("nan"), float("-inf")), "must be a finite number"),
    ],
)
def test_ends_of_ranges(range_, inside, outside, words):
    assert all(value in range_ for value in inside)
    assert not any(value in range_ for value in outside)
    assert range_.words == words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("miso", "--set", "k=0"), "miso: k=0: must lie between 1 and 1000"),
        (("miso", "--set", "alpha=5"), "miso: alpha=5.0: must lie between 0 and 1"),
        (("miso", "--set", "epochs=-3"), "miso: epochs=-3: must be at least 1"),
        (("miso", "--set", "images=-5"), "miso: images=-5: must be at least 0"),
        (("miso", "--methods", "pixel_mean", "--set", "test_images=-5"), "test_images=-5: must be"),
        (("miso", "--sweep", "k=1,0"), "miso: k=0: must lie between 1 and 1000"),
        (("miso", "--methods", "pca", "--set", "method_settings.componets=3"),
         "miso, pca: method_settings of pca: no setting is called 'componets'; did you mean 'components'?"),
        (("mnist-novel-digit", "--set", "network=cnn"), "mnist-novel-digit, an_cho: network="),
        (("mnist-c", "--methods", "pca", "--set", "method_settings.nope=3"), "mnist-c, pca: method_s"),
        (("one-vs-rest", "--methods", "pca", "--set", "method_settings.nope=3"), "one-vs-rest, pca: met"),
        (("ood", "--set", "network=cnn"), "ood, vae: network='cnn' is none of"),
        (("mvtec", "--methods", "ae", "--set", "method_settings.nope=3"), "mvtec, ae: method_settings of ae"),
        (("lgg", "--methods", "vae", "--set", "median_px=2"), "lgg, vae: fit: maps.median_px must be 0"),
        (("leave-one-class-out", "--set", "latent=0"), "leave-one-class-out: latent=0: must be at least 1"),
    ],
)  # fmt: skip
def test_a_wrong_number_is_told_before_anything_is_done(image_sets, tmp_path, words, message):  # noqa: F811
    out = tmp_path / "out"
    words = ("bench", *words, "--data", str(image_sets), "-o", str(out), "--workers", "0")
    result = CliRunner().invoke(app, list(words), env=ENVIRONMENT)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not out.exists()
