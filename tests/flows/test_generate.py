"""`foundation generate`: what a published model writes, and what a person is told who asks for what is not there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from foundation_core.tracking.registry import load_served_model
from tests.support.published import PublishedPlace
from tests.support.workplace import Workplace

PROMPT = "def first_1(value):\n"


def _generate(place: Workplace, *arguments: str, typed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "flows.cli", "generate", *arguments]
    return subprocess.run(command, env=place.environment, input=typed, capture_output=True, timeout=120)


def test_the_text_is_what_the_model_answers_and_the_data_folder_stays_as_it_was(
    published_place: PublishedPlace,
) -> None:
    before = {path: path.stat().st_mtime_ns for path in published_place.home.rglob("*")}
    done = _generate(published_place, "tiny", PROMPT, "--tokens", "8", "--seed", "3", "--samples", "2", "--json")
    assert done.returncode == 0, done.stderr
    model = load_served_model(published_place.model_folder)
    answers = model.answer([PROMPT] * 2, {"max_tokens": 8, "seed": 3})
    assert json.loads(done.stdout) == [{"prompt": PROMPT, **answer} for answer in answers]
    assert answers[0] != answers[1]  # two samples are two texts
    assert {path: path.stat().st_mtime_ns for path in published_place.home.rglob("*")} == before


@pytest.mark.parametrize("word", [(), ("-",)])
def test_the_prompt_may_come_from_standard_input(published_place: PublishedPlace, word: tuple[str, ...]) -> None:
    greedy = ("--temperature", "0", "--tokens", "6")
    said = _generate(published_place, str(published_place.model_folder), PROMPT, *greedy)
    typed = _generate(published_place, str(published_place.model_folder), *word, *greedy, typed=PROMPT.encode())
    assert said.returncode == typed.returncode == 0, typed.stderr
    assert said.stdout == typed.stdout
    assert said.stdout.decode().startswith(PROMPT)


def test_more_tokens_than_the_model_holds_are_cut_with_a_word(published_place: PublishedPlace) -> None:
    done = _generate(published_place, str(published_place.model_folder), "x", "--tokens", "64")
    assert done.returncode == 0, done.stderr
    assert b"it writes 31 at the most" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["huge", "x"], "there is no model 'huge'"),
        (["huge", "x"], "Allowed: tiny (/1, /2, @candidate)"),
        (["tiny", "x", "--tokens", "0"], "'0' is not a whole number from 1 on"),
        (["tiny", "x", "--temperature", "nan"], "'nan' is not a number from 0 on"),
        (["tiny", "x", "--samples", "two"], "'two' is not a whole number from 1 on"),
    ],
)
def test_what_cannot_be_is_refused(published_place: PublishedPlace, arguments: list[str], words: str) -> None:
    done = _generate(published_place, *arguments)
    assert done.returncode == 2
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


def test_a_prompt_that_is_no_text_is_refused(published_place: PublishedPlace) -> None:
    done = _generate(published_place, "tiny", typed=b"caf\xe9")
    assert done.returncode == 2
    assert b"foundation: the prompt is not text: not UTF-8: byte 0xe9 at offset 3" in done.stderr


def test_nothing_was_published_yet(tmp_path: Path) -> None:
    done = _generate(Workplace(tmp_path, tmp_path / "none.yaml"), "tiny", "x")
    assert done.returncode == 2
    assert b"nothing was published" in done.stderr
    assert list(tmp_path.iterdir()) == []
