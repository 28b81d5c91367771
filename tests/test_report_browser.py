"""Pages in a real browser: no error, no request, a viewer that moves and a threshold that takes effect.

Needs Chromium and playwright (extra ``[browser-test]``): ``apt install chromium``.
"""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scored_folders import AFFINES, SHAPE, ball, write_clusters, write_scan

from mednovelty.report.folder import report_folder

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PEAKS = ((5, 15, 8), (11, 7, 5))


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install mednovelty[browser-test]"
    )
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed: apt install chromium")
    with playwright.sync_playwright() as running:
        # As root, as in a container, Chromium starts without its sandbox only; pages are our own.
        browser = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=AFFINES)
def folder(request, tmp_path):
    affine = AFFINES[request.param]
    values = np.random.default_rng(0).uniform(0, 1, SHAPE)
    for height, peak in zip((8.0, 6.0), PEAKS, strict=True):
        values[peak] = height
    found = write_scan(tmp_path / "out", affine=affine, scores={"elbo": values, "other": values[::-1]})
    write_clusters(found, "sub-01", "elbo", [(affine @ [*peak, 1.0])[:3] for peak in PEAKS])
    write_scan(tmp_path / "out", id="sub-02", affine=affine)
    report_folder(tmp_path / "out")
    return found


def opened(browser, path, width=1400, scheme="light"):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.wrong, page.asked = [], []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda said: page.wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(path.as_uri())
    if path.name != "index.html":
        page.wait_for_selector("#viewer[data-ready]")
    return page


def pixels(page):
    """Return a hash of what the viewer shows: millions of numbers take minutes to come here."""
    return page.evaluate(
        "() => { const c = document.querySelector('.viewer-inner canvas'); let h = 7;"
        " for (const v of c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
        " h = (Math.imul(h, 31) + v) | 0; return h; }"
    )


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_open_without_an_error_and_ask_for_nothing(browser, tmp_path, width, scheme):
    folder = write_scan(tmp_path / "out")
    report_folder(tmp_path / "out")
    for path in (folder / "sub-01.html", tmp_path / "out" / "index.html"):
        page = opened(browser, path, width, scheme)
        assert page.wrong == []
        assert [url for url in page.asked if not url.startswith("data:")] == [path.as_uri()]
        # Nothing hangs out to the right: what is wide scrolls on its own.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 31)"
        )
        page.context.close()


def test_a_row_moves_the_viewer_to_its_clusters_peak(browser, folder):
    page = opened(browser, folder / "sub-01.html")
    readout = page.locator("#viewer-readout")
    for number, height in enumerate((8.0, 6.0)):
        row = page.locator("tr[data-mark]").nth(number)
        mm = [float(value) for value in row.get_attribute("data-mark").split(";")[1:]]
        before = pixels(page)
        row.click()
        shown = [float(value) for value in readout.get_attribute("data-mm").split(";")]
        size = float(re.search(r"cubes of ([\d.]+) mm", page.inner_text("#viewer-hint"))[1])
        assert np.abs(np.array(shown) - mm).max() <= 0.5 * size + 1e-3
        value = float(re.search(r"about ([\d.]+)", readout.inner_text())[1])
        assert value == pytest.approx(height, abs=8 / 250)
        assert "chosen" in row.get_attribute("class")
        if number:
            assert pixels(page) != before
    assert page.wrong == []
    page.context.close()


def test_an_explained_voxel_is_shown_in_the_viewer(browser, tmp_path):
    scores = {"elbo": np.random.default_rng(0).uniform(0, 1, SHAPE), "other": ball() * 1.0}
    folder = write_scan(tmp_path / "out", scores=scores)
    start = folder / "sub-01_desc-R2P4S8_explained"
    Image.new("L", (40, 30), 90).save(start.with_suffix(".png"))
    start.with_suffix(".json").write_text(json.dumps({"Scores": [{"Score": "other"}]}))
    report_folder(tmp_path / "out")
    page = opened(browser, folder / "sub-01.html")
    page.click("text=Show it in the viewer")
    page.locator("#viewer-readout", has_text="other").wait_for()
    shown = [float(v) for v in page.locator("#viewer-readout").get_attribute("data-mm").split(";")]
    assert np.abs(np.subtract(shown, (2, -4, 8))).max() <= 1.01
    assert page.input_value("#viewer-score") == "other"
    assert page.wrong == []
    page.context.close()


