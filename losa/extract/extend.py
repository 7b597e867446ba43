"""``losa extract --extend``: more splits or taps for a sealed store, and nothing computed twice."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from losa.config import ExtractConfig
from losa.errors import LockedError, MismatchError, ResourceError, StoreError
from losa.extract.clips.asking import flags_of
from losa.extract.decode import DecodePool
from losa.extract.extraction import Extraction, Progress, decode_pool, report_extraction
from losa.extract.fleet import ALONE, BEFORE, SEALING, Place, Share
from losa.extract.planning import (
    Inputs,
    calibrated,
    check_numerics,
    gather_inputs,
    wanted_plan,
)
from losa.extract.rows import Skipped
from losa.extract.sampling import ClipSampling
from losa.interrupt import StopRequest
from losa.store import Plan, Store, files, layout, open_store
from losa.store.extending import (
    begin_extension,
    begun_extension,
    extension_of,
    finish_extension,
    finished_extension,
)
from losa.store.plan import check_extends
from losa.store.reader import check_format
from losa.store.skeleton import statistics_of

FINISH_SECONDS: Final = 30.0
"""How long others may still look at an extension that is sealed; they look every second."""

logger = logging.getLogger(__name__)


def extend(
    config: ExtractConfig, *, progress: Progress | None = None, place: Place = ALONE
) -> dict[str, Any]:
    """Add splits or taps to a sealed store; the same call resumes what was interrupted.

    What a configuration does not set is as the store has it. The old store can be read until the
    larger one takes its place.

    Raises:
        StoreError: there is no sealed store.
        MismatchError: something other than taps and splits is not as the store has it.
        LosaError: as extraction.
    """
    started = time.monotonic()
    with StopRequest() as stop:
        share = Share(place, stop, config.grace)
        with share.at_once(config.store, BEFORE):
            old = _sealed_store(config.store)
            inputs = _with_stored_taps(gather_inputs(_as_stored(config, old.plan)), old)
            plan = _extended_plan(inputs, old)
        if plan is old.plan:
            logger.warning("%s has these taps and splits already: nothing to add", old.path)
            store_id, computed = old.store_id, 0
        else:
            plan, store_id, computed = _grow(inputs, plan, old, progress, share)
    seconds = time.monotonic() - started
    return report_extraction(inputs.config, plan, store_id, computed, seconds)


def _grow(
    inputs: Inputs, wanted: Plan, old: Store, progress: Progress | None, share: Share
) -> tuple[Plan, str, int]:
    """Write the larger store and put it in its place; returns its plan, its id, rows computed.

    That another process, which does the same, is the first to put it there is as good.
    """
    computed = 0
    try:
        with decode_pool(inputs) as pool:
            with share.at_once(old.path, BEFORE):
                begun = begun_extension(old.path, wanted)
                plan = begun or _begin(inputs, wanted, old, progress, pool)
            larger = extension_of(old.path)
            extraction = Extraction(inputs, larger, plan, progress, _skipped_rows(old))
            computed = extraction.write(share, pool=pool)
        with share.at_once(old.path, SEALING):
            store_id = extraction.seal()
            _finish(old.path)
    except (StoreError, LockedError, ResourceError):
        finished = finished_extension(old.path, wanted)
        if finished is None:
            raise
        logger.info("%s was extended by another process meanwhile", old.path)
        return finished.plan, finished.store_id, computed
    return plan, store_id, computed


def _finish(path: Path) -> None:
    """Put the extension in its place, once other processes that wrote it have let go of it."""
    deadline = time.monotonic() + FINISH_SECONDS
    while True:
        try:
            return finish_extension(path)
        except LockedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _sealed_store(path: Path) -> Store:
    check_format(path)
    if (path / layout.SEALED_OBJECT).exists():
        return open_store(path)
    plan_path = path / layout.PLAN_OBJECT
    plan = Plan.from_json(files.read_json(plan_path), plan_path)
    splits = " ".join(f"--split {name}" for name in plan.splits)
    raise StoreError(
        path,
        "is not sealed, and only what is whole is extended",
        f"finish it first, without --extend, with --taps {_text(plan.spec.taps)} {splits}",
    )


def _as_stored(config: ExtractConfig, plan: Plan) -> ExtractConfig:
    """The configuration with what was not given as the store has it, and all of its splits."""
    tokens, side = _stored_inputs(config.store, plan)
    stored = {
        "taps": _text(plan.spec.taps),
        "tokens": tokens,
        "store_dtype": plan.spec.dtype,
        "img_size": side,
        "shard_rows": plan.shard_rows,
        "seed": plan.order_seed,
        "calibration_rows": plan.calibration_rows,
        "views": plan.views,
        **({} if plan.augment is None else {"augment": plan.augment["policy"]}),
        **_stored_clip(plan),
    }
    changes = {name: value for name, value in stored.items() if name not in config.model_fields_set}
    asked = config.split if "split" in config.model_fields_set else ()
    changes["split"] = None if asked is None else tuple(sorted({*asked, *plan.splits}))
    return config.model_copy(update=changes)


def _stored_clip(plan: Plan) -> dict[str, Any]:
    """Which frames of clips a store was extracted with; nothing of images."""
    recorded = plan.preprocessing.get("clip")
    return {} if recorded is None else flags_of(ClipSampling.from_json(recorded))


def _stored_inputs(path: Path, plan: Plan) -> tuple[str, int]:
    """Token policy and side of the image: of all that a plan says, no reader needs these two."""
    sides = plan.preprocessing.get("img_size")
    side = sides[0] if isinstance(sides, list) and sides else None
    tokens = plan.backbone.get("tokens")
    if not isinstance(tokens, str) or type(side) is not int:
        what = "does not say backbone.tokens and preprocessing.img_size as losa writes them"
        raise StoreError(path / layout.PLAN_OBJECT, what, "extract it again with --overwrite")
    return tokens, side


def _with_stored_taps(inputs: Inputs, old: Store) -> Inputs:
    taps = tuple(sorted({*inputs.backbone.spec.taps, *old.spec.taps}))
    config = inputs.config.model_copy(update={"taps": _text(taps)})
    return replace(inputs, config=config, backbone=inputs.backbone.with_taps(taps))


def _extended_plan(inputs: Inputs, old: Store) -> Plan:
    """The store's plan with the taps and splits that are asked for; exponents are not known yet.

    Raises:
        MismatchError: something else differs, or the data set lacks a split of the store.
    """
    wanted = wanted_plan(inputs)
    check_extends(old.path, wanted, old.plan)
    check_numerics(inputs.config, wanted, old.plan)
    gone = [name for name in old.splits if name not in wanted.splits]
    if gone:
        what = f"has the split {gone[0]!r}, and {inputs.dataset.name} has not"
        raise MismatchError(old.path, what, "give the data set that it was extracted from")
    if old.plan.holds(wanted):
        return old.plan
    return replace(old.plan, spec=wanted.spec, splits=wanted.splits)


def _begin(
    inputs: Inputs, plan: Plan, old: Store, progress: Progress | None, pool: DecodePool
) -> Plan:
    """Calibrate the new taps and publish the beginning of the larger store; returns its plan."""
    exponents = dict(zip(old.spec.taps, old.plan.exponents, strict=True))
    new = tuple(tap for tap in plan.spec.taps if tap not in exponents)
    arrays: Mapping[str, np.ndarray] = {}
    if new:
        narrow = replace(plan, spec=plan.spec.with_taps(new), exponents=())
        _check_calibration(old, plan)
        lane = replace(inputs, backbone=inputs.backbone.with_taps(new))
        extraction = Extraction(lane, old.path, narrow, progress, _skipped_rows(old))
        statistics = extraction.calibrate(pool=pool)
        arrays = statistics.arrays(plan.spec.dtype)
        exponents |= zip(new, calibrated(narrow, statistics).exponents, strict=True)
    plan = replace(plan, exponents=tuple(exponents[tap] for tap in plan.spec.taps))
    merged = _merged(old, plan, new, arrays)
    try:
        begin_extension(old.path, plan, inputs.dataset.splits, merged)
    except LockedError:
        begun = begun_extension(old.path, plan)
        if begun is None:
            raise
        return begun
    return plan


def _check_calibration(old: Store, plan: Plan) -> None:
    split = plan.calibration_split
    if split not in plan.splits:
        what = f"was calibrated on the split {split!r}, which it does not have"
        raise MismatchError(old.path, what, f"new taps need its rows: give --split {split} too")


def _merged(
    old: Store, plan: Plan, new: tuple[int, ...], arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Statistics of all taps: those of the old ones as they are stored."""
    calibration = old.calibration(old.spec.taps)
    merged = {}
    for name in statistics_of(plan):
        rows = dict(zip(old.spec.taps, getattr(calibration, name), strict=True))
        rows |= zip(new, arrays.get(name, ()), strict=True)
        merged[name] = np.stack([rows[tap] for tap in plan.spec.taps])
    return merged


def _skipped_rows(old: Store) -> Skipped:
    """Which rows of the store hold no features, read split by split when it is asked."""

    @cache
    def skipped(split: str) -> dict[int, tuple[int, str]] | None:
        if split not in old.plan.splits:
            return None
        shards = layout.shard_count(old.plan.splits[split].rows, old.plan.shard_rows)
        records = [old.files.commit(split, shard) for shard in range(shards)]
        rows = [row for record in records for row in record["skipped"]]
        return {row["row"]: (row["code"], row["message"]) for row in rows}

    return skipped


def _text(taps: tuple[int, ...]) -> str:
    return ",".join(str(tap) for tap in taps)
