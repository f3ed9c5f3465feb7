"""Every family that predicts tokens, on its anatomy page in a real Chromium: torch's numbers, and what readers do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from playwright.sync_api import Locator, Page, expect
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from experiments.attention_seen import attention_seen
from foundation_core.data.tokens.byte_level import train_tokenizer
from foundation_core.data.tokens.unigram import train_unigram
from foundation_core.evaluate.anatomy import Reads, write_anatomy
from foundation_core.model.experts import Experts
from foundation_core.model.layout import Layout
from foundation_core.model.transformer import EncoderDecoder, Reader
from foundation_core.objectives.experts import ask_routing
from foundation_core.specs import SpecialTokensSpec
from tests.support.anatomies import GRID, TRUNKS, VOCABULARY, a_model
from tests.support.browser import NEEDS_CHROMIUM, picture

pytestmark = [pytest.mark.browser, NEEDS_CHROMIUM]

SOURCE = Path(__file__).read_text()
TEXT = "for name in names:\n    print(name, 12)"
PREFIX = 5
VALUES = torch.randn(2, GRID.channels, GRID.height, GRID.width, generator=torch.Generator().manual_seed(3))


class Case(NamedTuple):
    """A family as a recipe chooses it."""

    family: str
    objective: str = "next_token"
    parts: Mapping[str, Any] = MappingProxyType({})


CASES = {
    "decoder": Case("decoder"),
    "decoder with an output layer of its own": Case("decoder", parts={"tie_embeddings": False}),
    "prefix": Case("decoder", "prefix"),
    "decoder with runs": Case("decoder", parts={"runs": {"lengths": (2, 3, 5), "rows": 50}}),
    "encoder": Case("encoder", "masked_token"),
    "mixture, one expert a token": Case("mixture", "balanced_next_token", {"experts": 3, "experts_per_token": 1}),
    "encoder of experts, two a token": Case("encoder", "masked_token", {"experts": 4, "experts_per_token": 2}),
    "encoder-decoder": Case("encoder_decoder", "span_corruption"),
    "encoder-decoder with runs": Case("encoder_decoder", "span_corruption", {"runs": {"lengths": (2,), "rows": 50}}),
    "encoder-decoder of two widths": Case(
        "encoder_decoder", "span_corruption", {"second": {"width": 48, "depth": 1, "heads": 3, "position": "alibi"}}
    ),
    "captioner": Case("captioner", "captioning"),
}
PARTS = {
    "decoder": list(TRUNKS),
    "prefix": ["with relative positions", "with ALiBi"],
    "encoder": ["of GPT-2's parts", "with relative positions", "with ALiBi"],
    "encoder-decoder": ["of Llama's parts", "of the first transformer's parts", "with relative positions"],
}
"""With which parts each family is compared; the others with the quickstart's."""
PAIRS = [(case, trunk) for case in CASES for trunk in PARTS.get(case, ["the quickstart's"])]
CONTROLS = {
    "prefix": "at([ids], 5), at([ids], 1)",
    "encoder-decoder": "at([ids, ids]), at([ids.slice(1), ids])",
    "decoder with runs": "at([ids]), (model.rows[0].stem.runs.lengths.reverse(), at([ids]))",
    "mixture, one expert a token": "at([ids]), (model.rows[0].blocks[0][1].branch.experts.reverse(), at([ids]))",
}
"""Two forwards of a family in the page's script, of which the second lacks what is special of it."""
Shown = Callable[..., Page]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([SOURCE * 3], VOCABULARY, SpecialTokensSpec(mask=True, start=True, sentinels=4))


