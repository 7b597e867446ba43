"""A folder full of damaged images costs its own rows and not a byte of the others."""

from __future__ import annotations

import csv
import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt8

from losa.extract.images import ImageStatus
from losa.extract.run import check_skips, extract
from losa.store import Store, open_store
from losa.store.verify import verify_store
from tests.extract.mutations import mutated_images
from tests.extract.picture_folder import picture_folder, tiny_config

GOOD = 50

log = logging.getLogger(__name__)
"""Says what became of the images: ``pytest --log-cli-level=info``."""


def pictures(root: Path, mutated: int) -> tuple[Path, Path]:
    """A folder with damaged images, and the same names with sound images in their place."""
    clean = picture_folder(root / "clean" / "data", {"train": 16})
    extra = clean / "train/blue/900.png"
    for number in range(GOOD - 48):
        shutil.copy(clean / "train/red/000.png", extra.with_name(f"9{number:02d}.png"))
    damaged = Path(shutil.copytree(clean, root / "damaged" / "data"))
    for name, data in mutated_images(mutated):
        (damaged / "train/green" / name).write_bytes(data)
        shutil.copy(clean / "train/green/000.png", clean / "train/green" / name)
    return damaged, clean


def records(store: Store) -> UInt8[np.ndarray, "n ..."]:
    """The bytes of every row at every tap, by the arithmetic of docs/store-format.md."""
    rows, size = store.split("train").rows, store.spec.record_bytes
    planes = []
    for tap in store.spec.taps:
        data = b""
        for shard, first in enumerate(range(0, rows, store.plan.shard_rows)):
            held = min(store.plan.shard_rows, rows - first)
            data += (store.path / f"train/tokens/tap{tap:02d}/c.{shard}.0.0").read_bytes()[
                : held * size
            ]
        planes.append(np.frombuffer(data, np.uint8).reshape(rows, size))
    return np.concatenate(planes, axis=1)


def listed(store: Store, result: dict[str, object]) -> dict[str, tuple[int, str]]:
    """Row and code name of every path in ``skipped.csv``, which must be the store's own."""
    path = store.path.with_name("s.zarr.skipped.csv")
    assert result["skipped_csv"] == str(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result["skipped"]
    assert all(row["split"] == "train" and row["message"] for row in rows)
    status = store.split("train").status
    assert {int(row["row"]) for row in rows} == set(np.flatnonzero(status != 1).tolist())
    for row in rows:
        assert ImageStatus[row["code"]] == status[int(row["row"])]
    return {row["path"]: (int(row["row"]), row["code"]) for row in rows}


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_mutated_images_are_rows_or_reasons_and_all_others_are_as_in_a_clean_run(
    tmp_path: Path, count: int
) -> None:
    damaged, clean = pictures(tmp_path, count)
    # Both in folders of one name, and calibrated alike: what differs is what the images say.
    places = [data.with_name("s.zarr") for data in (damaged, clean)]
    options = {"on_error": "skip", "max_skip": 1.0, "num_workers": 2, "batch_size": 16}
    config = tiny_config(damaged, places[0], shard_rows=32, **options)
    result = extract(config)
    check_skips(config, result)
    extract(tiny_config(clean, places[1], shard_rows=32, **options))
    stores = [open_store(place) for place in places]
    assert not places[1].with_name("s.zarr.skipped.csv").exists()
    assert stores[0].plan.exponents == stores[1].plan.exponents

    reasons = listed(stores[0], result)
    reader = stores[0].split("train")
    paths = [reader.samples[index].path for index in reader.source_index]
    is_good = np.array(["-" not in path for path in paths])
    assert (reader.status[is_good] == 1).all()
    found, wanted = (records(store) for store in stores)
    np.testing.assert_array_equal(found[is_good], wanted[is_good])
    assert not found[reader.status != 1].any()

    tally: Counter[tuple[str, str]] = Counter()
    for path in (path for path in paths if "-" in path):
        kind = path.rpartition("-")[2].partition(".")[0]
        tally[kind, reasons.get(path, (0, "OK"))[1]] += 1
    for (kind, code), number in sorted(tally.items()):
        log.info("%-9s %-9s %3d of %d", kind, code, number, count)
    assert tally.total() == count
    assert tally["foreign", "FORMAT"] == count // 5
    assert tally["bomb", "TOO_LARGE"] + tally["bomb", "CORRUPT"] == count // 5
    assert verify_store(places[0]) == []
