"""``losa extract``: run the frozen backbone once over a data set and write its features."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from losa.config import ExtractConfig
from losa.errors import LockedError, SkippedError, UsageError
from losa.extract.extend import extend
from losa.extract.extraction import Extraction, Progress, report_extraction
from losa.extract.fleet import ALONE, Place, Share, fitted_to, wait_for_first
from losa.extract.overwrite import set_aside
from losa.extract.planning import (
    Inputs,
    calibrated,
    check_numerics,
    gather_inputs,
    store_place,
    wanted_plan,
)
from losa.extract.spool import Spool
from losa.interrupt import StopRequest
from losa.store import Plan, create_store, files, layout
from losa.store.extending import finish_extension
from losa.store.plan import check_same_identity
from losa.store.reader import check_format
from losa.store.space import bytes_needed, check_space

logger = logging.getLogger(__name__)


def extract(
    config: ExtractConfig, *, progress: Progress | None = None, place: Place = ALONE
) -> dict[str, Any]:
    """Extract a data set's features into a store; the same call resumes what was interrupted.

    Any number of processes may do so side by side, each in its ``place``; all end when the store
    is sealed. Returns what was done: the store's id, its splits, bytes, rows that this process
    computed now, and seconds.

    Raises:
        LosaError: any of its kinds; what was committed before stays.
    """
    started = time.monotonic()
    config = fitted_to(place, config.model_copy(update={"store": store_place(config.store)}))
    if config.extend and config.overwrite:
        raise UsageError("--extend", "does not go with --overwrite", "give one of them")
    if config.extend or not config.store.exists():
        finish_extension(config.store)
    if config.extend:
        return extend(config, progress=progress, place=place)
    inputs = gather_inputs(config)
    wanted = wanted_plan(inputs)
    with set_aside(config.store, wanted.digest, active=config.overwrite):
        wait_for_first(config.store, place)
        with Spool(config.store, bytes_needed(wanted)) as spool:
            plan = _begin_or_join(inputs, wanted, progress, spool)
            extraction = Extraction(inputs, config.store, plan, progress)
            with StopRequest() as stop:
                computed = extraction.write(Share(place, stop, config.grace), spool)
        store_id = extraction.seal()
    return report_extraction(config, plan, store_id, computed, time.monotonic() - started)


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


def _begin_or_join(inputs: Inputs, wanted: Plan, progress: Progress | None, spool: Spool) -> Plan:
    """Create the store, or join the one that is there if it is the same; returns its plan."""
    path = inputs.config.store
    if path.exists():
        return _join(inputs, wanted)
    check_space(path, wanted)
    statistics = Extraction(inputs, path, wanted, progress).calibrate(spool)
    plan = calibrated(wanted, statistics)
    try:
        # Synced whatever --durability says: nothing tells later whether its labels are whole.
        create_store(path, plan, inputs.dataset.splits, statistics.arrays(plan.spec.dtype))
    except LockedError:
        logger.info("%s was created by another process meanwhile", path)
        return _join(inputs, wanted)
    return plan


def _join(inputs: Inputs, wanted: Plan) -> Plan:
    path = inputs.config.store
    check_format(path)
    plan_path = path / layout.PLAN_OBJECT
    found = Plan.from_json(files.read_json(plan_path), plan_path)
    check_same_identity(path, wanted, found)
    check_numerics(inputs.config, wanted, found)
    return found
