"""The specs of cleaning: steps that change texts before rules measure them. All are off by default."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from foundation_core.specs.base import Spec
from foundation_core.specs.quality import Language

PersonalKind = Literal["secret", "email", "ip_address", "iban", "card", "national_id", "phone"]
Country = Literal[
    "es", "mx", "ar", "co", "cl", "pe", "ve", "ec", "gt", "cu", "do", "sv", "py", "uy", "cr", "bo", "hn", "ni", "pa",
]  # fmt: skip

END_MARKS: dict[Language, tuple[str, ...]] = {
    "en": (".", "!", "?", '"', "'", "”", "’"),
    "es": (".", "!", "?", '"', "'", "”", "’", "»"),
    "pt": (".", "!", "?", '"', "'", "”", "’", "»"),
    "fr": (".", "!", "?", '"', "'", "”", "’", "»"),
    "de": (".", "!", "?", '"', "'", "“", "‘", "«", "»"),
    "it": (".", "!", "?", '"', "'", "”", "’", "»"),
}
"""How a line of prose ends. Source: Raffel et al. 2020, section 2.2: a period, an exclamation mark, a question mark or
an end quotation mark. Those marks are each language's own."""

POLICY_PHRASES: dict[Language, tuple[str, ...]] = {
    "en": ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"),
    "es": (
        "términos de uso", "condiciones de uso", "aviso legal", "política de privacidad", "política de cookies",
        "utiliza cookies", "uso de cookies", "usa cookies", "usamos cookies", "utilizamos cookies",
    ),
    "pt": (
        "termos de uso", "termos de utilização", "política de privacidade", "política de cookies", "utiliza cookies",
        "uso de cookies", "usa cookies", "usamos cookies", "utilizamos cookies",
    ),
    "fr": (
        "conditions d'utilisation", "conditions d’utilisation", "mentions légales", "politique de confidentialité",
        "politique de cookies", "utilise des cookies", "utilisation de cookies", "utilisons des cookies",
    ),
    "de": (
        "nutzungsbedingungen", "datenschutzerklärung", "cookie-richtlinie", "verwendet cookies",
        "verwendung von cookies", "verwenden cookies", "nutzt cookies",
    ),
    "it": (
        "termini di utilizzo", "condizioni d'uso", "condizioni d’uso", "informativa sulla privacy",
        "informativa sui cookie", "utilizza cookie", "uso di cookie", "uso dei cookie", "utilizziamo i cookie",
    ),
}  # fmt: skip
"""What lines speak of that are about a site, in small letters. English: the list of C4's code (`_POLICY_SUBSTRINGS` in
`c4_utils.py` of TensorFlow Datasets). The others are ours and published nowhere else: the same six phrases as sites in
each language write them, with what its law calls such pages (Spain's Ley 34/2002, France's LCEN, Germany's DSGVO). Name
others by `ingest.cleaning.lines.policy_phrases`."""


class EncodingRepairSpec(Spec):
    """Texts that were decoded by the wrong table become what they were (by ftfy): camiÃ³n becomes camión.

    Nothing but that is changed: quotes stay curled, ligatures and wide letters stay, HTML's entities too.
    """

    use: bool = False
    """Whether texts are repaired."""


class ControlCharactersSpec(Spec):
    """Characters that nobody sees are removed."""

    use: bool = False
    """Whether control characters are removed: those of ASCII and Latin-1 but newline and tab. What begins a new line or
    page becomes a newline."""
    zero_width: bool = False
    """Also characters without width: zero-width space, word joiner, byte-order marks within a text, soft hyphens. The
    joiners of Persian, Indian scripts and emoji stay."""
    directions: bool = False
    """Also marks, embeddings, overrides and isolates of the direction of writing; right-to-left texts may need them."""


