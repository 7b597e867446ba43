"""Is there room? Asked before the backbone runs, because nothing is sadder than a full disk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from losa.errors import ResourceError
from losa.store import layout
from losa.store.plan import Plan

MARGIN: Final = 1.02
TOO_FULL: Final = "free space, give another --store, or keep fewer --taps or --tokens"
_UNITS: Final = ((10**9, "GB"), (10**6, "MB"), (0, "kB"))


def bytes_needed(plan: Plan, rows: int | None = None, processes: int = 1) -> int:
    """Bytes that ``rows`` more rows (all by default) will take, with a shard to spare a process."""
    everything = sum(split.rows for split in plan.splits.values())
    rows = everything if rows is None else rows
    spare = min(rows, processes * plan.shard_rows)
    return int((rows * MARGIN + spare) * plan.spec.sample_bytes)


def check_space(path: Path, plan: Plan, rows: int | None = None, processes: int = 1) -> None:
    """Refuse to begin what the disk cannot hold, or to go on with it.

    Raises:
        ResourceError: less is free where ``path`` lies, or will lie, than ``processes`` need that
            write so many rows.
    """
    needed = bytes_needed(plan, rows, processes) - open_bytes(path)
    check_room(path, needed, TOO_FULL)


def open_bytes(path: Path) -> int:
    """Bytes of the shards of a store that are being written just now.

    Their rows are still missing, and their bytes are not free any more: whoever counts what is
    needed while others write would count them twice.
    """
    total = 0
    with suppress(OSError):
        for entry in (path / layout.TMP_FOLDER).iterdir():
            with suppress(OSError):  # published or dropped just now
                total += entry.stat().st_size
    return total


def check_room(path: Path, needed: int, todo: str) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        ResourceError: less than ``needed`` bytes are free where ``path`` lies, or will lie.
    """
    free = free_bytes(path)
    if needed > free:
        what = f"{in_units(needed)} needed, {in_units(free)} free on its disk"
        raise ResourceError(path, what, todo)


def free_bytes(path: Path) -> int:
    """Bytes free where ``path`` lies, or will lie."""
    stats = os.statvfs(existing_place(path))
    return stats.f_bavail * stats.f_frsize


def existing_place(path: Path) -> Path:
    """``path``, or the nearest folder above it that is there."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return place


def in_units(count: int) -> str:
    """A number of bytes for people.

    Example:
        >>> in_units(700), in_units(2_500_000), in_units(3 * 10**12)
        ('0.7 kB', '2.5 MB', '3000.0 GB')
    """
    size, unit = next(scale for scale in _UNITS if count >= scale[0])
    return f"{count / (size or 1e3):.1f} {unit}"
