"""F5: whatever happens to the bytes of a file, nothing wrong is read, and it is named."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from losa.errors import LosaError
from losa.features import StoreDtype
from losa.store import StoreWriter, layout
from losa.store.verify import verify_store
from tests.faults.content import (
    Seen,
    look,
    refusals,
    rich_content,
    row_bytes,
    untrue,
    written,
)
from tests.faults.figures import publish
from tests.store.build import tree

BLOCK: Final = 4096
QUICK_FLIPS, FLIPS = 50, 2500
QUICK_CUTS, CUTS = 10, 250
DTYPES: Final = ("float16", "int8")
whole = pytest.mark.faults
Change = Callable[[bytes, random.Random], bytes]


@dataclass
class Patient:
    """A store that is damaged in place, looked at, and mended again."""

    path: Path
    files: dict[str, bytes] = field(init=False)
    want: Seen = field(init=False)
    figures: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.files = tree(self.path)
        self.want = look(self.path)
        assert refusals(self.want) == []

    def hurt(self, name: str, data: bytes) -> None:
        """Put other bytes in the place of a file's, and see that nobody takes them for it."""
        if data == self.files[name]:
            return
        with changed(self.path / name, data):
            seen = look(self.path)
            wrong = untrue(seen, self.want)
            is_named = name in [problem.path for problem in verify_store(self.path)]
        self.figures["damaged"] += 1
        self.figures["refused"] += bool(refusals(seen))
        self.figures["silent"] += bool(wrong)
        self.figures["named"] += is_named
        assert wrong == [], name
        assert {error.exit_code for error in refusals(seen)} <= {4, 6}, name
        assert is_named, name

    def publish(self, name: str) -> None:
        publish(f"f5-{name}", {**self.figures, "files": len(self.files)})


@contextmanager
def changed(path: Path, data: bytes) -> Iterator[None]:
    """Another content of a file, for a while."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store of each dtype, with all that a store can have in it."""
    folder = tmp_path_factory.mktemp("f5")
    return lambda dtype: Patient(
        place if (place := folder / dtype).exists() else written(place, rich_content(dtype))
    )


def strewn(files: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, random.Random]]:
    """So many files, each as often as any other, in an order of their own."""
    draw = random.Random(seed)
    names = list(files)
    draw.shuffle(names)
    for number in range(count):
        yield names[number % len(names)], draw


def flipped(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def zeroed(data: bytes, draw: random.Random) -> bytes:
    first = draw.randrange(0, len(data), BLOCK)
    return data[:first] + bytes(len(data[first : first + BLOCK])) + data[first + BLOCK :]


def emptied(data: bytes, draw: random.Random) -> bytes:
    return b""


def grown(data: bytes, draw: random.Random) -> bytes:
    return data + draw.randbytes(draw.choice((1, 100, BLOCK)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_read_of_a_sound_store_is_what_was_written(
    patients: Callable[[StoreDtype], Patient], dtype: StoreDtype
) -> None:
    content, want = rich_content(dtype), patients(dtype).want
    for split, item in content.plan.splits.items():
        listed = content.samples[split]
        assert sorted(want[f"{split} source_index"]) == list(range(item.rows))
        assert want[f"{split} samples"] == listed
        assert want[f"{split} labels"] == [listed[i].label for i in want[f"{split} source_index"]]
        assert want[f"{split} status"] == content.status(split).tolist()
        for row in range(item.rows):
            assert want[f"{split} {row}"] == row_bytes(content, split, row)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("flips", [QUICK_FLIPS, pytest.param(FLIPS, marks=whole)])
@pytest.mark.timeout(1800)
def test_a_flipped_bit_is_never_read_and_always_named(
    patients: Callable[[StoreDtype], Patient], dtype: StoreDtype, flips: int
) -> None:
    patient = patients(dtype)
    for name, draw in strewn(patient.files, flips, seed=5):
        patient.hurt(name, flipped(patient.files[name], draw))
    assert patient.figures["damaged"] == flips
    if flips == FLIPS:
        patient.publish(f"flips-{dtype}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cuts", [QUICK_CUTS, pytest.param(CUTS, marks=whole)])
@pytest.mark.timeout(600)
def test_a_cut_file_is_never_read_and_always_named(
    patients: Callable[[StoreDtype], Patient], dtype: StoreDtype, cuts: int
) -> None:
    patient = patients(dtype)
    for name, draw in strewn(patient.files, cuts, seed=6):
        patient.hurt(name, cut(patient.files[name], draw))
    if cuts == CUTS:
        patient.publish(f"cuts-{dtype}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step", [13, pytest.param(1, marks=whole)])
@pytest.mark.parametrize("change", [zeroed, emptied, grown])
@pytest.mark.timeout(600)
def test_a_file_of_zeros_of_nothing_or_of_more_is_never_read_and_always_named(
    patients: Callable[[StoreDtype], Patient], dtype: StoreDtype, step: int, change: Change
) -> None:
    patient = patients(dtype)
    for name in list(patient.files)[::step]:
        patient.hurt(name, change(patient.files[name], random.Random(name)))
    if step == 1:
        patient.publish(f"{change.__name__}-{dtype}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("flips", [15, pytest.param(500, marks=whole)])
@pytest.mark.timeout(600)
def test_a_bit_that_flips_before_the_seal_is_not_sealed(
    memory: Path, dtype: StoreDtype, flips: int
) -> None:
    path = written(memory / "s.zarr", rich_content(dtype))
    want = look(path)
    (path / layout.SEALED_OBJECT).unlink()
    before, figures = tree(path), Counter(flips=0, refused=0, silent=0)
    for name, draw in strewn(before, flips, seed=7):
        data = flipped(before[name], draw)
        (path / name).write_bytes(data)
        figures["flips"] += 1
        try:
            with StoreWriter(path, durable=False) as store:
                store.seal()
        except LosaError as error:
            figures["refused"] += 1
            assert error.exit_code == 4  # noqa: PT017 -- many, and some are not refused
        else:
            wrong = untrue({**look(path), "id": want["id"]}, want)
            figures["silent"] += bool(wrong)
            assert wrong == [], name
            (path / layout.SEALED_OBJECT).unlink()
            (path / layout.ROOT_OBJECT).write_bytes(before[layout.ROOT_OBJECT])
        (path / name).write_bytes(before[name])
    if flips > 15:
        publish(f"f5-unsealed-{dtype}", figures)
