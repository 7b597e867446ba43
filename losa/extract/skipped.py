"""``<store>.skipped.csv``: which samples a store holds no features of, and why, for people to mend.

It tells nothing that the store's commit records do not, and only those are ever read again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from losa.errors import ResourceError
from losa.extract.images import ImageStatus
from losa.store import Store, files, open_store
from losa.store.sealed import OK_STATUS

COLUMNS: Final = ("split", "row", "key", "path", "code", "message")


def skipped_file(store: Path) -> Path:
    """Where the list lies: beside the store.

    Example:
        >>> skipped_file(Path("runs/pets.zarr")).as_posix()
        'runs/pets.zarr.skipped.csv'
    """
    return store.with_name(f"{store.name}.skipped.csv")


def list_skipped(path: Path, *, durable: bool) -> Path | None:
    """Write the list of a sealed store's skipped rows; without any, remove an older list.

    Raises:
        StoreError: the store is damaged.
        ResourceError: the list cannot be written.
    """
    place = skipped_file(path)
    rows = list(_skipped_rows(open_store(path)))
    if not rows:
        try:
            place.unlink(missing_ok=True)
        except OSError as error:
            what = f"cannot be removed ({error.strerror}), and lists rows that are whole now"
            raise ResourceError(place, what, "remove it") from None
        return None
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    # Names of files need not be UTF-8.
    data = text.getvalue().encode(errors="surrogateescape")
    files.write_atomic(place, data, durable=durable)
    return place


def code_name(code: int) -> str:
    """A status by its name; one that a newer losa gave by its number."""
    return ImageStatus(code).name if code in list(ImageStatus) else str(code)


def _skipped_rows(store: Store) -> Iterator[tuple[str, int, str, str, str, str]]:
    """Rows of the list; of half a million samples only what concerns the skipped ones is read."""
    for split in store.splits:
        reader = store.split(split)
        lost = np.flatnonzero(reader.status != OK_STATUS)
        for shard in np.unique(lost // store.files.shard_rows(split)).tolist():
            for item in store.files.commit(split, shard)["skipped"]:
                path = reader.samples[reader.source_index[item["row"]]].path
                code = code_name(item["code"])
                yield split, item["row"], item["key"], path, code, item["message"]
