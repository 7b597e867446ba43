"""Opening a clip: first what the file is, then the decoder that was chosen for it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from losa.errors import ResourceError, UsageError
from losa.extract.clips.clip import ClipInfo, ClipReader, Frames, check_size
from losa.extract.clips.containers import Container, recognised
from losa.extract.images import ImageError, ImageStatus, regular_file

__all__ = [
    "EXTENSIONS",
    "ClipInfo",
    "ClipReader",
    "Decoder",
    "decoder_version",
    "is_installed",
    "open_clip",
    "resolve_decoder",
]

Decoder = Literal["decord", "pyav"]
"""What decodes; a plan records which, because their pixels may differ."""

EXTENSIONS: Final = frozenset([".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts"])
"""Endings of files that a folder's listing takes for clips; what they are, their bytes tell."""

_MODULES: Final[dict[Decoder, str]] = {"decord": "decord", "pyav": "av"}
_INSTALL: Final[dict[Decoder, str]] = {
    "decord": "pip install decord (Linux and Windows on x86-64), or give --decoder pyav",
    "pyav": "pip install 'losa[video]'",
}


def resolve_decoder(name: str = "auto") -> Decoder:
    """The decoder that a name stands for; ``auto``: decord where it is installed, else PyAV.

    Raises:
        UsageError: there is no decoder of that name.
        ResourceError: it is not installed.
    """
    if name == "auto":
        installed = [decoder for decoder in _MODULES if is_installed(decoder)]
        if not installed:
            raise ResourceError("--decoder auto", "no decoder is installed", _INSTALL["pyav"])
        return installed[0]
    for decoder, install in _INSTALL.items():
        if decoder == name:
            if not is_installed(decoder):
                raise ResourceError(f"--decoder {name}", "is not installed", install)
            return decoder
    raise UsageError("--decoder", f"{name!r} is no decoder", "give auto, decord or pyav")


def is_installed(decoder: Decoder) -> bool:
    """Whether a decoder can be imported."""
    return find_spec(_MODULES[decoder]) is not None


def decoder_version(decoder: Decoder) -> str:
    """Name and version of a decoder: what its pixels depend on."""
    if decoder == "decord":
        from losa.extract.clips import decord_reader

        return decord_reader.NAME
    from losa.extract.clips import pyav_reader

    return pyav_reader.NAME


def open_clip(path: Path, decoder: Decoder, opened_ns: int | None = None) -> ClipReader:
    """Open a file of video; it is to be closed (``contextlib.closing``).

    Only regular files of four containers come to a decoder, by a path of ours: none that a data
    set could have made up.

    Args:
        path: the file.
        decoder: what decodes it.
        opened_ns: a file that was written after this time, as ``time.time_ns`` counts it, has
            changed under the run; ``None``: that is nobody's concern.

    Raises:
        ImageError: the file is missing, is no regular file, or holds no usable video.
    """
    with ExitStack() as stack:
        file = stack.enter_context(regular_file(path, opened_ns))
        container = recognised(path, file.fileno())
        _check_container(path, container)
        reader: ClipReader
        place = f"/dev/fd/{file.fileno()}"
        if decoder == "decord":
            from losa.extract.clips.decord_reader import DecordReader

            reader = DecordReader(path, place, container)
        else:
            from losa.extract.clips.pyav_reader import PyavReader

            reader = PyavReader(path, place, container)
        stack.callback(reader.close)
        return _OpenClip(reader, stack.pop_all())
    raise AssertionError("an exit stack swallows nothing")


def _check_container(path: Path, container: Container) -> None:
    """Refuse what its container says is unfit, before a decoder sees it."""
    check_size(path, container.width, container.height)
    if not container.has_video:
        raise ImageError(path, ImageStatus.FORMAT, "holds no video")
    if container.is_cut and container.kind != "mov":
        # An mp4 file says how many frames it should have; of these, nobody knows what is missing.
        raise ImageError(path, ImageStatus.DAMAGED, "is cut short")


class _OpenClip:
    """A reader together with the file that it reads, whose changes it tells."""

    def __init__(self, reader: ClipReader, stack: ExitStack) -> None:
        self._reader = reader
        self._stack = stack

    @property
    def info(self) -> ClipInfo:
        return self._reader.info

    def frames_at(self, indices: Sequence[int]) -> Frames:
        return self._reader.frames_at(indices)

    def close(self) -> None:
        self._stack.close()
