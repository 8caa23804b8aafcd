"""A headless browser, for the tests of pages."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """Headless Chromium; its absence fails on continuous integration and skips elsewhere."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    try:
        from selenium import webdriver
    except ImportError:
        webdriver = None
    if not chromium or not chromedriver or webdriver is None:
        reason = "needs chromium, chromedriver and selenium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield browser
    browser.quit()


def load(driver: Any, page: Path, width: int) -> None:
    """Open a page at a width and wait until its figures are drawn."""
    from selenium.webdriver.support.wait import WebDriverWait

    override = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", override)
    driver.get_log("performance")
    driver.get(page.as_uri())
    driver.execute_script("window.dispatchEvent(new Event('beforeprint'))")  # draws what hasn't been seen yet
    drawn = "return [...document.querySelectorAll('.plot')].every(p => p.querySelector('.scatterlayer .point'))"
    WebDriverWait(driver, 300).until(lambda d: d.execute_script(drawn))


def requests(driver: Any) -> list[str]:
    """Addresses that the page asked for, beside its own file and what is inside it."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("data:")]


def run_axe(driver: Any) -> list[dict[str, Any]]:
    """Serious and critical faults that axe-core finds on the page that is open; skips without axe-core."""
    script = Path(__file__).parent.parent / "node_modules/axe-core/axe.min.js"
    if not script.exists():
        pytest.skip("needs axe-core: npm install --no-save axe-core")
    driver.execute_script(script.read_text(encoding="utf-8"))
    found = driver.execute_async_script("const done = arguments[0]; axe.run().then(done)")
    return [
        {"id": fault["id"], "impact": fault["impact"], "nodes": [node["html"][:200] for node in fault["nodes"][:3]]}
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
