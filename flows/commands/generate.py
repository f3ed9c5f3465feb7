"""`foundation generate`: text from a published model."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from flows.arguments import at_least
from foundation_core.errors import ConfigError


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The model, a prompt, and how to draw."""
    parser.add_argument("model", help="NAME (its @candidate, or its latest version), NAME@alias, NAME/3, or a folder")
    parser.add_argument("prompt", nargs="?", default="-", help="text to continue; standard input, if absent or -")
    parser.add_argument("--tokens", type=at_least(1, int), default=64, help="tokens to write, at the most (64)")
    parser.add_argument("--temperature", type=at_least(0, float), default=0.8, help="0: the most probable token (0.8)")
    parser.add_argument("--top-k", type=at_least(1, int), default=40, help="tokens that each is drawn from (40)")
    parser.add_argument("--seed", type=at_least(0, int), default=0, help="another seed gives another text (0)")
    parser.add_argument("--samples", type=at_least(1, int), default=1, help="texts to write (1)")
    parser.add_argument("--json", action="store_true", help="for a script: a list with a completion each")


def run(arguments: argparse.Namespace) -> int:
    """Print each text: the prompt and what the model makes of it."""
    from cluster.settings import Settings
    from cluster.stack import Stack
    from foundation_core.tracking.registry import load_served_model, model_files

    prompt = _prompt(arguments.prompt)
    os.environ.update(Stack(Settings.from_environment()).environment())
    settings = Settings.from_environment()
    with model_files(arguments.model, settings.mlflow_uri) as folder:
        model = load_served_model(folder)
    if arguments.tokens >= model.context_tokens:
        most = model.context_tokens - 1
        print(f"foundation: this model reads {most + 1} tokens at once; it writes {most} at the most", file=sys.stderr)
    chosen = {"max_tokens": arguments.tokens, "temperature": arguments.temperature, "top_k": arguments.top_k}
    answers = model.answer([prompt] * arguments.samples, {**chosen, "seed": arguments.seed, "task": "generate"})
    _print(prompt, [answer["completion"] for answer in answers], as_json=arguments.json)
    return 0


def _prompt(word: str) -> str:
    """The text to continue, normalised as the documents were.

    Raises:
        ConfigError: it is no text.
    """
    from foundation_core.data.modalities import normalise

    if word == "-" and sys.stdin.isatty():
        print("the prompt, then Ctrl-D:", file=sys.stderr)
    try:
        return normalise(sys.stdin.buffer.read() if word == "-" else os.fsencode(word))
    except ValueError as error:
        raise ConfigError(f"the prompt is not text: {error}", allowed="UTF-8") from error


def _print(prompt: str, completions: list[str], *, as_json: bool) -> None:
    if as_json:
        rows: list[dict[str, Any]] = [{"prompt": prompt, "completion": completion} for completion in completions]
        print(json.dumps(rows, ensure_ascii=False))
        return
    for number, completion in enumerate(completions, 1):
        if len(completions) > 1:
            print(f"--- {number} of {len(completions)}")
        print(prompt + completion)
