"""Each format gives the text that its readers see, or a reason: the same each time, and nothing on the terminal."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import unicodedata
import zlib
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from foundation_core import plugins
from foundation_core.data.formats import extract as formats
from foundation_core.data.formats.extract import extract
from foundation_core.data.formats.markdown import without_front_matter
from foundation_core.errors import SetupError
from foundation_core.specs.reading import ReadingSpec
from tests.support.written import ODT_TYPE, docx, docx_of, odt, odt_of, pdf, zipped

LIMITS = ReadingSpec()
REPAIR = ReadingSpec(repair_encoding=True)
LINES = ["El niño comió una manzana.", "¿Qué más? <nada> & todo."]
PAGE = (
    '<!doctype html><html><head><meta charset="{charset}"><title>t</title><style>p {{ color: red }}</style></head>'
    "<body><nav><a href='/'>Portada</a></nav><main><p>El niño comió una manzana.</p><p>¿Qué más?</p></main>"
    "<script>var secret = 1;</script><!-- unseen --></body></html>"
)
SAMPLES: dict[str, bytes] = {
    "a.txt": "\n".join(LINES).encode(),
    "a.md": ("# " + "\n\n".join(LINES)).encode(),
    "a.html": PAGE.format(charset="utf-8").encode(),
    "a.pdf": pdf(LINES),
    "a.docx": docx(LINES),
    "a.odt": odt(LINES),
}
every_sample = pytest.mark.parametrize("name", SAMPLES)
names = st.sampled_from(sorted(SAMPLES))
PLACE = re.compile(r"0x[0-9a-f]{5}|(?<!\w)/\w|\.py|Traceback|line \d")


def text_of(name: str, data: bytes, limits: ReadingSpec = LIMITS) -> str:
    return extract(name, data, limits).text


def outcome(name: str, data: bytes, limits: ReadingSpec = LIMITS) -> str:
    """The text, or the reason; anything else is raised."""
    try:
        text = text_of(name, data, limits)
    except ValueError as error:
        reason = error
    else:
        return _checked(text)
    assert type(reason).__name__ in ("ValueError", "Refused"), "a library's own error"
    assert str(reason)
    assert not PLACE.search(str(reason)), str(reason)
    return f"refused: {reason}"


def _checked(text: str) -> str:
    """A text that UTF-8 can hold, in the form that every text has."""
    text.encode()
    assert text == unicodedata.normalize("NFC", text)
    assert "\r" not in text
    assert "\0" not in text
    return text


@every_sample
def test_a_document_of_each_format_gives_its_text(name: str) -> None:
    text = text_of(name, SAMPLES[name])
    assert "El niño comió una manzana." in text
    assert "¿Qué más?" in text
    assert extract(name.upper(), SAMPLES[name], LIMITS).text == text


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.odt"])
def test_paragraphs_and_pages_are_lines(name: str) -> None:
    assert text_of(name, SAMPLES[name]) == "\n".join(LINES)


@every_sample
def test_every_other_document_is_refused_with_what_it_looks_like(name: str) -> None:
    looks = {"a.pdf": "a PDF", "a.docx": "a DOCX document", "a.odt": "an ODT document", "a.html": "HTML"}
    text_takes_all_text = {"a.txt", "a.md", "a.html"}
    for other, data in SAMPLES.items():
        if other == name or (name in text_takes_all_text and other in text_takes_all_text):
            continue
        with pytest.raises(ValueError, match=f"^looks like {looks.get(other, 'no known format')}, and its name is"):
            text_of(name, data)


@pytest.mark.parametrize(
    ("data", "looks"),
    [
        (b"\x89PNG\r\n\x1a\n\0", "a PNG image"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old or encrypted Office document"),
        (b"{\\rtf1 text}", "an RTF document"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (zipped({"xl/workbook.xml": "<a/>"}), "an XLSX sheet"),
        (zipped({"mimetype": f"{ODT_TYPE[:-4]}spreadsheet"}, ["mimetype"]), "an ODS sheet"),
        (zipped({"../../etc/passwd": "x"}), "a zip archive"),
    ],
)
@every_sample
def test_what_no_format_reads_is_refused_by_all(name: str, data: bytes, looks: str) -> None:
    with pytest.raises(ValueError, match=f"^looks like {looks}, and its name is {name[1:]}$"):
        text_of(name, data)


def test_text_and_code_of_any_other_ending_are_read_as_they_are() -> None:
    for name in ("a.py", "README", ".gitignore", "a.tar.q"):
        assert text_of(name, b"x = '<b>'\r\n") == "x = '<b>'\n"
    with pytest.raises(ValueError, match="not UTF-8: byte 0xe9 at offset 3"):
        text_of("a.py", b"caf\xe9")
    assert extract("a.py", b"caf\xe9", REPAIR) == ("café", "latin-1")


# ---------------------------------------------------------------------------------------------------------- Markdown


@pytest.mark.parametrize(
    "front",
    ["---\ntitle: A\ntags:\n  - a\n- b\n# note\n\n---\n", "+++\ntitle = 'A'\n[more]\n+++\n", "---\ntitle:\n...\n"],
)
def test_front_matter_is_no_text(front: str) -> None:
    assert text_of("a.md", (front + "\n# Text\n\n---\n").encode()) == "# Text\n\n---\n"
    assert text_of("a.txt", (front + "# Text\n").encode()).startswith(front)


@pytest.mark.parametrize(
    "text", ["---\nProse, between rules.\n---\nmore", "---\n---\n", "---\ntitle: A\n", "a\n---\nb: c\n---\n"]
)
def test_prose_between_rules_is_text(text: str) -> None:
    assert without_front_matter(text) == text


# -------------------------------------------------------------------------------------------------------------- HTML


def test_scripts_styles_comments_and_menus_are_not_in_the_text() -> None:
    text = text_of("a.html", SAMPLES["a.html"])
    assert not any(word in text for word in ("secret", "color", "unseen", "Portada"))


@pytest.mark.parametrize(
    ("charset", "encoding", "named"),
    [("iso-8859-1", "cp1252", "windows-1252"), ("windows-1252", "cp1252", "windows-1252"), ("cp850", "cp850", "cp850")],
)
def test_the_charset_that_a_page_declares_is_read_without_repair(charset: str, encoding: str, named: str) -> None:
    found = extract("a.html", PAGE.format(charset=charset).encode(encoding), LIMITS)
    assert "El niño" in found.text
    assert found.encoding == named


def test_a_page_that_is_utf_8_is_that_whatever_it_declares() -> None:
    found = extract("a.html", PAGE.format(charset="iso-8859-1").encode(), LIMITS)
    assert "El niño" in found.text
    assert found.encoding == "utf-8"


@pytest.mark.parametrize("charset", ["utf-8", "no-such-charset", "utf-7", "utf-16", "hex", "rot13", "idna", "cp037"])
def test_a_declaration_that_helps_nothing_is_passed_over(charset: str) -> None:
    data = PAGE.format(charset=charset).encode("cp1252")
    with pytest.raises(ValueError, match="not UTF-8: byte 0xf1"):
        text_of("a.html", data)
    assert "El niño" in text_of("a.html", data, REPAIR)


def test_broken_pages_are_read_as_browsers_read_them() -> None:
    assert text_of("a.html", b"<p>one<b>two<p>three</i><p>four") == text_of(
        "a.html", b"<html><body><p>one<b>two</b></p><p><b>three</b></p><p><b>four</b></p>"
    )


def test_a_page_without_text_or_too_deep_for_any_page_is_refused() -> None:
    with pytest.raises(ValueError, match="an HTML page without text"):
        text_of("a.html", b"<html><script>alert(1)</script><img alt='a'></html>")
    with pytest.raises(ValueError, match="more than 1000 elements within each other"):
        text_of("a.html", b"<div>" * 100_000 + b"text")
    assert "text" in text_of("a.html", b"<div></div>" * 10_000 + b"<p>text</p>")


# --------------------------------------------------------------------------------------------------------------- PDF


def test_a_pdf_that_is_encrypted_cut_or_holds_images_alone_is_refused_with_the_reason() -> None:
    locked = "/Encrypt << /Filter /Standard /V 1 /R 2 /O (" + "o" * 32 + ") /U (" + "u" * 32 + ") /P -4 >> /ID [(a)(a)]"
    with pytest.raises(ValueError, match=r"^an encrypted PDF$"):
        text_of("a.pdf", pdf(LINES, locked))
    unknown = "/Encrypt << /Filter /Standard /V 5 /R 6 >> /ID [(a)(a)]"
    with pytest.raises(ValueError, match=r"^an encrypted PDF$"):
        text_of("a.pdf", pdf(LINES, unknown))
    with pytest.raises(ValueError, match="a truncated PDF: its end mark is not there"):
        text_of("a.pdf", SAMPLES["a.pdf"][:-100])
    with pytest.raises(ValueError, match="a PDF without text: 2 pages"):
        text_of("a.pdf", pdf(["", ""]))


def test_a_pdf_whose_pages_unpack_to_too_much_is_refused() -> None:
    bomb = zlib.compress(bytes(50_000_000))
    assert outcome("a.pdf", pdf(["a"], stream=bomb)).startswith("refused: a PDF")


# ------------------------------------------------------------------------------------------------------ DOCX and ODT


def test_a_docx_gives_tabs_and_breaks_but_no_deleted_text_and_no_fallback_twice() -> None:
    runs = (
        "<w:p><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r>"
        "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"
        "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>cell</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
        "<w:p><mc:AlternateContent><mc:Choice><w:r><w:t>once</w:t></w:r></mc:Choice>"
        "<mc:Fallback><w:r><w:t>once</w:t></w:r></mc:Fallback></mc:AlternateContent></w:p>"
    )
    assert text_of("a.docx", docx_of(runs)) == "a\tb\nc\ncell\nonce"


def test_an_odt_gives_collapsed_and_stated_spaces_but_no_notes() -> None:
    body = (
        '<text:h>Head</text:h><text:p>\n  a \n b<text:s text:c="3"/>c<text:tab/>d<text:line-break/>e'
        "<text:note><text:p>a note</text:p></text:note>\n</text:p>"
        '<text:p>x<text:s text:c="999999999999"/>y</text:p>'
    )
    assert text_of("a.odt", odt_of(body)) == f"Head\na b   c\td\ne \nx{' ' * 1000}y"


@pytest.mark.parametrize(("name", "write"), [("a.docx", docx_of), ("a.odt", odt_of)])
def test_entities_are_refused_before_one_is_expanded_or_fetched(name: str, write: Callable[..., bytes]) -> None:
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    for head in (f'<!DOCTYPE a [<!ENTITY a0 "ha">{laughs}]>', '<!DOCTYPE a SYSTEM "file:///etc/passwd">'):
        with pytest.raises(ValueError, match="XML with a document type"):
            text_of(name, write("&a9;", head))


@pytest.mark.parametrize(("name", "write"), [("a.docx", docx), ("a.odt", odt)])
def test_a_member_that_unpacks_to_too_much_is_refused(name: str, write: Callable[..., bytes]) -> None:
    document = write(["a" * 3_000_000])
    with pytest.raises(ValueError, match=r"its [\w/]+\.xml unpacks to more than 100 times its size"):
        text_of(name, document)
    assert len(text_of(name, document, ReadingSpec(most_expansion=2000))) == 3_000_000
    with pytest.raises(ValueError, match="something of more than 2000000 bytes"):
        text_of(name, document, ReadingSpec(most_expansion=2000, most_document_bytes=2_000_000))


def test_elements_within_each_other_without_end_are_refused() -> None:
    deep = "".join(f"<a{random.Random(n).random()}>".replace("0.", "") for n in range(5000))
    for name, write in (("a.docx", docx_of), ("a.odt", odt_of)):
        with pytest.raises(ValueError, match="XML with more than 1000 elements"):
            text_of(name, write(deep))


def test_an_encrypted_odt_is_refused_as_that() -> None:
    with pytest.raises(ValueError, match="an encrypted ODT document"):
        text_of("a.odt", odt_of("x", manifest="<m><manifest:encryption-data/></m>"))


# --------------------------------------------------------------------------------------------------------- all alike


@every_sample
def test_a_document_larger_than_the_bound_is_refused(name: str) -> None:
    data = SAMPLES[name] + b" " * 2000
    with pytest.raises(ValueError, match="a document of more than 1024 bytes"):
        text_of(name, data, ReadingSpec(most_document_bytes=1024))


@settings(max_examples=400, deadline=None)
@given(names, st.binary(max_size=400))
@example("a.pdf", b"%PDF-1.7 %%EOF")
@example("a.docx", b"PK\x03\x04")
def test_random_bytes_give_a_text_or_a_reason(name: str, data: bytes) -> None:
    assert outcome(name, data, REPAIR) == outcome(name, data, REPAIR)


@settings(max_examples=600, deadline=None)
@given(names, st.data())
def test_a_document_cut_at_any_byte_gives_a_text_or_a_reason(name: str, data: st.DataObject) -> None:
    whole = SAMPLES[name]
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    found = outcome(name, cut, REPAIR)
    if name in ("a.pdf", "a.docx", "a.odt"):
        assert found.startswith("refused: ") or found == text_of(name, whole)


@settings(max_examples=1000, deadline=None)
@given(names, st.data())
def test_a_document_with_changed_bytes_gives_a_text_or_a_reason(name: str, data: st.DataObject) -> None:
    changed = bytearray(SAMPLES[name])
    places = st.integers(0, len(changed) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)):
        changed[place] = byte
    assert outcome(name, bytes(changed), REPAIR) == outcome(name, bytes(changed), REPAIR)


def test_whatever_a_library_raises_becomes_a_reason_without_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    import pypdf

    def fail(*_: object) -> None:
        raise RecursionError(f"at {id(LIMITS):#x} in /home/somebody")

    monkeypatch.setattr(pypdf, "PdfReader", fail)
    with pytest.raises(ValueError, match=r"^a PDF that cannot be read: RecursionError$"):
        text_of("a.pdf", SAMPLES["a.pdf"])


def test_a_missing_library_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "find_spec", lambda name: None)
    formats._format.cache_clear()
    for name in ("a.html", "a.pdf"):
        with pytest.raises(SetupError, match=r"foundation-pipeline\[documents\]"):
            text_of(name, SAMPLES[name])
    for name in ("a.txt", "a.md", "a.docx", "a.odt"):
        assert "manzana" in text_of(name, SAMPLES[name])


def test_bombs_are_refused_within_bounded_memory() -> None:
    code = """if True:
        import re, zlib
        from tests.data.test_formats import SAMPLES, outcome
        from tests.support.written import docx_of, odt_of, pdf

        def bytes_of(field):
            return 1024 * int(re.search(field + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

        bombs = {"a.pdf": pdf(["a"], stream=zlib.compress(bytes(200_000_000))), "a.html": b"<b>" * 200_000}
        bombs |= {name: write("<a/>" * 10_000_000) for name, write in (("a.docx", docx_of), ("a.odt", odt_of))}
        [outcome(name, data) for name, data in SAMPLES.items()]
        open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
        before_bytes = bytes_of("VmRSS")
        refused = all(outcome(name, data).startswith("refused") for name, data in bombs.items())
        print(refused, bytes_of("VmHWM") - before_bytes)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    refused, more_bytes = done.stdout.split()
    assert refused == "True"
    assert int(more_bytes) < 150_000_000  # of which the HTML page's tree is the most


def test_libraries_say_nothing_on_the_terminal_and_are_loaded_when_they_are_needed() -> None:
    code = (
        "import sys; from foundation_core.data.formats.extract import extract;"
        "from foundation_core.specs.reading import ReadingSpec;"
        "print([name for name in ('torch', 'pypdf', 'resiliparse', 'charset_normalizer') if name in sys.modules]);"
        "from tests.data.test_formats import SAMPLES, outcome; data = SAMPLES['a.pdf'];"
        "[outcome('a.pdf', data[:cut] + b'1 0 obj %%EOF') for cut in range(20, len(data), 97)]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
