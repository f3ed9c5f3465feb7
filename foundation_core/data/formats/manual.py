r"""Manual pages (roff with the macros of man) as the text that a terminal shows, without its widths and fonts.

    ".SH NOMBRE\nls \- lista", ... --Lines--> what is shown --_Page--> "NOMBRE\n\nls - lista ..."

Roff is a programming language, and this is no interpreter of it: of conditions those hold that do on a terminal, the
macros that a page defines give their arguments, and sizes, motions and numbers are left out. Groff's `groff_man(7)` and
`groff_char(7)` are what is followed; a test compares the words with those that groff shows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Literal

from foundation_core.data.formats.base import Extracted, Refused
from foundation_core.data.formats.plain import Plain
from foundation_core.specs.reading import ReadingSpec

_TITLE = re.compile(r"^[.'][ \t]*TH\b", re.M)
_MDOC = re.compile(r"^\.[ \t]*Dd\b", re.M)
_LEADS_ELSEWHERE = re.compile(r"""\s*(?:[.']\\"[^\n]*\n\s*)*\.so[ \t]+(\S+)""")
_CONTINUED = re.compile(r"(?<!\\)((?:\\\\)*)\\\n")
_COMMENT = re.compile(r"""(?<!\\)((?:\\\\)*)\\["#].*""")
_REQUEST = re.compile(r"[.'][ \t]*(\S*)[ \t]*(.*)")
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\.|[^\s\\])+)')
_CONDITION = re.compile(r"(!?(?:\\n\[[^\]]*\]|\\n\(..|'[^']*'[^']*'|\S)\S*)[ \t]*(.*)")
_MOST_CONDITIONS = 16
"""Within each other on one line."""
_ESCAPE = re.compile(
    r"""\\(?:
        [fFmMkgnV][+-]?(?:\[[^\]]{0,80}\]|\(..|.)       # fonts, colours, registers
      | s[+-]?(?:\[[^\]]{0,80}\]|\([0-9]{2}|[1-3]?[0-9])
      | [hvwlLDbXxZRABoN]'[^']{0,200}'                   # motions, lines, widths
      | \*(?:\[(?P<string>[^\]]{0,80})\]|\((?P<short>..)|(?P<letter>.))
      | \[(?P<long>[^\]]{0,80})\]
      | \((?P<two>..)
      | (?P<one>.)
    )?""",
    re.X,
)
_ONE = {"e": "\\", "E": "\\", "\\": "\\", " ": " ", "~": " ", "0": " ", "t": "\t"}
_UNSEEN = frozenset("|^&)%:/,{}!acpruzd")
_STRINGS = {"lq": "“", "rq": "”", "R": "®", "Tm": "™", "Aq": "'", "--": "--", 'L"': "“", 'R"': "”", "C`": "", "C'": ""}
"""Strings of the macros and of pod2man, whose definitions move the pen."""
_CHARACTERS = {
    "aq": "'", "dq": '"', "lq": "“", "rq": "”", "oq": "‘", "cq": "’", "Fo": "«", "Fc": "»", "fo": "‹", "fc": "›",
    "Bq": "„", "bq": "‚", "em": "—", "en": "–", "hy": "-", "bu": "•", "ci": "○", "co": "©", "rg": "®", "tm": "™",
    "ha": "^", "ti": "~", "rs": "\\", "bs": "\\", "sl": "/", "ba": "|", "bv": "|", "or": "|", "at": "@", "sh": "#",
    "Do": "$", "ga": "`", "aa": "´", "ad": "¨", "a^": "^", "r!": "¡", "r?": "¿", "Of": "ª", "Om": "º", "de": "°",
    "mu": "×", "di": "÷", "+-": "±", "<=": "≤", ">=": "≥", "!=": "≠", "==": "≡", "~=": "≅", "->": "→", "<-": "←",
    "ua": "↑", "da": "↓", "la": "⟨", "ra": "⟩", "lB": "[", "rB": "]", "lC": "{", "rC": "}", "sc": "§", "ps": "¶",
    "dg": "†", "dd": "‡", "mc": "µ", "ct": "¢", "Eu": "€", "Po": "£", "Ye": "¥", "12": "½", "14": "¼", "34": "¾",
    "S1": "¹", "S2": "²", "S3": "³", "ss": "ß", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "/o": "ø", "/O": "Ø",
    "oa": "å", "oA": "Å", "-D": "Ð", "Sd": "ð", "Tp": "þ", "TP": "Þ", "if": "∞", "is": "∫", "pd": "∂", "sr": "√",
    "*a": "α", "*b": "β", "*g": "γ", "*d": "δ", "*e": "ε", "*l": "λ", "*m": "μ", "*p": "π", "*s": "σ", "*W": "Ω",
}  # fmt: skip
_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", ":": "\u0308", "~": "\u0303", ",": "\u0327", "v": "\u030c"}

