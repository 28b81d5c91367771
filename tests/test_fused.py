"""The fused kernel finds what brute force finds: through Triton's interpreter, and on a card."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from mednovelty.neighbours.fused import FusedNeighbours, Tiling, fits
from mednovelty.testing.contracts import check_neighbours
from mednovelty.testing.models import random_samples


@pytest.fixture(scope="module")
def interpreted():
    if find_spec("triton") is None:
        pytest.skip("triton is not installed; `pip install triton` runs the kernel through its interpreter")
    # The kernel becomes what it is at the import of triton, so the variable must be set before.
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("interpreted_kernel.py"))],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_the_kernel_equals_brute_force_at_every_edge(interpreted):
    assert len(interpreted["compared"]) == 32
    assert interpreted["launches"] == 32 + 3
    assert interpreted["splits"][0] == 1 < interpreted["splits"][-1]
    for row in interpreted["compared"]:
        assert row["off"] < 1e-5, row
        assert row["shape"] == [row["case"][0], 1]


def test_of_equals_the_kernel_finds_the_first(interpreted):
    # The origin is as near to the last two of the four.
    assert interpreted["ties"] == [[0, 1, 2, 3, 2]] * 3


def test_more_neighbours_than_one_are_found_without_the_kernel(interpreted):
    assert interpreted["more"] == [0, 1]
    assert interpreted["launches_for_more"] == 0


def test_without_a_card_it_is_the_exact_search():
    search = FusedNeighbours(random_samples(20, 4))
    assert search.fused == fits(torch.device("cpu"))
    check_neighbours(lambda vectors: search, random_samples(20, 4), random_samples(5, 4, seed=1), 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card here")
@pytest.mark.parametrize("precision", ["ieee", "tf32x3"])
def test_the_kernel_on_a_card(precision):
    vectors, queries = random_samples(5003, 46, seed=1).cuda(), random_samples(999, 46, seed=2).cuda()
    search = FusedNeighbours(vectors, Tiling(precision=precision))
    assert search.fused
    check_neighbours(lambda _: search, vectors, queries, 1)
