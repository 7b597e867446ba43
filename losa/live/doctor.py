"""``losa doctor``: is this machine fit, and what is missing?"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch

from losa.errors import ResourceError

PACKAGES: Final = ("torch", "timm", "numpy", "zarr", "h5py", "safetensors", "pillow", "pydantic")
OPTIONAL: Final = {
    "decord": "video decoding (has wheels for Linux and Windows on x86-64)",
    "av": "video decoding by PyAV, where decord is not (pip install 'losa[video]')",
}
PROBE_BYTES: Final = 64 * 2**20
SPARE_BYTES: Final = 10**9


def examine(path: Path) -> list[dict[str, Any]]:
    """One finding per matter: ``what``, ``found``, and whether it is ``ok``.

    Raises:
        ResourceError: ``path`` cannot be written, so its disk cannot be measured.
    """
    findings = [_finding("python", platform.python_version(), ok=True)]
    findings += [_package(name) for name in PACKAGES]
    findings += [
        _finding(
            name, "installed" if find_spec(name) else f"absent: {use}", ok=bool(find_spec(name))
        )
        for name, use in OPTIONAL.items()
    ]
    findings.append(_cuda())
    cores = len(os.sched_getaffinity(0))
    findings.append(
        _finding("cpu", f"{cores} cores, torch uses {torch.get_num_threads()}", ok=True)
    )
    return findings + _disk(path)


def _package(name: str) -> dict[str, Any]:
    try:
        return _finding(name, metadata.version(name), ok=True)
    except metadata.PackageNotFoundError:
        return _finding(name, "absent: pip install losa", ok=False)


def _cuda() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return _finding("cuda", "no device; the CPU is used", ok=True)
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    text = ", ".join(f"{item.name} {item.total_memory / 2**30:.0f} GiB" for item in devices)
    return _finding("cuda", text, ok=True)


def _disk(path: Path) -> list[dict[str, Any]]:
    """Free space, and the rate of writing and reading back one shard-sized file."""
    block = os.urandom(2**20)
    try:
        stats = os.statvfs(path)
        with tempfile.TemporaryFile(dir=path, buffering=0) as file:
            started = time.perf_counter()
            for _ in range(PROBE_BYTES // len(block)):
                file.write(block)
            os.fsync(file.fileno())
            write = PROBE_BYTES / (time.perf_counter() - started)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            started = time.perf_counter()
            while file.read(len(block)):
                pass
            read = PROBE_BYTES / (time.perf_counter() - started)
    except (OSError, ValueError) as error:
        # ValueError: a NUL or half a surrogate pair, which a message must not repeat raw.
        subject = ascii(str(path)) if isinstance(error, ValueError) else path
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise ResourceError(subject, f"cannot be written ({why})", "give --path") from None
    free = stats.f_bavail * stats.f_frsize
    findings = [_finding("disk free", f"{free / 1e9:.1f} GB at {path}", ok=free > SPARE_BYTES)]
    findings.append(_finding("disk write", f"{write / 1e9:.2f} GB/s with fsync", ok=True))
    findings.append(_finding("disk read", f"{read / 1e9:.2f} GB/s", ok=True))
    return findings


def _finding(what: str, found: str, *, ok: bool) -> dict[str, Any]:
    return {"what": what, "found": found, "ok": ok}
