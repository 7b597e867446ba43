"""A store as one HDF5 file, and back: every record is compared with its checksum on the way.

Source: docs/hdf5.md.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from losa.errors import MismatchError, StoreError, UsageError
from losa.features import resolve_taps
from losa.store import files, layout, system
from losa.store.claims import ShardTask
from losa.store.h5store import H5Store, Origin, open_h5
from losa.store.hdf5 import (
    COLUMNS,
    DIGEST,
    H5_MAJOR,
    H5_MINOR,
    TABLES,
    EmptyFile,
    arrays_of,
    column_path,
    empty_file,
    file_digest,
    statistic_path,
)
from losa.store.opening import H5_SUFFIXES
from losa.store.order import row_places
from losa.store.plan import Plan, differing_fields
from losa.store.reader import Store, check_format, open_store
from losa.store.skeleton import skeleton_files, statistics_of
from losa.store.space import check_room, check_space
from losa.store.split import SplitReader
from losa.store.writer import StoreWriter, create_store

BLOCK_BYTES: Final = 8 * 2**20
"""What is read and written at once."""

Progress = Callable[[int, int], None]
"""Is told bytes done, and bytes in all."""

_Contents = dict[str, Callable[[], np.ndarray]]
log = logging.getLogger(__name__)


def export_store(
    store_path: Path,
    out: Path,
    *,
    taps: str = "all",
    splits: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a sealed store, or some taps and splits of it, to one HDF5 file.

    The file appears whole or not at all; the same store gives the same bytes.

    Raises:
        StoreError: the store cannot be read, or is damaged.
        UsageError: it has no such taps or splits, or ``out`` is no place for the file.
        ResourceError: the file does not fit, or cannot be written.
    """
    _check_out(store_path, out, overwrite=overwrite)
    store = open_store(store_path, verify="always")
    plan = _part_of(store, taps, splits)
    export = _Export.of(store, plan)
    todo = "free space, write elsewhere, or export fewer --taps or splits"
    check_room(out, export.empty.nbytes, todo)
    _publish(export, out, overwrite=overwrite, progress=progress or _silent)
    return {
        "file": str(out),
        "store_id": export.origin.digest_of(plan),
        "is_whole": export.origin.is_whole(plan),
        "taps": list(plan.spec.taps),
        "splits": {name: item.rows for name, item in plan.splits.items()},
        "bytes": export.empty.nbytes,
    }


def import_store(
    h5_path: Path, store_path: Path, *, durable: bool = True, progress: Progress | None = None
) -> dict[str, Any]:
    """Write an ordinary sealed store from an HDF5 file; the same call resumes.

    A file of all taps and splits gives back the very store it was exported from.

    Raises:
        StoreError: the file is not sound, or ``store_path`` holds something else than a store, or
            a sealed one that lacks files.
        MismatchError: ``store_path`` holds another store.
        LockedError: another process mends or cleans it.
        ResourceError: the store does not fit, or cannot be written.
    """
    source = open_h5(h5_path, verify="always")
    _begin(source, store_path)
    with StoreWriter(store_path, durable=durable) as writer:
        if writer.is_sealed:
            writer.check_whole()
        else:
            writer.withdraw_damaged()
        _copy_missing(source, writer, progress or _silent)
    with StoreWriter(store_path) as writer:
        # Synced whatever the caller says of shards: what is sealed is said to be whole.
        store_id = writer.seal()
    is_original = store_id == source.origin.store_id
    if source.origin.is_whole(source.plan) and not is_original:
        log.warning("%s is not the store that %s says it was exported from", store_path, h5_path)
    return {
        "store": str(store_path),
        "store_id": store_id,
        "is_original": is_original,
        "taps": list(source.spec.taps),
        "splits": {name: item.rows for name, item in source.plan.splits.items()},
    }


def _check_out(store_path: Path, out: Path, *, overwrite: bool) -> None:
    """Refuse a file that would not be found again, or that has no business where it would lie."""
    if out.suffix.lower() not in H5_SUFFIXES:
        what = "would not be known as an HDF5 file"
        raise UsageError(out, what, f"give a name that ends in {' or '.join(H5_SUFFIXES)}")
    if out.resolve().is_relative_to(store_path.resolve()):
        raise UsageError(out, "lies in the store itself", "give a file outside of it")
    if os.path.lexists(out) and not (overwrite and out.is_file()):
        raise UsageError(out, "exists already", "give another file, or --overwrite one")


def _part_of(store: Store, taps: str, splits: Sequence[str] | None) -> Plan:
    """The plan of some taps and splits of a store."""
    plan = store.plan
    kept = resolve_taps(taps, plan.spec.taps)
    wanted = plan.splits if splits is None else splits
    for name in wanted:
        if name not in plan.splits:
            have = ", ".join(plan.splits)
            raise UsageError("--split", f"{name!r} is not in the store", f"it has {have}")
    if not wanted:
        raise UsageError("--split", "names no split", "leave it out to export all")
    return replace(
        plan,
        spec=plan.spec.with_taps(kept),
        splits={name: item for name, item in plan.splits.items() if name in wanted},
        exponents=tuple(plan.exponents[plan.spec.taps.index(tap)] for tap in kept),
    )


