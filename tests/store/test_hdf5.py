"""Claims of losa.store.hdf5."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from losa.features import StoreDtype
from losa.store.exchange import export_store
from losa.store.hdf5 import Array, arrays_of, empty_file
from tests.house_rules import ROOT
from tests.store.build import features, samples, small_plan, small_store, statistics, token_scales
from tests.store.h5build import digest, h5_file

PAGE = (ROOT / "docs/hdf5.md").read_text(encoding="utf-8")


def true_features(dtype: StoreDtype, split: str) -> np.ndarray:
    """Features ``[k n l d]`` in true units, by the equations of the format's page."""
    plan = small_plan(dtype=dtype)
    raw, scales = features(plan, split), token_scales(plan, split)
    if dtype == "bfloat16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    values: np.ndarray = raw.astype(np.float32)
    if scales is not None:
        mean, channel = (statistics(plan)[name][:, None, None] for name in ("mean", "channel"))
        values = values * scales.astype(np.float32)[..., None] * channel + mean
    return values


@pytest.mark.parametrize("dtype", ["float16", "int8", "bfloat16", "float32"])
def test_the_example_of_the_formats_page_reads_a_file(tmp_path: Path, dtype: StoreDtype) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "hdf5.md", "exec"), names)
    plan = small_plan(dtype=dtype)
    path = h5_file(tmp_path / "a.h5", plan)
    for split in plan.splits:
        listed = samples(plan)[split]
        with h5py.File(path) as file:
            order = file[f"{split}/sample/source_index"][:]
        for number, tap in enumerate(plan.spec.taps):
            found, keys = names["read_tap"](path, split, tap)
            np.testing.assert_array_equal(found, true_features(dtype, split)[number])
            assert keys == [listed[index].key for index in order]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_file_holds_what_the_page_lists_in_contiguous_data_sets(
    tmp_path: Path, dtype: StoreDtype
) -> None:
    found: dict[str, str] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            assert item.chunks is None
            assert item.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
            found[name] = item.dtype.str

    with h5py.File(h5_file(tmp_path / "a.h5", small_plan(dtype=dtype))) as file:
        file.visititems(note)
        assert file["train/tokens/tap01"].attrs["dtype"] == dtype.encode()
        assert json.loads(file.attrs["format"]) == {"major": 1, "minor": 0}
        assert file.attrs["digest"].decode() == digest(file)
    kinds = {"tokens": {"float16": "<f2", "int8": "|i1"}[dtype], "check": "<u4"}
    columns = {"source_index": "<i8", "label": "<i4", "view": "|u1", "status": "|u1"}
    want: dict[str, str] = {}
    for split, width in (("train", 9), ("val", 7)):
        for tap in ("tap01", "tap03"):
            want |= {f"{split}/{kind}/{tap}": item for kind, item in kinds.items()}
            want |= {f"{split}/scale/{tap}": "<f2"} if dtype == "int8" else {}
        want |= {f"{split}/sample/{name}": item for name, item in columns.items()}
        want |= {f"{split}/sample/key": f"|S{width}", f"{split}/sample/path": f"|S{width + 4}"}
    names = ("mean", "std", "absmax", *(["channel"] if dtype == "int8" else []))
    want |= {f"calib/{tap}/{name}": "<f4" for tap in ("tap01", "tap03") for name in names}
    assert found == want


def test_no_object_of_a_file_keeps_a_time(tmp_path: Path) -> None:
    export_store(small_store(tmp_path / "s.zarr"), tmp_path / "a.h5")
    kept = []
    with h5py.File(tmp_path / "a.h5") as file:
        file.visititems(
            lambda name, item: kept.append((name, item.id.get_create_plist().get_obj_track_times()))
        )
    assert len(kept) > 10
    assert not any(is_kept for _, is_kept in kept)


def test_the_same_store_gives_the_same_bytes(tmp_path: Path) -> None:
    store = small_store(tmp_path / "s.zarr")
    for name in "ab":
        export_store(store, tmp_path / f"{name}.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_texts_of_any_length_and_large_data_sets_have_room(tmp_path: Path) -> None:
    plan = dataclasses.replace(small_plan({"train": 40_000}), classes=("é" * 100_000,))
    texts = {"plan": json.dumps(plan.to_json()), "digest": "0" * 64}
    arrays = arrays_of(plan, {"train/sample/key": 7})
    empty = empty_file(plan, texts, arrays)
    path = tmp_path / "a.h5"
    with path.open("wb") as file:
        file.truncate(empty.nbytes)
        for offset, piece in empty.pieces:
            file.seek(offset)
            file.write(piece)
    with h5py.File(path) as found:
        assert found.attrs["plan"].decode() == texts["plan"]
        for name, item in arrays.items():
            assert (found[name].shape, found[name].dtype) == item
            assert found[name].id.get_offset() == empty.offsets[name]
    large = [name for name, item in arrays.items() if item.nbytes >= 2**16]
    assert large
    assert all(empty.offsets[name] % 4096 == 0 for name in large)
    assert sum(len(piece) for _, piece in empty.pieces) < 2**21


def test_the_bytes_of_a_data_set_are_those_of_its_values() -> None:
    item = Array((3, 4, 5), np.dtype("S7"))
    assert item.nbytes == np.zeros(*item).nbytes
