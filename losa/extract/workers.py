"""Decode processes that are replaced when they die or hang, and what each image came to.

Every process belongs to one thread of its parent, says after each image what it came to, and
thereby which image it is at. The one at which it dies or hangs is tried once more, alone in a fresh
process; then it is that image's failure. Processes are spawned, import Pillow and numpy alone,
leave Ctrl-C to their parent, and end by themselves when it is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from typing import Final

import numpy as np
from jaxtyping import UInt8

from losa.errors import ResourceError
from losa.extract.images import ImageError, ImageStatus, filter_warnings
from losa.extract.media import Media

CLIP_SECONDS: Final = 300.0
"""How long one clip may take: all frames from the one before its first are decoded."""

IMAGE_SECONDS: Final = 30.0
"""How long one image may take to be read and decoded."""

Pixels = UInt8[np.ndarray, "... h w 3"]
Load = Callable[[Media], Pixels]
"""How an image or a clip becomes pixels; it raises ``ImageError`` where there are none."""

_STARTS: Final = 3
_START_SECONDS: Final = 300.0
"""Not an image's time: Python itself may come from a slow network disk."""

_READY: Final = b"ready"
_BUG: Final = 0
"""No status of an image; what follows is a traceback."""

_OUT_OF_MEMORY: Final = 86
"""Exit code of a process without memory: whether that is the image's fault, a fresh one tells."""


