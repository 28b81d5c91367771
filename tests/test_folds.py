"""Cross-validation by subject: everyone is tested once, nobody trains the fold that tests him."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.errors import SettingsError
from mednovelty.io.folds import Folds, fold_of, role_in, with_fold
from mednovelty.io.scan_files import ScanFiles, ScanList


def scans(*ids):
    """Scans with these ids; of BIDS where they begin so."""
    found = []
    for name in ids:
        parts = tuple(tuple(word.split("-", 1)) for word in name.split("_")) if "sub-" in name else ()
        found.append(ScanFiles(name, Path(f"{name}.nii.gz"), entities=parts))
    return ScanList(tuple(found), root=Path("cohort"))


names = st.lists(st.from_regex(r"p[0-9a-f]{1,4}", fullmatch=True), min_size=7, max_size=40, unique=True)


@given(names, st.integers(2, 7), st.integers(0, 3), st.randoms())
def test_every_subject_once_and_as_evenly_as_can_be(ids, count, seed, random):
    found = fold_of(scans(*ids), Folds(count, seed))
    sizes = Counter(found.values())
    assert set(found) == set(ids)
    assert set(sizes) == set(range(count))
    assert max(sizes.values()) - min(sizes.values()) <= 1
    shuffled = random.sample(ids, len(ids))
    assert fold_of(scans(*shuffled), Folds(count, seed)) == found


@given(names, st.integers(3, 6))
def test_each_fold_is_tested_once_and_validates_once(ids, count):
    listed = scans(*ids)
    tested, validated = Counter(), Counter()
    for k in range(count):
        roles = {files.id: files.role for files in with_fold(listed, k, Folds(count))}
        assert set(roles.values()) == {"test", "validation", "normal"}
        tested.update(name for name, role in roles.items() if role == "test")
        validated.update(name for name, role in roles.items() if role == "validation")
    assert set(tested.values()) == set(validated.values()) == {1}
    assert set(tested) == set(validated) == set(ids)


def test_the_split_is_the_same_for_ever():
    found = fold_of(scans(*[f"sub-{i:02d}" for i in range(8)]), Folds(3, seed=1))
    assert list(found.values()) == [0, 2, 0, 2, 1, 1, 1, 0]
    other = fold_of(scans(*[f"sub-{i:02d}" for i in range(8)]), Folds(3, seed=2))
    assert other != found


def test_sessions_of_a_subject_stay_together():
    ids = [f"sub-{i:02d}_ses-{s}" for i in range(9) for s in ("a", "b", "c")]
    found = fold_of(scans(*ids), Folds(4))
    for i in range(9):
        assert len({found[f"sub-{i:02d}_ses-{s}"] for s in ("a", "b", "c")}) == 1
    assert sorted(Counter(found.values()).values()) == [6, 6, 6, 9]


def test_two_folds_leave_none_to_validate():
    roles = [files.role for files in with_fold(scans("a", "b", "c", "d", "e"), 1, Folds(2))]
    assert sorted(roles) in (["normal"] * 2 + ["test"] * 3, ["normal"] * 3 + ["test"] * 2)
    assert role_in(0, 1, 2) == "normal"


def test_patterns():
    folds = Folds(2, patterns=(("p0*", "p11"), ("p2?",)))
    found = with_fold(scans("p07", "p11", "p22", "p33"), 0, folds)
    assert [(f.id, f.fold, f.role) for f in found] == [
        ("p07", 0, "test"),
        ("p11", 0, "test"),
        ("p22", 1, "normal"),
    ]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Folds(1), "at least 2 folds are needed, not 1"),
        (lambda: Folds(3, patterns=(("a",),)), "3 folds, but patterns for 1"),
        (lambda: fold_of(scans("a", "b"), Folds(3)), "2 subjects cannot be split into 3 folds"),
        (lambda: fold_of(scans("a"), Folds(2, patterns=(("a",), ("*",)))), "a is in folds 0 and 1"),
        (
            lambda: fold_of(scans("sub-1_ses-a", "sub-1_ses-b"), Folds(2, patterns=(("*-a",), ("*-b",)))),
            "sub-1 is in folds 0 and 1; all scans of a subject are in one fold",
        ),
        (lambda: with_fold(scans("a", "b"), 2, Folds(2)), "there is no fold 2; the 2 folds are 0 to 1"),
        (lambda: with_fold(scans("a", "b"), -1, Folds(2)), "there is no fold -1"),
        (lambda: with_fold(scans("a", "b"), 0), "cohort: no folds: give some"),
    ],
)
def test_what_is_wrong_is_told(call, words):
    with pytest.raises(SettingsError, match=words):
        call()


def test_roles_of_before_are_forgotten():
    listed = scans(*"abcdef")
    listed = replace(listed, scans=tuple(replace(files, role="test") for files in listed))
    assert Counter(files.role for files in with_fold(listed, 0, Folds(3))) == {
        "test": 2,
        "validation": 2,
        "normal": 2,
    }
