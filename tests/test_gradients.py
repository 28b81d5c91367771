"""Gradients: directions end in world axes, and every way to get them wrong has its words."""

import images
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.errors import GradientError
from mednovelty.io.gradients import fsl_to_world, read_gradients, shells

N = len(images.BVALS)
B = [0, 1000, 1000, 0, 2000]  # What the table makes of 5 is 0.


def write(folder, bval=None, bvec=None):
    """Write gradient texts, by default good ones; return how ``read_gradients`` takes them."""
    images.save_gradients(folder / "a")
    for text, name in ((bval, "a.bval"), (bvec, "a.bvec")):
        if text is not None:
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return {"bval": folder / "a.bval", "bvec": folder / "a.bvec"}


def read(folder, n=N, affine=images.LAS, **texts):
    return read_gradients(**write(folder, **texts), affine=affine, n_volumes=n)


class TestWorldAxes:
    def test_by_hand_left_handed(self):
        # LAS: FSL writes voxel axes as they are. Voxel x runs to the left, y forward, z up.
        assert np.array_equal(fsl_to_world(np.diag([-2, 3, 4, 1])), np.diag([-1, 1, 1]))

    def test_by_hand_right_handed(self):
        # RAS: FSL mirrors x, so that its x still runs to the left.
        assert np.array_equal(fsl_to_world(np.diag([2, 3, 4, 1])), np.diag([-1, 1, 1]))

    def test_by_hand_turned(self):
        # Voxel i runs forward (3 mm), j to the left (2 mm), k up: i x j points up, so it is right-handed,
        # and FSL's first number runs against i.
        affine = np.array([[0, -2, 0, 5], [3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1.0]])
        assert np.linalg.det(affine) > 0
        assert np.array_equal(fsl_to_world(affine) @ [1, 0, 0], [0, -1, 0])
        assert np.array_equal(fsl_to_world(affine) @ [0, 1, 0], [-1, 0, 0])
        assert np.array_equal(fsl_to_world(affine) @ [0, 0, 1], [0, 0, 1])

    @pytest.mark.parametrize("affine", [images.LAS, images.RAS], ids=["las", "ras"])
    def test_an_oblique_scan(self, tmp_path, affine):
        images.save_gradients(tmp_path / "a", affine=affine)
        table, warnings = read_gradients(
            bval=tmp_path / "a.bval", bvec=tmp_path / "a.bvec", affine=affine, n_volumes=N
        )
        assert np.allclose(table.bvecs, images.WORLD, atol=1e-7)
        assert np.allclose(table.bvals, B)
        assert table.b0s_mask.tolist() == [True, False, False, True, False]
        assert warnings == []

    def test_storing_x_the_other_way_round_changes_no_direction(self, tmp_path):
        # FSL's files do not change when an image is stored as RAS instead of LAS; the table must not either.
        files = write(tmp_path)
        las, _ = read_gradients(**files, affine=images.LAS, n_volumes=N)
        ras, _ = read_gradients(**files, affine=images.RAS, n_volumes=N)
        assert np.allclose(las.bvecs, ras.bvecs)

    def test_mrtrix_is_in_world_axes_already(self, tmp_path):
        table = np.column_stack([images.WORLD, images.BVALS])
        np.savetxt(tmp_path / "a.b", table, fmt="%.8f", header="command_history: mrconvert")
        for affine in (images.LAS, images.RAS):
            found, warnings = read_gradients(grad_b=tmp_path / "a.b", affine=affine, n_volumes=N)
            assert np.allclose(found.bvecs, images.WORLD, atol=1e-7)
            assert np.allclose(found.bvals, B)
            assert warnings == []

    @given(turn=st.tuples(*[st.floats(-np.pi, np.pi)] * 3), flip=st.sampled_from([-1.0, 1.0]))
    def test_any_affine(self, tmp_path_factory, turn, flip):
        from scipy.spatial.transform import Rotation

        affine = np.eye(4)
        affine[:3, :3] = Rotation.from_euler("xyz", turn).as_matrix() @ np.diag([1.5 * flip, 2, 3])
        stem = tmp_path_factory.mktemp("g") / "a"
        images.save_gradients(stem, affine=affine)
        table, _ = read_gradients(
            bval=stem.with_suffix(".bval"), bvec=stem.with_suffix(".bvec"), affine=affine, n_volumes=N
        )
        assert np.allclose(table.bvecs, images.WORLD, atol=1e-6)


