"""A look into a data set as a page of its own that needs no network and no script."""

from __future__ import annotations

from foundation_core.pages.peek import COLOURS, Peek
from foundation_core.pages.rendering import rendered
from foundation_core.pages.values import png, points


def peek_page(look: Peek, *, ids: bool) -> str:
    """The page, in HTML.

    Args:
        ids: whether each token's id stands behind it.
    """
    return rendered("peek.html", look=look, ids=ids, colours=COLOURS, png=png, points=points)
