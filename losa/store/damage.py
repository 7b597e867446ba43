"""What is wrong with the files of one shard, held against its commit record."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import UInt32

from losa.errors import LosaError, StoreError
from losa.store import files, layout
from losa.store.crc import crc32
from losa.store.plan import Plan
from losa.store.ways import Ways

READ_BYTES: Final = 2**20
"""What is read at once, so that it is still in the processor's cache when it is summed up."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One damaged, missing or foreign file of a store, and what is wrong with it.

    A ``hidden`` file lies below something that is a problem itself, and is told by that.
    """

    path: str
    what: str
    kind: Literal["file", "stray", "hidden"] = "file"
    shard: tuple[str, int] | None = None


def file_problem(
    ways: Ways, name: str, error: StoreError, shard: tuple[str, int] | None = None
) -> Problem:
    """What keeps a file from being read, as a problem of it or of a folder on the way."""
    is_hidden = ways.block(name.rpartition("/")[0]) is not None
    return Problem(name, error.what, "hidden" if is_hidden else "file", shard)


def shard_objects(plan: Plan, split: str, shard: int) -> list[str]:
    """Every file that one shard's commit record vouches for."""
    taps = plan.spec.taps
    names = [name for tap in taps for name in record_objects(plan, split, tap, shard)]
    names += [layout.check_object(split, tap, shard) for tap in taps]
    return [*names, layout.status_object(split, shard)]


def record_objects(plan: Plan, split: str, tap: int, shard: int) -> list[str]:
    """The files that hold a tap's records of one shard: tokens and, for int8, their scales."""
    tokens = layout.tokens_object(split, tap, shard)
    if plan.spec.dtype != "int8":
        return [tokens]
    return [tokens, layout.scale_object(split, tap, shard)]


def shard_bytes(plan: Plan, split: str, shard: int) -> int:
    """Bytes of one shard's tokens and scales at all taps."""
    held = held_rows(plan, split, shard)
    sizes = [layout.shard_file_bytes(held, plan.shard_rows, size) for size in record_sizes(plan)]
    return sum(sizes) * len(plan.spec.taps)


def record_sizes(plan: Plan) -> list[int]:
    """Bytes of a record in each of :func:`record_objects`."""
    spec = plan.spec
    return [spec.record_bytes, spec.scale_bytes] if spec.scale_bytes else [spec.record_bytes]


def held_rows(plan: Plan, split: str, shard: int) -> int:
    """Rows that a shard holds."""
    first, stop = layout.shard_span(shard, plan.splits[split].rows, plan.shard_rows)
    return stop - first


def size_damage(root: Path, commit: Path) -> str | None:
    """What is wrong with the files that a commit record vouches for, by existence and size."""
    try:
        prefix = f"{os.fspath(root)}/"
        for name, facts in files.read_json(commit)["objects"].items():
            have = os.stat(prefix + name).st_size  # noqa: PTH116 -- of tens of thousands of files
            if have != facts["bytes"]:
                return f"{name} is {have} bytes, not {facts['bytes']}"
    except (FileNotFoundError, NotADirectoryError):
        return f"{name} is missing"
    except (StoreError, KeyError, TypeError, AttributeError, ValueError):
        return f"{commit.relative_to(root)} is not sound"
    return None


def content_damage(root: Path, plan: Plan, split: str, shard: int) -> str | None:
    """The first thing wrong with a committed shard, when every byte of it is read."""
    commit = root / layout.commit_object(split, shard)
    objects = files.read_json(commit)["objects"]
    for problem in shard_damage(Ways(root), plan, (split, shard), objects, deep=True):
        return f"{problem.path} {problem.what}"
    return None


def shard_damage(
    ways: Ways,
    plan: Plan,
    where: tuple[str, int],
    objects: Mapping[str, Any],
    *,
    deep: bool,
) -> Iterator[Problem]:
    """Every damaged file of a shard and what is wrong with it; ``deep`` reads the records too.

    ``where`` is the split and the shard, ``objects`` those of its commit record.

    Raises:
        ResourceError: the disk fails.
    """
    split, shard = where
    for tap in plan.spec.taps:
        yield from _tap_damage(ways, plan, (split, tap, shard), objects, deep=deep)
    names = [layout.check_object(split, tap, shard) for tap in plan.spec.taps]
    for name in [*names, layout.status_object(split, shard)]:
        try:
            _check_small(ways, name, objects)
        except StoreError as error:
            yield file_problem(ways, name, error, where)