@pytest.fixture
def shown(page: Page, tmp_path: Path, tokenizer: Tokenizer) -> Shown:
    """Opens the page of a model, in English; an error in its script fails the test."""

    def show(model: Reader, objective: str = "next_token", tokenizer: Tokenizer = tokenizer) -> Page:
        page.on("pageerror", lambda error: pytest.fail(f"the page's script: {error}"))
        values = VALUES if isinstance(model, EncoderDecoder) and hasattr(model.stem, "patch") else None
        page.goto(write_anatomy(tmp_path / "anatomy.html", model, tokenizer, Reads(TEXT, objective, values)).as_uri())
        page.locator("[data-language=en]").click()
        return page

    return show


def logits_of(model: Reader, ids: list[int], source: list[int], objective: str) -> Tensor:
    """(T, V) as torch has them."""
    row = torch.tensor([ids])
    if isinstance(model, EncoderDecoder):
        read = VALUES[:1] if hasattr(model.stem, "patch") else torch.tensor([source])
        return model(read, row)[0]
    place = torch.arange(len(ids))
    order = torch.where(place < PREFIX, PREFIX - 1, place)[None] if objective == "prefix" else None
    logits: Tensor = model(row, Layout(place[None], None, order))[0]
    return logits


@pytest.mark.parametrize(("name", "trunk"), PAIRS)
def test_the_page_gives_the_logits_and_weights_of_torch(
    shown: Shown, tokenizer: Tokenizer, name: str, trunk: str
) -> None:
    case = CASES[name]
    model = a_model(case.family, **case.parts, **TRUNKS[trunk])
    page = shown(model, case.objective)
    ids, source = tokenizer.encode(TEXT).ids, tokenizer.encode("def other(one):\n    return [").ids
    inputs = "state.rows.length > 1 ? [state.rows[0].isText ? source : state.rows[0].sampled.patches, ids] : [ids]"
    found = page.evaluate(
        f"""([ids, source, prefix]) => {{
            const traces = forward(model, {inputs}, prefix), last = model.rows.length - 1;
            return {{
                logits: ids.map((_, t) => Array.from(logitsAt(model.rows[last], traces[last], t))),
                weights: attentions.map(({{ row, block, part }}) => traces[row].blocks[block][part].weight),
            }};
        }}""",
        [ids, source, PREFIX],
    )
    logits = torch.tensor(found["logits"])
    with torch.no_grad():
        unrounded = logits_of(model, ids, source, case.objective)
        for name, parameter in model.named_parameters():  # what the page keeps; of positions it keeps all digits
            if ".table." not in name:
                parameter.copy_(parameter.half())
        with attention_seen() as seen:
            rounded = logits_of(model, ids, source, case.objective)
    torch.testing.assert_close(logits, rounded, rtol=0, atol=2e-5)
    if not case.parts.get("experts"):  # a rounded router may choose another expert
        torch.testing.assert_close(logits, unrounded, rtol=0, atol=2e-2)
    assert len(found["weights"]) == len(seen) > 0
    for on_page, weight_BHTS in zip(found["weights"], seen, strict=True):
        for head, rows in enumerate(on_page):
            for t, row in enumerate(rows):
                exact = weight_BHTS[0, head, t]
                torch.testing.assert_close(torch.tensor(row).float(), exact[: len(row)], rtol=0, atol=1e-5)
                assert exact[len(row) :].eq(0).all(), "what the page leaves out is not read"


@pytest.mark.parametrize(("case", "script"), CONTROLS.items(), ids=CONTROLS)
def test_the_comparison_notices_what_is_special_of_a_family(
    shown: Shown, tokenizer: Tokenizer, case: str, script: str
) -> None:
    page = shown(a_model(CASES[case].family, **CASES[case].parts), CASES[case].objective)
    one, other = page.evaluate(
        f"""(ids) => {{
            const last = (rows, prefix) => forward(model, rows, prefix).at(-1);
            const at = (rows, prefix) => Array.from(logitsAt(model.rows.at(-1), last(rows, prefix), 2));
            return [{script}];
        }}""",
        tokenizer.encode(TEXT).ids,
    )
    assert (torch.tensor(one) - torch.tensor(other)).abs().max() > 0.01


