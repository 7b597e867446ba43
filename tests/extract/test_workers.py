"""Claims of losa.extract.workers: no image takes more with it than its own row."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from losa.errors import ResourceError
from losa.extract.images import ImageError, ImageStatus, load_pixels
from losa.extract.media import Media
from losa.extract.workers import DecodeWorkers, Pixels
from tests.extract.odd_decoders import SMALL, NeverStarts, troubled

SECONDS = 0.7
"""What a hanging image may take here; decoding one takes a millisecond."""


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[DecodeWorkers]:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    pool = DecodeWorkers(troubled, (8, 8, 3), seconds=SECONDS)
    yield pool
    pool.close()
    assert not multiprocessing.active_children()


def pictures(folder: Path, *names: str) -> list[Media]:
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (11, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return [Media(folder / f"{name}.png") for name in names]


def told(found: list[Pixels | ImageError], items: list[Media]) -> dict[str, tuple[int, str]]:
    """What was said of the failures, once every other image has the pixels it should have."""
    failures = {}
    for item, outcome in zip(items, found, strict=True):
        if isinstance(outcome, ImageError):
            failures[item.path.stem] = (int(outcome.code), outcome.what)
        else:
            np.testing.assert_array_equal(outcome, load_pixels(item, SMALL))
    return failures


def test_an_image_that_ends_or_blocks_its_decoder_fails_alone(
    workers: DecodeWorkers, tmp_path: Path
) -> None:
    names = ("a", "segfault", "b", "exit", "memory", "hang", "c")
    items = pictures(tmp_path, *names)
    items[2].path.write_bytes(b"no image")
    assert told(list(workers.outcomes(items)), items) == {
        "segfault": (ImageStatus.CRASH, "ended its decoder twice (signal 11)"),
        "b": (ImageStatus.FORMAT, "is none of JPEG, PNG, WEBP, BMP, GIF, TIFF, PPM"),
        "exit": (ImageStatus.CRASH, "ended its decoder twice (exit code 3)"),
        "memory": (ImageStatus.CRASH, "ended its decoder twice (out of memory)"),
        "hang": (ImageStatus.TIMEOUT, "was not decoded within 0.7 s, twice"),
    }


def test_an_image_that_ends_or_blocks_its_decoder_once_has_its_pixels(
    workers: DecodeWorkers, tmp_path: Path
) -> None:
    items = pictures(tmp_path, "segfault-once", "a", "hang-once", "memory-once")
    assert told(list(workers.outcomes(items)), items) == {}
    assert len(list(tmp_path.glob("*.tried"))) == 3


def test_the_time_of_an_image_is_its_own_and_not_that_of_its_batch_or_of_a_start(
    workers: DecodeWorkers, tmp_path: Path
) -> None:
    items = pictures(tmp_path, "slow") * 10
    started = time.monotonic()
    assert told(list(workers.outcomes(items)), items) == {}
    assert time.monotonic() - started > SECONDS


def test_workers_that_die_before_they_begin_are_a_resource_error() -> None:
    pool = DecodeWorkers(NeverStarts(), (8, 8, 3))
    with pytest.raises(ResourceError, match=r"die before they begin \(exit code 5\); use fewer"):
        list(pool.outcomes([Media(Path("a.png"))]))
    assert not multiprocessing.active_children()


def test_closing_ends_a_worker_that_hangs_and_whoever_waits_for_it(tmp_path: Path) -> None:
    pool = DecodeWorkers(troubled, (8, 8, 3), seconds=1e6)
    items, met = pictures(tmp_path, "a", "hang"), []
    is_waiting = threading.Event()

    def ask() -> None:
        try:
            for _ in pool.outcomes(items):
                is_waiting.set()
        except ResourceError as error:
            met.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    assert is_waiting.wait(60)
    pool.close()
    thread.join(60)
    assert met == ["--num-workers: the decode workers were ended"]
    assert not multiprocessing.active_children()


def test_a_mistake_in_the_decoder_is_not_taken_for_the_images(
    workers: DecodeWorkers, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match=r"in a decode worker:(.|\n)*KeyError: 'bug.png'"):
        list(workers.outcomes(pictures(tmp_path, "a", "bug", "b")))


def test_outcomes_that_nobody_takes_do_not_become_those_of_other_images(
    workers: DecodeWorkers, tmp_path: Path
) -> None:
    items = pictures(tmp_path, "a", "b", "c")
    abandoned = workers.outcomes(items)
    next(abandoned)
    assert isinstance(abandoned, Generator)
    abandoned.close()
    assert told(list(workers.outcomes(items)), items) == {}
