r"""English prose from Debian's packages, for the benchmark: `python -m benchmarks.ingest.corpus OUT.jsonl`.

    apt-get install python3.11-doc postgresql-doc-15 git-doc apache2-doc r-doc-html octave-doc erlang-doc \
        linux-doc-6.1 sqlite3-doc python-django-doc llvm-14-doc libboost1.74-doc python-sympy-doc lilypond-doc-html \
        exim4-doc-html debian-handbook

A page becomes the text of its paragraphs, list items, definitions and headings, a block a line, if it is English and
has a few of them. Blocks that are mostly links are left out: the contents of a whole manual stand beside each of its
pages. Which pages there are decides the figures: the benchmark prints how many and how large.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from lxml import etree, html

from foundation_core.data.rules.language import probabilities

PACKAGES = (
    "python3", "python-django", "python-sympy", "postgresql", "git", "apache2", "r-", "octave", "erlang",
    "linux-doc", "sqlite3", "llvm-14", "libboost", "lilypond", "exim4", "debian-handbook",
)  # fmt: skip
_PROSE = "self::p or self::li or self::dd or self::h1 or self::h2 or self::h3 or self::h4"
BLOCKS = f"//*[({_PROSE}) and not(.//*[{_PROSE}])]"
"""Blocks of prose that hold no other."""
LEAST_CHARACTERS, MOST_LINKED = 400, 0.5


def pages(root: Path) -> Iterator[tuple[str, str]]:
    """Id and text of every page, each file once."""
    folders = (folder for folder in root.iterdir() if folder.name.startswith(PACKAGES))
    for path in sorted({path.resolve() for folder in folders for path in folder.glob("**/*.html")}):
        try:
            page = html.fromstring(path.read_bytes())
        except (etree.LxmlError, ValueError, OSError):
            continue
        blocks = (_words(block) for block in page.xpath(BLOCKS) if _linked(block) < MOST_LINKED)
        text = "\n\n".join(block for block in blocks if block)
        if len(text) >= LEAST_CHARACTERS:
            yield str(path), text


def _words(element: html.HtmlElement) -> str:
    return " ".join(element.text_content().split())


def _linked(block: html.HtmlElement) -> float:
    """The share of a block's characters that stand in links."""
    return sum(len(_words(link)) for link in block.iter("a")) / max(len(_words(block)), 1)


def main() -> int:
    """Write the corpus and say how large it is."""
    out, count, size = Path(sys.argv[1]), 0, 0
    with out.open("w") as sink:
        for name, text in pages(Path("/usr/share/doc")):
            found = probabilities(text)
            if max(found, key=found.__getitem__, default="") == "en":
                sink.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
                count, size = count + 1, size + len(text.encode())
    print(f"{count:,} documents, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