def best(page: Page) -> str:
    """The most probable token, as the page shows it."""
    return page.locator("#next button code").first.inner_text()


def visible(tokenizer: Tokenizer, number: int) -> str:
    """A token as the page shows it."""
    text: str = tokenizer.decode([number], skip_special_tokens=False)
    return text.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")


def chips(page: Page, row: str) -> Locator:
    """The tokens of a row."""
    return page.locator(f"#tokens-{row} button")


def test_a_token_of_an_encoder_is_hidden_guessed_and_put_back(shown: Shown, tokenizer: Tokenizer) -> None:
    model, ids = a_model("encoder"), tokenizer.encode(TEXT).ids
    page = shown(model, "masked_token")
    assert page.locator("#tokens-text .hidden-token").count() == 1, "the page begins with a hidden place"
    page.locator("#text-text").fill(TEXT)
    chips(page, "text").nth(2).click()
    assert "not hidden" in page.locator("#next-help").inner_text()
    page.locator(".hide").click()
    masked = [*ids[:2], tokenizer.token_to_id("<|mask|>"), *ids[3:]]
    assert page.evaluate("state.rows[0].input") == masked
    with torch.no_grad():
        asked = model(torch.tensor([masked]))[0, 2]
    assert best(page) == visible(tokenizer, int(asked.argmax()))
    rank = int((asked > asked[ids[2]]).sum()) + 1
    expect(page.locator("#next .truth")).to_have_text(f"it was this one: number {rank}")
    expect(page.locator("#next-name")).to_have_text("In the hidden place, number 3")
    picture(page, "anatomy-encoder")
    page.locator("#next button", has=page.locator(".truth")).click()
    assert page.evaluate("state.rows[0].input") == ids
    assert page.locator("#text-text").input_value() == TEXT


@pytest.mark.parametrize("spelt", ["[MASK]", "<|mask|>"])
def test_a_reader_may_type_the_mask(shown: Shown, tokenizer: Tokenizer, spelt: str) -> None:
    page = shown(a_model("encoder"), "masked_token")
    page.locator("#text-text").fill(f"def {spelt}(x)")
    left, right = (tokenizer.encode(text).ids for text in ("def ", "(x)"))
    assert page.evaluate("state.rows[0].input") == [*left, tokenizer.token_to_id("<|mask|>"), *right]


def test_spans_of_a_source_are_hidden_behind_sentinels_in_order(shown: Shown, tokenizer: Tokenizer) -> None:
    page = shown(a_model("encoder_decoder"), "span_corruption")
    page.locator("#text-source").fill(TEXT)
    ids, sentinels = tokenizer.encode(TEXT).ids, [tokenizer.token_to_id(f"<|sentinel-{n}|>") for n in range(4)]
    for place in (5, 1, 2):  # the first sentinel is the first in the row, whatever was hidden first
        chips(page, "source").nth(place).click()
        page.locator(".hide:visible").click()
    hidden = [ids[0], sentinels[0], *ids[3:5], sentinels[1], *ids[6:]]
    assert page.evaluate("state.rows[0].input") == hidden
    chips(page, "source").nth(1).click()
    page.locator(".hide:visible").click()
    assert page.evaluate("state.rows[0].input") == [*ids[:5], sentinels[0], *ids[6:]]


def test_the_target_reads_the_source_and_grows_by_a_click(shown: Shown, tokenizer: Tokenizer) -> None:
    model = a_model("encoder_decoder")
    page = shown(model, "span_corruption")
    expect(page.locator("#heads h3")).to_have_text(
        ["The source reads itself", "The target reads itself", "The target reads the source"]
    )
    source, target = page.evaluate("state.rows.map(({ input }) => input)")
    start, first = (tokenizer.token_to_id(token) for token in ("<|start|>", "<|sentinel-0|>"))
    assert target == [start, first]
    assert source.count(first) == 1
    with torch.no_grad():
        number = int(model(torch.tensor([source]), torch.tensor([target]))[0, -1].argmax())
    assert best(page) == visible(tokenizer, number)
    expect(page.locator("#reading tbody tr")).to_have_count(len(source) + 2)  # the query, the source, the sum
    page.locator("#next button").first.click()
    assert page.evaluate("state.rows[1].input") == [*target, number]
    picture(page, "anatomy-encoder-decoder")


