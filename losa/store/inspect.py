"""What a store is and how far it has come, for people and for machines."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from losa.errors import StoreError
from losa.store import files, layout
from losa.store.claims import Claims
from losa.store.plan import Plan
from losa.store.reader import check_format, count_committed
from losa.store.seal import seal_digest
from losa.store.sealed import REPAIR
from losa.store.shardfile import Folders

WATCH_SECONDS: Final = 2.0


def describe_store(path: Path) -> dict[str, Any]:
    """Summarise a store, sealed or not, without reading features.

    Raises:
        StoreError: there is no store of this format at ``path``, or its seal is damaged.
    """
    check_format(path)
    plan_path = Folders(path).check(layout.PLAN_OBJECT)
    plan = Plan.from_json(files.read_json(plan_path), plan_path)
    store_id = _store_id(path)
    splits = {}
    for split, item in plan.splits.items():
        shards = layout.shard_count(item.rows, plan.shard_rows)
        splits[split] = {
            "rows": item.rows,
            "shards": shards,
            "committed": count_committed(path, split),
        }
    return {
        "store": str(path),
        "sealed": store_id is not None,
        "store_id": store_id,
        "plan": plan.digest,
        "backbone": dict(plan.backbone),
        "features": plan.spec.to_json(),
        "preprocessing": dict(plan.preprocessing),
        "shard_rows": plan.shard_rows,
        "views": plan.views,
        "test_views": plan.test_views,
        "augment": None if plan.augment is None else dict(plan.augment),
        "dataset": plan.dataset,
        "classes": len(plan.classes),
        "splits": splits,
        "numerics": plan.numerics.to_json(),
        "sample_bytes": plan.spec.sample_bytes,
        "token_bytes": plan.spec.sample_bytes * sum(item.rows for item in plan.splits.values()),
        "claims": [] if store_id else Claims(path).listed(),
    }


def watch_store(
    path: Path,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[dict[str, Any]]:
    """Summaries of a store, every two seconds until it is sealed.

    From the second one on they have ``rows_per_second``, of all processes that write it, over the
    last minute; shards are what is counted.
    """
    looks: deque[tuple[float, int]] = deque(maxlen=1 + round(60 / WATCH_SECONDS))
    while True:
        found = describe_store(path)
        looks.append((now(), committed_rows(found)))
        (began, before), (ended, after) = looks[0], looks[-1]
        rate = round((after - before) / (ended - began), 2) if ended > began else None
        yield {**found, "rows_per_second": rate}
        if found["sealed"]:
            return
        sleep(WATCH_SECONDS)


def committed_rows(found: Mapping[str, Any]) -> int:
    """Rows that a summary's committed shards hold, the last of a split taken for a full one.

    Example:
        >>> committed_rows({"shard_rows": 8, "splits": {"val": {"rows": 9, "committed": 2}}})
        9
    """
    items = found["splits"].values()
    return sum(min(item["rows"], item["committed"] * found["shard_rows"]) for item in items)


def _store_id(path: Path) -> str | None:
    """The digest of the seal, of which nothing is made up; none without a seal."""
    sealed_path = Folders(path).check(layout.SEALED_OBJECT)
    if not sealed_path.exists():
        return None
    data = files.read_file(sealed_path)
    seal = files.parse_json(sealed_path, data)
    if files.canonical_json(seal) != data or seal.get("digest") != seal_digest(seal):
        raise StoreError(sealed_path, "is not as losa writes it", REPAIR)
    return files.sha256(data)
