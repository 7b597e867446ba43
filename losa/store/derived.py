"""What the small files of a store must hold, worked out from the plan, a listing, or a commit.

Source: docs/store-format.md, sections "Names" and "Verification and repair".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from losa.errors import StoreError
from losa.features import Sample
from losa.store import files, layout, zarrjson
from losa.store.damage import held_rows, record_objects, record_sizes, shard_objects
from losa.store.listing import parse_samples
from losa.store.plan import Plan
from losa.store.seal import SAMPLE_COLUMNS, sealed_root_bytes
from losa.store.sealed import OK_STATUS
from losa.store.skeleton import (
    metadata_documents,
    root_document,
    sample_columns,
    spared_objects,
)

Listing = Callable[[str], Sequence[Sample]]
"""Gives the listed samples of a split."""


class Derivation:
    """The files of a store that follow from its plan and its listings."""

    def __init__(self, plan: Plan, listing: Listing) -> None:
        self._plan = plan
        self._listing = listing
        self._documents = metadata_documents(plan)
        self._columns = {
            f"{split}/sample/{column}/c.0": split
            for split in plan.splits
            for column in SAMPLE_COLUMNS
        }

    @property
    def names(self) -> list[str]:
        """Every such file."""
        documents = [f"{name}/zarr.json" for name in self._documents]
        return [layout.ROOT_OBJECT, *documents, *self._columns]

    def derive(self, name: str) -> bytes:
        """What a file must hold; the root's metadata as in a sealed store.

        Raises:
            StoreError: it follows from a samples table that is damaged.
        """
        if name == layout.ROOT_OBJECT:
            return sealed_root_bytes(self._plan)
        split = self._columns.get(name)
        if split is None:
            node = name.removesuffix("/zarr.json")
            return zarrjson.document_bytes(self._documents[node])
        return dict(sample_columns(self._plan, split, self._listing(split)))[name]

    def holds(self, name: str, data: bytes) -> bool:
        """Whether a file of an unsealed store is as it must be: its root may be as first written.

        Raises:
            StoreError: it follows from a samples table that is damaged.
        """
        if name == layout.ROOT_OBJECT and data == first_root_bytes(self._plan):
            return True
        return data == self.derive(name)


def check_first_files(root: Path, plan: Plan) -> None:
    """Refuse to vouch for a small file that is not what it was when the store was created.

    Raises:
        StoreError: it differs from its second copy, or from what follows from the plan and the
            listings; it is named.
    """
    todo = "see what losa repair would do, then run the same command again"
    for name in spared_objects(plan):
        if _read(root, name) != _read(root, layout.spare_object(name)):
            raise StoreError(root / name, "is not what its second copy is", todo)
    listings = {split: _listing(root, plan, split, todo) for split in plan.splits}
    derivation = Derivation(plan, listings.__getitem__)
    for name in derivation.names:
        if not derivation.holds(name, _read(root, name)):
            raise StoreError(root / name, "is not what follows from the plan", todo)


def check_commits(root: Path, plan: Plan) -> None:
    """Refuse to vouch for a commit record that says what cannot be.

    Raises:
        StoreError: so it does, or it is missing; it is named.
    """
    for split, item in plan.splits.items():
        for shard in range(layout.shard_count(item.rows, plan.shard_rows)):
            path = root / layout.commit_object(split, shard)
            data = files.read_file(path)
            record = files.parse_json(path, data)
            is_sound = is_sound_commit(plan, split, shard, record)
            if not is_sound or files.canonical_json(record) != data:
                todo = "see what losa repair would do, then run the same command again"
                raise StoreError(path, "is not a sound commit record", todo)


def _read(root: Path, name: str) -> bytes:
    return files.read_file(root / name, at_most=files.MAX_TABLE_BYTES)


def _listing(root: Path, plan: Plan, split: str, todo: str) -> list[Sample]:
    name = layout.samples_object(split)
    try:
        listed = parse_samples(_read(root, name))
    except ValueError:
        raise StoreError(root / name, "is not a samples table", todo) from None
    if len(listed) != plan.splits[split].samples:
        raise StoreError(root / name, f"lists {len(listed)} samples, not the plan's", todo)
    return listed


def first_root_bytes(plan: Plan) -> bytes:
    """The root's ``zarr.json`` of a store that is not sealed yet."""
    return zarrjson.document_bytes(root_document(plan))


def parse_listing(path: Path, data: bytes) -> list[Sample]:
    """The listed samples that a samples table holds.

    Raises:
        StoreError: it is not as losa writes it.
    """
    try:
        return parse_samples(data)
    except ValueError:
        raise StoreError(path, "is not a samples table", "run losa verify") from None


def status_bytes(plan: Plan, split: str, shard: int, skipped: Sequence[Mapping[str, Any]]) -> bytes:
    """The status file of a shard, from what its commit record says of skipped rows."""
    status = np.zeros(plan.shard_rows, dtype=np.uint8)
    status[: held_rows(plan, split, shard)] = OK_STATUS
    for row in skipped:
        status[row["row"] - shard * plan.shard_rows] = row["code"]
    return status.tobytes()


def is_sound_commit(plan: Plan, split: str, shard: int, record: Mapping[str, Any]) -> bool:
    """Whether a commit record says nothing that cannot be, where no seal vouches for it."""
    try:
        first, stop = layout.shard_span(shard, plan.splits[split].rows, plan.shard_rows)
        objects, skipped = record["objects"], record["skipped"]
        status = status_bytes(plan, split, shard, skipped)
        return (
            [record["split"], record["shard"], record["rows"]] == [split, shard, [first, stop]]
            and record["ok"] == stop - first - len(skipped)
            and all(first <= row["row"] < stop and row["code"] > OK_STATUS for row in skipped)
            and set(objects) == set(shard_objects(plan, split, shard))
            and objects[layout.status_object(split, shard)]["sha256"] == files.sha256(status)
            and _agree(plan, split, shard, objects)
        )
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return False


def _agree(plan: Plan, split: str, shard: int, objects: Mapping[str, Any]) -> bool:
    """Whether what is said of files is what the plan says, and of records what of their checks."""
    held, rows = held_rows(plan, split, shard), plan.shard_rows
    want = {layout.status_object(split, shard): rows}
    for tap in plan.spec.taps:
        check = layout.check_object(split, tap, shard)
        want[check] = rows * 4
        names = record_objects(plan, split, tap, shard)
        for name, size in zip(names, record_sizes(plan), strict=True):
            want[name] = layout.shard_file_bytes(held, rows, size)
            if objects[name]["checks"] != objects[check]["sha256"]:
                return False
    return {name: facts["bytes"] for name, facts in objects.items()} == want
