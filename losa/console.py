"""The one place that prints: results to stdout as one JSON line, the rest to stderr.

Bars, tables and errors go to stderr, so that ``losa ... | jq`` always works.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tqdm import tqdm

from losa.errors import LosaError, ResourceError, StoppedError, is_out_of_memory
from losa.interrupt import PREEMPTED, SIGNALS, Preempted

if TYPE_CHECKING:
    from losa.adapt.progress import ProgressEvent
    from losa.extract.extraction import ExtractEvent


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM)."""


_LACKS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
"""What a disk lacks, whoever met it and whether or not the file is known."""

_STOPS: Final[Mapping[type[BaseException], tuple[str, int]]] = {
    KeyboardInterrupt: ("interrupted", 130),
    Terminated: ("terminated", 143),
    Preempted: ("pre-empted", PREEMPTED),
}


def show_result(result: Any) -> None:
    """Print a result as one JSON line on stdout; that nobody reads it is no mistake.

    Raises:
        ResourceError: stdout cannot be written; its disk is full, perhaps.
    """
    try:
        print(json.dumps(result, ensure_ascii=False, default=str), flush=True)
    except BrokenPipeError:
        _forget_stdout()
    except OSError as error:
        _forget_stdout()
        reason = (error.strerror or str(error)).lower()
        raise ResourceError("stdout", reason, "send the result elsewhere") from None


def _forget_stdout() -> None:
    """What Python still holds for stdout goes nowhere, or it would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_table(rows: Iterable[Sequence[object]], header: Sequence[str]) -> None:
    """Print aligned columns on stderr, numbers to the right."""
    for line in table_lines(rows, header):
        note(line)


def table_lines(rows: Iterable[Sequence[object]], header: Sequence[str]) -> list[str]:
    """Aligned columns, numbers to the right."""
    texts = [[clean(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *texts]) for i in range(len(header))]
    lines = ["  ".join(name.ljust(width) for name, width in zip(header, widths, strict=True))]
    for row in texts:
        cells = [
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        lines.append("  ".join(cells))
    return [line.rstrip() for line in lines]


@contextmanager
def redrawing() -> Iterator[Callable[[Sequence[str]], None]]:
    """Lines of which the newest take the place of those before, on a terminal; else they follow."""
    shown = 0

    def draw(lines: Sequence[str]) -> None:
        nonlocal shown
        if shown and sys.stderr.isatty():
            print(f"\x1b[{shown}A\x1b[J", end="", file=sys.stderr)
        for line in lines:
            note(clean(line))
        shown = len(lines)

    yield draw


@contextmanager
def ending_by_ctrl_c() -> Iterator[None]:
    """A block that Ctrl-C ends, and nothing else: it has no end of its own."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if type(stop) is not KeyboardInterrupt:
            raise


def note(text: str) -> None:
    """Print one line for people, on stderr, without breaking a bar."""
    tqdm.write(text, file=sys.stderr)


