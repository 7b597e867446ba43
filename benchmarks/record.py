"""Where a figure comes from: command, commit and machine, written beside every result."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Cores and processor, nothing that names a host."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{len(os.sched_getaffinity(0))} cores of {model}"


@cache
def commit() -> str:
    """The commit measured, marked when the tree differs from it: what it was when first asked.

    A new module is a difference; results, which every benchmark writes, are none.
    """
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", ":/", ":(top,exclude)benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if changed else "")


def versions() -> dict[str, str]:
    """Versions of the libraries that are compared, as far as they are installed."""
    found = {}
    for item in ("numpy", "torch", "timm", "peft", "zarr", "h5py", "tensorstore"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[item] = metadata.version(item)
    return found


def publish(name: str, argv: list[str], result: dict[str, Any], *, variant: str = "") -> None:
    """Write ``results/NAME.json`` and print the document as the last line of stdout.

    ``variant`` is added to the file's name, where a benchmark has several documents.
    """
    document = {
        "benchmark": name,
        "command": " ".join(["python -m benchmarks", name, *argv]),
        "commit": commit(),
        "machine": machine(),
        "python": platform.python_version(),
        "versions": versions(),
        **result,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}{variant}.json").write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document))


def attach(name: str, content: bytes) -> None:
    """Write ``results/NAME``, what belongs to a document but is not JSON."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_bytes(content)


def note(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    ).stdout.strip()
