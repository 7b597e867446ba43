"""What users named cannot act."""

from __future__ import annotations

import base64
import hashlib

import pytest

from losa.report.markup import add, node, printable, source_digest, written
from tests.report.made import Page

HOSTILE = (
    "<script>alert(1)</script>",
    "</title><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "]]><!--",
    "&lt;script&gt;",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_and_attributes_stay_text(text: str) -> None:
    page = Page(written(node("p", text, node("b", "x"), text, title=text)))
    assert [tag for tag, _ in page.tags] == ["p", "b"]
    assert page.tags[0][1] == {"title": text}
    assert page.text == f"{text}x{text}"


def test_styles_and_scripts_are_written_as_they_are() -> None:
    assert written(node("script", "a < b && c")) == "<script>a < b && c</script>"


def test_controls_and_halves_of_characters_have_no_place_in_a_page() -> None:
    assert printable("a\x1b[31m\ud800é\u202f漢\t\n") == "a\ufffd[31m\ufffdé\u202f漢\t\n"
    written(node("p", "\ud800", title="\x00")).encode()


def test_text_follows_what_stands_there() -> None:
    made = add(node("p", "a"), "b", node("i"), None, "c", "d")
    assert written(made) == "<p>ab<i></i>cd</p>"


def test_a_policy_knows_a_source_by_its_digest() -> None:
    digest = base64.b64encode(hashlib.sha256(b"x = 1").digest()).decode()
    assert source_digest("x = 1") == f"'sha256-{digest}'"