def test_the_page_shows_the_experts_that_torch_chooses(shown: Shown, tokenizer: Tokenizer) -> None:
    model, ids = a_model("mixture", experts=4, experts_per_token=2), tokenizer.encode(TEXT).ids
    page = shown(model, "balanced_next_token")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
        ask_routing(model)
        model(torch.tensor([ids]))
    for column, experts in enumerate(part for part in model.modules() if isinstance(part, Experts)):
        assert experts.said is not None
        for t, chosen in enumerate(experts.said[1][0].tolist()):
            cell = page.locator("#experts tbody tr").nth(t).locator(".routed").nth(column)
            assert {int(text) - 1 for text in cell.locator(".passed").all_inner_texts()} == set(chosen)
    picture(page, "anatomy-mixture")


def test_a_model_without_experts_has_no_section_for_them(shown: Shown) -> None:
    assert not shown(a_model("decoder")).locator("#router").is_visible()


def test_the_slider_sets_the_length_of_the_prefix(shown: Shown, tokenizer: Tokenizer) -> None:
    model, ids = a_model("decoder"), tokenizer.encode(TEXT).ids
    page = shown(model, "prefix")
    page.locator(".prefix").fill(str(PREFIX))
    last = chips(page, "text").last
    last.click()
    with torch.no_grad():
        number = int(logits_of(model, ids, [], "prefix")[-1].argmax())
    assert best(page) == visible(tokenizer, number)
    widths = page.evaluate("chosen().seen.weight[0].map(({ length }) => length)")
    assert widths == [max(PREFIX, t + 1) for t in range(len(ids))]
    chips(page, "text").first.click()
    assert "inside the prefix" in page.locator("#next-help").inner_text()
    assert not shown(model).locator(".prefix").is_visible(), "only a model that was taught prefixes has one"


def test_a_captioner_reads_the_sample_that_is_chosen(shown: Shown) -> None:
    model = a_model("captioner", position="learned")
    page = shown(model, "captioning")
    expect(page.locator("#tokens-source .patch")).to_have_count(12)
    for sample in range(2):
        page.locator(".sample").nth(sample).click()
        with torch.no_grad():
            exact = model(VALUES[sample : sample + 1], torch.tensor([page.evaluate("state.rows[1].input")]))[0, -1]
        logits = page.evaluate("Array.from(logitsAt(model.rows[1], state.traces[1], 0))")
        torch.testing.assert_close(torch.tensor(logits), exact, rtol=0, atol=2e-2)
    picture(page, "anatomy-captioner")


def of_gpt2() -> Tokenizer:
    """A tokenizer whose words are cut as GPT-2's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator([SOURCE], trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet))
    return made


def unigram() -> Tokenizer:
    """A tokenizer of the most probable pieces."""
    return train_unigram([SOURCE], VOCABULARY, ["<|end|>"])


@pytest.mark.parametrize("make", [unigram, of_gpt2])
def test_other_byte_level_tokenizers_cut_as_the_library_does(shown: Shown, make: Callable[[], Tokenizer]) -> None:
    made = make()
    made.encode_special_tokens = True  # as `load_tokenizer` sets it
    page = shown(a_model("decoder"), tokenizer=made)
    for text in (TEXT, "", " \n", "naïve café: ¿qué?", "日本語 🙂", "it's 1234567  <|end|> don't", SOURCE):
        ids = made.encode(text, add_special_tokens=False).ids
        assert page.evaluate("text => tokenizer.encode(text)", text) == ids, text
        assert page.evaluate("ids => tokenizer.decode(ids)", ids) == text
