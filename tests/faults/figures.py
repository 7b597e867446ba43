"""What the whole run has counted, written beside the benchmarks' results."""

from __future__ import annotations

import json
import platform
from typing import Any

from benchmarks.record import RESULTS, commit, machine


def publish(name: str, figures: dict[str, Any]) -> None:
    """Write ``benchmarks/results/faults-NAME.json``."""
    document = {
        "test": f"faults-{name}",
        "command": "make test-faults",
        "commit": commit(),
        "machine": machine(),
        "python": platform.python_version(),
        **figures,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"faults-{name}.json").write_text(json.dumps(document, indent=2) + "\n")
