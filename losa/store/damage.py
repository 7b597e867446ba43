"""What is wrong with the files of one shard, held against its commit record."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import UInt32

from losa.errors import LosaError, StoreError
from losa.store import files, layout
from losa.store.plan import Plan
from losa.store.shardfile import Folders

READ_BYTES: Final = 4 * 2**20
"""What is read at once, so that it is still in the processor's cache when it is summed up."""


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


def size_damage(root: Path, commit: Path) -> str | None:
    """What is wrong with the files that a commit record vouches for, by existence and size."""
    try:
        objects = files.read_json(commit)["objects"]
        for name, facts in objects.items():
            have = (root / name).stat().st_size
            if have != facts["bytes"]:
                return f"{name} is {have} bytes, not {facts['bytes']}"
    except FileNotFoundError:
        return f"{name} is missing"
    except (StoreError, KeyError, TypeError, AttributeError):
        return f"{commit.relative_to(root)} is not sound"
    return None


def content_damage(root: Path, plan: Plan, split: str, shard: int) -> str | None:
    """The first thing wrong with a committed shard, when every byte of it is read."""
    commit = root / layout.commit_object(split, shard)
    objects = files.read_json(commit)["objects"]
    for name, what in shard_damage(root, plan, (split, shard), objects, deep=True):
        return f"{name} {what}"
    return None


def shard_damage(
    root: Path,
    plan: Plan,
    where: tuple[str, int],
    objects: Mapping[str, Any],
    *,
    deep: bool,
) -> Iterator[tuple[str, str]]:
    """Every damaged file of a shard and what is wrong with it; ``deep`` reads the records too.

    ``where`` is the split and the shard, ``objects`` those of its commit record.

    Raises:
        ResourceError: the disk fails.
    """
    split, shard = where
    folders = Folders(root)
    whole: set[str] = set()
    for name in shard_objects(plan, split, shard):
        try:
            what = _file_damage(folders.check(name), objects.get(name))
        except StoreError as error:
            yield Path(error.subject).relative_to(root).as_posix(), error.what
            continue
        if what is None:
            whole.add(name)
        else:
            yield name, what
    for tap in plan.spec.taps:
        names = record_objects(plan, split, tap, shard)
        for name, record_bytes in zip(names, _record_bytes(plan), strict=True):
            if name in whole and not _has_index(root / name, plan, where, record_bytes):
                yield name, "has a damaged index"
        if deep and whole.issuperset(names):
            yield from _record_damage(root, plan, (split, tap, shard), objects)


def record_checks(
    paths: Sequence[Path], record_bytes: Sequence[int], rows: int
) -> UInt32[np.ndarray, "n"]:
    """zlib.crc32 of each of the first ``rows`` records, carried on from one file to the next.

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
                zlib.crc32(buffer[i * size : (i + 1) * size], int(checks[first + i]))
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


def _file_damage(path: Path, facts: Mapping[str, Any] | None) -> str | None:
    """Damage that size, or the digest of a small file, tells."""
    handle = files.open_regular(path)
    try:
        size = os.fstat(handle).st_size
    finally:
        os.close(handle)
    if facts is None:
        return "is not in its commit record"
    if size != facts["bytes"]:
        return f"is {size} bytes, not {facts['bytes']}"
    if "sha256" in facts and files.sha256(files.read_file(path)) != facts["sha256"]:
        return "is not the file that was committed"
    return None


def _has_index(path: Path, plan: Plan, where: tuple[str, int], record_bytes: int) -> bool:
    held = _held(plan, *where)
    want = layout.shard_index(held, plan.shard_rows, record_bytes)
    handle = files.open_regular(path)
    try:
        return os.pread(handle, len(want) + 1, held * record_bytes) == want
    except OSError as error:
        raise files.resource_error(path, error) from error
    finally:
        os.close(handle)


def _record_damage(
    root: Path, plan: Plan, where: tuple[str, int, int], objects: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    split, tap, shard = where
    names = record_objects(plan, *where)
    held = _held(plan, split, shard)
    checks = np.zeros(plan.shard_rows, dtype="<u4")
    checks[:held] = record_checks([root / name for name in names], _record_bytes(plan), held)
    digest = files.sha256(checks.tobytes())
    if all(digest == objects[name]["checks"] for name in names):
        return
    what = "does not match its commit record"
    try:
        stored = files.read_file(root / layout.check_object(split, tap, shard))
    except LosaError:
        stored = b""
    if files.sha256(stored) == objects[names[0]]["checks"]:
        wrong = np.flatnonzero(np.frombuffer(stored, dtype="<u4") != checks)
        what = f"row {shard * plan.shard_rows + int(wrong[0])} does not match its checksum"
    # One sum goes over tokens and scales: which of the two is damaged, it does not tell.
    for name in names:
        yield name, what


def _record_bytes(plan: Plan) -> list[int]:
    spec = plan.spec
    return [spec.record_bytes, spec.scale_bytes] if spec.scale_bytes else [spec.record_bytes]


def _held(plan: Plan, split: str, shard: int) -> int:
    first, stop = layout.shard_span(shard, plan.splits[split].rows, plan.shard_rows)
    return stop - first
