"""The data card and the look into a data set in a real Chromium: wide and narrow, light and dark, no network."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from foundation_core.pages.card import CARD_FOLDER, PAGE_FILE
from foundation_core.pages.peek import Wanted, peek
from foundation_core.pages.peek_page import peek_page
from foundation_core.pages.reading import open_corpus
from foundation_core.store import Result
from tests.support.browser import NEEDS_CHROMIUM, picture
from tests.support.shown import LONG

pytestmark = [pytest.mark.browser, NEEDS_CHROMIUM]

INK = {"light": "rgb(34, 48, 63)", "dark": "rgb(228, 233, 239)"}
PAPER = {"light": "rgb(246, 247, 249)", "dark": "rgb(18, 23, 29)"}
_STYLE = "([place, name]) => getComputedStyle(document.querySelector(place))[name]"


@pytest.fixture(scope="module")
def pages(shown: Result, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    look = tmp_path_factory.mktemp("pages") / "look.html"
    look.write_text(peek_page(peek(open_corpus(shown.folder), Wanted(f"folder/{LONG}.txt")), ids=True))
    return {"card": shown.folder / CARD_FOLDER / PAGE_FILE, "look": look}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["card", "look"])
def test_a_page_fits_its_window_in_its_colours_and_asks_nobody(
    page: Page, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    asked, wrong = list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(pages[name].as_uri())
    picture(page, f"data-{name}-{width}-{scheme}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (asked, wrong) == ([pages[name].as_uri()], [])
    assert "harmed" not in page.title(), "a document's text was run"
    assert page.evaluate(_STYLE, ["body", "backgroundColor"]) == PAPER[scheme]
    if name == "card":
        assert page.evaluate(_STYLE, ["figure svg text", "fill"]) == INK[scheme]
        expect(page.get_by_role("img", name="Bytes of each kept document")).to_be_visible()
        expect(page.get_by_text("Each is in exactly one of the three")).to_be_visible()
    else:
        expect(page.get_by_role("heading", name="Packed rows")).to_be_visible()
        assert page.locator(".begin").count() >= 1
