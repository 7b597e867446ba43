"""Claims of losa.store.h5file: a stranger's file is refused before it can lead anywhere."""

from __future__ import annotations

import gc
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from losa.errors import ResourceError, StoreError
from losa.store import files, h5file
from losa.store.h5file import H5File
from losa.store.hdf5 import arrays_of, is_payload
from tests.store.h5build import changed, h5_file, replaced, set_json, set_text

TOKENS = "train/tokens/tap03"
KEYS = "train/sample/key"
Act = Callable[[Any], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return h5_file(tmp_path_factory.mktemp("h5file") / "a.h5")


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sound, tmp_path / "b.h5"))


def refusal(path: Path) -> StoreError:
    with pytest.raises(StoreError) as caught:
        H5File(path)
    assert caught.value.exit_code == 4
    return caught.value


def link(name: str, target: object) -> Act:
    def act(file: Any) -> None:
        del file[name]
        file[name] = target

    return act


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((20, 5, 6), "<f2")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (20, 5, 6))
    del file[TOKENS]
    file.create_virtual_dataset(TOKENS, layout)


def compact(file: Any) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.COMPACT)
    space, kind = h5py.h5s.create_simple((20,)), h5py.h5t.py_create(np.dtype("<i4"))
    del file["train/sample/label"]
    h5py.h5d.create(file.id, b"train/sample/label", kind, space, dcpl=creation)


LINKS: dict[str, tuple[str, Act]] = {
    "an external link": (TOKENS, link(TOKENS, h5py.ExternalLink("/etc/passwd", "/x"))),
    "an external link for a split": ("val", link("val", h5py.ExternalLink("other.h5", "/val"))),
    "a soft link": (TOKENS, link(TOKENS, h5py.SoftLink("/train/tokens/tap01"))),
    "a soft link that is one too many": (
        "x",
        lambda file: file.__setitem__("x", h5py.SoftLink("/")),
    ),
}


@pytest.mark.parametrize("case", LINKS)
def test_links_are_refused_and_not_followed(path: Path, case: str) -> None:
    name, act = LINKS[case]
    error = refusal(changed(path, act))
    assert (error.subject, error.what) == (f"{path}:/{name}", "is a link")


PLACES: dict[str, tuple[Act, str]] = {
    "external storage": (
        replaced(TOKENS, external=[("/etc/hostname", 0, 1200)]),
        "lies in another file",
    ),
    "a virtual data set": (virtual, "is not contiguous"),
    "chunks": (replaced(TOKENS, chunks=(1, 5, 6)), "is not contiguous"),
    "a filter": (replaced(TOKENS, compression="gzip"), "is not contiguous"),
    "a data set that was never written": (replaced(TOKENS), "was never written"),
    "room for more rows": (replaced(TOKENS, maxshape=(None, 5, 6)), "is not contiguous"),
}


@pytest.mark.parametrize("case", PLACES)
def test_values_that_are_no_plain_run_of_bytes_in_the_file_are_refused(
    path: Path, case: str
) -> None:
    act, what = PLACES[case]
    error = refusal(changed(path, act))
    assert (error.subject, error.what) == (f"{path}:/{TOKENS}", what)


def test_values_inside_the_names_are_refused(path: Path) -> None:
    error = refusal(changed(path, compact))
    assert (error.subject, error.what) == (f"{path}:/train/sample/label", "is not contiguous")


TYPES: dict[str, tuple[str, dict[str, Any]]] = {
    "wider floats": (TOKENS, {"dtype": "<f8"}),
    "another byte order": (TOKENS, {"dtype": ">f2"}),
    "integers of the same size": (TOKENS, {"dtype": "<u2"}),
    "a compound": (TOKENS, {"dtype": [("a", "<f2")]}),
    "references": (KEYS, {"dtype": h5py.ref_dtype}),
    "texts of any length": (KEYS, {"dtype": h5py.string_dtype()}),
    "texts that are no UTF-8": (KEYS, {"dtype": h5py.string_dtype("ascii", 9)}),
    "lists": (KEYS, {"dtype": h5py.vlen_dtype(np.dtype("u1"))}),
    "numbers for texts": (KEYS, {"dtype": "<i8"}),
}


