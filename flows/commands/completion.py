"""`foundation completion SHELL`: a script that completes commands, recipes and fields; it starts no Python itself."""

from __future__ import annotations

import argparse

BASH = """\
_foundation() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}"
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
    elif [[ "$word" == --* ]]; then
        COMPREPLY=($(compgen -W "{fields}" -- "$word"))
    else
        COMPREPLY=($(compgen -W "{recipes}" -- "$word") $(compgen -f -- "$word"))
    fi
}}
complete -o filenames -F _foundation foundation
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + BASH
FISH = """\
complete -c foundation -n __fish_use_subcommand -f -a "{commands}"
complete -c foundation -n "not __fish_use_subcommand" -a "{recipes} {fields}"
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The shell."""
    parser.add_argument("shell", choices=sorted(SCRIPTS), help="bash: source <(foundation completion bash)")


def run(arguments: argparse.Namespace) -> int:
    """Print the script, with what there is now."""
    from flows.cli import COMMANDS
    from flows.recipes import recipe_names
    from foundation_core.specs import PipelineSpec, described_leaves

    fields = (f"--{name}" for name, _, _ in described_leaves(PipelineSpec))
    words = {"commands": COMMANDS, "fields": fields, "recipes": recipe_names()}
    print(SCRIPTS[arguments.shell].format(**{name: " ".join(found) for name, found in words.items()}), end="")
    return 0
