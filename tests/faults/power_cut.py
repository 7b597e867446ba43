"""What must hold after a power cut."""

from __future__ import annotations

import shutil
from pathlib import Path

from losa.store import Plan, layout
from losa.store.damage import content_damage, size_damage
from tests.faults.crash_states import State, restore
from tests.faults.recordings import NAME, Recording
from tests.faults.tiny import SPLIT, process, reads_as_written, write_store
from tests.store.build import tree


def check(state: State, recording: Recording, memory: Path) -> None:
    """Read what is left, look for what was promised, and run the same command again."""
    base = memory / "state"
    base.mkdir()
    restore(state.image, base)
    path, plan = base / NAME, recording.plan
    with process(boot="second", start=9):
        is_whole = reads_as_written(path, plan)
        for promise in state.promised:
            if "/commits/" in promise:
                assert damage(path, plan, int(Path(promise).stem)) is None, state.acts
            elif promise == f"{NAME}/{layout.SEALED_OBJECT}":
                assert is_whole, state.acts
                assert tree(path) == recording.tree, state.acts
            elif promise == NAME:
                assert path.exists(), state.acts
        write_store(path, plan)
        have = tree(path)
        assert have.keys() == recording.tree.keys(), state.acts
        assert [name for name in have if have[name] != recording.tree[name]] == [], state.acts
        assert reads_as_written(path, plan), state.acts
    shutil.rmtree(base)


def damage(path: Path, plan: Plan, shard: int) -> str | None:
    """What is wrong with a shard that was said to be committed."""
    commit = path / layout.commit_object(SPLIT, shard)
    if not commit.exists():
        return "is not committed"
    return size_damage(path, commit) or content_damage(path, plan, SPLIT, shard)
