"""The page in a real browser: Debian's chromium, headless and cut off from any network."""

import base64
import importlib.util
import io
import shutil
from pathlib import Path

import pytest

from lit_mem.cli import main as cli

spec = importlib.util.spec_from_file_location("made_reports", Path(__file__).parent / "made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no chromium with chromedriver (apt: chromium chromium-driver)"
    ),
]

WIDER_THAN_THE_WINDOW = """
return [...document.querySelectorAll('body *')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 1 || box.left < -1) && !e.closest('.box') && !e.closest('svg');
}).map(e => e.outerHTML.slice(0, 120));
"""
CONTRAST = """
const light = c => { const v = c.map(x => { x /= 255; return x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4; });
  return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgba = c => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data]; };
const behind = e => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor);
  if (c[3] == 255) return c; } return [255, 255, 255, 255]; };
const low = [], words = 'p, h1, h2, h3, td, th, dt, dd, li, a, button, label, input, summary, figcaption, .tag, ' +
  '.blank, .tip *, svg text';
for (const e of document.querySelectorAll(words)) {
  if (!e.textContent.trim()) continue;
  const style = getComputedStyle(e), back = light(behind(e));
  const ink = light(rgba(e.closest('svg') ? style.fill : style.color));
  const ratio = (Math.max(ink, back) + .05) / (Math.min(ink, back) + .05);
  if (ratio < 4.5) low.push([ratio, e.textContent.slice(0, 60)]);
}
return low;
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    run = made.write_run(root / "quick" / "version_0", text=True, origin="a_long_name_of_a_file_" * 5)
    made.write_where(run)
    made.write_persons(run)
    sweep = made.write_sweep(root / "matrices")
    short = made.write_run(root / "quick" / "version_1", epochs=0, table=False, limits="")
    for folder in (run, sweep, short):
        cli.main(["report", str(folder)])
    return {"run": run, "sweep": sweep, "short": short}


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(word)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.add_argument("--disable-smooth-scrolling")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield driver
    driver.quit()


def opened(browser, path, width=1200, height=900, **features):
    """A page with all details open, with media features such as prefers_color_scheme."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    media = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": media})
    browser.get(f"file://{path / 'report.html'}")
    browser.execute_script("document.querySelectorAll('details').forEach(part => part.open = true)")


def data_of(browser, slug):
    return browser.execute_script(f"return JSON.parse(document.querySelector('#{slug} script').textContent)")


def focus(browser, slug):
    """Reach a plot as the Tab key does."""
    from selenium.webdriver.common.keys import Keys

    view = browser.find_element("css selector", f"#{slug} .view")
    buttons = browser.find_elements("css selector", f"#{slug} .legend button")
    browser.execute_script("arguments[0].focus()", buttons[-1])
    buttons[-1].send_keys(Keys.TAB)
    assert browser.switch_to.active_element == view
    return view


def tip(browser, slug):
    """Lines of the values shown; None where they are hidden."""
    return browser.execute_script(
        f"const tip = document.querySelector('#{slug} .tip');"
        "return tip.hidden ? null : [...tip.children].map(line => line.textContent)"
    )


def said(browser):
    return browser.execute_script("return document.querySelector('[role=status]').textContent")


def expected_tip(data, i, j):
    one = data["series"][i]
    texts = one["points"][j][2:]
    return [one["name"], *(f"{name}: {text}" for name, text in zip(data["names"], texts, strict=False) if text)]


def test_the_values_of_the_nearest_point_are_shown_on_hover(browser, pages):
    from selenium.webdriver.common.action_chains import ActionChains

    opened(browser, pages["run"])
    data = data_of(browser, "auroc")
    svg = browser.find_element("css selector", "#auroc svg")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", svg)
    size = browser.execute_script(
        "const box = arguments[0].getBoundingClientRect(), view = arguments[0].viewBox.baseVal;"
        "return [box.width, box.height, box.width / view.width]", svg,
    )  # fmt: skip
    assert tip(browser, "auroc") is None
    i, points = next((i, one["points"]) for i, one in enumerate(data["series"]) if one["name"] == "reference")
    assert len(points) == 4
    for j, (x, y, *_) in enumerate(points):
        away = round(x * size[2] - size[0] / 2 + 4), round(y * size[2] - size[1] / 2 + 4)
        ActionChains(browser).move_to_element_with_offset(svg, *away).perform()
        assert tip(browser, "auroc") == expected_tip(data, i, j)
    box, view = browser.execute_script(
        "const box = part => document.querySelector(`#auroc ${part}`).getBoundingClientRect().toJSON();"
        "return [box('.tip'), box('.view')]"
    )
    assert view["left"] - 1 <= box["left"]
    assert box["right"] <= view["right"] + 1
    assert said(browser) == ""  # a pointer is not read aloud
    ActionChains(browser).move_to_element(browser.find_element("css selector", "#auroc h3")).perform()
    assert tip(browser, "auroc") is None


