"""Where the images of maps lie, after scans, maps or both were moved."""

import json

import pytest

from mednovelty.told_sources import sources_of

TOLD = {"Sources": ["../../../scans/sub-01/a.nii.gz", "../../../scans/sub-01/b.nii.gz"]}


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return list(paths)


def record(out, source, id="sub-01"):
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps({"Scans": [3, {"id": "other"}, {"id": id, "source": source}]}))
    return out / "sub-01" / "anat"


def test_scans_are_where_the_sidecar_says(tmp_path):
    folder = record(tmp_path / "out", "/nowhere/a.nii.gz")
    there = touch(tmp_path / "scans" / "sub-01" / "a.nii.gz", tmp_path / "scans" / "sub-01" / "b.nii.gz")
    assert sources_of(folder, TOLD, "sub-01") == there


def test_else_where_the_run_says_and_others_beside_the_first(tmp_path):
    there = touch(tmp_path / "x" / "sub-01" / "a.nii.gz", tmp_path / "x" / "sub-01" / "b.nii.gz")
    folder = record(tmp_path / "far" / "off" / "out", str(there[0]))
    assert sources_of(folder, TOLD, "sub-01") == there


@pytest.mark.parametrize("broken", ["one is gone", "of another scan", "another name", "relative", "damaged"])
def test_where_neither_holds_the_sidecars_place_is_told(tmp_path, broken):
    there = touch(tmp_path / "x" / "sub-01" / "a.nii.gz", tmp_path / "x" / "sub-01" / "b.nii.gz")
    source, id = str(there[0]), "sub-01"
    if broken == "one is gone":
        there[1].unlink()
    elif broken == "of another scan":
        id = "sub-02"
    elif broken == "another name":
        source = str(there[1])
    elif broken == "relative":
        source = "x/sub-01/a.nii.gz"
    folder = record(tmp_path / "out", source, id)
    if broken == "damaged":
        (tmp_path / "out" / "run.json").write_text("[1,")
    assert sources_of(folder, TOLD, "sub-01") == [
        tmp_path / "scans" / "sub-01" / "a.nii.gz",
        tmp_path / "scans" / "sub-01" / "b.nii.gz",
    ]


def test_a_sidecar_that_names_none_has_none(tmp_path):
    assert sources_of(tmp_path, {"Sources": "x"}, "sub-01") == []
