"""The samples table of a split: one JSON line a sample, in the data set's order.

Source: docs/store-format.md, section "Samples".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final

from losa.features import Sample
from losa.store import files

_KINDS: Final = ([str, str, int], [str, str, int, list])


def samples_bytes(listed: Iterable[Sample]) -> bytes:
    """The samples table of a split."""
    return b"".join(files.canonical_json(_row(sample)) for sample in listed)


def parse_samples(data: bytes) -> list[Sample]:
    r"""The samples that a table holds.

    Raises:
        ValueError: it is not as losa writes it.

    Example:
        >>> parse_samples(b'["a","a.png",2]\n')
        [Sample(key='a', path='a.png', label=2, labels=None)]
    """
    # At once, not line by line: there may be half a million of them. What is read is written again
    # and compared, so that nothing passes that losa would not have written.
    try:
        rows = json.loads(b"[" + b",".join(data.splitlines()) + b"]")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    listed = [_sample(row) for row in rows]
    if samples_bytes(listed) != data:
        raise ValueError("it is not as losa writes it")
    return listed


def listing_digest(listed: Iterable[Sample]) -> str:
    """Sha256 of the keys, paths and labels of a listing, in its order.

    Example:
        >>> listing_digest([Sample("a", "a.png", 0)])[:8]
        'b1cee0d6'
    """
    digest = hashlib.sha256()
    for sample in listed:
        digest.update(json.dumps(_row(sample), separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def _row(sample: Sample) -> list[Any]:
    row = [sample.key, sample.path, sample.label]
    return row if sample.labels is None else [*row, list(sample.labels)]


def _sample(row: Any) -> Sample:
    if not isinstance(row, list) or [type(item) for item in row] not in _KINDS:
        raise ValueError("a line is no sample")
    if len(row) == len(_KINDS[0]):
        return Sample(*row)
    key, path, label, labels = row
    if any(type(item) is not int for item in labels):
        raise ValueError("a label is no number")
    return Sample(key, path, label, tuple(labels))
