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
const low = [], words = 'p, h1, h2, h3, td, th, dt, dd, li, a, summary, figcaption, .tag, .blank, svg text';
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
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield driver
    driver.quit()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
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
    asked = [
        line["message"] for line in browser.get_log("performance") if "Network.requestWillBeSent" in line["message"]
    ]
    assert not [line for line in asked if '"url":"http' in line]
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