_BREAKS = frozenset("PP LP P HP sp Sp Pp RS RE TQ".split())
_SPACED, _JOINED = frozenset("B I SM SB CW".split()), frozenset("BI BR IB IR RB RI".split())
_KEPT_FROM, _KEPT_TO = frozenset("nf EX Vb CS".split()), frozenset("fi EE Ve CE".split())
_DEFINED_TO = frozenset("de de1 am am1 dei ami ig".split())


class ManualPage(Plain):
    """Pages of the system's manual; a file that is none, whatever its name, is text."""

    def extract(self, data: bytes, limits: ReadingSpec) -> Extracted:
        """What a terminal shows of the page."""
        whole = super().extract(data, limits)
        if found := _LEADS_ELSEWHERE.match(whole.text):
            raise Refused(f"a manual page without text: it leads to {found[1]}")
        if not _TITLE.search(whole.text):
            if _MDOC.search(whole.text):
                raise Refused("a manual page of the macros mdoc, which are not read")
            return whole
        text = prose(whole.text)
        if not text:
            raise Refused("a manual page without text")
        return whole._replace(text=text)


def prose(source: str) -> str:
    """What a page shows: headings and paragraphs parted by blank lines, a filled paragraph in one line."""
    page = _Page()
    for line in _shown(_CONTINUED.sub(r"\1", source)):
        page.take(line)
    return page.text()


def _shown(source: str) -> Iterator[str]:
    """The lines that are no comments, in no definition, and in no branch that a terminal does not take."""
    lines, held = iter(source.split("\n")), True
    for raw in lines:
        line = _COMMENT.sub(r"\1", raw)
        if line != raw and not line.strip(" \t.'"):
            continue
        for _ in range(_MOST_CONDITIONS):
            name, rest = _request(line)
            if name in ("if", "ie"):
                found = _CONDITION.match(rest)
                holds, line = (_holds(found[1]), found[2]) if found else (False, "")
                held = holds if name == "ie" else held
            elif name == "el":
                holds, line = not held, rest
            else:
                break
            if not holds:
                _skip_branch(line, lines)
                line = ""
            line = line.removeprefix("\\{").lstrip(" \t")
            if not line:
                line = "."
        name, rest = _request(line)
        if name in _DEFINED_TO:
            end = (rest.split() or [""])[0 if name == "ig" else -1]
            ends = {".."} | ({f".{end}"} if name == "ig" or len(rest.split()) > 1 else set())
            yield f".de {rest}" if name != "ig" else "."
            next((line for line in lines if line.replace(" ", "").rstrip() in ends), None)
        else:
            yield line


def _request(line: str) -> tuple[str, str]:
    """The name of a request or macro, and what stands behind it; "" for a line of text."""
    found = _REQUEST.fullmatch(line)
    return (found[1], found[2]) if found else ("", "")


def _holds(condition: str) -> bool:
    """Whether a condition holds on a terminal of groff."""
    if found := re.match(r"(!?)'([^']*)'([^']*)'", condition):
        return (found[2] == found[3]) != bool(found[1])
    return condition in ("n", "!t") or condition.startswith(("\\n(.g", "\\n[.g]"))


def _skip_branch(line: str, lines: Iterator[str]) -> None:
    """Go behind a branch that is not taken: its line, or its block."""
    depth = line.count("\\{") - line.count("\\}")
    while depth > 0 and (inner := next(lines, None)) is not None:
        depth += inner.count("\\{") - inner.count("\\}")


