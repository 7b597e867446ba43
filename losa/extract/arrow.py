"""Where the cells of an image column lie in Arrow files: buffers are on disk as they are in memory.

Source: the Arrow columnar format, section "IPC streaming format": the buffers of a record batch
that is not compressed are the bytes of the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from losa.errors import InputError

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True, slots=True)
class ImageCell:
    """An image's bytes in an Arrow file; without a size the cell holds but a file's name."""

    file: Path
    offset: int
    size: int | None
    name: str | None


def image_cells(table: datasets.Dataset, column: str, source: Path) -> list[ImageCell]:
    """The cells of a column of images, in the order of the data set's rows.

    Raises:
        InputError: the files are compressed, hold other rows than the data set, or an image that
            was read from its place is not what the library gives.
    """
    files = [Path(item["filename"]) for item in table.cache_files]
    cells: list[ImageCell] = []
    ends: list[int] = []
    for file in files:
        cells += cells_of_file(file, column)
        ends.append(len(cells))
    if len(table.data) != len(cells):
        what = f"its Arrow files hold {len(cells)} rows, not {len(table.data)}"
        raise InputError(source, what, "save the data set with save_to_disk, and use hf:PATH")
    rows = _row_numbers(table)
    ordered = [cells[row] for row in rows.tolist()]
    _check_against(table, column, ordered, _ends_of_files(rows, ends))
    return ordered


def _row_numbers(table: datasets.Dataset) -> Int64[np.ndarray, "n"]:
    """Where in the files each row of a data set lies that was shuffled or selected from."""
    indices = vars(table).get("_indices")
    if indices is None:
        return np.arange(len(table.data), dtype=np.int64)
    return np.asarray(indices.column(0).to_numpy(), dtype=np.int64)


def cells_of_file(file: Path, column: str) -> Iterator[ImageCell]:
    """The cells of one file, in its order.

    Raises:
        InputError: the file is broken or compressed, or holds images in another way.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as source:
            whole = source.read_buffer(source.size())
            source.seek(0)
            for batch in _batches(source):
                yield from _cells_of_batch(file, batch.column(column), whole)
    except (pa.ArrowException, OSError, KeyError) as error:
        what = f"is no sound Arrow file ({str(error).splitlines()[0]})"
        raise InputError(file, what, "fetch or save the data set again") from None


def _batches(source: Any) -> Iterator[Any]:
    """The record batches of a stream or of a file."""
    import pyarrow as pa

    head = source.read(6)
    source.seek(0)
    if head == b"ARROW1":
        reader = pa.ipc.open_file(source)
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        yield from pa.ipc.open_stream(source)


def _cells_of_batch(file: Path, cells: Any, whole: Any) -> Iterator[ImageCell]:
    """The cells of one record batch: structures of ``bytes`` and ``path``, or plain names."""
    import pyarrow as pa

    count = len(cells)
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        yield from (ImageCell(file, 0, None, name) for name in cells.to_pylist())
        return
    if not pa.types.is_struct(cells.type):
        raise InputError(file, f"holds images as {cells.type}", "save the data set again")
    data, names = cells.field("bytes"), cells.field("path").to_pylist()
    if data.null_count == count:
        yield from (ImageCell(file, 0, None, name) for name in names)
        return
    _, marks, values = data.buffers()
    kind = np.int64 if pa.types.is_large_binary(data.type) else np.int32
    ends = np.frombuffer(marks, kind)[data.offset : data.offset + count + 1].astype(np.int64)
    base = values.address - whole.address
    if not 0 <= base <= whole.size - int(ends[-1]):
        todo = "save it without compression"
        raise InputError(file, "is compressed: images cannot be read from where they lie", todo)
    here = data.is_valid().to_pylist()
    for row, name in enumerate(names):
        size = int(ends[row + 1] - ends[row]) if here[row] else None
        yield ImageCell(file, base + int(ends[row]) if here[row] else 0, size, name)


def _ends_of_files(rows: Int64[np.ndarray, "n"], ends: Sequence[int]) -> list[int]:
    """Listed rows that stand first and last in each file: those to look at."""
    order = np.argsort(rows, kind="stable")
    found: set[int] = set()
    for first, end in zip([0, *ends], ends, strict=False):
        low, high = np.searchsorted(rows[order], [first, end])
        if low < high:
            found.update((int(order[low]), int(order[high - 1])))
    return sorted(found)


def _check_against(
    table: datasets.Dataset, column: str, cells: Sequence[ImageCell], rows: Sequence[int]
) -> None:
    """What lies where a cell says is what the library gives."""
    from datasets import Image

    plain = table.with_format(None).select_columns([column])
    plain = plain.cast_column(column, Image(decode=False))
    for row in rows:
        cell = cells[row]
        if cell.size is None:
            continue
        with cell.file.open("rb") as file:
            found = os.pread(file.fileno(), cell.size, cell.offset)
        if found != plain[row][column]["bytes"]:
            what = f"row {row} does not lie where it should"
            raise InputError(cell.file, what, "save the data set again with save_to_disk")
