"""The anatomy page computes what torch computes: a real Chromium on the written file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect
from tokenizers import Tokenizer

from foundation_core.data.tokens.byte_level import train_tokenizer
from foundation_core.evaluate.anatomy import Reads, write_anatomy
from foundation_core.model.transformer import Model
from tests.support.anatomies import VOCABULARY, a_model
from tests.support.browser import NEEDS_CHROMIUM, picture

pytestmark = [pytest.mark.browser, NEEDS_CHROMIUM]

SOURCE = Path(__file__).read_text()
TEXT = "for name in names:\n    print(name, 12)"
TEXTS = (
    TEXT, "", " ", "\n", "\t\tindented\n\n\n    twice ", "naïve café, señor: ¿qué?", "日本語と한국어 🙂👩‍👩‍👧",
    "x\u0085y\ufeffz\u2028w\u00a0v",
    "<|end|> spelt out </script> & <b>", "1234567 3.14 0xff", "a" * 40, "don't ''' \"\"\" \\ {{described}}", SOURCE,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([SOURCE * 3], VOCABULARY)


def decoder(**trunk: Any) -> Model:
    model = a_model("decoder", **trunk)
    assert isinstance(model, Model)
    return model


@pytest.fixture
def shown(page: Page, tmp_path: Path, tokenizer: Tokenizer) -> Callable[[Model], Page]:
    """Opens the page of a model; an error in its script fails the test."""

    def show(model: Model) -> Page:
        page.on("pageerror", lambda error: pytest.fail(f"the page's script: {error}"))
        page.goto(write_anatomy(tmp_path / "anatomy.html", model, tokenizer, Reads(TEXT)).as_uri())
        return page

    return show


def test_the_comparison_notices_another_model(shown: Callable[[Model], Page], tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT).ids
    page = shown(decoder(feed="relu"))
    script = "ids => Array.from(logitsAt(model.rows[0], forward(model, [ids])[0], ids.length - 1))"
    logits = torch.tensor(page.evaluate(script, ids))
    with torch.no_grad():
        assert (logits - decoder(feed="relu2")(torch.tensor([ids]))[0, -1]).abs().max() > 0.1


def test_the_pages_tokenizer_is_the_librarys(shown: Callable[[Model], Page], tokenizer: Tokenizer) -> None:
    page = shown(decoder())
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        assert page.evaluate("text => tokenizer.encode(text)", text) == ids, text
        assert page.evaluate("ids => tokenizer.decode(ids)", ids) == text


def test_a_reader_types_chooses_and_appends(shown: Callable[[Model], Page], tokenizer: Tokenizer) -> None:
    page = shown(decoder())
    page.locator("#text-text").fill("import re")
    tokens = page.locator("#tokens-text button")
    expect(tokens).to_have_count(len(tokenizer.encode("import re").ids))
    page.locator("#heads button").nth(5).click()
    page.get_by_role("button", name="English").click()
    expect(page.locator("#head-name")).to_have_text("Block 2, head 2")
    tokens.first.click()
    expect(page.locator("#reading tbody tr")).to_have_count(3)  # its query, itself, the sum
    before = tokens.count()
    tokens.last.click()
    page.locator("#next button").first.click()
    expect(tokens).to_have_count(before + 1)
    picture(page, "anatomy")


def test_probabilities_on_the_page_sum_to_one(shown: Callable[[Model], Page]) -> None:
    page = shown(decoder())
    page.get_by_role("button", name="English").click()
    shares = [float(text.replace("%", "")) for text in page.locator("#next .number").all_inner_texts()]
    assert len(shares) == 11
    assert sum(shares) == pytest.approx(100, abs=0.3)  # each is rounded to a tenth or a hundredth


def test_the_page_speaks_spanish_and_turns_dark(shown: Callable[[Model], Page]) -> None:
    page = shown(decoder())
    page.get_by_role("button", name="Español").click()
    expect(page.locator("h1")).to_have_text("Anatomía de una pasada hacia delante")
    page.locator("[data-language=en]").click()
    expect(page.locator("h1")).to_have_text("Anatomy of a forward pass")
    shades = []
    for _ in range(2):
        page.locator("#theme").click()
        shades.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert shades[0] != shades[1]


def test_the_languages_say_the_same_things(shown: Callable[[Model], Page]) -> None:
    page = shown(decoder())
    assert page.evaluate("Object.keys(WORDS.en).join()") == page.evaluate("Object.keys(WORDS.es).join()")


def test_an_empty_text_and_a_long_one_are_no_error(shown: Callable[[Model], Page]) -> None:
    page = shown(decoder())
    page.get_by_role("button", name="English").click()
    page.locator("#text-text").fill("")
    expect(page.locator(".notice")).to_have_text("Type something to begin.")
    page.locator("#text-text").fill(SOURCE[:2000])
    expect(page.locator(".notice")).to_have_text("Only the first 32 tokens are shown.")
    expect(page.locator("#tokens-text button")).to_have_count(32)


def test_the_file_asks_the_network_for_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    text = write_anatomy(tmp_path / "anatomy.html", decoder(), tokenizer).read_text()
    assert re.findall(r"(?:src|href)=|url\(|@import|fetch\(|https?:", text) == []
