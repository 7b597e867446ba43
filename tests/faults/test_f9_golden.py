"""F9: golden stores are read for ever as they were written, and today's writer makes the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from losa.store import files, layout, open_store
from losa.store.verify import verify_store
from tests.faults import golden
from tests.faults.content import read_rows, written
from tests.faults.golden import FOLDER, MAX_BYTES, content_again, facts_of, unpack
from tests.store.build import tree

GOLDEN = sorted(FOLDER.glob("*.zip"))
Laid = tuple[Path, dict[str, np.ndarray], Any]


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def laid(request: pytest.FixtureRequest, memory: Path) -> Laid:
    """A golden store in a folder, and what must be read from it."""
    path = memory / "s.zarr"
    return path, *unpack(request.param, path)


def test_there_is_a_golden_store_of_every_kind() -> None:
    assert {path.stem for path in GOLDEN} >= golden.golden_contents().keys()
    assert all(path.stat().st_size <= MAX_BYTES for path in GOLDEN)


def test_a_golden_store_is_sound_and_is_what_it_was(laid: Laid) -> None:
    path, _, facts = laid
    assert verify_store(path, deep=True) == []
    assert facts_of(open_store(path)) == facts


def test_a_golden_store_is_read_as_it_was_written(laid: Laid) -> None:
    path, arrays, _ = laid
    store = open_store(path)
    calibration = store.calibration(store.spec.taps)
    for split, item in store.plan.splits.items():
        reader = store.split(split)
        parts = [arrays[name] for name in (f"{split}/planes", f"{split}/scales") if name in arrays]
        for row, found in enumerate(read_rows(store, split, list(range(item.rows)))):
            assert found == b"".join(part[:, row].tobytes() for part in parts)
        np.testing.assert_array_equal(reader.status, arrays[f"{split}/status"])
        assert reader.labels.tolist() == [reader.samples[i].label for i in reader.source_index]
    for key, array in arrays.items():
        if key.startswith("calib/"):
            np.testing.assert_array_equal(getattr(calibration, key.removeprefix("calib/")), array)


def test_a_golden_store_is_read_by_zarr_too(laid: Laid) -> None:
    import zarr

    path, arrays, _ = laid
    store = open_store(path)
    group = zarr.open_group(path, mode="r")
    for split in store.splits:
        for number, tap in enumerate(store.spec.taps):
            array = group[layout.tokens_path(split, tap)]
            assert isinstance(array, zarr.Array)
            found = np.asarray(array[:])
            np.testing.assert_array_equal(found, arrays[f"{split}/planes"][number])


def test_todays_writer_makes_the_same_store_byte_for_byte(laid: Laid, memory: Path) -> None:
    path, arrays, _ = laid
    content = content_again(path, arrays)
    assert tree(written(memory / "t.zarr", content)) == tree(path)


def test_a_golden_store_is_never_written_again(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "FOLDER", memory / "golden")
    some = dict(list(golden.golden_contents().items())[:2])
    monkeypatch.setattr(golden, "golden_contents", lambda: some)
    golden.main()
    before = tree(memory)
    assert len(before) == 2
    with pytest.raises(SystemExit, match="never change: "):
        golden.main()
    assert tree(memory) == before
    name = next(iter(some))
    shutil.copy(memory / f"golden/{name}.zip", memory / "copy.zip")
    (memory / f"golden/{name}.zip").unlink()
    with pytest.raises(SystemExit):
        golden.main()
    assert files.sha256((memory / "copy.zip").read_bytes()) == files.sha256(
        (memory / f"golden/{name}.zip").read_bytes()
    )
