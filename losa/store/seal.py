"""Sealing: the last act of writing, after which every file of the store has a known digest.

Source: docs/store-format.md, section "Sealing".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from losa.errors import StoreError
from losa.store import files, layout, system, zarrjson
from losa.store.damage import size_damage
from losa.store.plan import FORMAT_MAJOR, FORMAT_MINOR, Plan
from losa.store.skeleton import metadata_documents, root_document, spared_objects

SAMPLE_COLUMNS: Final = ("source_index", "label", "view")


def small_objects(plan: Plan) -> list[str]:
    """Every file whose full sha256 is sealed: metadata, plan, samples, calibration, commits."""
    commits = [
        layout.commit_object(split, shard)
        for split, item in plan.splits.items()
        for shard in range(layout.shard_count(item.rows, plan.shard_rows))
    ]
    return sorted(fixed_objects(plan) + commits)


def fixed_objects(plan: Plan) -> list[str]:
    """The small files that are there before the first shard is."""
    names = [layout.ROOT_OBJECT]
    names += [f"{name}/zarr.json" for name in metadata_documents(plan)]
    names += [name for item in spared_objects(plan) for name in (item, layout.spare_object(item))]
    for split in plan.splits:
        names += [f"{split}/sample/{column}/c.0" for column in SAMPLE_COLUMNS]
    return names


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
        skipped = [[row["row"], row["code"]] for record in records for row in record["skipped"]]
        facts = {"rows": item.rows, "ok": ok, "shards": len(records), "skipped": skipped}
        splits[split] = facts
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
    return files.canonical_json({**sealed, "digest": seal_digest(sealed)})


def seal_digest(sealed: Mapping[str, Any]) -> str:
    """What a seal says of itself, for nothing else vouches for it."""
    content = {name: value for name, value in sealed.items() if name != "digest"}
    return files.sha256(files.canonical_json(content))


def sealed_root_bytes(plan: Plan) -> bytes:
    """The root's ``zarr.json`` of a sealed store, with all metadata consolidated."""
    document = zarrjson.consolidated(root_document(plan), metadata_documents(plan))
    return zarrjson.document_bytes(document)


def seal_store(root: Path, plan: Plan, *, durable: bool) -> str:
    """Consolidate the metadata, write ``sealed.json`` last, and return the ``store_id``.

    Every shard must be committed. Repeating it after a crash gives the same bytes.

    Raises:
        StoreError: a committed file is missing or cut, or another seal was written meanwhile.
    """
    for commit in sorted((root / ".losa/commits").glob("*/*.json")):
        what = size_damage(root, commit)
        if what is not None:
            raise StoreError(root, what, "run the same extract command again")
    if durable and (root / layout.UNSYNCED_OBJECT).exists():
        with files.named(root):
            files.sync_tree(root)
    scratch = root / layout.TMP_FOLDER
    root_bytes = sealed_root_bytes(plan)
    files.write_atomic(root / layout.ROOT_OBJECT, root_bytes, durable=durable, scratch=scratch)
    data = seal_bytes(root, plan)
    with files.named(root):
        _sweep(root, durable=durable)
    sealed = root / layout.SEALED_OBJECT
    created = files.create_once(sealed, data, scratch=scratch, durable=durable)
    if durable:
        with files.named(root):
            # The name that the seal had first would come back, and is foreign to a sealed store.
            system.current.sync_folder(scratch)
    if not created and files.read_file(sealed) != data:
        raise StoreError(sealed, "was written by another process, and differs", "run losa verify")
    return files.sha256(data)


def _sweep(root: Path, *, durable: bool) -> None:
    """Remove what no sealed store holds: it belongs to no shard that is still missing."""
    system.current.unlink(root / layout.UNSYNCED_OBJECT)
    swept = [root / layout.TMP_FOLDER, *(root / ".losa/claims").iterdir()]
    for folder in swept:
        for leftover in folder.iterdir():
            system.current.unlink(leftover)
    _sweep_inherited(root / layout.INHERITED_FOLDER)
    if durable:
        # Before the seal is there: a name that came back after a power cut would be foreign to it,
        # and a commit record that went was perhaps not synced by a process that was killed.
        for folder in [*swept[1:], *(root / ".losa/commits").iterdir(), root / ".losa"]:
            system.current.sync_folder(folder)


def _sweep_inherited(inherited: Path) -> None:
    """Remove the old commit records of a store that was extended, and the folder made for them."""
    for folder in inherited.glob("*"):
        for leftover in folder.glob("*"):
            system.current.unlink(leftover)
        system.current.rmdir(folder)
    system.current.rmdir(inherited)
