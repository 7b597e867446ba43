"""What a store holds, known before it is written, and all that training can ask of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from losa.errors import LosaError
from losa.features import Sample, StoreDtype
from losa.store import Plan, Store, StoreWriter, create_store, files, layout, open_store
from losa.store.claims import ShardTask
from losa.store.listing import listing_digest
from losa.store.order import row_order
from losa.store.plan import SplitPlan
from losa.store.seal import seal_digest
from losa.store.shardwriter import ShardWriter
from tests.store.build import features, samples, small_plan, statistics, token_scales, tree

UNREADABLE = 8
Skip = Mapping[str, Any]


@dataclass(frozen=True)
class Content:
    """A plan, and the values of every row under it; rows of ``skipped`` hold none."""

    plan: Plan
    planes: Mapping[str, np.ndarray]
    scales: Mapping[str, np.ndarray]
    samples: Mapping[str, Sequence[Sample]]
    statistics: Mapping[str, np.ndarray]
    skipped: Mapping[str, Sequence[Skip]] = field(default_factory=dict)

    def status(self, split: str) -> np.ndarray:
        """Status of each row."""
        status = np.ones(self.plan.splits[split].rows, np.uint8)
        for skip in self.skipped.get(split, ()):
            status[skip["row"]] = skip["code"]
        return status


def with_listings(plan: Plan) -> Plan:
    """The plan whose listings' digests are the true ones."""
    listed = samples(plan)
    splits = {
        name: SplitPlan(item.samples, item.rows, listing_digest(listed[name]))
        for name, item in plan.splits.items()
    }
    return replace(plan, splits=splits)


def content_of(plan: Plan, skipped: Mapping[str, Sequence[int]] | None = None) -> Content:
    """Seeded values for every row of a plan but some."""
    plan = with_listings(plan)
    listed = samples(plan)
    planes = {split: features(plan, split) for split in plan.splits}
    scales = {split: token_scales(plan, split) for split in plan.splits}
    skips = {}
    for split, rows in (skipped or {}).items():
        order = row_order(plan.splits[split].rows, plan.order_seed, split)
        skips[split] = [_skip(row, listed[split][order[row]].key) for row in rows]
        for array in (planes[split], scales[split]):
            if array is not None:
                array[:, list(rows)] = 0
    given = {split: array for split, array in scales.items() if array is not None}
    return Content(plan, planes, given, listed, statistics(plan), skips)


def _skip(row: int, key: str) -> Skip:
    return {"row": row, "key": key, "code": UNREADABLE, "message": "is cut short"}


def rich_content(dtype: StoreDtype = "float16") -> Content:
    """Two splits of full and partial shards, with a skipped row in each."""
    plan = small_plan({"train": 7, "val": 3}, dtype, shard_rows=3)
    return content_of(plan, {"train": (4,), "val": (0,)})


def part_of(content: Content, splits: tuple[str, ...], taps: tuple[int, ...]) -> Content:
    """The same values at some taps of some splits."""
    plan = content.plan
    places = [plan.spec.taps.index(tap) for tap in taps]
    some = replace(plan.with_taps(taps), splits={name: plan.splits[name] for name in splits})
    return Content(
        some,
        {name: content.planes[name][places] for name in splits},
        {name: content.scales[name][places] for name in splits if content.scales},
        {name: content.samples[name] for name in splits},
        {name: array[places] for name, array in content.statistics.items()},
        {name: content.skipped.get(name, ()) for name in splits},
    )


def begin(path: Path, content: Content) -> None:
    """Create the empty store."""
    create_store(path, content.plan, content.samples, content.statistics, durable=False)


def append_rows(shard: ShardWriter, content: Content, split: str, rows: slice) -> None:
    """Append rows to a shard in the making, at the taps it lacks, and say which are skipped."""
    places = [content.plan.spec.taps.index(tap) for tap in shard.taps]
    scales = content.scales.get(split)
    shard.write(
        list(content.planes[split][places, rows]),
        content.status(split)[rows],
        None if scales is None else list(scales[places, rows]),
    )
    for skip in content.skipped.get(split, ()):
        if rows.start <= skip["row"] < rows.stop:
            shard.skip(*(skip[name] for name in ("row", "key", "code", "message")))


