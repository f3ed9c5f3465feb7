"""A real Chromium, and the pictures that it takes.

With FOUNDATION_SCREENSHOTS set to a folder, the pictures are kept there (`docs/images` is made so).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium")
NEEDS_CHROMIUM = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"
)
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A window of a headless Chromium that asks nobody but the page."""
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser.new_page(viewport={"width": 1440, "height": 900})
        browser.close()


def picture(page: Page, name: str) -> None:
    """Keep what the window shows, if somebody wants it."""
    if folder := os.environ.get("FOUNDATION_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")