def test_a_plot_can_be_read_with_the_keyboard(browser, pages):
    from selenium.webdriver.common.keys import Keys

    opened(browser, pages["run"])
    data = data_of(browser, "perplexity")
    view = focus(browser, "perplexity")
    assert view.get_attribute("role") == "application"
    assert "Perplexity" in view.get_attribute("aria-label")
    assert tip(browser, "perplexity") == expected_tip(data, 0, 0)
    for key, i, j in (
        (Keys.ARROW_RIGHT, 0, 1), (Keys.END, 0, 3), (Keys.ARROW_RIGHT, 0, 3), (Keys.ARROW_DOWN, 1, 3),
        (Keys.ARROW_LEFT, 1, 2), (Keys.ARROW_UP, 0, 2), (Keys.HOME, 0, 0), (Keys.ARROW_UP, 1, 0),
    ):  # fmt: skip
        view.send_keys(key)
        assert tip(browser, "perplexity") == expected_tip(data, i, j), key
        assert said(browser) == ", ".join(expected_tip(data, i, j))
    view.send_keys(Keys.ESCAPE)
    assert tip(browser, "perplexity") is None
    assert browser.switch_to.active_element == view
    view.send_keys(Keys.ARROW_RIGHT)
    assert tip(browser, "perplexity") == expected_tip(data, 1, 0)
    view.send_keys(Keys.TAB)
    assert tip(browser, "perplexity") is None


def test_a_button_of_the_legend_switches_its_series_off_and_on(browser, pages):
    from selenium.webdriver.common.keys import Keys

    opened(browser, pages["run"])
    data = data_of(browser, "perplexity")
    buttons = browser.find_elements("css selector", "#perplexity .legend button")
    assert [button.text for button in buttons] == [one["name"] for one in data["series"]]
    shown = "return [0, 1].map(i => document.getElementById(`perplexity-s${i}-0`).getBoundingClientRect().width > 0)"
    assert browser.execute_script(shown) == [True, True]
    for pressed, drawn in (("false", [False, True]), ("true", [True, True]), ("false", [False, True])):
        buttons[0].send_keys(Keys.SPACE)
        assert buttons[0].get_attribute("aria-pressed") == pressed
        assert browser.execute_script(shown) == drawn
    view = focus(browser, "perplexity")
    for key in (Keys.ARROW_DOWN, Keys.ARROW_UP):
        assert tip(browser, "perplexity")[0] == data["series"][1]["name"]
        view.send_keys(key)
    buttons[1].send_keys(Keys.ENTER)
    focus(browser, "perplexity").send_keys(Keys.ARROW_RIGHT)
    assert tip(browser, "perplexity") is None


def test_a_band_goes_with_its_line(browser, pages):
    opened(browser, pages["run"])
    button = browser.find_element("css selector", "#auroc .legend button")
    parts = "return document.querySelectorAll('#auroc svg [id^=\"auroc-s0-\"]').length"
    hidden = (
        "return [...document.querySelectorAll('#auroc svg [id^=\"auroc-s0-\"]')].filter(e => e.style.display).length"
    )
    assert browser.execute_script(parts) == 2
    browser.execute_script("arguments[0].click()", button)
    assert browser.execute_script(hidden) == 2


EXPOSED = "section#examples table:has(td.name)"


def column(browser, table, i):
    return browser.execute_script(
        f"return [...document.querySelector('{table}').tBodies[0].rows].filter(row => !row.hidden)"
        f".map(row => row.cells[{i}].textContent.trim())"
    )


def test_tables_sort_by_their_headers(browser, pages):
    opened(browser, pages["run"])
    headers = browser.find_elements("css selector", f"{EXPOSED} thead th")
    names = [header.text.split()[0] for header in headers]
    i = names.index("mia/reference")
    before = column(browser, EXPOSED, i)
    assert len(before) == 20
    values = sorted(float(cell.replace("−", "-")) for cell in before)
    for way, expected in (("ascending", values), ("descending", values[::-1])):
        browser.execute_script("arguments[0].querySelector('button').click()", headers[i])
        assert headers[i].get_attribute("aria-sort") == way
        assert [float(cell.replace("−", "-")) for cell in column(browser, EXPOSED, i)] == expected
        assert said(browser) == f"Sorted by mia/reference, {way}"
    rate = names.index("extraction/ngram_rate")  # some were not measured: last in both directions
    blank = column(browser, EXPOSED, rate).count("not measured")
    assert 0 < blank < 20
    for _ in range(2):
        browser.execute_script("arguments[0].querySelector('button').click()", headers[rate])
        assert column(browser, EXPOSED, rate)[-blank:] == ["not measured"] * blank
    assert headers[i].get_attribute("aria-sort") is None
    text = names.index("origin")
    browser.execute_script("arguments[0].querySelector('button').click()", headers[text])
    numbers = [int(cell.rpartition(":")[2]) for cell in column(browser, EXPOSED, text)]
    assert numbers == sorted(numbers)


