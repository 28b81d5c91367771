import gzip
import json

import numpy as np
import pytest
import torch
from test_idx import packed, written

from mednovelty.benchmarks.hyperspherical import (
    MODELS,
    Options,
    images_of,
    main,
    measure,
    metrics_of,
    pixels,
    table,
)

METRICS = {
    "auroc",
    "ap",
    "normals_flagged_where_95_percent_of_novel_are",
    "novel_accepted_where_95_percent_of_normals_are",
}


def written_images(folder, seed, rows):
    """Ten classes of 28 x 28 images: class k is bright in row ``rows[k]``, with noise of its own."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for split, n in (("train", 90), ("t10k", 50)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (n, 28, 28), dtype=np.uint8)
        images[np.arange(n), np.array(rows)[labels]] += 190
        written(folder / f"{split}-images-idx3-ubyte.gz", gzip.compress(packed(images)))
        written(folder / f"{split}-labels-idx1-ubyte.gz", gzip.compress(packed(labels)))
    return folder


@pytest.fixture
def folders(tmp_path):
    return (written_images(tmp_path / "fashion", 0, range(0, 20, 2)),
            written_images(tmp_path / "mnist", 1, range(27, 7, -2)))  # fmt: skip


def test_far_is_another_set_and_near_a_class_that_was_left_out(folders):
    far = images_of("far", *folders, Options())
    assert (far.training.shape, far.test.shape) == ((90, 784), (100, 784))
    assert far.novel.tolist() == [False] * 50 + [True] * 50
    assert (far.test[far.novel].reshape(-1, 28, 28)[::10, 27].mean(1) > 0.5).all()
    near = images_of("near", *folders, Options(left_out=3))
    assert (len(near.training), near.test.shape) == (81, (50, 784))
    assert near.novel.nonzero()[0].tolist() == [3, 13, 23, 33, 43]
    assert near.classes[:4].tolist() == [0, 1, 2, 3]  # Class 4 takes the place of the one left out.
    assert near.classes.max() == 8
    assert not (near.training.reshape(-1, 28, 28)[:, 6].mean(1) > 0.5).any()
    some = images_of("far", *folders, Options(images=20, test_images=7))
    assert (len(some.training), len(some.test), some.novel.sum()) == (20, 14, 7)


def test_both_conventions_by_hand():
    # 20 normals 0 to 19, novel 18.5 twice and 40: 95 % of the novel are all three, which 19 is flagged with;
    # 95 % of the normals are 19 of them, up to 18, where none of the novel is accepted.
    found = metrics_of(np.array([*range(20), 18.5, 18.5, 40.0]), np.arange(23) >= 20)
    assert set(found) == METRICS
    assert found["normals_flagged_where_95_percent_of_novel_are"] == pytest.approx(1 / 20)
    assert found["novel_accepted_where_95_percent_of_normals_are"] == 0
    assert found["auroc"] == pytest.approx((19 + 19 + 20) / 60)
    # Of 17.5, half are accepted up to 18, but 17 is the lowest limit only from 18 normals on.
    other = metrics_of(np.array([*range(20), 17.5, 40.0]), np.arange(22) >= 20)
    assert other["novel_accepted_where_95_percent_of_normals_are"] == 0.5
    assert other["normals_flagged_where_95_percent_of_novel_are"] == pytest.approx(2 / 20)


def test_pixels_know_no_model(folders):
    given = images_of("far", *folders, Options())
    there = torch.cdist(torch.from_numpy(given.test), torch.from_numpy(given.training)).sort(1).values[:, :3]
    expected = metrics_of(there.mean(1).numpy(), given.novel)
    assert pixels(given)["metrics"] == pytest.approx(expected, abs=1e-3)


def test_models_share_all_but_their_coordinates():
    options = Options(labels=True)
    made = {name: options.settings(name, 10) for name in MODELS}
    assert [made[name].coordinates for name in made] == ["cartesian", "hyperspherical", "hyperspherical"]
    assert [made[name].compressed for name in made] == [None, 1, None]
    assert [made[name].classes for name in made] == [0, 10, 10]
    assert {(one.latent, one.output, one.network) for one in made.values()} == {(128, "sigmoid", "residual")}
    assert Options().settings("vmf", 10).classes == 0


def test_a_run_repeats(folders):
    options = Options(epochs=2, latent=12, network="dense")
    given = images_of("far", *folders, options)
    first, second = (measure("compressed", given, options) for _ in range(2))
    assert first["metrics"] == second["metrics"]
    assert first["epochs"] == 2
    assert set(first["metrics"]) == METRICS


def test_as_a_program(folders, capsys):
    words = [*map(str, folders), "--models", "vae", "vmf", "--epochs", "1", "--latent", "92", "--labels",
             "--images", "40", "--test-images", "20"]  # fmt: skip
    result = main([*words, "--tasks", "near", "cost", "--steps", "1"])
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads(json.dumps(result))
    assert [run["model"] for run in result["runs"]] == ["vae", "vmf", "pixels"]
    assert set(result["cost"]["seconds_a_step"]) == {"vae", "compressed"}
    assert table(result["runs"]).splitlines()[0].count("FPR95") == 2
    assert "| near | pixels | " in printed.err
