import gzip
import struct

import numpy as np
import pytest

from mednovelty.benchmarks.idx import labelled_images, read_idx
from mednovelty.errors import ScanError


def packed(array, code=8):
    big = array.astype(array.dtype.newbyteorder(">"))
    sides = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + sides + big.tobytes()


def images(n=5):
    return np.random.default_rng(0).integers(0, 256, (n, 3, 4), dtype=np.uint8)


@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
@pytest.mark.parametrize(("dtype", "code"), [("u1", 0x08), ("i2", 0x0B), ("i4", 0x0C), ("f4", 0x0D)])
def test_values_come_back(tmp_path, wrap, dtype, code):
    array = images().astype(dtype) * 3
    path = tmp_path / "some-idx"
    path.write_bytes(wrap(packed(array, code)))
    found = read_idx(path)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.dtype(dtype)
    found[0, 0, 0] = 1  # An array of its own, not a view of what was read.


def written(path, raw):
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("raw", "code", "words"),
    [
        (b"", "idx.header", "x: begins with nothing, so it is no IDX file"),
        (b"\x89PNG", "idx.header", "x: begins with 89 50 4e 47"),
        (bytes([0, 0, 7, 1]), "idx.header", "no IDX file"),
        (bytes([0, 0, 8, 0]), "idx.header", "no IDX file"),
        (bytes([0, 0, 8, 200]), "idx.header", "no IDX file"),
        (bytes([0, 0, 8, 3, 0, 0, 0, 1]), "idx.header", "ends within its header"),
        (packed(images())[:-1], "idx.size", r"\(5, 3, 4\) announces 60 bytes of values, there are 59"),
        (packed(images()) + b"\0", "idx.size", "announces 60 bytes of values, there are more than 60"),
        (gzip.compress(packed(images()), mtime=0)[:-20], "idx.damaged", "x: cannot be unpacked"),
        (b"\x1f\x8b" + bytes(30), "idx.damaged", "x: cannot be unpacked"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, raw, code, words):
    with pytest.raises(ScanError, match=words) as caught:
        read_idx(written(tmp_path / "x", raw))
    assert caught.value.code == code


def test_a_large_announcement_takes_no_memory(tmp_path):
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 2**31, 2**31)
    with pytest.raises(ScanError, match="announces 9903520314283042199192993792 bytes") as caught:
        read_idx(written(tmp_path / "x", gzip.compress(header, mtime=0)))
    assert caught.value.code == "idx.too_large"
    with pytest.raises(ScanError, match=r"announces 60 bytes of values \(5, 3, 4\); at most 59"):
        read_idx(written(tmp_path / "x", packed(images())), largest_bytes=59)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ScanError, match="x: not in") as caught:
        read_idx(tmp_path / "x")
    assert caught.value.code == "idx.missing"


def test_images_and_labels(tmp_path):
    labels = np.arange(5, dtype=np.uint8)
    written(tmp_path / "train-images-idx3-ubyte.gz", gzip.compress(packed(images())))
    written(tmp_path / "train-labels-idx1-ubyte", packed(labels))
    found, truth = labelled_images(tmp_path, "train")
    np.testing.assert_array_equal(found, images())
    np.testing.assert_array_equal(truth, labels)
    with pytest.raises(ScanError, match=r"t10k-images-idx3-ubyte\.gz: not in"):
        labelled_images(tmp_path, "t10k")


@pytest.mark.parametrize(
    ("pixels", "code", "labels", "words"),
    [
        (images(), 8, np.arange(4, dtype=np.uint8), r"\(5, 3, 4\) and labels of shape \(4,\) are not"),
        (images()[0], 8, np.arange(3, dtype=np.uint8), r"\(3, 4\)"),
        (images(0), 8, np.arange(0, dtype=np.uint8), r"\(0, 3, 4\)"),
        (images().astype("f4"), 13, np.arange(5, dtype=np.uint8), "images are float32 and labels uint8"),
    ],
)
def test_images_and_labels_that_do_not_fit(tmp_path, pixels, code, labels, words):
    written(tmp_path / "train-images-idx3-ubyte", packed(pixels, code))
    written(tmp_path / "train-labels-idx1-ubyte", packed(labels))
    with pytest.raises(ScanError, match=words) as caught:
        labelled_images(tmp_path, "train")
    assert caught.value.code == "idx.shape"