def write_shard(store: StoreWriter, task: ShardTask, content: Content) -> None:
    """Write one claimed shard, two rows at a time."""
    with store.shard(task) as shard:
        for first in range(task.first, task.stop, 2):
            rows = slice(first, min(task.stop, first + 2))
            append_rows(shard, content, task.split, rows)


def write_missing(path: Path, content: Content, shards: int | None = None) -> None:
    """What a resumed extraction does: all that is missing and the seal, or so many shards."""
    with StoreWriter(path, durable=False) as store:
        if store.is_sealed:
            return
        store.withdraw_damaged()
        for number, task in enumerate(store.claimed()):
            if number == shards:
                return
            write_shard(store, task, content)
        store.seal()


def written(path: Path, content: Content) -> Path:
    """The sealed store of a content."""
    begin(path, content)
    write_missing(path, content)
    return path


Seen = dict[str, Any]
COLUMNS: Final = ("source_index", "labels", "status", "samples")


def look(path: Path, *, regime: Any = "auto") -> Seen:
    """All that training can ask of a store, by name: a value, or the error that came instead."""
    try:
        store = open_store(path, verify="first", regime=regime)
    except LosaError as error:
        return {"open": error}
    seen: Seen = {"id": store.store_id, "plan": store.plan.to_json()}
    taps = store.spec.taps
    seen["calibration"] = _asked(lambda: _calibration(store, taps))
    for name in store.splits:
        for column in COLUMNS:
            seen[f"{name} {column}"] = _asked(partial(_column, store, name, column))
        seen.update(_rows(store, name))
    return seen


def _column(store: Store, split: str, name: str) -> list[Any]:
    return list(getattr(store.split(split), name))


def _calibration(store: Store, taps: tuple[int, ...]) -> list[Any]:
    found = store.calibration(taps)
    arrays = (found.mean, found.std, found.absmax, found.channel)
    return [*found.exponent, *(None if array is None else array.tobytes() for array in arrays)]


def _rows(store: Store, split: str) -> Seen:
    """Every row at once; one by one where that is refused, for it says nothing of the others."""
    rows = list(range(store.plan.splits[split].rows))
    together = _asked(partial(read_rows, store, split, rows))
    if isinstance(together, list):
        return {f"{split} {row}": together[row] for row in rows}
    alone = {row: _asked(partial(read_rows, store, split, [row])) for row in rows}
    return {
        f"{split} {row}": found[0] if isinstance(found, list) else found
        for row, found in alone.items()
    }


def _asked(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except LosaError as error:
        return error


def read_rows(store: Store, split: str, rows: list[int]) -> list[bytes]:
    """The bytes of some rows at all taps, scales behind tokens."""
    reader = store.split(split)
    taps, tokens, channels = store.spec.shape
    out = np.empty((taps, len(rows), tokens, channels), reader.raw_dtype)
    scales = np.empty((taps, len(rows), tokens), np.float16) if store.spec.scale_bytes else None
    reader.read_into(np.array(rows, np.int64), store.spec.taps, out, scales)
    parts = [out] if scales is None else [out, scales]
    return [b"".join(part[:, row].tobytes() for part in parts) for row in range(len(rows))]


def row_bytes(content: Content, split: str, row: int) -> bytes:
    """What :func:`read_rows` must give for a row."""
    parts = [content.planes[split], *([content.scales[split]] if content.scales else [])]
    return b"".join(part[:, row].tobytes() for part in parts)


def refusals(seen: Seen) -> list[LosaError]:
    """The errors among what was seen."""
    return [value for value in seen.values() if isinstance(value, LosaError)]


def untrue(seen: Seen, want: Seen) -> list[str]:
    """Names of what was given and is not what was written: never any."""
    return [
        name
        for name, value in seen.items()
        if not isinstance(value, LosaError) and value != want[name]
    ]


def kept(path: Path) -> dict[str, bytes]:
    """Every file of a store but those that were set aside."""
    prefix = f"{layout.QUARANTINE_FOLDER}/"
    return {name: data for name, data in tree(path).items() if not name.startswith(prefix)}


def seal_again(path: Path) -> None:
    """What a stranger does who wants a changed store to look whole."""
    place = path / layout.SEALED_OBJECT
    sealed = files.read_json(place)
    for name in sealed["files"]:
        if (path / name).is_file():
            sealed["files"][name] = files.sha256((path / name).read_bytes())
    sealed["digest"] = seal_digest(sealed)
    place.write_bytes(files.canonical_json(sealed))
