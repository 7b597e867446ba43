"""Writing one shard: rows stream into temporary files, which are published and committed together.

Source: docs/store-format.md, section "Commit protocol".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from jaxtyping import Float16, Shaped, UInt8

from losa.errors import ResourceError
from losa.store import files, layout, system
from losa.store.claims import Claims, ShardTask
from losa.store.crc import crc32
from losa.store.plan import Numerics, Plan
from losa.store.sealed import OK_STATUS

WRITE_BEHIND_BYTES: Final = 2**20
"""What has gathered of a shard file before the disk is asked to begin with it."""

log = logging.getLogger(__name__)
_TAKEN: Final = "shard %d of %s was taken over by another process"


@dataclass(frozen=True)
class Place:
    """Where a shard is written, by whose claim, and with which threads.

    ``given`` holds what an earlier commit record says of taps that are there already; only the
    other taps are written. ``numerics`` is how the shard is computed, where not as the plan says.
    """

    root: Path
    plan: Plan
    claims: Claims
    threads: ThreadPoolExecutor
    durable: bool
    given: Mapping[str, Any]
    numerics: Numerics | None = None

    def missing_taps(self, task: ShardTask) -> tuple[int, ...]:
        """Taps of a shard that are not there already."""
        return tuple(
            tap
            for tap in self.plan.spec.taps
            if layout.tokens_object(task.split, tap, task.shard) not in self.given
        )


class ShardWriter:
    """Takes the rows of one shard in order and commits them together.

    Payloads stream into temporary files, so memory stays at one batch whatever the shard's size.
    """

    def __init__(self, place: Place, task: ShardTask) -> None:
        plan = place.plan
        self.task = task
        self.taps = place.missing_taps(task)
        self._place = place
        self._checks = np.zeros((len(self.taps), plan.shard_rows), dtype="<u4")
        self._status = np.zeros(plan.shard_rows, dtype=np.uint8)
        self._skipped: list[dict[str, Any]] = []
        self._written = 0
        self._tokens = [
            self._stream(layout.tokens_object(task.split, tap, task.shard), plan.spec.record_bytes)
            for tap in self.taps
        ]
        self._scales = [
            self._stream(layout.scale_object(task.split, tap, task.shard), plan.spec.scale_bytes)
            for tap in self.taps
            if plan.spec.scale_bytes
        ]

    def __enter__(self) -> ShardWriter:
        try:
            with files.named(self._place.root):
                for stream in self._streams:
                    stream.open()
        except ResourceError:
            self._abandon()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with files.named(self._place.root):
                    self._commit()
        except ResourceError as error:
            # Taken for dead by another host, which has removed our temporaries: it writes now.
            is_swept = isinstance(error.__cause__, FileNotFoundError)
            if not is_swept or self._owns_the_names():
                raise
            log.warning(_TAKEN, self.task.shard, self.task.split)
        finally:
            self._abandon()

    @property
    def written(self) -> int:
        """Rows taken so far."""
        return self._written

    def write(
        self,
        planes: Sequence[Shaped[np.ndarray, "b l d"]],
        status: UInt8[np.ndarray, "b"],
        scales: Sequence[Float16[np.ndarray, "b l"]] | None = None,
    ) -> None:
        """Append the next ``b`` rows: one plane per tap in the store's dtype, and their status.

        int8 planes come with the ``scales`` of their tokens.

        Raises:
            ResourceError: the disk is full or fails.
        """
        first, stop = self._written, self._written + len(status)
        assert stop <= self.task.rows
        assert len(planes) == len(self.taps)
        assert len(scales or ()) == len(self._scales)
        # All of them end before anything else happens to the files, whatever one of them met.
        self._together(
            lambda tap: self._write_tap(tap, planes[tap], scales[tap] if scales else None)
        )
        self._status[first:stop] = status
        self._written = stop

    def skip(self, row: int, key: str, code: int, message: str) -> None:
        """Record why a row holds no features; its status must be ``code``."""
        self._skipped.append({"row": row, "key": key, "code": code, "message": message})

    def _together(self, act: Callable[[int], None]) -> None:
        """Do something for every tap at once; raises only when all of it has ended."""
        acts = [self._place.threads.submit(act, tap) for tap in range(len(self.taps))]
        wait(acts)
        with files.named(self._place.root):
            for done in acts:
                done.result()

    def _write_tap(
        self,
        tap: int,
        plane: Shaped[np.ndarray, "b l d"],
        scale: Float16[np.ndarray, "b l"] | None,
    ) -> None:
        checks = self._tokens[tap].append(plane, [0] * len(plane))
        if scale is not None:
            checks = self._scales[tap].append(scale, checks)
        self._checks[tap, self._written : self._written + len(plane)] = checks

    def _commit(self) -> None:
        task, place = self.task, self._place
        assert self._written == task.rows
        objects: dict[str, Any] = dict(place.given)
        self._together(self._publish_tap)
        for number, tap in enumerate(self.taps):
            checks = self._checks[number].tobytes()
            facts = {"checks": files.sha256(checks)}
            for stream in self._of_tap(number):
                objects[stream.name] = {"bytes": stream.nbytes(task.rows), **facts}
            name = layout.check_object(task.split, tap, task.shard)
            objects[name] = self._publish_small(name, checks)
        name = layout.status_object(task.split, task.shard)
        objects[name] = self._publish_small(name, self._status.tobytes())
        record = {
            "split": task.split,
            "shard": task.shard,
            "rows": [task.first, task.stop],
            "ok": int((self._status[: task.rows] == OK_STATUS).sum()),
            "skipped": self._skipped,
            "objects": objects,
        }
        if place.numerics is not None:
            record["numerics"] = place.numerics.to_json()
        self._publish_record(files.canonical_json(record))

    def _publish_record(self, data: bytes) -> None:
        """The record last: its presence is what says that every file before it is whole.

        It is written before it is asked whether the claim is still held: whoever takes a claim over
        removes our temporaries first and then looks for a record, so of the two only one goes on.
        """
        task, place = self.task, self._place
        scratch = place.root / layout.TMP_FOLDER
        record = files.write_temporary(scratch, data, durable=place.durable)
        if place.claims.holds(task):
            commit = place.root / layout.commit_object(task.split, task.shard)
            files.publish(record, commit, durable=place.durable)
        else:
            system.current.unlink(record)
            log.warning(_TAKEN, task.shard, task.split)

    def _publish_tap(self, number: int) -> None:
        for stream in self._of_tap(number):
            stream.finish(self.task.rows)
            self._settle(stream.path, stream.name)

    def _publish_small(self, name: str, data: bytes) -> dict[str, Any]:
        scratch = self._place.root / layout.TMP_FOLDER
        self._settle(files.write_temporary(scratch, data, durable=self._place.durable), name)
        return {"bytes": len(data), "sha256": files.sha256(data)}

    def _settle(self, temporary: Path, name: str) -> None:
        target = self._place.root / name
        files.settle(
            temporary, target, durable=self._place.durable, may_replace=self._owns_the_names
        )

    def _owns_the_names(self) -> bool:
        """Whether what lies at this shard's names is nobody's: no commit record, and our claim."""
        commit = layout.commit_object(self.task.split, self.task.shard)
        is_committed = (self._place.root / commit).exists()
        return not is_committed and self._place.claims.holds(self.task)

    @property
    def _streams(self) -> list[_Stream]:
        return [*self._tokens, *self._scales]

    def _of_tap(self, number: int) -> list[_Stream]:
        return [streams[number] for streams in (self._tokens, self._scales) if streams]

    def _stream(self, name: str, record_bytes: int) -> _Stream:
        return _Stream(
            name,
            self._place.root / layout.TMP_FOLDER / files.owner_tag(),
            record_bytes,
            self._place.plan.shard_rows,
            durable=self._place.durable,
        )

    def _abandon(self) -> None:
        for stream in self._streams:
            stream.abandon()
        self._place.claims.release(self.task)


class _Stream:
    """One shard file in the making: records one after another, then the index."""

    def __init__(
        self, name: str, path: Path, record_bytes: int, shard_rows: int, *, durable: bool
    ) -> None:
        self.name = name
        self.path = path
        self._record_bytes = record_bytes
        self._shard_rows = shard_rows
        self._durable = durable
        self._handle: int | None = None
        self._size = self._begun = 0

    def open(self) -> None:
        self._handle = system.current.create(self.path)

    def nbytes(self, rows: int) -> int:
        """Size of the whole file."""
        return layout.shard_file_bytes(rows, self._shard_rows, self._record_bytes)

    def append(self, records: Shaped[np.ndarray, "b ..."], checks: Sequence[int]) -> list[int]:
        """Write records, and carry their checksums on over their bytes."""
        assert self._handle is not None
        data = np.ascontiguousarray(records).view(np.uint8).reshape(-1).data
        size = self._record_bytes
        assert len(data) == len(records) * size
        files.write_all(self._handle, data)
        self._size += len(data)
        if self._durable and self._size - self._begun >= WRITE_BEHIND_BYTES:
            # The disk works while the next rows are computed and summed up.
            system.current.begin_sync(self._handle, self._begun, self._size - self._begun)
            self._begun = self._size
        return [
            crc32(data[start : start + size], check)
            for start, check in zip(range(0, len(data), size), checks, strict=True)
        ]

    def finish(self, rows: int) -> None:
        """Write the index behind the last record, sync, and close: any of these may fail."""
        assert self._handle is not None
        index = layout.shard_index(rows, self._shard_rows, self._record_bytes)
        files.write_all(self._handle, memoryview(index))
        if self._durable:
            system.current.fsync(self._handle)
        self._close()

    def abandon(self) -> None:
        """Close the file, and remove it if it was not published."""
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            system.current.unlink(self.path)

    def _close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            system.current.close(handle)
