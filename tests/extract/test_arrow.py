"""Claims of losa.extract.arrow, held against the library that wrote the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from losa.errors import InputError
from losa.extract.arrow import ImageCell, cells_of_file, image_cells
from losa.extract.datasets import load_dataset
from tests.extract.shards import png

datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
pa = pytest.importorskip("pyarrow", reason="the extra hub is not installed")

from tests.extract.hub_rows import rows, saved  # noqa: E402 -- after the check above


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def bytes_of(cell: ImageCell) -> bytes | None:
    """What lies in a cell's place."""
    if cell.size is None:
        return None
    return cell.file.read_bytes()[cell.offset : cell.offset + cell.size]


def test_an_index_over_the_files_is_followed(tmp_path: Path) -> None:
    saved(rows(8), tmp_path / "set", num_shards=3)
    order = [5, 5, 2, 7, 0]
    table = datasets.load_from_disk(str(tmp_path / "set")).select(order)
    cells = image_cells(table, "image", tmp_path)
    found = [cell.file.read_bytes()[cell.offset : cell.offset + (cell.size or 0)] for cell in cells]
    assert found == [png(10 * number) for number in order]


def test_compressed_arrow_files_are_refused(tmp_path: Path) -> None:
    folder = saved(rows(3), tmp_path / "set")
    (file,) = folder.glob("*.arrow")
    with pa.memory_map(str(file)) as source:
        table = pa.ipc.open_stream(source).read_all()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    packed = tmp_path / "packed"
    with (
        pa.OSFile(str(packed), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema, options=options) as out,
    ):
        out.write_table(table)
    packed.replace(file)
    with pytest.raises(InputError, match=r"\.arrow: is compressed"):
        load_dataset(f"hf:{folder}", Path("data"))


def test_a_cut_arrow_file_is_one_line(tmp_path: Path) -> None:
    folder = saved(rows(3), tmp_path / "set")
    (file,) = folder.glob("*.arrow")
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(InputError) as caught:
        load_dataset(f"hf:{folder}", Path("data"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["binary", "large_binary"])
@pytest.mark.parametrize("form", ["stream", "file"])
def test_streams_and_files_of_several_batches_with_gaps_are_read(
    tmp_path: Path, kind: str, form: str
) -> None:
    images = [png(0), None, png(2, size=16), png(3), None]
    values = [{"bytes": image, "path": None if image else "x.png"} for image in images]
    cell = pa.struct([("bytes", getattr(pa, kind)()), ("path", pa.string())])
    table = pa.table({"n": list(range(5)), "image": pa.array(values, cell)})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink:
        make = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
        with make(sink, table.schema) as out:
            out.write_table(table, max_chunksize=2)
    cells = list(cells_of_file(tmp_path / "a.arrow", "image"))
    assert [bytes_of(item) for item in cells] == images
    assert [item.name for item in cells] == [value["path"] for value in values]


def test_files_with_other_rows_than_the_data_set_are_refused(tmp_path: Path) -> None:
    saved(rows(4), tmp_path / "set")
    table = datasets.load_from_disk(str(tmp_path / "set"))
    part = datasets.Dataset(table.data.slice(1, 2))
    with pytest.raises(InputError, match="hold 4 rows, not 2"):
        image_cells(part, "image", tmp_path)
