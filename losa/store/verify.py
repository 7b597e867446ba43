"""Finding damage: is every file of a store there, whole, and the one that was written?

Quick verification compares the digests of all small files, and existence, size and index of every
shard. Deep verification also reads every record and compares its checksum. Where there is no sound
seal, files are held against what they follow from, their second copies and the commit records.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from losa.errors import StoreError
from losa.store import files, layout
from losa.store.damage import Problem, file_problem, shard_bytes, shard_damage
from losa.store.derived import is_sound_commit
from losa.store.evidence import (
    Evidence,
    check_written_here,
    gather_evidence,
    plan_problems,
    spared_problems,
)
from losa.store.plan import Plan
from losa.store.strays import find_strays

Progress = Callable[[int, int], None]
IS_MISSING = "is missing"
log = logging.getLogger(__name__)

__all__ = ["Examination", "Problem", "Progress", "examine_store", "verify_store"]


@dataclass(slots=True)
class Examination:
    """What was found in a store; ``missing`` are the shards that nobody has committed."""

    evidence: Evidence
    problems: list[Problem] = field(default_factory=list)
    missing: list[tuple[str, int]] = field(default_factory=list)
    committed: int = 0
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)


def verify_store(
    path: Path, *, deep: bool = True, progress: Progress | None = None
) -> list[Problem]:
    """List every problem of a store; an empty list means that it is sealed and sound.

    Of a store that is not sealed, all that is there is looked at. ``progress`` is told bytes done
    and bytes in all.

    Raises:
        StoreError: there is no store at ``path``, or one of a newer format or of foreign arrays.
        ResourceError: the disk fails.
    """
    found = examine_store(path, deep=deep, progress=progress).problems
    told = {(problem.path, problem.what): problem for problem in found if problem.kind != "hidden"}
    return [told[key] for key in sorted(told)]


def examine_store(
    path: Path, *, deep: bool = True, progress: Progress | None = None
) -> Examination:
    """Look at every file of a store, as :func:`verify_store`, and say all that is known then.

    Raises:
        StoreError: there is no store at ``path``, or one of a newer format or of foreign arrays.
        ResourceError: the disk fails.
    """
    evidence = gather_evidence(path)
    check_written_here(evidence)
    found = Examination(evidence)
    if evidence.plan is None:
        found.problems += plan_problems(evidence)
    else:
        strays = find_strays(evidence.ways, evidence.plan, is_sealed=evidence.is_sealed)
        found.problems += [*strays, *spared_problems(evidence), *_derived_problems(evidence)]
        found.problems += _all_shards(found, deep=deep, progress=progress)
    found.problems += _seal_problems(found)
    return found


def _derived_problems(evidence: Evidence) -> Iterator[Problem]:
    """What is wrong with files that follow from others."""
    for name in evidence.derivation.names:
        try:
            if evidence.is_sealed:
                if evidence.ways.digest(name) != evidence.digests[name]:
                    yield Problem(name, "is not the file that was sealed")
                continue
            data = evidence.ways.whole(name)
        except StoreError as error:
            yield file_problem(evidence.ways, name, error)
            continue
        try:
            is_right = evidence.derivation.holds(name, data)
        except StoreError as error:
            log.debug("%s cannot be checked: %s", name, error)
            continue
        if not is_right:
            yield Problem(name, "is not what follows from the plan")


def _all_shards(found: Examination, *, deep: bool, progress: Progress | None) -> Iterator[Problem]:
    plan = found.evidence.sound_plan
    everything = []
    for split, item in plan.splits.items():
        count = layout.shard_count(item.rows, plan.shard_rows)
        everything += [(split, shard) for shard in range(count)]
        found.facts[split] = {"rows": item.rows, "ok": 0, "shards": count, "skipped": []}
    done, total = 0, sum(shard_bytes(plan, *where) for where in everything)
    for where in everything:
        record = yield from _commit_problems(found, where)
        if record:
            objects = record["objects"]
            yield from shard_damage(found.evidence.ways, plan, where, objects, deep=deep)
        elif not found.evidence.is_sealed:
            yield from _inherited_problems(found.evidence, where, deep=deep)
        done += shard_bytes(plan, *where)
        if progress:
            progress(done, total)


def _commit_problems(
    found: Examination, where: tuple[str, int]
) -> Generator[Problem, None, Mapping[str, Any] | None]:
    """What is wrong with a commit record; returns it if nothing is."""
    evidence, name = found.evidence, layout.commit_object(*where)
    path = evidence.ways.path(name)
    try:
        data = evidence.ways.whole(name)
        record = files.parse_json(Path(path), data)
        _check_commit(evidence, where, data, record)
    except StoreError as error:
        problem = file_problem(evidence.ways, name, error, where)
        is_begun = evidence.is_sealed or problem.kind == "hidden" or os.path.lexists(path)
        if is_begun:
            yield problem
        else:
            found.missing.append(where)
        return None
    found.committed += 1
    facts = found.facts[where[0]]
    facts["ok"] += record["ok"]
    facts["skipped"] += [[row["row"], row["code"]] for row in record["skipped"]]
    return record


def _inherited_problems(
    evidence: Evidence, where: tuple[str, int], *, deep: bool
) -> Iterator[Problem]:
    """What is wrong with what an extension has of a shard before its new taps are committed."""
    ways, name = evidence.ways, layout.inherited_object(*where)
    if not os.path.lexists(ways.path(name)):
        return
    try:
        data = ways.whole(name)
        record = files.parse_json(Path(ways.path(name)), data)
    except StoreError as error:
        yield file_problem(ways, name, error, where)
        return
    plan = _inherited_plan(evidence.sound_plan, where, record)
    if not is_sound_commit(plan, *where, record) or files.canonical_json(record) != data:
        yield Problem(name, "is not a sound commit record", shard=where)
        return
    yield from shard_damage(ways, plan, where, record["objects"], deep=deep)


def _inherited_plan(plan: Plan, where: tuple[str, int], record: Mapping[str, Any]) -> Plan:
    """The plan at the taps that a record says are there; those of a record that is none: all."""
    split, shard = where
    objects = record.get("objects")
    taps = [
        tap
        for tap in plan.spec.taps
        if isinstance(objects, dict) and layout.tokens_object(split, tap, shard) in objects
    ]
    return plan.with_taps(tuple(taps)) if taps else plan


def _check_commit(
    evidence: Evidence, where: tuple[str, int], data: bytes, record: Mapping[str, Any]
) -> None:
    name = layout.commit_object(*where)
    what, is_sealed = None, evidence.is_sealed
    if is_sealed and files.sha256(data) != evidence.digests[name]:
        what = "is not the file that was sealed"
    elif not (is_sealed or files.canonical_json(record) == data) or not is_sound_commit(
        evidence.sound_plan, *where, record
    ):
        # A seal can be forged, too, to vouch for what is none.
        what = "is not a sound commit record"
    if what:
        raise StoreError(evidence.ways.path(name), what, "losa repair says what it would do")


def _seal_problems(found: Examination) -> Iterator[Problem]:
    """What is wrong with the seal; what it sums up is looked at when all that it lists is sound."""
    damage, seal = found.evidence.seal_damage, found.evidence.seal
    if damage:
        shards = sum(facts["shards"] for facts in found.facts.values())
        is_missing = damage.what == IS_MISSING and shards
        counts = f" ({found.committed} of {shards} shards are committed)" if is_missing else ""
        yield replace(damage, what=damage.what + counts)
    elif seal and not found.problems and seal.get("splits") != found.facts:
        yield Problem(layout.SEALED_OBJECT, "does not match the store")
