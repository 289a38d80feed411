"""A headless Chromium that drives the page: Debian's `chromium` and `chromium-driver`.

Where they are not installed, the test is skipped and says so.
"""

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WAIT_S = 20.0
AXE = "axe-core@4.10.3"
ENTER, TAB = "\ue007", "\ue004"  # keys, as WebDriver writes them
_SWITCHES = (
    "--headless",
    "--no-sandbox",  # root may not have one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


class Page:
    """The page in a browser, and what a test does with it; every act waits for its end.

    Args:
        driver: a selenium driver.
        url: where the service listens.
    """

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self) -> None:
        """As a visitor of whom the browser keeps nothing."""
        self.forget_everything()
        self.reload()

    def forget_everything(self) -> None:
        """What the browser keeps for this address."""
        kept = {"origin": self.url, "storageTypes": "local_storage"}
        self.driver.execute_cdp_cmd("Storage.clearDataForOrigin", kept)

    def reload(self) -> None:
        self.driver.get(f"{self.url}/")
        self.settled()

    def settled(self) -> None:
        """Waits until no act is under way."""
        self.until(lambda: self.one("#main").get_attribute("aria-busy") == "false")

    def until(self, holds: Callable[[], Any]) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, WAIT_S, poll_frequency=0.02).until(lambda _: holds())

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.one(selector).text)

    def said(self) -> str:
        """What the page last told the visitor, whether it still slides in or not."""
        return str(self.one("#toast").get_attribute("textContent"))

    def click(self, selector: str) -> None:
        # as a person would: an element that is covered or outside the page cannot be clicked
        element = self.one(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()
        self.settled()

    def search(self, words: str) -> None:
        box = self.one("#words")
        box.clear()
        box.send_keys(words + "\n")
        self.settled()

    def ids(self, rows: str) -> list[str]:
        """The items of rows, in their order."""
        found: list[str] = self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((row) => row.dataset.id)", rows
        )
        return found

    def complaints(self) -> list[str]:
        """What the browser had to say: refused loads, errors of modules."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE"
        ]

    def checked_by_axe(self, source: str) -> tuple[list[Any], int]:
        """Serious and critical violations of accessibility, and how many rules passed."""
        self.driver.execute_script(source)
        results = self.driver.execute_async_script(
            "const done = arguments[0];"
            "axe.run(document).then(done, (error) => done({error: String(error)}))"
        )
        serious = [
            (found["id"], [node["html"] for node in found["nodes"]])
            for found in results["violations"]
            if found["impact"] in ("serious", "critical")
        ]
        return serious, len(results["passes"])

    def emulate(self, *, width: int = 1280, dark: bool = False) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


@contextmanager
def browser() -> Iterator[Any]:
    """A new Chromium with nothing kept from before; gives its driver."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("Chromium is not installed (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        for switch in (*_SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
        try:
            yield driver
        finally:
            driver.quit()


def axe_source(cache: Path) -> str:
    """The accessibility checker's script, from npm the first time."""
    script = cache / f"{AXE}.js"
    if not script.is_file():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed: it brings axe-core, the accessibility checker")
        with tempfile.TemporaryDirectory() as folder:
            packed = subprocess.run(
                [npm, "pack", "--json", "--silent", AXE],
                cwd=folder,
                check=True,
                capture_output=True,
                text=True,
            )
            (name,) = [entry["filename"] for entry in _entries(json.loads(packed.stdout))]
            with tarfile.open(Path(folder) / name) as archive:
                member = archive.extractfile("package/axe.min.js")
                assert member is not None
                script.write_bytes(member.read())
    return script.read_text(encoding="utf-8")


def _entries(packed: Any) -> list[dict[str, Any]]:
    """npm gives a list, or from version 11 on an object by package."""
    return list(packed.values()) if isinstance(packed, dict) else packed
