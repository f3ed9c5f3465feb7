"""Keys, tokens and passwords: by the forms that their issuers give them, and by what they are assigned to."""

from __future__ import annotations

import math
import re
from collections import Counter

from foundation_core.data.steps.spans import Finder, Spans

_ISSUED = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[A-Z2-7]{16}"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}"
    r"|glpat-[A-Za-z0-9_-]{20,}"  # GitLab
    r"|AIza[A-Za-z0-9_-]{35}"  # Google
    r"|xox[abprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|[sr]k_live_[A-Za-z0-9]{24,}"  # Stripe
    r")(?![A-Za-z0-9])"
)
_ISSUED_HINT = r"AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|AIza|xox[abprs]-|k_live_"

_BLOCK = re.compile(
    r"-----BEGIN (?P<of>(?:[A-Z]+ )?PRIVATE KEY(?: BLOCK)?)-----\n[^-]{40,20000}-----END (?P=of)-----", re.DOTALL
)

_NAMES = r"api_?key|access_?key|secret_?key|private_?key|auth_?token|access_?token|secret|token|passw(?:or)?d|pwd"
_ASSIGNED = re.compile(
    rf"(?i:(?:{_NAMES}))[\"']?[ \t]*(?::=|=>|[:=])[ \t]*(?P<quote>[\"']?)"
    r"(?P<value>[A-Za-z0-9+/_=-]{16,512})(?P=quote)(?![\w.(\[/])"
)
_ASSIGNED_HINT = rf"(?i)(?:{_NAMES})[\"']?[ \t]*[:=]"


def secret_finders(least_bits: float) -> list[Finder]:
    """Private keys, keys of known issuers, and what is assigned to a name such as api_key.

    Args:
        least_bits: entropy for each character of an assigned value.
    """

    def assigned(text: str) -> Spans:
        for match in _ASSIGNED.finditer(text):
            if _is_random(match["value"], least_bits):
                yield match.span("value")

    return [
        Finder("secret", "PRIVATE KEY", lambda text: (match.span() for match in _BLOCK.finditer(text))),
        Finder("secret", _ISSUED_HINT, lambda text: (match.span() for match in _ISSUED.finditer(text))),
        Finder("secret", _ASSIGNED_HINT, assigned),
    ]


def _is_random(value: str, least_bits: float) -> bool:
    """Whether it looks drawn by chance: letters and digits in turns, none of them much more often than others."""
    turns = len(re.findall(r"[A-Za-z][0-9]|[0-9][A-Za-z]", value))
    return turns >= 3 and entropy_bits(value) >= least_bits


def entropy_bits(value: str) -> float:
    """Bits for each character, by how often each of them comes (Shannon 1948)."""
    return -sum(count / len(value) * math.log2(count / len(value)) for count in Counter(value).values())
