"""Each token's type is that of the Python token that holds it."""

import pytest
import torch

from foundation_core.adapt.tokens import BLANK, TYPES, TokenTypes, types_of_bytes, types_of_tokens
from foundation_core.data.tokens.byte_level import END_ID, encode_document, token_bytes, train_tokenizer
from foundation_core.objectives.base import IGNORE
from foundation_core.specs import FinetuneSpec
from tests.support.tasks import ingested

SOURCE = 'def name(x):  # why\n    """Señal."""\n    return x + 12.5\n\n\nvalue = [\n    1,\n]\n'


def named(text):
    return [TYPES[kind] for kind in types_of_bytes(text)]


def test_every_byte_has_the_type_of_its_python_token():
    found = named(SOURCE)
    assert len(found) == len(SOURCE.encode())
    for word, expected in (
        ("def", "NAME"), ("(", "OP"), ("# why", "COMMENT"), ('"""Señal."""', "STRING"), ("12.5", "NUMBER"),
        ("x + ", "NAME"), ("+", "OP"),
    ):  # fmt: skip
        assert found[len(SOURCE[: SOURCE.index(word)].encode())] == expected
    assert found[len(SOURCE[: SOURCE.index("12.5")].encode()) - 1] == BLANK
    assert found[SOURCE.index("\n")] == "NEWLINE"
    assert found[len(SOURCE[: SOURCE.index("[\n") + 1].encode())] == "NL"
    assert found[SOURCE.index("    ")] == "INDENT"


def test_what_python_cannot_read_has_no_types():
    assert types_of_bytes("def (:\n  'open\n") is None


def test_a_token_that_begins_with_a_blank_has_the_type_of_its_word():
    tokenizer = train_tokenizer([SOURCE * 50], 285)
    ids = torch.tensor(encode_document(tokenizer, SOURCE))
    labels = types_of_tokens(ids, tokenizer, token_bytes(tokenizer))
    assert labels[-1] == IGNORE
    assert ids[-1] == END_ID
    place = 0
    for token, label in zip(ids[:-1].tolist(), labels[:-1].tolist(), strict=True):
        length = int(token_bytes(tokenizer)[token])
        inside = set(named(SOURCE)[place : place + length]) - {BLANK}
        assert TYPES[label] in (inside or {BLANK})
        place += length
    assert any(tokenizer.decode([token]).startswith(" ") for token in ids.tolist()), "control: there are such tokens"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    spec = FinetuneSpec(task="token_types", fragment_tokens=16, all_labels=30, evaluation_labels=8, few_labels=5)
    return TokenTypes().data(ingested(tmp_path_factory.mktemp("corpus")).folder, spec)


def test_rows_are_fragments_with_a_label_for_each_token(data):
    for rows, count in ((data.train, 30), (data.validation, 8), (data.test, 8)):
        assert rows.tensors["inputs"].shape == rows.labels.shape == (count, 16)
        known = rows.labels[rows.labels != IGNORE]
        assert known.min() >= 0
        assert known.max() < len(data.classes)
    assert {"NAME", "OP", "NUMBER"} <= set(data.classes)
    assert "COMMENT" not in data.classes, "a class is what training shows"
    assert len(TokenTypes().few(data, seed=0)) == 5


def test_no_document_is_on_two_sides(data):
    sides = [set(rows.documents) for rows in (data.train, data.validation, data.test)]
    assert not sides[0] & sides[1] | sides[1] & sides[2] | sides[0] & sides[2]
