"""What a store is and how far it has come, for people and for machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from losa.store import files, layout
from losa.store.plan import Plan
from losa.store.reader import check_format, count_committed
from losa.store.shardfile import Folders


def describe_store(path: Path) -> dict[str, Any]:
    """Summarise a store, sealed or not, without reading features.

    Raises:
        StoreError: there is no store of this format at ``path``.
    """
    check_format(path)
    plan_path = Folders(path).check(layout.PLAN_OBJECT)
    plan = Plan.from_json(files.read_json(plan_path), plan_path)
    sealed_path = path / layout.SEALED_OBJECT
    sealed = sealed_path.exists()
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
        "sealed": sealed,
        "store_id": files.sha256(files.read_file(sealed_path)) if sealed else None,
        "plan": plan.digest,
        "backbone": dict(plan.backbone),
        "features": plan.spec.to_json(),
        "preprocessing": dict(plan.preprocessing),
        "dataset": plan.dataset,
        "classes": len(plan.classes),
        "splits": splits,
        "numerics": plan.numerics.to_json(),
        "sample_bytes": plan.spec.sample_bytes,
        "token_bytes": plan.spec.sample_bytes * sum(item.rows for item in plan.splits.values()),
    }
