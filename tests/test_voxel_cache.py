import gc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from mednovelty import voxel_cache
from mednovelty.errors import OutputError, ScanError, SettingsError
from mednovelty.voxel_cache import VoxelCache


def scans(sizes=(700, 300, 500), channels=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"sub-{i}": 5 + rng.standard_normal((n, channels)).astype(np.float32) for i, n in enumerate(sizes)
    }


def filled(voxels, **options):
    cache = VoxelCache(next(iter(voxels.values())).shape[1], **options)
    for scan, rows in voxels.items():
        cache.append(scan, rows)
    return cache


def order(seed=7):
    return Generator().manual_seed(seed)


@pytest.fixture
def small_blocks(monkeypatch):
    """Many blocks and several buffers out of few rows."""
    monkeypatch.setattr(voxel_cache, "BLOCK_ROWS", 64)
    monkeypatch.setattr(voxel_cache, "BUFFER_BYTES", 4 * 4 * 200)


def test_rows_come_back_as_they_went_in(tmp_path):
    voxels = scans()
    for cache in (filled(voxels), filled(voxels, budget_bytes=5000, folder=tmp_path)):
        assert len(cache) == 1500
        assert cache.scans == {"sub-0": slice(0, 700), "sub-1": slice(700, 1000), "sub-2": slice(1000, 1500)}
        np.testing.assert_array_equal(
            np.concatenate(list(cache.blocks(77))), np.concatenate(list(voxels.values()))
        )
        np.testing.assert_array_equal(
            cache.take(np.array([1499, 3])), [voxels["sub-2"][-1], voxels["sub-0"][3]]
        )


def test_the_budget_decides_where_rows_lie(tmp_path):
    voxels = scans()
    assert not filled(voxels, budget_bytes=1500 * 16, folder=tmp_path).on_disk
    assert filled(voxels, budget_bytes=1500 * 16 - 1, folder=tmp_path).on_disk


@pytest.mark.usefixtures("small_blocks")
def test_disk_and_memory_give_the_same_bits(tmp_path):
    memory, disk = filled(scans()), filled(scans(), budget_bytes=0, folder=tmp_path)
    for cache in (memory, disk):
        cache.divide_channels(np.array([2.0, 3.0, 0.7, -1.3]))
    assert disk.on_disk
    assert not memory.on_disk
    for a, b in zip(memory.batches(130, order()), disk.batches(130, order()), strict=True):
        assert torch.equal(a, b)
    np.testing.assert_array_equal(memory.moments().covariance, disk.moments().covariance)
    assert memory.fingerprint() == disk.fingerprint()


