"""`foundation generate`: text from a published model."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from flows.arguments import at_least
from foundation_core.errors import ConfigError
from foundation_core.specs.writing import WritingSpec, writing

if TYPE_CHECKING:
    from foundation_core.tracking.served import ServedModel


class Asked(NamedTuple):
    """One text to be written.

    Args:
        name: as it was asked: a text, or the path of a file.
        item: the text, normalised as the documents were, or the file's bytes.
    """

    name: str
    item: str | bytes


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The model, what it is asked, and how it writes: an option for each field of `WritingSpec`."""
    parser.add_argument("model", help="NAME (its @candidate, or its latest version), NAME@alias, NAME/3, or a folder")
    parser.add_argument(
        "prompts", nargs="*", metavar="PROMPT",
        help="text to continue, or to read; of a model that reads images or recordings the path of a file."
        " Several are answered as one batch. Standard input, if absent or -",
    )  # fmt: skip
    parser.add_argument("--file", type=Path, help="a prompt a line, in place of PROMPT; empty lines are passed over")
    parser.add_argument("--task", help="generate or write (the first of them that the model can)")
    parser.add_argument(
        "--tokens", type=at_least(1, int), help="tokens to write, at the most (64; of write the task's)"
    )
    for option, field in WritingSpec.model_fields.items():
        parser.add_argument(f"--{option.replace('_', '-')}", dest=option, help=_help(field), **_reading(field))
    parser.add_argument("--greedy", action="store_true", help="the most probable token each time: --temperature 0")
    parser.add_argument("--samples", type=at_least(1, int), default=1, help="texts to write for each prompt (1)")
    parser.add_argument(
        "--stream", action=argparse.BooleanOptionalAction,
        help="print texts as they grow (on a terminal they do; not with --json or --beams)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for a script: a list with a completion each")


def run(arguments: argparse.Namespace) -> int:
    """Print each text: the prompt and what the model makes of it; of a model that reads one text and writes another,
    the other."""
    from cluster.settings import Settings
    from cluster.stack import Stack
    from foundation_core.tracking.registry import load_served_model, model_files

    said = _said(arguments)
    os.environ.update(Stack(Settings.from_environment()).environment())
    settings = Settings.from_environment()
    words = _words(arguments)
    with model_files(arguments.model, settings.mlflow_uri) as folder:
        model = load_served_model(folder)
    writer = model.writer(arguments.task)
    _check_samples(arguments.samples, writer.how(said))
    if (arguments.tokens or writer.max_tokens) >= model.context_tokens:
        most = model.context_tokens - 1
        print(f"foundation: this model reads {most + 1} tokens at once; it writes {most} at the most", file=sys.stderr)
    asked = [each for each in _asked(words, model, writer.name) for _ in range(arguments.samples)]
    items = [each.item for each in asked]
    heads = [each.name if writer.behind else "" for each in asked]
    params = {**said, "task": writer.name, "max_tokens": arguments.tokens}
    if _streams(arguments, writer.how(said).beams):
        _print_growing(heads, model.stream(items, params))
    else:
        completions = [answer[writer.column] for answer in model.answer(items, params)]
        _print(asked, heads, completions, as_json=arguments.json)
    return 0


def _help(field: Any) -> str:
    """What a field means, and what it is if nobody says it."""
    meaning = " ".join(field.description.split()).rstrip(".")
    return f"{meaning[0].lower()}{meaning[1:]} ({'repeatable' if field.default == () else field.default})"


def _reading(field: Any) -> dict[str, Any]:
    """How argparse reads an option; the bounds that it does not know are those of the spec."""
    of, *several = get_args(field.annotation) or (field.annotation,)
    if several:
        return {"action": "append", "type": of, "metavar": "TEXT"}
    lowest = next((bound.ge for bound in field.metadata if hasattr(bound, "ge")), 0)
    return {"type": at_least(lowest, of)}


