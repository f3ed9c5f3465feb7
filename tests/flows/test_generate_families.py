"""`foundation generate` with every family that writes: what is printed, whole and as it grows, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.cli import main
from foundation_core.specs.writing import WritingSpec
from foundation_core.tracking import registry
from foundation_core.tracking.served import ServedModel
from tests.support.served import picture, served

Run = Callable[..., tuple[int, str, str]]
PROMPTS = ["def name_3(value):", "return"]


@pytest.fixture
def generate(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Run:
    """Runs the command with a model that is not on any disk: exit status, what was printed, what was complained of."""

    def run(model: ServedModel, *words: str) -> tuple[int, str, str]:
        @contextmanager
        def files(*_: object) -> Iterator[Path]:
            yield tmp_path

        monkeypatch.setattr(registry, "model_files", files)
        monkeypatch.setattr(registry, "load_served_model", lambda folder: model)
        try:
            status = main(["generate", "tiny", *words])
        except SystemExit as left:
            status = int(left.code or 0)
        return status, *capfd.readouterr()

    return run


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return served(tmp_path_factory.mktemp("decoder"), "decoder")


@pytest.mark.parametrize(
    ("kind", "task"),
    [("decoder", None), ("prefix", None), ("mixture", None), ("encoder_decoder", None),
     ("encoder_decoder", "docstring_of_function"), ("captioner", "caption_of_sample"), ("captioner", None)],
)  # fmt: skip
def test_a_family_writes_what_its_model_answers(generate: Run, tmp_path: Path, kind: str, task: str | None):
    model, words = served(tmp_path, kind, task), PROMPTS
    if kind == "captioner":
        words = [str(tmp_path / f"{level}.png") for level in (3, 7)]
        for word, level in zip(words, (3, 7), strict=True):
            Path(word).write_bytes(picture(level))
    items = [Path(word).read_bytes() for word in words] if kind == "captioner" else words
    writer = model.writer()
    assert writer.behind == (kind in ("decoder", "prefix", "mixture"))
    for options, params in (
        (["--temperature", "2", "--top-p", "0.9", "--min-p", "0.001", "--seed", "3", "--stop", "x", "--stop", "\n"],
         {"temperature": 2.0, "top_p": 0.9, "min_p": 0.001, "seed": 3, "stop": ["x", "\n"]}),
        (["--beams", "3"], {"beams": 3}),
        (["--greedy", "--repetition-penalty", "1.5"], {"temperature": 0.0, "repetition_penalty": 1.5}),
    ):  # fmt: skip
        asked = {**params, "max_tokens": 9, "task": writer.name}
        answers = [row[writer.column] for row in model.answer(items, asked)]
        status, out, _ = generate(model, *words, "--tokens", "9", *options, "--json")
        assert status == 0
        assert json.loads(out) == [
            {"prompt": word, "completion": answer} for word, answer in zip(words, answers, strict=True)
        ]
        shown = [f"{word if writer.behind else ''}{answer}\n" for word, answer in zip(words, answers, strict=True)]
        expected = "".join(f"--- {number} of 2\n{text}" for number, text in enumerate(shown, 1))
        assert generate(model, *words, "--tokens", "9", *options)[:2] == (0, expected)
        if "--beams" not in options:
            assert generate(model, *words, "--tokens", "9", *options, "--stream")[:2] == (0, expected)


def test_prompts_of_a_file_are_one_batch(generate: Run, decoder: ServedModel, tmp_path: Path):
    file = tmp_path / "prompts.txt"
    file.write_text("def name_3(value):\n\n  \nreturn\n")
    from_file = generate(decoder, "--file", str(file), "--tokens", "5", "--json")
    assert from_file == generate(decoder, *PROMPTS, "--tokens", "5", "--json")
    assert len(json.loads(from_file[1])) == 2
    answers = decoder.answer(PROMPTS, {"max_tokens": 5})
    assert [row["completion"] for row in json.loads(from_file[1])] == [row["completion"] for row in answers]


def test_on_a_terminal_a_text_grows(generate: Run, decoder: ServedModel, monkeypatch: pytest.MonkeyPatch):
    calls = []
    whole = decoder.stream
    monkeypatch.setattr(decoder, "stream", lambda *words: calls.append(words) or whole(*words))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    grown = generate(decoder, *PROMPTS, "--tokens", "5")
    assert len(calls) == 1
    assert generate(decoder, *PROMPTS, "--tokens", "5", "--no-stream") == grown
    generate(decoder, *PROMPTS, "--tokens", "5", "--json")
    generate(decoder, *PROMPTS, "--tokens", "5", "--beams", "2")
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["x", "--beams", "4", "--temperature", "0.8"], "beams=4 looks for the most probable text"),
        (["x", "--beams", "2", "--top-p", "0.5"], "top_p=0.5 would have it draw"),
        (["x", "--min-p", "1.5"], "min_p=1.5"),
        (["x", "--top-p", "0"], "top_p=0"),
        (["x", "--beams", "0"], "'0' is not a whole number from 1 on"),
        (["x", "--stop", ""], "empty text"),
        (["x", "--greedy", "--temperature", "0.5"], "--greedy and --temperature"),
        (["x", "--beams", "2", "--stream"], "nothing to show before"),
        (["x", "--json", "--stream"], "--json is one list"),
        (["x", "--greedy", "--samples", "2"], "the same text each time"),
        (["x", "--beams", "2", "--samples", "2"], "the same text each time"),
        (["x", "--file", "prompts.txt"], "on the command line and in --file"),
        (["--file", "no/such/file"], "cannot be read"),
        (["x", "--task", "classify"], "Allowed: generate"),
        (["-", "-"], "standard input can be read once"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(generate: Run, decoder: ServedModel, words: list[str], reason: str):
    status, out, complaint = generate(decoder, *words)
    assert (status, out) == (2, "")
    assert reason in complaint


def test_a_file_that_is_no_image_is_refused_by_its_name(generate: Run, tmp_path: Path):
    model = served(tmp_path, "captioner")
    (tmp_path / "note.png").write_bytes(b"a note")
    status, _, complaint = generate(model, str(tmp_path / "note.png"))
    assert status == 2
    assert f"{tmp_path / 'note.png'} is not what this model reads: not an image" in complaint
    status, _, complaint = generate(model, str(tmp_path / "none.png"))
    assert status == 2
    assert "none.png cannot be read: No such file" in complaint


def test_every_option_of_the_spec_is_one_of_the_command(generate: Run, decoder: ServedModel):
    _, told, _ = generate(decoder, "--help")
    assert [name for name in WritingSpec.model_fields if f"--{name.replace('_', '-')} " not in told] == []
