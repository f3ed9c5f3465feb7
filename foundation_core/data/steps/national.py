"""National ids of the Spanish-speaking countries: by form and check digit, or behind their names.

    RUC: 20512333797 --number--> 20512333797, "RUC: " before it --each country--> named, right check digit: an id

A number has a right check digit by chance once in ten or eleven times. So one that is written as other numbers are
counts only behind a name of it, and so does one without a check digit. Check digits are python-stdnum's; three that it
lacks are here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from foundation_core.data.steps.spans import Finder, Spans
from foundation_core.specs.cleaning import Country

_NUMBER = re.compile(r"(?<![\w@/=])(?<!\w[.-])(?:[A-ZÑ&]{1,4}[- ]?)?\d(?:[.-]?[0-9A-Za-z]){5,19}(?![\w@/=])(?![.-]\w)")
_NAME_BEFORE = re.compile(r"[A-ZÑ&]+ ")
_BEFORE_CHARACTERS = 40


@dataclass(frozen=True)
class NationalId:
    """One kind of id, in expressions.

    Args:
        check: module of stdnum, or function here, that knows its check digits. Empty: it has none.
        written: how it is written so that it is known without a name. Empty: it is not.
        bare: how else it may be written behind a name of it.
        names: which these are, a bar between two.
    """

    country: Country
    check: str
    written: str = ""
    bare: str = ""
    names: str = ""


_DOTTED = r"\d{1,3}(?:\.\d{3}){2}"
_CARD_NAMES = "ci|cédula|cédula de identidad|carné de identidad|carnet de identidad"
_BOLIVIAN_PLACES = "(?:LP|CB|SC|CH|OR|PT|TJ|BE|PD)"
_HONDURAN_PLACE = r"(?:0[1-9]|1[0-8])(?:0[1-9]|1\d|2[0-8])"
_DAY_MONTH = r"(?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2])"
_NICARAGUAN_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXY"

IDS = (
    NationalId("es", "stdnum.es.dni", rf"(?:\d{{8}}|{_DOTTED})-?[A-Z]"),
    NationalId("es", "stdnum.es.nie", r"[XYZ]-?\d{7}-?[A-Z]"),
    NationalId("es", "stdnum.es.cif", r"[A-HJNP-SUVW]-\d{7}-?[0-9A-J]", r"[A-HJNP-SUVW]\d{7}[0-9A-J]", "cif|nif"),
    NationalId("mx", "stdnum.mx.curp", r"[A-Z]{4}\d{6}[HM][A-Z]{5}[0-9A-Z]\d"),
    NationalId("mx", "mexican_tax_number", r"[A-ZÑ&]{3,4}[- ]?\d{6}-?[A-Z0-9]{3}"),
    NationalId("ar", "stdnum.ar.cuit", r"\d{2}-\d{8}-\d", r"\d{11}", "cuit|cuil"),
    NationalId("ar", "", "", rf"\d{{7,8}}|{_DOTTED}", "dni"),
    NationalId("co", "stdnum.co.nit", r"\d{3}\.\d{3}\.\d{3}-\d", r"\d{9}-?\d", "nit"),
    NationalId("co", "", "", rf"\d{{6,10}}|{_DOTTED}|\d(?:\.\d{{3}}){{3}}", "cédula de ciudadanía|cc"),
    NationalId("cl", "stdnum.cl.rut", rf"{_DOTTED}-[\dkK]", r"\d{7,8}-?[\dkK]", "rut|run"),
    NationalId("pe", "stdnum.pe.ruc", "", r"\d{11}", "ruc"),
    NationalId("pe", "stdnum.pe.cui", "", r"\d{8}(?:-\d)?", "dni|cui"),
    NationalId("ve", "stdnum.ve.rif", r"[VEJPG]-\d{8}-\d", r"[VEJPG]-?\d{8}-?\d", "rif"),
    NationalId("ec", "stdnum.ec.ci", "", r"\d{9}-?\d", f"{_CARD_NAMES}|cédula de ciudadanía"),
    NationalId("ec", "stdnum.ec.ruc", "", r"\d{10}-?\d{3}", "ruc"),
    NationalId("gt", "stdnum.gt.nit", "", r"\d{5,9}-?[\dK]", "nit"),
    NationalId("cu", "stdnum.cu.ni", "", r"\d{11}", f"{_CARD_NAMES}|número de identidad"),
    NationalId("do", "stdnum.do.cedula", r"\d{3}-\d{7}-\d", r"\d{11}", _CARD_NAMES),
    NationalId("do", "stdnum.do.rnc", r"\d-\d{2}-\d{5}-\d", r"\d{9}", "rnc"),
    NationalId("sv", "stdnum.sv.nit", r"\d{4}-\d{6}-\d{3}-\d", r"\d{14}", "nit"),
    NationalId("sv", "salvadoran_id", "", r"\d{8}-?\d", "dui"),
    NationalId("py", "stdnum.py.ruc", "", r"\d{5,8}-\d", "ruc"),
    NationalId("uy", "stdnum.uy.rut", r"\d{2}-\d{6}-001-\d", r"\d{12}", "rut"),
    NationalId("uy", "uruguayan_id", r"\d\.\d{3}\.\d{3}-\d", r"\d{7}-?\d", _CARD_NAMES),
    NationalId("cr", "stdnum.cr.cpf", "", r"\d-\d{4}-\d{4}|0\d{9}", _CARD_NAMES),
    NationalId("cr", "stdnum.cr.cpj", r"[345]-\d{3}-\d{6}", r"\d{10}", "cédula jurídica"),
    NationalId("bo", "", "", rf"(?:\d{{6,8}}|{_DOTTED})(?:-\d[A-Z])?(?:-?{_BOLIVIAN_PLACES})?", _CARD_NAMES),
    NationalId("hn", "", "", rf"{_HONDURAN_PLACE}-?(?:19|20)\d\d-?\d{{5}}", "dni|identidad|número de identidad"),
    NationalId("ni", "nicaraguan_id", rf"\d{{3}}-{_DAY_MONTH}\d\d-\d{{4}}[A-Y]", rf"\d{{3}}{_DAY_MONTH}\d{{6}}[A-Y]",
               f"{_CARD_NAMES}|cédula nicaragüense"),
    NationalId("pa", "", "", r"(?:(?:[1-9]|1[0-3])(?:AV|PI)?|PE|E-8|E|N)-\d{1,4}-\d{1,6}",
               f"{_CARD_NAMES}|cip|cédula de identidad personal"),
)  # fmt: skip
"""Every kind that is known. python-stdnum has none of Bolivia (number, a complement such as 1A, letters of the place),
Honduras (department and municipality, year, number), Nicaragua (municipality, date of birth, number, letter) and Panama
(province, or PE, E, N, then volume and entry): their forms are those that their registries (SEGIP, RNP, CSE, Tribunal
Electoral) print on the cards. Of these only Nicaragua's has something to check."""


