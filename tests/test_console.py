"""Claims of losa.console."""

from __future__ import annotations

import errno
import io
import os
import signal
from pathlib import Path

import pytest

from losa import console
from losa.errors import MismatchError, StoppedError, StoreError
from losa.extract.extraction import ExtractEvent


def fail(error: BaseException) -> int:
    def command() -> None:
        raise error

    return console.run(command)


def test_a_named_mistake_is_one_line_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(StoreError("a.zarr", "is gone", "find it")) == 4
    assert fail(MismatchError("--weights", "differ", "give ours")) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        err == "losa: error: a.zarr: is gone; find it\nlosa: error: --weights: differ; give ours\n"
    )


def test_ctrl_c_is_130_and_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == (
        "losa: error: interrupted; run the same command again to go on\n"
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 75), (signal.SIGUSR2, 75)]
)
def test_what_ends_a_command_has_its_exit_code(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    try:
        assert console.run(lambda: os.kill(os.getpid(), number)) == code
    finally:
        signal.signal(number, before)


def test_a_command_that_was_stopped_is_said_with_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/losa", "extract", "--store", "my photos.zarr"])
    assert fail(StoppedError("s.zarr", "told to end")) == 75
    assert fail(StoppedError("s.zarr", "interrupted", "start all", is_interrupt=True)) == 130
    assert capsys.readouterr().err.splitlines() == [
        "losa: error: s.zarr: told to end; go on with: losa extract --store 'my photos.zarr'",
        "losa: error: s.zarr: interrupted; start all",
    ]


def test_ctrl_c_and_nothing_else_ends_what_has_no_end() -> None:
    def stop(kind: type[BaseException]) -> None:
        with console.ending_by_ctrl_c():
            raise kind

    stop(KeyboardInterrupt)
    with pytest.raises(console.Terminated):
        stop(console.Terminated)


def test_lines_take_the_place_of_those_before_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for is_terminal, between in ((True, "\x1b[2A\x1b[J"), (False, "")):
        monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)  # noqa: B023 -- now
        with console.redrawing() as draw:
            draw(["one", "t\x1bo"])
            draw(["three"])
        assert capsys.readouterr().err == f"one\nt\\x1bo\n{between}three\n"


def test_a_bug_is_one_line_and_a_saved_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert fail(ZeroDivisionError("by\nzero")) == 1
    err = capsys.readouterr().err
    assert err.startswith("losa: error: bug: ZeroDivisionError: by zero; please report it with ")
    assert err.count("\n") == 1
    (saved,) = tmp_path.iterdir()
    assert "ZeroDivisionError" in saved.read_text()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_what_a_disk_lacks_is_no_bug_though_no_file_is_named(
    capsys: pytest.CaptureFixture[str], number: int
) -> None:
    assert fail(OSError(number, os.strerror(number))) == 6
    err = capsys.readouterr().err
    assert err.startswith(f"losa: error: disk: {os.strerror(number).lower()}; ")


def test_control_characters_of_file_names_never_reach_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail(StoreError("a\x1b[2J\nb.zarr", "is gone"))
    assert capsys.readouterr().err == "losa: error: a\\x1b[2J\\nb.zarr: is gone\n"


def test_a_result_is_one_json_line_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_result({"path": Path("ü.png"), "n": 1})
    assert capsys.readouterr().out == '{"path": "ü.png", "n": 1}\n'


def test_a_table_is_aligned_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_table([("a", 5), ("long", 1234)], ("name", "rows"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["name  rows", "a        5", "long  1234"]


def test_a_bar_tells_bytes_a_second_only_of_rows_that_have_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = {}
    for row_bytes in (0, 10**9):
        screen = io.StringIO()
        monkeypatch.setattr("sys.stderr", screen)
        with console.extract_bar() as tell:
            tell(ExtractEvent(1, 2, row_bytes, "probes on cells", "probes"))
            tell(ExtractEvent(2, 2, row_bytes, "probes on cells", "probes"))
        shown[row_bytes] = screen.getvalue()
    assert "GB/s" in shown[10**9]
    assert "GB/s" not in shown[0]
    assert "probes/s" in shown[0]


def test_the_bar_of_a_phase_ends_where_the_next_phase_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    with console.extract_bar() as tell:
        tell(ExtractEvent(8, 8, 0, "calibrate"))
        tell(ExtractEvent(2, 4, 0, "extract"))
        before = len(screen.getvalue())
    assert "calibrate" not in screen.getvalue()[before:]
    # Cursor up: one bar would be drawn above another.
    assert "\x1b[A" not in screen.getvalue()


def test_bars_follow_bytes_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    with console.bytes_bar() as tell:
        tell(5, 10)
        tell(10, 10)
    assert "100%" in screen.getvalue()
