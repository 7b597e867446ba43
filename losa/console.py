"""The one place that prints: results to stdout as one JSON line, the rest to stderr.

Bars, tables and errors go to stderr, so that ``losa ... | jq`` always works.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from losa.errors import LosaError

if TYPE_CHECKING:
    from losa.adapt.progress import ProgressEvent
    from losa.extract.run import ExtractEvent


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM)."""


_STOPS = {KeyboardInterrupt: ("interrupted", 130), Terminated: ("terminated", 143)}


def show_result(result: Any) -> None:
    """Print a result as one JSON line on stdout."""
    print(json.dumps(result, ensure_ascii=False, default=str), flush=True)


def show_table(rows: Iterable[Sequence[object]], header: Sequence[str]) -> None:
    """Print aligned columns on stderr, numbers to the right."""
    texts = [[clean(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *texts]) for i in range(len(header))]
    note("  ".join(name.ljust(width) for name, width in zip(header, widths, strict=True)).rstrip())
    for row in texts:
        cells = [
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        note("  ".join(cells).rstrip())


def note(text: str) -> None:
    """Print one line for people, on stderr, without breaking a bar."""
    tqdm.write(text, file=sys.stderr)


def clean(text: str) -> str:
    """Text from files made safe for a terminal: control characters are shown, not sent."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


@contextmanager
def extract_bar() -> Iterator[Callable[[ExtractEvent], None]]:
    """A bar over samples, with samples/s, GB/s and the time left."""
    bars: dict[str, tqdm[Any]] = {}

    def tell(event: ExtractEvent) -> None:
        if event.phase not in bars:
            bars[event.phase] = tqdm(
                total=event.total, initial=event.done, desc=event.phase, unit="samples"
            )
        bar = bars[event.phase]
        bar.update(event.done - bar.n)
        rate = bar.format_dict["rate"] or 0.0
        bar.set_postfix_str(f"{rate * event.row_bytes / 1e9:.3f} GB/s", refresh=False)

    try:
        yield tell
    finally:
        for bar in bars.values():
            bar.close()


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


def run(command: Callable[[], None]) -> int:
    """Run a command; whatever goes wrong becomes one line on stderr and an exit code."""
    logging.basicConfig(level=logging.WARNING, format="losa: %(message)s", stream=sys.stderr)
    logging.getLogger("losa").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        command()
    except KeyboardInterrupt as stop:
        word, code = _STOPS[type(stop)]
        return _fail(word, "run the same command again to go on", code)
    except LosaError as error:
        note(clean(f"losa: error: {error}"))
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has left; nothing is lost and nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail("out of memory", "use a smaller --batch-size or fewer --taps", 6)
    except Exception as error:
        return _bug(error)
    return 0


def _terminate(*_: object) -> None:
    raise Terminated


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
