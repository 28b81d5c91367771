"""Tables of labels: which lines are taken, which are refused, with what words and codes."""

from pathlib import Path

import pytest

from mednovelty.errors import ScanError
from mednovelty.io.label_table import Entry, read_labels
from mednovelty.io.scan_files import ScanFiles


def files(id, **entities):
    return ScanFiles(id=id, image=Path(f"{id}.nii.gz"), entities=tuple(entities.items()))


SCANS = [files("sub-1_ses-1", sub="1", ses="1"), files("sub-1_ses-2", sub="1", ses="2"), files("plain")]


def table(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "labels.tsv"
    path.write_text(text, encoding=encoding)
    return path


def test_a_subjects_label_is_that_of_all_its_scans(tmp_path):
    path = table(tmp_path, "participant_id\tage\tLabel\nsub-1\t31\tnormal\r\n\nplain\t40\tn/a\n", "utf-8-sig")
    assert read_labels(path).of_scans(SCANS) == {
        "sub-1_ses-1": Entry("normal", 2),
        "sub-1_ses-2": Entry("normal", 2),
        "plain": Entry("", 4),
    }


def test_a_scan_may_say_the_same_as_its_subject_again(tmp_path):
    path = table(tmp_path, "scan\tlabel\nsub-1\tnormal\nsub-1_ses-2\tnormal\n")
    found = read_labels(path).of_scans(SCANS)
    assert found == {"sub-1_ses-1": Entry("normal", 2), "sub-1_ses-2": Entry("normal", 3)}


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("scan\tlabel\nsub-1\tnormal\nsub-2\tnormal\nsub-3\tnormal\n", "labels.unknown_scan",
         r"labels.tsv, line 3: no scan and no subject is called 'sub-2' \(and 1 more\)"),
        ("scan\tlabel\nplain\tnormal\nsub-1\tnormal\nplain\tnormal\n", "labels.duplicate",
         "labels.tsv, line 4: plain stands in line 2 already"),
        ("scan\tlabel\nplain\tnormal\nplain\tanomalous\n", "labels.contradictory",
         "labels.tsv, line 3: plain is anomalous here and normal in line 2"),
        ("scan\tlabel\nsub-1\tnormal\nsub-1_ses-1\tn/a\n", "labels.contradictory",
         "line 3: sub-1_ses-1 is without a label, but line 2 says that sub-1 is normal"),
        ("scan\tkind\nplain\tnormal\n", "labels.columns", "line 1: needs a header .* found scan, kind"),
        ("label\tscan\nnormal\tplain\n", "labels.columns", "names of scans or subjects first"),
        ("", "file.empty", "the file is empty"),
        ("scan\tlabel\nplain\n", "labels.columns", "line 2: 1 fields, the header has 2"),
        ("scan\tlabel\n\tnormal\n", "labels.columns", "line 2: no name"),
        ("scan\tlabel\nplain\tn/a\n", "labels.none", "there is no label in it"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_said_with_its_line(tmp_path, text, code, said):
    path = table(tmp_path, text)
    with pytest.raises(ScanError, match=said) as caught:
        read_labels(path).of_scans(SCANS)
    assert caught.value.code == code


def test_a_table_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.tsv").write_bytes(b"scan\tlabel\n\xff\xfe\tnormal\n")
    with pytest.raises(ScanError, match=r"x.tsv: not UTF-8 text"):
        read_labels(tmp_path / "x.tsv")