def clean(text: str) -> str:
    """Text from files made safe for a terminal: control characters are shown, not sent."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


@contextmanager
def extract_bar(*, is_shown: bool = True) -> Iterator[Callable[[ExtractEvent], None]]:
    """A bar over samples, with samples/s, GB/s and the time left, unless another process has it."""
    bars: dict[str, tqdm[Any]] = {}

    def close() -> None:
        for bar in bars.values():
            bar.close()
        bars.clear()

    def tell(event: ExtractEvent) -> None:
        if not is_shown:
            return
        if event.phase not in bars:
            # Or the time of the phase that has ended would go on, and two bars take turns.
            close()
            bars[event.phase] = tqdm(
                total=event.total, initial=event.done, desc=event.phase, unit=event.unit
            )
        bar = bars[event.phase]
        bar.update(event.done - bar.n)
        if event.row_bytes:
            rate = bar.format_dict["rate"] or 0.0
            bar.set_postfix_str(f"{rate * event.row_bytes / 1e9:.3f} GB/s", refresh=False)

    try:
        yield tell
    finally:
        close()


@contextmanager
def adapt_bar() -> Iterator[Callable[[ProgressEvent], None]]:
    """A bar over the training batches of all epochs, with the last validation's figures."""
    bar: tqdm[Any] | None = None

    def tell(event: ProgressEvent) -> None:
        nonlocal bar
        if event.phase == "train":
            done = event.epoch * event.steps + event.step
            bar = bar or tqdm(total=event.epochs * event.steps, initial=done, unit="batches")
            bar.update(done - bar.n)
        if bar is not None and event.metrics:
            figures = {name: f"{value:.4g}" for name, value in event.metrics.items()}
            bar.set_postfix({"epoch": event.epoch + 1, **figures}, refresh=False)

    try:
        yield tell
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def trials_bar(*, is_shown: bool = True) -> Iterator[Callable[[float, int], None]]:
    """A bar over the trials of a sweep, those in training by the share that is done of them."""
    bar: tqdm[Any] | None = None

    def tell(done: float, total: int) -> None:
        nonlocal bar
        if is_shown:
            form = "{percentage:3.0f}%|{bar}| {n:.1f}/{total} [{elapsed}<{remaining}, {rate_fmt}]"
            bar = bar or tqdm(total=total, initial=done, unit=" trials", bar_format=form)
            bar.update(max(0.0, done - bar.n))

    try:
        yield tell
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def bytes_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar over bytes."""
    bar: tqdm[Any] | None = None

    def tell(done: int, total: int) -> None:
        nonlocal bar
        bar = bar or tqdm(total=total, unit="B", unit_scale=True)
        bar.update(done - bar.n)

    try:
        yield tell
    finally:
        if bar is not None:
            bar.close()


def show_warnings_only() -> None:
    """Leave what is merely worth knowing, or that we were told to end, to another process."""
    logging.getLogger("losa").setLevel(logging.WARNING)
    _says_stops[:] = [False]


def run(command: Callable[[], None]) -> int:
    """Run a command; whatever goes wrong becomes one line on stderr and an exit code."""
    logging.basicConfig(level=logging.WARNING, format="losa: %(message)s", stream=sys.stderr)
    logging.getLogger("losa").setLevel(logging.INFO)
    _stops_seen.clear()
    _says_stops[:] = [True]
    for number in SIGNALS:
        signal.signal(number, _note_stop)
    try:
        command()
    except (KeyboardInterrupt, SystemExit) as stop:
        return _leave(stop)
    except StoppedError as error:
        todo = "" if error.todo else f"; go on with: {shlex.join(['losa', *sys.argv[1:]])}"
        note(clean(f"losa: error: {error}{todo}"))
        return error.exit_code
    except LosaError as error:
        note(clean(f"losa: error: {error}"))
        return error.exit_code
    except Exception as error:
        known = _system_error(error)
        if known is None:
            return _bug(error)
        note(clean(f"losa: error: {known}"))
        return known.exit_code
    return 0


def reraise_stop() -> None:
    """Raise again the interrupt that a library on the way has turned into something else.

    Raises:
        KeyboardInterrupt: Ctrl-C, or as :class:`Terminated` SIGTERM, came while the command ran.
    """
    if _stops_seen:
        raise _stops_seen[-1]


_KINDS: Final[Mapping[int, type[KeyboardInterrupt]]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
}
_stops_seen: list[type[KeyboardInterrupt]] = []
_says_stops: Final = [True]


def _leave(stop: KeyboardInterrupt | SystemExit) -> int:
    """Say that we were told to end; of what leaves, a training that has saved says so by 75."""
    if isinstance(stop, SystemExit) and stop.code != PREEMPTED:
        raise stop
    word, code = _STOPS.get(type(stop), _STOPS[Preempted])
    if _says_stops[0]:
        _fail(word, "run the same command again to go on", code)
    return code


def _note_stop(number: int, _: object) -> None:
    kind = _KINDS.get(number, Preempted)
    _stops_seen.append(kind)
    raise kind


def _system_error(error: Exception) -> LosaError | None:
    """What the system refused, if that is what an exception nobody expected says."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return ResourceError("memory", "there is not enough", "use a smaller batch or fewer taps")
    if isinstance(error, OSError):
        if error.filename is None and error.errno not in _LACKS:
            return None
        reason = (error.strerror or text).lower()
        subject = "disk" if error.filename is None else error.filename
        return ResourceError(subject, reason, "check the place and its permissions")
    if is_out_of_memory(error):
        return ResourceError(
            "--batch-size", f"out of memory ({text[:120]})", "use a smaller batch or image size"
        )
    return None


def _fail(what: str, todo: str, code: int) -> int:
    note(f"losa: error: {what}; {todo}")
    return code


def _bug(error: Exception) -> int:
    if os.environ.get("LOSA_DEBUG") == "1":
        raise error
    with tempfile.NamedTemporaryFile(
        "w", prefix="losa-", suffix=".traceback.txt", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exception(error, file=file)
    what = clean(" ".join(f"{type(error).__name__}: {error}".split()))
    return _fail(f"bug: {what}", f"please report it with {Path(file.name)}", 1)
