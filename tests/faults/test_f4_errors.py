"""F4: a disk that is full, fails or turns read-only: one line with a path, and nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from losa.errors import LosaError, ResourceError
from losa.features import StoreDtype
from losa.store import Plan
from tests.faults.figures import publish
from tests.faults.power_cut import damage
from tests.faults.processes import Countdown, HookedSystem
from tests.faults.tiny import committed, process, reads_as_written, through, tiny_plan, write_store
from tests.store.build import small_store, tree

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE)
REMOVES = ("unlink", "rmdir")
QUICK_STEP = 5


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize(
    ("step", "errors", "dtype"),
    [
        pytest.param(QUICK_STEP, 1, "float16", id="quick"),
        pytest.param(1, len(ERRORS), "float16", marks=pytest.mark.faults, id="whole"),
        pytest.param(1, len(ERRORS), "int8", marks=pytest.mark.faults, id="whole int8"),
    ],
)
@pytest.mark.timeout(1800)
def test_an_error_of_any_call_is_one_line_and_can_be_resumed(
    step: int, errors: int, dtype: StoreDtype, lasting: bool, memory: Path
) -> None:
    plan = tiny_plan(dtype)
    want = tree(small_store(memory / "want.zarr", plan))
    calls, refused = count_calls(memory / "counted.zarr", plan), 0
    for number in range(1, calls + 1, step):
        for turn in range(errors):
            code = ERRORS[(number + turn) % len(ERRORS)]
            failing = FailingCalls(number, code, lasting=lasting)
            refused += survives(memory / "s.zarr", plan, failing, want)
            shutil.rmtree(memory / "s.zarr")
    assert refused > 0.5 * len(range(1, calls + 1, step)) * errors
    if step == 1:
        figures = {"calls": calls, "errors": calls * errors, "refused": refused, "lost": 0}
        publish(f"f4-{dtype}-{'lasting' if lasting else 'once'}", figures)


@pytest.mark.parametrize(
    "sizes", [(40, 150, 260), pytest.param(range(8, 408, 8), marks=pytest.mark.faults, id="whole")]
)
@pytest.mark.timeout(600)
def test_a_full_disk_is_one_line_and_can_be_resumed_on_a_larger_one(
    sizes: tuple[int, ...] | range, tmp_path: Path
) -> None:
    plan, full = tiny_plan(), 0
    want = tree(small_store(tmp_path / "want.zarr", plan))
    for size in sizes:
        with small_disk(tmp_path / "disk", size) as disk:
            path = disk / "s.zarr"
            error = refusal(path, plan)
            if error:
                full += 1
                assert "no space left on device" in error.what
                assert_tidy(path, error)
            subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
            with process(start=2):
                write_store(path, plan)
            assert tree(path) == want
    assert full
    if len(sizes) > 3:
        publish("f4-full", {"sizes": len(sizes), "full": full, "identical": len(sizes), "lost": 0})


class FailingCalls:
    """Lets the n-th call fail, and later ones too if it is ``lasting``.

    Of a full disk, files can still be removed.
    """

    def __init__(self, number: int, code: int, *, lasting: bool) -> None:
        self.countdown = Countdown(number, self._fail, lasting=lasting)
        self.hindered_removal = False
        self._code = code
        self._lasting = lasting

    def _fail(self, name: str, subject: Any) -> None:
        if name in REMOVES:
            if self._lasting and self._code in (errno.ENOSPC, errno.EDQUOT):
                return
            self.hindered_removal = True
        if self._lasting and name == "close":
            return
        path = [str(subject)] if isinstance(subject, Path) else []
        raise OSError(self._code, os.strerror(self._code), *path)


def survives(path: Path, plan: Plan, failing: FailingCalls, want: dict[str, bytes]) -> bool:
    """Write until a call fails, look what is left, resume; says whether an error was raised."""
    with through(HookedSystem(failing.countdown)):
        error = refusal(path, plan)
    if error and not failing.hindered_removal:
        assert_tidy(path, error)
    with process(start=2):
        for shard in committed(path):
            assert damage(path, plan, shard) is None
        write_store(path, plan)
        assert tree(path) == want
        assert reads_as_written(path, plan)
    return error is not None


def refusal(path: Path, plan: Plan) -> LosaError | None:
    """The error that writing a store ends with, if it does, and that is one of resources."""
    try:
        with process(start=1):
            write_store(path, plan)
    except ResourceError as error:
        return error
    return None


def assert_tidy(path: Path, error: LosaError) -> None:
    """The error names a path of the store, and no temporary of ours is left."""
    assert error.subject.startswith(str(path.parent))
    assert [entry.name for entry in path.parent.glob(f".{path.name}.*")] == []
    scratch = path / ".losa/tmp"
    assert not scratch.exists() or list(scratch.iterdir()) == []


def count_calls(path: Path, plan: Plan) -> int:
    """Calls that it takes to write the store when none fails."""
    count = Countdown(0, lambda *_: None)
    with through(HookedSystem(count)):
        write_store(path, plan)
    return -count.left


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system in memory of so many kilobytes; needs root."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
