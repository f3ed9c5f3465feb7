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

from experiments.attention_seen import attention_seen
from foundation_core.data.tokenizer import train_tokenizer
from foundation_core.evaluate.anatomy import write_anatomy
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.transformer import Model
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec
from tests.support.browser import NEEDS_CHROMIUM, picture

pytestmark = [pytest.mark.browser, NEEDS_CHROMIUM]

VOCABULARY = 400
SOURCE = Path(__file__).read_text()
TEXT = "for name in names:\n    print(name, 12)"
TRUNKS: dict[str, dict[str, Any]] = {
    "the quickstart's": {"norm": "layer", "feed": "relu2"},
    "of GPT-2's parts": {"position": "learned", "norm": "layer", "bias": True},
    "of Llama's parts": {"position": "rotary", "feed": "swiglu", "kv_heads": 2},
    "of the first transformer's parts": {
        "position": "sinusoidal", "residual": "post", "norm": "layer", "feed": "relu", "bias": True,
    },
    "with ALiBi": {"position": "alibi", "residual": "branch"},
    "with relative positions": {"position": "relative", "qk_norm": True},
    "without positions": {"position": "none", "kv_heads": 1},
}  # fmt: skip
TEXTS = (
    TEXT, "", " ", "\n", "\t\tindented\n\n\n    twice ", "naïve café, señor: ¿qué?", "日本語と한국어 🙂👩‍👩‍👧",
    "x\u0085y\ufeffz\u2028w\u00a0v",
    "<|end|> spelt out </script> & <b>", "1234567 3.14 0xff", "a" * 40, "don't ''' \"\"\" \\ {{described}}", SOURCE,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([SOURCE * 3], VOCABULARY)


def decoder(tie_embeddings: bool = True, **trunk: Any) -> Model:
    spec = ModelSpec(
        trunk=TrunkSpec(width=32, depth=2, heads=4, **trunk), context_tokens=64, tie_embeddings=tie_embeddings
    )
    model = initialize(build(spec, SampleShape(vocabulary=VOCABULARY)), seed=1)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():  # a fresh norm or bias does nothing, and would not be missed
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
    assert isinstance(model, Model)
    return model.eval()


@pytest.fixture
def shown(page: Page, tmp_path: Path, tokenizer: Tokenizer) -> Callable[[Model], Page]:
    """Opens the page of a model; an error in its script fails the test."""

    def show(model: Model) -> Page:
        page.on("pageerror", lambda error: pytest.fail(f"the page's script: {error}"))
        page.goto(write_anatomy(tmp_path / "anatomy.html", model, tokenizer, TEXT).as_uri())
        return page

    return show


@pytest.mark.parametrize("tie_embeddings", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
def test_the_page_gives_the_logits_and_weights_of_torch(
    shown: Callable[[Model], Page], tokenizer: Tokenizer, trunk: dict[str, Any], tie_embeddings: bool
) -> None:
    model = decoder(tie_embeddings, **trunk)
    page = shown(model)
    ids = tokenizer.encode(TEXT).ids
    logits = torch.tensor(
        page.evaluate("ids => ids.map((_, t) => Array.from(logitsAt(model, forward(model, ids), t)))", ids)
    )
    weights = page.evaluate("ids => forward(model, ids).blocks.map(block => block.weight)", ids)
    with torch.no_grad():
        exact = model(torch.tensor([ids]))[0]
        for name, parameter in model.named_parameters():  # what the page keeps; of positions it keeps all digits
            if ".table." not in name:
                parameter.copy_(parameter.half())
        with attention_seen() as seen:
            rounded = model(torch.tensor([ids]))[0]
    torch.testing.assert_close(logits, rounded, rtol=0, atol=2e-5)  # measured: 2.1e-6
    torch.testing.assert_close(logits, exact, rtol=0, atol=2e-2)  # measured: 5.7e-3
    for block, weight_BHTS in zip(weights, seen, strict=True):
        for head, rows in enumerate(block):
            for t, row in enumerate(rows):
                torch.testing.assert_close(
                    torch.tensor(row).float(), weight_BHTS[0, head, t, : t + 1], rtol=0, atol=1e-5
                )


def test_the_comparison_notices_another_model(shown: Callable[[Model], Page], tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT).ids
    page = shown(decoder(feed="relu"))
    logits = torch.tensor(page.evaluate("ids => Array.from(logitsAt(model, forward(model, ids), ids.length - 1))", ids))
    with torch.no_grad():
        assert (logits - decoder(feed="relu2")(torch.tensor([ids]))[0, -1]).abs().max() > 0.1


def test_the_pages_tokenizer_is_the_librarys(shown: Callable[[Model], Page], tokenizer: Tokenizer) -> None:
    page = shown(decoder())
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        assert page.evaluate("text => pairs.encode(text)", text) == ids, text
        assert page.evaluate("ids => pairs.decode(ids)", ids) == text


def test_a_reader_types_chooses_and_appends(shown: Callable[[Model], Page], tokenizer: Tokenizer) -> None:
    page = shown(decoder())
    page.locator("#text").fill("import re")
    tokens = page.locator("#tokens button")
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
    page.locator("#text").fill("")
    expect(page.locator("#notice")).to_have_text("Type something to begin.")
    page.locator("#text").fill(SOURCE[:2000])
    expect(page.locator("#notice")).to_have_text("Only the first 32 tokens are shown.")
    expect(page.locator("#tokens button")).to_have_count(32)


def test_the_file_asks_the_network_for_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    text = write_anatomy(tmp_path / "anatomy.html", decoder(), tokenizer).read_text()
    assert re.findall(r"(?:src|href)=|url\(|@import|fetch\(|https?:", text) == []
