"""The golden stores: what a format was when it was released, kept as files for ever.

``python -m tests.faults.golden`` writes those that are missing and never touches one that is there:
a golden store that today's code cannot read, or would write otherwise, is a change of the format.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from losa.features import StoreDtype, TokenGrid
from losa.store import Plan, Store, files, layout, open_store
from tests.faults.content import Content, content_of, written
from tests.store.build import small_plan, tree

FOLDER: Final = Path(__file__).parents[1] / "data/golden"
MAX_BYTES: Final = 200_000
STORE, EXPECTED = "store/", "expected/"
_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)
_ROWS: Final = {"train": 5, "val": 3}


def golden_contents() -> dict[str, Content]:
    """What each of them holds, by its name."""
    exponents = replace(_plan("float16"), exponents=(3, 0))
    video = replace(small_plan(_ROWS, shard_rows=3).spec, grid=TokenGrid(2, 2, time=3))
    return {
        "float16": content_of(exponents),
        "int8": content_of(_plan("int8")),
        "bfloat16": content_of(_plan("bfloat16")),
        "float32": content_of(_plan("float32")),
        "skipped": content_of(_plan("float16"), {"train": (0, 4), "val": (1,)}),
        "video": content_of(replace(_plan("float16"), spec=video)),
        "views": content_of(small_plan(_ROWS, shard_rows=3, views=3)),
    }


def _plan(dtype: StoreDtype) -> Plan:
    return small_plan(_ROWS, dtype, shard_rows=3)


def pack(path: Path, content: Content) -> bytes:
    """A sealed store, and beside it what must be read from it, as one zip of fixed bytes."""
    parts = {f"{STORE}{name}": data for name, data in tree(path).items()}
    parts |= {f"{EXPECTED}{name}.npy": _npy(array) for name, array in _arrays(content).items()}
    parts[f"{EXPECTED}facts.json"] = files.canonical_json(facts_of(open_store(path)))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(parts):
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), parts[name])
    return packed.getvalue()


def facts_of(store: Store) -> dict[str, Any]:
    """What a store says of itself."""
    samples = {
        name: [[item.key, item.path, item.label] for item in store.split(name).samples]
        for name in store.splits
    }
    return {"store_id": store.store_id, "plan": store.plan.to_json(), "samples": samples}


def _arrays(content: Content) -> dict[str, np.ndarray]:
    arrays = {f"calib/{name}": array for name, array in content.statistics.items()}
    for split in content.plan.splits:
        arrays[f"{split}/planes"] = content.planes[split]
        arrays[f"{split}/status"] = content.status(split)
        if split in content.scales:
            arrays[f"{split}/scales"] = content.scales[split]
    return arrays


def _npy(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    np.save(data, array, allow_pickle=False)
    return data.getvalue()


def unpack(archive_path: Path, folder: Path) -> tuple[dict[str, np.ndarray], Mapping[str, Any]]:
    """Lay a golden store into a folder that is missing; returns what must be read from it."""
    arrays, facts = {}, {}
    with zipfile.ZipFile(archive_path) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            if name.startswith(STORE):
                place = folder / name.removeprefix(STORE)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            elif name.endswith(".npy"):
                key = name.removeprefix(EXPECTED).removesuffix(".npy")
                arrays[key] = np.load(io.BytesIO(data), allow_pickle=False)
            else:
                facts = json.loads(data)
    return arrays, facts


def content_again(path: Path, arrays: Mapping[str, np.ndarray]) -> Content:
    """The content that a golden store was written from, found in it and beside it."""
    store = open_store(path)
    skipped: dict[str, list[Any]] = {name: [] for name in store.splits}
    for name in store.splits:
        for commit in sorted((path / layout.commit_object(name, 0)).parent.iterdir()):
            skipped[name] += files.read_json(commit)["skipped"]
    found = store.calibration(store.spec.taps)
    names = [key.removeprefix("calib/") for key in arrays if key.startswith("calib/")]
    return Content(
        store.plan,
        {name: arrays[f"{name}/planes"] for name in store.splits},
        {name: arrays[f"{name}/scales"] for name in store.splits if f"{name}/scales" in arrays},
        {name: store.split(name).samples for name in store.splits},
        {name: getattr(found, name) for name in names},
        skipped,
    )


def main() -> None:
    """Write the golden stores that are missing."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept = []
    for name, content in golden_contents().items():
        place = FOLDER / f"{name}.zip"
        if place.exists():
            kept.append(place.name)
            continue
        with TemporaryDirectory() as folder:
            data = pack(written(Path(folder) / "s.zarr", content), content)
        assert len(data) <= MAX_BYTES, f"{name} is {len(data)} bytes"
        files.write_atomic(place, data)
    if kept:
        raise SystemExit(f"kept as they are, for golden stores never change: {', '.join(kept)}")


if __name__ == "__main__":
    main()