def test_brainsprites_own_coordinates_are_those_of_the_world(browser, folder):
    page = opened(browser, folder / "sub-01.html")
    page.locator("tr[data-mark]").nth(1).click()
    told = page.evaluate(
        "() => { const c = window.mednoveltyBrain.coordinatesSlice; return [c.X, c.Y, c.Z]; }"
    )
    shown = [float(v) for v in page.locator("#viewer-readout").get_attribute("data-mm").split(";")]
    assert told == pytest.approx(shown, abs=1e-3)
    page.context.close()


def test_the_threshold_changes_what_is_painted(browser, folder):
    page = opened(browser, folder / "sub-01.html")
    count = "() => Number(window.mednoveltyBrain.overlay.sprite.dataset.count)"
    slider = page.locator("#viewer-threshold")
    counts, painted = [], []
    for place in ("0", "300", "900"):
        slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", place)
        counts.append(page.evaluate(count))
        painted.append(pixels(page))
    # From the median on: half of the mask's voxels; at 0.9 of the range to 8 only the first peak is left.
    assert counts[0] > 0.4 * ball().sum()
    assert counts[0] > counts[1] > 0
    assert 1 <= counts[2] < counts[1]
    assert painted[0] != painted[1]
    page.fill("#viewer-value", "5.5")
    page.dispatch_event("#viewer-value", "change")
    assert 2 <= page.evaluate(count) <= counts[1]
    assert page.wrong == []
    page.context.close()


def test_a_threshold_that_is_typed_is_read_as_it_is_meant(browser, tmp_path):
    # Below 0, so that an empty field that counts as 0 would show.
    values = np.random.default_rng(0).uniform(-9, -1, SHAPE)
    folder = write_scan(tmp_path / "out", scores={"elbo": values})
    report_folder(tmp_path / "out")
    page = opened(browser, folder / "sub-01.html")
    field, count = page.locator("#viewer-value"), "() => Number(mednoveltyBrain.overlay.sprite.dataset.count)"

    def typed(text):
        field.fill(text)
        field.dispatch_event("change")
        return field.input_value(), page.evaluate(count)

    known, painted = typed("-3.5")
    assert known == "-3.5"
    assert painted > 0.1 * ball().sum()
    for text in ("", "  ", "3,4,5", "-2 or so", "0x1"):
        assert typed(text) == ("-3.5", painted)
    fewer, left = typed("-2,5")
    assert fewer == "-2.5"
    assert 0 < left < painted
    assert typed("\u22123,5") == ("-3.5", painted)  # A minus sign as word processors set it.
    assert page.wrong == []
    page.context.close()


def test_another_score_can_be_chosen_and_the_keyboard_moves(browser, folder):
    page = opened(browser, folder / "sub-01.html")
    readout = page.locator("#viewer-readout")
    assert "elbo" in readout.inner_text()
    page.evaluate("() => { document.getElementById('viewer-words').textContent = ''; }")
    page.select_option("#viewer-score", "other")
    page.locator("#viewer-readout", has_text="other").wait_for()
    assert page.inner_text("#viewer-words").startswith("Nothing was segmented; shown: the highest 3 %")
    before = [float(v) for v in readout.get_attribute("data-mm").split(";")]
    page.focus(".viewer-inner canvas")
    page.keyboard.press("ArrowLeft")  # Right is on the left.
    after = [float(v) for v in readout.get_attribute("data-mm").split(";")]
    assert after[0] > before[0]
    assert after[1:] == before[1:]
    page.context.close()


def settled(page):
    """Wait until every score's picture has come, and what waits for it has been done."""
    page.evaluate(
        "async () => { for (const score of JSON.parse(document.getElementById('viewer-facts').textContent)"
        ".scores) { const picture = new Image(); picture.src = score.levels; await picture.decode(); }"
        " await new Promise(done => setTimeout(done, 300)); }"
    )


