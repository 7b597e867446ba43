"""Claims of losa.store.foreign: arrays that are zarr's, and what zarr is not given."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, TransposeCodec, ZstdCodec

from losa.errors import StoreError, UsageError
from losa.features import Regime
from losa.store import Store, layout, open_store
from losa.store.foreign import ForeignRecords, check_document, has_foreign_records, is_raw
from losa.store.skeleton import metadata_documents
from tests.store.build import (
    features,
    samples,
    small_plan,
    small_store,
    statistics,
    token_scales,
)
from tests.store.rezarr import recompressed, rewritten

TOKENS = "train/tokens/tap03"
PLAN = small_plan(dtype="int8")
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("raw") / "s.zarr", PLAN)


@pytest.fixture(scope="module")
def foreign(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recompressed(raw, tmp_path_factory.mktemp("foreign") / "s.zarr")


def read(store: Store, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    out, scales = np.zeros((2, len(rows), 5, 6), np.int8), np.zeros((2, len(rows), 5), "<f2")
    store.split("train").read_into(np.array(rows, dtype=np.int64), (1, 3), out, scales)
    return out, scales


def is_foreign(store: Store) -> bool:
    return isinstance(store.split("train")._records, ForeignRecords)


def assert_as_written(store: Store) -> None:
    out, scales = read(store, [19, 3, 3, 8])
    want, factors = features(PLAN, "train"), token_scales(PLAN, "train")
    assert factors is not None
    np.testing.assert_array_equal(out, want[:, [19, 3, 3, 8]])
    np.testing.assert_array_equal(scales, factors[:, [19, 3, 3, 8]])


ENCODINGS: dict[str, dict[str, Any]] = {
    "zstd": {"compressors": ZstdCodec(level=3, checksum=True)},
    "blosc": {"compressors": BloscCodec(cname="lz4", shuffle="shuffle", typesize=1)},
    "gzip": {"compressors": GzipCodec(level=1)},
    "whole shards": {"chunks": (8, 5, 6), "compressors": None},
    "shards of zstd": {"chunks": (2, 5, 6), "shards": (8, 5, 6)},
    "channels first": {"chunks": (1, 5, 6), "filters": TransposeCodec(order=(0, 2, 1))},
    "parts of records": {"chunks": (4, 2, 3)},
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_tokens_of_any_known_encoding_are_found_out_and_read(
    raw: Path, tmp_path: Path, name: str
) -> None:
    path = recompressed(raw, tmp_path / "s.zarr", only="train/tokens", **ENCODINGS[name])
    assert_as_written(store := open_store(path))
    assert is_foreign(store)


def test_bytes_in_the_other_order_are_turned_round(tmp_path: Path) -> None:
    plan = small_plan()
    path = small_store(tmp_path / "r.zarr", plan)
    path = recompressed(path, tmp_path / "s.zarr", only=TOKENS, serializer=BytesCodec(endian="big"))
    out = np.zeros((2, 20, 5, 6), "<f2")
    open_store(path).split("train").read_into(np.arange(20), (1, 3), out)
    np.testing.assert_array_equal(out, features(plan, "train"))


def test_all_that_is_in_arrays_may_be_encoded_otherwise(foreign: Path) -> None:
    store = open_store(foreign)
    assert_as_written(store)
    split, listed = store.split("train"), samples(PLAN)["train"]
    assert split.labels.tolist() == [listed[i].label for i in split.source_index]
    np.testing.assert_array_equal(store.calibration((3,)).std, statistics(PLAN)["std"][1:])


def test_a_store_as_losa_wrote_it_is_read_through_zarr_on_demand_alone(raw: Path) -> None:
    assert not is_foreign(open_store(raw))
    store = open_store(raw, regime="foreign")
    assert is_foreign(store)
    assert_as_written(store)


@pytest.mark.parametrize("regime", ["preadv", "mmap", "stream"])
def test_regimes_of_raw_files_are_refused_for_foreign_arrays(foreign: Path, regime: Regime) -> None:
    with pytest.raises(UsageError, match=f"--read: {regime} reads raw records in a folder"):
        open_store(foreign, regime=regime)


def test_documents_that_say_nothing_leave_the_files_to_speak(raw: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(raw, tmp_path / "s.zarr"))
    (path / TOKENS / "zarr.json").unlink()
    (path / "train/tokens/tap01/zarr.json").write_bytes(b"{")
    (path / "train/scale/tap01/zarr.json").write_bytes(b"[]")
    store = open_store(path)
    assert not is_foreign(store)
    assert_as_written(store)


def test_a_document_that_is_written_otherwise_and_says_the_same_is_raw(raw: Path) -> None:
    plan, documents = small_plan(dtype="int8"), metadata_documents(small_plan(dtype="int8"))
    text = json.dumps({**documents[TOKENS], "attributes": {"more": 1}}, sort_keys=True)
    assert is_raw(text.encode(), documents[TOKENS])
    assert not has_foreign_records(lambda name: (raw / name).read_bytes(), plan)


def rewrite_with(path: Path, change: Callable[[Any], None]) -> None:
    """Write the tokens of a tap again with other values."""
    node = zarr.open_array(str(path), path=TOKENS, mode="r")
    values = node[:]
    change(values)
    shutil.rmtree(path / TOKENS)
    rewritten(np.asarray(values), path, TOKENS)


def test_another_value_is_damage_at_every_read(raw: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(raw, tmp_path / "s.zarr"))

    def change(values: Any) -> None:
        values[9, 0, 0] ^= 1

    rewrite_with(path, change)
    store = open_store(path, verify="never")
    for _ in range(2):
        with pytest.raises(StoreError, match=rf"{TOKENS}: row 9 does not match its checksum"):
            read(store, [8, 9])


def test_a_chunk_that_goes_while_the_store_is_read_is_no_zeros(
    foreign: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(foreign, tmp_path / "s.zarr"))
    store = open_store(path)
    read(store, [9])
    shutil.rmtree(path / TOKENS / "c/3")
    with pytest.raises(StoreError, match=rf"{TOKENS}: row 9 does not match its checksum"):
        read(store, [9])


def read_with_labels(store: Store) -> None:
    read(store, [9])
    assert len(store.split("train").labels) == 20


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train/check/tap03", r"check/tap03/c\.1: is not the file that was committed"),
        ("train/sample/label", r"label/c\.0: is not the file that was sealed"),
    ],
)
def test_columns_must_be_what_was_sealed(
    foreign: Path, tmp_path: Path, name: str, message: str
) -> None:
    path = Path(shutil.copytree(foreign, tmp_path / "s.zarr"))
    array: Any = zarr.open_array(str(path), path=name, mode="r+")
    array[9] = array[9] ^ 1
    with pytest.raises(StoreError, match=message):
        read_with_labels(open_store(path))


def test_what_zarr_raises_names_the_array_in_one_line(foreign: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(foreign, tmp_path / "s.zarr"))
    for chunk in (path / TOKENS / "c").rglob("0"):
        if chunk.is_file():
            chunk.write_bytes(b"no zstd\nat all")
    with pytest.raises(StoreError, match=rf"{TOKENS}: cannot be read through zarr \(") as caught:
        read(open_store(path), [0])
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def changed(path: Path, change: Change) -> None:
    document = json.loads((path / TOKENS / "zarr.json").read_text())
    change(document)
    (path / TOKENS / "zarr.json").write_text(json.dumps(document))


def set_chunks(*sides: object) -> Change:
    return lambda document: document["chunk_grid"]["configuration"].update(chunk_shape=[*sides])


def set_codecs(*names: str) -> Change:
    return lambda document: document.update(codecs=[{"name": name} for name in names])


def nest_codec(document: dict[str, Any]) -> None:
    inner = {"chunk_shape": [1, 5, 6], "codecs": [{"name": "bytes"}, {"name": "pickle"}]}
    document["codecs"] = [{"name": "sharding_indexed", "configuration": inner}]


REFUSED: dict[str, tuple[Change, str]] = {
    "other zarr": (lambda d: d.update(zarr_format=2), "has zarr_format 2, not 3"),
    "other shape": (lambda d: d.update(shape=[20, 5, 7]), r"has shape \[20, 5, 7\], not \[20, 5"),
    "other type": (lambda d: d.update(data_type="float64"), "has data_type float64, not int8"),
    "transformer": (
        lambda d: d.update(storage_transformers=[{"name": "x"}]),
        "has codecs or storage transformers that are not read; copy",
    ),
    "unknown codec": (set_codecs("bytes", "numcodecs.pickle"), "not read: numcodecs.pickle"),
    "codec by name": (lambda d: d.update(codecs=["cast_value"]), "not read: cast_value"),
    "hidden codec": (nest_codec, "not read: pickle"),
    "no codecs": (lambda d: d.update(codecs=[]), "not read: none"),
    "large chunks": (set_chunks(9, 5, 6), r"has chunks \[9, 5, 6\]; 240 values are the most"),
    "huge chunks": (set_chunks(2**60, 5, 6), "240 values are the most"),
    "flat chunks": (set_chunks(20), r"has chunks \[20\]"),
    "no chunks": (set_chunks(0, 5, 6), r"has chunks \[0, 5, 6\]"),
    "odd chunks": (set_chunks("8", 5, 6), r"has chunks \['8', 5, 6\]"),
    "no grid": (lambda d: d.update(chunk_grid="regular"), "has chunks None"),
    "odd grid": (lambda d: d.update(chunk_grid={}), r"cannot be read through zarr \(KeyError"),
    "odd codec": (
        lambda d: d["codecs"][1].update(configuration={"level": "x"}),
        "cannot be read through zarr",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_zarr_is_given_nothing_but_the_plans_arrays(
    foreign: Path, tmp_path: Path, name: str
) -> None:
    path = Path(shutil.copytree(foreign, tmp_path / "s.zarr"))
    change, message = REFUSED[name]
    changed(path, change)
    with pytest.raises(StoreError, match=rf"{TOKENS}: .*{message}"):
        read(open_store(path), [0])


def test_what_is_no_object_is_no_array() -> None:
    planned = metadata_documents(PLAN)[TOKENS]
    with pytest.raises(StoreError, match="has zarr_format None, not 3"):
        check_document(Path("a"), [1], planned, 240)


def test_a_foreign_store_without_its_seal_is_unsealed(foreign: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(foreign, tmp_path / "s.zarr"))
    (path / layout.SEALED_OBJECT).unlink()
    with pytest.raises(StoreError, match="is not sealed"):
        open_store(path)


def test_reading_warns_of_nothing(foreign: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_as_written(open_store(foreign))