@pytest.mark.parametrize("case", TYPES)
def test_a_type_that_losa_does_not_write_is_refused(path: Path, case: str) -> None:
    name, options = TYPES[case]
    error = refusal(changed(path, replaced(name, **options)))
    assert error.subject == f"{path}:/{name}"
    assert error.what.startswith("does not hold ")


@pytest.mark.parametrize("shape", [(20, 5, 7), (21, 5, 6), (600,), (), (20, 5, 6, 1)])
def test_a_shape_that_is_not_the_plans_is_refused(path: Path, shape: tuple[int, ...]) -> None:
    error = refusal(changed(path, replaced(TOKENS, shape=shape)))
    assert (error.subject, error.what) == (
        f"{path}:/{TOKENS}",
        f"has shape {shape}, not (20, 5, 6)",
    )


OBJECTS: dict[str, tuple[str, str, Act]] = {
    "a data set more": ("x", "belong", lambda file: file.create_dataset("x", data=[1])),
    "a group more": ("train/x", "belong", lambda file: file.create_group("train/x")),
    "a type more": ("x", "belong", lambda file: file.__setitem__("x", np.dtype("<i4"))),
    "a tap that the plan lacks": (
        "train/tokens/tap04",
        "belong",
        lambda file: file.copy(TOKENS, "train/tokens/tap04"),
    ),
    "a data set less": (TOKENS, "is missing", lambda file: file.__delitem__(TOKENS)),
    "a split less": ("val/tokens/tap01", "is missing", lambda file: file.__delitem__("val")),
    "a type for a data set": (TOKENS, "another kind", link(TOKENS, np.dtype("<f2"))),
    "a data set for a group": ("val", "another kind", link("val", np.arange(3))),
    "a group that holds itself": (
        "train/train",
        "belong",
        lambda file: file["train"].__setitem__("train", file["train"]),
    ),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_a_file_holds_exactly_what_its_plan_says(path: Path, case: str) -> None:
    name, what, act = OBJECTS[case]
    error = refusal(changed(path, act))
    assert error.subject == f"{path}:/{name}"
    assert what in error.what


def test_a_group_for_a_data_set_is_refused(path: Path) -> None:
    def act(file: Any) -> None:
        del file[TOKENS]
        file.create_group(TOKENS)

    assert "another kind" in refusal(changed(path, act)).what


def test_a_data_set_that_goes_beyond_the_file_is_refused(path: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.h5"  # the oldest format has no checksums that would tell first
    with h5py.File(path) as source, h5py.File(old, "w", libver="earliest") as file:
        for name, value in source.attrs.items():
            set_text(file, name, value.decode())
        for name in arrays_of(H5File(path).plan, {}):
            file.create_dataset(name, data=source[name][()], dtype=source[name].dtype)
        place, size = file[TOKENS].id.get_offset(), file[TOKENS].id.get_storage_size()
    data, known = old.read_bytes(), struct.pack("<QQ", place, size)
    assert data.count(known) == 1
    old.write_bytes(data.replace(known, struct.pack("<QQ", len(data) - size + 1, size)))
    assert refusal(old).exit_code == StoreError.exit_code


def test_no_data_set_beyond_the_file_is_believed_of_a_library_that_does_not_look(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, size = h5file._place, path.stat().st_size

    def far(*arguments: Any) -> h5file.Place:
        return h5file.Place(size - 10, place(*arguments).array)

    monkeypatch.setattr(h5file, "_place", far)
    assert refusal(path).what == "goes beyond the end of the file"


def test_tables_of_text_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_TABLE_BYTES", 100)
    assert "bytes of text" in refusal(path).what


def without(name: str) -> Act:
    return lambda file: file.attrs.__delitem__(name)


ATTRIBUTES: dict[str, tuple[Act, str]] = {
    "no format": (without("format"), "not a sound HDF5 file of losa"),
    "no digest": (without("digest"), "not a sound HDF5 file of losa"),
    "a number": (lambda file: file.attrs.__setitem__("plan", 3), "plan is no text"),
    "a text of any length": (
        lambda file: file.attrs.__setitem__("plan", file.attrs["plan"].decode()),
        "plan is no text",
    ),
    "a list of texts": (
        lambda file: file.attrs.create("plan", np.array([b"a", b"b"])),
        "plan is no text",
    ),
    "no JSON": (lambda file: set_text(file, "plan", "{"), "is not sound JSON"),
    "no plan": (set_json("plan", {}), "is not a losa plan"),
    "a newer format": (set_json("format", {"major": 2}), "is losa HDF5 format 2"),
    "another digest": (
        lambda file: set_text(file, "digest", "0" * 64),
        "does not match its digest",
    ),
    "another origin": (set_json("source", {"store_id": "1" * 64}), "does not match its digest"),
}


@pytest.mark.parametrize("case", ATTRIBUTES)
def test_attributes_that_are_not_losas_are_refused(path: Path, case: str) -> None:
    act, what = ATTRIBUTES[case]
    assert what in str(refusal(changed(path, act)))


def test_long_attributes_are_refused_before_they_are_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 50)
    assert "plan is no text of a size that is read" in refusal(path).what


@pytest.mark.parametrize("kind", ["folder", "fifo", "link", "nothing", "dangling link", "text"])
def test_what_is_no_regular_hdf5_file_is_refused(sound: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.h5"
    acts: dict[str, Callable[[], object]] = {
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(sound),
        "dangling link": lambda: path.symlink_to("nowhere"),
        "nothing": lambda: None,
        "text": lambda: path.write_text("hello"),
    }
    acts[kind]()
    assert refusal(path).subject == str(path)


@pytest.mark.parametrize("name", ["train/check/tap01", "val/sample/label", "calib/tap03/std"])
def test_the_digest_covers_what_no_check_value_does(path: Path, name: str) -> None:
    def act(file: Any) -> None:
        values = file[name][()]
        values[1] += 1
        file[name][...] = values

    assert refusal(changed(path, act)).what == "does not match its digest"


def test_a_change_under_an_open_file_is_seen(path: Path) -> None:
    file = H5File(path)
    before = file.read("val/sample/label")
    with h5py.File(path) as h5:
        offset = h5["val/sample/label"].id.get_offset()
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\x07")
    with pytest.raises(StoreError, match=r"/val/sample/label: was changed"):
        file.read("val/sample/label")
    assert before[0] != 7


def test_the_library_finds_no_plugins_while_a_file_is_looked_at(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    places = h5file._places

    def watched(*arguments: Any) -> Any:
        seen.append(h5py.h5pl.size())
        return places(*arguments)

    monkeypatch.setattr(h5file, "_places", watched)
    before = [h5py.h5pl.get(number) for number in range(h5py.h5pl.size())]
    h5py.h5pl.append(b"/plugins")
    try:
        H5File(path)
        after = [h5py.h5pl.get(number) for number in range(h5py.h5pl.size())]
    finally:
        h5py.h5pl.remove(len(before))
    assert set(seen) == {0}
    assert after == [*before, b"/plugins"]


def test_a_failing_disk_is_an_error_of_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("losa.store.shardfile.os.preadv", fail)
    with pytest.raises(ResourceError, match="input/output error"):
        H5File(path)


def test_no_descriptor_stays_open(path: Path) -> None:
    def count() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    H5File(path)
    assert count() == before
    refusal(changed(path, lambda file: set_text(file, "digest", "0" * 64)))
    assert count() == before


def test_no_flipped_bit_and_no_cut_gives_another_content(path: Path, tmp_path: Path) -> None:
    data, chance, found = path.read_bytes(), random.Random(0), H5File(path)
    names = [name for name in found._places if not is_payload(name)]
    want = {name: found.read(name).tobytes() for name in names}
    broken = tmp_path / "broken.h5"
    refused = 0
    for number in range(150):
        copy = bytearray(data)
        if number % 10:
            bit = chance.randrange(8 * len(copy))
            copy[bit // 8] ^= 1 << bit % 8
        else:
            del copy[chance.randrange(len(copy)) :]
        broken.write_bytes(copy)
        try:
            file = H5File(broken)
        except StoreError:
            refused += 1
            continue
        assert file.plan == found.plan
        assert {name: file.read(name).tobytes() for name in names} == want
    assert refused > 50
