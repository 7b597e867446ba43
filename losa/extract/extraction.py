"""The extraction loop: decoded batches -> backbone -> store dtype on the device -> host -> shard.

The calling thread does nothing but feed the device; what has been computed is checked and written
by a thread behind it. What is computed depends on the plan alone, so that a resumed store equals an
uninterrupted one byte for byte.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from losa.config import ExtractConfig
from losa.errors import InputError, LockedError, StoppedError
from losa.extract.backbones import Backbone
from losa.extract.behind import Behind
from losa.extract.calibrate import Calibrator, Statistics, stored_quantiser
from losa.extract.decode import DecodePool
from losa.extract.fitting import out_of_memory
from losa.extract.fleet import Share
from losa.extract.planning import Inputs
from losa.extract.rows import RowBatch, RowSource, Skipped, none_before
from losa.extract.skipped import list_skipped
from losa.extract.spool import Spool
from losa.extract.staging import USUAL_DEPTH, EncodedBatch, Stage
from losa.extract.webdataset import without_secrets
from losa.features import Sample
from losa.store import Plan, StoreWriter, files, layout
from losa.store.claims import ShardTask
from losa.store.plan import Numerics
from losa.store.sealed import OK_STATUS
from losa.store.shardwriter import ShardWriter
from losa.store.space import check_space

MAX_AUTO_WORKERS: Final = 16


@dataclass(frozen=True, slots=True)
class ExtractEvent:
    """Rows of the store that are done, of how many, and the bytes of one row."""

    done: int
    total: int
    row_bytes: int
    phase: str = "extract"


Progress = Callable[[ExtractEvent], None]


@dataclass(frozen=True, slots=True)
class _Lane:
    """The backbone at some taps, and the way of their planes to the host."""

    backbone: Backbone
    stage: Stage


@dataclass(frozen=True, slots=True)
class _Computed:
    """One batch on its way from the device to a shard."""

    batch: RowBatch
    encoded: EncodedBatch


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
        self._rows = RowSource(inputs.dataset, plan, inputs.config.on_error, skipped)
        self._done = self._written = 0
        self._shard: ShardWriter | None = None

    def calibrate(self, spool: Spool | None = None) -> Statistics:
        """Statistics over the first rows of the calibration's split, whose planes are kept."""
        plan, backbone = self.plan, self.inputs.backbone
        split = plan.calibration_split
        rows = min(plan.calibration_rows, plan.splits[split].rows)
        calibrator = Calibrator(len(plan.spec.taps), plan.spec.channels)
        done = 0
        with self.decode_pool() as pool:
            for batch in self._rows.batches(pool, [ShardTask(split, 0, 0, rows)]):
                decoded = batch.decoded
                readable = torch.ones(len(decoded.pixels), dtype=torch.bool)
                readable[[failure.position for failure in decoded.failures]] = False
                readable[len(batch.samples) :] = False
                with out_of_memory(backbone, plan.numerics.batch_size):
                    pixels = torch.from_numpy(decoded.pixels).to(self.inputs.compute.device)
                    planes = backbone(pixels)
                count = len(batch.samples)
                absmax = torch.stack([plane[:count].float().abs().amax((1, 2)) for plane in planes])
                status = np.where(readable[:count].numpy(), OK_STATUS, 0)
                self._check_finite(plan.spec.taps, absmax.cpu().numpy(), status, batch.samples)
                calibrator.add(planes, readable)
                # What could not be read may be readable when it is written, and then is another.
                if spool is not None and not decoded.failures:
                    spool.keep(self._key(batch), planes)
                del planes
                done += len(batch.samples)
                self._tell(done, rows, "calibrate")
        return calibrator.statistics()

    def write(self, share: Share | None = None, spool: Spool | None = None) -> int:
        """Write every missing shard, or this process's share; returns the rows that it computed.

        What ``spool`` has of this store's calibration is not computed again.

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
            check_space(self.place, self.plan, self._whole_rows(writer, tasks))
            self._written = 0
            self._recount(writer)
            is_missing = True
            while is_missing:
                try:
                    self._fill(writer, share, spool)
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

    def decode_pool(self) -> DecodePool:
        """The processes that decode for this extraction."""
        asked = self.inputs.config.num_workers
        auto = max(1, min(MAX_AUTO_WORKERS, len(os.sched_getaffinity(0)) // 2))
        workers = auto if asked == "auto" else asked
        preprocessing, opened_ns = self.inputs.backbone.preprocessing, self.inputs.opened_ns
        return DecodePool(preprocessing, workers=workers, opened_ns=opened_ns)

    def _fill(self, writer: StoreWriter, share: Share, spool: Spool | None) -> None:
        """Feed the device with every missing row; a thread behind it writes what comes back.

        Claims are taken here and shards are written there, one at a time; after the first error
        there, or an interrupt here, the open shard is dropped once that thread has ended.
        """
        missing_taps, lane_at = cache(writer.missing_taps), cache(self._lane)
        with (
            self.decode_pool() as pool,
            ExitStack() as open_shard,
            Behind(partial(self._store, writer, open_shard), depth=USUAL_DEPTH - 1) as behind,
        ):
            for batch in self._rows.batches(pool, share.tasks(writer)):
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
                behind.put(_Computed(batch, encoded))
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
        plan = self.plan.with_taps(taps)
        quantiser = stored_quantiser(self.place, plan.spec)
        stage = Stage(plan, self.inputs.compute.device, quantiser)
        return _Lane(self.inputs.backbone.with_taps(taps), stage)

    def _store(self, writer: StoreWriter, open_shard: ExitStack, item: _Computed) -> None:
        """Write one batch; the shard opens with its first and is committed with its last."""
        batch = item.batch
        if self._shard is None:
            self._shard = open_shard.enter_context(writer.shard(batch.task))
        shard, count = self._shard, len(batch.samples)
        host = item.encoded.wait()
        status = np.full(count, OK_STATUS, dtype=np.uint8)
        for failure in batch.decoded.failures:
            status[failure.position] = failure.code
            key = batch.samples[failure.position].key
            shard.skip(batch.first + failure.position, key, failure.code, failure.message)
        self._check_finite(shard.taps, host.absmax[:, :count], status, batch.samples)
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

    def _check_finite(
        self,
        taps: tuple[int, ...],
        absmax: np.ndarray,
        status: np.ndarray,
        samples: Sequence[Sample],
    ) -> None:
        wrong = ~np.isfinite(absmax) & (status == OK_STATUS)
        if wrong.any():
            tap, sample = (int(index[0]) for index in np.nonzero(wrong))
            dtype = self.plan.spec.dtype
            raise InputError(
                samples[sample].path,
                f"its features at tap {taps[tap]} do not fit {dtype}",
                "use --store-dtype bfloat16 or float32, or check the weights",
            )

    def _tell(self, done: int, total: int, phase: str = "extract") -> None:
        if self._progress is not None:
            self._progress(ExtractEvent(done, total, self.plan.spec.sample_bytes, phase))


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
