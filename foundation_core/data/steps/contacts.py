"""What reaches somebody: e-mail, IP addresses, telephone numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address

from foundation_core.data.steps.spans import Finder, Spans

_EMAIL = re.compile(
    r"(?<![\w.+%-])[^\W_][\w.+%-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+(?P<top>[A-Za-z]{2,24})(?![\w-])(?!\.\w)"
)
_NO_TOP = frozenset(
    "png jpg jpeg gif svg webp ico css js json html htm xml py txt md service socket timer target device mount".split()
)
"""Ends of files and of units of systemd (icon@2x.png, getty@tty1.service), which no domain has."""

_IPV4 = re.compile(r"(?<![\w.+~_-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w~+_-])(?!\.\d)")
_VERSION = re.compile(
    r"(?:\b(?:v|ver|version|versión|versão|versione|release|rev|revision|build|firmware|driver|oid|rfc|section|sección|"
    r"chapter|§)[.:]?|[<>=]=|(?<!\w)[<>]|\^)[ \t(\"']*$",
    re.IGNORECASE,
)
_LARGEST_OF_VERSIONS = 99
"""Numbers of versions such as 4.3.99.16 are small; of a hundred addresses two have four such numbers."""
_CONTEXT_CHARACTERS = 24

_IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w:])")
"""Those that are given out begin with 001 (RFC 4291 and IANA's registry), so that C++ names are none."""

_PHONE = r"(?!\d+[.,]\d+(?!\.?\d))\(?\d{1,15}(?:[ ().\-/]{1,3}\d{1,12}){0,6}"
"""Groups of digits, but no number with decimals."""
_INTERNATIONAL = re.compile(rf"(?<![\w+.(])\+{_PHONE}(?!\w)")
_PHONE_WORDS = (
    r"tel|tel[eé]fonos?|tel[eé]f|tfnos?|tlfs?|m[oó]vil|celular|cel|whatsapp|phone|telephone|mobile|fax|call|telefone|telem[oó]vel|"
    r"t[eé]l[eé]phone|t[eé]l|telefon|handy|mobil|telefono|cellulare"
)
_NATIONAL = re.compile(
    rf"(?i:(?<!\w)(?:{_PHONE_WORDS}))(?:[ \t]+(?i:no|number|n[uú]mero|n[º°]))?[.:]*[ \t]*(?P<number>{_PHONE})(?!\w)"
)
_LEAST_PHONE_DIGITS = 7


def address_finders(public_only: bool) -> list[Finder]:
    """E-mail, IPv4, IPv6.

    Args:
        public_only: whether private, local and reserved IP addresses are none.
    """

    def emails(text: str) -> Spans:
        return (match.span() for match in _EMAIL.finditer(text) if match["top"].lower() not in _NO_TOP)

    def ipv4(text: str) -> Spans:
        for match in _IPV4.finditer(text):
            before = text[max(0, match.start() - _CONTEXT_CHARACTERS) : match.start()]
            is_version = max(map(int, match[0].split("."))) <= _LARGEST_OF_VERSIONS or _VERSION.search(before)
            if not is_version and _is_address(match[0], public_only):
                yield match.span()

    def ipv6(text: str) -> Spans:
        return (match.span() for match in _IPV6.finditer(text) if _is_address(match[0], public_only))

    return [
        Finder("email", r"@\w", emails),
        Finder("ip_address", r"\d\.\d{1,3}\.\d{1,3}\.\d", ipv4),
        Finder("ip_address", r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]", ipv6),
    ]


def _is_address(address: str, public_only: bool) -> bool:
    try:
        return ip_address(address).is_global or not public_only
    except ValueError:
        return False


def phone_finders(countries: Sequence[str]) -> list[Finder]:
    """Telephone numbers that the plans of their countries know (by phonenumbers): behind a +, or behind a word.

    Args:
        countries: codes of two letters, of numbers without +.
    """
    regions = [country.upper() for country in countries]

    def international(text: str) -> Spans:
        for match in _INTERNATIONAL.finditer(text):
            if length := _phone_length(match[0], [None]):
                yield match.start(), match.start() + length

    def national(text: str) -> Spans:
        for match in _NATIONAL.finditer(text):
            if length := _phone_length(match["number"], regions):
                yield match.start("number"), match.start("number") + length

    hint = rf"(?i)(?:{_PHONE_WORDS})[\w. :\tº°]{{0,12}}[ \t.:](?:\(?\d)"
    return [
        Finder("phone", r"\+\(?\d[\d ().\-/]{5}", international),
        Finder("phone", hint, national),
    ]


def _phone_length(written: str, regions: Sequence[str | None]) -> int:
    """How many of the characters are a telephone number; 0 if none are. Years or other numbers may follow it."""
    import phonenumbers

    while sum(map(str.isdigit, written)) >= _LEAST_PHONE_DIGITS:
        for region in regions:
            try:
                if phonenumbers.is_valid_number(phonenumbers.parse(written, region)):
                    return len(written)
            except phonenumbers.NumberParseException:
                continue
        written = re.sub(r"[ ().\-/]*\d+\)?$", "", written)
    return 0