class TestShapes:
    def test_columns_and_rows_are_the_same(self, tmp_path):
        rows, _ = read(tmp_path)
        columns = "\n".join(" ".join(f"{x:.8f}" for x in row) for row in images.fsl_directions().T)
        turned, _ = read(tmp_path, bvec=columns, bval="0\n1000\n1000\n5\n2000\n")
        assert np.array_equal(rows.bvecs, turned.bvecs)
        assert np.array_equal(rows.bvals, turned.bvals)

    def test_three_by_three_is_three_rows(self, tmp_path):
        table, _ = read(
            tmp_path, n=3, affine=np.diag([-1, 1, 1, 1.0]), bval="0 700 700", bvec="0 1 0\n0 0 0.6\n0 0 0.8\n"
        )
        assert np.allclose(table.bvecs, [[0, 0, 0], [-1, 0, 0], [0, 0.6, 0.8]])

    def test_windows_text(self, tmp_path):
        table, warnings = read(tmp_path, bval=b"\xef\xbb\xbf0 1000 1000 5 2000\r\n")
        assert np.allclose(table.bvals, B)
        assert warnings == []


DIRECTIONS = images.fsl_directions()


def bvec(change=None, factor=1.0):
    directions = DIRECTIONS.T * factor
    for volume, value in (change or {}).items():
        directions[volume] = value
    return "\n".join(" ".join(f"{x:.8g}" for x in row) for row in directions.T)


REFUSED = {
    "few": ({"bval": "0 1000 1000 5"}, "gradients.count", r"a\.bval: 4 b-values for 5 volumes"),
    "many": ({"bval": "0 1000 1000 5 2000 9"}, "gradients.count", r"a\.bval: 6 b-values for 5 volumes"),
    "few directions": ({"bvec": "1 0\n0 1\n0 0"}, "gradients.count", r"a\.bvec: 2 directions for 5 volumes"),
    "four rows": (
        {"bvec": bvec() + "\n1 1 1 1 1"},
        "gradients.rows",
        r"4 rows of 5 numbers; 3 rows are needed",
    ),
    "short row": ({"bvec": "1 0 0\n0 1\n0 0 1"}, "gradients.rows", "row 2 has 2 numbers, row 1 has 3"),
    "table": ({"bval": "0 1000 1000\n0 5 2000"}, "gradients.rows", "2 lines of up to 3 numbers"),
    "word": ({"bval": "zero 1000 1000 5 2000"}, "gradients.text", "'zero' in line 1 is not a number"),
    "comma": ({"bval": "0,0 1000,5 1000 5 2000"}, "gradients.text", "commas inside numbers"),
    "nul": ({"bval": b"0 1000\0 1000 5 2000"}, "gradients.not_text", "NUL bytes"),
    "latin": ({"bval": b"0 1000 \xff"}, "gradients.not_text", "byte 7 is not UTF-8"),
    "empty": ({"bval": "# nothing\n\n"}, "gradients.empty", "holds no number"),
    "nothing": ({"bval": ""}, "gradients.empty", "empty"),
    "nan b": ({"bval": "0 nan 1000 5 2000"}, "gradients.nan", "volume 1 is nan"),
    "inf b": ({"bval": "0 1000 inf 5 2000"}, "gradients.nan", "volume 2 is inf"),
    "negative": ({"bval": "0 1000 -9 5 2000"}, "gradients.negative", "volume 2 is negative: -9"),
    "s/m2": ({"bval": "0 1e9 1e9 5 2e9"}, "gradients.unit", r"up to 2e\+09 are out of 0..20000 s/mm2"),
    "ms/um2": ({"bval": "0 1 1 0.005 2"}, "gradients.unit", r"under 50 s/mm2, the largest is 2"),
    "no b0": ({"bval": "60 1000 1000 70 2000"}, "gradients.no_b0", "smallest of 5 b-values is 60, over 50"),
    "nan": ({"bvec": bvec({2: np.nan})}, "gradients.nan", "volume 2 has b=1000 and a direction that is not"),
    "zero": ({"bvec": bvec({4: 0})}, "gradients.zero", "volume 4 has b=2000 but the direction 0 0 0$"),
    "half": (
        {"bvec": bvec(factor=0.5)},
        "gradients.norm",
        r"direction of volume \d has length 0.5, not 1 \(3 of 3 are off by more than 0.1\)",
    ),
}


