"""F11: any sequence of writing, killing, damaging, mending and cleaning, held against an oracle.

The oracle is the tree that an uninterrupted run leaves, and a list of what was damaged.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from losa.errors import LockedError, LosaError
from losa.features import StoreDtype
from losa.store import Plan, StoreWriter, files, layout, open_store
from losa.store.cleaning import clean_store
from losa.store.damage import shard_objects
from losa.store.derived import first_root_bytes
from losa.store.extending import (
    begin_extension,
    begun_extension,
    extension_of,
    finish_extension,
)
from losa.store.plan import check_same_identity
from losa.store.repair import repair_store
from losa.store.skeleton import spared_objects
from losa.store.verify import verify_store
from tests.faults.content import (
    Content,
    Seen,
    append_rows,
    begin,
    content_of,
    kept,
    look,
    part_of,
    refusals,
    untrue,
    write_missing,
    write_shard,
    written,
)
from tests.faults.figures import publish
from tests.faults.mortal import mortal
from tests.faults.tiny import process
from tests.store.build import small_plan, tree

QUICK_RUNS, RUNS = 12, 300
QUICK_STEPS, STEPS = 12, 25
PASSING: Final = (layout.TMP_FOLDER, ".losa/claims/", layout.UNSYNCED_OBJECT)


class StopError(Exception):
    """Stands for whatever ends a run without killing it."""


@cache
def oracle(dtype: StoreDtype, *, is_large: bool) -> tuple[Content, dict[str, bytes], Seen]:
    """What is written, the tree that it makes, and what is read of it."""
    content = content_of(small_plan({"train": 5, "val": 2}, dtype, shard_rows=3))
    if not is_large:
        content = part_of(content, ("train",), (3,))
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder) / "s.zarr", content)
        return content, tree(path), look(path)


class StoreMachine(RuleBasedStateMachine):
    """One store and everything that can happen to it."""

    def __init__(self) -> None:
        super().__init__()
        shared = Path("/dev/shm")
        self.folder = tempfile.mkdtemp(dir=shared if shared.is_dir() else None)
        self.path = Path(self.folder) / "s.zarr"
        self.life = 1
        self.damaged: set[str] = set()
        self.committed: set[tuple[str, int]] = set()

    def teardown(self) -> None:
        try:
            if self.path.exists():
                self.mend()
                assert tree(self.path) == self.want
        finally:
            shutil.rmtree(self.folder)

    @initialize(
        dtype=st.sampled_from(("float16", "int8")),
        is_large=st.booleans(),
        acts=st.integers(0, 400),
        deaths=st.lists(st.integers(0, 100), max_size=3),
    )
    def create(self, dtype: StoreDtype, is_large: bool, acts: int, deaths: list[int]) -> None:
        self.dtype = dtype
        self.expect(is_large=is_large)
        with self.alive(), mortal(acts):
            begin(self.path, self.content)
        if not self.path.exists():
            with self.alive():
                begin(self.path, self.content)
        for death in deaths:
            self.resume_and_die(death)

    def expect(self, *, is_large: bool) -> None:
        """Hold the store against the oracle of a plan from now on."""
        self.content, self.want, self.seen = oracle(self.dtype, is_large=is_large)
        self.plan: Plan = self.content.plan
        self.is_large = is_large

    @rule(shards=st.integers(0, 2))
    def write(self, shards: int) -> None:
        self.extract(shards)

    @rule()
    def resume(self) -> None:
        self.extract(None)

    @rule(acts=st.integers(0, 250))
    def die_while_resuming(self, acts: int) -> None:
        self.resume_and_die(acts)

    def resume_and_die(self, acts: int) -> None:
        with mortal(acts):
            self.extract(None)
        self.note_repairs()

    @rule(rows=st.integers(0, 2))
    def break_off_within_a_shard(self, rows: int) -> None:
        """Not killed, but stopped by an error, such as an image that cannot be read."""
        with suppress(StopError, LosaError), self.alive():
            self.check_plan()
            with StoreWriter(self.path, durable=False) as store:
                for task in store.claimed():
                    with store.shard(task) as shard:
                        some = slice(task.first, min(task.stop, task.first + rows))
                        append_rows(shard, self.content, task.split, some)
                        raise StopError

    @precondition(lambda self: not self.damaged)
    @rule()
    def write_with_a_second_writer_beside(self) -> None:
        with self.alive(), StoreWriter(self.path, durable=False) as first:
            if first.is_sealed:
                return
            task = next(first.claimed(), None)
            with StoreWriter(self.path, durable=False) as second:
                for other in second.claimed():
                    assert other != task
                    write_shard(second, other, self.content)
                if task is not None:
                    with pytest.raises(LockedError):
                        second.seal()
            if task is not None:
                write_shard(first, task, self.content)
        self.note_commits()

    @precondition(lambda self: not self.is_large)
    @rule(acts=st.integers(0, 600))
    def extend_and_die_and_extend(self, acts: int) -> None:
        """By a split and a tap; until it is done, the sealed store is there as it was."""
        self.mend()
        with self.alive(), mortal(acts):
            self.extend()
        if self.path.exists():
            assert look(self.path) in (self.seen, oracle(self.dtype, is_large=True)[2])
        with self.alive():
            self.extend()
        self.expect(is_large=True)
        self.note_commits()
        assert tree(self.path) == self.want

    def extend(self) -> None:
        large, _, _ = oracle(self.dtype, is_large=True)
        finish_extension(self.path)
        if open_store(self.path).plan.digest == large.plan.digest:
            return
        if begun_extension(self.path, large.plan) is None:
            begin_extension(self.path, large.plan, large.samples, large.statistics, durable=False)
        write_missing(extension_of(self.path), large)
        finish_extension(self.path)

    @precondition(lambda self: len(self.damaged) < 3)
    @rule(data=st.data())
    def flip_a_bit(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.candidates()))
        content = bytearray((self.path / name).read_bytes())
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
        (self.path / name).write_bytes(content)
        self.damaged.add(name)

    @precondition(lambda self: len(self.damaged) < 3)
    @rule(data=st.data())
    def delete_a_file(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.candidates()))
        (self.path / name).unlink()
        self.damaged.add(name)

    @rule()
    def verify(self) -> None:
        named = {problem.path for problem in verify_store(self.path)}
        if self.may_be_mended():
            rest = set(self.damaged)
            for where in self.shards():
                hurt = self.objects(where) & self.damaged
                rest -= hurt
                is_told = (
                    self.is_sound_seal() or (self.path / layout.commit_object(*where)).exists()
                )
                # Several files of a shard vouch for one another; without a record, none of them.
                found = hurt & named
                assert not (hurt and is_told) or (found if len(hurt) > 1 else found == hurt)
            assert rest <= named
        if not self.damaged and layout.SEALED_OBJECT not in named:
            # Who was killed just after it gave the seal its name has left the temporary one.
            assert all(name.startswith(PASSING) for name in named)

    @rule(acts=st.integers(0, 60))
    def repair_and_die(self, acts: int) -> None:
        with suppress(LosaError), self.alive(), mortal(acts):
            repair_store(self.path, act=True)
        self.note_repairs()

    @rule()
    def mend(self) -> None:
        if not self.may_be_mended():
            with suppress(LosaError), self.alive():
                repair_store(self.path, act=True)
            self.note_repairs()
            self.restore()
        with self.alive():
            repair_store(self.path, act=True)
        self.note_repairs()
        assert not self.damaged, self.damaged
        with self.alive():
            write_missing(self.path, self.content)
            clean_store(self.path, older_than_days=0, act=True)
        self.note_commits()
        assert tree(self.path) == self.want

    @rule()
    def clean(self) -> None:
        try:
            with self.alive():
                clean_store(self.path, older_than_days=0, act=True)
        except LosaError:
            assert self.damaged

    @rule()
    def read(self) -> None:
        seen = look(self.path)
        assert untrue(seen, self.seen) == []
        assert {error.exit_code for error in refusals(seen)} <= {4, 6}
        if self.is_sealed() and not self.damaged:
            assert seen == self.seen

    @invariant()
    def what_is_committed_and_undamaged_stays(self) -> None:
        if not self.path.exists():
            return
        found = kept(self.path)
        for where in self.committed:
            # Of a shard that is damaged, repair sets sound files aside too: it is written anew.
            for name in self.objects(where) if not self.objects(where) & self.damaged else ():
                assert found.get(name) == self.want[name], name

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Another process than all before it, none of which lives."""
        self.life += 1
        with process(start=self.life):
            yield

    def extract(self, shards: int | None) -> None:
        """What ``losa extract`` does with a store that is there; damage may be in its way."""
        try:
            with self.alive():
                self.check_plan()
                write_missing(self.path, self.content, shards)
        except LosaError:
            assert self.damaged
        self.note_repairs()

    def check_plan(self) -> None:
        place = self.path / layout.PLAN_OBJECT
        check_same_identity(self.path, self.plan, Plan.from_json(files.read_json(place), place))

    def shards(self) -> set[tuple[str, int]]:
        return {
            (split, shard)
            for split, item in self.plan.splits.items()
            for shard in range(layout.shard_count(item.rows, self.plan.shard_rows))
        }

    def objects(self, where: tuple[str, int]) -> set[str]:
        return {*shard_objects(self.plan, *where), layout.commit_object(*where)}

    def is_sealed(self) -> bool:
        return (self.path / layout.SEALED_OBJECT).exists()

    def is_sound_seal(self) -> bool:
        return self.is_sealed() and layout.SEALED_OBJECT not in self.damaged

    def may_be_mended(self) -> bool:
        """Whether all that is damaged has a sound copy, and a seal or a plan tells which it is."""
        copies = [{name, layout.spare_object(name)} for name in spared_objects(self.plan)]
        if self.is_sound_seal():
            return not any(both <= self.damaged for both in copies)
        return not any(both & self.damaged for both in copies)

    def candidates(self) -> list[str]:
        """Files whose damage matters: no writer is going to put others in their place.

        Of two copies only one is damaged: without a seal, nothing could tell that both are.
        """
        away = {name for where in self.shards() - self.committed for name in self.objects(where)}
        for name in spared_objects(self.plan):
            copies = {name, layout.spare_object(name)}
            away |= copies if copies & self.damaged else set()
        return [
            name
            for name in sorted(kept(self.path))
            if not name.startswith(PASSING) and name not in away | self.damaged
        ]

    def note_commits(self) -> None:
        self.committed |= {
            where for where in self.shards() if (self.path / layout.commit_object(*where)).exists()
        }

    def note_repairs(self) -> None:
        """What is as it was written is damaged no more; what was withdrawn had to be damaged."""
        found = kept(self.path)
        allowed = {self.want[layout.ROOT_OBJECT], first_root_bytes(self.plan)}
        for where in self.shards():
            commit = layout.commit_object(*where)
            if commit not in found:
                assert where not in self.committed or self.objects(where) & self.damaged, where
                self.committed.discard(where)
                self.damaged -= self.objects(where)
                if self.is_sealed():  # a repair was killed just before it took the seal away
                    self.damaged.add(commit)
        self.damaged = {
            name
            for name in self.damaged
            if found.get(name) != self.want[name]
            and not (name == layout.ROOT_OBJECT and found.get(name) in allowed)
            and not (name == layout.SEALED_OBJECT and name not in found)
        }
        self.note_commits()

    def restore(self) -> None:
        """What a person does where nothing tells which copy is right: bring it from elsewhere."""
        for name in list(self.damaged):
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_bytes(self.want[name])
            self.damaged.discard(name)


@pytest.mark.parametrize(
    ("runs", "steps"),
    [(QUICK_RUNS, QUICK_STEPS), pytest.param(RUNS, STEPS, marks=pytest.mark.faults, id="whole")],
)
@pytest.mark.timeout(3600)
def test_whatever_happens_to_a_store_it_is_never_wrong_and_can_be_made_whole(
    runs: int, steps: int
) -> None:
    profile = settings(
        max_examples=runs,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=runs == QUICK_RUNS,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    run_state_machine_as_test(StoreMachine, settings=profile)
    if runs == RUNS:
        publish("f11", {"runs": runs, "steps": steps, "violations": 0})