@dataclass(frozen=True, slots=True)
class _Export:
    """Everything about a file but its records: what lies where, and the small contents."""

    store: Store
    plan: Plan
    origin: Origin
    contents: _Contents
    empty: EmptyFile

    @classmethod
    def of(cls, store: Store, plan: Plan) -> _Export:
        origin = Origin(store.store_id, store.spec.taps, store.splits)
        contents = _contents(store, plan)
        digests, widths = {}, {}
        for name, content in contents.items():
            values = content()
            widths[name] = values.dtype.itemsize
            digests[name] = files.sha256(values.view(np.uint8).data)
        texts = _texts(store, plan, origin)
        arrays = arrays_of(plan, widths)
        texts |= {DIGEST: file_digest(texts, digests)}
        return cls(store, plan, origin, contents, empty_file(plan, texts, arrays))


def _texts(store: Store, plan: Plan, origin: Origin) -> dict[str, str]:
    """The attributes that the digest covers."""
    skipped = {
        split: [
            reason
            for shard in range(layout.shard_count(item.rows, plan.shard_rows))
            for reason in store.files.commit(split, shard)["skipped"]
        ]
        for split, item in plan.splits.items()
    }
    values = {
        "format": {"major": H5_MAJOR, "minor": H5_MINOR},
        "plan": plan.to_json(),
        "skipped": skipped,
        "source": origin.to_json(),
    }
    texts = {name: files.canonical_json(value).decode() for name, value in values.items()}
    for name, text in texts.items():
        if len(text.encode()) > files.MAX_JSON_BYTES:
            raise StoreError(store.path, f"has too much {name} for one file", "export fewer splits")
    return texts


def _contents(store: Store, plan: Plan) -> _Contents:
    """Every data set without records, each made when it is asked for."""
    contents: _Contents = {}
    for split in plan.splits:
        for tap in plan.spec.taps:
            contents[layout.check_path(split, tap)] = partial(_checks, store, split, tap)
        for name in COLUMNS:
            contents[column_path(split, name)] = partial(_column, store, split, name)
        for name in TABLES:
            contents[column_path(split, name)] = partial(_table, store, split, name)
    for number, tap in enumerate(plan.spec.taps):
        for name in statistics_of(plan):
            values = getattr(store.calibration(plan.spec.taps), name)
            contents[statistic_path(tap, name)] = partial(values.__getitem__, number)
    return contents


def _checks(store: Store, split: str, tap: int) -> np.ndarray:
    shards = range(layout.shard_count(store.plan.splits[split].rows, store.plan.shard_rows))
    held = [store.files.checks(split, tap, i)[: store.files.held(split, i)] for i in shards]
    return np.concatenate(held)


def _column(store: Store, split: str, name: str) -> np.ndarray:
    if name == "status":
        return store.files.status(split)
    return store.files.column(split, name, COLUMNS[name])


def _table(store: Store, split: str, name: str) -> np.ndarray:
    """Texts of one width, which end in zeros; so a text of its own zeros cannot be told."""
    samples = store.split(split).samples
    if any(sample.labels is not None for sample in samples):
        what = f"has samples of several labels in {split}"
        raise StoreError(store.path, what, "HDF5 cannot hold it; copy the store's folder instead")
    texts = [getattr(sample, name).encode() for sample in samples]
    if any(b"\0" in text for text in texts):
        what = f"has a {name} with a zero byte in {split}"
        raise StoreError(store.path, what, "HDF5 cannot hold it; copy the store's folder instead")
    width = max(1, *map(len, texts))
    if width * len(texts) > files.MAX_TABLE_BYTES:
        what = f"has {name}s too long for one file in {split}"
        raise StoreError(store.path, what, "export fewer splits, or copy the store's folder")
    return np.array(texts, dtype=f"S{width}")


def _publish(export: _Export, out: Path, *, overwrite: bool, progress: Progress) -> None:
    """Write the file aside, and give it its name when all of it is on the disk."""
    temporary = out.with_name(f".{out.name}.{files.owner_tag()}")
    with files.named(out):
        files.make_folders(out.absolute().parent, durable=True)
        for leftover in out.parent.glob(f".{glob.escape(out.name)}.*"):
            if files.tag_is_dead(leftover.name.removeprefix(f".{out.name}.")):
                system.current.unlink(leftover)
        try:
            _write(export, temporary, progress)
            if overwrite:
                system.current.rename(temporary, out)
                system.current.sync_folder(out.parent)
            elif not files.publish(temporary, out, durable=True):
                raise UsageError(out, "was written by another process", "give another file")
        finally:
            with suppress(OSError):
                system.current.unlink(temporary)


