"""``losa plan --probe``: forward, decode and disk measured, and a small extraction extrapolated.

Forward, decode and disk are measured one by one for the bill. What an extraction takes is told by
one: the real pipeline extracts some rows into a folder beside the store's place, and the time of
each of its parts is scaled to all rows. Nothing of it stays.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Final

import torch

from losa.config import ExtractConfig
from losa.device import Compute, resolve_compute
from losa.errors import LosaError, ResourceError
from losa.extract.backbones import Backbone, model_name
from losa.extract.costing import Counts, Rates
from losa.extract.datasets import Dataset
from losa.extract.extraction import decode_pool
from losa.extract.fitting import fitted_batch
from losa.extract.planning import CPU_BATCH, MOST_BATCH, Inputs, asked_backbone, wanted_plan
from losa.extract.rehearsal import Rehearsal, rehearse
from losa.extract.weights import RANDOM, is_at_hand
from losa.store import Plan, files, layout
from losa.store.space import existing_place, free_bytes

logger = logging.getLogger(__name__)

FORWARD_SECONDS: Final = 2.5
DECODE_SECONDS: Final = 1.5
DISK_SECONDS: Final = 0.7
REHEARSAL_SECONDS: Final = 5.0
MOST_SECONDS: Final = 12.0
"""A rehearsal that would last longer, because one batch takes seconds, is left out."""

LEAST_BATCHES: Final = 4
DISK_BLOCK: Final = 16 * 2**20
MOST_DISK_BYTES: Final = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured, and how long the extraction that was asked for would take.

    ``forward_batch`` is smaller than an extraction's batch where that would have taken too long;
    ``rehearsal`` and the prediction are None where the images are not here or a batch takes
    seconds.
    """

    rates: Rates
    weights: str
    device: str
    forward_batch: int
    start_seconds: float
    rehearsal: Rehearsal | None
    predicted_seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def probe(config: ExtractConfig, dataset: Dataset | None, counts: Counts, started: float) -> Probe:
    """Measure this machine for an extraction that began ``started`` on the monotonic clock.

    Raises:
        LosaError: the backbone cannot be built, or the store's place cannot be written.
    """
    config = _with_weights(config)
    compute = resolve_compute(config.device, config.amp_dtype)
    backbone = asked_backbone(config, compute)
    start_seconds = time.monotonic() - started
    place = existing_place(config.store.absolute().parent)
    batch = _batch(config, dataset, backbone, compute)
    # From here on it is given: to find it out takes seconds, and it is not to be found out anew.
    config = config.model_copy(update={"batch_size": batch})
    inputs = None if dataset is None else Inputs(config, dataset, backbone, compute)
    forward, forward_batch, warming = forward_rate(backbone, batch)
    start_seconds += warming
    write, read = disk_rates(place)
    rates = Rates(forward=forward, write=write, read=read, free_bytes=free_bytes(place))
    found = None
    if inputs is not None:
        rates = replace(rates, decode=_decode_rate(inputs, batch))
        found = _rehearsed(inputs, rates, batch, place)
        rates = replace(rates, together=None if found is None else found.rate)
    predicted = None if found is None else start_seconds + found.seconds(counts.rows, write)
    return Probe(
        rates=rates,
        weights=backbone.weights_digest if config.weights != RANDOM else RANDOM,
        device=compute.device.type,
        forward_batch=forward_batch,
        start_seconds=start_seconds,
        rehearsal=found,
        predicted_seconds=predicted,
    )


def _with_weights(config: ExtractConfig) -> ExtractConfig:
    """The configuration, with random weights where the hub's are not here: speed is the same."""
    if config.weights is not None or is_at_hand(model_name(config.model)):
        return config
    logger.warning("--weights: those of %s are not here; random ones are as fast", config.model)
    return config.model_copy(update={"weights": RANDOM})


def _batch(
    config: ExtractConfig, dataset: Dataset | None, backbone: Backbone, compute: Compute
) -> int:
    """The batch of the extraction: that of the store it would go on with, or else as asked for."""
    stored = None if config.overwrite else _stored_batch(config.store, backbone)
    if stored is not None:
        return stored
    if config.batch_size != "auto":
        return config.batch_size
    if dataset is not None:
        # As if nothing lay in the store's place: what does is another backbone's.
        anew = config.model_copy(update={"overwrite": True})
        return wanted_plan(Inputs(anew, dataset, backbone, compute)).numerics.batch_size
    return CPU_BATCH if compute.device.type == "cpu" else fitted_batch(backbone, MOST_BATCH)


