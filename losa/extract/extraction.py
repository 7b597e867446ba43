"""The extraction loop: decoded batches -> backbone -> store dtype on the device -> host -> shard.

The calling thread does nothing but feed the device; what has been computed is checked and written
by a thread behind it. What is computed depends on the plan alone, so that a resumed store equals an
uninterrupted one byte for byte.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from losa.config import ExtractConfig
from losa.errors import LockedError, StoppedError
from losa.extract.backbones import Backbone
from losa.extract.behind import Behind
from losa.extract.calibrate import Calibrator, Statistics, stored_quantiser
from losa.extract.decode import DecodePool
from losa.extract.fitting import out_of_memory
from losa.extract.fleet import Share
from losa.extract.nonfinite import TODO, TODO_STORED, Misfits
from losa.extract.planning import Inputs
from losa.extract.rows import RowBatch, RowSource, Skipped, none_before
from losa.extract.skipped import list_skipped
from losa.extract.spool import Spool, calibration_tasks
from losa.extract.staging import USUAL_DEPTH, EncodedBatch, Stage
from losa.extract.webdataset import without_secrets
from losa.store import Plan, StoreWriter, files, layout
from losa.store.claims import ShardTask
from losa.store.plan import Numerics
from losa.store.sealed import OK_STATUS
from losa.store.shardwriter import ShardWriter
from losa.store.space import check_space

MAX_AUTO_WORKERS: Final = 16


@dataclass(frozen=True, slots=True)
class ExtractEvent:
    """Rows of the store that are done, of how many, and the bytes of one row, 0 for none to tell.

    ``unit`` says what is counted where that is no samples.
    """

    done: int
    total: int
    row_bytes: int
    phase: str = "extract"
    unit: str = "samples"


Progress = Callable[[ExtractEvent], None]


@dataclass(frozen=True, slots=True)
class _Lane:
    """The backbone at some taps, the way of their planes to the host, and who judges them there."""

    backbone: Backbone
    stage: Stage
    misfits: Misfits


@dataclass(frozen=True, slots=True)
class _Computed:
    """One batch on its way from the device to a shard."""

    batch: RowBatch
    encoded: EncodedBatch
    misfits: Misfits


class Extraction:
    """Computes what a store lacks.

    Args:
        inputs: backbone, data set and device of this plan, and how to work.
        place: the store to write.
        plan: its plan.
        progress: told how far it is.
        skipped: which rows hold no features in splits that have some already.
    """

    def __init__(
        self,
        inputs: Inputs,
        place: Path,
        plan: Plan,
        progress: Progress | None = None,
        skipped: Skipped = none_before,
    ) -> None:
        self.inputs = inputs
        self.place = place
        self.plan = plan
        self.durable = inputs.config.durability == "full"
        self._progress = progress
        self._skipped = skipped
        self._rows = RowSource(inputs.dataset, plan, inputs.config.on_error, skipped)
        self._done = self._written = 0
        self._shard: ShardWriter | None = None

    def calibrate(self, spool: Spool | None = None, pool: DecodePool | None = None) -> Statistics:
        """Statistics over the first rows of the calibration's split, whose planes are kept."""
        plan, backbone = self.plan, self.inputs.backbone
        calibrator = Calibrator(len(plan.spec.taps), plan.spec.channels)
        misfits = Misfits(plan, backbone, self._todo)
        tasks = calibration_tasks(plan)
        done = 0
        with self._decoding(pool) as decoding:
            for batch in self._rows.batches(decoding, tasks):
                with out_of_memory(backbone, plan.numerics.batch_size):
                    pixels = torch.from_numpy(batch.decoded.pixels).to(self.inputs.compute.device)
                    planes = backbone(pixels)
                    failures = [*batch.decoded.failures, *misfits.of_planes(batch, planes)]
                    usable = torch.arange(len(pixels)) < len(batch.samples)
                    usable[[failure.position for failure in failures]] = False
                    calibrator.add(planes, usable)
                # What could not be read may be readable when it is written, and then is another.
                if spool is not None and not failures:
                    spool.keep(self._key(batch), planes)
                del planes, pixels
                done += len(batch.samples)
                self._tell(done, tasks[-1].stop, "calibrate")
        return calibrator.statistics()

    def write(
        self,
        share: Share | None = None,
        spool: Spool | None = None,
        pool: DecodePool | None = None,
    ) -> int:
        """Write every missing shard, or this process's share; returns the rows that it computed.

        What ``spool`` has of this store's calibration is not computed again. What decodes is
        ``pool``, or else is started for this alone.

        Raises:
            StoppedError: this process was asked to end.
        """
        share = share or Share()
        with StoreWriter(self.place, durable=self.durable, numerics=self._numerics()) as writer:
            if writer.plan.identity != self.plan.identity:
                what = "was replaced by another store just now"
                raise LockedError(self.place, what, "run the same command again")
            if writer.is_sealed:
                writer.check_whole()
                return 0
            writer.withdraw_damaged()
            tasks = writer.tasks()
            # Not only before the backbone was loaded: what is missing is known here alone.
            rows = self._whole_rows(writer, tasks)
            check_space(self.place, self.plan, rows, share.processes)
            self._written = 0
            self._recount(writer)
            is_missing = True
            while is_missing:
                try:
                    self._fill(writer, share, spool, pool)
                except StoppedError:
                    # Only now do the rows count: what was queued has been written or dropped.
                    raise share.stopped(writer) from None
                # Not before: what this process still has in its hands, others may wait for.
                is_missing = share.wait(writer, lambda: self._recount(writer))
            self._recount(writer)
            return self._written

    def seal(self) -> str:
        """Seal the store, or return the id it was sealed with.

        Synced whatever ``--durability`` says: what is sealed is said to be whole.
        """
        with StoreWriter(self.place) as writer:
            return writer.seal()

    def _numerics(self) -> Numerics:
        """How this process computes; the batch is the store's."""
        compute = self.inputs.compute
        autocast = None if compute.amp is None else compute.amp_dtype
        batch_size, compiled = self.plan.numerics.batch_size, self.inputs.config.compile
        return Numerics(compute.device.type, autocast, batch_size, compiled)

    def _whole_rows(self, writer: StoreWriter, tasks: Sequence[ShardTask]) -> int:
        """Rows with all taps that take as many bytes as what is missing."""
        planes = sum(task.rows * len(writer.missing_taps(task)) for task in tasks)
        return math.ceil(planes / len(self.plan.spec.taps))

    @contextmanager
    def _decoding(self, pool: DecodePool | None) -> Iterator[DecodePool]:
        """The processes that decode: those there are, or others that end with the block."""
        if pool is not None:
            yield pool
            return
        with decode_pool(self.inputs) as own:
            yield own

    def _todo(self, split: str) -> str | None:
        """What to do about features of a split that do not fit; None: skip them."""
        if self._skipped(split) is not None:
            return TODO_STORED
        return None if self.inputs.config.on_nonfinite == "skip" else TODO

    def _fill(
        self, writer: StoreWriter, share: Share, spool: Spool | None, pool: DecodePool | None
    ) -> None:
        """Feed the device with every missing row; a thread behind it writes what comes back.

        Claims are taken here and shards are written there, one at a time; after the first error
        there, or an interrupt here, the open shard is dropped once that thread has ended.
        """
        missing_taps, lane_at = cache(writer.missing_taps), cache(self._lane)
        with (
            self._decoding(pool) as decoding,
            ExitStack() as open_shard,
            Behind(partial(self._store, writer, open_shard), depth=USUAL_DEPTH - 1) as behind,
        ):
            for batch in self._rows.batches(decoding, share.tasks(writer)):
                if share.ends_before(writer, batch.task, batch.first):
                    break
                lane = lane_at(missing_taps(batch.task))
                with out_of_memory(lane.backbone, self.plan.numerics.batch_size):
                    planes = self._kept(spool, lane, batch)
                    if planes is None:
                        planes = lane.backbone(lane.stage.upload(batch.decoded.pixels))
                    # Before the copies begin: they take the buffers of a batch that is written.
                    behind.reserve()
                    encoded = lane.stage.encode(planes)
                behind.put(_Computed(batch, encoded, lane.misfits))
                del planes, encoded  # or they would be there during the next forward
                self._tell(self._done, self._total)

    def _kept(self, spool: Spool | None, lane: _Lane, batch: RowBatch) -> list[Tensor] | None:
        """What calibration has computed of a batch, if that was kept and is all its taps."""
        is_other = lane.backbone.spec.taps != self.plan.spec.taps or batch.decoded.failures
        if spool is None or is_other:
            return None
        return spool.take(self._key(batch), self.inputs.compute.device)

    def _key(self, batch: RowBatch) -> tuple[str, int, int, int]:
        stop = batch.first + len(batch.samples)
        return batch.task.split, batch.first, stop, self.plan.numerics.batch_size

    @property
    def _total(self) -> int:
        return sum(split.rows for split in self.plan.splits.values())

    def _recount(self, writer: StoreWriter) -> None:
        """Tell how far the store is, whoever wrote it."""
        self._done = self._total - sum(task.rows for task in writer.tasks())
        self._tell(self._done, self._total)

    def _lane(self, taps: tuple[int, ...]) -> _Lane:
        plan, backbone = self.plan.with_taps(taps), self.inputs.backbone.with_taps(taps)
        quantiser = stored_quantiser(self.place, plan.spec)
        stage = Stage(plan, self.inputs.compute.device, quantiser)
        return _Lane(backbone, stage, Misfits(plan, backbone, self._todo, quantiser))

    def _store(self, writer: StoreWriter, open_shard: ExitStack, item: _Computed) -> None:
        """Write one batch; the shard opens with its first and is committed with its last."""
        batch = item.batch
        if self._shard is None:
            self._shard = open_shard.enter_context(writer.shard(batch.task))
        shard, count = self._shard, len(batch.samples)
        host = item.encoded.wait()
        status = np.full(count, OK_STATUS, dtype=np.uint8)
        with out_of_memory(self.inputs.backbone, self.plan.numerics.batch_size):
            failures = [*batch.decoded.failures, *item.misfits.of_stored(batch, host)]
        for failure in sorted(failures, key=attrgetter("position")):
            status[failure.position] = failure.code
            key = batch.samples[failure.position].key
            shard.skip(batch.first + failure.position, key, failure.code, failure.message)
        for array in (*host.planes, *(host.scales or ())):
            array[:count][status != OK_STATUS] = 0
        scales = None if host.scales is None else [scale[:count] for scale in host.scales]
        shard.write([plane[:count] for plane in host.planes], status, scales)
        self._written += count
        self._done += count
        if shard.written == batch.task.rows:
            self._shard = None
            open_shard.close()
            self._done = self._total - sum(task.rows for task in writer.tasks())

    def _tell(self, done: int, total: int, phase: str = "extract") -> None:
        if self._progress is not None:
            self._progress(ExtractEvent(done, total, self.plan.spec.sample_bytes, phase))


