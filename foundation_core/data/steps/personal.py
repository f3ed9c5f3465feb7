"""Personal data and secrets are replaced by the name of their kind: `write to <EMAIL>`."""

from __future__ import annotations

from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.steps.accounts import account_finders
from foundation_core.data.steps.contacts import address_finders, phone_finders
from foundation_core.data.steps.national import national_finders
from foundation_core.data.steps.secrets import secret_finders
from foundation_core.data.steps.spans import Finder, replaced
from foundation_core.data.steps.step import Stepped, rewritten
from foundation_core.plugins import need
from foundation_core.specs.cleaning import PersonalSpec


class Personal:
    """Looks for each kind in the texts that have a hint of it. What was replaced is not looked at again."""

    name = "personal"

    def __init__(self, spec: PersonalSpec) -> None:
        """Raises SetupError without the libraries that know check digits and telephone numbers."""
        need("text", "stdnum", "phonenumbers")
        self.spec = spec

    def __call__(self, texts: pa.Array) -> Stepped:
        """The texts, and how many of each kind were replaced in each."""
        finders = _finders(self.spec)
        hinted = [pc.match_substring_regex(texts, finder.hint).to_pylist() for finder in finders]
        touched = pa.array([any(hints) for hints in zip(*hinted, strict=True)], pa.bool_())

        def mask(place: int, text: str, counts: dict[str, int]) -> str:
            for finder, hints in zip(finders, hinted, strict=True):
                if hints[place]:
                    placeholder = self.spec.placeholder.replace("{kind}", finder.kind.upper())
                    text, count = replaced(text, finder.spans(text), placeholder)
                    counts[finder.kind] += count
            return text

        return rewritten(texts, touched, self.spec.kinds, mask)


@cache
def _finders(spec: PersonalSpec) -> tuple[Finder, ...]:
    """Those of the kinds, in the order in which they look: what holds something else is found before it."""
    every = [
        *secret_finders(spec.least_secret_bits),
        *address_finders(spec.public_addresses_only),
        *account_finders(),
        *national_finders(spec.countries),
        *phone_finders(spec.phone_countries),
    ]
    return tuple(finder for finder in every if finder.kind in spec.kinds)