class DecodeWorkers:
    """Decode processes, one for each thread that asks, none of which is missed when it dies.

    Args:
        load: how one image becomes pixels; it travels to the processes.
        shape: of the pixels of every image or clip that comes out.
        seconds: how long one may take.
    """

    def __init__(
        self, load: Load, shape: tuple[int, ...], *, seconds: float = IMAGE_SECONDS
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._load = load
        self._shape = shape
        self._seconds = seconds
        # Two threads that wait for the same process at once would each think it still there.
        self._lock = threading.Lock()
        self._by_thread: dict[int, _Worker] = {}
        self._is_closed = False

    def outcomes(self, items: Sequence[Media]) -> Iterator[Pixels | ImageError]:
        """Pixels of each image in order, or why it has none, whoever dies over it.

        Raises:
            ResourceError: no process can be started.
        """
        done = 0
        while done < len(items):
            for found in self._until_lost(items[done:]):
                done += 1
                yield found
            if done < len(items):
                yield self._alone(items[done])
                done += 1

    def close(self) -> None:
        """End all processes, whatever they are at."""
        with self._lock:
            self._is_closed = True
            for worker in self._by_thread.values():
                worker.kill()
            self._by_thread.clear()

    def _until_lost(self, items: Sequence[Media]) -> Iterator[Pixels | ImageError]:
        """What one process says of the images, up to that at which it is lost."""
        worker = self._mine()
        try:
            yield from worker.outcomes(items, self._shape, self._seconds)
        except _LostError:
            self._discard(worker)
        except BaseException:  # left half-way: its next answers would be those of other images
            self._discard(worker)
            raise

    def _alone(self, item: Media) -> Pixels | ImageError:
        """The second and last attempt at an image."""
        worker = self._mine()
        try:
            (found,) = worker.outcomes([item], self._shape, self._seconds)
        except _LostError as lost:
            self._discard(worker)
            if lost.code == ImageStatus.TIMEOUT:
                what = f"was not decoded within {self._seconds:g} s, twice"
            else:
                what = f"ended its decoder twice ({worker.fate})"
            return ImageError(item.path, lost.code, what)
        return found

    def _mine(self) -> _Worker:
        """This thread's process, started if it has none."""
        fate = ""
        for _ in range(_STARTS):
            with self._lock:
                if self._is_closed:
                    raise _closed()
                worker = self._by_thread.get(threading.get_ident())
                if worker is not None:
                    return worker
                worker = _Worker(self._context, self._load)
                self._by_thread[threading.get_ident()] = worker
            if worker.is_ready():
                return worker
            self._discard(worker)
            fate = worker.fate
        raise ResourceError(
            "--num-workers",
            f"decode workers die before they begin ({fate})",
            "use fewer, or 0 to decode in this process",
        )

    def _discard(self, worker: _Worker) -> None:
        """End a process for good."""
        with self._lock:
            worker.kill()
            if self._by_thread.get(threading.get_ident()) is worker:
                del self._by_thread[threading.get_ident()]
            if self._is_closed:
                raise _closed()


class _LostError(Exception):
    """A decode process died or hangs: what that would be for the image it is at."""

    def __init__(self, code: ImageStatus) -> None:
        self.code = code
        super().__init__(code.name)


class _Worker:
    """The parent's side of one process."""

    def __init__(self, context: SpawnContext, load: Load) -> None:
        self._warm: set[str] = set()
        self._pipe, theirs = context.Pipe()
        # A daemon, so that even a parent that leaves the pool open ends it.
        self._process = context.Process(target=_serve, args=(theirs, load), daemon=True)
        try:
            self._process.start()
        except OSError as error:
            what = f"a decode worker cannot be started ({error.strerror})"
            raise ResourceError("--num-workers", what, "use fewer, or 0") from None
        finally:
            theirs.close()

    def is_ready(self) -> bool:
        """Wait for it; whether it has begun."""
        with suppress(EOFError, OSError):
            return self._pipe.poll(_START_SECONDS) and self._pipe.recv_bytes() == _READY
        return False

    def outcomes(
        self, items: Sequence[Media], shape: tuple[int, ...], seconds: float
    ) -> Iterator[Pixels | ImageError]:
        """What it says of each image.

        Raises:
            _LostError: it died or hangs at the next one.
        """
        self._send(items)
        for item in items:
            # What first imports an augmentation's library is not the image.
            is_cold = bool(item.policy) and item.policy not in self._warm
            answer = self._receive(max(seconds, _START_SECONDS) if is_cold else seconds)
            self._warm.add(item.policy)
            if answer[0] == _BUG:
                raise RuntimeError(f"in a decode worker:\n{answer[1:].decode()}")
            if answer[0] == ImageStatus.OK:
                yield np.frombuffer(answer, np.uint8, offset=1).reshape(shape)
            else:
                what = answer[1:].decode(errors="surrogatepass")
                yield ImageError(item.path, ImageStatus(answer[0]), what)

    def kill(self) -> None:
        """End it; what it decoded is nobody's any more."""
        self._process.kill()
        self._process.join()

    @property
    def fate(self) -> str:
        """How it ended, in the same words whenever it ends alike: stores record them."""
        code = self._process.exitcode
        if code == _OUT_OF_MEMORY:
            return "out of memory"
        if code is None or code >= 0:
            return f"exit code {code}"
        return f"signal {-code}"

    def _send(self, items: Sequence[Media]) -> None:
        # What died is found by whoever waits for its answer.
        with suppress(OSError):
            self._pipe.send(tuple(items))

    def _receive(self, seconds: float) -> bytes:
        try:
            if self._pipe.poll(seconds):
                return self._pipe.recv_bytes()
        except (EOFError, OSError):
            raise _LostError(ImageStatus.CRASH) from None
        raise _LostError(ImageStatus.TIMEOUT)


def _closed() -> ResourceError:
    """What a thread meets whose pool closes under it; nobody waits for its batch any more."""
    return ResourceError("--num-workers", "the decode workers were ended")


def _serve(pipe: Connection, load: Load) -> None:
    """Decode what the parent sends, in a worker process, until one of the two ends."""
    # The parent decides what a signal to the whole group means. Not SIGTERM: by it multiprocessing
    # ends what a parent left open.
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    filter_warnings()
    threading.Thread(target=_leave_with_parent, name="losa-parent", daemon=True).start()
    with suppress(EOFError, OSError):
        pipe.send_bytes(_READY)
        _silence()
        while True:
            for media in pipe.recv():
                pipe.send_bytes(_answer(media, load))


def _silence() -> None:
    """Drop what libjpeg and libtiff write to stderr of damaged files; Pillow tells us as well."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _answer(media: Media, load: Load) -> bytes:
    """One byte of status, then the pixels or the reason.

    Not pickled: what decodes strangers' files should have no way to run code in its parent.
    """
    try:
        return bytes([ImageStatus.OK]) + load(media).tobytes()
    except ImageError as error:
        return bytes([error.code]) + error.what.encode(errors="surrogatepass")
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)
    except Exception:  # a mistake of ours, which the parent must not take for the image's
        return bytes([_BUG]) + traceback.format_exc().encode(errors="backslashreplace")


def _leave_with_parent() -> None:
    """End this process when its parent is gone: one that hangs reads no pipe."""
    parent = multiprocessing.parent_process()
    with suppress(OSError):
        if parent is not None:
            parent.join()
    os._exit(1)