class LinesSpec(Spec):
    """Lines that are no prose are removed, the others are stripped of spaces at both ends.

    Source of every rule: C4 (Raffel et al. 2020, section 2.2) and its code, `c4_utils.py` of TensorFlow Datasets.
    """

    use: bool = False
    """Whether lines are looked at."""
    needs_end_mark: bool = True
    """Whether a line must end with an end mark, and not with three dots. FineWeb (Penedo et al. 2024): false."""
    end_marks: tuple[str, ...] = ()
    """Which marks these are. Empty: those of the language (ingest.quality.language)."""
    least_words: int = Field(3, ge=0)
    """Words between spaces that a line must have; C4's code: 5."""
    most_word_characters: int = Field(1000, ge=1)
    """Characters that a word of a line may have."""
    script_words: tuple[str, ...] = ("javascript",)
    """Words of notices that a browser must be set otherwise: their lines go. Upper and lower case are the same."""
    policies: bool = True
    """Whether lines on cookies, privacy and terms of use are removed."""
    policy_phrases: tuple[str, ...] = ()
    """What these lines say. Empty: the phrases of the language."""
    citations: bool = True
    """Whether marks such as [12], [edit] and [citation needed] are cut out of lines."""

    @property
    def of_a_language(self) -> bool:
        """Whether a list of a language decides which lines go."""
        marks, phrases = self.needs_end_mark and not self.end_marks, self.policies and not self.policy_phrases
        return self.use and (marks or phrases)


class PersonalSpec(Spec):
    """Personal data and secrets are replaced by the name of their kind."""

    use: bool = False
    """Whether they are replaced."""
    kinds: tuple[PersonalKind, ...] = ("secret", "email", "ip_address", "iban", "card", "national_id", "phone")
    """What is looked for; card numbers, IBANs and national ids count only where their check digits are right."""
    countries: tuple[Country, ...] = (
        "es", "mx", "ar", "co", "cl", "pe", "ve", "ec", "gt", "cu", "do", "sv", "py", "uy", "cr", "bo", "hn", "ni",
        "pa",
    )  # fmt: skip
    """Countries whose national ids are looked for."""
    phone_countries: tuple[str, ...] = (
        "us", "gb", "br", "pt", "fr", "de", "it",
        "es", "mx", "ar", "co", "cl", "pe", "ve", "ec", "gt", "cu", "do", "sv", "py", "uy", "cr", "bo", "hn", "ni",
        "pa",
    )  # fmt: skip
    """Countries whose telephone numbers are looked for behind a word such as tel.; with + those of all are anywhere."""
    placeholder: str = "<{kind}>"
    """What stands in place of what was found; {kind} is its kind in capitals: <EMAIL>."""
    public_addresses_only: bool = True
    """Whether IP addresses stay that nobody can be found by: private, local and reserved ones."""
    least_secret_bits: float = Field(3.5, ge=0)
    """Entropy of its characters, in bits for each, from which the value of a key, token or password counts as one."""

    @field_validator("kinds", "countries", "phone_countries")
    @classmethod
    def _names_each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"one of {', '.join(names)} is named twice")
        return names

    @field_validator("placeholder")
    @classmethod
    def _is_no_number(cls, placeholder: str) -> str:
        if any(character.isdigit() or character == "@" for character in placeholder):
            raise ValueError(f"placeholder={placeholder!r} holds a digit or @, and could be taken for data itself")
        return placeholder

    @model_validator(mode="after")
    def _looks_for_something(self) -> Self:
        if self.use and not self.kinds:
            raise ValueError("use=true and kinds is empty: nothing would be looked for")
        return self


class CleaningSpec(Spec):
    """Steps that change texts, in this order, before rules measure them and copies are looked for."""

    encoding: EncodingRepairSpec = EncodingRepairSpec()
    """Texts that were decoded by the wrong table."""
    control: ControlCharactersSpec = ControlCharactersSpec()
    """Characters that nobody sees."""
    lines: LinesSpec = LinesSpec()
    """Lines that are no prose."""
    personal: PersonalSpec = PersonalSpec()
    """Personal data and secrets."""

    @property
    def in_use(self) -> bool:
        """Whether there is any."""
        return any(step.use for step in (self.encoding, self.control, self.lines, self.personal))

    @property
    def libraries(self) -> tuple[str, ...]:
        """Installed packages that decide what the steps in use make of a text."""
        repairs = ("ftfy",) if self.encoding.use else ()
        masks = ("python-stdnum", "phonenumbers") if self.personal.use else ()
        return (*repairs, *masks)