def record_checks(
    paths: Sequence[Path], record_bytes: Sequence[int], rows: int
) -> UInt32[np.ndarray, "n"]:
    """CRC-32 of each of the first ``rows`` records, carried on from one file to the next.

    Raises:
        StoreError: a file is missing or ends too soon.
        ResourceError: the disk fails.
    """
    checks = np.zeros(rows, dtype="<u4")
    for path, size in zip(paths, record_bytes, strict=True):
        _carry_on(checks, path, size)
    return checks


def _carry_on(checks: UInt32[np.ndarray, "n"], path: Path, size: int) -> None:
    at_once = min(max(1, READ_BYTES // size), len(checks))
    buffer = memoryview(bytearray(at_once * size))
    handle = files.open_regular(path)
    try:
        for first in range(0, len(checks), at_once):
            count = min(at_once, len(checks) - first)
            _read_whole(handle, buffer[: count * size], first * size, path)
            checks[first : first + count] = [
                crc32(buffer[i * size : (i + 1) * size], int(checks[first + i]))
                for i in range(count)
            ]
    finally:
        os.close(handle)


def _read_whole(handle: int, buffer: memoryview, offset: int, path: Path) -> None:
    while buffer:
        try:
            count = os.preadv(handle, (buffer,), offset)
        except OSError as error:
            raise files.resource_error(path, error) from error
        if not count:
            raise StoreError(path, "ended while it was read", "run losa verify")
        buffer, offset = buffer[count:], offset + count


def _tap_damage(
    ways: Ways,
    plan: Plan,
    where: tuple[str, int, int],
    objects: Mapping[str, Any],
    *,
    deep: bool,
) -> Iterator[Problem]:
    """Damage of the files that hold one tap's records."""
    split, _, shard = where
    held = held_rows(plan, split, shard)
    is_whole = True
    for name, size in zip(record_objects(plan, *where), record_sizes(plan), strict=True):
        try:
            index = layout.shard_index(held, plan.shard_rows, size)
            _check_records_file(ways, name, objects, held * size, index)
        except StoreError as error:
            is_whole = False
            yield file_problem(ways, name, error, (split, shard))
    if deep and is_whole:
        yield from _record_damage(ways, plan, where, objects)


def _check_records_file(
    ways: Ways, name: str, objects: Mapping[str, Any], payload_bytes: int, index: bytes
) -> None:
    """Compare what a file of records has beside its records: its size and its index."""
    handle = ways.open(name)
    try:
        size = os.fstat(handle).st_size
        _check_size(ways, name, objects, size)
        if os.pread(handle, len(index) + 1, payload_bytes) != index:
            raise _damage(ways, name, "has a damaged index")
    except LosaError:
        raise
    except OSError as error:
        raise files.resource_error(Path(ways.path(name)), error) from error
    finally:
        os.close(handle)


def _check_small(ways: Ways, name: str, objects: Mapping[str, Any]) -> None:
    data, size = ways.read(name, objects.get(name, {}).get("bytes", 0))
    _check_size(ways, name, objects, size)
    if files.sha256(data) != objects[name]["sha256"]:
        raise _damage(ways, name, "is not the file that was committed")


def _check_size(ways: Ways, name: str, objects: Mapping[str, Any], size: int) -> None:
    facts = objects.get(name)
    if facts is None:
        raise _damage(ways, name, "is not in its commit record")
    if size != facts["bytes"]:
        raise _damage(ways, name, f"is {size} bytes, not {facts['bytes']}")


def _record_damage(
    ways: Ways, plan: Plan, where: tuple[str, int, int], objects: Mapping[str, Any]
) -> Iterator[Problem]:
    split, tap, shard = where
    names = record_objects(plan, *where)
    held = held_rows(plan, split, shard)
    checks = np.zeros(plan.shard_rows, dtype="<u4")
    paths = [Path(ways.path(name)) for name in names]
    with suppress(StoreError):  # somebody cuts a file just now: then it does not match
        checks[:held] = record_checks(paths, record_sizes(plan), held)
    digest = files.sha256(checks.tobytes())
    if all(digest == objects[name]["checks"] for name in names):
        return
    what = "does not match its commit record"
    try:
        stored, _ = ways.read(layout.check_object(split, tap, shard), checks.nbytes)
    except StoreError:
        stored = b""
    if files.sha256(stored) == objects[names[0]]["checks"]:
        wrong = np.flatnonzero(np.frombuffer(stored, dtype="<u4") != checks)
        what = f"row {shard * plan.shard_rows + int(wrong[0])} does not match its checksum"
    # One sum goes over tokens and scales: which of the two is damaged, it does not tell.
    for name in names:
        yield Problem(name, what, shard=(split, shard))


def _damage(ways: Ways, name: str, what: str) -> StoreError:
    return StoreError(ways.path(name), what, "losa repair says what it would do")