def national_finders(countries: Sequence[Country]) -> list[Finder]:
    """What finds the ids of some countries."""
    wanted = [each for each in IDS if each.country in countries]
    kinds = [_Readable(each) for each in wanted]
    forms = [form for each in wanted for form in (each.written, each.bare) if form]
    hint = "|".join(f"(?:{form})" for form in forms)
    any_form = re.compile(hint)

    def spans(text: str) -> Spans:
        for match in _NUMBER.finditer(text):
            name = _NAME_BEFORE.match(match[0])  # capital letters before a number may begin it, or be its name
            for start in (match.start(), *([match.start() + name.end()] if name else [])):
                if not any_form.fullmatch(text, start, match.end()):  # most numbers are of no form: dates, for instance
                    continue
                before = text[max(0, start - _BEFORE_CHARACTERS) : start]
                if any(kind.fits(text[start : match.end()], before) for kind in kinds):
                    yield start, match.end()
                    break

    return [Finder("national_id", hint, spans)] if wanted else []


class _Readable:
    """A kind of id, ready to be looked for."""

    def __init__(self, each: NationalId) -> None:
        nothing = r"(?!)"
        self.written, self.bare = re.compile(each.written or nothing), re.compile(each.bare or nothing)
        names = "|".join(map(_name, each.names.split("|"))) if each.names else nothing
        number = r"(?:\s+(?:no|n|nr|núm|número|n[º°])\.?)?"
        self.named = re.compile(rf"(?<!\w)(?:{names})\.?{number}[\s:#.(-]*$", re.IGNORECASE)
        self.is_right = _check(each.check)

    def fits(self, number: str, before: str) -> bool:
        """Whether a number is such an id.

        Args:
            before: the text that ends where the number begins.
        """
        if not self.written.fullmatch(number) and not (self.bare.fullmatch(number) and self.named.search(before)):
            return False
        return self.is_right(number.replace(".", ""))


def _name(name: str) -> str:
    """An expression for a name: a dot may stand behind each letter of a short one, and accents may be missing."""
    letters = r"\.?".join(name) if len(name) < 5 else name
    for plain, accented in ("aá", "eé", "ií", "uú"):
        letters = letters.replace(accented, f"[{plain}{accented}]")
    return letters.replace(" ", r"\s+")


def _check(name: str) -> Callable[[str], bool]:
    if not name:
        return bool
    own = {
        "mexican_tax_number": mexican_tax_number, "nicaraguan_id": nicaraguan_id, "salvadoran_id": salvadoran_id,
        "uruguayan_id": uruguayan_id,
    }  # fmt: skip
    if name in own:
        return own[name]
    is_valid: Callable[[str], bool] = import_module(name).is_valid
    return is_valid


def mexican_tax_number(number: str) -> bool:
    """Whether it is a RFC: a date within and the check digit at its end, which stdnum looks at only when asked."""
    from stdnum.mx import rfc

    return rfc.is_valid(number, validate_check_digits=True)


def nicaraguan_id(number: str) -> bool:
    """Whether the letter behind thirteen digits is right: by the remainder of 23, as programs that check these ids have
    it (the oldest that is public: D. Torres 2008); the registry has published no rule."""
    digits = re.sub(r"\D", "", number)
    return number[-1] == _NICARAGUAN_LETTERS[int(digits) % 23]


def salvadoran_id(number: str) -> bool:
    """Whether the last of nine digits of a DUI is right."""
    *digits, check = map(int, re.sub(r"\D", "", number))
    return (sum(weight * digit for weight, digit in zip(range(9, 1, -1), digits, strict=True)) + check) % 10 == 0


def uruguayan_id(number: str) -> bool:
    """Whether the last of eight digits of a cédula is right."""
    *digits, check = map(int, re.sub(r"\D", "", number))
    return (sum(weight * digit for weight, digit in zip((2, 9, 8, 7, 6, 3, 4), digits, strict=True)) + check) % 10 == 0
