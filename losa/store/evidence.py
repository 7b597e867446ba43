"""What a store can be held against when any of its files may be damaged: its plan and its seal.

The seal vouches for every small file, and for itself. Where there is none, what cannot be derived
is held against its second copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from losa.errors import StoreError
from losa.features import Sample
from losa.store import files, layout
from losa.store.damage import (
    Problem,
    file_problem,
    held_rows,
    record_checks,
    record_objects,
    record_sizes,
)
from losa.store.derived import (
    Derivation,
    first_root_bytes,
    is_sound_commit,
    parse_listing,
)
from losa.store.foreign import check_document, has_foreign_records, is_raw, named
from losa.store.listing import listing_digest
from losa.store.plan import FORMAT_MAJOR, Plan
from losa.store.reader import check_format
from losa.store.seal import seal_digest, sealed_root_bytes, small_objects
from losa.store.skeleton import metadata_documents, spared_objects
from losa.store.ways import Ways

_DIFFERS = "differs from its second copy"
_UNKNOWN = f"{_DIFFERS}, and nothing tells which is right"
_NOT_SEALED = "is not the file that was sealed"


@dataclass(frozen=True)
class Evidence:
    """What is known of a store before its other files are looked at.

    ``seal`` is the sound seal or nothing; ``seal_damage`` then says why not. ``plan`` is nothing
    where both its copies are damaged.
    """

    ways: Ways
    plan: Plan | None
    seal: Mapping[str, Any] | None
    seal_damage: Problem | None

    @property
    def is_sealed(self) -> bool:
        """Whether a sound seal vouches for the small files."""
        return self.seal is not None

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """Digests of the small files, from the seal; none without one."""
        return self.seal["files"] if self.seal else {}

    @cached_property
    def derivation(self) -> Derivation:
        """The files that follow from others."""
        return Derivation(self.sound_plan, self.listing)

    @property
    def sound_plan(self) -> Plan:
        """The plan.

        Raises:
            StoreError: both its copies are damaged.
        """
        if self.plan is None:
            path = self.ways.path(layout.PLAN_OBJECT)
            what = "is damaged, and so is its second copy, or nothing tells which is right"
            raise StoreError(path, what, _RESTORE)
        return self.plan

    def listing(self, split: str) -> Sequence[Sample]:
        """The listed samples of a split, from a right copy of its table.

        Raises:
            StoreError: both copies are damaged.
        """
        name = self.right_copy(layout.samples_object(split))
        return parse_listing(Path(self.ways.path(name)), self.ways.whole(name))

    def right_copy(self, name: str) -> str:
        """Which of a file and its second copy is right.

        Raises:
            StoreError: neither is, or nothing tells which.
        """
        right, problems = self.judge(name)
        if not right:
            what = problems[0].what if problems[0].what == _UNKNOWN else "is damaged"
            also = "" if what == _UNKNOWN else ", and so is its second copy"
            raise StoreError(self.ways.path(name), what + also, _RESTORE)
        return right[0]

    def judge(self, name: str) -> tuple[list[str], list[Problem]]:
        """Which of a file and its second copy are right, and what is wrong with the others.

        Raises:
            ResourceError: the disk fails.
        """
        problems, found = [], {}
        for copy in (name, layout.spare_object(name)):
            try:
                found[copy] = self.ways.digest(copy)
            except StoreError as error:
                problems.append(file_problem(self.ways, copy, error))
        if self.is_sealed:
            right = [copy for copy in found if found[copy] == self.digests[copy]]
            what = _NOT_SEALED
        else:
            is_one = len(set(found.values())) == 1 and len(found) > 1
            right = [copy for copy in found if is_one or self._is_plausible(name, copy)]
            what = _DIFFERS if len(found) > 1 else "is not what the plan says"
            if len({found[copy] for copy in right}) > 1:
                right, what = [], _UNKNOWN
        problems += [Problem(copy, what) for copy in found if copy not in right]
        return right, problems

    def _is_plausible(self, name: str, copy: str) -> bool:
        """Whether a copy that no seal vouches for can be right."""
        data = self.ways.whole(copy)
        plan = self.sound_plan
        if name == layout.PLAN_OBJECT:
            return data == _plan_bytes(plan)
        listings = {
            layout.samples_object(split): plan.splits[split].listing for split in plan.splits
        }
        if name in listings:
            try:
                listed = parse_listing(Path(self.ways.path(copy)), data)
            except StoreError:
                return False
            return listing_digest(listed) == listings[name]
        return len(data) == plan.spec.channels * 4


_RESTORE = "restore it from elsewhere, or extract again with --overwrite"


def gather_evidence(path: Path) -> Evidence:
    """Find the seal and the plan of a store that may be damaged.

    Raises:
        StoreError: there is no store at ``path``, or one of a newer format.
        ResourceError: the disk fails.
    """
    if not path.is_dir():
        check_format(path)
    ways = Ways(path)
    _check_ours(ways)
    seal, damage = _read_seal(ways)
    plan = _choose_plan(ways, seal)
    if plan and seal and not set(small_objects(plan)) <= set(seal["files"]):
        seal, damage = None, Problem(layout.SEALED_OBJECT, "does not list every file")
    return Evidence(ways, plan, seal, damage)


def _check_ours(ways: Ways) -> None:
    """Refuse what is no store of this format; one document that says so is enough."""
    spare = layout.spare_object(layout.PLAN_OBJECT)
    for name in (layout.ROOT_OBJECT, layout.PLAN_OBJECT, spare, layout.SEALED_OBJECT):
        try:
            value = files.parse_json(Path(name), ways.whole(name))
        except StoreError:
            continue
        is_root = name == layout.ROOT_OBJECT
        says = _inner(_inner(value, "attributes"), "losa") if is_root else value
        if _inner(says, "format").get("major") == FORMAT_MAJOR:
            return
    check_format(ways.root)


def _inner(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = value.get(key)
    return inner if isinstance(inner, dict) else {}


def _read_seal(ways: Ways) -> tuple[Mapping[str, Any] | None, Problem | None]:
    name = layout.SEALED_OBJECT
    try:
        data = ways.whole(name)
    except StoreError as error:
        return None, file_problem(ways, name, error)
    try:
        seal = files.parse_json(Path(name), data)
    except StoreError as error:
        return None, Problem(name, error.what)
    is_ours = files.canonical_json(seal) == data and seal.get("digest") == seal_digest(seal)
    if not (is_ours and isinstance(seal.get("files"), dict)):
        return None, Problem(name, "is not as losa writes it")
    return seal, None


def _choose_plan(ways: Ways, seal: Mapping[str, Any] | None) -> Plan | None:
    """The plan that the seal vouches for, or the only one, or the one that the root agrees with."""
    plans = list(_plans(ways, seal))
    if len({_plan_bytes(plan) for plan in plans}) > 1:
        root = b""
        with suppress(StoreError):
            root = ways.whole(layout.ROOT_OBJECT)
        plans = [p for p in plans if root in (first_root_bytes(p), sealed_root_bytes(p))]
        if len(plans) > 1:
            return None
    return plans[0] if plans else None


def _plans(ways: Ways, seal: Mapping[str, Any] | None) -> Iterator[Plan]:
    for name in (layout.PLAN_OBJECT, layout.spare_object(layout.PLAN_OBJECT)):
        try:
            data = ways.whole(name)
            plan = Plan.from_json(files.parse_json(Path(name), data), Path(name))
        except StoreError:
            continue
        # A seal vouches for fields, too, that a later version has added.
        want = seal["files"].get(name) if seal else files.sha256(_plan_bytes(plan))
        if files.sha256(data) == want:
            yield plan


def _plan_bytes(plan: Plan) -> bytes:
    return files.canonical_json(plan.to_json())


def plan_problems(evidence: Evidence) -> Iterator[Problem]:
    """Why there is no plan: what is wrong with both copies."""
    for name in (layout.PLAN_OBJECT, layout.spare_object(layout.PLAN_OBJECT)):
        try:
            data = evidence.ways.whole(name)
            Plan.from_json(files.parse_json(Path(name), data), Path(name))
        except StoreError as error:
            yield file_problem(evidence.ways, name, error)
            continue
        yield Problem(name, _NOT_SEALED if evidence.is_sealed else _UNKNOWN)


def spared_problems(evidence: Evidence) -> Iterator[Problem]:
    """What is wrong with files that there are two of."""
    for name in spared_objects(evidence.sound_plan):
        yield from evidence.judge(name)[1]


def check_written_here(evidence: Evidence) -> None:
    """Refuse a store whose records zarr has encoded otherwise: they are sound, and not as written.

    A document that only says so is damage: then some shard still holds what was committed.

    Raises:
        StoreError: so it is.
    """
    ways, plan = evidence.ways, evidence.plan
    if plan is None or not has_foreign_records(ways.whole, plan):
        return
    if any(_is_recoded(ways, plan, split, tap) for split in plan.splits for tap in plan.spec.taps):
        what = "its arrays are recompressed by zarr: losa reads them, but mends only what it wrote"
        raise StoreError(ways.root, what, "export and import it")


def _is_recoded(ways: Ways, plan: Plan, split: str, tap: int) -> bool:
    names = (layout.tokens_path(split, tap), layout.scale_path(split, tap))
    documents = metadata_documents(plan)
    if not any(_says_otherwise(ways, name, documents[name]) for name in names if name in documents):
        return False
    shards = range(layout.shard_count(plan.splits[split].rows, plan.shard_rows))
    found = [_is_as_committed(ways, plan, (split, tap, shard)) for shard in shards]
    return False in found and True not in found


def _says_otherwise(ways: Ways, name: str, planned: Mapping[str, Any]) -> bool:
    """Whether an array's document is sound, and not of raw records."""
    try:
        data = ways.whole(f"{name}/zarr.json")
        if is_raw(data, planned):
            return False
        with named(ways.root / name):
            largest = prod(planned["chunk_grid"]["configuration"]["chunk_shape"])
            check_document(ways.root / name, json.loads(data), planned, largest)
    except StoreError:
        return False
    return True


def _is_as_committed(ways: Ways, plan: Plan, where: tuple[str, int, int]) -> bool | None:
    """Whether a tap's records of a shard are raw and sound; nothing where none are committed."""
    split, _, shard = where
    commit = Path(ways.path(layout.commit_object(split, shard)))
    try:
        record = files.read_json(commit)
    except StoreError:
        return None
    if not is_sound_commit(plan, split, shard, record):
        return None
    names, held = record_objects(plan, *where), held_rows(plan, split, shard)
    paths = [Path(ways.path(name)) for name in names]
    checks = np.zeros(plan.shard_rows, dtype="<u4")
    try:
        checks[:held] = record_checks(paths, record_sizes(plan), held)
    except StoreError:
        return False
    committed: str = record["objects"][names[0]]["checks"]
    return files.sha256(checks.tobytes()) == committed
