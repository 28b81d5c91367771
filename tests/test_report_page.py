"""The shell of pages: what others wrote is shown, never run, and nothing leads out of a page."""

import math
import re

import pytest

from mednovelty.errors import OutputError
from mednovelty.report.charts import Chart, Series, chart_svg
from mednovelty.report.page import (
    Cell,
    Picture,
    Table,
    is_ours,
    link,
    number,
    render,
    script_json,
    write_page,
)

HOSTILE = "</script><script>alert(1)</script>\"'&\x1b[31m"


def cohort(**context):
    known = {"title": "A page", "numbers": [], "table": Table([("scan", "")], []), "scores": [], "charts": [],
             "without_charts": [], "evaluation": None, "failed": None, "pages_failed": [], "not_reached": [],
             "ended_by": {}, "skipped": None, "warnings": [], "run": []}  # fmt: skip
    return render("cohort.html", **(known | context))


def test_what_others_wrote_is_escaped_wherever_it_stands():
    table = Table([(HOSTILE, HOSTILE)], [[Cell(HOSTILE, href="x.html")]], HOSTILE, [HOSTILE])
    page = cohort(title=HOSTILE, table=table, warnings=[HOSTILE], run=[(HOSTILE, HOSTILE)],
                  pages_failed=[(HOSTILE, HOSTILE)], numbers=[(HOSTILE, HOSTILE)],
                  without_charts=[HOSTILE])  # fmt: skip
    assert "alert(1)</script>" not in page
    assert page.count("alert(1)&lt;/script&gt;") >= 11
    assert "\x1b" not in page
    assert "\\x1b[31m" in page


def test_a_chart_escapes_its_texts():
    svg = chart_svg(
        Chart(HOSTILE, HOSTILE, HOSTILE, [Series(HOSTILE, [0, 1], [0, 1])], marks=[(0.5, HOSTILE)])
    )
    assert "<script" not in svg
    assert svg.count("&lt;script&gt;") == 6  # alt twice, both axes, legend, mark


def test_json_in_a_script_cannot_end_it():
    text = script_json({"name": HOSTILE})
    assert "<" not in text
    assert "\\u003c/script\\u003e" in text


def test_a_page_names_no_address_outside_itself():
    page = cohort(table=Table([("scan", "")], [[Cell("sub-01", href="sub-01/sub-01.html")]]))
    assert "://" not in page
    assert "default-src 'none'" in page
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:,", "sub-01/sub-01.html"]


def test_a_picture_is_in_the_page_with_what_it_shows():
    part = {"tables": [], "verdicts": [], "found_words": [], "warnings": [], "outdated": "", "by_score": [],
            "panels": None, "roc": Picture(b"\x89PNG", "areas of 0.9 and 0.8", "below")}  # fmt: skip
    page = cohort(evaluation=part)
    assert '<img src="data:image/png;base64,iVBORw==" alt="areas of 0.9 and 0.8">' in page
    assert "<figcaption>below</figcaption>" in page


def test_numbers_are_sorted_as_numbers_and_what_is_missing_comes_last():
    assert number("0").sort == "0.0"
    assert number(12345.678, 3) == Cell("1.23e+04", 12345.678)
    assert math.isnan(number("n/a").key)
    assert number("n/a").sort == ""
    assert 'data-key="0.25">0.25</td>' in cohort(table=Table([("p", "")], [[number(0.25)]]))


def test_addresses_of_odd_names_are_quoted(tmp_path):
    assert link(tmp_path / "a b#c" / "x?.html", tmp_path) == "a%20b%23c/x%3F.html"
    assert link(tmp_path / "index.html", tmp_path / "sub" / "dwi") == "../../index.html"


def test_a_page_of_somebody_else_is_left_alone(tmp_path):
    path = tmp_path / "index.html"
    path.write_text("<h1>mine</h1>")
    with pytest.raises(OutputError, match=r"index\.html: was not written by mednovelty; .*mednovelty report"):
        write_page(path, cohort())
    assert path.read_text() == "<h1>mine</h1>"
    path.unlink()
    write_page(path, cohort(title="first"))
    assert is_ours(path)
    write_page(path, cohort(title="second"))
    assert "second" in path.read_text()


def test_a_chart_places_values_where_its_axes_say():
    # x from 0 to 10 spans 72..626, y from 1 to 100, logarithmic, spans 256..10: 10 is in the middle, 133.
    series = [Series("line", [0, 5, 10], [1, 10, 100]), Series("", [5], [math.nan], kind="points")]
    svg = chart_svg(Chart("alt", "x", "y", series, log_y=True))
    assert 'd="M72.0 256.0L349.0 133.0L626.0 10.0"' in svg
    assert "<circle" not in svg


def test_bars_stand_on_the_axis_each_on_its_own():
    svg = chart_svg(Chart("alt", "x", "y", [Series("b", [1, 2, 3], [0.0, math.nan, 4.0], kind="bars")]))
    path = re.search(r'class="area f0" d="([^"]+)"', svg)[1]
    assert path.count("Z") == 2
    assert path.count("256.0") == 5  # the first bar is of no height


def test_numbers_beside_an_axis_leave_room_for_its_name():
    series = [Series("", [1, 2], [0.0001, 1.0])]
    svg = chart_svg(Chart("alt", "x", "share of voxels", series, log_y=True))
    ends = [float(x) for x in re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="end">0\.0001<', svg)]
    assert len(ends) == 1
    name = float(re.search(r"translate\(([\d.]+) ", svg)[1])
    # Letters of 12 are about 7 wide, and stand on the name's line, which is 4 below.
    assert ends[0] - 6 * 7.0 >= name + 4
