"""``python -m benchmarks NAME [ARGS]`` runs one benchmark; without a name it lists them."""

from __future__ import annotations

import sys
from importlib import import_module

from losa.errors import UsageError

BENCHMARKS = {
    "reader": "M1: shuffled batches against a copy from RAM and against zarr-python's oindex",
    "ablation": "which of the open points of the side network matter",
    "tasks": "accuracy of every adaptor on the offline tasks, chosen on val, over seeds",
}


def main(argv: list[str]) -> int:
    """Run the named benchmark and return its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        for name, question in BENCHMARKS.items():
            print(f"python -m benchmarks {name:8} {question}")
        return 0
    if argv[0] not in BENCHMARKS:
        error = UsageError("NAME", f"{argv[0]!r} is unknown", f"use one of {', '.join(BENCHMARKS)}")
        print(f"losa: error: {error}", file=sys.stderr)
        return error.exit_code
    code: int = import_module(f"benchmarks.{argv[0]}").main(argv[1:])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