def test_of_scores_chosen_one_right_after_the_other_the_last_is_shown(browser, tmp_path):
    values = np.random.default_rng(0).uniform(0, 1, SHAPE)
    folder = write_scan(tmp_path / "out", scores={"elbo": values, "other": values[::-1]})
    for score, peak in zip(("elbo", "other"), PEAKS, strict=True):
        write_clusters(folder, "sub-01", score, [(AFFINES["RAS"] @ [*peak, 1.0])[:3]])
    report_folder(tmp_path / "out")
    page = opened(browser, folder / "sub-01.html")
    before = pixels(page)
    page.evaluate(
        "() => { const chosen = document.getElementById('viewer-score');"
        " for (const name of ['other', 'elbo']) {"
        " chosen.value = name; chosen.dispatchEvent(new Event('change')); } }"
    )
    settled(page)
    assert page.input_value("#viewer-score") == "elbo"
    assert pixels(page) == before
    page.context.close()

    page = opened(browser, folder / "sub-01.html")
    # A row of the other score, whose picture is yet to come, and at once the first again.
    page.evaluate(
        "() => { const rows = document.querySelectorAll('tr[data-mark]'); rows[1].click(); rows[0].click(); }"
    )
    settled(page)
    assert page.input_value("#viewer-score") == "elbo"
    assert page.locator("#viewer-readout").inner_text().count("elbo") == 1
    assert [row.get_attribute("class") for row in page.locator("tr[data-mark]").all()] == ["chosen", ""]
    shown = [float(v) for v in page.locator("#viewer-readout").get_attribute("data-mm").split(";")]
    assert np.abs(shown - (AFFINES["RAS"] @ [*PEAKS[0], 1.0])[:3]).max() <= 1.01
    assert pixels(page) == before
    assert page.wrong == []
    page.context.close()


def test_a_click_on_a_column_sorts_the_cohort(browser, folder):
    page = opened(browser, folder.parents[1] / "index.html")
    assert page.locator("#score-filter").count() == 0  # one score alone
    ids = (
        "() => [...document.querySelectorAll('table.scans tbody tr')].map(r => r.cells[0].textContent.trim())"
    )
    page.click("table.scans th:nth-child(3) button")
    assert page.evaluate(ids) == ["sub-01", "sub-02"]  # n/a last
    page.click("table.scans th:nth-child(3) button")
    assert page.evaluate(ids) == ["sub-01", "sub-02"]
    page.click("table.scans th:nth-child(1) button")
    page.click("table.scans th:nth-child(1) button")
    assert page.evaluate(ids) == ["sub-02", "sub-01"]
    page.click("text=sub-01")
    page.wait_for_selector("#viewer[data-ready]")
    assert page.wrong == []
    page.context.close()


def test_print_hides_what_cannot_be_printed(browser, folder):
    page = opened(browser, folder / "sub-01.html")
    assert "A row moves the viewer" in page.locator("caption").inner_text()
    page.emulate_media(media="print")
    assert not page.is_visible("#viewer")
    assert page.is_visible("#quality")
    assert page.locator("caption").inner_text().strip() == "elbo: 2 clusters."
    page.context.close()


def test_a_table_of_clusters_is_as_wide_as_the_paper(browser, tmp_path):
    folder = write_scan(tmp_path / "out", scores={"a_score_with_a_long_name": ball() * 1.0})
    places = [f"{what}_{axis}_mm" for what in ("peak", "centroid") for axis in "xyz"]
    row = "12 33612 12345.25 -117.5 -101.5 -138.25 -119.6131 -101.409226 -135.30655 -11.779578 -10.001438"
    write_clusters(folder, "sub-01", "a_score_with_a_long_name", [(0, 0, 0)])
    (folder / "sub-01_desc-a_score_with_a_long_name_clusters.tsv").write_text(
        "\t".join(
            ["cluster", "voxels", "volume_mm3", *places, "mean", "max", "p_peak", "p_cluster", "region"]
        )
        + "\n"
        + "\t".join([*row.split(), "1.563981e-05", "0.04347826", "Left-Cerebral-White-Matter"])
        + "\n"
    )
    report_folder(tmp_path / "out")
    page = opened(browser, folder / "sub-01.html", width=718)
    table = page.locator("table").first
    assert table.locator("th:visible").count() == 14
    page.emulate_media(media="print")
    assert "centroid" not in " ".join(table.locator("th:visible").all_inner_texts())
    assert table.locator("td:visible").count() == 11
    # A4 between margins of a centimetre.
    assert table.evaluate("one => one.getBoundingClientRect().right") <= 718
    # As one of evaluate, whose numbers have intervals.
    cells = '<td class="number">0.739 (0.66-0.83)</td>' * 7
    page.evaluate(
        "html => document.querySelector('main').insertAdjacentHTML('beforeend', html)",
        f"<div class='wide'><table id='evaluated'><tr><td>a_score_of_some_length</td>{cells}</table></div>",
    )
    assert page.locator("#evaluated").evaluate("one => one.getBoundingClientRect().right") <= 718
    page.context.close()


