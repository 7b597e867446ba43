"""Sealing: the last act of writing, after which every file of the store has a known digest.

Source: docs/store-format.md, section "Sealing".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from losa.errors import StoreError
from losa.store import files, layout, zarrjson
from losa.store.plan import FORMAT_MAJOR, FORMAT_MINOR, Plan
from losa.store.skeleton import STATISTICS, metadata_documents

SAMPLE_COLUMNS: Final = ("source_index", "label", "view")


def small_objects(plan: Plan) -> list[str]:
    """Every file whose full sha256 is sealed: metadata, plan, samples, calibration, commits."""
    names = [layout.ROOT_OBJECT, layout.PLAN_OBJECT]
    names += [f"{name}/zarr.json" for name in metadata_documents(plan)]
    names += [
        f"calib/{layout.tap_name(tap)}/{statistic}/c.0"
        for tap in plan.spec.taps
        for statistic in STATISTICS
    ]
    for split, item in plan.splits.items():
        names.append(layout.samples_object(split))
        names += [f"{split}/sample/{column}/c.0" for column in SAMPLE_COLUMNS]
        names += [
            layout.commit_object(split, shard)
            for shard in range(layout.shard_count(item.rows, plan.shard_rows))
        ]
    return sorted(names)


def shard_objects(plan: Plan, split: str, shard: int) -> list[str]:
    """Every file that one shard's commit record vouches for."""
    names = [layout.tokens_object(split, tap, shard) for tap in plan.spec.taps]
    names += [layout.check_object(split, tap, shard) for tap in plan.spec.taps]
    return [*names, layout.status_object(split, shard)]


def seal_bytes(root: Path, plan: Plan) -> bytes:
    """What ``sealed.json`` holds for the files that lie below ``root`` now.

    Raises:
        StoreError: one of the small files is missing or unsound.
    """
    splits: dict[str, Any] = {}
    for split, item in plan.splits.items():
        records = [
            files.read_json(root / layout.commit_object(split, shard))
            for shard in range(layout.shard_count(item.rows, plan.shard_rows))
        ]
        ok = sum(record["ok"] for record in records)
        splits[split] = {"rows": item.rows, "ok": ok, "shards": len(records)}
    digests = {
        name: files.sha256(files.read_file(root / name, at_most=files.MAX_TABLE_BYTES))
        for name in small_objects(plan)
    }
    sealed = {
        "format": {"major": FORMAT_MAJOR, "minor": FORMAT_MINOR},
        "plan": plan.digest,
        "splits": splits,
        "files": digests,
    }
    return files.canonical_json(sealed)


def damage_of(root: Path, commit: Path) -> str | None:
    """What is wrong with the files that a commit record vouches for, by existence and size."""
    try:
        objects = files.read_json(commit)["objects"]
        for name, facts in objects.items():
            have = (root / name).stat().st_size
            if have != facts["bytes"]:
                return f"{name} is {have} bytes, not {facts['bytes']}"
    except FileNotFoundError:
        return f"{name} is missing"
    except (StoreError, KeyError, TypeError, AttributeError):
        return f"{commit.relative_to(root)} is not sound"
    return None


def seal_store(root: Path, plan: Plan, *, durable: bool) -> str:
    """Consolidate the metadata, write ``sealed.json`` last, and return the ``store_id``.

    Every shard must be committed. Repeating it after a crash gives the same bytes.

    Raises:
        StoreError: a committed file is missing or cut, or another seal was written meanwhile.
    """
    for commit in sorted((root / ".losa/commits").glob("*/*.json")):
        what = damage_of(root, commit)
        if what is not None:
            raise StoreError(root, what, "run the same extract command again")
    scratch = root / layout.TMP_FOLDER
    # Whoever seals, the root says which version began the store.
    begun = files.read_json(root / layout.ROOT_OBJECT)
    begun.pop("consolidated_metadata", None)
    document = zarrjson.consolidated(begun, metadata_documents(plan))
    files.write_atomic(
        root / layout.ROOT_OBJECT,
        zarrjson.document_bytes(document),
        durable=durable,
        scratch=scratch,
    )
    data = seal_bytes(root, plan)
    # Whatever lies here now belongs to no shard that is still missing.
    for folder in (scratch, *(root / ".losa/claims").iterdir()):
        for leftover in folder.iterdir():
            leftover.unlink(missing_ok=True)
    sealed = root / layout.SEALED_OBJECT
    created = files.create_once(sealed, data, scratch=scratch, durable=durable)
    if not created and files.read_file(sealed) != data:
        raise StoreError(sealed, "was written by another process, and differs", "run losa verify")
    return files.sha256(data)