@pytest.mark.usefixtures("small_blocks")
@given(n=st.integers(1, 900), batch_size=st.integers(1, 400), seed=st.integers(0, 99))
def test_an_epoch_has_each_row_once_in_batches_of_one_size(n, batch_size, seed):
    cache = VoxelCache.from_array(np.arange(2 * n).reshape(n, 2))
    batches = list(cache.batches(batch_size, order(seed)))
    sizes = [len(x) for x in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert sorted(torch.cat(batches)[:, 0].tolist()) == list(range(0, 2 * n, 2))


@pytest.mark.usefixtures("small_blocks")
def test_batches_mix_the_scans():
    voxels = {f"sub-{i}": np.full((640, 4), i, np.float32) for i in range(5)}
    batches = list(filled(voxels).batches(320, order()))
    # A buffer holds 5 blocks of 64 rows; in file order each batch would be of one scan only.
    assert np.mean([len(x.unique()) for x in batches]) > 2.5


def test_order_follows_the_generator():
    cache = filled(scans())
    first, again, other = (next(iter(cache.batches(100, order(seed)))) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.usefixtures("small_blocks")
def test_a_limited_epoch():
    assert sum(len(x) for x in filled(scans()).batches(130, order(), limit=777)) == 777


def test_moments():
    voxels = np.concatenate(list(scans(channels=5).values())) * np.float32(3)
    moments = VoxelCache.from_array(voxels).moments()
    assert moments.count == 1500
    np.testing.assert_allclose(moments.mean, voxels.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(voxels.T.astype(np.float64), bias=True), rtol=1e-9)
    np.testing.assert_allclose(moments.spread, voxels.std(0, dtype=np.float64), rtol=1e-9)


def test_moments_far_from_zero(monkeypatch):
    # A sum of squares would lose all digits here: 1e4^2 against a variance of 1e-2.
    monkeypatch.setattr(voxel_cache, "BLOCK_ROWS", 100)
    rows = 1e4 + np.random.default_rng(0).choice([-0.125, 0.125], (1000, 3))
    np.testing.assert_allclose(VoxelCache.from_array(rows).moments().spread, rows.std(0), rtol=1e-9)


def test_a_channel_that_never_changes_has_spread_one():
    rows = np.random.default_rng(0).standard_normal((50, 3))
    rows[:, 1] = 0.3
    assert VoxelCache.from_array(rows).moments().spread[1] == 1


def test_divide_channels():
    voxels = scans()
    cache = filled(voxels)
    cache.divide_channels(np.array([1.0, 2.0, 4.0, 0.5]))
    np.testing.assert_array_equal(cache.take(np.arange(700)), voxels["sub-0"] / np.float32([1, 2, 4, 0.5]))


@given(count=st.integers(1, 40))
def test_sample_rows_is_even_over_scans(count):
    cache = filled(scans((40, 3, 20)))
    rows = cache.sample_rows(count, np.random.default_rng(count))
    per_scan = [((rows >= s.start) & (rows < s.stop)).sum() for s in cache.scans.values()]
    assert len(set(rows.tolist())) == len(rows) == count
    assert rows.tolist() == sorted(rows.tolist())
    assert per_scan[1] == min(3, count // 3)
    assert abs(per_scan[0] - per_scan[2]) <= 1


def test_sample_rows_gives_all_when_asked_for_more():
    assert filled(scans((5, 3))).sample_rows(99, np.random.default_rng(0)).tolist() == list(range(8))


def test_rows_of_one_scan_need_not_be_adjacent():
    cache = VoxelCache.from_array(np.arange(10).reshape(5, 2), ["b", "a", "b", "b", "a"])
    assert cache.scans == {"b": slice(0, 3), "a": slice(3, 5)}
    assert cache.take(np.arange(5))[:, 0].tolist() == [0, 4, 6, 2, 8]


def test_what_goes_in_is_copied():
    rows = np.ones((6, 3), np.float32)
    cache = VoxelCache.from_array(rows)
    cache.divide_channels(np.array([2.0, 2.0, 2.0]))
    assert rows.min() == 1


@pytest.mark.parametrize("close", [True, False])
def test_nothing_is_left_in_the_folder(tmp_path, close):
    cache = filled(scans(), budget_bytes=0, folder=tmp_path)
    next(iter(cache.batches(100, order())))
    if close:
        cache.close()
        with pytest.raises(SettingsError, match="empty"):
            cache.moments()
    del cache
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_wrong_channels():
    with pytest.raises(ScanError, match=r"sub-9: voxels of shape \(5, 3\) do not fit a table of 4 channels"):
        VoxelCache(4).append("sub-9", np.ones((5, 3)))


def test_values_that_are_not_finite():
    rows = np.ones((5, 4))
    rows[1, 2] = np.nan
    rows[3, 0] = np.inf
    with pytest.raises(ScanError, match="sub-9: 2 of 5 voxels have values that are not finite"):
        VoxelCache(4).append("sub-9", rows)


def test_a_scan_twice_and_a_scan_too_late():
    cache = filled(scans())
    with pytest.raises(SettingsError, match="sub-1: its voxels are in the training table already"):
        cache.append("sub-1", np.ones((5, 4)))
    cache.moments()
    with pytest.raises(SettingsError, match="sub-7: the training table has been read"):
        cache.append("sub-7", np.ones((5, 4)))


def test_division_by_zero_is_refused():
    with pytest.raises(SettingsError, match="4 finite numbers other than 0"):
        filled(scans()).divide_channels(np.array([1.0, 0.0, 1.0, 1.0]))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make a file for training voxels"):
        filled(scans(), budget_bytes=0, folder=tmp_path / "file")


def test_a_full_disk(tmp_path, monkeypatch):
    cache = VoxelCache(4, budget_bytes=0, folder=tmp_path)

    cache.append("sub-0", np.ones((50, 4)))
    scratch = cache._file
    real = scratch._file

    class Full:
        def __getattr__(self, name):
            return getattr(real, name)

        def write(self, *_):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch, "_file", Full())
    with pytest.raises(OutputError, match=r"cannot write 1 MiB of .* .No space left on device.; free space"):
        cache.append("sub-1", np.ones((70_000, 4)))


@pytest.mark.parametrize("budget", [None, 0])
def test_parts_are_tables_without_copies(budget, tmp_path, small_blocks):
    voxels = scans()
    cache = filled(voxels, budget_bytes=budget, folder=tmp_path)
    first, last = cache.part(["sub-0"]), cache.part(["sub-1", "sub-2"])
    assert (len(first), len(last)) == (700, 800)
    assert last.scans == {"sub-1": slice(0, 300), "sub-2": slice(300, 800)}
    assert np.array_equal(last.take(np.array([0, 299, 300, 799])), np.concatenate(
        [voxels["sub-1"][[0, -1]], voxels["sub-2"][[0, -1]]]))  # fmt: skip
    assert np.shares_memory(last._read(), cache._read())
    assert last.on_disk == first.on_disk == (budget == 0)
    drawn = torch.cat(list(last.batches(90, order()))).numpy()
    assert np.array_equal(np.sort(drawn, 0), np.sort(np.concatenate([voxels["sub-1"], voxels["sub-2"]]), 0))
    last.close()
    assert np.array_equal(cache.take(np.array([701])), voxels["sub-1"][[1]])


def test_a_part_of_some_rows():
    voxels = scans()
    cache = filled(voxels)
    slab = cache.part(["sub-1", "sub-2"], 100, -20)
    assert slab.scans == {"sub-1": slice(0, 200), "sub-2": slice(200, 680)}
    assert np.array_equal(slab.take(np.arange(200)), voxels["sub-1"][100:])
    assert slab.part(["sub-2"], 400).scans == {"sub-2": slice(0, 80)}
    assert np.array_equal(slab.part(["sub-2"], 400).take(np.arange(80)), voxels["sub-2"][400:480])


@pytest.mark.parametrize("ids", [[], ["sub-9"], ["sub-0", "sub-2"], ["sub-1", "sub-0"]])
def test_parts_that_are_no_neighbours(ids):
    with pytest.raises(SettingsError, match="no neighbours in the training table"):
        filled(scans()).part(ids)


def test_a_part_on_disk_reads_ahead_its_own_rows(tmp_path, small_blocks, monkeypatch):
    cache = filled(scans(sizes=(5000, 3000)), budget_bytes=0, folder=tmp_path)
    part = cache.part(["sub-1"])
    asked = []

    class Mapped:
        def __len__(self):
            return 8000 * 16

        def madvise(self, option, start, length):
            asked.append((start, start + length))

    class Table:
        _mmap = Mapped()

    part._fetch_ahead(Table(), [0, 46])
    assert asked[0][0] <= 5000 * 16 < asked[0][1]
    assert asked[0][0] > 4700 * 16
    assert asked[1][0] <= (5000 + 46 * 64) * 16
    assert asked[1][1] <= 8000 * 16
