"""A translation task that needs no download: numbers in words, from English to Spanish, by the rules of both.

Small as it is, it has what translation has. One word becomes two ("sixteen thousand" is "dieciséis mil", but
"thirty one" is "treinta y uno"), two become one ("five hundred" is "quinientos"), a word may vanish ("one thousand" is
"mil"), and the order of the words is the meaning: "two thousand three" is not "three thousand two".
"""

from __future__ import annotations

HIGHEST = 99_999

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
).split()
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
_UNOS = (
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete"
    " dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete"
    " veintiocho veintinueve"
).split()
_DECENAS = "_ _ _ treinta cuarenta cincuenta sesenta setenta ochenta noventa".split()
_CENTENAS = (
    "_ ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos"
).split()


def english(number: int) -> list[str]:
    """The words of a number from 0 to 99,999."""
    thousands, rest = divmod(number, 1000)
    words = [*_english_below_1000(thousands), "thousand"] if thousands else []
    return words + (_english_below_1000(rest) if rest or not words else [])


def spanish(number: int) -> list[str]:
    """The same in Spanish; before "mil", "uno" loses its last letter and a lone one falls away."""
    thousands, rest = divmod(number, 1000)
    words = _before_mil(_spanish_below_1000(thousands)) if thousands > 1 else []
    words += ["mil"] if thousands else []
    return words + (_spanish_below_1000(rest) if rest or not words else [])


def _english_below_1000(number: int) -> list[str]:
    hundreds, rest = divmod(number, 100)
    words = [_ONES[hundreds], "hundred"] if hundreds else []
    if rest >= 20:
        words += [_TENS[rest // 10]] + ([_ONES[rest % 10]] if rest % 10 else [])
    elif rest or not words:
        words.append(_ONES[rest])
    return words


def _spanish_below_1000(number: int) -> list[str]:
    if number == 100:
        return ["cien"]
    hundreds, rest = divmod(number, 100)
    words = [_CENTENAS[hundreds]] if hundreds else []
    if rest >= 30:
        words += [_DECENAS[rest // 10]] + (["y", _UNOS[rest % 10]] if rest % 10 else [])
    elif rest or not words:
        words.append(_UNOS[rest])
    return words


def _before_mil(words: list[str]) -> list[str]:
    shorter = {"uno": "un", "veintiuno": "veintiún"}
    return [*words[:-1], shorter.get(words[-1], words[-1])]
