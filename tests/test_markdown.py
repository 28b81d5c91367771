"""The little Markdown of model cards as HTML: by hand, and nothing of a text ever becomes HTML."""

import re

from hypothesis import given
from hypothesis import strategies as st

from mednovelty.report.markdown import markdown_html

OURS = re.compile(r'</?(?:h[1-6]|p|ul|li|code|table|tr|th|td|div)(?: class="(?:wide|number)")?>')


def test_a_table_with_numbers_by_hand():
    text = "| a | b\\|c |\n| --- | ---: |\n| `x` | 1 |\n"
    assert markdown_html(text) == (
        '<div class="wide"><table>\n<tr><th>a</th><th class="number">b|c</th></tr>\n'
        '<tr><td><code>x</code></td><td class="number">1</td></tr>\n</table></div>'
    )


def test_a_table_without_a_rule_has_no_head():
    assert "<th" not in markdown_html("| a |\n| b |")


def test_headings_go_no_deeper_than_there_are():
    assert markdown_html("##### a", 3) == "<h6>a</h6>"
    assert markdown_html("####### a") == "<p>####### a</p>"


def test_an_odd_tick_is_a_tick():
    assert markdown_html("a `b` c ` d") == "<p>a <code>b</code> c ` d</p>"


def test_links_pictures_and_html_are_words():
    assert markdown_html("[x](http://evil) ![y](z) <img src=x>") == (
        "<p>[x](http://evil) ![y](z) &lt;img src=x&gt;</p>"
    )


@given(st.text(alphabet="#*|-: `<>&\"'\\ab\n\x1b", max_size=80))
def test_only_our_own_tags_are_in_it(text):
    rest = OURS.sub("", str(markdown_html(text)))
    assert not re.search(r"[<>\"']", rest)
    assert "\x1b" not in rest


@given(st.text(alphabet="ab \n#*|", max_size=60))
def test_no_word_is_lost(text):
    found = re.sub(r"<[^>]+>", "", str(markdown_html(text)))
    assert sorted(c for c in found if c in "ab") == sorted(c for c in text if c in "ab")
