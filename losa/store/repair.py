"""Mending a store: what can be derived is written again, what cannot is set aside to be extracted.

What to do is worked out from a deep verification before anything is touched, and done in an order
in which a crash at any moment leaves a store that a second repair mends.
Source: docs/store-format.md, section "Verification and repair".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from losa.errors import StoreError
from losa.features import is_whole
from losa.store import files, layout, lock, system
from losa.store.damage import Problem, held_rows, record_checks, record_objects, record_sizes
from losa.store.derived import first_root_bytes, status_bytes
from losa.store.evidence import Evidence, gather_evidence
from losa.store.plan import Plan
from losa.store.seal import seal_store
from losa.store.skeleton import spared_objects
from losa.store.verify import Examination, Progress, examine_store

Shard = tuple[str, int]
_SEALED: Final = layout.SEALED_OBJECT
_ROOM: Final = (".losa", layout.QUARANTINE_FOLDER)


@dataclass(frozen=True, slots=True)
class Action:
    """One step of a repair: what is done to which file, and why."""

    act: Literal["quarantine", "write", "seal"]
    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair has done, or would do.

    ``extract`` are the shards that extraction has to compute afterwards. ``store_id`` is that of
    the sealed store, nothing while it is not sealed; ``old_id`` is what it was before.
    """

    problems: int
    actions: tuple[Action, ...]
    extract: tuple[Shard, ...]
    acted: bool
    old_id: str | None
    store_id: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``changed_id`` says that a sealed store is another one now."""
        ids = (self.old_id, self.store_id)
        return {
            "problems": self.problems,
            "actions": [asdict(action) for action in self.actions],
            "extract": [list(where) for where in self.extract],
            "old_id": self.old_id,
            "store_id": self.store_id,
            "changed_id": None not in ids and len(set(ids)) > 1,
        }


@dataclass(frozen=True, slots=True)
class Step:
    """An action, and for a file that is written, how its content is got."""

    action: Action
    content: Callable[[], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Mending:
    """All steps in their order, and the shards that are missing when they are done."""

    steps: tuple[Step, ...]
    extract: tuple[Shard, ...]


def repair_store(path: Path, *, act: bool = False, progress: Progress | None = None) -> Repair:
    """Mend a store, or say how: nothing is changed unless ``act``.

    ``progress`` is told bytes verified and bytes in all.

    Raises:
        StoreError: there is no store, or what nothing else can tell is damaged in both its copies;
            nothing was touched.
        LockedError: somebody writes, mends or cleans the store.
        ResourceError: the disk is full or fails.
    """
    gather_evidence(path).sound_plan  # noqa: B018 -- refuses what cannot be mended
    with lock.alone(path):
        found = examine_store(path, deep=True, progress=progress)
        mending = plan_mending(found)
        old_id = files.sha256(files.read_file(path / _SEALED)) if found.evidence.seal else None
        actions = tuple(step.action for step in mending.steps)
        store_id = None if any(action.path == _SEALED for action in actions) else old_id
        if act:
            with files.named(path):
                store_id = _act(found.evidence, mending.steps) or store_id
    return Repair(len(found.problems), actions, mending.extract, act, old_id, store_id)


def plan_mending(found: Examination) -> Mending:
    """Work out what mends what a deep verification has found.

    The seal goes last, for until then it vouches for what was not mended yet.

    Raises:
        StoreError: what nothing else can tell is damaged in both its copies.
    """
    strays = [_quarantine(problem) for problem in found.problems if problem.kind == "stray"]
    for step in strays:
        if step.action.path in _ROOM:
            raise StoreError(found.evidence.ways.path(step.action.path), step.action.why, "move it")
    written = list(_written(found))
    mended: list[Step] = []
    withdrawn: list[Step] = []
    lost: set[Shard] = set()
    for where, problems in _by_shard(found):
        if _is_lost(found.evidence, where, problems):
            lost.add(where)
            withdrawn += _withdrawn(found.evidence, where, problems)
        else:
            mended += _mended(found.evidence, where, problems)
    seal = _seal_steps(found, written, is_lost=bool(lost))
    steps = (*strays, *written, *mended, *withdrawn, *seal)
    return Mending(steps, tuple(sorted(lost.union(found.missing))))


def _written(found: Examination) -> Iterator[Step]:
    """Files that follow from others, and those that there is a second copy of."""
    evidence = found.evidence
    originals = spared_objects(evidence.sound_plan)
    copies = {name: item for item in originals for name in (item, layout.spare_object(item))}
    derived = set(evidence.derivation.names)
    for problem in found.problems:
        name = problem.path
        if problem.kind == "stray":
            continue
        if name in copies:
            right = evidence.right_copy(copies[name])
            yield from _write(evidence, problem, partial(evidence.ways.whole, right))
        elif name in derived:
            yield from _write(evidence, problem, partial(_derive, evidence, name))


def _derive(evidence: Evidence, name: str) -> bytes:
    if name == layout.ROOT_OBJECT and not evidence.is_sealed:
        return first_root_bytes(evidence.sound_plan)
    return evidence.derivation.derive(name)


def _is_lost(evidence: Evidence, where: Shard, problems: Iterable[Problem]) -> bool:
    """Whether a shard has to be extracted again: records or the commit record are damaged.

    What an extension has inherited, and not committed, is not worth more than that either.
    """
    plan, commit = evidence.sound_plan, layout.commit_object(*where)
    if not os.path.lexists(evidence.ways.path(commit)):
        return True
    names = {name for tap in plan.spec.taps for name in _records(plan, where, tap)}
    return any(problem.path in {*names, commit} for problem in problems)


def _withdrawn(evidence: Evidence, where: Shard, problems: list[Problem]) -> Iterator[Step]:
    """Set aside what is damaged of a shard, then its commit records; what is sound stays.

    The one that an extension inherited goes too: it would vouch for files that are no more.
    """
    named = {problem.path for problem in problems}
    records = (layout.commit_object(*where), layout.inherited_object(*where))
    vouching = [Problem(name, "its shard is damaged") for name in records if name not in named]
    for problem in [*problems, *vouching]:
        is_reached = evidence.ways.block(problem.path.rpartition("/")[0]) is None
        is_there = is_reached and os.path.lexists(evidence.ways.path(problem.path))
        if problem.kind == "file" and is_there:
            yield _quarantine(problem)


def _mended(evidence: Evidence, where: Shard, problems: Iterable[Problem]) -> Iterator[Step]:
    """Write check and status files of a sound shard again."""
    split, shard = where
    checks = {layout.check_object(split, tap, shard): tap for tap in evidence.sound_plan.spec.taps}
    for problem in problems:
        content = partial(_status_bytes, evidence, where)
        if problem.path in checks:
            content = partial(_check_bytes, evidence, where, checks[problem.path])
        yield from _write(evidence, problem, content)


def _check_bytes(evidence: Evidence, where: Shard, tap: int) -> bytes:
    plan = evidence.sound_plan
    paths = [Path(evidence.ways.path(name)) for name in _records(plan, where, tap)]
    checks = np.zeros(plan.shard_rows, dtype="<u4")
    held = held_rows(plan, *where)
    checks[:held] = record_checks(paths, record_sizes(plan), held)
    return checks.tobytes()


def _status_bytes(evidence: Evidence, where: Shard) -> bytes:
    path = Path(evidence.ways.path(layout.commit_object(*where)))
    return status_bytes(evidence.sound_plan, *where, files.read_json(path)["skipped"])


def _records(plan: Plan, where: Shard, tap: int) -> list[str]:
    return record_objects(plan, where[0], tap, where[1])


def _by_shard(found: Examination) -> Iterator[tuple[Shard, list[Problem]]]:
    """The problems of each shard that has any; they were found shard by shard."""
    mine = (problem for problem in found.problems if problem.shard)
    for where, problems in groupby(mine, key=lambda problem: problem.shard):
        assert where is not None
        yield where, list(problems)


def _seal_steps(found: Examination, written: Iterable[Step], *, is_lost: bool) -> Iterator[Step]:
    evidence = found.evidence
    damage = [problem.what for problem in found.problems if problem.path == _SEALED]
    why = damage[0] if damage else None
    if why is None and is_lost:
        why = "does not hold while shards are missing"
    if why is None and not all(_is_sealed(evidence, step) for step in written):
        why = "does not agree with what follows from the plan"
    if why is None:
        return
    if os.path.lexists(evidence.ways.path(_SEALED)):
        yield Step(Action("quarantine", _SEALED, why))
    if not (is_lost or found.missing):
        yield Step(Action("seal", _SEALED, "every shard is committed"))


def _is_sealed(evidence: Evidence, step: Step) -> bool:
    """Whether a file as it will be written is the one that was sealed."""
    if step.content is None:
        return True
    return files.sha256(step.content()) == evidence.digests[step.action.path]


def _quarantine(problem: Problem) -> Step:
    return Step(Action("quarantine", problem.path, problem.what))


def _write(evidence: Evidence, problem: Problem, content: Callable[[], bytes]) -> Iterator[Step]:
    if problem.kind == "file" and Path(evidence.ways.path(problem.path)).is_dir():
        yield _quarantine(problem)
    yield Step(Action("write", problem.path, problem.what), content)


def _act(evidence: Evidence, steps: Iterable[Step]) -> str | None:
    """Do it, and return the ``store_id`` if the store was sealed."""
    root = evidence.ways.root
    aside: Path | None = None
    for step in steps:
        name = step.action.path
        if step.action.act == "quarantine":
            aside = aside or _next_quarantine(root)
            _move(root / name, aside / name)
        elif step.content is not None:
            scratch = root / layout.TMP_FOLDER
            _make_folder(scratch)
            _make_folder((root / name).parent)
            files.write_atomic(root / name, step.content(), scratch=scratch)
        else:
            plan = evidence.sound_plan
            for split in plan.splits:
                _make_folder((root / layout.claim_object(split, 0)).parent)
            _make_folder(root / layout.TMP_FOLDER)
            return seal_store(root, plan, durable=True)
    return None


def _next_quarantine(root: Path) -> Path:
    """A folder for what this repair sets aside: the next number that is free."""
    folder = root / layout.QUARANTINE_FOLDER
    _make_folder(folder)
    numbers = [int(path.name) for path in folder.iterdir() if is_whole(path.name)]
    return folder / f"{max(numbers, default=0) + 1:04d}"


def _move(source: Path, target: Path) -> None:
    _make_folder(target.parent)
    system.current.rename(source, target)
    # The new name first: a power cut between the two leaves both, and loses nothing.
    system.current.sync_folder(target.parent)
    system.current.sync_folder(source.parent)


def _make_folder(path: Path) -> None:
    if not path.exists():
        _make_folder(path.parent)
        system.current.mkdir(path)
        system.current.sync_folder(path.parent)