def _said(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of `WritingSpec` that were said.

    Raises:
        ConfigError: a value that is not allowed, or two options that do not go together.
    """
    fields = {name: getattr(arguments, name) for name in WritingSpec.model_fields}
    said = {name: value for name, value in fields.items() if value is not None}
    if arguments.greedy:
        drawn = [f"--{name}" for name, idle in (("temperature", 0), ("beams", 1)) if said.get(name, idle) > idle]
        if drawn:
            raise ConfigError(f"--greedy and {' and '.join(drawn)} ask for different texts", fix="leave one out")
        said["temperature"] = 0.0
    if writing(said).beams > 1 and arguments.stream:
        raise ConfigError("--beams finds a text as a whole and has nothing to show before", fix="leave out --stream")
    if {"temperature", "beams"} & said.keys():  # else it depends on the model whether anything is drawn
        _check_samples(arguments.samples, writing(said))
    if arguments.json and arguments.stream:
        raise ConfigError("--json is one list, printed when it is whole", fix="leave out --stream")
    return said


def _check_samples(samples: int, how: WritingSpec) -> None:
    if samples > 1 and not how.temperature:
        raise ConfigError(
            f"--samples {samples} would write the same text each time, as nothing is drawn",
            allowed="--samples 1",
            fix="ask for another --temperature than 0, and no --beams, to have different texts",
        )


def _streams(arguments: argparse.Namespace, beams: int) -> bool:
    wanted = sys.stdout.isatty() if arguments.stream is None else arguments.stream
    return wanted and not arguments.json and beams == 1


def _words(arguments: argparse.Namespace) -> list[str | None]:
    """What was asked, as it was written; None for standard input, which `-` stands for on the command line alone.

    Raises:
        ConfigError: there are two places to ask, or the file cannot be read or is empty.
    """
    if arguments.file is None:
        return [None if prompt == "-" else prompt for prompt in arguments.prompts] or [None]
    if arguments.prompts:
        raise ConfigError("there are prompts on the command line and in --file", fix="leave one of them out")
    try:
        lines = arguments.file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{arguments.file} cannot be read: {error}", allowed="a text file in UTF-8") from error
    if not (words := [line for line in lines if line.strip()]):
        raise ConfigError(f"{arguments.file} holds no prompt", allowed="a prompt a line")
    return list(words)


def _asked(words: Sequence[str | None], model: ServedModel, task: str) -> list[Asked]:
    """What the model is to read.

    Raises:
        ConfigError: a prompt is no text, or a file is not what the model reads.
    """
    from foundation_core.data.sources.modalities import normalise

    if words.count(None) > 1:
        raise ConfigError("- was asked more than once, and standard input can be read once", fix="leave one of them")
    inputs, asked = model.inputs_of(task), []
    for word in words:
        if word is None and sys.stdin.isatty():
            print("the prompt, then Ctrl-D:" if "text" in inputs else "a file, then Ctrl-D:", file=sys.stderr)
        name = "-" if word is None else word
        typed = sys.stdin.buffer.read() if word is None else None
        try:
            if "text" in inputs:
                text = normalise(os.fsencode(name) if typed is None else typed)
                asked.append(Asked(text, text))
            else:
                content = Path(name).read_bytes() if typed is None else typed
                model.read(content)  # so that what is wrong with it is said by its name
                asked.append(Asked(name, content))
        except OSError as error:
            raise ConfigError(
                f"{name} cannot be read: {error.strerror}", allowed=f"files: this model reads {' or '.join(inputs)}"
            ) from error
        except ValueError as error:
            if "text" in inputs:
                raise ConfigError(f"the prompt is not text: {error}", allowed="UTF-8") from error
            raise ConfigError(f"{name} is not what this model reads: {error}", allowed=" or ".join(inputs)) from error
    return asked


def _print(asked: Sequence[Asked], heads: Sequence[str], completions: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"prompt": each.name, "completion": completion} for each, completion in zip(asked, completions, strict=True)
        ]
        print(json.dumps(rows, ensure_ascii=False))
        return
    for number, (head, completion) in enumerate(zip(heads, completions, strict=True), 1):
        print(f"{_title(number, len(heads))}{head}{completion}")


def _print_growing(heads: Sequence[str], steps: Iterable[Sequence[str | None]]) -> None:
    """The first text as it grows; then the next one, as far as it has come meanwhile, and so on."""
    waiting, over = [_title(number, len(heads)) + head for number, head in enumerate(heads, 1)], [False] * len(heads)
    row = 0

    def show() -> int:
        """Print what there is; the number of the text that grows."""
        now = row
        while now < len(waiting):
            print(waiting[now], end="\n" if over[now] else "", flush=True)
            waiting[now] = ""
            if not over[now]:
                break
            now += 1
        return now

    for pieces in steps:
        for number, piece in enumerate(pieces):
            over[number] = piece is None
            waiting[number] += piece or ""
        row = show()
    over = [True] * len(heads)
    show()


def _title(number: int, count: int) -> str:
    return f"--- {number} of {count}\n" if count > 1 else ""
