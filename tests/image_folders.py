"""Made-up image sets in the formats of the published ones, and tasks of benchmarks on them."""

import gzip

import numpy as np
import pytest
from test_idx import packed, written

from mednovelty.benchmarks.benchmark import Cell, Task
from mednovelty.benchmarks.cifar import TEST, TRAINING
from mednovelty.benchmarks.plan import plan_named
from mednovelty.plugins import plugin
from mednovelty.settings import checked


def write_idx(folder, training=300, test=100, seed=0):
    """Ten classes of 28 x 28 images: class k is bright in row 2 k, each image with noise of its own."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for split, n in (("train", training), ("t10k", test)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (n, 28, 28), dtype=np.uint8)
        images[np.arange(n), 2 * labels] += 190
        written(folder / f"{split}-images-idx3-ubyte.gz", gzip.compress(packed(images)))
        written(folder / f"{split}-labels-idx1-ubyte.gz", gzip.compress(packed(labels)))
    return folder


def write_cifar(folder, a_file=20, seed=4):
    """Ten classes of 32 x 32 images: waves, class k red in row 3 k."""
    rng = np.random.default_rng(seed)
    i, j = np.indices((32, 32))
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*TRAINING, *TEST):
        records = []
        for number in range(a_file):
            wave = np.sin(i * rng.uniform(0.1, 1) + j * rng.uniform(0.1, 1))
            colours = np.repeat(60 * wave[None] + 128, 3, 0).astype(np.uint8)
            colours[0, 3 * (number % 10)] = 255
            records.append(bytes([number % 10]) + colours.tobytes())
        (folder / name).write_bytes(b"".join(records))
    return folder


@pytest.fixture
def folder(tmp_path):
    """A folder of four IDX files."""
    return write_idx(tmp_path / "mnist")


@pytest.fixture
def image_sets(tmp_path):
    """A folder with all image sets there are, as ``--data`` takes it."""
    for name in ("mnist", "fashion_mnist"):
        write_idx(tmp_path / "images" / name)
    write_cifar(tmp_path / "images" / "cifar10")
    return tmp_path / "images"


def task_of(name, folder, method, label="5", *, dataset="mnist", scores=("all",), seed=0, beside=(), **over):
    """Return a task of a benchmark as ``bench`` makes it, and its settings."""
    plan, _ = plan_named(name)
    benchmark = plugin("benchmarks", name)()
    tree = plan.settings_for(dataset, method, over)
    names = benchmark.scores(method, scores)
    task = Task(name, Cell(dataset, label, seed, method), tree, names, folder, beside=beside)
    return task, checked(benchmark.Settings, tree, name)


def run(name, folder, method, label="5", **over):
    """Return what a benchmark finds in one cell."""
    task, settings = task_of(name, folder, method, label, **over)
    return plugin("benchmarks", name)().run(task, settings)
