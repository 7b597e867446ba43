"""Decoders that fare badly, for worker processes, which import them by name."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from losa.extract.images import load_pixels
from losa.extract.media import Media
from losa.extract.transforms import Preprocessing

HALF = (0.5, 0.5, 0.5)
SMALL = Preprocessing((8, 8), 1.0, "center", "bicubic", HALF, HALF)


def troubled(
    place: Path | Media, preprocessing: Preprocessing = SMALL, opened_ns: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels, but for files whose names say what their decoder does."""
    assert isinstance(place, Media)
    name = place.path.name
    if "once" not in name or _is_first_time(place.path):
        if "segfault" in name:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "exit" in name:
            os._exit(3)
        if "memory" in name:
            raise MemoryError
        if "hang" in name:
            threading.Event().wait()
        if "bug" in name:
            raise KeyError(name)
        if "slow" in name:
            threading.Event().wait(0.1)
    return load_pixels(place, preprocessing, opened_ns)


def _is_first_time(path: Path) -> bool:
    mark = path.with_suffix(".tried")
    is_first = not mark.exists()
    mark.touch()
    return is_first


class NeverStarts:
    """A decoder that no process survives receiving."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (5,)

    def __call__(self, media: Media) -> UInt8[np.ndarray, "h w 3"]:
        raise AssertionError(media)