def _stored_batch(store: Path, backbone: Backbone) -> int | None:
    """The batch of a store of this backbone and this kind of device, if there is one."""
    path = store / layout.PLAN_OBJECT
    try:
        plan = Plan.from_json(files.read_json(path), path)
    except LosaError:
        return None
    is_same = plan.backbone.get("model") == backbone.name
    is_here = plan.numerics.device == backbone.device.type
    return plan.numerics.batch_size if is_same and is_here else None


def forward_rate(backbone: Backbone, batch: int) -> tuple[float, int, float]:
    """Images a second through the backbone, the batch measured, and what its first call cost."""
    pixels = torch.randint(0, 256, (batch, *backbone.preprocessing.shape), dtype=torch.uint8)
    on_device = pixels.to(backbone.device)

    def forward(images: int) -> None:
        backbone(on_device[:images])
        if backbone.device.type == "cuda":
            torch.cuda.synchronize(backbone.device)

    first = _seconds(lambda: forward(1))
    one = min(_seconds(lambda: forward(1)) for _ in range(2))
    fitting = max(1, min(batch, int(FORWARD_SECONDS / 2 / one)))
    forward(fitting)
    rate = fitting * _rate(lambda: forward(fitting), FORWARD_SECONDS)
    return rate, fitting, max(0.0, first - one)


def disk_rates(place: Path) -> tuple[float, float]:
    """Bytes a second that the disk below a folder takes, with the sync, and gives back.

    Raises:
        ResourceError: the folder cannot be written.
    """
    block = os.urandom(DISK_BLOCK)
    most = min(MOST_DISK_BYTES, free_bytes(place) // 4)
    written = 0
    try:
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            started = time.perf_counter()
            while not written or (written < most and time.perf_counter() - started < DISK_SECONDS):
                written += file.write(block)
            os.fsync(file.fileno())
            write = written / (time.perf_counter() - started)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            started = time.perf_counter()
            while file.read(DISK_BLOCK):
                pass
            read = written / (time.perf_counter() - started)
    except OSError as error:
        what = f"cannot be written ({error.strerror}), so its disk cannot be measured"
        raise ResourceError(place, what, "give another --store") from None
    return write, read


def _decode_rate(inputs: Inputs, batch: int) -> float:
    """Images a second that the extraction's own decode processes deliver, once they run."""
    dataset = inputs.dataset
    listed = next(iter(dataset.splits.values()))
    groups = (
        [dataset.media(listed[(first + i) % len(listed)]) for i in range(batch)]
        for first in count(0, batch)
    )
    with decode_pool(inputs) as pool:
        batches = pool.batches(groups, pad_to=batch)
        next(batches)
        return batch * _rate(lambda: next(batches), DECODE_SECONDS)


def _rehearsed(inputs: Inputs, rates: Rates, batch: int, place: Path) -> Rehearsal | None:
    """A small extraction of as many rows as its time allows; none where that is too few."""
    assert rates.forward is not None
    assert rates.decode is not None
    # As if decode and forward shared the cores; where they do not, the rehearsal ends earlier.
    shared = 1 / (1 / rates.forward + 1 / rates.decode)
    rows = shared * REHEARSAL_SECONDS / 2
    if inputs.compute.device.type == "cpu":
        # A CPU is about as fast with smaller batches, and time must do for several.
        batch = max(1, min(batch, int(rows / LEAST_BATCHES)))
    whole = max(LEAST_BATCHES, int(rows / batch)) * batch
    if 2 * whole / shared > MOST_SECONDS:
        logger.warning("a batch takes seconds here: nothing was rehearsed, no time is predicted")
        return None
    return rehearse(inputs, whole, batch, place, decode_rate=rates.decode)


def _rate(act: Callable[[], object], seconds: float) -> float:
    """How often a second something can be done, at least twice."""
    started, times = time.perf_counter(), 0
    while times < 2 or time.perf_counter() - started < seconds:  # noqa: PLR2004 -- one is no rate
        act()
        times += 1
    return times / (time.perf_counter() - started)


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started
