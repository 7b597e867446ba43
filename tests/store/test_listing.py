"""The samples table: what is written is read, and nothing else is."""

from __future__ import annotations

import hashlib
import json

import pytest

from losa.features import Sample
from losa.store.listing import listing_digest, parse_samples, samples_bytes

LISTED = [
    Sample("ä", "a/ä.png", 0),
    Sample("none", "n.png", -1),
    Sample("several", "s.png", -1, (0, 4)),
    Sample("not one of several", "o.png", -1, ()),
]


def test_a_table_that_was_written_is_read_again() -> None:
    assert parse_samples(samples_bytes(LISTED)) == LISTED
    assert parse_samples(b"") == []


def test_a_line_is_a_list_of_key_path_label_and_perhaps_several_labels() -> None:
    lines = [json.loads(line) for line in samples_bytes(LISTED).splitlines()]
    assert lines[0] == ["ä", "a/ä.png", 0]
    assert lines[1] == ["none", "n.png", -1]
    assert lines[2] == ["several", "s.png", -1, [0, 4]]
    assert lines[3] == ["not one of several", "o.png", -1, []]


@pytest.mark.parametrize(
    "data",
    [
        b'["a","b"]\n',
        b'["a","b",true]\n',
        b'["a","b",1.0]\n',
        b'{"a":1}\n',
        b'["a","b",1]',
        b'["a", "b",1]\n',
        b'["a","b",1],["c","d",2]\n',
        b'["a","b",-1,[true]]\n',
        b'["a","b",-1,[1],2]\n',
        b'["a","b",-1,1]\n',
        b"[" * 100_000 + b"\n",
        b"\xff\n",
    ],
)
def test_what_losa_would_not_write_is_no_table(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_samples(data)


def test_the_digest_is_of_ascii_lines_in_order() -> None:
    lines = b'["\\u00e4","a/\\u00e4.png",0]\n["s","s",-1,[1,2]]\n'
    listed = [LISTED[0], Sample("s", "s", -1, (1, 2))]
    assert listing_digest(listed) == hashlib.sha256(lines).hexdigest()
    assert listing_digest(listed[::-1]) != listing_digest(listed)