class TestRefused:
    @pytest.mark.parametrize("case", REFUSED)
    def test_says_what_is_wrong(self, tmp_path, case):
        texts, code, words = REFUSED[case]
        with pytest.raises(GradientError, match=words) as caught:
            read(tmp_path, **texts)
        assert caught.value.code == code
        assert str(caught.value).startswith("a.bval: " if "bval" in texts else "a.bvec: ")

    def test_a_transposed_three_by_three_is_not_guessed(self, tmp_path):
        with pytest.raises(GradientError, match=r"volume 2 has b=900 but") as caught:
            read(tmp_path, n=3, bval="0 900 900", bvec="0 0 0\n1 0 0\n0 1 0\n")
        assert "read as FSL's three rows" in str(caught.value)

    def test_absent(self, tmp_path):
        with pytest.raises(GradientError, match=r"a\.bval: no such file") as caught:
            read_gradients(bval=tmp_path / "a.bval", bvec=tmp_path / "a.bvec", affine=images.LAS, n_volumes=N)
        assert caught.value.code == "gradients.absent"
        with pytest.raises(GradientError, match=r"a \.bval with a \.bvec, or a \.b file"):
            read_gradients(affine=images.LAS, n_volumes=N)

    def test_mrtrix_has_four_columns(self, tmp_path):
        (tmp_path / "a.b").write_text("1 0 0\n0 1 0\n")
        with pytest.raises(GradientError, match=r"a\.b: rows of 3 numbers; an MRtrix table has x y z b"):
            read_gradients(grad_b=tmp_path / "a.b", affine=images.LAS, n_volumes=2)

    def test_mrtrix_is_checked_like_the_others(self, tmp_path):
        for bvals, directions, code in (
            ([60, 1000, 1000, 70, 2000], images.WORLD, "gradients.no_b0"),
            ([0, np.nan, 1000, 0, 2000], images.WORLD, "gradients.nan"),
            (images.BVALS, images.WORLD * 0.5, "gradients.norm"),
        ):
            np.savetxt(tmp_path / "a.b", np.column_stack([directions, bvals]))
            with pytest.raises(GradientError, match=r"^a\.b: ") as caught:
                read_gradients(grad_b=tmp_path / "a.b", affine=images.LAS, n_volumes=N)
            assert caught.value.code == code


class TestWarned:
    def test_lengths_a_little_off_are_normalised(self, tmp_path):
        table, warnings = read(tmp_path, bvec=bvec(factor=1.03))
        assert np.allclose(table.bvecs, images.WORLD, atol=1e-7)
        (warning,) = warnings
        assert "has length 1.03, not 1; all directions were normalised" in warning

    def test_lengths_rounded_to_three_digits_are_not_worth_a_word(self, tmp_path):
        table, warnings = read(tmp_path, bvec=bvec(factor=1.004))
        assert np.allclose(np.linalg.norm(table.bvecs, axis=1), [0, 1, 1, 0, 1])
        assert warnings == []

    def test_nan_on_b0_is_nothing(self, tmp_path):
        table, warnings = read(tmp_path, bvec=bvec({0: np.nan}))
        assert table.bvecs[0].tolist() == [0, 0, 0]
        assert warnings == ["a.bvec: directions of b=0 volumes are not finite; taken as 0 0 0"]

    def test_b0_has_no_direction_whatever_the_file_says(self, tmp_path):
        table, warnings = read(tmp_path, bvec=bvec({0: [1, 0, 0], 3: [9, 9, 9]}))
        assert np.allclose(table.bvecs, images.WORLD, atol=1e-7)
        assert warnings == []

    def test_commas_between_numbers(self, tmp_path):
        for text in ("0,1000,1000,5,2000", "0, 1000, 1000, 5, 2000"):
            table, warnings = read(tmp_path, bval=text)
            assert np.allclose(table.bvals, B)
            assert warnings == ["a.bval: numbers are separated by commas; read so"]


class TestShells:
    @pytest.mark.parametrize(
        ("bvals", "expected"),
        [
            ([0, 1000, 2000, 1000, 0], [(0, 2), (1000, 2), (2000, 1)]),
            ([5, 995, 1000, 1005, 50], [(0, 2), (1000, 3)]),
            ([0, 990, 1010, 1985, 2015, 2980, 3010], [(0, 1), (1000, 2), (2000, 2), (2995, 2)]),
            ([700, 1000], [(700, 1), (1000, 1)]),
            ([0, 0], [(0, 2)]),
        ],
    )
    def test_by_hand(self, bvals, expected):
        assert shells(np.array(bvals)) == expected

    @given(st.lists(st.floats(0, 20_000), min_size=1, max_size=60))
    def test_every_volume_is_in_one_shell(self, bvals):
        found = shells(np.array(bvals))
        assert sum(count for _, count in found) == len(bvals)
        assert [b for b, _ in found] == sorted(b for b, _ in found)
        assert found == shells(np.array(bvals[::-1]))
