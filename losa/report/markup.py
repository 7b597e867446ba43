"""HTML and SVG as a tree: what users named is text or an attribute's value, and cannot be more."""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from xml.etree import ElementTree

Node = ElementTree.Element
Content = Node | str | None


def node(tag: str, *content: Content, **attributes: object) -> Node:
    """An element; ``stroke_width=2`` is ``stroke-width="2"``, and ``None`` is no attribute.

    Example:
        >>> written(node("p", "a < b", node("b", "c"), "d", class_="x"))
        '<p class="x">a &lt; b<b>c</b>d</p>'
    """
    made = ElementTree.Element(tag)
    for name, value in attributes.items():
        if value is not None:
            made.set(name.rstrip("_").replace("_", "-"), printable(str(value)))
    return add(made, *content)


def add(parent: Node, *content: Content) -> Node:
    """Put content behind what an element has; returns the element."""
    for item in content:
        if isinstance(item, str):
            _add_text(parent, printable(item))
        elif item is not None:
            parent.append(item)
    return parent


def written(root: Node) -> str:
    """An element as HTML."""
    return ElementTree.tostring(root, encoding="unicode", method="html")


def source_digest(text: str) -> str:
    """What a page's policy knows a script or a style by: no other of either acts."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def printable(text: str) -> str:
    r"""Text without what has no place in a page: controls, and halves of characters.

    Example:
        >>> printable("a\x00b\ud800c\n")
        'a�b�c\n'
    """
    return "".join(
        "\ufffd" if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t" else char
        for char in text
    )


def _add_text(parent: Node, text: str) -> None:
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text
