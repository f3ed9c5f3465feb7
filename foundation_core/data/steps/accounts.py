"""Numbers of accounts: payment cards and IBANs, by their check digits."""

from __future__ import annotations

import re

from foundation_core.data.steps.spans import Finder, Spans

_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_CARD = re.compile(r"(?<![\w.,+=/-])\d(?:[ -]?\d){12,18}(?![\w=/-])(?![.,]\d)")
_CARD_GROUPS = re.compile(r"\d+|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5}")
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|5[1-5]\d{14}|(?:222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[68]\d)\d{11}"  # Diners Club
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12}"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|62\d{14,17}"  # UnionPay
)
"""First digits and lengths of the numbers that issuers give out (ISO/IEC 7812)."""


def account_finders() -> list[Finder]:
    """IBANs and cards."""
    return [
        Finder("iban", r"[A-Z]{2}\d{2} ?[A-Z0-9]{4} ?[A-Z0-9]{4}", _ibans),
        Finder("card", r"\d(?:[ -]?\d){12}", _cards),
    ]


def _ibans(text: str) -> Spans:
    from stdnum import iban

    for match in _IBAN.finditer(text):
        number = match[0]
        while number and not iban.is_valid(number):  # words in capitals may follow it
            number = number.rpartition(" ")[0]
        if number:
            yield match.start(), match.start() + len(number)


def _cards(text: str) -> Spans:
    from stdnum import luhn

    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _CARD_GROUPS.fullmatch(match[0]) and _ISSUERS.fullmatch(digits) and luhn.is_valid(digits):
            yield match.span()
