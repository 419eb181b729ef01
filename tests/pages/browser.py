"""A headless Chromium without network, driven through chromedriver; or why there is none."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

#: Set where the tests have to run: a missing browser is a failure there and no skip.
REQUIRED = "BROWSER_REQUIRED"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--force-prefers-reduced-motion"),
)


def found(*names: str) -> str | None:
    """Return the first of these programs that is installed."""
    return next(filter(None, map(shutil.which, names)), None)


def why_not() -> str:
    """Return what is missing, or ``""``."""
    if importlib.util.find_spec("selenium") is None:
        return "selenium is not installed: tox run -e docs installs it"
    if found("chromium", "chromium-browser", "google-chrome") is None:
        return "no Chromium: apt-get install chromium chromium-driver"
    if found("chromedriver") is None:
        return "no chromedriver: apt-get install chromium-driver"
    return ""


def need_browser() -> None:
    """Skip where there is no browser, or fail where there has to be one."""
    if missing := why_not():
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set: {missing}", pytrace=False)
        pytest.skip(missing)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start a browser with a profile of its own, and end it."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = found("chromium", "chromium-browser", "google-chrome") or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    """What the tests do with a browser."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def looks(self, width: int = 1400, height: int = 1000, *, theme: str = "light") -> None:
        """Set the size of the window, a telephone's below 500, and light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"media": "", "features": [{"name": "prefers-color-scheme", "value": theme}]},
        )

    def media(self, kind: str) -> None:
        """Show the page as on a screen or as it is printed."""
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind})

    def open(self, path: Path) -> None:
        """Open a file; what was logged before is forgotten."""
        self.driver.get("about:blank")
        self.said()
        self.requests()
        self.driver.get(path.as_uri())

    def run(self, script: str, *arguments: object) -> Any:
        """Run a script and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        """The elements of a CSS selector that are shown."""
        return [e for e in self.driver.find_elements("css selector", selector) if e.is_displayed()]

    def texts(self, selector: str) -> list[str]:
        """The texts of the elements of a selector that are shown, each in one line.

        Read in one step: a page that is being scrolled draws its rows anew.
        """
        texts: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])]"
            "  .filter((e) => e.checkVisibility()).map((e) => e.innerText)",
            selector,
        )
        return [" ".join(text.split()) for text in texts]

    def press(self, *keys: str) -> None:
        """Press keys, whatever has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains

        actions = ActionChains(self.driver)
        for key in keys:
            actions.send_keys(key)
        actions.perform()

    def said(self) -> list[str]:
        """What was written to the console since it was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since it was asked last, data in the page aside."""
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        urls = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith(("data:", "about:"))]

    def picture(self, path: Path, *, most: int = 4000) -> None:
        """Write a picture of the whole page."""
        height = self.run("return document.documentElement.scrollHeight")
        width = self.run("return innerWidth")
        size = {"width": width, "height": min(height, most), "deviceScaleFactor": 1}
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {**size, "mobile": width < 500}
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))
