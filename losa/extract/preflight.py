"""Before the backbone is loaded: what is about to be written, and whether its disk can hold it."""

from __future__ import annotations

import logging

from losa.config import ExtractConfig
from losa.errors import StoreError
from losa.extract.amounts import in_bytes
from losa.extract.clips.asking import asked_clip
from losa.extract.costing import Counts
from losa.extract.known import Setting
from losa.extract.profiles import profile_of
from losa.extract.samples import Dataset
from losa.features import FeatureSpec
from losa.store import layout
from losa.store.inspect import describe_store
from losa.store.space import MARGIN, TOO_FULL, check_room, free_bytes, open_bytes

logger = logging.getLogger(__name__)


def preflight(config: ExtractConfig, dataset: Dataset, *, processes: int = 1) -> None:
    """Say how much is to be computed and written, and refuse what the disk cannot hold.

    There must be room for one open shard of each of the ``processes`` beside the features, but for
    no more shards than are missing; what is written of such shards already is not asked for again.
    What an extension adds is known only when its store has been opened, and is checked there.

    Raises:
        ResourceError: less is free where the store lies, or will lie, than is needed.
        UsageError: the model, image size, taps or tokens cannot be meant.
    """
    if config.extend:
        return
    clip = asked_clip(config)
    profile = profile_of(config.model, config.img_size, None if clip is None else clip.frames)
    spec = profile.spec(Setting(config.taps, config.tokens, config.store_dtype))
    samples = {name: len(listed) for name, listed in dataset.splits.items()}
    shard_rows = _shard_rows(config, spec)
    counts = Counts(samples, "", config.views, 1 if clip is None else clip.test_views)
    left = _rows_left(config, counts.rows, shard_rows)
    if left:
        logger.info("%s", short_form(left, spec, free_bytes(config.store)))
        spare = min(left, processes * shard_rows)
        needed = int((left * MARGIN + spare) * spec.sample_bytes)
        needed -= 0 if config.overwrite else open_bytes(config.store)
        check_room(config.store, needed, TOO_FULL)


def short_form(rows: int, spec: FeatureSpec, free: int) -> str:
    """What is about to be written, in one line.

    Example:
        >>> from losa.features import TokenGrid
        >>> spec = FeatureSpec("vit_b", (2, 5, 8, 11), TokenGrid(14, 14, prefix=1), 768, "float16")
        >>> short_form(500, spec, 10**12)
        '500 rows to compute, 1.21 MB each (4 taps, 197 tokens, float16): 605 MB of 1 TB free'
    """
    each = in_bytes(spec.sample_bytes)
    what = f"{len(spec.taps)} taps, {spec.grid.num_tokens} tokens, {spec.dtype}"
    total = in_bytes(rows * spec.sample_bytes)
    return f"{rows:,} rows to compute, {each} each ({what}): {total} of {in_bytes(free)} free"


def _shard_rows(config: ExtractConfig, spec: FeatureSpec) -> int:
    asked = config.shard_rows
    return layout.rows_per_shard(spec.record_bytes) if asked == "auto" else asked


def _rows_left(config: ExtractConfig, rows: int, shard_rows: int) -> int:
    """Rows that no committed shard holds; never more, for the writer counts them exactly later."""
    if config.overwrite or not config.store.exists():
        return rows
    try:
        splits = describe_store(config.store)["splits"].values()
    except StoreError:
        # Whoever joins the store says what is wrong with it.
        return 0
    return sum(max(0, item["rows"] - item["committed"] * shard_rows) for item in splits)
