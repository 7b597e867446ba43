"""Stores of a part of a whole plan, and their extensions, filled from one oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from losa.store import (
    Plan,
    StoreWriter,
    create_store,
    system,
)
from losa.store.extending import (
    begin_extension,
)
from tests.store.build import (
    features,
    samples,
    small_plan,
    statistics,
    token_scales,
)

ROWS = {"train": 20, "val": 8}


def narrow(plan: Plan, taps: tuple[int, ...], splits: tuple[str, ...]) -> Plan:
    """A plan at fewer taps and splits."""
    return replace(plan.with_taps(taps), splits={name: plan.splits[name] for name in splits})


def fill(path: Path, plan: Plan, *, shards: int = 10**6, skipped: tuple[int, ...] = ()) -> None:
    """Write the missing taps of missing shards, their values those of the whole plan's oracle."""
    with StoreWriter(path, durable=False) as writer:
        for number, task in enumerate(writer.claimed()):
            if number == shards:
                return
            taps = [plan.spec.taps.index(tap) for tap in writer.missing_taps(task)]
            rows = slice(task.first, task.stop)
            planes, scales = features(plan, task.split), token_scales(plan, task.split)
            status = np.ones(task.rows, np.uint8)
            with writer.shard(task) as shard:
                for row in skipped:
                    if task.split == "train" and task.first <= row < task.stop:
                        status[row - task.first] = 2
                        shard.skip(row, f"train/{row:03d}", 2, "is missing")
                shard.write(
                    [planes[tap, rows] for tap in taps],
                    status,
                    None if scales is None else [scales[tap, rows] for tap in taps],
                )
        writer.seal()


def begun(path: Path, plan: Plan) -> None:
    """Create the empty store of a part of the whole plan, with that part of its statistics."""
    whole = small_plan(ROWS, plan.spec.dtype)
    taps = [whole.spec.taps.index(tap) for tap in plan.spec.taps]
    arrays = {name: values[taps] for name, values in statistics(whole).items()}
    listed = {name: samples(whole)[name] for name in plan.splits}
    if path.exists():
        begin_extension(path, plan, listed, arrays, durable=False)
    else:
        create_store(path, plan, listed, arrays, durable=False)


def small(path: Path, plan: Plan, *, skipped: tuple[int, ...] = ()) -> Path:
    """A sealed store of a part of the whole plan."""
    begun(path, plan)
    fill(path, small_plan(ROWS, plan.spec.dtype), skipped=skipped)
    return path


class Unsynced(system.System):
    """Leaves out what makes tests slow on a disk."""

    def sync_folder(self, path: Path) -> None:
        assert path.is_dir()

    def sync_file(self, path: Path) -> None:
        assert path.is_file()


def names(folder: Path) -> list[str]:
    """What lies in a folder, but for other tests' stores."""
    return sorted(entry.name for entry in folder.iterdir() if entry.name != "one")
