"""Debian's Chromium without a window, driven by its own driver."""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service

from tests.peers import require

_WIDTH, _HEIGHT = 1280, 800
_POLL_S = 0.2

# Of each its number, and what it writes.
_KEYS: dict[str, tuple[int, dict[str, str]]] = {
    "Tab": (9, {}),
    "Enter": (13, {"text": "\r"}),
    "Home": (36, {}),
    "ArrowRight": (39, {}),
}

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # its sandbox wants rights that root in a container has not
    "--disable-dev-shm-usage",  # a container's shared memory is small
    # A machine without a graphics card draws WebGL in software.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    # It asks nobody for anything but this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # What is drawn must not wait for somebody to look.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
)


class Browser:
    """A page of Chromium, and all that its console has said.

    Pictures of it go to the folder ``screenshots``, also where it does not do what it should.
    """

    def __init__(self, driver: webdriver.Chrome, screenshots: Path) -> None:
        self._driver = driver
        self._screenshots = screenshots
        self._console: list[dict[str, Any]] = []

    def open(self, url: str) -> None:
        """Go to a page; returns when it has loaded."""
        self._driver.get(url)

    def script(self, source: str, *arguments: object) -> Any:
        """Run JavaScript in the page, the body of a function; gives what it returns."""
        return self._driver.execute_script(source, *arguments)

    def wait(self, condition: Callable[[], object], *, what: str, timeout_s: float = 120.0) -> None:
        """Wait for a condition, or fail with a picture and what the console said."""
        if not self.comes(condition, timeout_s=timeout_s):
            try:
                seen = str(self.screenshot("failed"))
            except WebDriverException as error:  # it may be the browser itself that hangs
                seen = f"no picture: {error.msg}"
            said = "\n".join(self.console_errors())
            pytest.fail(f"the page did not {what} within {timeout_s:.0f} s; {seen}\n{said}")

    def comes(self, condition: Callable[[], object], *, timeout_s: float) -> bool:
        """Wait for a condition; gives whether it came."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(_POLL_S)
        return True

    def act(self, kind: str, x: float, y: float) -> None:
        """A mouse's "click" or "double-click" at a point of the page, in pixels."""
        for clicks in range(1, 3 if kind == "double-click" else 2):
            for event in ("mousePressed", "mouseReleased"):
                self._driver.execute_cdp_cmd(
                    "Input.dispatchMouseEvent",
                    {"type": event, "x": x, "y": y, "button": "left", "clickCount": clicks},
                )

    def press(self, key: str) -> None:
        """A key: "Tab", "Enter", "ArrowRight" ..., as the keyboard sends it."""
        code, text = _KEYS[key]
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        down = {"type": "keyDown" if text else "rawKeyDown", **event, **text}
        for sent in (down, {"type": "keyUp", **event}):
            self._driver.execute_cdp_cmd("Input.dispatchKeyEvent", sent)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self._driver.execute_cdp_cmd("Input.insertText", {"text": text})

    def sign_in(self, user: str, password: str) -> None:
        """Show this password with every request: HTTP Basic, without the browser's own window."""
        value = b64encode(f"{user}:{password}".encode()).decode()
        self._driver.execute_cdp_cmd("Network.enable", {})
        self._driver.execute_cdp_cmd(
            "Network.setExtraHTTPHeaders", {"headers": {"Authorization": f"Basic {value}"}}
        )

    def look(self, *, width: int, height: int, dark: bool = False) -> None:
        """A window of this size, by day or in the dark."""
        self._driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        wanted = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wanted]})

    def whole_screenshot(self, name: str) -> Path:
        """Keep the page from top to end, as PNG; pictures further down are loaded first."""
        self.script("for (const i of document.images) i.loading = 'eager'")
        self.comes(
            lambda: self.script("return [...document.images].every((i) => i.complete)"),
            timeout_s=20.0,
        )
        taken = self._driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True}
        )
        self._screenshots.mkdir(parents=True, exist_ok=True)
        file = self._screenshots / f"{name}.png"
        file.write_bytes(b64decode(taken["data"]))
        return file

    def turn_wheel(self, x: float, y: float, steps: int) -> None:
        """Turn the mouse's wheel at a point, down for positive steps."""
        self._driver.execute_cdp_cmd(
            "Input.dispatchMouseEvent",
            {"type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": 100 * steps},
        )

    def console_errors(self) -> list[str]:
        """Every error that the console has shown, uncaught ones and failed requests too."""
        self._console += self._driver.get_log("browser")
        return [entry["message"] for entry in self._console if entry["level"] == "SEVERE"]

    def screenshot(self, name: str) -> Path:
        """Keep what the window shows now, as PNG."""
        self._screenshots.mkdir(parents=True, exist_ok=True)
        file = self._screenshots / f"{name}.png"
        self._driver.save_screenshot(file)
        return file


@contextmanager
def chromium(profile: Path, screenshots: Path) -> Iterator[Browser]:
    """A browser with a new profile in an empty folder, for the length of a block."""
    options = webdriver.ChromeOptions()
    options.binary_location = require("chromium")
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(require("chromedriver")))
    try:
        driver.set_page_load_timeout(240)
        driver.set_script_timeout(60)
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": _WIDTH, "height": _HEIGHT, "deviceScaleFactor": 1, "mobile": False},
        )
        yield Browser(driver, screenshots)
    finally:
        driver.quit()
