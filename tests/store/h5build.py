"""HDF5 files for tests: of small stores, and changed in ways that losa never writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from losa.store import Plan, StoreWriter
from losa.store.exchange import export_store
from tests.store.build import begin_store, features, small_plan, small_store, token_scales

SKIPPED = {"train": {3: 2, 9: 5, 19: 3}, "val": {0: 4}}
"""Rows without features in :func:`holed_store`, and the codes of the reasons."""


def h5_file(path: Path, plan: Plan | None = None) -> Path:
    """The file of a small store, exported."""
    store = small_store(path.with_suffix(".zarr"), plan or small_plan())
    export_store(store, path)
    return path


def holed_store(path: Path, plan: Plan) -> Path:
    """A sealed store of a plan with skipped rows, which are zeros."""
    begin_store(path, plan)
    with StoreWriter(path, durable=False) as writer:
        for task in writer.claimed():
            rows = range(task.first, task.stop)
            holes = SKIPPED[task.split]
            status = np.array([holes.get(row, 1) for row in rows], np.uint8)
            planes, scales = features(plan, task.split), token_scales(plan, task.split)
            planes[:, list(holes)] = 0
            if scales is not None:
                scales[:, list(holes)] = 0
            with writer.shard(task) as shard:
                span = slice(task.first, task.stop)
                given = None if scales is None else list(scales[:, span])
                shard.write(list(planes[:, span]), status, given)
                for row in set(rows) & set(holes):
                    key = f"{task.split}/é{row}"
                    shard.skip(row, key, holes[row], f"row {row} is\nno picture")
        writer.seal()
    return path


def changed(path: Path, act: Callable[[Any], object], *, sign: bool = False) -> Path:
    """Change a file with h5py; ``sign`` gives it the digest that it then should have."""
    with h5py.File(path, "r+") as file:
        act(file)
        if sign:
            set_text(file, "digest", digest(file))
    return path


def replaced(name: str, **options: Any) -> Callable[[Any], object]:
    """Put another data set in the place of one."""

    def act(file: Any) -> None:
        found = file[name]
        wanted = {"shape": found.shape, "dtype": found.dtype, **options}
        del file[name]
        file.create_dataset(name, **wanted)

    return act


def set_text(file: Any, name: str, text: str) -> None:
    """Give an attribute of the root another text."""
    data = text.encode()
    kind = h5py.string_dtype("utf-8", len(data))
    file.attrs.create(name, np.array(data, dtype=kind), dtype=kind)


def set_json(name: str, value: object) -> Callable[[Any], object]:
    """Give an attribute of the root another JSON value."""
    return lambda file: set_text(file, name, canonical(value))


def digest(file: Any) -> str:
    """The digest as docs/hdf5.md says, with h5py, json and hashlib alone."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    sums = {
        name: hashlib.sha256(file[name][()].tobytes()).hexdigest()
        for name in names
        if name.split("/")[1] not in ("tokens", "scale")
    }
    texts = {name: file.attrs[name].decode() for name in ("format", "plan", "skipped", "source")}
    return hashlib.sha256(canonical({"attributes": texts, "data_sets": sums}).encode()).hexdigest()


def canonical(value: object) -> str:
    """Canonical JSON, as docs/store-format.md says."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n"
