"""``losa extract``: run the frozen backbone once over a data set and write its features."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from losa.config import ExtractConfig
from losa.errors import LockedError, SkippedError, UsageError
from losa.extract.decode import DecodePool
from losa.extract.extend import extend
from losa.extract.extraction import Extraction, Progress, decode_pool, report_extraction
from losa.extract.fleet import (
    ALONE,
    BEFORE,
    EXTENDING,
    SEALING,
    Place,
    Share,
    fitted_to,
    wait_for_first,
)
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
from losa.store.space import bytes_needed

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
        with StopRequest() as stop, Share(place, stop).at_once(config.store, EXTENDING):
            finish_extension(config.store)
    if config.extend:
        return extend(config, progress=progress, place=place)
    with StopRequest() as stop, ExitStack() as aside, ExitStack() as helpers:
        share = Share(place, stop, config.grace)
        with share.at_once(config.store, BEFORE):
            inputs = gather_inputs(config, processes=place.count)
            wanted = wanted_plan(inputs)
            aside.enter_context(set_aside(config.store, wanted.digest, active=config.overwrite))
            wait_for_first(config.store, place)
            found = _join(inputs, wanted) if config.store.exists() else None
            pool = helpers.enter_context(decode_pool(inputs))
            needed = bytes_needed(wanted, processes=place.count)
            spool = helpers.enter_context(Spool(config.store, needed))
            plan = found or _begin(Extraction(inputs, config.store, wanted, progress), spool, pool)
        extraction = Extraction(inputs, config.store, plan, progress)
        computed = extraction.write(share, spool, pool)
        helpers.close()
        with share.at_once(config.store, SEALING):
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


def _begin(wanted: Extraction, spool: Spool, pool: DecodePool) -> Plan:
    """Create the store, or join the one that another process made meanwhile; returns its plan."""
    path, inputs = wanted.place, wanted.inputs
    # Nobody asks for room here: it was asked for before the backbone was loaded.
    statistics = wanted.calibrate(spool, pool)
    plan = calibrated(wanted.plan, statistics)
    try:
        # Synced whatever --durability says: nothing tells later whether its labels are whole.
        create_store(path, plan, inputs.dataset.splits, statistics.arrays(plan.spec.dtype))
    except LockedError:
        logger.info("%s was created by another process meanwhile", path)
        return _join(inputs, wanted.plan)
    return plan


def _join(inputs: Inputs, wanted: Plan) -> Plan:
    """The plan of the store that is there, if it is the same."""
    path = inputs.config.store
    check_format(path)
    plan_path = path / layout.PLAN_OBJECT
    found = Plan.from_json(files.read_json(plan_path), plan_path)
    check_same_identity(path, wanted, found)
    check_numerics(inputs.config, wanted, found)
    return found