def test_a_text_box_filters_the_rows(browser, pages):
    opened(browser, pages["run"])
    box = browser.find_element("css selector", "section#examples > .filter input")
    origins = column(browser, EXPOSED, 1)
    wanted = [origin for origin in origins if origin.endswith(":5") or ":5" in origin]
    assert 0 < len(wanted) < 20
    box.send_keys(":5")
    assert column(browser, EXPOSED, 1) == wanted
    count = browser.find_element("css selector", "section#examples > .filter output")
    assert count.text == f"{len(wanted)} of 20 rows"
    box.clear()
    box.send_keys("<b>no such row")
    assert column(browser, EXPOSED, 1) == []
    browser.execute_script("arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", box)
    assert column(browser, EXPOSED, 1) == origins


def test_the_trials_of_a_sweep_can_be_filtered_and_sorted(browser, pages):
    opened(browser, pages["sweep"])
    box = browser.find_element("css selector", "section#trials .filter input")
    box.send_keys("failed")
    assert column(browser, "section#trials table", 0) == ["t0027"]
    box.clear()
    box.send_keys(" ")
    header = browser.find_element(
        "css selector", "section#configurations > .box > table:not(.heat) thead th:nth-child(2)"
    )
    browser.execute_script("arguments[0].querySelector('button').click()", header)
    assert column(browser, "section#configurations > .box > table:not(.heat)", 1) == ["1"] * 3 + ["4"] * 3 + ["16"] * 3


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_nothing_moves_where_reduced_motion_is_preferred(browser, pages, motion):
    opened(browser, pages["run"], prefers_reduced_motion=motion)
    style = "const style = getComputedStyle(arguments[0]); return [style.transitionDuration, style.scrollBehavior]"
    found = [
        browser.execute_script(style, browser.find_element("css selector", part)) for part in ("#auroc .tip", "html")
    ]
    still = [found[0][0], found[1][1]] == ["0s", "auto"]
    assert still == (motion == "reduce")


def test_a_print_has_no_controls(browser, pages):
    opened(browser, pages["run"])
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script("return [...document.querySelectorAll('.filter')].every(e => !e.offsetHeight)")
    marks = "return [...document.querySelectorAll('button')].map(e => getComputedStyle(e, '::after').content)"
    assert set(browser.execute_script(marks)) <= {"none", "normal"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_policy_stops_every_other_script(browser, pages, tmp_path):
    html = (pages["run"] / "report.html").read_text()
    (tmp_path / "report.html").write_text(html.replace("</main>", "<script>window.ran = true</script></main>"))
    browser.get(f"file://{tmp_path / 'report.html'}")
    assert browser.execute_script("return window.ran") is None
    assert browser.find_elements("css selector", ".legend button")
    assert any("Content Security Policy" in line["message"] for line in browser.get_log("browser"))


def test_the_page_is_whole_without_scripts(browser, pages):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(f"file://{pages['run'] / 'report.html'}")
        assert not browser.find_elements("css selector", "button, input, .tip")
        assert len(browser.find_elements("css selector", "figure svg")) >= 5
        assert browser.find_elements("css selector", "#auroc .legend li")[0].text == "reference"
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1200])
@pytest.mark.parametrize("kind", ["run", "sweep", "short"])
def test_the_page_opens_and_fits(browser, pages, tmp_path, kind, width, scheme):
    from PIL import Image

    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(f"file://{pages[kind] / 'report.html'}")
    for opened in (False, True):
        if opened:
            browser.execute_script("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        assert browser.execute_script("return innerWidth") == width
        assert browser.execute_script(WIDER_THAN_THE_WINDOW) == []
    assert browser.execute_script(CONTRAST) == []
    assert browser.get_log("browser") == []
    requests = [
        line["message"] for line in browser.get_log("performance") if "Network.requestWillBeSent" in line["message"]
    ]
    assert not [line for line in requests if '"url":"http' in line]
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    picture = base64.b64decode(shot["data"])
    (tmp_path / f"{kind}_{width}_{scheme}.png").write_bytes(picture)
    corner = Image.open(io.BytesIO(picture)).convert("L").getpixel((1, 1))
    assert (corner > 200) == (scheme == "light")


def test_what_the_test_looks_at_can_fail(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><body style='background:#fff'>"
        "<p style='color:#ccc;width:2000px'>pale and wide</p><img src='http://example.invalid/x.png'>"
    )
    browser.get(f"file://{page}")
    assert browser.execute_script(CONTRAST)
    assert browser.execute_script(WIDER_THAN_THE_WINDOW)
    assert browser.get_log("browser")
