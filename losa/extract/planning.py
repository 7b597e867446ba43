"""From what was asked for to a plan: data set, backbone and device are found, nothing is run."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from losa.config import ExtractConfig
from losa.device import Compute, resolve_compute
from losa.errors import UsageError
from losa.extract.augment import augment_of
from losa.extract.backbones import Backbone, BackboneRequest, build_backbone
from losa.extract.calibrate import Statistics
from losa.extract.clips.asking import asked_clip, is_of_clips
from losa.extract.datasets import Dataset, load_dataset
from losa.extract.fitting import fitted_batch
from losa.extract.preflight import preflight
from losa.features import Sample
from losa.precision import exponent_for
from losa.store import Plan, layout
from losa.store.listing import listing_digest
from losa.store.plan import VIEWED_SPLIT, Numerics, SplitPlan, check_same_numerics

logger = logging.getLogger(__name__)
CPU_BATCH: Final = 32
MOST_BATCH: Final = 1024
MAX_NAME_BYTES: Final = 180


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an extraction works with: what was asked for, the samples, a backbone, a device.

    A file of the data set that is written after ``opened_ns`` has changed under the run.
    """

    config: ExtractConfig
    dataset: Dataset
    backbone: Backbone
    compute: Compute
    opened_ns: int = field(default_factory=time.time_ns)


def gather_inputs(config: ExtractConfig, *, is_written: bool = True, processes: int = 1) -> Inputs:
    """List the data set and build the backbone; first, if a store is written, look for its room.

    ``processes`` write it.

    Raises:
        LosaError: one of them is not what the configuration says.
    """
    compute = resolve_compute(config.device, config.amp_dtype)
    dataset = load_dataset(
        config.dataset,
        config.data_dir,
        splits=config.split,
        seed=config.seed,
        is_clips=is_of_clips(config),
    )
    if is_written:
        preflight(config, dataset, processes=processes)
    return Inputs(config, dataset, asked_backbone(config, compute), compute)


def asked_backbone(config: ExtractConfig, compute: Compute) -> Backbone:
    """Build the backbone that a configuration asks for.

    Raises:
        LosaError: as :func:`build_backbone`.
    """
    request = BackboneRequest(
        config.model,
        config.weights,
        config.img_size,
        config.taps,
        config.tokens,
        config.store_dtype,
        config.compile,
        clip=asked_clip(config),
    )
    return build_backbone(request, device=compute.device, amp_dtype=compute.amp)


def wanted_plan(inputs: Inputs) -> Plan:
    """The plan that was asked for; its exponents are not known before calibration."""
    config, backbone, compute = inputs.config, inputs.backbone, inputs.compute
    clip = backbone.preprocessing.clip
    test_views = 1 if clip is None else clip.test_views
    splits = {
        name: _split_plan(listed, config.views if name == VIEWED_SPLIT else test_views)
        for name, listed in inputs.dataset.splits.items()
    }
    shard_rows, batch = config.shard_rows, config.batch_size
    if shard_rows == "auto":
        shard_rows = layout.rows_per_shard(backbone.spec.record_bytes)
    if batch == "auto":
        batch = _auto_batch(inputs, splits, shard_rows)
    return Plan(
        spec=backbone.spec,
        backbone={
            "model": backbone.name,
            "weights": backbone.weights_digest,
            "tokens": config.tokens,
        },
        preprocessing=backbone.preprocessing.to_json(),
        dataset=inputs.dataset.name,
        classes=inputs.dataset.classes,
        splits=splits,
        shard_rows=shard_rows,
        order_seed=config.seed,
        calibration_rows=config.calibration_rows,
        calibration_split="train" if "train" in splits else next(iter(splits)),
        numerics=Numerics(
            device=compute.device.type,
            autocast=None if compute.amp is None else compute.amp_dtype,
            batch_size=batch,
            compiled=config.compile,
        ),
        views=config.views,
        augment=augment_of(config.augment, config.seed) if config.views > 1 else None,
        test_views=test_views,
    )


def _split_plan(listed: Sequence[Sample], views: int) -> SplitPlan:
    return SplitPlan(len(listed), len(listed) * views, listing_digest(listed))


def calibrated(plan: Plan, statistics: Statistics) -> Plan:
    """A plan with the exponents that its taps' calibration calls for."""
    largest = statistics.absmax.max(axis=1)
    exponents = tuple(exponent_for(float(value), plan.spec.dtype) for value in largest)
    return replace(plan, exponents=exponents)


def check_numerics(config: ExtractConfig, wanted: Plan, found: Plan) -> None:
    """Refuse to compute a store's rows in another numerics class; its batch size goes first.

    Raises:
        MismatchError: the kind of device or the autocast dtype differs, or only one is compiled.
    """
    if not config.allow_mixed_numerics:
        check_same_numerics(config.store, wanted.numerics, found.numerics)
    own, asked = found.numerics.batch_size, config.batch_size
    if asked not in ("auto", own):
        logger.warning("--batch-size: %s is the store's own; %s is not used", own, asked)


def store_place(store: Path) -> Path:
    """Where the store lies, without links on the way, under a name that can carry others beside it.

    Raises:
        UsageError: no store can have that name.
    """
    try:
        path = store.resolve()
        size = 0 if path.is_symlink() else len(path.name.encode())
        str(path).encode()
    except (OSError, RuntimeError, ValueError):
        # A loop of links, a folder that cannot be entered, a name that is no text.
        path, size = store, 0
    if not 0 < size <= MAX_NAME_BYTES:
        raise UsageError("--store", f"{str(store)!r} cannot name a store", "give another name")
    return path


def _auto_batch(inputs: Inputs, splits: Mapping[str, SplitPlan], shard_rows: int) -> int:
    """The batch that is fast on this device, but none that would be padding for the most part.

    A CPU is not asked: the bytes of a store should not hang on what else it did that second. Nor
    is a device where a store is gone on with, whose batch is the one that counts.
    """
    most = min(max(split.rows for split in splits.values()), shard_rows)
    config = inputs.config
    goes_on = config.store.exists() and not config.overwrite
    if inputs.compute.device.type == "cpu" or goes_on:
        clip = inputs.backbone.preprocessing.clip
        frames = 1 if clip is None else clip.kept
        return min(max(1, CPU_BATCH // frames), most)
    return fitted_batch(inputs.backbone, min(MOST_BATCH, most))