class _Page:
    """Collects what is shown."""

    def __init__(self) -> None:
        self._paragraphs: list[str] = []
        self._lines: list[list[str]] = [[]]  # of the paragraph that is being read, each as its pieces
        self._filled, self._tag, self._heading, self._address = True, False, False, ""
        self._strings, self._macros = dict(_STRINGS), set[str]()
        self._table: Literal["none", "format", "rows"] = "none"
        self._separator = "\t"

    def text(self) -> str:
        """All of it."""
        self._end()
        return "\n\n".join(self._paragraphs)

    def take(self, line: str) -> None:
        """Read a line."""
        name, rest = _request(line)
        if self._table != "none" and name != "TE":
            self._row(line)
        elif line[:1] in (".", "'"):
            self._do(name, rest)
        else:
            self._say(line)

    def _do(self, name: str, rest: str) -> None:
        """Follow a request or macro."""
        if name in ("SH", "SS"):
            self._end()
            self._filled, self._tag, self._heading = True, False, not rest
            if rest:
                self._paragraphs.append(self._shown(" ".join(_arguments(rest))))
        elif name in _BREAKS:
            self._end()
        elif name in ("TP", "Tp"):
            self._end()
            self._tag = True
        elif name == "IP":
            self._end()
            self._item(_arguments(rest)[:1])
        elif name in _SPACED and rest:
            self._say(" ".join(_arguments(rest)))
        elif name in _JOINED:
            self._say("".join(_arguments(rest)))
        elif name in _KEPT_FROM | _KEPT_TO:
            self._break()
            self._filled = name in _KEPT_TO
        elif name == "br":
            self._break()
        elif name in ("UR", "MT"):
            self._address = rest
        elif name in ("UE", "ME"):
            self._say(self._address + rest if self._address else rest, joined=not self._address)
            self._address = ""
        elif name == "TS":
            self._end()
            self._table, self._separator = "format", "\t"
        elif name == "TE":
            self._table = "none"
            self._end()
        elif name == "ds":
            string, _, value = rest.partition(" ")
            self._strings.setdefault(string, self._shown(value.strip().removeprefix('"')))
        elif name == "de":
            self._macros.update(rest.split()[:1])
        elif name in ("URL", "MTO"):
            self._say("".join((_arguments(rest)[1:] or _arguments(rest))[:2]))
        elif name in self._macros and name != "IX" and rest:  # that one is pod2man's index
            self._say(" ".join(_arguments(rest)))

    def _say(self, line: str, *, joined: bool = False) -> None:
        """A line of text.

        Args:
            joined: to what stands before it, as a full stop is.
        """
        text = self._shown(line)
        if not text.strip():
            if not line.strip() and self._filled:
                self._end()
            elif not self._filled:
                self._break()
            return
        self._address = ""
        if self._heading:
            self._paragraphs.append(text.strip())
            self._heading = False
            return
        if text.startswith((" ", "\t")):
            self._break()
        pieces = self._lines[-1]
        if joined and pieces:
            pieces[-1] += text.strip()
        else:
            pieces.append(re.sub(" +", " ", text.strip()) if self._filled else text.rstrip())
        if self._tag or not self._filled:
            self._break()
        self._tag = False

    def _item(self, tag: list[str]) -> None:
        """The mark of an item: a word of its own line, or a bullet before the text."""
        if tag and (text := self._shown(tag[0]).strip()):
            self._lines[-1].append(text)
            if len(text) > 2:
                self._break()

    def _row(self, line: str) -> None:
        """A line of a table: its format up to a full stop, then rows of cells."""
        if self._table == "format":
            parted = re.search(r"\btab *\((.)\)", line)
            self._separator = parted[1] if parted else self._separator
            self._table = "rows" if line.rstrip().endswith(".") else "format"
        elif not line.startswith(".") and line.strip() not in ("_", "=", "T{"):
            cells = line.replace("T{", "").replace("T}", "").split(self._separator)
            self._lines[-1].append(self._shown("  ".join(cell.strip() for cell in cells)).strip())
            self._break()

    def _break(self) -> None:
        """End the line, not the paragraph."""
        if self._lines[-1]:
            self._lines.append([])

    def _end(self) -> None:
        """End the paragraph."""
        lines = (" ".join(pieces) for pieces in self._lines)
        if text := "\n".join(line for line in lines if line.strip()):
            self._paragraphs.append(text)
        self._lines = [[]]

    def _shown(self, text: str) -> str:
        """A text without escapes: as the characters that they stand for."""
        return _ESCAPE.sub(self._unescaped, text) if "\\" in text else text

    def _unescaped(self, found: re.Match[str]) -> str:
        string = found["string"] or found["short"] or found["letter"]
        if string is not None:
            return self._strings.get(string, "")
        if (one := found["one"]) is not None:
            return "" if one in _UNSEEN else _ONE.get(one, one)
        character = found["long"] or found["two"]
        return "" if character is None else _character(character)


def _character(name: str) -> str:
    r"""The character of \(xx or \[name]; "" for one that is not known."""
    if name in _CHARACTERS:
        return _CHARACTERS[name]
    if len(name) == 2 and name[0] in _ACCENTS and name[1].isalpha():
        return unicodedata.normalize("NFC", name[1] + _ACCENTS[name[0]])
    if re.fullmatch(r"u[0-9A-F]{4,6}", name) and (code := int(name[1:], 16)) <= 0x10FFFF:
        return "" if 0xD800 <= code < 0xE000 else chr(code)
    return ""


def _arguments(rest: str) -> list[str]:
    """The arguments of a macro, quoted ones without their quotes."""
    return [found[1].replace('""', '"') if found[2] is None else found[2] for found in _ARGUMENT.finditer(rest)]
