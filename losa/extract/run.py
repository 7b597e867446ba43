"""``losa extract``: run the frozen backbone once over a data set and write its features.

The flow: decoded batches of fixed shape -> backbone -> store dtype on the device -> host -> shard.
A batch is written while the next one is computed, and shapes never depend on interruption or on a
neighbour that cannot be read, so that a resumed store equals an uninterrupted one byte for byte.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from losa.config import ExtractConfig
from losa.device import Compute, resolve_compute
from losa.errors import InputError, SkippedError, UsageError
from losa.extract.backbones import Backbone, BackboneRequest, build_backbone
from losa.extract.calibrate import Calibrator, Statistics, stored_quantiser
from losa.extract.datasets import Dataset, listing_digest, load_dataset
from losa.extract.decode import DecodedBatch, DecodePool
from losa.extract.overwrite import set_aside
from losa.extract.staging import EncodedBatch, Stage
from losa.features import Sample
from losa.precision import exponent_for
from losa.store import Plan, StoreWriter, create_store, files, layout
from losa.store.claims import ShardTask
from losa.store.order import row_order
from losa.store.plan import Numerics, SplitPlan, check_same_identity, check_same_numerics
from losa.store.reader import check_format
from losa.store.sealed import OK_STATUS
from losa.store.shardwriter import ShardWriter
from losa.store.space import check_space

logger = logging.getLogger(__name__)
AUTO_BATCH: Final = {"cpu": 32, "cuda": 64}
MAX_AUTO_WORKERS: Final = 16
MAX_NAME_BYTES: Final = 180


@dataclass(frozen=True, slots=True)
class ExtractEvent:
    """Rows of the store that are done, of how many, and the bytes of one row."""

    done: int
    total: int
    row_bytes: int
    phase: str = "extract"


Progress = Callable[[ExtractEvent], None]


def extract(config: ExtractConfig, *, progress: Progress | None = None) -> dict[str, Any]:
    """Extract a data set's features into a store; the same call resumes what was interrupted.

    Returns what was done: the store's id, its splits, bytes, rows computed now, and seconds.

    Raises:
        LosaError: any of its kinds; what was committed before stays.
    """
    started = time.monotonic()
    config = config.model_copy(update={"store": _place(config.store)})
    compute = resolve_compute(config.device, config.amp_dtype)
    dataset = load_dataset(config.dataset, config.data_dir, splits=config.split, seed=config.seed)
    request = BackboneRequest(
        config.model,
        config.weights,
        config.img_size,
        config.taps,
        config.tokens,
        config.store_dtype,
    )
    backbone = build_backbone(request, device=compute.device, amp_dtype=compute.amp)
    job = _Job(config, dataset, backbone, compute, progress or _silent)
    with set_aside(config.store, job.plan.digest, active=config.overwrite):
        job.open()
        computed = job.write()
        store_id = job.seal()
    return job.report(store_id, computed, time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class _Computed:
    """One batch on its way from the device to a shard."""

    task: ShardTask
    batch: DecodedBatch
    samples: Sequence[Sample]
    encoded: EncodedBatch


def check_skips(config: ExtractConfig, result: Mapping[str, Any]) -> None:
    """Say that an extraction skipped more samples than allowed; all that could be written is.

    Raises:
        SkippedError: the share is above ``--max-skip``.
    """
    rows = sum(split["rows"] for split in result["splits"].values())
    if result["skipped"] > config.max_skip * rows:
        raise SkippedError(
            result["store"],
            f"{result['skipped']} of {rows} samples were skipped, more than --max-skip allows",
            "the store is sealed; its commit records say which and why, or raise --max-skip",
        )


class _Job:
    """One extraction: the plan asked for, the store on disk, and the loop between them."""

    def __init__(
        self,
        config: ExtractConfig,
        dataset: Dataset,
        backbone: Backbone,
        compute: Compute,
        progress: Progress,
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.backbone = backbone
        self.device = compute.device
        self.compute = compute
        self.progress = progress
        self.plan = self._wanted()
        self.durable = config.durability == "full"
        self._order = cache(row_order)
        self._done = 0
        self._shard: ShardWriter | None = None

    def open(self) -> None:
        """Create the store, or join the one that is there if it is the same."""
        path = self.config.store
        if not path.exists():
            check_space(path, self.plan)
            statistics = self._calibrate()
            self.plan = _with_exponents(self.plan, statistics)
            # Synced whatever --durability says: nothing tells later whether its labels are whole.
            arrays = statistics.arrays(self.plan.spec.dtype)
            create_store(path, self.plan, self.dataset.splits, arrays)
            return
        check_format(path)
        plan_path = path / layout.PLAN_OBJECT
        found = Plan.from_json(files.read_json(plan_path), plan_path)
        check_same_identity(path, self.plan, found)
        if not self.config.allow_mixed_numerics:
            check_same_numerics(path, self.plan.numerics, found.numerics)
        asked = self.config.batch_size
        if asked not in ("auto", found.numerics.batch_size):
            logger.warning(
                "--batch-size: %s is the store's own; %s is not used",
                found.numerics.batch_size,
                asked,
            )
        self.plan = found

    def write(self) -> int:
        """Write every missing shard; returns the rows that were computed."""
        with StoreWriter(self.config.store, durable=self.durable) as writer:
            if writer.is_sealed:
                return 0
            writer.withdraw_damaged()
            tasks = writer.tasks()
            check_space(self.config.store, self.plan, sum(task.rows for task in tasks))
            total = sum(split.rows for split in self.plan.splits.values())
            before = total - sum(task.rows for task in tasks)
            self._done = before
            self._tell(total)
            with self._pool() as pool, ExitStack() as open_shard:
                for finished in self._computed(pool, writer.claimed()):
                    self._store(writer, open_shard, finished)
                    self._tell(total)
            return self._done - before

    def seal(self) -> str:
        """Seal the store, or return the id it was sealed with."""
        with StoreWriter(self.config.store, durable=self.durable) as writer:
            return writer.seal()

    def report(self, store_id: str, computed: int, seconds: float) -> dict[str, Any]:
        """What was done, as the command prints it; kept beside the store if rows were computed."""
        path = self.config.store
        sealed = files.read_json(path / layout.SEALED_OBJECT)["splits"]
        splits = {
            name: {key: facts[key] for key in ("rows", "ok", "shards")}
            for name, facts in sealed.items()
        }
        rows = sum(split["rows"] for split in splits.values())
        skipped = rows - sum(split["ok"] for split in splits.values())
        result = {
            "store": str(path),
            "store_id": store_id,
            "splits": splits,
            "skipped": skipped,
            "bytes": rows * self.plan.spec.sample_bytes,
            "computed_rows": computed,
            "seconds": round(seconds, 3),
            "samples_per_second": round(computed / seconds, 2) if computed else None,
            "numerics": self.plan.numerics.to_json(),
        }
        if computed:
            beside = path.with_name(f"{path.name}.extract.json")
            record = {"config": self.config.model_dump(mode="json"), "result": result}
            files.write_atomic(beside, files.canonical_json(record), durable=self.durable)
        return result

    def _wanted(self) -> Plan:
        config, backbone = self.config, self.backbone
        spec = backbone.spec
        batch = config.batch_size
        splits = {
            name: SplitPlan(len(listed), len(listed), listing_digest(listed))
            for name, listed in self.dataset.splits.items()
        }
        shard_rows = config.shard_rows
        if shard_rows == "auto":
            shard_rows = layout.rows_per_shard(spec.record_bytes)
        numerics = Numerics(
            device=self.device.type,
            autocast=None if self.compute.amp is None else self.compute.amp_dtype,
            batch_size=_auto_batch(self.device, splits, shard_rows) if batch == "auto" else batch,
        )
        return Plan(
            spec=spec,
            backbone={
                "model": backbone.name,
                "weights": backbone.weights_digest,
                "tokens": config.tokens,
            },
            preprocessing=backbone.preprocessing.to_json(),
            dataset=self.dataset.name,
            classes=self.dataset.classes,
            splits=splits,
            shard_rows=shard_rows,
            order_seed=config.seed,
            calibration_rows=config.calibration_rows,
            numerics=numerics,
        )

    def _pool(self) -> DecodePool:
        asked = self.config.num_workers
        auto = max(1, min(MAX_AUTO_WORKERS, len(os.sched_getaffinity(0)) // 2))
        workers = auto if asked == "auto" else asked
        return DecodePool(self.backbone.preprocessing, workers=workers)

    def _calibrate(self) -> Statistics:
        """Statistics over the first rows of the train split, or of the first split there is."""
        split = "train" if "train" in self.plan.splits else next(iter(self.plan.splits))
        rows = min(self.config.calibration_rows, self.plan.splits[split].rows)
        calibrator = Calibrator(len(self.plan.spec.taps), self.plan.spec.channels)
        done = 0
        with self._pool() as pool:
            for _, batch, samples in self._decoded(pool, [ShardTask(split, 0, 0, rows)]):
                readable = torch.ones(len(batch.pixels), dtype=torch.bool)
                readable[[failure.position for failure in batch.failures]] = False
                readable[len(samples) :] = False
                planes = self.backbone(torch.from_numpy(batch.pixels).to(self.device))
                calibrator.add(planes, readable)
                done += len(samples)
                self.progress(ExtractEvent(done, rows, self.plan.spec.sample_bytes, "calibrate"))
        return calibrator.statistics()

    def _computed(self, pool: DecodePool, tasks: Iterable[ShardTask]) -> Iterator[_Computed]:
        """Every batch with its planes; the device works one batch ahead of the disk."""
        quantiser = stored_quantiser(self.config.store, self.plan.spec)
        stage = Stage(self.plan, self.device, quantiser)
        waiting: _Computed | None = None
        for task, batch, samples in self._decoded(pool, tasks):
            encoded = stage.encode(self.backbone(stage.upload(batch.pixels)))
            if waiting is not None:
                yield waiting
            waiting = _Computed(task, batch, samples, encoded)
        if waiting is not None:
            yield waiting

    def _store(self, writer: StoreWriter, open_shard: ExitStack, item: _Computed) -> None:
        """Write one batch; the shard opens with its first and is committed with its last."""
        if self._shard is None:
            self._shard = open_shard.enter_context(writer.shard(item.task))
        shard, count = self._shard, len(item.samples)
        row = item.task.first + shard.written
        host = item.encoded.wait()
        status = np.full(count, OK_STATUS, dtype=np.uint8)
        for failure in item.batch.failures:
            status[failure.position] = failure.code
            key = item.samples[failure.position].key
            shard.skip(row + failure.position, key, failure.code, failure.message)
        self._check_finite(host.absmax[:, :count], status, item.samples)
        for array in (*host.planes, *(host.scales or ())):
            array[:count][status != OK_STATUS] = 0
        scales = None if host.scales is None else [scale[:count] for scale in host.scales]
        shard.write([plane[:count] for plane in host.planes], status, scales)
        self._done += count
        if shard.written == item.task.rows:
            self._shard = None
            open_shard.close()

    def _check_finite(
        self, absmax: np.ndarray, status: np.ndarray, samples: Sequence[Sample]
    ) -> None:
        wrong = ~np.isfinite(absmax) & (status == OK_STATUS)
        if wrong.any():
            tap, sample = (int(index[0]) for index in np.nonzero(wrong))
            spec = self.plan.spec
            raise InputError(
                samples[sample].path,
                f"its features at tap {spec.taps[tap]} do not fit {spec.dtype}",
                "use --store-dtype bfloat16 or float32, or check the weights",
            )

    def _decoded(
        self, pool: DecodePool, tasks: Iterable[ShardTask]
    ) -> Iterator[tuple[ShardTask, DecodedBatch, Sequence[Sample]]]:
        """Batches at fixed offsets inside each shard, each padded to the plan's batch size."""
        size = self.plan.numerics.batch_size
        root = self.dataset.root
        ahead: deque[tuple[ShardTask, Sequence[Sample]]] = deque()

        def paths() -> Iterator[list[Path]]:
            for task in tasks:
                listed = self.dataset.splits[task.split]
                order = self._order(len(listed), self.plan.order_seed, task.split)
                for first in range(task.first, task.stop, size):
                    rows = order[first : min(first + size, task.stop)].tolist()
                    group = [listed[index] for index in rows]
                    ahead.append((task, group))
                    yield [root / sample.path for sample in group]

        for batch in pool.batches(paths(), pad_to=size):
            task, group = ahead.popleft()
            if batch.failures and self.config.on_error == "fail":
                failure = batch.failures[0]
                path, todo = root / group[failure.position].path, "or use --on-error skip"
                raise InputError(path, failure.message, f"mend or remove it, {todo}")
            yield task, batch, group

    def _tell(self, total: int) -> None:
        self.progress(ExtractEvent(self._done, total, self.plan.spec.sample_bytes))


def _place(store: Path) -> Path:
    """Where the store lies, without links on the way, under a name that can carry others beside it.

    Raises:
        UsageError: no store can have that name.
    """
    path = store.resolve()
    try:
        size = len(path.name.encode())
        str(path).encode()
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= MAX_NAME_BYTES:
        raise UsageError("--store", f"{str(store)!r} cannot name a store", "give another name")
    return path


def _auto_batch(device: torch.device, splits: Mapping[str, SplitPlan], shard_rows: int) -> int:
    """The usual batch, but none that would be padding for the most part."""
    largest = max(split.rows for split in splits.values())
    return min(AUTO_BATCH[device.type], shard_rows, largest)


def _with_exponents(plan: Plan, statistics: Statistics) -> Plan:
    absmax = statistics.absmax.max(axis=1)
    return replace(
        plan, exponents=tuple(exponent_for(float(value), plan.spec.dtype) for value in absmax)
    )


def _silent(_: ExtractEvent) -> None:
    """Tell nobody."""