def _write(export: _Export, path: Path, progress: Progress) -> None:
    handle = system.current.create(path)
    try:
        # The end first: the library may have left room behind the last of what it laid out.
        _put(handle, export.empty.nbytes - 1, memoryview(b"\0"))
        for offset, piece in export.empty.pieces:
            _put(handle, offset, memoryview(piece))
        for name, content in export.contents.items():
            _put(handle, export.empty.offsets[name], content().view(np.uint8).data)
        done, total = 0, _payload_bytes(export.plan)
        for name, first, block in _records(export):
            _put(handle, export.empty.offsets[name] + first, block)
            done += len(block)
            progress(done, total)
        system.current.fsync(handle)
    finally:
        system.current.close(handle)


def _put(handle: int, offset: int, data: memoryview) -> None:
    os.lseek(handle, offset, os.SEEK_SET)
    files.write_all(handle, data.cast("B"))


def _records(export: _Export) -> Iterator[tuple[str, int, memoryview]]:
    """Blocks of tokens and of scales: their data set, where in it, and their bytes."""
    spec = export.plan.spec
    for split, item in export.plan.splits.items():
        for tap in spec.taps:
            for first, stop in _blocks(export.plan, 0, item.rows):
                tokens, scales = _read(export.store.split(split), (tap,), first, stop)
                data = tokens.view(np.uint8).reshape(-1).data
                yield layout.tokens_path(split, tap), first * spec.record_bytes, data
                if scales is not None:
                    data = scales.view(np.uint8).reshape(-1).data
                    yield layout.scale_path(split, tap), first * spec.scale_bytes, data


def _blocks(plan: Plan, first: int, stop: int) -> Iterator[tuple[int, int]]:
    step = max(1, BLOCK_BYTES // plan.spec.sample_bytes)
    for start in range(first, stop, step):
        yield start, min(stop, start + step)


def _read(
    reader: SplitReader, taps: tuple[int, ...], first: int, stop: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Tokens ``[k b l d]`` of neighbouring rows, and their scales ``[k b l]`` if they have any."""
    spec = reader.spec
    shape = (len(taps), stop - first, *spec.shape[1:])
    tokens = np.empty(shape, reader.raw_dtype)
    scales = np.empty(shape[:-1], layout.SCALE_DTYPE) if spec.scale_bytes else None
    reader.read_into(np.arange(first, stop), taps, tokens, scales)
    return tokens, scales


def _begin(source: H5Store, path: Path) -> None:
    """Create the store to import into, or make sure that what is there is its beginning.

    Raises:
        StoreError: the file's rows are not in the order of its plan.
        MismatchError: another store is there.
    """
    plan = source.plan
    samples = {split: source.split(split).samples for split in plan.splits}
    for split, item in plan.splits.items():
        places = row_places(item.samples, plan.views_of(split), plan.order_seed, split)
        have = source.split(split).source_index, source.split(split).views
        if not all(map(np.array_equal, places, have)):
            raise StoreError(source.path, f"has {split} in another order than its plan's", "")
    statistics = source.statistics(plan.spec.taps)
    if not path.exists():
        check_space(path, plan)
        create_store(path, plan, samples, statistics)
        return
    check_format(path)
    plan_path = path / layout.PLAN_OBJECT
    found = Plan.from_json(files.read_json(plan_path), plan_path)
    fields = list(differing_fields(plan.to_json(), found.to_json()))
    # Of another plan there are other files.
    for name, data in () if fields else skeleton_files(plan, samples, statistics):
        if name != layout.ROOT_OBJECT and files.read_file(path / name) != data:
            fields.append(name)
    if fields:
        what = "holds another store (file / store): " + ", ".join(fields[:8])
        raise MismatchError(path, what, "give another --store")


def _copy_missing(source: H5Store, writer: StoreWriter, progress: Progress) -> None:
    plan = source.plan
    total = _payload_bytes(plan)
    done = total - sum(task.rows for task in writer.tasks()) * plan.spec.sample_bytes
    is_missing = True
    while is_missing:
        for task in writer.claimed():
            _copy_shard(source, writer, task)
            done += task.rows * plan.spec.sample_bytes
            progress(done, total)
        is_missing = writer.wait_for_others()


def _copy_shard(source: H5Store, writer: StoreWriter, task: ShardTask) -> None:
    reader, taps = source.split(task.split), source.spec.taps
    with writer.shard(task) as shard:
        for first, stop in _blocks(source.plan, task.first, task.stop):
            tokens, scales = _read(reader, taps, first, stop)
            status = reader.status[first:stop]
            shard.write(list(tokens), status, None if scales is None else list(scales))
        for reason in source.skipped(task.split):
            if task.first <= reason["row"] < task.stop:
                shard.skip(**reason)


def _payload_bytes(plan: Plan) -> int:
    return sum(item.rows for item in plan.splits.values()) * plan.spec.sample_bytes


def _silent(_: int, __: int) -> None:
    """Progress that nobody asked for."""