def test_what_is_printed_from_a_dark_screen_has_the_colours_of_paper(browser, tmp_path):
    folder = write_scan(tmp_path / "out")
    report_folder(tmp_path / "out")
    colour = "() => getComputedStyle(document.querySelector('svg.chart .area')).fill"
    found = {}
    for scheme in ("light", "dark"):
        page = opened(browser, folder / "sub-01.html", scheme=scheme)
        found[scheme] = page.evaluate(colour)
        page.emulate_media(media="print", color_scheme=scheme)
        assert page.evaluate(colour) == found["light"]
        page.context.close()
    assert found["light"] != found["dark"]


def test_what_is_folded_away_is_printed(browser, tmp_path):
    scores = {name: np.random.default_rng(0).gamma(2, 1, SHAPE) for name in "abcde"}
    folder = write_scan(tmp_path / "out", scores=scores)
    report_folder(tmp_path / "out")
    page = opened(browser, folder / "sub-01.html")
    opens = "() => [...document.querySelectorAll('details')].map(one => one.open)"
    before = page.evaluate(opens)
    assert before.count(False) == 3  # two scores, and the files
    page.evaluate(f"() => addEventListener('beforeprint', () => {{ window.printed = ({opens})(); }})")
    page.pdf()
    assert all(page.evaluate("window.printed"))
    assert page.evaluate(opens) == before
    page.context.close()


def edges(page, frame):
    """Return of which edges of a frame something is said to be beyond, once that has been found out."""
    page.wait_for_timeout(100)
    return {name for name in ("more-left", "more-right") if name in (frame.get_attribute("class") or "")}


def test_on_a_phone_labels_can_be_read_and_what_goes_on_beside_is_seen_to(browser, tmp_path):
    folder = write_scan(tmp_path / "out")
    write_clusters(folder, "sub-01", "elbo", [(0, 0, 0)])
    report_folder(tmp_path / "out")
    page = opened(browser, folder / "sub-01.html", width=400)
    charts = page.locator("svg.chart:visible")
    assert charts.count() > 0
    for chart in charts.all():
        # Pixels of the screen to one of the chart, whose letters have 12.
        assert chart.evaluate("one => one.getScreenCTM().a") * 12 >= 10
    mosaic = page.locator("#scores ~ details img").first
    # Of its seven slices each is then as wide as a thumb.
    assert mosaic.evaluate("one => one.getBoundingClientRect().width") >= 900
    for frame in (mosaic.locator("xpath=.."), page.locator(".wide:has(table)").first):
        assert edges(page, frame) == {"more-right"}
        assert frame.evaluate("one => getComputedStyle(one).maskImage") != "none"
        frame.evaluate("one => { one.scrollLeft = 50; }")
        assert edges(page, frame) == {"more-left", "more-right"}
        frame.evaluate("one => { one.scrollLeft = 9999; }")
        assert edges(page, frame) == {"more-left"}
    # What stands over a table is read without moving it.
    caption = page.locator("caption").first
    assert caption.evaluate("one => one.getBoundingClientRect().width") <= 400
    page.locator(".wide:has(table)").first.evaluate("one => { one.scrollLeft = 100; }")
    assert caption.evaluate("one => one.getBoundingClientRect().left") >= 0
    # Of the three slices the axial one, which is the last, is seen first.
    viewer = page.locator(".viewer-frame")
    assert edges(page, viewer) == {"more-left"}
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.context.close()

    page = opened(browser, folder / "sub-01.html")
    assert page.locator(".more-left, .more-right").count() == 0
    page.context.close()