def decode_pool(inputs: Inputs) -> DecodePool:
    """The processes that decode for an extraction; none has started before it is needed."""
    asked = inputs.config.num_workers
    auto = max(1, min(MAX_AUTO_WORKERS, len(os.sched_getaffinity(0)) // 2))
    workers = auto if asked == "auto" else asked
    preprocessing, opened_ns = inputs.backbone.preprocessing, inputs.opened_ns
    return DecodePool(preprocessing, workers=workers, opened_ns=opened_ns)


def report_extraction(
    config: ExtractConfig, plan: Plan, store_id: str, computed: int, seconds: float
) -> dict[str, Any]:
    """What was done, as the command prints it; kept beside the store if rows were computed."""
    path = config.store
    sealed = files.read_json(path / layout.SEALED_OBJECT)["splits"]
    splits = {
        name: {key: facts[key] for key in ("rows", "ok", "shards")}
        for name, facts in sealed.items()
    }
    rows = sum(split["rows"] for split in splits.values())
    skipped = rows - sum(split["ok"] for split in splits.values())
    durable = config.durability == "full"
    listed = list_skipped(path, durable=durable)
    result = {
        "store": str(path),
        "store_id": store_id,
        "splits": splits,
        "skipped": skipped,
        "skipped_csv": None if listed is None else str(listed),
        "bytes": rows * plan.spec.sample_bytes,
        "computed_rows": computed,
        "seconds": round(seconds, 3),
        "samples_per_second": round(computed / seconds, 2) if computed else None,
        "numerics": plan.numerics.to_json(),
    }
    if computed:
        beside = path.with_name(f"{path.name}.extract.json")
        asked = config.model_dump(mode="json")
        kind, colon, rest = config.dataset.partition(":")
        if kind == "wds":
            asked["dataset"] = kind + colon + without_secrets(rest)
        record = {"config": asked, "result": result}
        files.write_atomic(beside, files.canonical_json(record), durable=durable)
    return result
