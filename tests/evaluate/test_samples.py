"""Which generated text counts as Python."""

import pytest

from foundation_core.evaluate.samples import Prompt, choose_prompts, judge, share_parsed, statements, whole_lines

SOURCE = '''"""A module."""
import os

def first(a, b):
    return a + b

class Second(Exception):
    pass

x = """
def not_a_definition(:
"""
def broken(a:
'''
PROMPT = Prompt("a", "def f(x):\n", "    return x\n")


def parsed(completion):
    return judge(PROMPT, completion, "    return x\n").statements


def test_whole_lines_end_where_the_last_line_does():
    assert [whole_lines(text) for text in ("a\nb", "a\nb\n", "a", "")] == ["a\n", "a\nb\n", "", ""]


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("    return x\n", 1),
        ("    return x\n    y = (1,", 1),  # the open line is cut
        ("    if x:\n        return 1\n    return 2\n", 3),
        ("    return x\n\nx = 1\n", 2),
        ("    return x", None),  # no whole line is left: a definition without a body
        ("", None),
        ("\n\n\n", None),
        ("    # nothing\n", None),
        ("    return (x\n", None),
        ("return x\n", None),
        ("    x = '''never closed\n    y = 1\n", None),
        ("    return x\x00\n", None),
        ("    return " + "(" * 5000 + "\n", None),
    ],
)
def test_hand_made_completions_are_judged_as_python_would(completion, expected):
    assert parsed(completion) == expected


def test_a_warning_of_the_parser_is_not_an_error(recwarn):
    assert parsed("    return '\\d' is x\n") == 1
    assert not recwarn.list


def test_the_shares_count_both_texts_alike():
    samples = [
        judge(PROMPT, "    return x\n    return y\n", "    return (\n"),
        judge(PROMPT, "    return (\n", "    return 1\n"),
        judge(PROMPT, "", "    return 1\n    x"),
        judge(PROMPT, "    pass\n", "    if x:\n        return 1\n"),
    ]
    assert share_parsed(samples) == {
        "parsed_fraction": 0.5,
        "reference_parsed_fraction": 0.75,
        "statements_per_parsed_sample": 1.5,
        "statements_per_parsed_reference": pytest.approx(4 / 3),
    }


def test_without_a_sample_that_parses_the_figures_are_zero():
    found = share_parsed([judge(PROMPT, "", "")])
    assert set(found.values()) == {0.0}


def test_prompts_are_definitions_with_what_follows_them():
    documents = [(f"d{number}", SOURCE) for number in range(8)]
    prompts = choose_prompts(documents, 8, seed=0)
    assert {prompt.text for prompt in prompts} == {"def first(a, b):", "class Second(Exception):"}
    for prompt in prompts:
        assert SOURCE.endswith(prompt.text + prompt.rest)


def test_documents_without_a_definition_give_no_prompt():
    assert choose_prompts([("a", "x = 1\n"), ("b", "    def inner():\n"), ("c", "")], 5, seed=0) == []


def test_the_choice_of_prompts_follows_the_seed_and_not_the_order_of_documents():
    documents = [(f"d{number}", SOURCE) for number in range(20)]
    chosen = choose_prompts(documents, 5, seed=0)
    assert len(chosen) == len({prompt.document for prompt in chosen}) == 5
    assert choose_prompts(documents[::-1], 5, seed=0) == chosen
    assert choose_prompts(documents, 5, seed=1) != chosen


def test_statements_are_counted_at_every_depth():
    assert statements("if a:\n    b = 1\n    while c:\n        d()\n") == 4
    assert statements("") == 0
    assert statements("if\n") is None
