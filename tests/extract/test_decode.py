from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from losa.extract.decode import DecodePool
from losa.extract.images import TOO_LARGE, ImageStatus, load_pixels
from tests.extract.odd_decoders import SMALL, troubled
from tests.extract.test_images import noise, png_that_claims

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(7)]
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (11, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_padded_and_with_their_failures(
    pictures: list[Path], workers: int
) -> None:
    pictures[1].write_bytes(b"no image")
    missing = pictures[0].with_name("missing.png")
    groups = [pictures[:3], [*pictures[3:5], missing], pictures[5:]]
    with DecodePool(SMALL, workers=workers) as pool:
        batches = list(pool.batches(groups, pad_to=3))
        again = list(pool.batches(groups, pad_to=4))
    assert [batch.pixels.shape for batch in batches] == [(3, 8, 8, 3)] * 3
    assert [batch.pixels.shape for batch in again] == [(4, 8, 8, 3)] * 3
    for group, batch in zip(groups, batches, strict=True):
        failed = {failure.position for failure in batch.failures}
        for position in range(3):
            readable = position < len(group) and position not in failed
            wanted = load_pixels(group[position], SMALL) if readable else np.zeros((8, 8, 3))
            np.testing.assert_array_equal(batch.pixels[position], wanted)
    codes = [[(f.position, f.code) for f in batch.failures] for batch in batches]
    assert codes == [[(1, ImageStatus.FORMAT)], [(2, ImageStatus.MISSING)], []]
    assert batches[1].failures[0].message == "is missing"


@pytest.mark.parametrize("workers", [0, 1])
def test_no_more_than_workers_plus_two_batches_are_asked_for_ahead(
    pictures: list[Path], workers: int
) -> None:
    asked = 0

    def groups() -> Iterator[list[Path]]:
        nonlocal asked
        for path in pictures:
            asked += 1
            yield [path]

    with DecodePool(SMALL, workers=workers) as pool:
        for received, _ in enumerate(pool.batches(groups(), pad_to=1), start=1):
            assert asked <= received + workers + 1
    assert asked == 7


def test_a_worker_imports_neither_torch_nor_timm() -> None:
    code = (
        "import sys, losa.extract.decode;"
        "print(sorted({'torch', 'timm', 'torchvision', 'zarr', 'pydantic'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout == "[]\n"


def test_workers_that_are_killed_are_replaced_and_nothing_is_missed(pictures: list[Path]) -> None:
    with DecodePool(SMALL, workers=2) as pool:
        found = []
        for number, batch in enumerate(pool.batches([[path] for path in pictures], pad_to=1)):
            found.append(batch)
            if number in (0, 3):
                for child in multiprocessing.active_children():
                    os.kill(child.pid or 0, signal.SIGKILL)
    for path, batch in zip(pictures, found, strict=True):
        assert batch.failures == ()
        np.testing.assert_array_equal(batch.pixels[0], load_pixels(path, SMALL))


def test_workers_leave_ctrl_c_to_the_parent(pictures: list[Path]) -> None:
    with DecodePool(SMALL, workers=1) as pool:
        batches = pool.batches([[path] for path in pictures], pad_to=1)
        next(batches)
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGINT)
        assert len(list(batches)) == 6
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("workers", "name"), [(1, "hang"), (0, "slow")])
def test_leaving_the_pool_early_waits_for_no_image_of_a_worker_and_for_one_of_a_thread(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch, workers: int, name: str
) -> None:
    monkeypatch.setattr("losa.extract.decode.load_pixels", troubled)
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    last = pictures[0].rename(pictures[0].with_name(f"{name}.png"))
    started = time.monotonic()
    with DecodePool(SMALL, workers=workers) as pool:
        next(pool.batches([pictures[1:], *[[last] * 1000] * 3], pad_to=1000))
    assert time.monotonic() - started < 20
    assert not multiprocessing.active_children()


def test_a_killed_parent_leaves_no_worker_behind(pictures: list[Path], tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing, sys, time\n"
        "from pathlib import Path\n"
        "from losa.extract.decode import DecodePool\n"
        "from losa.extract.transforms import Preprocessing\n"
        "if __name__ == '__main__':\n"
        "    half = (0.5, 0.5, 0.5)\n"
        "    small = Preprocessing((8, 8), 1.0, 'center', 'bicubic', half, half)\n"
        "    with DecodePool(small, workers=1) as pool:\n"
        "        next(pool.batches([[Path(sys.argv[1])]], pad_to=1))\n"
        "        print(*[c.pid for c in multiprocessing.active_children()], flush=True)\n"
        "        time.sleep(60)\n"
    )
    command = [sys.executable, str(script), str(pictures[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert workers
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in workers)


def is_running(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_thread_and_a_worker_record_the_same_failures_and_warn_of_none(tmp_path: Path) -> None:
    sizes = [(8001, 8000), (10_000, 10_000), (20_000, 20_000)]
    paths = [tmp_path / f"{width}.png" for width, _ in sizes]
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(png_that_claims(*size))
    odd = tmp_path / "odd.jpg"
    noise((12, 8)).save(odd, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    found = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for workers in (0, 1):
            with DecodePool(SMALL, workers=workers) as pool:
                found += list(pool.batches([[*paths, odd]], pad_to=4))
    assert not warned
    assert found[0].failures == found[1].failures
    failures = [(item.position, item.code, item.message) for item in found[0].failures]
    assert failures == [(place, ImageStatus.TOO_LARGE, TOO_LARGE) for place in range(3)]


def test_a_pool_leaves_the_filters_of_warnings_as_they_were(pictures: list[Path]) -> None:
    before = list(warnings.filters)
    with DecodePool(SMALL, workers=0) as pool:
        list(pool.batches([pictures], pad_to=7))
    assert list(warnings.filters) == before
